//! What targets begin with: the manifests of the comparison, Kubernetes' fixtures, and what upstream was asked about expressions.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_kinds::{Kind, Registry};

/// A manifest of each kind and more, in JSON.
pub static MANIFESTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let text = include_bytes!("../../apiserver/tests/differential/corpus.json");
    serde_json::from_slice(text).unwrap_or_default()
});

static EXPRESSIONS: &[u8] = include_bytes!("../../kinds/tests/upstream/expressions.lz4");
static FIXTURES: &[u8] = include_bytes!("../../kinds/tests/fixtures/fixtures.lz4");

/// The expressions that kube-apiserver's packages were asked about.
pub fn expressions() -> Vec<String> {
    let text = lz4_flex::block::decompress_size_prepended(EXPRESSIONS).unwrap_or_default();
    let text = String::from_utf8(text).unwrap_or_default();
    let rules = text.lines().filter_map(|line| {
        let row: Value = serde_json::from_str(line).ok()?;
        Some(row["rule"].as_str()?.to_owned())
    });
    rules.collect()
}

/// The fixtures whose name ends so.
pub fn fixtures(ending: &str) -> Vec<Vec<u8>> {
    let pack = lz4_flex::block::decompress_size_prepended(FIXTURES).unwrap_or_default();
    let end = pack.windows(2).position(|pair| pair == b"\n\n");
    let end = end.unwrap_or_default();
    let index = String::from_utf8_lossy(&pack[..end]);
    let contents = &pack[end + 2..];
    let found = index.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let name = words.next()?;
        let (offset, length): (usize, usize) =
            (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let is_wanted = name.ends_with(ending);
        is_wanted.then(|| contents[offset..offset + length].to_vec())
    });
    found.collect()
}

/// The kinds that are compiled in and stored.
static KINDS: LazyLock<Vec<Arc<Kind>>> =
    LazyLock::new(|| Registry::builtin().stored().cloned().collect());

/// The kind that a byte chooses.
pub fn kind(byte: u8) -> &'static Arc<Kind> {
    &KINDS[usize::from(byte) % KINDS.len()]
}

/// The byte that chooses the kind of an object.
pub fn byte_of(object: &Value) -> Option<u8> {
    let place = KINDS.iter().position(|kind| {
        object["apiVersion"] == kind.api_version() && object["kind"] == *kind.kind
    });
    place.and_then(|place| u8::try_from(place).ok())
}

/// Manifests with the byte of their kind before them, each written as `write` does it.
pub fn bodies(write: impl Fn(&Value) -> Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let found = MANIFESTS.iter().filter_map(|manifest| {
        let mut body = vec![byte_of(manifest)?];
        body.extend(write(manifest)?);
        Some(body)
    });
    found.collect()
}

/// Texts as inputs.
pub fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
