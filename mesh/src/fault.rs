//! Calls that are spoiled on purpose: which, and how. Pure; time and chance are handed in.
//!
//! A fault is injected once, before a call is tried at all: what makes further tries sees nothing of it, as at Envoy's. Invariants: after
//! its end a fault does nothing, whether or not anybody took it away; it is never done to bytes that are no HTTP.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use rand::Rng;
use weft_api::identity::SpiffeId;
use weft_gateway::Fault;

use crate::Body;

/// What is done to a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Injected {
    pub(crate) delay: Option<Duration>,
    pub(crate) abort: Option<StatusCode>,
}

/// What is done to a call of `caller` with `lines` at `now` (seconds since the epoch): of each sort, the first of the faults that falls to
/// it.
pub(crate) fn choose(
    faults: &[Fault],
    caller: &SpiffeId,
    lines: &HeaderMap,
    now: i64,
    rng: &mut impl Rng,
) -> Option<Injected> {
    let mut injected = Injected::default();
    let is_for = |fault: &&Fault| {
        let mut callers = fault.callers.iter();
        let is_one = callers.any(|account| {
            account.namespace == caller.namespace && account.name == caller.service_account
        });
        let says = |(name, value): &(HeaderName, HeaderValue)| {
            lines.get_all(name).iter().any(|said| said == value)
        };
        now < fault.until && (fault.callers.is_empty() || is_one) && fault.headers.iter().all(says)
    };
    for fault in faults.iter().filter(is_for) {
        let mut falls = |percent: u32| rng.random_range(0..100) < percent;
        if let Some((delay, percent)) = fault.delay
            && injected.delay.is_none()
            && falls(percent)
        {
            injected.delay = Some(delay);
        }
        if let Some((status, percent)) = fault.abort
            && injected.abort.is_none()
            && falls(percent)
        {
            injected.abort = Some(status);
        }
    }
    (injected != Injected::default()).then_some(injected)
}

/// The answer of a call that is not made.
pub(crate) fn aborted(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::full("fault filter abort"));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};
    use weft_gateway::Account;

    use super::*;

    #[test]
    fn who_when_and_how_many() {
        let fault = Fault {
            name: "shop/slow".to_owned(),
            until: 100,
            callers: vec![Account {
                namespace: "shop".to_owned(),
                name: "cart".to_owned(),
            }],
            headers: Vec::new(),
            delay: Some((Duration::from_millis(200), 100)),
            abort: Some((StatusCode::BAD_GATEWAY, 30)),
        };
        let mut rng = SmallRng::seed_from_u64(1);
        let cart = SpiffeId::new("cluster.local", "shop", "cart");
        let other = SpiffeId::new("cluster.local", "shop", "web");
        let mut count = |caller: &SpiffeId, now| {
            let mut aborted = 0;
            let mut delayed = 0;
            for _ in 0..1000 {
                let faults = std::slice::from_ref(&fault);
                let injected = choose(faults, caller, &HeaderMap::new(), now, &mut rng);
                let injected = injected.unwrap_or_default();
                aborted += u32::from(injected.abort.is_some());
                delayed += u32::from(injected.delay.is_some());
            }
            (delayed, aborted)
        };
        let (delayed, aborted) = count(&cart, 99);
        assert_eq!(delayed, 1000);
        assert!((250..350).contains(&aborted), "{aborted}");
        assert_eq!(count(&cart, 100), (0, 0), "it is over");
        assert_eq!(count(&other, 99), (0, 0));
        let everybodys = Fault {
            callers: Vec::new(),
            ..fault.clone()
        };
        let none = HeaderMap::new();
        let found = choose(&[everybodys.clone(), fault], &other, &none, 0, &mut rng);
        assert!(found.is_some_and(|found| found.delay.is_some()));

        // Of those who say something, just theirs.
        let line = |value| {
            (
                HeaderName::from_static("end-user"),
                HeaderValue::from_static(value),
            )
        };
        let marked = Fault {
            headers: vec![line("jason")],
            ..everybodys
        };
        for (said, expected) in [
            (vec![], false),
            (vec!["jay"], false),
            (vec!["jay", "jason"], true),
        ] {
            let lines = said.iter().copied().map(line).collect::<HeaderMap>();
            let found = choose(std::slice::from_ref(&marked), &other, &lines, 0, &mut rng);
            assert_eq!(found.is_some(), expected, "{said:?}");
        }
    }
}
