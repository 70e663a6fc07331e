//! Registries elsewhere: the pulling half of the OCI distribution API, bounded in every direction.
//!
//! ```text
//! open ──► follow ──► client of the origin ──► answer        redirects, each hop judged anew
//!   ▲ 401                                         │
//!   └── authorize: Basic, or a token of the realm ┘          once, then it is denied
//! ```
//!
//! Invariants: a connection, an answer's first byte and each further piece have their own time; bodies are read piece by piece against
//! their bound; nothing is sent to an address that [`super::egress`] refuses, nor in the clear, unless the node's owner named the host;
//! credentials go to the origin that they are for and to the token service that it names, never along with a redirect. Clients and
//! tokens are kept: one connection serves manifest and layers.

use super::Limits;
use super::egress::{self, Guard, Refused};
use super::fault::Fault;
use super::keyring::Credential;
use super::manifest::start_of;
use super::registries::{Endpoint, Origin, Registries, Tls};
use super::token::{Challenge, Grant, Granted, Tokens, token_url};
use crate::identity::Chain;
use base64::Engine as _;
use bytes::Bytes;
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, Url};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Hops from the first address to the content: registries need one, to where their blobs lie.
const REDIRECTS_MAX: usize = 5;
/// Largest answer of a token service, in bytes. Tokens of big registries have up to some ten thousand.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// How much of a refusal is read for its sentence, in bytes.
const REFUSAL_BYTES_MAX: usize = 8 << 10;
/// How long a connection that nobody uses is kept, and how many of one host.
const IDLE: Duration = Duration::from_secs(30);
const IDLE_MAX: usize = 2;

/// How registries elsewhere are reached. Clients are built at their first use: the machine's roots are read for it.
pub(super) struct Remote {
    registries: Registries,
    limits: Limits,
    /// For hosts that only pods name.
    guarded: OnceLock<Result<Client, String>>,
    /// For hosts that the node's owner named.
    named: HashMap<Origin, OnceLock<Result<Client, String>>>,
    tokens: Tokens,
}

impl Remote {
    pub(super) fn new(registries: Registries, limits: Limits) -> Self {
        let named = registries.origins();
        let named = named
            .map(|origin| (origin.clone(), OnceLock::new()))
            .collect();
        Self {
            registries,
            limits,
            guarded: OnceLock::new(),
            named,
            tokens: Tokens::default(),
        }
    }

    pub(super) fn registries(&self) -> &Registries {
        &self.registries
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Asks an endpoint for `what` of its repository, as `manifests/1` or `blobs/sha256:…`. The body is left to be read.
    pub(super) async fn open(
        &self,
        endpoint: &Endpoint,
        credential: Option<&Credential>,
        what: &str,
        accept: &'static str,
    ) -> Result<Response, Fault> {
        let text = format!("{}/{}/{what}", endpoint.base, endpoint.repository);
        let mut url = Url::parse(&text).map_err(|error| Fault::Failed(error.to_string()))?;
        if let Some(registry) = &endpoint.mirror_of {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        let grant = Grant {
            origin: Origin::of(&url),
            repository: endpoint.repository.clone(),
            holder: credential.map(Credential::fingerprint),
        };
        let mut shown = match credential.map(|credential| credential.registry_token.as_str()) {
            Some(token) if !token.is_empty() => Some(bearer(token)?),
            _ => self.tokens.get(&grant, Instant::now()),
        };
        let mut asked_for_token = false;
        loop {
            let answer = self.follow(url.clone(), accept, shown.as_ref()).await?;
            match answer.status() {
                status if status.is_success() => return Ok(answer),
                StatusCode::NOT_FOUND => return Err(Fault::NotFound),
                StatusCode::UNAUTHORIZED if !asked_for_token => {
                    asked_for_token = true;
                    match self.authorize(&grant, credential, answer.headers()).await? {
                        Some(header) => shown = Some(header),
                        None => return Err(self.denied(credential, answer).await),
                    }
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(self.denied(credential, answer).await);
                }
                status => {
                    let told = self.told(answer).await;
                    return Err(Fault::Failed(format!("it answered {status}{told}")));
                }
            }
        }
    }

    /// Sends a GET, and again to where it leads.
    async fn follow(
        &self,
        mut url: Url,
        accept: &'static str,
        shown: Option<&HeaderValue>,
    ) -> Result<Response, Fault> {
        let origin = Origin::of(&url);
        for _ in 0..=REDIRECTS_MAX {
            let mut request = self.client(&url)?.get(url.clone()).header(ACCEPT, accept);
            if let Some(shown) = shown.filter(|_| Origin::of(&url) == origin) {
                request = request.header(AUTHORIZATION, shown);
            }
            let answer = self.send(request).await?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer.headers().get(LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let mut next =
                next.ok_or_else(|| Fault::Failed("it redirects to nowhere".to_owned()))?;
            // Neither fails: it has a host.
            let _ = next.set_username("");
            let _ = next.set_password(None);
            url = next;
        }
        Err(Fault::Failed(format!(
            "it redirects more than {REDIRECTS_MAX} times"
        )))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Fault> {
        match tokio::time::timeout(self.limits.silent, request.send()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(unreachable_by(error)),
            Err(_) => Err(silent(self.limits.silent)),
        }
    }

    /// The client for where a URL leads, if that may be asked at all.
    fn client(&self, url: &Url) -> Result<&Client, Fault> {
        let origin = Origin::of(url);
        let client = match (self.named.get(&origin), self.registries.named(&origin)) {
            (Some(client), Some(tls)) => {
                client.get_or_init(|| built(self.builder(), Some(&origin), tls))
            }
            _ if !matches!(url.scheme(), "http" | "https") => {
                return Err(Fault::Failed(format!(
                    "it leads to a {}: address, where no registry is",
                    start_of(url.scheme())
                )));
            }
            _ if !origin.secure => {
                return Err(Fault::Failed(format!(
                    "{origin} is not encrypted; if it is meant, name it in the node's --private-registry file"
                )));
            }
            _ => {
                egress::check_literal(url)?;
                self.guarded.get_or_init(|| {
                    let builder = self
                        .builder()
                        .dns_resolver(Arc::new(Guard::of_environment()));
                    built(builder, None, &Tls::default())
                })
            }
        };
        client
            .as_ref()
            .map_err(|reason| Fault::Here(reason.clone()))
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .user_agent(concat!("weft/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(self.limits.connect)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
    }

    /// What to show after a 401; nothing when there is nothing that could be shown.
    async fn authorize(
        &self,
        grant: &Grant,
        credential: Option<&Credential>,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, Fault> {
        let basic = credential.filter(|credential| !credential.username.is_empty());
        match Challenge::of(headers) {
            None => Ok(None),
            Some(Challenge::Basic) => basic.map(basic_of).transpose(),
            Some(Challenge::Bearer {
                realm,
                service,
                scope,
            }) => {
                let realm = Url::parse(&realm).map_err(|_| {
                    Fault::Failed(format!(
                        "its token service {:?} is no URL",
                        start_of(&realm)
                    ))
                })?;
                let scope =
                    scope.unwrap_or_else(|| format!("repository:{}:pull", grant.repository));
                let asking = self.ask_for_token(realm, service.as_deref(), &scope, credential);
                let (token, lifetime) = tokio::time::timeout(self.limits.document, asking)
                    .await
                    .map_err(|_| late("its token", self.limits.document))??;
                let header = bearer(&token)?;
                self.tokens
                    .keep(grant.clone(), header.clone(), lifetime, Instant::now());
                Ok(Some(header))
            }
        }
    }

    async fn ask_for_token(
        &self,
        realm: Url,
        service: Option<&str>,
        scope: &str,
        credential: Option<&Credential>,
    ) -> Result<(String, Duration), Fault> {
        let refresh = credential.filter(|credential| !credential.identity_token.is_empty());
        let answer = match refresh {
            // OAuth2, as Docker's token services speak it.
            Some(credential) => {
                let client = self.client(&realm)?;
                let mut form = realm.clone();
                form.query_pairs_mut()
                    .clear()
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("service", service.unwrap_or_default())
                    .append_pair("client_id", "weft")
                    .append_pair("scope", scope)
                    .append_pair("refresh_token", &credential.identity_token);
                let body = form.query().unwrap_or_default().to_owned();
                let request = client
                    .post(realm)
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(body);
                self.send(request).await?
            }
            None => {
                let basic = credential.filter(|credential| !credential.username.is_empty());
                let basic = basic.map(basic_of).transpose()?;
                let url = token_url(realm, service, scope);
                self.follow(url, "application/json", basic.as_ref()).await?
            }
        };
        match answer.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                return Err(self.denied(credential, answer).await);
            }
            status => {
                return Err(Fault::Failed(format!(
                    "its token service answered {status}"
                )));
            }
        }
        let bytes = self.read(answer, TOKEN_BYTES_MAX).await?;
        let granted = Granted::read(&bytes);
        granted.ok_or_else(|| Fault::Failed("its token service gave no token".to_owned()))
    }

    /// Reads a body of at most so many bytes.
    async fn read(&self, answer: Response, most: usize) -> Result<Bytes, Fault> {
        let mut body = Body {
            kind: Kind::Remote(answer),
            silent: self.limits.silent,
        };
        body.read(most).await
    }

    async fn denied(&self, credential: Option<&Credential>, answer: Response) -> Fault {
        let whom = match credential {
            None => "anybody without credentials".to_owned(),
            Some(credential) if credential.username.is_empty() => {
                "the holder of this token".to_owned()
            }
            Some(credential) => format!("user {:?}", start_of(&credential.username)),
        };
        let status = answer.status();
        let told = self.told(answer).await;
        Fault::Denied {
            whom,
            told: format!("{status}{told}"),
        }
    }

    /// The sentence in a refusal, if there is one. Whoever refuses without end is not listened to.
    async fn told(&self, answer: Response) -> String {
        let body = self
            .read(answer, REFUSAL_BYTES_MAX)
            .await
            .unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let told = body["errors"][0]["message"].as_str();
        let told = told.or(body["message"].as_str()).unwrap_or_default();
        match start_of(told) {
            "" => String::new(),
            told => format!(", {told:?}"),
        }
    }
}

/// Builds a client; without TLS for an origin that has none, so that a machine without roots can ask it.
fn built(builder: ClientBuilder, origin: Option<&Origin>, tls: &Tls) -> Result<Client, String> {
    let builder = match origin {
        Some(origin) if !origin.secure => builder.tls_certs_only([]),
        _ => builder
            .tls_certs_merge(tls.roots.iter().cloned())
            .tls_danger_accept_invalid_certs(tls.unverified),
    };
    let builder = match &tls.identity {
        Some(identity) => builder.identity(identity.clone()),
        None => builder,
    };
    builder.build().map_err(|error| {
        let error = Chain(&error);
        format!("this node cannot speak TLS to registries: {error}; install the system's CA certificates")
    })
}

fn secret(text: &str) -> Result<HeaderValue, Fault> {
    let value = HeaderValue::from_str(text);
    // The value itself is not told.
    let mut value =
        value.map_err(|_| Fault::Failed("its credential cannot be sent in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn bearer(token: &str) -> Result<HeaderValue, Fault> {
    secret(&format!("Bearer {token}"))
}

fn basic_of(credential: &Credential) -> Result<HeaderValue, Fault> {
    let pair = format!("{}:{}", credential.username, credential.password);
    let pair = base64::engine::general_purpose::STANDARD.encode(pair);
    secret(&format!("Basic {pair}"))
}

pub(super) fn silent(after: Duration) -> Fault {
    Fault::Failed(format!("it said nothing for {} s", after.as_secs_f32()))
}

pub(super) fn late(what: &str, after: Duration) -> Fault {
    Fault::Failed(format!(
        "{what} is not here after {} s",
        after.as_secs_f32()
    ))
}

/// What kept a request from being answered.
fn unreachable_by(error: reqwest::Error) -> Fault {
    let error = error.without_url();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return Fault::Refused(refused.clone());
        }
        cause = current.source();
    }
    Fault::Failed(Chain(&error).to_string())
}

/// What a registry sends, this cluster's or another.
pub(super) struct Body {
    pub(super) kind: Kind,
    /// How long it may send nothing.
    pub(super) silent: Duration,
}

pub(super) enum Kind {
    Remote(Response),
    Own(kube::client::Body),
}

impl Body {
    /// The next piece.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        let next = async {
            match &mut self.kind {
                Kind::Remote(answer) => answer.chunk().await.map_err(unreachable_by),
                Kind::Own(body) => own_piece(body).await,
            }
        };
        tokio::time::timeout(self.silent, next)
            .await
            .unwrap_or_else(|_| Err(silent(self.silent)))
    }

    /// All of it, unless it is more than `most` bytes: then no more of it is taken.
    pub(super) async fn read(&mut self, most: usize) -> Result<Bytes, Fault> {
        let too_much = || {
            Fault::Failed(format!(
                "it sends more than {most} bytes where a short answer is due"
            ))
        };
        let announced = match &self.kind {
            Kind::Remote(answer) => answer.content_length(),
            Kind::Own(_) => None,
        };
        if announced.is_some_and(|announced| announced > most as u64) {
            return Err(too_much());
        }
        let mut read = Vec::new();
        while let Some(piece) = self.piece().await? {
            if piece.len() > most - read.len() {
                return Err(too_much());
            }
            read.extend_from_slice(&piece);
        }
        Ok(read.into())
    }
}

async fn own_piece(body: &mut kube::client::Body) -> Result<Option<Bytes>, Fault> {
    use http_body_util::BodyExt as _;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Fault::Failed(Chain(&error).to_string()))?;
        // Trailers say nothing that is wanted.
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}
