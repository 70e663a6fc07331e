//! Groups of the API that other servers serve, as APIServices say: who they are, and what they tell of themselves.
//!
//! Each server reads its own store: [`Aggregation::show`] brings what it knows to what a state of it says, for every change and for whoever asks
//! for a path that is not known ([`follow`]). Beside that it asks those servers for their discovery and OpenAPI documents, which are merged into
//! its own, now and then and whenever their APIService changes ([`documents`]). The leader makes the APIServices of what this server serves itself,
//! and finds out whether the others can be asked ([`tend`]). Requests are passed on by `crate::http::aggregated`.
//!
//! Invariants: who is asked is never told who a caller is by its credentials, but by headers that this server vouches for with a certificate of
//! its own; answers are bounded in bytes and time, and one server that does not answer keeps nobody from the documents of another; what is known
//! never goes back to an older state.
//!
//! Source: k8s.io/kube-aggregator `pkg/apiserver`.

mod documents;
mod follow;
mod lost;
mod tend;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use serde_json::Value;
use tokio_rustls::TlsConnector;
use weft_kinds::API_SERVICE;
use weft_kinds::apiregistration::{self, Priority, reference};
use weft_kinds::lens::{condition_is_true, flag, integer, text};
use weft_store::{Key, Revision, Snapshot};

pub(crate) use self::documents::{DISCOVERY_TIMEOUT, Documents, V2};
use self::lost::Lost;
use crate::ca::Authority;
use crate::caller::{Caller, GROUP_MASTERS};
use crate::encryption::Vault;
use crate::objects::Objects;
use crate::reach::tls::{self, Trust};
use crate::reach::{self, Line, State, Tls, Way};
use crate::stored::{self, Stored};

const REMOTE_USER: HeaderName = HeaderName::from_static("x-remote-user");
const REMOTE_UID: HeaderName = HeaderName::from_static("x-remote-uid");
const REMOTE_GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const REMOTE_EXTRA: &str = "x-remote-extra-";

/// A version of a group, and who serves it.
pub struct ApiService {
    pub name: String,
    pub group: String,
    pub version: String,
    pub(crate) priority: Priority,
    /// None of one that this server serves itself.
    pub(crate) service: Option<ServiceRef>,
    pub(crate) available: bool,
    trust: Trusting,
    tls: OnceLock<Result<TlsConnector, String>>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceRef {
    pub namespace: String,
    pub name: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Trusting {
    Bundle(Vec<u8>),
    Machine,
    Anybody,
}

impl std::fmt::Debug for ApiService {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)
    }
}

impl ApiService {
    fn read(object: &Value) -> Self {
        let service = reference(object).map(|(namespace, name, port)| ServiceRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            port,
        });
        let bundle = text(object, "/spec/caBundle");
        let trust = match (flag(object, "/spec/insecureSkipTLSVerify"), bundle) {
            (true, _) => Trusting::Anybody,
            (false, "") => Trusting::Machine,
            // One that cannot be decoded leads to nobody.
            (false, bundle) => Trusting::Bundle(STANDARD.decode(bundle).unwrap_or_default()),
        };
        Self {
            name: text(object, "/metadata/name").to_owned(),
            group: text(object, "/spec/group").to_owned(),
            version: text(object, "/spec/version").to_owned(),
            priority: Priority {
                group: integer(object, "/spec/groupPriorityMinimum").unwrap_or(0),
                version: integer(object, "/spec/versionPriority").unwrap_or(0),
            },
            service,
            available: condition_is_true(object, "Available"),
            trust,
            tls: OnceLock::new(),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        self.group == other.group
            && self.version == other.version
            && self.priority == other.priority
            && self.service == other.service
            && self.available == other.available
            && self.trust == other.trust
    }

    /// The path of its version, under which all that it serves is.
    pub(crate) fn root(&self) -> String {
        match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        }
    }

    /// How its server is met; what this server shows of itself is the same for all.
    pub(crate) fn connector(&self, authority: Option<&Authority>) -> Result<&TlsConnector, String> {
        let made = self.tls.get_or_init(|| {
            let trust = match &self.trust {
                Trusting::Bundle(pem) => Trust::Bundle(pem),
                Trusting::Machine => Trust::Machine,
                Trusting::Anybody => Trust::Anybody,
            };
            let shown = authority.map(Authority::front_proxy_client).transpose();
            let shown = shown.map_err(|error| error.to_string())?;
            tls::client_config(trust, shown).map(TlsConnector::from)
        });
        made.as_ref().map_err(Clone::clone)
    }
}

/// What the APIServices of a state say.
#[derive(Default)]
pub struct Registered {
    revision: Revision,
    by_version: BTreeMap<(String, String), Arc<ApiService>>,
    /// Whether one of them has a Service.
    others: bool,
}

impl Registered {
    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ApiService>> {
        self.by_version.values()
    }

    pub(crate) fn of(&self, group: &str, version: &str) -> Option<&Arc<ApiService>> {
        self.by_version.get(&(group.to_owned(), version.to_owned()))
    }

    /// Who else serves a path, if somebody does: all of its version, and of the oldest group all there is.
    pub(crate) fn serving(&self, path: &str) -> Option<&Arc<ApiService>> {
        if !self.others {
            return None;
        }
        let mut parts = path.trim_start_matches('/').split('/');
        let found = match parts.next()? {
            "apis" => {
                let (group, version) = (parts.next()?, parts.next()?);
                let known = group != apiregistration::GROUP;
                known.then(|| self.of(group, version)).flatten()
            }
            "api" => self.of("", "v1"),
            _ => None,
        };
        found.filter(|service| service.service.is_some())
    }
}

/// What this server knows of APIServices and of those who serve them. Cheap to clone; clones share it.
#[derive(Clone)]
pub(crate) struct Aggregation {
    shared: Arc<Shared>,
}

struct Shared {
    vault: Vault,
    registered: ArcSwap<Registered>,
    /// Held while a state is looked at, with the revision of each object that was.
    known: Mutex<BTreeMap<Key, (Revision, Arc<ApiService>)>>,
    lost: Lost,
    documents: Documents,
}

impl Aggregation {
    pub(crate) fn read(snapshot: &Snapshot, vault: &Vault) -> Self {
        let aggregation = Self {
            shared: Arc::new(Shared {
                vault: vault.clone(),
                registered: ArcSwap::default(),
                known: Mutex::default(),
                lost: Lost::default(),
                documents: Documents::default(),
            }),
        };
        aggregation.show(snapshot);
        aggregation
    }

    pub(crate) fn registered(&self) -> Arc<Registered> {
        self.shared.registered.load_full()
    }

    pub(crate) fn documents(&self) -> &Documents {
        &self.shared.documents
    }

    /// What is measured of APIServices, as Prometheus text.
    pub(crate) fn metrics(&self) -> String {
        self.shared.lost.text(&self.registered())
    }

    /// Knows what this state says, unless a newer one was shown.
    pub(crate) fn show(&self, snapshot: &Snapshot) {
        let Shared {
            vault,
            registered,
            known,
            lost,
            ..
        } = &*self.shared;
        let mut known = known.lock();
        if snapshot.revision() <= registered.load().revision && snapshot.revision() > 0 {
            return;
        }
        let prefix = stored::prefix(&API_SERVICE, None);
        let now: BTreeMap<Key, Revision> = snapshot.keys(&prefix, None).collect();
        known.retain(|key, _| now.contains_key(key));
        for (key, revision) in now {
            let old = known.get(&key);
            if old.is_some_and(|(of, _)| *of == revision) {
                continue;
            }
            let Some(entry) = snapshot.get(&key) else {
                continue;
            };
            let object = Stored::new(vault, &API_SERVICE, entry).value();
            let read = ApiService::read(&object);
            if old.is_some_and(|(_, old)| old.available) && !read.available {
                lost.count(&read.name, &object);
            }
            let service = match old {
                // Whoever holds it sees that nothing changed for it.
                Some((_, old)) if old.is_same(&read) => Arc::clone(old),
                _ => Arc::new(read),
            };
            known.insert(key, (revision, service));
        }
        let services = known.values().map(|(_, service)| Arc::clone(service));
        let by_version: BTreeMap<_, _> = services
            .map(|service| ((service.group.clone(), service.version.clone()), service))
            .collect();
        registered.store(Arc::new(Registered {
            revision: snapshot.revision(),
            others: by_version.values().any(|one| one.service.is_some()),
            by_version,
        }));
    }
}

/// Why somebody who serves a group could not be asked.
#[derive(Debug)]
pub(crate) enum Unasked {
    /// There is no way to it.
    Nowhere(String),
    /// It is configured so that nobody can be met.
    Unfit(String),
    /// It did not answer.
    Failed(String),
}

impl Unasked {
    fn why(self) -> String {
        match self {
            Self::Nowhere(why) | Self::Unfit(why) | Self::Failed(why) => why,
        }
    }
}

/// An open line to whoever serves a group, and where it leads.
pub(crate) struct Asking {
    pub line: Line,
    /// `HOST:PORT`, as URLs of the server have it.
    pub host: String,
}

/// What somebody who serves a group is asked by this server itself.
struct Question<'a> {
    path: &'a str,
    headers: &'a [(HeaderName, &'a str)],
    /// Most that is read of an answer.
    bytes_max: usize,
    /// From the first packet to the last byte.
    timeout: Duration,
}

/// What came back.
struct Answered {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Objects {
    /// What is known of APIServices here.
    pub fn api_services(&self) -> Arc<Registered> {
        self.aggregation().registered()
    }

    /// Where the Service of an APIService is, as a URL has it, and the way there.
    fn way_to(&self, service: &ServiceRef) -> Result<(String, Way), String> {
        let snapshot = self.store().snapshot();
        let state = State {
            snapshot: &snapshot,
            vault: self.vault(),
        };
        let ServiceRef {
            namespace,
            name,
            port,
        } = service;
        let way = state.service(namespace, name, *port, reach::turn())?;
        let object = state.object(&weft_kinds::SERVICE, Some(namespace), name);
        let host = match object
            .as_ref()
            .map(|object| text(object, "/spec/clusterIP"))
        {
            Some(ip) if !matches!(ip, "" | "None") => match ip.contains(':') {
                true => format!("[{ip}]:{port}"),
                false => format!("{ip}:{port}"),
            },
            _ => way.address().to_owned(),
        };
        Ok((host, way))
    }

    /// A line to whoever serves a group.
    pub(crate) async fn open_api_service(&self, service: &ApiService) -> Result<Asking, Unasked> {
        let Some(reference) = &service.service else {
            return Err(Unasked::Nowhere("it is served here".to_owned()));
        };
        let connector = service.connector(self.authority());
        let connector = connector.map_err(Unasked::Unfit)?;
        let (host, way) = self.way_to(reference).map_err(Unasked::Nowhere)?;
        let server_name = format!("{}.{}.svc", reference.name, reference.namespace);
        let tls = Tls {
            connector,
            server_name: &server_name,
        };
        let opened = self.reach().open(&way, Some(tls)).await;
        let line = opened.map_err(Unasked::Failed)?;
        Ok(Asking { line, host })
    }

    /// `HOST:PORT` of whoever serves a group, as URLs have it.
    fn host_of(&self, service: &ApiService) -> Result<String, String> {
        let reference = service.service.as_ref().ok_or("it is served here")?;
        self.way_to(reference).map(|(host, _)| host)
    }

    /// Asks whoever serves a group for something, as `system:kube-aggregator`.
    ///
    /// # Errors
    /// Why there is no answer. One with any status is none.
    async fn ask_api_service(
        &self,
        service: &ApiService,
        question: &Question<'_>,
    ) -> Result<Answered, Unasked> {
        let asking = async {
            let Asking { mut line, host } = self.open_api_service(service).await?;
            let failed = |why: &dyn std::fmt::Display| Unasked::Failed(why.to_string());
            let mut request = Request::get(question.path).header(header::HOST, host);
            for (name, value) in question.headers {
                request = request.header(name, *value);
            }
            let request = request.body(Body::empty());
            let mut request = request.map_err(|error| failed(&error))?;
            let groups = vec![GROUP_MASTERS.to_owned()];
            let aggregator = Caller::reviewed("system:kube-aggregator", None, groups);
            vouch_for(&aggregator, request.headers_mut());
            let response = line.send(request).await;
            let response = response.map_err(|unanswered| Unasked::Failed(unanswered.why()))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, question.bytes_max).collect().await;
            Ok(Answered {
                status: head.status,
                headers: head.headers,
                body: body.map_err(|error| failed(&error))?.to_bytes(),
            })
        };
        let asked = tokio::time::timeout(question.timeout, asking).await;
        let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
        asked.unwrap_or_else(|_| Err(Unasked::Failed(late.to_owned())))
    }
}

/// Says who asks, and nothing that the request itself says about that.
pub(crate) fn vouch_for(caller: &Caller, headers: &mut HeaderMap) {
    let told: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            [REMOTE_USER, REMOTE_UID, REMOTE_GROUP].contains(name)
                || name.as_str().starts_with(REMOTE_EXTRA)
        })
        .cloned()
        .collect();
    for name in told {
        headers.remove(name);
    }
    let mut say = |name: HeaderName, text: &str| {
        // What cannot be said leaves a caller with less, never with more.
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            headers.append(name, value);
        }
    };
    say(REMOTE_USER, caller.user());
    if let Some(uid) = caller.uid() {
        say(REMOTE_UID, uid);
    }
    for group in caller.groups() {
        say(REMOTE_GROUP, group);
    }
    for (key, values) in caller.extra() {
        let name = format!("{REMOTE_EXTRA}{}", escaped(key));
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            continue;
        };
        for value in values {
            say(name.clone(), value);
        }
    }
}

/// A key of what is known beside name and groups, as part of a header's name: what such a name cannot hold is escaped as in a URL.
fn escaped(key: &str) -> String {
    let mut out = String::new();
    for byte in key.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn who_asks_is_said_by_this_server_alone() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-remote-user",
            "x-remote-group",
            "x-remote-extra-scopes",
            "accept",
        ] {
            headers.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static("forged"),
            );
        }
        let groups = vec!["a".to_owned(), "b".to_owned()];
        let extra = [("example.com/team", vec!["x", "y"]), ("100%", vec!["z"])];
        let extra = extra.map(|(key, values)| {
            let values = values.into_iter().map(str::to_owned).collect();
            (key.to_owned(), values)
        });
        let caller = Caller::reviewed("jo", Some("7"), groups).with_extra(extra.into());
        vouch_for(&caller, &mut headers);
        let mut told: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        told.sort();
        assert_eq!(
            told,
            [
                "accept=forged",
                "x-remote-extra-100%25=z",
                "x-remote-extra-example.com%2fteam=x",
                "x-remote-extra-example.com%2fteam=y",
                "x-remote-group=a",
                "x-remote-group=b",
                "x-remote-uid=7",
                "x-remote-user=jo",
            ]
        );
    }

    pub(crate) fn registered() -> Registered {
        let service = |group: &str, version: &str, backed: bool| {
            let mut object = json!({"metadata": {"name": format!("{version}.{group}")}, "spec": {"group": group, "version": version}});
            if backed {
                object["spec"]["service"] = json!({"namespace": "n", "name": "s"});
            }
            let service = Arc::new(ApiService::read(&object));
            ((group.to_owned(), version.to_owned()), service)
        };
        Registered {
            revision: 1,
            by_version: [
                service("wardle.example.com", "v1", true),
                service("apps", "v1", false),
                service(apiregistration::GROUP, "v1", true),
            ]
            .into(),
            others: true,
        }
    }

    #[test]
    fn whoever_serves_a_version_serves_all_of_its_paths_and_no_others() {
        let registered = registered();
        for (path, expected) in [
            ("/apis/wardle.example.com/v1", Some("v1.wardle.example.com")),
            (
                "/apis/wardle.example.com/v1/",
                Some("v1.wardle.example.com"),
            ),
            (
                "/apis/wardle.example.com/v1/x/y",
                Some("v1.wardle.example.com"),
            ),
            ("/apis/wardle.example.com", None),
            ("/apis/wardle.example.com/v1beta1/x", None),
            ("/apis/apps/v1/deployments", None),
            ("/apis/apiregistration.k8s.io/v1/apiservices", None),
            ("/api/v1/pods", None),
            ("/healthz", None),
        ] {
            let found = registered
                .serving(path)
                .map(|service| service.name.as_str());
            assert_eq!(found, expected, "{path}");
        }
    }
}
