//! `networking.k8s.io`: what comes in, what may call what, and the addresses of Services.

mod ingress;
mod ingressclass;
mod ipaddress;
mod networkpolicy;
mod servicecidr;

pub use ingress::INGRESS;
pub use ingressclass::INGRESS_CLASS;
pub use ipaddress::IP_ADDRESS;
pub use networkpolicy::NETWORK_POLICY;
pub use servicecidr::SERVICE_CIDR;

const GROUP: &str = "networking.k8s.io";
/// What named the class before there was a field for it.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

#[cfg(test)]
mod tests;
