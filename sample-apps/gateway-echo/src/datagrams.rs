//! The server of UDP: each datagram comes back, with who had it.

use serde_json::json;
use tokio::net::UdpSocket;

use crate::{Ended, Place, port};

pub(crate) async fn run(place: Place) -> Ended {
    let port = port("UDP_PORT", 8080)?;
    let socket = UdpSocket::bind(("0.0.0.0", port)).await;
    let socket = socket.map_err(|error| format!("listening UDP: {error}"))?;
    println!("UDP server listening on :{port}");
    let mut buffer = [0; 1024];
    loop {
        let Ok((count, from)) = socket.recv_from(&mut buffer).await else {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        };
        let said = String::from_utf8_lossy(buffer.get(..count).unwrap_or_default());
        println!("Received UDP {said} from {from}");
        let told = json!({
            "request": said,
            "namespace": place.namespace,
            "ingress": place.ingress,
            "service": place.service,
            "pod": place.pod,
        });
        // It may be lost, as any.
        let _ = socket.send_to(told.to_string().as_bytes(), from).await;
    }
}
