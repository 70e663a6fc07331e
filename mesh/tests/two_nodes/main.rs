//! Two meshes in one process, talking over loopback with certificates of one throw-away authority.

mod asked;
mod calls;
mod exposed;
mod faults;
mod gateway;
mod gateway_streams;
mod held;
mod led;
mod policies;
mod resilience;
mod seen;
mod streams;
mod world;
