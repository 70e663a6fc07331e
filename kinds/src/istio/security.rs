//! What AuthorizationPolicies, RequestAuthentications and PeerAuthentications may say.

use serde_json::json;

use crate::gateway_api::shape::{Shape, flag, integer, keyed, list, map_of, object, one_of, text};

/// At most one way of saying where a policy applies.
const ONE_PLACE: &str =
    "(has(self.selector)?1:0)+(has(self.targetRef)?1:0)+(has(self.targetRefs)?1:0)<=1";
const ONE_PLACE_TOLD: &str = "only one of targetRefs or selector can be set";

fn root(description: &str, spec: Shape) -> Shape {
    object([
        ("apiVersion", text()),
        ("kind", text()),
        ("metadata", object([])),
        ("spec", spec),
        ("status", status()),
    ])
    .described(description)
}

fn status() -> Shape {
    let time = || text().format("date-time");
    let condition = object([
        ("type!", text()),
        ("status", text()),
        ("lastProbeTime", time()),
        ("lastTransitionTime", time()),
        ("reason", text()),
        ("message", text()),
        ("observedGeneration", integer()),
    ]);
    object([
        ("conditions", keyed("type", condition)),
        ("observedGeneration", integer()),
    ])
    .with("x-kubernetes-preserve-unknown-fields", true.into())
}

fn selector() -> Shape {
    let value = text().at_most(63).rule(
        "!self.contains('*')",
        "wildcard not allowed in label value match",
    );
    let labels = map_of(value)
        .at_most(4096)
        .rule(
            "self.all(key, !key.contains('*'))",
            "wildcard not allowed in label key match",
        )
        .rule("self.all(key, key.size() != 0)", "key must not be empty");
    object([("matchLabels", labels)])
}

fn target() -> Shape {
    let pattern = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    object([
        ("group", text().at_most(253).pattern(pattern)),
        (
            "kind!",
            text()
                .length(1, 63)
                .pattern("^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"),
        ),
        ("name!", text().length(1, 253)),
        (
            "namespace",
            text().rule(
                "self.size() == 0",
                "cross namespace referencing is not currently supported",
            ),
        ),
    ])
    .rule(
        "[has(self.group) ? self.group : '', self.kind] in [['core','Service'], ['','Service'], ['gateway.networking.k8s.io','Gateway'], ['gateway.networking.k8s.io','GatewayClass'], ['networking.istio.io','ServiceEntry']]",
        "Support kinds are core/Service, networking.istio.io/ServiceEntry, gateway.networking.k8s.io/Gateway",
    )
}

fn texts() -> Shape {
    list(text())
}

fn accounts() -> Shape {
    list(text().at_most(320)).at_most(16)
}

pub(super) fn authorization_policy() -> Shape {
    let source = object([
        ("principals", texts()),
        ("notPrincipals", texts()),
        ("requestPrincipals", texts()),
        ("notRequestPrincipals", texts()),
        ("namespaces", texts()),
        ("notNamespaces", texts()),
        ("serviceAccounts", accounts()),
        ("notServiceAccounts", accounts()),
        ("ipBlocks", texts()),
        ("notIpBlocks", texts()),
        ("remoteIpBlocks", texts()),
        ("notRemoteIpBlocks", texts()),
        ("trustDomains", texts()),
        ("notTrustDomains", texts()),
    ])
    .rule(
        "(has(self.serviceAccounts) || has(self.notServiceAccounts)) ? (!has(self.principals) && !has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces)) : true",
        "Cannot set serviceAccounts with namespaces or principals",
    );
    let operation = object([
        ("hosts", texts()),
        ("notHosts", texts()),
        ("ports", texts()),
        ("notPorts", texts()),
        ("methods", texts()),
        ("notMethods", texts()),
        ("paths", texts()),
        ("notPaths", texts()),
    ]);
    let condition = object([
        ("key!", text()),
        ("values", texts()),
        ("notValues", texts()),
    ]);
    let rule = object([
        ("from", list(object([("source", source)])).at_most(512)),
        ("to", list(object([("operation", operation)]))),
        ("when", list(condition)),
    ]);
    let spec = object([
        ("selector", selector()),
        ("targetRef", target()),
        ("targetRefs", list(target()).at_most(16)),
        ("rules", list(rule).at_most(512)),
        ("action", one_of(&["ALLOW", "DENY", "AUDIT", "CUSTOM"])),
        ("provider", object([("name", text())])),
    ])
    .rule(ONE_PLACE, ONE_PLACE_TOLD);
    root("Who may call workloads, and in which way.", spec)
}

pub(super) fn request_authentication() -> Shape {
    let named = |most| text().length(1, most);
    let line = object([("name!", named(256)), ("prefix", text())]);
    let told = object([
        ("header!", named(256).pattern("^[-_A-Za-z0-9]+$")),
        ("claim!", named(1024)),
    ]);
    let uri = || {
        named(2048).rule(
            "url(self).getScheme() in ['http', 'https']",
            "url must have scheme http:// or https://",
        )
    };
    let rule = object([
        ("issuer", named(4096)),
        ("audiences", list(named(4096))),
        ("jwksUri", uri()),
        ("jwks_uri", uri()),
        ("jwks", text()),
        ("fromHeaders", list(line)),
        ("fromParams", list(named(1024))),
        ("fromCookies", list(named(1024))),
        ("outputPayloadToHeader", text()),
        ("forwardOriginalToken", flag()),
        ("outputClaimToHeaders", list(told)),
        ("spaceDelimitedClaims", list(named(1024)).at_most(64)),
        (
            "timeout",
            text().rule(
                "duration(self) >= duration('1ms')",
                "must be a valid duration greater than 1ms",
            ),
        ),
    ])
    .rule(
        "(has(self.jwksUri)?1:0)+(has(self.jwks_uri)?1:0)+(has(self.jwks)?1:0)<=1",
        "only one of jwks or jwksUri can be set",
    );
    let spec = object([
        ("selector", selector()),
        ("targetRef", target()),
        ("targetRefs", list(target()).at_most(16)),
        // Each rule is looked at for each request.
        ("jwtRules", list(rule).at_most(64)),
    ])
    .rule(ONE_PLACE, ONE_PLACE_TOLD);
    root("Whose tokens requests to workloads may bring.", spec)
}

pub(super) fn peer_authentication() -> Shape {
    let mode = || {
        object([(
            "mode",
            one_of(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]),
        )])
    };
    let ports = map_of(mode())
        .with("minProperties", json!(1))
        .at_most(64)
        .rule(
            "self.all(key, 0 < int(key) && int(key) <= 65535)",
            "port must be between 1-65535",
        );
    let spec = object([
        ("selector", selector()),
        ("mtls", mode()),
        ("portLevelMtls", ports),
    ])
    .rule(
        "has(self.portLevelMtls) ? (((has(self.selector) && has(self.selector.matchLabels)) ? self.selector.matchLabels : {}).size() > 0) : true",
        "portLevelMtls requires selector",
    );
    root("How callers of workloads prove themselves.", spec)
}
