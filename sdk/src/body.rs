//! Bodies of requests and responses: whole, arriving, or produced while they are sent.
//!
//! A body that arrives is read from the host chunk by chunk and never buffered behind the reader's back. Reading one
//! whole is bounded: by [`BODY_BYTES_MAX`] unless the caller names its own bound.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::host;

/// What [`Body::bytes`] accepts at most: far above what an API call carries, far below a guest's usual memory limit.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// The body of a [`Request`](crate::Request) or [`Response`](crate::Response).
pub struct Body(pub(crate) Kind);

#[cfg_attr(
    not(target_family = "wasm"),
    expect(dead_code, reason = "nothing arrives without a host")
)]
pub(crate) enum Kind {
    Whole(Bytes),
    Arriving(host::Incoming),
    Produced(Producer),
}

pub(crate) type Producer =
    Box<dyn FnOnce(Writer) -> Pin<Box<dyn Future<Output = Result<(), BodyError>>>>>;

/// Why a body could not be read or written.
#[derive(Debug)]
#[non_exhaustive]
pub enum BodyError {
    /// The other side ended the body early, or the host cut it off; the text is the host's reason.
    Broken(String),
    /// The body is longer than the reader allowed.
    TooLarge {
        /// The reader's bound in bytes.
        limit: usize,
    },
    /// The body is complete, but is not what the reader asked for.
    Malformed(String),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(reason) => write!(f, "the body broke off: {reason}"),
            Self::TooLarge { limit } => write!(f, "the body is longer than {limit} bytes"),
            Self::Malformed(reason) => write!(f, "the body does not parse: {reason}"),
        }
    }
}

impl std::error::Error for BodyError {}

impl Body {
    /// A body of no bytes.
    pub fn empty() -> Self {
        Self(Kind::Whole(Bytes::new()))
    }

    /// A body produced while it is sent, for answers that are long or come bit by bit.
    ///
    /// ```
    /// # use weft_sdk as weft;
    /// let body = weft::Body::stream(|mut out| async move {
    ///     for line in ["one\n", "two\n"] {
    ///         out.write(line.as_bytes()).await?;
    ///     }
    ///     Ok(())
    /// });
    /// # assert_eq!(weft::block_on(body.text()).unwrap(), "one\ntwo\n");
    /// ```
    ///
    /// An `Err` ends the body as incomplete, which the receiver sees as such.
    pub fn stream<P, F>(produce: P) -> Self
    where
        P: FnOnce(Writer) -> F + 'static,
        F: Future<Output = Result<(), BodyError>> + 'static,
    {
        Self(Kind::Produced(Box::new(|writer| Box::pin(produce(writer)))))
    }

    /// The next piece of an arriving body, `None` at its end. A whole body is one piece.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        if let Kind::Produced(_) = self.0 {
            let Kind::Produced(produce) = std::mem::replace(&mut self.0, Kind::Whole(Bytes::new()))
            else {
                return Ok(None);
            };
            self.0 = Kind::Whole(collect(produce).await?);
        }
        match &mut self.0 {
            Kind::Whole(bytes) if bytes.is_empty() => Ok(None),
            Kind::Whole(bytes) => Ok(Some(std::mem::take(bytes))),
            Kind::Arriving(incoming) => incoming.chunk().await,
            Kind::Produced(_) => Ok(None),
        }
    }

    /// The whole body, if it has at most [`BODY_BYTES_MAX`] bytes.
    pub async fn bytes(self) -> Result<Bytes, BodyError> {
        self.bytes_up_to(BODY_BYTES_MAX).await
    }

    /// The whole body, if it has at most `limit` bytes.
    pub async fn bytes_up_to(mut self, limit: usize) -> Result<Bytes, BodyError> {
        let Some(first) = self.chunk().await? else {
            return Ok(Bytes::new());
        };
        let mut rest = BytesMut::new();
        let mut length = first.len();
        while length <= limit {
            let Some(chunk) = self.chunk().await? else {
                if rest.is_empty() {
                    return Ok(first); // the common case: one chunk, nothing copied
                }
                return Ok(rest.freeze());
            };
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            length += chunk.len();
            rest.extend_from_slice(&chunk);
        }
        Err(BodyError::TooLarge { limit })
    }

    /// The whole body as UTF-8 text.
    pub async fn text(self) -> Result<String, BodyError> {
        String::from_utf8(self.bytes().await?.into())
            .map_err(|error| BodyError::Malformed(error.to_string()))
    }

    /// The whole body, parsed as JSON.
    #[cfg(feature = "json")]
    pub async fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, BodyError> {
        serde_json::from_slice(&self.bytes().await?)
            .map_err(|error| BodyError::Malformed(error.to_string()))
    }
}

/// Runs a producer into memory: for a body that is read where it was made, as tests do.
async fn collect(produce: Producer) -> Result<Bytes, BodyError> {
    let memory = Rc::new(RefCell::new(BytesMut::new()));
    produce(Writer(Sink::Memory(Rc::clone(&memory)))).await?;
    Ok(memory.take().freeze())
}

/// Where [`Body::stream`] writes.
pub struct Writer(pub(crate) Sink);

#[cfg_attr(
    not(target_family = "wasm"),
    expect(dead_code, reason = "nothing leaves without a host")
)]
pub(crate) enum Sink {
    Host(host::Outgoing),
    Memory(Rc<RefCell<BytesMut>>),
}

impl Writer {
    /// Sends `bytes`, waiting while the receiver is slower.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        match &mut self.0 {
            Sink::Host(outgoing) => outgoing.write(bytes).await,
            Sink::Memory(memory) => {
                memory.borrow_mut().extend_from_slice(bytes);
                Ok(())
            }
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Whole(bytes) => write!(f, "Body({} bytes)", bytes.len()),
            Kind::Arriving(_) => f.write_str("Body(arriving)"),
            Kind::Produced(_) => f.write_str("Body(produced)"),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Kind::Whole(bytes.into()))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self(Kind::Whole(text.into()))
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self(Kind::Whole(Bytes::from_static(text.as_bytes())))
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Kind::Whole(Bytes::from_static(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on;

    fn three() -> Body {
        Body::stream(|mut out| async move {
            for piece in ["a", "bc", "def"] {
                out.write(piece.as_bytes()).await?;
            }
            Ok(())
        })
    }

    #[test]
    fn a_body_reads_whole_within_its_bound() {
        assert_eq!(block_on(Body::empty().bytes()).unwrap(), "");
        assert_eq!(block_on(Body::from("text").text()).unwrap(), "text");
        assert_eq!(block_on(three().bytes_up_to(6)).unwrap(), "abcdef");
        assert!(matches!(
            block_on(three().bytes_up_to(5)),
            Err(BodyError::TooLarge { limit: 5 })
        ));
        assert!(matches!(
            block_on(Body::from(vec![0xff]).text()),
            Err(BodyError::Malformed(_))
        ));
    }

    #[test]
    fn a_failing_producer_fails_the_reader() {
        let body = Body::stream(|_| async { Err(BodyError::Broken("no more".into())) });
        assert_eq!(
            block_on(body.bytes()).unwrap_err().to_string(),
            "the body broke off: no more"
        );
    }

    #[cfg(feature = "json")]
    #[test]
    fn json_says_what_is_wrong() {
        assert_eq!(
            block_on(Body::from("[1,2]").json::<Vec<u8>>()).unwrap(),
            [1, 2]
        );
        let error = block_on(Body::from("[1,").json::<Vec<u8>>()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the body does not parse: EOF"),
            "{error}"
        );
    }
}
