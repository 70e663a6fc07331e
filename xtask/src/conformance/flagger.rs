//! `cargo xtask conformance flagger`: Flagger 1.36.1 as it is published drives a canary on weft by the Gateway API, to its promotion and back.
//!
//! What takes part is nobody's but upstream's: Flagger and its definitions from its Go module, its queries for Istio's metrics from its own
//! tests, and a Prometheus, from its Go module as well, that scrapes the nodes through the API. A Deployment serves behind a Gateway while it is called all the time. First
//! another image that is well is brought out, and has to be promoted; then one that fails, and has to be rolled back, with no more
//! failures than its share of the calls.
//!
//! Where Flagger or Prometheus cannot be had, this says so and tries nothing; with `CI` set that is a failure.
//!
//! Invariant: only processes started here are ended, and none is left.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::cluster::{self, Cluster};
use crate::guests;
use crate::process::Ended;
use crate::progress::{self, Steps, Waiting};
use crate::target;

const MODULE: &str = "github.com/fluxcd/flagger";
const VERSION: &str = "v1.36.1";
/// Prometheus 3.16, without the services that it could find targets by: it is told them.
const PROMETHEUS_MODULE: &str = "github.com/prometheus/prometheus";
const PROMETHEUS_VERSION: &str = "v0.316.0";
const PROMETHEUS_TAGS: &str = "netgo,remove_all_sd";
/// Its definitions, in its module.
const DEFINITIONS: &str = "artifacts/flagger/crd.yaml";
const NAMESPACE: &str = "test";
const HOST: &str = "www.example.com";
/// A path that one component answers like any other, and the other traps at.
const PATH: &str = "/panic";
/// Each step of the canary, and what it may take.
const INTERVAL_SECONDS: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(500);
/// Between two calls.
const CALL_PAUSE: Duration = Duration::from_millis(20);
/// Of a hundred calls, the canary gets so many at most before it is promoted.
const WEIGHT_MAX: u64 = 50;
const WEIGHT_STEP: u64 = 25;

#[derive(clap::Args)]
pub struct Args {
    /// Flagger's program, instead of one built from its Go module
    #[arg(long, value_name = "FILE")]
    flagger: Option<PathBuf>,
    /// Prometheus' program, instead of one built from its Go module
    #[arg(long, value_name = "FILE")]
    prometheus: Option<PathBuf>,
    /// A folder with components that are built already, instead of building them
    #[arg(long, value_name = "DIR")]
    guests: Option<PathBuf>,
    /// The weft to run, instead of one built here
    #[arg(long, value_name = "FILE")]
    weft: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// When a canary does not end as it should, and, with `CI` set, when upstream's programs cannot be had.
pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::new(6);
    let had = steps.step("fetch and build Flagger", || Programs::find(args));
    let programs = match had {
        Ok(programs) => programs,
        Err(error) if std::env::var_os("CI").is_some() => return Err(error),
        Err(error) => {
            eprintln!(
                "SKIPPED: upstream's programs cannot be had, and nothing was tried: {error:#}"
            );
            return Ok(());
        }
    };
    let weft = match &args.weft {
        Some(file) => std::path::absolute(file)?,
        None => {
            steps.step("build weft", cluster::build)?;
            cluster::program()
        }
    };
    let guests = match &args.guests {
        Some(dir) => std::path::absolute(dir)?,
        None => {
            let wanted = ["hello", "hello-p3", "probe"];
            steps.step("build the components", || guests::build_only(&wanted))?;
            let built = guests::path("hello");
            built.parent().map(Path::to_owned).unwrap_or_default()
        }
    };
    let dir = target().join(format!("conformance/flagger-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let cluster = Cluster::start_program(&weft, "flagger", 1, false)?;
    for (component, image) in [
        ("hello", "shop/web:1"),
        ("hello-p3", "shop/web:2"),
        ("probe", "shop/web:3"),
    ] {
        cluster.push(&guests.join(format!("{component}.wasm")), image)?;
    }
    let world = World::start(&programs, &cluster, &dir)?;
    steps.step("Flagger takes the Deployment", || world.begin())?;
    let promoted = steps.step("an image that is well is promoted", || {
        world.bring_out("shop/web:2", "Succeeded")
    })?;
    let failed = steps.step("an image that fails is rolled back", || {
        world.bring_out("shop/web:3", "Failed")
    })?;
    ensure!(
        promoted.failed == 0,
        "{} calls failed beside an image that is well",
        promoted.failed
    );
    let share = failed.failed as f64 * 100.0 / failed.calls.max(1) as f64;
    ensure!(
        failed.failed > 0 && share <= WEIGHT_MAX as f64,
        "{share:.1} % of calls failed beside an image that fails, which got {WEIGHT_MAX} % of them at most"
    );
    drop(world);
    cluster.stop()?;
    // What a failed run leaves is there to be read.
    fs::remove_dir_all(&dir)?;
    println!(
        "Flagger {VERSION} promoted shop/web:2 in {:.0} s, of {} calls none failed; it rolled shop/web:3 back in {:.0} s, of {} calls {} failed ({share:.1} %)",
        promoted.seconds, promoted.calls, failed.seconds, failed.calls, failed.failed
    );
    Ok(())
}

/// Upstream's programs.
struct Programs {
    flagger: PathBuf,
    prometheus: PathBuf,
    definitions: PathBuf,
}

impl Programs {
    fn find(args: &Args) -> Result<Self> {
        let dir = target().join("flagger");
        fs::create_dir_all(&dir)?;
        let go = |arguments: &[&str]| {
            let mut go = Command::new("go");
            progress::clean_environment(&mut go);
            go.args(arguments)
                .env("GOBIN", &dir)
                .env("CGO_ENABLED", "0");
            go
        };
        let downloaded = |module: &str| -> Result<PathBuf> {
            let told = progress::read(&mut go(&["mod", "download", "-json", module]))?;
            let told: Value = serde_json::from_str(&told).context("reading what go tells")?;
            let folder = told["Dir"].as_str().context("go tells no folder")?;
            Ok(PathBuf::from(folder))
        };
        let module = downloaded(&format!("{MODULE}@{VERSION}"))?;
        let flagger = match &args.flagger {
            Some(file) => std::path::absolute(file)?,
            None => {
                let package = format!("{MODULE}/cmd/flagger@{VERSION}");
                progress::read(&mut go(&["install", &package]))?;
                dir.join("flagger")
            }
        };
        let prometheus = match &args.prometheus {
            Some(file) => std::path::absolute(file)?,
            None => {
                // Its module replaces others, so that it is built where it lies.
                let module = downloaded(&format!("{PROMETHEUS_MODULE}@{PROMETHEUS_VERSION}"))?;
                let program = std::path::absolute(dir.join("prometheus"))?;
                let mut build = go(&["build", "-tags", PROMETHEUS_TAGS, "-o"]);
                // Its workspace names modules that are not part of it.
                build.env("GOWORK", "off");
                build.arg(&program).arg("./cmd/prometheus");
                progress::read(build.current_dir(module))?;
                program
            }
        };
        Ok(Self {
            flagger,
            prometheus,
            definitions: module.join(DEFINITIONS),
        })
    }
}

/// A cluster with Flagger, Prometheus and callers.
struct World<'a> {
    cluster: &'a Cluster,
    callers: Callers,
    prometheus: String,
    _processes: [Ended; 2],
}

/// What came of bringing an image out.
struct Way {
    seconds: f64,
    calls: u64,
    failed: u64,
}

impl<'a> World<'a> {
    fn start(programs: &Programs, cluster: &'a Cluster, dir: &Path) -> Result<Self> {
        cluster.apply_file(&programs.definitions)?;
        let prometheus = format!("127.0.0.1:{}", free_port()?);
        let config = scraping(cluster, dir)?;
        let measures = Ended::start(
            Command::new(&programs.prometheus)
                .arg(format!("--config.file={}", config.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    dir.join("tsdb").display()
                ))
                .arg(format!("--web.listen-address={prometheus}")),
            &dir.join("prometheus.log"),
        )?;
        let drives = Ended::start(
            Command::new(&programs.flagger)
                .args([
                    "-kubeconfig",
                    &cluster.kubeconfig,
                    "-mesh-provider",
                    "gatewayapi:v1",
                ])
                .args(["-namespace", NAMESPACE, "-control-loop-interval", "5s"])
                .args(["-metrics-server", &format!("http://{prometheus}")])
                .args(["-port", &free_port()?.to_string()]),
            &dir.join("flagger.log"),
        )?;
        Ok(Self {
            cluster,
            callers: Callers::start(cluster.gateway_address().to_owned()),
            prometheus,
            _processes: [measures, drives],
        })
    }

    /// The Deployment serves, and Flagger has made what it needs.
    fn begin(&self) -> Result<()> {
        let mut objects = deployed();
        objects.extend(queries(&self.prometheus));
        objects.push(canary());
        self.cluster.apply(&objects)?;
        self.wait("Initialized")?;
        self.cluster.wait_for_answer(HOST, PATH)
    }

    /// Another image, until the canary is in this phase.
    fn bring_out(&self, image: &str, phase: &str) -> Result<Way> {
        let started = Instant::now();
        let before = self.callers.counted();
        let mut deployment = deployed().swap_remove(1);
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        // Flagger has its size.
        if let Some(spec) = deployment["spec"].as_object_mut() {
            spec.remove("replicas");
        }
        self.cluster.apply(&[deployment])?;
        self.wait("Progressing")?;
        self.wait(phase)?;
        let after = self.callers.counted();
        Ok(Way {
            seconds: started.elapsed().as_secs_f64(),
            calls: after.0 - before.0,
            failed: after.1 - before.1,
        })
    }

    fn wait(&self, phase: &str) -> Result<()> {
        let started = Instant::now();
        let mut waiting = Waiting::new();
        loop {
            let canaries = self.cluster.get(NAMESPACE, "canaries")?;
            let status = canaries
                .first()
                .map(|one| one["status"].clone())
                .unwrap_or_default();
            let now = status["phase"].as_str().unwrap_or("nowhere");
            if now == phase {
                return Ok(());
            }
            let is_over = matches!(now, "Succeeded" | "Failed") && phase != "Progressing";
            if is_over || started.elapsed() > PATIENCE {
                let events =
                    progress::read(&mut self.cluster.weft(["get", "events", "-n", NAMESPACE]));
                drop(waiting);
                eprintln!("{}", events.unwrap_or_default());
                bail!("the canary is {now} and not {phase}: {status}");
            }
            waiting.show(format!("{now}, {} % of calls", status["canaryWeight"]));
            std::thread::sleep(POLL);
        }
    }
}

/// A file that has Prometheus scrape each node through the API, as whoever the kubeconfig is.
fn scraping(cluster: &Cluster, dir: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(&cluster.kubeconfig)?;
    let part = |name: &str| -> Result<String> {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
        let encoded = line.with_context(|| format!("the kubeconfig has no {name}"))?;
        Ok(encoded.trim().trim_matches('"').to_owned())
    };
    let mut files = Vec::new();
    for (name, file) in [
        ("certificate-authority-data:", "ca.pem"),
        ("client-certificate-data:", "client.pem"),
        ("client-key-data:", "client.key"),
    ] {
        let path = dir.join(file);
        fs::write(&path, decoded(&part(name)?)?)?;
        files.push(path);
    }
    let [ca, certificate, key] = files.as_slice() else {
        bail!("three files were written");
    };
    let host = cluster.api.trim_start_matches("https://");
    let jobs = cluster.nodes.iter().map(|node| {
        json!({
            "job_name": node, "scheme": "https",
            "metrics_path": format!("/api/v1/nodes/{node}/proxy/metrics"),
            "static_configs": [{"targets": [host]}],
            "tls_config": {"ca_file": ca, "cert_file": certificate, "key_file": key},
        })
    });
    let config = json!({
        "global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
        "scrape_configs": jobs.collect::<Vec<_>>(),
    });
    let path = dir.join("prometheus.yaml");
    // JSON is YAML.
    fs::write(&path, config.to_string())?;
    Ok(path)
}

/// Base64, as kubeconfigs have it.
fn decoded(text: &str) -> Result<Vec<u8>> {
    let mut decode = Command::new("base64");
    let mut child = decode
        .arg("-d")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting base64")?;
    let mut input = child.stdin.take().context("its input is piped")?;
    std::io::Write::write_all(&mut input, text.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the kubeconfig is no base64");
    Ok(output.stdout)
}

fn deployed() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "shop/web:1",
                        "ports": [{"name": "http", "containerPort": 8080}]}]},
                },
            },
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": "public", "namespace": NAMESPACE},
            "spec": {"gatewayClassName": "weft", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        }),
    ]
}

/// Flagger's own queries for Istio's metrics.
fn queries(prometheus: &str) -> Vec<Value> {
    let calls = |more: &str| {
        format!(
            "sum(rate(istio_requests_total{{reporter=\"source\", destination_workload_namespace=~\"{{{{ namespace }}}}\", \
             destination_workload=~\"{{{{ target }}}}\"{more}}}[{{{{ interval }}}}]))"
        )
    };
    let errors = format!(
        "100 - {} / {} * 100",
        calls(", response_code!~\"5.*\""),
        calls("")
    );
    let latency = "histogram_quantile(0.99, sum(rate(istio_request_duration_milliseconds_bucket{reporter=\"source\", \
         destination_workload_namespace=~\"{{ namespace }}\", destination_workload=~\"{{ target }}\"}[{{ interval }}])) by (le))/1000";
    let template = |name: &str, query: &str| {
        json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "MetricTemplate",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"provider": {"type": "prometheus", "address": format!("http://{prometheus}")}, "query": query},
        })
    };
    vec![
        template("error-rate", &errors),
        template("latency", latency),
    ]
}

fn canary() -> Value {
    let metric = |name: &str, max: f64| {
        json!({"name": name, "templateRef": {"name": name, "namespace": NAMESPACE},
            "thresholdRange": {"max": max}, "interval": "20s"})
    };
    json!({
        "apiVersion": "flagger.app/v1beta1", "kind": "Canary",
        "metadata": {"name": "web", "namespace": NAMESPACE},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "progressDeadlineSeconds": 120,
            "service": {
                "port": 80, "targetPort": 8080, "portName": "http", "hosts": [HOST],
                "gatewayRefs": [{"name": "public", "namespace": NAMESPACE}],
            },
            "analysis": {
                "interval": format!("{INTERVAL_SECONDS}s"), "threshold": 2,
                "maxWeight": WEIGHT_MAX, "stepWeight": WEIGHT_STEP,
                "metrics": [metric("error-rate", 1.0), metric("latency", 0.5)],
            },
        },
    })
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Somebody who calls all the time, and counts.
struct Callers {
    ends: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; 2]>,
    thread: Option<JoinHandle<()>>,
}

impl Callers {
    fn start(gateway: String) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let (over, counted) = (Arc::clone(&ends), Arc::clone(&counts));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let [calls, failed] = &*counted;
                if !answers(&gateway) {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
                calls.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(CALL_PAUSE);
            }
        });
        Self {
            ends,
            counts,
            thread: Some(thread),
        }
    }

    /// Calls, and those that failed.
    fn counted(&self) -> (u64, u64) {
        let [calls, failed] = &*self.counts;
        (
            calls.load(Ordering::Relaxed),
            failed.load(Ordering::Relaxed),
        )
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

/// Whether one call is answered well.
fn answers(gateway: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let asked = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(gateway)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(
            stream,
            "GET {PATH} HTTP/1.0\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let status = asked()
        .ok()
        .and_then(|answer| answer.split(' ').nth(1)?.parse::<u16>().ok());
    status.is_some_and(|status| status < 500)
}
