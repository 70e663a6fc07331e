//! Why an image cannot be had: of one place that was asked ([`Fault`]), and of all of them, for the container's status ([`ImageError`]).
//!
//! Left to others: the reasons of a status (`ErrImagePull`, `ImagePullBackOff`: `status`).

use super::COMPONENT_BYTES_MAX;
use super::egress::Refused;
use std::fmt;

/// Places whose answers a message has.
const TOLD_MAX: usize = 3;

/// Why an image cannot be had; the message of `ErrImagePull`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("{0}")]
    Name(#[from] weft_api::image::ImageReferenceError),
    #[error("image \"{image}\" is a file, and this node was not started with --allow-file-images")]
    FilesForbidden { image: String },
    #[error("image \"{image}\" is not present on this node and its pull policy is Never")]
    Never { image: String },
    #[error(
        "image \"{image}\" was pulled with credentials that this pod does not have, and its pull policy is Never"
    )]
    NeverWithout { image: String },
    #[error(
        "the cluster's registry has no {image}{kind}; put a component there with `weft push FILE {image}`{instead}"
    )]
    NotPushed {
        image: String,
        /// What it may be instead of a component, if its name tells.
        kind: &'static str,
        /// `; it has vote/web:1`, or nothing.
        instead: String,
    },
    #[error("{registry} has no {image}; check its name and tag{others}")]
    NotFound {
        image: String,
        registry: String,
        others: Others,
    },
    #[error(
        "{registry} does not let {whom} pull {image}, or has no such image: {told}; \
         name a Secret of type kubernetes.io/dockerconfigjson for it in imagePullSecrets{others}"
    )]
    Denied {
        image: String,
        registry: String,
        whom: String,
        told: String,
        others: Others,
    },
    #[error("there is no file {path} on this node")]
    NoFile { path: String },
    #[error("{reason}{others}")]
    Failed { reason: String, others: Others },
    #[error("image \"{image}\" holds no WebAssembly component: {reason}")]
    NotWasm { image: String, reason: String },
    #[error("image \"{image}\" has no files that could be mounted: {reason}")]
    NoFiles { image: String, reason: String },
    #[error(
        "image \"{image}\" has {bytes} bytes, more than the {COMPONENT_BYTES_MAX} a node accepts"
    )]
    TooLarge { image: String, bytes: u64 },
    #[error(
        "image \"{image}\": {registry} sent content that does not match its digest {digest}{others}"
    )]
    Digest {
        image: String,
        registry: String,
        digest: String,
        others: Others,
    },
    #[error("{waiting} pulls of this namespace wait already on this node; this one is tried again")]
    Crowded { waiting: usize },
    #[error(
        "it waited {seconds} s for other pulls of its namespace on this node, and is tried again"
    )]
    Waited { seconds: u64 },
}

impl ImageError {
    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed {
            reason: reason.into(),
            others: Others::default(),
        }
    }
}

/// What was heard from the other places that were asked, mostly mirrors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others(Vec<(String, String)>);

impl fmt::Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, told) in self.0.iter().take(TOLD_MAX) {
            write!(f, "; before, {place}: {told}")?;
        }
        if self.0.len() > TOLD_MAX {
            write!(f, "; and {} more", self.0.len() - TOLD_MAX)?;
        }
        Ok(())
    }
}

/// What one place that was asked for an image answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("it has no such image")]
    NotFound,
    #[error("it does not let {whom} pull: {told}")]
    Denied { whom: String, told: String },
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("it sent content that does not match its digest {digest}")]
    Digest { digest: String },
    #[error("it sends {bytes} bytes or more")]
    TooLarge { bytes: u64 },
    #[error("it holds no WebAssembly component: {reason}")]
    NotWasm { reason: String },
    #[error("it has no files that could be mounted: {reason}")]
    NoFiles { reason: String },
    #[error("{0}")]
    Failed(String),
    /// Of this node, whoever is asked.
    #[error("{0}")]
    Here(String),
}

impl Fault {
    /// Whether no other place is worth asking.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::TooLarge { .. } | Self::NotWasm { .. } | Self::NoFiles { .. } | Self::Here(_)
        )
    }

    /// The message for an image, after the faults of the places that were asked before.
    pub(super) fn of(self, image: &str, registry: &str, before: Vec<(String, Self)>) -> ImageError {
        let (image, registry) = (image.to_owned(), registry.to_owned());
        let others = before.into_iter();
        let others = Others(
            others
                .map(|(place, fault)| (place, fault.to_string()))
                .collect(),
        );
        match self {
            Self::NotFound => ImageError::NotFound {
                image,
                registry,
                others,
            },
            Self::Denied { whom, told } => ImageError::Denied {
                image,
                registry,
                whom,
                told,
                others,
            },
            Self::Digest { digest } => ImageError::Digest {
                image,
                registry,
                digest,
                others,
            },
            Self::TooLarge { bytes } => ImageError::TooLarge { image, bytes },
            Self::NotWasm { reason } => ImageError::NotWasm { image, reason },
            Self::NoFiles { reason } => ImageError::NoFiles { image, reason },
            Self::Refused(refused) => ImageError::Failed {
                reason: refused.to_string(),
                others,
            },
            Self::Failed(reason) => ImageError::Failed {
                reason: format!("{registry}: {reason}"),
                others,
            },
            Self::Here(reason) => ImageError::Failed { reason, others },
        }
    }
}
