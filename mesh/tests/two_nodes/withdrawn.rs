//! An endpoint that is not in the table any more is called by nobody, while calls are made all the time.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use http::{Request, Response};
use weft_mesh::{Body, Failure, Table};

use super::{
    gateway::ask,
    resilience::{get, of},
    world::*,
};

/// Calls of each caller before and after.
const CALLS: u32 = 100;

/// Says who it is, and counts.
fn counts(
    name: &'static str,
    calls: &Arc<AtomicU32>,
) -> impl Fn(Request<Body>) -> std::future::Ready<Result<Response<Body>, Failure>>
+ Clone
+ Send
+ Sync
+ 'static {
    let calls = Arc::clone(calls);
    move |_| {
        calls.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(Response::new(Body::full(name))))
    }
}

/// Of this node, of another one, and from outside: whoever begins a call when a table is in force does not go by the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_next_table_on_nobody_calls_it() {
    let world = world();
    world.authority.give(&world.b, "web");
    let (gone, stays) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    world
        .b
        .attach(pod(1), workload("voting", counts("gone", &gone)));
    world
        .b
        .attach(pod(2), workload("voting", counts("stays", &stays)));
    let publish = |generation, lasts: &[u8]| {
        for mesh in [&world.a, &world.b] {
            let endpoints = lasts
                .iter()
                .map(|last| endpoint("voting", *last, "b", world.b_address));
            let both = service("both", endpoints.collect());
            mesh.publish(
                Table::builder(mesh.node(), generation)
                    .service(both)
                    .build(),
            );
        }
    };
    publish(1, &[1, 2]);
    let (listener, gateway) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });

    let (is_over, withdrawn) = (Arc::new(AtomicU32::new(0)), tokio::sync::Notify::new());
    let withdrawn = Arc::new(withdrawn);
    let mut callers = tokio::task::JoinSet::new();
    for number in 0..9 {
        let (is_over, withdrawn) = (Arc::clone(&is_over), Arc::clone(&withdrawn));
        let outbound = match number % 3 {
            0 => Some(of(&world.a, "web")),
            1 => Some(of(&world.b, "web")),
            _ => None,
        };
        callers.spawn(async move {
            let call = async || match &outbound {
                Some(outbound) => {
                    let answer = outbound.call(get("http://both/")).await;
                    text(answer.expect("an answer")).await.expect("text").1
                }
                None => ask(gateway, "both.vote.localhost", "/").await,
            };
            let mut made = 0;
            while is_over.load(Ordering::SeqCst) == 0 {
                call().await;
                made += 1;
                if made == CALLS {
                    withdrawn.notify_one();
                }
            }
            // What it had begun is answered; from here on it goes by what it finds.
            for _ in 0..CALLS {
                let said = call().await;
                assert!(said.ends_with("stays"), "caller {number} heard {said}");
            }
        });
    }
    withdrawn.notified().await;
    assert!(
        gone.load(Ordering::SeqCst) > 0,
        "it is called while it is there"
    );
    publish(2, &[2]);
    is_over.store(1, Ordering::SeqCst);
    while let Some(ended) = callers.join_next().await {
        ended.expect("no call to who is gone");
    }
}
