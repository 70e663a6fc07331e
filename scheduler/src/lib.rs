//! Placement: choose a node for every pending pod, or say why there is none and who would have to go.
//!
//! A [`Snapshot`] is kept up change by change; [`Snapshot::plan`] returns a [`Plan`] and counts what it placed. No clock, no I/O, and no
//! chance but the seed that is handed in: equal state, equal plan. Flow: `pending → class → filter → score → count on the node → next pod`.
//!
//! What makes it cheap at any size: pods that are alike are one class ([`class`]); what rules say of other pods is counted once for all
//! who ask ([`counters`]); nodes that look alike to a class are judged once ([`rules`]), and are in order for it ([`index`]).
//!
//! Invariants: no plan over-commits a node; a pod is refused only if every node refuses it; a pod that already has a node, is ending
//! or is gated is not placed; who has to go is less urgent than the pod that comes, and breaks a budget only where nothing else helps.
//! Left to others: whose turn it is, writing bindings and telling refusals (`weft::control_loop`).

mod class;
mod counters;
mod counting;
mod explain;
mod filter;
mod index;
mod node;
mod place;
mod pod;
mod pool;
mod preempt;
mod resources;
mod rules;
mod score;
mod snapshot;
mod term;
mod topology;
mod volume;

pub use explain::{Refusal, Why};
pub use filter::{Hints, Reason};
pub use node::NodeFacts;
pub use place::{Placement, Plan};
pub use pod::{HostPort, PodFacts, PodNeeds};
pub use preempt::{Budget, Preemption, Victim};
pub use resources::Resources;
pub use snapshot::Snapshot;
pub use term::{Spread, Term};
pub use volume::{ClaimFacts, Storage, VolumeFacts, VolumeNeeds};

#[cfg(test)]
mod tests;
