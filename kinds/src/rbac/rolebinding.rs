//! Role bindings: who has a role, or a cluster role, in a namespace.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::{columns_of_bindings, default_binding, validate_binding, validate_same_role};
use crate::field::Field;
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static ROLE_BINDING: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        columns: columns_of_bindings(),
        strategy: Arc::new(RoleBindings),
        ..super::kind("RoleBinding", "rolebindings")
    })
});

struct RoleBindings;

impl Strategy for RoleBindings {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        default_binding(value);
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        validate_binding(&Field::root(new), &["Role", "ClusterRole"], true, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        self.validate(new, problems);
        validate_same_role(&Field::root(new), &Field::root(old), problems);
    }
}
