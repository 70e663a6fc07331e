//! Tokens that let nodes and servers join: bootstrap tokens, as Kubernetes keeps them.
//!
//! A server makes its own anew at each start and removes those of its earlier starts; those of other servers are left
//! alone.

use jiff::Timestamp;
use rand::Rng as _;
use serde_json::json;
use weft_api::{LabelSelector, Object, StatusError};
use weft_apiserver::caller::{Caller, GROUP_SERVERS};
use weft_apiserver::listing::ListOptions;
use weft_apiserver::objects::{Objects, WriteOptions};
use weft_store::ServerId;

/// A join token is for the machines that are set up now.
const LIFETIME: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// Letters of a bootstrap token: Kubernetes' form is six, a dot and sixteen.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Whom a token lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Nodes,
    /// Who holds it gets the cluster's authority.
    Servers,
}

fn random_letters(count: usize) -> String {
    let mut rng = rand::rng();
    (0..count)
        .map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]))
        .collect()
}

/// Creates a token for those who join from now on, in place of the one `server` made before.
///
/// # Errors
/// Whatever kept the store from taking it.
pub(super) async fn renew(
    objects: &Objects,
    server: ServerId,
    whom: For,
) -> Result<String, StatusError> {
    let (label, groups, description) = match whom {
        For::Nodes => ("weft.dev/join-token", "", "Lets nodes join this cluster."),
        For::Servers => (
            "weft.dev/server-token",
            GROUP_SERVERS,
            "Lets servers join this cluster.",
        ),
    };
    let caller = Caller::system("token-issuer", None);
    let (kind, namespace) = (&weft_kinds::SECRET, Some("kube-system"));
    let mine = LabelSelector::parse(&format!("{label}={server}")).map_err(StatusError::internal)?;
    let old = ListOptions::labelled(mine);
    let client = objects.client(&caller);
    client
        .delete_collection(kind, namespace, &old, &Default::default())
        .await?;
    let (id, secret) = (random_letters(6), random_letters(16));
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": format!("bootstrap-token-{id}"),
            "namespace": "kube-system",
            "labels": {label: server.to_string()},
        },
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": id,
            "token-secret": secret,
            "expiration": weft_api::time::rfc3339(Timestamp::now() + LIFETIME),
            "usage-bootstrap-authentication": "true",
            "description": description,
        },
    });
    if !groups.is_empty() {
        object["stringData"]["auth-extra-groups"] = groups.into();
    }
    let object = Object::from_value(object).map_err(StatusError::internal)?;
    let options = WriteOptions::default();
    client.create(kind, namespace, object, &options).await?;
    Ok(format!("{id}.{secret}"))
}
