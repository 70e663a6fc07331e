//! Two meshes in one process, talking over loopback with certificates of one throw-away authority.

mod calls;
mod faults;
mod fronts;
mod gateway;
mod streams;
mod world;
