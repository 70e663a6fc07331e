//! The name that a client of TLS asks for, read from what it says first, which is kept for whoever is spoken to.
//!
//! It is read by the library that also opens what is for a listener of ours, so that the two never understand one greeting differently.
//!
//! Invariants: no more than [`HELLO_BYTES_MAX`] are read for it, within [`HELLO_MAX`]; what was read comes before all else, once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustls::server::Acceptor;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

/// The largest greeting that is read; common ones have 2 KiB.
const HELLO_BYTES_MAX: usize = 64 << 10;
/// How long a client may take to say it.
const HELLO_MAX: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 4 << 10;

/// A greeting, as far as it came.
#[derive(Default)]
pub struct Hello {
    acceptor: Acceptor,
    bytes: usize,
    /// What its client is told of it, where it is none.
    alert: Vec<u8>,
}

impl Hello {
    /// Takes in what came next. Returns the name once all is there, in lower case, and empty where the client asks for none.
    ///
    /// # Errors
    /// When it is no greeting of TLS, or too long. Nothing may be taken in after that, nor after a name.
    pub fn take(&mut self, mut new: &[u8]) -> io::Result<Option<String>> {
        self.bytes = self.bytes.saturating_add(new.len());
        while !new.is_empty() {
            if self.acceptor.read_tls(&mut new)? == 0 {
                break;
            }
        }
        match self.acceptor.accept() {
            Ok(None) if self.bytes >= HELLO_BYTES_MAX => Err(io::ErrorKind::InvalidData.into()),
            Ok(None) => Ok(None),
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let name = hello.server_name().unwrap_or_default();
                Ok(Some(name.to_ascii_lowercase()))
            }
            Err((error, mut alert)) => {
                alert.write_all(&mut self.alert)?;
                Err(io::Error::new(io::ErrorKind::InvalidData, error))
            }
        }
    }
}

/// A client's connection of which something was read already.
pub(crate) struct Begun {
    stream: TcpStream,
    read: Vec<u8>,
    given: usize,
}

/// Reads the name that a client asks for.
///
/// # Errors
/// As [`Hello::take`], and when the client is too slow or goes.
pub(crate) async fn name_of(mut stream: TcpStream) -> io::Result<(String, Begun)> {
    let reading = async {
        let mut read = Vec::new();
        let mut hello = Hello::default();
        loop {
            let before = read.len();
            read.reserve(READ_BYTES);
            let mut part = (&mut stream).take(READ_BYTES as u64);
            if part.read_buf(&mut read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match hello.take(read.get(before..).unwrap_or_default()) {
                Ok(None) => {}
                Ok(Some(name)) => return Ok((name, read)),
                Err(error) => {
                    stream.write_all(&hello.alert).await?;
                    return Err(error);
                }
            }
        }
    };
    let (name, read) = timeout(HELLO_MAX, reading)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    let given = 0;
    let begun = Begun {
        stream,
        read,
        given,
    };
    Ok((name, begun))
}

/// What of a client's connection is read: first what was read already.
pub(crate) type BegunRead = tokio::io::Chain<io::Cursor<Vec<u8>>, OwnedReadHalf>;

impl Begun {
    /// A connection of which nothing was read.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Vec::new(),
            given: 0,
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Its two directions, of one that nothing was taken from since it was begun.
    pub(crate) fn split(self) -> (BegunRead, OwnedWriteHalf) {
        let (read, write) = self.stream.into_split();
        (io::Cursor::new(self.read).chain(read), write)
    }
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = this.read.get(this.given..).unwrap_or_default();
        if left.is_empty() {
            this.read = Vec::new();
            this.given = 0;
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let now = left.len().min(buf.remaining());
        buf.put_slice(left.get(..now).unwrap_or_default());
        this.given = this.given.saturating_add(now);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};
    use rustls_pki_types::ServerName;

    use super::*;

    fn greeting(name: &str) -> Vec<u8> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder
            .with_safe_default_protocol_versions()
            .expect("versions");
        let config = builder.with_root_certificates(RootCertStore::empty());
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut client = ClientConnection::new(Arc::new(config.with_no_client_auth()), name);
        let mut greeting = Vec::new();
        let client = client.as_mut().expect("a client");
        client.write_tls(&mut greeting).expect("room");
        greeting
    }

    #[test]
    fn the_name_is_known_once_all_was_said_however_it_is_cut() {
        for (asked, name) in [("A.Example.com", "a.example.com"), ("192.0.2.1", "")] {
            let greeting = greeting(asked);
            for cut in [1, 5, 100, greeting.len()] {
                let mut hello = Hello::default();
                let mut pieces = greeting.chunks(cut).peekable();
                while let Some(piece) = pieces.next() {
                    let found = hello.take(piece).expect("a greeting");
                    let is_whole = pieces.peek().is_none();
                    assert_eq!(found.as_deref(), is_whole.then_some(name), "by {cut}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_greeting_is_answered_with_an_alert() {
        for noise in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0x16, 3, 1, 0, 4, 2, 0, 0, 0],
        ] {
            let mut hello = Hello::default();
            assert!(hello.take(noise).is_err());
            // An alert (RFC 8446 §6) in a record of its own.
            assert_eq!(hello.alert.first(), Some(&21));
        }
    }

    #[test]
    fn a_greeting_without_end_has_one() {
        // Records of one byte each of a greeting of nearly 64 KiB.
        let (mut hello, mut said) = (Hello::default(), 0);
        let begin = [0x16, 3, 1, 0, 4, 1, 0, 0xff, 0xf0];
        let mut ended = hello.take(&begin);
        while let Ok(None) = ended {
            said += 6;
            assert!(said <= HELLO_BYTES_MAX, "it goes on");
            ended = hello.take(&[0x16, 3, 1, 0, 1, 0]);
        }
        assert!(ended.is_err());
    }
}
