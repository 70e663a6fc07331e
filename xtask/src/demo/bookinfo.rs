//! `cargo xtask demo bookinfo`: Istio's example application with components of ours, and Istio's public tasks on it, one after the other.
//!
//! What is applied is in `sample-apps/bookinfo/tasks`, in Istio's own kinds wherever these say it; each step looks at what its page promises
//! and fails where that is not seen. `docs/istio-tasks.md` is the same for readers.
//!
//! Invariant: each task takes away what it has applied, so that any of them can be tried alone.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::cluster::{self, Cluster};
use crate::guests;
use crate::progress::{self, Steps, Waiting};
use crate::target;

const APP: [&str; 4] = ["productpage", "details", "reviews", "ratings"];
const FOLDER: &str = "sample-apps/bookinfo";
const NAMESPACE: &str = "bookinfo";
const HOST: &str = "bookinfo.localhost";
const PRODUCT: &str = "/api/v1/products/0";
/// How long what was applied may take to be seen everywhere: every node has a gateway.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(200);
/// Answers in a row that have to be right.
const ROUNDS: usize = 20;
/// The longest that one answer may take: two tries of three seconds, and more.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A task: the name by which it is chosen, and what it does.
type Task = (&'static str, &'static str, fn(&World<'_>) -> Result<String>);

static TASKS: [Task; 10] = [
    ("routing", "request routing", routing),
    ("delay", "fault injection: a delay", delay),
    ("abort", "fault injection: an abort", abort),
    ("shifting", "traffic shifting", shifting),
    ("mirroring", "mirroring", mirroring),
    ("breaking", "circuit breaking", breaking),
    ("authorization", "authorization for HTTP", authorization),
    ("jwt", "authorization with JWT", jwt),
    ("egress", "egress with TLS origination", egress),
    ("tracing", "distributed tracing", tracing),
];

/// What of a task's names is asked for; all of them where none is.
fn chosen(only: &[String]) -> Result<Vec<&'static Task>> {
    for name in only {
        ensure!(
            TASKS.iter().any(|(known, ..)| known == name),
            "there is no task {name}; there are {}",
            TASKS.map(|(known, ..)| known).join(", ")
        );
    }
    let is_asked = |task: &&Task| only.is_empty() || only.iter().any(|name| *name == task.0);
    Ok(TASKS.iter().filter(is_asked).collect())
}

/// Where components and the program are, if they are built already.
pub(super) struct Built {
    pub(super) guests: Option<PathBuf>,
    pub(super) weft: Option<PathBuf>,
}

/// # Errors
/// When a task does not show what its page promises.
pub(super) fn run(only: &[String], nodes: u16, once: bool, built: &Built) -> Result<()> {
    let tasks = chosen(only)?;
    let mut steps = Steps::new(3 + tasks.len());
    let guests = match &built.guests {
        Some(dir) => std::path::absolute(dir)?,
        None => {
            steps.step("build the components", || guests::build_only(&APP))?;
            target().join("guests")
        }
    };
    let weft = match &built.weft {
        Some(file) => std::path::absolute(file)?,
        None => {
            steps.step("build weft", cluster::build)?;
            cluster::program()
        }
    };
    let cluster = Cluster::start_program(&weft, "bookinfo", nodes, !once)?;
    let world = World { cluster: &cluster };
    steps.step("deploy bookinfo", || world.deploy(&guests))?;
    for (_, title, task) in tasks {
        let seen = steps.step(title, || task(&world))?;
        println!("{title}: {seen}");
    }
    if once {
        return cluster.stop();
    }
    println!("\nThe cluster stays up until Ctrl-C.\n");
    println!("  page        {}", cluster.url(HOST, "/productpage"));
    println!("  kubeconfig  {}", cluster.kubeconfig);
    cluster.wait()
}

struct World<'c> {
    cluster: &'c Cluster,
}

/// One answer through the gateway.
struct Answer {
    status: u16,
    body: String,
    took: Duration,
}

impl Answer {
    /// The product, as the page's API tells it.
    fn product(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The version of the reviews that were shown; empty where there are none.
    fn version(&self) -> String {
        let product = self.product();
        product["reviews"]["version"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

const JASON: &str = "Cookie: reader=jason\r\n";
const NOBODY: &str = "";

impl World<'_> {
    fn deploy(&self, guests: &Path) -> Result<()> {
        let mut waiting = Waiting::new();
        for name in APP {
            waiting.show(format!("pushing {name}"));
            let component = guests.join(format!("{name}.wasm"));
            self.cluster
                .push(&component, &format!("bookinfo/{name}:0.1"))?;
        }
        waiting.show("applying the manifests");
        self.cluster
            .apply_file(&Path::new(FOLDER).join("definitions.yaml"))?;
        self.cluster
            .apply_file(&Path::new(FOLDER).join("weft.yaml"))?;
        drop(waiting);
        self.cluster.wait_for_rollout(NAMESPACE)?;
        self.cluster.wait_for_answer(HOST, PRODUCT)
    }

    fn file(name: &str) -> PathBuf {
        Path::new(FOLDER).join("tasks").join(name)
    }

    fn apply(&self, name: &str) -> Result<()> {
        self.cluster.apply_file(&Self::file(name))
    }

    /// Takes away what these files say.
    fn delete(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let mut delete = self.cluster.weft(["delete", "-f"]);
            progress::read(delete.arg(Self::file(name)))?;
        }
        Ok(())
    }

    /// One request through the gateway, with further lines of its head.
    fn ask(&self, host: &str, path: &str, lines: &str) -> Result<Answer> {
        let started = Instant::now();
        let mut stream = TcpStream::connect(self.cluster.gateway_address())?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {host}\r\n{lines}Connection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("the gateway's answer is no HTTP")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok(Answer {
            status: status.context("the answer has no status")?,
            body: body.to_owned(),
            took: started.elapsed(),
        })
    }

    fn product(&self, lines: &str) -> Result<Answer> {
        self.ask(HOST, PRODUCT, lines)
    }

    /// Waits until [`ROUNDS`] answers in a row are as they should be.
    fn settle(
        &self,
        what: &str,
        ask: impl Fn() -> Result<Answer>,
        is_right: impl Fn(&Answer) -> bool,
    ) -> Result<()> {
        let started = Instant::now();
        let mut right = 0;
        loop {
            let answer = ask()?;
            right = match is_right(&answer) {
                true => right + 1,
                false => 0,
            };
            if right == ROUNDS {
                return Ok(());
            }
            if right == 0 {
                ensure!(
                    started.elapsed() < PATIENCE,
                    "{what}: the last answer was {} {}",
                    answer.status,
                    answer.body.trim()
                );
                std::thread::sleep(POLL);
            }
        }
    }

    /// Everybody gets reviews of one of these versions.
    fn shows(&self, versions: &[&str], lines: &str) -> Result<()> {
        let what = format!("reviews of {} are asked for", versions.join(" or "));
        self.settle(
            &what,
            || self.product(lines),
            |answer| versions.contains(&answer.version().as_str()),
        )
    }

    /// All three versions in turn, as it is without a rule.
    fn plain(&self) -> Result<()> {
        self.shows(&["v1", "v2", "v3"], NOBODY)
    }

    /// Runs a command in the client's pod.
    fn client(&self, command: &[&str]) -> Result<String> {
        let mut exec = self.cluster.weft(["exec", "-n", NAMESPACE, "client", "--"]);
        let output = exec.args(command).output().context("weft exec")?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How many calls a workload has taken, over all nodes.
    fn taken(&self, workload: &str) -> Result<u64> {
        let (name, own) = (
            format!("destination_workload=\"{workload}\""),
            "reporter=\"destination\"",
        );
        let mut all = 0.0;
        for node in &self.cluster.nodes {
            let text = self.cluster.metrics(node)?;
            let lines = text.lines().filter(|line| {
                line.starts_with("istio_requests_total{")
                    && line.contains(&name)
                    && line.contains(own)
            });
            all += lines
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum::<f64>();
        }
        Ok(all as u64)
    }
}

/// Everybody gets v1, and then jason v2.
fn routing(world: &World<'_>) -> Result<String> {
    world.plain()?;
    world.apply("subsets.yaml")?;
    world.apply("reviews-v1.yaml")?;
    world.shows(&["v1"], NOBODY)?;
    world.shows(&["v1"], JASON)?;
    world.apply("reviews-jason-v2.yaml")?;
    world.shows(&["v2"], JASON)?;
    world.shows(&["v1"], NOBODY)?;
    world.delete(&["reviews-jason-v2.yaml", "subsets.yaml"])?;
    world.plain()?;
    Ok("all reviews are v1's; with the rule for jason, his are v2's and no others".to_owned())
}

/// Ratings take seven seconds for jason: his page gives the reviews up after six, the others' do not notice.
fn delay(world: &World<'_>) -> Result<String> {
    world.apply("subsets.yaml")?;
    world.apply("reviews-jason-v2.yaml")?;
    world.shows(&["v2"], JASON)?;
    world.apply("ratings-delay.yaml")?;
    let started = Instant::now();
    let slow = loop {
        let answer = world.product(JASON)?;
        let product = answer.product();
        if !product["reviews"]["error"].is_null() {
            break answer;
        }
        ensure!(started.elapsed() < PATIENCE, "jason's ratings are not late");
        std::thread::sleep(POLL);
    };
    ensure!(
        (5.0..9.0).contains(&slow.took.as_secs_f64()),
        "jason's page took {:?}",
        slow.took
    );
    let details = slow.product()["details"]["title"].clone();
    ensure!(details.is_string(), "his page has no details");
    let others = world.product(NOBODY)?;
    ensure!(
        others.version() == "v1" && others.took < Duration::from_secs(2),
        "another reader's page took {:?}",
        others.took
    );
    world.delete(&[
        "ratings-delay.yaml",
        "reviews-jason-v2.yaml",
        "subsets.yaml",
    ])?;
    world.plain()?;
    Ok(format!(
        "jason's page came after {:.1} s without its reviews; another reader's after {:.0} ms with them",
        slow.took.as_secs_f64(),
        others.took.as_secs_f64() * 1e3
    ))
}

/// Ratings fail for jason: he gets reviews without stars.
fn abort(world: &World<'_>) -> Result<String> {
    world.apply("subsets.yaml")?;
    world.apply("reviews-jason-v2.yaml")?;
    world.shows(&["v2"], JASON)?;
    world.apply("ratings-abort.yaml")?;
    let rating = |answer: &Answer, field: &str| {
        let rating = &answer.product()["reviews"]["reviews"][0]["rating"];
        !rating[field].is_null()
    };
    world.settle(
        "jason's ratings fail",
        || world.product(JASON),
        |answer| answer.version() == "v2" && rating(answer, "error"),
    )?;
    world.shows(&["v1"], NOBODY)?;
    world.delete(&[
        "ratings-abort.yaml",
        "reviews-jason-v2.yaml",
        "subsets.yaml",
    ])?;
    world.plain()?;
    Ok("jason's reviews say that there are no ratings; others have theirs".to_owned())
}

/// Half of the calls, then all of them, go to v3.
fn shifting(world: &World<'_>) -> Result<String> {
    const CALLS: usize = 200;
    world.apply("subsets.yaml")?;
    world.apply("reviews-half.yaml")?;
    world.shows(&["v1", "v3"], NOBODY)?;
    let mut third = 0;
    for _ in 0..CALLS {
        let version = world.product(NOBODY)?.version();
        ensure!(version != "v2", "v2 was called");
        third += usize::from(version == "v3");
    }
    ensure!(
        (CALLS / 3..=CALLS * 2 / 3).contains(&third),
        "of {CALLS} calls v3 got {third}"
    );
    world.apply("reviews-v3.yaml")?;
    world.shows(&["v3"], NOBODY)?;
    world.delete(&["reviews-v3.yaml", "subsets.yaml"])?;
    world.plain()?;
    Ok(format!("of {CALLS} calls v3 got {third}; then all"))
}

/// v1 answers, and v3 gets a copy of each call.
fn mirroring(world: &World<'_>) -> Result<String> {
    const CALLS: u64 = 50;
    world.apply("subsets.yaml")?;
    world.apply("reviews-v1.yaml")?;
    world.shows(&["v1"], NOBODY)?;
    let before = world.taken("reviews-v3")?;
    world.apply("reviews-mirror.yaml")?;
    let started = Instant::now();
    while world.taken("reviews-v3")? == before {
        ensure!(started.elapsed() < PATIENCE, "v3 gets no copies");
        world.product(NOBODY)?;
        std::thread::sleep(POLL);
    }
    // By now every node knows of it.
    world.shows(&["v1"], NOBODY)?;
    let before = world.taken("reviews-v3")?;
    for _ in 0..CALLS {
        let version = world.product(NOBODY)?.version();
        ensure!(version == "v1", "{version} answered");
    }
    let started = Instant::now();
    let copies = loop {
        let copies = world.taken("reviews-v3")? - before;
        if copies >= CALLS {
            break copies;
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "of {CALLS} calls v3 got {copies} copies"
        );
        std::thread::sleep(POLL);
    };
    world.delete(&["reviews-mirror.yaml", "subsets.yaml"])?;
    world.plain()?;
    Ok(format!(
        "of {CALLS} calls v1 answered all, and v3 got {copies} copies"
    ))
}

/// More calls than an endpoint may have at once are refused, and those that it has are answered.
fn breaking(world: &World<'_>) -> Result<String> {
    world.apply("details-route.yaml")?;
    world
        .cluster
        .wait_for_answer("details.localhost", "/details/0")?;
    let url = world.cluster.url("details.localhost", "/details/0");
    let load = || {
        let arguments = ["--method", "GET", "--connections", "32", "--seconds", "3"];
        world.cluster.load(&url, &arguments)?.finish()
    };
    let count = |said: &Value, status: &str| said["statuses"][status].as_u64().unwrap_or(0);
    let free = load()?;
    ensure!(
        count(&free, "503") == 0,
        "refused without a rule: {}",
        free["statuses"]
    );
    world.apply("details-breaker.yaml")?;
    let started = Instant::now();
    let held = loop {
        let held = load()?;
        if count(&held, "503") > 0 {
            break held;
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "nobody is refused: {}",
            held["statuses"]
        );
    };
    let (answered, refused) = (count(&held, "200"), count(&held, "503"));
    ensure!(answered > 0, "nobody is answered: {}", held["statuses"]);
    world.delete(&["details-breaker.yaml", "details-route.yaml"])?;
    Ok(format!(
        "of 32 callers at once, {answered} calls were answered and {refused} refused with 503; without the rule none of {}",
        count(&free, "200")
    ))
}

/// Nobody may; then the page may be read; then the page may ask, and reviews may ask ratings.
fn authorization(world: &World<'_>) -> Result<String> {
    let page = || world.product(NOBODY);
    world.apply("allow-nothing.yaml")?;
    world.settle("nobody may read", page, |answer| {
        answer.status == 403 && answer.body.contains("RBAC: access denied")
    })?;
    world.apply("allow-page.yaml")?;
    world.settle("the page alone may be read", page, |answer| {
        let product = answer.product();
        product["details"]["status"] == 403 && product["reviews"]["status"] == 403
    })?;
    world.apply("allow-chain.yaml")?;
    world.settle("the page may ask", page, |answer| {
        let product = answer.product();
        let rating = &product["reviews"]["reviews"][0]["rating"];
        product["details"]["title"].is_string()
            && product["reviews"]["version"].is_string()
            && rating["error"].is_null()
    })?;
    world.delete(&["allow-chain.yaml", "allow-page.yaml", "allow-nothing.yaml"])?;
    world.plain()?;
    Ok("403 RBAC: access denied; then the page without its parts; then all of it".to_owned())
}

/// A token that is wrong is refused, one that is missing only where one is asked for.
fn jwt(world: &World<'_>) -> Result<String> {
    let bearer = |name: &str| -> Result<String> {
        let token = fs::read_to_string(World::file(name))?;
        Ok(format!("Authorization: Bearer {}\r\n", token.trim()))
    };
    let (plain, group1) = (bearer("token.jwt")?, bearer("token-group1.jwt")?);
    let wrong = "Authorization: Bearer invalid.token.here\r\n";
    let says = |what: &str, lines: &str, status: u16| {
        world.settle(
            what,
            || world.product(lines),
            |answer| answer.status == status,
        )
    };
    world.apply("jwt.yaml")?;
    says("a wrong token", wrong, 401)?;
    says("no token", NOBODY, 200)?;
    says("a right token", &plain, 200)?;
    world.apply("jwt-required.yaml")?;
    says("no token where one is asked for", NOBODY, 403)?;
    says("a token of no group", &plain, 403)?;
    says("a token of the group", &group1, 200)?;
    says("a wrong token where one is asked for", wrong, 401)?;
    world.delete(&["jwt-required.yaml", "jwt.yaml"])?;
    world.plain()?;
    Ok(
        "401 for a wrong token; 403 without one of the group where that is asked for; 200 with it"
            .to_owned(),
    )
}

/// A host outside is reached by whom that is granted, with the TLS that the client does not speak.
fn egress(world: &World<'_>) -> Result<String> {
    let dir = target().join(format!("bookinfo-outside-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let outside = Outside::start(&dir)?;
    world.apply("client.yaml")?;
    let url = format!("http://127.0.0.2:{}/", outside.port);
    let code = || world.client(&["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", &url]);
    let waits_for = |what: &str, is_it: &dyn Fn(&str) -> bool| -> Result<String> {
        let started = Instant::now();
        loop {
            let said = code()?;
            if is_it(said.trim()) {
                return Ok(said.trim().to_owned());
            }
            if started.elapsed() > PATIENCE * 2 {
                bail!("{what}: curl said {said:?}");
            }
            std::thread::sleep(POLL);
        }
    };
    // What is not granted does not leave the node: there is no answer, or one of the host's own.
    let before = waits_for("nothing is granted", &|said: &str| {
        said == "000" || said == "403"
    })?;
    let text = fs::read_to_string(World::file("egress.yaml"))?;
    let certificate = outside.certificate.trim().replace('\n', "\n    ");
    let text = text
        .replace("@PORT@", &outside.port.to_string())
        .replace("@CERTIFICATE@", &format!("|\n    {certificate}"));
    let granted = dir.join("egress.yaml");
    fs::write(&granted, text)?;
    world.cluster.apply_file(&granted)?;
    let after = waits_for("it is granted", &|said: &str| said == "200")?;
    progress::read(world.cluster.weft(["delete", "-f"]).arg(&granted))?;
    world.delete(&["client.yaml"])?;
    drop(outside);
    fs::remove_dir_all(&dir)?;
    Ok(format!(
        "curl {url} said {before} without a grant and {after} with one, from a server that speaks TLS alone"
    ))
}

/// A server outside of the cluster that speaks TLS alone.
struct Outside {
    process: Child,
    port: u16,
    certificate: String,
}

impl Outside {
    fn start(dir: &Path) -> Result<Self> {
        let (key, certificate) = (dir.join("key.pem"), dir.join("certificate.pem"));
        let mut make = Command::new("openssl");
        make.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=outside"])
        .args(["-addext", "subjectAltName=IP:127.0.0.2", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
        progress::read(&mut make).context("openssl, for a host that speaks TLS")?;
        let listener = std::net::TcpListener::bind(("127.0.0.2", 0))?;
        let port = listener.local_addr()?.port();
        drop(listener);
        let process = Command::new("openssl")
            .args([
                "s_server",
                "-quiet",
                "-www",
                "-accept",
                &format!("127.0.0.2:{port}"),
                "-key",
            ])
            .arg(&key)
            .arg("-cert")
            .arg(&certificate)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting openssl s_server")?;
        Ok(Self {
            process,
            port,
            certificate: fs::read_to_string(&certificate)?,
        })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One trace has all calls of a page, and no component knows of it.
fn tracing(world: &World<'_>) -> Result<String> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let lines = format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n");
    world.apply("subsets.yaml")?;
    world.apply("reviews-v3.yaml")?;
    world.shows(&["v3"], NOBODY)?;
    let arguments = [
        "mesh",
        "tap",
        "-n",
        NAMESPACE,
        "--reporter",
        "destination",
        "-o",
        "json",
    ];
    let mut tap = world.cluster.weft(arguments);
    let mut tap = tap
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("weft mesh tap")?;
    let output = tap.stdout.take().context("its output is piped")?;
    let reading = std::thread::spawn(move || {
        use std::io::BufRead as _;
        let mut seen = std::collections::BTreeSet::new();
        for line in std::io::BufReader::new(output)
            .lines()
            .map_while(Result::ok)
        {
            let call: Value = serde_json::from_str(&line).unwrap_or_default();
            if call["traceID"] == TRACE
                && let Some(name) = call["destination"]["workload"].as_str()
            {
                seen.insert(name.to_owned());
            }
            if seen.len() == 4 {
                break;
            }
        }
        seen
    });
    let started = Instant::now();
    while !reading.is_finished() && started.elapsed() < PATIENCE {
        world.product(&lines)?;
        std::thread::sleep(POLL);
    }
    // The reader ends with its pipe.
    let _ = tap.kill();
    let _ = tap.wait();
    let seen = reading.join().unwrap_or_default();
    world.delete(&["reviews-v3.yaml", "subsets.yaml"])?;
    world.plain()?;
    let expected = ["details-v1", "productpage-v1", "ratings-v1", "reviews-v3"];
    ensure!(
        seen.iter().eq(expected.iter()),
        "the trace {TRACE} was seen at {seen:?}"
    );
    Ok(format!("trace {TRACE} was seen at {}", expected.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_chosen_by_their_names() {
        assert_eq!(chosen(&[]).expect("all").len(), TASKS.len());
        let two = ["jwt".to_owned(), "routing".to_owned()];
        let names: Vec<&str> = chosen(&two)
            .expect("two")
            .iter()
            .map(|task| task.0)
            .collect();
        assert_eq!(names, ["routing", "jwt"]);
        let error = chosen(&["none".to_owned()]).expect_err("there is none");
        assert!(
            error
                .to_string()
                .starts_with("there is no task none; there are routing")
        );
    }
}
