//! Startup, liveness and readiness probes.
//!
//! An HTTP probe is a request to the component, made in memory on one of the cores: no socket, but the same limits and
//! the same instance policy as any request. One that listens by itself is connected to (`socket_probe`). A command is run in the
//! container's context. A container without probes has no task here.
//!
//! Invariants: liveness and readiness begin after startup has succeeded; a result is reported only when it crosses its
//! threshold; one probe of a container runs at a time and ends at its time limit.
//!
//! Left to others: what follows from a result (`plan`).

use crate::context::{Context, RunError};
use crate::guest::Guest;
use crate::node::Node;
use crate::plan::ProbeKind;
use crate::pod_view::ContainerView;
use crate::socket_probe;
use http::{Request, StatusCode};
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use weft_runtime::network::Via;
use weft_runtime::{Cores, Network};

/// One probe, with Kubernetes' defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub kind: ProbeKind,
    pub check: Check,
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    Http {
        port: u16,
        path: String,
        host: Option<String>,
        headers: Vec<(String, String)>,
        /// Over TLS, where it is connected to; what is asked in memory needs none.
        is_tls: bool,
    },
    /// Whether the component is served, or listens, on this port.
    Tcp { port: u16 },
    /// Whether the command ends well.
    Exec { command: Vec<String> },
    /// Whether it says itself that it serves (`grpc.health.v1`).
    Grpc { port: u16, service: String },
}

/// Why a probe cannot be carried out here, as one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    #[error("{kind} probe: the container has no port \"{port}\"")]
    NoPort { kind: ProbeKind, port: String },
    #[error(
        "{kind} probe: scheme {scheme} is not supported, a component is asked over HTTP or HTTPS; leave the field out"
    )]
    Scheme { kind: ProbeKind, scheme: String },
    #[error("{kind} probe: it says none of httpGet, tcpSocket, grpc and exec")]
    Empty { kind: ProbeKind },
}

/// The probes of a container.
///
/// # Errors
/// [`ProbeError`], a message for `CreateContainerConfigError`.
pub fn specs(container: &Container) -> Result<Vec<Spec>, ProbeError> {
    [
        (ProbeKind::Startup, &container.startup_probe),
        (ProbeKind::Liveness, &container.liveness_probe),
        (ProbeKind::Readiness, &container.readiness_probe),
    ]
    .into_iter()
    .filter_map(|(kind, probe)| probe.as_ref().map(|probe| spec(container, kind, probe)))
    .collect()
}

/// A port as it was written.
pub(crate) fn written(port: &IntOrString) -> String {
    match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

fn spec(container: &Container, kind: ProbeKind, probe: &Probe) -> Result<Spec, ProbeError> {
    let port = |port: &IntOrString| {
        ContainerView(container)
            .port_number(port)
            .ok_or_else(|| ProbeError::NoPort {
                kind,
                port: written(port),
            })
    };
    let check = if let Some(get) = &probe.http_get {
        let scheme = get.scheme.as_deref().unwrap_or("HTTP");
        let is_tls = scheme.eq_ignore_ascii_case("https");
        if !is_tls && !scheme.eq_ignore_ascii_case("http") && !scheme.is_empty() {
            return Err(ProbeError::Scheme {
                kind,
                scheme: scheme.to_owned(),
            });
        }
        let path = get
            .path
            .clone()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| "/".to_owned());
        let headers = get
            .http_headers
            .iter()
            .flatten()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect();
        Check::Http {
            port: port(&get.port)?,
            path: if path.starts_with('/') {
                path
            } else {
                format!("/{path}")
            },
            host: get.host.clone(),
            headers,
            is_tls,
        }
    } else if let Some(socket) = &probe.tcp_socket {
        Check::Tcp {
            port: port(&socket.port)?,
        }
    } else if let Some(exec) = &probe.exec {
        Check::Exec {
            command: exec.command.clone().unwrap_or_default(),
        }
    } else if let Some(grpc) = &probe.grpc {
        Check::Grpc {
            port: port(&IntOrString::Int(grpc.port))?,
            service: grpc.service.clone().unwrap_or_default(),
        }
    } else {
        return Err(ProbeError::Empty { kind });
    };
    let seconds = |value: Option<i32>, default: u32, least: u32| {
        Duration::from_secs(u64::from(
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|value| *value >= least)
                .unwrap_or(default),
        ))
    };
    let count = |value: Option<i32>, default: u32| {
        value
            .and_then(|value| u32::try_from(value).ok())
            .filter(|value| *value >= 1)
            .unwrap_or(default)
    };
    Ok(Spec {
        kind,
        check,
        initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
        period: seconds(probe.period_seconds, 10, 1),
        timeout: seconds(probe.timeout_seconds, 1, 1),
        success_threshold: if kind == ProbeKind::Readiness {
            count(probe.success_threshold, 1)
        } else {
            1
        },
        failure_threshold: count(probe.failure_threshold, 3),
    })
}

/// Counts results in a row against the thresholds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    healthy: bool,
    row: u32,
    reported: Option<bool>,
}

impl Tally {
    /// Takes one result; answers with the verdict if it is new.
    pub fn count(&mut self, healthy: bool, spec: &Spec) -> Option<bool> {
        self.row = if self.healthy == healthy {
            self.row.saturating_add(1)
        } else {
            1
        };
        self.healthy = healthy;
        let threshold = if healthy {
            spec.success_threshold
        } else {
            spec.failure_threshold
        };
        if self.row < threshold || self.reported == Some(healthy) {
            return None;
        }
        self.reported = Some(healthy);
        Some(healthy)
    }
}

/// A verdict or a single failure, on its way to the pod's worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The probe crossed its threshold.
    Verdict { kind: ProbeKind, healthy: bool },
    /// One probe failed; worth an event, decides nothing.
    Failed { kind: ProbeKind, message: String },
    /// One probe could not be made: no result at all.
    Errored { kind: ProbeKind, message: String },
}

/// Why a probe is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    Failed(String),
    Errored(String),
}

/// What is probed.
#[derive(Clone)]
pub struct Target {
    pub workload: Option<Guest>,
    pub ip: IpAddr,
    /// Where it is served.
    pub ports: Vec<u16>,
    /// Where it may listen by itself.
    pub network: Option<Network>,
    pub cores: Cores,
    /// On which core requests run.
    pub core: usize,
    /// Where commands are run.
    pub(crate) context: Option<(Arc<Node>, Arc<Context>)>,
    /// When the container was.
    pub(crate) started: Instant,
}

/// Probes until `stop`. `report` must not block for long.
pub async fn run<F, R>(specs: Vec<Spec>, target: Target, report: F, stop: CancellationToken)
where
    F: Fn(Report) -> R,
    R: Future<Output = ()>,
{
    // Of all probes: a container that was long in starting has had its delay.
    let begun = target.started;
    let probing = async {
        let (startup, rest): (Vec<Spec>, Vec<Spec>) = specs
            .into_iter()
            .partition(|spec| spec.kind == ProbeKind::Startup);
        for spec in &startup {
            // Ends with success; failure has the container stopped, and this task with it.
            repeat(spec, &target, &report, begun, true).await;
        }
        futures::future::join_all(
            rest.iter()
                .map(|spec| repeat(spec, &target, &report, begun, false)),
        )
        .await;
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = probing => {}
    }
}

async fn repeat<F, R>(spec: &Spec, target: &Target, report: &F, begun: Instant, until_success: bool)
where
    F: Fn(Report) -> R,
    R: Future<Output = ()>,
{
    let mut tally = Tally::default();
    tokio::time::sleep_until(begun + spec.initial_delay).await;
    let mut ticks = tokio::time::interval(spec.period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A command is timed where it is run, and says so in its own words.
        let most = match spec.check {
            Check::Exec { .. } => spec.timeout.saturating_mul(2),
            Check::Http { .. } | Check::Tcp { .. } | Check::Grpc { .. } => spec.timeout,
        };
        let checked = check(&spec.check, target, spec.timeout);
        let result = match tokio::time::timeout(most, checked).await {
            Ok(result) => result,
            Err(_) => Err(Trouble::Failed(format!(
                "no answer within {:?}",
                spec.timeout
            ))),
        };
        let kind = spec.kind;
        let healthy = match result {
            Ok(()) => true,
            Err(Trouble::Failed(message)) => {
                report(Report::Failed { kind, message }).await;
                false
            }
            Err(Trouble::Errored(message)) => {
                report(Report::Errored { kind, message }).await;
                continue;
            }
        };
        if let Some(healthy) = tally.count(healthy, spec) {
            report(Report::Verdict {
                kind: spec.kind,
                healthy,
            })
            .await;
        }
        if until_success && healthy {
            return;
        }
    }
}

/// Runs a probe's command; what it prints is why it failed.
async fn command(command: &[String], target: &Target, timeout: Duration) -> Result<(), Trouble> {
    let Some((node, context)) = &target.context else {
        return Err(Trouble::Errored("the container is not running".into()));
    };
    match context.run(node, command, Some(timeout)).await {
        Ok(ran) if ran.exit.code() == 0 => Ok(()),
        Ok(ran) => Err(Trouble::Failed(ran.output)),
        Err(error @ RunError::TimedOut { .. }) => Err(Trouble::Failed(error.to_string())),
        Err(error @ RunError::Exec(_)) => Err(Trouble::Errored(error.to_string())),
    }
}

async fn check(check: &Check, target: &Target, timeout: Duration) -> Result<(), Trouble> {
    match check {
        Check::Exec { command: words } => command(words, target, timeout).await,
        Check::Http { .. } | Check::Tcp { .. } | Check::Grpc { .. } => {
            ask(check, target, timeout).await.map_err(Trouble::Failed)
        }
    }
}

async fn ask(check: &Check, target: &Target, timeout: Duration) -> Result<(), String> {
    let refused = |port: u16| format!("dial tcp {}:{port}: connect: connection refused", target.ip);
    let port = match check {
        Check::Http { port, .. } | Check::Tcp { port } | Check::Grpc { port, .. } => *port,
        Check::Exec { .. } => return Ok(()),
    };
    let asked = Asked::of(target, port).ok_or_else(|| refused(port))?;
    let at = format!("{}:{port}", target.ip);
    let (mut request, is_tls, url) = match check {
        Check::Tcp { .. } | Check::Exec { .. } => return Ok(()),
        Check::Grpc { service, .. } => (socket_probe::health_check(&at, service)?, false, at),
        Check::Http {
            path,
            host,
            headers,
            is_tls,
            ..
        } => {
            let authority = match host {
                Some(host) if !host.is_empty() => host.clone(),
                _ => at,
            };
            let mut request = Request::get(format!("http://{authority}{path}"))
                .header(http::header::HOST, &authority)
                .header(http::header::USER_AGENT, "kube-probe/1.37");
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request.body(weft_runtime::Body::empty());
            let request = request.map_err(|error| error.to_string())?;
            let scheme = if *is_tls { "https" } else { "http" };
            (request, *is_tls, format!("{scheme}://{authority}{path}"))
        }
    };
    request.extensions_mut().insert(weft_runtime::CallContext {
        deadline: std::time::Instant::now().checked_add(timeout),
        ..Default::default()
    });
    let is_grpc = matches!(check, Check::Grpc { .. });
    // Guests run on cores only; this task merely waits. A call whose time is up, or whose container was stopped, ends with it.
    let call = AbortOnDropHandle::new(target.cores.spawn_on(target.core, async move {
        let response = asked.answer(is_tls, request).await;
        let response = response.map_err(|error| match is_grpc {
            true => format!("error: failed to connect service {url:?}: {error}"),
            false => format!("Get {url:?}: {error}"),
        })?;
        if is_grpc {
            return socket_probe::health(response).await;
        }
        match response.status() {
            status if (StatusCode::OK..StatusCode::BAD_REQUEST).contains(&status) => Ok(()),
            status => Err(format!(
                "HTTP probe failed with statuscode: {}",
                status.as_u16()
            )),
        }
    }));
    let ended = call.await;
    ended.unwrap_or_else(|_| Err("the node is shutting down".to_owned()))
}

/// Who is behind a port.
enum Asked {
    /// A component that is served there.
    Component(Guest),
    /// A guest that listens there.
    Listener(Network, u16),
}

impl Asked {
    fn of(target: &Target, port: u16) -> Option<Self> {
        let listening = target.network.as_ref();
        if let Some(network) = listening.filter(|network| network.listens(port, Via::Address)) {
            return Some(Self::Listener(network.clone(), port));
        }
        let served = target.workload.clone();
        let served = served.filter(|_| target.ports.contains(&port));
        served.map(Self::Component)
    }

    async fn answer(
        self,
        is_tls: bool,
        request: Request<weft_runtime::Body>,
    ) -> Result<http::Response<weft_runtime::Body>, weft_call::Failure> {
        match self {
            Self::Component(workload) => workload.call(request).await,
            Self::Listener(network, port) => {
                socket_probe::ask(network, port, is_tls, request).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(probe: serde_json::Value) -> Container {
        serde_json::from_value(json!({"name": "web", "ports": [{"name": "http", "containerPort": 8080}], "readinessProbe": probe})).expect("a container")
    }

    #[test]
    fn a_probe_gets_kubernetes_defaults() {
        let specs = specs(&container(json!({"httpGet": {"port": "http"}}))).expect("a probe");
        assert_eq!(
            specs,
            [Spec {
                kind: ProbeKind::Readiness,
                check: Check::Http {
                    port: 8080,
                    path: "/".into(),
                    host: None,
                    headers: vec![],
                    is_tls: false,
                },
                initial_delay: Duration::ZERO,
                period: Duration::from_secs(10),
                timeout: Duration::from_secs(1),
                success_threshold: 1,
                failure_threshold: 3,
            }]
        );
    }

    #[test]
    fn what_cannot_be_probed_is_refused_with_a_sentence() {
        let text: Vec<String> = [
            json!({"tcpSocket": {"port": "nope"}}),
            json!({"httpGet": {"port": 8080, "scheme": "GOPHER"}}),
            json!({}),
        ]
        .into_iter()
        .map(|probe| specs(&container(probe)).expect_err("refused").to_string())
        .collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        Readiness probe: the container has no port "nope"
        Readiness probe: scheme GOPHER is not supported, a component is asked over HTTP or HTTPS; leave the field out
        Readiness probe: it says none of httpGet, tcpSocket, grpc and exec
        "#);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delay_counts_from_the_start_of_the_container_whatever_the_startup_probe_takes() {
        // Nothing is served, so that each probe fails at once and says when it was made.
        let target = Target {
            workload: None,
            ip: "10.42.0.7".parse().expect("an address"),
            ports: vec![8080],
            network: None,
            cores: Cores::start(1).expect("a core"),
            core: 0,
            context: None,
            started: Instant::now(),
        };
        for (delay, waits) in [(0, 0), (15, 0), (30, 10)] {
            let started = Instant::now();
            // Its startup probe succeeds after 20 s.
            tokio::time::advance(Duration::from_secs(20)).await;
            let asked = Instant::now();
            let (made, mut making) = tokio::sync::mpsc::unbounded_channel();
            let report = |_: Report| {
                made.send(()).expect("somebody listens");
                std::future::ready(())
            };
            let spec = Spec {
                initial_delay: Duration::from_secs(delay),
                failure_threshold: u32::MAX,
                ..specs(&container(json!({"tcpSocket": {"port": 8080}}))).expect("a probe")[0]
                    .clone()
            };
            tokio::select! {
                _ = making.recv() => {}
                () = repeat(&spec, &target, &report, started, false) => panic!("it repeats"),
            }
            assert_eq!(asked.elapsed().as_secs(), waits, "{delay}");
        }
    }

    #[test]
    fn verdicts_come_at_the_threshold_and_once() {
        let spec = &specs(&container(
            json!({"httpGet": {"port": 8080}, "successThreshold": 2, "failureThreshold": 2}),
        ))
        .expect("a probe")[0];
        let mut tally = Tally::default();
        let verdicts: Vec<Option<bool>> = [true, true, true, false, true, false, false, false]
            .into_iter()
            .map(|healthy| tally.count(healthy, spec))
            .collect();
        assert_eq!(
            verdicts,
            [None, Some(true), None, None, None, None, Some(false), None]
        );
    }
}
