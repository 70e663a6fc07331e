//! `ValidatingWebhookConfiguration` and `MutatingWebhookConfiguration`.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use super::rules;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, items, items_mut, member};
use crate::strategy::Strategy;
use crate::validate::{Problems, label_selector};
use crate::{Kind, Subresource};

pub static VALIDATING_WEBHOOK_CONFIGURATION: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(super::kind(
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        columns(),
        Webhooks { mutate: false },
    ))
});

pub static MUTATING_WEBHOOK_CONFIGURATION: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(super::kind(
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        columns(),
        Webhooks { mutate: true },
    ))
});

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::integer("Webhooks", count, "How many webhooks there are in it."),
        Column::age(),
    ]
}

fn count(row: &Row<'_>) -> Value {
    items(row.object, "/webhooks").len().into()
}

struct Webhooks {
    mutate: bool,
}

const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const NO_SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];

impl Strategy for Webhooks {
    fn default(&self, value: &mut Value) {
        for hook in items_mut(value, "/webhooks") {
            fill(hook, "failurePolicy", "Fail");
            rules::default_selection(hook);
            fill(hook, "timeoutSeconds", 10);
            if self.mutate {
                fill(hook, "reinvocationPolicy", "Never");
            }
            rules::default_rules(hook, "/rules");
            let config = member(hook, "clientConfig");
            if config.get("service").is_some_and(Value::is_object) {
                fill(member(config, "service"), "port", 443);
            }
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let mut names = BTreeSet::new();
        for hook in root.items("webhooks") {
            self.webhook(&hook, problems);
            let own_name = hook.child("name");
            let text = own_name.text();
            if !text.is_empty() && !names.insert(text) {
                problems.duplicate(&own_name, text);
            }
        }
        super::static_name(&root, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        _: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        self.validate(new, problems);
    }
}

impl Webhooks {
    fn webhook(&self, hook: &Field<'_, '_>, problems: &mut Problems) {
        let own_name = hook.child("name");
        let faults = name::dns1123_subdomain_faults(own_name.text());
        if own_name.text().is_empty() {
            problems.required(&own_name, "");
        } else if !faults.is_empty() {
            problems.invalid(&own_name, own_name.text(), &faults.join(","));
        } else if own_name.text().split('.').count() < 3 {
            let sentence = "should be a domain with at least three segments separated by dots";
            problems.invalid(&own_name, own_name.text(), sentence);
        }
        for rule in hook.items("rules") {
            rules::rule(&rule, problems);
        }
        problems.one_of(&hook.child("failurePolicy"), rules::FAILURE_POLICIES);
        rules::match_policy(hook, problems);
        let effects = hook.child("sideEffects");
        match effects.is_set() {
            true => problems.one_of(&effects, NO_SIDE_EFFECTS),
            false => problems.required(&effects, "must specify one of None, NoneOnDryRun"),
        }
        let timeout = hook.child("timeoutSeconds");
        if let Some(seconds) = timeout.integer().filter(|s| !(1..=30).contains(s)) {
            let sentence = "the timeout value must be between 1 and 30 seconds";
            problems.invalid(&timeout, seconds, sentence);
        }
        label_selector(&hook.child("namespaceSelector"), problems);
        label_selector(&hook.child("objectSelector"), problems);
        if self.mutate {
            problems.one_of(
                &hook.child("reinvocationPolicy"),
                rules::REINVOCATION_POLICIES,
            );
        }
        client_config(&hook.child("clientConfig"), problems);
        rules::conditions(hook, false, problems);
        review_versions(hook, problems);
    }
}

/// Where a webhook is: of a conversion, too.
pub(crate) fn client_config(config: &Field<'_, '_>, problems: &mut Problems) {
    let (url, service) = (config.child("url"), config.child("service"));
    match (url.is_set(), service.is_set()) {
        (true, false) => address(&url, problems),
        (false, true) => self::service(&service, problems),
        _ => problems.required(config, "exactly one of url or service is required"),
    }
}

fn address(url: &Field<'_, '_>, problems: &mut Problems) {
    const FORM: &str = "; desired format: https://host[/path]";
    let text = url.text();
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if scheme != "https" {
        let sentence = format!("'https' is the only allowed URL scheme{FORM}");
        problems.invalid(url, scheme, &sentence);
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = match scheme {
        "" => "",
        _ => place.split('/').next().unwrap_or(""),
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if host.is_empty() {
        problems.invalid(url, host, &format!("host must be specified{FORM}"));
    } else if !crate::cel::is_uri(text) {
        problems.required(url, &format!("url must be a valid URL: {text:?}{FORM}"));
    }
    if let Some(user) = user {
        let sentence = "user information is not permitted in the URL";
        problems.invalid(url, user, sentence);
    }
    if !fragment.is_empty() {
        let sentence = "fragments are not permitted in the URL";
        problems.invalid(url, fragment, sentence);
    }
    if !query.is_empty() {
        let sentence = "query parameters are not permitted in the URL";
        problems.invalid(url, query, sentence);
    }
}

fn service(service: &Field<'_, '_>, problems: &mut Problems) {
    problems.required_text(&service.child("name"));
    problems.required_text(&service.child("namespace"));
    let port = service.child("port");
    let number = port.integer().unwrap_or(443);
    if !(1..=65535).contains(&number) {
        let sentence = "port is not valid: must be between 1 and 65535, inclusive";
        problems.invalid(&port, number, sentence);
    }
    let path = service.child("path");
    let text = path.text();
    if text.is_empty() || text == "/" {
        return;
    }
    if text == "//" {
        problems.invalid(&path, text, "segment[0] may not be empty");
        return;
    }
    if !text.starts_with('/') {
        problems.invalid(&path, text, "must start with a '/'");
    }
    let mut rest = text.chars();
    rest.next();
    let rest = rest.as_str();
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    for (index, step) in rest.split('/').enumerate() {
        if step.is_empty() {
            let sentence = format!("segment[{index}] may not be empty");
            problems.invalid(&path, text, &sentence);
            continue;
        }
        for fault in name::dns1123_subdomain_faults(step) {
            problems.invalid(&path, text, &format!("segment[{index}]: {fault}"));
        }
    }
}

fn review_versions(hook: &Field<'_, '_>, problems: &mut Problems) {
    let all = hook.child("admissionReviewVersions");
    if all.list().is_empty() {
        problems.required(&all, "must specify one of v1, v1beta1");
        return;
    }
    let mut seen = BTreeSet::new();
    for version in hook.items("admissionReviewVersions") {
        let text = version.text();
        if !seen.insert(text) {
            problems.invalid(&version, text, "duplicate version");
            continue;
        }
        problems.rule(&version, name::dns1035_label_faults);
    }
    if !REVIEW_VERSIONS.iter().any(|known| seen.contains(known)) {
        let sentence = "must include at least one of v1, v1beta1";
        problems.invalid(&all, all.shown(), sentence);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::told;

    fn base() -> Value {
        json!({"metadata": {"name": "c"}, "webhooks": [{
            "name": "a.example.com",
            "clientConfig": {"url": "https://example.com/path"},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "sideEffects": "None", "admissionReviewVersions": ["v1"],
        }]})
    }

    #[test]
    fn what_is_left_out_is_filled() {
        let mut value = base();
        value["webhooks"][0]["clientConfig"] = json!({"service": {"name": "s", "namespace": "n"}});
        Webhooks { mutate: true }.default(&mut value);
        let hook = &value["webhooks"][0];
        assert_eq!(
            (
                &hook["failurePolicy"],
                &hook["matchPolicy"],
                &hook["namespaceSelector"],
                &hook["timeoutSeconds"],
                &hook["reinvocationPolicy"],
                &hook["rules"][0]["scope"],
                &hook["clientConfig"]["service"]["port"],
            ),
            (
                &json!("Fail"),
                &json!("Equivalent"),
                &json!({}),
                &json!(10),
                &json!("Never"),
                &json!("*"),
                &json!(443),
            )
        );
    }

    #[test]
    fn webhooks_are_sound() {
        told::check(
            &VALIDATING_WEBHOOK_CONFIGURATION,
            &base(),
            &[
                (
                    "/webhooks/0/name",
                    json!("a.b"),
                    &[
                        "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
                    ],
                ),
                (
                    "/webhooks/0/rules/0/operations",
                    json!(["*", "READ"]),
                    &[
                        "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"READ\"]: if '*' is present, must not specify other operations",
                        "webhooks[0].rules[0].operations[1]: Unsupported value: \"READ\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
                    ],
                ),
                (
                    "/webhooks/0/rules/0/resources",
                    json!(["pods/*", "pods/status", "*", "a"]),
                    &[
                        "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/status\": if 'pods/*' is present, must not specify pods/status",
                        "webhooks[0].rules[0].resources: Invalid value: [\"pods/*\",\"pods/status\",\"*\",\"a\"]: if '*' is present, must not specify other resources without subresources",
                    ],
                ),
                (
                    "/webhooks/0/sideEffects",
                    json!("Unknown"),
                    &[
                        "webhooks[0].sideEffects: Unsupported value: \"Unknown\": supported values: \"None\", \"NoneOnDryRun\"",
                    ],
                ),
                (
                    "/webhooks/0/timeoutSeconds",
                    json!(31),
                    &[
                        "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                    ],
                ),
                (
                    "/webhooks/0/clientConfig",
                    json!({}),
                    &[
                        "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
                    ],
                ),
                (
                    "/webhooks/0/clientConfig",
                    json!({"url": "http://u:p@h/?q=1#f"}),
                    &[
                        "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                        "webhooks[0].clientConfig.url: Invalid value: \"u:p\": user information is not permitted in the URL",
                        "webhooks[0].clientConfig.url: Invalid value: \"f\": fragments are not permitted in the URL",
                        "webhooks[0].clientConfig.url: Invalid value: \"q=1\": query parameters are not permitted in the URL",
                    ],
                ),
                (
                    "/webhooks/0/clientConfig",
                    json!({"service": {"name": "s", "namespace": "n", "path": "a//b", "port": 70000}}),
                    &[
                        "webhooks[0].clientConfig.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535, inclusive",
                        "webhooks[0].clientConfig.service.path: Invalid value: \"a//b\": must start with a '/'",
                        "webhooks[0].clientConfig.service.path: Invalid value: \"a//b\": segment[0] may not be empty",
                        "webhooks[0].clientConfig.service.path: Invalid value: \"a//b\": segment[1] may not be empty",
                    ],
                ),
                (
                    "/webhooks/0/admissionReviewVersions",
                    json!(["v2", "v2"]),
                    &[
                        "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
                        "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
                    ],
                ),
                (
                    "/webhooks/0/matchConditions",
                    json!([{"name": "a", "expression": "object.x =="}, {"name": "a", "expression": "1"}]),
                    &[
                        "webhooks[0].matchConditions[0].expression: Invalid value: \"object.x ==\": compilation failed: ERROR: <input>:1:12: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | object.x ==\n | ...........^",
                        "webhooks[0].matchConditions[1].expression: Invalid value: \"1\": must evaluate to bool but got int",
                        "webhooks[0].matchConditions[1].name: Duplicate value: \"a\"",
                    ],
                ),
                (
                    "/metadata/name",
                    json!("a.static.k8s.io"),
                    &[
                        "metadata.name: Invalid value: \"a.static.k8s.io\": names ending with \".static.k8s.io\" are reserved for static manifest-based configurations and cannot be managed via the API",
                    ],
                ),
            ],
        );
    }
}
