//! The parts of the control plane as `ComponentStatus` names them, each asked when somebody reads them.
//!
//! The store is asked for an object, confirmed by the leader; scheduler and controllers are where the leader is, and are well when there is
//! one.

use serde_json::{Value, json};
use weft_kinds::KindRef;

use super::AppState;
use crate::caller::Caller;

/// What is in every cluster.
const KNOWN: &str = "kube-system";

/// Each part, and what it says of itself.
pub(super) async fn parts(state: &AppState) -> Vec<Value> {
    let reader = Caller::system("apiserver", None);
    let reader = state.objects.client(&reader);
    let read = reader.get(&weft_kinds::NAMESPACE, None, KNOWN).await;
    let store = match read {
        // Without the object it has answered all the same.
        Err(error) if error.code != 404 => Err(error.message),
        _ => Ok(()),
    };
    let led = match *state.objects.store().leader().borrow() {
        Some(_) => Ok(()),
        None => Err("no server leads".to_owned()),
    };
    [
        ("controller-manager", led.clone()),
        ("etcd-0", store),
        ("scheduler", led),
    ]
    .into_iter()
    .map(|(name, health)| part(name, health))
    .collect()
}

fn part(name: &str, health: Result<(), String>) -> Value {
    let condition = match health {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(error) => json!({"type": "Healthy", "status": "False", "error": error}),
    };
    json!({
        "kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name}, "conditions": [condition],
    })
}

/// A list as JSON; what is in one does not say its kind.
pub(super) fn list(kind: KindRef<'_>, parts: &[Value]) -> Value {
    let items: Vec<Value> = parts
        .iter()
        .map(|part| json!({"metadata": part["metadata"], "conditions": part["conditions"]}))
        .collect();
    json!({
        "kind": format!("{}List", kind.kind), "apiVersion": kind.api_version(), "metadata": {}, "items": items,
    })
}
