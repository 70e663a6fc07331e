//! `secret` volumes, and such sources of `projected` ones: a file for each key. No value of it reaches a message.

use super::files::{Files, Keyed, Modes, bytes_of};
use crate::configuration::Configuration;
use k8s_openapi::api::core::v1::KeyToPath;

pub(super) fn show(
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    modes: Modes,
    configuration: &Configuration,
    files: &mut Files,
) -> Result<(), String> {
    let secret = configuration.secrets.get(name);
    let keyed = Keyed {
        called: format!("secret \"{name}\""),
        is_there: secret.is_some(),
        optional: optional == Some(true),
        items,
        modes,
        values: bytes_of(secret.and_then(|secret| secret.data.as_ref())).collect(),
    };
    keyed.show(files)
}
