//! `mtlsserver` and `mtlsclient`: two that prove to each other who they are by certificates, and say it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode};

use crate::flags::{Flags, Known};
use crate::server::{Answer, not_found, refused, text};
use crate::{Code, client, log, server, tls};

const SERVER: [Known; 3] = [
    ("listen", None, ""),
    ("server-creds", None, ""),
    ("spiffe-trust-bundle", None, ""),
];
const CLIENT: [Known; 3] = [
    ("fetch-url", None, ""),
    ("server-trust-bundle", None, ""),
    ("client-cred-bundle", None, ""),
];
const POLL: Duration = Duration::from_secs(10);
const FETCH_MAX: Duration = Duration::from_secs(30);

fn required<'f, const N: usize>(
    flags: &'f Flags,
    names: [&str; N],
) -> Result<[&'f str; N], String> {
    let values = names.map(|name| flags.text(name));
    match values.iter().any(|value| value.is_empty()) {
        true => Err("missing required flags".to_owned()),
        false => Ok(values),
    }
}

pub(crate) async fn serve(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&SERVER, arguments)?;
    let names = ["listen", "server-creds", "spiffe-trust-bundle"];
    let [listen, credentials, bundle] = required(&flags, names)?;
    let failed = |why: String| format!("error while serving: {why}");
    let read = std::fs::read(bundle);
    let read =
        read.map_err(|error| failed(format!("while reading SPIFFE trust anchors: {error}")))?;
    tls::roots(&read).map_err(failed)?;
    let acceptor = tls::asking_acceptor(credentials, credentials);
    let acceptor =
        acceptor.map_err(|why| failed(format!("while loading server key pair: {why}")))?;
    let (_, port) = client::split(listen);
    let port = port.and_then(|port| port.parse().ok());
    let port = port.ok_or_else(|| {
        failed(format!(
            "while listening: address {listen}: missing port in address"
        ))
    })?;
    let listener = server::listen(port).await;
    let listener = listener.map_err(|error| failed(format!("while listening: {error}")))?;
    let bundle = bundle.to_owned();
    let handler = server::handler(move |request| {
        let bundle = bundle.clone();
        async move {
            match (request.method, request.path.as_str()) {
                (Method::GET | Method::HEAD, "/spiffe-echo") => echo(&request.shown, &bundle),
                _ => not_found(),
            }
        }
    });
    server::serve(listener, Some(acceptor), handler).await;
    Ok(0)
}

fn echo(shown: &[rustls_pki_types::CertificateDer<'static>], bundle: &str) -> Answer {
    let required = || {
        let told = "SPIFFE client certificate authentication required";
        refused(StatusCode::UNAUTHORIZED, told)
    };
    let Some(leaf) = shown.first() else {
        return required();
    };
    let roots = std::fs::read(bundle).map_err(|error| error.to_string());
    let roots = match roots.and_then(|pem| tls::roots(&pem)) {
        Ok(roots) => roots,
        Err(why) => {
            log::print(format_args!(
                "Error while reading SPIFFE trust anchors: {why}"
            ));
            return refused(StatusCode::INTERNAL_SERVER_ERROR, "Internal Error");
        }
    };
    if let Err(why) = tls::verify(roots, shown) {
        log::print(format_args!(
            "Error while verifying SPIFFE client certificate: {why}"
        ));
        return required();
    }
    match &tls::uris(leaf)[..] {
        [uri] => text(format!("Client Identity: {uri}")),
        uris => {
            log::print(format_args!(
                "SPIFFE client certificate did not have 1 URI SAN, count: {}",
                uris.len()
            ));
            refused(StatusCode::UNAUTHORIZED, "Malformed SPIFFE certificate")
        }
    }
}

pub(crate) async fn poll(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&CLIENT, arguments)?;
    let names = ["fetch-url", "server-trust-bundle", "client-cred-bundle"];
    let [url, trust, credentials] = required(&flags, names)?;
    loop {
        tokio::time::sleep(POLL).await;
        if let Err(why) = fetch(url, trust, credentials).await {
            log::error(
                "client.go:77",
                format_args!("while sending requests to the server: {why}"),
            );
        }
    }
}

async fn fetch(url: &str, trust: &str, credentials: &str) -> Result<(), String> {
    let pem = std::fs::read(trust);
    let pem = pem.map_err(|error| format!("while reading service trust bundle: {error}"))?;
    let config = tls::client(tls::roots(&pem)?, Some(credentials))
        .map_err(|why| format!("while reading client credential bundle: {why}"))?;
    let request = Request::new(Full::<Bytes>::default());
    let response = client::send(url, request, Some(config), FETCH_MAX).await;
    let response = response.map_err(|why| format!("while getting URL: Get {url:?}: {why}"))?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!(
            "non-2xx status {} {:?}",
            status.as_u16(),
            status.to_string()
        ));
    }
    let body = String::from_utf8_lossy(response.body());
    log::print(format_args!("Got response body: {body}"));
    Ok(())
}
