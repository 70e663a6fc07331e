//! Cluster roles: what may be done anywhere, or in the namespaces that they are bound in; some gather the rules of others.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::{columns_of_roles, validate_rules, validate_verbs};
use crate::Kind;
use crate::field::Field;
use crate::lens::none_when_empty;
use crate::strategy::Strategy;
use crate::validate::{Problems, label_selector};

pub static CLUSTER_ROLE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        columns: columns_of_roles(),
        strategy: Arc::new(ClusterRoles),
        ..super::kind("ClusterRole", "clusterroles")
    })
});

struct ClusterRoles;

impl Strategy for ClusterRoles {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn settle(&self, next: &mut Value, _: Option<&Value>) {
        none_when_empty(next, "rules");
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        validate_rules(&root, false, problems);
        let aggregation = root.child("aggregationRule");
        if aggregation.is_set() {
            let selectors = aggregation.child("clusterRoleSelectors");
            if selectors.is_empty() {
                let sentence =
                    "at least one clusterRoleSelector required if aggregationRule is non-nil";
                problems.required(&selectors, sentence);
            }
            for selector in aggregation.items("clusterRoleSelectors") {
                let before = problems.count();
                label_selector(&selector, problems);
                if problems.count() > before {
                    problems.invalid(&selector, Value::Null, "invalid label selector.");
                }
            }
        }
        validate_verbs(&root, problems);
    }
}
