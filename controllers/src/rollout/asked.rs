//! What a Rollout asks for, resolved: whichever strategy it is, a list of steps.

use serde::Deserialize;

use crate::amount::count;

/// `progressDeadlineSeconds` where none is said.
const DEADLINE: i32 = 600;
const DELAY: i32 = 30;
const HISTORY: i32 = 10;

/// The specification, as far as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    replicas: Option<i32>,
    min_ready_seconds: Option<i32>,
    revision_history_limit: Option<i32>,
    progress_deadline_seconds: Option<i32>,
    scale_down_delay_seconds: Option<i32>,
    #[serde(default)]
    paused: bool,
    traffic: TrafficSpec,
    #[serde(default)]
    strategy: Strategy,
    analysis: Option<AnalysisSpec>,
    promote: Option<Promote>,
    abort: Option<Abort>,
    retry: Option<String>,
}

#[derive(Debug, Deserialize)]
struct TrafficSpec {
    service: String,
    port: Option<u16>,
    #[serde(default)]
    gateways: Vec<Gateway>,
    #[serde(default)]
    hostnames: Vec<String>,
}

/// A Gateway, or one of its listeners.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    pub name: String,
    pub namespace: Option<String>,
    pub section_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Strategy {
    canary: Option<Canary>,
    blue_green: Option<BlueGreen>,
    ab: Option<Ab>,
}

#[derive(Debug, Deserialize)]
struct Canary {
    steps: Vec<StepSpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StepSpec {
    set_weight: Option<i64>,
    pause: Option<Pause>,
    analysis: Option<Rounds>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Pause {
    duration_seconds: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Rounds {
    rounds: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlueGreen {
    preview_service: Option<String>,
    auto_promotion_seconds: Option<i64>,
    rounds: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Ab {
    #[serde(default)]
    headers: Vec<Header>,
    cookie: Option<Cookie>,
    rounds: i64,
}

#[derive(Debug, Deserialize)]
struct Header {
    name: String,
    value: String,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Cookie {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnalysisSpec {
    interval_seconds: Option<i64>,
    failure_limit: Option<i64>,
    min_requests: Option<u64>,
    success_percent: Option<f64>,
    #[serde(default)]
    latency: Vec<LatencySpec>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LatencySpec {
    percentile: u64,
    max_milliseconds: u64,
}

/// Somebody's word that a revision may go on: past this step, or all the way.
#[derive(Debug, Clone, Deserialize)]
pub struct Promote {
    pub revision: String,
    pub step: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Abort {
    revision: String,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Of a hundred calls, so many.
    Weight(i64),
    /// For so many seconds, or until somebody promotes.
    Pause(Option<i64>),
    /// Until so many rounds of the analysis have passed.
    Rounds(i64),
    /// All pods, without a call.
    Pods,
    /// All calls that are marked.
    Mark,
}

/// By which calls are marked: header, kind of match, and value.
pub type Mark = (String, &'static str, String);

/// By what a revision is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Analysis {
    pub interval_seconds: i64,
    pub failure_limit: i64,
    pub min_requests: u64,
    /// Of a hundred thousand calls, so many have to succeed.
    pub success: Option<u64>,
    /// Of a hundred answers, so many have to come within so many milliseconds.
    pub latency: Vec<(u64, u64)>,
}

/// What a Rollout asks for.
#[derive(Debug)]
pub struct Asked {
    pub replicas: i64,
    pub min_ready: i32,
    pub history: usize,
    pub deadline_seconds: i64,
    pub delay_seconds: i64,
    pub paused: bool,
    pub service: String,
    pub port: Option<u16>,
    pub gateways: Vec<Gateway>,
    pub hostnames: Vec<String>,
    /// The Service that leads to a revision before its calls do.
    pub preview: Option<String>,
    pub steps: Vec<Step>,
    pub marks: Vec<Mark>,
    pub analysis: Option<Analysis>,
    pub promote: Option<Promote>,
    /// The revision that somebody takes back.
    pub abort: Option<String>,
    pub retry: Option<String>,
}

impl Spec {
    pub fn resolved(self) -> Asked {
        let Strategy {
            canary,
            blue_green,
            ab,
        } = self.strategy;
        let mut steps: Vec<Step> = Vec::new();
        let mut marks = Vec::new();
        let mut preview = None;
        for step in canary.into_iter().flat_map(|canary| canary.steps) {
            if let Some(weight) = step.set_weight {
                steps.push(Step::Weight(weight.clamp(0, 100)));
            } else if let Some(rounds) = step.analysis {
                steps.push(Step::Rounds(rounds.rounds.unwrap_or(1)));
            } else if let Some(pause) = step.pause {
                steps.push(Step::Pause(pause.duration_seconds));
            }
        }
        if let Some(green) = blue_green {
            let rounds = green.rounds.filter(|rounds| *rounds > 0);
            steps.push(Step::Pods);
            steps.extend(rounds.map(Step::Rounds));
            // Rounds alone promote, where nobody says that more is to be waited for.
            if rounds.is_none() || green.auto_promotion_seconds.is_some() {
                steps.push(Step::Pause(green.auto_promotion_seconds));
            }
            preview = green.preview_service;
        }
        if let Some(ab) = ab {
            steps.extend([Step::Mark, Step::Rounds(ab.rounds)]);
            let headers = ab.headers.into_iter().map(|header| {
                let kind = match header.kind.as_deref() {
                    Some("RegularExpression") => "RegularExpression",
                    _ => "Exact",
                };
                (header.name, kind, header.value)
            });
            marks.extend(headers);
            let cookie = ab.cookie.map(|cookie| {
                let pattern = format!(
                    "^(.*;\\s*)?{}={}(;.*)?$",
                    literally(&cookie.name),
                    literally(&cookie.value)
                );
                ("cookie".to_owned(), "RegularExpression", pattern)
            });
            marks.extend(cookie);
        }
        let history = self.revision_history_limit.unwrap_or(HISTORY);
        Asked {
            replicas: count(Some(self.replicas.unwrap_or(1))),
            min_ready: self.min_ready_seconds.unwrap_or(0).max(0),
            history: usize::try_from(history).unwrap_or(0),
            deadline_seconds: count(Some(self.progress_deadline_seconds.unwrap_or(DEADLINE))),
            delay_seconds: count(Some(self.scale_down_delay_seconds.unwrap_or(DELAY))),
            paused: self.paused,
            service: self.traffic.service,
            port: self.traffic.port,
            gateways: self.traffic.gateways,
            hostnames: self.traffic.hostnames,
            preview,
            steps,
            marks,
            analysis: self.analysis.map(Analysis::of),
            promote: self.promote,
            abort: self.abort.map(|abort| abort.revision),
            retry: self.retry,
        }
    }
}

impl Analysis {
    fn of(spec: AnalysisSpec) -> Self {
        let latency = spec.latency.iter();
        Self {
            interval_seconds: spec.interval_seconds.unwrap_or(30).max(1),
            failure_limit: spec.failure_limit.unwrap_or(1).max(1),
            min_requests: spec.min_requests.unwrap_or(10).max(1),
            success: spec
                .success_percent
                .map(|percent| (percent.clamp(0.0, 100.0) * 1000.0).round() as u64),
            latency: latency
                .map(|bound| (bound.percentile.min(100), bound.max_milliseconds))
                .collect(),
        }
    }
}

impl Asked {
    /// Pods that take a share of the calls, rounded up, and one at least where any are wanted.
    pub fn pods_for(&self, weight: i64) -> i64 {
        let share = (self.replicas * weight.clamp(0, 100) + 99) / 100;
        share.max(self.replicas.min(1))
    }
}

/// A regular expression for just this text.
fn literally(text: &str) -> String {
    let escaped = text.chars().flat_map(|letter| {
        let is_plain = letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
        let escape = (!is_plain && letter.is_ascii()).then_some('\\');
        escape.into_iter().chain([letter])
    });
    escaped.collect()
}
