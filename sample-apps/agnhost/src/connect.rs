//! `connect HOST:PORT`: whether a connection can be made, and if not, why in one word.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::{TcpStream, UdpSocket};

use crate::Code;
use crate::client::{resolve, split};
use crate::flags::{Flags, Known};

const FLAGS: [Known; 4] = [
    ("timeout", None, "0"),
    ("protocol", None, "tcp"),
    ("udp-data", None, "hostname"),
    ("sctp-data", None, "hostname"),
];
/// Where none is given: Go's has none, and a test that waits for ever tells nothing.
const TIMEOUT: Duration = Duration::from_secs(127);

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let [destination] = &flags.rest[..] else {
        return Err(format!("accepts 1 arg(s), received {}", flags.rest.len()));
    };
    let timeout = match flags.duration("timeout")? {
        Duration::ZERO => TIMEOUT,
        timeout => timeout,
    };
    let failed = match flags.text("protocol") {
        "" | "tcp" => tcp(destination, timeout).await,
        "udp" => udp(destination, timeout, flags.text("udp-data")).await,
        "sctp" => Err("OTHER: dial sctp: protocol not supported".to_owned()),
        other => {
            eprint!("Unsupported protocol\n{other}");
            return Ok(1);
        }
    };
    Ok(match failed {
        Ok(()) => 0,
        Err(why) => {
            eprintln!("{why}");
            1
        }
    })
}

fn target(destination: &str) -> Result<(&str, u16), String> {
    let (host, port) = split(destination);
    let Some(port) = port else {
        return Err(format!(
            "UNKNOWN: address {destination}: missing port in address"
        ));
    };
    let port = port
        .parse()
        .map_err(|_| format!("DNS: lookup tcp/{port}: unknown port"))?;
    Ok((host, port))
}

async fn tcp(destination: &str, timeout: Duration) -> Result<(), String> {
    let (host, port) = target(destination)?;
    let addresses = resolve(host, port).map_err(|why| format!("DNS: {why}"))?;
    let mut last = "OTHER: no addresses".to_owned();
    let connecting = async {
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(_) => return Ok(()),
                Err(error) => last = word(&error),
            }
        }
        Err(last)
    };
    let connected = tokio::time::timeout(timeout, connecting).await;
    connected.unwrap_or_else(|_| Err("TIMEOUT".to_owned()))
}

fn word(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut => "TIMEOUT".to_owned(),
        ErrorKind::ConnectionRefused => "REFUSED".to_owned(),
        _ => format!("OTHER: {error}"),
    }
}

async fn udp(destination: &str, timeout: Duration, data: &str) -> Result<(), String> {
    let (host, port) = target(destination)?;
    let addresses = resolve(host, port).map_err(|why| format!("DNS: {why}"))?;
    let address = addresses.first().ok_or("DNS: no addresses")?;
    let asking = async {
        let any = if address.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(address).await?;
        socket.send(format!("{data}\n").as_bytes()).await?;
        let mut buffer = [0; 1024];
        socket.recv(&mut buffer).await
    };
    match tokio::time::timeout(timeout, asking).await {
        Err(_) => Err("TIMEOUT: i/o timeout".to_owned()),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            Err(format!("REFUSED: {error}"))
        }
        Ok(Err(error)) => Err(format!("UNKNOWN: {error}")),
        Ok(Ok(0)) => Err("OTHER: No data received from the server. Cannot guarantee the server received the request.".to_owned()),
        Ok(Ok(_)) => Ok(()),
    }
}
