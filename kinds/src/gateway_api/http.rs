//! HTTPRoute and GRPCRoute: which requests, what is changed of them, and where they go.

use serde_json::{Value, json};

use super::parts::{
    PATH, backend, default_gateways, header_name, header_value, hosts, local_object, parents, port,
    precise_host, root, route_status, section, span, weighted_backend, with_unique_names,
};
use super::shape::{Fields, Shape, flag, integer, keyed, list, number, object, one_of, set, text};

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
/// Rules of a route, and matches of all of them.
const RULES_MAX: u64 = 16;
const MATCHES_TOLD: &str = "While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be less than 128";

pub(super) fn http_route() -> Shape {
    let every_path = json!([{ "path": { "type": "PathPrefix", "value": "/" } }]);
    let rules = list(http_rule(&every_path))
        .length(1, RULES_MAX)
        .or(json!([{ "matches": every_path }]))
        .rule("self.map(r, size(r.matches)).sum() <= 128", MATCHES_TOLD);
    root(
        "How requests of HTTP that come to some hosts are answered.",
        route_spec(with_unique_names(rules)),
        Some(route_status()),
    )
}

pub(super) fn grpc_route() -> Shape {
    let rules = list(grpc_rule()).at_most(RULES_MAX).rule(
        "self.map(r, has(r.matches) ? size(r.matches) : 0).sum() <= 128",
        MATCHES_TOLD,
    );
    root(
        "How calls of gRPC that come to some hosts are answered.",
        route_spec(with_unique_names(rules)),
        Some(route_status()),
    )
}

fn route_spec(rules: Shape) -> Shape {
    object([
        ("parentRefs", parents()),
        ("useDefaultGateways", default_gateways()),
        ("hostnames", hosts()),
        ("rules", rules),
    ])
}

// === Rules of HTTP ===

fn http_rule(every_path: &Value) -> Shape {
    let rule = object([
        ("name", section()),
        (
            "matches",
            list(http_match()).at_most(64).or(every_path.clone()),
        ),
        ("filters", http_filters()),
        (
            "backendRefs",
            list(weighted_backend(vec![("filters", http_filters())])).at_most(16),
        ),
        ("timeouts", timeouts()),
        ("retry", retry()),
        ("sessionPersistence", session_persistence()),
    ]);
    let rule = rule.rule(
        "!has(self.backendRefs) || size(self.backendRefs) == 0 || !has(self.filters) || !self.filters.exists(f, has(f.requestRedirect))",
        "RequestRedirect filter must not be used together with backendRefs",
    );
    // A prefix can be replaced only where there is just one.
    let one_prefix = "size(self.matches) == 1 && has(self.matches[0].path) && self.matches[0].path.type == 'PathPrefix'";
    let replaces = |of: &str, filter: &str| {
        format!(
            "has({of}.filters) && {of}.filters.exists_one(f, has(f.{filter}) && has(f.{filter}.path) && f.{filter}.path.type == 'ReplacePrefixMatch' && has(f.{filter}.path.replacePrefixMatch))"
        )
    };
    let told = |begin: &str, filter: &str| {
        format!(
            "{begin} using {filter} filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified"
        )
    };
    let of_rule = |rule: Shape, member: &str, filter: &str| {
        let replaces = replaces("self", member);
        rule.rule(
            format!("!({replaces}) || ({one_prefix})"),
            told("When", filter),
        )
    };
    let of_backend = |rule: Shape, member: &str, filter: &str, begin: &str| {
        let replaces = replaces("b", member);
        rule.rule(
            format!(
                "!has(self.backendRefs) || !self.backendRefs.exists_one(b, {replaces}) || ({one_prefix})"
            ),
            told(begin, filter),
        )
    };
    let rule = of_rule(rule, "requestRedirect", "RequestRedirect");
    let rule = of_rule(rule, "urlRewrite", "URLRewrite");
    let rule = of_backend(
        rule,
        "requestRedirect",
        "RequestRedirect",
        "Within backendRefs, when",
    );
    of_backend(rule, "urlRewrite", "URLRewrite", "Within backendRefs, When")
}

fn exact_or_expression() -> Shape {
    one_of(&["Exact", "RegularExpression"]).or("Exact")
}

fn http_match() -> Shape {
    let header = object([
        ("type", exact_or_expression()),
        ("name!", header_name()),
        ("value!", header_value()),
    ]);
    let parameter = object([
        ("type", exact_or_expression()),
        ("name!", header_name()),
        ("value!", text().length(1, 1024)),
    ]);
    object([
        ("path", path_match()),
        ("headers", keyed("name", header).at_most(16)),
        ("queryParams", keyed("name", parameter).at_most(16)),
        ("method", one_of(&METHODS)),
    ])
}

fn path_match() -> Shape {
    const PLAIN: &str = "['Exact', 'PathPrefix']";
    let shape = object([
        (
            "type",
            one_of(&["Exact", "PathPrefix", "RegularExpression"]).or("PathPrefix"),
        ),
        ("value", text().at_most(1024).or("/")),
    ])
    .or(json!({ "type": "PathPrefix", "value": "/" }))
    .rule(
        format!("!(self.type in {PLAIN}) || self.value.startsWith('/')"),
        format!("value must be an absolute path and start with '/' when type one of {PLAIN}"),
    );
    let without = |shape: Shape, call: &str, word: &str, part: &str| {
        shape.rule(
            format!("!(self.type in {PLAIN}) || !self.value.{call}('{part}')"),
            format!("must not {word} '{part}' when type one of {PLAIN}"),
        )
    };
    let shape = ["//", "/./", "/../", "%2f", "%2F", "#"]
        .iter()
        .fold(shape, |shape, part| {
            without(shape, "contains", "contain", part)
        });
    let shape = ["/..", "/."].iter().fold(shape, |shape, part| {
        without(shape, "endsWith", "end with", part)
    });
    shape
        .rule(
            "self.type in ['RegularExpression', 'Exact', 'PathPrefix']",
            "type must be one of ['Exact', 'PathPrefix', 'RegularExpression']",
        )
        .rule(
            format!(r#"!(self.type in {PLAIN}) || self.value.matches(r"""{PATH}""")"#),
            format!("must only contain valid characters (matching {PATH}) for types {PLAIN}"),
        )
}

fn timeouts() -> Shape {
    object([("request", span()), ("backendRequest", span())]).rule(
        "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') || duration(self.backendRequest) <= duration(self.request)",
        "backendRequest timeout cannot be longer than request timeout",
    )
}

fn retry() -> Shape {
    object([
        ("codes", set(integer().between(400, 599))),
        ("attempts", integer().at_least(1)),
        ("backoff", span()),
    ])
}

fn session_persistence() -> Shape {
    let cookie = object([(
        "lifetimeType",
        one_of(&["Permanent", "Session"]).or("Session"),
    )]);
    object([
        ("sessionName", text().at_most(128)),
        ("absoluteTimeout", span()),
        ("type", one_of(&["Cookie", "Header"]).or("Cookie")),
        ("cookieConfig", cookie),
    ])
    .rule(
        "has(self.absoluteTimeout) || !has(self.cookieConfig) || !has(self.cookieConfig.lifetimeType) || self.cookieConfig.lifetimeType != 'Permanent'",
        "AbsoluteTimeout must be specified when cookie lifetimeType is Permanent",
    )
    .rule(
        "self.type == 'Cookie' || !has(self.cookieConfig)",
        "cookieConfig can only be set with type Cookie",
    )
}

// === Filters ===

/// One of several members, the one that `type` names: each with the name of its type, in the order in which their rules are told.
fn filter(types: &[&str], members: Vec<(&'static str, &str, Shape)>) -> Shape {
    let mut fields: Fields = vec![("type!", one_of(types))];
    let mut rules = Vec::new();
    for (member, name, shape) in members {
        rules.push((
            format!("!has(self.{member}) || self.type == '{name}'"),
            format!("filter.{member} must be nil if the filter.type is not {name}"),
        ));
        rules.push((
            format!("has(self.{member}) || self.type != '{name}'"),
            format!("filter.{member} must be specified for {name} filter.type"),
        ));
        fields.push((member, shape));
    }
    rules
        .into_iter()
        .fold(object(fields), |shape, (rule, message)| {
            shape.rule(rule, message)
        })
}

/// Filters, of which those of some types may be there once.
fn each_once(filters: Shape, types: &[&str]) -> Shape {
    types.iter().fold(filters, |filters, name| {
        filters.rule(
            format!("size(self.filter(f, f.type == '{name}')) < 2"),
            format!("{name} filter cannot be repeated"),
        )
    })
}

fn http_filters() -> Shape {
    let members = vec![
        ("cors", "CORS", cors()),
        (
            "requestHeaderModifier",
            "RequestHeaderModifier",
            header_changes(),
        ),
        (
            "responseHeaderModifier",
            "ResponseHeaderModifier",
            header_changes(),
        ),
        ("requestMirror", "RequestMirror", mirror()),
        ("requestRedirect", "RequestRedirect", redirect()),
        ("urlRewrite", "URLRewrite", rewrite()),
        ("extensionRef", "ExtensionRef", object(local_object())),
        ("externalAuth", "ExternalAuth", external_auth()),
    ];
    let types = [
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
        "CORS",
        "ExternalAuth",
    ];
    let filters = list(filter(&types, members)).at_most(16).rule(
        "!self.exists(f, f.type == 'URLRewrite') || !self.exists(f, f.type == 'RequestRedirect')",
        "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both",
    );
    let once = [
        "CORS",
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestRedirect",
        "URLRewrite",
    ];
    each_once(filters, &once)
}

fn grpc_filters() -> Shape {
    let members = vec![
        (
            "requestHeaderModifier",
            "RequestHeaderModifier",
            header_changes(),
        ),
        (
            "responseHeaderModifier",
            "ResponseHeaderModifier",
            header_changes(),
        ),
        ("requestMirror", "RequestMirror", mirror()),
        ("extensionRef", "ExtensionRef", object(local_object())),
    ];
    let types = [
        "ResponseHeaderModifier",
        "RequestHeaderModifier",
        "RequestMirror",
        "ExtensionRef",
    ];
    let once = ["RequestHeaderModifier", "ResponseHeaderModifier"];
    each_once(list(filter(&types, members)).at_most(16), &once)
}

fn header_changes() -> Shape {
    let header = || object([("name!", header_name()), ("value!", header_value())]);
    object([
        ("set", keyed("name", header()).at_most(16)),
        ("add", keyed("name", header()).at_most(16)),
        ("remove", set(text()).at_most(16)),
    ])
}

fn mirror() -> Shape {
    let fraction = object([
        ("numerator!", number().at_least(0)),
        ("denominator", number().at_least(1).or(100)),
    ])
    .rule(
        "self.denominator >= self.numerator",
        "numerator must be less than or equal to denominator",
    );
    object([
        ("backendRef!", backend(Vec::new())),
        ("percent", number().between(0, 100)),
        ("fraction", fraction),
    ])
    .rule(
        "!has(self.percent) || !has(self.fraction)",
        "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter",
    )
}

fn path_change() -> Shape {
    let members = [
        ("replaceFullPath", "ReplaceFullPath"),
        ("replacePrefixMatch", "ReplacePrefixMatch"),
    ];
    let shape = object([
        ("type!", one_of(&members.map(|(_, name)| name))),
        ("replaceFullPath", text().at_most(1024)),
        ("replacePrefixMatch", text().at_most(1024)),
    ]);
    members.iter().fold(shape, |shape, (member, name)| {
        let shape = shape.rule(
            format!("self.type != '{name}' || has(self.{member})"),
            format!("{member} must be specified when type is set to '{name}'"),
        );
        shape.rule(
            format!("self.type == '{name}' || !has(self.{member})"),
            format!("type must be '{name}' when {member} is set"),
        )
    })
}

fn redirect() -> Shape {
    let codes = json!([301, 302, 303, 307, 308]);
    object([
        ("scheme", one_of(&["http", "https"])),
        ("hostname", precise_host()),
        ("path", path_change()),
        ("port", port()),
        ("statusCode", integer().with("enum", codes).or(302)),
    ])
}

fn rewrite() -> Shape {
    object([("hostname", precise_host()), ("path", path_change())])
}

fn cors() -> Shape {
    let alone = |list: Shape, field: &str, others: &str| {
        list.rule(
            "size(self) < 2 || !('*' in self)",
            format!("{field} cannot contain '*' alongside other {others}"),
        )
    };
    let origin =
        r"(^\*$)|(^(http(s)?):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)";
    let origins = set(text().length(1, 253).pattern(origin)).at_most(64);
    let mut methods = METHODS.to_vec();
    methods.push("*");
    let methods = set(one_of(&methods)).at_most(9);
    let headers = || set(header_name()).at_most(64);
    object([
        ("allowOrigins", alone(origins, "AllowOrigins", "origins")),
        ("allowCredentials", flag()),
        ("allowMethods", alone(methods, "AllowMethods", "methods")),
        ("allowHeaders", alone(headers(), "AllowHeaders", "methods")),
        ("exposeHeaders", headers()),
        ("maxAge", number().at_least(1).or(5)),
    ])
}

fn external_auth() -> Shape {
    let headers = || set(text()).at_most(64);
    let members = [("grpc", "GRPC"), ("http", "HTTP")];
    let shape = object([
        ("protocol!", one_of(&["HTTP", "GRPC"])),
        ("backendRef!", backend(Vec::new())),
        ("grpc", object([("allowedHeaders", headers())])),
        (
            "http",
            object([
                ("path", text().at_most(1024).pattern(PATH)),
                ("allowedHeaders", headers()),
                ("allowedResponseHeaders", headers()),
            ]),
        ),
        ("forwardBody", object([("maxSize", integer())])),
    ]);
    members.iter().fold(shape, |shape, (member, name)| {
        let shape = shape.rule(
            format!("self.protocol != '{name}' || has(self.{member})"),
            format!("{member} must be specified when protocol is set to '{name}'"),
        );
        shape.rule(
            format!("self.protocol == '{name}' || !has(self.{member})"),
            format!("protocol must be '{name}' when {member} is set"),
        )
    })
}

// === Rules of gRPC ===

fn grpc_rule() -> Shape {
    object([
        ("name", section()),
        ("matches", list(grpc_match()).at_most(64)),
        ("filters", grpc_filters()),
        (
            "backendRefs",
            list(weighted_backend(vec![("filters", grpc_filters())])).at_most(16),
        ),
        ("sessionPersistence", session_persistence()),
    ])
}

fn grpc_match() -> Shape {
    let valid = |shape: Shape, field: &str, pattern: &str| {
        shape.rule(
            format!(
                r#"!has(self.{field}) || (has(self.type) && self.type != 'Exact') || self.{field}.matches(r"""{pattern}""")"#
            ),
            format!("{field} must only contain valid characters (matching {pattern})"),
        )
    };
    let method = object([
        ("type", exact_or_expression()),
        ("service", text().at_most(1024)),
        ("method", text().at_most(1024)),
    ])
    .rule(
        "!has(self.type) || has(self.method) || has(self.service)",
        "One or both of 'service' or 'method' must be specified",
    );
    let method = valid(
        method,
        "service",
        r"^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$",
    );
    let method = valid(method, "method", "^[A-Za-z_][A-Za-z_0-9]*$");
    let header = object([
        ("type", exact_or_expression()),
        ("name!", header_name()),
        ("value!", text().length(1, 4096)),
    ]);
    object([
        ("method", method),
        ("headers", keyed("name", header).at_most(16)),
    ])
}
