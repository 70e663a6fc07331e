//! Every controller against the real object verbs: what they write, and what a cluster becomes by it.
//!
//! They are here and not in the controllers' crate because only the binary's crate knows both.

mod autoscalers;
mod behind_services;
mod budgets;
mod calls;
mod cases;
mod cronjobs;
mod endpoint_slices;
mod gateway_api;
mod hostile;
mod jobs;
mod manifests;
mod mesh_policies;
mod ownership;
mod rollout;
mod rollouts;
mod silence;
mod simulation;
mod workloads;
mod world;
