//! Calls as they end, for whoever watches: a line of JSON each, at the node port's `/tap`.
//!
//! ```text
//! GET /tap?namespace=NS&reporter=…&workload=…&service=…&method=…&path=…&code=5xx|404|500-503&slowerThan=MILLIS&share=0.01
//! {"time":…,"reporter":"destination","source":{…},"destination":{…},"method":"GET",…}
//! {"lost":12}                                                          so many more there were, of which nothing is told
//! ```
//! An empty line now and then says that the node is there.
//!
//! Invariants: as those of [`weft_mesh::Sighting`]; a reader that is slow loses lines and holds up nobody. Left to others: who may watch
//! what (`weft_apiserver`), which asks for one namespace or for all.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde::Serialize;
use weft_api::StatusError;
use weft_mesh::{Interest, Mesh, QUEUE_USUAL, Reporter, Sighting, Sightings, WATCHES_MAX};

use crate::sighting::{self, Retry, Service, micros};

/// Calls that are written at once, where so many wait, and how long the first of them waits for others: a reader of thousands of calls a second
/// would otherwise be woken by each.
const BATCH_MAX: usize = QUEUE_USUAL;
const BATCH_TIME: Duration = Duration::from_millis(20);
/// After how long of nothing an empty line is sent.
const QUIET_MAX: Duration = Duration::from_secs(5);

/// What is watched, by the query of a request.
///
/// # Errors
/// A sentence, of what means nothing.
pub(crate) fn interest(query: &str) -> Result<Interest, String> {
    let mut interest = Interest::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let text = || Some(value.clone().into_owned()).filter(|text| !text.is_empty());
        match &*name {
            "namespace" => interest.namespace = text(),
            "workload" => interest.workload = text(),
            "service" => interest.service = text(),
            "method" => interest.method = text().map(|method| method.to_ascii_uppercase()),
            "path" => interest.path = text(),
            "reporter" => {
                interest.reporter = match &*value {
                    "" => None,
                    "source" => Some(Reporter::Source),
                    "destination" => Some(Reporter::Destination),
                    other => {
                        return Err(format!(
                            "reporter must be source or destination, not {other:?}"
                        ));
                    }
                }
            }
            "code" => interest.codes = codes(&value)?,
            "slowerThan" => {
                let millis = value.parse::<u32>().map_err(|_| {
                    format!("slowerThan must be a number of milliseconds, not {value:?}")
                })?;
                interest.slower_than = Some(Duration::from_millis(millis.into()));
            }
            "share" => {
                let share = value.parse::<f64>().ok();
                let share = share.filter(|share| (0.001..=1.0).contains(share));
                let share =
                    share.ok_or_else(|| format!("share must be from 0.001 to 1, not {value:?}"))?;
                interest.share = (share * 1000.0).round() as u16;
            }
            // What later versions add.
            _ => {}
        }
    }
    Ok(interest)
}

/// `404`, `500-503` or `5xx`.
fn codes(text: &str) -> Result<Option<(u16, u16)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let found = match (text.strip_suffix("xx"), text.split_once('-')) {
        (Some(class), _) => class
            .parse::<u16>()
            .ok()
            .filter(|class| *class < 10)
            .map(|class| (class * 100, class * 100 + 99)),
        (None, Some((least, most))) => least.parse().ok().zip(most.parse().ok()),
        (None, None) => text.parse().ok().map(|code| (code, code)),
    };
    found
        .map(Some)
        .ok_or_else(|| format!("code must be like 404, 500-503 or 5xx, not {text:?}"))
}

/// Watches the calls of a node.
///
/// # Errors
/// 400 for a query that means nothing, 429 where as many watch as may.
pub(crate) fn watch(
    mesh: &Mesh,
    node: &str,
    query: &str,
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + Send + use<>, StatusError> {
    let interest = interest(query).map_err(StatusError::bad_request)?;
    let sightings = mesh.watch_calls(interest, QUEUE_USUAL).ok_or_else(|| {
        let why = format!(
            "{WATCHES_MAX} watch the calls of node {node} already; try again when one of them ends"
        );
        StatusError::too_many_requests(why, 1)
    })?;
    let node = node.to_owned();
    Ok(futures::stream::unfold(
        (sightings, node),
        |(mut sightings, node)| async move {
            let lines = lines(&mut sightings, &node).await;
            Some((Ok(Bytes::from(lines)), (sightings, node)))
        },
    ))
}

/// The next lines; an empty one where there was nothing for long.
async fn lines(sightings: &mut Sightings, node: &str) -> String {
    let first = tokio::time::timeout(QUIET_MAX, sightings.next()).await;
    if first.is_ok() {
        tokio::time::sleep(BATCH_TIME).await;
    }
    let rest = std::iter::from_fn(|| sightings.try_next());
    let mut out = String::new();
    for sighting in first.into_iter().chain(rest.take(BATCH_MAX)) {
        out.push_str(&Line::of(&sighting, node).to_json());
        out.push('\n');
    }
    let lost = sightings.take_lost();
    if lost > 0 {
        out.push_str(&format!("{{\"lost\":{lost}}}\n"));
    }
    if out.is_empty() {
        out.push('\n');
    }
    out
}

/// A call as a line of JSON. What is not known is not there.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line<'s> {
    /// When it began.
    time: String,
    node: &'s str,
    reporter: &'static str,
    source: End<'s>,
    destination: End<'s>,
    service: Service<'s>,
    protocol: &'static str,
    security: &'static str,
    method: &'s str,
    authority: &'s str,
    path: &'s str,
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<u16>,
    flags: &'static str,
    duration_micros: u64,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    retries: Vec<Retry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<Fault>,
    #[serde(rename = "traceID", skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(rename = "spanID", skip_serializing_if = "Option::is_none")]
    span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded: Option<bool>,
}

#[derive(Serialize)]
struct End<'s> {
    namespace: &'s str,
    workload: &'s str,
    #[serde(skip_serializing_if = "str::is_empty")]
    version: &'s str,
    #[serde(skip_serializing_if = "str::is_empty")]
    principal: &'s str,
}

/// What was done to it on purpose.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fault {
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_micros: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    abort: Option<u16>,
}

impl<'s> Line<'s> {
    pub(crate) fn of(sighting: &'s Sighting, node: &'s str) -> Self {
        let (source, destination) = (sighting.source(), sighting.destination());
        let (of_source, of_destination) = sighting.principals();
        let span = sighting.span();
        Self {
            time: sighting::began(sighting),
            node,
            reporter: match sighting.reporter() {
                Reporter::Source => "source",
                Reporter::Destination => "destination",
            },
            source: End {
                namespace: &source.namespace,
                workload: &source.name,
                version: &source.version,
                principal: of_source,
            },
            destination: End {
                namespace: &destination.namespace,
                workload: &destination.name,
                version: &destination.version,
                principal: of_destination,
            },
            service: Service::of(sighting),
            protocol: sighting.protocol(),
            security: sighting.security(),
            method: sighting.method(),
            authority: sighting.authority(),
            path: sighting.path(),
            code: sighting.code,
            grpc_status: sighting.grpc,
            flags: sighting.flag,
            duration_micros: micros(sighting.took),
            request_bytes: sighting.request_bytes,
            response_bytes: sighting.response_bytes,
            retries: Retry::all_of(sighting),
            fault: sighting.spoiled().map(|spoiled| Fault {
                delay_micros: spoiled.delay.map(micros),
                abort: spoiled.abort,
            }),
            trace_id: span
                .as_ref()
                .map(|(span, _)| format!("{:032x}", span.trace_id)),
            span_id: span
                .as_ref()
                .map(|(span, _)| format!("{:016x}", span.span_id)),
            recorded: span.as_ref().map(|(span, _)| span.is_recorded()),
        }
    }

    /// In one line, as access logs are mostly read: who, what, how it ended, how long it took.
    pub(crate) fn to_text(&self) -> String {
        let end = |end: &End<'_>| match end.workload {
            "" => "-".to_owned(),
            workload => format!("{workload}.{}", end.namespace),
        };
        let grpc = self.grpc_status.map(|status| format!(" grpc={status}"));
        let trace = self
            .trace_id
            .as_deref()
            .filter(|_| self.recorded == Some(true));
        let trace = trace.map(|trace| format!(" trace={trace}"));
        format!(
            "[{}] {} {} -> {} \"{} {}{}\" {} {}{} {}us {}B {}B retries={} {}{}",
            self.time,
            self.reporter,
            end(&self.source),
            end(&self.destination),
            self.method,
            self.authority.escape_default(),
            self.path.escape_default(),
            self.code,
            self.flags,
            grpc.unwrap_or_default(),
            self.duration_micros,
            self.request_bytes,
            self.response_bytes,
            self.retries.len(),
            self.security,
            trace.unwrap_or_default(),
        )
    }

    pub(crate) fn to_json(&self) -> String {
        // Texts and numbers; there is nothing in it that cannot be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_and_what_means_nothing() {
        let found = interest(
            "namespace=shop&workload=web&method=get&path=%2Fa&code=5xx&slowerThan=20&share=0.01&reporter=source&x=y",
        );
        assert_eq!(
            found,
            Ok(Interest {
                namespace: Some("shop".to_owned()),
                reporter: Some(Reporter::Source),
                workload: Some("web".to_owned()),
                method: Some("GET".to_owned()),
                path: Some("/a".to_owned()),
                codes: Some((500, 599)),
                slower_than: Some(Duration::from_millis(20)),
                share: 10,
                ..Interest::default()
            })
        );
        assert_eq!(interest(""), Ok(Interest::default()));
        let told: Vec<String> = [
            "code=x",
            "code=12xx",
            "code=1-x",
            "slowerThan=-1",
            "share=2",
            "share=0",
            "reporter=me",
        ]
        .into_iter()
        .filter_map(|query| interest(query).err())
        .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        code must be like 404, 500-503 or 5xx, not "x"
        code must be like 404, 500-503 or 5xx, not "12xx"
        code must be like 404, 500-503 or 5xx, not "1-x"
        slowerThan must be a number of milliseconds, not "-1"
        share must be from 0.001 to 1, not "2"
        share must be from 0.001 to 1, not "0"
        reporter must be source or destination, not "me"
        "#);
    }
}
