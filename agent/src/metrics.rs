//! The node's metrics as text of Prometheus or OpenMetrics: the mesh's, then each container's and each volume's, then what containers count
//! themselves.
//!
//! Volumes have the kubelet's names. Counters are named here without `_total`, which the format adds.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text,
    text as openmetrics,
};
use prometheus_client::metrics::MetricType::{Counter, Gauge, Histogram};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use weft_mesh::Format;
use weft_runtime::host::metrics::{BOUNDS, Series, Value};
use weft_runtime::{Usage, VolumeUsage};
use weft_turns::Waited;

use crate::node::Node;

/// Pieces of a quarter of a megabyte that are written before one is read.
const PIECES_MAX: usize = 4;
/// How long reading may take: it holds a thread.
const READING_MAX: Duration = Duration::from_secs(30);

/// The media type of a format.
pub(crate) fn content_type(format: Format) -> &'static str {
    match format {
        Format::Prometheus => prometheus_text::CONTENT_TYPE,
        Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
    }
}

/// All that there is to count now, piece by piece: while [`PIECES_MAX`] wait, none is written. What is not read within [`READING_MAX`] ends in
/// an error, so that nobody takes a part for all.
pub(crate) fn pieces(
    node: Arc<Node>,
    format: Format,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let runtime = Handle::current();
    let until = Instant::now() + READING_MAX;
    // Of thousands of edges it is tens of megabytes. Whoever goes away ends it with the next piece.
    let writing = tokio::task::spawn_blocking(move || {
        let mut is_read = true;
        let mut give = |text: &mut String| {
            let piece = Bytes::from(std::mem::take(text));
            let sent = tokio::time::timeout_at(until, sender.send(piece));
            is_read = is_read && matches!(runtime.block_on(sent), Ok(Ok(())));
        };
        let mut out = String::new();
        node.mesh.render_metrics_as(format, &mut out, &mut give);
        write(Seen::on(&node), format, &mut out);
        give(&mut out);
        is_read
    });
    let state = Some((receiver, writing));
    futures::stream::unfold(state, |state| async move {
        let (mut receiver, writing) = state?;
        if let Some(piece) = receiver.recv().await {
            return Some((Ok(piece), Some((receiver, writing))));
        }
        match writing.await {
            Ok(true) => None,
            Ok(false) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
            Err(error) => Some((Err(io::Error::other(error)), None)),
        }
    })
}

fn write(seen: Seen, format: Format, out: &mut String) {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(seen));
    // Writing to a String cannot fail.
    let _ = match format {
        Format::Prometheus => prometheus_text::encode(out, &registry),
        // With its end: nothing follows.
        Format::OpenMetrics => openmetrics::encode(out, &registry),
    };
}

/// What was seen on a node at one time.
#[derive(Debug)]
struct Seen {
    containers: Vec<(Labels, Usage, u64)>,
    /// What is removed shows within a minute.
    volumes: Vec<(Labels, VolumeUsage)>,
    log_dropped_bytes: u64,
    waited: Waited,
    /// What containers count themselves, and how much of that there was no room for.
    own: Vec<(Labels, Series)>,
    own_left_out: u64,
    /// By signal: what was exported, and what was dropped.
    telemetry: [(&'static str, u64, u64); 3],
}

type Labels = [(&'static str, String); 3];

/// Series that containers of one node count themselves and that are shown: a page of a few megabytes.
const OWN_SERIES_MAX: usize = 10_000;
/// What the names of their metrics begin with, so that they are none of the host's.
const OWN: &str = "app_";
type OfContainer = fn(&Usage) -> u64;

const CONTAINER_COUNTERS: [(&str, &str, OfContainer); 7] = [
    (
        "weft_container_instances_started",
        "Instances ever started.",
        |usage| usage.instances_started,
    ),
    (
        "weft_container_requests",
        "Requests handed to the container.",
        |usage| usage.requests,
    ),
    (
        "weft_container_requests_overloaded",
        "Requests refused for want of room.",
        |usage| usage.overloaded,
    ),
    (
        "weft_container_deadlines",
        "Requests that took longer than they may.",
        |usage| usage.deadlines,
    ),
    ("weft_container_traps", "Instances that trapped.", |usage| {
        usage.traps
    }),
    (
        "weft_container_no_response",
        "Calls that the guest returned from without a response, and instances that ended with them.",
        |usage| usage.no_response,
    ),
    (
        "weft_container_out_of_memory",
        "Instances that hit the memory limit.",
        |usage| usage.out_of_memory,
    ),
];

const CONTAINER_GAUGES: [(&str, &str, OfContainer); 4] = [
    (
        "weft_container_memory_bytes",
        "Memory of the container's live instances.",
        |usage| usage.memory_bytes,
    ),
    (
        "weft_container_memory_peak_bytes",
        "Most memory the container's instances have used at once.",
        |usage| usage.memory_peak_bytes,
    ),
    (
        "weft_container_memory_limit_bytes",
        "Memory limit of the container.",
        |usage| usage.memory_limit_bytes,
    ),
    ("weft_container_instances", "Live instances.", |usage| {
        usage.instances
    }),
];

/// A family's name and help, and what it says of a volume.
type VolumeGauge = (&'static str, &'static str, fn(&VolumeUsage) -> u64);

const VOLUME_GAUGES: [VolumeGauge; 4] = [
    (
        "kubelet_volume_stats_capacity_bytes",
        "Bytes that the volume may hold.",
        |usage| usage.limits.bytes.unwrap_or_default(),
    ),
    (
        "kubelet_volume_stats_used_bytes",
        "Bytes in the volume, in blocks of 4 KiB.",
        |usage| usage.bytes,
    ),
    (
        "kubelet_volume_stats_inodes",
        "Files, folders and links that the volume may hold.",
        |usage| usage.limits.inodes.unwrap_or_default(),
    ),
    (
        "kubelet_volume_stats_inodes_used",
        "Files, folders and links in the volume.",
        |usage| usage.inodes,
    ),
];

impl Seen {
    fn on(node: &Node) -> Self {
        let (mut containers, mut volumes) = (Vec::new(), Vec::new());
        let (mut own, mut own_left_out) = (Vec::new(), 0);
        for ((namespace, pod), record) in node.registry.all() {
            let labels = |last, name| {
                let pod = ("pod", pod.clone());
                [("namespace", namespace.clone()), pod, (last, name)]
            };
            for (name, volume) in node.volumes.of_pod(&record.uid) {
                volumes.push((labels("volume", name), volume.usage()));
            }
            for container in record.containers {
                let context = container.context.as_ref();
                if let Some(metrics) = context.and_then(|context| context.metrics.as_ref()) {
                    own_left_out += metrics.refused();
                    for series in metrics.series() {
                        match own.len() < OWN_SERIES_MAX {
                            true => own.push((labels("container", container.name.clone()), series)),
                            false => own_left_out += 1,
                        }
                    }
                }
                if let Some(usage) = container.usage() {
                    let restarts = u64::from(container.restart);
                    containers.push((labels("container", container.name), usage, restarts));
                }
            }
        }
        Self {
            containers,
            volumes,
            own,
            own_left_out,
            log_dropped_bytes: node.logs.dropped_bytes(),
            waited: weft_turns::waited(),
            telemetry: node.telemetry.all().map(|(signal, sent)| {
                let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
                (signal, read(&sent.exported), read(&sent.dropped))
            }),
        }
    }
}

impl Collector for Seen {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (name, help) = (
            "weft_container_cpu_seconds",
            "CPU time used by the container's instances.",
        );
        let mut family = encoder.encode_descriptor(name, help, None, Counter)?;
        for (labels, usage, _) in &self.containers {
            let seconds = usage.cpu_nanos as f64 / 1e9;
            ConstCounter::new(seconds).encode(family.encode_family(labels)?)?;
        }
        for (name, help, value) in CONTAINER_COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, Counter)?;
            for (labels, usage, _) in &self.containers {
                ConstCounter::new(value(usage)).encode(family.encode_family(labels)?)?;
            }
        }
        for (name, help, value) in CONTAINER_GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, Gauge)?;
            for (labels, usage, _) in &self.containers {
                ConstGauge::new(value(usage)).encode(family.encode_family(labels)?)?;
            }
        }
        let (name, help) = ("weft_container_restarts", "Restarts of the container.");
        let mut family = encoder.encode_descriptor(name, help, None, Counter)?;
        for (labels, _, restarts) in &self.containers {
            ConstCounter::new(*restarts).encode(family.encode_family(labels)?)?;
        }
        for (name, help, value) in VOLUME_GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, Gauge)?;
            for (labels, usage) in &self.volumes {
                ConstGauge::new(value(usage)).encode(family.encode_family(labels)?)?;
            }
        }
        self.encode_own(&mut encoder)?;
        let (name, help) = (
            "weft_log_dropped_bytes",
            "Log bytes dropped for rate or a full queue.",
        );
        let family = encoder.encode_descriptor(name, help, None, Counter)?;
        ConstCounter::new(self.log_dropped_bytes).encode(family)?;
        for (name, help, is_dropped) in [
            (
                "weft_telemetry_exported",
                "Spans, points and records that a receiver took.",
                false,
            ),
            (
                "weft_telemetry_dropped",
                "Spans, points, records and calls that there was no room for, or that no receiver took.",
                true,
            ),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, Counter)?;
            for (signal, exported, dropped) in self.telemetry {
                let count = if is_dropped { dropped } else { exported };
                let labels = [("signal", signal)];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
        let (name, help) = (
            "weft_turn_waits",
            "Requests, instances and pieces of bodies that waited for their namespace's turn on a core.",
        );
        let family = encoder.encode_descriptor(name, help, None, Counter)?;
        ConstCounter::new(self.waited.count).encode(family)?;
        let (name, help) = ("weft_turn_wait_seconds", "How long these waited together.");
        let family = encoder.encode_descriptor(name, help, None, Counter)?;
        ConstCounter::new(self.waited.time.as_secs_f64()).encode(family)
    }
}

impl Seen {
    /// What containers count themselves: a family for each name and sort, as formats want what is of one family together.
    fn encode_own(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut families: BTreeMap<(&str, &str), Vec<&(Labels, Series)>> = BTreeMap::new();
        for one in &self.own {
            let sort = match one.1.value {
                Value::Counter(_) => "counter",
                Value::Gauge(_) => "gauge",
                Value::Histogram(_) => "histogram",
            };
            let key = (one.1.name.as_str(), sort);
            families.entry(key).or_default().push(one);
        }
        let help = "Counted by containers.";
        for ((name, sort), all) in families {
            let (name, sort) = match sort {
                // The format adds it.
                "counter" => (name.strip_suffix("_total").unwrap_or(name), Counter),
                "gauge" => (name, Gauge),
                _ => (name, Histogram),
            };
            let name = format!("{OWN}{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, sort)?;
            for (of, series) in all {
                let mut labels: Vec<(&str, &str)> = of
                    .iter()
                    .map(|(name, value)| (*name, value.as_str()))
                    .collect();
                let own = series.labels.iter();
                labels.extend(own.map(|(name, value)| (name.as_str(), value.as_str())));
                let encoder = family.encode_family(&labels)?;
                match &series.value {
                    Value::Counter(count) => ConstCounter::new(*count).encode(encoder)?,
                    Value::Gauge(value) => ConstGauge::new(*value).encode(encoder)?,
                    Value::Histogram(histogram) => write_histogram(histogram, encoder)?,
                }
            }
        }
        let (name, help) = (
            "weft_container_metrics_left_out",
            "Times that what a container counted was not, for its name, its value or want of room.",
        );
        let family = encoder.encode_descriptor(name, help, None, Gauge)?;
        ConstGauge::new(self.own_left_out).encode(family)
    }
}

fn write_histogram(
    histogram: &weft_runtime::host::metrics::Histogram,
    mut encoder: MetricEncoder<'_>,
) -> fmt::Result {
    let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets).collect();
    let count = histogram.count();
    encoder.encode_histogram::<NoLabelSet>(histogram.sum, count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containers_count_is_theirs_by_its_name_and_by_labels_of_the_host() {
        let of = |pod: &str| {
            [
                ("namespace", "shop".to_owned()),
                ("pod", pod.to_owned()),
                ("container", "web".to_owned()),
            ]
        };
        let series = |name: &str, value| Series {
            name: name.to_owned(),
            labels: vec![("kind".to_owned(), "a\"b\n".to_owned())],
            value,
        };
        let mut seconds = weft_runtime::host::metrics::Histogram {
            sum: 3.5,
            ..Default::default()
        };
        seconds.buckets[0] = 1;
        seconds.buckets[BOUNDS.len()] = 2;
        let own = vec![
            (of("a"), series("orders_total", Value::Counter(2.0))),
            (of("b"), series("orders_total", Value::Counter(3.0))),
            (
                of("a"),
                series("seconds", Value::Histogram(Box::new(seconds))),
            ),
            (of("b"), series("seconds", Value::Gauge(-1.0))),
        ];
        let seen = Seen {
            containers: Vec::new(),
            volumes: Vec::new(),
            own,
            own_left_out: 4,
            log_dropped_bytes: 0,
            waited: Waited {
                count: 0,
                time: std::time::Duration::ZERO,
            },
            telemetry: [("traces", 0, 0), ("metrics", 0, 0), ("logs", 0, 0)],
        };
        let mut text = String::new();
        write(seen, Format::Prometheus, &mut text);
        let labels = |pod: &str| {
            format!("namespace=\"shop\",pod=\"{pod}\",container=\"web\",kind=\"a\\\"b\\n\"")
        };
        for line in [
            "# TYPE app_orders_total counter".to_owned(),
            format!("app_orders_total{{{}}} 2.0", labels("a")),
            format!("app_orders_total{{{}}} 3.0", labels("b")),
            "# TYPE app_seconds histogram".to_owned(),
            format!("app_seconds_sum{{{}}} 3.5", labels("a")),
            format!("app_seconds_count{{{}}} 3", labels("a")),
            "# TYPE app_seconds gauge".to_owned(),
            format!("app_seconds{{{}}} -1.0", labels("b")),
            "weft_container_metrics_left_out 4".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_container_is_told_under_its_names() {
        let usage = Usage {
            cpu_nanos: 1_500_000_000,
            memory_bytes: 4096,
            requests: 3,
            ..Usage::default()
        };
        let labels = [
            ("namespace", "vote".to_owned()),
            ("pod", "web-1".to_owned()),
            ("container", "web".to_owned()),
        ];
        let seen = Seen {
            containers: vec![(labels, usage, 2)],
            volumes: Vec::new(),
            own: Vec::new(),
            own_left_out: 0,
            log_dropped_bytes: 7,
            waited: Waited {
                count: 9,
                time: std::time::Duration::from_millis(250),
            },
            telemetry: [("traces", 5, 6), ("metrics", 0, 0), ("logs", 0, 0)],
        };
        let mut text = String::new();
        write(seen, Format::Prometheus, &mut text);
        let of_web = "{namespace=\"vote\",pod=\"web-1\",container=\"web\"}";
        for line in [
            "# TYPE weft_container_cpu_seconds_total counter".to_owned(),
            format!("weft_container_cpu_seconds_total{of_web} 1.5"),
            "# TYPE weft_container_memory_bytes gauge".to_owned(),
            format!("weft_container_memory_bytes{of_web} 4096"),
            format!("weft_container_requests_total{of_web} 3"),
            format!("weft_container_traps_total{of_web} 0"),
            format!("weft_container_restarts_total{of_web} 2"),
            "# TYPE kubelet_volume_stats_inodes_used gauge".to_owned(),
            "weft_log_dropped_bytes_total 7".to_owned(),
            "weft_telemetry_exported_total{signal=\"traces\"} 5".to_owned(),
            "weft_telemetry_dropped_total{signal=\"traces\"} 6".to_owned(),
            "weft_turn_waits_total 9".to_owned(),
            "weft_turn_wait_seconds_total 0.25".to_owned(),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
