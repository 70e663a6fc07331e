//! The schemas and levels that every cluster has. Those for administrators, and for what no other schema takes up, are mandatory, and
//! their content is fixed; the others are a suggestion, which an operator changes, and keeps by an annotation that says so. They are Kubernetes', and
//! one level for the data that nodes ask for on behalf of pods.
//!
//! Pure. What becomes of one that is there ([`revised`]) is what kube-apiserver's ensurer makes of it.
//!
//! Source: k8s.io/apiserver `pkg/apis/flowcontrol/bootstrap`, kubernetes `pkg/registry/flowcontrol/ensurer`.

use serde_json::{Value, json};

use super::GROUP;
use crate::furniture::Piece;
use crate::lens::{integer, member, put, text};

/// Says whether the content follows what is suggested by the release that runs.
const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

const EVERYBODY: &[&str] = &["system:unauthenticated", "system:authenticated"];
const NODES: &[&str] = &["system:nodes"];

/// All of them, as they are made and kept: levels before the schemas that name them.
pub fn pieces() -> impl Iterator<Item = Piece> {
    let made = |mend: fn(&Value, &Value) -> Option<Value>| {
        move |object| Piece {
            mend,
            ..Piece::made_once(object)
        }
    };
    let suggested = suggested().into_iter();
    let suggested = suggested.map(made(|present, wanted| revised(present, wanted, false)));
    let mandatory = mandatory().into_iter();
    mandatory
        .map(made(|present, wanted| revised(present, wanted, true)))
        .chain(suggested)
}

/// Whether an object was made by a release that suggested it, and is by none of the names that this one has.
pub fn is_left_over(object: &Value) -> bool {
    let same = |known: &Value| {
        known["kind"] == object["kind"] && known["metadata"]["name"] == object["metadata"]["name"]
    };
    let known = mandatory().iter().any(same) || suggested().iter().any(same);
    !known && follows(object) == Some(true)
}

/// The levels, then the schemas that name them, as they are created.
pub fn mandatory() -> Vec<Value> {
    let exempt =
        json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let rest = json!({"type": "Limited", "limited": {
        "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
    }});
    vec![
        object("PriorityLevelConfiguration", "exempt", exempt),
        object("PriorityLevelConfiguration", "catch-all", rest),
        schema(
            "exempt",
            "exempt",
            1,
            "",
            everything(groups(&["system:masters"])),
        ),
        schema(
            "catch-all",
            "catch-all",
            10_000,
            "ByUser",
            everything(groups(EVERYBODY)),
        ),
    ]
}

fn suggested() -> Vec<Value> {
    let (by_user, by_namespace) = ("ByUser", "ByNamespace");
    let kube_system = || {
        vec![json!({
            "kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"},
        })]
    };
    let elects = users(&["system:kube-controller-manager", "system:kube-scheduler"]);
    let elects: Vec<Value> = elects.into_iter().chain(kube_system()).collect();
    let leases = |verbs: &[&str]| {
        json!({
            "verbs": verbs, "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
            "namespaces": ["*"],
        })
    };
    let nodes = json!({
        "verbs": ["*"], "apiGroups": [""], "resources": ["nodes", "nodes/status"],
        "clusterScope": true, "namespaces": ["*"],
    });
    let probes = json!([{
        "subjects": groups(EVERYBODY),
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    }]);
    let election = json!([{
        "subjects": elects, "resourceRules": [leases(&["get", "create", "update"])],
    }]);
    let health = json!([{"subjects": groups(NODES), "resourceRules": [nodes, leases(&["*"])]}]);
    // What nodes ask for the pods on them may not keep them from what they ask for themselves.
    let data = json!([{"subjects": groups(NODES), "resourceRules": [{
        "verbs": ["create"], "apiGroups": ["weft.dev"], "resources": ["keyvaluestores/data"],
        "namespaces": ["*"],
    }]}]);
    let controller_manager = everything(users(&["system:kube-controller-manager"]));
    let scheduler = everything(users(&["system:kube-scheduler"]));
    let accounts = everything(groups(&["system:serviceaccounts"]));
    vec![
        level("system", 30, 33, 64, 6),
        level("node-high", 40, 25, 64, 6),
        level("node-data", 40, 50, 64, 6),
        level("leader-election", 10, 0, 16, 4),
        level("workload-high", 40, 50, 128, 6),
        level("workload-low", 100, 90, 128, 6),
        level("global-default", 20, 50, 128, 6),
        schema(
            "system-nodes",
            "system",
            500,
            by_user,
            everything(groups(NODES)),
        ),
        schema("system-node-high", "node-high", 400, by_user, health),
        schema("system-node-data", "node-data", 450, by_user, data),
        schema("probes", "exempt", 2, "", probes),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            by_user,
            election,
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            controller_manager,
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            by_namespace,
            scheduler,
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            by_namespace,
            everything(kube_system()),
        ),
        schema("service-accounts", "workload-low", 9000, by_user, accounts),
        schema(
            "global-default",
            "global-default",
            9900,
            by_user,
            everything(groups(EVERYBODY)),
        ),
    ]
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    })
}

/// A level with queues: its shares, how many percent of them it lends, how many queues there are, and among how many of them a flow's
/// requests are dealt.
fn level(name: &str, shares: u32, lends: u32, queues: u32, hand: u32) -> Value {
    let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
    let spec = json!({"type": "Limited", "limited": {
        "nominalConcurrencyShares": shares, "lendablePercent": lends,
        "limitResponse": {"type": "Queue", "queuing": queuing},
    }});
    object("PriorityLevelConfiguration", name, spec)
}

/// `distinguisher` tells flows apart; empty where all are one.
fn schema(name: &str, level: &str, precedence: u32, distinguisher: &str, rules: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules,
    });
    if !distinguisher.is_empty() {
        spec["distinguisherMethod"] = json!({"type": distinguisher});
    }
    object("FlowSchema", name, spec)
}

fn groups(names: &[&str]) -> Vec<Value> {
    let subject = |name| json!({"kind": "Group", "group": {"name": name}});
    names.iter().map(subject).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    let subject = |name| json!({"kind": "User", "user": {"name": name}});
    names.iter().map(subject).collect()
}

/// All that these subjects ask for.
fn everything(subjects: Vec<Value>) -> Value {
    json!([{
        "subjects": subjects,
        "resourceRules": [{
            "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"],
        }],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }])
}

/// What an object says of whether it follows, if it says it as Go reads it.
fn follows(object: &Value) -> Option<bool> {
    let annotations = object.pointer("/metadata/annotations")?;
    match annotations.get(AUTO_UPDATE)?.as_str()? {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What one that is there should be. One that does not say whether it follows does, while nobody has changed it.
fn revised(present: &Value, wanted: &Value, is_mandatory: bool) -> Option<Value> {
    let said = follows(present);
    let unchanged = integer(present, "/metadata/generation") == Some(1);
    let follows = is_mandatory || said.unwrap_or(unchanged);
    let mut spec = wanted.get("spec").cloned();
    // How much of the server administrators have is theirs to say.
    if text(wanted, "/spec/type") == "Exempt"
        && let (Some(spec), Some(exempt)) = (&mut spec, present.pointer("/spec/exempt"))
    {
        spec["exempt"] = exempt.clone();
    }
    let mut next = present.clone();
    if follows {
        put(&mut next, "spec", spec);
    }
    if said != Some(follows) {
        let annotations = member(member(&mut next, "metadata"), "annotations");
        annotations[AUTO_UPDATE] = follows.to_string().into();
    }
    (next != *present).then_some(next)
}

/// The fixed spec of the object of this kind and name, if it has one.
pub(super) fn spec_of(kind: &str, name: &str) -> Option<Value> {
    let found = mandatory()
        .into_iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    found.map(|mut object| object["spec"].take())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::told;
    use crate::{FLOW_SCHEMA, PRIORITY_LEVEL_CONFIGURATION};

    #[test]
    fn what_is_suggested_is_sound_and_whole() {
        for piece in pieces() {
            let object = &piece.object;
            let kind = match object["kind"] == "FlowSchema" {
                true => &FLOW_SCHEMA,
                false => &PRIORITY_LEVEL_CONFIGURATION,
            };
            assert_eq!(told::of_new(kind, object), [""; 0], "{object}");
            let mut defaulted = object.clone();
            kind.strategy.default(&mut defaulted);
            assert_eq!(defaulted["spec"], object["spec"]);
            assert_eq!((piece.mend)(object, object), None);
            assert!(!is_left_over(object));
        }
    }

    #[test]
    fn what_an_operator_keeps_is_kept() {
        let of = |name: &str| {
            let mut pieces = pieces();
            let found = pieces.find(|piece| {
                piece.object["kind"] == "PriorityLevelConfiguration"
                    && piece.object["metadata"]["name"] == name
            });
            found.unwrap()
        };
        let system = of("system");
        let changed = |says: Option<&str>, generation: i64| {
            let mut object = system.object.clone();
            object["spec"]["limited"]["nominalConcurrencyShares"] = 7.into();
            object["metadata"]["generation"] = generation.into();
            object["metadata"]["annotations"] = match says {
                Some(says) => json!({AUTO_UPDATE: says}),
                None => json!({}),
            };
            object
        };
        for (says, generation, shares, says_then) in [
            (Some("true"), 2, 30, "true"),
            (Some("T"), 2, 30, "T"),
            (Some("false"), 2, 7, "false"),
            (None, 1, 30, "true"),
            (None, 2, 7, "false"),
            (Some("nonsense"), 2, 7, "false"),
        ] {
            let object = changed(says, generation);
            let mended = (system.mend)(&object, &system.object).unwrap_or(object);
            assert_eq!(
                mended["spec"]["limited"]["nominalConcurrencyShares"], shares,
                "{says:?}"
            );
            assert_eq!(mended["metadata"]["annotations"][AUTO_UPDATE], says_then);
        }
        // What is mandatory follows whatever it says, but for the share of administrators.
        let exempt = of("exempt");
        let mut object = exempt.object.clone();
        object["spec"]["exempt"]["nominalConcurrencyShares"] = 9.into();
        assert_eq!((exempt.mend)(&object, &exempt.object), None);
        object["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        let mended = (exempt.mend)(&object, &exempt.object).unwrap();
        assert_eq!(mended["metadata"]["annotations"][AUTO_UPDATE], "true");
        let mut left = system.object.clone();
        left["metadata"]["name"] = "of-before".into();
        assert!(is_left_over(&left));
        left["metadata"]["annotations"] = json!({});
        assert!(!is_left_over(&left));
    }
}
