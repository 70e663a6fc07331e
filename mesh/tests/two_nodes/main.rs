//! Two meshes in one process, talking over loopback with certificates of one throw-away authority.

mod asked;
mod calls;
mod exposed;
mod faults;
mod gateway;
mod gateway_streams;
mod grpc;
mod held;
mod led;
mod limits;
mod policies;
mod resilience;
mod rotation;
mod seen;
mod streams;
mod withdrawn;
mod world;
