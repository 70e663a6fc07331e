//! Templates that claims of devices are made from, one for each pod.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::{GROUP, claim};
use crate::field::Field;
use crate::lens::member;
use crate::strategy::{Strategy, Surroundings};
use crate::validate::{Problems, annotations, labels};
use crate::{Kind, Subresource, unserved};

pub static RESOURCE_CLAIM_TEMPLATE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        strategy: Arc::new(Templates),
        ..Kind::new(
            GROUP,
            "v1",
            "ResourceClaimTemplate",
            "resourceclaimtemplates",
        )
    })
});

struct Templates;

impl Strategy for Templates {
    fn default(&self, value: &mut Value) {
        let spec = member(member(value, "spec"), "spec");
        claim::default(member(spec, "devices"));
    }

    fn settle(&self, next: &mut Value, _: Option<&Value>) {
        claim::settle(next.pointer_mut("/spec/spec"));
    }

    fn warn(&self, _: &Value, _: &dyn Surroundings) -> Vec<String> {
        unserved::told_of(GROUP, "ResourceClaimTemplate")
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        annotations(&root.child("spec.metadata.annotations"), problems);
        labels(&root.child("spec.metadata.labels"), problems);
        claim::validate(&root.child("spec.spec.devices"), problems);
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
        let spec = root.child("spec");
        if spec.value() != before.child("spec").value() {
            let shown = json!({"Spec": spec.child("spec").shown()});
            problems.invalid(&spec, shown, "field is immutable");
        }
    }
}
