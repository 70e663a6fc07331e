//! The committed tables: the schemas of the kinds that are built in, by their definitions' names and by kind.
//!
//! Parsed once, on first use. Invariant: each reference in them resolves.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde_json::Value;
use serde_json::value::RawValue;
use weft_api::gvk::GroupVersionKind;

use super::{Node, Schema, last_segment};

static TABLE_TEXT: &str = include_str!("table.json");
static OWN_TEXT: &str = include_str!("own.json");
static GO_TEXT: &str = include_str!("go.json");

pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let derived: BTreeMap<&'static str, &'static RawValue> =
        serde_json::from_str(TABLE_TEXT).expect("the committed table is a JSON object");
    let derived = derived
        .into_iter()
        .map(|(name, text)| (name, Cow::Borrowed(text.get())));
    let own: BTreeMap<&'static str, Value> =
        serde_json::from_str(OWN_TEXT).expect("the schemas of our own kinds are a JSON object");
    let own = own
        .into_iter()
        .map(|(name, schema)| (name, Cow::Owned(schema.to_string())));
    let texts: BTreeMap<&'static str, Cow<'static, str>> = derived.chain(own).collect();
    let go: BTreeMap<&'static str, Vec<&'static str>> =
        serde_json::from_str(GO_TEXT).expect("the committed table holds lists of fields");
    let mut by_kind = BTreeMap::new();
    let nodes: BTreeMap<&'static str, Node> = texts
        .iter()
        .map(|(name, text)| {
            let mut node: Node =
                serde_json::from_str(text).expect("the committed table holds schemas");
            if let Some(fields) = go.get(name) {
                node.learn(fields);
            }
            for mark in &node.kinds {
                // Shared definitions (DeleteOptions) carry a mark for every group; the first name wins.
                let of_kind: &mut Vec<(String, String, &str)> =
                    by_kind.entry(mark.kind.clone()).or_default();
                let is_of =
                    |group: &str, version: &str| (group, version) == (&*mark.group, &*mark.version);
                if !of_kind
                    .iter()
                    .any(|(group, version, _)| is_of(group, version))
                {
                    of_kind.push((mark.group.clone(), mark.version.clone(), *name));
                }
            }
            (*name, node)
        })
        .collect();
    Table {
        texts,
        nodes,
        by_kind,
    }
});

/// A group, a version, and the schema of a kind in it.
type Versioned = (&'static str, &'static str, Schema<'static>);

/// The schemas of kinds by their names, groups and versions.
pub(super) static SCHEMAS: LazyLock<BTreeMap<&str, Vec<Versioned>>> = LazyLock::new(|| {
    let by_kind = TABLE.by_kind.iter();
    let schemas = by_kind.map(|(kind, definitions)| {
        let schema = |(group, version, name): &'static (String, String, &'static str)| {
            Some((&**group, &**version, Schema::named(name)?))
        };
        (&**kind, definitions.iter().filter_map(schema).collect())
    });
    schemas.collect()
});

pub(super) struct Table {
    texts: BTreeMap<&'static str, Cow<'static, str>>,
    pub(super) nodes: BTreeMap<&'static str, Node>,
    /// By its name, group and version of each kind, and its definition.
    by_kind: BTreeMap<String, Vec<(String, String, &'static str)>>,
}

/// Versions that Kubernetes serves no longer, whose kinds have the fields of those that came after.
const FORMER: &[(&str, &str, &str)] = &[("batch", "v1beta1", "v1"), ("policy", "v1beta1", "v1")];

/// The version whose definitions tell of a kind.
pub(super) fn standing_version<'v>(group: &str, version: &'v str) -> &'v str {
    let mut former = FORMER.iter();
    let former = former.find(|(of, from, _)| (*of, *from) == (group, version));
    former.map_or(version, |(_, _, version)| version)
}

/// The definition behind a kind, as in `io.k8s.api.core.v1.Pod`.
pub fn definition_name(gvk: &GroupVersionKind) -> Option<&'static str> {
    let version = standing_version(&gvk.group, &gvk.version);
    let of_kind = TABLE.by_kind.get(&*gvk.kind)?.iter();
    let mut definitions = of_kind
        .filter(|(of_group, of_version, _)| (&**of_group, &**of_version) == (&*gvk.group, version));
    definitions.next().map(|(_, _, definition)| *definition)
}

/// The OpenAPI v3 schema of a definition, as compact JSON text.
pub fn text(name: &str) -> Option<&'static str> {
    TABLE.texts.get(name).map(|text| &**text)
}

/// The given definitions and all they refer to. Names that the table does not have are left out.
pub fn closure<'a>(roots: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'static str> {
    fn follow(node: &'static Node, wanted: &mut Vec<&'static str>) {
        wanted.extend(node.reference());
        node.properties
            .values()
            .chain(node.items.as_deref())
            .chain(node.additional_properties.as_deref())
            .for_each(|child| follow(child, wanted));
    }
    let mut found = BTreeSet::new();
    let mut wanted: Vec<&'static str> = roots
        .into_iter()
        .filter_map(|root| TABLE.nodes.get_key_value(root).map(|(name, _)| *name))
        .collect();
    while let Some(name) = wanted.pop() {
        if let Some((name, node)) = TABLE.nodes.get_key_value(last_segment(name, '/'))
            && found.insert(*name)
        {
            follow(node, &mut wanted);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_of_the_table_resolves() {
        let all = closure(TABLE.texts.keys().copied());
        assert_eq!(all.len(), TABLE.texts.len());
        for text in TABLE.texts.values() {
            for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(TABLE.nodes.contains_key(name), "{name}");
            }
        }
    }

    #[test]
    fn every_struct_of_a_built_in_kind_knows_its_go_type() {
        for (name, node) in &TABLE.nodes {
            if !name.starts_with("dev.weft.") && !node.properties.is_empty() {
                assert_eq!(node.order.len(), node.properties.len(), "{name}");
            }
        }
        let container = Schema::named("io.k8s.api.core.v1.Container").unwrap();
        let first: Vec<&str> = container
            .properties()
            .map(|(name, _)| name)
            .take(3)
            .collect();
        assert_eq!(first, ["name", "image", "command"]);
        let go = |name: &str| container.field(name).unwrap().go().unwrap();
        assert!(!go("name").omit_empty && go("image").omit_empty);
        assert_eq!(go("ports").type_name, "[]v1.ContainerPort");
        assert!(go("securityContext").is_pointer());
    }
}
