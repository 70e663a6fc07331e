//! Volumes on nodes: which is to be attached where, and whether it is.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use super::{GROUP, declared_driver_name};
use crate::columns::{Column, Row};
use crate::core::persistentvolume;
use crate::field::Field;
use crate::lens::flag;
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, unserved};

pub static VOLUME_ATTACHMENT: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Attacher", attacher, "Who attaches it.").formatted("name"),
            Column::text("PV", volume, "The volume."),
            Column::text("Node", node, "Where."),
            Column::boolean("Attached", attached, "Whether it is."),
            Column::age(),
        ],
        strategy: Arc::new(VolumeAttachments),
        ..Kind::new(GROUP, "v1", "VolumeAttachment", "volumeattachments")
    })
});

const METADATA_BYTES_MAX: usize = 256 << 10;
const ERROR_BYTES_MAX: usize = 1024;

struct VolumeAttachments;

impl Strategy for VolumeAttachments {
    fn default(&self, value: &mut Value) {
        if let Some(inline) = value.pointer_mut("/spec/source/inlineVolumeSpec") {
            persistentvolume::default_inline(inline);
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn warn(&self, _: &Value, _: &dyn Surroundings) -> Vec<String> {
        unserved::told_of(GROUP, "VolumeAttachment")
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        source(&root.child("spec.source"), problems);
        problems.rule(&root.child("spec.nodeName"), name::dns1123_subdomain_faults);
        status(&root.child("status"), problems);
        let volume = root.child("spec.source.persistentVolumeName");
        if volume.is_set() {
            problems.rule(&volume, name::dns1123_subdomain_faults);
        }
        // Kubernetes tells of this last.
        let attacher = root.child("spec.attacher");
        declared_driver_name(&attacher, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        self.validate(new, problems);
        let (root, before) = (Field::root(new), Field::root(old));
        problems.declared_immutable(&root.child("spec"), &before.child("spec"));
    }
}

fn source(source: &Field<'_, '_>, problems: &mut Problems) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let (inline, named) = (
        source.child("inlineVolumeSpec"),
        source.child("persistentVolumeName"),
    );
    match (inline.is_set(), named.is_set()) {
        (false, false) => problems.required(source, ONE),
        (true, true) => problems.forbidden(source, ONE),
        (false, true) => {
            if named.text().is_empty() {
                problems.required(&named, "must specify non empty persistentVolumeName");
            }
        }
        (true, false) => persistentvolume::validate_inline(&inline, problems),
    }
}

fn status(status: &Field<'_, '_>, problems: &mut Problems) {
    let metadata = status.child("attachmentMetadata");
    let entries = metadata.map().into_iter().flatten();
    let bytes: usize = entries
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if bytes > METADATA_BYTES_MAX {
        problems.too_long(&metadata, METADATA_BYTES_MAX);
    }
    for member in ["attachError", "detachError"] {
        let error = status.child(member);
        let message = error.child("message");
        if message.text().len() > ERROR_BYTES_MAX {
            problems.too_long(&message, ERROR_BYTES_MAX);
        }
        let code = error.child("errorCode");
        if let Some(number) = code.integer().filter(|number| *number < 0) {
            let sentence = format!("must be between 0 and {}, inclusive", i32::MAX);
            problems.invalid(&code, number, &sentence);
        }
    }
}

fn attacher(row: &Row<'_>) -> Value {
    row.text_or("/spec/attacher", "")
}

fn volume(row: &Row<'_>) -> Value {
    row.text_or("/spec/source/persistentVolumeName", "")
}

fn node(row: &Row<'_>) -> Value {
    row.text_or("/spec/nodeName", "")
}

fn attached(row: &Row<'_>) -> Value {
    flag(row.object, "/status/attached").into()
}
