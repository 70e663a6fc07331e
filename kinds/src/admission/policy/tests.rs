//! What validating policies say of a pod.

use super::*;
use crate::admission::expressions::Nobody;
use crate::admission::{Operation, User};

/// A cluster with one ConfigMap of params, in which nobody may anything.
struct Cluster;

impl Lookup for Cluster {
    fn kind(&self, _: &str, kind: &str) -> Option<Arc<Kind>> {
        (kind == "ConfigMap").then(|| Arc::clone(&crate::CONFIG_MAP))
    }

    fn object(&self, _: &Arc<Kind>, _: Option<&str>, name: &str) -> Option<Json> {
        (name == "limits").then(|| json!({"metadata": {"name": "limits"}, "data": {"most": "2"}}))
    }

    fn objects(&self, kind: &Arc<Kind>, namespace: Option<&str>) -> Vec<Json> {
        self.object(kind, namespace, "limits").into_iter().collect()
    }

    fn authorizer(&self) -> Arc<dyn Authorize> {
        Arc::new(Nobody)
    }

    fn spelled(&self, _: &Place, object: &Json) -> Json {
        object.clone()
    }
}

fn request() -> Request {
    Request {
        operation: Operation::Create,
        place: Place {
            group: String::new(),
            version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            resource: "pods".to_owned(),
            resource_group: String::new(),
            resource_version: "v1".to_owned(),
        },
        equivalents: Vec::new(),
        subresource: String::new(),
        namespace: "n".to_owned(),
        name: "p".to_owned(),
        user: User {
            name: "jo".to_owned(),
            ..User::default()
        },
        dry_run: false,
        options: json!({}),
    }
}

fn policy(more: &Json) -> Arc<Policy> {
    let mut spec = json!({"matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let policy = json!({"metadata": {"name": "p"}, "spec": spec});
    Arc::new(Policy::of(&policy))
}

fn binding(more: &Json) -> Arc<Binding> {
    let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    Arc::new(Binding::of(
        &json!({"metadata": {"name": "b"}, "spec": spec}),
    ))
}

/// What a policy says of a list of thirty numbers.
fn told(of: &Json, bound: &Json) -> String {
    let object =
        json!({"metadata": {"name": "p"}, "spec": {"list": (0..30).collect::<Vec<i32>>()}});
    let objects = Objects {
        new: Some(&object),
        ..Objects::default()
    };
    let (told, result) = validate(
        &[policy(of)],
        &[binding(bound)],
        &request(),
        objects,
        &Cluster,
    );
    match result {
        Ok(()) => format!("{:?}", told.annotations),
        Err(error) => {
            let start = "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ";
            let message = error.message.strip_prefix(start).unwrap_or(&error.message);
            format!("{} {} {message}", error.code, error.reason)
        }
    }
}

#[test]
fn what_is_asked_for_is_run_and_told() {
    let bad = json!([{"name": "bad", "expression": "object.spec.none"}, {"name": "twice", "expression": "size(object.spec.list) * 2"}]);
    let rule =
        |expression: &str| json!({"variables": bad, "validations": [{"expression": expression}]});
    let huge = "object.spec.list.all(a, object.spec.list.all(b, object.spec.list.all(c, object.spec.list.all(d, true))))";
    let spent =
        "expression 'HUGE' resulted in error: operation cancelled: actual cost limit exceeded"
            .replace("HUGE", huge);
    for (of, bound, expected) in [
        (rule("variables.twice == 60 || variables.bad"), json!({}), "{}".to_owned()),
        (
            rule("variables.bad == 1"),
            json!({}),
            "422 Invalid expression 'variables.bad == 1' resulted in error: composited variable \"bad\" fails to evaluate: no such key: none".to_owned(),
        ),
        (
            rule("variables.twice == 61"),
            json!({}),
            "422 Invalid failed expression: variables.twice == 61".to_owned(),
        ),
        (rule(huge), json!({}), format!("422 Invalid {spent}")),
        (
            rule("authorizer.group('').resource('pods').check('get').allowed()"),
            json!({}),
            "422 Invalid failed expression: authorizer.group('').resource('pods').check('get').allowed()".to_owned(),
        ),
        (
            json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.none"}]}),
            json!({}),
            "{}".to_owned(),
        ),
        (
            json!({"matchConditions": [{"name": "c", "expression": "request.userInfo.username == 'al'"}], "validations": [{"expression": "false"}]}),
            json!({}),
            "{}".to_owned(),
        ),
        (
            json!({"validations": [{"expression": "false", "message": " no ", "reason": "Forbidden", "messageExpression": "'a\\nb'"}]}),
            json!({}),
            "403 Forbidden no".to_owned(),
        ),
        (
            json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "params.kind == 'ConfigMap' && int(params.data.most) > 2"}]}),
            json!({"paramRef": {"selector": {}, "parameterNotFoundAction": "Deny"}}),
            "422 Invalid failed expression: params.kind == 'ConfigMap' && int(params.data.most) > 2".to_owned(),
        ),
        (
            json!({"paramKind": {"apiVersion": "v1", "kind": "Limit"}, "validations": [{"expression": "true"}]}),
            json!({"paramRef": {"name": "x", "parameterNotFoundAction": "Allow"}}),
            "422 Invalid failed to configure binding: paramKind kind `v1, Kind=Limit` not known".to_owned(),
        ),
        (
            json!({"auditAnnotations": [{"key": "k", "valueExpression": "'v'"}]}),
            json!({}),
            "{\"p/k\": \"v\"}".to_owned(),
        ),
    ] {
        assert_eq!(told(&of, &bound), expected, "{of}");
    }
}
