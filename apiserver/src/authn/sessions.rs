//! Sessions of browsers, and the links that begin them.
//!
//! A session holds what its user has proved himself by: a bearer token, or the certificate of a connection, never its key. Each of its requests is
//! judged by that again, so that a session is its user, with the groups and roles that he has now, and ends when what it rests on does. A link
//! holds the same for some minutes, and becomes a session once.
//!
//! ```text
//! cookie or link   ID.SECRET ─► /weft.dev/sessions/-/ID, /weft.dev/sessionlinks/-/ID   digest of SECRET, what it rests on, its end
//! ```
//! They lie in the store, sealed as Secrets are, so that each server knows those of all; they are no objects, and told to nobody.
//!
//! Invariants: secrets have 256 bits, and are compared in constant time as digests; a link goes in the write that makes its session, so of two
//! who show it at once one gets it; sessions and links are bounded, of a user and in all; reads that strangers cause are, too.
//! Left to others: cookies and pages (`crate::http::dashboard`), when a cookie counts ([`super::Authenticator`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, header};
use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use weft_api::status::StatusError;
use weft_kinds::SECRET;
use weft_store::{Key, Mutation, Precondition, Revision, Snapshot, WriteError};

use crate::encryption::EncryptionError;
use crate::objects::{Objects, write_failed};

/// The cookie. Its prefix has browsers take it from this host alone, over TLS, for all of its paths.
pub(crate) const COOKIE: &str = "__Host-weft-session";
/// Says that a request is meant to be made as the session's user. No page of another origin can send it, and nobody by following a link.
pub(crate) const MARK: HeaderName = HeaderName::from_static("weft-session");
/// Sessions, and links to begin one. They are sealed, so a new data key has to reach them.
pub(crate) const PREFIXES: [&str; 2] = [SESSIONS, LINKS];
const SESSIONS: &str = "/weft.dev/sessions/-/";
const LINKS: &str = "/weft.dev/sessionlinks/-/";
/// A working day, and somewhat more.
const SESSION_LIFE: SignedDuration = SignedDuration::from_hours(12);
/// Time enough to follow one that was just printed.
const LINK_LIFE: SignedDuration = SignedDuration::from_secs(300);
/// Of one user; the oldest makes room.
const OF_USER_MAX: usize = 32;
/// Of all: some kilobytes each.
const ALL_MAX: usize = 4096;
const ID_BYTES: usize = 16;
const SECRET_BYTES: usize = 32;
/// Longest text that is looked at.
const SHOWN_BYTES_MAX: usize = 128;
/// What this server does not know, and for which the newest state is asked at the same time: strangers send that.
const CONFIRMATIONS_AT_ONCE: usize = 8;
/// Seconds after which one for whom nobody asked is worth another try.
const RETRY_AFTER_SECONDS: u32 = 1;
/// First byte of the layout; where nothing is sealed, it is that of the entry.
const LAYOUT: u8 = 1;

/// What somebody has proved himself by.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Credential {
    Token(String),
    /// The leaf that a connection was made with, as base64 of its DER.
    Certificate(String),
}

impl Credential {
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Self {
        Self::Certificate(STANDARD.encode(certificate))
    }

    /// When it ends by itself, where that is known before it does.
    pub(crate) fn end(&self) -> Option<Timestamp> {
        let Self::Certificate(certificate) = self else {
            return None;
        };
        let certificate = STANDARD.decode(certificate).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Token(_) => "a token",
            Self::Certificate(_) => "a certificate",
        })
    }
}

/// How a session began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum By {
    Link,
    Token,
    Certificate,
    Oidc,
}

/// A session or a link, as it lies in the store.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    digest: String,
    /// Whose it is, for bounds; who he is says the credential.
    user: String,
    pub(crate) by: By,
    pub(crate) credential: Credential,
    created: Timestamp,
    pub(crate) expires: Timestamp,
}

/// One that was found by what was shown.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    key: Key,
    revision: Revision,
    pub(crate) record: Arc<Record>,
}

/// One that was made: what is shown for it, and until when that is good.
pub(crate) struct Begun {
    pub(crate) shown: String,
    pub(crate) expires: Timestamp,
}

/// What is made of whom.
pub(crate) struct Wanted<'w> {
    pub(crate) user: &'w str,
    pub(crate) by: By,
    pub(crate) credential: Credential,
    /// No longer than so, whatever is usual.
    pub(crate) until: Option<Timestamp>,
}

/// Records by their keys, each as of a revision.
type Known = BTreeMap<Key, (Revision, Arc<Record>)>;

/// All of the cluster. Clones share what was read, and the bounds.
#[derive(Clone)]
pub(crate) struct Sessions {
    objects: Objects,
    read: Arc<RwLock<Known>>,
    confirmations: Arc<Semaphore>,
}

/// Whether `NAME=VALUE`, as it stands in a line of cookies, is that of a session. Lines may be no text: other cookies may be anything.
pub(crate) fn is_cookie(pair: &[u8]) -> bool {
    let name = pair.split(|byte| *byte == b'=').next();
    name.unwrap_or_default().trim_ascii() == COOKIE.as_bytes()
}

/// What the cookie of a request says, if it has one.
pub(crate) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter();
    let mut pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let pair = pairs.find(|pair| is_cookie(pair))?;
    let (_, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
    Some(value.trim())
}

/// Key and digest of what was shown.
fn parse(prefix: &str, shown: &str) -> Option<(Key, [u8; 32])> {
    let (id, secret) = shown.split_once('.')?;
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
    let sound = shown.len() <= SHOWN_BYTES_MAX
        && bytes(id)?.len() == ID_BYTES
        && bytes(secret)?.len() == SECRET_BYTES;
    sound.then(|| {
        let key = Key::from(format!("{prefix}{id}"));
        (key, Sha256::digest(secret).into())
    })
}

fn failed(error: WriteError) -> StatusError {
    match error {
        // Somebody else was first.
        WriteError::Conflict { .. } => StatusError::unauthorized(),
        error => write_failed(&SECRET, "", error),
    }
}

impl Sessions {
    pub(crate) fn new(objects: Objects) -> Self {
        Self {
            objects,
            read: Arc::default(),
            confirmations: Arc::new(Semaphore::new(CONFIRMATIONS_AT_ONCE)),
        }
    }

    /// The session that a cookie is of.
    ///
    /// # Errors
    /// 401 for one that is over or never was; 429 when too many such are asked about; 503 without a majority.
    pub(crate) async fn session(&self, shown: &str) -> Result<Held, StatusError> {
        let (key, digest) = parse(SESSIONS, shown).ok_or_else(StatusError::unauthorized)?;
        let here = self.objects.store().snapshot();
        match self.find(&key, &digest, &here) {
            Some(held) => Ok(held),
            None => self.newest(&key, &digest).await,
        }
    }

    /// The link that is shown. It is there until its session is.
    ///
    /// # Errors
    /// As [`Sessions::session`].
    pub(crate) async fn link(&self, shown: &str) -> Result<Held, StatusError> {
        let (key, digest) = parse(LINKS, shown).ok_or_else(StatusError::unauthorized)?;
        self.newest(&key, &digest).await
    }

    /// By the newest state: it may have been made on another server a moment ago.
    async fn newest(&self, key: &Key, digest: &[u8; 32]) -> Result<Held, StatusError> {
        let place = self.confirmations.try_acquire();
        let _place = place.map_err(|_| {
            StatusError::too_many_requests(
                "too many unknown sessions, please try again later",
                RETRY_AFTER_SECONDS,
            )
        })?;
        let newest = self.objects.newest_snapshot().await?;
        let found = self.find(key, digest, &newest);
        found.ok_or_else(StatusError::unauthorized)
    }

    fn find(&self, key: &Key, digest: &[u8; 32], snapshot: &Snapshot) -> Option<Held> {
        let revision = snapshot.revision_of(key)?;
        let record = self.record(key, revision, snapshot)?;
        let held = STANDARD.decode(&record.digest).ok()?;
        let good = bool::from(held.ct_eq(digest.as_slice())) && self.objects.now() < record.expires;
        good.then(|| Held {
            key: key.clone(),
            revision,
            record,
        })
    }

    fn record(&self, key: &Key, revision: Revision, snapshot: &Snapshot) -> Option<Arc<Record>> {
        let known = self.read.read().get(key).cloned();
        if let Some((_, record)) = known.filter(|(known, _)| *known == revision) {
            return Some(record);
        }
        let entry = snapshot.get(key)?;
        let layout = match self.objects.vault().open(&entry) {
            Ok(layout) => layout,
            Err(error) => {
                tracing::error!(%error, "a session cannot be read");
                return None;
            }
        };
        let record = serde_json::from_slice(layout.strip_prefix(&[LAYOUT])?).ok()?;
        let record = Arc::new(record);
        let kept = (revision, Arc::clone(&record));
        self.read.write().insert(key.clone(), kept);
        Some(record)
    }

    /// Begins a session, in the place of another one if there is one.
    ///
    /// # Errors
    /// 429 where there are as many as may be; 503 and 507 when the store cannot take it now.
    pub(crate) async fn begin(
        &self,
        wanted: Wanted<'_>,
        instead: Option<Held>,
    ) -> Result<Begun, StatusError> {
        let gone = instead.map(|held| Mutation::delete(held.key, Precondition::None));
        self.put(SESSIONS, SESSION_LIFE, wanted, gone.into_iter().collect())
            .await
    }

    /// Makes a session of a link, which is no more then.
    ///
    /// # Errors
    /// 401 where somebody else was first; as [`Sessions::begin`].
    pub(crate) async fn redeem(
        &self,
        link: Held,
        wanted: Wanted<'_>,
        instead: Option<Held>,
    ) -> Result<Begun, StatusError> {
        let used = Mutation::delete(link.key, Precondition::Revision(link.revision));
        let gone = instead.map(|held| Mutation::delete(held.key, Precondition::None));
        let gone = [used].into_iter().chain(gone).collect();
        self.put(SESSIONS, SESSION_LIFE, wanted, gone).await
    }

    /// Makes a link.
    ///
    /// # Errors
    /// As [`Sessions::begin`].
    pub(crate) async fn make_link(&self, wanted: Wanted<'_>) -> Result<Begun, StatusError> {
        self.put(LINKS, LINK_LIFE, wanted, Vec::new()).await
    }

    /// Ends a session, on every server.
    ///
    /// # Errors
    /// 503 when the store cannot take it now.
    pub(crate) async fn end(&self, held: Held) -> Result<(), StatusError> {
        let gone = Mutation::delete(held.key, Precondition::None);
        let written = self.objects.store().write(vec![gone], None).await;
        written.map(drop).map_err(failed)
    }

    async fn put(
        &self,
        prefix: &str,
        life: SignedDuration,
        wanted: Wanted<'_>,
        mut mutations: Vec<Mutation>,
    ) -> Result<Begun, StatusError> {
        let now = self.objects.now();
        mutations.extend(self.room(prefix, wanted.user, now)?);
        let id: [u8; ID_BYTES] = rand::random();
        let secret: [u8; SECRET_BYTES] = rand::random();
        let (id, secret) = (URL_SAFE_NO_PAD.encode(id), URL_SAFE_NO_PAD.encode(secret));
        let usual = now.checked_add(life).map_err(StatusError::internal)?;
        let expires = wanted.until.map_or(usual, |until| until.min(usual));
        let record = Record {
            digest: STANDARD.encode(Sha256::digest(&secret)),
            user: wanted.user.to_owned(),
            by: wanted.by,
            credential: wanted.credential,
            created: now,
            expires,
        };
        let mut layout = vec![LAYOUT];
        serde_json::to_writer(&mut layout, &record).map_err(StatusError::internal)?;
        let key = Key::from(format!("{prefix}{id}"));
        let sealed = self.objects.vault().seal(&key, layout.into()).await;
        let sealed = sealed.map_err(|error| match error {
            EncryptionError::Write(error) => failed(error),
            error => StatusError::internal(error),
        })?;
        mutations.push(Mutation::put(key, Precondition::Absent, sealed));
        let written = self.objects.store().write(mutations, None).await;
        written.map_err(failed)?;
        Ok(Begun {
            shown: format!("{id}.{secret}"),
            expires,
        })
    }

    /// What goes so that another one may come: whatever is over, and the oldest of a user who has as many as he may.
    fn room(&self, prefix: &str, user: &str, now: Timestamp) -> Result<Vec<Mutation>, StatusError> {
        let snapshot = self.objects.store().snapshot();
        let (mut gone, mut own, mut others) = (Vec::new(), Vec::new(), 0);
        for (key, revision) in snapshot.keys(prefix.as_bytes(), None) {
            match self.record(&key, revision, &snapshot) {
                Some(record) if now >= record.expires => gone.push(key),
                Some(record) if record.user == user => own.push((record.created, key)),
                // One that cannot be read is in its place until it can.
                Some(_) | None => others += 1,
            }
        }
        own.sort();
        let too_many = (own.len() + 1).saturating_sub(OF_USER_MAX);
        gone.extend(own.drain(..too_many).map(|(_, key)| key));
        if own.len() + others >= ALL_MAX {
            return Err(StatusError::too_many_requests(
                format!(
                    "{ALL_MAX} sessions are open in this cluster, which is the most there may be: sign out of some, or wait until they are over"
                ),
                RETRY_AFTER_SECONDS,
            ));
        }
        // What other servers removed is not to be kept here.
        let mut read = self.read.write();
        read.retain(|key, _| snapshot.revision_of(key).is_some() && !gone.contains(key));
        let gone = gone.into_iter();
        Ok(gone
            .map(|key| Mutation::delete(key, Precondition::None))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cookie_may_be() {
        let (id, secret) = (
            URL_SAFE_NO_PAD.encode([1; 16]),
            URL_SAFE_NO_PAD.encode([2; 32]),
        );
        for (shown, good) in [
            (format!("{id}.{secret}"), true),
            (format!("{id}{secret}"), false),
            (format!("{id}."), false),
            (format!(".{secret}"), false),
            (format!("{secret}.{id}"), false),
            (format!("../../x.{secret}"), false),
            (format!("{id}.{secret}{}", "A".repeat(100)), false),
        ] {
            assert_eq!(parse(SESSIONS, &shown).is_some(), good, "{shown}");
        }
        let mut headers = HeaderMap::new();
        for line in [
            &b"a=b; c"[..],
            b"x__Host-weft-session=no; e=\xff; __Host-weft-session=it; d=e",
        ] {
            let line = http::HeaderValue::from_bytes(line).unwrap();
            headers.append(header::COOKIE, line);
        }
        assert_eq!(cookie(&headers), Some("it"));
        assert_eq!(cookie(&HeaderMap::new()), None);
    }

    #[test]
    fn what_it_rests_on_is_never_shown() {
        let held = Credential::Token("secret".to_owned());
        assert_eq!(format!("{held:?}"), "a token");
    }
}
