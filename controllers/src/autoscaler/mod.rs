//! HorizontalPodAutoscalers: the size of a workload follows what its pods use, or how often they and a Service are called ([`calls`]).
//!
//! Any kind with a `scale` subresource can be a target, of users' kinds, too ([`target`]). A look reads usage as it was
//! handed in ([`crate::usage`]), makes of each metric a size ([`metric`], with the arithmetic in [`ratio`]), takes the largest, and
//! keeps it within the bounds that the object and its recent past set ([`limits`]). That past does not show in any object;
//! the loop keeps it between two looks ([`Past`]), and a new leader begins without it, as Kubernetes' controller does.
//!
//! A target without a replica is brought back by a call, sooner than by a look (`weft_apiserver`'s Activations); the look after it sees that, and lets
//! it be for its own time.
//!
//! Invariants: a look every [`PERIOD`], whatever changes meanwhile, so that a change of the status is no reason for another one; a
//! target is shrunk only if every metric could be read. Left to others: the pods (`replicaset` and its like), reading usage (`weft_apiserver`).

mod calls;
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
use weft_kinds::autoscaling::wake;
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

/// Whether anybody asks for what is counted of calls.
pub fn wants_calls(view: &View) -> bool {
    view.list::<Autoscaler>()
        .any(|row| row.body.goes_by_calls())
}

/// The first autoscaler by name that a call of a Service wakes.
pub fn waker(view: &View, service: &Key) -> Option<String> {
    let all = view.list_in::<Autoscaler>(&service.namespace);
    let wakes = all.filter(|row| row.body.wakes.iter().any(|name| **name == *service.name));
    wakes.map(|row| row.key.name.to_string()).min()
}

/// Whether anybody asks for usage.
pub fn wants_usage(view: &View) -> bool {
    !view.indexer::<Autoscaler>().is_empty()
}

/// An autoscaler.
#[derive(Debug)]
pub struct Autoscaler {
    pub spec: v2::HorizontalPodAutoscalerSpec,
    pub status: v2::HorizontalPodAutoscalerStatus,
    /// The Services whose calls bring its target back from no replica.
    pub wakes: Vec<String>,
}

impl Autoscaler {
    /// Whether it goes by what is counted of calls.
    pub(crate) fn goes_by_calls(&self) -> bool {
        let mut metrics = self.spec.metrics.iter().flatten();
        metrics.any(|metric| matches!(&*metric.type_, "Pods" | "Object"))
    }
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
            wakes: wake::services(object.as_value())
                .map(str::to_owned)
                .collect(),
        })
    }
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(row) = view.get::<Autoscaler>(key) else {
        // Nothing is left to remember.
        return Outcome {
            past: Some(crate::Past::Nothing),
            ..Outcome::default()
        };
    };
    let past = Past::of(row, cx.past);
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
