//! `apiregistration.k8s.io`: APIServices, which say who serves each version of each group, and in which order clients are told of them.
//!
//! One without a Service stands for what this server serves itself ([`own`] makes those); one with a Service has the requests for its version passed
//! on. Whether that can be done tells its condition `Available`: what Service and endpoints say about it is [`unavailable`], what the server
//! behind them answers is found out elsewhere.
//!
//! Invariant: pure; one without a Service is available from its creation on.
//! Left to others: passing requests on, asking the servers (`weft_apiserver::aggregation`).
//!
//! Source: k8s.io/kube-aggregator `pkg/apis/apiregistration`, `pkg/controllers/{status,autoregister}`; kube-apiserver's priorities.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use weft_api::name;

use crate::apiextensions::by_maturity;
use crate::apiextensions::status::Condition;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, items, member, object, text};
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, NameRule, Registry, Subresource};

pub static API_SERVICE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        categories: vec!["api-extensions".into()],
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text(
                "Service",
                service,
                "The reference to the service that hosts this API endpoint.",
            ),
            Column::text("Available", available, "Whether this service is available."),
            Column::age(),
        ],
        name_rule: NameRule::PathSegment,
        strategy: Arc::new(ApiServices),
        ..Kind::new(GROUP, "v1", "APIService", "apiservices")
    })
});

/// The group that no APIService stands for: who serves it is asked what all others are.
pub const GROUP: &str = "apiregistration.k8s.io";
/// The port of a Service that names none.
const PORT: u16 = 443;
/// Tells the APIServices that are made by the server itself.
pub const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// They are put right once, when a server begins to lead.
pub const ON_START: &str = "onstart";
/// They come and go with what they stand for.
pub const ALWAYS: &str = "true";
/// Priorities of groups that users define: behind Kubernetes' own.
const OF_DEFINITIONS: Priority = Priority {
    group: 1000,
    version: 100,
};
/// What stands before all that an APIService can ask for.
const OF_GROUP: Priority = Priority {
    group: 20001,
    version: 0,
};
const AVAILABLE: &str = "Available";
/// The reason of one whose server does not answer as it should.
pub const FAILED_CHECK: &str = "FailedDiscoveryCheck";

/// Where a version of a group stands among the others: the higher, the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    pub group: i64,
    pub version: i64,
}

/// The priorities that kube-apiserver gives what it serves, and those of what is served here besides: usage has what its add-on asks for.
const PRIORITIES: &[(&str, &str, i64, i64)] = &[
    ("", "v1", 18000, 1),
    ("apps", "v1", 17800, 15),
    ("events.k8s.io", "v1", 17750, 15),
    ("authentication.k8s.io", "v1", 17700, 15),
    ("authorization.k8s.io", "v1", 17600, 15),
    ("autoscaling", "v2", 17500, 30),
    ("autoscaling", "v1", 17500, 15),
    ("batch", "v1", 17400, 15),
    ("certificates.k8s.io", "v1", 17300, 15),
    ("certificates.k8s.io", "v1beta1", 17300, 9),
    ("networking.k8s.io", "v1", 17200, 15),
    ("networking.k8s.io", "v1beta1", 17200, 9),
    ("policy", "v1", 17100, 15),
    ("rbac.authorization.k8s.io", "v1", 17000, 15),
    ("storage.k8s.io", "v1", 16800, 15),
    ("storage.k8s.io", "v1beta1", 16800, 9),
    ("apiextensions.k8s.io", "v1", 16700, 15),
    ("admissionregistration.k8s.io", "v1", 16700, 15),
    ("admissionregistration.k8s.io", "v1beta1", 16700, 12),
    ("scheduling.k8s.io", "v1", 16600, 15),
    ("coordination.k8s.io", "v1", 16500, 15),
    ("coordination.k8s.io", "v1beta1", 16500, 13),
    ("node.k8s.io", "v1", 16300, 15),
    ("discovery.k8s.io", "v1", 16200, 15),
    ("resource.k8s.io", "v1", 16200, 21),
    ("resource.k8s.io", "v1beta2", 16200, 15),
    ("resource.k8s.io", "v1beta1", 16200, 9),
    ("flowcontrol.apiserver.k8s.io", "v1", 16100, 21),
    ("storagemigration.k8s.io", "v1", 15800, 15),
    ("storagemigration.k8s.io", "v1beta1", 15800, 9),
    ("mesh.weft.dev", "v1", 1000, 100),
    ("metrics.k8s.io", "v1beta1", 100, 100),
    ("custom.metrics.k8s.io", "v1beta2", 100, 200),
];

impl Priority {
    /// Of a version that this server serves itself, where no object says otherwise.
    pub fn own(group: &str, version: &str) -> Self {
        if group == GROUP {
            return OF_GROUP;
        }
        let known = PRIORITIES
            .iter()
            .find(|(known, of, ..)| *known == group && *of == version);
        known.map_or(OF_DEFINITIONS, |(.., group, version)| Self {
            group: *group,
            version: *version,
        })
    }
}

/// A version of a group, with whatever is known of it.
pub struct Version<T> {
    pub group: String,
    pub version: String,
    pub priority: Priority,
    pub what: T,
}

/// The versions of groups as clients are told of them: groups by the highest priority that one of their versions gives them, then by name;
/// versions by theirs, then the most mature first.
pub fn in_order<T>(all: Vec<Version<T>>) -> Vec<(String, Vec<Version<T>>)> {
    let mut groups: BTreeMap<String, Vec<Version<T>>> = BTreeMap::new();
    for version in all {
        let versions = groups.entry(version.group.clone());
        versions.or_default().push(version);
    }
    for versions in groups.values_mut() {
        versions.sort_by(|one, other| {
            let by_priority = other.priority.version.cmp(&one.priority.version);
            by_priority.then_with(|| by_maturity(&one.version, &other.version))
        });
    }
    let mut groups: Vec<(String, Vec<Version<T>>)> = groups.into_iter().collect();
    // Stable: groups of one priority stay in the order of their names.
    groups.sort_by_key(|(_, versions)| {
        let highest = versions.iter().map(|version| version.priority.group).max();
        std::cmp::Reverse(highest)
    });
    groups
}

/// The APIServices of what a registry serves, as the server makes them.
pub fn own(registry: &Registry) -> Vec<Value> {
    let core = [("", vec!["v1"])].into_iter();
    let groups = core.chain(registry.groups());
    let groups = groups.filter(|(group, _)| *group != GROUP);
    let versions = groups.flat_map(|(group, versions)| {
        let versions = versions.into_iter();
        versions.map(move |version| (group, version))
    });
    let objects = versions.map(|(group, version)| {
        let defined = registry
            .of_version(group, version)
            .any(|kind| kind.custom.is_some());
        let priority = Priority::own(group, version);
        let mut spec = json!({
            "version": version,
            "groupPriorityMinimum": priority.group,
            "versionPriority": priority.version,
        });
        if !group.is_empty() {
            spec["group"] = group.into();
        }
        json!({
            "apiVersion": API_SERVICE.api_version(), "kind": API_SERVICE.kind,
            "metadata": {
                "name": format!("{version}.{group}"),
                "labels": {AUTOMANAGED: if defined { ALWAYS } else { ON_START }},
            },
            "spec": spec,
        })
    });
    objects.collect()
}

/// How the server treats an APIService that it makes or made: by its label, and by that of what should be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tended {
    /// It is well, or somebody else's.
    Left,
    Made,
    Changed,
    Removed,
}

/// What becomes of an APIService. `starts` says that whoever asks has just begun to lead: what is put right on start only is, then.
pub fn tended(present: Option<&Value>, wanted: Option<&Value>, starts: bool) -> Tended {
    let label = |object: Option<&Value>| {
        let labels = object.and_then(|object| object.pointer("/metadata/labels"));
        let label = labels.and_then(|labels| labels.get(AUTOMANAGED));
        label.and_then(Value::as_str).map(str::to_owned)
    };
    let (is, should) = (label(present), label(wanted));
    let once = |label: &Option<String>| label.as_deref() == Some(ON_START) && !starts;
    match (present, wanted) {
        (None, None) => Tended::Left,
        (None, Some(_)) if once(&should) => Tended::Left,
        (None, Some(_)) => Tended::Made,
        (Some(_), _) if !matches!(is.as_deref(), Some(ON_START | ALWAYS)) => Tended::Left,
        (Some(_), _) if once(&is) || once(&should) => Tended::Left,
        (Some(_), None) => Tended::Removed,
        (Some(present), Some(wanted)) if present.get("spec") == wanted.get("spec") => Tended::Left,
        (Some(_), Some(_)) => Tended::Changed,
    }
}

/// Why Service and endpoints keep an APIService from being available: its next condition. None where its server can be asked.
pub fn unavailable(
    api_service: &Value,
    service: Option<&Value>,
    slices: &[Value],
) -> Option<Condition> {
    let (namespace, name, port) = reference(api_service)?;
    let not = |reason: &'static str, message: String| {
        Some(Condition {
            kind: AVAILABLE,
            status: "False",
            reason,
            message,
        })
    };
    let Some(service) = service else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return not("ServiceNotFound", message);
    };
    if text(service, "/spec/type") != "ClusterIP" {
        return None;
    }
    let mut ports = items(service, "/spec/ports").iter();
    let Some(known) = ports.find(|known| known["port"] == port) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {port}");
        return not("ServicePortError", message);
    };
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return not("EndpointsNotFound", message);
    }
    let port = text(known, "/name");
    let leads = |slice: &&Value| {
        let mut endpoints = items(slice, "/endpoints").iter();
        let mut ports = items(slice, "/ports").iter();
        endpoints.any(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)))
            && ports.any(|known| text(known, "/name") == port && known["port"].is_u64())
    };
    if !slices.iter().any(|slice| leads(&slice)) {
        let message = format!(
            "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port:?}"
        );
        return not("MissingEndpoints", message);
    }
    None
}

/// The condition after its server was asked, or could not be.
pub fn asked(outcome: Result<(), String>) -> Condition {
    let (status, reason, message) = match outcome {
        Ok(()) => ("True", "Passed", "all checks passed".to_owned()),
        Err(why) => ("False", FAILED_CHECK, why),
    };
    Condition {
        kind: AVAILABLE,
        status,
        reason,
        message,
    }
}

/// The condition of one that this server serves itself.
pub fn local() -> Condition {
    Condition {
        kind: AVAILABLE,
        status: "True",
        reason: "Local",
        message: "Local APIServices are always available".to_owned(),
    }
}

/// Namespace, name and port of the Service that serves it; none of one that this server serves.
pub fn reference(api_service: &Value) -> Option<(&str, &str, u16)> {
    object(api_service, "/spec/service")?;
    let port = api_service.pointer("/spec/service/port");
    let port = port.and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok());
    Some((
        text(api_service, "/spec/service/namespace"),
        text(api_service, "/spec/service/name"),
        port.unwrap_or(PORT),
    ))
}

struct ApiServices;

impl Strategy for ApiServices {
    fn default(&self, value: &mut Value) {
        if object(value, "/spec/service").is_some() {
            fill(member(member(value, "spec"), "service"), "port", PORT);
            return;
        }
        let since = text(value, "/metadata/creationTimestamp").to_owned();
        if !since.is_empty() && items(value, "/status/conditions").is_empty() {
            local().set(value, &since);
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let (spec, own_name) = (root.child("spec"), root.child("metadata.name"));
        let (group, version) = (spec.child("group"), spec.child("version"));
        let wanted = format!("{}.{}", version.text(), group.text());
        if own_name.text() != wanted && name::path_segment(own_name.text()).is_ok() {
            let sentence = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            problems.invalid(&own_name, own_name.text(), &sentence);
        }
        if group.text().is_empty() {
            if version.text() != "v1" {
                let sentence = "only v1 may have an empty group and it better be legacy kube";
                problems.required(&group, sentence);
            }
        } else {
            problems.rule(&group, name::dns1123_subdomain_faults);
        }
        for fault in name::dns1035_label_faults(version.text()) {
            problems.invalid(&version, version.text(), &fault);
        }
        for (field, most) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
            let field = spec.child(field);
            let priority = field.integer().unwrap_or(0);
            if !(1..=most).contains(&priority) {
                let sentence = format!("must be positive and less than {most}");
                problems.invalid(&field, priority, &sentence);
            }
        }
        let (service, bundle) = (spec.child("service"), spec.child("caBundle"));
        let insecure = spec.child("insecureSkipTLSVerify");
        // Compared with what it decodes to, which is what Kubernetes counts.
        let bytes = STANDARD.decode(bundle.text()).unwrap_or_default().len();
        if service.map().is_none() {
            if bytes > 0 {
                let sentence = "local APIServices may not have a caBundle";
                problems.invalid(&bundle, format!("{bytes} bytes"), sentence);
            }
            if insecure.flag() {
                let sentence = "local APIServices may not have insecureSkipTLSVerify";
                problems.invalid(&insecure, true, sentence);
            }
            return;
        }
        for field in ["namespace", "name"] {
            let field = service.child(field);
            if field.text().is_empty() {
                problems.required(&field, "");
            }
        }
        let port = service.child("port");
        let number = port.integer().unwrap_or(0);
        if !(1..=65535).contains(&number) {
            let sentence = "port is not valid: must be between 1 and 65535, inclusive";
            problems.invalid(&port, number, sentence);
        }
        if insecure.flag() && bytes > 0 {
            let sentence = "may not be true if caBundle is present";
            problems.invalid(&insecure, true, sentence);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        _: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        if part.is_none() {
            return self.validate(new, problems);
        }
        let root = Field::root(new);
        let status = root.child("status");
        for condition in status.items("conditions") {
            let known = ["True", "False", "Unknown"];
            let field = condition.child("status");
            problems.one_of_as(&field, field.text(), &known);
        }
    }
}

fn service(row: &Row<'_>) -> Value {
    match reference(row.object) {
        Some((namespace, name, _)) => format!("{namespace}/{name}").into(),
        None => "Local".into(),
    }
}

fn available(row: &Row<'_>) -> Value {
    let mut conditions = items(row.object, "/status/conditions").iter();
    let Some(found) = conditions.find(|condition| text(condition, "/type") == AVAILABLE) else {
        return "Unknown".into();
    };
    match (text(found, "/status"), text(found, "/reason")) {
        ("True", _) => "True".into(),
        (status, "") => status.into(),
        (status, reason) => format!("{status} ({reason})").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::cells;
    use crate::validate::told;

    fn served() -> Value {
        json!({
            "metadata": {"name": "v1.wardle.example.com", "creationTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {
                "group": "wardle.example.com", "version": "v1", "groupPriorityMinimum": 2000, "versionPriority": 200,
                "service": {"namespace": "shop", "name": "api", "port": 443},
            },
        })
    }

    #[test]
    fn an_api_service_is_sound() {
        told::check(
            &API_SERVICE,
            &served(),
            &[
                (
                    "/metadata/name",
                    json!("wardle"),
                    &[
                        "metadata.name: Invalid value: \"wardle\": must be `spec.version+\".\"+spec.group`: \"v1.wardle.example.com\"",
                    ],
                ),
                (
                    "/spec/group",
                    json!(""),
                    &[
                        "metadata.name: Invalid value: \"v1.wardle.example.com\": must be `spec.version+\".\"+spec.group`: \"v1.\"",
                    ],
                ),
                (
                    "/spec/groupPriorityMinimum",
                    json!(20001),
                    &[
                        "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
                    ],
                ),
                (
                    "/spec/versionPriority",
                    json!(0),
                    &[
                        "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
                    ],
                ),
                (
                    "/spec/service",
                    json!({"port": 0}),
                    &[
                        "spec.service.namespace: Required value",
                        "spec.service.name: Required value",
                        "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                    ],
                ),
            ],
        );
        let mut both = served();
        both["spec"]["caBundle"] = "AAAA".into();
        both["spec"]["insecureSkipTLSVerify"] = true.into();
        assert_eq!(
            told::of_new(&API_SERVICE, &both),
            [
                "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"
            ]
        );
        both["spec"]["service"] = Value::Null;
        assert_eq!(
            told::of_new(&API_SERVICE, &both),
            [
                "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ]
        );
        let mut legacy = served();
        legacy["metadata"]["name"] = "v2.".into();
        legacy["spec"]["group"] = "".into();
        legacy["spec"]["version"] = "v2".into();
        assert_eq!(
            told::of_new(&API_SERVICE, &legacy),
            [
                "spec.group: Required value: only v1 may have an empty group and it better be legacy kube"
            ]
        );
        let mut status = served();
        status["status"] = json!({"conditions": [{"type": "Available", "status": "Maybe"}]});
        assert_eq!(
            told::of_update(&API_SERVICE, &status, &served(), Some(Subresource::Status)),
            [
                "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"True\", \"False\", \"Unknown\""
            ]
        );
    }

    #[test]
    fn one_that_is_served_here_is_available_from_the_beginning() {
        let mut own = served();
        own["spec"]["service"] = Value::Null;
        ApiServices.default(&mut own);
        assert_eq!(
            own["status"]["conditions"],
            json!([{
                "type": "Available", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z",
                "reason": "Local", "message": "Local APIServices are always available",
            }])
        );
        let mut other = served();
        other["spec"]["service"] = json!({"namespace": "shop", "name": "api"});
        ApiServices.default(&mut other);
        assert_eq!(
            (&other["spec"]["service"]["port"], other.get("status")),
            (&json!(443), None)
        );
        let row = |object: &Value| cells(&API_SERVICE, object)[1..3].to_vec();
        assert_eq!(row(&own), [json!("Local"), json!("True")]);
        assert_eq!(row(&other), [json!("shop/api"), json!("Unknown")]);
        unavailable(&other, None, &[])
            .unwrap()
            .set(&mut other, "now");
        assert_eq!(
            row(&other),
            [json!("shop/api"), json!("False (ServiceNotFound)")]
        );
    }

    #[test]
    fn what_keeps_a_server_from_being_asked_is_told() {
        let service = |port: u16| json!({"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": port}]}});
        let slice = |name: &str, ready: bool| json!({"ports": [{"name": name, "port": 8443}], "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]});
        let external = json!({"spec": {"type": "ExternalName", "externalName": "a.example"}});
        for (service, slices, told) in [
            (
                None,
                vec![],
                "ServiceNotFound: service/api in \"shop\" is not present",
            ),
            (
                Some(service(80)),
                vec![],
                "ServicePortError: service/api in \"shop\" is not listening on port 443",
            ),
            (
                Some(service(443)),
                vec![],
                "EndpointsNotFound: cannot find endpointslices for service/api in \"shop\"",
            ),
            (
                Some(service(443)),
                vec![slice("https", false)],
                "MissingEndpoints: endpointslices for service/api in \"shop\" have no addresses with port name \"https\"",
            ),
            (
                Some(service(443)),
                vec![slice("http", true)],
                "MissingEndpoints: endpointslices for service/api in \"shop\" have no addresses with port name \"https\"",
            ),
            (Some(service(443)), vec![slice("https", true)], ""),
            (Some(external), vec![], ""),
        ] {
            let found = unavailable(&served(), service.as_ref(), &slices);
            let found =
                found.map(|condition| format!("{}: {}", condition.reason, condition.message));
            assert_eq!(found.unwrap_or_default(), told);
        }
    }

    #[test]
    fn what_the_server_serves_has_an_api_service_each() {
        let all = own(&Registry::builtin());
        let lines: Vec<String> = all
            .iter()
            .map(|object| {
                assert_eq!(told::of_new(&API_SERVICE, object), [""; 0]);
                let spec = &object["spec"];
                format!(
                    "{} {}/{}",
                    text(object, "/metadata/name"),
                    spec["groupPriorityMinimum"],
                    spec["versionPriority"]
                )
            })
            .collect();
        for line in [
            "v1. 18000/1",
            "v2.autoscaling 17500/30",
            "v1beta1.metrics.k8s.io 100/100",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line}: {lines:?}");
        }
        assert!(!lines.iter().any(|line| line.contains(GROUP)), "{lines:?}");
    }

    #[test]
    fn groups_are_told_by_priority_and_versions_by_theirs() {
        let entry = |group: &str, version: &str, of_group: i64, of_version: i64| Version {
            group: group.to_owned(),
            version: version.to_owned(),
            priority: Priority {
                group: of_group,
                version: of_version,
            },
            what: (),
        };
        let ordered = in_order(vec![
            entry("b", "v1", 1000, 100),
            entry("a", "v1beta1", 1000, 100),
            entry("a", "v1", 1000, 100),
            entry("c", "v1", 100, 5),
            entry("c", "v2", 2000, 1),
        ]);
        let told: Vec<String> = ordered
            .iter()
            .map(|(group, versions)| {
                let versions = versions.iter().map(|version| version.version.as_str());
                let versions: Vec<&str> = versions.collect();
                format!("{group} {}", versions.join(","))
            })
            .collect();
        assert_eq!(told, ["c v1,v2", "a v1,v1beta1", "b v1"]);
    }

    #[test]
    fn what_the_server_made_is_its_own_and_what_users_took_is_theirs() {
        let labelled = |label: &str, priority: i64| json!({"metadata": {"labels": {AUTOMANAGED: label}}, "spec": {"versionPriority": priority}});
        let (once, always) = (labelled(ON_START, 1), labelled(ALWAYS, 1));
        let taken = json!({"metadata": {}, "spec": {"versionPriority": 9}});
        for (present, wanted, starts, expected) in [
            (None, Some(&once), true, Tended::Made),
            (None, Some(&once), false, Tended::Left),
            (None, Some(&always), false, Tended::Made),
            (Some(&taken), Some(&always), true, Tended::Left),
            (
                Some(&labelled(ALWAYS, 9)),
                Some(&always),
                false,
                Tended::Changed,
            ),
            (
                Some(&labelled(ON_START, 9)),
                Some(&once),
                false,
                Tended::Left,
            ),
            (
                Some(&labelled(ON_START, 9)),
                Some(&once),
                true,
                Tended::Changed,
            ),
            (Some(&always), Some(&always), true, Tended::Left),
            (Some(&always), None, false, Tended::Removed),
            (Some(&once), None, false, Tended::Left),
            (Some(&once), None, true, Tended::Removed),
        ] {
            assert_eq!(
                tended(present, wanted, starts),
                expected,
                "{present:?} {wanted:?} {starts}"
            );
        }
    }
}
