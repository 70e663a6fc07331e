//! Sets of fields, and the form in which managedFields spell them (`FieldsV1`).
//!
//! A [`Set`] is a tree of [`Element`]s: a member of a struct or map (`f:NAME`), an element of a keyed list (`k:{…}`), of a set
//! (`v:VALUE`) or of any list (`i:INDEX`). A place belongs to the set itself, through what is below it, or both (`.`).
//!
//! Invariants: a place of the tree is a member or has members below, so equal sets are equal values; reading never panics and is bounded.
//! `Set::parse(set.to_json())` is the set; `set.to_json()` is equal for equal sets.
//! Left to others: which fields an object has (`super::typed`), who owns them (`super::managers`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::FieldsError;
use super::element::{Element, Path};
use crate::decode::DEPTH_MAX;

/// Places in one set that is read. An object of 3 MiB, the most that a request may carry, cannot have more fields.
const PLACES_MAX: usize = 1 << 20;

/// Some of the fields of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    places: BTreeMap<Element, Place>,
}

/// A place in a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) member: bool,
    pub(super) below: Set,
}

impl Place {
    /// A field without anything below.
    pub(super) fn leaf() -> Self {
        Self {
            member: true,
            below: Set::default(),
        }
    }

    fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }
}

impl Set {
    /// Reads `fieldsV1`; null is the empty set.
    ///
    /// # Errors
    /// [`FieldsError`] for what is no set of fields, or is out of bounds.
    pub fn parse(fields: &Value) -> Result<Self, FieldsError> {
        let mut left = PLACES_MAX;
        Ok(read(fields, DEPTH_MAX, &mut left)?.below)
    }

    /// The canonical form. A JSON object is sorted by its members' texts here, which says nothing to who reads it.
    pub fn to_json(&self) -> Value {
        let mut fields = Map::new();
        for (element, place) in &self.places {
            let mut below = place.below.to_json();
            if let (true, Some(map)) = (
                place.member && !place.below.is_empty(),
                below.as_object_mut(),
            ) {
                map.insert(".".to_owned(), Value::Object(Map::new()));
            }
            fields.insert(element.spelled(), below);
        }
        Value::Object(fields)
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Adds a field, without those above it. The object itself is no field.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((last, above)) = path.split_last() else {
            return;
        };
        let mut set = self;
        for element in above {
            let Some(place) = set.place_of(element) else {
                return;
            };
            set = &mut place.below;
        }
        if let Some(place) = set.place_of(last) {
            place.member = true;
        }
    }

    /// The place of an element, which is there from now on. Most were: a set is made member by member.
    fn place_of(&mut self, element: &Element) -> Option<&mut Place> {
        if !self.places.contains_key(element) {
            self.places.insert(element.clone(), Place::default());
        }
        self.places.get_mut(element)
    }

    /// Whether the field itself is in the set.
    pub fn has(&self, path: &[Element]) -> bool {
        let Some((last, above)) = path.split_last() else {
            return false;
        };
        let mut set = Some(self);
        for element in above {
            set = set.and_then(|set| set.below(element));
        }
        set.is_some_and(|set| set.is_member(last))
    }

    pub(super) fn is_member(&self, element: &Element) -> bool {
        self.places.get(element).is_some_and(|place| place.member)
    }

    /// What of the set is below an element.
    pub(super) fn below(&self, element: &Element) -> Option<&Set> {
        let below = &self.places.get(element)?.below;
        (!below.is_empty()).then_some(below)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = (&Element, &Place)> {
        self.places.iter()
    }

    /// Puts what was made for an element where it belongs, unless there is nothing.
    pub(super) fn put(&mut self, element: Element, place: Place) {
        if !place.is_empty() {
            self.places.insert(element, place);
        }
    }

    /// Takes in all fields of another set.
    pub fn extend(&mut self, other: &Set) {
        for (element, theirs) in &other.places {
            match self.places.get_mut(element) {
                Some(mine) => {
                    mine.member |= theirs.member;
                    mine.below.extend(&theirs.below);
                }
                None => {
                    self.places.insert(element.clone(), theirs.clone());
                }
            }
        }
    }

    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        let mut union = self.clone();
        union.extend(other);
        union
    }

    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        let mut common = Set::default();
        for (element, mine) in &self.places {
            if let Some(theirs) = other.places.get(element) {
                let place = Place {
                    member: mine.member && theirs.member,
                    below: mine.below.intersection(&theirs.below),
                };
                common.put(element.clone(), place);
            }
        }
        common
    }

    /// The fields that are not in the other set; what is below a field of the other one stays.
    #[must_use]
    pub fn difference(&self, other: &Set) -> Set {
        let mut rest = self.clone();
        rest.subtract(other);
        rest
    }

    /// Takes the fields of another set away, as [`Set::difference`] has them.
    pub(super) fn subtract(&mut self, other: &Set) {
        self.reduce(other, &|mine, theirs| {
            mine.member &= !theirs.member;
            mine.below.subtract(&theirs.below);
        });
    }

    /// The fields that are neither in the other set nor below one of its fields.
    #[must_use]
    pub fn without(mut self, other: &Set) -> Set {
        self.exclude(other);
        self
    }

    fn exclude(&mut self, other: &Set) {
        self.reduce(other, &|mine, theirs| match theirs.member {
            true => *mine = Place::default(),
            false => mine.below.exclude(&theirs.below),
        });
    }

    /// Has each place that another set has, too, made smaller; it goes with the last that it holds.
    fn reduce(&mut self, other: &Set, smaller: &dyn Fn(&mut Place, &Place)) {
        for (element, theirs) in &other.places {
            if let Some(mine) = self.places.get_mut(element) {
                smaller(mine, theirs);
                if mine.is_empty() {
                    self.places.remove(element);
                }
            }
        }
    }

    /// Takes all of another set in.
    pub(super) fn absorb(&mut self, other: Set) {
        if self.places.is_empty() {
            *self = other;
            return;
        }
        for (element, theirs) in other.places {
            match self.places.get_mut(&element) {
                Some(mine) => {
                    mine.member |= theirs.member;
                    mine.below.absorb(theirs.below);
                }
                None => {
                    self.places.insert(element, theirs);
                }
            }
        }
    }

    /// All fields; those of one holder before those further down, as conflicts are told.
    pub fn paths(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        self.gather(&mut Vec::new(), &mut paths);
        paths
    }

    fn gather(&self, above: &mut Vec<Element>, paths: &mut Vec<Path>) {
        for (element, _) in self.places.iter().filter(|(_, place)| place.member) {
            above.push(element.clone());
            paths.push(Path(above.clone()));
            above.pop();
        }
        for (element, place) in &self.places {
            above.push(element.clone());
            place.below.gather(above, paths);
            above.pop();
        }
    }

    /// The fields on a pattern's way or below its end.
    fn matching(&self, patterns: &[&[Step]]) -> Set {
        if patterns.iter().any(|pattern| pattern.is_empty()) {
            return self.clone();
        }
        let mut matching = Set::default();
        for (element, place) in &self.places {
            let fits = |pattern: &&[Step]| match (&pattern[0], element) {
                (Step::Any, _) => true,
                (Step::Field(name), Element::Field(mine)) => **name == **mine,
                (Step::Field(_), _) => false,
            };
            let ends: Vec<&[Step]> = patterns
                .iter()
                .copied()
                .filter(fits)
                .map(|pattern| &pattern[1..])
                .collect();
            if !ends.is_empty() {
                let place = Place {
                    member: place.member,
                    below: place.below.matching(&ends),
                };
                matching.put(element.clone(), place);
            }
        }
        matching
    }
}

/// The fields below a value, and whether the value itself is one: it is where it says nothing more.
fn read(fields: &Value, levels: usize, left: &mut usize) -> Result<Place, FieldsError> {
    let fields = match fields {
        Value::Null => return Ok(Place::leaf()),
        Value::Object(fields) => fields,
        _ => return Err(FieldsError::NotAnObject),
    };
    let levels = levels.checked_sub(1).ok_or(FieldsError::Bounds)?;
    *left = left.checked_sub(fields.len()).ok_or(FieldsError::Bounds)?;
    let mut place = Place::default();
    for (text, fields) in fields {
        if text == "." {
            place.member = true;
        } else if let Some(element) = Element::parse(text)? {
            let read = read(fields, levels, left)?;
            // Two spellings of one element are one.
            let mine = place.below.places.entry(element).or_default();
            mine.member |= read.member;
            mine.below.extend(&read.below);
        }
    }
    place.member |= place.below.is_empty();
    Ok(place)
}

/// A step of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Any,
    Field(&'static str),
}

/// What can be written through one door, an object's own or a subresource's: nobody owns what he cannot write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Writable {
    #[default]
    All,
    /// All but these and what is below them: what is put back before the object is stored.
    Except(Set),
    /// Only what is on the way to, or below the end of, one of these.
    Only(Vec<&'static [Step]>),
}

impl Writable {
    /// All but these fields and what is below them.
    pub fn except(fields: &[&[&str]]) -> Self {
        let mut reset = Set::default();
        for field in fields {
            let path: Vec<Element> = field.iter().map(|name| Element::field(name)).collect();
            reset.insert(&path);
        }
        Self::Except(reset)
    }

    /// The object's own door, where a status is written through another.
    pub fn except_status() -> Self {
        Self::except(&[&["status"]])
    }

    /// The door of the status.
    pub fn only_status() -> Self {
        Self::Only(vec![&[Step::Field("status")]])
    }

    pub(super) fn of(&self, set: Set) -> Set {
        match self {
            Self::All => set,
            Self::Except(reset) => set.without(reset),
            Self::Only(patterns) => set.matching(patterns),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(fields: Value) -> Set {
        Set::parse(&fields).unwrap()
    }

    fn lines(set: &Set) -> Vec<String> {
        set.paths().iter().map(Path::to_string).collect()
    }

    #[test]
    fn what_was_written_is_read_the_same() {
        for fields in [
            json!({}),
            json!({"f:spec": {"f:replicas": {}}}),
            json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {"v:\"a\"": {}}}}),
            json!({"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}}),
            json!({"f:list": {"i:3": {}, "v:1": {}, "v:true": {}, "v:null": {}, "v:1.5": {}}}),
            json!({"f:a:b.c": {}, "f:": {}}),
            json!({"f:x": {"v:\"\\u003ca\\u003e\"": {}}}),
        ] {
            assert_eq!(set(fields.clone()).to_json(), fields);
        }
    }

    #[test]
    fn other_spellings_become_the_canonical_one() {
        for (given, canonical) in [
            (json!(null), json!({})),
            (json!({".": {}}), json!({})),
            (json!({"f:a": null}), json!({"f:a": {}})),
            (
                json!({"v:1e19": {}, "v:-0.0": {}}),
                json!({"v:10000000000000000000": {}, "v:0": {}}),
            ),
            (json!({"v:[1.0]": {}, "v:[1]": {}}), json!({"v:[1]": {}})),
            (json!({"f:a": {".": {}}}), json!({"f:a": {}})),
            (
                json!({"f:a": {"x:later": {}}, "x:y": 3}),
                json!({"f:a": {}}),
            ),
            (
                json!({"v:1.0": {}, "v: 1": {"f:b": {}}}),
                json!({"v:1": {".": {}, "f:b": {}}}),
            ),
            (
                json!({"k:{\"b\": 2, \"a\": 1}": {}}),
                json!({"k:{\"a\":1,\"b\":2}": {}}),
            ),
        ] {
            assert_eq!(set(given.clone()).to_json(), canonical, "{given}");
        }
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let mut deep = json!({});
        for _ in 0..2 * DEPTH_MAX {
            deep = json!({ "f:a": deep });
        }
        for fields in [
            json!([]),
            json!("f:a"),
            json!({"f:a": 1}),
            json!({"f": {}}),
            json!({"": {}}),
            json!({"name": {}}),
            json!({"ü:a": {}, "éé": {}}),
            json!({"v:": {}}),
            json!({"v:{": {}}),
            json!({"k:[]": {}}),
            json!({"k:{} {}": {}}),
            json!({"i:one": {}}),
            json!({"i:9223372036854775808": {}}),
            deep,
        ] {
            assert!(Set::parse(&fields).is_err(), "{fields}");
        }
    }

    #[test]
    fn elements_have_the_order_of_structured_merge_diff() {
        let set = set(json!({
            "i:2": {}, "i:10": {}, "v:\"a\"": {}, "v:true": {}, "v:10": {}, "v:9.5": {}, "v:null": {},
            "k:{\"port\":443}": {}, "k:{\"port\":80}": {}, "k:{\"name\":\"z\"}": {}, "f:b": {}, "f:a": {"f:c": {}},
        }));
        assert_eq!(
            lines(&set),
            [
                ".b",
                "[name=\"z\"]",
                "[port=80]",
                "[port=443]",
                "[=9.5]",
                "[=10]",
                "[=\"a\"]",
                "[=true]",
                "[=null]",
                "[2]",
                "[10]",
                ".a.c",
            ]
        );
    }

    #[test]
    fn sets_are_joined_met_and_parted() {
        let a = set(json!({"f:spec": {".": {}, "f:x": {}, "f:y": {"f:z": {}}}, "f:only": {}}));
        let b = set(json!({"f:spec": {"f:x": {}, "f:y": {}}}));
        assert_eq!(
            a.union(&b),
            set(json!({"f:spec": {".": {}, "f:x": {}, "f:y": {".": {}, "f:z": {}}}, "f:only": {}}))
        );
        assert_eq!(a.intersection(&b), set(json!({"f:spec": {"f:x": {}}})));
        assert_eq!(
            a.difference(&b),
            set(json!({"f:spec": {".": {}, "f:y": {"f:z": {}}}, "f:only": {}}))
        );
        assert_eq!(
            a.clone().without(&b),
            set(json!({"f:spec": {}, "f:only": {}}))
        );
        assert!(b.difference(&a.union(&b)).is_empty());
        assert!(a.has(&[
            Element::field("spec"),
            Element::field("y"),
            Element::field("z")
        ]));
        assert!(!a.has(&[Element::field("spec"), Element::field("y")]) && !a.has(&[]));
    }

    #[test]
    fn a_door_keeps_what_can_be_written_through_it() {
        let all = set(json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
            ".": {}, "f:image": {}, "f:resources": {"f:limits": {}},
        }}}, "f:status": {"f:phase": {}}}));
        let resize = Writable::Only(vec![&[
            Step::Field("spec"),
            Step::Field("containers"),
            Step::Any,
            Step::Field("resources"),
        ]]);
        for (door, kept) in [
            (Writable::All, all.clone()),
            (
                Writable::only_status(),
                set(json!({"f:status": {"f:phase": {}}})),
            ),
            (
                resize,
                set(json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {
                    ".": {}, "f:resources": {"f:limits": {}},
                }}}})),
            ),
        ] {
            assert_eq!(door.of(all.clone()), kept);
        }
        let spec = Writable::except_status().of(all);
        assert!(lines(&spec).iter().all(|path| path.starts_with(".spec")));
    }
}
