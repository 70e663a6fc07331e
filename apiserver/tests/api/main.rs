//! The API as clients meet it: requests into the router, answers out, on a store in a temporary folder.
//!
//! Each test is a short conversation; what it proves is written as the text of the answers.

mod callers;
mod capabilities;
mod discovery;
mod events;
mod namespaces;
mod pods;
mod protobuf;
mod reads;
mod servers;
mod services;
#[path = "../world/mod.rs"]
mod world;
mod writes;
