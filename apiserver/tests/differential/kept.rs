//! The differences that are kept on purpose, each under the name that `docs/differences.md` has it by.

use serde_json::{Value, json};

use crate::objects::drop_at;
use crate::server::Answer;

/// A difference that is kept on purpose: its name in the documentation, and how an object is made alike before comparing.
/// Those of messages and codes are made alike in [`same_message`] and where answers of 500 are passed over.
pub struct Kept {
    pub name: &'static str,
    /// Applied to the reference's object and to ours.
    pub alike: fn(&mut Value, &str),
}

pub const KEPT: &[Kept] = &[
    Kept {
        name: "pods leave a silent node after 2 s",
        alike: tolerations,
    },
    Kept {
        name: "a node made by hand is not tainted",
        alike: new_node_taint,
    },
    Kept {
        name: "a patched object is not shown whole",
        alike: |_, _| {},
    },
    Kept {
        name: "which operation of a JSON patch did not fit",
        alike: |_, _| {},
    },
    Kept {
        name: "no difference in Go's syntax",
        alike: |_, _| {},
    },
    Kept {
        name: "malformed strategic directives",
        alike: |_, _| {},
    },
    Kept {
        name: "annotations are not counted in a Deployment's generation",
        alike: deployment_generation,
    },
    Kept {
        name: "what follows from a field is nobody's",
        alike: completed_fields,
    },
    Kept {
        name: "what the server strips is no change of an owner",
        alike: stripped,
    },
    Kept {
        name: "where an object lies is not told",
        alike: |_, _| {},
    },
    Kept {
        name: "no finalizer keeps a class of attributes",
        alike: protection,
    },
    Kept {
        name: "numbers beyond their type in a strategic patch",
        alike: |_, _| {},
    },
    Kept {
        name: "what an allocator evaluates is not compiled",
        alike: |_, _| {},
    },
    Kept {
        name: "a value that may not change stands as it was sent",
        alike: |_, _| {},
    },
    Kept {
        name: "what is empty is shown as none",
        alike: |_, _| {},
    },
    Kept {
        name: "an address of Services has a column for its age",
        alike: |object, kind| {
            if object["kind"] == "Table" && kind == "IPAddress" {
                let column = |column: &Value| column["name"] != "Age";
                let columns = object["columnDefinitions"].as_array_mut();
                columns
                    .into_iter()
                    .for_each(|columns| columns.retain(column));
                for row in object["rows"].as_array_mut().into_iter().flatten() {
                    row["cells"].as_array_mut().unwrap().truncate(2);
                }
            }
        },
    },
    Kept {
        name: "a CSIDriver has no generation",
        alike: |object, kind| {
            if kind == "CSIDriver" {
                drop_at(object, "/metadata", "generation");
            }
        },
    },
];

fn tolerations(object: &mut Value, _: &str) {
    for toleration in object
        .pointer_mut("/spec/tolerations")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let own = matches!(toleration["tolerationSeconds"].as_i64(), Some(2 | 300));
        let named = toleration["key"].as_str().is_some_and(|key| {
            matches!(
                key,
                "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable"
            )
        });
        if own && named {
            drop_at(toleration, "", "tolerationSeconds");
        }
    }
}

fn new_node_taint(object: &mut Value, kind: &str) {
    if kind != "Node" {
        return;
    }
    let owners = object.pointer_mut("/metadata/managedFields");
    if let Some(Value::Array(owners)) = owners {
        for owner in owners.iter_mut() {
            drop_at(owner, "/fieldsV1/f:spec", "f:taints");
            if owner.pointer("/fieldsV1/f:spec") == Some(&json!({})) {
                drop_at(owner, "/fieldsV1", "f:spec");
            }
        }
        owners.retain(|owner| owner["fieldsV1"] != json!({}));
    }
    if let Some(Value::Array(taints)) = object.pointer_mut("/spec/taints") {
        taints.retain(|taint| taint["key"] != "node.kubernetes.io/not-ready");
        if taints.is_empty() {
            drop_at(object, "/spec", "taints");
        }
    }
}

fn deployment_generation(object: &mut Value, kind: &str) {
    if kind == "Deployment" {
        drop_at(object, "/metadata", "generation");
    }
}

/// Lists of which the server drops parts: who owns them, and whether sending those parts again is a change.
fn stripped(object: &mut Value, kind: &str) {
    let list = match kind {
        "ServiceAccount" => "f:secrets",
        "EndpointSlice" => "f:endpoints",
        _ => return,
    };
    drop_at(object, "/metadata", "generation");
    if let Some(Value::Array(owners)) = object.pointer_mut("/metadata/managedFields") {
        for owner in owners.iter_mut() {
            drop_at(owner, "/fieldsV1", list);
        }
        owners.retain(|owner| owner["fieldsV1"] != json!({}));
    }
}

/// Whether an answer differs from the recorded one in its code or its message for a reason that is kept.
pub fn is_kept(manifest: &Value, case: &Value, theirs: &Answer, ours: &Answer) -> bool {
    let kind = manifest["kind"].as_str().unwrap();
    let version = manifest["apiVersion"].as_str().unwrap();
    let action = case["action"].as_str().unwrap();
    // kube-apiserver fails or hangs up on some malformed patches: nothing to be held against.
    theirs.code == 0
        || theirs.code >= 500
        // A controller there wrote its status meanwhile.
        || theirs.code == 409 && kind == "FlowSchema" && action != "delete"
        // There the finalizer keeps it.
        || theirs.code == 200 && action == "delete" && PROTECTED.contains(&kind)
        // There the server's own taint is somebody's.
        || theirs.code == 409 && kind == "Node" && theirs.message.contains(".spec.taints")
        || version.starts_with("resource.k8s.io/") && theirs.message.contains("compilation failed")
        || action.contains("strategic")
            && ours.code == 422
            && ours.message.contains("cannot unmarshal number")
            && !theirs.message.contains("cannot unmarshal")
}

/// Kinds that a finalizer of the server's own keeps there.
const PROTECTED: [&str; 1] = ["VolumeAttributesClass"];

fn protection(object: &mut Value, _: &str) {
    if let Some(Value::Array(finalizers)) = object.pointer_mut("/metadata/finalizers") {
        let own = |finalizer: &Value| {
            let name = finalizer.as_str().unwrap_or_default();
            name.starts_with("kubernetes.io/p") && name.ends_with("-protection")
                || name == "kubernetes.io/vac-protection"
        };
        finalizers.retain(|finalizer| !own(finalizer));
        if finalizers.is_empty() {
            drop_at(object, "/metadata", "finalizers");
        }
    }
}

/// The labels that a Job takes of its template.
fn completed_fields(object: &mut Value, kind: &str) {
    if kind != "Job" {
        return;
    }
    let owners = object.pointer_mut("/metadata/managedFields");
    for owner in owners.and_then(Value::as_array_mut).into_iter().flatten() {
        drop_at(owner, "/fieldsV1/f:metadata", "f:labels");
        if owner.pointer("/fieldsV1/f:metadata") == Some(&json!({})) {
            drop_at(owner, "/fieldsV1", "f:metadata");
        }
    }
}
