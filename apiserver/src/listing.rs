//! Reading many objects: selections, pages and watches.
//!
//! A list is cut from one view of its kind; later pages come from the same state, on any server that still has it or can go
//! back to it. A watch begins where a list ended and tells each change once, as seen through its selection.
//!
//! Invariants: all pages of a list show one revision, or say that they cannot (410); a page costs what it carries, not what
//! lies behind it; a watcher sees events in the store's order. Left to others: how views come about (`crate::cache`), bytes
//! and formats (`crate::http`).

mod watch;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft_api::selector::{FieldSelector, LabelSelector};
use weft_api::status::{Cause, Details, StatusError};
use weft_kinds::{KindRef, protobuf};
use weft_store::{Key, Revision};

pub use self::watch::{ObjectWatch, WatchEvent, WatchOptions};
use crate::cache::{Cache, Caches, Item, View};
use crate::encryption::Vault;
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
            let known = is_name(field)
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

    /// What it asks of an object's name and namespace, which no conversion changes.
    pub(crate) fn by_names(&self) -> Self {
        Self {
            labels: LabelSelector::everything(),
            fields: self.fields.about(is_name),
        }
    }

    /// Whether names are all that it asks for.
    pub(crate) fn is_by_names(&self) -> bool {
        let mut requirements = self.fields.requirements().iter();
        self.labels.is_everything() && requirements.all(|wanted| is_name(&wanted.field))
    }

    /// Whether it takes an object as it is shown, which may have been converted.
    pub(crate) fn matches_shown(&self, stored: &Stored) -> bool {
        let Some(value) = stored.converted() else {
            return stored.is_selected(self);
        };
        let kind = stored.kind();
        let field = |field: &str| {
            let known = kind.selectable.iter().find(|known| known.field == field);
            Some(
                match (
                    field,
                    known.map(|known| (known, value.pointer(&known.pointer))),
                ) {
                    ("metadata.name", _) => Cow::Borrowed(stored.name()),
                    ("metadata.namespace", _) => Cow::Borrowed(stored.namespace().unwrap_or("")),
                    (_, Some((_, Some(Value::String(text))))) => Cow::Borrowed(text.as_str()),
                    (_, Some((known, None | Some(Value::Null)))) => Cow::Borrowed(&*known.absent),
                    (_, Some((_, Some(other)))) => Cow::Owned(other.to_string()),
                    (_, None) => return None,
                },
            )
        };
        let labels = value.pointer("/metadata/labels");
        self.fields.matches(field)
            && self
                .labels
                .matches_with(|key| labels.and_then(|labels| labels.get(key)?.as_str()))
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

fn is_name(field: &str) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace")
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
    /// How many objects lie before the next page, so that nobody counts them again; unknown in the token for an inconsistent rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<usize>,
}

impl Token {
    fn encode(&self) -> String {
        // A struct of two plain members always serialises.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, StatusError> {
        let refused = |why: &dyn std::fmt::Display| refused_token(why);
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        let bytes = bytes.map_err(|error| refused(&error))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|error| refused(&error))?;
        if token.rv == 0 {
            return Err(refused(
                &"incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ));
        }
        if token.start.is_empty() {
            return Err(refused(&"encoded start key empty (version meta.k8s.io/v1)"));
        }
        Ok(token)
    }

    /// The last key of the page before. A token of another list, or of nobody's, leads nowhere.
    fn key_in(self, prefix: &[u8]) -> Result<Key, StatusError> {
        if self.start.as_bytes().starts_with(prefix) {
            Ok(Key::from(self.start))
        } else {
            Err(refused_token(&self.start))
        }
    }
}

fn refused_token(why: &dyn std::fmt::Display) -> StatusError {
    StatusError::bad_request(format!(
        "invalid continue token: continue key is not valid: {why}"
    ))
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

/// The state that a list is cut from, the key that it begins after, and how many objects it has shown, where that is known.
fn begun(
    kind: KindRef<'_>,
    namespace: Option<&str>,
    options: &ListOptions,
    source: Source<'_>,
) -> Result<(View, Option<Key>, Option<usize>), StatusError> {
    options.selection.check(kind)?;
    let newest = source.cache.view();
    Ok(match &options.continue_token {
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
            let seen = token.seen;
            let after = token.key_in(&stored::prefix(kind, namespace))?;
            (view, Some(after), seen)
        }
        None => (versioned(options, newest, source)?, None, Some(0)),
    })
}

/// The page behind this one begins after its last object. Keeps the state for it.
fn next_token(
    kind: KindRef<'_>,
    view: &View,
    last: &Stored,
    seen: Option<usize>,
    source: Source<'_>,
) -> String {
    source.caches.keep(source.user, kind, view, source.now);
    Token {
        rv: i64::try_from(view.revision()).unwrap_or(-1),
        start: last.key().to_string(),
        seen,
    }
    .encode()
}

/// What a page is chosen from where objects have to be converted before anybody knows which are meant.
pub(crate) struct Unchosen {
    view: View,
    pub items: Vec<Stored>,
}

impl Unchosen {
    /// The objects that may be meant: those with the names and in the namespace that are asked for.
    pub(crate) fn of(
        kind: KindRef<'_>,
        namespace: Option<&str>,
        options: &ListOptions,
        source: Source<'_>,
    ) -> Result<Self, StatusError> {
        let (view, after, _) = begun(kind, namespace, options, source)?;
        let names = options.selection.by_names();
        let items = candidates(kind, namespace, &names, &view, source.cache, after.as_ref())
            .filter(|item| names.matches_item(kind, source.vault, item))
            .map(|item| Stored::of(source.vault, kind, Arc::clone(item)))
            .collect();
        Ok(Self { view, items })
    }

    /// The page of what was chosen; `more` is whether there is more behind it.
    pub(crate) fn page(
        &self,
        kind: KindRef<'_>,
        items: Vec<Stored>,
        more: bool,
        source: Source<'_>,
    ) -> Page {
        let last = items.last().filter(|_| more);
        let next = last.map(|last| next_token(kind, &self.view, last, None, source));
        Page {
            revision: self.view.revision(),
            items,
            next,
            remaining: None,
        }
    }
}

/// Cuts a page out of the newest view of `source`, or of an earlier one that the request names.
pub(crate) fn page(
    kind: KindRef<'_>,
    namespace: Option<&str>,
    options: &ListOptions,
    source: Source<'_>,
) -> Result<Page, StatusError> {
    let (view, after, seen) = begun(kind, namespace, options, source)?;
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

    let total = || {
        let part = namespace.map(|_| stored::prefix(kind, namespace));
        view.count(part.as_deref())
    };
    let seen = match seen {
        Some(seen) => Some(seen.saturating_add(items.len())),
        // Whoever goes on in another state than he began in: what is behind this page is counted, and the token of the next one knows it.
        None if more && selection.is_everything() => {
            Some(total().saturating_sub(matching.count() + 1))
        }
        None => None,
    };
    let next = match items.last() {
        Some(last) if more => Some(next_token(kind, &view, last, seen, source)),
        _ => None,
    };
    // What a token says was seen comes from the client, who is told no more nonsense than it sent.
    let remaining = seen
        .filter(|_| more && selection.is_everything())
        .map(|seen| total().saturating_sub(seen).max(1) as u64);
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
