//! Messages of gRPC in a body that passes, counted by the heads of their frames; nothing of them is kept.
//!
//! Invariant: any bytes may come, cut anywhere: a body that is none of gRPC counts something, and never more than one message for five bytes.
//! Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md> (Length-Prefixed-Message).

/// A flag, and four bytes of a length.
const HEAD_BYTES: usize = 5;

/// How many messages began, and where in one the body is.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    count: u64,
    head: [u8; HEAD_BYTES],
    /// Of the head that is read, so much is there.
    have: usize,
    /// Of the message behind it, so much is to come.
    left: u64,
}

impl Messages {
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The next bytes of the body.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX);
            let skipped = skipped.min(bytes.len());
            self.left -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((first, rest)) = bytes.split_first() else {
                return;
            };
            bytes = rest;
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *first;
            }
            self.have += 1;
            if self.have == HEAD_BYTES {
                let [_, a, b, c, d] = self.head;
                self.left = u32::from_be_bytes([a, b, c, d]).into();
                self.have = 0;
                self.count += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_wherever_they_are_cut() {
        let mut body = Vec::new();
        for length in [0_u32, 1, 5, 300] {
            body.push(0);
            body.extend(length.to_be_bytes());
            body.extend(vec![0xff; length as usize]);
        }
        for size in [1, 2, 3, 5, 7, 64, body.len()] {
            let mut messages = Messages::default();
            for part in body.chunks(size) {
                messages.pass(part);
            }
            assert_eq!(messages.count(), 4, "{size}");
            assert_eq!((messages.left, messages.have), (0, 0));
        }
        let mut messages = Messages::default();
        messages.pass(&[0xff; 1000]);
        assert_eq!(messages.count(), 1);
    }
}
