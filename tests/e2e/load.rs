//! A steady stream of real requests while something else happens, and what answered them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Requests in flight at once.
const CLIENTS: usize = 8;
/// A request that takes longer than this failed, whatever it would have answered.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests being sent until [`Load::finish`].
pub struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<BTreeMap<String, u64>>,
}

/// How many requests got which answer: `200`, or the error's text.
#[derive(Debug, Default)]
pub struct Answers(pub BTreeMap<String, u64>);

impl Answers {
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// All that was not a 200.
    pub fn failures(&self) -> u64 {
        self.total() - self.0.get("200").copied().unwrap_or(0)
    }
}

impl Load {
    /// Sends GET requests to `path` of `host` through the gateway, from [`CLIENTS`] clients, one after the other.
    pub fn start(gateway: &str, host: &str, path: &str) -> Self {
        let (stop, stopped) = watch::channel(false);
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (client, stopped) = (client.clone(), stopped.clone());
            let (uri, host) = (format!("{gateway}{path}"), host.to_owned());
            clients.spawn(async move {
                let mut answers = BTreeMap::new();
                while !*stopped.borrow() {
                    let request = http::Request::get(&uri)
                        .header(http::header::HOST, &host)
                        .body(Empty::new())
                        .expect("the request is well formed");
                    let exchange = async {
                        let response = client.request(request).await?;
                        let status = response.status();
                        response
                            .into_body()
                            .collect()
                            .await
                            .map_err(anyhow::Error::from)?;
                        anyhow::Ok(status)
                    };
                    let answer = match tokio::time::timeout(REQUEST_TIMEOUT, exchange).await {
                        Ok(Ok(status)) => status.as_u16().to_string(),
                        Ok(Err(error)) => format!("{error:#}"),
                        Err(_) => "timed out".to_owned(),
                    };
                    *answers.entry(answer).or_default() += 1;
                }
                answers
            });
        }
        Self { stop, clients }
    }

    pub async fn finish(mut self) -> Answers {
        self.stop.send_replace(true);
        let mut answers = Answers::default();
        while let Some(counted) = self.clients.join_next().await {
            for (answer, count) in counted.expect("a client does not panic") {
                *answers.0.entry(answer).or_default() += count;
            }
        }
        answers
    }
}

/// One GET through the gateway: status and body.
pub async fn get(gateway: &str, host: &str, path: &str) -> anyhow::Result<(u16, String)> {
    send(gateway, host, http::Method::GET, path).await
}

/// One request without a body through the gateway: status and body.
pub async fn send(
    gateway: &str,
    host: &str,
    method: http::Method,
    path: &str,
) -> anyhow::Result<(u16, String)> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let request = http::Request::builder()
        .method(method)
        .uri(format!("{gateway}{path}"))
        .header(http::header::HOST, host)
        .body(Empty::new())?;
    let response = tokio::time::timeout(REQUEST_TIMEOUT, client.request(request)).await??;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
