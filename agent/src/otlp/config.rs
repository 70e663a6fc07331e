//! What the environment says of telemetry: OpenTelemetry's own variables, with its own defaults.
//!
//! | variable | |
//! | --- | --- |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT`, `…_{TRACES,METRICS,LOGS}_ENDPOINT` | whither; nothing is sent where none is named |
//! | `OTEL_{TRACES,METRICS,LOGS}_EXPORTER` | `otlp` or `none`; logs are sent only where it says `otlp` |
//! | `WEFT_OTLP_LOGS` | which: `calls`, a record each, `containers`, what they print, or both, which is usual |
//! | `OTEL_EXPORTER_OTLP_[…_]PROTOCOL` | `http/protobuf` or `grpc` |
//! | `OTEL_EXPORTER_OTLP_[…_]HEADERS`, `_TIMEOUT`, `_COMPRESSION`, `_INSECURE` | |
//! | `OTEL_EXPORTER_OTLP_[…_]CERTIFICATE`, `_CLIENT_CERTIFICATE`, `_CLIENT_KEY` | files |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | [`weft_mesh::Sampling`]; `parentbased_always_on` where traces are sent |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | of the node; spans have the names of their workloads |
//! | `OTEL_BSP_{SCHEDULE_DELAY,MAX_QUEUE_SIZE,MAX_EXPORT_BATCH_SIZE}`, `OTEL_BLRP_…` | |
//! | `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_SDK_DISABLED` | |
//!
//! Invariants: pure, but for the file of certificates, which is read by whoever sends; values of headers are secrets and are not shown.
//! Source: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/> and `…/configuration/sdk-environment-variables/`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::Url;
use weft_mesh::Sampling;

/// Bounds of what the environment may ask for.
const QUEUE_MAX: usize = weft_mesh::QUEUE_MAX;
const BATCH_MAX: usize = 8192;

/// What messages are wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A POST each.
    Http,
    Grpc,
}

impl Protocol {
    /// The default of the specification, for who says `otlp` and no more.
    fn endpoint(self) -> &'static str {
        match self {
            Protocol::Http => "http://localhost:4318",
            Protocol::Grpc => "http://localhost:4317",
        }
    }
}

/// Which logs are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Records {
    pub calls: bool,
    pub containers: bool,
}

/// What is sent of one signal, and whither.
#[derive(Clone, PartialEq)]
pub struct Target {
    pub protocol: Protocol,
    /// With the path that messages are sent to.
    pub endpoint: Url,
    /// Credentials may be among them.
    pub headers: HeaderMap,
    pub timeout: Duration,
    pub gzip: bool,
    /// Authorities that the receiver is trusted by, in PEM, besides the platform's.
    pub certificate: Option<PathBuf>,
    /// What the node proves itself with, in PEM: a chain and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Target")
            .field("protocol", &self.protocol)
            .field("endpoint", &shown(&self.endpoint))
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .field("gzip", &self.gzip)
            .field("certificate", &self.certificate)
            .field("client", &self.client)
            .finish()
    }
}

/// Without what may be a password.
pub(super) fn shown(endpoint: &Url) -> String {
    let host = endpoint.host_str().unwrap_or_default();
    let port = endpoint.port_or_known_default().unwrap_or_default();
    format!("{}://{host}:{port}{}", endpoint.scheme(), endpoint.path())
}

/// How many wait and how many are sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches {
    pub delay: Duration,
    pub queue: usize,
    pub batch: usize,
}

/// What a node sends.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub traces: Option<(Target, Batches)>,
    pub metrics: Option<(Target, Duration)>,
    pub logs: Option<(Target, Batches)>,
    pub records: Records,
    pub sampling: Sampling,
    /// Of everything that is sent.
    pub resource: Vec<(String, String)>,
}

/// Why a variable is not understood. Says which, and not what is in it where that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {problem}; correct it, or unset it")]
pub struct ConfigError {
    variable: String,
    problem: String,
}

fn wrong(variable: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError {
        variable: variable.to_owned(),
        problem: problem.into(),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Traces => "TRACES",
            Signal::Metrics => "METRICS",
            Signal::Logs => "LOGS",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Signal::Traces => "v1/traces",
            Signal::Metrics => "v1/metrics",
            Signal::Logs => "v1/logs",
        }
    }

    /// Of the method that takes its messages.
    fn method(self) -> &'static str {
        match self {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        }
    }
}

/// Variables by their names. One that is empty is not set.
struct Environment<F>(F);

impl<F: Fn(&str) -> Option<String>> Environment<F> {
    fn get(&self, name: &str) -> Option<String> {
        let value = (self.0)(name)?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    }

    /// Of one signal, else of all, with the name of the variable that says it.
    fn of(&self, signal: Signal, what: &str) -> Option<(String, String)> {
        let names = [
            format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.name()),
            format!("OTEL_EXPORTER_OTLP_{what}"),
        ];
        let mut found = names.into_iter();
        found.find_map(|name| Some((self.get(&name)?, name)))
    }

    fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, ConfigError> {
        match self.get(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| wrong(name, format!("must be a number, not {text:?}"))),
        }
    }

    fn millis(&self, name: &str, default: u32) -> Result<Duration, ConfigError> {
        let millis = self.number(name, default)?;
        Ok(Duration::from_millis(millis.max(1).into()))
    }

    fn target(&self, signal: Signal) -> Result<Option<Target>, ConfigError> {
        let exporter = format!("OTEL_{}_EXPORTER", signal.name());
        let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.name());
        let (own, all) = (
            self.get(&own).map(|text| (text, own)),
            self.get("OTEL_EXPORTER_OTLP_ENDPOINT"),
        );
        let is_named = own.is_some() || all.is_some();
        match self.get(&exporter).as_deref() {
            Some("otlp") => {}
            Some("none") => return Ok(None),
            // A record for each call and line is more than anybody asked for who named a receiver.
            None if !is_named || signal == Signal::Logs => return Ok(None),
            None => {}
            Some(other) => {
                return Err(wrong(
                    &exporter,
                    format!("must be otlp or none, not {other:?}"),
                ));
            }
        }
        let protocol = match self.of(signal, "PROTOCOL") {
            None => Protocol::Http,
            Some((text, name)) => match text.as_str() {
                "http/protobuf" => Protocol::Http,
                "grpc" => Protocol::Grpc,
                other => {
                    let problem = format!("must be http/protobuf or grpc, not {other:?}");
                    return Err(wrong(&name, problem));
                }
            },
        };
        let (mut text, variable, is_whole) = match own {
            Some((text, name)) => (text, name, true),
            None => (
                all.unwrap_or_else(|| protocol.endpoint().to_owned()),
                "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(),
                false,
            ),
        };
        match protocol {
            Protocol::Http if !is_whole => {
                if !text.ends_with('/') {
                    text.push('/');
                }
                text.push_str(signal.path());
            }
            // Clients of gRPC also take a host and its port.
            Protocol::Grpc if !text.contains("://") => {
                let scheme = match self.flag(signal, "INSECURE")? {
                    true => "http",
                    false => "https",
                };
                text = format!("{scheme}://{text}");
            }
            Protocol::Http | Protocol::Grpc => {}
        }
        let endpoint = text.parse::<Url>().ok();
        let endpoint =
            endpoint.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let mut endpoint =
            endpoint.ok_or_else(|| wrong(&variable, "must be a URL of http or https"))?;
        if protocol == Protocol::Grpc {
            endpoint.set_path(signal.method());
            endpoint.set_query(None);
        }
        let headers = match self.of(signal, "HEADERS") {
            None => HeaderMap::new(),
            Some((text, name)) => headers(&text, &name)?,
        };
        let timeout = match self.of(signal, "TIMEOUT") {
            None => 10_000,
            Some((text, name)) => text
                .parse::<u32>()
                .map_err(|_| wrong(&name, format!("must be milliseconds, not {text:?}")))?,
        };
        let gzip = match self.of(signal, "COMPRESSION") {
            None => false,
            Some((text, name)) => match text.as_str() {
                "gzip" => true,
                "none" => false,
                other => {
                    return Err(wrong(&name, format!("must be gzip or none, not {other:?}")));
                }
            },
        };
        let path = |what: &str| self.of(signal, what).map(|(path, _)| PathBuf::from(path));
        let client = match (path("CLIENT_CERTIFICATE"), path("CLIENT_KEY")) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            (Some(_), None) => {
                let problem = "must be there where a client's certificate is";
                return Err(wrong("OTEL_EXPORTER_OTLP_CLIENT_KEY", problem));
            }
            (None, Some(_)) => {
                let problem = "must be there where a client's key is";
                return Err(wrong("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", problem));
            }
        };
        Ok(Some(Target {
            protocol,
            endpoint,
            headers,
            timeout: Duration::from_millis(timeout.max(1).into()),
            gzip,
            certificate: path("CERTIFICATE"),
            client,
        }))
    }

    fn flag(&self, signal: Signal, what: &str) -> Result<bool, ConfigError> {
        match self.of(signal, what) {
            None => Ok(false),
            Some((text, name)) => match text.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                other => Err(wrong(
                    &name,
                    format!("must be true or false, not {other:?}"),
                )),
            },
        }
    }

    fn records(&self) -> Result<Records, ConfigError> {
        let name = "WEFT_OTLP_LOGS";
        let Some(text) = self.get(name) else {
            return Ok(Records {
                calls: true,
                containers: true,
            });
        };
        let mut records = Records {
            calls: false,
            containers: false,
        };
        for one in text.split(',').map(str::trim) {
            match one {
                "calls" => records.calls = true,
                "containers" => records.containers = true,
                other => {
                    let problem = format!("must be calls, containers or both, not {other:?}");
                    return Err(wrong(name, problem));
                }
            }
        }
        Ok(records)
    }

    fn batches(&self, prefix: &str, delay: u32) -> Result<Batches, ConfigError> {
        let name = |what: &str| format!("OTEL_{prefix}_{what}");
        let queue: usize = self.number(&name("MAX_QUEUE_SIZE"), 2048)?;
        let batch: usize = self.number(&name("MAX_EXPORT_BATCH_SIZE"), 512)?;
        let queue = queue.clamp(1, QUEUE_MAX);
        Ok(Batches {
            delay: self.millis(&name("SCHEDULE_DELAY"), delay)?,
            queue,
            batch: batch.clamp(1, BATCH_MAX.min(queue)),
        })
    }
}

/// `name=value,name=value`, values with percent escapes.
fn headers(text: &str, variable: &str) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let found = pair.split_once('=').and_then(|(name, value)| {
            let name = name.trim().parse::<HeaderName>().ok()?;
            let mut value = HeaderValue::from_str(&unescaped(value.trim())?).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        let (name, value) =
            found.ok_or_else(|| wrong(variable, "must be like name=value,other=value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
        out.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(out).ok()
}

fn resource(text: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let variable = "OTEL_RESOURCE_ATTRIBUTES";
    let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
    pairs
        .map(|pair| {
            let found = pair.split_once('=').and_then(|(name, value)| {
                Some((unescaped(name.trim())?, unescaped(value.trim())?))
            });
            found.ok_or_else(|| wrong(variable, "must be like name=value,other=value"))
        })
        .collect()
}

impl Config {
    /// What the environment says, of which `variable` tells one variable. None where nothing is to be sent.
    ///
    /// # Errors
    /// [`ConfigError`], for the first variable that is not understood.
    pub fn of(
        variable: impl Fn(&str) -> Option<String>,
        node: &str,
    ) -> Result<Option<Self>, ConfigError> {
        let environment = Environment(variable);
        if environment.get("OTEL_SDK_DISABLED").as_deref() == Some("true") {
            return Ok(None);
        }
        let traces = environment.target(Signal::Traces)?;
        let metrics = environment.target(Signal::Metrics)?;
        let logs = environment.target(Signal::Logs)?;
        if traces.is_none() && metrics.is_none() && logs.is_none() {
            return Ok(None);
        }
        let sampler = environment.get("OTEL_TRACES_SAMPLER");
        let argument = environment.get("OTEL_TRACES_SAMPLER_ARG");
        let sampling = match (&traces, &sampler) {
            (None, _) => Sampling::default(),
            (Some(_), None) => Sampling {
                parent_based: true,
                share: 1.0,
            },
            (Some(_), Some(name)) => {
                Sampling::parse(name, argument.as_deref()).ok_or_else(|| {
                    let problem = format!(
                        "must be one of always_on, always_off, traceidratio and these with parentbased_ before them, and its share from 0 to 1, not {name:?}"
                    );
                    wrong("OTEL_TRACES_SAMPLER", problem)
                })?
            }
        };
        let said = environment.get("OTEL_RESOURCE_ATTRIBUTES");
        let mut attributes = resource(&said.unwrap_or_default())?;
        let mut set = |name: &str, value: Option<String>, default: &str| {
            let known = attributes.iter_mut().find(|(known, _)| known == name);
            match (known, value) {
                (Some((_, known)), Some(value)) => *known = value,
                (None, value) => {
                    attributes.push((name.to_owned(), value.unwrap_or_else(|| default.to_owned())))
                }
                (Some(_), None) => {}
            }
        };
        set("service.name", environment.get("OTEL_SERVICE_NAME"), "weft");
        set("service.instance.id", None, node);
        set("k8s.node.name", None, node);
        let interval = environment.millis("OTEL_METRIC_EXPORT_INTERVAL", 60_000)?;
        let spans = environment.batches("BSP", 5000)?;
        let records = environment.batches("BLRP", 1000)?;
        Ok(Some(Self {
            traces: traces.map(|target| (target, spans)),
            metrics: metrics.map(|target| (target, interval)),
            logs: logs.map(|target| (target, records)),
            records: environment.records()?,
            sampling,
            resource: attributes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Config>, ConfigError> {
        let find = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::of(find, "node-1")
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn a_receiver_that_is_named_gets_traces_and_metrics() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]), Ok(None));
        let config = read(&[ENDPOINT]).expect("understood").expect("something");
        let (traces, batches) = config.traces.expect("traces");
        assert_eq!(traces.endpoint.as_str(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(
            batches,
            Batches {
                delay: Duration::from_secs(5),
                queue: 2048,
                batch: 512,
            }
        );
        let (metrics, interval) = config.metrics.expect("metrics");
        assert_eq!(metrics.endpoint.path(), "/v1/metrics");
        assert_eq!(interval, Duration::from_secs(60));
        assert_eq!(config.logs, None);
        assert_eq!(
            (config.sampling.parent_based, config.sampling.share),
            (true, 1.0)
        );
        let names: Vec<&str> = config.resource.iter().map(|(_, value)| &**value).collect();
        assert_eq!(names, ["weft", "node-1", "node-1"]);
    }

    #[test]
    fn a_signal_may_go_its_own_way() {
        let config = read(&[
            ENDPOINT,
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "https://traces.example/x?k=v",
            ),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Bearer%20s3cret, x-b = 2",
            ),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-c=3"),
            ("OTEL_METRICS_EXPORTER", "otlp"),
            ("OTEL_LOGS_EXPORTER", "otlp"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
            ("OTEL_SERVICE_NAME", "edge"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,team=a%2Cb"),
        ]);
        let config = config.expect("understood").expect("something");
        let (traces, batches) = config.traces.clone().expect("traces");
        assert_eq!(traces.endpoint.as_str(), "https://traces.example/x?k=v");
        assert_eq!(traces.headers["authorization"], "Bearer s3cret");
        assert_eq!(traces.headers["x-b"], "2");
        assert!(traces.gzip && traces.timeout == Duration::from_millis(500));
        assert_eq!((batches.queue, batches.batch), (10, 10));
        let (metrics, _) = config.metrics.clone().expect("metrics");
        assert!(metrics.headers.contains_key("x-c") && metrics.headers.len() == 1);
        assert!(config.logs.is_some());
        assert_eq!(config.sampling.share, 0.25);
        assert!(
            config
                .resource
                .contains(&("service.name".into(), "edge".into()))
        );
        assert!(config.resource.contains(&("team".into(), "a,b".into())));
        let shown = format!("{config:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("k=v"),
            "{shown}"
        );
    }

    #[test]
    fn by_grpc_it_is_a_method_of_a_host() {
        let traces = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
        let metrics = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let named = |text| ("OTEL_EXPORTER_OTLP_ENDPOINT", text);
        for (variables, host) in [
            (
                &[("OTEL_TRACES_EXPORTER", "otlp")][..],
                "http://localhost:4317",
            ),
            (&[named("http://collector:4317/x")], "http://collector:4317"),
            (&[named("https://collector")], "https://collector"),
            (&[named("collector:4317")], "https://collector:4317"),
            (
                &[
                    named("127.0.0.1:4317"),
                    ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
                ],
                "http://127.0.0.1:4317",
            ),
            (
                &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1]:1")],
                "http://[::1]:1",
            ),
        ] {
            let all: Vec<_> = variables.iter().copied().chain([grpc]).collect();
            let config = read(&all).expect("understood").expect("something");
            let (target, _) = config.traces.expect("traces");
            assert_eq!(target.protocol, Protocol::Grpc);
            assert_eq!(target.endpoint.as_str(), format!("{host}{traces}"));
        }
        // Each signal may go by its own.
        let config = read(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")]);
        let config = config.expect("understood").expect("something");
        let protocol = config.traces.map(|(target, _)| target.protocol);
        assert_eq!(protocol, Some(Protocol::Http));
        let endpoint = config.metrics.map(|(target, _)| target.endpoint);
        assert_eq!(endpoint.expect("metrics").path(), metrics);
        let both = Records {
            calls: true,
            containers: true,
        };
        assert_eq!(config.records, both);
    }

    #[test]
    fn what_is_not_understood_is_told_and_no_secret_with_it() {
        let told: Vec<String> = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%zzs3cret"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "user:s3cret@host"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
            ("OTEL_RESOURCE_ATTRIBUTES", "team"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k.pem"),
            ("WEFT_OTLP_LOGS", "calls,nodes"),
        ]
        .into_iter()
        .map(|variable| match read(&[ENDPOINT, variable]) {
            Err(error) => error.to_string(),
            Ok(_) => format!("{variable:?} was understood"),
        })
        .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf or grpc, not "http/json"; correct it, or unset it
        OTEL_TRACES_EXPORTER must be otlp or none, not "zipkin"; correct it, or unset it
        OTEL_TRACES_SAMPLER must be one of always_on, always_off, traceidratio and these with parentbased_ before them, and its share from 0 to 1, not "jaeger_remote"; correct it, or unset it
        OTEL_EXPORTER_OTLP_HEADERS must be like name=value,other=value; correct it, or unset it
        OTEL_EXPORTER_OTLP_HEADERS must be like name=value,other=value; correct it, or unset it
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT must be a URL of http or https; correct it, or unset it
        OTEL_EXPORTER_OTLP_TIMEOUT must be milliseconds, not "10s"; correct it, or unset it
        OTEL_BSP_SCHEDULE_DELAY must be a number, not "soon"; correct it, or unset it
        OTEL_RESOURCE_ATTRIBUTES must be like name=value,other=value; correct it, or unset it
        OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE must be there where a client's key is; correct it, or unset it
        WEFT_OTLP_LOGS must be calls, containers or both, not "nodes"; correct it, or unset it
        "#);
    }
}
