//! Cluster role bindings: who has a cluster role everywhere.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::{columns_of_bindings, default_binding, validate_binding, validate_same_role};
use crate::field::Field;
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static CLUSTER_ROLE_BINDING: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        columns: columns_of_bindings(),
        strategy: Arc::new(ClusterRoleBindings),
        ..super::kind("ClusterRoleBinding", "clusterrolebindings")
    })
});

struct ClusterRoleBindings;

impl Strategy for ClusterRoleBindings {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        default_binding(value);
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        validate_binding(&Field::root(new), &["ClusterRole"], false, problems);
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
