//! The audit log: who asked what, when, and what became of it, as Kubernetes writes it (`audit.k8s.io/v1`).
//!
//! A request is judged by the policy once it is known who asks ([`Audit::begin`]); what is written of it is gathered in a [`Trail`], which the
//! handlers fill: what was sent, why it was allowed or not, what was answered. A request that is given up is written down by [`Open`].
//!
//! Invariants: nothing of a Secret's value is in a line unless a policy asks for more than metadata of Secrets; bodies beyond
//! [`BODY_BYTES_MAX`] are left out. Left to others: which requests ([`policy`]), the file ([`log`]), and who is sent events ([`webhook`]).

pub mod log;
pub mod policy;
pub mod webhook;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use weft_kinds::lens::put;

use self::log::Log;
use self::policy::{Level, Policy, Stage, Wanted};
use self::webhook::Webhook;
use crate::caller::Caller;
use crate::request::{Asked, RequestInfo};

/// Bodies that are written down: a line is read by programs that have no room for more.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Hops that are written down of those that a request says it passed.
const HOPS_MAX: usize = 16;

/// Where requests are written down. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    policy: Arc<Policy>,
    sinks: Sinks,
}

/// Where events go.
#[derive(Clone, Default)]
struct Sinks {
    log: Option<Log>,
    webhook: Option<Webhook>,
    events: Arc<AtomicU64>,
}

impl Sinks {
    fn send(&self, event: &str) {
        self.events.fetch_add(1, Ordering::Relaxed);
        if let Some(webhook) = &self.webhook {
            webhook.write(event.to_owned());
        }
    }

    /// Comes as soon as there is room in the file's queue.
    async fn write(&self, event: String) {
        self.send(&event);
        if let Some(log) = &self.log {
            log.write(event).await;
        }
    }

    fn write_now(&self, event: String) {
        self.send(&event);
        if let Some(log) = &self.log {
            log.write_now(event);
        }
    }
}

/// What is gathered of one request. Clones are the same request's.
#[derive(Clone)]
pub(crate) struct Trail {
    sinks: Sinks,
    wanted: Arc<Wanted>,
    event: Arc<Mutex<Value>>,
}

fn user_of(caller: &Caller) -> Value {
    let mut user = json!({"username": caller.user(), "groups": caller.groups()});
    put(&mut user, "uid", caller.uid().map(Value::from));
    if !caller.extra().is_empty() {
        user["extra"] = json!(caller.extra());
    }
    user
}

fn micros(at: Timestamp) -> Value {
    at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into()
}

/// Where a request says that it came from, hop by hop, and last, where it came from.
fn addresses(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<IpAddr> {
    let told = |name: &str| {
        let values = headers.get_all(name).into_iter();
        let words = values.filter_map(|value| value.to_str().ok());
        let words = words.flat_map(|value| value.split(','));
        words.filter_map(|word| word.trim().parse().ok())
    };
    let mut all: Vec<IpAddr> = told("x-forwarded-for").take(HOPS_MAX).collect();
    let further = told("x-real-ip").take(1).chain(peer);
    for address in further {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

/// What a request is about; nothing for what is no resource.
fn reference(info: &RequestInfo) -> Option<Value> {
    let access = info.access()?;
    let version = match &info.asked {
        Asked::Resource(one) => &*one.kind.version,
        Asked::Review { kind, .. } | Asked::Computed { kind, .. } => &*kind.version,
        // Nothing is known of its kind but where it is.
        Asked::Aggregated(one) => one.service.version.as_str(),
        Asked::Bindings { .. } | Asked::Registry | Asked::Path(_) => "v1",
    };
    let mut reference = json!({"resource": access.resource, "apiVersion": version});
    let fields = [
        ("namespace", access.namespace),
        ("name", access.name),
        ("apiGroup", Some(access.group)),
        ("subresource", access.subresource),
    ];
    for (field, text) in fields {
        let text = text.filter(|text| !text.is_empty());
        put(&mut reference, field, text.map(Value::from));
    }
    Some(reference)
}

impl Audit {
    /// Writes nowhere yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: Arc::new(policy),
            sinks: Sinks::default(),
        }
    }

    /// The same, to a file.
    #[must_use]
    pub fn to_log(mut self, log: Log) -> Self {
        self.sinks.log = Some(log);
        self
    }

    /// The same, to a webhook.
    #[must_use]
    pub fn to_webhook(mut self, webhook: Webhook) -> Self {
        self.sinks.webhook = Some(webhook);
        self
    }

    /// Comes once everything that was taken is written, and sent or given up.
    pub async fn flush(&self) {
        if let Some(log) = &self.sinks.log {
            log.flush().await;
        }
        if let Some(webhook) = &self.sinks.webhook {
            webhook.flush().await;
        }
    }

    /// What is counted of events, as Prometheus text under Kubernetes' names.
    pub(crate) fn metrics(&self) -> String {
        let Sinks {
            log,
            webhook,
            events,
        } = &self.sinks;
        let events = events.load(Ordering::Relaxed);
        let lost = [
            ("log", log.as_ref().map(Log::lost)),
            ("webhook", webhook.as_ref().map(Webhook::lost)),
        ];
        let lost = lost.into_iter().filter_map(|(plugin, lost)| {
            let lost = lost?;
            Some(format!(
                "apiserver_audit_error_total{{plugin=\"{plugin}\"}} {lost}\n"
            ))
        });
        let lost: String = lost.collect();
        format!(
            "# HELP apiserver_audit_event_total Events that were written down.\n\
             # TYPE apiserver_audit_event_total counter\n\
             apiserver_audit_event_total {events}\n\
             # HELP apiserver_audit_error_total Events that were lost.\n\
             # TYPE apiserver_audit_error_total counter\n{lost}"
        )
    }

    /// Begins to gather what is written of a request, if anything is. `caller` is none for one whose credentials are not good.
    pub(crate) async fn begin(
        &self,
        caller: Option<&Caller>,
        info: &RequestInfo,
        uri: &str,
        headers: &HeaderMap,
        audit_id: &str,
    ) -> Option<Trail> {
        let wanted = self.policy.wanted(caller, info);
        if wanted.level == Level::None {
            return None;
        }
        let now = micros(Timestamp::now());
        let agent = headers.get(header::USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok());
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1",
            "level": wanted.level.name(),
            "auditID": audit_id,
            "requestURI": uri,
            "verb": info.verb,
            "user": caller.map_or_else(|| json!({}), user_of),
            "requestReceivedTimestamp": now,
        });
        let addresses = addresses(headers, caller.and_then(Caller::address));
        let addresses = Some(addresses).filter(|addresses| !addresses.is_empty());
        let addresses = addresses.map(|addresses| json!(addresses));
        put(&mut event, "sourceIPs", addresses);
        put(&mut event, "userAgent", agent.map(Value::from));
        put(&mut event, "objectRef", reference(info));
        let trail = Trail {
            sinks: self.sinks.clone(),
            wanted: Arc::new(wanted),
            event: Arc::new(Mutex::new(event)),
        };
        trail.write(Stage::RequestReceived).await;
        Some(trail)
    }
}

impl Trail {
    fn line(&self, stage: Stage) -> Option<String> {
        if self.wanted.omitted.contains(&stage) {
            return None;
        }
        let mut event = self.event.lock().clone();
        event["stage"] = stage.name().into();
        event["stageTimestamp"] = micros(Timestamp::now());
        Some(event.to_string())
    }

    /// Writes down what is known by now.
    pub(crate) async fn write(&self, stage: Stage) {
        if let Some(line) = self.line(stage) {
            self.sinks.write(line).await;
        }
    }

    /// The same, from where nobody can wait.
    pub(crate) fn write_now(&self, stage: Stage) {
        if let Some(line) = self.line(stage) {
            self.sinks.write_now(line);
        }
    }

    /// The request is made in another's name.
    pub(crate) fn acts_for(&self, other: &Caller) {
        self.event.lock()["impersonatedUser"] = user_of(other);
    }

    /// Notes something beside.
    pub(crate) fn note(&self, key: &str, value: &str) {
        let mut event = self.event.lock();
        let mut notes: BTreeMap<String, String> = event
            .get("annotations")
            .and_then(|notes| serde_json::from_value(notes.clone()).ok())
            .unwrap_or_default();
        // The first that says something is believed.
        notes
            .entry(key.to_owned())
            .or_insert_with(|| value.to_owned());
        event["annotations"] = json!(notes);
    }

    /// Why it was allowed, or not.
    pub(crate) fn decided(&self, allowed: bool, reason: &str) {
        let decision = if allowed { "allow" } else { "forbid" };
        self.note("authorization.k8s.io/decision", decision);
        self.note("authorization.k8s.io/reason", reason);
    }

    /// Whether what is sent is to be written down.
    pub(crate) fn wants_body(&self) -> bool {
        self.wanted.level >= Level::Request
    }

    /// What was sent, in JSON.
    pub(crate) fn sent(&self, body: &Bytes) {
        if self.wants_body() {
            self.keep("requestObject", body);
        }
    }

    /// Whether what is answered is to be written down.
    pub(crate) fn wants_answer(&self) -> bool {
        self.wanted.level == Level::RequestResponse
    }

    /// With which code it was answered.
    pub(crate) fn answered(&self, code: u16) {
        self.event.lock()["responseStatus"] = json!({"metadata": {}, "code": code});
    }

    /// What was answered, in JSON: a refusal's words, and the whole where that is asked for.
    pub(crate) fn answer(&self, body: &Bytes) {
        if let Ok(status) = serde_json::from_slice::<Value>(body)
            && status["kind"] == "Status"
        {
            let mut told = json!({"metadata": {}});
            for field in ["status", "message", "reason", "code"] {
                put(&mut told, field, status.get(field).cloned());
            }
            self.event.lock()["responseStatus"] = told;
        }
        if self.wants_answer() {
            self.keep("responseObject", body);
        }
    }

    /// What a request is about, as far as only its body says: the name of what is made.
    fn complete(&self, object: &Value) {
        let mut event = self.event.lock();
        let Some(reference) = event.get_mut("objectRef") else {
            return;
        };
        for field in ["namespace", "name"] {
            let told = object["metadata"][field].as_str().unwrap_or("");
            if reference.get(field).is_none() && !told.is_empty() {
                reference[field] = told.into();
            }
        }
    }

    fn keep(&self, field: &str, body: &Bytes) {
        if body.is_empty() || body.len() > BODY_BYTES_MAX {
            return;
        }
        let Ok(mut object) = serde_json::from_slice::<Value>(body) else {
            return;
        };
        if field == "requestObject" {
            self.complete(&object);
        }
        if self.wanted.without_managed_fields
            && let Some(metadata) = object.get_mut("metadata")
        {
            put(metadata, "managedFields", None);
        }
        self.event.lock()[field] = object;
    }
}

/// A request whose end is not written down yet: it is whichever way it ends, be it that the client goes away.
#[derive(Default)]
pub(crate) struct Open(Option<Trail>);

impl Open {
    pub(crate) fn new(trail: Option<Trail>) -> Self {
        Self(trail)
    }

    pub(crate) fn trail(&self) -> Option<&Trail> {
        self.0.as_ref()
    }

    /// Writes that the answer is over.
    pub(crate) async fn close(mut self) {
        if let Some(trail) = self.0.take() {
            trail.write(Stage::ResponseComplete).await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(trail) = self.0.take() {
            trail.write_now(Stage::ResponseComplete);
        }
    }
}

tokio::task_local! {
    /// The request that is served; none where nothing is written of it.
    static SERVED: Trail;
}

/// Serves a request so that [`note`] finds it.
pub(crate) async fn serving<F: Future>(trail: Option<Trail>, served: F) -> F::Output {
    match trail {
        Some(trail) => SERVED.scope(trail, served).await,
        None => served.await,
    }
}

/// Notes something beside the request that is served, if anything is written of it.
pub(crate) fn note(key: &str, value: &str) {
    let _ = SERVED.try_with(|trail| trail.note(key, value));
}
