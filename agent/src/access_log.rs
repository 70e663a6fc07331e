//! The access log of a node: a line a call at each of its ends, as JSON or as text, in `access.log` of the node's folder.
//!
//! Off unless `WEFT_ACCESS_LOG` says otherwise: `json` or `text`, and behind a colon, if not all are meant, namespaces and workloads, as
//! `json:shop,bank/pay`. Lines are those that taps have, with Envoy's response flags.
//!
//! Invariants: nobody who calls waits for the disk: what it does not take in time is dropped, and a line says how much; the file and the one
//! before it take [`FILE_BYTES_MAX`] each; they are readable by the node's user alone. No header, body or query is in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weft_mesh::{Interest, Mesh, Reporter, Sighting, Sightings};

use crate::tap::Line;

/// Bytes after which a file is the old one.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Calls that wait for the disk.
const QUEUE: usize = 8192;
/// How long the first call waits for others that are written with it: all that there is room for, so that none is lost to the pause.
const BATCH_TIME: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Text,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    form: Form,
    /// Namespaces, and workloads in them; all where there is none.
    only: Vec<(String, Option<String>)>,
}

/// Why a setting is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no setting of the access log; write it as json, text or json:NAMESPACE,NAMESPACE/WORKLOAD"
)]
pub struct AccessLogError(String);

impl FromStr for AccessLog {
    type Err = AccessLogError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || AccessLogError(text.to_owned());
        let (form, only) = text.split_once(':').unwrap_or((text, ""));
        let form = match form {
            "json" => Form::Json,
            "text" => Form::Text,
            _ => return Err(wrong()),
        };
        let only = only.split(',').filter(|one| !one.is_empty());
        let only = only.map(|one| match one.split_once('/') {
            None => (one.to_owned(), None),
            Some((namespace, workload)) => (namespace.to_owned(), Some(workload.to_owned())),
        });
        Ok(Self {
            form,
            only: only.collect(),
        })
    }
}

impl AccessLog {
    fn takes(&self, call: &Sighting) -> bool {
        let own = match call.reporter() {
            Reporter::Source => call.source(),
            Reporter::Destination => call.destination(),
        };
        self.only.is_empty()
            || self.only.iter().any(|(namespace, workload)| {
                own.namespace == *namespace
                    && workload
                        .as_ref()
                        .is_none_or(|workload| own.name == *workload)
            })
    }

    fn line(&self, call: &Sighting, node: &str) -> String {
        match self.form {
            Form::Json => Line::of(call, node).to_json(),
            Form::Text => Line::of(call, node).to_text(),
        }
    }

    /// Writes until `stop`.
    pub async fn run(self, mesh: Mesh, folder: PathBuf, stop: CancellationToken) {
        let Some(mut calls) = mesh.watch_calls(Interest::default(), QUEUE) else {
            tracing::error!("calls are watched by as many as may already; there is no access log");
            return;
        };
        let mut file = match Rotated::open(folder.join("access.log")) {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%error, folder = %folder.display(), "there is no access log");
                return;
            }
        };
        let mut batch = Vec::new();
        loop {
            let gathered = stop.run_until_cancelled(gather(&mut calls, &mut batch));
            let is_over = gathered.await.is_none();
            let rest = std::iter::from_fn(|| calls.try_next());
            batch.extend(rest.take(QUEUE));
            let mut lines = String::new();
            for call in batch.drain(..).filter(|call| self.takes(call)) {
                lines.push_str(&self.line(&call, mesh.node()));
                lines.push('\n');
            }
            let lost = calls.take_lost();
            if lost > 0 {
                lines.push_str(&match self.form {
                    Form::Json => format!("{{\"lost\":{lost}}}\n"),
                    Form::Text => format!("{lost} calls were lost, as the disk was too slow\n"),
                });
            }
            let written = tokio::task::spawn_blocking(move || {
                let written = file.write(lines.as_bytes());
                (file, written)
            });
            match written.await {
                Ok((returned, Ok(()))) => file = returned,
                Ok((returned, Err(error))) => {
                    tracing::warn!(%error, "lines of the access log are lost");
                    file = returned;
                }
                Err(error) => {
                    tracing::error!(%error, "the access log ends");
                    return;
                }
            }
            if is_over {
                return;
            }
        }
    }
}

/// Waits for a call, and for a moment more for others.
async fn gather(calls: &mut Sightings, batch: &mut Vec<Arc<Sighting>>) {
    batch.push(calls.next().await);
    tokio::time::sleep(BATCH_TIME).await;
}

/// A file, and the one before it.
struct Rotated {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Rotated {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let more = lines.len() as u64;
        if self.bytes > 0 && self.bytes + more > FILE_BYTES_MAX {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = open(&self.path)?;
            self.bytes = 0;
        }
        self.file.write_all(lines)?;
        self.bytes += more;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_is_said_in_one_word() {
        for (text, form, only) in [
            ("json", Form::Json, &[][..]),
            ("text", Form::Text, &[]),
            (
                "json:shop,bank/pay",
                Form::Json,
                &[("shop", None), ("bank", Some("pay"))],
            ),
        ] {
            let only = only.iter();
            let only = only.map(|(namespace, workload)| {
                ((*namespace).to_owned(), workload.map(str::to_owned))
            });
            let expected = AccessLog {
                form,
                only: only.collect(),
            };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        let wrong = "yes"
            .parse::<AccessLog>()
            .map_err(|error| error.to_string());
        assert_eq!(
            wrong,
            Err("\"yes\" is no setting of the access log; write it as json, text or json:NAMESPACE,NAMESPACE/WORKLOAD".to_owned())
        );
    }

    #[test]
    fn a_file_that_is_full_makes_way_for_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let mut file = Rotated::open(path.clone()).expect("a file");
        file.write(b"one\n").expect("written");
        file.bytes = FILE_BYTES_MAX;
        file.write(b"two\n").expect("written");
        file.write(b"three\n").expect("written");
        let read = |path: PathBuf| std::fs::read_to_string(path).expect("a file");
        assert_eq!(read(path.clone()), "two\nthree\n");
        assert_eq!(read(folder.path().join("access.log.1")), "one\n");
        // It is gone on with after a restart.
        let mut file = Rotated::open(path.clone()).expect("a file");
        assert_eq!(file.bytes, 10);
        file.write(b"four\n").expect("written");
        assert_eq!(read(path), "two\nthree\nfour\n");
    }
}
