//! The API as clients meet it: requests into the router, answers out, on a store in a temporary folder.
//!
//! Each test is a short conversation; what it proves is written as the text of the answers.

mod access;
mod activations;
mod admission;
mod aggregation;
mod apply;
mod attacks;
mod audit;
mod call_metrics;
mod callers;
mod capabilities;
mod certificates;
mod conversion;
mod custom;
mod dashboard;
mod definitions;
mod discovery;
mod events;
mod evictions;
mod flow_control;
mod furniture;
mod gateway_api;
mod hook;
mod impostors;
mod issuers;
mod istio;
mod kinds;
mod lists;
mod mesh_edges;
mod mesh_policies;
mod mutations;
mod namespaces;
mod pods;
mod protobuf;
mod reads;
mod resize;
mod roles;
mod rollouts;
mod servers;
mod services;
mod sockets;
mod statuses;
mod strangers;
mod streams;
mod stub_node;
mod tokens;
mod workloads;
#[path = "../world/mod.rs"]
mod world;
mod writes;
