//! Who is calling: from a client certificate or a bearer token to a [`Caller`].
//!
//! Tried in order: the certificate the TLS layer verified against the cluster CA (CN is the user, O are the groups), then
//! the `Authorization` header, then, for a WebSocket, the subprotocols: browsers can say it nowhere else. Before all of them comes the session of a
//! browser ([`sessions`]), where its cookie is meant: the request says so, or is a WebSocket, and no other origin sent it. A token is in the server's own token file, or
//! one of a ServiceAccount ([`service_account`]) or of another issuer ([`oidc`]), or a bootstrap token `id.secret`, kept as a Secret in kube-system ([`bootstrap`]). `Basic` is read as
//! a token in the password, because OCI clients know no other way.
//!
//! Invariants: no credential at all gives the anonymous caller, a wrong one 401, never the anonymous; secrets are compared
//! in constant time and never logged; an expired bootstrap token is as good as none; whoever has no credential makes the
//! store work for few requests at a time; what a browser adds by itself, a cookie or a certificate, changes nothing for a page of another origin.
//! Left to others: verifying certificates (rustls, by `crate::ca`), what a caller may do (`crate::authz`).

mod bootstrap;
pub(crate) mod oidc;
mod service_account;
pub(crate) mod sessions;

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, Method, Uri};
use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use weft_api::status::StatusError;

use self::bootstrap::BootstrapTokens;
use self::oidc::Issuers;
pub use self::oidc::{AuthenticationConfiguration, ConfigurationError};
use self::service_account::ServiceAccounts;
use self::sessions::{Credential, Held, Sessions};
use crate::ca::lapsed::{self, Standing};
use crate::caller::{CREDENTIAL_ID, Caller, Extra};
use crate::http::origin::{self, Origin};
use crate::http::websocket;
use crate::objects::Objects;

/// What a subprotocol that is a token begins with; the token follows in base64.
pub(crate) const WEBSOCKET_TOKEN: &str = "base64url.bearer.authorization.k8s.io.";
/// Longest credential that is looked at, in bytes; ServiceAccount tokens are about a thousand.
const CREDENTIAL_BYTES_MAX: usize = 8 << 10;

/// The verified certificate chain of the connection, leaf first; empty when the client showed none.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub IpAddr);

impl PeerCertificates {
    pub fn none() -> Self {
        Self(Arc::new([]))
    }
}

/// Turns credentials into callers. Cloning is cheap.
#[derive(Clone)]
pub struct Authenticator {
    bootstrap: BootstrapTokens,
    accounts: ServiceAccounts,
    /// Others who issue tokens.
    issuers: Issuers,
    sessions: Sessions,
    objects: Objects,
    /// Who this server is to those whose credential does not say for whom it is.
    audiences: Arc<[String]>,
    tokens: Arc<[StaticToken]>,
}

/// Whose a token is, and for whom it was meant of those that were asked about.
#[derive(Debug)]
pub(crate) struct Known {
    pub caller: Caller,
    pub audiences: Vec<String>,
}

/// What one way of reading a token makes of it.
#[derive(Debug)]
enum Outcome {
    Known(Known),
    /// It is such a token, and not good: why, for those who review tokens.
    Refused(String),
    /// It is none of that kind.
    Another,
}

/// What is told of a token that nobody knows.
const INVALID_TOKEN: &str = "invalid bearer token";

/// One line of the token file. Only the digest of the token is kept in memory.
pub struct StaticToken {
    digest: [u8; 32],
    user: String,
    uid: Option<String>,
    groups: Vec<String>,
}

/// A line of the token file that is not `token,user,uid[,"group,group"]`.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the token file is not `token,user,uid[,\"group,group\"]`")]
pub struct TokenFileError {
    pub line: usize,
}

impl StaticToken {
    pub fn new(
        token: &str,
        user: impl Into<String>,
        uid: Option<String>,
        groups: Vec<String>,
    ) -> Self {
        Self {
            digest: Sha256::digest(token).into(),
            user: user.into(),
            uid,
            groups,
        }
    }

    /// Reads Kubernetes' token file; empty lines and lines starting with `#` are skipped.
    ///
    /// # Errors
    /// The first line that does not fit.
    pub fn parse_file(file: &str) -> Result<Vec<Self>, TokenFileError> {
        let lines = file.lines().map(str::trim).enumerate();
        let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|(index, line)| Self::parse_line(line).ok_or(TokenFileError { line: index + 1 }))
            .collect()
    }

    fn parse_line(line: &str) -> Option<Self> {
        let mut parts = line.splitn(4, ',').map(str::trim);
        let (token, user, uid) = (parts.next()?, parts.next()?, parts.next()?);
        if token.is_empty() || user.is_empty() {
            return None;
        }
        let groups = parts.next().unwrap_or("").trim_matches('"');
        let groups = groups
            .split(',')
            .map(str::trim)
            .filter(|group| !group.is_empty())
            .map(str::to_owned);
        Some(Self::new(
            token,
            user,
            (!uid.is_empty()).then(|| uid.to_owned()),
            groups.collect(),
        ))
    }
}

impl Authenticator {
    /// `objects` is where bootstrap tokens are read; `tokens` is the server's own token file, often empty.
    pub fn new(objects: Objects, tokens: Vec<StaticToken>) -> Self {
        Self {
            bootstrap: BootstrapTokens::new(objects.clone()),
            audiences: objects.issuer().audiences.as_slice().into(),
            accounts: ServiceAccounts::new(objects.clone()),
            issuers: Issuers::default(),
            sessions: Sessions::new(objects.clone()),
            objects,
            tokens: tokens.into(),
        }
    }

    /// The same, with tokens of others believed, too.
    ///
    /// # Errors
    /// Where the configuration cannot work.
    pub fn believing(
        self,
        configuration: &AuthenticationConfiguration,
    ) -> Result<Self, ConfigurationError> {
        let issuers = Issuers::new(configuration, &self.objects.issuer().url)?;
        Ok(Self { issuers, ..self })
    }

    /// Decides who sends a request, by its head.
    ///
    /// # Errors
    /// 401 when a credential is offered that is not valid; 403 for a page of another origin that would have a browser's own do something; 429 when
    /// too many are that may have become valid just now; 503 when the store cannot be read.
    pub async fn authenticate(
        &self,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        peer: &PeerCertificates,
    ) -> Result<Caller, StatusError> {
        // Whoever says a token means that.
        let says =
            headers.contains_key(AUTHORIZATION) || !matches!(websocket_token(headers), Ok(None));
        if !says && let Some(shown) = meant_cookie(headers) {
            let origin = Origin::of(headers, uri);
            let needs = origin::may_change(method, headers);
            if origin == Origin::Another || (origin == Origin::Unsaid && needs) {
                return Err(of_another_origin());
            }
            let (caller, _) = self.of_session(shown).await?;
            return Ok(caller);
        }
        let certificate = peer.0.first();
        let now = self.objects.now();
        if let Some(caller) = certificate.and_then(|shown| certificate_subject(shown, now)) {
            // A browser shows it whichever page asks.
            if origin::is_of_browser(headers)
                && Origin::of(headers, uri) == Origin::Another
                && origin::may_change(method, headers)
            {
                return Err(of_another_origin());
            }
            return Ok(caller);
        }
        let token = match headers.get(AUTHORIZATION) {
            Some(header) => header
                .to_str()
                .ok()
                .and_then(token_of)
                .ok_or_else(StatusError::unauthorized)?,
            None => match websocket_token(headers)? {
                Some(token) => token,
                None if certificate.is_none() => {
                    let served = self.issuers.serves_anonymous(uri.path());
                    return served
                        .then(Caller::anonymous)
                        .ok_or_else(StatusError::unauthorized);
                }
                // A certificate of ours without a user, as workloads have: good for the mesh, not for the API.
                None => return Err(StatusError::unauthorized()),
            },
        };
        self.of_token(&token).await
    }

    /// Whose token this is, for this server.
    ///
    /// # Errors
    /// As [`Authenticator::authenticate`].
    async fn of_token(&self, token: &str) -> Result<Caller, StatusError> {
        let known = self.token(token, &self.audiences).await?;
        let known = known.map_err(|why| {
            tracing::debug!(why, "a token was refused");
            StatusError::unauthorized()
        })?;
        Ok(known.caller)
    }

    /// Whose session it is that a cookie names, by what it rests on.
    ///
    /// # Errors
    /// As [`Authenticator::authenticate`].
    pub(crate) async fn of_session(&self, shown: &str) -> Result<(Caller, Held), StatusError> {
        let held = self.sessions.session(shown).await?;
        let caller = self.of_credential(&held.record.credential).await?;
        Ok((caller, held))
    }

    /// Who proves himself by that now.
    ///
    /// # Errors
    /// As [`Authenticator::authenticate`].
    pub(crate) async fn of_credential(
        &self,
        credential: &Credential,
    ) -> Result<Caller, StatusError> {
        let certificate = match credential {
            Credential::Token(token) if token.len() > CREDENTIAL_BYTES_MAX => {
                return Err(StatusError::unauthorized());
            }
            Credential::Token(token) => return self.of_token(token).await,
            Credential::Certificate(certificate) => certificate,
        };
        let certificate = STANDARD.decode(certificate).ok();
        let certificate = certificate.map(CertificateDer::from);
        let authority = self.objects.authority();
        let at = self.objects.now();
        let now = u64::try_from(at.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        // No connection has proved it this time.
        let vouched = |certificate: &CertificateDer<'_>| {
            let chain = std::slice::from_ref(certificate);
            authority.is_some_and(|authority| authority.vouches_for(chain, now))
        };
        let good = certificate.filter(vouched);
        good.as_ref()
            .and_then(|certificate| certificate_subject(certificate, at))
            .ok_or_else(StatusError::unauthorized)
    }

    /// Others who issue tokens.
    pub(crate) fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// Sessions of browsers.
    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Who this server is, where nothing else is said.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Whose token this is, for one of these audiences; else why it is nobody's, as those may know who review tokens.
    ///
    /// # Errors
    /// 429 when too many are asked about that are not good here; 503 when the store cannot be read.
    pub(crate) async fn token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Result<Known, String>, StatusError> {
        // What does not say for whom it is, is for this server.
        let own = self.audiences.iter().filter(|own| audiences.contains(own));
        let own: Vec<String> = own.cloned().collect();
        let for_us = |caller| match own.is_empty() {
            true => Err(INVALID_TOKEN.to_owned()),
            false => Ok(Known {
                caller,
                audiences: own.clone(),
            }),
        };
        if let Some(caller) = self.static_token(token) {
            return Ok(for_us(caller));
        }
        match self.accounts.authenticate(token, audiences).await? {
            Outcome::Known(known) => return Ok(Ok(known)),
            Outcome::Refused(why) => return Ok(Err(why)),
            Outcome::Another => {}
        }
        let now = self.objects.now().as_second();
        if !own.is_empty() {
            match self.issuers.authenticate(token, own.clone(), now).await {
                Outcome::Known(known) => return Ok(Ok(known)),
                Outcome::Refused(why) => return Ok(Err(why)),
                Outcome::Another => {}
            }
        }
        match self.bootstrap.authenticate(token).await {
            Ok(caller) => Ok(for_us(caller)),
            Err(error) if error.code == 401 => Ok(Err(INVALID_TOKEN.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Looks at every token, so that the time taken says nothing about which one came close.
    fn static_token(&self, token: &str) -> Option<Caller> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for candidate in self.tokens.iter() {
            if bool::from(candidate.digest.ct_eq(&digest)) {
                found = Some(candidate);
            }
        }
        found.map(|token| {
            Caller::static_token(token.user.clone(), token.uid.clone(), token.groups.clone())
        })
    }
}

/// The cookie of a session, where the request says that it is meant; a WebSocket has no other way to say anything.
fn meant_cookie(headers: &HeaderMap) -> Option<&str> {
    let meant = headers.contains_key(sessions::MARK) || websocket::is_asked(headers);
    sessions::cookie(headers).filter(|_| meant)
}

/// 403 for what a page of another origin would have done in somebody's name.
pub(crate) fn of_another_origin() -> StatusError {
    StatusError::forbidden_message(
        "the request is made in the name of a browser's user by a page that is not this server's: open this server's own page, or send a bearer token",
    )
}

/// What a request was made with that could be held for a session: the certificate of its connection, or a token in its head.
pub(crate) fn presented(
    headers: &HeaderMap,
    peer: &PeerCertificates,
    now: Timestamp,
) -> Option<Credential> {
    let certificate = peer.0.first();
    let certificate = certificate.filter(|shown| certificate_subject(shown, now).is_some());
    if let Some(certificate) = certificate {
        return Some(Credential::of_certificate(certificate));
    }
    let token = headers.get(AUTHORIZATION)?.to_str().ok()?;
    token_of(token).map(Credential::Token)
}

/// The user and groups of a verified client certificate; `None` if it names no user, or is over at `now`. A node's that is over says who
/// the node was.
pub(crate) fn certificate_subject(
    certificate: &CertificateDer<'_>,
    now: Timestamp,
) -> Option<Caller> {
    let digest = Sha256::digest(certificate);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let extra = Extra::from([(
        CREDENTIAL_ID.to_owned(),
        vec![format!("X509SHA256={digest}")],
    )]);
    match lapsed::standing(&certificate, now) {
        Standing::Good => {}
        Standing::Lapsed(node) => return Some(Caller::lapsed_node(node).with_extra(extra)),
        Standing::Over => return None,
    }
    let subject = certificate.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?;
    if user.is_empty() {
        return None;
    }
    let groups = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok())
        .map(str::to_owned);
    Some(Caller::client_certificate(user, groups.collect()).with_extra(extra))
}

fn token_of(header: &str) -> Option<String> {
    if header.len() > CREDENTIAL_BYTES_MAX {
        return None;
    }
    let (scheme, value) = header.split_once(' ')?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return (!value.is_empty()).then(|| value.to_owned());
    }
    if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(STANDARD.decode(value).ok()?).ok()?;
        let (_, password) = decoded.split_once(':')?;
        return (!password.is_empty()).then(|| password.to_owned());
    }
    None
}

/// The token that stands among the subprotocols of a WebSocket, where a browser can put one.
///
/// # Errors
/// 401 for one that is no token, or stands there alone, so that no subprotocol could be chosen.
fn websocket_token(headers: &HeaderMap) -> Result<Option<String>, StatusError> {
    if !websocket::is_asked(headers) {
        return Ok(None);
    }
    let (mut tokens, mut others) = (Vec::new(), false);
    for word in headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        match word.trim().strip_prefix(WEBSOCKET_TOKEN) {
            Some(token) => tokens.push(token),
            None => others = true,
        }
    }
    let token = match tokens.as_slice() {
        [] => return Ok(None),
        [token] if others && token.len() <= CREDENTIAL_BYTES_MAX => token,
        _ => return Err(StatusError::unauthorized()),
    };
    let token = URL_SAFE_NO_PAD.decode(token).ok();
    let token = token.and_then(|token| String::from_utf8(token).ok());
    match token.filter(|token| !token.is_empty()) {
        Some(token) => Ok(Some(token)),
        None => Err(StatusError::unauthorized()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_put_tokens_among_the_subprotocols() {
        const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
        for (offered, token) in [
            (
                format!("{PREFIX}c2VjcmV0, base64.binary.k8s.io"),
                Ok(Some("secret")),
            ),
            ("base64.binary.k8s.io".to_owned(), Ok(None)),
            (format!("{PREFIX}c2VjcmV0"), Err(401)),
            (format!("{PREFIX}c2VjcmV0,{PREFIX}c2VjcmV0,x"), Err(401)),
            (format!("{PREFIX}c2Vj*,x"), Err(401)),
            (format!("{PREFIX},x"), Err(401)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
            assert_eq!(websocket_token(&headers).unwrap(), None, "no WebSocket");
            headers.insert("connection", "Upgrade".parse().unwrap());
            headers.insert("upgrade", "websocket".parse().unwrap());
            let found = websocket_token(&headers).map_err(|error| error.code);
            assert_eq!(
                found.as_ref().map(Option::as_deref).map_err(|code| *code),
                token,
                "{offered}"
            );
        }
    }

    #[test]
    fn headers_give_tokens() {
        for (header, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic dTphYmM=", Some("abc")),
            ("Basic dTo=", None),
            ("Basic %%%", None),
            ("Digest x", None),
            ("Bearer ", None),
            ("abc", None),
        ] {
            assert_eq!(token_of(header).as_deref(), token, "{header}");
        }
    }

    #[test]
    fn token_files_are_kubernetes_csv() {
        let tokens =
            StaticToken::parse_file("# admins\nsecret,jo,7,\"a,b\"\n\nother,ko,\n").unwrap();
        let seen: Vec<_> = tokens
            .iter()
            .map(|token| {
                (
                    token.user.as_str(),
                    token.uid.as_deref(),
                    token.groups.join("+"),
                )
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("jo", Some("7"), "a+b".to_owned()),
                ("ko", None, String::new())
            ]
        );
        assert_eq!(
            StaticToken::parse_file("x,y,z\nlonely")
                .err()
                .map(|error| error.line),
            Some(2)
        );
    }
}
