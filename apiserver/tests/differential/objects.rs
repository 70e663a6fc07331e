//! Objects without what each server makes up, and where two of them differ.

use serde_json::{Value, json};

use crate::kept::KEPT;
use crate::report::shortened;

/// Columns of times, of addresses that a server gives, and of what a controller there writes when it comes to it.
const MADE_UP: [&str; 7] = [
    "Age",
    "Cluster-IP",
    "Created At",
    "Established",
    "First Seen",
    "Last Seen",
    "MissingPL",
];

/// An object without what a server makes up, also in a list or in an event of a watch; a table without that of its rows' objects, and without how long ago they were made.
pub fn comparable(object: &Value, kind: &str) -> Value {
    let mut object = object.clone();
    if object["items"].is_array() && object.pointer("/metadata/name").is_none() {
        drop_at(&mut object, "/metadata", "resourceVersion");
        for item in object["items"].as_array_mut().into_iter().flatten() {
            *item = comparable(item, kind);
        }
        return object;
    }
    if object["type"].is_string() && object["object"].is_object() {
        // An event of a watch.
        object["object"] = comparable(&object["object"], kind);
        return object;
    }
    if object["kind"] == "Table" {
        let columns = object["columnDefinitions"].as_array().into_iter().flatten();
        let made_up: Vec<usize> = columns
            .enumerate()
            .filter(|(_, column)| MADE_UP.contains(&column["name"].as_str().unwrap()))
            .map(|(index, _)| index)
            .collect();
        for column in object["columnDefinitions"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            // In our own words.
            drop_at(column, "", "description");
        }
        for row in object["rows"].as_array_mut().into_iter().flatten() {
            for (column, cell) in row["cells"].as_array_mut().unwrap().iter_mut().enumerate() {
                if made_up.contains(&column) {
                    *cell = Value::Null;
                } else if let Some(text) = cell.as_str().filter(|text| text.contains("-uid=")) {
                    *cell = text.split_once("-uid=").map(|(label, _)| label).into();
                }
            }
            row["object"] = comparable(&row["object"], kind);
        }
        drop_at(&mut object, "/metadata", "resourceVersion");
        for kept in KEPT {
            (kept.alike)(&mut object, kind);
        }
        return object;
    }
    for field in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
    ] {
        drop_at(&mut object, "/metadata", field);
    }
    drop_at(
        &mut object,
        "/metadata/annotations",
        "deprecated.daemonset.template.generation",
    );
    if object.pointer("/metadata/annotations") == Some(&json!({})) {
        drop_at(&mut object, "/metadata", "annotations");
    }
    drop_at(&mut object, "/details", "uid");
    drop_at(&mut object, "/status", "lastPhaseTransitionTime");
    for labels in [
        "/metadata/labels",
        "/spec/selector/matchLabels",
        "/spec/template/metadata/labels",
    ] {
        for label in ["controller-uid", "batch.kubernetes.io/controller-uid"] {
            drop_at(&mut object, labels, label);
        }
    }
    let owners = object.pointer_mut("/metadata/managedFields");
    for owner in owners.and_then(Value::as_array_mut).into_iter().flatten() {
        for said_by_the_client in ["time", "manager"] {
            drop_at(owner, "", said_by_the_client);
        }
    }
    if object.pointer("/metadata/generateName").is_some() {
        drop_at(&mut object, "/metadata", "name");
    }
    // Of these a controller there writes the status, when it comes to it.
    if matches!(
        kind,
        "CustomResourceDefinition" | "FlowSchema" | "PriorityLevelConfiguration"
    ) && let Some(Value::Array(owners)) = object.pointer_mut("/metadata/managedFields")
    {
        owners.retain(|owner| owner["subresource"] != "status");
        drop_at(&mut object, "", "status");
    }
    if kind == "CertificateSigningRequest" {
        // Who asks is another person on another server.
        for field in ["uid", "username", "groups", "extra"] {
            drop_at(&mut object, "/spec", field);
        }
    }
    if kind == "Service" {
        for field in ["clusterIP", "clusterIPs"] {
            if object["spec"][field] != "None" && object["spec"][field] != json!(["None"]) {
                drop_at(&mut object, "/spec", field);
            }
        }
        drop_at(&mut object, "/spec", "healthCheckNodePort");
        for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
            drop_at(port, "", "nodePort");
        }
    }
    token_volume(&mut object);
    for kept in KEPT {
        (kept.alike)(&mut object, kind);
    }
    // Owners of nothing that is compared.
    if let Some(Value::Array(owners)) = object.pointer_mut("/metadata/managedFields") {
        owners.retain(|owner| owner["fieldsV1"] != json!({}));
    }
    if object.pointer("/metadata/managedFields") == Some(&json!([])) {
        drop_at(&mut object, "/metadata", "managedFields");
    }
    object
}

pub fn drop_at(value: &mut Value, pointer: &str, field: &str) {
    if let Some(Value::Object(map)) = value.pointer_mut(pointer) {
        map.remove(field);
    }
}

/// The volume of a token has a name by chance.
fn token_volume(object: &mut Value) {
    const PREFIX: &str = "kube-api-access-";
    let plain = |item: &mut Value| {
        let name = item["name"].as_str().unwrap_or("");
        if name.starts_with(PREFIX) {
            item["name"] = PREFIX.into();
        }
    };
    let Some(spec) = object.pointer_mut("/spec") else {
        return;
    };
    let listed = |holder: &mut Value, list: &str| {
        let items = holder.get_mut(list).and_then(Value::as_array_mut);
        items.into_iter().flatten().for_each(plain);
    };
    listed(spec, "volumes");
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            listed(container, "volumeMounts");
        }
    }
}

pub fn differences(theirs: &Value, ours: &Value, path: &mut String, found: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            let keys: std::collections::BTreeSet<&String> =
                theirs.keys().chain(ours.keys()).collect();
            for key in keys {
                let length = path.len();
                path.push('.');
                path.push_str(key);
                match (theirs.get(key), ours.get(key)) {
                    (Some(theirs), Some(ours)) => differences(theirs, ours, path, found),
                    (theirs, ours) => {
                        let shown = |value: Option<&Value>| {
                            value.map_or("absent".to_owned(), |value| {
                                shortened(&value.to_string(), 100)
                            })
                        };
                        found.push(format!(
                            "{path}: {} there, {} here",
                            shown(theirs),
                            shown(ours)
                        ));
                    }
                }
                path.truncate(length);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            for (theirs, ours) in theirs.iter().zip(ours) {
                let length = path.len();
                path.push_str("[]");
                differences(theirs, ours, path, found);
                path.truncate(length);
            }
        }
        (theirs, ours) if theirs != ours => found.push(format!(
            "{path}: {} there, {} here",
            shortened(&theirs.to_string(), 100),
            shortened(&ours.to_string(), 100)
        )),
        _ => {}
    }
}
