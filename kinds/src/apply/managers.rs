//! Who owns which fields: `metadata.managedFields`, read and written.
//!
//! Ownership is kept for each manager and operation; for updates also for each version, and for both for each subresource.
//!
//! Invariants: [`Managed::parse`] of [`Managed::to_json`] is the same, times to the second; nobody owns an empty set once a write
//! was recorded; more than [`UPDATERS_MAX`] updaters become one, the oldest first.
//! Left to others: what a write adds and takes (`super`). Names that are too long are told by [`manager_faults`] and kept.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value};
use weft_api::status::Cause;

use super::ManagedError;
use super::element::Element;
use super::fields::Set;

/// Entries of updates that an object keeps, as in Kubernetes: controllers and people come and go.
const UPDATERS_MAX: usize = 10;

/// Bytes of a manager's name, as in Kubernetes.
const NAME_MAX: usize = 128;

/// Whom the fields of the oldest updaters are given to.
const ANCIENT: &str = "ancient-changes";

/// Who makes a write, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// As [`manager_name`] gives it.
    pub manager: &'a str,
    pub now: Timestamp,
}

/// How fields came to be owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// Whose entry it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    pub name: String,
    pub operation: Operation,
    /// Empty for those who apply: they have one entry, whatever version they last wrote.
    pub api_version: String,
    /// Empty for the object's own door.
    pub subresource: String,
}

impl Manager {
    pub(super) fn new(name: &str, operation: Operation, version: &str, subresource: &str) -> Self {
        Self {
            name: if name.is_empty() { "unknown" } else { name }.to_owned(),
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => version.to_owned(),
            },
            subresource: subresource.to_owned(),
        }
    }
}

/// As conflicts name it: `"kubectl" with subresource "status" using apps/v1`.
impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(f, " using {}", self.api_version),
        }
    }
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The version that the fields are named in.
    pub api_version: String,
    pub fields: Set,
    /// When the manager last changed something. A manager that only ever agreed with what was there has none.
    pub time: Option<Timestamp>,
}

/// All owners of an object's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Managed {
    pub(super) entries: BTreeMap<Manager, Entry>,
}

impl Managed {
    /// Reads `metadata.managedFields`; nothing and null are nobody.
    ///
    /// # Errors
    /// [`ManagedError`] for the first entry that is none.
    pub fn parse(list: Option<&Value>) -> Result<Self, ManagedError> {
        let list = match list {
            None | Some(Value::Null) => return Ok(Self::default()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(ManagedError::NotAList),
        };
        let mut entries = BTreeMap::new();
        for (place, entry) in list.iter().enumerate() {
            let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(ManagedError::Operation),
            };
            let version = text("apiVersion");
            if version.is_empty() {
                return Err(ManagedError::NoVersion);
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(ManagedError::NoFieldsType { place }),
                other => {
                    return Err(ManagedError::FieldsType {
                        found: other.to_owned(),
                        place,
                    });
                }
            }
            let time = match text("time") {
                "" => None,
                time => Some(seconds(
                    time.parse().map_err(|_| ManagedError::Time { place })?,
                )),
            };
            let fields = Set::parse(entry.get("fieldsV1").unwrap_or(&Value::Null))?;
            let mut manager = Manager::new("", operation, version, text("subresource"));
            text("manager").clone_into(&mut manager.name);
            let entry = Entry {
                api_version: version.to_owned(),
                fields,
                time,
            };
            entries.insert(manager, entry);
        }
        Ok(Self { entries })
    }

    /// The list, in the order of Kubernetes: who applies before who updates, the oldest first. None for nobody.
    pub fn to_json(&self) -> Option<Value> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(manager, entry)| {
            let time = entry.time.map_or(0, Timestamp::as_second);
            (
                manager.operation,
                time,
                manager.name.as_str(),
                entry.api_version.as_str(),
                manager.subresource.as_str(),
            )
        });
        let list = entries.into_iter().map(|(manager, entry)| {
            let fields = entry.fields.to_json();
            written(manager, &entry.api_version, fields, entry.time)
        });
        (!self.entries.is_empty()).then(|| Value::Array(list.collect()))
    }

    /// The list that [`Managed::to_json`] makes of the one entry of a first update.
    pub(super) fn first(writer: Writer<'_>, api_version: &str, fields: Value) -> Value {
        let manager = Manager::new(writer.manager, Operation::Update, api_version, "");
        let time = Some(writer.now);
        Value::Array(vec![written(&manager, api_version, fields, time)])
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn entries(&self) -> impl Iterator<Item = (&Manager, &Entry)> {
        self.entries.iter()
    }

    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|_, entry| !entry.fields.is_empty());
    }

    /// Gives a manager these fields beside those that it has.
    pub(super) fn give(
        &mut self,
        manager: Manager,
        api_version: &str,
        fields: Set,
        now: Timestamp,
    ) {
        let entry = self.entries.entry(manager).or_insert_with(|| Entry {
            api_version: api_version.to_owned(),
            fields: Set::default(),
            time: None,
        });
        entry.fields.absorb(fields);
        entry.time = Some(seconds(now));
    }

    /// Takes metadata that is nobody's out of a manager's fields.
    pub(super) fn strip(&mut self, manager: &Manager) {
        if let Some(entry) = self.entries.get_mut(manager) {
            entry.fields = stripped(std::mem::take(&mut entry.fields));
        }
        self.drop_empty();
    }

    /// Joins the oldest updaters, those of one version each, until there are not too many.
    pub(super) fn cap(&mut self) {
        let updaters = self.entries.iter();
        let updaters = updaters.filter(|(manager, _)| manager.operation == Operation::Update);
        let mut updaters: Vec<(i64, Manager)> = updaters
            .map(|(manager, entry)| (entry.time.map_or(0, Timestamp::as_second), manager.clone()))
            .collect();
        let mut count = updaters.len();
        updaters.sort();
        let mut first_of_version: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, manager) in updaters {
            if count <= UPDATERS_MAX {
                break;
            }
            let version = manager.api_version.clone();
            let Some(first) = first_of_version.get(&version) else {
                first_of_version.insert(version, manager);
                continue;
            };
            let bucket = Manager::new(ANCIENT, Operation::Update, &version, "");
            if !self.entries.contains_key(&bucket)
                && let Some(entry) = self.entries.remove(first)
            {
                self.entries.insert(bucket.clone(), entry);
            }
            // The bucket itself may be among the oldest, and then stays what the others are joined with.
            if manager != bucket
                && let Some(old) = self.entries.remove(&manager)
                && let Some(ancient) = self.entries.get_mut(&bucket)
            {
                ancient.fields.extend(&old.fields);
                ancient.time = old.time;
                count -= 1;
            }
        }
    }
}

/// An entry of the list.
fn written(manager: &Manager, api_version: &str, fields: Value, time: Option<Timestamp>) -> Value {
    let operation = match manager.operation {
        Operation::Apply => "Apply",
        Operation::Update => "Update",
    };
    let mut entry = Map::new();
    let mut put = |name: &str, value: Value| entry.insert(name.to_owned(), value);
    put("apiVersion", api_version.into());
    put("fieldsType", "FieldsV1".into());
    put("fieldsV1", fields);
    put("operation", operation.into());
    let optional = [
        ("manager", &manager.name),
        ("subresource", &manager.subresource),
    ];
    for (name, text) in optional.into_iter().filter(|(_, text)| !text.is_empty()) {
        put(name, text.as_str().into());
    }
    if let Some(time) = time {
        put("time", seconds(time).to_string().into());
    }
    Value::Object(entry)
}

fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Without what names an object and what the server keeps.
pub(super) fn stripped(mut fields: Set) -> Set {
    fields.subtract(&NOBODYS);
    fields
}

/// What [`stripped`] takes away.
pub(super) fn nobodys() -> &'static Set {
    &NOBODYS
}

/// What names an object, and what the server keeps.
static NOBODYS: LazyLock<Set> = LazyLock::new(|| {
    let mut nobodys = Set::default();
    for top in ["apiVersion", "kind", "metadata"] {
        nobodys.insert(&[Element::field(top)]);
    }
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        nobodys.insert(&[Element::field("metadata"), Element::field(name)]);
    }
    nobodys
});

/// Whether a client asks to forget all owners: an empty list, or one entry that says nothing.
pub(super) fn is_reset(list: Option<&Value>) -> bool {
    let says_nothing = |entry: &Map<String, Value>| {
        let mut values = entry.values();
        values.all(|value| value.is_null() || value.as_str() == Some(""))
    };
    match list.and_then(Value::as_array).map(Vec::as_slice) {
        Some([]) => true,
        Some([entry]) => entry.as_object().is_some_and(says_nothing),
        _ => false,
    }
}

/// The name that a write goes by: the field manager that it names, or what its user agent says before the first slash.
pub fn manager_name(field_manager: &str, user_agent: &str) -> String {
    if !field_manager.is_empty() {
        return field_manager.to_owned();
    }
    let agent = user_agent.split('/').next().unwrap_or_default();
    let mut name = String::new();
    for letter in agent.chars().filter(|letter| is_printable(*letter)) {
        if name.len() + letter.len_utf8() > NAME_MAX {
            break;
        }
        name.push(letter);
    }
    name
}

/// What Go prints as it is, near enough: of all spaces only the plain one.
fn is_printable(letter: char) -> bool {
    letter == ' ' || !(letter.is_control() || letter.is_whitespace())
}

/// What is wrong with the options of a write, for a `422` about `PatchOptions` (`CreateOptions`, `UpdateOptions`) of
/// `meta.k8s.io`.
pub fn manager_faults(field_manager: &str, is_apply: bool, force: Option<bool>) -> Vec<Cause> {
    let mut faults = Vec::new();
    match (is_apply, force) {
        (true, _) if field_manager.is_empty() => {
            faults.push(Cause::required(
                "fieldManager",
                "is required for apply patch",
            ));
        }
        (false, Some(_)) => {
            let fault = "may not be specified for non-apply patch";
            faults.push(Cause::forbidden("force", fault));
        }
        _ => {}
    }
    if field_manager.len() > NAME_MAX {
        faults.push(Cause::too_long("fieldManager", NAME_MAX));
    }
    for (place, letter) in field_manager.char_indices() {
        if !is_printable(letter) {
            let fault = format!(
                "invalid character U+{:04X} (at position {place})",
                letter as u32
            );
            faults.push(Cause::invalid(
                "fieldManager",
                &field_manager.into(),
                &fault,
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, version: &str, second: i64, field: &str) -> Value {
        json!({
            "manager": manager, "operation": "Update", "apiVersion": version, "fieldsType": "FieldsV1",
            "time": Timestamp::from_second(second).unwrap().to_string(),
            "fieldsV1": { format!("f:{field}"): {} },
        })
    }

    #[test]
    fn entries_are_read_and_written_in_their_order() {
        let list = json!([
            {"manager": "b", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}},
            {"manager": "a", "operation": "Apply", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}},
             "time": "2026-01-01T00:00:00Z"},
            {"manager": "a", "operation": "Update", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": {},
             "subresource": "status", "time": "2026-01-01T00:00:00Z"},
        ]);
        let managed = Managed::parse(Some(&list)).unwrap();
        assert_eq!(managed.to_json(), Some(list.clone()));
        let mut turned = list.as_array().unwrap().clone();
        turned.reverse();
        assert_eq!(Managed::parse(Some(&turned.into())).unwrap(), managed);
        assert_eq!(Managed::default().to_json(), None);
    }

    #[test]
    fn what_is_no_entry_is_told() {
        let good = entry("m", "v1", 1, "a");
        for (member, value, told) in [
            (
                "operation",
                json!("Patch"),
                "operation must be `Apply` or `Update`",
            ),
            ("apiVersion", json!(""), "apiVersion must not be empty"),
            (
                "fieldsType",
                json!(null),
                "missing fieldsType in managed fields entry 0",
            ),
            (
                "fieldsType",
                json!("V2"),
                "invalid fieldsType \"V2\" in managed fields entry 0",
            ),
        ] {
            let mut bad = good.clone();
            bad[member] = value;
            let error = Managed::parse(Some(&json!([bad]))).unwrap_err();
            assert_eq!(error.to_string(), told);
        }
        for bad in [json!({}), json!([1]), json!("x")] {
            assert!(Managed::parse(Some(&bad)).is_err());
        }
        let mut bad = good;
        bad["fieldsV1"] = json!({"f": {}});
        assert!(Managed::parse(Some(&json!([bad]))).is_err());
    }

    #[test]
    fn the_oldest_updaters_become_one_a_version() {
        let mut list: Vec<Value> = (0..9)
            .map(|n| entry(&format!("m{n}"), "v1", n, &format!("f{n}")))
            .collect();
        list.push(entry("other", "v2", 1, "x"));
        let mut managed = Managed::parse(Some(&list.clone().into())).unwrap();
        managed.cap();
        assert_eq!(managed.entries.len(), 10);
        list.push(entry("m9", "v1", 9, "f9"));
        list.push(entry("m10", "v1", 10, "f10"));
        let mut managed = Managed::parse(Some(&list.into())).unwrap();
        managed.cap();
        let names: Vec<&str> = managed.entries().map(|(m, _)| m.name.as_str()).collect();
        let rest = ["m10", "m3", "m4", "m5", "m6", "m7", "m8", "m9", "other"];
        assert_eq!(names[0], "ancient-changes");
        assert_eq!(names[1..], rest);
        let (_, ancient) = managed.entries().next().unwrap();
        assert_eq!(
            ancient.fields.to_json(),
            json!({"f:f0": {}, "f:f1": {}, "f:f2": {}})
        );
        assert_eq!(ancient.time, Timestamp::from_second(2).ok());
        // One more: the bucket of before takes it in.
        managed.give(
            Manager::new("m11", Operation::Update, "v1", ""),
            "v1",
            Set::parse(&json!({"f:new": {}})).unwrap(),
            Timestamp::from_second(11).unwrap(),
        );
        managed.cap();
        assert_eq!(managed.entries.len(), 10);
    }

    #[test]
    fn a_manager_is_named_by_the_request_or_its_agent() {
        let long = "x".repeat(200);
        for (manager, agent, name) in [
            ("mine", "kubectl/v1.37", "mine"),
            ("", "kubectl/v1.37 (linux/amd64)", "kubectl"),
            ("", "Go-http-client", "Go-http-client"),
            ("", "a\tb\u{7f}c/1", "abc"),
            ("", "", ""),
            ("", long.as_str(), &long[..128]),
        ] {
            assert_eq!(manager_name(manager, agent), name);
        }
        let faults = |manager: &str, apply, force| -> Vec<String> {
            let faults = manager_faults(manager, apply, force);
            faults.into_iter().map(|fault| fault.message).collect()
        };
        assert_eq!(
            faults("", true, None),
            ["Required value: is required for apply patch"]
        );
        assert_eq!(
            faults("", false, Some(true)),
            ["Forbidden: may not be specified for non-apply patch"]
        );
        assert_eq!(
            faults(&long, false, None),
            ["Too long: may not be more than 128 bytes"]
        );
        assert_eq!(
            faults("a\n", true, Some(true)),
            ["Invalid value: \"a\\n\": invalid character U+000A (at position 1)"]
        );
        assert!(faults("kubectl", true, Some(false)).is_empty());
    }

    #[test]
    fn owners_are_forgotten_on_request() {
        for (list, reset) in [
            (json!(null), false),
            (json!([]), true),
            (json!([{}]), true),
            (json!([{"manager": "", "time": null}]), true),
            (json!([{"manager": "a"}]), false),
            (json!([{}, {}]), false),
            (json!([1]), false),
        ] {
            assert_eq!(is_reset(Some(&list)), reset, "{list}");
        }
    }
}
