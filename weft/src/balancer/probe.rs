//! Asking a server whether it is ready.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use weft_apiserver::ca::SERVER_NAME;

use super::health::Seen;

/// Asks the server at `HOST:PORT`; whoever calls it sets a limit to the time.
pub(super) type Probe = Arc<dyn Fn(String) -> BoxFuture<'static, Seen> + Send + Sync>;

/// What a server answers that is not ready.
const NOT_READY: u16 = 500;

/// Only the store's part of it: a server that is about to end finishes what it has.
const PATH: &str = "/readyz/store";

/// The authorities of the cluster, as they are now.
pub(crate) type Trusted = Arc<dyn Fn() -> Vec<CertificateDer<'static>> + Send + Sync>;

/// A client, and by which authorities it judges.
type Kept = (kube::Client, Vec<CertificateDer<'static>>);

/// Asks API servers of the cluster with these authorities. A connection is kept for each, as long as they stay the same.
pub(super) fn readyz(trusted: Trusted) -> Probe {
    let clients: Arc<Mutex<HashMap<String, Kept>>> = Arc::default();
    Arc::new(move |address| {
        let (clients, trusted) = (Arc::clone(&clients), trusted());
        Box::pin(async move {
            // Put back after an answer only: a connection without one is not asked again.
            let kept = clients.lock().remove(&address);
            let kept = kept.filter(|(_, by)| *by == trusted);
            let client = match kept {
                Some((client, _)) => client,
                None => match client(&address, &trusted) {
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
            clients.lock().insert(address, (client, trusted));
            seen
        })
    })
}

fn client(address: &str, trusted: &[CertificateDer<'_>]) -> Result<kube::Client, String> {
    let url: http::Uri = format!("https://{address}")
        .parse()
        .map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let mut config = kube::Config::new(url);
    config.root_cert = Some(trusted.iter().map(|one| one.to_vec()).collect());
    // Whatever address leads there, it has to be an API server of this cluster.
    config.tls_server_name = Some(SERVER_NAME.to_owned());
    config.proxy_url = None;
    // The first answer counts.
    config.default_retry = false;
    kube::Client::try_from(config).map_err(|error| error.to_string())
}
