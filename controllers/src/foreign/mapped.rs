//! What of an object maps: a route, Services of subsets, policies, and the fields that were lost.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::lens::Service;
use crate::metadata::Key;
use crate::view::View;

/// What came of an object.
#[derive(Debug, Default)]
pub struct Mapped {
    /// The `spec` of an HTTPRoute of the same name.
    pub route: Option<Value>,
    /// Services, by their names.
    pub services: BTreeMap<String, Value>,
    /// FaultInjections and MeshPolicies, likewise.
    pub faults: BTreeMap<String, Value>,
    pub policies: BTreeMap<String, Value>,
    /// Fields without which it would say more than is written: why nothing is served.
    pub widened: Vec<String>,
    /// Fields that are not served.
    pub lost: Vec<String>,
    /// What is there for it.
    pub kept: BTreeSet<String>,
}

impl Mapped {
    /// Members of a map that nobody reads.
    pub fn lose_others(&mut self, value: &Value, at: &str, known: &[&str]) {
        self.lost.extend(others(value, at, known));
    }

    /// Likewise of a condition.
    pub fn widen_by_others(&mut self, value: &Value, at: &str, known: &[&str]) {
        self.widened.extend(others(value, at, known));
    }
}

fn others(value: &Value, at: &str, known: &[&str]) -> Vec<String> {
    let members = value.as_object().into_iter().flatten();
    let others =
        members.filter(|(name, value)| !known.contains(&name.as_str()) && !value.is_null());
    others.map(|(name, _)| format!("{at}.{name}")).collect()
}

/// The Services of the cluster.
pub struct Services<'a> {
    pub view: &'a View,
}

impl Services<'_> {
    /// A backend: the Service of a host, or of a subset of it, at a port; its only one where none is said.
    ///
    /// # Errors
    /// Half a sentence with what is wrong.
    pub fn backend(
        &self,
        host: &str,
        subset: Option<&str>,
        port: Option<i64>,
        namespace: &str,
    ) -> Result<Value, String> {
        let service = self
            .named(host, namespace)
            .ok_or_else(|| format!("host {host} is no Service"))?;
        let port = match port {
            Some(port) => port,
            None => self.only_port(&service)?,
        };
        let name = match subset {
            Some(subset) => subset_name(&service.name, subset),
            None => service.name.to_string(),
        };
        let mut backend = json!({"group": "", "kind": "Service", "name": name, "port": port});
        if *service.namespace != *namespace {
            backend["namespace"] = json!(&*service.namespace);
        }
        Ok(backend)
    }

    /// The Service that a host is. Of two words it is one only where that Service is there: `bookinfo.com` may as well be
    /// somebody's domain.
    pub fn named(&self, host: &str, namespace: &str) -> Option<Key> {
        let service = service_of(host, namespace)?;
        let is_short = host.bytes().filter(|byte| *byte == b'.').count() == 1;
        (!is_short || self.view.get::<Service>(&service).is_some()).then_some(service)
    }

    fn only_port(&self, service: &Key) -> Result<i64, String> {
        let found = self.view.get::<Service>(service);
        let spec = found.and_then(|service| service.body.spec.as_ref());
        let ports = spec
            .and_then(|spec| spec.ports.as_deref())
            .unwrap_or_default();
        match ports {
            [port] => Ok(i64::from(port.port)),
            [] => Err(format!("Service {service} is not there")),
            _ => Err(format!(
                "Service {service} has several ports, and none is said"
            )),
        }
    }

    /// Selector and ports of a Service.
    pub fn selecting(&self, service: &Key) -> Option<(BTreeMap<String, String>, Vec<Value>)> {
        let spec = self.view.get::<Service>(service)?.body.spec.as_ref()?;
        let ports = spec.ports.iter().flatten().map(|port| {
            let mut port = serde_json::to_value(port).unwrap_or_default();
            if let Some(port) = port.as_object_mut() {
                port.remove("nodePort");
            }
            port
        });
        Some((spec.selector.clone()?, ports.collect()))
    }
}

/// The Service that a host is: `name`, `name.namespace`, or with `svc` and the cluster's domain behind.
pub fn service_of(host: &str, namespace: &str) -> Option<Key> {
    let rest = host.strip_suffix(".cluster.local").unwrap_or(host);
    let mut parts = rest.split('.');
    let (name, of, svc) = (parts.next()?, parts.next(), parts.next());
    let is_label = |text: &str| {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !text.is_empty() && text.bytes().all(is_word)
    };
    let ends = matches!(svc, None | Some("svc")) && parts.next().is_none();
    let of = of.unwrap_or(namespace);
    (ends && is_label(name) && is_label(of)).then(|| Key::new(of, name))
}

/// The Service of a subset.
pub fn subset_name(service: &str, subset: &str) -> String {
    format!(
        "{service}-{}",
        subset.to_lowercase().replace(['.', '_'], "-")
    )
}

/// Reference to the Service whose callers a route leads.
pub fn parent(service: &Key, namespace: &str) -> Value {
    let mut parent = json!({"group": "", "kind": "Service", "name": &*service.name});
    if *service.namespace != *namespace {
        parent["namespace"] = json!(&*service.namespace);
    }
    parent
}

/// A duration of protobuf's JSON (`1.5s`) or of Go (`1m30s`) as the Gateway API has it: whole milliseconds.
pub fn duration(text: &str) -> Option<String> {
    let mut millis = 0.0_f64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, unit) = rest.split_at(digits);
        let letters = unit.find(|letter: char| letter.is_ascii_digit() || letter == '.');
        let (unit, next) = unit.split_at(letters.unwrap_or(unit.len()));
        let scale = match unit {
            "ms" => 1.0,
            "s" => 1e3,
            "m" => 60e3,
            "h" => 3_600e3,
            _ => return None,
        };
        millis += number.parse::<f64>().ok()? * scale;
        rest = next;
    }
    let millis = (1.0..99_999_999.0)
        .contains(&millis)
        .then_some(millis.round() as u64)?;
    // Five digits and a unit, as often as it takes.
    Some(match (millis / 1000, millis % 1000) {
        (0, millis) => format!("{millis}ms"),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, millis) => format!("{seconds}s{millis}ms"),
    })
}

/// Elements of a list.
pub fn items<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

/// A cluster with Services of these names, whose pods are called so.
#[cfg(test)]
pub(super) fn cluster_of(services: &[&str], port: u16) -> crate::small::Small {
    let mut cluster = crate::small::Small::new([super::CONTROLLER.reads]);
    for name in services {
        cluster.put(
            &weft_kinds::SERVICE,
            json!({"metadata": {"name": name},
                "spec": {"selector": {"app": name}, "ports": [{"port": port}]}}),
        );
    }
    cluster
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_services_where_they_may_be() {
        for (host, expected) in [
            ("reviews", Some("shop/reviews")),
            ("reviews.other", Some("other/reviews")),
            ("reviews.other.svc", Some("other/reviews")),
            ("reviews.other.svc.cluster.local", Some("other/reviews")),
            ("www.example.com", None),
            ("*.shop", None),
            ("*", None),
            ("", None),
        ] {
            let found = service_of(host, "shop").map(|key| key.to_string());
            assert_eq!(found.as_deref(), expected, "{host}");
        }
    }

    #[test]
    fn durations_are_whole_milliseconds() {
        for (text, expected) in [
            ("10s", Some("10s")),
            ("0.5s", Some("500ms")),
            ("1.25s", Some("1s250ms")),
            ("1m30s", Some("90s")),
            ("25ms", Some("25ms")),
            ("0s", None),
            ("soon", None),
            ("5", None),
        ] {
            assert_eq!(duration(text).as_deref(), expected, "{text}");
        }
    }
}
