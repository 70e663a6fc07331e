//! Which endpoint of a Service a client was served by last, where the Service wants it to stay there (`sessionAffinity: ClientIP`).
//!
//! Invariants: what is remembered is bounded ([`CLIENTS_MAX`]), and nothing is remembered for longer than its Service says; time is handed in.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::table::ServiceLabels;

/// Clients, once for each port of a Service, that are remembered on a node.
const CLIENTS_MAX: usize = 65_536;

/// A client of a Service's port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub(crate) service: Arc<ServiceLabels>,
    pub(crate) port: u16,
    pub(crate) ip: IpAddr,
}

#[derive(Debug)]
struct Kept {
    endpoint: SocketAddr,
    until: Instant,
}

/// See the module's promise.
#[derive(Debug, Default)]
pub(crate) struct Affinity(Mutex<HashMap<Client, Kept>>);

impl Affinity {
    /// Where the client was last, if that is not too long ago.
    pub(crate) fn last(&self, client: &Client, now: Instant) -> Option<SocketAddr> {
        let clients = self.0.lock();
        let kept = clients.get(client)?;
        (kept.until > now).then_some(kept.endpoint)
    }

    /// The client is there now, and stays for `time`.
    pub(crate) fn keep(&self, client: Client, endpoint: SocketAddr, now: Instant, time: Duration) {
        let Some(until) = now.checked_add(time) else {
            return;
        };
        let mut clients = self.0.lock();
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&client) {
            clients.retain(|_, kept| kept.until > now);
            if clients.len() >= CLIENTS_MAX {
                // So many at once are a flood, or the wrong means: they begin anew.
                clients.clear();
            }
        }
        clients.insert(client, Kept { endpoint, until });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(service: &str, last: u8) -> Client {
        Client {
            service: Arc::new(ServiceLabels::new("shop", service)),
            port: 80,
            ip: [10, 42, 0, last].into(),
        }
    }

    #[test]
    fn a_client_stays_as_long_as_its_service_says() {
        let affinity = Affinity::default();
        let (now, time) = (Instant::now(), Duration::from_secs(10));
        let endpoint: SocketAddr = ([10, 42, 0, 9], 8080).into();
        affinity.keep(client("web", 1), endpoint, now, time);
        for (who, after, expected) in [
            (client("web", 1), 9, Some(endpoint)),
            (client("web", 1), 10, None),
            (client("web", 2), 0, None),
            (client("api", 1), 0, None),
        ] {
            let then = now + Duration::from_secs(after);
            assert_eq!(
                affinity.last(&who, then),
                expected,
                "{who:?} after {after} s"
            );
        }
    }
}
