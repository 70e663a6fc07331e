//! `tee`: standard input to standard output and files.

use std::fs::OpenOptions;
use std::io::Write;

use super::call::{Call, Ended, cannot_open, reason};
use super::flags::Usage;

const USAGE: Usage =
    Usage::new("tee [-ai] [FILE]...", "ai").long(&[("append", 'a'), ("ignore-interrupts", 'i')]);

pub async fn tee(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let mut files = Vec::new();
    for name in &flags.rest {
        let append = flags.has('a');
        let opened = OpenOptions::new()
            .create(true)
            .append(append)
            .write(true)
            .truncate(!append)
            .open(call.path(name));
        match opened {
            Ok(file) => files.push((name.clone(), Some(file))),
            Err(error) => call.fault(cannot_open(name, &error)).await,
        }
    }
    let mut input = call.io.stdin.clone();
    let mut broken = None;
    while let Some(chunk) = call.chunk(&mut input, "").await {
        if broken.is_none()
            && let Err(stop) = call.out(&chunk).await
        {
            broken = Some(stop);
        }
        let mut faults = Vec::new();
        for (name, slot) in &mut files {
            if let Some(file) = slot
                && let Err(error) = file.write_all(&chunk)
            {
                faults.push(format!("{name}: {}", reason(&error)));
                *slot = None;
            }
        }
        for fault in faults {
            call.fault(fault).await;
        }
        // Nobody takes it any more.
        if broken.is_some() && files.iter().all(|(_, file)| file.is_none()) {
            break;
        }
    }
    broken.map_or(Ok(call.code), Err)
}
