//! How a new server asks a cluster for its number and for the authority.
//!
//! It proves itself by a server token, and the cluster proves itself by the authority's certificate: `server-token` and
//! `ca.crt` of a running server's data folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_util::sync::CancellationToken;
use weft_apiserver::http::servers::{JoinRequest, Joined};
use weft_store::ServerId;

use crate::exit::{Chain, Failure};
use crate::kubeconfig::api_failure;

/// How a server joins.
#[derive(Debug, Clone)]
pub struct JoinConfig {
    /// `https://HOST:PORT` of a server's API.
    pub server: String,
    pub ca_file: PathBuf,
    pub token_file: PathBuf,
    /// A server that is gone for good, and whose place it takes.
    pub replaces: Option<ServerId>,
}

/// How long a cluster may be without a leader, or busy with another change, before joining is given up.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the cluster may take for one answer: two changes of its members, which have ten seconds each.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25);

fn failure(why: impl std::fmt::Display) -> Failure {
    Failure::new(
        "cannot join the cluster",
        why,
        "check --join, --ca-file and --token-file; a server makes a new server-token at each start",
    )
}

/// Asks until the cluster answers, or until `stop`.
///
/// # Errors
/// A [`Failure`] with what the cluster said last.
pub(super) async fn ask(
    join: &JoinConfig,
    peer_address: &str,
    stop: &CancellationToken,
) -> Result<Joined, Failure> {
    let client = client(join)?;
    let body = serde_json::to_vec(&JoinRequest {
        peer_address: peer_address.to_owned(),
        replaces: join.replaces,
    })
    .map_err(failure)?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let request = http::Request::post("/weft/v1/servers")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.clone())
            .map_err(failure)?;
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(failure("it was told to stop")),
            answer = tokio::time::timeout(ANSWER_TIMEOUT, client.request::<Joined>(request)) => answer,
        };
        let (why, passes) = match answer {
            Ok(Ok(joined)) => return Ok(joined),
            Ok(Err(error)) => (api_failure("", &error).why, passes(&error)),
            Err(_) => {
                let seconds = ANSWER_TIMEOUT.as_secs();
                (
                    format!("{} gave no answer in {seconds} s", join.server),
                    true,
                )
            }
        };
        if !passes || tokio::time::Instant::now() >= deadline {
            return Err(failure(why));
        }
        tracing::info!(why, "cannot join yet, will be repeated");
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// Whether it may be otherwise in a moment.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 429 | 503 | 504 | 507),
        // Nobody listens yet, or the server that did is restarting; a wrong certificate stays wrong.
        error => {
            let text = Chain(error).to_string();
            !text.contains("certificate") && !text.contains("alert")
        }
    }
}

fn client(join: &JoinConfig) -> Result<kube::Client, Failure> {
    let check = "name the files of a running server's data folder";
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| {
            Failure::new(format!("cannot read {}", path.display()), error, check).usage()
        })
    };
    let pem = read(&join.ca_file)?;
    let authority: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&pem)
        .filter_map(Result::ok)
        .map(|certificate| certificate.to_vec())
        .collect();
    if authority.is_empty() {
        let what = format!("cannot use {}", join.ca_file.display());
        return Err(Failure::new(what, "it holds no certificate", check).usage());
    }
    let token = String::from_utf8_lossy(&read(&join.token_file)?)
        .trim()
        .to_owned();
    let url = join.server.parse::<http::Uri>().map_err(|error| {
        let what = format!("cannot join {}", join.server);
        Failure::new(what, error, "write it as https://10.0.0.1:6443").usage()
    })?;
    let mut config = kube::Config::new(url);
    config.root_cert = Some(authority);
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // No HTTP proxy stands between two servers, whatever the environment says for other programs.
    config.proxy_url = None;
    // Deserialising is the one way to an AuthInfo that needs no extra crate for its secret strings.
    if let Ok(auth) = serde_json::from_value(serde_json::json!({ "token": token })) {
        config.auth_info = auth;
    }
    kube::Client::try_from(config).map_err(|error| failure(Chain(&error)))
}
