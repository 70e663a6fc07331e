//! What is known of a call that is judged. Whoever makes one vouches for it: nothing here is what a guest said of itself.

use std::net::IpAddr;

use http::HeaderMap;

use crate::token::Claims;

/// One call, request or connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    /// Who calls, as far as that is proven.
    pub principal: Option<Principal<'a>>,
    /// Where the caller is.
    pub source_ip: Option<IpAddr>,
    /// Where the client is on whose behalf a gateway calls; the caller's where no gateway is between.
    pub remote_ip: Option<IpAddr>,
    pub destination_ip: Option<IpAddr>,
    /// Of the pod, not of a Service before it.
    pub destination_port: u16,
    /// The name by which a client of TLS asked.
    pub sni: Option<&'a str>,
    /// None for what is no HTTP.
    pub request: Option<Request<'a>>,
}

/// An identity, in its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Principal<'a> {
    /// `TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
    pub text: &'a str,
    pub namespace: &'a str,
    pub service_account: &'a str,
}

impl<'a> Principal<'a> {
    pub(crate) fn trust_domain(&self) -> &'a str {
        self.text.split('/').next().unwrap_or_default()
    }
}

/// What HTTP says of a call.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a str,
    /// With its port, where it was written.
    pub host: &'a str,
    /// In the one form in which paths are compared, without the query.
    pub path: &'a str,
    pub headers: &'a HeaderMap,
    /// Of the token that was proven, if one was.
    pub claims: Option<&'a Claims>,
}
