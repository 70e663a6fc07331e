//! A network in memory: it delays, reorders, loses and cuts.
//!
//! What happens to a message depends on the seed, its link and its number on that link only, so that the order in which
//! two servers happen to speak changes nothing about the fate of a third one's words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::random::Random;
use crate::key::ServerId;
use crate::network::{Lane, Network, NetworkError, Peer};

type Reply = oneshot::Sender<Result<Bytes, NetworkError>>;

/// A request that arrived, and how to answer it.
pub(crate) struct Arrived {
    pub from: ServerId,
    pub message: Bytes,
    pub answer: Answering,
}

/// The way back.
pub(crate) struct Answering {
    net: SharedNet,
    from: ServerId,
    to: ServerId,
    lane: Lane,
    reply: Reply,
}

impl Answering {
    pub(crate) fn send(self, message: Bytes) {
        let travel = Travel::Answer {
            message,
            reply: self.reply,
        };
        self.net
            .lock()
            .send((self.from, self.to, self.lane), travel);
    }
}

/// From, to, and the lane: messages on one link are numbered.
type Route = (ServerId, ServerId, Lane);

enum Travel {
    Request { message: Bytes, reply: Reply },
    Answer { message: Bytes, reply: Reply },
}

/// The state of the network, shared by the servers and the world.
pub(crate) type SharedNet = Arc<Mutex<Net>>;

pub(crate) struct Net {
    seed: u64,
    now: u64,
    /// By the time of arrival, and then by route and number: not by the order of sending.
    under_way: BTreeMap<(u64, Route, u64), Travel>,
    numbers: BTreeMap<Route, u64>,
    inboxes: BTreeMap<ServerId, mpsc::UnboundedSender<Arrived>>,
    /// Links over which nothing gets, in one direction each.
    pub(crate) blocked: BTreeSet<(ServerId, ServerId)>,
    /// Servers that listen and do not answer yet: what is sent to them waits.
    loading: BTreeSet<ServerId>,
    /// Messages of a hundred that are lost.
    pub(crate) loss: u64,
    /// Replies that never come: kept, so that their callers wait.
    silent: Vec<Reply>,
    /// A running hash of everything that was delivered.
    pub(crate) trace: u64,
}

/// Callers that wait for a reply that was lost are let go in batches: their own time-outs are long over by then.
const SILENT_MAX: usize = 4096;

impl Net {
    pub(crate) fn new(seed: u64) -> SharedNet {
        Arc::new(Mutex::new(Net {
            seed,
            now: 0,
            under_way: BTreeMap::new(),
            numbers: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            blocked: BTreeSet::new(),
            loading: BTreeSet::new(),
            loss: 0,
            silent: Vec::new(),
            trace: 0,
        }))
    }

    pub(crate) fn open(&mut self, server: ServerId) -> mpsc::UnboundedReceiver<Arrived> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.inboxes.insert(server, sender);
        self.loading.remove(&server);
        receiver
    }

    /// Has a server listen without an answer, until it opens.
    pub(crate) fn load(&mut self, server: ServerId) {
        self.loading.insert(server);
    }

    pub(crate) fn close(&mut self, server: ServerId) {
        self.inboxes.remove(&server);
    }

    fn send(&mut self, route: Route, travel: Travel) {
        let (from, to, lane) = route;
        let number = self.numbers.entry(route).or_default();
        *number += 1;
        let number = *number;
        let name = (from << 48) ^ (to << 40) ^ ((lane as u64) << 36) ^ number;
        let mut random = Random::new(self.seed, name);
        let mut delay = 1 + random.below(3);
        if random.chance(1, 20) {
            delay += random.below(40);
        }
        if self.blocked.contains(&(from, to)) || random.chance(self.loss, 100) {
            return self.lose(travel, &mut random);
        }
        let due = self.now + delay;
        self.under_way.insert((due, route, number), travel);
    }

    fn lose(&mut self, travel: Travel, random: &mut Random) {
        let reply = match travel {
            Travel::Request { reply, .. } | Travel::Answer { reply, .. } => reply,
        };
        if random.chance(1, 4) {
            let _ = reply.send(Err(NetworkError::Broken("simulated reset".to_owned())));
            return;
        }
        self.silent.push(reply);
        if self.silent.len() > SILENT_MAX {
            self.silent.drain(..SILENT_MAX / 2);
        }
    }

    /// Delivers what is due at `now`.
    pub(crate) fn deliver(shared: &SharedNet, now: u64) {
        loop {
            let mut net = shared.lock();
            net.now = now;
            let Some(entry) = net.under_way.first_entry() else {
                return;
            };
            if entry.key().0 > now {
                return;
            }
            let (_, (from, to, lane), number) = *entry.key();
            let travel = entry.remove();
            if net.loading.contains(&to) && matches!(travel, Travel::Request { .. }) {
                net.under_way
                    .insert((now + 1, (from, to, lane), number), travel);
                continue;
            }
            if net.blocked.contains(&(from, to)) {
                let mut random = Random::new(net.seed, now ^ (from << 32) ^ to);
                net.lose(travel, &mut random);
                continue;
            }
            let bytes = match &travel {
                Travel::Request { message, .. } | Travel::Answer { message, .. } => message,
            };
            let hash = u64::from(crc32c::crc32c(bytes));
            net.trace = super::random::mix(net.trace ^ hash ^ (now << 32));
            match travel {
                Travel::Request { message, reply } => {
                    let Some(inbox) = net.inboxes.get(&to).cloned() else {
                        let error = NetworkError::Unreachable("simulated: it is down".to_owned());
                        let _ = reply.send(Err(error));
                        continue;
                    };
                    drop(net);
                    let answer = Answering {
                        net: Arc::clone(shared),
                        from: to,
                        to: from,
                        lane,
                        reply,
                    };
                    let _ = inbox.send(Arrived {
                        from,
                        message,
                        answer,
                    });
                }
                Travel::Answer { message, reply } => {
                    drop(net);
                    // The caller may have given up.
                    let _ = reply.send(Ok(message));
                }
            }
        }
    }
}

/// The network as one server sees it. Addresses are server numbers.
pub(crate) struct SimNetwork {
    pub(crate) net: SharedNet,
    pub(crate) me: ServerId,
}

impl Network for SimNetwork {
    fn call(
        &self,
        peer: Peer,
        lane: Lane,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, NetworkError>> {
        let Ok(to) = peer.address.parse() else {
            let error = NetworkError::Unreachable(format!("no address: {}", peer.address));
            return Box::pin(std::future::ready(Err(error)));
        };
        let (reply, answer) = oneshot::channel();
        let travel = Travel::Request {
            message: request,
            reply,
        };
        self.net.lock().send((self.me, to, lane), travel);
        Box::pin(async move {
            answer
                .await
                .unwrap_or_else(|_| Err(NetworkError::Broken("simulated crash".to_owned())))
        })
    }
}
