//! What a definition may say of the webhook that converts its objects.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use weft_api::name::{dns1035_label_faults, dns1123_subdomain_faults};

use super::Judge;
use crate::lens::{flag, integer, items, text};

/// Why certificates in base64 are none that a server could be known by.
pub(in crate::apiextensions) fn ca_bundle_fault(bundle: &str) -> Option<&'static str> {
    const FAULT: &str = "unable to load root certificates: unable to parse bytes as PEM block";
    let Ok(bytes) = STANDARD.decode(bundle) else {
        return Some(FAULT);
    };
    let Ok(pem) = String::from_utf8(bytes) else {
        return Some(FAULT);
    };
    if pem.trim().is_empty() {
        return None;
    }
    let mut found = false;
    for block in pem.split("-----BEGIN CERTIFICATE-----").skip(1) {
        let body: String = block
            .split("-----END CERTIFICATE-----")
            .next()
            .unwrap_or("")
            .split_whitespace()
            .collect();
        // A certificate is a sequence.
        found = STANDARD
            .decode(body)
            .is_ok_and(|der| der.first() == Some(&0x30));
        if !found {
            break;
        }
    }
    (!found).then_some(FAULT)
}

impl Judge {
    pub(super) fn conversion(&mut self, spec: &Value, lenient_bundle: bool) {
        let Some(conversion) = spec.get("conversion").filter(|it| it.is_object()) else {
            return;
        };
        let strategy = text(conversion, "/strategy");
        if strategy != "None" && flag(spec, "/preserveUnknownFields") {
            let told = "must be None if spec.preserveUnknownFields is true";
            self.invalid("spec.conversion.strategy", strategy, told);
        }
        match strategy {
            "" => self.required("spec.conversion.strategy", ""),
            "None" | "Webhook" => {}
            other => {
                self.not_supported("spec.conversion.strategy", other, &["None", "Webhook"]);
            }
        }
        const CLIENT: &str = "spec.conversion.webhookClientConfig";
        const REVIEWS: &str = "spec.conversion.conversionReviewVersions";
        let client = conversion.pointer("/webhook/clientConfig");
        let client = client.filter(|client| !client.is_null());
        let reviews = items(conversion, "/webhook/conversionReviewVersions");
        if strategy != "Webhook" {
            let told = "should not be set when strategy is not set to Webhook";
            if client.is_some() {
                self.forbidden(CLIENT, told);
            }
            if !reviews.is_empty() {
                self.forbidden(REVIEWS, told);
            }
            return;
        }
        match client {
            None => self.required(CLIENT, "required when strategy is set to Webhook"),
            Some(client) => self.client(client, CLIENT, lenient_bundle),
        }
        if reviews.is_empty() {
            self.required(REVIEWS, "");
            return;
        }
        let mut seen = BTreeSet::new();
        for (index, review) in reviews.iter().filter_map(Value::as_str).enumerate() {
            let at = format!("{REVIEWS}[{index}]");
            if !seen.insert(review) {
                self.invalid(&at, review, "duplicate version");
                continue;
            }
            for fault in dns1035_label_faults(review) {
                self.invalid(&at, review, &fault);
            }
        }
        if !seen.contains("v1") && !seen.contains("v1beta1") {
            let told = "must include at least one of v1, v1beta1";
            self.invalid(REVIEWS, json!(reviews), told);
        }
    }

    fn client(&mut self, client: &Value, path: &str, lenient_bundle: bool) {
        let url = client.get("url").and_then(Value::as_str);
        let service = client.get("service").filter(|service| service.is_object());
        match (url, service) {
            (None, None) | (Some(_), Some(_)) => {
                self.required(path, "exactly one of url or service is required");
            }
            (Some(url), None) => self.url(url, &format!("{path}.url")),
            (None, Some(service)) => self.service(service, &format!("{path}.service")),
        }
        let bundle = text(client, "/caBundle");
        if !bundle.is_empty()
            && !lenient_bundle
            && let Some(told) = ca_bundle_fault(bundle)
        {
            self.invalid(&format!("{path}.caBundle"), bundle, told);
        }
    }

    fn url(&mut self, url: &str, path: &str) {
        const FORM: &str = "; desired format: https://host[/path]";
        let (scheme, rest) = url.split_once("://").unwrap_or(("", ""));
        if scheme != "https" {
            let told = format!("'https' is the only allowed URL scheme{FORM}");
            self.invalid(path, scheme, &told);
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = rest.split('/').next().unwrap_or("");
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if host.is_empty() {
            self.invalid(path, host, &format!("host must be specified{FORM}"));
        }
        if let Some(user) = user {
            let told = "user information is not permitted in the URL";
            self.invalid(path, user, told);
        }
        if !fragment.is_empty() {
            self.invalid(path, fragment, "fragments are not permitted in the URL");
        }
        if !query.is_empty() {
            let told = "query parameters are not permitted in the URL";
            self.invalid(path, query, told);
        }
    }

    fn service(&mut self, service: &Value, path: &str) {
        // Upstream hands name and namespace over in the wrong order, so each is told of as the other.
        for (told_as, member) in [("name", "namespace"), ("namespace", "name")] {
            if text(service, &format!("/{member}")).is_empty() {
                self.required(&format!("{path}.{told_as}"), "");
            }
        }
        let port = integer(service, "/port").unwrap_or(443);
        if !(1..=65535).contains(&port) {
            let told = "port is not valid: must be between 1 and 65535, inclusive";
            self.invalid(&format!("{path}.port"), port, told);
        }
        let at = format!("{path}.path");
        let Some(whole) = service.get("path").and_then(Value::as_str) else {
            return;
        };
        if whole.is_empty() || whole == "/" {
            return;
        }
        if whole == "//" {
            self.invalid(&at, whole, "segment[0] may not be empty");
            return;
        }
        let steps = match whole.strip_prefix('/') {
            Some(steps) => steps,
            None => {
                self.invalid(&at, whole, "must start with a '/'");
                let mut chars = whole.chars();
                chars.next();
                chars.as_str()
            }
        };
        let steps = steps.strip_suffix('/').unwrap_or(steps);
        for (index, step) in steps.split('/').enumerate() {
            if step.is_empty() {
                self.invalid(&at, whole, &format!("segment[{index}] may not be empty"));
                continue;
            }
            for fault in dns1123_subdomain_faults(step) {
                self.invalid(&at, whole, &format!("segment[{index}]: {fault}"));
            }
        }
    }
}
