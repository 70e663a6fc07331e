//! What is told of calls that failed inside a guest, or that it made in vain: in its container's log, and now and then in an event.
//!
//! A failure says which request it was, and what the guest said last; of a deadline, whose it was. The query of a request is not
//! told: people put secrets there.
//!
//! Invariants: the log has every failure of a guest's, an event comes at most once in [`EVENT_EVERY`] for each reason and says how
//! many it stands for; nothing here waits.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{Method, Request};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use parking_lot::Mutex;
use weft_api::annotation;
use weft_call::{Failure, FailureKind};

use crate::events::{self, Recorder, Severity};
use crate::logs;
use crate::translate::REQUEST_TIMEOUT_DEFAULT;

/// At most one event a container and reason in this time for requests that failed inside the guest; the log has every one.
const EVENT_EVERY: Duration = Duration::from_secs(10);
/// As much of a path, or of a line, as an event has.
const SHOWN_BYTES_MAX: usize = 200;

/// A request, for who reads of its failure.
pub(crate) struct Asked {
    method: Method,
    path: Option<PathAndQuery>,
    /// When its caller stops waiting.
    deadline: Option<Instant>,
}

impl Asked {
    /// Cheap: what it has of the request is shared.
    pub(crate) fn of<B>(request: &Request<B>, deadline: Option<Instant>) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path_and_query().cloned(),
            deadline,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.as_ref().map_or("/", PathAndQuery::path);
        write!(f, "{} {}", self.method, start(path))
    }
}

/// The beginning of a text, as much as is shown.
fn start(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}

/// Says in the container's log, and now and then in an event, that a request failed inside the guest.
pub struct Failures {
    log: logs::Writer,
    recorder: Recorder,
    /// The container, for events. The pod itself would be most of what an idle one costs.
    about: ObjectReference,
    /// `weft.dev/request-timeout`, if the pod says it.
    request_timeout: Option<Duration>,
    /// Instances are kept for further calls.
    is_pooled: bool,
    started: Instant,
    told: [Told; Reason::ALL.len()],
    /// Calls of its own to what is not there.
    astray: AtomicU64,
    last_line: Mutex<LastLine>,
}

/// Why a request failed, as events have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Trapped,
    OutOfMemory,
    Deadline,
    NotLoaded,
    ResponseTooLarge,
    NoResponse,
    Exhausted,
    Refused,
    EgressDenied,
}

impl Reason {
    const ALL: [Self; 9] = [
        Self::Trapped,
        Self::OutOfMemory,
        Self::Deadline,
        Self::NotLoaded,
        Self::ResponseTooLarge,
        Self::NoResponse,
        Self::Exhausted,
        Self::Refused,
        Self::EgressDenied,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Trapped => "RequestTrapped",
            Self::OutOfMemory => "RequestOutOfMemory",
            Self::Deadline => "RequestDeadline",
            Self::NotLoaded => "RequestNotLoaded",
            Self::ResponseTooLarge => "ResponseTooLarge",
            Self::NoResponse => "RequestNoResponse",
            Self::Exhausted => "RequestExhausted",
            Self::Refused => "RequestRefused",
            Self::EgressDenied => "EgressDenied",
        }
    }

    /// None for what is nobody's fault here, or is told elsewhere.
    const fn of(kind: FailureKind) -> Option<Self> {
        use FailureKind as Kind;
        Some(match kind {
            Kind::Trap => Self::Trapped,
            Kind::OutOfMemory => Self::OutOfMemory,
            Kind::Deadline => Self::Deadline,
            Kind::NotLoaded => Self::NotLoaded,
            Kind::BodyTooLarge => Self::ResponseTooLarge,
            Kind::NoResponse => Self::NoResponse,
            Kind::Exhausted => Self::Exhausted,
            Kind::NoInstance => Self::Refused,
            // The guest's own answer, or nothing that the guest did.
            Kind::Overloaded
            | Kind::Stopped
            | Kind::GuestError
            // The container's own end says it, once for all of its calls.
            | Kind::Lost
            | Kind::NotCallable
            | Kind::BadRequest
            // No failures of guests.
            | Kind::HeadTooLarge
            | Kind::BodyBroken
            | Kind::LoopDetected
            | Kind::LimitReached
            | Kind::Denied
            | Kind::NotGranted
            | Kind::NoRoute
            | Kind::InvalidBackend
            | Kind::UnknownService
            | Kind::UnknownPort
            | Kind::UnknownHost
            | Kind::NoEndpoints
            | Kind::Unreachable
            | Kind::NotTaken
            | Kind::Crowded
            | Kind::Malformed
            | Kind::Interrupted
            | Kind::NotHere
            | Kind::TryTimeout
            | Kind::BadResponse
            | Kind::Failed => return None,
        })
    }
}

/// What was told with one reason.
#[derive(Default)]
struct Told {
    /// Milliseconds after `started` of the last event, plus one; 0 before the first.
    last_event: AtomicU64,
    since_event: AtomicU64,
}

impl Failures {
    /// For one run of one container.
    pub fn new(
        log: logs::Writer,
        recorder: Recorder,
        pod: &Pod,
        container: &str,
        request_timeout: Option<Duration>,
        is_pooled: bool,
    ) -> Self {
        Self {
            log,
            recorder,
            about: events::about(pod, Some(container)),
            request_timeout,
            is_pooled,
            started: Instant::now(),
            told: Default::default(),
            astray: AtomicU64::new(0),
            last_line: Mutex::default(),
        }
    }

    /// How long the pod lets a call take, if it says that.
    pub fn request_timeout(&self) -> Option<Duration> {
        self.request_timeout
    }

    /// The container's log.
    pub fn log(&self) -> &logs::Writer {
        &self.log
    }

    /// Of what the guest prints to stderr.
    pub fn hear(&self, bytes: &[u8]) {
        self.last_line.lock().take(bytes);
    }

    /// Of a call that the container made to what is not there or not allowed: the guest hears a code, and WASI has one for
    /// several reasons.
    pub fn record_failed_call(&self, failure: &Failure) {
        if !matches!(
            failure.kind,
            FailureKind::Denied
                | FailureKind::NotGranted
                | FailureKind::UnknownHost
                | FailureKind::UnknownService
                | FailureKind::UnknownPort
                | FailureKind::NoEndpoints
        ) {
            return;
        }
        let is_told = failure.kind == FailureKind::NotGranted
            && self.tell(Reason::EgressDenied, |count| match count {
                1 => failure.to_string(),
                _ => format!("{failure} ({count} calls since the last event)"),
            });
        // A scan of all ports is seventeen lines.
        let count = self.astray.fetch_add(1, Ordering::Relaxed) + 1;
        if is_told || count.is_power_of_two() {
            let next = match failure.kind {
                FailureKind::Denied => {
                    "; a component calls Services of the cluster, and its own pod at localhost"
                }
                _ => "",
            };
            self.log.write_note(&format!(
                "weft: a call to elsewhere failed: {failure}{next}"
            ));
        }
    }

    /// Of a call, or of a response's body that broke off, of which it is not known what was asked.
    pub(crate) fn record_failure(&self, failure: &Failure, asked: Option<&Asked>) {
        let Some(reason) = Reason::of(failure.kind) else {
            return;
        };
        let said = message(
            failure,
            asked,
            Instant::now(),
            self.request_timeout.unwrap_or(REQUEST_TIMEOUT_DEFAULT),
            self.is_pooled,
        );
        let (note, backtrace) = match reason {
            Reason::Trapped => {
                let why = &*failure.message;
                let why = why.strip_prefix("the guest trapped: ").unwrap_or(why);
                let note = format!("weft: a request trapped: {}{why}", which(asked));
                (
                    note,
                    failure.detail.as_deref().unwrap_or_default().trim_end(),
                )
            }
            _ => (format!("weft: {said}"), ""),
        };
        self.log.write_note(&note);
        if !backtrace.is_empty() {
            self.log.write_note(backtrace);
        }
        let last = self.last_line.lock().get();
        let last = last.filter(|_| reason == Reason::Trapped);
        self.tell(reason, move |count| {
            let mut said = said;
            if let Some(line) = last {
                said.push_str(&format!("; the last line on stderr is \"{line}\""));
            }
            if count > 1 {
                said.push_str(&format!(" ({count} requests since the last event)"));
            }
            if !backtrace.is_empty() {
                // The recorder cuts what is too long; the log has all of it.
                said.push('\n');
                said.push_str(backtrace);
            }
            said
        });
    }

    /// Writes an event, if it is time for one; `say` hears for how many it stands. Says whether it was.
    fn tell(&self, reason: Reason, say: impl FnOnce(u64) -> String) -> bool {
        let told = &self.told[reason as usize];
        let count = told.since_event.fetch_add(1, Ordering::Relaxed) + 1;
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let last = told.last_event.load(Ordering::Relaxed);
        let due = last == 0 || now.saturating_sub(last) >= EVENT_EVERY.as_millis() as u64;
        // Of several cores that fail at once, one writes the event.
        let is_told = due
            && told
                .last_event
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_told {
            told.since_event.store(0, Ordering::Relaxed);
            let said = say(count);
            self.recorder
                .record(self.about.clone(), Severity::Warning, reason.name(), said);
        }
        is_told
    }
}

/// What is said of a failure at `now`, and what to do about it.
fn message(
    failure: &Failure,
    asked: Option<&Asked>,
    now: Instant,
    request_timeout: Duration,
    is_pooled: bool,
) -> String {
    let more = match (failure.kind, asked) {
        (FailureKind::Deadline, Some(asked)) => {
            // The runtime takes the earlier of the two; had it been its own, the caller would still be waiting.
            match asked.deadline.is_some_and(|deadline| deadline <= now) {
                true => "; its caller does not wait any longer".to_owned(),
                false => format!(
                    ": {request_timeout:?}, which the annotation {} changes",
                    annotation::REQUEST_TIMEOUT
                ),
            }
        }
        (FailureKind::NoResponse, _) if is_pooled => format!(
            "; this component may not be made for more than one call an instance, \
             which the annotation {}: per-request says",
            annotation::ISOLATION
        ),
        _ => String::new(),
    };
    format!("{}{failure}{more}", which(asked))
}

/// Which request it was, before what became of it.
fn which(asked: Option<&Asked>) -> String {
    asked.map_or_else(String::new, |asked| format!("{asked}: "))
}

/// The last line of a stream that says something. Rust's notes on how to get backtraces say nothing of the failure.
#[derive(Default)]
struct LastLine {
    line: Vec<u8>,
    last: Vec<u8>,
}

impl LastLine {
    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = SHOWN_BYTES_MAX.saturating_sub(self.line.len());
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() == part.len() {
                continue; // It goes on.
            }
            if says_something(&self.line) {
                std::mem::swap(&mut self.line, &mut self.last);
            }
            self.line.clear();
        }
    }

    fn get(&self) -> Option<String> {
        let lines = [&self.line, &self.last];
        let line = lines.into_iter().find(|line| says_something(line))?;
        let text = String::from_utf8_lossy(line);
        Some(text.trim().escape_debug().to_string())
    }
}

fn says_something(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    !line.is_empty() && !line.starts_with(b"note: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_one_that_says_what_happened() {
        let panic = "thread '<unnamed>' panicked at front/src/lib.rs:36:5:\nI was asked to panic\n\
                     note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        let long = "x".repeat(1_000);
        for (printed, expected) in [
            ("", None),
            ("\n\n", None),
            (panic, Some("I was asked to panic")),
            ("one\ntwo", Some("two")),
            ("one\n\n  \n", Some("one")),
            ("a \u{1b}[2J\n", Some("a \\u{1b}[2J")),
            (long.as_str(), Some(&long[..SHOWN_BYTES_MAX])),
        ] {
            for step in [1, 7, 10_000] {
                let mut line = LastLine::default();
                for bytes in printed.as_bytes().chunks(step) {
                    line.take(bytes);
                }
                assert_eq!(line.get().as_deref(), expected, "{printed:?} by {step}");
            }
        }
    }

    #[test]
    fn a_failure_says_which_request_and_what_to_do() {
        let now = Instant::now();
        let ask = |deadline| {
            let request = Request::get("http://front/break/panic?token=secret").body(());
            Asked::of(&request.expect("a request"), deadline)
        };
        let trap =
            Failure::new(FailureKind::Trap, "the guest trapped: wasm trap").with_detail("0: x");
        let mut transcript = String::new();
        for (error, asked, is_pooled) in [
            (trap.clone(), Some(ask(None)), false),
            (trap, None, false),
            (FailureKind::Deadline.into(), Some(ask(None)), false),
            (
                FailureKind::Deadline.into(),
                Some(ask(Some(now + Duration::from_secs(1)))),
                false,
            ),
            (FailureKind::Deadline.into(), Some(ask(Some(now))), false),
            (FailureKind::Deadline.into(), None, false),
            (FailureKind::NoResponse.into(), Some(ask(None)), false),
            (FailureKind::NoResponse.into(), Some(ask(None)), true),
        ] {
            let timeout = Duration::from_secs(30);
            let said = message(&error, asked.as_ref(), now, timeout, is_pooled);
            transcript += &format!("{said}\n");
        }
        assert_eq!(
            transcript,
            "GET /break/panic: the guest trapped: wasm trap\n\
             the guest trapped: wasm trap\n\
             GET /break/panic: the call took longer than it may: 30s, which the annotation weft.dev/request-timeout changes\n\
             GET /break/panic: the call took longer than it may: 30s, which the annotation weft.dev/request-timeout changes\n\
             GET /break/panic: the call took longer than it may; its caller does not wait any longer\n\
             the call took longer than it may\n\
             GET /break/panic: the guest returned without a response\n\
             GET /break/panic: the guest returned without a response; this component may not be made for more than one call an \
             instance, which the annotation weft.dev/isolation: per-request says\n"
        );
    }

    #[test]
    fn each_reason_has_its_own_place_and_name() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            let same = Reason::ALL
                .iter()
                .filter(|other| other.name() == reason.name());
            assert_eq!(same.count(), 1);
        }
    }
}
