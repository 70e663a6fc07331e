//! `weft server backup|restore`: everything the cluster keeps, as one file, and a new cluster from it.
//!
//! A backup has all objects, Secrets as ciphertext, and neither the authority nor the keys of the Secrets: these are in
//! `pki/` of each server's data folder.

use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use http_body_util::BodyExt as _;
use kube::client::Body;
use tokio::io::AsyncWriteExt as _;
use weft_store::BackupError;

use crate::exit::{Chain, Failure};
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::server::identity::{Identity, new_cluster_id, store_dir};
use crate::{data_dir, stdout};

#[derive(Debug, clap::Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The file to write; keep a copy of a server's `pki` folder with it, which has the keys
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The new server's data folder; put the old `pki` folder there first, which has the authority and the keys of
    /// Secrets [default: /var/lib/weft as root, else ~/.local/share/weft]
    #[arg(long, env = "WEFT_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// # Errors
/// When the cluster does not answer or the file cannot be written; a file that was there is untouched then.
pub(super) async fn backup(args: BackupArgs) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let what = || format!("cannot back up to {}", args.file.display());
    let request = http::Request::get("/weft/v1/backup")
        .body(Body::empty())
        .map_err(|error| Failure::new(what(), error, ""))?;
    let response = client
        .send(request)
        .await
        .map_err(|error| api_failure(what(), &error))?;
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        let text = body.collect().await.map(|body| body.to_bytes());
        let answer: serde_json::Value =
            serde_json::from_slice(&text.unwrap_or_default()).unwrap_or_default();
        let why = answer["message"].as_str().unwrap_or("no reason was given");
        return Err(Failure::new(what(), why, "").into());
    }
    let number = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or("?").to_owned()
    };
    let beside = beside(&args.file);
    let written = async {
        let mut file = private(&beside)?;
        let mut chunks = body.into_data_stream();
        let mut bytes = 0;
        while let Some(chunk) = chunks.try_next().await.map_err(std::io::Error::other)? {
            bytes += chunk.len() as u64;
            file.write_all(&chunk).await?;
        }
        let announced = head.headers.get(http::header::CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|announced| announced != bytes) {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        }
        file.sync_all().await?;
        std::fs::rename(&beside, &args.file)?;
        Ok(bytes)
    }
    .await;
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            // Not there where it could not be made.
            let _ = std::fs::remove_file(&beside);
            let next = "make room, or ask another server";
            return Err(Failure::new(what(), error, next).into());
        }
    };
    stdout::line(format_args!(
        "backed up {} objects at revision {} into {} ({bytes} bytes)",
        number("weft-entries"),
        number("weft-revision"),
        args.file.display()
    ))?;
    Ok(())
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// A new file that only this user may read.
fn private(path: &Path) -> std::io::Result<tokio::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(tokio::fs::File::from_std(file))
}

/// # Errors
/// When the backup is not sound, or the folder holds a store.
pub(super) fn restore(args: &RestoreArgs) -> anyhow::Result<()> {
    data_dir::keep_private();
    let dir = std::path::absolute(args.data_dir.clone().unwrap_or_else(data_dir::default))?;
    let what = || format!("cannot restore {}", args.file.display());
    data_dir::create_private(&dir)?;
    if let Some(known) = Identity::load(&dir)? {
        let why = format!(
            "{} belongs to server {} of a cluster",
            dir.display(),
            known.server_id
        );
        return Err(Failure::new(what(), why, "name an empty folder with --data-dir").into());
    }
    let mut identity = Identity::new(new_cluster_id(), 1, false);
    let config = weft_store::Config {
        server_id: identity.server_id,
        cluster_id: identity.cluster_id.clone(),
        ..weft_store::Config::new(store_dir(&dir))
    };
    let restored =
        weft_store::restore(&args.file, &config).map_err(|error| refused(what(), &error))?;
    identity.opened = true;
    identity.save(&dir)?;
    let authority = match dir.join("pki/ca.crt").exists() {
        true => {
            "its certificates are those in pki/, so that nodes and kubeconfigs of before are good"
        }
        false => {
            "it will have a new authority and cannot read the Secrets: copy pki/ of an old server there before it starts"
        }
    };
    stdout::line(format_args!(
        "restored {} objects of revision {} into {}\n{authority}\nstart it with `weft server --data-dir {}`",
        restored.entries,
        restored.revision,
        dir.display(),
        dir.display()
    ))?;
    Ok(())
}

fn refused(what: String, error: &BackupError) -> Failure {
    let next = match error {
        BackupError::Record { .. } => "take an older backup: nothing was restored from this one",
        BackupError::Invalid { .. } => "name an empty folder with --data-dir",
        _ => "check the file's name and permissions, and the room on the disk",
    };
    Failure::new(what, Chain(error), next)
}
