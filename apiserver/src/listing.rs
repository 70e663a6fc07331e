//! Reading many objects: selections, pages and watches.
//!
//! A list is cut from one snapshot; later pages of the same list come from that snapshot too, as long as it
//! is kept. A watch begins where a list ended and tells each change once, as seen through its selection.
//!
//! Invariants: all pages of a list show one revision, or say that they cannot (410); a watcher sees events in
//! the store's order. Left to others: bytes and formats (`crate::http`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use weft_api::selector::{FieldSelector, LabelSelector};
use weft_api::status::{Cause, Details, StatusError};
use weft_kinds::KindRef;
use weft_store::{EventKind, Key, Revision, Snapshot, Store, Watch, WatchError};

use crate::encryption::Vault;
use crate::stored::{self, Stored};

/// Snapshots kept for further pages. Each pins the objects that were replaced since; a few are enough for the
/// clients that page at one time.
const SNAPSHOTS_MAX: usize = 16;
/// How long a list may take over its pages, as in Kubernetes (etcd's compaction interval).
const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(300);

/// Which objects of a kind are meant.
#[derive(Clone, Debug)]
pub struct Selection {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            labels: LabelSelector::everything(),
            fields: FieldSelector::default(),
        }
    }
}

impl Selection {
    /// Parses the query parameters; a field that the kind does not offer is refused.
    ///
    /// # Errors
    /// 400 with Kubernetes' sentence.
    pub fn parse(
        kind: KindRef,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, StatusError> {
        let labels = match labels.filter(|text| !text.is_empty()) {
            Some(text) => LabelSelector::parse(text).map_err(|error| {
                StatusError::bad_request(format!("unable to parse requirement: {error}"))
            })?,
            None => LabelSelector::everything(),
        };
        let fields = match fields.filter(|text| !text.is_empty()) {
            Some(text) => FieldSelector::parse(text)
                .map_err(|error| StatusError::bad_request(error.to_string()))?,
            None => FieldSelector::default(),
        };
        let selection = Self { labels, fields };
        selection.check(kind)?;
        Ok(selection)
    }

    pub(crate) fn check(&self, kind: KindRef) -> Result<(), StatusError> {
        for requirement in self.fields.requirements() {
            let field = requirement.field.as_str();
            let known = matches!(field, "metadata.name" | "metadata.namespace")
                || kind
                    .selectable
                    .iter()
                    .any(|selectable| selectable.field == field);
            if !known {
                return Err(StatusError::bad_request(format!(
                    "field label not supported: {field}"
                )));
            }
        }
        Ok(())
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    pub fn matches(&self, object: &Stored) -> bool {
        (self.fields.is_everything() || self.fields.matches(|field| object.field(field)))
            && (self.labels.is_everything()
                || object.with_labels(|labels| self.labels.matches(labels)))
    }
}

/// How a list's `resourceVersion` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    NotOlderThan,
    Exact,
}

/// What a list may ask for.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub selection: Selection,
    pub limit: Option<usize>,
    pub continue_token: Option<String>,
    /// `None` is the newest state; 0 is whatever this server has.
    pub resource_version: Option<Revision>,
    pub version_match: Option<VersionMatch>,
}

impl ListOptions {
    /// Objects with these labels.
    pub fn labelled(labels: LabelSelector) -> Self {
        Self {
            selection: Selection {
                labels,
                fields: FieldSelector::default(),
            },
            ..Self::default()
        }
    }
}

/// One page of a list.
pub struct Page {
    pub revision: Revision,
    pub items: Vec<Stored>,
    /// Token of the next page.
    pub next: Option<String>,
    /// How many objects follow this page; unknown with selectors.
    pub remaining: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Token {
    /// Revision of the snapshot; -1 for "whatever is newest", after the snapshot expired.
    rv: i64,
    /// Last key of the page before.
    start: String,
}

impl Token {
    fn encode(&self) -> String {
        // A struct of two plain members always serialises.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, StatusError> {
        URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .ok_or_else(|| StatusError::bad_request("continue key is not valid"))
    }
}

/// Snapshots of lists that are being read page by page.
#[derive(Default)]
pub(crate) struct Snapshots {
    kept: VecDeque<(Instant, Snapshot)>,
}

impl Snapshots {
    fn keep(&mut self, snapshot: &Snapshot, now: Instant) {
        self.kept
            .retain(|(since, _)| now.duration_since(*since) < SNAPSHOT_AGE_MAX);
        if self
            .kept
            .iter()
            .any(|(_, kept)| kept.revision() == snapshot.revision())
        {
            return;
        }
        if self.kept.len() == SNAPSHOTS_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((now, snapshot.clone()));
    }

    fn at(&self, revision: Revision, now: Instant) -> Option<Snapshot> {
        self.kept
            .iter()
            .find(|(since, kept)| {
                kept.revision() == revision && now.duration_since(*since) < SNAPSHOT_AGE_MAX
            })
            .map(|(_, kept)| kept.clone())
    }
}

const EXPIRED_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Cuts a page out of the right snapshot. `newest` is the state to use unless the request names another.
pub(crate) fn page(
    kind: KindRef,
    namespace: Option<&str>,
    options: &ListOptions,
    newest: &Snapshot,
    vault: &Vault,
    snapshots: &parking_lot::Mutex<Snapshots>,
    now: Instant,
) -> Result<Page, StatusError> {
    options.selection.check(kind)?;
    let (snapshot, after) = match &options.continue_token {
        Some(text) => {
            if options.resource_version.is_some_and(|version| version > 0) {
                return Err(StatusError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = Token::decode(text)?;
            let snapshot = match Revision::try_from(token.rv) {
                Err(_) => newest.clone(),
                Ok(revision) if revision == newest.revision() => newest.clone(),
                Ok(revision) => snapshots.lock().at(revision, now).ok_or_else(|| {
                    let mut error = StatusError::gone_expired(EXPIRED_TOKEN);
                    error.continue_token = Some(
                        Token {
                            rv: -1,
                            start: token.start.clone(),
                        }
                        .encode(),
                    );
                    error
                })?,
            };
            (snapshot, Some(Key::from(token.start)))
        }
        None => (versioned(options, newest, snapshots, now)?, None),
    };

    let limit = options
        .limit
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    let selection = &options.selection;
    let prefix = stored::prefix(kind, namespace);
    let mut items = Vec::new();
    let mut more = None;
    // An exact name is a single read, however many objects there are.
    if let (Some(name), Some(namespace)) = (
        selection.fields.exact("metadata.name"),
        namespace.map(Some).or((!kind.namespaced).then_some(None)),
    ) {
        let found = snapshot
            .get(&stored::key(kind, namespace, name))
            .map(|entry| Stored::new(vault, kind, entry))
            .filter(|object| selection.matches(object));
        items.extend(found);
    } else {
        let mut matching = snapshot
            .range(&prefix, after.as_ref())
            .map(|entry| Stored::new(vault, kind, entry))
            .filter(|object| selection.matches(object));
        items.extend(matching.by_ref().take(limit));
        if items.len() == limit && matching.next().is_some() {
            let rest = 1 + if selection.is_everything() {
                matching.count()
            } else {
                0
            };
            more = Some(rest as u64);
        }
    }

    let next = match (more, items.last()) {
        (Some(_), Some(last)) => {
            snapshots.lock().keep(&snapshot, now);
            Some(
                Token {
                    rv: i64::try_from(snapshot.revision()).unwrap_or(-1),
                    start: last.key().to_string(),
                }
                .encode(),
            )
        }
        _ => None,
    };
    Ok(Page {
        revision: snapshot.revision(),
        items,
        next,
        remaining: more.filter(|_| selection.is_everything()),
    })
}

fn versioned(
    options: &ListOptions,
    newest: &Snapshot,
    snapshots: &parking_lot::Mutex<Snapshots>,
    now: Instant,
) -> Result<Snapshot, StatusError> {
    let Some(version) = options.resource_version else {
        if options.version_match.is_some() {
            return Err(StatusError::bad_request(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        return Ok(newest.clone());
    };
    if version > newest.revision() {
        return Err(too_large(version, newest.revision()));
    }
    match options.version_match {
        Some(VersionMatch::Exact) if version == 0 => Err(StatusError::bad_request(
            "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
        )),
        Some(VersionMatch::Exact) if version < newest.revision() => {
            snapshots.lock().at(version, now).ok_or_else(|| {
                StatusError::gone_expired(format!(
                    "The resourceVersion for the provided list is too old: {version}"
                ))
            })
        }
        _ => Ok(newest.clone()),
    }
}

/// The answer for a resourceVersion this server has not reached; client-go retries on its cause.
pub(crate) fn too_large(asked: Revision, current: Revision) -> StatusError {
    StatusError::timeout(format!(
        "Timeout: Too large resource version: {asked}, current: {current}"
    ))
    .with_details(Details {
        causes: vec![Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        }],
        retry_after_seconds: Some(1),
        ..Details::default()
    })
}

/// What a watch may ask for.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    pub selection: Selection,
    /// `None` and 0: start with the present objects. N: only what came after N.
    pub resource_version: Option<Revision>,
    /// `Some(true)` marks the end of the present objects; `Some(false)` leaves them out.
    pub send_initial_events: Option<bool>,
}

/// What a watcher is told.
pub enum WatchEvent {
    Added(Stored),
    Modified(Stored),
    Deleted(Stored),
    /// The present objects were all sent.
    InitialEnd(Revision),
}

/// A running watch of one kind through a selection.
pub struct ObjectWatch {
    kind: KindRef,
    selection: Selection,
    initial: VecDeque<Stored>,
    initial_end: Option<Revision>,
    watch: Watch,
    vault: Vault,
}

impl ObjectWatch {
    pub(crate) fn start(
        store: &Store,
        vault: &Vault,
        newest: &Snapshot,
        kind: KindRef,
        namespace: Option<&str>,
        options: WatchOptions,
    ) -> Result<Self, StatusError> {
        options.selection.check(kind)?;
        let prefix = stored::prefix(kind, namespace);
        let version = options.resource_version.unwrap_or(0);
        let initial_wanted = options.send_initial_events.unwrap_or(version == 0);
        if initial_wanted && version > newest.revision() {
            return Err(too_large(version, newest.revision()));
        }
        let from_now = initial_wanted || version == 0;
        let after = if from_now { newest.revision() } else { version };
        let watch = store
            .watch(prefix.clone(), after)
            .map_err(|error| watch_refused(error, after))?;
        let mut initial = VecDeque::new();
        if initial_wanted {
            initial.extend(
                newest
                    .range(&prefix, None)
                    .map(|entry| Stored::new(vault, kind, entry))
                    .filter(|object| options.selection.matches(object)),
            );
        }
        let marks_end = options.send_initial_events == Some(true);
        Ok(Self {
            kind,
            selection: options.selection,
            initial,
            initial_end: marks_end.then(|| newest.revision()),
            watch,
            vault: vault.clone(),
        })
    }

    /// The next event; `None` when the server is closing, or when the watch fell behind. The client goes on from the last
    /// revision that it was told, or hears then that this is not kept any more. Cancel safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        if let Some(object) = self.initial.pop_front() {
            return Some(WatchEvent::Added(object));
        }
        if let Some(revision) = self.initial_end.take() {
            return Some(WatchEvent::InitialEnd(revision));
        }
        loop {
            let event = match self.watch.next().await? {
                Ok(event) => event,
                Err(lagged) => {
                    tracing::info!(kind = self.kind.kind, %lagged, "a client reads too slowly");
                    return None;
                }
            };
            let now = Stored::new(&self.vault, self.kind, event.entry);
            let before = event
                .previous
                .map(|entry| Stored::new(&self.vault, self.kind, entry))
                .filter(|object| self.selection.matches(object));
            let matches_now = event.kind == EventKind::Put && self.selection.matches(&now);
            return Some(match (before, matches_now) {
                (None, true) => WatchEvent::Added(now),
                (Some(_), true) => WatchEvent::Modified(now),
                (Some(_), false) if event.kind == EventKind::Delete => WatchEvent::Deleted(now),
                // It changed so that it no longer matches: the last state that did.
                (Some(before), false) => WatchEvent::Deleted(before.at(event.revision)),
                (None, false) => continue,
            });
        }
    }

    /// Everything up to here was told: what a bookmark may name.
    pub fn progress(&self) -> Option<Revision> {
        (self.initial.is_empty() && self.initial_end.is_none()).then(|| self.watch.progress())
    }

    pub fn kind(&self) -> KindRef {
        self.kind
    }
}

fn watch_refused(error: WatchError, after: Revision) -> StatusError {
    match error {
        WatchError::Compacted { oldest } => {
            StatusError::gone_expired(format!("too old resource version: {after} ({oldest})"))
        }
        WatchError::Future { asked, current } => too_large(asked, current),
    }
}
