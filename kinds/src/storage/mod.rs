//! `storage.k8s.io`: classes of volumes, the drivers that make them, and where they are attached.

mod csidriver;
mod csinode;
mod csistoragecapacity;
mod storageclass;
mod volumeattachment;
mod volumeattributesclass;

use weft_api::name;

pub use csidriver::CSI_DRIVER;
pub use csinode::CSI_NODE;
pub use csistoragecapacity::CSI_STORAGE_CAPACITY;
pub(crate) use storageclass::IS_DEFAULT;
pub use storageclass::STORAGE_CLASS;
pub use volumeattachment::VOLUME_ATTACHMENT;
pub use volumeattributesclass::VOLUME_ATTRIBUTES_CLASS;

use crate::field::Field;
use crate::validate::Problems;

const GROUP: &str = "storage.k8s.io";

const PARAMETERS_MAX: usize = 512;
const PARAMETER_BYTES_MAX: usize = 256 << 10;
const DRIVER_NAME_BYTES_MAX: usize = 63;

/// Parameters are for the driver to understand; here they are only bounded.
fn validate_parameters(parameters: &Field<'_, '_>, problems: &mut Problems) {
    let Some(map) = parameters.map() else {
        return;
    };
    if map.len() > PARAMETERS_MAX {
        return problems.too_long(parameters, PARAMETERS_MAX);
    }
    let mut bytes = 0;
    for (key, value) in map {
        if key.is_empty() {
            problems.invalid(parameters, "", "field can not be empty.");
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > PARAMETER_BYTES_MAX {
        problems.too_long(parameters, PARAMETER_BYTES_MAX);
    }
}

/// The name of a driver, if there is one.
pub(crate) fn validate_driver_name(field: &Field<'_, '_>, problems: &mut Problems) {
    let text = field.text();
    if text.is_empty() {
        return;
    }
    if text.len() > DRIVER_NAME_BYTES_MAX {
        problems.too_long(field, DRIVER_NAME_BYTES_MAX);
    }
    problems.rule(field, |text| {
        name::dns1123_subdomain_faults(&text.to_lowercase())
    });
}

/// The same in the words of kinds whose rules are declared beside their fields.
pub(crate) fn declared_driver_name(field: &Field<'_, '_>, problems: &mut Problems) {
    problems.required_text(field);
    let text = field.text();
    if text.is_empty() {
        return;
    }
    if text.len() > DRIVER_NAME_BYTES_MAX {
        problems.too_long(field, DRIVER_NAME_BYTES_MAX);
    }
    problems.rule(field, name::dns1123_subdomain_caseless_faults);
}

/// The name of a driver, which has to be there.
pub(crate) fn required_driver_name(field: &Field<'_, '_>, problems: &mut Problems) {
    problems.required_text(field);
    validate_driver_name(field, problems);
}

#[cfg(test)]
mod tests;
