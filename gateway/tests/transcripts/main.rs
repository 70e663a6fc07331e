//! Small clusters in, routes and statuses out: what the nodes serve and what the statuses say of it, side by side.

mod bytes;
mod gateways;
mod policies;
mod routes;
mod told;
