//! How a browser signs in and what it may do then; and what others try to have it do.

use std::sync::atomic::{AtomicI64, Ordering};

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use weft_apiserver::audit::Audit;
use weft_apiserver::audit::log::{Log, LogConfig};
use weft_apiserver::audit::policy::Policy;
use weft_apiserver::authn::PeerCertificates;
use weft_apiserver::ca::Authority;
use weft_apiserver::caller::Caller;

use crate::world::*;

const HOST: &str = "127.0.0.1:6443";
const OWN: (&str, &str) = ("origin", "https://127.0.0.1:6443");
const MARK: (&str, &str) = ("weft-session", "1");
const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// A browser, as far as it matters here: what it was told to keep, and the certificate that it shows.
struct Browser {
    router: Router,
    cookie: Option<String>,
    certificate: Option<CertificateDer<'static>>,
}

impl Browser {
    fn new(world: &World) -> Self {
        Self {
            router: world.router.clone(),
            cookie: None,
            certificate: None,
        }
    }

    /// Sends a request as a page has it sent, with these headers.
    async fn send(&self, line: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, HOST);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(cookie) = &self.cookie {
            let line = format!("theme=dark; __Host-weft-session={cookie}");
            request = request.header(header::COOKIE, line);
        }
        let body = match body {
            Value::Null => Body::empty(),
            body => {
                request = request.header(header::CONTENT_TYPE, JSON);
                Body::from(body.to_string())
            }
        };
        let mut request = request.body(body).unwrap();
        if let Some(certificate) = &self.certificate {
            let chain = PeerCertificates([certificate.clone()].into());
            request.extensions_mut().insert(chain);
        }
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into());
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    /// The same, of a page of this server's that means it.
    async fn ask(&self, line: &str, body: Value) -> Answer {
        self.send(line, &[OWN, MARK], body).await
    }

    /// Signs in, and keeps the cookie.
    async fn sign_in(&mut self, by: Value) -> Answer {
        let answer = self.ask("POST /dashboard/session", by).await;
        if let Some(cookie) = kept(&answer.headers) {
            self.cookie = Some(cookie);
        }
        answer
    }

    /// Who the API takes it for.
    async fn who(&self) -> String {
        let answer = self.ask(&format!("POST {WHO}"), json!({})).await;
        match answer.body["status"]["userInfo"]["username"].as_str() {
            Some(name) => name.to_owned(),
            None => answer.status.to_string(),
        }
    }
}

/// The value of the session's cookie, once it has all that makes it safe.
fn kept(headers: &HeaderMap) -> Option<String> {
    let line = headers.get(header::SET_COOKIE)?.to_str().unwrap();
    let (cookie, attributes) = line.split_once("; ").unwrap();
    for attribute in ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"] {
        assert!(attributes.split("; ").any(|one| one == attribute), "{line}");
    }
    assert!(!attributes.contains("Domain"), "{line}");
    cookie
        .strip_prefix("__Host-weft-session=")
        .map(str::to_owned)
}

/// A world with the roles of every cluster.
async fn world() -> World {
    with_roles(World::new().await).await
}

async fn with_roles(world: World) -> World {
    let system = Caller::system("apiserver", None);
    world.objects.ensure_roles(&system).await.unwrap();
    world
}

/// A link that somebody asks for by his token.
async fn link(world: &World, token: &str) -> Answer {
    world
        .ask_as(token, "POST /dashboard/links", Value::Null)
        .await
}

fn text<'a>(answer: &'a Answer, field: &str) -> &'a str {
    let found = answer.body[field].as_str();
    found.unwrap_or_else(|| panic!("{}", answer.body))
}

#[tokio::test]
async fn a_session_is_its_user_until_he_signs_out() {
    let world = world().await;
    let mut browser = Browser::new(&world);
    let nobody = browser.ask("GET /dashboard/session", Value::Null).await;
    assert_eq!(
        nobody.body,
        json!({"user": null, "expires": null, "by": null, "certificate": null, "issuers": []})
    );
    assert_eq!(nobody.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(browser.who().await, "403");

    // A token that was pasted, with what came along.
    let begun = browser.sign_in(json!({"token": " user\n"})).await;
    assert_eq!(begun.status, 201, "{}", begun.body);
    assert_eq!(begun.body["user"]["name"], "jo");
    assert_eq!(browser.who().await, "jo");
    let told = browser.ask("GET /dashboard/session", Value::Null).await;
    assert_eq!(
        (&told.body["user"]["name"], &told.body["by"]),
        (&json!("jo"), &json!("token"))
    );
    assert!(!told.body.to_string().contains("\"token\":"));

    // His rights are his own: he has none, and the page is told in the API's words.
    let maps = browser.ask(&format!("GET {MAPS}"), Value::Null).await;
    assert!(
        maps.line().contains("User \"jo\" cannot list"),
        "{}",
        maps.line()
    );

    // Another user takes its place, and the cookie of before is worth nothing.
    let before = browser.cookie.clone();
    browser.sign_in(json!({"token": "secret"})).await;
    assert_eq!(browser.who().await, "admin");
    let made = browser
        .ask(&format!("POST {MAPS}"), config_map("m", "1"))
        .await;
    assert_eq!(made.status, 201, "{}", made.line());
    let old = Browser {
        cookie: before,
        ..Browser::new(&world)
    };
    assert_eq!(old.who().await, "401");

    let out = browser.ask("DELETE /dashboard/session", Value::Null).await;
    assert_eq!(out.status, 204);
    assert_eq!(kept(&out.headers).as_deref(), Some(""));
    assert_eq!(browser.who().await, "401");
    // A token that somebody says counts as ever.
    let said = [OWN, MARK, ("authorization", "Bearer user")];
    let who = browser.send(&format!("POST {WHO}"), &said, json!({})).await;
    assert_eq!(who.body["status"]["userInfo"]["username"], "jo");
}

#[tokio::test]
async fn wrong_credentials_begin_nothing() {
    let world = world().await;
    let mut browser = Browser::new(&world);
    let long = "x".repeat(9000);
    for (by, status) in [
        (json!({"token": "wrong"}), 401),
        (json!({"token": ""}), 401),
        (json!({"token": long}), 401),
        (json!({"link": "wrong"}), 401),
        (json!({"certificate": true}), 401),
        (json!({"token": "user", "link": "x"}), 400),
        (json!({}), 400),
        (json!("token"), 400),
        (json!({"token": "y".repeat(20_000)}), 413),
    ] {
        let answer = browser.sign_in(by.clone()).await;
        assert_eq!(answer.status, status, "{by}: {}", answer.line());
        assert!(browser.cookie.is_none());
    }
    // A form of another page can be no JSON.
    let form = [OWN, MARK, ("content-type", "text/plain")];
    let answer = browser
        .send("POST /dashboard/session", &form, Value::Null)
        .await;
    assert_eq!(answer.status, 415);
}

#[tokio::test]
async fn attack_131_a_link_begins_one_session_of_whoever_made_it() {
    let world = world().await;
    let made = link(&world, "user").await;
    assert_eq!(made.status, 201, "{}", made.line());
    let shown = text(&made, "link").to_owned();
    assert_eq!(text(&made, "path"), format!("/dashboard/#link={shown}"));
    // 32 bytes behind the point.
    assert_eq!(shown.split_once('.').unwrap().1.len(), 43);

    let (mut first, mut second) = (Browser::new(&world), Browser::new(&world));
    // Both at the same moment: one of them is first.
    let by = json!({"link": shown});
    let (one, other) = tokio::join!(first.sign_in(by.clone()), second.sign_in(by.clone()));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 401]);
    let (won, refused) = match one.status {
        201 => (&first, other),
        _ => (&second, one),
    };
    assert_eq!(won.who().await, "jo");
    assert!(refused.headers.get(header::SET_COOKIE).is_none());

    // Later it is told why, and a wrong secret does not use one up.
    let again = Browser::new(&world).sign_in(by).await;
    assert!(
        again.line().contains("the link was used already"),
        "{}",
        again.line()
    );
    let other = text(&link(&world, "user").await, "link").to_owned();
    let (id, _) = other.split_once('.').unwrap();
    let (_, wrong) = shown.split_once('.').unwrap();
    let guessed = json!({"link": format!("{id}.{wrong}")});
    assert_eq!(Browser::new(&world).sign_in(guessed).await.status, 401);
    assert_eq!(
        Browser::new(&world)
            .sign_in(json!({"link": other}))
            .await
            .status,
        201
    );

    // A link is no session, and a session no link.
    let third = text(&link(&world, "user").await, "link").to_owned();
    let cookie = won.cookie.clone().unwrap();
    let thief = Browser {
        cookie: Some(third),
        ..Browser::new(&world)
    };
    assert_eq!(thief.who().await, "401");
    let by = json!({"link": cookie});
    assert_eq!(Browser::new(&world).sign_in(by).await.status, 401);
}

#[tokio::test]
async fn links_are_for_those_who_say_who_they_are() {
    let world = world().await;
    assert_eq!(link(&world, "wrong").await.status, 401);
    let mut browser = Browser::new(&world);
    let none = browser.ask("POST /dashboard/links", Value::Null).await;
    assert_eq!(none.status, 401);
    // A session cannot make others, which would outlive it.
    browser.sign_in(json!({"token": "user"})).await;
    let none = browser.ask("POST /dashboard/links", Value::Null).await;
    assert_eq!(none.status, 401);
    let posing = [
        ("authorization", "Bearer secret"),
        ("impersonate-user", "eve"),
    ];
    let posed = browser
        .send("POST /dashboard/links", &posing, Value::Null)
        .await;
    assert_eq!(posed.status, 403);
}

#[tokio::test]
async fn attack_130_no_other_origin_has_it_do_anything() {
    let world = world().await;
    let mut browser = Browser::new(&world);
    browser.sign_in(json!({"token": "secret"})).await;
    let write = format!("POST {MAPS}");
    let read = format!("GET {MAPS}");
    let evil = ("origin", "https://evil.example");
    let cross = ("sec-fetch-site", "cross-site");
    let (same_site, own_site) = (
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", "same-origin"),
    );
    for (line, headers, status) in [
        // Without its own word a cookie is none: a form, an image, a link, a page that a pod serves through this server.
        (&write, &[OWN][..], 403),
        (&read, &[], 403),
        (&read, &[own_site], 403),
        // With it, another origin is refused, and so is a write of which nobody says where it is from.
        (&write, &[MARK, evil], 403),
        (&write, &[MARK, cross], 403),
        (&write, &[MARK, same_site], 403),
        (&write, &[MARK, ("origin", "null")], 403),
        (&write, &[MARK, OWN, cross], 403),
        (&write, &[MARK], 403),
        (&read, &[MARK, evil], 403),
        (&read, &[MARK, same_site], 403),
        (&read, &[MARK], 200),
        (&read, &[MARK, own_site], 200),
        (&write, &[MARK, own_site], 201),
    ] {
        let answer = browser.send(line, headers, config_map("m", "1")).await;
        assert_eq!(
            answer.status,
            status,
            "{line} {headers:?}: {}",
            answer.line()
        );
        let shared = answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        assert!(shared.is_none(), "nothing is for other origins to read");
    }
    // Before it would send a header of its own, a browser asks; nobody says yes.
    let asks = [
        evil,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "weft-session"),
    ];
    let asked = browser
        .send(&format!("OPTIONS {MAPS}"), &asks, Value::Null)
        .await;
    assert!(asked.status >= 400, "{}", asked.status);
    let names = asked.headers.keys();
    assert!(
        names
            .into_iter()
            .all(|name| !name.as_str().starts_with("access-control-"))
    );

    // Nor can another page sign it in as somebody else, or out.
    for headers in [&[MARK, evil][..], &[OWN], &[MARK], &[MARK, OWN, cross]] {
        let by = json!({"token": "user"});
        let signed = browser.send("POST /dashboard/session", headers, by).await;
        assert_eq!(signed.status, 403, "{headers:?}");
        let out = browser
            .send("DELETE /dashboard/session", headers, Value::Null)
            .await;
        assert_eq!(out.status, 403, "{headers:?}");
    }
    assert_eq!(browser.who().await, "admin");
}

#[tokio::test]
async fn attack_133_a_websocket_counts_for_its_own_page_alone() {
    let world = world().await;
    let mut browser = Browser::new(&world);
    browser.sign_in(json!({"token": "secret"})).await;
    let watch = format!("GET {MAPS}?watch=true&timeoutSeconds=1");
    const SOCKET: [(&str, &str); 4] = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (headers, refused) in [
        (&[("origin", "https://evil.example")][..], true),
        (&[("origin", "https://127.0.0.1:8080")], true),
        (&[], true),
        (&[OWN, ("sec-fetch-site", "same-site")], true),
        (&[OWN], false),
    ] {
        let headers: Vec<_> = SOCKET.iter().chain(headers).copied().collect();
        let answer = browser.send(&watch, &headers, Value::Null).await;
        // There is no connection here that could become one.
        assert_eq!(
            answer.status == 403,
            refused,
            "{headers:?}: {}",
            answer.line()
        );
    }
}

#[tokio::test]
async fn attack_132_a_cookie_that_somebody_planted_becomes_nobodys_session() {
    let world = world().await;
    // What an attacker knows: a session of his own, and a name that is none yet.
    let mut attacker = Browser::new(&world);
    attacker.sign_in(json!({"token": "user"})).await;
    let planted = attacker.cookie.clone();
    let mut victim = Browser {
        cookie: planted.clone(),
        ..Browser::new(&world)
    };
    victim.sign_in(json!({"token": "secret"})).await;
    assert_ne!(victim.cookie, planted, "a session has a name of its own");
    assert_eq!(victim.who().await, "admin");
    assert_eq!(attacker.who().await, "401", "and the planted one is over");
}

#[tokio::test]
async fn a_session_ends_when_its_credential_does() {
    static LATE: AtomicI64 = AtomicI64::new(0);
    fn clock() -> Timestamp {
        Timestamp::now() + SignedDuration::from_secs(LATE.load(Ordering::Relaxed))
    }
    let setup = Setup {
        clock,
        ..Setup::default()
    };
    let world = with_roles(World::with(setup).await).await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "web"}});
    world.ask(&format!("POST {accounts}"), account).await;
    let token = world
        .ask(&format!("POST {accounts}/web/token"), json!({}))
        .await;
    let token = token.body["status"]["token"].clone();
    let mut by_account = Browser::new(&world);
    by_account.sign_in(json!({"token": token})).await;
    assert_eq!(by_account.who().await, "system:serviceaccount:default:web");

    // Of a certificate: whoever signs it for longer, a session lasts no longer than it.
    let authority = Authority::open_or_create(&world.dir.path().join("pki"), "c").unwrap();
    let admin = &authority.admin().certificate_pem;
    let admin = CertificateDer::from_pem_slice(admin.as_bytes()).unwrap();
    let mut by_certificate = Browser::new(&world);
    by_certificate.certificate = Some(admin);
    let told = by_certificate
        .ask("GET /dashboard/session", Value::Null)
        .await;
    assert!(
        told.body["certificate"]["name"].is_string(),
        "{}",
        told.body
    );
    by_certificate.sign_in(json!({"certificate": true})).await;
    by_certificate.certificate = None;
    let admin = by_certificate.who().await;
    assert!(admin.contains("admin"), "{admin}");

    let gone = world
        .ask(&format!("DELETE {accounts}/web"), Value::Null)
        .await;
    assert_eq!(gone.status, 200);
    assert_eq!(by_account.who().await, "401");

    let link = text(&link(&world, "user").await, "link").to_owned();
    LATE.store(6 * 60, Ordering::Relaxed);
    let late = Browser::new(&world).sign_in(json!({"link": link})).await;
    assert_eq!(late.status, 401, "a link is for minutes");
    assert_eq!(by_certificate.who().await, admin);
    LATE.store(13 * 3600, Ordering::Relaxed);
    assert_eq!(by_certificate.who().await, "401", "a session is for hours");
}

#[tokio::test]
async fn a_user_has_so_many_sessions_and_the_oldest_goes() {
    let world = world().await;
    let mut first = Browser::new(&world);
    first.sign_in(json!({"token": "user"})).await;
    let mut other = Browser::new(&world);
    other.sign_in(json!({"token": "secret"})).await;
    for _ in 0..31 {
        Browser::new(&world).sign_in(json!({"token": "user"})).await;
    }
    assert_eq!(first.who().await, "jo");
    Browser::new(&world).sign_in(json!({"token": "user"})).await;
    assert_eq!(first.who().await, "401");
    assert_eq!(other.who().await, "admin", "others have theirs");
}

#[tokio::test]
async fn what_is_kept_of_a_session_is_no_object_and_tells_nobody() {
    let world = world().await;
    let mut browser = Browser::new(&world);
    browser.sign_in(json!({"token": "secret"})).await;
    let secrets = world.get("/api/v1/secrets").await;
    assert_eq!(secrets.body["items"], json!([]));
    let kept = world.objects.store().snapshot();
    let kept: Vec<_> = kept.range(b"/weft.dev/sessions/", None).collect();
    assert_eq!(kept.len(), 1);
    let cookie = browser.cookie.unwrap();
    let (_, secret) = cookie.split_once('.').unwrap();
    let value = String::from_utf8_lossy(&kept[0].value()).into_owned();
    assert!(!value.contains(secret), "of the secret there is a digest");
}

#[tokio::test]
async fn attack_135_the_page_is_for_anybody_and_runs_nothing_but_its_own() {
    let world = world().await;
    let browser = Browser::new(&world);
    let get = |path: &str| {
        let line = format!("GET {path}");
        let browser = &browser;
        async move { browser.send(&line, &[], Value::Null).await }
    };
    let moved = get("/dashboard").await;
    assert_eq!(
        (moved.status, &moved.headers[header::LOCATION]),
        (308, &HeaderValue::from_static("/dashboard/"))
    );
    for path in [
        "/dashboard/",
        "/dashboard/graph",
        "/dashboard/workloads/shop/web?x=y",
    ] {
        let page = get(path).await;
        assert_eq!(page.status, 200, "{path}");
        let headers = &page.headers;
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in ["default-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        let text = page.body.as_str().unwrap();
        for inline in ["<style", "style=", "onclick", "<script>"] {
            assert!(!text.contains(inline), "{inline} in {path}");
        }
    }
    for path in [
        "/dashboard/../api/v1/secrets.json",
        "/dashboard/assets/../../../etc/passwd",
        "/dashboard/assets/%2e%2e/%2e%2e/Cargo.toml",
        "/dashboard/..%2f..%2fetc%2fpasswd.txt",
        "/dashboard//etc/passwd.txt",
        "/dashboard/assets/none.js",
    ] {
        let answer = get(path).await;
        assert_eq!(answer.status, 404, "{path}");
    }
    // Nobody's page but the dashboard's begins so.
    assert_eq!(get("/dashboards").await.status, 403);
    let write = browser.send("PUT /dashboard/", &[], json!({})).await;
    assert_eq!(write.status, 405);
}

#[tokio::test]
async fn what_a_browser_shows_by_itself_changes_nothing_for_another_origin() {
    let world = world().await;
    let authority = Authority::open_or_create(&world.dir.path().join("pki"), "c").unwrap();
    let admin = &authority.admin().certificate_pem;
    let browser = Browser {
        certificate: CertificateDer::from_pem_slice(admin.as_bytes()).ok(),
        ..Browser::new(&world)
    };
    let evil = [
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://evil.example"),
    ];
    let own = [("sec-fetch-site", "same-origin"), OWN];
    let write = format!("POST {MAPS}");
    let refused = browser.send(&write, &evil, config_map("m", "1")).await;
    assert_eq!(refused.status, 403);
    let linked = browser
        .send("POST /dashboard/links", &evil, Value::Null)
        .await;
    assert_eq!(linked.status, 403);
    let made = browser.send(&write, &own, config_map("m", "1")).await;
    assert_eq!(made.status, 201, "{}", made.line());
    // What is no browser says no such thing, whatever origin it names.
    let named = [("origin", "http://localhost")];
    let made = browser.send(&write, &named, config_map("n", "1")).await;
    assert_eq!(made.status, 201, "{}", made.line());
}

#[tokio::test]
async fn signing_in_is_written_down_without_what_it_was_done_by() {
    let world = world().await;
    let file = world.dir.path().join("audit.log");
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "RequestResponse"}]});
    let policy = Policy::parse(&policy.to_string()).unwrap();
    let log = Log::open(LogConfig::new(&file)).unwrap();
    let audit = Audit::new(policy).to_log(log);
    let mut browser = Browser::new(&world);
    browser.router = face_audited(&world, audit.clone());
    browser.sign_in(json!({"token": "user"})).await;
    browser.sign_in(json!({"token": "wrong-one"})).await;
    browser.ask("DELETE /dashboard/session", Value::Null).await;
    audit.flush().await;
    let text = std::fs::read_to_string(&file).unwrap();
    let told = text.lines().filter_map(|line| {
        let event: Value = serde_json::from_str(line).unwrap();
        (event["stage"] == "ResponseComplete").then(|| {
            let (verb, user) = (&event["verb"], &event["user"]["username"]);
            format!(
                "{verb} {} {user} {}",
                event["requestURI"], event["responseStatus"]["code"]
            )
        })
    });
    let told: Vec<String> = told.collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    "post" "/dashboard/session" "jo" 201
    "post" "/dashboard/session" null 401
    "delete" "/dashboard/session" "jo" 204
    "#);
    for secret in ["wrong-one", browser.cookie.as_deref().unwrap()] {
        assert!(!text.contains(secret), "{text}");
    }
}
