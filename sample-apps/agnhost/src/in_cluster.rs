//! `inclusterclient`: asks the API server how it is, as the pod's own account.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::AUTHORIZATION;
use rustls::ClientConfig;

use crate::flags::{Flags, Known};
use crate::{Code, client, log, tls};

const FLAGS: [Known; 1] = [("poll-interval", None, "30")];
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ASK_MAX: Duration = Duration::from_secs(30);
const FILE: &str = "main.go:64";

/// The API server, as a pod is told of it.
pub(crate) struct Cluster {
    pub(crate) url: String,
    pub(crate) tls: Arc<ClientConfig>,
}

impl Cluster {
    /// # Errors
    /// In client-go's words.
    pub(crate) fn here() -> Result<Cluster, String> {
        let variable = |name| std::env::var(name).unwrap_or_default();
        let (host, port) = (
            variable("KUBERNETES_SERVICE_HOST"),
            variable("KUBERNETES_SERVICE_PORT"),
        );
        if host.is_empty() || port.is_empty() {
            return Err("unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined".to_owned());
        }
        let authority = format!("{ACCOUNT}/ca.crt");
        let pem =
            std::fs::read(&authority).map_err(|error| format!("open {authority}: {error}"))?;
        Ok(Cluster {
            url: format!("https://{}", client::join(&host, &port)),
            tls: tls::client(tls::roots(&pem)?, None)?,
        })
    }

    /// A GET as the pod's account, with the token that there is now; of `url`, or of a path of the server.
    ///
    /// # Errors
    /// Why nothing came back, or what came back with another status than 200.
    pub(crate) async fn get(&self, url: &str) -> Result<Bytes, String> {
        let token = std::fs::read_to_string(format!("{ACCOUNT}/token")).unwrap_or_default();
        let url = match url.starts_with('/') {
            true => format!("{}{url}", self.url),
            false => url.to_owned(),
        };
        let request = Request::get("/").header(AUTHORIZATION, format!("Bearer {}", token.trim()));
        let request = request
            .body(Full::default())
            .map_err(|error| error.to_string())?;
        let sent = client::send(&url, request, Some(self.tls.clone()), ASK_MAX).await;
        let response = sent.map_err(|why| format!("Get {url:?}: {why}"))?;
        let status = response.status();
        match status.is_success() {
            true => Ok(response.into_body()),
            false => Err(format!(
                "{status}: {}",
                String::from_utf8_lossy(response.body())
            )),
        }
    }
}

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let seconds = u64::try_from(flags.number("poll-interval")?).unwrap_or(30);
    log::info(FILE, "started");
    let cluster = Cluster::here()?;
    loop {
        tokio::time::sleep(Duration::from_secs(seconds.max(1))).await;
        log::info(FILE, "calling /healthz");
        match cluster.get("/healthz").await {
            Ok(_) => log::info(FILE, "authz_header=present"),
            Err(why) => {
                log::error(FILE, "status=failed");
                log::error(FILE, format_args!("error checking /healthz: {why}"));
            }
        }
    }
}
