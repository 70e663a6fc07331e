//! The controllers from outside: their view, their table, their writes.

mod cases;
mod rollout;
mod world;
