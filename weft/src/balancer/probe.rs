//! Asking a server whether it is ready.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use weft_apiserver::ca::SERVER_NAME;

use super::health::Seen;

/// Asks the server at `HOST:PORT`; whoever calls it sets a limit to the time.
pub(super) type Probe = Arc<dyn Fn(String) -> BoxFuture<'static, Seen> + Send + Sync>;

/// What a server answers that is not ready.
const NOT_READY: u16 = 500;

/// Only the store's part of it: a server that is about to end finishes what it has.
const PATH: &str = "/readyz/store";

/// Asks API servers of the cluster with this authority, certificates as DER. A connection is kept for each.
pub(super) fn readyz(authority: Vec<Vec<u8>>) -> Probe {
    let clients: Arc<Mutex<HashMap<String, kube::Client>>> = Arc::default();
    Arc::new(move |address| {
        let (clients, authority) = (Arc::clone(&clients), authority.clone());
        Box::pin(async move {
            // Put back after an answer only: a connection without one is not asked again.
            let kept = clients.lock().remove(&address);
            let client = match kept {
                Some(client) => client,
                None => match client(&address, authority) {
                    Ok(client) => client,
                    Err(error) => {
                        tracing::warn!(address, %error, "a server cannot be asked whether it is ready");
                        return Seen::Gone;
                    }
                },
            };
            let Ok(request) = http::Request::get(PATH).body(Vec::new()) else {
                return Seen::Gone;
            };
            let seen = match client.request_text(request).await {
                Ok(_) => Seen::Ready,
                // Too many requests, say: it answers, and elsewhere it would be no better.
                Err(kube::Error::Api(status)) if status.code != NOT_READY => Seen::Ready,
                Err(kube::Error::Api(_)) => Seen::Unready,
                Err(error) => {
                    tracing::debug!(address, %error, "a server does not take connections");
                    return Seen::Gone;
                }
            };
            clients.lock().insert(address, client);
            seen
        })
    })
}

fn client(address: &str, authority: Vec<Vec<u8>>) -> Result<kube::Client, String> {
    let url: http::Uri = format!("https://{address}")
        .parse()
        .map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let mut config = kube::Config::new(url);
    config.root_cert = Some(authority);
    // Whatever address leads there, it has to be an API server of this cluster.
    config.tls_server_name = Some(SERVER_NAME.to_owned());
    config.proxy_url = None;
    // The first answer counts.
    config.default_retry = false;
    kube::Client::try_from(config).map_err(|error| error.to_string())
}
