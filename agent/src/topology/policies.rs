//! The policies that say who may call whom, the accounts that are gone, and the keys that tokens are proven by.
//!
//! Keys are fetched by the node, through the mesh, as whoever fetches them for all: a place in the cluster is a Service like any other, and one
//! outside is asked for at public addresses alone, as CapabilityGrants have it, so that nobody's policy has a node ask its own network.
//!
//! Invariants: a fetch is bounded in time and size; keys that were fetched hold until others are; what no policy names is forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Uri};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ApiResource, DynamicObject};
use weft_api::identity::SpiffeId;
use weft_mesh::{
    Body, CallerInfo, EgressManner, EgressRule, EgressScheme, Keys, Mesh, Outbound, WorkloadInfo,
};
use weft_policy::PolicyKind;

use super::cluster::Cluster;
use super::{GATEWAY_API_VERSIONS, List, Topology};

/// How often keys are fetched again, where that was done, as Envoy does.
const AGAIN: Duration = Duration::from_secs(300);
/// And where it was not.
const RETRY: Duration = Duration::from_secs(5);
/// For one set of keys.
const FETCH_MAX: Duration = Duration::from_secs(5);
/// A set of 64 keys of RSA is 40 KiB.
const SET_BYTES_MAX: usize = 256 << 10;
/// Places that are asked; each policy names its own.
const PLACES_MAX: usize = 256;
/// Who fetches.
const ACCOUNT: (&str, &str) = ("weft-system", "token-keys");

const GROUP: &str = "security.istio.io";

pub(super) const NETWORKS: List<NetworkPolicy> = List {
    name: "networkpolicies",
    names: |cluster| cluster.policy_names(PolicyKind::Network),
    apply: |cluster, policy| {
        let spec = serde_json::to_value(&policy.spec).unwrap_or_default();
        cluster.apply_policy(PolicyKind::Network, &policy.metadata, &spec);
    },
    delete: |cluster, name| cluster.delete_policy(PolicyKind::Network, name),
};

pub(super) const AUTHORIZATIONS: List<DynamicObject> = List {
    name: "authorizationpolicies",
    names: |cluster| cluster.policy_names(PolicyKind::Authorization),
    apply: |cluster, policy| take(cluster, PolicyKind::Authorization, &policy),
    delete: |cluster, name| cluster.delete_policy(PolicyKind::Authorization, name),
};

pub(super) const TOKENS: List<DynamicObject> = List {
    name: "requestauthentications",
    names: |cluster| cluster.policy_names(PolicyKind::RequestAuthentication),
    apply: |cluster, policy| take(cluster, PolicyKind::RequestAuthentication, &policy),
    delete: |cluster, name| cluster.delete_policy(PolicyKind::RequestAuthentication, name),
};

pub(super) const ACCOUNTS: List<ServiceAccount> = List {
    name: "serviceaccounts",
    names: Cluster::accounts,
    apply: |cluster, account| cluster.apply_account(&account),
    delete: Cluster::delete_account,
};

fn take(cluster: &mut Cluster, kind: PolicyKind, policy: &DynamicObject) {
    let nothing = serde_json::Value::Null;
    let spec = policy.data.get("spec").unwrap_or(&nothing);
    cluster.apply_policy(kind, &policy.metadata, spec);
}

/// All objects of a kind of Istio's, in the version at a place: it has the same two as the Gateway API.
pub(super) fn all_of(
    kind: &'static str,
    plural: &'static str,
) -> impl Fn(kube::Client, usize) -> Api<DynamicObject> {
    move |client, version| {
        let version = GATEWAY_API_VERSIONS[version];
        let resource = ApiResource {
            group: GROUP.into(),
            version: version.into(),
            api_version: format!("{GROUP}/{version}"),
            kind: kind.into(),
            plural: plural.into(),
        };
        Api::all_with(client, &resource)
    }
}

impl Topology {
    /// Fetches keys of tokens, for ever.
    pub(super) async fn token_keys(&self, mesh: &Mesh) {
        let (namespace, account) = ACCOUNT;
        let trust_domain = mesh.gateway_identity().trust_domain;
        let identity = SpiffeId::new(&trust_domain, namespace, account);
        let outbound = mesh.outbound(CallerInfo {
            identity: identity.clone(),
            workload: WorkloadInfo::from_labels(account, namespace, &BTreeMap::new()),
        });
        let mut known: BTreeMap<String, Arc<Keys>> = BTreeMap::new();
        loop {
            let mut places = self.seen.lock().cluster.key_places();
            places.truncate(PLACES_MAX);
            let rules: Vec<EgressRule> = places.iter().filter_map(|place| rule(place)).collect();
            // What is wrong with a place, asking for it tells.
            let _ = mesh.set_egress_rules(&identity, &rules);
            known.retain(|place, _| places.contains(place));
            let mut is_missing = false;
            for place in places {
                match fetched(&outbound, &place).await {
                    Ok(keys) => {
                        known.insert(place, Arc::new(keys));
                    }
                    Err(why) => {
                        is_missing |= !known.contains_key(&place);
                        tracing::warn!(%place, why, "keys of tokens cannot be fetched; what was fetched before holds");
                    }
                }
            }
            mesh.set_token_keys(known.clone());
            let pause = match (known.is_empty(), is_missing) {
                (_, true) => Some(RETRY),
                (false, false) => Some(AGAIN),
                (true, false) => None,
            };
            let again = async {
                match pause {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.keyed.notified() => {}
                () = again => {}
            }
        }
    }
}

/// What lets the fetcher out, to this place and no other.
fn rule(place: &str) -> Option<EgressRule> {
    let uri: Uri = place.parse().ok()?;
    let (scheme, port) = match uri.scheme_str()? {
        "https" => (EgressScheme::Https, 443),
        "http" => (EgressScheme::Http, 80),
        _ => return None,
    };
    Some(EgressRule {
        manner: EgressManner::default(),
        grant: "RequestAuthentication".to_owned(),
        hosts: vec![uri.host()?.trim_matches(['[', ']']).to_owned()],
        ports: vec![uri.port_u16().unwrap_or(port)],
        scheme,
        paths: Vec::new(),
        methods: vec!["GET".to_owned()],
        addresses: Vec::new(),
    })
}

async fn fetched(outbound: &Outbound, place: &str) -> Result<Keys, String> {
    let request = Request::get(place).header("accept", "application/json");
    let request = request
        .body(Body::empty())
        .map_err(|_| "it is no URL".to_owned())?;
    let asking = async {
        let response = outbound.call(request).await;
        let response = response.map_err(|failure| failure.to_string())?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("it is answered with {status}"));
        }
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| "its answer breaks off".to_owned())?;
            let bytes = frame.into_data().unwrap_or_default();
            if text.len() + bytes.len() > SET_BYTES_MAX {
                return Err("its answer is too long".to_owned());
            }
            text.extend_from_slice(&bytes);
        }
        let text = String::from_utf8(text);
        let keys = text.ok().and_then(|text| Keys::read(&text));
        keys.ok_or_else(|| "its answer is no JSON Web Key Set".to_owned())
    };
    tokio::time::timeout(FETCH_MAX, asking)
        .await
        .unwrap_or_else(|_| Err("it takes too long to answer".to_owned()))
}
