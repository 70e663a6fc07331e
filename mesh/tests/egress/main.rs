//! Calls out of the cluster, to hosts on loopback addresses, through the whole of the mesh.

mod calls;
mod judged;
mod proven;
mod world;
