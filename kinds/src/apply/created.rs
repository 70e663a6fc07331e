//! Whose the fields of a new object are, spelled in one walk: most objects are made, and most are made once.
//!
//! A first write has nobody to take fields from. What it owns is what a comparison with an object that says nothing tells as set,
//! without what its door does not write and what names an object; that is written down as `fieldsV1` where it is found.
//!
//! Invariants: pure; the result is that of `super::Work::record`, whose parts it joins (`typed::check`, `typed::Comparison`,
//! [`Writable`], `managers::stripped`, [`Set::to_json`]), or [`Unsure`]: then those are asked, who also tell what is wrong.

use serde_json::{Map, Value};

use super::element::{Element, same};
use super::fields::{Set, Writable};
use super::form::{Form, ListForm, MapForm, Type};
use super::managers;
use super::typed::check;

/// What one walk does not tell: an object that does not fit its type, or a door that is told by patterns.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsure;

/// The fields of a new object that its writer owns, as `fieldsV1`; none where he owns none. `blank` is what the kind always says.
pub(super) fn fields(
    blank: &Value,
    new: &Value,
    of: Type<'_>,
    writable: &Writable,
) -> Result<Option<Value>, Unsure> {
    let reset = match writable {
        Writable::All => None,
        Writable::Except(reset) => Some(reset),
        Writable::Only(_) => return Err(Unsure),
    };
    let door = Door {
        reset,
        nobodys: Some(managers::nobodys()),
    };
    let found = at(Some(blank), new, of, door)?;
    Ok((!found.below.is_empty()).then_some(Value::Object(found.below)))
}

/// What cannot be owned at a place and below it.
#[derive(Clone, Copy)]
struct Door<'s> {
    /// What is not written here, with all that is below.
    reset: Option<&'s Set>,
    /// What is nobody's; what is below it may be somebody's.
    nobodys: Option<&'s Set>,
}

impl<'s> Door<'s> {
    /// Whether all of it can be owned, as nearly everything below the first two levels can.
    fn is_open(self) -> bool {
        self.reset.is_none() && self.nobodys.is_none()
    }

    /// None where nothing of it is written.
    fn below(self, element: &Element) -> Option<Self> {
        if self.reset.is_some_and(|set| set.is_member(element)) {
            return None;
        }
        let below = |set: Option<&'s Set>| set.and_then(|set| set.below(element));
        Some(Self {
            reset: below(self.reset),
            nobodys: below(self.nobodys),
        })
    }
}

/// What is owned at a place.
#[derive(Default)]
struct Found {
    member: bool,
    below: Map<String, Value>,
}

impl Found {
    fn leaf() -> Self {
        Self {
            member: true,
            below: Map::new(),
        }
    }

    /// Puts it where it belongs, unless there is nothing.
    fn put(self, element: &Element, door: Door<'_>, into: &mut Map<String, Value>) {
        let is_nobodys = door.nobodys.is_some_and(|set| set.is_member(element));
        let member = self.member && !is_nobodys;
        Self { member, ..self }.put_as(|| element.spelled(), into);
    }

    /// As [`Found::put`], where anything can be owned.
    fn put_as(mut self, spelled: impl FnOnce() -> String, into: &mut Map<String, Value>) {
        if self.below.is_empty() && !self.member {
            return;
        }
        if self.member && !self.below.is_empty() {
            self.below.insert(".".to_owned(), Value::Object(Map::new()));
        }
        into.insert(spelled(), Value::Object(self.below));
    }
}

fn at(old: Option<&Value>, new: &Value, of: Type<'_>, door: Door<'_>) -> Result<Found, Unsure> {
    if old == Some(new) {
        // What says nothing fits.
        return Ok(Found::default());
    }
    let said = match old {
        None | Some(Value::Null) => false,
        Some(Value::Object(map)) => !map.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    };
    let found = match (of.of(Some(new)), new) {
        // What was there in another form is compared in both.
        (Form::Scalar(_) | Form::List(_), _) if matches!(old, Some(Value::Object(_))) => {
            return Err(Unsure);
        }
        (Form::List(_) | Form::Map(_), Value::Null) if said => return Err(Unsure),
        (Form::List(ListForm { atomic: false, .. }), _) if said => return Err(Unsure),
        (Form::Map(MapForm { atomic: false, .. }), _) if said && !is_map(old) => {
            return Err(Unsure);
        }
        (Form::List(list), Value::Array(items)) if !list.atomic && !items.is_empty() => {
            elements(&list, items, old.is_none(), door)?
        }
        (Form::Map(map), Value::Object(members))
            if !map.atomic && (said || !members.is_empty()) =>
        {
            let old = old.and_then(Value::as_object);
            let mut found = Found {
                member: old.is_none(),
                below: Map::new(),
            };
            for (name, value) in members {
                let of = map.member(name).ok_or(Unsure)?;
                let old = old.and_then(|old| old.get(name));
                if door.is_open() {
                    let spelled = || Element::spelled_field(name);
                    at(old, value, of, door)?.put_as(spelled, &mut found.below);
                    continue;
                }
                let element = Element::field(name);
                match door.below(&element) {
                    Some(below) => at(old, value, of, below)?.put(&element, door, &mut found.below),
                    // It has to fit all the same.
                    None => check(value, of, true).map_err(|_| Unsure)?,
                }
            }
            found
        }
        _ => {
            check(new, of, true).map_err(|_| Unsure)?;
            match old {
                Some(old) if same(old, new) => Found::default(),
                _ => Found::leaf(),
            }
        }
    };
    Ok(found)
}

fn is_map(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_object)
}

/// The elements of a list that was not there, or had none.
fn elements(
    list: &ListForm<'_>,
    items: &[Value],
    member: bool,
    door: Door<'_>,
) -> Result<Found, Unsure> {
    let ids: Result<Vec<Element>, String> = items.iter().map(|item| list.id(item)).collect();
    let ids = ids.map_err(|_| Unsure)?;
    let mut found = Found {
        member,
        below: Map::new(),
    };
    // Where a name is there twice, others tell what it is.
    let mut sorted: Vec<&Element> = ids.iter().collect();
    sorted.sort_unstable();
    if !sorted.is_sorted_by(|a, b| a < b) {
        return Err(Unsure);
    }
    for (item, element) in items.iter().zip(&ids) {
        match door.below(element) {
            Some(below) => {
                at(None, item, list.element, below)?.put(element, door, &mut found.below);
            }
            None => check(item, list.element, true).map_err(|_| Unsure)?,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;
    use weft_api::gvk::GroupVersionKind;

    use super::super::managers::{Managed, Writer};
    use super::super::{Scope, Work, one_version};
    use super::*;
    use crate::decode;
    use crate::schema::Schema;

    /// Holds the one walk to what the parts that it joins tell; whether it told anything.
    fn is_told(gvk: &GroupVersionKind, schema: Option<Schema<'_>>, new: &Value) -> bool {
        let writable = Writable::except_status();
        let scope = Scope {
            gvk,
            subresource: "",
            schema,
            writable: &writable,
            convert: &one_version,
        };
        let work = Work::of(&scope);
        let writer = Writer {
            manager: "maker",
            now: Timestamp::from_second(7).unwrap(),
        };
        let Ok(told) = work.created(new) else {
            return false;
        };
        let told = told.map(|fields| Managed::first(writer, &work.version, fields));
        work.check_live(new).unwrap();
        let unset = work.unset();
        let recorded = work.record(&unset, new, Managed::default(), writer.manager, writer.now);
        assert_eq!(told, recorded.unwrap().to_json(), "{new}");
        true
    }

    /// An object, and others with something else in one place.
    fn variants(object: &Value) -> Vec<Value> {
        fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
            found.push(at.to_owned());
            match value {
                Value::Object(map) => map.iter().for_each(|(name, value)| {
                    pointers(value, &format!("{at}/{name}"), found);
                }),
                Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| {
                    pointers(value, &format!("{at}/{index}"), found);
                }),
                _ => {}
            }
        }
        let mut found = Vec::new();
        pointers(object, "", &mut found);
        let mut all = vec![object.clone()];
        for pointer in found.iter().skip(1) {
            for other in [
                json!(null),
                json!(""),
                json!("x"),
                json!(0),
                json!(true),
                json!([]),
                json!([{"name": "a"}, {"name": "b"}, {"name": "a"}]),
                json!(["a", "a"]),
                json!({}),
                json!({"name": {}}),
            ] {
                let mut changed = object.clone();
                *changed.pointer_mut(pointer).unwrap() = other;
                all.push(changed);
            }
        }
        all
    }

    #[test]
    fn one_walk_tells_what_a_comparison_with_nothing_does() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "p", "namespace": "n", "uid": "u", "generation": 1, "labels": {"a": "b"}, "annotations": {},
                "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["example.com/f"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "o", "uid": "u"}],
            },
            "spec": {
                "containers": [{
                    "name": "c", "image": "i", "args": ["a"], "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}],
                    "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                    "resources": {"requests": {"cpu": "10m"}}, "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
                }],
                "securityContext": {}, "nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
            "status": {"phase": "Pending", "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
            "spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "selector": {"a": "b"}},
        });
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "YQ=="}, "type": "Opaque"});
        let mut told = 0;
        for object in [pod, service, secret] {
            let gvk = GroupVersionKind::new("", "v1", object["kind"].as_str().unwrap());
            let schema = Schema::of(&gvk);
            let read = decode::value(&gvk, &object).unwrap().value;
            assert!(is_told(&gvk, schema, &read), "{object}");
            for variant in variants(&object).iter().chain(&variants(&read)) {
                told += usize::from(is_told(&gvk, schema, variant));
                if let Ok(read) = decode::value(&gvk, variant) {
                    told += usize::from(is_told(&gvk, schema, &read.value));
                }
            }
        }
        let widget = super::super::tests::widget_schema();
        let gvk = GroupVersionKind::new("example.com", "v1", "Widget");
        let object = json!({
            "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w", "labels": {"a": "b"}},
            "spec": {
                "replicas": 1, "items": [{"name": "a", "value": "x"}], "ports": [{"port": 80}], "tags": ["a", "b"], "command": ["a"],
                "limits": {"a": "b"}, "labels": {"a": "b"}, "nested": {"inner": {"a": "b"}}, "free": {"x": [{"y": 1}]},
            },
            "status": {"phase": "x"},
        });
        for schema in [Some(Schema::at(&widget)), None] {
            assert!(is_told(&gvk, schema, &object));
            for variant in variants(&object) {
                told += usize::from(is_told(&gvk, schema, &variant));
            }
        }
        assert!(told > 800, "{told} were told in one walk");
    }
}
