//! The path of a call that leaves the cluster, top to bottom.
//!
//! ```text
//! read the destination → a rule of the caller's identity → a place → addresses → each judged → a connection to one of them
//!   → send → retry or not (`retry.rs`, `budget.rs`) → the response as it comes → charge
//! ```
//! A redirect is a response like any other: who follows it makes a new call, which is judged anew.
//!
//! Invariants: a connection is opened to an address that was judged for this call, and to no other answer of a name server; headers of the
//! mesh and of its traces stay inside; a request is sent again only as within the mesh; each call is charged once from the moment
//! at which somebody waits for it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    request::Parts, uri,
};
use http_body::Body as _;
use hyper::body::Incoming;
use rustls::ClientConfig;
use smallvec::smallvec;
use weft_call::{CallOptions, Failure, FailureKind, Processed};

use super::{
    Identity,
    address::{self, OwnAddresses},
    body::{Connection, Held, Using},
    connect::{self, Failed},
    destination::{Destination, EgressScheme, Host},
    manner::{Key, Manner},
    names::LookupError,
    pool::{Crowded, Open, Permits, Place, Speaks},
    rule::{Asked, Matched, NotGranted},
};
use crate::{
    Body, Inner,
    call::{called_by, earlier},
    caller::Caller,
    failure, headers,
    measure::{self, Charge, Holds, RequestBytes},
    outbound::{Arrival, charge_to_nobody},
    replay,
    retry::{self, Verdict},
    sighting::Seen,
    transport::{is_malformed, not_taken},
};

/// How long a host may take for the head of its response where the caller sets no deadline.
const HEAD_MAX: Duration = Duration::from_secs(60);
/// A connection that had its last response read is ready for the next request at once; one that still takes in a request is not worth
/// waiting for.
const READY_MAX: Duration = Duration::from_millis(20);
/// The pause before a request is sent again to the same host, doubled each time.
const PAUSE: Duration = Duration::from_millis(50);

/// Makes one call of `caller` to a host outside, if its rules allow that.
///
/// # Errors
/// [`FailureKind::NotGranted`] where they do not; as calls within the mesh for all else.
pub(crate) async fn send(
    inner: Arc<Inner>,
    caller: Arc<Caller>,
    arrival: Arrival,
) -> Result<Response<Body>, Failure> {
    let (inner, caller) = (&inner, &caller);
    let started = arrival.at;
    let what = (arrival.request.method(), arrival.request.uri());
    let refused = Seen::of(inner, what, None, None, started);
    let failed = |error| {
        charge_to_nobody(inner, caller, started, &error, refused.clone());
        error
    };
    let to = Destination::of(arrival.request.uri()).map_err(|why| {
        let host = arrival.request.uri().host().unwrap_or_default();
        let missing = NotGranted::never(caller.identity(), host, why);
        denied(inner, caller, &missing);
        failed(not_granted(&missing))
    })?;
    let identity = inner.egress.identity(caller.identity());
    let asked = Asked {
        to: &to,
        method: arrival.request.method(),
        path: arrival.request.uri().path(),
    };
    let judged = identity.rules.load().judge(caller.identity(), &asked);
    let matched = judged.map_err(|missing| {
        denied(inner, caller, &missing);
        failed(not_granted(&missing))
    })?;

    let deadline = earlier(arrival.context.deadline, started.checked_add(HEAD_MAX));
    let (mut head, body) = arrival.request.into_parts();
    let declared = headers::content_length(&head.headers)
        .map_err(|_| failed(failure::bad_request("its content-length is not one number")))?;
    let grpc = measure::is_grpc(&head.headers);
    // Its span is below the one that the caller is served in; whoever is outside hears nothing of it.
    let parent = Seen::parent(inner, &arrival.context, &head.headers);
    let context = called_by(inner, caller, arrival.context, &head.headers);
    let what = (&head.method, &head.uri);
    let seen = Seen::of(inner, what, context.trace.as_ref(), parent, started);
    outward(&mut head.headers);
    let options = head.extensions.remove().unwrap_or_default();
    head.extensions.clear();
    let exact = body.size_hint().exact();
    let body = replay::Source::new(body, declared);
    // Dropped before it is answered, it is charged as a call that its caller gave up on.
    let mut unanswered = measure::Unanswered::new(Charge {
        edges: smallvec![caller.edge_to_nobody(inner, &matched.labels)],
        started,
        grpc,
        request_bytes: match (exact, body.counter()) {
            (Some(bytes), _) => RequestBytes::Known(bytes),
            (None, Some(counter)) => RequestBytes::Counted(counter),
            (None, None) => RequestBytes::Known(0),
        },
        by_transport: None,
        tcp: false,
        seen,
        activity: None,
    });
    let sent_to = matched.manner().map(|manner| manner.leads(&to));
    let call = Call {
        inner,
        caller,
        identity: &identity,
        asked: &to,
        to: sent_to.as_ref().unwrap_or(&to),
        key: matched.manner().map(Manner::key).unwrap_or_default(),
        method: head.method.clone(),
        head,
        options,
        body,
    };
    let answered = match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline.into(), call.tries())
            .await
            .unwrap_or_else(|_| Err(failure::deadline())),
        None => call.tries().await,
    };
    let charge = unanswered.answered();
    match answered {
        Ok(response) => Ok(match charge {
            Some(charge) => measure::finish(response, charge, Holds::default(), Instant::now()),
            None => response,
        }),
        Err(error) => {
            if let Some(charge) = charge {
                let flag = failure::flag(error.kind);
                charge.settle(error.status().as_u16(), None, flag, 0);
            }
            Err(error)
        }
    }
}

/// Counts a refusal, and logs it now and then: a scan of all ports is seventeen lines, not sixty-five thousand.
pub(crate) fn denied(inner: &Inner, caller: &Caller, missing: &dyn std::fmt::Display) {
    inner.metrics.denied.fetch_add(1, Ordering::Relaxed);
    let denied = caller.denied.fetch_add(1, Ordering::Relaxed) + 1;
    if denied.is_power_of_two() {
        tracing::warn!(
            caller = %caller.spiffe_id, denied, %missing,
            "a call out of the cluster was denied"
        );
    }
}

fn not_granted(missing: &NotGranted) -> Failure {
    Failure::new(FailureKind::NotGranted, missing.to_string())
}

/// Takes away what is said within the cluster only, and what belongs to one connection.
fn outward(lines: &mut HeaderMap) {
    headers::keep_what_enters(lines);
    lines.remove(weft_call::headers::TRACEPARENT);
    lines.remove(weft_call::headers::TRACESTATE);
    lines.remove(header::HOST);
}

/// One call and everything its tries share.
struct Call<'c> {
    inner: &'c Arc<Inner>,
    caller: &'c Arc<Caller>,
    identity: &'c Arc<Identity>,
    /// As the caller has it.
    asked: &'c Destination,
    /// Where it is sent, which is another port where it is to be by TLS.
    to: &'c Destination,
    /// On which connections.
    key: Key,
    method: Method,
    head: Parts,
    /// What its caller asks for.
    options: CallOptions,
    body: replay::Source,
}

impl Call<'_> {
    async fn tries(&self) -> Result<Response<Body>, Failure> {
        let account = &self.identity.account;
        let name = self.to.to_string();
        let crowded = |Crowded| failure::given_up(FailureKind::Crowded.into(), &name, 1);
        let place = account.place(self.to, self.key.clone()).map_err(crowded)?;
        place.budget.earn(self.inner.nanos(Instant::now()));
        let mut permits = Some(
            account
                .enter(&self.inner.egress.pool, &place)
                .await
                .map_err(crowded)?,
        );
        // It may have been withdrawn while the call waited for its turn.
        let matched = self.judged()?;
        let manner = matched.manner();
        if let Some(why) = manner.and_then(Manner::missing) {
            return Err(self.denied(matched.without(self.caller.identity(), self.to, why)));
        }
        let leads = manner.map(|manner| manner.leads(self.asked));
        let is_other = leads.as_ref().unwrap_or(self.asked) != self.to
            || manner.map(Manner::key).unwrap_or_default() != self.key;
        if is_other {
            // What its rule says of the way changed while it waited; the next call goes by that.
            let changed = connect::unreachable("how it is called is just being changed");
            return Err(failure::given_up(changed, &name, 1));
        }
        let addresses = self.addresses(&matched).await?;
        let tls = self.tls(manner).await?;
        let mut attempt = 0;
        loop {
            let failed = match self.once(&place, &addresses, tls.as_ref(), manner).await {
                Ok((response, connection)) => {
                    return self.answer(response, connection, &place, permits.take());
                }
                Err(failed) => failed,
            };
            let failure = match failed.failure.kind {
                // A codec says that the stream broke where the request's own body did.
                FailureKind::Interrupted | FailureKind::Malformed if self.body.is_broken() => {
                    failure::body_broken()
                }
                _ => failed.failure,
            };
            let replayable = self.body.is_replayable();
            let verdict = retry::decide(
                &failure,
                &self.method,
                attempt,
                replayable,
                false,
                retry::Asked {
                    rule: None,
                    keyed: self.options.idempotent
                        || self.head.headers.contains_key(headers::IDEMPOTENCY_KEY),
                    once: self.options.once,
                },
            );
            let again = verdict == Verdict::Retry && !failed.is_final && {
                let now = self.inner.nanos(Instant::now());
                place.budget.take(now)
            };
            tracing::debug!(to = %self.to, attempt, reason = %failure.kind, why = failure.detail.as_deref(), again, "try outside failed");
            if !again {
                return Err(failure::given_up(failure, &name, attempt + 1));
            }
            self.inner.metrics.retry(failure.kind.as_str());
            tokio::time::sleep(PAUSE * 2_u32.saturating_pow(attempt)).await;
            attempt += 1;
        }
    }

    /// The rules that it meets now.
    fn judged(&self) -> Result<Matched, Failure> {
        let asked = Asked {
            to: self.asked,
            method: &self.method,
            path: self.head.uri.path(),
        };
        let rules = self.identity.rules.load();
        let judged = rules.judge(self.caller.identity(), &asked);
        judged.map_err(|missing| self.denied(*missing))
    }

    /// The addresses of the host, each of which may be connected to.
    async fn addresses(&self, matched: &Matched) -> Result<Arc<[IpAddr]>, Failure> {
        let egress = &self.inner.egress;
        let found = match &self.to.host {
            Host::Address(address) => Arc::from([*address]),
            Host::Name(name) => {
                let share = &self.identity.account.lookups;
                let looked = egress.names.addresses(name, share).await;
                looked.map_err(|error| self.not_found(error))?
            }
        };
        let own = egress.own.load();
        for address in &*found {
            if address::is_no_host(*address) {
                let why = "its address is none of a host";
                let host = self.to.host.to_string();
                let missing = NotGranted::never(self.caller.identity(), &host, why);
                return Err(self.denied(missing));
            }
            let holds = self.own(&own, address.to_canonical());
            let judged = address::judge(*address, holds, matched.cidrs());
            // One that is wrong makes all of them so: a name that leads out and in is not to be asked twice which it is today.
            if let Err(refused) = judged {
                let missing = matched.refuse(self.caller.identity(), self.to, &refused);
                return Err(self.denied(missing));
            }
            if let Some(at) = self.caller.at {
                let to = (address.to_canonical(), self.to.port).into();
                let guards = self.inner.attached.guards();
                guards.admits(at, to, weft_policy::Protocol::Tcp)?;
            }
        }
        Ok(found)
    }

    fn denied(&self, missing: NotGranted) -> Failure {
        denied(self.inner, self.caller, &missing);
        not_granted(&missing)
    }

    /// The network of the cluster's that holds an address, if one does.
    fn own(&self, own: &OwnAddresses, address: IpAddr) -> Option<(ipnet::IpNet, &'static str)> {
        // That of this moment: the call may have waited for its turn.
        let table = self.inner.table.load();
        if table.service_by_ip(address).is_some() {
            return Some((address.into(), "an address of a Service"));
        }
        if table.endpoint((address, self.to.port).into()).is_some() {
            return Some((address.into(), "an address of a pod"));
        }
        let translated = || address::translated(address).and_then(|address| own.holds(address));
        own.holds(address).or_else(translated)
    }

    fn not_found(&self, error: LookupError) -> Failure {
        let message = format!("{} cannot be found: {error}", self.to.host);
        Failure::new(FailureKind::UnknownHost, message)
    }

    async fn tls(&self, manner: Option<&Manner>) -> Result<Option<Arc<ClientConfig>>, Failure> {
        if self.to.scheme == EgressScheme::Http {
            return Ok(None);
        }
        let roots = &self.inner.egress.roots;
        let own = match manner {
            Some(manner) => manner.tls(roots).await,
            None => None,
        };
        let config = match own {
            Some(own) => own,
            None => {
                let usual = &self.identity.account.tls;
                let usual = usual.get_or_try_init(|| roots.client(&[], None)).await;
                usual.cloned()
            }
        };
        let config = config.map_err(|error| {
            let message = format!("{} failed: this node cannot verify it: {error}", self.to);
            Failure::new(FailureKind::Failed, message).with_processed(Processed::No)
        })?;
        Ok(Some(config))
    }

    /// Sends the request on a connection that is open, or else on a new one.
    async fn once(
        &self,
        place: &Arc<Place>,
        addresses: &[IpAddr],
        tls: Option<&Arc<ClientConfig>>,
        manner: Option<&Manner>,
    ) -> Result<(Response<Incoming>, Connection), Failed> {
        while let Some(open) = place.take(addresses) {
            match self.send_on(open, manner).await {
                Sent::Answered(response, connection) => return Ok((response, connection)),
                // It was closed just when it was used, and nothing was written to it.
                Sent::Not(_) => {}
                Sent::Failed(failed) => return Err(failed),
            }
        }
        let open = self.open(place, addresses, tls).await?;
        match self.send_on(open, manner).await {
            Sent::Answered(response, connection) => Ok((response, connection)),
            Sent::Not(failed) | Sent::Failed(failed) => Err(failed),
        }
    }

    /// Opens a connection. Callers that come together wait for the first of them: what it opens may be enough for all.
    async fn open(
        &self,
        place: &Arc<Place>,
        addresses: &[IpAddr],
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Open, Failed> {
        let mut dialing = None;
        if tls.is_some() && place.speaks() != Speaks::Http1 {
            let since = Instant::now();
            let turn = place.dialing.lock().await;
            if let Some(open) = place.take(addresses) {
                return Ok(open);
            }
            if let Some(error) = place.failed(since) {
                return Err(error);
            }
            if place.speaks() != Speaks::Http1 {
                dialing = Some(turn);
            }
        }
        let opened = connect::open(place, self.to, addresses, tls.cloned()).await;
        if let (Some(_), Err(error)) = (&dialing, &opened) {
            place.fail(error.clone());
        }
        opened
    }

    async fn send_on(&self, open: Open, manner: Option<&Manner>) -> Sent {
        match open {
            Open::Exclusive(mut connection) => {
                let address = connection.address;
                let ready = tokio::time::timeout(READY_MAX, connection.sender.ready());
                if !matches!(ready.await, Ok(Ok(()))) {
                    return Sent::Not(not_taken_by(address));
                }
                let request = match self.request(Version::HTTP_11, manner) {
                    Ok(request) => request,
                    Err(error) => return Sent::Failed(error),
                };
                match connection.sender.try_send_request(request).await {
                    Ok(response) => Sent::Answered(response, Connection::Exclusive(connection)),
                    Err(mut error) => match error.take_message() {
                        Some(_) => Sent::Not(not_taken_by(address)),
                        None => Sent::Failed(broken(address, &error.into_error())),
                    },
                }
            }
            Open::Shared(stream) => {
                let address = stream.connection.address;
                let request = match self.request(Version::HTTP_2, manner) {
                    Ok(request) => request,
                    Err(error) => return Sent::Failed(error),
                };
                let mut sender = stream.connection.sender.clone();
                match sender.try_send_request(request).await {
                    Ok(response) => Sent::Answered(response, Connection::Shared(stream)),
                    Err(mut error) => {
                        if error.take_message().is_some() {
                            return Sent::Not(not_taken_by(address));
                        }
                        if not_taken(error.error()) {
                            return Sent::Failed(not_taken_by(address));
                        }
                        Sent::Failed(broken(address, &error.into_error()))
                    }
                }
            }
        }
    }

    /// The request as the protocol has it: HTTP/1.1 has the host in a line, HTTP/2 in the URI. What proves who calls is in this copy alone.
    fn request(&self, version: Version, manner: Option<&Manner>) -> Result<Request<Body>, Failed> {
        let wrong = || Failed::finally(connect::unreachable("its name is none of a server"));
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = self.head.uri.path_and_query().cloned();
        let mut request = Request::new(self.body.reader());
        *request.method_mut() = self.head.method.clone();
        *request.headers_mut() = self.head.headers.clone();
        if let Some(manner) = manner {
            manner.dress(request.headers_mut());
        }
        *request.version_mut() = version;
        let authority = self.to.authority();
        if version == Version::HTTP_2 {
            parts.scheme = Some(match self.to.scheme {
                EgressScheme::Https => uri::Scheme::HTTPS,
                EgressScheme::Http => uri::Scheme::HTTP,
            });
            parts.authority = Some(authority.parse().map_err(|_| wrong())?);
        } else {
            let lines = request.headers_mut();
            let host = HeaderValue::try_from(authority).map_err(|_| wrong())?;
            lines.insert(header::HOST, host);
            // It would have to be said to this connection alone, which `connection` says.
            lines.remove(header::TE);
        }
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| wrong())?;
        Ok(request)
    }

    /// The response as its caller gets it.
    fn answer(
        &self,
        response: Response<Incoming>,
        connection: Connection,
        place: &Arc<Place>,
        permits: Option<Permits>,
    ) -> Result<Response<Body>, Failure> {
        let failed = |what: &str| {
            let message = format!("{} failed before it answered: {what}", self.to);
            Failure::new(FailureKind::BadResponse, message)
        };
        let (mut head, body) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(failed("it switched to another protocol, unasked"));
        }
        if !headers::within_limits(&Uri::default(), &head.headers) {
            return Err(failed(
                "the head of its response is larger than is passed on",
            ));
        }
        headers::keep_what_passes(&mut head.headers);
        head.extensions.clear();
        let using = Using {
            connection,
            place: Arc::clone(place),
            permits,
        };
        Ok(Response::from_parts(
            head,
            Body::new(Held::new(body, using)),
        ))
    }
}

enum Sent {
    Answered(Response<Incoming>, Connection),
    /// Nothing was written.
    Not(Failed),
    Failed(Failed),
}

/// The connection went away before the request was written to it, or the host said that it did not look at it.
fn not_taken_by(address: SocketAddr) -> Failed {
    let failure = Failure::from(FailureKind::NotTaken).with_detail(address.to_string());
    failure.into()
}

/// The stream ended when the request may have been read. What breaks the protocol breaks it again.
fn broken(address: SocketAddr, error: &hyper::Error) -> Failed {
    let detail = format!("{address}: {error}");
    if is_malformed(error) {
        return Failed::finally(Failure::from(FailureKind::Malformed).with_detail(detail));
    }
    Failed {
        failure: Failure::from(FailureKind::Interrupted).with_detail(detail),
        is_final: error.is_parse(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_within_the_cluster_stays_there() {
        let mut lines = HeaderMap::new();
        for (name, value) in [
            ("host", "other.example"),
            ("x-weft-source", "cart;;;;"),
            ("x-weft-depth", "3"),
            (
                "x-forwarded-client-cert",
                "URI=spiffe://cluster.local/ns/shop/sa/cart",
            ),
            (
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            ("tracestate", "weft=1"),
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("proxy-authorization", "Basic eA=="),
            ("authorization", "Bearer theirs"),
            ("content-type", "text/plain"),
        ] {
            lines.append(name, HeaderValue::from_static(value));
        }
        outward(&mut lines);
        let mut left: Vec<_> = lines.keys().map(http::HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-type"]);
    }
}
