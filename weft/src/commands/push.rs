//! `weft push`: put a component into the cluster's own registry.
//!
//! The artefact is the one the CNCF's Wasm OCI layout describes: a config of type
//! `application/vnd.wasm.config.v0+json` and one layer of type `application/wasm`; after it, if there are files, a layer as container images have
//! them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http_body_util::BodyExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use kube::client::Body;
use oci_spec::image::{Descriptor, Digest, ImageManifestBuilder, MediaType, SCHEMA_VERSION};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use weft_api::ImageReference;

use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The component
    file: PathBuf,
    /// Name in the registry, as `vote/web:0.1`
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
    /// Files that the image has besides the component, for pods that mount it (volumes of type image): what is in this folder
    #[arg(long, value_name = "FOLDER")]
    files: Option<PathBuf>,
    /// Print the digest as one JSON document
    #[arg(short, long)]
    output: Option<Output>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// Largest component that can be run.
const COMPONENT_BYTES_MAX: u64 = weft_agent::image::COMPONENT_BYTES_MAX;
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
const LAYER_TYPE: &str = "application/wasm";
const FILES_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
/// Most that files beside a component may have as an archive: as much as the registry takes at once.
const FILES_BYTES_MAX: usize = 256 << 20;
/// How often the spinner turns while an upload waits for the server.
const SPINNER_TICK: Duration = Duration::from_millis(100);

/// # Errors
/// When the file is no component, the name is no repository, or the registry refuses.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let component = read_component(&args.file)?;
    let files = args.files.as_deref().map(archive).transpose()?;
    let target = target(&args.name)?;
    let client = args.client.client().await?;
    let progress = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    progress.enable_steady_tick(SPINNER_TICK);
    progress.set_message(format!("pushing {} KiB", component.len() / 1024));
    let pushed = put(client, &target, component, files).await;
    progress.finish_and_clear();
    let Pushed {
        name,
        digest,
        before,
    } = pushed?;
    if let Some(before) = before.filter(|before| *before != digest)
        && target.tag != "latest"
    {
        eprintln!(
            "note: {name} was {before}, and nodes that have it go on with that unless imagePullPolicy is Always; push a new tag for them"
        );
    }
    if args.output == Some(Output::Json) {
        stdout::line(json!({"image": name, "digest": digest}))?;
    } else {
        stdout::line(format_args!("pushed {name} {digest}"))?;
    }
    Ok(())
}

/// Where in the cluster's own registry.
pub(super) struct Target {
    repository: String,
    tag: String,
}

/// What is in the registry now.
pub(super) struct Pushed {
    /// With its tag.
    name: String,
    digest: String,
    /// What the tag stood for, if it was there.
    before: Option<String>,
}

/// A name in the cluster's own registry.
///
/// # Errors
/// When it is none, or one of another registry.
pub(super) fn target(name: &str) -> Result<Target, Failure> {
    let cannot = |why: &dyn std::fmt::Display| {
        let next = "use a name such as vote/web:0.1";
        Failure::new(format!("cannot push to {name}"), why, next).usage()
    };
    match name.parse() {
        Ok(ImageReference::Registry(target))
            if target.host.is_none() && target.digest.is_none() =>
        {
            Ok(Target {
                tag: target.reference().to_owned(),
                repository: target.repository,
            })
        }
        Ok(_) => Err(cannot(
            &"weft push fills the cluster's own registry, which has no host and no digest in its names",
        )),
        Err(error) => Err(cannot(&error)),
    }
}

/// Puts a component under a name, with an archive of files besides it, if there is one.
///
/// # Errors
/// What the registry refuses.
pub(super) async fn put(
    client: kube::Client,
    target: &Target,
    component: Vec<u8>,
    files: Option<Vec<u8>>,
) -> anyhow::Result<Pushed> {
    let registry = Registry {
        client,
        repository: target.repository.clone(),
    };
    let layer = described(LAYER_TYPE, &component)?;
    let files = match files {
        Some(bytes) => Some((described(FILES_TYPE, &bytes)?, bytes)),
        None => None,
    };
    let layers = [layer.clone()].into_iter();
    let layers = layers.chain(files.iter().map(|(layer, _)| layer.clone()));
    let layers: Vec<Descriptor> = layers.collect();
    let digests: Vec<&Digest> = layers.iter().map(Descriptor::digest).collect();
    let config = serde_json::to_vec(&json!({
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": digests,
    }))?;
    let about_config = described(CONFIG_TYPE, &config)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(about_config.clone())
        .layers(layers)
        .build()?;
    let manifest = serde_json::to_vec(&manifest)?;
    let digest = digest(&manifest)?.to_string();
    let before = registry.digest_of(&target.tag).await?;
    registry.put_blob(layer.digest(), component).await?;
    if let Some((layer, bytes)) = files {
        registry.put_blob(layer.digest(), bytes).await?;
    }
    registry.put_blob(about_config.digest(), config).await?;
    registry.put_manifest(&target.tag, manifest).await?;
    Ok(Pushed {
        name: format!("{}:{}", target.repository, target.tag),
        digest,
        before,
    })
}

/// The first eight bytes of a component: magic, version 13, layer 1.
const COMPONENT_HEADER: &[u8] = b"\0asm\x0d\0\x01\0";
/// The first eight bytes of a core module.
const MODULE_HEADER: &[u8] = b"\0asm\x01\0\0\0";

pub(super) fn read_component(path: &Path) -> Result<Vec<u8>, Failure> {
    let what = || format!("cannot push {}", path.display());
    let metadata = std::fs::metadata(path).map_err(|error| {
        Failure::new(what(), error, "name the file that your build wrote").usage()
    })?;
    if !metadata.is_file() {
        return Err(Failure::new(
            what(),
            "it is not a file",
            "name the .wasm file that your build wrote",
        )
        .usage());
    }
    let size = metadata.len();
    if size > COMPONENT_BYTES_MAX {
        let why =
            format!("it has {size} bytes and nodes run components of up to {COMPONENT_BYTES_MAX}");
        return Err(Failure::new(what(), why, "strip it of debug information").usage());
    }
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(what(), error, "check its permissions").usage())?;
    if bytes.starts_with(MODULE_HEADER) {
        return Err(Failure::new(
            what(),
            "it is a core WebAssembly module, not a component",
            "build for wasm32-wasip2, or wrap it with `wasm-tools component new`",
        )
        .usage());
    }
    if !bytes.starts_with(COMPONENT_HEADER) {
        return Err(Failure::new(
            what(),
            "it is not a WebAssembly component: its first bytes are not those of one",
            "name the .wasm file that your build wrote",
        )
        .usage());
    }
    Ok(bytes)
}

/// What is in a folder, as a tar archive without owners and times.
fn archive(folder: &Path) -> Result<Vec<u8>, Failure> {
    let mut builder = tar::Builder::new(Bounded(Vec::new()));
    builder.mode(tar::HeaderMode::Deterministic);
    builder.follow_symlinks(false);
    let archived = builder.append_dir_all("", folder);
    let archived = archived.and_then(|()| builder.into_inner());
    archived.map(|Bounded(bytes)| bytes).map_err(|error| {
        let what = format!("cannot push the files in {}", folder.display());
        Failure::new(what, error, "name a folder of readable files").usage()
    })
}

/// Takes no more than [`FILES_BYTES_MAX`].
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > FILES_BYTES_MAX {
            let why = format!("they have more than {FILES_BYTES_MAX} bytes");
            return Err(io::Error::other(why));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn digest(bytes: &[u8]) -> anyhow::Result<Digest> {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(format!("sha256:{hex}").parse()?)
}

fn described(media_type: &str, bytes: &[u8]) -> anyhow::Result<Descriptor> {
    Ok(Descriptor::new(
        MediaType::from(media_type),
        bytes.len() as u64,
        digest(bytes)?,
    ))
}

struct Registry {
    client: kube::Client,
    repository: String,
}

impl Registry {
    async fn put_blob(&self, digest: &Digest, bytes: Vec<u8>) -> Result<(), Failure> {
        let blob = format!("/v2/{}/blobs/{digest}", self.repository);
        let head = self.send(http::Request::head(&blob), Vec::new()).await?;
        if head.status().is_success() {
            return Ok(());
        }
        let start = format!("/v2/{}/blobs/uploads/", self.repository);
        let started = self.expect(http::Request::post(start), Vec::new()).await?;
        let location = started
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| self.failure("the registry gave no place to upload to"))?;
        let separator = if location.contains('?') { '&' } else { '?' };
        // The server may give an absolute address; the client knows it by its path.
        let path = location
            .parse::<http::Uri>()
            .ok()
            .and_then(|uri| uri.path_and_query().cloned())
            .ok_or_else(|| self.failure("the registry gave a place that is no address"))?;
        let request = http::Request::put(format!("{path}{separator}digest={digest}"))
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, bytes.len());
        self.expect(request, bytes).await.map(drop)
    }

    /// What a tag stands for now, if it is there.
    async fn digest_of(&self, tag: &str) -> Result<Option<String>, Failure> {
        let path = format!("/v2/{}/manifests/{tag}", self.repository);
        let answer = self.send(http::Request::head(path), Vec::new()).await?;
        let digest = answer.headers().get("docker-content-digest");
        let digest = digest.and_then(|digest| digest.to_str().ok());
        Ok(digest
            .filter(|_| answer.status().is_success())
            .map(str::to_owned))
    }

    async fn put_manifest(&self, tag: &str, bytes: Vec<u8>) -> Result<(), Failure> {
        let request = http::Request::put(format!("/v2/{}/manifests/{tag}", self.repository))
            .header(CONTENT_TYPE, MediaType::ImageManifest.to_string())
            .header(CONTENT_LENGTH, bytes.len());
        self.expect(request, bytes).await.map(drop)
    }

    fn failure(&self, why: &str) -> Failure {
        Failure::new(
            format!("cannot push to {}", self.repository),
            why,
            "run the command again",
        )
    }

    async fn send(
        &self,
        request: http::request::Builder,
        bytes: Vec<u8>,
    ) -> Result<http::Response<Body>, Failure> {
        let request = request
            .body(Body::from(bytes))
            .map_err(|error| self.failure(&error.to_string()))?;
        self.client
            .send(request)
            .await
            .map_err(|error| api_failure(format!("cannot push to {}", self.repository), &error))
    }

    /// Sends, and takes any answer but success for a refusal with the registry's own sentence.
    async fn expect(
        &self,
        request: http::request::Builder,
        bytes: Vec<u8>,
    ) -> Result<http::Response<Body>, Failure> {
        let response = self.send(request, bytes).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = answer["errors"][0]["message"]
            .as_str()
            .or(answer["message"].as_str())
            .unwrap_or("the registry gave no reason");
        Err(self.failure(&format!("{message} ({status})")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_archived_as_they_lie_in_their_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/os-release"), "x").unwrap();
        let bytes = archive(dir.path()).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let names = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            entry.path().unwrap().display().to_string()
        });
        assert_eq!(names.collect::<Vec<_>>(), ["etc", "etc/os-release"]);
        assert!(super::archive(&dir.path().join("none")).is_err());
    }

    #[test]
    fn only_components_are_pushed() {
        let dir = tempfile::tempdir().unwrap();
        for (bytes, why) in [
            (MODULE_HEADER, "core WebAssembly module"),
            (b"#!/bin/sh".as_slice(), "not a WebAssembly component"),
            (b"".as_slice(), "not a WebAssembly component"),
        ] {
            let path = dir.path().join("x.wasm");
            std::fs::write(&path, bytes).unwrap();
            let failure = read_component(&path).unwrap_err();
            assert!(failure.why.contains(why), "{}", failure.why);
        }
        assert!(read_component(Path::new("/nowhere/x.wasm")).is_err());
        let folder = read_component(dir.path()).unwrap_err();
        assert_eq!(folder.why, "it is not a file");
    }
}
