//! Istio's VirtualService and ServiceEntry, as far as the Gateway API says the same.
//!
//! A prefix of a path counts by whole segments here, as with whoever else makes HTTPRoutes of VirtualServices; regular expressions match the
//! whole of a text in both.

use serde_json::{Value, json};

use super::mapped::{Mapped, Services, duration, items, parent};
use crate::metadata::Key;

const MESH: &str = "mesh";

/// Matches, filters and backends of its HTTP routes.
pub fn virtual_service(key: &Key, spec: &Value, services: &Services<'_>) -> Mapped {
    let mut mapped = Mapped::default();
    mapped.lose_others(spec, "spec", &["hosts", "gateways", "http"]);
    let gateways = items(spec, "gateways");
    for (at, gateway) in gateways.iter().enumerate() {
        if *gateway != *MESH {
            mapped.lost.push(format!("spec.gateways[{at}]"));
        }
    }
    let mut parents = Vec::new();
    for (at, host) in items(spec, "hosts").iter().enumerate() {
        match services.named(host.as_str().unwrap_or_default(), &key.namespace) {
            Some(service) => parents.push(parent(&service, &key.namespace)),
            None => mapped.lost.push(format!("spec.hosts[{at}]")),
        }
    }
    let is_of_mesh = gateways.is_empty() || gateways.iter().any(|gateway| *gateway == *MESH);
    if !is_of_mesh || parents.is_empty() {
        return mapped;
    }
    let mut rules: Vec<Value> = Vec::new();
    for (at, http) in items(spec, "http").iter().enumerate() {
        let rule = Rule {
            key,
            services,
            at: format!("spec.http[{at}]"),
            mapped: &mut mapped,
        };
        let rule = rule.map(http);
        let to = backends(&rule);
        let is_alone = !rules
            .iter()
            .flat_map(backends)
            .any(|other| to.contains(&other));
        let fault = &http["fault"];
        if !fault.is_null() {
            let whose = Whose {
                matches: items(http, "match"),
                to,
                is_alone,
            };
            spoil(
                key,
                &format!("spec.http[{at}].fault"),
                fault,
                &whose,
                &mut mapped,
            );
        }
        rules.push(rule);
    }
    if !rules.is_empty() {
        mapped.route = Some(json!({"parentRefs": parents, "rules": rules}));
    }
    mapped
}

/// Backends of a rule that were mapped.
fn backends(rule: &Value) -> Vec<Value> {
    items(rule, "backendRefs").to_vec()
}

/// Whose calls a rule's fault spoils.
struct Whose<'a> {
    matches: &'a [Value],
    /// Where they go.
    to: Vec<Value>,
    /// No rule before it leads there.
    is_alone: bool,
}

/// How long a FaultInjection does anything, which a VirtualService does not say.
const FAULT_LASTS: &str = "24h";

/// Makes FaultInjections of a rule's fault, one for each of its matches: of calls to its backends, with the lines that it asks for. What else a
/// match asks for, a FaultInjection cannot; then it is lost, as are faults of calls that may have been led by a rule before.
fn spoil(key: &Key, at: &str, fault: &Value, whose: &Whose<'_>, mapped: &mut Mapped) {
    mapped.lose_others(fault, at, &["delay", "abort"]);
    let mut done = json!({});
    if let Some(percent) = percent(
        &fault["delay"],
        &format!("{at}.delay"),
        "fixedDelay",
        mapped,
    ) {
        let time = fault["delay"]["fixedDelay"].as_str().and_then(duration);
        match time {
            Some(time) => done["delay"] = json!({"duration": time, "percent": percent}),
            None => mapped.lost.push(format!("{at}.delay.fixedDelay")),
        }
    }
    if let Some(percent) = percent(
        &fault["abort"],
        &format!("{at}.abort"),
        "httpStatus",
        mapped,
    ) {
        match fault["abort"]["httpStatus"].as_i64() {
            Some(status @ 200..=599) => {
                done["abort"] = json!({"httpStatus": status, "percent": percent});
            }
            _ => mapped.lost.push(format!("{at}.abort.httpStatus")),
        }
    }
    if done == json!({}) {
        return;
    }
    let is_far = |to: &Value| !to["namespace"].is_null();
    let lines: Option<Vec<Vec<Value>>> = whose.matches.iter().map(just_lines).collect();
    let lines = lines.filter(|_| whose.is_alone && !whose.to.is_empty());
    let Some(mut lines) = lines.filter(|_| !whose.to.iter().any(is_far)) else {
        mapped.lost.push(at.to_owned());
        return;
    };
    if lines.is_empty() {
        lines.push(Vec::new());
    }
    let targets = whose
        .to
        .iter()
        .map(|to| json!({"group": "", "kind": "Service", "name": to["name"]}));
    done["targetRefs"] = json!(targets.collect::<Vec<_>>());
    done["duration"] = json!(FAULT_LASTS);
    for lines in lines {
        let mut spec = done.clone();
        if !lines.is_empty() {
            spec["headers"] = json!(lines);
        }
        let name = format!("{}-fault-{}", key.name, mapped.faults.len());
        mapped.faults.insert(name, spec);
    }
    mapped.lost.push(format!("{at} after {FAULT_LASTS}"));
}

/// Of how many calls of a hundred something is done; none where that is no whole number, or of none.
fn percent(part: &Value, at: &str, what: &str, mapped: &mut Mapped) -> Option<u64> {
    if part.is_null() {
        return None;
    }
    mapped.lose_others(part, at, &[what, "percentage", "percent"]);
    let said = match part["percentage"]["value"].as_f64() {
        Some(share) => share,
        // As Istio has it: of no call where nothing is said.
        None => part["percent"].as_f64().unwrap_or_default(),
    };
    if !(0.0..=100.0).contains(&said) || said.fract() != 0.0 {
        mapped.lost.push(format!("{at}.percentage"));
        return None;
    }
    (said > 0.0).then_some(said as u64)
}

/// The lines that a match asks for, where it asks for nothing else, and for just what they say.
fn just_lines(one: &Value) -> Option<Vec<Value>> {
    let members = one.as_object()?;
    let others = members
        .keys()
        .any(|name| !["headers", "name"].contains(&name.as_str()));
    let lines = one["headers"].as_object().filter(|_| !others)?;
    let lines = lines.iter().map(|(name, of)| {
        let value = of["exact"].as_str()?;
        Some(json!({"name": name, "value": value}))
    });
    lines.collect()
}

/// One rule on its way.
struct Rule<'a> {
    key: &'a Key,
    services: &'a Services<'a>,
    at: String,
    mapped: &'a mut Mapped,
}

impl Rule<'_> {
    fn map(mut self, http: &Value) -> Value {
        let at = self.at.clone();
        let known = [
            "name",
            "match",
            "route",
            "redirect",
            "rewrite",
            "timeout",
            "retries",
            "mirror",
            "mirrorPercentage",
            "headers",
            // Read beside the rule.
            "fault",
        ];
        self.mapped.lose_others(http, &at, &known);
        let mut rule = json!({});
        let matches: Vec<Value> = items(http, "match")
            .iter()
            .enumerate()
            .map(|(number, one)| self.matches(one, &format!("{at}.match[{number}]")))
            .collect();
        if !matches.is_empty() {
            rule["matches"] = json!(matches);
        }
        let mut filters = self.headers(&http["headers"], &format!("{at}.headers"));
        if http["redirect"].is_object() {
            filters.push(self.redirect(&http["redirect"]));
        }
        if http["rewrite"].is_object() {
            filters.push(self.rewrite(http));
        }
        filters.extend(self.mirror(http));
        if !filters.is_empty() {
            rule["filters"] = json!(filters);
        }
        let routes = items(http, "route");
        let backends: Vec<Value> = routes
            .iter()
            .enumerate()
            .filter_map(|(number, route)| {
                let usual = if routes.len() == 1 { 1 } else { 0 };
                self.backend(route, usual, &format!("{at}.route[{number}]"))
            })
            .collect();
        if !backends.is_empty() {
            rule["backendRefs"] = json!(backends);
        }
        self.times(http, &mut rule);
        rule
    }

    /// Exact, prefix or regex of a text, as a type and a value; a prefix as an expression.
    fn text(&mut self, of: &Value, at: &str) -> (&'static str, String) {
        if let Some(exact) = of["exact"].as_str() {
            return ("Exact", exact.to_owned());
        }
        if let Some(prefix) = of["prefix"].as_str() {
            return ("RegularExpression", format!("{}.*", escaped(prefix)));
        }
        if let Some(regex) = of["regex"].as_str() {
            return ("RegularExpression", regex.to_owned());
        }
        let is_there = of.as_object().is_none_or(serde_json::Map::is_empty);
        if !is_there {
            self.mapped.widened.push(at.to_owned());
        }
        ("RegularExpression", ".*".to_owned())
    }

    fn matches(&mut self, one: &Value, at: &str) -> Value {
        let known = [
            "name",
            "uri",
            "method",
            "headers",
            "queryParams",
            "gateways",
        ];
        self.mapped.widen_by_others(one, at, &known);
        let gateways = items(one, "gateways");
        if !gateways.is_empty() && !gateways.iter().any(|gateway| *gateway == *MESH) {
            self.mapped.widened.push(format!("{at}.gateways"));
        }
        let mut matches = json!({});
        let uri = &one["uri"];
        if let Some(prefix) = uri["prefix"].as_str() {
            matches["path"] = json!({"type": "PathPrefix", "value": prefix});
        } else if uri.is_object() {
            let (kind, value) = self.text(uri, &format!("{at}.uri"));
            matches["path"] = json!({"type": kind, "value": value});
        }
        let method = &one["method"];
        match method["exact"].as_str() {
            Some(exact) => matches["method"] = json!(exact),
            None if method.is_null() => {}
            None => self.mapped.widened.push(format!("{at}.method")),
        }
        for (member, into) in [("headers", "headers"), ("queryParams", "queryParams")] {
            let mut all = Vec::new();
            for (name, of) in one[member].as_object().into_iter().flatten() {
                let (kind, value) = self.text(of, &format!("{at}.{member}.{name}"));
                all.push(json!({"type": kind, "name": name, "value": value}));
            }
            if !all.is_empty() {
                matches[into] = json!(all);
            }
        }
        matches
    }

    fn headers(&mut self, headers: &Value, at: &str) -> Vec<Value> {
        self.mapped
            .lose_others(headers, at, &["request", "response"]);
        let mut filters = Vec::new();
        for (member, kind, field) in [
            ("request", "RequestHeaderModifier", "requestHeaderModifier"),
            (
                "response",
                "ResponseHeaderModifier",
                "responseHeaderModifier",
            ),
        ] {
            let change = &headers[member];
            let mut modifier = json!({});
            for how in ["set", "add"] {
                let lines = change[how].as_object().into_iter().flatten();
                let lines: Vec<Value> = lines
                    .map(|(name, value)| json!({"name": name, "value": value}))
                    .collect();
                if !lines.is_empty() {
                    modifier[how] = json!(lines);
                }
            }
            if !items(change, "remove").is_empty() {
                modifier["remove"] = change["remove"].clone();
            }
            if modifier != json!({}) {
                filters.push(json!({"type": kind, field: modifier}));
            }
        }
        filters
    }

    fn redirect(&mut self, redirect: &Value) -> Value {
        let at = format!("{}.redirect", self.at);
        let known = ["uri", "authority", "scheme", "port", "redirectCode"];
        self.mapped.lose_others(redirect, &at, &known);
        let code = redirect["redirectCode"].as_i64().unwrap_or(301);
        let mut filter = json!({"statusCode": code});
        if let Some(uri) = redirect["uri"].as_str() {
            filter["path"] = json!({"type": "ReplaceFullPath", "replaceFullPath": uri});
        }
        for (member, field) in [
            ("authority", "hostname"),
            ("scheme", "scheme"),
            ("port", "port"),
        ] {
            if !redirect[member].is_null() {
                filter[field] = redirect[member].clone();
            }
        }
        json!({"type": "RequestRedirect", "requestRedirect": filter})
    }

    fn rewrite(&mut self, http: &Value) -> Value {
        let (rewrite, at) = (&http["rewrite"], format!("{}.rewrite", self.at));
        self.mapped.lose_others(rewrite, &at, &["uri", "authority"]);
        let mut filter = json!({});
        if let Some(uri) = rewrite["uri"].as_str() {
            let mut matches = items(http, "match").iter();
            // What was matched is replaced: a prefix, or the whole of it.
            let by_prefix = matches.all(|one| one["uri"]["prefix"].is_string());
            filter["path"] = match by_prefix && !items(http, "match").is_empty() {
                true => json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": uri}),
                false => json!({"type": "ReplaceFullPath", "replaceFullPath": uri}),
            };
        }
        if let Some(authority) = rewrite["authority"].as_str() {
            filter["hostname"] = json!(authority);
        }
        json!({"type": "URLRewrite", "urlRewrite": filter})
    }

    fn mirror(&mut self, http: &Value) -> Option<Value> {
        let mirror = http["mirror"].as_object()?;
        let at = format!("{}.mirror", self.at);
        let backend = self.destination(&Value::Object(mirror.clone()), &at)?;
        let mut filter = json!({"backendRef": backend});
        if let Some(percent) = http["mirrorPercentage"]["value"].as_f64() {
            let share = (percent * 1000.0).round() as u64;
            filter["fraction"] = json!({"numerator": share, "denominator": 100_000});
        }
        Some(json!({"type": "RequestMirror", "requestMirror": filter}))
    }

    fn backend(&mut self, route: &Value, usual: i64, at: &str) -> Option<Value> {
        let known = ["destination", "weight", "headers"];
        self.mapped.lose_others(route, at, &known);
        let to = format!("{at}.destination");
        let mut backend = self.destination(&route["destination"], &to)?;
        backend["weight"] = json!(route["weight"].as_i64().unwrap_or(usual));
        let filters = self.headers(&route["headers"], &format!("{at}.headers"));
        if !filters.is_empty() {
            backend["filters"] = json!(filters);
        }
        Some(backend)
    }

    /// None, and told of, where it is no Service: its share of the calls would go to others.
    fn destination(&mut self, to: &Value, at: &str) -> Option<Value> {
        let host = to["host"].as_str().unwrap_or_default();
        let port = to["port"]["number"].as_i64();
        let namespace = &self.key.namespace;
        let found = self
            .services
            .backend(host, to["subset"].as_str(), port, namespace);
        match found {
            Ok(backend) => Some(backend),
            Err(why) => {
                self.mapped.widened.push(format!("{at} ({why})"));
                None
            }
        }
    }

    fn times(&mut self, http: &Value, rule: &mut Value) {
        let at = self.at.clone();
        if let Some(timeout) = http["timeout"].as_str().filter(|timeout| *timeout != "0s") {
            match duration(timeout) {
                Some(timeout) => rule["timeouts"]["request"] = json!(timeout),
                None => self.mapped.lost.push(format!("{at}.timeout")),
            }
        }
        let retries = &http["retries"];
        if retries.is_null() {
            return;
        }
        let known = ["attempts", "perTryTimeout", "retryOn"];
        self.mapped
            .lose_others(retries, &format!("{at}.retries"), &known);
        if let Some(timeout) = retries["perTryTimeout"].as_str() {
            match duration(timeout) {
                Some(timeout) => rule["timeouts"]["backendRequest"] = json!(timeout),
                None => self.mapped.lost.push(format!("{at}.retries.perTryTimeout")),
            }
        }
        let mut codes: Vec<i64> = Vec::new();
        let on = retries["retryOn"].as_str().unwrap_or("503");
        for word in on.split(',').map(str::trim) {
            match word {
                "5xx" => codes.extend([500, 502, 503, 504]),
                "gateway-error" => codes.extend([502, 503, 504]),
                // Calls that were never processed are made again in any case.
                "connect-failure" | "refused-stream" | "reset" | "unavailable" | "" => {}
                number => match number.parse() {
                    Ok(code @ 400..=599) => codes.push(code),
                    _ => self
                        .mapped
                        .lost
                        .push(format!("{at}.retries.retryOn ({number})")),
                },
            }
        }
        codes.sort_unstable();
        codes.dedup();
        let attempts = retries["attempts"].as_i64().unwrap_or(0);
        if attempts > 0 {
            rule["retry"] = json!({"attempts": attempts});
            if !codes.is_empty() {
                rule["retry"]["codes"] = json!(codes);
            }
        }
    }
}

/// A regular expression for just this text.
fn escaped(text: &str) -> String {
    let letters = text.chars().flat_map(|letter| {
        let escape = (letter.is_ascii_punctuation() && letter != '_').then_some('\\');
        escape.into_iter().chain([letter])
    });
    letters.collect()
}

/// Nothing: who may call what outside of the cluster is granted to ServiceAccounts.
pub fn service_entry(_: &Key, spec: &Value, _: &Services<'_>) -> Mapped {
    let mut mapped = Mapped::default();
    let hosts = items(spec, "hosts").len();
    mapped.lost.extend((0..hosts).map(|at| {
        format!("spec.hosts[{at}] (hosts outside of the cluster are granted by a CapabilityGrant)")
    }));
    mapped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::foreign::mapped::cluster_of;

    fn mapped(spec: &Value) -> Mapped {
        let cluster = cluster_of(&["reviews", "ratings"], 9080);
        let services = Services {
            view: &cluster.view,
        };
        virtual_service(&Key::new("d", "reviews"), spec, &services)
    }

    #[test]
    fn a_shift_with_a_marked_user_is_two_rules() {
        let found = mapped(&json!({
            "hosts": ["reviews"],
            "http": [
                {"match": [{"headers": {"end-user": {"exact": "jason"}}}],
                    "route": [{"destination": {"host": "reviews", "subset": "v2"}}]},
                {"route": [
                    {"destination": {"host": "reviews", "subset": "v1"}, "weight": 75},
                    {"destination": {"host": "reviews.d.svc.cluster.local", "subset": "v3"}, "weight": 25}],
                    "timeout": "0.5s", "retries": {"attempts": 2, "perTryTimeout": "2s", "retryOn": "5xx,reset"}},
            ],
        }));
        assert!(
            found.lost.is_empty() && found.widened.is_empty(),
            "{found:?}"
        );
        let backend = |name: &str, weight: i64| json!({"group": "", "kind": "Service", "name": name, "port": 9080, "weight": weight});
        assert_eq!(
            found.route.unwrap(),
            json!({
                "parentRefs": [{"group": "", "kind": "Service", "name": "reviews"}],
                "rules": [
                    {"matches": [{"headers": [{"type": "Exact", "name": "end-user", "value": "jason"}]}],
                        "backendRefs": [backend("reviews-v2", 1)]},
                    {"backendRefs": [backend("reviews-v1", 75), backend("reviews-v3", 25)],
                        "timeouts": {"request": "500ms", "backendRequest": "2s"},
                        "retry": {"attempts": 2, "codes": [500, 502, 503, 504]}},
                ],
            })
        );
    }

    #[test]
    fn what_does_not_map_is_named() {
        let route = json!([{"destination": {"host": "reviews"}}]);
        for (http, lost, widened) in [
            (
                json!({"fault": {"abort": {"httpStatus": 500, "percentage": {"value": 0.5}}}, "route": route}),
                &["spec.http[0].fault.abort.percentage"][..],
                &[][..],
            ),
            (
                json!({"match": [{"sourceLabels": {"app": "x"}}], "route": route}),
                &[],
                &["spec.http[0].match[0].sourceLabels"],
            ),
            (
                json!({"route": [{"destination": {"host": "www.example.com"}}]}),
                &[],
                &["spec.http[0].route[0].destination (host www.example.com is no Service)"],
            ),
            (
                json!({"retries": {"attempts": 1, "retryOn": "retriable-4xx"}, "route": route}),
                &["spec.http[0].retries.retryOn (retriable-4xx)"],
                &[],
            ),
        ] {
            let found = mapped(&json!({"hosts": ["reviews"], "http": [http]}));
            assert_eq!(
                (&found.lost[..], &found.widened[..]),
                (
                    &lost.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>()[..],
                    &widened
                        .iter()
                        .map(|one| (*one).to_owned())
                        .collect::<Vec<_>>()[..],
                )
            );
        }
        let found = mapped(
            &json!({"hosts": ["bookinfo.example"], "gateways": ["shop/public"], "http": [{"route": route}]}),
        );
        assert_eq!(found.lost, ["spec.gateways[0]", "spec.hosts[0]"]);
        assert_eq!(found.route, None);
    }

    #[test]
    fn a_fault_is_of_those_that_its_rule_is_of() {
        let jason = json!([{"headers": {"end-user": {"exact": "jason"}}}]);
        let v1 = json!([{"destination": {"host": "ratings", "subset": "v1"}}]);
        let delay = json!({"delay": {"percentage": {"value": 100.0}, "fixedDelay": "7s"}});
        let found = mapped(&json!({"hosts": ["ratings"], "http": [
            {"match": jason, "fault": delay, "route": v1}, {"route": v1}]}));
        assert_eq!(found.lost, ["spec.http[0].fault after 24h"]);
        assert_eq!(
            json!(found.faults),
            json!({"reviews-fault-0": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "ratings-v1"}],
                "duration": "24h",
                "headers": [{"name": "end-user", "value": "jason"}],
                "delay": {"duration": "7s", "percent": 100},
            }})
        );
        // What a FaultInjection cannot say is told, and nothing else is spoiled in its place.
        for (http, lost) in [
            (
                json!([{"route": v1}, {"match": jason, "fault": delay, "route": v1}]),
                "spec.http[1].fault",
            ),
            (
                json!([{"match": [{"uri": {"prefix": "/x"}}], "fault": delay, "route": v1}]),
                "spec.http[0].fault",
            ),
            (
                json!([{"match": [{"headers": {"end-user": {"prefix": "j"}}}], "fault": delay, "route": v1}]),
                "spec.http[0].fault",
            ),
            (
                json!([{"fault": {"abort": {"grpcStatus": "UNAVAILABLE", "percentage": {"value": 100}}}, "route": v1}]),
                "spec.http[0].fault.abort.httpStatus",
            ),
        ] {
            let found = mapped(&json!({"hosts": ["ratings"], "http": http}));
            assert!(found.faults.is_empty(), "{found:?}");
            assert!(found.lost.iter().any(|one| one == lost), "{:?}", found.lost);
        }
    }
}
