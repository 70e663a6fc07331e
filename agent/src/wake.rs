//! Replicas for Services that calls are held for: the mesh says for which, the API server is asked for them.
//!
//! ```text
//! POST /apis/weft.dev/v1alpha1/namespaces/NS/activations   {"spec": {"serviceName": NAME}}  →  {"status": {"message": what is in the way}}
//! ```
//! Asked again while calls wait, so that they hear why if there is nobody in the end. That somebody answers shows in the table, not here.
//!
//! Invariants: one task a Service, so many at once as [`ASKS_MAX`]; it ends with the calls that wait. What is in the way has to be so for
//! [`OBSTACLES_MAX`] asks in a row: a pod that finds no place makes room for itself, or others do, within a moment. A server that does not
//! answer is waited for: another will.

use std::time::Duration;

use http::{Request, header};
use serde::Deserialize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_mesh::{Mesh, Wanted};

use crate::identity::{Chain, Link};

/// Services that are asked for at the same time; the calls of further ones wait a little longer.
const ASKS_MAX: usize = 64;
/// Pause between two asks for a Service.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// How long one may take.
const ASK_WITHIN: Duration = Duration::from_secs(5);
/// So many answers in a row that something is in the way end the waiting.
const OBSTACLES_MAX: u32 = 4;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Activation {
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    message: Option<String>,
}

/// Asks until `stop`.
pub(crate) async fn run(mesh: Mesh, link: Link, stop: CancellationToken) {
    let mut asks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(ended) = asks.join_next(), if !asks.is_empty() => if let Err(error) = ended {
                tracing::error!(%error, "asking for a replica failed");
            },
            wanted = mesh.next_wanted(), if asks.len() < ASKS_MAX => {
                let link = link.clone();
                asks.spawn(async move {
                    tokio::select! {
                        biased;
                        () = wanted.is_over() => {}
                        () = ask(&link, &wanted) => {}
                    }
                });
            }
        }
    }
}

/// What comes of an ask.
enum Answer {
    /// A pod is there, or on its way.
    OnItsWay,
    InTheWay(String),
    /// The server cannot say.
    Unanswered(&'static str),
}

/// Asks for replicas of a Service until it is of no use.
async fn ask(link: &Link, wanted: &Wanted) {
    let mut obstacles = 0;
    loop {
        match ask_once(link, wanted).await {
            Answer::OnItsWay => {
                obstacles = 0;
                wanted.tell(None);
            }
            Answer::Unanswered(why) => wanted.tell(Some(why)),
            Answer::InTheWay(why) => {
                obstacles += 1;
                let (namespace, service) = (wanted.namespace(), wanted.name());
                tracing::debug!(namespace, service, why, "nobody answers for a Service yet");
                if obstacles >= OBSTACLES_MAX {
                    return wanted.refuse(&why);
                }
                wanted.tell(Some(&why));
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn ask_once(link: &Link, wanted: &Wanted) -> Answer {
    let namespace = wanted.namespace();
    let path = format!("/apis/weft.dev/v1alpha1/namespaces/{namespace}/activations");
    let asked = json!({
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Activation",
        "spec": {"serviceName": wanted.name()},
    });
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(asked.to_string().into_bytes());
    let Ok(request) = request else {
        return Answer::InTheWay("its name cannot be asked for".to_owned());
    };
    let client = link.client();
    let answer = client.request::<Activation>(request);
    match tokio::time::timeout(ASK_WITHIN, answer).await {
        Ok(Ok(answer)) => match answer.status.message {
            None => Answer::OnItsWay,
            Some(why) => Answer::InTheWay(why),
        },
        Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
            Answer::InTheWay(status.message.clone())
        }
        Ok(Err(error)) => {
            tracing::debug!(error = %Chain(&error), "asking for a replica failed");
            Answer::Unanswered("the API server cannot be asked for a pod")
        }
        Err(_) => Answer::Unanswered("the API server does not answer"),
    }
}
