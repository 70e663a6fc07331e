//! Which kind of route a port of a Service has, where routes of several kinds want it. Pure.
//!
//! A port is reached in one way: of the kinds that want it for the same callers, the most specific has it, and routes of the others have no
//! part in it. Datagrams are apart from that, as their ports are. Those who make routes for their own callers change nothing for others'.
//! Source: gateway-api `geps/gep-1294`, "Route types".

use std::collections::BTreeMap;

use crate::attach::{Attachment, Place};
use crate::name::NamespacedName;
use crate::route::RouteKind;

/// A Service, and whose calls to it are led: all of them, or those of one namespace.
type Group<'o> = (&'o NamespacedName, Option<&'o str>);

/// The kind that each port has.
pub(crate) struct Precedence<'o>(BTreeMap<(Group<'o>, bool, u16), RouteKind>);

/// Which of the ports that it is for a route keeps.
#[derive(Default)]
pub(crate) struct KeptPorts {
    pub(crate) kept: Vec<u16>,
    /// Those that a more specific kind has.
    pub(crate) lost: Vec<(u16, RouteKind)>,
}

impl<'o> Precedence<'o> {
    pub(crate) fn of(attachments: &'o [Attachment<'o>]) -> Self {
        let mut kinds = BTreeMap::new();
        for attachment in attachments {
            let kind = attachment.route.kind;
            for key in keys(attachment) {
                let known = kinds.entry(key).or_insert(kind);
                if rank(kind) < rank(*known) {
                    *known = kind;
                }
            }
        }
        Self(kinds)
    }

    pub(crate) fn kept_by(&self, attachment: &Attachment<'_>) -> KeptPorts {
        let mut ports = KeptPorts::default();
        let kind = attachment.route.kind;
        for key in keys(attachment) {
            match self.0.get(&key) {
                Some(winner) if *winner != kind => ports.lost.push((key.2, *winner)),
                _ => ports.kept.push(key.2),
            }
        }
        ports
    }
}

/// What an attachment wants.
fn keys<'a>(attachment: &'a Attachment<'_>) -> impl Iterator<Item = (Group<'a>, bool, u16)> {
    let wanted = match &attachment.place {
        Place::Service { service, ports, .. } => Some((service, ports)),
        Place::Gateway { .. } => None,
    };
    wanted.into_iter().flat_map(move |(service, ports)| {
        let is_udp = attachment.route.kind == RouteKind::Udp;
        let group = (service, attachment.callers());
        ports.iter().map(move |port| (group, is_udp, *port))
    })
}

/// The smaller has it.
fn rank(kind: RouteKind) -> u8 {
    match kind {
        RouteKind::Grpc => 0,
        RouteKind::Http => 1,
        RouteKind::Tls => 2,
        RouteKind::Tcp => 3,
        RouteKind::Udp => 4,
    }
}
