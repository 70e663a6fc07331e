//! One run of a container: from a prepared one that is started to its end.
//!
//! ```text
//! Prepared ──launch──► Running: attached to the mesh, or a command on a core; probes
//!                         ├──stop───► its hook, out of the mesh, what is in flight has the grace to end, stopped ──► Exited
//!                         └──cut_off  at once, nobody is told
//! ```
//!
//! Invariants: a served container is attached at each of its ports before [`launch`] returns, and detached before it is
//! stopped; whatever ends a run says so once, with the run's number.
//!
//! Left to others: when runs begin and end (`plan`), what was prepared (`prepare`), the words (`exit`).

use crate::bridge::{self, Siblings};
use crate::context::Context;
use crate::exit;
use crate::grants;
use crate::guest::Guest;
use crate::hooks::{self, Hook};
use crate::host_ports;
use crate::identity::Claim;
use crate::last_words::LastWords;
use crate::logs;
use crate::mailbox::{Mailbox, Message};
use crate::node::Node;
use crate::pod_state::StopReason;
use crate::pod_view::PodView;
use crate::prepare::{Prepared, workload_info};
use crate::probes;
use crate::registry;
use crate::translate::World;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weft_mesh::{Detached, LocalWorkload, PodAddress};
use weft_runtime::{Network, Stdin, Usage};

/// What a container has at least for its end when its hook has taken all of the grace; as the kubelet.
const GRACE_AFTER_HOOK: Duration = Duration::from_secs(2);

/// Where the containers of one pod live, as long as it does.
pub(crate) struct Home {
    pub(crate) node: Arc<Node>,
    pub(crate) siblings: Siblings,
    pub(crate) mailbox: Mailbox,
    pub(crate) tasks: TaskTracker,
}

/// What a worker holds for a container.
#[derive(Default)]
pub(crate) struct Slot {
    /// Counts runs, so that late messages are recognised.
    run: u64,
    preparing: Option<CancellationToken>,
    running: Option<Running>,
    /// What the runs before have used.
    spent: Option<Box<Usage>>,
}

impl Slot {
    /// A next run; what prepares it ends when the token says so.
    pub(crate) fn begin(&mut self) -> (u64, CancellationToken) {
        self.run += 1;
        let preparing = CancellationToken::new();
        self.preparing = Some(preparing.clone());
        (self.run, preparing)
    }

    /// The number of the run.
    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    pub(crate) fn is_current(&self, run: u64) -> bool {
        self.run == run
    }

    pub(crate) fn prepared(&mut self) {
        self.preparing = None;
    }

    pub(crate) fn started(&mut self, running: Running) {
        self.running = Some(running);
    }

    /// Ends the preparations, if there are any.
    pub(crate) fn cancel(&mut self) {
        if let Some(preparing) = self.preparing.take() {
            preparing.cancel();
        }
    }

    pub(crate) fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    pub(crate) fn workload(&self) -> Option<Guest> {
        Some(self.running.as_ref()?.workload.clone())
    }

    /// What commands in it share with it, while it runs.
    pub(crate) fn context(&self) -> Option<Arc<Context>> {
        Some(self.running.as_ref()?.context.clone())
    }

    /// Says when the run is over.
    pub(crate) fn stopped(&self) -> CancellationToken {
        let running = self.running.as_ref();
        running.map_or_else(CancellationToken::new, |running| running.probes.clone())
    }

    /// Begins with its probes, which wait until its first hook is done.
    pub(crate) fn begin_probes(&mut self, home: &Home, which: Which) {
        let Some(running) = &mut self.running else {
            return;
        };
        if let Some(waiting) = running.waiting.take() {
            let (specs, target) = *waiting;
            probe(home, which, specs, target, running.probes.clone());
        }
    }

    pub(crate) fn spent(&self) -> Option<Box<Usage>> {
        self.spent.clone()
    }

    /// The run has ended: out of the mesh, and its use on the account.
    pub(crate) fn ended(&mut self, home: &Home) {
        let Some(running) = self.running.take() else {
            return;
        };
        // Unless it was stopped from here, and is out of it already.
        if running.why.lock().is_none() {
            drop(running.detach(home));
        }
        running.probes.cancel();
        running.log.close();
        running.context.console.end();
        // A command that has ended takes with it what was executed in its container.
        let workload = running.workload.clone();
        home.tasks
            .spawn(async move { workload.stop(Duration::ZERO).await });
        let earlier = self.spent.take().unwrap_or_default();
        let mut spent = registry::add(running.workload.usage(), &earlier);
        // Gauges of a run that is over.
        (spent.memory_bytes, spent.instances) = (0, 0);
        (spent.in_flight, spent.queued) = (0, 0);
        self.spent = Some(Box::new(spent));
    }

    /// Ends whatever there is at once.
    pub(crate) async fn cut_off(&mut self, home: &Home) {
        self.cancel();
        if let Some(running) = self.running.take() {
            drop(running.detach(home));
            running.probes.cancel();
            running.log.close();
            running.context.console.end();
            running.workload.stop(Duration::ZERO).await;
        }
    }
}

/// A container that runs.
pub(crate) struct Running {
    workload: Guest,
    /// Where it is attached; nowhere if it is a command.
    addresses: Vec<PodAddress>,
    log: logs::Writer,
    why: Arc<Mutex<Option<StopReason>>>,
    probes: CancellationToken,
    /// Those that have not begun.
    waiting: Option<Box<(Vec<probes::Spec>, probes::Target)>>,
    context: Arc<Context>,
    pre_stop: Option<Hook>,
    last_words: LastWords,
    /// Of a command that cannot hear of a stop: where it may listen.
    deaf_in: Option<Network>,
    /// Keeps the certificate of its identity in the mesh.
    _claim: Claim,
    /// Keeps what its ServiceAccount is granted in force here.
    _grant: grants::Claim,
}

/// Which run of which container.
#[derive(Clone, Copy)]
pub(crate) struct Which {
    pub(crate) container: usize,
    pub(crate) run: u64,
}

impl Which {
    fn exited(self, exit: crate::pod_state::Exit) -> Message {
        Message::Exited {
            container: self.container,
            run: self.run,
            exit,
        }
    }
}

/// What a run is as others know it.
pub(crate) struct Launched {
    pub(crate) running: Running,
    pub(crate) serving: bool,
    /// To be carried out before it counts as running.
    pub(crate) post_start: Option<Hook>,
    pub(crate) image_id: String,
    pub(crate) container_id: String,
}

/// Starts a prepared container at `ip`; from here on it can be reached.
///
/// # Errors
/// A sentence when another container of the pod is at one of its ports.
pub(crate) fn launch(
    home: &Home,
    pod: PodView<'_>,
    ip: IpAddr,
    which: Which,
    mut prepared: Prepared,
) -> Result<Launched, String> {
    let serves = prepared.world == World::Http;
    let hears_stop = prepared.spec.config.stdin == Stdin::EndsAtStop;
    let mut ports = prepared.spec.ports.iter();
    if let Some(port) = ports.find(|port| serves && home.siblings.serves(**port)) {
        prepared.log.close();
        return Err(format!(
            "port {port} is served by another container of this pod; give this one a containerPort of its own"
        ));
    }
    let core = home.node.next_core.fetch_add(1, Ordering::Relaxed);
    let why = Arc::new(Mutex::new(None));
    let stop = CancellationToken::new();
    let addresses = match prepared.world {
        World::Http => {
            let addresses = attach(home, pod, ip, &prepared);
            watch(home, which, prepared.workload.clone(), stop.clone());
            addresses
        }
        World::Command => {
            run(home, which, core, &mut prepared, why.clone());
            Vec::new()
        }
    };
    let Prepared {
        spec,
        workload,
        context,
        last_words,
        network,
        probes,
        hooks,
        image_id,
        log,
        claim,
        grant,
        ..
    } = prepared;
    let deaf_in = network.clone().filter(|_| !hears_stop);
    // One that may listen is found through Services, too.
    let serving = serves || network.is_some();
    let waiting = (!probes.is_empty()).then(|| {
        let target = probes::Target {
            workload: serves.then(|| workload.clone()),
            ip,
            ports: spec.ports,
            network,
            cores: home.node.cores.clone(),
            core,
            context: Some((home.node.clone(), context.clone())),
            started: tokio::time::Instant::now(),
        };
        Box::new((probes, target))
    });
    Ok(Launched {
        serving,
        post_start: hooks.post_start,
        image_id,
        container_id: format!(
            "wasmtime://{:032x}{:032x}",
            rand::random::<u128>(),
            rand::random::<u128>()
        ),
        running: Running {
            workload,
            addresses,
            log,
            why,
            probes: stop,
            waiting,
            context,
            pre_stop: hooks.pre_stop,
            last_words,
            deaf_in,
            _claim: claim,
            _grant: grant,
        },
    })
}

/// Into the mesh, at each of its ports: they all lead to the one handler that a component has, and to the places that it has once.
fn attach(home: &Home, pod: PodView<'_>, ip: IpAddr, prepared: &Prepared) -> Vec<PodAddress> {
    let service = bridge::inbound(prepared.workload.clone(), prepared.failures.clone());
    let limits = prepared.workload.limits();
    let in_flight_max = limits.in_flight_max + limits.queued_max;
    let ports = prepared.spec.ports.iter();
    let mut addresses: Vec<PodAddress> = ports.map(|port| PodAddress { ip, port: *port }).collect();
    for address in &addresses {
        home.siblings.insert(*address);
    }
    // Others know it by where the node is.
    if let Some(ip) = host_ports::address(pod, home.node.facts.host_ip) {
        let declared = prepared.container.ports.iter().flatten();
        let declared = declared.filter_map(|port| u16::try_from(port.host_port?).ok());
        addresses.extend(declared.map(|port| PodAddress { ip, port }));
    }
    home.node.mesh.attach_at(
        &addresses,
        LocalWorkload {
            identity: prepared.identity.clone(),
            workload: workload_info(pod),
            service,
            in_flight_max,
        },
    );
    addresses
}

/// Runs a command, and tells how it ended.
fn run(
    home: &Home,
    which: Which,
    core: usize,
    prepared: &mut Prepared,
    why: Arc<Mutex<Option<StopReason>>>,
) {
    let (mailbox, log) = (home.mailbox.clone(), prepared.log.clone());
    let (workload, last_words) = (prepared.workload.clone(), prepared.last_words.clone());
    let stdio = std::mem::take(&mut prepared.stdio);
    let cores = &home.node.cores;
    let running = cores.spawn_on(core, async move { workload.run_with(stdio).await });
    home.tasks.spawn(async move {
        let exit = match running.await {
            Ok(exit) => {
                if let weft_runtime::Exit::Trap { message, backtrace } = &exit {
                    log.write_note(&format!(
                        "weft: the component trapped: {message}\n{backtrace}"
                    ));
                }
                let exit = exit::command(&exit, *why.lock());
                // What it printed last belongs to its last words.
                log.close();
                last_words.of(exit).await
            }
            Err(_) => exit::cut_off("the node shut down".into()),
        };
        mailbox.send(which.exited(exit)).await;
    });
}

/// Reports the end of a served container that shares the fate of its process; `stop` ends with its run.
fn watch(home: &Home, which: Which, guest: Guest, stop: CancellationToken) {
    if matches!(guest, Guest::Here(_)) {
        return;
    }
    let mailbox = home.mailbox.clone();
    home.tasks.spawn(async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            reason = guest.lost() => mailbox.send(which.exited(exit::lost(&reason))).await,
        }
    });
}

fn probe(
    home: &Home,
    which: Which,
    specs: Vec<probes::Spec>,
    target: probes::Target,
    stop: CancellationToken,
) {
    let mailbox = home.mailbox.clone();
    home.tasks.spawn(async move {
        let report = |report| {
            let mailbox = mailbox.clone();
            async move {
                let Which { container, run } = which;
                mailbox
                    .send(Message::Probed {
                        container,
                        run,
                        report,
                    })
                    .await;
            }
        };
        probes::run(specs, target, report, stop).await;
    });
}

impl Running {
    fn detach(&self, home: &Home) -> Vec<Detached> {
        self.detaching(home)()
    }

    /// Takes it out of the mesh when it is called.
    fn detaching(&self, home: &Home) -> impl FnOnce() -> Vec<Detached> + Send + use<> {
        let addresses = self.addresses.clone();
        let (siblings, node) = (home.siblings.clone(), home.node.clone());
        move || {
            addresses
                .into_iter()
                .map(|address| {
                    siblings.remove(address.port);
                    node.mesh.detach(address)
                })
                .collect()
        }
    }

    /// What it wants done before it is stopped.
    pub(crate) fn pre_stop(&self) -> Option<&Hook> {
        self.pre_stop.as_ref()
    }

    /// Has it end within `grace`; the mailbox hears when it has. `hook` is carried out first, while it still serves, and takes its time
    /// from the grace.
    pub(crate) fn stop(
        &self,
        home: &Home,
        which: Which,
        grace: Duration,
        reason: StopReason,
        hook: Option<PreStop>,
    ) {
        *self.why.lock() = Some(reason);
        let workload = self.workload.clone();
        let begun = tokio::time::Instant::now();
        let hooked = async move {
            match hook {
                Some(hook) if !grace.is_zero() => {
                    hook.run(grace).await;
                    // As the kubelet: whatever the hook took.
                    grace.saturating_sub(begun.elapsed()).max(GRACE_AFTER_HOOK)
                }
                _ => grace,
            }
        };
        if self.addresses.is_empty() {
            // A command: its own task reports the exit. One that serves for ever, and does not hear that it should end, is not waited for.
            let is_deaf = self.deaf_in.as_ref().is_some_and(Network::serves_any);
            home.tasks.spawn(async move {
                let left = hooked.await;
                let grace = if is_deaf { Duration::ZERO } else { left };
                workload.stop(grace).await;
            });
            return;
        }
        let detaching = self.detaching(home);
        let (mailbox, probes) = (home.mailbox.clone(), self.probes.clone());
        let (log, last_words) = (self.log.clone(), self.last_words.clone());
        home.tasks.spawn(async move {
            let grace = hooked.await;
            // Out of the mesh first: nothing new arrives, what is in flight has the grace to end.
            let detached = detaching();
            let begun = tokio::time::Instant::now();
            let drained = async {
                for detached in &detached {
                    detached.drained().await;
                }
            };
            // Elapsed: the rest is cut off by the stop below.
            let _ = tokio::time::timeout(grace, drained).await;
            workload.stop(grace.saturating_sub(begun.elapsed())).await;
            probes.cancel();
            log.close();
            let exit = last_words.of(exit::served(reason)).await;
            mailbox.send(which.exited(exit)).await;
        });
    }
}

/// A container's hook before its stop.
pub(crate) struct PreStop {
    pub(crate) hook: Hook,
    pub(crate) place: hooks::Place,
    /// Tells of a hook that failed.
    pub(crate) failed: Box<dyn FnOnce() + Send>,
}

impl PreStop {
    async fn run(self, grace: Duration) {
        let Self {
            hook,
            place,
            failed,
        } = self;
        // Elapsed: the stop does not wait for it.
        if let Ok(Err(error)) = tokio::time::timeout(grace, hook.run(&place)).await {
            tracing::debug!(%error, "a preStop hook failed");
            // Without what it said, which may be a secret.
            failed();
        }
    }
}
