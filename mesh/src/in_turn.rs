//! A body that comes over a connection, or goes, a piece a turn: who passes on gigabytes has a part of the core as who sends many requests.
//!
//! Invariants: a piece is asked for when it is its tenant's turn, and charged by its bytes; a body that is in memory is charged at once, and
//! passes as it is.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use weft_turns::{Tenant, Turn};

use crate::{Body, BoxError};

/// `body`, in `tenant`'s turns.
pub(crate) fn in_turn(tenant: Tenant, body: Body) -> Body {
    match body.is_whole() {
        Some(bytes) => {
            weft_turns::charge_body(tenant, bytes);
            body
        }
        None => Body::new(InTurn {
            tenant,
            turn: Turn::of(tenant),
            body,
        }),
    }
}

struct InTurn {
    tenant: Tenant,
    turn: Turn,
    body: Body,
}

impl http_body::Body for InTurn {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        ready!(self.turn.poll(context));
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            weft_turns::charge_body(self.tenant, bytes);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// A tenant that streams had all of a core that it wanted: only requests had turns.
    #[test]
    fn a_large_body_waits_for_its_turn_between_two_pieces() {
        weft_turns::begin();
        let (streaming, other) = (Tenant::named("streaming"), Tenant::named("other"));
        weft_turns::charge_body(other, 1);
        let piece = || Ok::<_, BoxError>(Frame::data(Bytes::from(vec![0; 1 << 20])));
        let pieces = futures::stream::iter([piece(), piece()]);
        let mut body = in_turn(streaming, Body::new(StreamBody::new(pieces)));
        let first = body.frame().now_or_never().flatten().expect("its turn");
        assert_eq!(
            first.expect("data").into_data().expect("data").len(),
            1 << 20
        );
        assert!(
            body.frame().now_or_never().is_none(),
            "it had a millisecond"
        );

        let whole = in_turn(streaming, Body::full("hello"));
        assert!(whole.is_whole().is_some());
    }
}
