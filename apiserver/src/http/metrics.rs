//! `/metrics`: which requests were answered, how and how fast, as Prometheus text, under the names that dashboards of Kubernetes ask for.
//!
//! Invariants: a series is of a kind that is served, or of no resource, so clients cannot make any number of them; counting takes a moment
//! under one lock. Left to others: usage of pods and nodes (`super::usage`), what is counted of levels
//! (`crate::flow_control`).

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use jiff::Timestamp;
use parking_lot::Mutex;
use weft_kinds::Name;

use crate::request::{Asked, RequestInfo};

/// Upper bounds of the classes of a duration in seconds, as Kubernetes has them.
const BOUNDS: [f64; 24] = [
    0.005,
    0.025,
    0.05,
    0.1,
    0.2,
    0.4,
    0.6,
    0.8,
    1.0,
    1.25,
    1.5,
    2.0,
    3.0,
    4.0,
    5.0,
    6.0,
    8.0,
    10.0,
    15.0,
    20.0,
    30.0,
    45.0,
    60.0,
    f64::INFINITY,
];
/// Most series; kinds come and go, what was counted of them stays.
const SERIES_MAX: usize = 4096;

/// What is counted together.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    verb: &'static str,
    group: Name,
    version: Name,
    resource: Name,
    subresource: &'static str,
    scope: &'static str,
}

#[derive(Default)]
struct Series {
    codes: BTreeMap<u16, u64>,
    /// Of those that have an end of their own: how many took no longer than each of [`BOUNDS`], and longer than the one before.
    classes: [u64; BOUNDS.len()],
    seconds: f64,
}

/// The counts of one server. Clones are the same.
#[derive(Clone)]
pub struct Metrics {
    since: Timestamp,
    series: Arc<Mutex<BTreeMap<Key, Series>>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            since: Timestamp::now(),
            series: Arc::default(),
        }
    }
}

impl Key {
    fn of(info: &RequestInfo) -> Self {
        let verb = match info.verb {
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            "head" => "HEAD",
            _ => "OTHER",
        };
        let (kind, subresource, scope) = match &info.asked {
            Asked::Resource(one) => {
                let scope = match (&one.name, &one.namespace) {
                    (Some(_), _) => "resource",
                    (None, Some(_)) => "namespace",
                    (None, None) => "cluster",
                };
                let part = one.subresource.map_or("", |part| part.name());
                (Some(&one.kind), part, scope)
            }
            Asked::Review { kind, namespace } => {
                let scope = if namespace.is_some() {
                    "namespace"
                } else {
                    "cluster"
                };
                (Some(kind), "", scope)
            }
            Asked::Computed { kind, name, .. } => {
                let scope = if name.is_some() {
                    "resource"
                } else {
                    "cluster"
                };
                (Some(kind), "", scope)
            }
            Asked::Bindings { .. } => (None, "bindings", "namespace"),
            Asked::Registry => (None, "/v2", ""),
            // What others serve is theirs to count.
            Asked::Aggregated(_) => (None, "/apis", ""),
            Asked::Path(path) => {
                let known = ["/api", "/apis", "/openapi", "/healthz", "/livez", "/readyz"];
                let known = known.iter().chain(&["/version", "/metrics", "/weft"]);
                let root = known.copied().find(|root| {
                    let rest = path.strip_prefix(root);
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                });
                (None, root.unwrap_or(""), "")
            }
        };
        let name = |of: fn(&weft_kinds::Kind) -> &Name| match kind {
            Some(kind) => of(kind).clone(),
            None => "".into(),
        };
        Self {
            verb,
            group: name(|kind| &kind.group),
            version: name(|kind| &kind.version),
            resource: name(|kind| &kind.resource),
            subresource,
            scope,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            r#"component="apiserver",group="{}",resource="{}",scope="{}",subresource="{}",verb="{}",version="{}""#,
            self.group, self.resource, self.scope, self.subresource, self.verb, self.version
        )
    }
}

impl Metrics {
    /// Counts an answer; `took` is how long it was in coming, where it has an end of its own.
    pub fn count(&self, info: &RequestInfo, status: StatusCode, took: Option<Duration>) {
        let key = Key::of(info);
        let mut all = self.series.lock();
        if all.len() >= SERIES_MAX && !all.contains_key(&key) {
            return;
        }
        let series = all.entry(key).or_default();
        *series.codes.entry(status.as_u16()).or_default() += 1;
        if let Some(took) = took {
            let seconds = took.as_secs_f64();
            series.seconds += seconds;
            let class = BOUNDS.iter().position(|bound| seconds <= *bound);
            if let Some(count) = class.and_then(|class| series.classes.get_mut(class)) {
                *count += 1;
            }
        }
    }

    /// All that was counted, and what others count.
    pub fn respond(&self, others: &str) -> Response {
        let media_type = "text/plain; version=0.0.4; charset=utf-8";
        let mut text = self.text();
        text.push_str(others);
        ([(header::CONTENT_TYPE, media_type)], text).into_response()
    }

    fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let all = self.series.lock();
        head(
            out,
            "apiserver_request_total",
            "counter",
            "Requests that were answered, by the code of the answer.",
        )?;
        for (key, series) in all.iter() {
            for (code, count) in &series.codes {
                writeln!(
                    out,
                    "apiserver_request_total{{code=\"{code}\",{key}}} {count}"
                )?;
            }
        }
        let name = "apiserver_request_duration_seconds";
        head(
            out,
            name,
            "histogram",
            "How long answers were in coming, without those that last as long as their client likes.",
        )?;
        for (key, series) in all.iter() {
            let count: u64 = series.classes.iter().sum();
            if count == 0 {
                continue;
            }
            let mut sum = 0;
            for (bound, class) in BOUNDS.iter().zip(series.classes) {
                sum += class;
                let bound = match bound.is_finite() {
                    true => bound.to_string(),
                    false => "+Inf".to_owned(),
                };
                writeln!(out, "{name}_bucket{{{key},le=\"{bound}\"}} {sum}")?;
            }
            writeln!(out, "{name}_sum{{{key}}} {}", series.seconds)?;
            writeln!(out, "{name}_count{{{key}}} {count}")?;
        }
        drop(all);
        head(
            out,
            "process_start_time_seconds",
            "gauge",
            "When the process began, in seconds since 1970.",
        )?;
        writeln!(out, "process_start_time_seconds {}", self.since.as_second())?;
        if let Some(bytes) = resident_bytes() {
            head(
                out,
                "process_resident_memory_bytes",
                "gauge",
                "Memory of the process that is in RAM.",
            )?;
            writeln!(out, "process_resident_memory_bytes {bytes}")?;
        }
        Ok(())
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// What the kernel says; `None` where it says nothing.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use weft_kinds::Registry;

    use super::*;

    #[test]
    fn answers_are_counted_under_the_names_of_kubernetes() {
        let metrics = Metrics::default();
        let asks = |method: Method, path: &str, code: u16, took: Option<u64>| {
            let info = RequestInfo::of(&Registry::builtin(), &method, &path.parse().unwrap());
            let status = StatusCode::from_u16(code).unwrap();
            metrics.count(&info, status, took.map(Duration::from_millis));
        };
        let pod = "/api/v1/namespaces/a/pods/p";
        asks(Method::GET, pod, 200, Some(3));
        asks(Method::GET, pod, 200, Some(90));
        asks(
            Method::GET,
            "/api/v1/namespaces/a/pods/other",
            404,
            Some(70_000),
        );
        asks(Method::GET, "/api/v1/pods?watch=1", 200, None);
        asks(
            Method::POST,
            "/apis/apps/v1/namespaces/a/deployments",
            201,
            Some(1),
        );
        for nonsense in ["/x", "/y", "/z"] {
            asks(Method::GET, nonsense, 404, Some(1));
        }
        let text = metrics.text();
        let of_pod = r#"component="apiserver",group="",resource="pods",scope="resource",subresource="",verb="GET",version="v1""#;
        for line in [
            format!("apiserver_request_total{{code=\"200\",{of_pod}}} 2"),
            format!("apiserver_request_total{{code=\"404\",{of_pod}}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{of_pod},le=\"0.005\"}} 1"),
            format!("apiserver_request_duration_seconds_bucket{{{of_pod},le=\"0.1\"}} 2"),
            format!("apiserver_request_duration_seconds_bucket{{{of_pod},le=\"+Inf\"}} 3"),
            format!("apiserver_request_duration_seconds_count{{{of_pod}}} 3"),
            r#"apiserver_request_total{code="200",component="apiserver",group="",resource="pods",scope="cluster",subresource="",verb="WATCH",version="v1"} 1"#.to_owned(),
            r#"apiserver_request_total{code="404",component="apiserver",group="",resource="",scope="",subresource="",verb="GET",version=""} 3"#.to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(
            !text.contains("verb=\"WATCH\",version=\"v1\",le="),
            "a watch has no duration"
        );
    }
}
