//! Manifests and indexes: which layer of an artefact is the component.
//!
//! Read are the layout of the CNCF's TAG Runtime (`weft push`, `wkg`, `wash`), what `oras` makes of a `.wasm` file with or without a
//! media type, and what runwasi, wasmCloud, Spin and `wasm-to-oci` wrote: a layer of type `application/wasm` or of any vendor's type
//! with the suffix `+wasm`.
//!
//! Invariants: pure; what comes out is a SHA-256 digest, fit to be a part of a path, and what it leads to is checked against it; of
//! two components none is chosen; no message is longer than a status can show.

use oci_spec::image::{
    Arch, Descriptor, DigestAlgorithm, ImageIndex, ImageManifest, MediaType, Platform,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What a registry is asked for.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
/// The configuration of a container image, as Docker calls it.
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// The name of the file that a layer was.
pub(super) const TITLE: &str = "org.opencontainers.image.title";
/// What buildx adds to an index for its attestations.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Names that a message has, and bytes of each: a manifest may have thousands.
const TOLD_MAX: usize = 4;
const TOLD_BYTES_MAX: usize = 100;
/// What to do about an image of containers.
const CONTAINER: &str = "a container image? weft runs WebAssembly components; push the .wasm file itself, with `weft push`, `wkg oci push` or `oras push`";

/// Content that a manifest leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// `sha256:…`.
    pub(super) digest: String,
    /// In bytes.
    pub(super) size: u64,
}

/// What a reference leads to first.
pub(super) enum Document {
    Manifest(Box<ImageManifest>),
    Index(Box<ImageIndex>),
}

/// What says of a document which it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<MediaType>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
}

impl Document {
    /// Reads what a registry sent.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let malformed = |error: serde_json::Error| {
            format!(
                "its manifest is malformed: {}",
                start_of(&error.to_string())
            )
        };
        let shape: Shape = serde_json::from_slice(bytes).map_err(malformed)?;
        match (shape.layers, shape.manifests) {
            (Some(_), None) => serde_json::from_slice(bytes)
                .map(Self::Manifest)
                .map_err(malformed),
            (None, Some(_)) => serde_json::from_slice(bytes)
                .map(Self::Index)
                .map_err(malformed),
            // Two clients would read two things (CVE-2021-41190).
            (Some(_), Some(_)) => Err("its manifest is an index at the same time".to_owned()),
            (None, None) => Err(match shape.media_type {
                Some(kind) => format!("its manifest is of type {}", start_of(kind.as_ref())),
                None => "its manifest has neither layers nor manifests".to_owned(),
            }),
        }
    }
}

/// Of an index, the manifest to take: the one for components, or the only one.
///
/// # Errors
/// Why there is none, as the end of a sentence.
pub(super) fn of_index(index: &ImageIndex) -> Result<Content, String> {
    let is_attestation = |entry: &&Descriptor| {
        let annotations = entry.annotations().as_ref();
        annotations.is_some_and(|annotations| annotations.contains_key(REFERENCE_TYPE))
    };
    let entries: Vec<&Descriptor> = index
        .manifests()
        .iter()
        .filter(|entry| !is_attestation(entry))
        .collect();
    // wasip1 is what core modules are called.
    let rank = |entry: &Descriptor| match entry.platform() {
        Some(platform) if *platform.architecture() == Arch::Wasm => {
            match platform.os().to_string().as_str() {
                "wasip2" | "wasip3" => 3,
                "wasip1" => 1,
                _ => 2,
            }
        }
        _ => 0,
    };
    let best = entries.iter().copied().map(rank).max().unwrap_or(0);
    let of_best: Vec<&Descriptor> = entries
        .iter()
        .copied()
        .filter(|entry| rank(entry) == best)
        .collect();
    match of_best.as_slice() {
        [only] => return content(only),
        [first, ..] if best > 0 => return content(first),
        [] => return Err("its index is empty".to_owned()),
        _ => {}
    }
    let is_wasm = |entry: &&&Descriptor| {
        let kind = entry.artifact_type().as_ref();
        kind.is_some_and(|kind| is_component(kind) || kind.as_ref().contains("wasm"))
    };
    let unnamed = |entry: &&&Descriptor| entry.platform().is_none();
    for candidates in [
        entries.iter().filter(is_wasm).collect::<Vec<_>>(),
        entries.iter().filter(unnamed).collect(),
    ] {
        match candidates.as_slice() {
            [] => {}
            [only] => return content(only),
            several => {
                return Err(format!(
                    "its index has {} manifests that may be it; name one of them by its digest",
                    several.len()
                ));
            }
        }
    }
    let platforms = entries.iter().filter_map(|entry| entry.platform().as_ref());
    let named = |platform: &Platform| format!("{}/{}", platform.os(), platform.architecture());
    Err(format!(
        "its index is for {} ({CONTAINER})",
        listed(platforms.map(named))
    ))
}

/// The layer that is the component.
///
/// # Errors
/// Why there is none, as the end of a sentence.
pub(super) fn component(manifest: &ImageManifest) -> Result<Content, String> {
    let layers = manifest.layers();
    let typed: Vec<&Descriptor> = layers
        .iter()
        .filter(|layer| is_component(layer.media_type()))
        .collect();
    let is_container = is_container(manifest);
    // `oras push NAME app.wasm` calls every file a tar archive, and keeps its name.
    let titled: Vec<&Descriptor> = layers
        .iter()
        .filter(|layer| title(layer).is_some_and(|title| title.ends_with(".wasm")))
        .filter(|_| !is_container)
        .collect();
    let found = if typed.is_empty() { titled } else { typed };
    match found.as_slice() {
        [only] => content(only),
        [] if layers.is_empty() => Err("it has no layers".to_owned()),
        [] => {
            let kinds = layers.iter().map(|layer| layer.media_type().to_string());
            let mut kinds: Vec<String> = kinds.collect();
            kinds.dedup();
            let container = if is_container {
                format!(" ({CONTAINER})")
            } else {
                String::new()
            };
            Err(format!(
                "its layers are {}{container}",
                listed(kinds.into_iter())
            ))
        }
        several => {
            let name = |layer: &&Descriptor| {
                let title = title(layer);
                title.map_or_else(|| layer.digest().to_string(), str::to_owned)
            };
            Err(format!(
                "it has {} components ({}) and a container runs one; push each by itself",
                several.len(),
                listed(several.iter().map(name))
            ))
        }
    }
}

/// Whether it is of a container image.
pub(super) fn is_container(manifest: &ImageManifest) -> bool {
    let config = manifest.config().media_type();
    matches!(config, MediaType::ImageConfig) || base(config.as_ref()) == DOCKER_CONFIG
}

/// Whether a media type says that this is a WebAssembly binary.
fn is_component(kind: &MediaType) -> bool {
    let kind = base(kind.as_ref());
    kind == "application/wasm" || (kind.starts_with("application/vnd.") && kind.ends_with("+wasm"))
}

/// A media type without its parameters.
pub(super) fn base(kind: &str) -> String {
    let base = kind.split(';').next().unwrap_or_default();
    base.trim().to_ascii_lowercase()
}

fn title(layer: &Descriptor) -> Option<&str> {
    let annotations = layer.annotations().as_ref()?;
    annotations.get(TITLE).map(String::as_str)
}

pub(super) fn content(descriptor: &Descriptor) -> Result<Content, String> {
    let digest = descriptor.digest();
    match digest.algorithm() {
        DigestAlgorithm::Sha256 => Ok(Content {
            digest: digest.to_string(),
            size: descriptor.size(),
        }),
        other => Err(format!(
            "its manifest names content by {}, and nodes verify sha256 only",
            start_of(other.as_ref())
        )),
    }
}

pub(super) fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.take(TOLD_MAX + 1).collect();
    let more = if names.len() > TOLD_MAX { ", …" } else { "" };
    names.truncate(TOLD_MAX);
    let named: Vec<&str> = names.iter().map(|name| start_of(name)).collect();
    format!("{}{more}", named.join(", "))
}

/// As much of a text as a message has.
pub(super) fn start_of(text: &str) -> &str {
    &text[..text.floor_char_boundary(TOLD_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    const IMAGE: &str = "application/vnd.oci.image.config.v1+json";

    fn digest(n: usize) -> String {
        format!("sha256:{n:064x}")
    }

    /// The layer that is chosen, of layers with these media types and titles.
    fn chosen(config: &str, layers: &[(&str, Option<&str>)]) -> Result<usize, String> {
        let layers = layers.iter().enumerate().map(|(n, (kind, title))| {
            let mut layer = json!({"mediaType": kind, "digest": digest(n), "size": 9});
            if let Some(title) = title {
                layer["annotations"] = json!({ TITLE: title });
            }
            layer
        });
        let manifest = json!({
            "schemaVersion": 2,
            "config": {"mediaType": config, "digest": DIGEST, "size": 2},
            "layers": layers.collect::<Vec<_>>(),
        });
        let found = match Document::read(manifest.to_string().as_bytes())? {
            Document::Manifest(manifest) => component(&manifest)?,
            Document::Index(_) => return Err("an index".to_owned()),
        };
        Ok((0..)
            .find(|n| digest(*n) == found.digest)
            .expect("one of them"))
    }

    #[test]
    fn the_component_is_found_in_what_every_tool_makes() {
        let cncf = "application/vnd.wasm.config.v0+json";
        for (tool, config, layers, expected) in [
            ("weft, wkg, wash", cncf, vec![("application/wasm", None)], 0),
            (
                "oras with a type",
                EMPTY,
                vec![("application/wasm", Some("a.wasm"))],
                0,
            ),
            (
                "oras without",
                EMPTY,
                vec![(TAR, Some("a.wasm")), (TAR, Some("README.md"))],
                0,
            ),
            (
                "oras 0.x",
                "application/vnd.unknown.config.v1+json",
                vec![(TAR, Some("a.wasm"))],
                0,
            ),
            (
                "Spin",
                "application/vnd.fermyon.spin.application.v1+config",
                vec![
                    ("application/vnd.wasm.content.layer.v1+data", None),
                    ("application/vnd.wasm.content.layer.v1+wasm", None),
                ],
                1,
            ),
            (
                "wasm-to-oci",
                "application/vnd.wasm.config.v1+json",
                vec![("application/vnd.wasm.content.layer.v1+wasm", None)],
                0,
            ),
            (
                "wasmCloud",
                "application/vnd.wasmcloud.actor.archive.config",
                vec![("application/vnd.module.wasm.content.layer.v1+wasm", None)],
                0,
            ),
            (
                "bytecodealliance",
                EMPTY,
                vec![(
                    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
                    None,
                )],
                0,
            ),
            (
                "capitals and parameters",
                cncf,
                vec![(TAR, None), ("Application/WASM; version=1", None)],
                1,
            ),
        ] {
            assert_eq!(chosen(config, &layers), Ok(expected), "{tool}");
        }
    }

    #[test]
    fn what_has_no_component_or_several_says_so() {
        let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
        let told = |config: &str, layers: &[(&str, Option<&str>)]| {
            chosen(config, layers).expect_err("none")
        };
        assert_eq!(
            told(IMAGE, &[(gzip, None), (gzip, None)]),
            format!("its layers are {gzip} ({CONTAINER})")
        );
        // What stands in an image of containers is a file in an archive, whatever it is called.
        assert!(told(DOCKER_CONFIG, &[(TAR, Some("a.wasm"))]).contains(CONTAINER));
        assert_eq!(
            told(EMPTY, &[("text/plain", None)]),
            "its layers are text/plain"
        );
        assert_eq!(told(EMPTY, &[]), "it has no layers");
        let wasm = "application/wasm";
        assert_eq!(
            told(EMPTY, &[(wasm, Some("api.wasm")), (wasm, Some("ui.wasm"))]),
            "it has 2 components (api.wasm, ui.wasm) and a container runs one; push each by itself"
        );
        let many: Vec<String> = (0..9000)
            .map(|n| format!("{n}{}", "é".repeat(200)))
            .collect();
        let many: Vec<_> = many.iter().map(|kind| (kind.as_str(), None)).collect();
        assert!(told(EMPTY, &many).len() < 500);
    }

    fn of(entries: &Value) -> Result<String, String> {
        let index = json!({"schemaVersion": 2, "manifests": entries}).to_string();
        match Document::read(index.as_bytes())? {
            Document::Index(index) => of_index(&index).map(|content| content.digest),
            Document::Manifest(_) => Err("a manifest".to_owned()),
        }
    }

    #[test]
    fn an_index_leads_to_the_manifest_for_components() {
        let entry = |n: usize| json!({"mediaType": "m", "digest": digest(n), "size": 9});
        let on = |n: usize, os: &str, architecture: &str| {
            let mut entry = entry(n);
            entry["platform"] = json!({"os": os, "architecture": architecture});
            entry
        };
        let (linux, arm) = (on(1, "linux", "amd64"), on(2, "linux", "arm64"));
        let (module, wasm) = (on(3, "wasip1", "wasm"), on(4, "wasip2", "wasm"));
        let mut attestation = on(5, "unknown", "unknown");
        attestation["annotations"] = json!({ REFERENCE_TYPE: "attestation-manifest" });
        let mut artifact = entry(6);
        artifact["artifactType"] = json!("application/vnd.wasm.config.v0+json");
        for (entries, expected) in [
            (json!([linux, module, wasm]), Ok(digest(4))),
            (json!([linux, on(7, "wasi", "wasm"), module]), Ok(digest(7))),
            // The only one is meant, whatever it says that it is for.
            (json!([linux, attestation]), Ok(digest(1))),
            (json!([linux, entry(8)]), Ok(digest(8))),
            (json!([entry(8), artifact, entry(9)]), Ok(digest(6))),
            (json!([]), Err("its index is empty".to_owned())),
            (
                json!([entry(8), entry(9)]),
                Err(
                    "its index has 2 manifests that may be it; name one of them by its digest"
                        .to_owned(),
                ),
            ),
            (
                json!([linux, arm]),
                Err(format!(
                    "its index is for linux/amd64, linux/arm64 ({CONTAINER})"
                )),
            ),
        ] {
            assert_eq!(of(&entries), expected, "{entries}");
        }
    }

    /// What an index or a manifest names becomes a part of a path, on the API server's address under this node's certificate too.
    #[test]
    fn a_digest_that_cannot_be_verified_leads_nowhere() {
        for elsewhere in [
            "latest",
            "../../../../api/v1/secrets",
            "sha256:12",
            "",
            "sha256:A",
        ] {
            let told = of(&json!([{"mediaType": "m", "digest": elsewhere, "size": 1}]))
                .expect_err("refused");
            assert!(told.starts_with("its manifest is malformed: "), "{told}");
        }
        let sha512 = format!("sha512:{}", "a".repeat(128));
        for (digest, algorithm) in [(sha512.as_str(), "sha512"), ("blake3:aaaa", "blake3")] {
            let told = of(&json!([{"mediaType": "m", "digest": digest, "size": 1}]));
            let expected =
                format!("its manifest names content by {algorithm}, and nodes verify sha256 only");
            assert_eq!(told, Err(expected));
        }
    }

    #[test]
    fn a_document_is_one_thing() {
        let both = json!({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}});
        let told = |document: &Value| Document::read(document.to_string().as_bytes()).err();
        assert_eq!(
            told(&both).as_deref(),
            Some("its manifest is an index at the same time")
        );
        let first = json!({"schemaVersion": 1, "mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"});
        assert_eq!(
            told(&first).as_deref(),
            Some(
                "its manifest is of type application/vnd.docker.distribution.manifest.v1+prettyjws"
            )
        );
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn whatever_a_registry_sends_leads_to_a_digest_or_to_a_sentence(
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
            entries in proptest::collection::vec((
                proptest::sample::select(vec!["application/wasm", "x", ""]),
                prop_oneof![Just(DIGEST.to_owned()), any::<String>(), "(sha256:)?[0-9a-f]{62,66}"],
                prop_oneof![Just(json!(1)), any::<u64>().prop_map(Value::from), any::<i64>().prop_map(Value::from), Just(Value::Null)],
                proptest::option::of("wasm|amd64|.{0,3}"),
            ), 0..4),
            is_index in any::<bool>(),
        ) {
            let _ = Document::read(&bytes);
            let entries = entries.into_iter().map(|(media_type, digest, size, architecture)| {
                json!({"mediaType": media_type, "digest": digest, "size": size, "platform": {"os": "o", "architecture": architecture.unwrap_or_default()}})
            });
            let entries: Vec<Value> = entries.collect();
            let config = json!({"mediaType": EMPTY, "digest": DIGEST, "size": 2});
            let text = json!({"schemaVersion": 2, "config": config, if is_index { "manifests" } else { "layers" }: entries});
            let found = match Document::read(text.to_string().as_bytes()) {
                Ok(Document::Index(index)) => of_index(&index),
                Ok(Document::Manifest(manifest)) => component(&manifest),
                Err(told) => Err(told),
            };
            match found {
                Ok(content) => prop_assert!(weft_api::image::is_digest(&content.digest)),
                Err(told) => prop_assert!(told.len() < 1000, "{}", told),
            }
        }
    }
}
