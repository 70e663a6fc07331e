//! Roles: what may be done in a namespace.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::{columns_of_roles, validate_rules, validate_verbs};
use crate::Kind;
use crate::field::Field;
use crate::lens::none_when_empty;
use crate::strategy::Strategy;
use crate::validate::Problems;

pub static ROLE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        columns: columns_of_roles(),
        strategy: Arc::new(Roles),
        ..super::kind("Role", "roles")
    })
});

struct Roles;

impl Strategy for Roles {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn settle(&self, next: &mut Value, _: Option<&Value>) {
        none_when_empty(next, "rules");
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        validate_rules(&root, true, problems);
        validate_verbs(&root, problems);
    }
}
