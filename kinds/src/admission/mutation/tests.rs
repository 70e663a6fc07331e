//! What mutating policies make of a Deployment, and what they are refused for.

use serde_json::json;

use super::*;
use crate::admission::{Operation, User};
use crate::cel::{Authorize, Decision, Question};

/// A cluster with Deployments and one ConfigMap of params, in which everybody may everything.
struct Cluster;

#[derive(Debug)]
struct Everything;

impl Authorize for Everything {
    fn decide(&self, _: &Question) -> Decision {
        Decision {
            allowed: true,
            ..Decision::default()
        }
    }
}

impl Lookup for Cluster {
    fn kind(&self, _: &str, kind: &str) -> Option<Arc<Kind>> {
        match kind {
            "ConfigMap" => Some(Arc::clone(&crate::CONFIG_MAP)),
            "Deployment" => Some(Arc::clone(&crate::DEPLOYMENT)),
            _ => None,
        }
    }

    fn object(&self, _: &Arc<Kind>, _: Option<&str>, name: &str) -> Option<Json> {
        let data = json!({"k": "100"});
        Some(json!({"metadata": {"name": name, "namespace": "n"}, "data": data}))
    }

    fn objects(&self, kind: &Arc<Kind>, namespace: Option<&str>) -> Vec<Json> {
        let found = ["a", "b"].map(|name| self.object(kind, namespace, name));
        found.into_iter().flatten().collect()
    }

    fn authorizer(&self) -> Arc<dyn Authorize> {
        Arc::new(Everything)
    }

    fn spelled(&self, _: &Place, object: &Json) -> Json {
        object.clone()
    }
}

fn request() -> Request {
    Request {
        operation: Operation::Create,
        place: Place::of(&crate::DEPLOYMENT),
        equivalents: Vec::new(),
        subresource: String::new(),
        namespace: "n".to_owned(),
        name: "d".to_owned(),
        user: User::default(),
        dry_run: false,
        options: json!({}),
    }
}

fn deployment(spec: &Json) -> Json {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec})
}

fn policy(name: &str, more: &Json) -> Arc<Policy> {
    let mut spec = json!({"matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    Arc::new(Policy::of(
        &json!({"metadata": {"name": name}, "spec": spec}),
    ))
}

fn binding(policy: &str, more: &Json) -> Arc<Binding> {
    let mut spec = json!({"policyName": policy});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    Arc::new(Binding::of(
        &json!({"metadata": {"name": "b"}, "spec": spec}),
    ))
}

fn apply(expression: &str) -> Json {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn patch(expression: &str) -> Json {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

/// What one policy makes of a Deployment, or why it refuses it.
fn made(of: &Json, bound: &Json, object: &Json, old: Option<&Json>) -> Result<Json, String> {
    let namespace = json!({"metadata": {"name": "n"}});
    let objects = Objects {
        new: Some(object),
        old,
        namespace: Some(&namespace),
    };
    let made = mutate(
        &[policy("p", of)],
        &[binding("p", bound)],
        &request(),
        objects,
        &Cluster,
        &mut Round::default(),
        |_, next| Ok(next),
    );
    let made = made.map_err(|error| {
        let start = "policy 'p' with binding 'b' denied request: ";
        match error.message.strip_prefix(start) {
            Some(rest) => rest.to_owned(),
            None => format!("{} {}", error.code, error.message),
        }
    })?;
    Ok(made.unwrap_or_else(|| object.clone()))
}

/// The spec that mutations leave of a Deployment with this one.
fn spec(spec: &Json, mutations: Json) -> Result<Json, String> {
    let old = deployment(&json!({"replicas": 2}));
    let variables = json!([{"name": "desired", "expression": "10"}, {"name": "list", "expression": "[0,1,2,3,4,5,6,7,8,9]"}]);
    let of = json!({"variables": variables, "mutations": mutations});
    let made = made(&of, &json!({}), &deployment(spec), Some(&old));
    made.map(|made| made["spec"].clone())
}

#[test]
fn a_part_of_an_object_is_laid_over_it_by_its_schema() {
    let volumes = |volumes: Json| json!({"template": {"spec": {"volumes": volumes}}});
    let over_volumes = |entry: &str| {
        apply(&format!(
            "Object{{spec: Object.spec{{template: Object.spec.template{{spec: Object.spec.template.spec{{volumes: [{entry}]}}}}}}}}"
        ))
    };
    let env = |env: Json| json!({"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "env": env}]}}});
    let whole = r#"Object{spec: Object.spec{
        replicas: 1,
        template: Object.spec.template{
            metadata: Object.spec.template.metadata{labels: {"app": "x"}},
            spec: Object.spec.template.spec{containers: [Object.spec.template.spec.containers{
                name: "c",
                ports: [Object.spec.template.spec.containers.ports{containerPort: 80}],
                resources: Object.spec.template.spec.containers.resources{limits: {"cpu": "128M"}},
            }]},
        },
    }}"#;
    for (before, mutation, after) in [
        (
            volumes(json!([{"name": "x"}])),
            over_volumes("Object.spec.template.spec.volumes{name: 'y'}"),
            volumes(json!([{"name": "x"}, {"name": "y"}])),
        ),
        (
            volumes(json!([{"name": "x"}, {"name": "y"}])),
            over_volumes(
                "Object.spec.template.spec.volumes{name: 'y', hostPath: Object.spec.template.spec.volumes.hostPath{path: 'a'}}",
            ),
            volumes(json!([{"name": "x"}, {"name": "y", "hostPath": {"path": "a"}}])),
        ),
        (
            json!({"replicas": 2}),
            apply(
                "Object{spec: Object.spec{replicas: object.spec.replicas % 2 == 0 ? object.spec.replicas + 1 : object.spec.replicas}}",
            ),
            json!({"replicas": 3}),
        ),
        (
            json!({"replicas": 1}),
            apply("Object{spec: Object.spec{replicas: oldObject.spec.replicas + 1}}"),
            json!({"replicas": 3}),
        ),
        (
            json!({}),
            apply(whole),
            json!({"replicas": 1, "template": {
                "metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "128M"}}}]},
            }}),
        ),
        // What is stored may name an element twice; whoever names it has it once.
        (
            env(json!([{"name": "a", "value": "1"}, {"name": "a", "value": "2"}])),
            apply("Object{spec: Object.spec{replicas: 1}}"),
            env(json!([{"name": "a", "value": "1"}, {"name": "a", "value": "2"}])),
        ),
        (
            env(
                json!([{"name": "a", "value": "1"}, {"name": "a", "value": "2"}, {"name": "b"}]),
            ),
            apply(
                "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [
                    Object.spec.template.spec.containers{name: 'c', env: [Object.spec.template.spec.containers.env{name: 'a', value: '3'}]}
                ]}}}}",
            ),
            env(json!([{"name": "a", "value": "3"}, {"name": "b"}])),
        ),
        // What is left out, and what is none, changes nothing.
        (
            json!({"replicas": 1}),
            apply("Object{?spec: optional.none()}"),
            json!({"replicas": 1}),
        ),
        (
            json!({"replicas": 1}),
            apply(
                "Object{?spec: optional.ofNonZeroValue(Object.spec{?replicas: Object{}.?replicas})}",
            ),
            json!({"replicas": 1}),
        ),
        (
            json!({"replicas": 1}),
            apply("Object{kind: 'Pod', apiVersion: 'v1', spec: Object.spec{paused: true}}"),
            json!({"replicas": 1, "paused": true}),
        ),
    ] {
        let found = spec(&before, json!([mutation]));
        assert_eq!(found, Ok(after), "{mutation}");
    }
}

#[test]
fn what_no_part_of_the_object_can_be_is_refused() {
    let cost = "variables.list.all(a, variables.list.all(b, variables.list.all(c, variables.list.all(d, variables.list.all(e, variables.list.all(f, '0123456789' == '0123456789')))))) ? 1 : 0";
    let containers = |container: &str| {
        format!(
            "Object{{spec: Object.spec{{template: Object.spec.template{{spec: Object.spec.template.spec{{containers: [Object.spec.template.spec.containers{{name: 'c', {container}}}]}}}}}}}}"
        )
    };
    for (expression, told) in [
        (
            "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'l': 'v'}}}}",
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.selector",
        ),
        (
            &containers("command: ['a'], args: []"),
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
             .spec.template.spec.containers[0].args, .spec.template.spec.containers[0].command",
        ),
        (
            "Object{spec: Object.specx{replicas: 1}}",
            "type mismatch: unexpected type name \"Object.specx\", expected \"Object.spec\", which matches field name path from root Object type",
        ),
        (
            "Object{spec: Object.spec{template: {'spec': Object.spec{}}}}",
            "type mismatch: unexpected type name \"Object.spec\", expected \"Object.spec.template\", which matches field name path from root Object type",
        ),
        (
            "Object{spec: Object.spec{replicasx: 1}}",
            "error applying patch: failed to convert patch object to typed object: .spec.replicasx: field not declared in schema",
        ),
        (
            "Object{spec: Object.spec{replicas: 'one'}}",
            "error applying patch: failed to convert patch object to typed object: .spec.replicas: expected numeric (int or float), got string",
        ),
        (
            &containers(
                "env: [Object.spec.template.spec.containers.env{name: 'a'}, Object.spec.template.spec.containers.env{name: 'a'}]",
            ),
            "error applying patch: failed to convert patch object to typed object: .spec.template.spec.containers[name=\"c\"].env: \
             duplicate entries for key [name=\"a\"]",
        ),
        ("'teapot'", "must evaluate to Object but got string"),
        (
            "Object.spec.metadata{}",
            "must evaluate to Object but got Object.spec.metadata",
        ),
        (
            "Object{spec: Object.spec{replicas: object.spec.none}}",
            "expression 'Object{spec: Object.spec{replicas: object.spec.none}}' resulted in error: no such key: none",
        ),
        (
            "Object{?spec: 1}",
            "compilation failed: ERROR: <input>:1:13: expected type 'optional_type(int)' but found 'int'\n | Object{?spec: 1}\n | ............^",
        ),
        (
            "Other{}",
            "compilation failed: ERROR: <input>:1:6: undeclared reference to 'Other' (in container '')\n | Other{}\n | .....^",
        ),
        (
            &format!("Object{{spec: Object.spec{{replicas: {cost}}}}}"),
            &format!(
                "expression 'Object{{spec: Object.spec{{replicas: {cost}}}}}' resulted in error: operation cancelled: actual cost limit exceeded"
            ),
        ),
    ] {
        let found = spec(&json!({"replicas": 1}), json!([apply(expression)]));
        assert_eq!(found.unwrap_err(), told, "{expression}");
    }
}

#[test]
fn mutations_of_one_policy_follow_each_other() {
    let add = apply("Object{spec: Object.spec{replicas: object.spec.replicas + 100}}");
    let put = patch(
        "[JSONPatch{op: 'replace', path: '/spec/replicas', value: object.spec.replicas + 10}]",
    );
    let named = apply("Object{spec: Object.spec{replicas: variables.desired + 1}}");
    let tested = patch(
        "[JSONPatch{op: 'test', path: '/spec/replicas', value: 5}, JSONPatch{op: 'remove', path: '/spec/replicas'}]",
    );
    let no_object = patch(
        "[JSONPatch{op: 'add', path: '/spec', value: Object.invalid{replicas: int(namespaceObject.metadata.name == 'n' ? 7 : 0)}}]",
    );
    let asks = patch(
        "[JSONPatch{op: 'add', path: '/spec/replicas', value: authorizer.group('').resource('pods').check('get').allowed() && request.kind.kind == 'Deployment' ? 8 : 0}]",
    );
    for (mutations, replicas) in [
        (json!([add, put]), 111),
        (json!([put, add]), 111),
        (json!([named]), 11),
        (json!([tested]), 1),
        (json!([no_object]), 7),
        (json!([asks]), 8),
    ] {
        let found = spec(&json!({"replicas": 1}), mutations.clone());
        assert_eq!(found, Ok(json!({"replicas": replicas})), "{mutations}");
    }
    for (expression, told) in [
        (
            "[JSONPatch{op: 'add', path: '/spec/nothing', value: 1}]",
            "500 Internal error occurred: strict decoding error: unknown field \"spec.nothing\"",
        ),
        (
            "[JSONPatch{op: 'add', path: '/spec', value: Object.spec{template: Object.spec{}}}]",
            "type mismatch: unexpected type name \"Object.spec\", expected \"Object.spec.template\", which matches field name path from root Object type",
        ),
        (
            "[JSONPatch{op: 1}]",
            "compilation failed: ERROR: <input>:1:14: expected type of field 'op' is 'string' but provided type is 'int'\n | [JSONPatch{op: 1}]\n | .............^",
        ),
        (
            "[JSONPatch{on: ''}]",
            "compilation failed: ERROR: <input>:1:14: undefined field 'on'\n | [JSONPatch{on: ''}]\n | .............^",
        ),
    ] {
        let found = spec(&json!({"replicas": 1}), json!([patch(expression)]));
        assert_eq!(found.unwrap_err(), told, "{expression}");
    }
}

#[test]
fn what_is_built_can_be_looked_at() {
    for (expression, label) in [
        ("Object{a: 'x'}.a", "x"),
        ("string(has(Object{a: 'x'}.a))", "true"),
        ("string(has(Object{}.a))", "false"),
        ("string(Object{}.a == null)", "true"),
        ("string(Object{} == Object{})", "true"),
        ("string(Object{a: 1 + 1} == Object{a: 2})", "true"),
        ("string(Object{a: 'x'} == Object{a: 'y'})", "false"),
        (
            "string(Object{a: Object.a{}} == Object{a: Object.b{}})",
            "false",
        ),
        ("string(Object{n: [1, 2, 3]}.n.sum())", "6"),
        ("string(Object{}.?a.hasValue())", "false"),
        ("JSONPatch{op: 'add'}.op", "add"),
        ("string(has(JSONPatch{op: ''}.op))", "false"),
        (
            "(true ? JSONPatch{op: 'add'} : JSONPatch{op: 'remove'}).op",
            "add",
        ),
    ] {
        let patch = patch(&format!(
            "[JSONPatch{{op: 'add', path: '/metadata/labels', value: {{'l': {expression}}}}}]"
        ));
        let of = json!({"mutations": [patch]});
        let made = made(&of, &json!({}), &deployment(&json!({})), None);
        let label = Ok(json!(label));
        assert_eq!(
            made.map(|made| made["metadata"]["labels"]["l"].clone()),
            label,
            "{expression}"
        );
    }
}

#[test]
fn params_and_failure_policies_are_heard() {
    let apply =
        apply("Object{spec: Object.spec{replicas: object.spec.replicas + int(params.data['k'])}}");
    let of = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "mutations": [apply]});
    let replicas = |bound: Json| {
        let made = made(&of, &bound, &deployment(&json!({"replicas": 1})), None);
        made.map(|made| made["spec"]["replicas"].clone())
    };
    assert_eq!(replicas(json!({"paramRef": {"name": "a"}})), Ok(json!(101)));
    // Once for each that is selected.
    assert_eq!(
        replicas(json!({"paramRef": {"selector": {}}})),
        Ok(json!(201))
    );
    let fails = "Object{spec: Object.spec{replicas: object.none}}";
    let of = json!({"failurePolicy": "Ignore", "mutations": [self::apply(fails), self::apply("Object{spec: Object.spec{paused: true}}")]});
    let made = made(&of, &json!({}), &deployment(&json!({})), None);
    assert_eq!(made.unwrap()["spec"], json!({"paused": true}));
}

/// What policies leave of a Deployment without labels, after both rounds.
fn labels(policies: &[(&str, Json)]) -> Json {
    let object = deployment(&json!({}));
    let objects = Objects {
        new: Some(&object),
        ..Objects::default()
    };
    let bindings = policies.iter().map(|(name, _)| binding(name, &json!({})));
    let bindings: Vec<_> = bindings.collect();
    let policies = policies.iter().map(|(name, of)| policy(name, of));
    let policies: Vec<_> = policies.collect();
    let mut round = Round::default();
    let mut run = |new: &Json| {
        let objects = Objects {
            new: Some(new),
            ..objects
        };
        let settle = |_: &Place, next| Ok(next);
        let request = request();
        mutate(
            &policies, &bindings, &request, objects, &Cluster, &mut round, settle,
        )
        .unwrap()
        .inspect(|_| round.repeat())
    };
    let first = run(&object).unwrap_or(object.clone());
    let second = run(&first).unwrap_or(first);
    second["metadata"]["labels"].clone()
}

#[test]
fn policies_see_each_other_and_run_again_once() {
    let label = |label: &str, value: &str| {
        apply(&format!(
            "Object{{metadata: Object.metadata{{labels: {{'{label}': {value}}}}}}}"
        ))
    };
    let count = label(
        "n",
        "string(int(object.?metadata.labels['n'].orValue('0')) + 1)",
    );
    let once = json!({"mutations": [count]});
    let twice = json!({"reinvocationPolicy": "IfNeeded", "mutations": [count]});
    assert_eq!(labels(&[("a", once.clone())]), json!({"n": "1"}));
    assert_eq!(labels(&[("a", twice.clone())]), json!({"n": "2"}));
    assert_eq!(
        labels(&[("a", twice.clone()), ("b", once)]),
        json!({"n": "3"})
    );
    assert_eq!(
        labels(&[("a", twice.clone()), ("b", twice)]),
        json!({"n": "4"})
    );
    let sets = json!({"mutations": [label("env", "'prod'")]});
    let if_set = json!({
        "matchConditions": [{"name": "c", "expression": "object.?metadata.labels['env'].orValue('') == 'prod'"}],
        "mutations": [label("seen", "'yes'")],
    });
    let both = json!({"env": "prod", "seen": "yes"});
    assert_eq!(labels(&[("a", sets.clone()), ("b", if_set.clone())]), both);
    // Who did not match when it was his turn is not asked again.
    let mut again = if_set.clone();
    again["reinvocationPolicy"] = "IfNeeded".into();
    for later in [if_set, again] {
        assert_eq!(
            labels(&[("a", later), ("b", sets.clone())]),
            json!({"env": "prod"})
        );
    }
    // Which objects a policy is about is asked before any of them has changed the object.
    let selects = json!({
        "matchConstraints": {"objectSelector": {"matchLabels": {"env": "prod"}}},
        "mutations": [label("seen", "'yes'")],
    });
    assert_eq!(
        labels(&[("a", sets), ("b", selects)]),
        json!({"env": "prod"})
    );
}
