//! HorizontalPodAutoscalers: the size of a workload follows what its pods use.
//!
//! Any kind with a `scale` subresource can be a target, of users' kinds, too ([`target`]). A look reads usage as it was
//! handed in ([`crate::usage`]), makes of each metric a size ([`metric`], with the arithmetic in [`ratio`]), takes the largest, and
//! keeps it within the bounds that the object and its recent past set ([`limits`]). That past does not show in any object;
//! the loop keeps it between two looks ([`Past`]), and a new leader begins without it, as Kubernetes' controller does.
//!
//! Invariants: a look every [`PERIOD`], whatever changes meanwhile, so that a change of the status is no reason for another one; a
//! target is shrunk only if every metric could be read. Left to others: the pods (`replicaset` and its like), reading usage (`weft_apiserver`).

mod limits;
mod metric;
mod pass;
mod past;
mod ratio;
mod requests;
mod target;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2;
use weft_api::object::{Object, ObjectError};
use weft_kinds::{HORIZONTAL_POD_AUTOSCALER, Kind};

use self::pass::Pass;
pub use self::past::Past;
pub use self::requests::Requests;
use self::target::Scales;
use crate::indexer::Lens;
use crate::lens::typed;
use crate::metadata::Key;
use crate::pod::Pod;
use crate::view::View;
use crate::{Context, Controller, Outcome, plus_seconds, until};

pub const CONTROLLER: Controller = Controller {
    name: "horizontal-pod-autoscaler",
    reads: |reads| {
        reads.kind::<Autoscaler>().kind::<Pod>().track::<Scales>();
    },
    keys: |_, touched| {
        let ours = touched.is_of(&HORIZONTAL_POD_AUTOSCALER);
        ours.then(|| touched.key.clone()).into_iter().collect()
    },
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let all = view.list::<Autoscaler>();
        all.map(|row| row.key.clone()).collect()
    },
    subject: |view, key| {
        let found = view.object_of(&HORIZONTAL_POD_AUTOSCALER, key)?;
        Some(found.reference())
    },
    reconcile,
};

/// Kubernetes' `--horizontal-pod-autoscaler-sync-period`.
const PERIOD: Duration = Duration::from_secs(15);
/// How long the first reading of usage is waited for.
const USAGE_PAUSE: Duration = Duration::from_secs(1);

/// Whether anybody asks for usage.
pub fn wants_usage(view: &View) -> bool {
    !view.indexer::<Autoscaler>().is_empty()
}

/// An autoscaler.
#[derive(Debug)]
pub struct Autoscaler {
    pub spec: v2::HorizontalPodAutoscalerSpec,
    pub status: v2::HorizontalPodAutoscalerStatus,
}

impl Lens for Autoscaler {
    fn kind() -> &'static Arc<Kind> {
        &HORIZONTAL_POD_AUTOSCALER
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let typed: v2::HorizontalPodAutoscaler = typed(object)?;
        Ok(Self {
            spec: typed.spec,
            status: typed.status.unwrap_or_default(),
        })
    }
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(row) = view.get::<Autoscaler>(key) else {
        // Nothing is left to remember.
        return Outcome {
            past: Some(Past::default()),
            ..Outcome::default()
        };
    };
    let past = cx.past.of(row);
    if let Some(last) = past.looked_at(row.meta.generation) {
        let next = plus_seconds(last, PERIOD.as_secs().cast_signed());
        if next > cx.now {
            let mut outcome = Outcome::default();
            outcome.again_after(until(next, cx.now));
            return outcome;
        }
    }
    let mut outcome = match Pass::new(row, view, cx, past).run() {
        Some(outcome) => outcome,
        None => {
            let mut outcome = Outcome::default();
            outcome.again_after(USAGE_PAUSE);
            return outcome;
        }
    };
    outcome.again_after(PERIOD);
    outcome
}
