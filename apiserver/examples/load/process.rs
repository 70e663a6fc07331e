//! The server as a process of its own: started, or found running, asked what it uses, and ended.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{self, Command, Stdio};

use serde_json::Value;

use crate::Error;

/// Clock ticks of `/proc/PID/stat` in a second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

pub struct Measured {
    /// `None` for one that somebody else started, and ends.
    process: Option<process::Child>,
    pid: u32,
    /// Other processes that it cannot do without: kube-apiserver's etcd.
    beside: Vec<u32>,
    pub port: u16,
}

pub struct Memory {
    pub resident: u64,
    pub peak: u64,
}

impl Measured {
    /// One that runs already, with others beside it.
    pub fn found(pid: u32, beside: Vec<u32>, port: u16) -> Self {
        Self {
            process: None,
            pid,
            beside,
            port,
        }
    }

    pub fn start(dir: &Path) -> Result<Self, Error> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["serve", "--dir"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = process.stdout.take().ok_or("its output is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line)?;
        let port = told["port"].as_u64().ok_or("the server told no port")?;
        Ok(Self {
            pid: process.id(),
            beside: Vec::new(),
            process: Some(process),
            port: u16::try_from(port)?,
        })
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.pid)
    }

    pub fn memory(&self) -> Result<Memory, Error> {
        memory(self.pid)
    }

    /// Lets the peak begin anew.
    pub fn forget_peak(&self) -> Result<(), Error> {
        Ok(std::fs::write(self.proc("clear_refs"), "5")?)
    }

    /// Seconds of processors used so far, by all of its processes.
    pub fn cpu(&self) -> Result<f64, Error> {
        let all = std::iter::once(&self.pid).chain(&self.beside);
        all.map(|pid| used(&pid.to_string())).sum()
    }

    /// What those beside it have in memory.
    pub fn resident_beside(&self) -> Result<u64, Error> {
        let all = self.beside.iter();
        all.map(|pid| Ok(memory(*pid)?.resident)).sum()
    }

    /// Ends it by closing its input, and waits.
    pub fn stop(mut self) -> Result<(), Error> {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            process.wait()?;
        }
        Ok(())
    }
}

/// Seconds of processors that this process, which is all clients, used so far.
pub fn own_cpu() -> Result<f64, Error> {
    used("self")
}

fn used(pid: &str) -> Result<f64, Error> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may have blanks.
    let rest = stat.rsplit(')').next().unwrap_or("");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    let (user, system) = (ticks(11), ticks(12));
    Ok((user.ok_or("no utime")? + system.ok_or("no stime")?) / TICKS_PER_SECOND)
}

fn memory(pid: u32) -> Result<Memory, Error> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    Ok(Memory {
        resident: field("VmRSS:").ok_or("no VmRSS")?,
        peak: field("VmHWM:").ok_or("no VmHWM")?,
    })
}

impl Drop for Measured {
    fn drop(&mut self) {
        // Where a run failed: it has nothing to lose.
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
