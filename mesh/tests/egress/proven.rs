//! What the host adds to calls that leave: TLS that the caller did not ask for, and secrets that it never sees. Attacks 121–124 are callers who
//! want to see, choose, keep or carry on what is added.

use std::sync::{Arc, Mutex};

use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use weft_mesh::{
    Body, EgressCredential, EgressManner, EgressRule, EgressScheme, FailureKind, Outbound,
};

use crate::world::{Authority, HOST, Host, Speech, World, get, rule, text};

const SECRET: &str = "Bearer hunter2";

fn bearer(token: &'static str) -> EgressCredential {
    EgressCredential::Line(header::AUTHORIZATION, HeaderValue::from_static(token))
}

fn proven(rule: EgressRule, credentials: Vec<EgressCredential>) -> EgressRule {
    EgressRule {
        manner: EgressManner {
            credentials,
            ..rule.manner.clone()
        },
        ..rule
    }
}

/// What a host was shown, request by request.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<Vec<String>>>>);

impl Shown {
    /// Writes down the lines that prove who calls, and answers without them.
    async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        drop(body.collect().await);
        let lines = head.headers.get_all(header::AUTHORIZATION).iter();
        let lines = lines.map(|line| line.to_str().expect("text").to_owned());
        self.0.lock().expect("no panic").push(lines.collect());
        Response::new(Body::full("ok"))
    }

    fn take(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }
}

async fn host(speech: Speech) -> (Host, Shown) {
    let shown = Shown::default();
    let answers = shown.clone();
    let host = Host::start(HOST, speech, move |request| answers.clone().answer(request)).await;
    (host, shown)
}

async fn told(caller: &Outbound, request: Request<Body>) -> String {
    text(caller.call(request).await).await
}

#[tokio::test]
async fn a_secret_is_added_by_the_host_in_place_of_what_the_caller_says_and_follows_its_source() {
    let world = World::new();
    world.names.add("api.test", &[&[HOST]]);
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let speech = Speech::tls(&world.authority, "api.test", protocols);
        let (host, shown) = host(speech).await;
        let plain = rule("api.test", EgressScheme::Https, host.port());
        let uri = format!("https://api.test:{}/", host.port());
        let mut request = get(&uri);
        // Twice, and once more as a line of one hop, which would have it taken away.
        for mine in ["Bearer mine", "Bearer others"] {
            let mine = HeaderValue::from_static(mine);
            request.headers_mut().append(header::AUTHORIZATION, mine);
        }
        let hop = HeaderValue::from_static("authorization");
        request.headers_mut().insert(header::CONNECTION, hop);
        let caller = world.caller("cart", &[proven(plain.clone(), vec![bearer(SECRET)])]);
        assert_eq!(told(&caller, request).await, "ok");
        assert_eq!(shown.take(), [[SECRET]], "attack 121");

        // A new one holds for the next call, on the connection that is open.
        let newer = proven(plain.clone(), vec![bearer("Bearer newer")]);
        let caller = world.caller("cart", &[newer]);
        assert_eq!(told(&caller, get(&uri)).await, "ok");
        assert_eq!(shown.take(), [["Bearer newer"]]);
        assert_eq!(host.seen.connections(), 1);

        let caller = world.caller("cart", &[plain]);
        assert_eq!(told(&caller, get(&uri)).await, "ok");
        assert_eq!(shown.take(), [[""; 0]], "and none where none is granted");
    }
}

#[tokio::test]
async fn attack_122_a_secret_goes_to_the_hosts_and_paths_of_its_rule_and_is_never_shown() {
    let world = World::new();
    for name in ["api.test", "other.test"] {
        world.names.add(name, &[&[HOST]]);
    }
    let speech = |name| Speech::tls(&world.authority, name, &["h2"]);
    let (api, of_api) = host(speech("api.test")).await;
    let (other, of_other) = host(speech("other.test")).await;
    let mut mine = rule("api.test", EgressScheme::Https, api.port());
    mine.paths = vec!["/v1".to_owned()];
    let mut rest = rule("api.test", EgressScheme::Https, api.port());
    rest.paths = vec!["/open".to_owned()];
    let elsewhere = rule("other.test", EgressScheme::Https, other.port());
    let rules = [proven(mine, vec![bearer(SECRET)]), rest, elsewhere];
    let caller = world.caller("cart", &rules);
    let of = |path: &str| format!("https://api.test:{}{path}", api.port());
    assert_eq!(told(&caller, get(&of("/v1/charges"))).await, "ok");
    assert_eq!(of_api.take(), [[SECRET]]);
    for path in ["/open", "/v1/../open", "/open/%2e%2e/open"] {
        assert_eq!(told(&caller, get(&of(path))).await, "ok");
        assert_eq!(of_api.take(), [[""; 0]], "{path}");
    }
    // Where a redirect leads is another call, to another host.
    let uri = format!("https://other.test:{}/v1/charges", other.port());
    assert_eq!(told(&caller, get(&uri)).await, "ok");
    assert_eq!(of_other.take(), [[""; 0]]);
    // The method that shows a request to whoever sent it.
    let mut trace = get(&of("/v1"));
    *trace.method_mut() = Method::TRACE;
    let refused = caller.call(trace).await.expect_err("it would be shown");
    assert_eq!(refused.kind, FailureKind::NotGranted, "{refused}");
    assert_eq!(api.seen.requests(), 4);
    // Another identity has none of it.
    let stranger = world.caller("web", &[rule("api.test", EgressScheme::Https, api.port())]);
    assert_eq!(told(&stranger, get(&of("/v1"))).await, "ok");
    assert_eq!(of_api.take(), [[""; 0]]);
}

#[tokio::test]
async fn attack_123_without_its_secret_or_without_tls_a_call_does_not_leave() {
    let world = World::new();
    world.names.add("api.test", &[&[HOST]]);
    let (host, _) = host(Speech::tls(&world.authority, "api.test", &["h2"])).await;
    let uri = format!("https://api.test:{}/", host.port());
    let missing = EgressCredential::Missing("Secret key does not exist".to_owned());
    let plain = rule("api.test", EgressScheme::Https, host.port());
    let caller = world.caller("cart", &[proven(plain, vec![missing])]);
    let refused = caller.call(get(&uri)).await.expect_err("not proven");
    assert_eq!(refused.kind, FailureKind::NotGranted);
    let why = refused.to_string();
    assert!(why.contains("Secret key does not exist"), "{why}");
    assert_eq!(host.seen.connections(), 0);

    let in_the_clear = proven(
        rule("api.test", EgressScheme::Http, host.port()),
        vec![bearer(SECRET)],
    );
    let identity = weft_api::identity::SpiffeId::new("cluster.local", "shop", "clear");
    let wrong = world.mesh.set_egress_rules(&identity, &[in_the_clear]);
    assert_eq!(
        wrong[0].to_string(),
        "CapabilityGrant shop/cart: credentials \"\" are never sent without TLS"
    );
}

#[tokio::test]
async fn tls_is_originated_where_the_rule_says_so() {
    let world = World::new();
    world.names.add("api.test", &[&[HOST]]);
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let speech = Speech::tls(&world.authority, "api.test", protocols);
        let (host, shown) = host(speech).await;
        let mut plain = rule("api.test", EgressScheme::Http, 80);
        plain.manner.originate = Some(host.port());
        let caller = world.caller("cart", &[proven(plain, vec![bearer(SECRET)])]);
        assert_eq!(told(&caller, get("http://api.test/a")).await, "ok");
        assert_eq!(shown.take(), [[SECRET]]);
        // The way that is asked for is the one that is granted, and no other.
        let uri = format!("https://api.test:{}/a", host.port());
        let refused = caller.call(get(&uri)).await.expect_err("not granted");
        assert_eq!(refused.kind, FailureKind::NotGranted);
    }
    // Its name is proven all the same.
    let (other, _) = host(Speech::tls(&world.authority, "other.test", &["h2"])).await;
    let mut plain = rule("api.test", EgressScheme::Http, 80);
    plain.manner.originate = Some(other.port());
    let caller = world.caller("cart", &[proven(plain, vec![bearer(SECRET)])]);
    let refused = caller.call(get("http://api.test/a")).await;
    refused.expect_err("it does not prove its name");
    assert_eq!(other.seen.requests(), 0);
}

#[tokio::test]
async fn a_certificate_is_shown_on_connections_of_its_own_and_authorities_count_alone() {
    let world = World::new();
    world.names.add("api.test", &[&[HOST]]);
    let (clients, private) = (Authority::new(), Authority::new());
    let (host, _) = host(Speech::mutual(&private, "api.test", &clients)).await;
    let uri = format!("https://api.test:{}/", host.port());
    let plain = rule("api.test", EgressScheme::Https, host.port());
    let shows = |authority: &Authority, by: &Authority| {
        let (certificate, key) = authority.issue("cart", false);
        let mut rule = proven(
            plain.clone(),
            vec![EgressCredential::Certificate(vec![certificate], key)],
        );
        rule.manner.authorities = vec![by.root.clone()];
        rule
    };
    let caller = world.caller("cart", &[shows(&clients, &private)]);
    assert_eq!(told(&caller, get(&uri)).await, "ok");
    assert_eq!(told(&caller, get(&uri)).await, "ok");
    assert_eq!(host.seen.connections(), 1);
    // Another certificate is another connection.
    let caller = world.caller("cart", &[shows(&clients, &private)]);
    assert_eq!(told(&caller, get(&uri)).await, "ok");
    assert_eq!(host.seen.connections(), 2);
    // Attack 124: the connection that was proven is not one for calls that prove nothing, nor for others' certificates.
    let asked = host.seen.requests();
    for rules in [
        vec![{
            let mut rule = plain.clone();
            rule.manner.authorities = vec![private.root.clone()];
            rule
        }],
        vec![shows(&private, &private)],
        vec![shows(&clients, &clients)],
        vec![plain.clone()],
    ] {
        let caller = world.caller("cart", &rules);
        let refused = caller.call(get(&uri)).await;
        refused.expect_err("attack 124");
        assert_eq!(host.seen.requests(), asked);
    }
}
