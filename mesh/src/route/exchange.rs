//! One call as the filters of its rule see it: what they do to the request, what they remember, and what they do to its response.
//!
//! ```text
//! request     filters of the rule → a backend by weight → filters of the backend → the call
//! response    filters of the rule ← filters of the backend ←───────────────────────── its response, or that of a filter
//! ```
//! A filter has two sides. On the request's it changes the head, answers in place of the backend, or leaves a [`Memory`] of what it
//! has to do with the response; a filter that left none does not see it. What needs more than the head or one call has its place here,
//! too: a memory may hold whatever a filter began.
//!
//! Invariants: a filter is applied or the rule answers 500, never skipped; responses pass filters in the reverse order of requests; a
//! call whose filters look at requests only remembers nothing.

use std::{ops::ControlFlow, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use smallvec::SmallVec;
use weft_call::{Failure, FailureKind};
use weft_gateway::{Backend, Filter, Rule};

use super::{
    Entry,
    cors::{self, Asked},
    policy::{change_headers, choose_backend, redirect, rewritten},
    session::{AnsweredBy, Sticky},
};
use crate::Body;

/// A call that follows a rule.
pub(crate) struct Exchange {
    rule: Arc<Rule>,
    backend: usize,
    memories: Memories,
    mirrors: Vec<Mirrored>,
    session: Option<Sticky>,
}

/// A copy of the request's head as a mirror is to have it.
pub(crate) struct Mirrored {
    pub(crate) backend: Backend,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

/// What filters have to do yet, in the order in which the request met them.
pub(super) type Memories = SmallVec<[Memory; 2]>;

/// What one filter knows of its request when the response comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Memory {
    /// The lines of a response are changed as the filter says.
    ResponseHeaders(Place),
    /// It is for pages of this origin.
    Cors(Place, HeaderValue),
}

/// Which filter of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// None: of the rule itself.
    pub(super) backend: Option<usize>,
    pub(super) filter: usize,
}

impl Place {
    fn find(self, rule: &Rule) -> Option<&Filter> {
        let filters = match self.backend {
            Some(backend) => &rule.backends.get(backend)?.filters,
            None => &rule.filters,
        };
        filters.get(self.filter)
    }
}

/// The request as filters see it.
pub(super) struct Head<'r> {
    pub(super) method: &'r Method,
    pub(super) uri: &'r mut Uri,
    pub(super) headers: &'r mut HeaderMap,
    /// What the rule's match says of the path, for filters that replace it.
    pub(super) prefix: &'r str,
    /// Of the listener that the request came in by, where it is also the node's.
    pub(super) listener_port: Option<u16>,
}

impl Exchange {
    /// Passes `request` through the filters of the rule and of the backend that its session has, or its weights choose; a filter may answer
    /// it.
    ///
    /// # Errors
    /// `InvalidBackend`, with the rule's reason.
    pub(crate) fn begin<B>(
        entry: &Entry,
        request: &mut http::Request<B>,
        session: Option<Sticky>,
        rng: &mut impl rand::Rng,
    ) -> Result<ControlFlow<Response<Body>, Self>, Failure> {
        let rule = &entry.rule;
        let invalid = |reason: String| invalid_backend(rule, &reason);
        let mut memories = Memories::new();
        let mut mirrors = Vec::new();
        let mut uri = std::mem::take(request.uri_mut());
        let method = request.method().clone();
        let mut head = Head {
            method: &method,
            uri: &mut uri,
            headers: request.headers_mut(),
            prefix: entry.prefix(),
            listener_port: entry.listener_port,
        };
        let mut backend = None;
        let mut passed = request_side(
            &rule.filters,
            None,
            &mut head,
            &mut memories,
            &mut mirrors,
            rng,
        );
        if let Ok(ControlFlow::Continue(())) = passed {
            let kept = session.as_ref().and_then(|session| session.backend);
            let chosen = kept
                .or_else(|| choose_backend(&rule.backends, rng))
                .ok_or_else(|| invalid("no backend has any weight".to_owned()))?;
            let filters = &rule.backends[chosen].filters;
            passed = request_side(
                filters,
                Some(chosen),
                &mut head,
                &mut memories,
                &mut mirrors,
                rng,
            );
            backend = Some(chosen);
        }
        *request.uri_mut() = uri;
        match (passed.map_err(invalid)?, backend) {
            (ControlFlow::Continue(()), Some(backend)) => Ok(ControlFlow::Continue(Self {
                rule: Arc::clone(rule),
                backend,
                memories,
                mirrors,
                session,
            })),
            (ControlFlow::Continue(()), None) => Err(invalid("it has no backend".to_owned())),
            (ControlFlow::Break(mut response), _) => {
                response_side(rule, &memories, &mut response);
                Ok(ControlFlow::Break(response))
            }
        }
    }

    pub(crate) fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Where the call goes.
    pub(crate) fn backend(&self) -> &Backend {
        &self.rule.backends[self.backend]
    }

    /// Copies of the request that go elsewhere.
    pub(crate) fn take_mirrors(&mut self) -> Vec<Mirrored> {
        std::mem::take(&mut self.mirrors)
    }

    /// Why the call cannot go there.
    pub(crate) fn invalid(&self, reason: &str) -> Failure {
        invalid_backend(&self.rule, reason)
    }

    /// Passes the response through the filters that wait for it, after its client was told where it stays.
    pub(crate) fn finish(self, response: &mut Response<Body>) {
        if let (Some(sticky), Some(session)) = (&self.session, &self.rule.session) {
            let by = response.extensions_mut().remove::<AnsweredBy>();
            sticky.tell(session, by, response.headers_mut());
        }
        response_side(&self.rule, &self.memories, response);
    }
}

fn invalid_backend(rule: &Rule, reason: &str) -> Failure {
    let route = &rule.route;
    Failure::new(
        FailureKind::InvalidBackend,
        format!("route {route} sends this request to a backend that is not valid: {reason}"),
    )
}

/// The request's side of `filters`, in order. The error is the reason to answer 500.
pub(super) fn request_side(
    filters: &[Filter],
    backend: Option<usize>,
    head: &mut Head<'_>,
    memories: &mut Memories,
    mirrors: &mut Vec<Mirrored>,
    rng: &mut impl rand::Rng,
) -> Result<ControlFlow<Response<Body>>, String> {
    for (filter, wanted) in filters.iter().enumerate() {
        match wanted {
            Filter::RequestHeaders(change) => change_headers(change, head.headers),
            Filter::ResponseHeaders(_) => {
                memories.push(Memory::ResponseHeaders(Place { backend, filter }));
            }
            Filter::Rewrite(rewrite) => {
                *head.uri = rewritten(head.uri, rewrite, head.prefix)
                    .ok_or("the rewrite gives no valid URI")?;
            }
            Filter::Redirect(wanted) => {
                let (status, location) =
                    redirect(wanted, head.prefix, head.uri, head.listener_port);
                return Ok(ControlFlow::Break(redirected(status, &location)));
            }
            Filter::Mirror(mirror) => {
                let is_meant = mirror.share >= mirror.of
                    || rng.random_range(0..mirror.of.max(1)) < mirror.share;
                if is_meant {
                    mirrors.push(Mirrored {
                        backend: mirror.backend.clone(),
                        uri: head.uri.clone(),
                        headers: head.headers.clone(),
                    });
                }
            }
            Filter::Cors(cors) => match cors::asked(cors, head.method, head.headers) {
                Asked::Nothing => {}
                Asked::Of(origin) => {
                    memories.push(Memory::Cors(Place { backend, filter }, origin));
                }
                Asked::Preflight(response) => return Ok(ControlFlow::Break(response)),
            },
            Filter::Invalid { reason } => return Err(reason.clone()),
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The response's side of the filters that remember its request.
fn response_side(rule: &Rule, memories: &Memories, response: &mut Response<Body>) {
    for memory in memories.iter().rev() {
        match memory {
            Memory::ResponseHeaders(place) => {
                if let Some(Filter::ResponseHeaders(change)) = place.find(rule) {
                    change_headers(change, response.headers_mut());
                }
            }
            Memory::Cors(place, origin) => {
                if let Some(Filter::Cors(cors)) = place.find(rule) {
                    cors::tell(cors, origin, response.headers_mut());
                }
            }
        }
    }
}

fn redirected(status: StatusCode, location: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, Request};
    use rand::{SeedableRng, rngs::SmallRng};
    use weft_gateway::{BackendTarget, HeaderChange, Redirect};

    use super::*;
    use crate::route::{RouteList, View, testing::attached_rules};

    fn says(value: &'static str) -> HeaderChange {
        HeaderChange {
            add: vec![(
                HeaderName::from_static("x-by"),
                HeaderValue::from_static(value),
            )],
            ..HeaderChange::default()
        }
    }

    /// What a rule with these filters makes of a request and of the response to it.
    fn told(filters: Vec<Filter>, of_backend: Vec<Filter>) -> String {
        let backend = Backend {
            filters: of_backend,
            ..Backend::new(BackendTarget::Invalid {
                reason: String::new(),
            })
        };
        let rule = Rule {
            route: "vote/web".to_owned(),
            filters,
            backends: vec![backend],
            ..Rule::default()
        };
        let list = RouteList::of(&[attached_rules("vote/web", vec![rule])]);
        let mut request = Request::get("http://web.test/a")
            .body(())
            .expect("a request");
        let entry = list.select(View::new(&request, 80)).expect("an entry");
        let begun = Exchange::begin(entry, &mut request, None, &mut SmallRng::seed_from_u64(1));
        let by = |headers: &HeaderMap| -> Vec<String> {
            let all = headers.get_all("x-by").iter();
            all.map(|by| by.to_str().expect("text").to_owned())
                .collect()
        };
        match begun {
            Err(failure) => failure.to_string(),
            Ok(ControlFlow::Break(response)) => {
                format!(
                    "answered {} {:?}",
                    response.status(),
                    by(response.headers())
                )
            }
            Ok(ControlFlow::Continue(exchange)) => {
                let remembered = exchange.memories.len();
                let mut response = Response::new(Body::empty());
                exchange.finish(&mut response);
                let (asked, got) = (by(request.headers()), by(response.headers()));
                format!("request {asked:?}, {remembered} remember it, response {got:?}")
            }
        }
    }

    #[test]
    fn a_response_passes_its_filters_in_the_reverse_order_of_its_request() {
        use Filter::{RequestHeaders, ResponseHeaders};
        let redirect = || Filter::Redirect(Redirect::default());
        let invalid = || Filter::Invalid {
            reason: "no such filter".to_owned(),
        };
        let text = [
            told(vec![], vec![]),
            told(
                vec![RequestHeaders(says("rule")), ResponseHeaders(says("rule"))],
                vec![
                    RequestHeaders(says("backend")),
                    ResponseHeaders(says("backend")),
                ],
            ),
            told(
                vec![ResponseHeaders(says("rule")), redirect(), invalid()],
                vec![],
            ),
            told(vec![invalid(), redirect()], vec![]),
            told(vec![], vec![invalid()]),
        ];
        insta::assert_snapshot!(text.join("\n"), @r#"
        request [], 0 remember it, response []
        request ["rule", "backend"], 2 remember it, response ["backend", "rule"]
        answered 302 Found ["rule"]
        route vote/web sends this request to a backend that is not valid: no such filter
        route vote/web sends this request to a backend that is not valid: no such filter
        "#);
    }
}
