//! Bodies around a body: whatever they count, keep or watch, what comes out is what went in, and what they say of its end and its
//! length is so. Codecs choose between a length and chunks by it, and leave out the end where it was said.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as _, Frame, SizeHint};
use proptest::prelude::*;
use smallvec::smallvec;
use tokio::runtime::Runtime;

use super::config;
use crate::measure::{self, Charge, Holds, RequestBytes};
use crate::pace::Upload;
use crate::replay::{REPLAY_BYTES_MAX, Source};
use crate::{Body, BoxError};

/// What a body does when it is asked for the next frame.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    NotYet,
    Data(usize),
    Trailers,
    Broken,
}

/// A body that does so, and says how long it is if it is `counted`.
struct Script {
    steps: VecDeque<Step>,
    counted: bool,
}

fn data(steps: impl IntoIterator<Item = Step>) -> u64 {
    let data = steps.into_iter().map(|step| match step {
        Step::Data(length) => length as u64,
        _ => 0,
    });
    data.sum()
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Step::NotYet) => return Poll::Pending,
            Some(Step::Data(length)) => Some(Ok(Frame::data(vec![b'x'; length].into()))),
            Some(Step::Trailers) => {
                let lines = HeaderMap::from_iter([(
                    http::HeaderName::from_static("x-sum"),
                    HeaderValue::from_static("1"),
                )]);
                Some(Ok(Frame::trailers(lines)))
            }
            Some(Step::Broken) => Some(Err("it broke off".into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.counted {
            SizeHint::with_exact(data(self.steps.clone()))
        } else {
            SizeHint::default()
        }
    }
}

/// Steps that end with the first trailers or fault.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::NotYet),
        4 => (0..9_usize).prop_map(Step::Data),
        1 => (20_000..40_000_usize).prop_map(Step::Data),
    ];
    let last = prop_oneof![3 => Just(None), 1 => Just(Some(Step::Trailers)), 1 => Just(Some(Step::Broken))];
    (proptest::collection::vec(step, 0..8), last).prop_map(|(mut steps, last)| {
        steps.extend(last);
        steps
    })
}

fn script(steps: &[Step], counted: bool) -> Body {
    Body::new(Script {
        steps: steps.iter().cloned().collect(),
        counted,
    })
}

/// Asks until there is an answer; the script gives one in the end.
fn next(body: &mut Body) -> Option<Result<Frame<Bytes>, BoxError>> {
    loop {
        let asked = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(frame) = asked {
            return frame;
        }
    }
}

/// What a frame is.
fn step(frame: &Result<Frame<Bytes>, BoxError>) -> Step {
    match frame {
        Err(_) => Step::Broken,
        Ok(frame) => frame
            .data_ref()
            .map_or(Step::Trailers, |data| Step::Data(data.len())),
    }
}

/// All that comes out, while what is said of it is looked at.
fn read(mut body: Body) -> Result<Vec<Step>, TestCaseError> {
    let mut read = Vec::new();
    let mut said = Vec::new();
    loop {
        let (is_end, hint) = (body.is_end_stream(), body.size_hint());
        let Some(frame) = next(&mut body) else { break };
        prop_assert!(!is_end, "an end was said before {frame:?}");
        said.push((read.len(), hint));
        read.push(step(&frame));
        if frame.is_err() {
            break;
        }
    }
    if read.last() != Some(&Step::Broken) {
        prop_assert!(next(&mut body).is_none(), "an end stays an end");
        for (from, hint) in said {
            let left = data(read[from..].iter().cloned());
            let is_so = hint.lower() <= left && hint.upper().is_none_or(|most| left <= most);
            prop_assert!(is_so, "{left} bytes came where {hint:?} was said");
        }
    }
    Ok(read)
}

/// Whose time bodies wait by.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
});

fn measured(body: Body) -> Body {
    let charge = Charge {
        edges: smallvec![],
        started: Instant::now(),
        grpc: false,
        request_bytes: RequestBytes::Known(0),
        by_transport: None,
        tcp: false,
        seen: None,
        activity: None,
    };
    measure::finish(
        Response::new(body),
        charge,
        Holds::default(),
        Instant::now(),
    )
    .into_body()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..config() })]

    #[test]
    fn what_goes_in_comes_out(steps in steps(), counted in any::<bool>()) {
        let _time = RUNTIME.enter();
        let whole: Vec<Step> = steps.iter().filter(|step| **step != Step::NotYet).cloned().collect();
        let body = || script(&steps, counted);
        prop_assert_eq!(&read(body())?, &whole);
        prop_assert_eq!(&read(measured(body()))?, &whole);
        prop_assert_eq!(&read(Body::new(Upload::new(body())))?, &whole);
        let source = Source::new(body(), None);
        prop_assert_eq!(&read(source.reader())?, &whole);
        prop_assert_eq!(source.is_broken(), whole.contains(&Step::Broken));
        prop_assert_eq!(&read(measured(Body::new(Upload::new(Source::new(body(), None).reader()))))?, &whole);
    }

    /// Tries that are given up after some frames, each as long as there may be another.
    #[test]
    fn what_is_sent_again_is_the_same(steps in steps(), tries in proptest::collection::vec(0..6_usize, 0..4)) {
        let whole: Vec<Step> = steps.iter().filter(|step| **step != Step::NotYet).cloned().collect();
        let source = Source::new(script(&steps, false), None);
        let mut most = 0;
        for frames in tries {
            let mut reader = source.reader();
            let mut read = Vec::new();
            for _ in 0..frames {
                match next(&mut reader) {
                    Some(frame) => read.push(step(&frame)),
                    None => break,
                }
                if read.last() == Some(&Step::Broken) {
                    break;
                }
            }
            prop_assert_eq!(&read[..], &whole[..read.len()]);
            most = most.max(read.len());
            // What was shown fits, or nothing can be sent again.
            let shown = whole[..most].iter().cloned();
            let fits = data(shown.clone()) <= REPLAY_BYTES_MAX && !shown.clone().any(|step| step == Step::Broken);
            prop_assert_eq!(source.is_replayable(), fits);
            if !fits {
                return Ok(());
            }
        }
        prop_assert_eq!(read(source.reader())?, whole);
    }

    /// Of a body that says its length, no more and no less comes out without a fault.
    #[test]
    fn a_length_that_was_declared_is_the_length(steps in steps(), declared in 0..40_u64) {
        let source = Source::new(script(&steps, false), Some(declared));
        let came = read(source.reader())?;
        if !came.contains(&Step::Broken) {
            prop_assert_eq!(data(came), declared);
        }
    }
}
