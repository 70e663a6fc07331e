//! `apps`: workloads that keep pods running.

mod deployment;
mod replicaset;
pub(crate) mod workload;

pub use deployment::DEPLOYMENT;
pub use replicaset::REPLICA_SET;
