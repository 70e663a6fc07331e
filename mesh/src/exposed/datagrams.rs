//! Datagrams from outside to a port of a Service, or to a listener of a Gateway for UDP: a session for each client, which is a flow to one endpoint.
//!
//! Invariants: one task owns the socket and the sessions of a place; sessions are bounded, and end when nothing came back for a while, or when
//! the listener's route leads to their Service no more; what cannot be sent on is dropped.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{net::UdpSocket, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::At;
use crate::{
    FlowSender, Outbound,
    affinity::Client,
    flow,
    streams::{Meant, StreamPlace},
    table::{Protocol, Service},
};

/// Clients of one place at a time; datagrams of further ones are dropped until a session ends.
const SESSIONS_MAX: usize = 4_096;
/// The largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Who is nobody's neighbour.
const NO_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
const NO_IPV6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 1);
/// Waits after an error of the socket that does not go away at once.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn serve(outbound: Outbound, socket: StdSocket, at: At, stop: CancellationToken) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => {
            tracing::error!(at = %at.place, %error, "a place of a Service is not served");
            return;
        }
    };
    let mut sessions: HashMap<SocketAddr, Session> = HashMap::new();
    let mut carrying = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let received = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = carrying.join_next() => continue,
            received = socket.recv_from(&mut buffer) => received,
        };
        let (bytes, client) = match received {
            Ok(received) => received,
            Err(error) => {
                // Of an answer that a client did not take, for one.
                tracing::trace!(at = %at.place, %error, "receiving a datagram");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let datagram = Bytes::copy_from_slice(buffer.get(..bytes).unwrap_or_default());
        if let Some(session) = sessions.get_mut(&client)
            && session.holds(&outbound, at)
            && session.sender.send(datagram.clone())
        {
            continue;
        }
        if sessions.len() >= SESSIONS_MAX {
            sessions.retain(|_, session| !session.sender.is_ended());
            if sessions.len() >= SESSIONS_MAX {
                continue;
            }
        }
        let Some((endpoint, led)) = endpoint(&outbound, at, client) else {
            sessions.remove(&client);
            continue;
        };
        let (sender, sent) = flow();
        sender.send(datagram);
        sessions.insert(client, Session { sender, led });
        let (outbound, socket) = (outbound.clone(), Arc::clone(&socket));
        carrying.spawn(async move {
            let received = |datagram: Bytes| {
                // Where the kernel has no room, it is lost as any.
                let _ = socket.try_send_to(&datagram, client);
            };
            let carried = outbound.carry_datagrams(endpoint, shown(client), sent, received);
            if let Err(failure) = carried.await {
                tracing::debug!(%client, %endpoint, %failure, "a session came to nothing");
            }
        });
    }
    drop(sessions);
    carrying.shutdown().await;
}

/// How a client is shown to who is asked. To a pod, a loopback is its own: what it sends there would stay with it, and what comes from there
/// it may believe. So a client of this machine's is somebody without an address (RFC 7600, RFC 9780).
fn shown(client: SocketAddr) -> SocketAddr {
    let ip = match client.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_loopback() => NO_IPV4.into(),
        IpAddr::V6(ip) if ip.is_loopback() => NO_IPV6.into(),
        ip => ip,
    };
    SocketAddr::new(ip, client.port())
}

/// A client's flow to an endpoint.
struct Session {
    sender: FlowSender,
    led: Option<Led>,
}

/// What a listener of a Gateway led a client to.
struct Led {
    place: Arc<StreamPlace>,
    meant: Meant,
}

impl Session {
    /// Whether the client would still be led there.
    fn holds(&mut self, outbound: &Outbound, at: At) -> bool {
        let Some(led) = &mut self.led else {
            return true;
        };
        let table = outbound.table();
        match table.streams.of_datagrams(at.place) {
            Some(now) if Arc::ptr_eq(now, &led.place) => true,
            Some(now) if now.leads_to("", &led.meant) => {
                led.place = Arc::clone(now);
                true
            }
            _ => false,
        }
    }
}

/// The endpoint for a client of a place, and what led there.
fn endpoint(outbound: &Outbound, at: At, client: SocketAddr) -> Option<(SocketAddr, Option<Led>)> {
    let table = outbound.table();
    if let Some(place) = table.streams.of_datagrams(at.place) {
        let meant = place.meant("", rand::random())?;
        let service = table.service(&meant.namespace, &meant.name)?;
        let endpoints = service.port_of(Protocol::Udp, meant.port)?.at(false);
        let endpoint = chosen(outbound, service, meant.port, client, &endpoints)?;
        let place = Arc::clone(place);
        return Some((endpoint, Some(Led { place, meant })));
    }
    let (service, port) = table.behind(Protocol::Udp, at.place)?;
    if !service.outside().admits(client.ip()) {
        return None;
    }
    let only_here = service.outside().local && !table.is_shared(at.node);
    let endpoints = service.port_of(Protocol::Udp, port)?.at(only_here);
    Some((chosen(outbound, service, port, client, &endpoints)?, None))
}

/// Where the client was last, if the Service wants that; else any.
fn chosen(
    outbound: &Outbound,
    service: &Arc<Service>,
    port: u16,
    client: SocketAddr,
    endpoints: &[SocketAddr],
) -> Option<SocketAddr> {
    let any = || {
        let place = usize::from(rand::random::<u16>());
        endpoints.get(place.checked_rem(endpoints.len())?).copied()
    };
    let Some(time) = service.outside().affinity else {
        return any();
    };
    let who = Client {
        service: Arc::clone(service.labels()),
        port,
        ip: client.ip().to_canonical(),
    };
    let (affinity, now) = (outbound.affinity(), Instant::now());
    let last = affinity.last(&who, now);
    let last = last.filter(|last| endpoints.contains(last));
    let endpoint = last.or_else(any)?;
    affinity.keep(who, endpoint, now, time);
    Some(endpoint)
}
