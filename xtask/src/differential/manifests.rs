//! Manifests of others: a JSON list of objects, or a folder of YAML and JSON with definitions and objects of them.
//!
//! Of a folder every object of a kind that the comparison knows, or that a definition beside it defines, is taken once, definitions
//! first; what is no object (templates, values) and what is of other kinds is named and left out. Objects lose their namespace: all of
//! them live in the one of the comparison.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Served without a definition there, and by one that the recording adds here: not to be defined again.
const SERVED_GROUPS: &[&str] = &["gateway.networking.k8s.io"];
/// Things left out that are named.
const NAMED_MAX: usize = 20;

/// Reads them from a file or a folder. `known` says whether a kind is one of the comparison's own.
///
/// # Errors
/// When something cannot be read, or a file is no list.
pub fn read(path: &Path, known: impl Fn(&str, &str) -> bool) -> Result<Vec<Value>> {
    if path.is_file() {
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        return serde_json::from_slice(&text)
            .with_context(|| format!("parsing {}", path.display()));
    }
    let mut files = Vec::new();
    find(path, &mut files)?;
    let mut objects = Vec::new();
    let mut left_out = BTreeMap::new();
    for file in &files {
        let text = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let text = String::from_utf8_lossy(&text);
        for document in documents(&text) {
            match serde_saphyr::from_str::<Value>(document) {
                Ok(value) => flatten(value, &mut objects),
                Err(_) => *left_out.entry(file.display().to_string()).or_insert(0) += 1,
            }
        }
    }
    let (definitions, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(is_definition);
    let definitions: Vec<Value> = definitions
        .into_iter()
        .filter(|one| !SERVED_GROUPS.contains(&text_at(one, "/spec/group")))
        .collect();
    let defined: BTreeSet<(String, String)> = definitions.iter().flat_map(kinds_of).collect();
    let mut seen = BTreeSet::new();
    let mut taken = Vec::new();
    for mut object in definitions.into_iter().chain(others) {
        let version = text_at(&object, "/apiVersion").to_owned();
        let kind = text_at(&object, "/kind").to_owned();
        let is_known = known(&version, &kind) || defined.contains(&(version.clone(), kind.clone()));
        if !is_known {
            *left_out.entry(format!("{version} {kind}")).or_insert(0) += 1;
            continue;
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("namespace");
        }
        let name = text_at(&object, "/metadata/name").to_owned();
        if name.is_empty() || seen.insert((version, kind, name)) {
            taken.push(object);
        }
    }
    println!(
        "{}: {} objects of {} files",
        path.display(),
        taken.len(),
        files.len()
    );
    for (what, times) in left_out.iter().take(NAMED_MAX) {
        println!("  left out: {what}, {times} times");
    }
    if left_out.len() > NAMED_MAX {
        println!("  left out: {} more", left_out.len() - NAMED_MAX);
    }
    Ok(taken)
}

/// Whether an object defines a kind.
pub fn is_definition(object: &Value) -> bool {
    object["apiVersion"] == "apiextensions.k8s.io/v1"
        && object["kind"] == "CustomResourceDefinition"
}

/// Resource and whether it is namespaced, of a kind that one of the manifests defines.
pub fn defined<'a>(manifests: &'a [Value], version: &str, kind: &str) -> Option<(&'a str, bool)> {
    let definition = manifests
        .iter()
        .filter(|one| is_definition(one))
        .find(|one| {
            kinds_of(one).any(|(a_version, a_kind)| a_version == version && a_kind == kind)
        })?;
    let namespaced = text_at(definition, "/spec/scope") == "Namespaced";
    Some((text_at(definition, "/spec/names/plural"), namespaced))
}

/// `apiVersion` and `kind` of each version that a definition serves.
fn kinds_of(definition: &Value) -> impl Iterator<Item = (String, String)> + '_ {
    let versions = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten();
    let served = versions.filter(|version| version["served"] == true);
    served.map(|version| {
        let group = text_at(definition, "/spec/group");
        let name = text_at(version, "/name");
        let kind = text_at(definition, "/spec/names/kind");
        (format!("{group}/{name}"), kind.to_owned())
    })
}

fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let extension = path.extension().and_then(|extension| extension.to_str());
        if path.is_dir() {
            find(&path, found)?;
        } else if matches!(extension, Some("yaml" | "yml" | "json")) {
            found.push(path);
        }
    }
    Ok(())
}

/// The documents of a text in YAML. A marker stands at the beginning of its line, where no text inside a value does.
fn documents(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut begin = 0;
    for (at, line) in text
        .match_indices("---")
        .filter(|(at, _)| *at == 0 || text.as_bytes()[at - 1] == b'\n')
    {
        found.push(&text[begin..at]);
        begin = at + line.len();
    }
    found.push(&text[begin..]);
    found.retain(|document| !document.trim().is_empty());
    found
}

/// What is an object, and those inside of lists.
fn flatten(value: Value, objects: &mut Vec<Value>) {
    match value {
        Value::Object(map) if map.contains_key("kind") && map.contains_key("apiVersion") => {
            let mut map = map;
            let is_list = map["kind"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("List"));
            match map.remove("items") {
                Some(Value::Array(items)) if is_list => {
                    items.into_iter().for_each(|item| flatten(item, objects));
                }
                items => {
                    map.extend(items.map(|items| ("items".to_owned(), items)));
                    objects.push(Value::Object(map));
                }
            }
        }
        Value::Array(items) => items.into_iter().for_each(|item| flatten(item, objects)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_definitions_first_and_what_they_define() {
        let dir = std::env::temp_dir().join(format!("weft-manifests-{}", std::process::id()));
        fs::create_dir_all(dir.join("deep")).unwrap();
        let object = "apiVersion: a.io/v1\nkind: A\nmetadata: {name: x, namespace: y}\n";
        let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: as.a.io}\nspec: {group: a.io, scope: Cluster, names: {kind: A, plural: as}, versions: [{name: v1, served: true}, {name: v2, served: false}]}\n";
        fs::write(
            dir.join("a.yaml"),
            format!("# c\n---\n{object}---\n{object}\n---\napiVersion: a.io/v2\nkind: A\n"),
        )
        .unwrap();
        fs::write(dir.join("deep/b.yml"), definition).unwrap();
        fs::write(dir.join("deep/c.yaml"), "{{ template }}: [\n").unwrap();
        fs::write(dir.join("d.json"), r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"}}]}"#).unwrap();
        let known = |version: &str, kind: &str| {
            matches!(
                (version, kind),
                ("v1", "ConfigMap") | ("apiextensions.k8s.io/v1", _)
            )
        };
        let read = read(&dir, known);
        fs::remove_dir_all(&dir).unwrap();
        let read = read.unwrap();
        let names: Vec<String> = read
            .iter()
            .map(|one| format!("{} {}", text_at(one, "/kind"), one["metadata"]))
            .collect();
        assert_eq!(
            names,
            [
                r#"CustomResourceDefinition {"name":"as.a.io"}"#,
                r#"A {"name":"x"}"#,
                r#"ConfigMap {"name":"m"}"#,
            ]
        );
        assert_eq!(defined(&read, "a.io/v1", "A"), Some(("as", false)));
        assert_eq!(defined(&read, "a.io/v2", "A"), None);
    }
}
