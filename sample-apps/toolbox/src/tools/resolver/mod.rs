//! Names to addresses: `/etc/hosts`, then the servers of `/etc/resolv.conf` with their search list.
//!
//! Questions are asked over UDP and, where an answer is cut short or TCP is wanted, over TCP. Where no server is named, the host is
//! asked (`wasi:sockets/ip-name-lookup` in a component).

pub mod message;

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use super::call::Call;
use super::sleep::within;
use super::socket::{Tcp, Udp};

use message::{A, AAAA, Message};

const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 2;
/// Servers and search domains that are read, as the C library has it (and Kubernetes: 32 domains).
const SERVERS_MAX: usize = 3;
const SEARCH_MAX: usize = 32;

/// What `/etc/resolv.conf` says.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub servers: Vec<SocketAddr>,
    pub search: Vec<String>,
    pub dots: usize,
    pub timeout: Duration,
    pub attempts: u32,
    pub tcp: bool,
    pub recurse: bool,
}

impl Configuration {
    pub fn read(call: &Call) -> Configuration {
        let mut found = Configuration {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: TIMEOUT,
            attempts: ATTEMPTS,
            tcp: false,
            recurse: true,
        };
        let text = std::fs::read_to_string(call.path("/etc/resolv.conf")).unwrap_or_default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") if found.servers.len() < SERVERS_MAX => {
                    let address = words
                        .next()
                        .and_then(|text| text.split('%').next()?.parse::<IpAddr>().ok());
                    found
                        .servers
                        .extend(address.map(|address| SocketAddr::new(address, 53)));
                }
                Some("search" | "domain") => {
                    found.search = words.take(SEARCH_MAX).map(str::to_owned).collect()
                }
                Some("options") => {
                    for option in words {
                        match option.split_once(':') {
                            Some(("ndots", number)) => {
                                found.dots = number.parse().unwrap_or(1).min(15)
                            }
                            Some(("timeout", number)) => {
                                let seconds = number.parse().unwrap_or(5u64).clamp(1, 30);
                                found.timeout = Duration::from_secs(seconds);
                            }
                            Some(("attempts", number)) => {
                                found.attempts = number.parse().unwrap_or(2).clamp(1, 5)
                            }
                            _ if option == "use-vc" => found.tcp = true,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// The names that a name may stand for, in the order in which they are asked for.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let itself = format!("{name}.");
        let searched = self
            .search
            .iter()
            .map(|domain| format!("{name}.{}.", domain.trim_end_matches('.')));
        let enough = name.matches('.').count() >= self.dots;
        match enough {
            true => std::iter::once(itself).chain(searched).collect(),
            false => searched.chain([itself]).collect(),
        }
    }

    /// Asks the servers in turn; which one answered comes with the answer.
    pub async fn ask(&self, name: &str, kind: u16) -> io::Result<(Message, SocketAddr)> {
        let id = name.bytes().fold(kind.rotate_left(7), |id, byte| {
            id.wrapping_mul(31).wrapping_add(u16::from(byte))
        }) ^ random();
        let query = message::query(id, name, kind, self.recurse);
        let query = query
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a domain name"))?;
        let mut last: io::Error = io::ErrorKind::TimedOut.into();
        for _ in 0..self.attempts {
            for server in &self.servers {
                let work = exchange(*server, &query, id, self.tcp, self.timeout);
                match within(self.timeout, work).await {
                    Some(Ok(message)) => return Ok((message, *server)),
                    Some(Err(error)) => last = error,
                    None => last = io::ErrorKind::TimedOut.into(),
                }
            }
        }
        Err(last)
    }
}

/// Something that whoever does not see our questions cannot guess.
fn random() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8) as u16
}

async fn exchange(
    server: SocketAddr,
    query: &[u8],
    id: u16,
    tcp: bool,
    limit: Duration,
) -> io::Result<Message> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "the answer is no DNS message");
    if !tcp {
        let socket = Udp::connect(server)?;
        socket.send(query).await?;
        let mut buf = vec![0; 64 << 10];
        loop {
            let count = socket.receive(&mut buf).await?;
            let answer = message::read(buf.get(..count).unwrap_or_default());
            match answer {
                // An answer to another question is not ours.
                Some(answer) if answer.id != id => continue,
                Some(answer) if answer.is_truncated() => break,
                Some(answer) => return Ok(answer),
                None => return Err(bad()),
            }
        }
    }
    let stream = Tcp::connect(server, Some(limit))?;
    let length = u16::try_from(query.len()).map_err(|_| bad())?;
    stream
        .write_all(&[&length.to_be_bytes()[..], query].concat())
        .await?;
    let mut head = [0; 2];
    read_exactly(&stream, &mut head).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(head))];
    read_exactly(&stream, &mut answer).await?;
    message::read(&answer)
        .filter(|answer| answer.id == id)
        .ok_or_else(bad)
}

async fn read_exactly(stream: &Tcp, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match stream.read(buf).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => buf = buf.get_mut(count..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// A line of `/etc/hosts`: an address and its names.
pub fn hosts(call: &Call) -> Vec<(IpAddr, Vec<String>)> {
    let text = std::fs::read_to_string(call.path("/etc/hosts")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut words = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            let address = words.next()?.parse().ok()?;
            Some((address, words.map(str::to_owned).collect()))
        })
        .collect()
}

/// The addresses of a host, and what it is properly called.
pub async fn addresses(call: &Call, name: &str) -> Result<(String, Vec<IpAddr>), io::Error> {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok((bare.to_owned(), vec![address]));
    }
    let same = |known: &String| known.eq_ignore_ascii_case(name.trim_end_matches('.'));
    let listed: Vec<(IpAddr, Vec<String>)> = hosts(call)
        .into_iter()
        .filter(|(_, names)| names.iter().any(same))
        .collect();
    if let Some((_, names)) = listed.first() {
        let proper = names.first().cloned().unwrap_or_default();
        return Ok((proper, listed.iter().map(|(address, _)| *address).collect()));
    }
    let configuration = Configuration::read(call);
    if configuration.servers.is_empty() {
        let found: Vec<IpAddr> = (name, 0)
            .to_socket_addrs()?
            .map(|address| address.ip())
            .collect();
        return Ok((name.to_owned(), found));
    }
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for candidate in configuration.candidates(name) {
        let mut found = Vec::new();
        let mut proper = candidate.trim_end_matches('.').to_owned();
        for kind in [A, AAAA] {
            match configuration.ask(&candidate, kind).await {
                Ok((answer, _)) => {
                    let records = answer
                        .answer
                        .iter()
                        .filter(|record| record.address.is_some());
                    for record in records {
                        proper = record.name.trim_end_matches('.').to_owned();
                        found.extend(record.address);
                    }
                }
                Err(error) => last = error,
            }
        }
        if !found.is_empty() {
            return Ok((proper, found));
        }
    }
    Err(last)
}
