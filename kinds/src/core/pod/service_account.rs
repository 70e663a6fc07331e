//! What a new pod has of its ServiceAccount: the account's existence, its token in every container, its Secrets for images.
//!
//! After the admission plug-in ServiceAccount of Kubernetes, in its sentences. The volume with the token has a name that follows from the pod's
//! uid, so that the same pod always has the same one.
//!
//! Invariant: admitting what was admitted changes nothing.

use serde_json::{Value, json};
use weft_api::names;
use weft_api::status::StatusError;

use crate::SERVICE_ACCOUNT;
use crate::lens::{fill, items, items_mut, member, object, text};
use crate::strategy::Surroundings;

/// What the volumes are called that hold a token and what it is good for.
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Where clients look for it.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour, and the seconds that tell such a token from one that somebody asked for himself: it is good for longer than it says, with a note.
const TOKEN_SECONDS: i64 = 60 * 60 + 7;
const SUFFIX_LETTERS: usize = 5;
/// The account that every namespace has moments after its birth: not worth refusing a pod for.
const DEFAULT: &str = "default";
/// Marks a pod that shows what a node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Where an account says that its pods may name no Secret but its own.
const ENFORCED: &str = "kubernetes.io/enforce-mountable-secrets";

fn refused(pod: &Value, why: &str) -> StatusError {
    StatusError::forbidden("pods", "", text(pod, "/metadata/name"), why)
}

/// Gives a new pod its account and what comes with it.
///
/// # Errors
/// 403 when there is no such account, or it does not allow a Secret that the pod names.
pub(super) fn take(pod: &mut Value, around: &dyn Surroundings) -> Result<(), StatusError> {
    if is_mirror(pod) {
        return judge_mirror(pod);
    }
    super::defaults::service_account(member(pod, "spec"));
    let name = text(pod, "/spec/serviceAccountName").to_owned();
    let namespace = text(pod, "/metadata/namespace").to_owned();
    let found = around.object(&SERVICE_ACCOUNT, Some(&namespace), &name);
    if found.is_none() && name != DEFAULT {
        let why = format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        );
        return Err(refused(pod, &why));
    }
    let account = found.unwrap_or_default();
    if wants_token(&account, pod) {
        mount_token(pod);
    }
    let secrets = items(&account, "/imagePullSecrets");
    if items(pod, "/spec/imagePullSecrets").is_empty() && !secrets.is_empty() {
        member(pod, "spec")["imagePullSecrets"] = secrets.into();
    }
    let enforced = object(&account, "/metadata/annotations").and_then(|all| all.get(ENFORCED));
    if enforced.and_then(Value::as_str).is_some_and(is_true) {
        limit_secrets(&account, pod)?;
    }
    Ok(())
}

/// What Go reads as true.
fn is_true(text: &str) -> bool {
    matches!(text, "1" | "t" | "T" | "TRUE" | "true" | "True")
}

fn is_mirror(pod: &Value) -> bool {
    object(pod, "/metadata/annotations").is_some_and(|all| all.contains_key(MIRROR))
}

/// A picture of what a node runs by itself has no account and names no Secret.
fn judge_mirror(pod: &Value) -> Result<(), StatusError> {
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        let why = "a mirror pod may not reference service accounts";
        return Err(refused(pod, why));
    }
    let pulls = !items(pod, "/spec/imagePullSecrets").is_empty();
    let volumes = items(pod, "/spec/volumes");
    let projections = || {
        volumes
            .iter()
            .flat_map(|volume| items(volume, "/projected/sources"))
    };
    let mounts = volumes
        .iter()
        .any(|volume| !text(volume, "/secret/secretName").is_empty())
        || projections().any(|source| source.get("secret").is_some());
    let reads = containers(
        pod,
        &["initContainers", "containers", "ephemeralContainers"],
    )
    .any(|container| secrets_of(container).next().is_some());
    if pulls || mounts || reads {
        return Err(refused(pod, "a mirror pod may not reference secrets"));
    }
    if projections().any(|source| source.get("serviceAccountToken").is_some()) {
        let why = "a mirror pod may not use ServiceAccountToken volume projections";
        return Err(refused(pod, why));
    }
    Ok(())
}

/// The pod's wish counts before its account's.
fn wants_token(account: &Value, pod: &Value) -> bool {
    let said = |of: &Value, at| of.pointer(at).and_then(Value::as_bool);
    said(pod, "/spec/automountServiceAccountToken")
        .or_else(|| said(account, "/automountServiceAccountToken"))
        .unwrap_or(true)
}

/// Mounts the token in every container that has nothing else there, and adds its volume where one of them needs it.
fn mount_token(pod: &mut Value) {
    let volumes = items(pod, "/spec/volumes").iter();
    let present = volumes
        .map(|volume| text(volume, "/name"))
        .find(|name| name.starts_with(VOLUME_PREFIX))
        .map(str::to_owned);
    let name = present.clone().unwrap_or_else(|| {
        let uid = text(pod, "/metadata/uid").as_bytes();
        let suffix = names::suffix(names::hash(&[b"token volume", uid]), SUFFIX_LETTERS);
        format!("{VOLUME_PREFIX}{suffix}")
    });
    let mut needed = false;
    for list in ["/spec/initContainers", "/spec/containers"] {
        for container in items_mut(pod, list) {
            let mut mounts = items(container, "/volumeMounts").iter();
            if mounts.any(|mount| text(mount, "/mountPath") == TOKEN_PATH) {
                continue;
            }
            let mount = json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH});
            push(container, "volumeMounts", mount);
            needed = true;
        }
    }
    if needed && present.is_none() {
        push(member(pod, "spec"), "volumes", token_volume(&name));
    }
}

fn token_volume(name: &str) -> Value {
    json!({
        "name": name,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                {"configMap": {
                    "name": "kube-root-ca.crt",
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }},
                {"downwardAPI": {"items": [{
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }]}},
            ],
        },
    })
}

fn push(holder: &mut Value, list: &str, item: Value) {
    fill(holder, list, json!([]));
    if let Some(list) = holder[list].as_array_mut() {
        list.push(item);
    }
}

fn containers<'a>(pod: &'a Value, lists: &'a [&str]) -> impl Iterator<Item = &'a Value> {
    lists
        .iter()
        .flat_map(|list| items(pod, &format!("/spec/{list}")))
}

/// The Secrets that a container's environment names, with the variable where it is a single one.
fn secrets_of(container: &Value) -> impl Iterator<Item = (Option<&str>, &str)> {
    let single = items(container, "/env").iter().filter_map(|variable| {
        let secret = text(variable, "/valueFrom/secretKeyRef/name");
        (!secret.is_empty()).then(|| (Some(text(variable, "/name")), secret))
    });
    let whole = items(container, "/envFrom").iter().filter_map(|source| {
        let secret = text(source, "/secretRef/name");
        (!secret.is_empty()).then_some((None, secret))
    });
    single.chain(whole)
}

/// Every Secret that the pod names has to be one that its account names, too.
fn limit_secrets(account: &Value, pod: &Value) -> Result<(), StatusError> {
    let own = text(account, "/metadata/name");
    let named = |list: &str, name: &str| {
        let mut secrets = items(account, list).iter();
        secrets.any(|secret| text(secret, "/name") == name)
    };
    let allowed = |name: &str| named("/secrets", name);
    for volume in items(pod, "/spec/volumes") {
        let name = text(volume, "/secret/secretName");
        if volume.get("secret").is_some_and(Value::is_object) && !allowed(name) {
            let why = format!(
                "volume with secret.secretName=\"{name}\" is not allowed because service account {own} does not reference that secret"
            );
            return Err(refused(pod, &why));
        }
    }
    for (list, called) in [
        ("initContainers", "init container"),
        ("containers", "container"),
    ] {
        for container in containers(pod, &[list]) {
            let foreign = secrets_of(container).find(|(_, secret)| !allowed(secret));
            let Some((variable, secret)) = foreign else {
                continue;
            };
            let by = match variable {
                Some(variable) => format!("envVar {variable}"),
                None => "envFrom".to_owned(),
            };
            let why = format!(
                "{called} {} with {by} referencing secret.secretName=\"{secret}\" is not allowed because service account {own} does not reference that secret",
                text(container, "/name")
            );
            return Err(refused(pod, &why));
        }
    }
    for (index, pull) in items(pod, "/spec/imagePullSecrets").iter().enumerate() {
        let name = text(pull, "/name");
        if !named("/imagePullSecrets", name) {
            let why = format!(
                "imagePullSecrets[{index}].name=\"{name}\" is not allowed because service account {own} does not reference that imagePullSecret"
            );
            return Err(refused(pod, &why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::small::Cluster;

    fn account(name: &str, more: Value) -> Cluster {
        let mut account = json!({"metadata": {"name": name, "namespace": "n"}});
        for (field, value) in more.as_object().unwrap() {
            match field.as_str() {
                "annotations" => account["metadata"]["annotations"] = value.clone(),
                _ => account[field] = value.clone(),
            }
        }
        Cluster::default().with(&SERVICE_ACCOUNT, account)
    }

    fn pod(spec: Value) -> Value {
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})
    }

    fn taken(spec: Value, around: &Cluster) -> Result<Value, String> {
        let mut pod = pod(spec);
        take(&mut pod, around).map_err(|error| error.message)?;
        let once = pod.clone();
        take(&mut pod, around).map_err(|error| error.message)?;
        assert_eq!(once, pod, "twice");
        Ok(pod["spec"].take())
    }

    #[test]
    fn every_container_has_the_token_where_clients_look_for_it() {
        let around = account("default", json!({}));
        let own = json!([{"name": "own", "mountPath": TOKEN_PATH}]);
        let spec = taken(
            json!({
                "initContainers": [{"name": "i"}],
                "containers": [{"name": "a"}, {"name": "b", "volumeMounts": own}],
                "volumes": [{"name": "own", "emptyDir": {}}],
            }),
            &around,
        )
        .unwrap();
        let name = spec["volumes"][1]["name"].as_str().unwrap();
        assert!(name.starts_with(VOLUME_PREFIX) && name.len() == VOLUME_PREFIX.len() + 5);
        let mount = json!([{"name": name, "readOnly": true, "mountPath": TOKEN_PATH}]);
        assert_eq!(spec["initContainers"][0]["volumeMounts"], mount);
        assert_eq!(spec["containers"][0]["volumeMounts"], mount);
        assert_eq!(spec["containers"][1]["volumeMounts"], own);
        let sources = &spec["volumes"][1]["projected"]["sources"];
        assert_eq!(
            sources[0]["serviceAccountToken"],
            json!({"path": "token", "expirationSeconds": 3607})
        );
        assert_eq!(spec["serviceAccountName"], "default");
    }

    #[test]
    fn the_pod_decides_before_its_account_whether_it_has_a_token() {
        for (of_account, of_pod, expected) in [
            (json!(null), json!(null), true),
            (json!(false), json!(null), false),
            (json!(true), json!(false), false),
            (json!(false), json!(true), true),
        ] {
            let around = account(
                "default",
                json!({"automountServiceAccountToken": of_account}),
            );
            let spec =
                json!({"containers": [{"name": "a"}], "automountServiceAccountToken": of_pod});
            let spec = taken(spec, &around).unwrap();
            assert_eq!(spec.get("volumes").is_some(), expected);
        }
    }

    #[test]
    fn an_account_has_to_exist_and_lends_its_secrets_for_images() {
        let secrets = json!([{"name": "s"}]);
        let around = account("web", json!({"imagePullSecrets": secrets}));
        let spec = |name: &str| json!({"serviceAccountName": name, "containers": []});
        assert_eq!(
            taken(spec("web"), &around).unwrap()["imagePullSecrets"],
            secrets
        );
        assert_eq!(
            taken(spec("none"), &around).unwrap_err(),
            "pods \"p\" is forbidden: error looking up service account n/none: serviceaccount \"none\" not found"
        );
        // It comes with its namespace, a moment later.
        assert!(taken(spec("default"), &around).is_ok());
    }

    #[test]
    fn an_account_may_limit_which_secrets_its_pods_name() {
        let around = account(
            "default",
            json!({
                "annotations": {ENFORCED: "true"},
                "secrets": [{"name": "own"}],
                "imagePullSecrets": [{"name": "pull"}],
            }),
        );
        let env = |secret: &str| json!([{"name": "V", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}}]);
        let from = |secret: &str| json!([{"secretRef": {"name": secret}}]);
        for (spec, expected) in [
            (
                json!({"containers": [{"name": "c", "env": env("own")}]}),
                "",
            ),
            (
                json!({"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "x"}}]}),
                "volume with secret.secretName=\"x\" is not allowed because service account default does not reference that secret",
            ),
            (
                json!({"containers": [{"name": "c", "env": env("x")}]}),
                "container c with envVar V referencing secret.secretName=\"x\" is not allowed because service account default does not reference that secret",
            ),
            (
                json!({"initContainers": [{"name": "i", "envFrom": from("x")}], "containers": []}),
                "init container i with envFrom referencing secret.secretName=\"x\" is not allowed because service account default does not reference that secret",
            ),
            (
                json!({"containers": [], "imagePullSecrets": [{"name": "x"}]}),
                "imagePullSecrets[0].name=\"x\" is not allowed because service account default does not reference that imagePullSecret",
            ),
        ] {
            let told = taken(spec, &around).err().unwrap_or_default();
            let expected = match expected {
                "" => String::new(),
                why => format!("pods \"p\" is forbidden: {why}"),
            };
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_picture_of_a_nodes_own_pod_has_no_credentials() {
        let around = account("default", json!({}));
        for (spec, expected) in [
            (json!({"containers": [{"name": "c"}]}), ""),
            (
                json!({"serviceAccountName": "default"}),
                "a mirror pod may not reference service accounts",
            ),
            (
                json!({"imagePullSecrets": [{"name": "x"}]}),
                "a mirror pod may not reference secrets",
            ),
            (
                json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
                "a mirror pod may not use ServiceAccountToken volume projections",
            ),
        ] {
            let mut pod = pod(spec.clone());
            pod["metadata"]["annotations"] = json!({MIRROR: ""});
            let told = take(&mut pod, &around).err();
            let told = told.map_or(String::new(), |error| error.message);
            assert!(told.ends_with(expected), "{told}");
            assert_eq!(pod["spec"], spec, "nothing is added");
        }
    }
}
