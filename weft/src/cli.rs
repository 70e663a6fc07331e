//! The command line: which command, with which arguments, on which runtime.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands;
use crate::{data_dir, exit, telemetry};

#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    about = "Runs WebAssembly components with Kubernetes' API and a mesh in the host",
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster on this machine: a server and its nodes
    Up(commands::up::Args),
    /// Run a server (API, store, scheduler and controllers), or look after the servers of a cluster
    Server(commands::server::Args),
    /// Run a node that joins a cluster and runs its pods
    Node(commands::node::Args),
    /// Create or change the objects in manifests
    Apply(commands::apply::Args),
    /// Show objects
    Get(commands::get::Args),
    /// Show what each node has against a pod
    Why(commands::why::Args),
    /// Show what the mesh knows of itself and of the calls that it carries
    Mesh(commands::mesh::Args),
    /// Show what a pod printed
    Logs(commands::logs::Args),
    /// Run a command in a container
    Exec(commands::exec::Args),
    /// Look at what runs in a container, and speak to it
    Attach(commands::attach::Args),
    /// Copy files to or from a container
    Cp(commands::cp::Args),
    /// Add a container with tools to a pod that runs, and open a shell in it
    Debug(commands::debug::Args),
    /// Forward ports of this machine to a pod
    PortForward(commands::port_forward::Args),
    /// Delete objects
    Delete(commands::delete::Args),
    /// Bring an image out by the steps of its Rollout, and follow it to the end
    Canary(commands::canary::Args),
    /// Show how far a Rollout is; promote, abort, retry, pause or undo it
    Rollout(commands::rollout::Args),
    /// Lead the callers of a Service to several Services, by shares
    Split(commands::split::Args),
    /// Spoil calls of a Service on purpose, for a time
    Fault(commands::fault::Args),
    /// Put a component into the cluster's registry
    Push(commands::push::Args),
    /// Show what is in the cluster's registry, or remove images from it
    Images(commands::images::Args),
    /// Run an application that shows what there is, which is in this program
    Demo(commands::demo::Args),
    /// Print a link that signs a browser in to the dashboard
    Dash(commands::dash::Args),
    /// Print the kubeconfig of the cluster on this machine
    Kubeconfig(commands::kubeconfig::Args),
    /// Compile a component for this machine, from stdin to stdout
    #[command(hide = true)]
    Compile,
    /// Host the guests of one namespace; started by a node
    #[command(hide = true)]
    Worker(commands::worker::Args),
    /// Send HTTP requests as fast as they are answered, and measure
    #[command(hide = true)]
    Load(commands::load::Args),
}

/// Parses the arguments, runs the command, reports its error.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Compile) {
        // First thing: its limits hold for threads that do not exist yet.
        return weft_runtime::compile_main(weft_runtime::CompileLimits::default());
    }
    if let Command::Worker(args) = cli.command {
        // Likewise: what it closes and gives up holds for threads that do not exist yet.
        return commands::worker::run(&args);
    }
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(exit::report(&error)),
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(args) => {
            data_dir::keep_private();
            telemetry::init(false);
            control(commands::up::run(args))
        }
        Command::Server(args) => {
            if let Some(json) = args.serves() {
                data_dir::keep_private();
                telemetry::init(json);
            }
            control(commands::server::run(args))
        }
        Command::Node(args) => {
            data_dir::keep_private();
            telemetry::init(args.log_json);
            control(commands::node::run(args))
        }
        Command::Apply(args) => control(commands::apply::run(args)),
        Command::Get(args) => control(commands::get::run(args)),
        Command::Why(args) => control(commands::why::run(args)),
        Command::Mesh(args) => control(commands::mesh::run(args)),
        Command::Logs(args) => control(commands::logs::run(args)),
        Command::Exec(args) => control(commands::exec::run(args)),
        Command::Attach(args) => control(commands::attach::run(args)),
        Command::Cp(args) => control(commands::cp::run(args)),
        Command::Debug(args) => control(commands::debug::run(args)),
        Command::PortForward(args) => control(commands::port_forward::run(args)),
        Command::Delete(args) => control(commands::delete::run(args)),
        Command::Canary(args) => control(commands::canary::run(args)),
        Command::Rollout(args) => control(commands::rollout::run(args)),
        Command::Split(args) => control(commands::split::run(args)),
        Command::Fault(args) => control(commands::fault::run(args)),
        Command::Push(args) => control(commands::push::run(args)),
        Command::Images(args) => control(commands::images::run(args)),
        Command::Demo(args) => control(commands::demo::run(args)),
        Command::Dash(args) => control(commands::dash::run(args)),
        Command::Kubeconfig(args) => commands::kubeconfig::run(args),
        Command::Load(args) => control(commands::load::run(args)),
        Command::Compile | Command::Worker(_) => Ok(()),
    }
}

/// Threads for control work. It waits far more than it computes, and guests have their own cores.
const CONTROL_THREADS: usize = 2;
/// After how many steps of tasks a busy thread looks for what came in from the network, instead of 61: beside long lists a step is a
/// tenth of a millisecond or two, and what a node's lease waits for is among the news.
const CONTROL_EVENT_INTERVAL: u32 = 7;

fn control(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // Both aws-lc-rs and ring may be compiled in by a library; ours is aws-lc-rs, whatever comes first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .event_interval(CONTROL_EVENT_INTERVAL)
        .thread_name("control")
        .enable_all()
        .build()?;
    let result = runtime.block_on(work);
    // Every task that matters was joined by its owner; what is left are reads that never end.
    runtime.shutdown_background();
    result
}
