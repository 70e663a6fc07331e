//! `weft exec`: run a command in a container.

use super::attach;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    inside: attach::Args,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// # Errors
/// When it did not run, and with its exit code when that is not 0.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let cannot = format!("cannot run the command in {}", args.inside.pod());
    args.inside.session(Some(&args.command), &cannot).await
}
