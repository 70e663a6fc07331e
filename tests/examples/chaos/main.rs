//! `cargo xtask chaos`: three real servers under kill -9, SIGSTOP and partitions, and a judge of what clients saw.
//!
//! A cycle is a fault, a moment, the repair, and the wait until every server accepts writes again. The seed decides the
//! faults, their order and what the clients ask for; processes and time do the rest, so a seed does not repeat a history. What
//! was seen is judged after the end, by revisions ([`check`]) and by a search for an order of each object's answers ([`search`]).
//! Ctrl-C ends it early: what was seen until then is judged and printed, and servers and network are taken down; a second one
//! takes them down without that.

mod check;
mod client;
mod fault;
mod history;
mod network;
// The store's own simulation judges by it, too.
#[path = "../../../store/src/sim/register.rs"]
mod register;
mod results;
mod search;
mod servers;
mod watcher;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_tests::cluster::repository;

use self::client::{Campaign, Client, KEYS};
use self::fault::Plan;
use self::history::{Ask, History, Operation, Told};
use self::network::Network;
use self::results::{Cycle, Results};
use self::servers::Servers;
use self::watcher::Watcher;

#[derive(Parser)]
#[command(
    name = "cargo xtask chaos",
    about = "Three real servers under faults, and whether they lost or mixed up anything"
)]
struct Args {
    /// How long faults are made
    #[arg(long, default_value_t = 2.0, value_name = "N", value_parser = minutes)]
    minutes: f64,
    /// Decides the faults and what clients ask for [default: a new one each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Print the results as one JSON document
    #[arg(short, long)]
    output: Option<Output>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// The history of a day is more than a machine's memory holds.
const MINUTES_MAX: f64 = 1440.0;

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if minutes > 0.0 && minutes <= MINUTES_MAX => Ok(minutes),
        _ => Err(format!(
            "a number of minutes above 0, at most {MINUTES_MAX}"
        )),
    }
}

const SERVERS: u8 = 3;
/// Two for each server: one that waits for an answer is not the only one to ask.
const CLIENTS: usize = 6;
const WATCHERS: usize = 3;
/// Between the repair and the next fault, so that followers take part again.
const SETTLE: Duration = Duration::from_millis(700);
/// Far beyond what an election and a server's start take: a cluster that does not come back by itself.
const AGAIN_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// After the last question: what was under way takes effect by then, or never.
const QUIET: Duration = Duration::from_secs(5);
/// A campaign with fewer acknowledged writes in a cycle, on average, proves nothing.
const ACKNOWLEDGED_MIN: usize = 5;

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args
        .seed
        // Short enough to be typed.
        .unwrap_or_else(|| u64::from(rand::rng().random::<u32>()));
    let results = tokio::runtime::Runtime::new()
        .context("cannot start a runtime")
        .and_then(|runtime| runtime.block_on(interruptible(&args, seed)));
    match results {
        Ok(results) => {
            match args.output {
                Some(Output::Json) => println!("{}", results.document()),
                None => print!("{}", results.table()),
            }
            if results.violations.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error:#} (seed {seed})");
            ExitCode::FAILURE
        }
    }
}

/// A campaign; the second interrupt drops it where it is, and its servers and network with it.
async fn interruptible(args: &Args, seed: u64) -> anyhow::Result<Results> {
    let (mut interrupts, mut ends) = (
        signal(SignalKind::interrupt()).context("listening for Ctrl-C")?,
        signal(SignalKind::terminate()).context("listening for SIGTERM")?,
    );
    let interrupted = CancellationToken::new();
    let twice = async {
        for _ in 0..2 {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = ends.recv() => {}
            }
            interrupted.cancel();
        }
    };
    tokio::select! {
        biased;
        () = twice => bail!("interrupted twice: nothing was judged"),
        results = campaign(args, seed, &interrupted) => results,
    }
}

async fn campaign(
    args: &Args,
    seed: u64,
    interrupted: &CancellationToken,
) -> anyhow::Result<Results> {
    // The one provider of this process: nobody else can have installed another.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let network = Network::cut_off(SERVERS).unwrap_or_else(|error| {
        eprintln!("servers cannot be cut off from each other, so none will be: {error:#}");
        eprintln!("  try: as root, with the packages iproute2 and nftables");
        Network::loopback(SERVERS)
    });
    let cuts = network.cuts();
    let dir = tempfile::tempdir().context("cannot make a folder for the servers")?;
    eprintln!("seed {seed}: starting {SERVERS} servers");
    let mut servers = Servers::start(dir.path(), network, usize::from(SERVERS)).await?;
    let begun = Instant::now();
    let lasts = Duration::from_secs_f64(args.minutes * 60.0);
    let observed = observe(&mut servers, seed, lasts, interrupted).await;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    drop(servers);
    let (history, cycles, mut violations) = match observed {
        Ok(observed) => observed,
        Err(error) => return Err(error.context(kept(dir))),
    };
    eprintln!("judging {} operations", history.operations.len());
    violations.extend(check::violations(&history));
    let (unexplained, searched) = search::violations(&history);
    violations.extend(unexplained);
    let results = Results::new(seed, minutes, cuts, &cycles, &history, violations, searched);
    if !results.violations.is_empty() {
        eprintln!("{}", kept(dir));
    }
    if interrupted.is_cancelled() {
        eprintln!("interrupted after {minutes:.1} minutes: not written down");
        return Ok(results);
    }
    if results.acknowledged < ACKNOWLEDGED_MIN * results.cycles.max(1) {
        bail!(
            "only {} writes were acknowledged in {} cycles, which proves nothing",
            results.acknowledged,
            results.cycles
        );
    }
    results.record(&repository())?;
    Ok(results)
}

/// Keeps the servers' folders and logs for whoever looks into a failure.
fn kept(dir: tempfile::TempDir) -> String {
    let path: PathBuf = dir.keep();
    format!("the servers' folders and logs are in {}", path.display())
}

type Observed = (History, Vec<Cycle>, Vec<String>);

/// Lets clients and watchers work while faults happen, and gathers what they saw.
async fn observe(
    servers: &mut Servers,
    seed: u64,
    lasts: Duration,
    interrupted: &CancellationToken,
) -> anyhow::Result<Observed> {
    let mut rng = StdRng::seed_from_u64(seed);
    let count = servers.clients.len();
    let campaign = Campaign::new(count);
    let mut first = Client::new(&campaign, servers.client(0).await?, 0, rng.random());
    let listed = first.ask(Ask::List).await?;
    let Told::Listed(begin, _) = listed.told else {
        bail!("the first list was not answered: {listed:?}");
    };

    let mut clients = JoinSet::new();
    for index in 0..CLIENTS {
        let server = index % count;
        let client = servers.client(server).await?;
        let client = Client::new(&campaign, client, server, rng.random());
        clients.spawn(client.run());
    }
    let end = Arc::new(AtomicU64::new(0));
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let watcher = Watcher::new(&campaign, &servers.clients, &end, rng.random());
        watchers.spawn(watcher.run(begin));
    }

    let (cycles, violations) = strike(servers, &campaign, &mut rng, lasts, interrupted).await?;

    campaign.stop.store(true, Ordering::Relaxed);
    let mut operations: Vec<Operation> = vec![listed];
    while let Some(done) = clients.join_next().await {
        operations.extend(done.context("a client")??);
    }
    tokio::time::sleep(QUIET).await;
    // One more write, by which every watcher knows that it was told everything.
    let value = campaign.value();
    let last = first.ask(Ask::Create { key: KEYS, value }).await?;
    if let Told::Written(revision) = last.told {
        end.store(revision, Ordering::Relaxed);
    }
    operations.push(last);
    let listed = first.ask(Ask::List).await?;
    let Told::Listed(revision, seen) = &listed.told else {
        bail!("the last list was not answered: {listed:?}");
    };
    let last = (*revision, seen.clone());
    operations.push(listed);
    let mut watches = Vec::new();
    while let Some(done) = watchers.join_next().await {
        watches.extend(done.context("a watcher")??);
    }
    let history = History {
        operations,
        watches,
        last,
    };
    Ok((history, cycles, violations))
}

/// One cycle after the other, until the time is over, somebody interrupts, or the servers do not come back.
async fn strike(
    servers: &mut Servers,
    campaign: &Campaign,
    rng: &mut StdRng,
    lasts: Duration,
    interrupted: &CancellationToken,
) -> anyhow::Result<(Vec<Cycle>, Vec<String>)> {
    let count = servers.clients.len();
    let mut plan = Plan::new(servers.network.cuts());
    let mut cycles = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < lasts && !interrupted.is_cancelled() {
        let leader = servers.leader().await?;
        let fault = plan.next(leader, count, rng);
        servers.strike(&fault)?;
        // A write that was asked for before the last of them was hit tells nothing.
        let struck = campaign.now();
        tokio::time::sleep(fault.hold).await;
        servers.heal(&fault)?;
        let healed = campaign.now();
        let kind = fault.kind;
        cycles.push(Cycle { kind, struck });
        let deadline = Instant::now() + AGAIN_MAX;
        while let Some(silent) = campaign.silent_since(healed) {
            if Instant::now() > deadline {
                let problem = format!(
                    "server {} accepts no writes {} s after the repair of: {}",
                    silent + 1,
                    AGAIN_MAX.as_secs(),
                    kind.name()
                );
                return Ok((cycles, vec![problem]));
            }
            tokio::time::sleep(LOOK).await;
        }
        let whole = Duration::from_nanos(campaign.now() - healed);
        eprintln!(
            "{:>5} s  cycle {}: {} (server {}) for {:.1} s, all servers accept writes {:.2} s later",
            begun.elapsed().as_secs(),
            cycles.len(),
            kind.name(),
            fault.server + 1,
            fault.hold.as_secs_f64(),
            whole.as_secs_f64()
        );
        tokio::select! {
            biased;
            () = interrupted.cancelled() => {
                eprintln!("interrupted: judging what was seen until now");
            }
            () = tokio::time::sleep(SETTLE) => {}
        }
    }
    Ok((cycles, Vec::new()))
}
