//! Two meshes in one process, talking over loopback with certificates of one throw-away authority.

mod calls;
mod gateway;
mod world;
