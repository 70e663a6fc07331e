//! What pods may ask of the host: by the imports of their components, and by the grants to their ServiceAccount.
//!
//! A component that imports `wasi:config` or `wasi:keyvalue` runs only where a CapabilityGrant of its namespace gives that to its
//! ServiceAccount. A pod is refused where that is known when it is created, a workload that will make such pods is warned of; the
//! node judges again, and judges alone what images of other registries import. Outgoing HTTP is judged at each call.
//!
//! Invariants: pure; a refusal says what is missing, why, and which object to add, on one line that `kubectl apply -f -` takes.

use std::collections::BTreeSet;

use serde_json::Value;
use weft_api::status::{Cause, StatusError};

use super::{CAPABILITY_GRANT, KEY_VALUE_STORE};
use crate::core::pod::images_of;
use crate::lens::{items, text};
use crate::strategy::Surroundings;

/// Images, and imports of each, that a sentence names: it is a message, and a header.
const TOLD_MAX: usize = 4;

/// What a component gets by a grant alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Capability {
    Config,
    KeyValue,
}

impl Capability {
    /// What an import asks for: the package decides, whatever its version.
    fn of(import: &str) -> Option<Self> {
        match import.split_once('/')?.0 {
            "wasi:config" => Some(Self::Config),
            "wasi:keyvalue" => Some(Self::KeyValue),
            _ => None,
        }
    }

    /// Where a grant gives it.
    fn pointer(self) -> &'static str {
        match self {
            Self::Config => "/spec/config",
            Self::KeyValue => "/spec/keyValue",
        }
    }
}

/// What may be done with a key-value store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

impl Access {
    fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "ReadOnly",
            Self::ReadWrite => "ReadWrite",
        }
    }
}

fn is_for(grant: &Value, account: &str) -> bool {
    let mut accounts = items(grant, "/spec/serviceAccountNames").iter();
    accounts.any(|name| name == account)
}

/// What a grant lets pods of a ServiceAccount do with a store.
pub fn granted_store(grant: &Value, account: &str, store: &str) -> Option<Access> {
    let stores = items(grant, "/spec/keyValue").iter();
    let stores = stores.filter(|entry| text(entry, "/store") == store && is_for(grant, account));
    let access = stores.map(|entry| match text(entry, "/access") {
        "ReadOnly" => Access::ReadOnly,
        _ => Access::ReadWrite,
    });
    access.max()
}

/// Whether a grant shows pods of a ServiceAccount a Secret, or a ConfigMap.
pub fn refers_to(grant: &Value, account: &str, secret: bool, name: &str) -> bool {
    let reference = match secret {
        true => "/secretRef/name",
        false => "/configMapRef/name",
    };
    let mut sources = items(grant, "/spec/config").iter();
    let is_source = sources.any(|source| text(source, reference) == name);
    (is_source || shows_outside(grant, secret, name)) && is_for(grant, account)
}

/// Whether calls out of the cluster need it: the host shows it, or believes those in it.
fn shows_outside(grant: &Value, secret: bool, name: &str) -> bool {
    let mut entries = items(grant, "/spec/outgoingHTTP").iter();
    entries.any(|entry| references_of_outgoing(entry).any(|one| one == (secret, name)))
}

/// The objects that an entry of `outgoingHTTP` needs: whether each is a Secret, and its name.
pub fn references_of_outgoing(entry: &Value) -> impl Iterator<Item = (bool, &str)> {
    let credentials = items(entry, "/credentials").iter().flat_map(|credential| {
        let kinds = ["header", "bearer", "basic", "clientCertificate"];
        kinds.map(|kind| (true, text(&credential[kind], "/secretRef/name")))
    });
    let authorities = &entry["tls"]["caCertificates"];
    let authorities = [
        (true, text(authorities, "/secretRef/name")),
        (false, text(authorities, "/configMapRef/name")),
    ];
    let all = credentials.chain(authorities);
    all.filter(|(_, name)| !name.is_empty())
}

/// Why a pod may not do something with a store: no grant lets its ServiceAccount.
pub fn refusal_of_store(namespace: &str, account: &str, store: &str, access: Access) -> String {
    let given = format!(
        "keyValue: [{{identifier: default, store: {}, access: {}}}]",
        scalar(store),
        access.name()
    );
    format!(
        "no CapabilityGrant of namespace {namespace} gives ServiceAccount {account} {} access to KeyValueStore {store}; add one: {}",
        access.name(),
        grant(namespace, account, &[given])
    )
}

/// # Errors
/// 403 for a pod with a component that imports what its ServiceAccount is not granted.
pub(crate) fn judge_pod(pod: &Value, around: &dyn Surroundings) -> Result<(), StatusError> {
    let Some(refusal) = refusal(pod, "/spec", around) else {
        return Ok(());
    };
    let name = text(pod, "/metadata/name");
    let mut error = StatusError::forbidden("pods", "", name, &refusal.sentence);
    error.details.get_or_insert_default().causes.push(Cause {
        reason: "CapabilityNotGranted".to_owned(),
        message: refusal.grant,
        field: "spec.serviceAccountName".to_owned(),
    });
    Err(error)
}

/// What is to be said of a workload whose pods would be refused.
pub(crate) fn warnings_of_template(workload: &Value, around: &dyn Surroundings) -> Vec<String> {
    warnings_of_pods(workload, "/spec/template/spec", around)
}

/// As [`warnings_of_template`], for pods whose spec is at another pointer.
pub(crate) fn warnings_of_pods(
    workload: &Value,
    spec: &str,
    around: &dyn Surroundings,
) -> Vec<String> {
    let refusal = refusal(workload, spec, around);
    let sentence = refusal.map(|refusal| format!("pods will be refused: {}", refusal.sentence));
    sentence.into_iter().collect()
}

struct Refusal {
    sentence: String,
    /// The object to add.
    grant: String,
}

fn refusal(object: &Value, spec: &str, around: &dyn Surroundings) -> Option<Refusal> {
    let mut asked: Vec<(String, Vec<(Capability, String)>)> = Vec::new();
    for image in images_of(object, spec) {
        let imports = around.imports(&image);
        let imports = imports.iter().flat_map(|imports| imports.iter());
        let gated = imports.filter_map(|import| Some((Capability::of(import)?, import.clone())));
        let gated: Vec<_> = gated.collect();
        if !gated.is_empty() {
            asked.push((image, gated));
        }
    }
    if asked.is_empty() {
        return None;
    }
    let namespace = text(object, "/metadata/namespace");
    let account = match text(object, &format!("{spec}/serviceAccountName")) {
        "" => "default",
        account => account,
    };
    let grants = around.objects(&CAPABILITY_GRANT, Some(namespace));
    let gives = |capability: Capability| {
        let mut grants = grants.iter().filter(|grant| is_for(grant, account));
        grants.any(|grant| !items(grant, capability.pointer()).is_empty())
    };
    let mut missing = BTreeSet::new();
    let mut told: Vec<String> = Vec::new();
    for (image, gated) in &asked {
        let lacks = gated.iter().filter(|(capability, _)| !gives(*capability));
        let lacks: Vec<_> = lacks.collect();
        missing.extend(lacks.iter().map(|(capability, _)| *capability));
        let names: Vec<&str> = lacks.iter().map(|(_, import)| import.as_str()).collect();
        if !names.is_empty() && told.len() < TOLD_MAX {
            told.push(format!("image {image:?} imports {}", listed(&names)));
        }
    }
    if missing.is_empty() {
        return None;
    }
    let given = missing.iter().map(|capability| match capability {
        Capability::Config => format!("config: [{{configMapRef: {{name: {}}}}}]", scalar(account)),
        Capability::KeyValue => format!(
            "keyValue: [{{identifier: default, store: {}}}]",
            scalar(account)
        ),
    });
    let given: Vec<String> = given.collect();
    let grant = grant(namespace, account, &given);
    let no_store = missing.contains(&Capability::KeyValue)
        && !around.has(&KEY_VALUE_STORE, Some(namespace), account);
    let store = match no_store {
        true => format!(
            "; and the KeyValueStore that it names: {}",
            store_to_add(namespace, account)
        ),
        false => String::new(),
    };
    let sentence = format!(
        "{}, and no CapabilityGrant of namespace {namespace} gives that to ServiceAccount {account}; add one: {grant}{store}",
        told.join(", ")
    );
    Some(Refusal { sentence, grant })
}

/// `a`, `a and b`, `a, b and c`; of many, how many there are beside the first.
fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [first @ .., _] if names.len() > TOLD_MAX => {
            let first = first.get(..TOLD_MAX).unwrap_or(first);
            let others = names.len() - first.len();
            format!("{} and {others} others", first.join(", "))
        }
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn grant(namespace: &str, account: &str, given: &[String]) -> String {
    let account = scalar(account);
    format!(
        "{{apiVersion: {}, kind: {}, metadata: {{name: {account}, namespace: {}}}, spec: {{serviceAccountNames: [{account}], {}}}}}",
        CAPABILITY_GRANT.api_version(),
        CAPABILITY_GRANT.kind,
        scalar(namespace),
        given.join(", ")
    )
}

/// A KeyValueStore to be added, in YAML on one line.
pub fn store_to_add(namespace: &str, name: &str) -> String {
    format!(
        "{{apiVersion: {}, kind: {}, metadata: {{name: {}, namespace: {}}}}}",
        KEY_VALUE_STORE.api_version(),
        KEY_VALUE_STORE.kind,
        scalar(name),
        scalar(namespace)
    )
}

/// A name in YAML: in quotes where it would be read as something else than text.
fn scalar(name: &str) -> String {
    let word = name.starts_with(|first: char| first.is_ascii_lowercase())
        && !matches!(
            name,
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    match word {
        true => name.to_owned(),
        false => format!("{name:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::cel::Question;
    use crate::strategy::{Claim, Requester};
    use crate::{Kind, KindRef, POD, ServiceRange};

    /// A namespace with these grants, and a registry with two images.
    struct Cluster(Vec<Value>);

    impl Surroundings for Cluster {
        fn requester(&self) -> Requester<'_> {
            Requester {
                user: "",
                groups: &[],
                uid: None,
                extra: None,
            }
        }

        fn allows(&self, _: &Question) -> bool {
            true
        }

        fn now(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn has(&self, kind: &Kind, _: Option<&str>, name: &str) -> bool {
            kind.resource == "serviceaccounts" || name == "has-store"
        }

        fn object(&self, kind: KindRef<'_>, _: Option<&str>, name: &str) -> Option<Value> {
            (kind.resource == "serviceaccounts").then(|| json!({"metadata": {"name": name}}))
        }

        fn objects(&self, kind: KindRef<'_>, namespace: Option<&str>) -> Vec<Value> {
            assert_eq!((kind, namespace), (&*CAPABILITY_GRANT, Some("shop")));
            self.0.clone()
        }

        fn imports(&self, image: &str) -> Option<Arc<[String]>> {
            let imports: &[&str] = match image {
                "plain:1" => &["wasi:http/types@0.2.3", "wasi:cli/stdout@0.2.3"],
                "counts:1" => &[
                    "wasi:keyvalue/store@0.2.0-draft2",
                    "wasi:keyvalue/atomics@0.2.0-draft2",
                ],
                "both:1" => &[
                    "wasi:config/store@0.2.0-rc.1",
                    "wasi:keyvalue/batch@0.2.0-draft",
                ],
                "strange:1" => &[
                    "wasi:keyvalueish/store@0.2.0",
                    "wasi:keyvalue",
                    "keyvalue/store",
                ],
                _ => return None,
            };
            Some(imports.iter().map(|import| (*import).to_owned()).collect())
        }

        fn is_claimed(&self, _: &Claim) -> bool {
            false
        }

        fn service_range(&self) -> ServiceRange {
            ServiceRange::default()
        }
    }

    fn pod(account: &str, images: &[&str]) -> Value {
        let containers: Vec<Value> = images
            .iter()
            .map(|image| json!({"name": "c", "image": image}))
            .collect();
        json!({
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"serviceAccountName": account, "containers": containers},
        })
    }

    fn told(pod: &Value, grants: &[Value]) -> String {
        let mut pod = pod.clone();
        match POD.strategy.admit(&mut pod, &Cluster(grants.to_vec())) {
            Ok(()) => String::new(),
            Err(error) => {
                assert_eq!(error.code, 403);
                error.message
            }
        }
    }

    #[test]
    fn a_pod_needs_a_grant_for_what_its_components_import() {
        let stores = json!({"spec": {"serviceAccountNames": ["a", "cart"], "keyValue": [{"identifier": "", "store": "s"}]}});
        let settings = json!({"spec": {"serviceAccountNames": ["cart"], "config": [{"configMapRef": {"name": "m"}}]}});
        let hosts = json!({"spec": {"serviceAccountNames": ["cart"], "outgoingHTTP": [{"hosts": ["a.b"]}]}});
        let other = json!({"spec": {"serviceAccountNames": ["other"], "keyValue": [{"store": "s"}], "config": [{"configMapRef": {"name": "m"}}]}});
        for (images, grants, refused) in [
            (&["plain:1"][..], &[][..], false),
            (&["ghcr.io/unknown:1"], &[], false),
            (&["strange:1"], &[], false),
            (&["counts:1"], &[], true),
            (&["plain:1", "counts:1"], std::slice::from_ref(&hosts), true),
            (&["counts:1"], std::slice::from_ref(&stores), false),
            (&["counts:1"], std::slice::from_ref(&settings), true),
            (&["counts:1"], std::slice::from_ref(&other), true),
            (&["both:1"], std::slice::from_ref(&stores), true),
            (&["both:1"], &[settings.clone(), stores.clone()], false),
        ] {
            let told = told(&pod("cart", images), grants);
            assert_eq!(!told.is_empty(), refused, "{images:?}: {told}");
        }
    }

    #[test]
    fn a_refusal_has_the_grant_to_add() {
        assert_eq!(
            told(&pod("cart", &["counts:1"]), &[]),
            "pods \"p\" is forbidden: image \"counts:1\" imports wasi:keyvalue/store@0.2.0-draft2 and wasi:keyvalue/atomics@0.2.0-draft2, \
             and no CapabilityGrant of namespace shop gives that to ServiceAccount cart; add one: \
             {apiVersion: weft.dev/v1alpha1, kind: CapabilityGrant, metadata: {name: cart, namespace: shop}, \
             spec: {serviceAccountNames: [cart], keyValue: [{identifier: default, store: cart}]}}; \
             and the KeyValueStore that it names: {apiVersion: weft.dev/v1alpha1, kind: KeyValueStore, metadata: {name: cart, namespace: shop}}"
        );
        let both = told(&pod("has-store", &["both:1"]), &[]);
        assert!(both.ends_with(
            "spec: {serviceAccountNames: [has-store], config: [{configMapRef: {name: has-store}}], keyValue: [{identifier: default, store: has-store}]}}"
        ), "{both}");
        let quoted = told(&pod("1", &["counts:1"]), &[]);
        assert!(quoted.contains("serviceAccountNames: [\"1\"]"), "{quoted}");
        // What is printed is what the API takes.
        let yaml = both.split("add one: ").nth(1).unwrap();
        let value: Value = serde_saphyr::from_str(yaml).unwrap();
        let decoded = crate::decode::value(&CAPABILITY_GRANT.gvk(), &value).unwrap();
        assert_eq!(decoded.faults, [""; 0]);
        assert_eq!(
            crate::validate::told::of_new(&CAPABILITY_GRANT, &decoded.value),
            [""; 0]
        );
    }

    #[test]
    fn a_namespace_has_some_grants_and_no_more() {
        let grant = json!({"metadata": {"name": "g", "namespace": "shop"}, "spec": {"serviceAccountNames": ["cart"]}});
        for (count, taken) in [(0, true), (255, true), (256, false)] {
            let cluster = Cluster(vec![grant.clone(); count]);
            let admitted = CAPABILITY_GRANT
                .strategy
                .admit(&mut grant.clone(), &cluster);
            assert_eq!(admitted.is_ok(), taken, "{count}");
        }
    }

    #[test]
    fn a_sentence_names_some_of_many() {
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c", "d"]), "a, b, c and d");
        assert_eq!(listed(&["a"; 1000]), "a, a, a, a and 996 others");
    }

    #[test]
    fn a_workload_is_told_what_its_pods_will_be() {
        let workload = json!({"metadata": {"name": "w", "namespace": "shop"}, "spec": {"template": pod("cart", &["counts:1"])}});
        let kind = &crate::DEPLOYMENT;
        assert_eq!(
            kind.strategy.images(&workload),
            ["counts:1".to_owned()].into()
        );
        let told = kind.strategy.warn(&workload, &Cluster(Vec::new()));
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with("pods will be refused: image \"counts:1\" imports"),
            "{told:?}"
        );
        let stores =
            json!({"spec": {"serviceAccountNames": ["cart"], "keyValue": [{"store": "s"}]}});
        assert_eq!(
            kind.strategy.warn(&workload, &Cluster(vec![stores])),
            [""; 0]
        );
    }

    #[test]
    fn access_is_the_most_that_a_grant_gives() {
        let grant = json!({"spec": {"serviceAccountNames": ["cart"], "keyValue": [
            {"identifier": "a", "store": "s", "access": "ReadOnly"},
            {"identifier": "b", "store": "s", "access": "ReadWrite"},
            {"identifier": "c", "store": "t", "access": "ReadOnly"},
        ], "config": [{"secretRef": {"name": "k"}}, {"configMapRef": {"name": "m"}}], "outgoingHTTP": [{
            "hosts": ["a.b"], "credentials": [{"bearer": {"secretRef": {"name": "shown"}}}],
            "tls": {"caCertificates": {"configMapRef": {"name": "roots"}}},
        }]}});
        for (account, store, expected) in [
            ("cart", "s", Some(Access::ReadWrite)),
            ("cart", "t", Some(Access::ReadOnly)),
            ("cart", "u", None),
            ("other", "s", None),
        ] {
            assert_eq!(
                granted_store(&grant, account, store),
                expected,
                "{account} {store}"
            );
        }
        for (account, secret, name, expected) in [
            ("cart", true, "k", true),
            ("cart", false, "k", false),
            ("cart", false, "m", true),
            ("cart", true, "shown", true),
            ("cart", false, "shown", false),
            ("cart", false, "roots", true),
            ("other", true, "shown", false),
            ("other", true, "k", false),
        ] {
            assert_eq!(
                refers_to(&grant, account, secret, name),
                expected,
                "{account} {name}"
            );
        }
    }
}
