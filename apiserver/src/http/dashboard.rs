//! `/dashboard`: the page, and how a browser signs in.
//!
//! ```text
//! GET    /dashboard/…          the page (`assets.rs`), for anybody: it shows nothing by itself
//! GET    /dashboard/session    whose session this is, and by what one can be begun
//! POST   /dashboard/session    begins one by {"link": …}, {"token": …} or {"certificate": true}
//! DELETE /dashboard/session    ends it, on all servers
//! POST   /dashboard/links      a link for whoever asks by a token or a certificate of his own: good once, for minutes
//! GET    /dashboard/oidc/N     to the N-th issuer of tokens, and back (`oidc.rs`)
//! ```
//! All else the page asks of the API, as any client does; there is nothing that only it can have. What is here stands before the front of the API,
//! as it is there for those who have yet to say who they are.
//!
//! Invariants: a session that begins has a name of its own, whatever cookie came; it begins and ends for pages of this origin alone; the page runs no
//! script and asks for nothing but this server's; sign-ins at a time are bounded, as are their bodies and times, and each is written down (audit)
//! without what it was done by. Left to others: sessions themselves (`crate::authn::sessions`).

mod assets;
mod oidc;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use weft_api::status::StatusError;
use weft_api::time::rfc3339;

use super::error::ApiError;
use super::origin::Origin;
use super::{AppState, audit_id};
use crate::audit::Open;
use crate::authn::sessions::{self, Begun, By, COOKIE, Credential, Held, MARK, Wanted};
use crate::authn::{
    PeerAddress, PeerCertificates, certificate_subject, of_another_origin, presented,
};
use crate::caller::Caller;
use crate::impersonation;
use crate::request::RequestInfo;

const PAGE: &str = "/dashboard";
const SESSION: &str = "session";
const LINKS: &str = "links";
/// Sign-ins at one time, and how long one may take: an issuer of tokens may have to be asked.
const SIGN_INS_MAX: usize = 32;
const SIGN_IN_TIME: Duration = Duration::from_secs(20);
/// A token, and some words around it.
const BODY_BYTES_MAX: usize = 16 << 10;
/// Seconds after which one who found no place is let in, most likely.
const RETRY_AFTER_SECONDS: u32 = 1;
/// Nothing from elsewhere, no script in the page, and nobody's frame.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// Of the cookie: no script reads it, nothing but TLS carries it, and no other site has it sent.
const ATTRIBUTES: &str = "Secure; HttpOnly; SameSite=Strict";

/// Places for those who sign in. Cheap to clone.
#[derive(Clone)]
pub(super) struct SignIns(Arc<Semaphore>);

impl Default for SignIns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SIGN_INS_MAX)))
    }
}

/// What a session is begun by.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Shown {
    Link(String),
    Token(String),
    Certificate(bool),
}

/// A request about sessions, read whole.
struct Asked {
    head: Parts,
    body: Bytes,
    peer: PeerCertificates,
}

/// Who was found to ask, and what he is answered.
type Answered = Result<(Option<Caller>, Response), StatusError>;

/// Whether a path is served here.
pub(super) fn serves(path: &str) -> bool {
    let rest = path.strip_prefix(PAGE);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers whatever is asked below `/dashboard`.
pub(super) async fn answer(state: &AppState, request: Request) -> Response {
    let mut response = match served(state, request).await {
        Ok(response) => response,
        Err(error) => ApiError(error).into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (OPENER_POLICY, "same-origin"),
        (RESOURCE_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn served(state: &AppState, request: Request) -> Result<Response, StatusError> {
    let path = request.uri().path();
    let name = path.strip_prefix(PAGE).unwrap_or_default();
    let Some(name) = name.strip_prefix('/') else {
        return moved("/dashboard/", StatusCode::PERMANENT_REDIRECT);
    };
    let name = name.to_owned();
    let method = request.method().clone();
    if !matches!(&*name, SESSION | LINKS) && !oidc::serves(&name) {
        if !matches!(method, Method::GET | Method::HEAD) {
            return Err(StatusError::method_not_allowed());
        }
        let found = assets::answer(&method, &name, request.headers());
        return found.ok_or_else(StatusError::unknown_path);
    }
    let place = state.sign_ins.0.try_acquire();
    let _place = place.map_err(|_| {
        StatusError::too_many_requests(
            "too many sign in at the same time, please try again later",
            RETRY_AFTER_SECONDS,
        )
    })?;
    let answered = async {
        let asked = Asked::of(request).await?;
        match (&*name, &method) {
            (SESSION, &Method::GET | &Method::HEAD) => Ok(told(state, &asked).await),
            (SESSION, &Method::POST) => asked.noted(state, begin(state, &asked).await).await,
            (SESSION, &Method::DELETE) => asked.noted(state, end(state, &asked).await).await,
            (LINKS, &Method::POST) => asked.noted(state, link(state, &asked).await).await,
            (name, &Method::GET) if oidc::serves(name) => {
                let answered = oidc::answer(state, &asked, name).await;
                asked.noted(state, answered).await
            }
            _ => Err(StatusError::method_not_allowed()),
        }
    };
    let answered = tokio::time::timeout(SIGN_IN_TIME, answered).await;
    answered.map_err(|_| {
        StatusError::timeout("Timeout: request did not complete within the allotted timeout")
    })?
}

fn moved(to: &str, status: StatusCode) -> Result<Response, StatusError> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let to = HeaderValue::from_str(to).map_err(StatusError::internal)?;
    response.headers_mut().insert(header::LOCATION, to);
    Ok(response)
}

impl Asked {
    async fn of(request: Request) -> Result<Self, StatusError> {
        let (head, body) = request.into_parts();
        let peer = head.extensions.get::<PeerCertificates>().cloned();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|_| {
            StatusError::request_entity_too_large(format!(
                "what signs in has more than {BODY_BYTES_MAX} bytes"
            ))
        })?;
        Ok(Self {
            head,
            body: body.to_bytes(),
            peer: peer.unwrap_or_else(PeerCertificates::none),
        })
    }

    fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// # Errors
    /// 403 where it is not a page of this server's that asks, and means it.
    fn is_ours(&self) -> Result<(), StatusError> {
        let is_meant = self.headers().contains_key(MARK);
        let own = Origin::of(self.headers(), &self.head.uri) == Origin::Own;
        match is_meant && own {
            true => Ok(()),
            false => Err(of_another_origin()),
        }
    }

    /// The session that its cookie is of, if that is good.
    async fn session(&self, state: &AppState) -> Option<(Caller, Held)> {
        let is_meant = self.headers().contains_key(MARK);
        let other = Origin::of(self.headers(), &self.head.uri) == Origin::Another;
        let shown = sessions::cookie(self.headers()).filter(|_| is_meant && !other)?;
        state.authenticator.of_session(shown).await.ok()
    }

    /// What the browser has shown, if it is somebody's.
    fn certificate(&self) -> Option<(Caller, &CertificateDer<'static>)> {
        let certificate = self.peer.0.first()?;
        let caller = certificate_subject(certificate, Timestamp::now())?;
        Some((caller, certificate))
    }

    /// Writes down that somebody signed in or out, or would have. It is known who only when it is over.
    async fn noted(&self, state: &AppState, answered: Answered) -> Result<Response, StatusError> {
        let Some(audit) = &state.audit else {
            return answered.map(|(_, response)| response);
        };
        let (caller, answered) = match answered {
            Ok((caller, response)) => (caller, Ok(response)),
            Err(error) => (None, Err(error)),
        };
        let address = self.head.extensions.get::<PeerAddress>();
        let caller = caller.map(|caller| caller.at_address(address.map(|address| address.0)));
        let path = self.head.uri.path();
        let verb = match self.head.method {
            Method::POST => "post",
            Method::DELETE => "delete",
            _ => "get",
        };
        // Never with its query: codes of issuers are in that.
        let info = RequestInfo::of_path(verb, path);
        let id = audit_id(self.headers());
        let id = id.to_str().unwrap_or("");
        let begun = audit.begin(caller.as_ref(), &info, path, self.headers(), id);
        let open = Open::new(begun.await);
        if let Some(trail) = open.trail() {
            let status = answered.as_ref().map(Response::status);
            trail.answered(status.map_or_else(|error| error.code, |status| status.as_u16()));
        }
        open.close().await;
        answered
    }
}

/// Who is signed in, and by what somebody could be.
async fn told(state: &AppState, asked: &Asked) -> Response {
    let session = asked.session(state).await;
    let session = session.as_ref().map(|(caller, held)| {
        let Held { record, .. } = held;
        (caller, record.by, record.expires)
    });
    let mut told = about(session);
    let certificate = asked.certificate();
    told["certificate"] = json!(certificate.map(|(caller, _)| json!({"name": caller.user()})));
    let issuers = state.authenticator.issuers().code_flows();
    let issuers = issuers
        .map(|(number, url)| json!({"url": url, "path": format!("{PAGE}/{}{number}", oidc::PATH)}));
    told["issuers"] = issuers.collect();
    json_response(&told)
}

fn about(session: Option<(&Caller, By, Timestamp)>) -> Value {
    match session {
        None => json!({"user": null, "expires": null, "by": null}),
        Some((caller, by, expires)) => json!({
            "user": {"name": caller.user(), "uid": caller.uid(), "groups": caller.groups()},
            "expires": rfc3339(expires),
            "by": by,
        }),
    }
}

/// Begins a session by what is shown; the one that there is goes.
async fn begin(state: &AppState, asked: &Asked) -> Answered {
    asked.is_ours()?;
    let kind = asked.headers().get(header::CONTENT_TYPE);
    if kind.is_none_or(|kind| !kind.as_bytes().starts_with(b"application/json")) {
        return Err(StatusError::unsupported_media_type(
            "the body that signs in must be application/json",
        ));
    }
    let shown: Shown = serde_json::from_slice(&asked.body).map_err(|_| {
        StatusError::bad_request(
            r#"the body must be one of {"link": "…"}, {"token": "…"}, {"certificate": true}"#,
        )
    })?;
    let (by, credential, link) = match shown {
        Shown::Token(token) => (By::Token, Credential::Token(token.trim().to_owned()), None),
        Shown::Link(link) => {
            let link = state.authenticator.sessions().link(&link).await;
            let link = link.map_err(|error| match error.code {
                401 => StatusError {
                    message: "the link was used already, or is too old: ask for another one with `weft dash`".to_owned(),
                    ..error
                },
                _ => error,
            })?;
            (By::Link, link.record.credential.clone(), Some(link))
        }
        Shown::Certificate(is_shown) => {
            let found = asked.certificate().filter(|_| is_shown);
            let found = found.ok_or_else(StatusError::unauthorized)?;
            (By::Certificate, Credential::of_certificate(found.1), None)
        }
    };
    let begun = new_session(state, asked, by, credential, link).await?;
    Ok(begun)
}

/// Has the browser hold a session of whoever proves himself by that.
async fn new_session(
    state: &AppState,
    asked: &Asked,
    by: By,
    credential: Credential,
    link: Option<Held>,
) -> Answered {
    let caller = state.authenticator.of_credential(&credential).await?;
    let wanted = Wanted {
        user: caller.user(),
        by,
        until: credential.end(),
        credential,
    };
    let sessions = state.authenticator.sessions();
    // Whichever it is: nobody else's cookie lives on under the new user.
    let before = match sessions::cookie(asked.headers()) {
        Some(shown) => sessions.session(shown).await.ok(),
        None => None,
    };
    let begun = match link {
        Some(link) => sessions.redeem(link, wanted, before).await?,
        None => sessions.begin(wanted, before).await?,
    };
    let mut response = json_response(&about(Some((&caller, by, begun.expires))));
    *response.status_mut() = StatusCode::CREATED;
    let cookie = cookie(state, &begun)?;
    response.headers_mut().append(header::SET_COOKIE, cookie);
    tracing::info!(user = caller.user(), ?by, "a browser was signed in");
    Ok((Some(caller), response))
}

fn cookie(state: &AppState, begun: &Begun) -> Result<HeaderValue, StatusError> {
    let now = state.objects.now();
    let seconds = begun.expires.duration_since(now).as_secs().max(0);
    let shown = &begun.shown;
    let cookie = format!("{COOKIE}={shown}; Path=/; Max-Age={seconds}; {ATTRIBUTES}");
    let mut cookie = HeaderValue::from_str(&cookie).map_err(StatusError::internal)?;
    cookie.set_sensitive(true);
    Ok(cookie)
}

/// Ends the session, here and on all other servers.
async fn end(state: &AppState, asked: &Asked) -> Answered {
    asked.is_ours()?;
    let sessions = state.authenticator.sessions();
    let caller = asked.session(state).await.map(|(caller, _)| caller);
    // One whose credential is over can still be ended.
    if let Some(shown) = sessions::cookie(asked.headers())
        && let Ok(held) = sessions.session(shown).await
    {
        sessions.end(held).await?;
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let gone = format!("{COOKIE}=; Path=/; Max-Age=0; {ATTRIBUTES}");
    let gone = HeaderValue::from_str(&gone).map_err(StatusError::internal)?;
    response.headers_mut().append(header::SET_COOKIE, gone);
    Ok((caller, response))
}

/// A link for whoever asks, by what he asks with.
async fn link(state: &AppState, asked: &Asked) -> Answered {
    if Origin::of(asked.headers(), &asked.head.uri) == Origin::Another {
        return Err(of_another_origin());
    }
    if impersonation::is_asked(asked.headers()) {
        return Err(StatusError::forbidden_message(
            "a link is of whoever asks, and cannot be made for somebody that he acts for: ask without impersonation",
        ));
    }
    let credential = presented(asked.headers(), &asked.peer, Timestamp::now())
        .ok_or_else(StatusError::unauthorized)?;
    let caller = state.authenticator.of_credential(&credential).await?;
    let wanted = Wanted {
        user: caller.user(),
        by: By::Link,
        until: credential.end(),
        credential,
    };
    let made = state.authenticator.sessions().make_link(wanted).await?;
    let mut response = json_response(&json!({
        "link": made.shown,
        "path": format!("{PAGE}/#link={}", made.shown),
        "expires": rfc3339(made.expires),
    }));
    *response.status_mut() = StatusCode::CREATED;
    Ok((Some(caller), response))
}

fn json_response(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
