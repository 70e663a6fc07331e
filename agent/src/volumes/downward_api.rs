//! `downwardAPI` volumes, and such sources of `projected` ones: fields of the pod and resources of its containers as files.

use super::files::{Files, Modes};
use crate::config_error::ConfigError;
use crate::downward::Downward;
use k8s_openapi::api::core::v1::DownwardAPIVolumeFile;

pub(super) fn show(
    items: &[DownwardAPIVolumeFile],
    modes: Modes,
    at: Downward<'_>,
    files: &mut Files,
) -> Result<(), String> {
    for item in items {
        let of = format!("file {}", item.path);
        let text = if let Some(field) = &item.field_ref {
            let text = at.field_of_file(&field.field_path);
            text.ok_or_else(|| ConfigError::FieldPath {
                of,
                path: field.field_path.clone(),
            })
        } else if let Some(resource) = &item.resource_field_ref {
            at.resource(&of, None, resource)
        } else {
            return Err(format!("{of} says neither fieldRef nor resourceFieldRef"));
        };
        let text = text.map_err(|error| error.to_string())?;
        files.insert(&item.path, text.as_bytes(), modes.of(item.mode))?;
    }
    Ok(())
}
