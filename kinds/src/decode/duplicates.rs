//! Object keys that a JSON text has twice.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::de::{DeserializeSeed as _, MapAccess, SeqAccess};

use super::FAULTS_MAX;
use crate::walk::{Containers, Walk};

/// The object keys that appear twice in a JSON text, as paths; a text that is not JSON gives what was seen before the
/// mistake. A parsed `Value` cannot tell: its last duplicate has won.
pub fn duplicate_fields(text: &[u8]) -> Vec<String> {
    let mut path = String::new();
    let mut found = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    // A syntax error is reported by the parser that reads the body for its content.
    let _ = Walk(Duplicates {
        path: &mut path,
        found: &mut found,
    })
    .deserialize(&mut deserializer);
    found
}

struct Duplicates<'a> {
    path: &'a mut String,
    found: &'a mut Vec<String>,
}

impl<'de> Containers<'de> for Duplicates<'_> {
    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = members.next_key::<String>()? {
            let length = push_key(self.path, &key);
            if !seen.insert(key) && self.found.len() < FAULTS_MAX {
                self.found.push(self.path.clone());
            }
            members.next_value_seed(Walk(Duplicates {
                path: self.path,
                found: self.found,
            }))?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn list<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let length = self.path.len();
        for index in 0.. {
            let _ = write!(self.path, "[{index}]");
            let more = elements.next_element_seed(Walk(Duplicates {
                path: self.path,
                found: self.found,
            }))?;
            self.path.truncate(length);
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// Appends `.key` (or `key` at the root) and returns the length to cut back to.
fn push_key(path: &mut String, key: &str) -> usize {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(key);
    length
}
