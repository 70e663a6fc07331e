//! What a node adds to what its pods ask for. Pure.

use std::net::IpAddr;

/// Memory a container may use when it sets no limit: enough for any sane component, far from a node's.
pub const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
/// Smallest memory limit that can be kept: one 64 KiB page of linear memory and the tables beside it.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Smallest limit of CPU that is kept, in thousandths of a core: a millisecond in each tenth of a second, as with a kubelet.
pub const CPU_MILLIS_MIN: u32 = 10;

/// The facts of a node that containers are configured by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: String,
    pub host_ip: IpAddr,
    pub allocatable_cpu_millis: u64,
    pub allocatable_memory_bytes: u64,
}

impl NodeFacts {
    /// What a container without a limit is held to.
    pub fn memory_bytes_default(&self) -> u64 {
        MEMORY_BYTES_DEFAULT.min(self.allocatable_memory_bytes.max(MEMORY_BYTES_MIN))
    }
}
