//! `apps`: workloads that keep pods running.

pub(crate) mod amount;
mod controllerrevision;
mod daemonset;
mod deployment;
mod replicaset;
mod statefulset;
pub(crate) mod workload;

pub use controllerrevision::CONTROLLER_REVISION;
pub use daemonset::DAEMON_SET;
pub use deployment::DEPLOYMENT;
pub use replicaset::REPLICA_SET;
pub use statefulset::STATEFUL_SET;
