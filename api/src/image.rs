//! Image references: what `containers[].image` names.
//!
//! `vote/web:1` has no registry host and means the cluster's own registry; `ghcr.io/x/y@sha256:…` names
//! another one; `file:/abs/path.wasm` is a file on the node, where the node allows it. As in Docker, the
//! first path component is a host only if it has a dot or a colon, or is `localhost`.

use std::fmt;
use std::str::FromStr;

/// A parsed image reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ImageReference {
    /// An artefact in a registry.
    Registry(RegistryReference),
    /// An absolute path on the node.
    File(String),
}

/// An artefact in a registry: the cluster's own when `host` is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegistryReference {
    pub host: Option<String>,
    pub repository: String,
    pub tag: Option<String>,
    /// `sha256:` and 64 lower-case hex digits.
    pub digest: Option<String>,
}

impl RegistryReference {
    /// What a manifest is asked for by: the digest if there is one, else the tag, else `latest`.
    pub fn reference(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }
}

impl ImageReference {
    /// Kubernetes' rule for the default pull policy: `Always` if the tag is `latest` or absent.
    pub fn is_latest(&self) -> bool {
        match self {
            Self::Registry(r) => {
                r.digest.is_none() && matches!(r.tag.as_deref(), None | Some("latest"))
            }
            Self::File(_) => true,
        }
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Two slashes more, or the path's own two would be taken for them.
            Self::File(path) if path.starts_with("//") => write!(f, "file://{path}"),
            Self::File(path) => write!(f, "file:{path}"),
            Self::Registry(r) => {
                if let Some(host) = &r.host {
                    write!(f, "{host}/")?;
                }
                f.write_str(&r.repository)?;
                match (&r.tag, &r.digest) {
                    (None, None) => f.write_str(":latest"),
                    (tag, digest) => {
                        if let Some(tag) = tag {
                            write!(f, ":{tag}")?;
                        }
                        if let Some(digest) = digest {
                            write!(f, "@{digest}")?;
                        }
                        Ok(())
                    }
                }
            }
        }
    }
}

/// Why a text is not an image reference, as one sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name \"{text}\": {reason}")]
pub struct ImageReferenceError {
    pub text: String,
    pub reason: &'static str,
}

/// Longest repository path, in bytes, as the OCI distribution specification allows.
const REPOSITORY_BYTES_MAX: usize = 255;
/// Longest tag, in bytes, as the OCI distribution specification allows.
const TAG_BYTES_MAX: usize = 128;

impl FromStr for ImageReference {
    type Err = ImageReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| ImageReferenceError {
            text: text.chars().take(300).collect(),
            reason,
        };
        if text.is_empty() {
            return Err(fail("the name is empty"));
        }
        if let Some(path) = text
            .strip_prefix("file://")
            .or_else(|| text.strip_prefix("file:"))
        {
            return if path.starts_with('/') && !path.contains('\0') {
                Ok(Self::File(path.into()))
            } else {
                Err(fail("a file image needs an absolute path"))
            };
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) if is_digest(digest) => (rest, Some(digest.to_owned())),
            Some(_) => {
                return Err(fail(
                    "a digest is \"sha256:\" and 64 lower-case hexadecimal digits",
                ));
            }
            None => (text, None),
        };
        let (host, path) = match rest.split_once('/') {
            Some((first, path))
                if first.contains('.') || first.contains(':') || first == "localhost" =>
            {
                (Some(first.to_owned()), path)
            }
            _ => (None, rest),
        };
        if host.as_deref().is_some_and(|host| !is_host(host)) {
            return Err(fail(
                "a registry is a host name or address, and may have a port",
            ));
        }
        let (repository, tag) = match path.rsplit_once(':') {
            Some((repository, tag)) if is_tag(tag) => (repository, Some(tag.to_owned())),
            Some(_) => {
                return Err(fail(
                    "a tag has up to 128 letters, digits, \"_\", \".\" and \"-\"",
                ));
            }
            None => (path, None),
        };
        if !is_repository(repository) {
            return Err(fail(
                "a repository is lower-case letters, digits and single \".\", \"_\", \"-\" between them, with \"/\" between parts",
            ));
        }
        Ok(Self::Registry(RegistryReference {
            host,
            repository: repository.into(),
            tag,
            digest,
        }))
    }
}

/// A host name or IPv4 address, with or without a port.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    crate::name::dns1123_subdomain(&name.to_ascii_lowercase()).is_ok()
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// `sha256:` and 64 lower-case hex digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// A tag by the OCI distribution specification.
pub fn is_tag(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= TAG_BYTES_MAX
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// A repository path by the OCI distribution specification.
pub fn is_repository(text: &str) -> bool {
    let part_is_sound = |part: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(part.bytes().next())
            && edge(part.bytes().last())
            && part.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
            })
            && !part.contains("..")
    };
    text.len() <= REPOSITORY_BYTES_MAX && !text.is_empty() && text.split('/').all(part_is_sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_parse_as_docker_reads_them() {
        let hex = "a".repeat(64);
        for (text, shown) in [
            ("web", "web:latest".to_owned()),
            ("vote/web:0.1", "vote/web:0.1".to_owned()),
            ("localhost:5000/x/y:1", "localhost:5000/x/y:1".to_owned()),
            ("ghcr.io/x/y", "ghcr.io/x/y:latest".to_owned()),
            (
                &format!("vote/web@sha256:{hex}"),
                format!("vote/web@sha256:{hex}"),
            ),
            ("file:/tmp/a.wasm", "file:/tmp/a.wasm".to_owned()),
        ] {
            assert_eq!(
                text.parse::<ImageReference>().unwrap().to_string(),
                shown,
                "{text}"
            );
        }
        for bad in [
            "",
            "Vote/web",
            "a//b",
            "web:",
            "web:bad tag",
            "web@sha256:12",
            "file:rel",
            "../x",
            "host:port/x",
            ".a.b/x",
            "a/..",
            "-a",
        ] {
            assert!(bad.parse::<ImageReference>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_latest_is_pulled_always() {
        for (text, latest) in [("a", true), ("a:latest", true), ("a:1", false)] {
            assert_eq!(
                text.parse::<ImageReference>().unwrap().is_latest(),
                latest,
                "{text}"
            );
        }
    }
}
