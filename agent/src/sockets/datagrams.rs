//! Datagrams between a pod of this node and what is not of it: flows, of which each has the datagrams of one client and one port.
//!
//! ```text
//! guest sends to elsewhere ─► outward: a flow of its port and of where it sent to ─► the endpoint's node (weft_mesh)
//! a flow from elsewhere ─► the guest's mailbox; what the guest sends back to that client ─► inward: that flow
//! ```
//! Invariants: a pod has at most [`FLOWS_MAX`] flows in each direction, and the one that is let go for another is just slower to come back;
//! a client is who its node says it is, and the guest answers to that; nothing is spawned but what carries an outward flow, which ends with
//! its pod.

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Frame;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use weft_mesh::{
    Body, BoxError, Datagrams, Failure, FailureKind, FlowReceiver, FlowSender, Unframed,
    WorkloadService, flow,
};
use weft_runtime::Network;
use weft_runtime::network::Via;

/// Flows of a pod in one direction.
pub(super) const FLOWS_MAX: usize = 1024;

/// A port of the pod, and with whom it talks there.
type Key = (u16, SocketAddr);

/// The flows of a pod. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Flows(Arc<Mutex<Maps>>);

#[derive(Default)]
struct Maps {
    inward: BTreeMap<Key, (Arc<()>, FlowSender)>,
    outward: BTreeMap<Key, FlowSender>,
}

impl Flows {
    /// Sends a datagram back to a client that came from elsewhere. False: there is no such client.
    pub(super) fn answer(&self, key: Key, datagram: &Bytes) -> bool {
        let maps = self.0.lock();
        let flow = maps.inward.get(&key);
        flow.is_some_and(|(_, flow)| flow.send(datagram.clone()))
    }

    /// Sends a datagram by the flow that there is, or begins one: then what it sends has to be carried.
    pub(super) fn send(&self, key: Key, datagram: Bytes) -> Option<FlowReceiver> {
        let mut maps = self.0.lock();
        if let Some(flow) = maps.outward.get(&key)
            && flow.send(datagram.clone())
        {
            return None;
        }
        let (sender, receiver) = flow();
        sender.send(datagram);
        room(&mut maps.outward, FlowSender::is_ended);
        maps.outward.insert(key, sender);
        Some(receiver)
    }

    fn begin(&self, key: Key) -> (Arc<()>, FlowReceiver) {
        let (sender, receiver) = flow();
        let mark = Arc::new(());
        let mut maps = self.0.lock();
        room(&mut maps.inward, |(_, flow)| flow.is_ended());
        maps.inward.insert(key, (Arc::clone(&mark), sender));
        (mark, receiver)
    }

    fn end(&self, key: &Key, mark: &Arc<()>) {
        let mut maps = self.0.lock();
        let is_it = |(known, _): &(Arc<()>, FlowSender)| Arc::ptr_eq(known, mark);
        if maps.inward.get(key).is_some_and(is_it) {
            maps.inward.remove(key);
        }
    }
}

/// Makes room for one more: of those that ended, else of any.
fn room<T>(flows: &mut BTreeMap<Key, T>, is_ended: impl Fn(&T) -> bool) {
    if flows.len() < FLOWS_MAX {
        return;
    }
    flows.retain(|_, flow| !is_ended(flow));
    if flows.len() >= FLOWS_MAX {
        flows.pop_first();
    }
}

/// What answers calls of datagrams to the pod.
pub(super) fn service(network: Network, flows: Flows) -> WorkloadService {
    WorkloadService::from_fn(move |request: Request<Body>| {
        std::future::ready(begun(&network, &flows, request))
    })
}

fn begun(
    network: &Network,
    flows: &Flows,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let Some(Datagrams { port, client }) = request.extensions().get().copied() else {
        return Err(FailureKind::NotCallable.into());
    };
    if !network.receives(port, Via::Address) {
        return Err(FailureKind::Unreachable.into());
    }
    let (mark, answers) = flows.begin((port, client));
    Ok(Response::new(Body::new(Carried {
        network: network.clone(),
        flows: flows.clone(),
        key: (port, client),
        mark,
        sent: request.into_body(),
        unframed: Unframed::default(),
        answers,
    })))
}

/// A flow from elsewhere: its frames are what the guest answers. While it is read, what the client sends is passed on.
struct Carried {
    network: Network,
    flows: Flows,
    key: Key,
    mark: Arc<()>,
    sent: Body,
    unframed: Unframed,
    answers: FlowReceiver,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.flows.end(&self.key, &self.mark);
    }
}

impl hyper::body::Body for Carried {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let (port, client) = this.key;
        loop {
            let polled = hyper::body::Body::poll_frame(Pin::new(&mut this.sent), cx);
            match polled {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        this.unframed.push(&bytes);
                    }
                }
                // The client is gone, and with it whoever would hear an answer.
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(None),
            }
            loop {
                match this.unframed.take() {
                    Ok(Some(datagram)) => this.network.deliver(client, port, datagram),
                    Ok(None) => break,
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                }
            }
        }
        let polled = this.answers.poll_frame(cx);
        polled.map(|frame| frame.map(|frame| Ok(Frame::data(frame))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> Key {
        (port, ([10, 42, 1, 9], 5353).into())
    }

    #[test]
    fn a_flow_is_used_as_long_as_it_is_carried() {
        let flows = Flows::default();
        let datagram = || Bytes::from_static(b"x");
        let carried = flows.send(key(1), datagram()).expect("it begins");
        assert!(flows.send(key(1), datagram()).is_none(), "it goes on");
        let other = flows.send(key(2), datagram());
        assert!(other.is_some(), "of another port");
        drop(carried);
        assert!(flows.send(key(1), datagram()).is_some(), "it begins anew");
    }

    #[test]
    fn answers_go_to_who_is_there_and_flows_are_bounded() {
        let flows = Flows::default();
        let datagram = Bytes::from_static(b"x");
        assert!(!flows.answer(key(1), &datagram));
        let (old, _answers) = flows.begin(key(1));
        let (mark, _answers) = flows.begin(key(1));
        flows.end(&key(1), &old);
        assert!(flows.answer(key(1), &datagram), "the newer one is there");
        flows.end(&key(1), &mark);
        assert!(!flows.answer(key(1), &datagram));
        let kept: Vec<_> = (0..u16::MAX).map(|port| flows.begin(key(port))).collect();
        assert_eq!(flows.0.lock().inward.len(), FLOWS_MAX);
        drop(kept);
    }
}
