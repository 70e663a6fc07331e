//! Linkerd's HTTPRoute, which is the Gateway API's of before it had meshes, and its ServiceProfile.

use serde_json::{Value, json};

use super::mapped::{Mapped, Services, duration, items, parent, service_of};
use crate::metadata::Key;

/// The same in the Gateway API's group; parents that are no Services are Linkerd's policies.
pub fn route(_: &Key, spec: &Value, _: &Services<'_>) -> Mapped {
    let mut mapped = Mapped::default();
    let mut parents = Vec::new();
    for (at, parent) in items(spec, "parentRefs").iter().enumerate() {
        let group = parent["group"].as_str().unwrap_or_default();
        let is_service = parent["kind"] == "Service" && matches!(group, "" | "core");
        if !is_service {
            mapped.lost.push(format!("spec.parentRefs[{at}]"));
            continue;
        }
        let mut parent = parent.clone();
        parent["group"] = json!("");
        parents.push(parent);
    }
    if parents.is_empty() {
        return mapped;
    }
    let mut spec = spec.clone();
    spec["parentRefs"] = json!(parents);
    mapped.route = Some(spec);
    mapped
}

/// Routes by expressions, with timeouts and retries; and shares of other Services.
pub fn service_profile(key: &Key, spec: &Value, services: &Services<'_>) -> Mapped {
    let mut mapped = Mapped::default();
    mapped.lose_others(spec, "spec", &["routes", "dstOverrides"]);
    let Some(service) = service_of(&key.name, &key.namespace) else {
        mapped
            .lost
            .push(format!("metadata.name ({} is no Service)", key.name));
        return mapped;
    };
    let mut backends = Vec::new();
    for (at, to) in items(spec, "dstOverrides").iter().enumerate() {
        let authority = to["authority"].as_str().unwrap_or_default();
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()),
            None => (authority, None),
        };
        let weight = share(&to["weight"]);
        match services.backend(host, None, port, &key.namespace) {
            Ok(mut backend) => {
                backend["weight"] = json!(weight);
                backends.push(backend);
            }
            Err(why) => mapped
                .widened
                .push(format!("spec.dstOverrides[{at}] ({why})")),
        }
    }
    if backends.is_empty() {
        let own = services.backend(&service.name, None, None, &service.namespace);
        match own {
            Ok(backend) => backends.push(backend),
            Err(why) => mapped.widened.push(why),
        }
    }
    let mut rules = Vec::new();
    for (at, route) in items(spec, "routes").iter().enumerate() {
        let at = format!("spec.routes[{at}]");
        mapped.lose_others(route, &at, &["name", "condition", "timeout", "isRetryable"]);
        let condition = &route["condition"];
        mapped.widen_by_others(
            condition,
            &format!("{at}.condition"),
            &["pathRegex", "method"],
        );
        let mut one = json!({});
        if let Some(path) = condition["pathRegex"].as_str() {
            one["path"] = json!({"type": "RegularExpression", "value": path});
        }
        if let Some(method) = condition["method"].as_str() {
            one["method"] = json!(method);
        }
        let mut rule = json!({"matches": [one], "backendRefs": backends});
        if let Some(timeout) = route["timeout"].as_str() {
            match duration(timeout) {
                Some(timeout) => rule["timeouts"]["request"] = json!(timeout),
                None => mapped.lost.push(format!("{at}.timeout")),
            }
        }
        if route["isRetryable"] == true {
            rule["retry"] = json!({"attempts": 1, "codes": [500, 502, 503, 504]});
        }
        rules.push(rule);
    }
    // What no route names goes the same way.
    rules.push(json!({"backendRefs": backends}));
    mapped.route = Some(json!({"parentRefs": [parent(&service, &key.namespace)], "rules": rules}));
    mapped
}

/// A weight: a number, or a quantity of thousandths.
fn share(weight: &Value) -> i64 {
    if let Some(number) = weight.as_i64() {
        return number * 1000;
    }
    let text = weight.as_str().unwrap_or_default();
    match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().unwrap_or(0),
        None => text.parse::<i64>().map_or(0, |number| number * 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::mapped::cluster_of;

    #[test]
    fn a_profile_is_rules_by_its_routes() {
        let cluster = cluster_of(&["web", "web-2"], 80);
        let services = Services {
            view: &cluster.view,
        };
        let spec = json!({
            "routes": [{"name": "GET /a", "condition": {"method": "GET", "pathRegex": "/a/[^/]*"}, "timeout": "300ms",
                "isRetryable": true, "responseClasses": []}],
            "dstOverrides": [{"authority": "web.d.svc.cluster.local:80", "weight": "900m"},
                {"authority": "web-2.d.svc.cluster.local:80", "weight": "100m"}],
            "retryBudget": {"retryRatio": 0.2},
        });
        let key = Key::new("d", "web.d.svc.cluster.local");
        let found = service_profile(&key, &spec, &services);
        assert_eq!(
            found.lost,
            ["spec.retryBudget", "spec.routes[0].responseClasses"]
        );
        let backends = json!([
            {"group": "", "kind": "Service", "name": "web", "port": 80, "weight": 900},
            {"group": "", "kind": "Service", "name": "web-2", "port": 80, "weight": 100},
        ]);
        assert_eq!(
            found.route.unwrap(),
            json!({
                "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
                "rules": [
                    {"matches": [{"path": {"type": "RegularExpression", "value": "/a/[^/]*"}, "method": "GET"}],
                        "backendRefs": backends, "timeouts": {"request": "300ms"},
                        "retry": {"attempts": 1, "codes": [500, 502, 503, 504]}},
                    {"backendRefs": backends},
                ],
            })
        );
    }
}
