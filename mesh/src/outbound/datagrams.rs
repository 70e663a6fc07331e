//! Datagrams between workloads: all that one client and one endpoint send each other is one call, whose two bodies carry them framed.
//!
//! A frame is the length of a datagram in two bytes and the datagram. Such a call is marked beside the request, as a byte stream is
//! ([`super::Raw`]), with the port that it is for and who the client is to the guest. It goes to the door of the pod, which is its address
//! with port 0: ports of UDP are others than those of TCP.
//!
//! Invariants: a flow ends when nothing came back for [`FLOW_IDLE_MAX`], or its sender is dropped; what waits is bounded, and what does not
//! fit is dropped, as datagrams may be; a frame that is longer than a datagram can be ends its flow.

use std::{
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::sync::mpsc;
use weft_call::{Failure, FailureKind};

use super::{Arrival, Begun, CallWay, Outbound, filter, raw::raw, send, take_context};
use crate::{Body, BoxError, failure, ingress, resolve::Target};

/// How long a flow is kept without an answer.
pub const FLOW_IDLE_MAX: Duration = Duration::from_secs(30);
/// Datagrams of a flow that wait to be sent on.
const WAITING_MAX: usize = 64;
/// The largest datagram of IPv4: 65,535 less the two headers.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Of a call that carries datagrams. An extension of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagrams {
    /// Of the pod, for UDP.
    pub port: u16,
    /// From where they come, as far as the guest sees.
    pub client: SocketAddr,
}

impl Datagrams {
    /// Where calls of datagrams to a pod's port go.
    #[must_use]
    pub fn door(address: SocketAddr) -> SocketAddr {
        SocketAddr::new(address.ip(), 0)
    }
}

/// What one client has sent to one endpoint and nobody took yet.
pub struct FlowSender(mpsc::Sender<Bytes>);

/// The other end of a [`FlowSender`].
pub struct FlowReceiver(mpsc::Receiver<Bytes>);

/// The two ends of what is sent by a flow.
#[must_use]
pub fn flow() -> (FlowSender, FlowReceiver) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (FlowSender(sender), FlowReceiver(receiver))
}

impl FlowSender {
    /// Sends a datagram, or drops it where too many wait. False: the flow has ended.
    pub fn send(&self, datagram: Bytes) -> bool {
        !matches!(
            self.0.try_send(datagram),
            Err(mpsc::error::TrySendError::Closed(_))
        )
    }

    /// Whether the flow has ended.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.0.is_closed()
    }
}

impl FlowReceiver {
    /// The next datagram, framed; none once the sender is gone.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            let Some(datagram) = ready!(self.0.poll_recv(cx)) else {
                return Poll::Ready(None);
            };
            if let Some(frame) = framed(&datagram) {
                return Poll::Ready(Some(frame));
            }
        }
    }
}

/// The frame of a datagram; none where it is longer than one can be.
fn framed(datagram: &[u8]) -> Option<Bytes> {
    let length = u16::try_from(datagram.len()).ok()?;
    let mut frame = BytesMut::with_capacity(2 + datagram.len());
    frame.put_u16(length);
    frame.put_slice(datagram);
    Some(frame.freeze())
}

/// Datagrams out of bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Unframed(BytesMut);

impl Unframed {
    /// Takes in what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next datagram that is whole.
    ///
    /// # Errors
    /// A length that no datagram has: the sender is no node of ours.
    pub fn take(&mut self) -> Result<Option<Bytes>, TooLong> {
        let Some(length) = self.0.first_chunk::<2>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > DATAGRAM_BYTES_MAX {
            return Err(TooLong);
        }
        if self.0.len() < 2 + length {
            return Ok(None);
        }
        self.0.advance(2);
        Ok(Some(self.0.split_to(length).freeze()))
    }
}

/// A frame with more than a datagram can have.
#[derive(Debug, thiserror::Error)]
#[error("a frame is longer than a datagram can be")]
pub struct TooLong;

/// The body of what a flow sends.
struct Sent(FlowReceiver);

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.0.poll_frame(cx);
        polled.map(|frame| frame.map(|frame| Ok(Frame::data(frame))))
    }
}

impl Outbound {
    /// Carries the datagrams of a flow from `client` to the pod at `address`, and hands what comes back to `received`, until nothing
    /// did for [`FLOW_IDLE_MAX`] or the sender is gone.
    ///
    /// # Errors
    /// [`FailureKind::Denied`] when that is no address of a pod, and as [`Outbound::call`].
    pub async fn carry_datagrams(
        &self,
        address: SocketAddr,
        client: SocketAddr,
        sent: FlowReceiver,
        mut received: impl FnMut(Bytes),
    ) -> Result<(), Failure> {
        let answer = self.datagrams(address, client, Body::new(Sent(sent)));
        let answer = tokio::time::timeout(FLOW_IDLE_MAX, answer).await;
        let mut body = answer.unwrap_or_else(|_| Err(failure::deadline()))?;
        let mut unframed = Unframed::default();
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(FLOW_IDLE_MAX, body.frame()).await {
            if let Ok(bytes) = frame.into_data() {
                unframed.push(&bytes);
            }
            loop {
                match unframed.take() {
                    Ok(Some(datagram)) => received(datagram),
                    Ok(None) => break,
                    Err(TooLong) => return Ok(()),
                }
            }
        }
        Ok(())
    }

    async fn datagrams(
        &self,
        address: SocketAddr,
        client: SocketAddr,
        sent: Body,
    ) -> Result<Body, Failure> {
        let at = Instant::now();
        let mut request: Request<Body> = raw(&address.to_string(), sent)?;
        request.extensions_mut().insert(Datagrams {
            port: address.port(),
            client,
        });
        let inner = &self.mesh.inner;
        weft_turns::charge(self.caller.tenant, weft_turns::REQUEST);
        let table = inner.table.load_full();
        let context = take_context(&mut request);
        let to = ingress::from_workload(&mut request).and_then(|_| {
            // Whether a Service leads to it or not.
            let behind = table.endpoint(address).map(Target::Pod);
            let found = behind.or_else(|| table.pod_at(address).map(Target::Address));
            found.ok_or_else(|| failure::denied(&address.to_string()))
        });
        let begun = to.map(CallWay::Direct).and_then(|way| {
            let arrival = Arrival {
                request,
                context,
                at,
                turn: None,
            };
            filter(&table, way, arrival)
        });
        match send(inner, &self.caller, &table, begun, at, None)? {
            Begun::Call(calling) => Ok(calling.await?.into_body()),
            Begun::Answered(_) => Err(FailureKind::NoRoute.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_out_as_they_went_in_however_they_are_cut() {
        let datagrams = ["", "a", "hello", &"x".repeat(3000)];
        let mut wire = Vec::new();
        for datagram in datagrams {
            wire.extend(framed(datagram.as_bytes()).expect("a frame"));
        }
        for size in [1, 2, 3, 7, 4096] {
            let mut unframed = Unframed::default();
            let mut found = Vec::new();
            for piece in wire.chunks(size) {
                unframed.push(piece);
                while let Some(datagram) = unframed.take().expect("no error") {
                    found.push(String::from_utf8(datagram.to_vec()).expect("text"));
                }
            }
            assert_eq!(found, datagrams, "pieces of {size}");
        }
    }

    #[test]
    fn what_cannot_be_a_datagram_is_none() {
        assert!(framed(&vec![0; 65_536]).is_none());
        let mut unframed = Unframed::default();
        unframed.push(&[0xff, 0xff]);
        assert!(unframed.take().is_err());
    }

    #[tokio::test]
    async fn what_nobody_takes_is_dropped_and_an_end_is_noticed() {
        let (sender, receiver) = flow();
        for _ in 0..WAITING_MAX * 2 {
            assert!(sender.send(Bytes::from_static(b"x")));
        }
        assert!(!sender.is_ended());
        drop(receiver);
        assert!(!sender.send(Bytes::from_static(b"x")) && sender.is_ended());
    }
}
