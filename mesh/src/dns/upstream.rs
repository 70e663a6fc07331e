//! Questions passed on to servers that the node's owner named.
//!
//! Each is asked anew, under a number of its own and from a port of its own, so that who does not see the question cannot answer it.
//!
//! Invariants: what is heard is taken only from who was asked, with the number and the question that it was asked with; an answer that was
//! cut short is asked for by TCP; no question waits for more than [`ANSWER_MAX`] for each server.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

/// Questions that wait for others at the same time; further ones are answered with SERVFAIL.
pub(super) const PLACES_MAX: usize = 256;
/// How long a server has.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Servers that are asked, as the C library has it.
const SERVERS_MAX: usize = 3;
/// What a server may answer by UDP: no question says that more is taken.
const UDP_ANSWER_MAX: usize = 4096;

pub(super) struct Upstream {
    servers: Vec<SocketAddr>,
    places: Semaphore,
}

impl Upstream {
    pub(super) fn new(mut servers: Vec<SocketAddr>) -> Option<Self> {
        servers.truncate(SERVERS_MAX);
        (!servers.is_empty()).then(|| Self {
            servers,
            places: Semaphore::new(PLACES_MAX),
        })
    }

    /// What the first server that answers says; none where no server did.
    pub(super) async fn ask(&self, query: &Query) -> Option<Message> {
        let _place = self.places.try_acquire().ok()?;
        for server in &self.servers {
            match timeout(ANSWER_MAX, exchange(*server, query)).await {
                Ok(Ok(answer)) => return Some(answer),
                Ok(Err(error)) => tracing::debug!(%server, %error, "a name was not answered"),
                Err(_) => tracing::debug!(%server, "a name was not answered in time"),
            }
        }
        None
    }
}

async fn exchange(server: SocketAddr, query: &Query) -> io::Result<Message> {
    let id = rand::random();
    let mut asked = Message::new(id, MessageType::Query, OpCode::Query);
    asked.metadata.recursion_desired = true;
    asked.add_query(query.clone());
    let asked = asked.to_vec().map_err(io::Error::other)?;
    let is_answer = |answer: &Message| {
        answer.metadata.id == id
            && answer.metadata.message_type == MessageType::Response
            && answer.queries.as_slice() == [query.clone()]
    };

    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&asked).await?;
    let mut buffer = vec![0; UDP_ANSWER_MAX];
    loop {
        let bytes = socket.recv(&mut buffer).await?;
        let heard = Message::from_vec(buffer.get(..bytes).unwrap_or_default());
        match heard {
            Ok(answer) if is_answer(&answer) && answer.metadata.truncation => break,
            Ok(answer) if is_answer(&answer) => return Ok(answer),
            // Somebody guesses: the answer may still come.
            _ => {}
        }
    }
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(asked.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes()[..], &asked].concat())
        .await?;
    let length = stream.read_u16().await?;
    let mut heard = vec![0; usize::from(length)];
    stream.read_exact(&mut heard).await?;
    let answer = Message::from_vec(&heard).map_err(io::Error::other)?;
    match is_answer(&answer) {
        true => Ok(answer),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}
