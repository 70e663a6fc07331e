//! Inputs made from right ones: damaged bytes, damaged JSON, pieces of one in another, pieces many times over.
//!
//! Invariants: equal seeds, equal inputs; an input has at most [`BYTES_MAX`] bytes.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;

/// Largest input. What grows faster than its input is seen long before.
pub const BYTES_MAX: usize = 64 << 10;
/// How often a piece is put in behind itself, at most: enough to run out of a stack of 2 MiB.
const REPEATED_MAX: usize = 4000;
/// Levels around a value, at most.
const WRAPPED_MAX: usize = 150;

/// What stands at the edges of what is understood.
const WORDS: &[&str] = &[
    "null",
    "true",
    "-1",
    "0",
    "1e400",
    "9223372036854775807",
    "18446744073709551616",
    "-0",
    "0.1",
    "NaN",
    "\"\"",
    "[]",
    "{}",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "é",
    "😀",
    "~1",
    "~0",
    "-",
    "/",
    "..",
    "%00",
    "%",
    "*",
    "&a",
    "*a",
    "|",
    "!!binary",
    "---\n",
    "$patch",
    "$setElementOrder/containers",
    "$retainKeys",
    "$deleteFromPrimitiveList/finalizers",
    "metadata",
    "managedFields",
    "finalizers",
    "spec",
    "status",
    "ownerReferences",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "oldSelf",
    "self",
    "f:a",
    "k:{\"a\":1}",
    "v:1",
    "i:0",
    ".",
    "in",
    "notin",
    "(",
    ")",
    ",",
    "==",
    "!=",
    "!",
    "1Ki",
    "100m",
    "1e3",
    "1h2m",
    "2026-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "all",
    "map",
    "[?(@.a==",
    "..",
    "[::-1]",
    "k8s\0",
    "\n",
    "\r\n",
    "\t",
    "\0",
    "\x7f",
];

/// A source of inputs.
pub struct Inputs {
    random: StdRng,
    seeds: Vec<Vec<u8>>,
    /// Those that have been given as they are.
    given: usize,
}

impl Inputs {
    /// From right inputs, of which there is at least one, and a number.
    pub fn new(seeds: Vec<Vec<u8>>, number: u64) -> Self {
        assert!(!seeds.is_empty(), "inputs are made from others");
        Self {
            random: StdRng::seed_from_u64(number),
            seeds,
            given: 0,
        }
    }

    /// The next input: the seeds first, then what is made of them.
    pub fn next_input(&mut self) -> Vec<u8> {
        if let Some(seed) = self.seeds.get(self.given) {
            self.given += 1;
            return seed.clone();
        }
        let mut input = self.any().to_vec();
        for _ in 0..self.random.random_range(1..=4) {
            input = self.changed(input);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn any(&mut self) -> &[u8] {
        self.seeds
            .choose(&mut self.random)
            .map_or(&[], |seed| seed.as_slice())
    }

    fn changed(&mut self, input: Vec<u8>) -> Vec<u8> {
        if self.random.random_bool(0.4) {
            // What is chosen by its first byte is JSON behind it.
            let begin = usize::from(input.first().is_some_and(|byte| !b"{[\"".contains(byte)));
            if let Some(Ok(value)) = input.get(begin..).map(serde_json::from_slice) {
                let mut out = input[..begin].to_vec();
                out.extend(self.changed_value(value).to_string().into_bytes());
                return out;
            }
        }
        self.changed_bytes(input)
    }

    /// A range of an input, short more often than long.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.random.random_range(0..=length);
        let most = (length - start).min(1 << self.random.random_range(0..12));
        start..start + self.random.random_range(0..=most)
    }

    fn changed_bytes(&mut self, mut input: Vec<u8>) -> Vec<u8> {
        let at = self.random.random_range(0..=input.len());
        match self.random.random_range(0..10) {
            0 | 1 => {
                let word = WORDS.choose(&mut self.random).unwrap_or(&"");
                input.splice(at..at, word.bytes());
            }
            2 => {
                let word = WORDS.choose(&mut self.random).unwrap_or(&"");
                let range = self.range(input.len());
                input.splice(range, word.bytes());
            }
            3 => {
                let range = self.range(input.len());
                input.drain(range);
            }
            4 => {
                let other = self.any().to_vec();
                let range = self.range(other.len());
                input.splice(at..at, other[range].iter().copied());
            }
            5 => {
                let range = self.range(input.len());
                let piece = input[range].to_vec();
                let most = REPEATED_MAX.min(BYTES_MAX / piece.len().max(1));
                // Twice, or as often as there is room for.
                let times = match self.random.random_bool(0.5) {
                    true => self.random.random_range(1..=4),
                    false => self.random.random_range(1..=most.max(1)),
                };
                input.splice(at..at, piece.repeat(times));
            }
            6 => input.truncate(at),
            7 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = self.random.random();
                }
            }
            8 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << self.random.random_range(0..8);
                }
            }
            _ => input.insert(at, self.random.random()),
        }
        input
    }

    /// A value that stands somewhere in another input, or at the edge of what is understood.
    fn value(&mut self) -> Value {
        let other = self.any();
        let begin = usize::from(other.first().is_some_and(|byte| !b"{[\"".contains(byte)));
        let other = other.get(begin..).map(serde_json::from_slice::<Value>);
        if let (Some(Ok(value)), true) = (other, self.random.random_bool(0.5)) {
            let places = pointers(&value);
            let place = places.choose(&mut self.random);
            let found = place.and_then(|place| value.pointer(place));
            return found.cloned().unwrap_or_default();
        }
        match self.random.random_range(0..8) {
            0 => Value::Null,
            1 => Value::Bool(self.random.random()),
            2 => Value::from(self.random.random_range(-2..70_000)),
            3 => Value::from(self.random.random::<i64>()),
            4 => Value::from(self.random.random::<f64>()),
            5 => Value::from("x".repeat(1 << self.random.random_range(0..10))),
            6 => Value::Array(Vec::new()),
            _ => Value::from(*WORDS.choose(&mut self.random).unwrap_or(&"")),
        }
    }

    fn changed_value(&mut self, mut root: Value) -> Value {
        let places = pointers(&root);
        let place = places.choose(&mut self.random).cloned().unwrap_or_default();
        let other = self.value();
        let word = (*WORDS.choose(&mut self.random).unwrap_or(&"")).to_owned();
        let how = self.random.random_range(0..7);
        let levels = self.random.random_range(0..WRAPPED_MAX);
        let times = self.random.random_range(1..20);
        let Some(found) = root.pointer_mut(&place) else {
            return root;
        };
        match (how, &mut *found) {
            (0, Value::Object(map)) => drop(map.insert(word, other)),
            (0, Value::Array(items)) => items.push(other),
            (1, Value::Object(map)) => {
                let key = map.keys().next_back().cloned();
                key.and_then(|key| map.remove(&key));
            }
            (1, Value::Array(items)) => drop(items.pop()),
            // An element many times.
            (2, Value::Array(items)) => {
                let one = items.clone();
                items.extend((0..times).flat_map(|_| one.clone()));
            }
            (2, Value::String(text)) => *text = text.repeat(times),
            // A key that is another.
            (3, Value::Object(map)) => {
                if let Some(key) = map.keys().next().cloned()
                    && let Some(value) = map.remove(&key)
                {
                    map.insert(word, value);
                }
            }
            (4, _) => {
                let inner = std::mem::take(found);
                *found = (0..levels).fold(inner, |inner, level| match level % 2 {
                    0 => Value::Array(vec![inner]),
                    _ => Value::Object([(word.clone(), inner)].into_iter().collect()),
                });
            }
            (5, Value::String(text)) => {
                let bytes = std::mem::take(text).into_bytes();
                let bytes = self.changed_bytes(bytes);
                *text = String::from_utf8_lossy(&bytes).into_owned();
            }
            _ => *found = other,
        }
        root
    }
}

/// Where something stands in a value: every place.
fn pointers(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    walk(item, &format!("{at}/{index}"), found);
                }
            }
            Value::Object(map) => {
                for (key, value) in map {
                    let key = key.replace('~', "~0").replace('/', "~1");
                    walk(value, &format!("{at}/{key}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_make_equal_inputs_of_a_bounded_size() {
        let make = |number| {
            let seeds = vec![b"{\"a\":[1,2,{\"b\":\"c\"}]}".to_vec(), b"k8s\0".to_vec()];
            let mut inputs = Inputs::new(seeds, number);
            (0..2000).map(|_| inputs.next_input()).collect::<Vec<_>>()
        };
        let one = make(1);
        assert_eq!(one, make(1));
        assert_ne!(one, make(2));
        assert!(one.iter().all(|input| input.len() <= BYTES_MAX));
        assert!(one.iter().any(|input| input.len() > 1000));
    }
}
