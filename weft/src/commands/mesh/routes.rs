//! `weft mesh routes`: which rules calls to a Service follow, as the objects say it and as their statuses say that it is.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Form, Scope, pretty, read};
use crate::commands::output::printable;
use crate::exit::Failure;
use crate::stdout;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The Service
    #[arg(value_name = "SERVICE")]
    service: String,
    #[command(flatten)]
    scope: Scope,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

const KINDS: [&str; 2] = ["httproutes", "grpcroutes"];

/// # Errors
/// What the server says.
pub(super) async fn run(client: &kube::Client, args: &Args) -> anyhow::Result<()> {
    let Some(namespace) = args.scope.namespace(client) else {
        let why = "a Service is in one namespace";
        return Err(Failure::new("cannot show routes", why, "name it with -n")
            .usage()
            .into());
    };
    let service = args.service.as_str();
    let path = format!("/api/v1/namespaces/{namespace}/services/{service}");
    read(client, &path, &format!("cannot read service {service}")).await?;
    let mut bound = Vec::new();
    for kind in KINDS {
        // Those of its own namespace are for all callers, those of others for theirs.
        let path = format!("/apis/gateway.networking.k8s.io/v1/{kind}");
        let list = read(client, &path, &format!("cannot list {kind}")).await?;
        let routes = list["items"].as_array().cloned().unwrap_or_default();
        bound.extend(
            routes
                .into_iter()
                .filter(|route| is_bound(route, namespace, service)),
        );
    }
    let text = match args.output {
        Form::Json => pretty(&json!({"items": bound})),
        Form::Text => text(&bound, namespace, service),
    };
    Ok(stdout::text(&text)?)
}

fn word<'v>(value: &'v Value, pointer: &str, default: &'v str) -> &'v str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or(default)
}

fn is_to(reference: &Value, own: &str, namespace: &str, service: &str) -> bool {
    reference["kind"] == "Service"
        && word(reference, "/group", "").is_empty()
        && word(reference, "/name", "") == service
        && word(reference, "/namespace", own) == namespace
}

fn is_bound(route: &Value, namespace: &str, service: &str) -> bool {
    let own = word(route, "/metadata/namespace", "");
    let parents = route["spec"]["parentRefs"].as_array();
    let mut parents = parents.into_iter().flatten();
    parents.any(|parent| is_to(parent, own, namespace, service))
}

fn text(routes: &[Value], namespace: &str, service: &str) -> String {
    if routes.is_empty() {
        return format!(
            "no route is bound to Service {service}.{namespace}: its calls go straight to its endpoints\n"
        );
    }
    let mut out = String::new();
    for route in routes {
        let own = word(route, "/metadata/namespace", "");
        let callers = match own == namespace {
            true => "for all callers".to_owned(),
            false => format!("for callers of namespace {own}"),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{} {own}/{} {callers}",
            word(route, "/kind", "Route"),
            word(route, "/metadata/name", ""),
        );
        for told in refused(route, own, namespace, service) {
            let _ = writeln!(out, "  not in force: {told}");
        }
        let rules = route["spec"]["rules"].as_array();
        for rule in rules.into_iter().flatten() {
            let _ = writeln!(out, "  {}", matches(rule));
            for backend in rule["backendRefs"].as_array().into_iter().flatten() {
                let _ = writeln!(
                    out,
                    "    -> {}.{}:{} weight {}",
                    word(backend, "/name", ""),
                    word(backend, "/namespace", own),
                    backend["port"],
                    backend["weight"].as_i64().unwrap_or(1)
                );
            }
            for (field, shown) in [
                ("/timeouts/request", "times out after"),
                ("/timeouts/backendRequest", "each try times out after"),
            ] {
                if let Some(time) = rule.pointer(field).and_then(Value::as_str) {
                    let _ = writeln!(out, "    {shown} {time}");
                }
            }
            if let Some(attempts) = rule.pointer("/retry/attempts") {
                let _ = writeln!(out, "    tried again up to {attempts} times");
            }
            for filter in rule["filters"].as_array().into_iter().flatten() {
                let _ = writeln!(out, "    {}", word(filter, "/type", "?"));
            }
        }
    }
    out.lines().map(|line| printable(line) + "\n").collect()
}

/// What its status says against it, as this parent.
fn refused(route: &Value, own: &str, namespace: &str, service: &str) -> Vec<String> {
    let parents = route["status"]["parents"].as_array();
    let parents = parents.into_iter().flatten();
    let ours = parents.filter(|parent| is_to(&parent["parentRef"], own, namespace, service));
    let conditions = ours.flat_map(|parent| parent["conditions"].as_array().into_iter().flatten());
    let against = conditions.filter(|condition| {
        matches!(word(condition, "/type", ""), "Accepted" | "ResolvedRefs")
            && condition["status"] == "False"
    });
    against
        .map(|condition| {
            format!(
                "{}: {}",
                word(condition, "/reason", ""),
                word(condition, "/message", "")
            )
        })
        .collect()
}

/// What a rule is for, in a line.
fn matches(rule: &Value) -> String {
    let Some(matches) = rule["matches"].as_array().filter(|all| !all.is_empty()) else {
        return "all calls".to_owned();
    };
    let each = matches.iter().map(|one| {
        let mut parts = Vec::new();
        match &one["method"] {
            Value::String(method) => parts.push(method.clone()),
            Value::Object(_) => parts.push(format!(
                "{}/{}",
                word(one, "/method/service", "*"),
                word(one, "/method/method", "*")
            )),
            _ => {}
        }
        if let Some(path) = one.pointer("/path/value").and_then(Value::as_str) {
            parts.push(match word(one, "/path/type", "PathPrefix") {
                "Exact" => path.to_owned(),
                "RegularExpression" => format!("~{path}"),
                _ => format!("{}/*", path.trim_end_matches('/')),
            });
        }
        for (field, sign) in [("headers", ":"), ("queryParams", "=")] {
            for pair in one[field].as_array().into_iter().flatten() {
                let (name, value) = (word(pair, "/name", ""), word(pair, "/value", ""));
                parts.push(format!("{name}{sign}{value}"));
            }
        }
        match parts.is_empty() {
            true => "all calls".to_owned(),
            false => parts.join(" "),
        }
    });
    each.collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_shown_in_their_order() {
        let route = |name: &str, namespace: &str, spec: Value, status: Value| {
            let mut spec = spec;
            spec["parentRefs"] =
                json!([{"kind": "Service", "group": "", "name": "pay", "namespace": "bank"}]);
            json!({
                "kind": "HTTPRoute", "metadata": {"name": name, "namespace": namespace},
                "spec": spec, "status": status,
            })
        };
        let canary = route(
            "canary",
            "bank",
            json!({"rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/v2"}, "headers": [{"name": "x-beta", "value": "1"}]}, {"method": "POST"}],
                    "backendRefs": [{"name": "pay", "port": 80, "weight": 9}, {"name": "pay-next", "port": 80, "weight": 1}],
                    "timeouts": {"request": "2s"}, "retry": {"attempts": 3},
                    "filters": [{"type": "RequestMirror"}],
                },
                {"backendRefs": [{"name": "pay", "port": 80}]},
            ]}),
            json!({}),
        );
        let broken = route(
            "mine",
            "shop",
            json!({"rules": []}),
            json!({"parents": [{
                "parentRef": {"kind": "Service", "group": "", "name": "pay", "namespace": "bank"},
                "conditions": [{"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound", "message": "Service gone is not there"}],
            }]}),
        );
        let other =
            json!({"metadata": {"namespace": "bank"}, "spec": {"parentRefs": [{"name": "gate"}]}});
        assert!(is_bound(&canary, "bank", "pay") && is_bound(&broken, "bank", "pay"));
        assert!(!is_bound(&other, "bank", "pay") && !is_bound(&canary, "bank", "other"));
        insta::assert_snapshot!(text(&[canary, broken], "bank", "pay"), @r"
        HTTPRoute bank/canary for all callers
          /v2/* x-beta:1 or POST
            -> pay.bank:80 weight 9
            -> pay-next.bank:80 weight 1
            times out after 2s
            tried again up to 3 times
            RequestMirror
          all calls
            -> pay.bank:80 weight 1
        HTTPRoute shop/mine for callers of namespace shop
          not in force: BackendNotFound: Service gone is not there
        ");
        assert_eq!(
            text(&[], "bank", "pay"),
            "no route is bound to Service pay.bank: its calls go straight to its endpoints\n"
        );
    }
}
