//! What an apply is refused for, in Kubernetes' words.
//!
//! Invariants: each error says by its variant what the caller can do: force or yield ([`Conflicts`]), send another body (`400`), or
//! nothing (`500`, as Kubernetes answers what it cannot type). Sentences name fields and managers, never values of the live object.

use std::fmt;

use weft_api::status::{Cause, Details, StatusError};

use super::element::Path;
use super::managers::Manager;
use super::typed::Faults;

/// A field that somebody else owns, and that would change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub manager: Manager,
    pub path: Path,
}

/// All conflicts of an apply, manager by manager.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflicts {
    fn causes(&self) -> Vec<Cause> {
        let cause = |conflict: &Conflict| Cause {
            reason: "FieldManagerConflict".to_owned(),
            message: format!("conflict with {}", conflict.manager),
            field: conflict.path.to_string(),
        };
        self.0.iter().map(cause).collect()
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [Conflict { manager, path }] = self.0.as_slice() {
            return write!(
                f,
                "Apply failed with 1 conflict: conflict with {manager}: {path}"
            );
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let groups = self.0.chunk_by(|a, b| a.manager == b.manager);
        for (place, group) in groups.enumerate() {
            let line = if place > 0 { "\n" } else { "" };
            write!(f, "{line}conflicts with {}:", group[0].manager)?;
            for conflict in group {
                write!(f, "\n- {}", conflict.path)?;
            }
        }
        Ok(())
    }
}

/// Why a set of fields cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    #[error("a set of fields is a JSON object")]
    NotAnObject,
    #[error("parsing key as path element: {0:?}")]
    Element(String),
    #[error("a set of fields is too large or nested too deep")]
    Bounds,
}

/// Why `metadata.managedFields` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagedError {
    #[error("managedFields must be a list")]
    NotAList,
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    NoVersion,
    #[error("missing fieldsType in managed fields entry {place}")]
    NoFieldsType { place: usize },
    #[error("invalid fieldsType {found:?} in managed fields entry {place}")]
    FieldsType { found: String, place: usize },
    #[error("invalid time in managed fields entry {place}")]
    Time { place: usize },
    #[error("error decoding set: {0}")]
    Fields(#[from] FieldsError),
}

/// Why nothing was applied, or recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{0}")]
    Conflicts(Conflicts),
    /// The configuration is of another kind or version than the request.
    #[error("invalid object type: {0}")]
    WrongKind(String),
    #[error("metadata.managedFields must be nil")]
    ManagedFieldsGiven,
    #[error("failed to create typed patch object ({about}): {faults}")]
    Unfit { about: String, faults: Faults },
    #[error("failed to create typed live object ({about}): {faults}")]
    UnfitLive { about: String, faults: Faults },
    #[error("failed to decode managed fields: {0}")]
    Managed(#[from] ManagedError),
    #[error("failed to convert the object to version {version}: {fault}")]
    Conversion { version: String, fault: String },
}

impl ApplyError {
    /// The answer of the API.
    pub fn into_status(self) -> StatusError {
        let message = self.to_string();
        match self {
            ApplyError::Conflicts(conflicts) => StatusError::conflict_message(message)
                .with_details(Details {
                    causes: conflicts.causes(),
                    ..Details::default()
                }),
            Self::WrongKind(_) | Self::ManagedFieldsGiven => StatusError::bad_request(message),
            // Kubernetes has no reason for these: clients print the sentence alone.
            Self::Unfit { .. }
            | Self::UnfitLive { .. }
            | Self::Managed(_)
            | Self::Conversion { .. } => StatusError {
                code: 500,
                reason: "".into(),
                message,
                details: None,
                continue_token: None,
            },
        }
    }
}
