//! GatewayClass, Gateway and ListenerSet: who takes connections, where, and for which hosts.

use serde_json::json;

use super::GROUP;
use super::parts::{
    address, address_type, any_object, conditions, controller_name, group, host, host_or_wildcard,
    kind, labels_with_dots, local_object, object_name, options, parent_gateway, pending_status,
    port, root, secret, section,
};
use super::shape::{Fields, Shape, keyed, list, map_of, number, object, one_of, text};

pub(super) fn gateway_class() -> Shape {
    let feature = object([("name!", text())]);
    let spec = object([
        (
            "controllerName!",
            controller_name().rule("oldSelf == self", "Value is immutable"),
        ),
        ("parametersRef", object(any_object())),
        ("description", text().at_most(64)),
    ]);
    let features = keyed("name", feature).at_most(64);
    root(
        "Gateways that one controller looks after.",
        spec,
        Some(pending_status(
            &["Accepted"],
            vec![("supportedFeatures", features)],
        )),
    )
}

pub(super) fn gateway() -> Shape {
    let spec = object([
        ("gatewayClassName!", object_name()),
        ("listeners!", gateway_listeners()),
        ("addresses", wanted_addresses()),
        ("infrastructure", infrastructure()),
        ("allowedListeners", allowed_listeners()),
        ("tls", gateway_tls()),
        ("defaultScope", one_of(&["All", "None"])),
    ]);
    let status = vec![
        ("addresses", given_addresses()),
        ("listeners", told_of_listeners()),
        ("attachedListenerSets", number()),
    ];
    root(
        "Where requests come into the cluster.",
        spec,
        Some(pending_status(&["Accepted", "Programmed"], status)),
    )
}

pub(super) fn listener_set() -> Shape {
    let different =
        format!("self.all(a, !has(a.port) || self.exists_one(b, has(b.port) && {ONE_PLACE}))");
    let spec = object([
        ("parentRef!", object(parent_gateway())),
        ("listeners!", listeners(different)),
    ]);
    root(
        "Listeners that are added to a Gateway.",
        spec,
        Some(pending_status(
            &["Accepted", "Programmed"],
            vec![("listeners", told_of_listeners())],
        )),
    )
}

// === Listeners ===

/// That two listeners are told apart by nothing.
const ONE_PLACE: &str = "a.port == b.port && a.protocol == b.protocol && has(a.hostname) == has(b.hostname) && (!has(a.hostname) || a.hostname == b.hostname)";

fn gateway_listeners() -> Shape {
    listeners(format!("self.all(a, self.exists_one(b, {ONE_PLACE}))"))
}

fn listeners(different: String) -> Shape {
    keyed("name", listener())
        .length(1, 64)
        .rule(
            "self.all(l, !has(l.tls) || !(l.protocol in ['HTTP', 'TCP', 'UDP']))",
            "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
        )
        .rule(
            "self.all(l, l.protocol != 'HTTPS' || !has(l.tls) || l.tls.mode in ['', 'Terminate'])",
            "tls mode must be Terminate for protocol HTTPS",
        )
        .rule(
            "self.all(l, l.protocol != 'TLS' || (has(l.tls) && has(l.tls.mode) && l.tls.mode != ''))",
            "tls mode must be set for protocol TLS",
        )
        .rule(
            "self.all(l, !(l.protocol in ['TCP', 'UDP']) || !has(l.hostname) || l.hostname == '')",
            "hostname must not be specified for protocols ['TCP', 'UDP']",
        )
        .rule(
            "self.all(a, self.exists_one(b, b.name == a.name))",
            "Listener name must be unique within the Gateway",
        )
        .rule(
            different,
            "Combination of port, protocol and hostname must be unique for each listener",
        )
}

fn listener() -> Shape {
    let own_protocol = format!(r"{}\/[A-Za-z0-9]+", labels_with_dots());
    let protocol = format!("^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|{own_protocol}$");
    object([
        ("name!", section()),
        ("hostname", host()),
        ("port!", port()),
        ("protocol!", text().length(1, 255).pattern(&protocol)),
        ("tls", listener_tls()),
        ("allowedRoutes", allowed_routes()),
    ])
}

fn listener_tls() -> Shape {
    object([
        (
            "mode",
            one_of(&["Terminate", "Passthrough"]).or("Terminate"),
        ),
        ("certificateRefs", list(secret()).at_most(64)),
        ("options", options()),
    ])
    .rule(
        "self.mode != 'Terminate' || size(self.certificateRefs) > 0 || size(self.options) > 0",
        "certificateRefs or options must be specified when mode is Terminate",
    )
}

fn allowed_routes() -> Shape {
    object([
        (
            "namespaces",
            namespaces(&["All", "Selector", "Same"], "Same"),
        ),
        ("kinds", route_kinds()),
    ])
    .or(json!({ "namespaces": { "from": "Same" } }))
}

fn allowed_listeners() -> Shape {
    let from = ["All", "Selector", "Same", "None"];
    object([("namespaces", namespaces(&from, "None"))])
}

fn namespaces(from: &[&str], default: &str) -> Shape {
    let requirement = object([
        ("key!", text()),
        ("operator!", text()),
        ("values", list(text())),
    ]);
    let selector = object([
        ("matchLabels", map_of(text())),
        ("matchExpressions", list(requirement)),
    ]);
    object([
        ("from", one_of(from).or(default)),
        ("selector", selector.atomic()),
    ])
    .or(json!({ "from": default }))
}

fn route_kinds() -> Shape {
    let one = object([("group", group().or(GROUP)), ("kind!", kind())]);
    list(one).at_most(8)
}

fn told_of_listeners() -> Shape {
    let one = object([
        ("name!", section()),
        ("supportedKinds", route_kinds()),
        ("attachedRoutes!", number()),
        ("conditions!", conditions()),
    ]);
    keyed("name", one).at_most(64)
}

// === A Gateway as a whole ===

fn valid_host(shape: Shape, absent: &str, told: &str) -> Shape {
    let pattern = format!("^{}$", host_or_wildcard());
    shape.rule(
        format!(r#"self.type != 'Hostname' || {absent}self.value.matches(r"""{pattern}""")"#),
        format!("Hostname value must {told} valid characters (matching {pattern})"),
    )
}

fn wanted_addresses() -> Shape {
    let one = address(vec![
        ("type", address_type()),
        ("value", text().at_most(253)),
    ]);
    let one = valid_host(one, "!has(self.value) || ", "be empty or contain only");
    ["IPAddress", "Hostname"]
        .iter()
        .fold(list(one).at_most(16), |addresses, kind| {
            addresses.rule(
                format!(
                    "self.all(a, a.type != '{kind}' || !has(a.value) || self.exists_one(b, b.type == a.type && has(b.value) && b.value == a.value))"
                ),
                format!("{kind} values must be unique"),
            )
        })
}

fn given_addresses() -> Shape {
    let one = address(vec![
        ("type", address_type()),
        ("value!", text().length(1, 253)),
    ]);
    list(valid_host(one, "", "only contain")).at_most(16)
}

fn infrastructure() -> Shape {
    let label_value = text()
        .at_most(63)
        .pattern("^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$");
    object([
        (
            "labels",
            with_valid_keys(map_of(label_value).at_most(8), "Label", "label"),
        ),
        (
            "annotations",
            with_valid_keys(
                map_of(text().at_most(4096)).at_most(16),
                "Annotation",
                "annotation",
            ),
        ),
        ("parametersRef", object(local_object())),
    ])
}

fn with_valid_keys(map: Shape, what: &str, of: &str) -> Shape {
    let prefix = format!("({}/)?", labels_with_dots());
    let pattern = format!("^{prefix}([A-Za-z0-9][-A-Za-z0-9_.]{{0,61}})?[A-Za-z0-9]$");
    map.rule(
        format!(r#"self.all(key, key.matches(r"""{pattern}"""))"#),
        format!("{what} keys must be in the form of an optional DNS subdomain prefix followed by a required name segment of up to 63 characters."),
    )
    .rule(
        "self.all(key, size(key.split('/')[0]) < 253)",
        format!("If specified, the {of} key's prefix must be a DNS subdomain not longer than 253 characters in total."),
    )
}

fn gateway_tls() -> Shape {
    let clients = || {
        let validation = object([
            (
                "caCertificateRefs!",
                list(object(any_object())).length(1, 16),
            ),
            (
                "mode",
                one_of(&["AllowValidOnly", "AllowInsecureFallback"]).or("AllowValidOnly"),
            ),
        ]);
        object([("validation", validation)])
    };
    let of_port: Fields = vec![("port!", port()), ("tls!", clients())];
    let ports = keyed("port", object(of_port)).at_most(64).rule(
        "self.all(a, self.exists_one(b, b.port == a.port))",
        "Port for TLS configuration must be unique within the Gateway",
    );
    object([
        ("backend", object([("clientCertificateRef", secret())])),
        (
            "frontend",
            object([("default!", clients()), ("perPort", ports)]),
        ),
    ])
}
