//! `cargo xtask chaos`: real servers under faults, by the example `chaos` of the tests.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::progress::{self, Steps};
use crate::{Failure, interrupts, target};

#[derive(clap::Args)]
pub struct Args {
    /// --minutes N, --seed S, --output json
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let mut steps = Steps::new(2);
    steps.step("build", || {
        progress::run(
            &mut progress::cargo(["build", "--workspace", "--bins", "--examples"]),
            "read the compiler's messages above",
        )
    })?;
    // Interrupted, it judges what it saw, and takes servers and network down.
    interrupts::watch()?;
    steps.step("campaign", || {
        let mut command = Command::new(target().join("debug/examples/chaos"));
        progress::clean_environment(&mut command);
        let mut campaign = command
            .args(&args.arguments)
            .stdin(Stdio::null())
            // A Ctrl-C of the terminal reaches it once, from here: the second one means at once.
            .process_group(0)
            .spawn()
            .context("cannot start the campaign")?;
        interrupts::reach(campaign.id());
        let status = campaign.wait().context("waiting for the campaign");
        interrupts::forget(campaign.id());
        let status = status?;
        if status.success() {
            return Ok(());
        }
        let next = "read what was found above; the seed repeats the order of faults";
        Err(Failure::new(format!("the campaign failed ({status})"), next).into())
    })
}
