//! What upstream's conformance suite of the Gateway API asks of HTTP, HTTPS, gRPC, TLS and TCP, in process: manifests are compiled, their listeners
//! served on real sockets, and requests made to them.
//!
//! The names of the cases are those of the suite's tests, whose rules they hold in a few requests each. Their number is held, too: a case
//! that goes takes its rule along.

mod bytes;
mod cases;
mod streams;
mod world;
