//! What an authority means inside the cluster, as seen from a namespace. Pure.
//!
//! ```text
//! voting                          service voting of the caller's namespace
//! voting.vote                     service voting of namespace vote
//! voting.vote.svc                 the same
//! voting.vote.svc.cluster.local   the same
//! 10.43.0.7                       the service with that ClusterIP
//! 10.42.1.5:8080                  that port of that pod, whether a service leads to it or not; routes do not apply
//! ```
//! A service that stands for another name (`ExternalName`) is the service of that name, as written in full with `.svc`, at the port
//! that is asked for; what it stands for outside of the cluster is called by its own name, as it is granted.
//!
//! A dot at the end is allowed, case does not matter. Everything else is outside the cluster. What looks like a
//! name of ours but has no service behind it is `UnknownService`, so that a typo does not read as a policy.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use http::{
    Request, Uri, header,
    uri::{Authority, Scheme},
};

use weft_call::{Failure, FailureKind};

use crate::{
    failure::{self, bad_request},
    table::{Endpoint, Protocol, Service, Table},
};

/// Names that stand for names that are followed: a circle of them has no end.
const ALIASES_MAX: usize = 4;

/// Where a call wants to go.
#[derive(Debug, Clone)]
pub(crate) enum Target<'t> {
    Service {
        service: &'t Arc<Service>,
        port: u16,
    },
    Pod(&'t Arc<Endpoint>),
    /// Of a pod that no service leads to, its address.
    Address(Arc<Endpoint>),
}

/// Gives a workload's request an absolute URI, from its own or from the host header; returns the port its scheme implies.
pub(crate) fn absolute<B>(request: &mut Request<B>) -> Result<u16, Failure> {
    let bad = bad_request;
    let scheme = request.uri().scheme().cloned().unwrap_or(Scheme::HTTP);
    let default_port = if scheme == Scheme::HTTPS { 443 } else { 80 };
    if request.uri().authority().is_some() && request.uri().scheme().is_some() {
        return Ok(default_port);
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    if parts.authority.is_none() {
        let mut lines = request.headers().get_all(header::HOST).iter();
        let host = lines.next().ok_or_else(|| bad("it names no host"))?;
        // Who reads the other line than we do would serve another site (RFC 9112 §3.2).
        if lines.next().is_some() {
            return Err(bad("it names more than one host"));
        }
        let authority =
            Authority::try_from(host.as_bytes()).map_err(|_| bad("its host is not valid"))?;
        parts.authority = Some(authority);
    }
    parts.scheme = Some(scheme);
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad("its URI is not valid"))?;
    Ok(default_port)
}

/// Resolves `authority` for a caller in `namespace`; `default_port` is that of the scheme.
pub(crate) fn authority<'t>(
    table: &'t Table,
    authority: &Authority,
    default_port: u16,
    namespace: &str,
    cluster_domain: &str,
) -> Result<Target<'t>, Failure> {
    let denied = || failure::denied(authority.as_str());
    let found = named(
        table,
        authority,
        default_port,
        namespace,
        cluster_domain,
        denied,
    )?;
    // Nobody here has users, and what is before an `@` is there to be taken for the host (RFC 9110 §4.2.4).
    if authority.as_str().contains('@') {
        return Err(bad_request("its host names a user"));
    }
    Ok(found)
}

fn named<'t>(
    table: &'t Table,
    authority: &Authority,
    default_port: u16,
    namespace: &str,
    cluster_domain: &str,
    denied: impl Fn() -> Failure,
) -> Result<Target<'t>, Failure> {
    let port = authority.port_u16().unwrap_or(default_port);
    let host = authority.host();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        if let Some(service) = table.service_by_ip(ip) {
            return service_port(service, port);
        }
        // As a client outside of the cluster says it.
        if let Some((service, port)) = table.behind(Protocol::Tcp, (ip, port).into()) {
            return Ok(Target::Service { service, port });
        }
        return match table.endpoint((ip, port).into()) {
            Some(endpoint) => Ok(Target::Pod(endpoint)),
            None => {
                let pod = table.pod_at((ip, port).into());
                pod.map(Target::Address).ok_or_else(denied)
            }
        };
    }

    let host = host_name(host);
    let (short, ours) = match split_domain(&host, cluster_domain) {
        Some(short) => (short, true),
        None => (&*host, false),
    };
    let mut labels = short.split('.');
    let (name, of) = match (labels.next(), labels.next(), labels.next()) {
        (Some("localhost"), None, None) => return Err(denied()),
        (Some(name), None, None) if !ours => (name, namespace),
        (Some(name), Some(of), None) => (name, of),
        _ => return Err(denied()),
    };
    match table.service(of, name) {
        Some(service) => match service.alias() {
            None => service_port(service, port),
            Some(alias) => aliased(table, alias, port, cluster_domain),
        },
        // `example.com` has the shape of a service in a namespace; the namespace tells them apart.
        None if ours || of == namespace || table.has_namespace(of) => {
            Err(unknown_service(name, of))
        }
        None => Err(denied()),
    }
}

/// What a service stands for, which may stand for another.
fn aliased<'a>(
    table: &'a Table,
    mut alias: &'a str,
    port: u16,
    cluster_domain: &str,
) -> Result<Target<'a>, Failure> {
    for _ in 0..ALIASES_MAX {
        let host = host_name(alias);
        let outside = || stands_for_outside(&host);
        let short = split_domain(&host, cluster_domain).ok_or_else(outside)?;
        let (name, namespace) = short.split_once('.').ok_or_else(outside)?;
        let service = table.service(namespace, name);
        let service = service.ok_or_else(|| unknown_service(name, namespace))?;
        match service.alias() {
            None => return service_port(service, port),
            Some(next) => alias = next,
        }
    }
    Err(failure::bad_request(
        "its host stands for a name that stands for another, and so on",
    ))
}

/// What is granted is the name that is called, and TLS proves that one: an alias for it would be neither.
fn stands_for_outside(host: &str) -> Failure {
    Failure::new(
        FailureKind::UnknownService,
        format!(
            "the service stands for {host}, which is outside of the cluster: call it by that name"
        ),
    )
}

fn unknown_service(name: &str, namespace: &str) -> Failure {
    Failure::new(
        FailureKind::UnknownService,
        format!("there is no service {name}.{namespace}"),
    )
}

fn service_port(service: &Arc<Service>, port: u16) -> Result<Target<'_>, Failure> {
    if service.port(port).is_none() {
        let served = service.shown_ports();
        return Err(Failure::new(
            FailureKind::UnknownPort,
            format!("service {service} has no port {port}; it has {served}"),
        ));
    }
    Ok(Target::Service { service, port })
}

/// `a.b` of `a.b.svc` and `a.b.svc.cluster.local`.
fn split_domain<'h>(host: &'h str, cluster_domain: &str) -> Option<&'h str> {
    let without = host
        .strip_suffix(cluster_domain)
        .and_then(|rest| rest.strip_suffix('.'))
        .unwrap_or(host);
    without.strip_suffix(".svc")
}

/// The service that the gateway's fallback host `<service>.<namespace>.localhost` names.
pub(crate) fn fallback_host<'t>(table: &'t Table, host: &str) -> Option<Target<'t>> {
    let host = host_name(host);
    let (name, namespace) = host.strip_suffix(".localhost")?.split_once('.')?;
    let service = table.service(namespace, name)?;
    let port = service.default_port()?;
    Some(Target::Service { service, port })
}

/// A host as names are compared: in lower case, without the dot that ends a full name. Most are so already.
pub(crate) fn host_name(host: &str) -> Cow<'_, str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::testing::{self, endpoint, service};

    #[test]
    fn names_as_kubernetes_users_write_them() {
        let table = testing::table("a")
            .service(service("vote", "voting").cluster_ip("10.43.0.7").build())
            .service(
                service("shop", "cart")
                    .endpoints(vec![endpoint("shop", "cart-0", "10.42.0.2", "a")])
                    .build(),
            )
            .service(
                service("vote", "basket")
                    .alias("Cart.shop.svc.cluster.local.")
                    .build(),
            )
            .service(service("vote", "twice").alias("basket.vote.svc").build())
            .service(service("vote", "circle").alias("circle.vote.svc").build())
            .service(service("vote", "gone").alias("nothing.shop.svc").build())
            .service(service("vote", "outside").alias("api.example.com").build())
            .build();
        let cases = [
            ("basket", "cart.shop"),
            ("basket.vote.svc:80", "cart.shop"),
            ("basket:81", "service cart.shop has no port 81; it has 80"),
            ("gone", "there is no service nothing.shop"),
            ("twice", "cart.shop"),
            (
                "circle",
                "the request is not acceptable: its host stands for a name that stands for another, and so on",
            ),
            (
                "outside",
                "the service stands for api.example.com, which is outside of the cluster: call it by that name",
            ),
            ("voting", "voting.vote"),
            ("voting:80", "voting.vote"),
            ("Voting.", "voting.vote"),
            ("voting.vote", "voting.vote"),
            ("cart.shop", "cart.shop"),
            ("cart.shop.svc", "cart.shop"),
            ("voting.vote.svc.cluster.local", "voting.vote"),
            ("voting.vote.svc.cluster.local.:80", "voting.vote"),
            ("10.43.0.7", "voting.vote"),
            (
                "10.43.0.9",
                "10.43.0.9 is outside the cluster and no policy allows it",
            ),
            ("10.42.0.1:8080", "pod voting-0"),
            (
                "10.42.0.1:1",
                "10.42.0.1:1 is outside the cluster and no policy allows it",
            ),
            ("cart", "there is no service cart.vote"),
            ("nothing.shop", "there is no service nothing.shop"),
            ("nothing.void.svc", "there is no service nothing.void"),
            ("voting:81", "service voting.vote has no port 81; it has 80"),
            (
                "user@voting",
                "the request is not acceptable: its host names a user",
            ),
            (
                "voting@example.com",
                "voting@example.com is outside the cluster and no policy allows it",
            ),
            (
                "example.com",
                "example.com is outside the cluster and no policy allows it",
            ),
            (
                "api.example.com:443",
                "api.example.com:443 is outside the cluster and no policy allows it",
            ),
            (
                "localhost",
                "localhost is outside the cluster and no policy allows it",
            ),
            (
                "[::1]:80",
                "[::1]:80 is outside the cluster and no policy allows it",
            ),
            (
                "a.voting.vote.svc",
                "a.voting.vote.svc is outside the cluster and no policy allows it",
            ),
        ];
        for (text, expected) in cases {
            let parsed: Authority = text.parse().expect("an authority");
            let found = match authority(&table, &parsed, 80, "vote", "cluster.local") {
                Ok(Target::Service { service, .. }) => service.display_name().to_owned(),
                Ok(Target::Pod(endpoint)) => format!("pod {}", endpoint.pod),
                Ok(Target::Address(endpoint)) => format!("address {}", endpoint.pod),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn the_fallback_host_names_a_service() {
        let table = testing::table("a")
            .service(service("vote", "web").port(8080).build())
            .build();
        for (host, port) in [
            ("web.vote.localhost", Some(8080)),
            ("WEB.vote.localhost", Some(8080)),
            ("web.localhost", None),
            ("x.web.vote.localhost", None),
            ("web.vote", None),
            ("nothing.vote.localhost", None),
        ] {
            let found = fallback_host(&table, host).map(|target| match target {
                Target::Service { port, .. } => port,
                Target::Pod(_) | Target::Address(_) => 0,
            });
            assert_eq!(found, port, "{host}");
        }
    }
}
