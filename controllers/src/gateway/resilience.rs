//! The statuses of MeshPolicies and FaultInjections: whether they hold, and of the latter whether they are still at work.
//!
//! A FaultInjection ends by itself on every node, by the clock; its status is looked at again when it does.

use jiff::Timestamp;
use weft_gateway::{Compiled, Condition};

use super::{FaultInjection, MeshPolicy, conditions, name_of, status_of};
use crate::indexer::{Cached, Lens};
use crate::metadata::Key;
use crate::view::View;
use crate::write::Write;
use crate::{Context, Outcome, until};

pub(super) fn policy(
    view: &View,
    key: &Key,
    compiled: &Compiled,
    cx: &Context<'_>,
) -> Option<Write> {
    let row = view.get::<MeshPolicy>(key)?;
    let now = compiled.mesh_policies.get(&name_of(key))?;
    told(row, now, cx)
}

pub(super) fn fault(view: &View, key: &Key, compiled: &Compiled, cx: &Context<'_>) -> Outcome {
    let row = view.get::<FaultInjection>(key);
    let (Some(row), Some(now)) = (row, compiled.faults.get(&name_of(key))) else {
        return Outcome::default();
    };
    let ends = Timestamp::from_second(now.until).unwrap_or(Timestamp::MAX);
    let is_over = ends <= cx.now;
    let active = match (is_over, now.accepted.holds) {
        (true, _) => Condition::fails("Active", "Expired", format!("It ended at {ends}.")),
        (false, false) => Condition::fails(
            "Active",
            "PartiallyActive",
            format!("Calls of the targets that exist are spoiled until {ends}."),
        ),
        (false, true) => Condition::holds(
            "Active",
            "Active",
            format!("Calls are spoiled until {ends}."),
        ),
    };
    let mut outcome = Outcome::from_writes(
        told(row, &[now.accepted.clone(), active], cx)
            .into_iter()
            .collect(),
    );
    if !is_over {
        outcome.again_after(until(ends, cx.now));
    }
    outcome
}

fn told<K: Lens>(row: &Cached<K>, now: &[Condition], cx: &Context<'_>) -> Option<Write> {
    let before = status_of(row);
    let mut after = before.clone();
    after["conditions"] = conditions(&before["conditions"], now, row.meta.generation, cx);
    Write::status(row, before, &after)
}
