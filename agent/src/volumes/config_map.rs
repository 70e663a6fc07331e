//! `configMap` volumes, and such sources of `projected` ones: a file for each key, text and binary alike.

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
    let map = configuration.config_maps.get(name);
    let text = map.and_then(|map| map.data.as_ref()).into_iter().flatten();
    let text = text.map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = bytes_of(map.and_then(|map| map.binary_data.as_ref()));
    let keyed = Keyed {
        called: format!("configmap \"{name}\""),
        is_there: map.is_some(),
        optional: optional == Some(true),
        items,
        modes,
        values: text.chain(binary).collect(),
    };
    keyed.show(files)
}
