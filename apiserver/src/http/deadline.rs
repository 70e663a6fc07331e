//! How long a request may take: to be answered, and to read the answer.
//!
//! A seat among the requests at work is worth what it is held for, so each of the two ends by itself: a handler that takes too
//! long with 504, and an answer that nobody reads loses its seat and its memory when its time is over, whatever the client does.
//!
//! Long-running requests have no deadline but their own. Left to others: how long a body may take (`super::large`).

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use weft_api::status::StatusError;

use crate::flow_control::Seat;
use crate::request::Params;

/// From the first byte of a request to the last of its answer, as Kubernetes' `--request-timeout`.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// What an answer hands on at a time, and what is left of one that nobody reads.
const CHUNK_BYTES: usize = 64 << 10;

/// The time a request has: the server's, or less if the client asks for less (`timeout`, as Kubernetes' clients say it).
///
/// # Errors
/// 400 for a timeout that is no duration.
pub fn of(params: &Params) -> Result<Duration, StatusError> {
    let Some(asked) = params.get("timeout") else {
        return Ok(REQUEST_TIMEOUT);
    };
    let Ok(parsed) = asked.parse::<jiff::SignedDuration>() else {
        let bare = !asked.is_empty() && asked.bytes().all(|byte| byte.is_ascii_digit());
        let what = if bare { "missing unit in" } else { "invalid" };
        return Err(StatusError::bad_request(format!(
            "invalid timeout specified in the request URL - time: {what} duration {asked:?}"
        )));
    };
    // A time that is over before it began is as good as none, as the server's own is.
    Ok(match Duration::try_from(parsed) {
        Ok(time) if !time.is_zero() => time.min(REQUEST_TIMEOUT),
        _ => REQUEST_TIMEOUT,
    })
}

/// Lets an answer keep its seats until the last of it was handed to the connection, or `end` has come.
///
/// A small one goes at once: it costs less than a task to watch over it.
pub(crate) fn hold(
    response: Response,
    seat: Option<Seat>,
    end: Instant,
    tasks: &TaskTracker,
) -> Response {
    let size = response.body().size_hint().exact();
    if size.is_some_and(|bytes| bytes <= CHUNK_BYTES as u64) {
        drop(seat);
        return response;
    }
    let (mut head, body) = response.into_parts();
    if let Some(bytes) = size {
        head.headers
            .entry(header::CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(bytes));
    }
    let (sender, receiver) = mpsc::channel(1);
    tasks.spawn(async move {
        if tokio::time::timeout_at(end, pass_on(body, &sender))
            .await
            .is_err()
        {
            tracing::debug!("an answer was not read in its time");
        }
        drop(seat);
    });
    Response::from_parts(head, Body::new(StreamBody::new(frames(receiver))))
}

/// What is passed on of a body; its end is said, so that one that was given up does not look like a short one.
enum Part {
    Frame(Frame<Bytes>),
    Failed(axum::Error),
    End,
}

async fn pass_on(mut body: Body, sender: &mpsc::Sender<Part>) {
    // A receiver that is gone wants nothing more; the sends that fail then are the end of this.
    while let Some(frame) = body.frame().await {
        let sent = match frame.map(Frame::into_data) {
            Ok(Ok(mut data)) => loop {
                let chunk = data.split_to(data.len().min(CHUNK_BYTES));
                let sent = sender.send(Part::Frame(Frame::data(chunk))).await;
                if sent.is_err() || data.is_empty() {
                    break sent;
                }
            },
            Ok(Err(trailers)) => sender.send(Part::Frame(trailers)).await,
            Err(error) => {
                let _ = sender.send(Part::Failed(error)).await;
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
    let _ = sender.send(Part::End).await;
}

fn frames(
    receiver: mpsc::Receiver<Part>,
) -> impl Stream<Item = Result<Frame<Bytes>, axum::Error>> + Send {
    futures::stream::unfold(Some(receiver), |receiver| async {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Part::Frame(frame)) => Some((Ok(frame), Some(receiver))),
            Some(Part::Failed(error)) => Some((Err(error), None)),
            Some(Part::End) => None,
            None => {
                let late = std::io::Error::new(
                    std::io::ErrorKind::TimedOut,
                    "the answer was not read in the time that a request has",
                );
                Some((Err(axum::Error::new(late)), None))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use http::Method;
    use weft_kinds::Registry;

    use super::*;
    use crate::caller::Caller;
    use crate::flow_control::FlowControl;
    use crate::request::RequestInfo;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_gives_its_seat_back() {
        let flow = FlowControl::default();
        let (caller, level) = (Caller::client_certificate("jo", vec![]), "global-default");
        let path = "/api/v1/pods".parse().unwrap();
        let info = RequestInfo::of(&Registry::builtin(), &Method::GET, &path);
        let tasks = TaskTracker::new();
        for (bytes, held) in [(CHUNK_BYTES, false), (CHUNK_BYTES * 10, true)] {
            let ask = flow.classify(&caller, &info, || 0).unwrap();
            let seat = flow.seat(&ask).await.unwrap();
            let response = Response::new(Body::from(vec![b'x'; bytes]));
            let end = Instant::now() + REQUEST_TIMEOUT;
            let response = hold(response, Some(seat), end, &tasks);
            assert_eq!(flow.taken(level), u32::from(held), "{bytes}");
            tokio::time::sleep(REQUEST_TIMEOUT * 2).await;
            assert_eq!(flow.taken(level), 0, "{bytes}");
            // What it reads then is not the whole, and says so.
            let outcome = response.into_body().collect().await;
            assert_eq!(outcome.is_err(), held, "{bytes}");
        }
    }
}
