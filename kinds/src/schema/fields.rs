//! The properties of a type: found by name at the cost of a multiplication and one comparison, and walked in order.
//!
//! Invariants: each field is found by its name and by no other, however the names were chosen; a look-up allocates nothing.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Node;

/// The properties of a type, in the order of their names: each walk over an object looks for every member that it has.
#[derive(Debug, Default)]
pub(super) struct Fields {
    named: Box<[(Box<str>, Node)]>,
    /// Where a name is: its place and one, in the first slot from its [`mark`] on that no other name had taken. At least half of
    /// the slots are empty.
    slots: Box<[u16]>,
}

/// Fields of a type that are found by slots. A type with more is a user's, who may have chosen names that all want one slot: there order finds them.
const SLOTTED_MAX: u16 = 256;

/// What spreads names over slots: their length, and their first and last letters, which hardly two fields of one type share.
fn mark(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let (first, last) = match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => {
            let mut word = [0; 8];
            for (slot, byte) in word.iter_mut().zip(bytes) {
                *slot = *byte;
            }
            (u64::from_le_bytes(word), 0)
        }
    };
    // An odd number without a pattern (the golden ratio's): its product's upper bits depend on all of the word's.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let word = first ^ last.rotate_left(23) ^ (bytes.len() as u64).rotate_left(56);
    word.wrapping_mul(SPREAD) >> 32
}

impl Fields {
    /// Of fields in the order of their names.
    fn new(named: Box<[(Box<str>, Node)]>) -> Self {
        let count = match u16::try_from(named.len()) {
            Ok(count) if count <= SLOTTED_MAX => count,
            _ => 0,
        };
        let mut slots: Box<[u16]> = match count {
            0 => Box::default(),
            _ => vec![0; (named.len() * 2).next_power_of_two()].into(),
        };
        let mask = slots.len().wrapping_sub(1);
        for (place, (name, _)) in (1..=count).zip(&named) {
            let mut at = mark(name) as usize & mask;
            while slots.get(at).is_some_and(|slot| *slot != 0) {
                at = (at + 1) & mask;
            }
            if let Some(slot) = slots.get_mut(at) {
                *slot = place;
            }
        }
        Self { named, slots }
    }

    pub(super) fn place(&self, name: &str) -> Option<usize> {
        if self.slots.is_empty() {
            let place = self
                .named
                .binary_search_by(|(known, _)| (**known).cmp(name));
            return place.ok();
        }
        let mask = self.slots.len() - 1;
        let mut at = mark(name) as usize & mask;
        loop {
            let place = usize::from(*self.slots.get(at)?).checked_sub(1)?;
            if *self.named.get(place)?.0 == *name {
                return Some(place);
            }
            at = (at + 1) & mask;
        }
    }

    pub(super) fn at(&self, place: usize) -> Option<(&str, &Node)> {
        self.named.get(place).map(|(name, node)| (&**name, node))
    }

    pub(super) fn at_mut(&mut self, place: usize) -> Option<&mut Node> {
        self.named.get_mut(place).map(|(_, node)| node)
    }

    pub(super) fn get(&self, name: &str) -> Option<(&str, &Node)> {
        self.at(self.place(name)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.named.iter().map(|(name, node)| (&**name, node))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Node> {
        self.named.iter().map(|(_, node)| node)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.named.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.named.is_empty()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = BTreeMap::<Box<str>, Node>::deserialize(deserializer)?;
        Ok(Self::new(fields.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::table::TABLE;
    use serde_json::{Value, json};

    #[test]
    fn each_field_is_found_by_its_name_alone() {
        let fields = |count: usize| {
            let names = (0..count).map(|number| format!("field{number}"));
            let properties = names.map(|name| (name, json!({"type": "string"})));
            let properties: serde_json::Map<String, Value> = properties.collect();
            Node::parse(&json!({"type": "object", "properties": properties})).unwrap()
        };
        let most = usize::from(SLOTTED_MAX);
        let made: Vec<Node> = [0, 1, 2, 7, 64, most, most + 1]
            .into_iter()
            .map(fields)
            .collect();
        for Node { properties, .. } in TABLE.nodes.values().chain(&made) {
            for (name, _) in properties.iter() {
                assert_eq!(properties.get(name).unwrap().0, name);
                let other = format!("{name}s");
                let is_there = properties.iter().any(|(name, _)| name == other);
                assert_eq!(properties.get(&other).is_some(), is_there, "{other}");
            }
            assert!(properties.get("").is_none());
        }
    }
}
