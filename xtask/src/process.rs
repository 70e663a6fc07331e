//! What the system says of a running process.

use std::fs;

use serde_json::{Value, json};

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
