//! Processes beside a cluster's: what the system says of one, and one that ends with whoever started it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::progress;

/// A number of `/proc/PID/status`, as `VmRSS:`; memory is in KiB there. `None` where the process has ended.
pub fn status_number(process: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Resident memory now, and at most since it began.
pub fn memory(process: u32) -> Value {
    let bytes = |name: &str| status_number(process, name).map(|kib| kib << 10);
    json!({"resident_bytes": bytes("VmRSS:"), "peak_bytes": bytes("VmHWM:")})
}

/// A process that ends with this.
pub struct Ended(Child);

impl Ended {
    /// Starts it with its output in a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        progress::clean_environment(command);
        let log = File::create(log)?;
        let program = command.get_program().to_owned();
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Self(process))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
