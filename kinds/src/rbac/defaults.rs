//! The roles and bindings that every cluster has from its beginning: those of Kubernetes, and what of our own kinds the common ones gather.
//!
//! They stand in `defaults.txt`, an object a head line and what it says indented below it:
//!
//! ```text
//! clusterrole NAME [+LABEL…]                    role NAMESPACE NAME
//!   VERBS GROUPS RESOURCES [NAMES]                `core` is the group without a name
//!   VERBS PATHS
//!   gathers LABEL                                 rules of all roles with that label
//! clusterrolebinding NAME [= ROLE]              rolebinding NAMESPACE NAME [= ROLE]
//!   user NAME · group NAME · account NAMESPACE/NAME
//! ```
//!
//! Invariants: mending adds what is missing and takes nothing away; what somebody has marked as his own to change
//! (`rbac.authorization.kubernetes.io/autoupdate: "false"`) stays as it is. Source: what a fresh kube-apiserver 1.37 has.

use serde_json::{Map, Value, json};

use super::GROUP;
use super::rules::{Rule, missing};
use crate::furniture::Piece;
use crate::lens::{fill, items, member, object, text};

const TABLE: &str = include_str!("defaults.txt");
/// Says whether an object is kept up to date.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
/// Begins the labels by which roles are gathered.
const GATHERED: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// All of them, in the order of making.
pub fn pieces() -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for line in TABLE.lines() {
        match (line.strip_prefix("  "), pieces.last_mut()) {
            (Some(said), Some(piece)) => say(&mut piece.object, said),
            _ => pieces.extend(begun(line)),
        }
    }
    pieces
}

fn lists(text: &str) -> Vec<String> {
    text.split(',')
        .map(|one| if one == "core" { "" } else { one }.to_owned())
        .collect()
}

/// The object of a head line.
fn begun(line: &str) -> Option<Piece> {
    let mut words = line.split(' ');
    let (kind, role_kind, namespaced) = match words.next()? {
        "clusterrole" => ("ClusterRole", None, false),
        "role" => ("Role", None, true),
        "clusterrolebinding" => ("ClusterRoleBinding", Some("ClusterRole"), false),
        "rolebinding" => ("RoleBinding", Some("Role"), true),
        _ => return None,
    };
    let namespace = if namespaced { words.next() } else { None };
    let name = words.next()?;
    let mut labels = Map::new();
    let (label, value) = BOOTSTRAPPING;
    labels.insert(label.to_owned(), value.into());
    let mut role = name;
    while let Some(word) = words.next() {
        match word.strip_prefix('+') {
            Some(label) => drop(labels.insert(format!("{GATHERED}{label}"), "true".into())),
            None => role = words.next()?,
        }
    }
    let mut made = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "labels": labels, "annotations": {AUTOUPDATE: "true"}},
    });
    if let Some(namespace) = namespace {
        made["metadata"]["namespace"] = namespace.into();
    }
    Some(match role_kind {
        None => {
            made["rules"] = Value::Null;
            Piece {
                mend: mend_role,
                ..Piece::made_once(made)
            }
        }
        Some(role_kind) => {
            made["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
            Piece {
                mend: mend_binding,
                ..Piece::made_once(made)
            }
        }
    })
}

fn push(holder: &mut Value, list: &str, item: Value) {
    fill(holder, list, json!([]));
    if let Some(list) = holder[list].as_array_mut() {
        list.push(item);
    }
}

/// What one line says of an object.
fn say(of: &mut Value, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["gathers", label] => {
            let label = format!("{GATHERED}{label}");
            let selector = json!({"matchLabels": {label: "true"}});
            push(
                member(of, "aggregationRule"),
                "clusterRoleSelectors",
                selector,
            );
        }
        ["account", account] => {
            let (namespace, name) = account.split_once('/').unwrap_or(("", account));
            let subject = json!({"kind": "ServiceAccount", "name": name, "namespace": namespace});
            push(of, "subjects", subject);
        }
        [kind @ ("user" | "group"), name] => {
            let kind = if *kind == "user" { "User" } else { "Group" };
            let subject = json!({"apiGroup": GROUP, "kind": kind, "name": name});
            push(of, "subjects", subject);
        }
        [verbs, paths] => {
            let rule = Rule {
                verbs: lists(verbs),
                paths: lists(paths),
                ..Rule::default()
            };
            push(of, "rules", rule.to_value());
        }
        [verbs, groups, resources, names @ ..] => {
            let rule = Rule {
                verbs: lists(verbs),
                groups: lists(groups),
                resources: lists(resources),
                names: names.first().map(|names| lists(names)).unwrap_or_default(),
                ..Rule::default()
            };
            push(of, "rules", rule.to_value());
        }
        _ => {}
    }
}

fn is_protected(present: &Value) -> bool {
    let annotations = object(present, "/metadata/annotations");
    annotations.and_then(|all| all.get(AUTOUPDATE)) == Some(&json!("false"))
}

/// Labels and annotations that are missing or others.
fn mend_metadata(next: &mut Value, wanted: &Value) {
    for map in ["labels", "annotations"] {
        let wanted = object(wanted, &format!("/metadata/{map}"));
        for (key, value) in wanted.into_iter().flatten() {
            member(member(next, "metadata"), map)[key] = value.clone();
        }
    }
}

fn changed(next: Value, present: &Value) -> Option<Value> {
    (next != *present).then_some(next)
}

fn mend_role(present: &Value, wanted: &Value) -> Option<Value> {
    if is_protected(present) {
        return None;
    }
    let mut next = present.clone();
    mend_metadata(&mut next, wanted);
    let selectors = "/aggregationRule/clusterRoleSelectors";
    if items(wanted, selectors).is_empty() {
        let held = Rule::all_of(present);
        // What a rule says in parts, others may say together: whole rules are added where a part is missing.
        for rule in Rule::all_of(wanted) {
            if !missing(&held, std::slice::from_ref(&rule)).is_empty() {
                push(&mut next, "rules", rule.to_value());
            }
        }
    } else {
        for selector in items(wanted, selectors) {
            if !items(present, selectors).contains(selector) {
                let gathers = member(&mut next, "aggregationRule");
                push(gathers, "clusterRoleSelectors", selector.clone());
            }
        }
    }
    changed(next, present)
}

fn mend_binding(present: &Value, wanted: &Value) -> Option<Value> {
    if is_protected(present) {
        return None;
    }
    let mut next = present.clone();
    mend_metadata(&mut next, wanted);
    for subject in items(wanted, "/subjects") {
        let same = |other: &Value| {
            ["/kind", "/name", "/namespace"]
                .iter()
                .all(|field| text(other, field) == text(subject, field))
        };
        if !items(present, "/subjects").iter().any(same) {
            push(&mut next, "subjects", subject.clone());
        }
    }
    // A binding to another role is made anew: that is nothing that a write can change.
    next["roleRef"] = wanted["roleRef"].clone();
    changed(next, present)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::told;
    use crate::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, KindRef, ROLE, ROLE_BINDING};

    fn piece(kind: &str, name: &str) -> Piece {
        let mut pieces = pieces().into_iter();
        let named = |piece: &Piece| {
            piece.object["kind"] == kind && piece.object["metadata"]["name"] == name
        };
        pieces.find(named).unwrap()
    }

    #[test]
    fn every_line_is_an_object_or_says_something_of_one() {
        let heads = TABLE.lines().filter(|line| !line.starts_with(' ')).count();
        let pieces = pieces();
        assert_eq!(pieces.len(), heads);
        let mut said = 0;
        for piece in &pieces {
            let kind: KindRef<'static> = match text(&piece.object, "/kind") {
                "ClusterRole" => &CLUSTER_ROLE,
                "Role" => &ROLE,
                "ClusterRoleBinding" => &CLUSTER_ROLE_BINDING,
                _ => &ROLE_BINDING,
            };
            let name = &piece.object["metadata"]["name"];
            assert_eq!(told::of_new(kind, &piece.object), [""; 0], "{name}");
            assert_eq!((piece.mend)(&piece.object, &piece.object), None, "{name}");
            for list in [
                "/rules",
                "/subjects",
                "/aggregationRule/clusterRoleSelectors",
            ] {
                said += items(&piece.object, list).len();
            }
        }
        let lines = TABLE.lines().filter(|line| line.starts_with(' ')).count();
        assert_eq!(said, lines);
    }

    #[test]
    fn what_a_user_has_without_any_other_role() {
        let basic = piece("ClusterRole", "system:basic-user");
        let rules = Rule::all_of(&basic.object);
        let shown: Vec<String> = rules
            .iter()
            .map(|rule| rule.to_value().to_string())
            .collect();
        assert!(shown.iter().any(|rule| rule.contains("selfsubjectreviews")));
        let public = piece("ClusterRoleBinding", "system:public-info-viewer");
        let subjects = items(&public.object, "/subjects").iter();
        let names: Vec<&str> = subjects.map(|subject| text(subject, "/name")).collect();
        assert_eq!(names, ["system:authenticated", "system:unauthenticated"]);
    }

    #[test]
    fn mending_adds_and_takes_nothing_away() {
        let Piece { object, mend, .. } = piece("ClusterRole", "system:discovery");
        let mut less = object.clone();
        let own = json!({"verbs": ["get"], "nonResourceURLs": ["/own"]});
        less["rules"] = json!([own]);
        less["metadata"]["labels"] = json!({"own": "kept"});
        let mended = mend(&less, &object).unwrap();
        assert_eq!(mended["rules"][0], own);
        assert_eq!(mended["rules"][1], object["rules"][0]);
        assert_eq!(mended["metadata"]["labels"]["own"], "kept");
        assert_eq!(mend(&mended, &object), None);
        less["metadata"]["annotations"] = json!({AUTOUPDATE: "false"});
        assert_eq!(mend(&less, &object), None);

        let Piece { object, mend, .. } = piece("ClusterRoleBinding", "system:discovery");
        let mut less = object.clone();
        less["subjects"] = json!([{"apiGroup": GROUP, "kind": "User", "name": "jo"}]);
        let mended = mend(&less, &object).unwrap();
        assert_eq!(items(&mended, "/subjects").len(), 2);
        let Piece { object, mend, .. } = piece("ClusterRole", "edit");
        let mut other = object.clone();
        other["aggregationRule"] = Value::Null;
        other["rules"] = json!([own]);
        let mended = mend(&other, &object).unwrap();
        assert_eq!(mended["aggregationRule"], object["aggregationRule"]);
    }
}
