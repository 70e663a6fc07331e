//! Owners of a size, seen through `/scale`: its one field there is another one in the object that is sized.
//!
//! Source: `managedfields/scalehandler.go` of apimachinery. Times are kept; who sizes for the first time has none, as in
//! Kubernetes, where the object's entries are asked for them.
//!
//! Invariants: seen through [`to_scale`] and put back by [`to_parent`], nothing changes but that entries whose version the kind
//! does not have (any more) are gone.

use serde_json::Value;

use super::conflict::ManagedError;
use super::element::Element;
use super::fields::Set;
use super::managers::{Entry, Managed, Manager, Operation};

const SCALE: &str = "autoscaling/v1";

/// Where the size is, in each version of a kind.
#[derive(Clone, Debug, Default)]
pub struct Sizes(Vec<(String, Vec<Element>)>);

impl Sizes {
    /// `path` names structs and their member: `["spec", "replicas"]`.
    #[must_use]
    pub fn with(mut self, api_version: &str, path: &[&str]) -> Self {
        let path = path.iter().map(|name| Element::field(name)).collect();
        self.0.push((api_version.to_owned(), path));
        self
    }

    fn path(&self, api_version: &str) -> Option<&[Element]> {
        let mut known = self.0.iter();
        let (_, path) = known.find(|(version, _)| version == api_version)?;
        Some(path)
    }
}

/// The managedFields that a Scale shows of those of its object.
///
/// # Errors
/// [`ManagedError`] for what is no managedFields.
pub fn to_scale(parent: Option<&Value>, sizes: &Sizes) -> Result<Option<Value>, ManagedError> {
    let mut seen = Managed::default();
    for (manager, entry) in Managed::parse(parent)?.entries {
        let path = sizes.path(&entry.api_version);
        if path.is_some_and(|path| entry.fields.has(path)) {
            let entry = Entry {
                api_version: SCALE.to_owned(),
                fields: only(&in_scale()),
                time: entry.time,
            };
            seen.entries.insert(in_version(&manager, SCALE), entry);
        }
    }
    Ok(seen.to_json())
}

/// The managedFields of an object of which a Scale of this `api_version` was written with these.
///
/// # Errors
/// [`ManagedError`] for what is no managedFields.
pub fn to_parent(
    parent: Option<&Value>,
    scale: Option<&Value>,
    api_version: &str,
    sizes: &Sizes,
) -> Result<Option<Value>, ManagedError> {
    let mut given = Managed::parse(scale)?.entries;
    let mut managed = Managed::default();
    for (manager, mut entry) in Managed::parse(parent)?.entries {
        let Some(path) = sizes.path(&entry.api_version) else {
            continue;
        };
        // Whoever has it still keeps his entry as it was; from the others it was taken.
        if entry.fields.has(path) && given.remove(&in_version(&manager, SCALE)).is_none() {
            entry.fields = entry.fields.difference(&only(path));
            if entry.fields.is_empty() {
                continue;
            }
        }
        managed.entries.insert(manager, entry);
    }
    let path = sizes.path(api_version).unwrap_or_default();
    for (manager, entry) in given {
        if !entry.fields.has(&in_scale()) || path.is_empty() {
            continue;
        }
        let manager = in_version(&manager, api_version);
        let mine = managed.entries.entry(manager).or_insert_with(|| Entry {
            api_version: api_version.to_owned(),
            fields: Set::default(),
            time: None,
        });
        mine.fields.insert(path);
    }
    Ok(managed.to_json())
}

fn in_scale() -> [Element; 2] {
    [Element::field("spec"), Element::field("replicas")]
}

fn only(path: &[Element]) -> Set {
    let mut set = Set::default();
    set.insert(path);
    set
}

fn in_version(manager: &Manager, api_version: &str) -> Manager {
    let mut manager = manager.clone();
    if manager.operation == Operation::Update {
        api_version.clone_into(&mut manager.api_version);
    }
    manager
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sizes() -> Sizes {
        Sizes::default().with("apps/v1", &["spec", "replicas"])
    }

    fn entry(
        manager: &str,
        operation: &str,
        version: &str,
        subresource: &str,
        fields: Value,
    ) -> Value {
        let mut entry = json!({
            "manager": manager, "operation": operation, "apiVersion": version, "fieldsType": "FieldsV1",
            "fieldsV1": fields, "time": "2026-01-01T00:00:00Z",
        });
        if !subresource.is_empty() {
            entry["subresource"] = subresource.into();
        }
        entry
    }

    #[test]
    fn the_size_is_seen_and_put_back() {
        let parent = json!([
            entry(
                "a",
                "Apply",
                "apps/v1",
                "",
                json!({"f:spec": {"f:replicas": {}, "f:paused": {}}})
            ),
            entry(
                "b",
                "Update",
                "apps/v1",
                "",
                json!({"f:spec": {"f:replicas": {}}})
            ),
            entry(
                "c",
                "Update",
                "apps/v1",
                "",
                json!({"f:metadata": {"f:labels": {"f:a": {}}}})
            ),
        ]);
        let seen = to_scale(Some(&parent), &sizes()).unwrap();
        let expected = json!([
            entry(
                "a",
                "Apply",
                SCALE,
                "",
                json!({"f:spec": {"f:replicas": {}}})
            ),
            entry(
                "b",
                "Update",
                SCALE,
                "",
                json!({"f:spec": {"f:replicas": {}}})
            ),
        ]);
        assert_eq!(seen, Some(expected));
        let back = to_parent(Some(&parent), seen.as_ref(), "apps/v1", &sizes()).unwrap();
        assert_eq!(back, Some(parent));
    }

    #[test]
    fn who_sizes_takes_the_size_from_the_others() {
        let parent = json!([
            entry(
                "a",
                "Apply",
                "apps/v1",
                "",
                json!({"f:spec": {"f:replicas": {}, "f:paused": {}}})
            ),
            entry(
                "b",
                "Update",
                "apps/v1",
                "",
                json!({"f:spec": {"f:replicas": {}}})
            ),
        ]);
        let scale = json!([entry(
            "h",
            "Update",
            SCALE,
            "scale",
            json!({"f:spec": {"f:replicas": {}}})
        )]);
        let back = to_parent(Some(&parent), Some(&scale), "apps/v1", &sizes()).unwrap();
        let mut sizer = entry(
            "h",
            "Update",
            "apps/v1",
            "scale",
            json!({"f:spec": {"f:replicas": {}}}),
        );
        sizer.as_object_mut().unwrap().remove("time");
        let expected = json!([
            entry(
                "a",
                "Apply",
                "apps/v1",
                "",
                json!({"f:spec": {"f:paused": {}}})
            ),
            sizer,
        ]);
        assert_eq!(back, Some(expected));
    }

    #[test]
    fn versions_that_are_gone_are_forgotten() {
        let parent = json!([entry(
            "a",
            "Apply",
            "apps/v0",
            "",
            json!({"f:spec": {"f:replicas": {}}})
        )]);
        assert_eq!(to_scale(Some(&parent), &sizes()).unwrap(), None);
        assert_eq!(
            to_parent(Some(&parent), None, "apps/v1", &sizes()).unwrap(),
            None
        );
        assert!(to_scale(Some(&json!("x")), &sizes()).is_err());
    }
}
