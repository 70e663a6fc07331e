//! What several kinds of the Gateway API are made of: names, references, conditions.

use serde_json::{Value, json};

use super::GROUP;
use super::shape::{Fields, Shape, integer, keyed, list, map_of, number, object, one_of, text};

/// A label of a host name, without anchors.
const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
/// What a path may be made of.
pub(super) const PATH: &str = "^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$";

/// Labels with dots between them, without anchors.
pub(super) fn labels_with_dots() -> String {
    format!(r"{LABEL}(\.{LABEL})*")
}

/// A domain, a slash and a path, without anchors.
fn domain_and_path() -> String {
    format!(r"{}\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+", labels_with_dots())
}

/// A host name, the first label of which may stand for any, without anchors.
pub(super) fn host_or_wildcard() -> String {
    format!(r"(\*\.)?{}", labels_with_dots())
}

pub(super) fn group() -> Shape {
    let pattern = format!("^$|^{}$", labels_with_dots());
    text().at_most(253).pattern(&pattern)
}

pub(super) fn kind() -> Shape {
    let pattern = "^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
    text().length(1, 63).pattern(pattern)
}

pub(super) fn object_name() -> Shape {
    text().length(1, 253)
}

pub(super) fn namespace() -> Shape {
    let pattern = format!("^{LABEL}$");
    text().length(1, 63).pattern(&pattern)
}

/// The name of a part of something: a listener, a rule, a port.
pub(super) fn section() -> Shape {
    let pattern = format!("^{}$", labels_with_dots());
    text().length(1, 253).pattern(&pattern)
}

/// A host name without a wildcard.
pub(super) fn precise_host() -> Shape {
    section()
}

pub(super) fn host() -> Shape {
    let pattern = format!("^{}$", host_or_wildcard());
    text().length(1, 253).pattern(&pattern)
}

pub(super) fn hosts() -> Shape {
    list(host()).at_most(16)
}

pub(super) fn port() -> Shape {
    number().between(1, 65535)
}

/// A time as `1h30m`, `500ms`.
pub(super) fn span() -> Shape {
    text().pattern("^([0-9]{1,5}(h|m|s|ms)){1,4}$")
}

pub(super) fn controller_name() -> Shape {
    let pattern = format!("^{}$", domain_and_path());
    text().length(1, 253).pattern(&pattern)
}

pub(super) fn header_name() -> Shape {
    let pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_\x60|~]+$";
    text().length(1, 256).pattern(pattern)
}

pub(super) fn header_value() -> Shape {
    let pattern = r"^[!-~]+([\t ]?[!-~]+)*$";
    text().length(1, 4096).pattern(pattern)
}

/// The type of an address: one that is known, or somebody's own.
pub(super) fn address_type() -> Shape {
    let pattern = format!("^Hostname|IPAddress|NamedAddress|{}$", domain_and_path());
    text().length(1, 253).pattern(&pattern).or("IPAddress")
}

/// An address is one of the internet protocol where its type says so.
pub(super) fn address(fields: Fields) -> Shape {
    object(fields).with(
        "oneOf",
        json!([
            { "properties": {
                "type": { "enum": ["IPAddress"] },
                "value": { "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] },
            } },
            { "properties": { "type": { "not": { "enum": ["IPAddress"] } } } },
        ]),
    )
}

/// Settings of an implementation's own.
pub(super) fn options() -> Shape {
    map_of(text().at_most(4096)).at_most(16)
}

pub(super) fn default_gateways() -> Shape {
    one_of(&["All", "None"])
}

/// An object in the same namespace.
pub(super) fn local_object() -> Fields {
    vec![
        ("group!", group()),
        ("kind!", kind()),
        ("name!", object_name()),
    ]
}

/// An object, in another namespace where one is named.
pub(super) fn any_object() -> Fields {
    let mut fields = local_object();
    fields.push(("namespace", namespace()));
    fields
}

/// As [`any_object`], where group and kind need not be said.
fn object_of(of_group: &str, of_kind: &str) -> Fields {
    vec![
        ("group", group().or(of_group)),
        ("kind", kind().or(of_kind)),
        ("name!", object_name()),
        ("namespace", namespace()),
    ]
}

pub(super) fn secret() -> Shape {
    object(object_of("", "Secret"))
}

pub(super) fn parent_gateway() -> Fields {
    object_of(GROUP, "Gateway")
}

/// What a route is attached to.
pub(super) fn parent() -> Shape {
    let mut fields = parent_gateway();
    fields.push(("sectionName", section()));
    fields.push(("port", port()));
    object(fields)
}

/// That two elements have the same at `field`, where nothing is the same as `empty`.
pub(super) fn same(field: &str, empty: &str) -> String {
    let of = |one: &str| format!("(has({one}.{field}) ? {one}.{field} : {empty})");
    format!("{} == {}", of("a"), of("b"))
}

/// That both of two elements have something at `field`, or neither.
pub(super) fn both_or_neither(field: &str, empty: &str) -> String {
    let has_none = |one: &str| format!("(!has({one}.{field}) || {one}.{field} == {empty})");
    format!("{} == {}", has_none("a"), has_none("b"))
}

const NAMED_ALIKE: &str = "a.group == b.group && a.kind == b.kind && a.name == b.name";

/// The parents of a route: each once, and a part of one is named where there are several of it.
pub(super) fn parents() -> Shape {
    let alike = format!("{NAMED_ALIKE} && {}", same("__namespace__", "''"));
    let named = [
        both_or_neither("sectionName", "''"),
        both_or_neither("port", "0"),
    ];
    let equal = [same("sectionName", "''"), same("port", "0")];
    list(parent())
        .at_most(32)
        .rule(
            format!("self.all(a, self.all(b, !({alike}) || ({})))", named.join(" && ")),
            "sectionName or port must be specified when parentRefs includes 2 or more references to the same parent",
        )
        .rule(
            format!("self.all(a, self.exists_one(b, {alike} && {}))", equal.join(" && ")),
            "sectionName or port must be unique when parentRefs includes 2 or more references to the same parent",
        )
}

/// What a policy is about: each once, and a part of one is named where there are several of it.
pub(super) fn policy_targets() -> Shape {
    let mut fields = local_object();
    fields.push(("sectionName", section()));
    let (named, equal) = (
        both_or_neither("sectionName", "''"),
        same("sectionName", "''"),
    );
    list(object(fields))
        .length(1, 16)
        .rule(
            format!("self.all(a, self.all(b, !({NAMED_ALIKE}) || {named}))"),
            "sectionName must be specified when targetRefs includes 2 or more references to the same target",
        )
        .rule(
            format!("self.all(a, self.exists_one(b, {NAMED_ALIKE} && {equal}))"),
            "sectionName must be unique when targetRefs includes 2 or more references to the same target",
        )
}

/// A Service, or whatever else takes requests.
pub(super) fn backend(more: Fields) -> Shape {
    let mut fields = object_of("", "Service");
    fields.push(("port", port()));
    fields.extend(more);
    object(fields).rule(
        "size(self.group) > 0 || self.kind != 'Service' || has(self.port)",
        "Must have port for Service reference",
    )
}

/// One of several backends, and its share.
pub(super) fn weighted_backend(more: Fields) -> Shape {
    let mut fields = vec![("weight", number().between(0, 1_000_000).or(1))];
    fields.extend(more);
    backend(fields)
}

/// That rules of a route that have names have each its own.
pub(super) fn with_unique_names(rules: Shape) -> Shape {
    rules.rule(
        "self.all(a, !has(a.name) || self.exists_one(b, has(b.name) && a.name == b.name))",
        "Rule name must be unique within the route",
    )
}

// === What is told ===

fn condition() -> Shape {
    let prefix = format!(r"({}/)?", labels_with_dots());
    let kind = format!(r"^{prefix}(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$");
    object([
        ("type!", text().at_most(316).pattern(&kind)),
        ("status!", one_of(&["True", "False", "Unknown"])),
        ("observedGeneration", integer().format("int64").at_least(0)),
        ("lastTransitionTime!", text().format("date-time")),
        (
            "reason!",
            text()
                .length(1, 1024)
                .pattern("^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"),
        ),
        ("message!", text().at_most(32_768)),
    ])
}

pub(super) fn conditions() -> Shape {
    keyed("type", condition()).at_most(8)
}

/// What is told of an object that no controller has looked at.
pub(super) fn nobody_looked(kinds: &[&str]) -> Value {
    let of = |kind: &&str| {
        json!({
            "type": kind, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        })
    };
    kinds.iter().map(of).collect()
}

/// A status that says, until a controller says more, that these conditions are not known.
pub(super) fn pending_status(kinds: &[&str], more: Fields) -> Shape {
    let pending = nobody_looked(kinds);
    let mut fields = vec![("conditions", conditions().or(pending.clone()))];
    fields.extend(more);
    object(fields).or(json!({ "conditions": pending }))
}

/// What each controller says of an object with regard to each `about`.
pub(super) fn told_by_controllers(
    list_name: &'static str,
    about: &'static str,
    most: u64,
) -> Shape {
    let one = object([
        (about, parent()),
        ("controllerName!", controller_name()),
        ("conditions!", conditions().length(1, 8)),
    ]);
    object([(list_name, list(one).at_most(most))])
}

pub(super) fn route_status() -> Shape {
    told_by_controllers("parents!", "parentRef!", 32)
}

/// A whole object.
pub(super) fn root(words: &str, spec: Shape, status: Option<Shape>) -> Shape {
    let metadata = [
        ("apiVersion", text()),
        ("kind", text()),
        ("metadata", object([])),
    ];
    let status = status.map(|status| ("status", status));
    let fields = metadata.into_iter().chain([("spec!", spec)]).chain(status);
    object(fields).described(words)
}
