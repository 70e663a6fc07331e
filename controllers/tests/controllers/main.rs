//! The controllers from outside: their view, their table, their writes.

mod cases;
mod hostile;
mod rollout;
mod silence;
mod world;
