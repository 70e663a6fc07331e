//! A long-running service with sockets: what comes is said again, over TCP and UDP, on the port that the first argument names.
//!
//! Six first words are for tests of the network: `take N` and `give N` pass so many bytes, which mean nothing, and then say `done`; `connect HOST:PORT` says what came of a connection and passes on what is said there,
//! `lookup NAME` says the addresses of a name, `bind ADDRESS` whether the address may be had, `poll now` who comes next and what he has said
//! by now, without waiting for either. Any other line is echoed in capitals.
//! Connections are served one after the other.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

/// What is read and written at once.
const CHUNK_BYTES: usize = 64 << 10;

fn main() -> io::Result<()> {
    let port: u16 = match std::env::args().nth(1).map(|port| port.parse()) {
        Some(Ok(port)) => port,
        _ => return Err(io::Error::other("the first argument is a port")),
    };
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    let datagrams = UdpSocket::bind(("0.0.0.0", port))?;
    datagrams.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        answer_datagrams(&datagrams);
        // Whoever leaves early is no reason to stop.
        if let Err(error) = stream.and_then(|stream| serve(stream, &listener, &datagrams)) {
            println!("a connection ended: {error}");
        }
    }
    Ok(())
}

/// What has come until now.
fn answer_datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((count, from)) = socket.recv_from(&mut buffer) {
        let said = buffer[..count].to_ascii_uppercase();
        // It may be lost, as any.
        let _ = socket.send_to(&said, from);
    }
}

fn serve(stream: TcpStream, listener: &TcpListener, datagrams: &UdpSocket) -> io::Result<()> {
    let mut out = &stream;
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, &stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            break;
        }
        let line = line.trim_end_matches(['\n', '\r']);
        let said = match line.split_once(' ') {
            Some(("take", count)) => {
                let bytes = &mut reader.by_ref().take(count.parse().unwrap_or(0));
                io::copy(bytes, &mut io::sink()).map(|_| "done".to_owned())?
            }
            Some(("give", count)) => {
                let (chunk, mut left) = (vec![b'x'; CHUNK_BYTES], count.parse().unwrap_or(0));
                while left > 0 {
                    let now = CHUNK_BYTES.min(left);
                    out.write_all(&chunk[..now])?;
                    left -= now;
                }
                "done".to_owned()
            }
            Some(("connect", to)) => connected(to).unwrap_or_else(|error| told(&error)),
            Some(("lookup", name)) => looked_up(name).unwrap_or_else(|error| told(&error)),
            Some(("bind", to)) => match TcpListener::bind(to) {
                Ok(_) => "bound".to_owned(),
                Err(error) => told(&error),
            },
            Some(("poll", _)) => polled(listener).unwrap_or_else(|error| told(&error)),
            _ => line.to_uppercase(),
        };
        writeln!(out, "{said}")?;
        answer_datagrams(datagrams);
    }
    stream.shutdown(Shutdown::Both)
}

fn told(error: &io::Error) -> String {
    format!("{:?}", error.kind())
}

/// Says `hello` and gives what is answered.
fn connected(to: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(b"hello\n")?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.take(4096).read_to_string(&mut answer)?;
    Ok(format!("heard {}", answer.trim_end()))
}

/// By sockets that do not block.
fn polled(listener: &TcpListener) -> io::Result<String> {
    listener.set_nonblocking(true)?;
    let accepted = listener.accept();
    listener.set_nonblocking(false)?;
    let (mut stream, from) = accepted?;
    stream.set_nonblocking(true)?;
    let mut buffer = [0; 64];
    let said = match stream.read(&mut buffer) {
        Ok(count) => String::from_utf8_lossy(&buffer[..count]).into_owned(),
        Err(error) => told(&error),
    };
    Ok(format!("{from} says {said}"))
}

fn looked_up(name: &str) -> io::Result<String> {
    let mut found: Vec<String> = (name, 0)
        .to_socket_addrs()?
        .map(|address| address.ip().to_string())
        .collect();
    found.sort();
    Ok(found.join(" "))
}
