//! The server of TCP: a greeting, then an answer to each line that it knows.

use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt, BufReader,
};

use crate::serve::listen;
use crate::tls::{Acceptor, Agreed};
use crate::{Ended, Place, port, variable};

const GREETING: &[u8] = b"Gateway API Test TCP Server\n";
const LINE_BYTES_MAX: u64 = 64 << 10;

pub(crate) async fn run(place: Place) -> Ended {
    let (tcp, over_tls) = (port("TCP_PORT", 3000)?, port("TLS_PORT", 8443)?);
    let (certificate, key) = (variable("TLS_SERVER_CERT"), variable("TLS_SERVER_PRIV_KEY"));
    let acceptor = match certificate.is_empty() || key.is_empty() {
        true => None,
        false => Some(Acceptor::of(&certificate, &key, "", &[])?),
    };
    let told = json!({
        "namespace": place.namespace,
        "ingress": place.ingress,
        "service": place.service,
        "pod": place.pod,
        "tcpport": tcp.to_string(),
        "tlsport": over_tls.to_string(),
    });
    println!("Starting server (tcp) protocol=tcp port={tcp}");
    let secure = async {
        match acceptor {
            None => std::future::pending().await,
            Some(tls) => serve(over_tls, Some(tls), told.clone()).await,
        }
    };
    tokio::select! {
        ended = serve(tcp, None, told.clone()) => ended,
        ended = secure => ended,
    }
}

async fn serve(port: u16, tls: Option<Acceptor>, told: Value) -> Ended {
    let listener = listen(port)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        };
        let (tls, told) = (tls.clone(), told.clone());
        tokio::task::spawn_local(async move {
            // Whoever leaves early is no failure.
            let _ = match tls {
                None => answer(stream, told, None).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok((stream, agreed)) => answer(stream, told, Some(agreed)).await,
                    Err(error) => {
                        println!("TLS Handshake failed error={error}");
                        Ok(())
                    }
                },
            };
        });
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut told: Value,
    tls: Option<Agreed>,
) -> std::io::Result<()> {
    let is_tls = tls.is_some();
    told["isTLS"] = json!(is_tls);
    if let Some(tls) = &tls {
        let mut agreed = json!({
            "version": format!("TLS {}", tls.version),
            "serverName": tls.server_name,
            "curves": tls.group,
            "cipherSuite": tls.suite,
        });
        if !tls.protocol.is_empty() {
            agreed["negotiatedProtocol"] = json!(tls.protocol);
        }
        told["tls"] = agreed;
    }
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(GREETING).await?;
    stream.get_mut().flush().await?;
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut stream)
            .take(LINE_BYTES_MAX)
            .read_line(&mut line)
            .await?
            == 0
        {
            return stream.get_mut().shutdown().await;
        }
        let said = match line.trim_end() {
            "TEST" => format!("{told}\n"),
            "IS_TLS" => format!("{is_tls}\n"),
            "PING" => "PONG\n".to_owned(),
            _ => continue,
        };
        stream.get_mut().write_all(said.as_bytes()).await?;
        stream.get_mut().flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn lines_that_are_known_are_answered() {
        let (mut client, server) = tokio::io::duplex(1024);
        client
            .write_all(b"PING\nwhat\nIS_TLS\nTEST\n")
            .await
            .expect("room");
        client.shutdown().await.expect("it ends");
        answer(server, json!({"pod": "p"}), None)
            .await
            .expect("it ends");
        let mut heard = String::new();
        client.read_to_string(&mut heard).await.expect("text");
        let expected =
            "Gateway API Test TCP Server\nPONG\nfalse\n{\"isTLS\":false,\"pod\":\"p\"}\n";
        assert_eq!(heard, expected);
    }
}
