//! Ranges that addresses of Services are given out of: one of each family at most, and what is there stays.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::GROUP;
use crate::address::{canonical_range_faults, range};
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::items;
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, unserved};

pub static SERVICE_CIDR: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("CIDRs", ranges, "The ranges."),
            Column::age(),
        ],
        strategy: Arc::new(ServiceCidrs),
        ..Kind::new(GROUP, "v1", "ServiceCIDR", "servicecidrs")
    })
});

const RANGES_MAX: usize = 2;

struct ServiceCidrs;

impl Strategy for ServiceCidrs {
    fn warn(&self, _: &Value, _: &dyn Surroundings) -> Vec<String> {
        unserved::told_of(GROUP, "ServiceCIDR")
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        let all = root.child("spec.cidrs");
        match all.list() {
            [] => return problems.required(&all, "at least one CIDR required"),
            list if list.len() > RANGES_MAX => {
                let shown = json!({"CIDRs": list});
                return problems.invalid(&all, shown, "may only hold up to 2 values");
            }
            _ => {}
        }
        for one in spec.items("cidrs") {
            problems.rule(&one, canonical_range_faults);
        }
        let families: Vec<bool> = spec
            .items("cidrs")
            .filter_map(|one| Some(range(one.text())?.network().is_ipv4()))
            .collect();
        if matches!(families.as_slice(), [one, other] if one == other) {
            let sentence = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            problems.invalid(&all, all.shown(), sentence);
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        if part == Some(Subresource::Status) {
            return;
        }
        let root = Field::root(new);
        let spec = root.child("spec");
        let all = root.child("spec.cidrs");
        let kept = items(old, "/spec/cidrs");
        match (kept.len(), all.list().len()) {
            (before, now) if before == now => {
                for (one, kept) in spec.items("cidrs").zip(kept) {
                    if one.value() != Some(kept) {
                        problems.invalid(&one, one.text(), "field is immutable");
                    }
                }
            }
            // A cluster of one family becomes one of two.
            (1, 2) => {
                let first = spec.item("cidrs", 0);
                if first.value() != kept.first() {
                    problems.invalid(&first, first.text(), "field is immutable");
                }
                self.validate(new, problems);
            }
            _ => problems.invalid(&all, all.shown(), "field is immutable"),
        }
    }
}

fn ranges(row: &Row<'_>) -> Value {
    let ranges = items(row.object, "/spec/cidrs").iter();
    let ranges = ranges.filter_map(Value::as_str);
    ranges.collect::<Vec<_>>().join(",").into()
}
