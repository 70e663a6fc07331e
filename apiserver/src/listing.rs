//! Reading many objects: selections, pages and watches.
//!
//! A list is cut from one view of its kind; later pages come from the same state, on any server that still has it or can go
//! back to it. A watch begins where a list ended and tells each change once, as seen through its selection.
//!
//! Invariants: all pages of a list show one revision, or say that they cannot (410); a page costs what it carries, not what
//! lies behind it; a watcher sees events in the store's order. Left to others: how views come about (`crate::cache`), bytes
//! and formats (`crate::http`).

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use weft_api::selector::{FieldSelector, LabelSelector};
use weft_api::status::{Cause, Details, StatusError};
use weft_kinds::{Kind, KindRef, protobuf};
use weft_store::{Key, Revision, Snapshot};

use crate::cache::{Cache, Caches, Item, Refused, Subscription, View, What};
use crate::encryption::Vault;
use crate::objects::Objects;
use crate::stored::{self, Stored};

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
        kind: KindRef<'_>,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, StatusError> {
        let labels = match labels.filter(|text| !text.is_empty()) {
            Some(text) => LabelSelector::parse(text)
                .map_err(|error| StatusError::bad_request(error.to_string()))?,
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

    pub(crate) fn check(&self, kind: KindRef<'_>) -> Result<(), StatusError> {
        for requirement in self.fields.requirements() {
            let field = requirement.field.as_str();
            let known = matches!(field, "metadata.name" | "metadata.namespace")
                || kind
                    .selectable
                    .iter()
                    .any(|selectable| selectable.field == field);
            if !known {
                let selects_nothing_else = kind.selectable.is_empty()
                    && protobuf::has_form(&kind.api_version(), &kind.kind);
                return Err(StatusError::bad_request(if selects_nothing_else {
                    format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    )
                } else {
                    format!("field label not supported: {field}")
                }));
            }
        }
        Ok(())
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether it takes an object of which only the name is known: without labels, in no namespace.
    pub(crate) fn matches_names(&self, name: &str) -> bool {
        self.labels.matches_with(|_| None)
            && self
                .fields
                .matches(|field| (field == "metadata.name").then_some(name.into()))
    }

    pub(crate) fn matches_item(&self, kind: KindRef<'_>, vault: &Vault, item: &Item) -> bool {
        (self.fields.is_everything()
            || self
                .fields
                .matches(|field| stored::field_of(kind, vault, item, field)))
            && (self.labels.is_everything()
                || self
                    .labels
                    .matches_with(|key| item.facts(kind, vault).label(key)))
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
    /// Revision of the list; -1 for "whatever is newest", after that one expired.
    rv: i64,
    /// Last key of the page before.
    start: String,
    /// How many objects the pages before carried, so that nobody counts them again; unknown after the revision changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<usize>,
}

impl Token {
    fn encode(&self) -> String {
        // A struct of two plain members always serialises.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, StatusError> {
        let refused = |why: &dyn std::fmt::Display| {
            StatusError::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        let bytes = bytes.map_err(|error| refused(&error))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|error| refused(&error))?;
        if token.rv == 0 {
            return Err(refused(
                &"incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ));
        }
        Ok(token)
    }
}

const EXPIRED_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// The revision that a list needs at least: that of its token or of its request. `None` for the newest.
pub(crate) fn revision_needed(options: &ListOptions) -> Result<Option<Revision>, StatusError> {
    match &options.continue_token {
        Some(text) => Ok(Revision::try_from(Token::decode(text)?.rv).ok()),
        None => Ok(options.resource_version),
    }
}

/// Who asks for a page, and where it comes from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub caches: &'a Caches,
    pub cache: &'a Cache,
    pub vault: &'a Vault,
    /// Whose kept views count.
    pub user: &'a str,
    pub now: Instant,
}

/// Cuts a page out of the newest view of `source`, or of an earlier one that the request names.
pub(crate) fn page(
    kind: KindRef<'_>,
    namespace: Option<&str>,
    options: &ListOptions,
    source: Source<'_>,
) -> Result<Page, StatusError> {
    options.selection.check(kind)?;
    let newest = source.cache.view();
    let (view, after, seen) = match &options.continue_token {
        Some(text) => {
            if options.resource_version.is_some_and(|version| version > 0) {
                return Err(StatusError::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = Token::decode(text)?;
            let view = match Revision::try_from(token.rv) {
                Err(_) => newest,
                Ok(revision) => source.at(revision, newest).ok_or_else(|| {
                    let mut error = StatusError::gone_expired(EXPIRED_TOKEN);
                    error.continue_token = Some(
                        Token {
                            rv: -1,
                            start: token.start.clone(),
                            seen: None,
                        }
                        .encode(),
                    );
                    error
                })?,
            };
            (view, Some(Key::from(token.start)), token.seen)
        }
        None => (versioned(options, newest, source)?, None, Some(0)),
    };

    let limit = options
        .limit
        .filter(|limit| *limit > 0)
        .unwrap_or(usize::MAX);
    let selection = &options.selection;
    let mut matching = candidates(
        kind,
        namespace,
        selection,
        &view,
        source.cache,
        after.as_ref(),
    )
    .filter(|item| selection.is_everything() || selection.matches_item(kind, source.vault, item));
    let items: Vec<Stored> = matching
        .by_ref()
        .take(limit)
        .map(|item| Stored::of(source.vault, kind, Arc::clone(item)))
        .collect();
    let more = items.len() == limit && matching.next().is_some();

    let seen = seen.map(|seen| seen.saturating_add(items.len()));
    let next = match items.last() {
        Some(last) if more => {
            source.caches.keep(source.user, kind, &view, source.now);
            Some(
                Token {
                    rv: i64::try_from(view.revision()).unwrap_or(-1),
                    start: last.key().to_string(),
                    seen,
                }
                .encode(),
            )
        }
        _ => None,
    };
    // What a token says was seen comes from the client, who is told no more nonsense than it sent.
    let remaining = seen
        .filter(|_| more && selection.is_everything())
        .map(|seen| {
            let part = namespace.map(|_| stored::prefix(kind, namespace));
            view.count(part.as_deref()).saturating_sub(seen).max(1) as u64
        });
    Ok(Page {
        revision: view.revision(),
        items,
        next,
        remaining,
    })
}

/// The objects that a selection can match, in the order of their keys: as few as an index can tell.
fn candidates<'a>(
    kind: KindRef<'_>,
    namespace: Option<&str>,
    selection: &Selection,
    view: &'a View,
    cache: &Cache,
    after: Option<&Key>,
) -> Box<dyn Iterator<Item = &'a Arc<Item>> + 'a> {
    let prefix = stored::prefix(kind, namespace);
    // An exact name is a single read, however many objects there are.
    if let (Some(name), Some(namespace)) = (
        selection.fields.exact("metadata.name"),
        namespace.map(Some).or((!kind.namespaced).then_some(None)),
    ) {
        let key = stored::key(kind, namespace, name);
        let found = view
            .get(&key)
            .filter(|_| after.is_none_or(|after| key > *after));
        return Box::new(found.into_iter());
    }
    let indexed = selection.fields.requirements().iter().find_map(|wanted| {
        let index = cache.index_of(kind, &wanted.field)?;
        wanted.equal.then_some((index, wanted.value.as_str()))
    });
    match indexed {
        Some((index, value)) => Box::new(view.range_with(index, value, prefix, after)),
        None => Box::new(view.range(prefix, after)),
    }
}

impl Source<'_> {
    /// The state at a revision, if it is this one or can be reached from here.
    fn at(&self, revision: Revision, newest: View) -> Option<View> {
        if revision == newest.revision() {
            return Some(newest);
        }
        self.caches
            .earlier(self.user, self.cache, revision, self.now)
    }
}

fn versioned(options: &ListOptions, newest: View, source: Source<'_>) -> Result<View, StatusError> {
    let Some(version) = options.resource_version else {
        if options.version_match.is_some() {
            return Err(StatusError::bad_request(
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        return Ok(newest);
    };
    if version > newest.revision() {
        return Err(too_large(version, newest.revision()));
    }
    // The first page of a list at a revision is of just that revision, as the others are, where the client says nothing else.
    let pages = options.limit.is_some_and(|limit| limit > 0) && version > 0;
    match options
        .version_match
        .or(pages.then_some(VersionMatch::Exact))
    {
        Some(VersionMatch::Exact) if version == 0 => Err(StatusError::bad_request(
            "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"",
        )),
        Some(VersionMatch::Exact) => source.at(version, newest).ok_or_else(|| {
            StatusError::gone_expired("The resourceVersion for the provided list is too old.")
        }),
        _ => Ok(newest),
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
    /// `Some(true)` begins with the present objects whatever the revision; `Some(false)` leaves them out.
    pub send_initial_events: Option<bool>,
    /// Whether the end of the present objects is marked.
    pub marks_end: bool,
}

/// What a watcher is told.
#[derive(Clone)]
pub enum WatchEvent {
    Added(Stored),
    Modified(Stored),
    Deleted(Stored),
    /// The present objects were all sent.
    InitialEnd(Revision),
    /// The watch cannot go on from where it was asked to, and is over: list again.
    Expired(StatusError),
}

/// A running watch of one kind through a selection.
pub struct ObjectWatch {
    kind: Arc<Kind>,
    vault: Vault,
    /// The objects that were there, the next one last.
    initial: Vec<Arc<Item>>,
    initial_end: Option<Revision>,
    news: News,
    /// Who has objects converted by a webhook, where one does.
    converter: Option<Objects>,
    /// What is being converted.
    pending: Option<WatchEvent>,
}

/// Where the news of a watch come from.
enum News {
    Cache(Subscription),
    /// Nowhere: this is why, until it was told.
    Nowhere(Option<StatusError>),
}

impl ObjectWatch {
    pub(crate) fn start(
        cache: &Arc<Cache>,
        vault: &Vault,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        options: WatchOptions,
    ) -> Result<Self, StatusError> {
        let WatchOptions {
            selection,
            resource_version,
            send_initial_events,
            marks_end,
        } = options;
        selection.check(kind)?;
        let version = resource_version.unwrap_or(0);
        let initial_wanted = send_initial_events.unwrap_or(version == 0);
        let from_now = initial_wanted || version == 0;
        let started = cache.watch(kind, namespace, &selection, (!from_now).then_some(version));
        let (subscription, view) = match started {
            Ok(started) => started,
            // Not as the answer's status, which clients take for a passing failure and repeat for ever (kube-rs' watcher does):
            // as the stream's only event, which all of them know from Kubernetes' watch cache.
            Err(refused) => {
                let refused = watch_refused(&refused, version);
                return Ok(Self {
                    kind: kind.clone(),
                    vault: vault.clone(),
                    initial: Vec::new(),
                    initial_end: None,
                    news: News::Nowhere(Some(refused)),
                    converter: None,
                    pending: None,
                });
            }
        };
        if initial_wanted && version > view.revision() {
            return Err(too_large(version, view.revision()));
        }
        let mut initial = Vec::new();
        if initial_wanted {
            let matching = candidates(kind, namespace, &selection, &view, cache, None)
                .filter(|item| selection.matches_item(kind, vault, item));
            initial.extend(matching.cloned());
            initial.reverse();
        }
        Ok(Self {
            kind: kind.clone(),
            vault: vault.clone(),
            initial,
            initial_end: (marks_end && initial_wanted).then(|| view.revision()),
            news: News::Cache(subscription),
            converter: None,
            pending: None,
        })
    }

    /// The same, of objects that somebody converts before they are told.
    pub(crate) fn converted_by(self, converter: Option<Objects>) -> Self {
        Self { converter, ..self }
    }

    /// The next event; `None` when the server is closing, or when the watch fell behind. The client goes on from the last
    /// revision that it was told, or hears then that this is not kept any more. Cancel safe.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        let Some(converter) = self.converter.clone() else {
            return self.next_told().await;
        };
        // Kept until it is converted: whoever waits for it may stop to.
        let event = match &self.pending {
            Some(event) => event.clone(),
            None => {
                let event = self.next_told().await?;
                self.pending = Some(event.clone());
                event
            }
        };
        let event = converted(&converter, event).await;
        self.pending = None;
        Some(event)
    }

    async fn next_told(&mut self) -> Option<WatchEvent> {
        if let Some(event) = self.pop_initial() {
            return Some(event);
        }
        let told = match &mut self.news {
            News::Cache(subscription) => subscription.next().await?,
            News::Nowhere(reason) => return reason.take().map(WatchEvent::Expired),
        };
        let (change, lines) = (told.change, told.lines);
        let stored = |item: &Arc<Item>| {
            Stored::of(&self.vault, &self.kind, Arc::clone(item)).shared(lines.clone())
        };
        Some(match (told.what, &change.previous) {
            (What::Added, _) => WatchEvent::Added(stored(&change.item)),
            (What::Modified, _) => WatchEvent::Modified(stored(&change.item)),
            (What::Left, Some(before)) => WatchEvent::Deleted(stored(before).at(change.revision)),
            (What::Deleted | What::Left, _) => WatchEvent::Deleted(stored(&change.item)),
        })
    }

    /// The next of the objects that were there when the watch began, without waiting.
    /// None where somebody has to convert them first.
    pub(crate) fn next_initial(&mut self) -> Option<WatchEvent> {
        match self.converter {
            None => self.pop_initial(),
            Some(_) => None,
        }
    }

    fn pop_initial(&mut self) -> Option<WatchEvent> {
        if let Some(item) = self.initial.pop() {
            let object = Stored::of(&self.vault, &self.kind, item);
            return Some(WatchEvent::Added(object));
        }
        self.initial_end.take().map(WatchEvent::InitialEnd)
    }

    /// Everything up to here was told: what a bookmark may name.
    pub fn progress(&self) -> Option<Revision> {
        match &self.news {
            News::Cache(subscription) if self.initial.is_empty() && self.initial_end.is_none() => {
                Some(subscription.progress())
            }
            _ => None,
        }
    }

    /// Lets [`ObjectWatch::progress`] be as far as the store is now.
    pub(crate) async fn catch_up(&self, store: &Snapshot) {
        if let News::Cache(subscription) = &self.news {
            subscription.cache().catch_up(store).await;
        }
    }

    pub fn kind(&self) -> KindRef<'_> {
        &self.kind
    }
}

/// An event in the version that is asked for. One that cannot be is the last.
async fn converted(converter: &Objects, event: WatchEvent) -> WatchEvent {
    let one = async |stored: Stored| converter.converted(stored).await;
    let event = match event {
        WatchEvent::Added(stored) => one(stored).await.map(WatchEvent::Added),
        WatchEvent::Modified(stored) => one(stored).await.map(WatchEvent::Modified),
        WatchEvent::Deleted(stored) => one(stored).await.map(WatchEvent::Deleted),
        other => Ok(other),
    };
    event.unwrap_or_else(WatchEvent::Expired)
}

/// A revision from before the history, or one that this cluster never had: a client that still has it from before a backup
/// was restored has to list again as well.
fn watch_refused(refused: &Refused, asked: Revision) -> StatusError {
    let Refused { oldest, newest } = refused;
    StatusError::gone_expired(if asked < *oldest {
        format!("too old resource version: {asked} ({oldest})")
    } else {
        format!("resource version {asked} is not of this cluster, which is at {newest}")
    })
}
