//! What guests ask of the mesh for their calls, tell it of those that they serve, and count: for components of WASI 0.2 and 0.3, here and in
//! worker processes. What comes of it is the embedder's: it gets no more than a guest may ask for.

mod example;
mod guest;

use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use weft_call::{Aside, CallOptions, Priority, REST_MAX, Spent};
use weft_runtime::host::metrics::{SERIES_MAX, Value};
use weft_runtime::worker::{RemoteWorkload, Worker, WorkerCommand};
use weft_runtime::{
    Artifact, Body, CallContext, Cores, Engine, Failure, GrantError, Grants, Metrics, Outbound,
    Peer, Setup, TraceContext, Transport, Workload, WorkloadError,
};

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    // A cache on disk is where a worker process gets code from. It goes with the machine's temporary files.
    let dir = std::env::temp_dir().join(format!("weft-mesh-{}", std::process::id()));
    let engine = Engine::builder().instances_max(64).cache_dir(dir);
    engine.build().unwrap()
});

async fn artifact(name: &str) -> Artifact {
    ENGINE.load(guest::bytes(name)).await.unwrap()
}

/// A request of a guest, as it left.
#[derive(Clone)]
struct Sent {
    path: String,
    headers: HeaderMap,
    options: CallOptions,
    context: CallContext,
}

/// Who answers what guests ask for, and remembers it.
#[derive(Clone, Default)]
struct Next(Arc<Mutex<Vec<Sent>>>);

impl Next {
    fn outbound(&self) -> Outbound {
        let sent = self.0.clone();
        Outbound::new(tower::service_fn(move |request: Request<Body>| {
            let extensions = request.extensions();
            sent.lock().unwrap().push(Sent {
                path: request.uri().to_string(),
                headers: request.headers().clone(),
                options: extensions.get().copied().unwrap_or_default(),
                context: extensions.get().cloned().unwrap_or_default(),
            });
            std::future::ready(Ok::<_, Failure>(Response::new(Body::empty())))
        }))
    }

    fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A guest, wherever it runs.
enum Guest {
    Here(Workload),
    Apart(RemoteWorkload),
}

impl Guest {
    async fn say(&self, path: &str, context: CallContext) -> String {
        let uri = format!("http://guest{path}");
        let mut request = Request::builder().uri(uri).body(Body::empty()).unwrap();
        request.extensions_mut().insert(context);
        let answered = match self {
            Guest::Here(workload) => workload.call(request).await,
            Guest::Apart(workload) => workload.call(request).await,
        };
        match answered {
            Ok(response) => {
                let status = response.status().as_u16();
                let internal = response.headers().keys();
                let internal: Vec<_> = internal
                    .filter(|name| name.as_str().starts_with("weft-"))
                    .collect();
                assert!(internal.is_empty(), "{internal:?}");
                let bytes = response.into_body().collect().await.unwrap().to_bytes();
                format!("{status} {}", String::from_utf8_lossy(&bytes))
            }
            Err(error) => format!("{:?}: {error}", error.kind),
        }
    }
}

struct World {
    next: Next,
    metrics: Metrics,
    guests: [(&'static str, Guest); 2],
    _worker: Worker,
    _cores: Cores,
}

/// The component here and in a worker process, each with metrics of its own.
async fn world(component: &str) -> (World, Metrics) {
    let next = Next::default();
    let artifact = artifact(component).await;
    let (metrics, apart) = (Metrics::default(), Metrics::default());
    let here = Workload::builder(&ENGINE, &artifact)
        .metrics(metrics.clone())
        .outbound(next.outbound())
        .build()
        .unwrap();
    let cores = Cores::start(2).unwrap();
    let command = WorkerCommand {
        program: example::path("worker"),
        args: Vec::new(),
    };
    let worker = Worker::start(&command, &cores).await.unwrap();
    let mut grants = Grants::default();
    grants.metrics(apart.clone());
    let setup = Setup {
        grants,
        outbound: Some(next.outbound()),
        ..Setup::default()
    };
    let there = worker.build(&ENGINE, &artifact, setup).await.unwrap();
    let guests = [("here", Guest::Here(here)), ("apart", Guest::Apart(there))];
    let world = World {
        next,
        metrics,
        guests,
        _worker: worker,
        _cores: cores,
    };
    (world, apart)
}

fn recorded() -> TraceContext {
    TraceContext::root(7, 9).recorded(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_141_what_is_asked_for_is_of_one_request_and_lowers_alone() {
    let (world, _) = world("meshed").await;
    for (place, guest) in &world.guests {
        let now = Instant::now();
        let context = CallContext {
            deadline: Some(now + Duration::from_secs(20)),
            priority: Priority::Low,
            trace: Some(recorded()),
            ..CallContext::default()
        };
        let all = "/ask?idempotent&no-retry&hedge-ms=0&within-ms=5000&at-most=sheddable&key=user-7";
        assert_eq!(
            guest.say(all, context.clone()).await,
            "200 200 200",
            "{place}"
        );
        let sent = world.next.take();
        let [asked, plain] = &sent[..] else {
            panic!("{place}: {} requests", sent.len());
        };
        let options = &asked.options;
        assert!(options.idempotent && options.once, "{place}");
        assert_eq!(
            options.hedge_after,
            Some(Duration::from_millis(1)),
            "{place}"
        );
        assert_eq!(options.key, Some(CallOptions::key_of(b"user-7")), "{place}");
        assert_eq!(asked.context.priority, Priority::Sheddable, "{place}");
        let left = asked.context.deadline.unwrap() - now;
        assert!(left < Duration::from_secs(10), "{place}: {left:?}");
        assert_eq!(plain.options, CallOptions::default(), "{place}");
        assert_eq!(plain.context.priority, Priority::Low, "{place}");
        let left = plain.context.deadline.unwrap() - now;
        assert!(left > Duration::from_secs(15), "{place}: {left:?}");

        // More than its own call has is not to be had.
        let more = "/ask?within-ms=600000&at-most=critical";
        assert_eq!(guest.say(more, context).await, "200 200 200", "{place}");
        let sent = world.next.take();
        assert_eq!(sent[0].context.priority, Priority::Low, "{place}");
        let left = sent[0].context.deadline.unwrap() - now;
        assert!(left < Duration::from_secs(21), "{place}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_141_lines_of_hosts_in_a_request_ask_for_nothing() {
    let (world, _) = world("meshed").await;
    for (place, guest) in &world.guests {
        let said = guest.say("/lie", CallContext::default()).await;
        assert_eq!(said, "200 200 OK", "{place}");
        let sent = world.next.take();
        assert_eq!(sent[0].options, CallOptions::default(), "{place}");
        let context = &sent[0].context;
        assert_eq!(
            (context.attempt, context.priority),
            (0, Priority::Usual),
            "{place}"
        );
        // Lines of nodes are taken off by the mesh; those of worker processes never leave.
        let internal = sent[0].headers.keys();
        let internal: Vec<_> = internal
            .filter(|name| name.as_str().starts_with("weft-worker-"))
            .collect();
        assert!(
            internal.is_empty() || *place == "here",
            "{place}: {internal:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_knows_gateways_workloads_and_the_host_apart() {
    let (world, _) = world("meshed").await;
    let peer = Arc::new(Peer {
        spiffe_id: "spiffe://cluster.local/ns/shop/sa/web".into(),
        namespace: "shop".into(),
        service_account: "web".into(),
        workload: "web".into(),
        transport: Transport::InProcess,
    });
    for (place, guest) in &world.guests {
        for (peer, outside, attempt, expected) in [
            (None, false, 0, "200 Some(Host) Usual try 1"),
            (None, true, 0, "200 Some(Gateway) Usual try 1"),
            (
                Some(peer.clone()),
                false,
                1,
                "200 Some(Workload) Usual try 2",
            ),
        ] {
            let context = CallContext {
                peer,
                outside,
                attempt,
                ..CallContext::default()
            };
            assert_eq!(guest.say("/who", context).await, expected, "{place}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_a_call_is_told_of_that_call_within_its_bounds() {
    let (world, _) = world("meshed").await;
    for (place, guest) in &world.guests {
        let told = async |path: &str, trace: Option<TraceContext>| {
            let spent = Spent::default();
            let context = CallContext {
                spent: Some(spent.clone()),
                trace,
                ..CallContext::default()
            };
            (guest.say(path, context).await, spent.aside())
        };
        let quiet = told("/who", Some(recorded())).await;
        assert_eq!(quiet.1, None, "{place}");
        let path = "/tell?rest-ms=2500&no-retry&name=user.tier&value=gold";
        let (said, aside) = told(path, Some(recorded())).await;
        assert_eq!(said, "200 told", "{place}");
        let expected = Aside {
            is_spent: true,
            rest_millis: Some(2500),
            attributes: vec![("user.tier".into(), "gold".into())],
        };
        assert_eq!(aside, Some(expected), "{place}");
        // Of a trace that nobody records, nothing is kept.
        let (said, aside) = told("/tell?name=a&value=b", Some(TraceContext::root(7, 9))).await;
        assert_eq!((said.as_str(), aside), ("200 told", None), "{place}");
        let (_, aside) = told("/tell?rest-ms=99999999999", None).await;
        let most = u64::try_from(REST_MAX.as_millis()).unwrap();
        assert_eq!(aside.unwrap().rest_millis, Some(most), "{place}");
        for (path, expected) in [
            ("/tell?name=a%20b&value=c", "400 Name"),
            ("/tell?name=&value=c", "400 Name"),
            ("/describe?count=100", "200 16 taken"),
        ] {
            let (said, aside) = told(path, Some(recorded())).await;
            assert_eq!(said, expected, "{place} {path}");
            let held = aside.map_or(0, |aside| aside.attributes.len());
            assert!(held <= 16, "{place}: {held}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_140_what_is_counted_is_the_workloads_and_a_flood_ends() {
    let (world, apart) = world("meshed").await;
    let none = CallContext::default;
    for (place, guest) in &world.guests {
        for (path, expected) in [
            ("/count?name=orders_total&kind=tea&value=2", "200 counted"),
            ("/count?name=orders_total&kind=tea", "200 counted"),
            ("/count?name=orders_total&sort=gauge", "400 OtherSort"),
            ("/count?name=orders_total&kind=tea&value=-1", "400 Value"),
            ("/count?name=istio%20requests", "400 Name"),
            (
                "/count?name=seconds&sort=histogram&value=0.2",
                "200 counted",
            ),
            ("/flood?count=5000", "200 126 taken"),
            ("/count?name=more", "400 TooMany"),
            // What is there goes on.
            ("/count?name=orders_total&kind=tea", "200 counted"),
        ] {
            assert_eq!(guest.say(path, none()).await, expected, "{place} {path}");
        }
    }
    let counted = |metrics: &Metrics| {
        let series = metrics.series();
        let orders = series.iter().find(|series| series.name == "orders_total");
        (series.len(), orders.map(|orders| orders.value.clone()))
    };
    let expected = (SERIES_MAX, Some(Value::Counter(4.0)));
    assert_eq!(counted(&world.metrics), expected);
    for _ in 0..2_000 {
        if counted(&apart) == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the worker told {:?}", counted(&apart));
}

#[tokio::test]
async fn who_is_not_granted_metrics_is_refused_before_it_runs() {
    let artifact = artifact("meshed").await;
    let refused = Workload::builder(&ENGINE, &artifact).build();
    match refused.map(drop) {
        Err(WorkloadError::Grant(GrantError::NotGranted { capability, .. })) => {
            assert_eq!(capability, "weft:mesh/metrics");
        }
        other => panic!("{other:?}"),
    }
}

/// Of several calls in one instance, each gets what it has asked for.
#[tokio::test(flavor = "multi_thread")]
async fn calls_side_by_side_do_not_ask_for_each_other() {
    let next = Next::default();
    let artifact = artifact("relay-p3").await;
    let relay = Workload::builder(&ENGINE, &artifact)
        .outbound(next.outbound())
        .build()
        .unwrap();
    let relay = Arc::new(Guest::Here(relay));
    let calls = (0..40).map(|number| {
        let relay = relay.clone();
        tokio::spawn(async move {
            let path = match number % 2 {
                0 => format!("/{number}?key={number}"),
                _ => format!("/{number}"),
            };
            relay.say(&path, CallContext::default()).await
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap().contains("next answered 200"));
    }
    let sent = next.take();
    assert_eq!(sent.len(), 40);
    for Sent { path, options, .. } in sent {
        let path = path.trim_start_matches("http://next");
        let key = path
            .contains("key=")
            .then(|| CallOptions::key_of(path.as_bytes()));
        assert_eq!(options.key, key, "{path}");
    }
}
