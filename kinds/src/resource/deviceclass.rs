//! Classes of devices: which devices are of one, and how they are set up.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use super::{GROUP, claim};
use crate::field::Field;
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, unserved};

pub static DEVICE_CLASS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        counts_generations: true,
        strategy: Arc::new(DeviceClasses),
        ..Kind::new(GROUP, "v1", "DeviceClass", "deviceclasses")
    })
});

const CONFIGURATIONS_MAX: usize = 32;

struct DeviceClasses;

impl Strategy for DeviceClasses {
    fn warn(&self, _: &Value, _: &dyn Surroundings) -> Vec<String> {
        unserved::told_of(GROUP, "DeviceClass")
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        claim::selectors(&spec, problems);
        claim::at_most(&spec, "config", CONFIGURATIONS_MAX, problems);
        for config in spec.items("config") {
            claim::configuration(&config, problems);
        }
        let resource = spec.child("extendedResourceName");
        if resource.is_set() {
            extended_resource(&resource, problems);
        }
    }
}

/// A resource that pods ask for by name: one with a domain that is not Kubernetes' own.
fn extended_resource(field: &Field<'_, '_>, problems: &mut Problems) {
    let text = field.text();
    if !text.contains('/') {
        let sentence = "a name must be a domain-prefixed path, such as 'example.com/my-prop'";
        problems.invalid(field, text, sentence);
    } else if text.contains("kubernetes.io/") {
        problems.invalid(field, text, "must not have \"kubernetes.io/\" domain");
    }
    if text.starts_with("requests.") {
        problems.invalid(field, text, "must not have \"requests.\" prefix");
    }
    // As quotas name it.
    for fault in name::qualified_name_faults(&format!("requests.{text}")) {
        problems.invalid(field, text, &fault);
    }
}
