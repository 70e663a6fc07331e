//! The definitions as objects: names, versions, columns, and the marks that tools read.

use serde_json::{Value, json};

use super::gateway::{gateway, gateway_class, listener_set};
use super::http::{grpc_route, http_route};
use super::mesh::mesh;
use super::policy::{backend_tls_policy, reference_grant};
use super::shape::Shape;
use super::streams::{stream_route, stream_route_of_before, tls_route, tls_route_of_before};
use super::{EXPERIMENTAL_GROUP, GROUP};

/// The version of the Gateway API that the definitions are of.
pub const BUNDLE_VERSION: &str = "v1.6.3";
/// The one that has every field: what of them is not served is refused by its name in a status, where the other drops it.
const CHANNEL: &str = "experimental";
/// Where the API was approved, which every group below `k8s.io` has to say.
const APPROVED: &str = "https://github.com/kubernetes-sigs/gateway-api/pull/4530";

/// A column: its name, its type, and the path to what it shows.
type Column = (&'static str, &'static str, &'static str);

const AGE: Column = ("Age", "date", ".metadata.creationTimestamp");
const ACCEPTED: Column = (
    "Accepted",
    "string",
    r#".status.conditions[?(@.type=="Accepted")].status"#,
);
const PROGRAMMED: Column = (
    "Programmed",
    "string",
    r#".status.conditions[?(@.type=="Programmed")].status"#,
);
const OF_CLASS: [Column; 4] = [
    ("Controller", "string", ".spec.controllerName"),
    ACCEPTED,
    AGE,
    (DESCRIPTION, "string", ".spec.description"),
];
const OF_GATEWAY: [Column; 4] = [
    ("Class", "string", ".spec.gatewayClassName"),
    ("Address", "string", ".status.addresses[*].value"),
    PROGRAMMED,
    AGE,
];
const OF_HOSTS: [Column; 2] = [("Hostnames", "string", ".spec.hostnames"), AGE];
/// Shown to who asks for wide tables.
const DESCRIPTION: &str = "Description";

/// A kind: its names, and its versions.
struct Definition {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    versions: Vec<Version>,
}

struct Version {
    name: &'static str,
    part: Part,
    schema: Shape,
    columns: &'static [Column],
}

/// What a version is for.
#[derive(PartialEq)]
enum Part {
    /// Objects are stored in it.
    Stored,
    Served,
    /// It is there for those who have not moved to v1.
    Deprecated,
}
use Part::{Deprecated, Served, Stored};

fn version(name: &'static str, part: Part, schema: Shape, columns: &'static [Column]) -> Version {
    Version {
        name,
        part,
        schema,
        columns,
    }
}

/// The CustomResourceDefinitions of the Gateway API, by name.
pub fn definitions() -> Vec<Value> {
    kinds().into_iter().map(Definition::into_object).collect()
}

fn kinds() -> Vec<Definition> {
    let define = |kind, plural, short, versions| Definition {
        group: GROUP,
        kind,
        plural,
        short,
        versions,
    };
    let streams = || {
        vec![
            version("v1", Stored, stream_route(), &[AGE]),
            version("v1alpha2", Deprecated, stream_route_of_before(), &[AGE]),
        ]
    };
    vec![
        define(
            "BackendTLSPolicy",
            "backendtlspolicies",
            &["btlspolicy"],
            vec![
                version("v1", Stored, backend_tls_policy(), &[AGE]),
                version("v1alpha3", Deprecated, backend_tls_policy(), &[]),
            ],
        ),
        define(
            "GatewayClass",
            "gatewayclasses",
            &["gc"],
            vec![
                version("v1", Stored, gateway_class(), &OF_CLASS),
                version("v1beta1", Served, gateway_class(), &OF_CLASS),
            ],
        ),
        define(
            "Gateway",
            "gateways",
            &["gtw"],
            vec![
                version("v1", Stored, gateway(), &OF_GATEWAY),
                version("v1beta1", Served, gateway(), &OF_GATEWAY),
            ],
        ),
        define(
            "GRPCRoute",
            "grpcroutes",
            &[],
            vec![version("v1", Stored, grpc_route(), &OF_HOSTS)],
        ),
        define(
            "HTTPRoute",
            "httproutes",
            &[],
            vec![
                version("v1", Stored, http_route(), &OF_HOSTS),
                version("v1beta1", Served, http_route(), &OF_HOSTS),
            ],
        ),
        define(
            "ListenerSet",
            "listenersets",
            &["lset"],
            vec![version(
                "v1",
                Stored,
                listener_set(),
                &[ACCEPTED, PROGRAMMED, AGE],
            )],
        ),
        define(
            "ReferenceGrant",
            "referencegrants",
            &["refgrant"],
            vec![
                version("v1", Served, reference_grant(), &[AGE]),
                version("v1beta1", Stored, reference_grant(), &[AGE]),
            ],
        ),
        define("TCPRoute", "tcproutes", &[], streams()),
        define(
            "TLSRoute",
            "tlsroutes",
            &[],
            vec![
                version("v1", Stored, tls_route(), &[AGE]),
                version("v1alpha2", Deprecated, tls_route_of_before(), &[AGE]),
                version("v1alpha3", Deprecated, tls_route(), &[AGE]),
            ],
        ),
        define("UDPRoute", "udproutes", &[], streams()),
        Definition {
            group: EXPERIMENTAL_GROUP,
            ..define(
                "XMesh",
                "xmeshes",
                &["mesh"],
                vec![version("v1alpha1", Stored, mesh(), &[ACCEPTED, AGE])],
            )
        },
    ]
}

impl Definition {
    fn into_object(self) -> Value {
        let kind = self.kind;
        let scope = match kind {
            "GatewayClass" | "XMesh" => "Cluster",
            _ => "Namespaced",
        };
        let mut names = json!({
            "kind": kind, "listKind": format!("{kind}List"), "plural": self.plural, "singular": kind.to_lowercase(),
            "categories": ["gateway-api"],
        });
        if !self.short.is_empty() {
            names["shortNames"] = self.short.into();
        }
        let versions = self.versions.into_iter();
        let versions: Vec<Value> = versions.map(|version| version.into_value(kind)).collect();
        let mut definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{}.{}", self.plural, self.group),
                "annotations": {
                    "api-approved.kubernetes.io": APPROVED,
                    "gateway.networking.k8s.io/bundle-version": BUNDLE_VERSION,
                    "gateway.networking.k8s.io/channel": CHANNEL,
                },
            },
            "spec": { "group": self.group, "names": names, "scope": scope, "versions": versions },
        });
        if kind.ends_with("Policy") {
            // How tools find what may be attached to other objects.
            definition["metadata"]["labels"] =
                json!({ "gateway.networking.k8s.io/policy": "Direct" });
        }
        definition
    }
}

impl Version {
    fn into_value(self, kind: &str) -> Value {
        let columns = self.columns.iter().map(|(name, of, path)| {
            let mut column = json!({ "name": name, "type": of, "jsonPath": path });
            if *name == DESCRIPTION {
                column["priority"] = 1.into();
            }
            column
        });
        let columns: Vec<Value> = columns.collect();
        let schema = self.schema.into_value();
        let has_status = schema["properties"].get("status").is_some();
        let mut version = json!({
            "name": self.name, "served": true, "storage": self.part == Stored,
            "schema": { "openAPIV3Schema": schema }, "subresources": {},
        });
        if has_status {
            version["subresources"]["status"] = json!({});
        }
        if !columns.is_empty() {
            version["additionalPrinterColumns"] = columns.into();
        }
        if self.part == Deprecated {
            let name = self.name;
            version["deprecated"] = true.into();
            version["deprecationWarning"] = format!(
                "The {name} version of {kind} has been deprecated and will be removed in a future release of the API. Please upgrade to v1."
            )
            .into();
        }
        version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiextensions::Definition as Served;
    use crate::apiextensions::status;
    use crate::{CUSTOM_RESOURCE_DEFINITION, decode, validate};

    /// The definitions as they are stored.
    fn stored() -> Vec<Value> {
        let read = |definition: &Value| {
            let decoded = decode::value(&CUSTOM_RESOURCE_DEFINITION.gvk(), definition).unwrap();
            assert_eq!(decoded.faults, [""; 0]);
            let mut stored = decoded.value;
            CUSTOM_RESOURCE_DEFINITION.strategy.default(&mut stored);
            stored
        };
        definitions().iter().map(read).collect()
    }

    #[test]
    fn they_are_what_users_could_have_sent() {
        let all = stored();
        let mut told = Vec::new();
        for definition in &all {
            assert_eq!(
                validate::told::of_new(&CUSTOM_RESOURCE_DEFINITION, definition),
                [""; 0]
            );
            let mut served = definition.clone();
            let lean: Vec<&Value> = vec![definition];
            while let Some(next) = status::next(&served, &lean, "2026-01-01T00:00:00Z") {
                served = next;
            }
            assert!(status::is_served(&served));
            let kinds = Served::kinds(&served).unwrap();
            told.extend(kinds.iter().map(|kind| {
                let stored = if kind.stands_for_stored() {
                    " stored"
                } else {
                    ""
                };
                let short = kind.short_names.join(",");
                format!("{}/{} {short}{stored}", kind.version, kind.resource)
            }));
        }
        assert_eq!(
            told,
            [
                "v1/backendtlspolicies btlspolicy stored",
                "v1alpha3/backendtlspolicies btlspolicy",
                "v1/gatewayclasses gc stored",
                "v1beta1/gatewayclasses gc",
                "v1/gateways gtw stored",
                "v1beta1/gateways gtw",
                "v1/grpcroutes  stored",
                "v1/httproutes  stored",
                "v1beta1/httproutes ",
                "v1/listenersets lset stored",
                "v1/referencegrants refgrant",
                "v1beta1/referencegrants refgrant stored",
                "v1/tcproutes  stored",
                "v1alpha2/tcproutes ",
                "v1/tlsroutes  stored",
                "v1alpha3/tlsroutes ",
                "v1alpha2/tlsroutes ",
                "v1/udproutes  stored",
                "v1alpha2/udproutes ",
                "v1alpha1/xmeshes mesh stored",
            ]
        );
    }
}
