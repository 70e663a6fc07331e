//! `cargo xtask conformance`: upstream's own suites and controllers, unmodified, against a cluster of weft.

mod flagger;
mod gateway_api;
mod kubernetes;
mod opentelemetry;

use anyhow::Result;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(clap::Subcommand)]
enum Suite {
    /// The conformance tests of k8s.io/kubernetes
    Kubernetes(kubernetes::Args),
    /// The tests of NetworkPolicy of k8s.io/kubernetes
    Netpol(kubernetes::Args),
    /// The conformance tests of sigs.k8s.io/gateway-api
    GatewayApi(gateway_api::Args),
    /// Jaeger, which receives traces by OpenTelemetry's protocol
    Opentelemetry(opentelemetry::Args),
    /// Flagger, which brings images out by the Gateway API
    Flagger(flagger::Args),
}

/// Runs a suite.
///
/// # Errors
/// As the suite's own.
pub fn run(args: &Args) -> Result<()> {
    match &args.suite {
        Suite::Kubernetes(args) => kubernetes::run(args, kubernetes::Part::Conformance),
        Suite::Netpol(args) => kubernetes::run(args, kubernetes::Part::Netpol),
        Suite::GatewayApi(args) => gateway_api::run(args),
        Suite::Opentelemetry(args) => opentelemetry::run(args),
        Suite::Flagger(args) => flagger::run(args),
    }
}
