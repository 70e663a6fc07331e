//! Options of a socket that a virtual network keeps and has no use for: what is set is what is said.
//!
//! Invariant: what the interfaces forbid is refused, and what they allow to be rounded is kept as it was set.

use wasmtime_wasi::sockets::ErrorCode;

/// As Linux has them.
const KEEP_ALIVE_IDLE_NANOS: u64 = 7_200_000_000_000;
const KEEP_ALIVE_INTERVAL_NANOS: u64 = 75_000_000_000;
const KEEP_ALIVE_COUNT: u32 = 9;
const HOP_LIMIT: u8 = 64;

/// See the module's promise.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) keep_alive: bool,
    pub(super) keep_alive_idle: u64,
    pub(super) keep_alive_interval: u64,
    pub(super) keep_alive_count: u32,
    pub(super) hop_limit: u8,
    pub(super) receive_buffer: u64,
    pub(super) send_buffer: u64,
}

impl Options {
    /// Buffers are of `buffer` bytes until they are said to be others.
    pub(super) fn new(buffer: usize) -> Options {
        Options {
            keep_alive: false,
            keep_alive_idle: KEEP_ALIVE_IDLE_NANOS,
            keep_alive_interval: KEEP_ALIVE_INTERVAL_NANOS,
            keep_alive_count: KEEP_ALIVE_COUNT,
            hop_limit: HOP_LIMIT,
            receive_buffer: buffer as u64,
            send_buffer: buffer as u64,
        }
    }
}

/// Sets one; none of them may be zero.
pub(super) fn set<T: Default + PartialEq>(option: &mut T, value: T) -> Result<(), ErrorCode> {
    if value == T::default() {
        return Err(ErrorCode::InvalidArgument);
    }
    *option = value;
    Ok(())
}
