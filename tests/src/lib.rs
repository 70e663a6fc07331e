//! What the end-to-end tests share: a running cluster, and the clients that talk to it.
//!
//! [`cluster::Cluster`] is the real binary with a data folder of its own and free ports; dropping it ends
//! it. [`clients`] fetches client programs from package registries into `target/clients`.

pub mod clients;
pub mod cluster;
pub mod servers;
