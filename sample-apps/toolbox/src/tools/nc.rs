//! `nc`: standard input to a connection, and what comes back to standard output.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::executor::{self, Either};

use super::call::{CHUNK_BYTES, Call, Ended, Stop, reason};
use super::flags::{Flags, Usage};
use super::resolver;
use super::sleep::{span, within};
use super::socket::{Listener, Tcp, Udp};

/// A datagram.
const DATAGRAM_BYTES: usize = 64 << 10;
/// Turns that the sending half gets when the other side has ended.
const LAST_TURNS: u32 = 64;

const USAGE: Usage = Usage::new(
    "nc [-ztuvnkN] [-w SEC] HOST PORT  |  nc -l [-ukv] [-w SEC] [-p PORT] [PORT]",
    "ztuvnklNw:p:q:i:s:46dh",
);

/// One end, of either kind.
enum Socket {
    Tcp(Tcp),
    Udp(Udp),
}

impl Socket {
    async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buf).await,
            Socket::Udp(socket) => socket.receive(buf).await,
        }
    }

    async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.write_all(bytes).await,
            Socket::Udp(socket) => socket.send(bytes).await,
        }
    }
}

pub async fn nc(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let limit = match flags.value('w') {
        None => None,
        Some(text) => {
            Some(span(text).ok_or_else(|| Stop::failed(format!("invalid number '{text}'")))?)
        }
    };
    let number = |text: &str| {
        let port = text.parse::<u16>().ok();
        port.or(service(text))
            .ok_or_else(|| Stop::failed(format!("bad port '{text}'")))
    };
    if flags.has('l') {
        let port = flags
            .value('p')
            .or(flags.rest.last().map(String::as_str))
            .ok_or_else(|| USAGE.wrong())?;
        let host = match flags.rest.as_slice() {
            [host, _] => host
                .parse()
                .map_err(|_| Stop::failed(format!("bad address '{host}'")))?,
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        return listen(call, &flags, SocketAddr::new(host, number(port)?), limit).await;
    }
    let [host, ports @ ..] = flags.rest.as_slice() else {
        return Err(USAGE.wrong());
    };
    let [ports] = ports else {
        return Err(USAGE.wrong());
    };
    let (from, to) = match ports.split_once('-') {
        Some((from, to)) => (number(from)?, number(to)?),
        None => (number(ports)?, number(ports)?),
    };
    let addresses = match resolver::addresses(call, host).await {
        Ok((_, addresses)) if !addresses.is_empty() => addresses,
        _ => return Err(Stop::failed(format!("bad address '{host}'"))),
    };
    let mut opened = false;
    for port in from..=to {
        let mut why = None;
        for address in &addresses {
            let target = SocketAddr::new(*address, port);
            let connected = match flags.has('u') {
                true => Udp::connect(target).map(Socket::Udp),
                false => Tcp::connect(target, limit).map(Socket::Tcp),
            };
            match connected {
                Err(error) => why = Some((target, error)),
                Ok(socket) => {
                    why = None;
                    opened = true;
                    if flags.has('v') {
                        call.say(format!("{host} ({target}) open\n")).await;
                    }
                    if !flags.has('z') {
                        return talk(call, &socket, limit).await;
                    }
                    break;
                }
            }
        }
        if let Some((target, error)) = why
            && (flags.has('v') || !flags.has('z') || from == to)
        {
            call.say(format!("nc: {host} ({target}): {}\n", reason(&error)))
                .await;
        }
    }
    Ok(i32::from(!opened))
}

/// Ports that people name.
fn service(name: &str) -> Option<u16> {
    Some(match name {
        "ssh" => 22,
        "domain" => 53,
        "http" => 80,
        "https" => 443,
        _ => return None,
    })
}

async fn listen(call: &mut Call, flags: &Flags, at: SocketAddr, limit: Option<Duration>) -> Ended {
    let failed = |error: io::Error| Stop::failed(format!("bind: {}", reason(&error)));
    if flags.has('u') {
        let socket = Udp::bind(at).map_err(failed)?;
        if flags.has('v') {
            call.say(format!("listening on {at} ...\n")).await;
        }
        let mut buf = vec![0; DATAGRAM_BYTES];
        let (count, from) = socket.receive_from(&mut buf).await.map_err(failed)?;
        socket.answer(from).map_err(failed)?;
        call.out(buf.get(..count).unwrap_or_default()).await?;
        return talk(call, &Socket::Udp(socket), limit).await;
    }
    let listener = Listener::bind(at).map_err(failed)?;
    if flags.has('v') {
        call.say(format!("listening on {at} ...\n")).await;
    }
    loop {
        let (stream, from) = match limit.filter(|_| !flags.has('k')) {
            Some(limit) => match within(limit, listener.accept()).await {
                Some(accepted) => accepted.map_err(failed)?,
                None => return Ok(1),
            },
            None => listener.accept().await.map_err(failed)?,
        };
        if flags.has('v') {
            call.say(format!("connect to {at} from {from}\n")).await;
        }
        let code = talk(call, &Socket::Tcp(stream), limit).await?;
        if !flags.has('k') {
            return Ok(code);
        }
    }
}

/// Both ways, until the other side ends, or nothing came for the time that `-w` says.
async fn talk(call: &mut Call, socket: &Socket, limit: Option<Duration>) -> Ended {
    let mut input = call.io.stdin.clone();
    let sending = async {
        let mut buf = vec![0; CHUNK_BYTES];
        loop {
            match input.read(&mut buf).await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    if let Err(error) = socket.write(buf.get(..count).unwrap_or_default()).await {
                        return error;
                    }
                }
            }
        }
        if let Socket::Tcp(stream) = socket {
            stream.finish();
        }
        std::future::pending().await
    };
    let mut output = call.io.stdout.clone();
    let receiving = async {
        let mut buf = vec![0; DATAGRAM_BYTES];
        loop {
            let read = match limit {
                Some(limit) => match within(limit, socket.read(&mut buf)).await {
                    Some(read) => read,
                    None => return Ok(()),
                },
                None => socket.read(&mut buf).await,
            };
            match read {
                // An empty datagram is no end.
                Ok(0) if matches!(socket, Socket::Udp(_)) => {}
                Ok(0) => {
                    // What is in the input by now is still sent.
                    for _ in 0..LAST_TURNS {
                        executor::yield_now().await;
                    }
                    return Ok(());
                }
                Ok(count) => {
                    output
                        .write_all(buf.get(..count).unwrap_or_default())
                        .await
                        .map_err(Stop::Output)?;
                    output.flush().await.map_err(Stop::Output)?;
                }
                Err(error) => return Err(Stop::failed(reason(&error))),
            }
        }
    };
    match executor::either(sending, receiving).await {
        Either::Second(done) => done.map(|()| 0),
        Either::First(error) => Err(Stop::failed(format!("write: {}", reason(&error)))),
    }
}
