//! `security.istio.io`: who may call whom, as Istio writes it.
//!
//! These kinds are custom kinds, as those of the Gateway API are: [`definitions`] are the CustomResourceDefinitions that a cluster of weft has
//! from its beginning, and users may put Istio's own in their place. So nothing here serves them: [`AUTHORIZATION_POLICY`] and its neighbours
//! are names, by which the kinds are found in the registry in force.
//!
//! The definitions have the fields, defaults and rules of Istio's, in words of our own.
//!
//! Left to others: making them (`weft_apiserver::definitions`), what comes of the objects (`weft_policy`).

mod security;

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use crate::Kind;
use crate::gateway_api::shape::Shape;

/// The API group of them.
pub const SECURITY_GROUP: &str = "security.istio.io";
/// The version of Istio's API that the definitions are of.
pub const BUNDLE_VERSION: &str = "1.32.0";

pub static AUTHORIZATION_POLICY: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(named("AuthorizationPolicy", "authorizationpolicies")));

pub static REQUEST_AUTHENTICATION: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(named("RequestAuthentication", "requestauthentications")));

pub static PEER_AUTHENTICATION: LazyLock<Arc<Kind>> =
    LazyLock::new(|| Arc::new(named("PeerAuthentication", "peerauthentications")));

/// A kind by its name: without the schema and the rules that its definition gives it.
fn named(kind: &'static str, resource: &'static str) -> Kind {
    Kind {
        merges_strategically: false,
        counts_generations: true,
        ..Kind::new(SECURITY_GROUP, "v1", kind, resource)
    }
}

/// A column: its name, its type, and the path to what it shows.
type Column = (&'static str, &'static str, &'static str);

const AGE: Column = ("Age", "date", ".metadata.creationTimestamp");

/// The CustomResourceDefinitions of these kinds, by name.
pub fn definitions() -> Vec<Value> {
    vec![
        define(
            &AUTHORIZATION_POLICY,
            "ap",
            security::authorization_policy(),
            &[("Action", "string", ".spec.action"), AGE],
        ),
        define(
            &PEER_AUTHENTICATION,
            "pa",
            security::peer_authentication(),
            &[("Mode", "string", ".spec.mtls.mode"), AGE],
        ),
        define(
            &REQUEST_AUTHENTICATION,
            "ra",
            security::request_authentication(),
            &[AGE],
        ),
    ]
}

/// A definition with the two versions that Istio serves, which are alike.
fn define(kind: &Kind, short: &str, schema: Shape, columns: &[Column]) -> Value {
    let (group, plural, name) = (&*kind.group, &*kind.resource, &*kind.kind);
    let schema = schema.into_value();
    let columns = columns.iter();
    let columns: Vec<Value> = columns
        .map(|(name, of, path)| json!({ "name": name, "type": of, "jsonPath": path }))
        .collect();
    let version = |version: &str, is_stored: bool| {
        json!({
            "name": version, "served": true, "storage": is_stored,
            "schema": { "openAPIV3Schema": schema }, "subresources": { "status": {} },
            "additionalPrinterColumns": columns,
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{group}"),
            "labels": { "istio": "security" },
        },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {
                "kind": name, "listKind": format!("{name}List"), "plural": plural,
                "singular": name.to_lowercase(), "shortNames": [short],
                "categories": ["istio-io", "security-istio-io"],
            },
            "versions": [version("v1", true), version("v1beta1", false)],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiextensions::Definition;
    use crate::{CUSTOM_RESOURCE_DEFINITION, decode, validate};

    #[test]
    fn they_are_what_users_could_have_sent() {
        let mut told = Vec::new();
        for definition in definitions() {
            let decoded = decode::value(&CUSTOM_RESOURCE_DEFINITION.gvk(), &definition).unwrap();
            assert_eq!(decoded.faults, [""; 0]);
            let mut stored = decoded.value;
            CUSTOM_RESOURCE_DEFINITION.strategy.default(&mut stored);
            assert_eq!(
                validate::told::of_new(&CUSTOM_RESOURCE_DEFINITION, &stored),
                [""; 0]
            );
            let mut served = stored.clone();
            let lean: Vec<&Value> = vec![&stored];
            let now = "2026-01-01T00:00:00Z";
            while let Some(next) = crate::apiextensions::status::next(&served, &lean, now) {
                served = next;
            }
            let kinds = Definition::kinds(&served).unwrap();
            told.extend(kinds.iter().map(|kind| {
                format!(
                    "{}/{} {}",
                    kind.version,
                    kind.resource,
                    kind.short_names.join(",")
                )
            }));
        }
        assert_eq!(
            told,
            [
                "v1/authorizationpolicies ap",
                "v1beta1/authorizationpolicies ap",
                "v1/peerauthentications pa",
                "v1beta1/peerauthentications pa",
                "v1/requestauthentications ra",
                "v1beta1/requestauthentications ra",
            ]
        );
    }
}
