//! Drivers of volumes, and what they ask of nodes.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::GROUP;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, flag, items, member, put, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, unserved};

pub static CSI_DRIVER: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::boolean(
                "AttachRequired",
                attach,
                "Whether volumes are attached first.",
            ),
            Column::boolean(
                "PodInfoOnMount",
                pod_info,
                "Whether it is told about the pod.",
            ),
            Column::boolean(
                "StorageCapacity",
                capacity,
                "Whether it says how much is left.",
            ),
            Column::text("TokenRequests", tokens, "Tokens that it is given."),
            Column::boolean(
                "RequiresRepublish",
                republish,
                "Whether mounts are repeated.",
            ),
            Column::text("Modes", modes, "Lives of its volumes."),
            Column::age(),
        ],
        strategy: Arc::new(CsiDrivers),
        ..Kind::new(GROUP, "v1", "CSIDriver", "csidrivers")
    })
});

const TOKEN_SECONDS_MIN: i64 = 10 * 60;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const UPDATE_SECONDS_MIN: i64 = 10;

struct CsiDrivers;

impl Strategy for CsiDrivers {
    fn default(&self, value: &mut Value) {
        let spec = member(value, "spec");
        fill(spec, "attachRequired", true);
        for flag in [
            "podInfoOnMount",
            "storageCapacity",
            "requiresRepublish",
            "seLinuxMount",
            "preventPodSchedulingIfMissing",
        ] {
            fill(spec, flag, false);
        }
        fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if items(spec, "/volumeLifecycleModes").is_empty() {
            put(spec, "volumeLifecycleModes", Some(json!(["Persistent"])));
        }
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let mut told = unserved::told_of(GROUP, "CSIDriver");
        let root = Field::root(value);
        let in_secrets = root.child("spec.serviceAccountTokenInSecrets");
        if !root.child("spec.tokenRequests").is_empty() && !in_secrets.is_set() {
            told.push(format!(
                "{in_secrets} is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes"
            ));
        }
        told
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        problems.one_of(
            &spec.child("fsGroupPolicy"),
            &["File", "None", "ReadWriteOnceWithFSType"],
        );
        token_requests(&spec, problems);
        let modes = spec.child("volumeLifecycleModes");
        for mode in spec.items("volumeLifecycleModes") {
            problems.one_of_as(&modes, mode.text(), &["Persistent", "Ephemeral"]);
        }
        let period = spec.child("nodeAllocatableUpdatePeriodSeconds");
        if let Some(seconds) = period.integer().filter(|n| *n < UPDATE_SECONDS_MIN) {
            let sentence = "must be greater than or equal to 10 seconds";
            problems.invalid(&period, seconds, sentence);
        }
        let in_secrets = spec.child("serviceAccountTokenInSecrets");
        if in_secrets.is_set() && spec.child("tokenRequests").is_empty() {
            let sentence = "serviceAccountTokenInSecrets is set but no tokenRequests are specified";
            problems.invalid(&in_secrets, in_secrets.shown(), sentence);
        }
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
        // Kubernetes' messages name this one so.
        let (spec, spec_before) = (root.child("spec"), before.child("spec"));
        problems.immutable(
            &spec.child_as("attachRequired", "attachedRequired"),
            &spec_before.child("attachRequired"),
        );
        let names = "spec.volumeLifecycleModes";
        problems.immutable(&root.child(names), &before.child(names));
    }
}

fn token_requests(spec: &Field<'_, '_>, problems: &mut Problems) {
    let mut audiences = BTreeSet::new();
    for request in spec.items("tokenRequests") {
        let audience = request.child("audience");
        if !audiences.insert(audience.text()) {
            problems.duplicate(&audience, audience.text());
            continue;
        }
        let expires = request.child("expirationSeconds");
        match expires.integer() {
            Some(seconds) if seconds < TOKEN_SECONDS_MIN => {
                let sentence = "may not specify a duration less than 10 minutes";
                problems.invalid(&expires, seconds, sentence);
            }
            Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
                let sentence = "may not specify a duration larger than 2^32 seconds";
                problems.invalid(&expires, seconds, sentence);
            }
            _ => {}
        }
    }
}

fn attach(row: &Row<'_>) -> Value {
    let asked = row.object.pointer("/spec/attachRequired");
    Value::from(asked.and_then(Value::as_bool).unwrap_or(true))
}

fn pod_info(row: &Row<'_>) -> Value {
    flag(row.object, "/spec/podInfoOnMount").into()
}

fn capacity(row: &Row<'_>) -> Value {
    flag(row.object, "/spec/storageCapacity").into()
}

fn republish(row: &Row<'_>) -> Value {
    flag(row.object, "/spec/requiresRepublish").into()
}

fn tokens(row: &Row<'_>) -> Value {
    match items(row.object, "/spec/tokenRequests") {
        [] => "<unset>".into(),
        requests => {
            let audiences = requests.iter().map(|request| text(request, "/audience"));
            audiences.collect::<Vec<_>>().join(",").into()
        }
    }
}

fn modes(row: &Row<'_>) -> Value {
    let modes = items(row.object, "/spec/volumeLifecycleModes").iter();
    let modes = modes.filter_map(Value::as_str).collect::<Vec<_>>();
    crate::columns::or_none(modes.join(","))
}
