//! The API as clients meet it: requests into the router, answers out, on a store in a temporary folder.
//!
//! Each test is a short conversation; what it proves is written as the text of the answers.

mod admission;
mod apply;
mod callers;
mod capabilities;
mod definitions;
mod discovery;
mod events;
mod furniture;
mod kinds;
mod lists;
mod namespaces;
mod pods;
mod protobuf;
mod reads;
mod servers;
mod services;
mod sockets;
mod workloads;
#[path = "../world/mod.rs"]
mod world;
mod writes;
