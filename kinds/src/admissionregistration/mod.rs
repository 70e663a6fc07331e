//! `admissionregistration.k8s.io/v1`: how admission is configured.
//!
//! Left to others: what is made of it (`crate::admission`).

mod binding;
mod policy;
mod rules;
mod webhook;

pub use binding::{MUTATING_ADMISSION_POLICY_BINDING, VALIDATING_ADMISSION_POLICY_BINDING};
pub use policy::{MUTATING_ADMISSION_POLICY, VALIDATING_ADMISSION_POLICY, type_warnings};
pub use webhook::{MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_WEBHOOK_CONFIGURATION};

use crate::field::Field;
use crate::kind::Kind;
use crate::strategy::Strategy;
use crate::validate::Problems;

const GROUP: &str = "admissionregistration.k8s.io";

fn kind(
    name: &'static str,
    resource: &'static str,
    columns: Vec<crate::Column>,
    strategy: impl Strategy + 'static,
) -> Kind {
    Kind {
        namespaced: false,
        categories: vec!["api-extensions".into()],
        counts_generations: true,
        columns,
        strategy: std::sync::Arc::new(strategy),
        ..Kind::new(GROUP, "v1", name, resource)
    }
}

/// Names with this end are of configurations that come with a server's own files.
fn static_name(root: &Field<'_, '_>, problems: &mut Problems) {
    const END: &str = ".static.k8s.io";
    let name = root.child("metadata.name");
    if name.text().ends_with(END) {
        let sentence = format!(
            "names ending with {END:?} are reserved for static manifest-based configurations and cannot be managed via the API"
        );
        problems.invalid(&name, name.text(), &sentence);
    }
}
