//! The servers of this cluster: who they are, how one joins and leaves, who leads; and the backup of what they keep.
//!
//! ```text
//! GET    /weft/v1/servers        all of them             administrators, nodes (which need the addresses), joining servers
//! POST   /weft/v1/servers        give a new one a number and the authority       administrators, joining servers
//! DELETE /weft/v1/servers/ID     remove one for ever                             administrators
//! POST   /weft/v1/leader         hand leadership over                            administrators
//! GET    /weft/v1/backup         everything, as one file                         administrators
//! ```
//!
//! Not resources of Kubernetes' kind: their truth is the membership of the raft group, not an object. Where each server
//! serves its API is kept in the ConfigMap `kube-system/weft-servers`, for the others to tell.
//!
//! Invariant: the authority's key goes to administrators and to holders of a server token only (`crate::authz`).
//! Left to others: changing the members (`weft_store`), being one (`weft`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path as Captured, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use futures::TryStreamExt as _;
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use uuid::Uuid;
use weft_api::Object;
use weft_api::status::StatusError;
use weft_store::{BackupError, MemberError, ServerId};

use super::AppState;
use super::error::ApiError;
use crate::authz::{Authorized, SERVERS_PATH};
use crate::ca::Authority;
use crate::caller::Caller;
use crate::objects::{Objects, Patch, SERVER_ADDRESSES, WriteOptions};
use crate::request::ObjectRef;

/// Where the addresses of the servers' APIs are kept.
const NAMESPACE: &str = SERVER_ADDRESSES.0;
const CONFIG_MAP: &str = SERVER_ADDRESSES.1;

/// Longest address of a server: a DNS name and a port.
const ADDRESS_BYTES_MAX: usize = 261;

/// Bytes of a backup that are sent at once.
const CHUNK_BYTES: usize = 256 << 10;

/// What these paths need beside the objects.
#[derive(Clone)]
pub struct Servers {
    pub authority: Authority,
    pub cluster_id: String,
    /// The one that answers here.
    pub server_id: ServerId,
    /// Where the others reach it; `None` for one that is not to be reached.
    pub peer_address: Option<String>,
    /// Where the keys are kept that Secrets are encrypted with.
    pub key_file: PathBuf,
    /// Where a backup lies while it is sent.
    pub scratch_dir: PathBuf,
}

/// One server, as it is told to those who ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerStatus {
    pub id: ServerId,
    /// Where the other servers reach it, `HOST:PORT`.
    pub peer_address: String,
    /// Where it serves the API; absent until it has said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub voter: bool,
    pub leader: bool,
    /// Entries of the log that it has not acknowledged; only the leader knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
}

/// The answer to a list of servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerList {
    pub cluster_id: String,
    pub servers: Vec<ServerStatus>,
}

/// What a new server says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinRequest {
    /// Where the other servers will reach it, `HOST:PORT`.
    pub peer_address: String,
    /// A server whose place it takes, which is gone for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<ServerId>,
}

/// What a new server is told.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    pub id: ServerId,
    pub cluster_id: String,
    pub ca_certificate: String,
    pub ca_key: String,
    /// The file of the keys that Secrets are encrypted with; empty where they are not.
    pub encryption_keys: String,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TransferRequest {
    to: Option<ServerId>,
}

pub(super) fn routes() -> Router<AppState> {
    Router::new()
        .route(SERVERS_PATH, get(list).post(join))
        .route("/weft/v1/servers/{id}", delete(remove))
        .route("/weft/v1/leader", post(transfer))
        .route("/weft/v1/backup", get(backup))
}

async fn list(State(state): State<AppState>) -> Result<Response, ApiError> {
    let list = ServerList {
        cluster_id: state.servers.cluster_id.clone(),
        servers: status(&state.objects).await?,
    };
    Ok(axum::Json(list).into_response())
}

/// The servers with the addresses of their APIs, as this one has applied them.
///
/// # Errors
/// 500 where the stored addresses cannot be read.
pub async fn status(objects: &Objects) -> Result<Vec<ServerStatus>, StatusError> {
    let urls = urls(objects).await?;
    let members = objects.store().members().into_iter();
    let status = members.map(|member| ServerStatus {
        id: member.server,
        peer_address: member.address,
        url: urls.get(&member.server.to_string()).cloned(),
        voter: member.voter,
        leader: member.leader,
        behind: member.behind,
    });
    Ok(status.collect())
}

/// Where the servers of this cluster serve the API, as far as they have said it by an address.
///
/// # Errors
/// 500 where the stored addresses cannot be read.
pub async fn addresses(objects: &Objects) -> Result<BTreeSet<SocketAddr>, StatusError> {
    let urls = urls(objects).await?;
    let members = objects.store().members().into_iter();
    Ok(members
        .filter_map(|member| urls.get(&member.server.to_string()))
        .filter_map(|url| {
            url.strip_prefix("https://")?
                .trim_end_matches('/')
                .parse()
                .ok()
        })
        .collect())
}

async fn urls(objects: &Objects) -> Result<BTreeMap<String, String>, StatusError> {
    let reader = Caller::system("apiserver", None);
    let kind = &weft_kinds::CONFIG_MAP;
    // What this server has is good enough for addresses, and there without a majority.
    let reader = objects.client(&reader);
    let found = reader.get_at(kind, Some(NAMESPACE), CONFIG_MAP, Some(0));
    match found.await {
        Ok(stored) => {
            let data = stored.object().as_value()["data"].clone();
            Ok(serde_json::from_value(data).unwrap_or_default())
        }
        Err(error) if error.is_not_found() => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Writes down where `server` serves its API, and forgets those who are no servers any more.
///
/// # Errors
/// Whatever kept the store from taking it.
pub async fn publish(objects: &Objects, server: ServerId, url: &str) -> Result<(), StatusError> {
    let known = urls(objects).await?;
    let members = objects.store().members();
    let mut data = serde_json::Map::new();
    for id in known.keys() {
        if !members
            .iter()
            .any(|member| member.server.to_string() == *id)
        {
            data.insert(id.clone(), Value::Null);
        }
    }
    let own = server.to_string();
    if known.get(&own).map(String::as_str) == Some(url) && data.is_empty() {
        return Ok(());
    }
    data.insert(own.clone(), url.into());
    patch(objects, json!({ "data": data })).await
}

async fn patch(objects: &Objects, patch: Value) -> Result<(), StatusError> {
    let writer = Caller::system("apiserver", None);
    let writer = objects.client(&writer);
    let (kind, options) = (&weft_kinds::CONFIG_MAP, WriteOptions::default());
    let namespace = Some(NAMESPACE);
    let map = ObjectRef::new(kind, namespace, CONFIG_MAP);
    let merge = Patch::merge(&patch);
    let patched = writer.patch(map, None, merge, &options).await;
    match patched {
        Ok(_) => return Ok(()),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error),
    }
    let mut object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": CONFIG_MAP, "namespace": NAMESPACE},
    });
    object["data"] = patch["data"].clone();
    if let Some(data) = object["data"].as_object_mut() {
        data.retain(|_, url| !url.is_null());
    }
    let object = Object::from_value(object).map_err(StatusError::internal)?;
    match writer.create(kind, namespace, object, &options).await {
        // Another server was first: its address and ours belong together.
        Err(error) if error.is_already_exists() => {
            let again = writer.patch(map, None, merge, &options);
            again.await.map(drop)
        }
        created => created.map(drop),
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &Bytes) -> Result<T, StatusError> {
    serde_json::from_slice(body).map_err(|error| {
        StatusError::bad_request(format!("the request body is not usable: {error}"))
    })
}

fn check_address(address: &str) -> Result<(), StatusError> {
    let usable = address.len() <= ADDRESS_BYTES_MAX
        && address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
    if usable {
        return Ok(());
    }
    Err(StatusError::bad_request(format!(
        "peerAddress {address:?} is not HOST:PORT, as 10.0.0.2:6444"
    )))
}

/// Refuses to bring servers together that could not reach each other.
fn check_neighbours(own: Option<&str>, new: &str) -> Result<(), StatusError> {
    let Some(own) = own else {
        return Err(StatusError::conflict_message(
            "this server has no port for other servers: start it with `weft server`, or several with `weft up --servers 3`",
        ));
    };
    let local = |address: &str| {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
    };
    for (here, there) in [(own, new), (new, own)] {
        if local(here) && !local(there) {
            return Err(StatusError::bad_request(format!(
                "{here} is an address that only its own machine reaches, and the other server is at {there}: \
                 start that server with --advertise-address"
            )));
        }
    }
    Ok(())
}

async fn join(
    State(state): State<AppState>,
    Extension(asked): Extension<Authorized>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let request: JoinRequest = parse(&body)?;
    check_address(&request.peer_address)?;
    check_neighbours(state.servers.peer_address.as_deref(), &request.peer_address)?;
    let store = state.objects.store();
    if let Some(old) = request.replaces {
        // Gone already is what was wanted.
        let there = store.members().iter().any(|member| member.server == old);
        if there {
            store.remove(old).await.map_err(member_failed)?;
        }
    }
    // A learner at this address is what an earlier try left behind. It never voted, but with its number a new disk would
    // deny what the old one has acknowledged.
    let left = store.members().into_iter();
    for left in left.filter(|member| !member.voter && member.address == request.peer_address) {
        store.remove(left.server).await.map_err(member_failed)?;
    }
    let servers = &state.servers;
    // Read before anything is changed: without them the new server could not be told.
    let ca = servers
        .authority
        .credentials()
        .map_err(StatusError::internal)?;
    let encryption_keys = match tokio::fs::read_to_string(&servers.key_file).await {
        Ok(keys) => keys,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(StatusError::internal(error).into()),
    };
    let id = store
        .add_learner(request.peer_address.clone())
        .await
        .map_err(member_failed)?;
    tracing::info!(id, address = request.peer_address, caller = %asked.caller(), "a server joins");
    let joined = Joined {
        id,
        cluster_id: servers.cluster_id.clone(),
        ca_certificate: ca.certificate_pem,
        ca_key: ca.key_pem,
        encryption_keys,
    };
    Ok(axum::Json(joined).into_response())
}

async fn remove(
    State(state): State<AppState>,
    Extension(asked): Extension<Authorized>,
    Captured(id): Captured<String>,
) -> Result<Response, ApiError> {
    let id: ServerId = id
        .parse()
        .map_err(|_| StatusError::bad_request(format!("{id:?} is not the number of a server")))?;
    state
        .objects
        .store()
        .remove(id)
        .await
        .map_err(member_failed)?;
    tracing::info!(id, caller = %asked.caller(), "a server was removed");
    // The addresses of those who stay are put right by them; a stale one costs a try.
    if let Err(error) = patch(&state.objects, json!({"data": {id.to_string(): null}})).await {
        tracing::warn!(%error, id, "the address of a removed server is still told");
    }
    Ok(axum::Json(json!({ "id": id })).into_response())
}

async fn transfer(State(state): State<AppState>, body: Bytes) -> Result<Response, ApiError> {
    let request: TransferRequest = match body.is_empty() {
        true => TransferRequest::default(),
        false => parse(&body)?,
    };
    let to = state.objects.store().transfer(request.to).await;
    let to = to.map_err(member_failed)?;
    Ok(axum::Json(json!({ "leader": to })).into_response())
}

/// A file that goes with its last reader.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "a finished backup was not removed");
        }
    }
}

async fn backup(State(state): State<AppState>) -> Result<Response, ApiError> {
    let scratch = Scratch(new_file(&state.servers.scratch_dir));
    let made = state.objects.store().backup(&scratch.0).await;
    let made = made.map_err(backup_failed)?;
    let file = tokio::fs::File::open(&scratch.0)
        .await
        .map_err(StatusError::internal)?;
    let bytes = file.metadata().await.map_err(StatusError::internal)?.len();
    let chunks = futures::stream::try_unfold((file, scratch), |(mut file, scratch)| async move {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut file)
            .take(CHUNK_BYTES as u64)
            .read_to_end(&mut chunk)
            .await?;
        Ok::<_, std::io::Error>((read > 0).then_some((chunk, (file, scratch))))
    });
    let mut response = Response::new(Body::from_stream(chunks.map_ok(Bytes::from)));
    let headers = response.headers_mut();
    let binary = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, binary);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    headers.insert("weft-revision", HeaderValue::from(made.revision));
    headers.insert("weft-entries", HeaderValue::from(made.entries));
    Ok(response)
}

fn new_file(dir: &Path) -> PathBuf {
    dir.join(format!("backup-{}", Uuid::new_v4()))
}

fn member_failed(error: MemberError) -> StatusError {
    let text = error.to_string();
    match error {
        MemberError::Invalid { .. } => StatusError::conflict_message(text),
        MemberError::NotLeader { .. } | MemberError::NoQuorum | MemberError::Busy => {
            StatusError::try_again(text, 1)
        }
        MemberError::Unknown => StatusError::timeout(text),
        MemberError::Closed => StatusError::unavailable(text),
    }
}

fn backup_failed(error: BackupError) -> StatusError {
    match error {
        BackupError::Read(error) => crate::objects::read_failed(error),
        error => StatusError::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_reached_at_a_host_and_a_port() {
        for (address, usable) in [
            ("10.0.0.2:6444", true),
            ("[::1]:6444", true),
            ("db.example:1", true),
            ("10.0.0.2", false),
            (":6444", false),
            ("host:0", false),
            ("host:99999", false),
        ] {
            assert_eq!(check_address(address).is_ok(), usable, "{address}");
        }
        let long = format!("{}:1", "a".repeat(300));
        assert!(check_address(&long).is_err());
    }
}
