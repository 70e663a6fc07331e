//! Binding a pod to a node, once.

use serde_json::{Value, json};
use weft_api::status::{Cause, StatusError};
use weft_api::time::rfc3339;
use weft_kinds::Subresource;
use weft_kinds::lens::{items, member, text};

use super::body::check_uid;
use super::owners::Ownership;
use super::{Objects, WriteOptions};
use crate::authz::Authorized;
use crate::request::{Asked, ObjectRef};

/// Which node a pod gets, and what the decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    pub pod: &'a str,
    pub node: &'a str,
    /// Refuse if the pod is another one of that name. Empty: any.
    pub uid: &'a str,
    /// Refuse if anything about the pod changed since. Empty: whatever it is now.
    pub resource_version: &'a str,
}

impl Objects {
    /// Binds a pod to a node, once. The request names the pod, or the namespace that it is in.
    ///
    /// # Errors
    /// 404; 409 when it is bound or in deletion, or another pod than the binding was decided for.
    pub async fn bind(
        &self,
        asked: &Authorized,
        binding: Binding<'_>,
        options: &WriteOptions,
    ) -> Result<(), StatusError> {
        let namespace = match &asked.request().asked {
            Asked::Bindings { namespace } if asked.request().verb == "create" => namespace.as_str(),
            _ => {
                let (pod, resource) = asked.object("create")?;
                if resource.subresource != Some(Subresource::Binding) {
                    return Err(StatusError::method_not_allowed());
                }
                if pod.name != binding.pod {
                    return Err(StatusError::bad_request(
                        "name in URL does not match name in Binding object",
                    ));
                }
                pod.namespace.unwrap_or_default()
            }
        };
        let Binding { pod, node, .. } = binding;
        if node.is_empty() {
            let cause = Cause::required("target.name", "");
            return Err(StatusError::invalid("Binding", "", pod, vec![cause]));
        }
        let object = ObjectRef {
            kind: &weft_kinds::POD,
            namespace: Some(namespace),
            name: pod,
        };
        let scheduled = json!({
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": null,
            "lastTransitionTime": rfc3339(self.now()),
        });
        let part = Some(Subresource::Binding);
        self.rewrite(asked, object, part, options, Ownership::Kept, |current| {
            bound(current, binding, &scheduled)
        })
        .await?;
        Ok(())
    }
}

/// The pod on its node.
fn bound(current: &Value, binding: Binding<'_>, scheduled: &Value) -> Result<Value, StatusError> {
    let Binding { pod, node, .. } = binding;
    let conflict = |detail: String| Err(StatusError::conflict("pods/binding", "", pod, &detail));
    check_uid(&weft_kinds::POD, pod, current, binding.uid)?;
    if !text(current, "/metadata/deletionTimestamp").is_empty() {
        return conflict(format!(
            "pod {pod} is being deleted, cannot be assigned to a host"
        ));
    }
    let before = text(current, "/spec/nodeName");
    if !before.is_empty() {
        return conflict(format!("pod {pod} is already assigned to node {before:?}"));
    }
    let mut next = current.clone();
    if !binding.resource_version.is_empty() {
        member(&mut next, "metadata")["resourceVersion"] = binding.resource_version.into();
    }
    member(&mut next, "spec")["nodeName"] = node.into();
    let status = member(&mut next, "status");
    let mut conditions: Vec<Value> = items(status, "/conditions")
        .iter()
        .filter(|condition| text(condition, "/type") != "PodScheduled")
        .cloned()
        .collect();
    conditions.push(scheduled.clone());
    status["conditions"] = conditions.into();
    Ok(next)
}
