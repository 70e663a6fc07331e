//! Sentences of the standards, and what namespaces ask for.

use serde_json::json;

use super::standard::{level, minor};
use super::*;
use crate::admission::{Place, User};

fn standard(text: &str) -> Standard {
    let (name, version) = text.split_once(':').unwrap();
    Standard {
        level: level(name).unwrap(),
        minor: minor(version).unwrap(),
    }
}

fn told(of: &str, spec: Value) -> String {
    detail(&violations(standard(of), &json!({"spec": spec})))
}

/// The sentence that users of other clusters know by heart.
#[test]
fn a_plain_pod_is_not_restricted() {
    let plain = json!({"containers": [{"name": "c", "image": "i"}]});
    assert_eq!(told("baseline:latest", plain.clone()), "");
    assert_eq!(
        told("restricted:latest", plain.clone()),
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    // Of an early version, there are fewer.
    assert_eq!(
        told("restricted:v1.7", plain),
        "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)"
    );
    let sound = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        }}],
        "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
    });
    assert_eq!(told("restricted:latest", sound), "");
}

#[test]
fn each_check_has_its_sentence() {
    for (spec, expected) in [
        (
            json!({"hostNetwork": true, "hostPID": true}),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}]}, {"name": "b", "ports": [{"hostPort": 443}]}]}),
            "hostPort (containers \"a\", \"b\" use hostPorts 443, 80)",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            "hostPath volumes (volume \"v\")",
        ),
        (
            json!({"initContainers": [{"name": "a", "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN", "KILL"]}}}]}),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}, "sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\"), forbidden sysctls (kernel.msgmax)",
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}, "windowsOptions": {"hostProcess": true}}}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set), hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}, "securityContext": {"procMount": "Unmasked"}}]}),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\"), procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
    ] {
        assert_eq!(told("baseline:latest", spec), expected);
    }
    let volumes = json!({"volumes": [{"name": "a", "hostPath": {}}, {"name": "b", "nfs": {}}, {"name": "c"}]});
    assert!(told("restricted:latest", volumes).starts_with(
        "restricted volume types (volumes \"a\", \"b\", \"c\" use restricted volume types \"hostPath\", \"nfs\", \"unknown\")"
    ));
}

fn request(operation: Operation, resource: &str) -> Request {
    Request {
        operation,
        place: Place {
            group: String::new(),
            version: "v1".to_owned(),
            kind: String::new(),
            resource: resource.to_owned(),
            resource_group: String::new(),
            resource_version: "v1".to_owned(),
        },
        equivalents: Vec::new(),
        subresource: String::new(),
        namespace: "n".to_owned(),
        name: "p".to_owned(),
        user: User::default(),
        dry_run: false,
        options: Value::Null,
    }
}

#[test]
fn a_namespace_says_what_holds() {
    let namespace = |labels: Value| json!({"metadata": {"name": "n", "labels": labels}});
    let pod = json!({"metadata": {"name": "p"}, "spec": {"hostPID": true, "containers": [{"name": "c"}]}});
    let create = request(Operation::Create, "pods");
    let enforced = namespace(
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30"}),
    );
    let refused = judge(&create, &pod, None, &enforced).unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            403,
            "pods \"p\" is forbidden: violates PodSecurity \"baseline:v1.30\": host namespaces (hostPID=true)"
        )
    );
    // What does not change containers is let through.
    let update = request(Operation::Update, "pods");
    assert!(judge(&update, &pod, Some(&pod), &enforced).is_ok());
    let warned = namespace(json!({"pod-security.kubernetes.io/warn": "baseline"}));
    let told = judge(&create, &pod, None, &warned).unwrap();
    assert_eq!(
        told.warnings,
        ["would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"]
    );
    // Nobody who cannot be understood is let through.
    let unread = namespace(json!({"pod-security.kubernetes.io/enforce": "strict"}));
    assert!(judge(&create, &pod, None, &unread).is_err());
    let refused = judge_namespace(&create, &unread, None, Vec::new).unwrap_err();
    assert_eq!(refused.code, 422);
    let raised = judge_namespace(
        &Request {
            name: "n".to_owned(),
            ..update
        },
        &enforced,
        Some(&namespace(json!({}))),
        || vec![pod.clone()],
    );
    assert_eq!(
        raised.unwrap().warnings,
        [
            "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:v1.30\"",
            "p: host namespaces",
        ]
    );
}
