//! The downward API: what a container may know of its pod, its node and its own resources. Pure.
//!
//! Read by variables (`environment`) and by files (`volumes`), which name in their errors what asked.

use crate::config_error::ConfigError;
use crate::node_facts::NodeFacts;
use crate::pod_view::{ContainerView, PodView, Resources};
use k8s_openapi::api::core::v1::{Container, ResourceFieldSelector};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use weft_api::Quantity;

/// Where a pod's fields and resources are read.
#[derive(Clone, Copy)]
pub(crate) struct Downward<'a> {
    pub(crate) pod: PodView<'a>,
    pub(crate) pod_ip: IpAddr,
    pub(crate) node: &'a NodeFacts,
}

impl Downward<'_> {
    /// The text of one field; `None` where there is no such field.
    pub(crate) fn field(self, path: &str) -> Option<String> {
        let subscript = |prefix: &str| {
            let key = path.strip_prefix(prefix)?.strip_prefix("['")?;
            key.strip_suffix("']")
        };
        if let Some(key) = subscript("metadata.labels") {
            return Some(self.pod.label(key).unwrap_or_default().to_owned());
        }
        if let Some(key) = subscript("metadata.annotations") {
            return Some(self.pod.annotation(key).unwrap_or_default().to_owned());
        }
        Some(match path {
            "metadata.name" => self.pod.name().to_owned(),
            "metadata.namespace" => self.pod.namespace().to_owned(),
            "metadata.uid" => self.pod.uid().to_owned(),
            "spec.nodeName" => self.node.name.clone(),
            "spec.serviceAccountName" => self.pod.service_account().to_owned(),
            "status.hostIP" | "status.hostIPs" => self.node.host_ip.to_string(),
            "status.podIP" | "status.podIPs" => self.pod_ip.to_string(),
            _ => return None,
        })
    }

    /// As [`Downward::field`], and labels and annotations as a whole: what a file can hold and a variable cannot.
    pub(crate) fn field_of_file(self, path: &str) -> Option<String> {
        let metadata = &self.pod.0.metadata;
        match path {
            "metadata.labels" => Some(lines(metadata.labels.as_ref())),
            "metadata.annotations" => Some(lines(metadata.annotations.as_ref())),
            _ => self.field(path),
        }
    }

    /// An amount of `container`'s, or of the one that `selector` names, in its divisor. `of` asks for it.
    ///
    /// # Errors
    /// A resource, container or divisor that is none.
    pub(crate) fn resource(
        self,
        of: &str,
        container: Option<&Container>,
        selector: &ResourceFieldSelector,
    ) -> Result<String, ConfigError> {
        let unsupported = || ConfigError::Resource {
            of: of.to_owned(),
            resource: selector.resource.clone(),
        };
        let (which, resource) = match selector.resource.split_once('.') {
            Some(("limits", resource)) => (Resources::Limits, resource),
            Some(("requests", resource)) => (Resources::Requests, resource),
            _ => return Err(unsupported()),
        };
        let named = match &selector.container_name {
            Some(name) => {
                let all = self.pod.containers().into_iter();
                let mut all = all.map(|(container, _)| container);
                all.find(|container| container.name == *name)
            }
            None => container.map(Cow::Borrowed),
        };
        let named = named.ok_or_else(unsupported)?;
        let named = ContainerView(&named);
        let amount = match (named.resource(which, resource)?, which, resource) {
            (Some(quantity), ..) => quantity,
            (None, Resources::Limits, "cpu") => {
                Quantity::from_milli(i128::from(self.node.allocatable_cpu_millis))
            }
            // Not the node's memory, as with a kubelet: a guest that sizes itself by this must fit into what it gets.
            (None, Resources::Limits, "memory") => {
                Quantity::from_bytes(self.node.memory_bytes_default())
            }
            (None, Resources::Requests, "cpu" | "memory") => Quantity::from_value(0),
            _ => return Err(unsupported()),
        };
        let divisor = match &selector.divisor {
            Some(divisor) if divisor.0 != "0" => {
                Quantity::parse(&divisor.0).map_err(|_| ConfigError::Quantity {
                    field: format!("{of}: divisor"),
                    value: divisor.0.clone(),
                })?
            }
            _ => Quantity::from_value(1),
        };
        let divisor = divisor.milli().max(1);
        let amount = amount.milli();
        // Rounded up, as the kubelet does: half a core asked for in cores is one.
        Ok(((amount + divisor - 1) / divisor).to_string())
    }
}

/// `key="value"` lines in the order of keys, quoted as Go quotes.
///
/// Source: k8s.io/kubernetes `pkg/fieldpath` `FormatMap`.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten();
    let lines: Vec<String> = lines
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    lines.join("\n")
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_hidden(c) && u32::from(c) < 0x1_0000 => {
                out.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c if is_hidden(c) => out.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// What shows nothing, and Go therefore writes as a number: controls, spaces but the usual one, marks of direction, private use.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    #[test]
    fn labels_as_a_file_are_quoted_as_go_quotes() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"b": "x", "a": "1"},
                "annotations": {"note": "a \"b\"\n\\ ü \u{1}\u{200b}"}},
        }))
        .expect("a pod");
        let node = NodeFacts {
            name: "node-0".into(),
            host_ip: "127.0.0.1".parse().expect("an address"),
            allocatable_cpu_millis: 2000,
            allocatable_memory_bytes: 4 << 30,
        };
        let downward = Downward {
            pod: PodView(&pod),
            pod_ip: "10.42.0.7".parse().expect("an address"),
            node: &node,
        };
        let shown = |path: &str| downward.field_of_file(path).expect("a field");
        assert_eq!(shown("metadata.labels"), "a=\"1\"\nb=\"x\"");
        assert_eq!(
            shown("metadata.annotations"),
            r#"note="a \"b\"\n\\ ü \x01\u200b""#
        );
        assert_eq!(shown("metadata.labels['b']"), "x");
        assert_eq!(shown("status.podIP"), "10.42.0.7");
        assert_eq!(downward.field("metadata.labels"), None);
    }
}
