//! The real binary with real clients: what a user does, step by step, and what must hold meanwhile.

mod attacks;
mod availability;
mod bad_input;
mod capabilities;
mod chaos;
mod cli;
mod client;
mod disk;
mod environment;
mod first_hour;
mod history;
mod isolation;
mod kubectl;
mod lifecycle;
mod load;
mod members;
mod mesh;
mod pods;
mod pulls;
mod python;
mod registry;
mod secrets;
mod servers;
mod stopped;
mod usage;
mod volumes;
