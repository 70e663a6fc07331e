//! `IPAddress`es: who holds an address of the Services' ranges. Its name is the address.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use super::GROUP;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::kind::NameRule;
use crate::lens::{object, text};
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static IP_ADDRESS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["ip".into()],
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::text("ParentRef", parent, "Who holds the address."),
            Column::age(),
        ],
        name_rule: NameRule::Address,
        strategy: Arc::new(IpAddresses),
        ..Kind::new(GROUP, "v1", "IPAddress", "ipaddresses")
    })
});

struct IpAddresses;

impl Strategy for IpAddresses {
    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let parent = root.child("spec.parentRef");
        if !parent.is_set() {
            return problems.required(&parent, "");
        }
        let group = parent.child("group");
        if !group.text().is_empty() {
            problems.rule(&group, name::dns1123_subdomain_faults);
        }
        for member in ["resource", "name", "namespace"] {
            problems.path_segment(&parent.child(member));
        }
        // Kubernetes tells of these last.
        for member in ["resource", "name"] {
            problems.required_text(&parent.child(member));
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
        problems.declared_immutable(
            &root.child("spec.parentRef"),
            &before.child("spec.parentRef"),
        );
    }
}

fn parent(row: &Row<'_>) -> Value {
    const PARENT: &str = "/spec/parentRef";
    if object(row.object, PARENT).is_none() {
        return "<none>".into();
    }
    let member = |name: &str| text(row.object, &format!("{PARENT}/{name}"));
    let mut shown = match member("group") {
        "" => member("resource").to_lowercase(),
        group => format!("{}.{group}", member("resource")).to_lowercase(),
    };
    for part in [member("namespace"), member("name")] {
        if !part.is_empty() {
            shown.push('/');
            shown.push_str(part);
        }
    }
    shown.into()
}
