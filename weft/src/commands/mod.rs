//! A file for each command: its arguments, its work and its output together.

pub mod apply;
pub mod attach;
pub mod cp;
pub mod debug;
pub mod delete;
pub mod exec;
pub mod get;
pub mod hollow;
pub mod images;
pub mod kinds;
pub mod kubeconfig;
pub mod load;
pub mod logs;
pub mod manifest;
pub mod mesh;
pub mod node;
pub mod output;
pub mod pods;
pub mod port_forward;
pub mod push;
pub mod server;
pub mod up;
pub mod why;
pub mod worker;
