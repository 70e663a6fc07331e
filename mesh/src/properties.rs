//! What holds for whatever a client, a guest or another node sends: nothing panics, nobody is believed who claims to be somebody
//! else, and what the mesh writes it reads again.
//!
//! Cases are the same in every run; `WEFT_SEED=17` tries others, and a failure prints the seed and the smallest input.

mod bodies;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header, uri::Authority,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rustls_pki_types::CertificateDer;
use weft_api::identity::SpiffeId;

use crate::route::{self, Filter, Match, PathChange, PathMatch, Redirect, Rewrite, View};
use crate::table::testing::{self, service};
use crate::{
    Body, CallContext, Peer, Table, TraceContext, Transport, WorkloadInfo, headers, identity,
    ingress::{self, LastHost},
    resolve, wire,
};

/// Enough to meet each branch of these readers some hundred times, in a second.
const CASES: u32 = 2000;

fn config() -> ProptestConfig {
    let seed = std::env::var("WEFT_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("WEFT_SEED={seed}");
    ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

/// A value as the wire can carry it: any bytes, or text of the letters that the readers look for.
fn value(like: &'static str) -> impl Strategy<Value = HeaderValue> {
    let any = proptest::collection::vec(any::<u8>(), 0..80).prop_map(|bytes| {
        let bytes: Vec<u8> = bytes
            .into_iter()
            .filter(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
            .collect();
        HeaderValue::from_bytes(&bytes).expect("what a header can hold")
    });
    let like = like.prop_map(|text| HeaderValue::from_str(&text).expect("ASCII"));
    prop_oneof![1 => any, 4 => like]
}

/// Lines that matter to the mesh, in any number.
fn lines() -> impl Strategy<Value = HeaderMap> {
    let name = proptest::sample::select(vec![
        "connection",
        "keep-alive",
        "te",
        "transfer-encoding",
        "upgrade",
        "host",
        "x-mine",
        "accept",
        "traceparent",
        "tracestate",
        "baggage",
        "x-forwarded-for",
        "x-forwarded-client-cert",
        "x-weft-source",
        "x-weft-service",
        "x-weft-destination",
        "x-weft-timeout-ms",
        "x-weft-depth",
        "x-weft-attempt",
        "x-weft-else",
    ]);
    let value = value("[0-9]{0,22}|close|x-mine, x-weft-depth, te|trailers|a=1|[a-z;.]{0,12}");
    proptest::collection::vec((name, value), 0..8).prop_map(|lines| {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), value);
        }
        map
    })
}

/// Paths and queries that a client may send.
fn target() -> impl Strategy<Value = Uri> {
    let path = prop_oneof!["(/[a-z%./~+]{0,6}){1,4}", "(/app|/app/|/v1|//){1,3}"];
    (path, proptest::option::of("[a-z=&%+0-9]{0,12}")).prop_filter_map("no URI", |(path, query)| {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("http://web.vote.localhost{path}{query}")
            .parse()
            .ok()
    })
}

/// What a rule may ask of a request, of few words, so that some ask the same.
fn matching() -> impl Strategy<Value = Match> {
    let path = prop_oneof![
        "(/a|/b|/ab){0,3}/?"
            .prop_map(|path| PathMatch::Prefix(format!("/{}", path.trim_start_matches('/')))),
        "(/a|/b){1,3}".prop_map(PathMatch::Exact),
    ];
    let method = proptest::option::of(proptest::sample::select(vec![Method::GET, Method::POST]));
    let header = proptest::option::of("[12]");
    let query = proptest::option::of("[12]");
    (path, method, header, query).prop_map(|(path, method, header, query)| Match {
        path,
        method,
        headers: Vec::from_iter(header.map(|value| (HeaderName::from_static("x"), value))),
        query: Vec::from_iter(query.map(|value| ("v".to_owned(), value))),
        ..Match::default()
    })
}

fn table() -> Table {
    testing::table("a")
        .service(service("vote", "voting").cluster_ip("10.43.0.7").build())
        .service(service("shop", "cart").build())
        .build()
}

fn peer() -> Arc<Peer> {
    Arc::new(Peer {
        spiffe_id: "spiffe://cluster.local/ns/vote/sa/web".into(),
        namespace: "vote".into(),
        service_account: "web".into(),
        workload: "web".into(),
        transport: Transport::MutualTls,
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_trace_is_written_as_it_was_read(
        text in value("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]{0,3})?|00-0{32}-[0-9a-f]{16}-01|[0-9a-f-]{50,60}")
    ) {
        let text = String::from_utf8_lossy(text.as_bytes()).into_owned();
        if let Some(context) = TraceContext::parse(&text) {
            prop_assert!(context.trace_id != 0 && context.span_id != 0);
            // The version is ours, and what later versions add is not passed on.
            prop_assert_eq!(&context.to_string()[2..53], &text[2..53]);
            prop_assert_eq!(context.flags, u8::from_str_radix(&text[53..55], 16).unwrap() & 3);
            let mut written = HeaderMap::new();
            context.write(&mut written);
            prop_assert_eq!(written["traceparent"].to_str().unwrap(), context.to_string());
            prop_assert_eq!(TraceContext::from_headers(&written), Some(context));
        }
    }

    #[test]
    fn whatever_lines_come_a_context_is_bounded(mut lines in lines(), long in 0..700_usize) {
        lines.append("tracestate", HeaderValue::from_str(&"x".repeat(long)).unwrap());
        if let Some(context) = TraceContext::from_headers(&lines) {
            prop_assert!(context.state.is_none_or(|state| state.len() <= 512));
        }
        let now = Instant::now();
        let context = wire::take_context(&mut lines.clone(), peer(), now);
        prop_assert!(context.deadline.is_none_or(|deadline| deadline >= now));
        let worked = wire::take_worked(&mut lines);
        prop_assert!(lines.keys().all(|name| !name.as_str().starts_with("x-weft-")));
        prop_assert!(worked.is_none_or(|worked| worked <= Duration::from_nanos(u64::MAX)));
    }

    #[test]
    fn claims_and_what_belongs_to_a_connection_do_not_travel(lines in lines()) {
        let mut passed = lines.clone();
        headers::strip_forged(&mut passed);
        let forged = |name: &str| name.starts_with("x-weft-") || name == "x-forwarded-client-cert";
        for name in lines.keys() {
            let kept: Vec<_> = passed.get_all(name).iter().collect();
            let before: Vec<_> = lines.get_all(name).iter().collect();
            prop_assert_eq!(kept, if forged(name.as_str()) { Vec::new() } else { before });
        }
        headers::strip_hop_by_hop(&mut passed);
        for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
            prop_assert!(!passed.contains_key(name), "{}", name);
        }
        prop_assert!(passed.get_all(header::TE).iter().all(|value| value == "trailers"));
        // Once is enough.
        let mut again = passed.clone();
        headers::strip_hop_by_hop(&mut again);
        prop_assert_eq!(again, passed);
    }

    #[test]
    fn a_request_has_one_host_or_is_refused(
        hosts in proptest::collection::vec(value("[a-z.]{1,8}(:[0-9]{1,6})?|\\[::1\\]:80|a@b|[a-z/?#]{1,6}"), 0..3),
        uri in prop_oneof![target(), Just(Uri::from_static("/a?b")), Just(Uri::from_static("*"))],
    ) {
        let mut request: Request<Body> = Request::new(Body::empty());
        let named = uri.authority().cloned();
        *request.uri_mut() = uri;
        for host in &hosts {
            request.headers_mut().append(header::HOST, host.clone());
        }
        if resolve::absolute(&mut request).is_ok() {
            let authority = request.uri().authority().expect("an authority");
            match named {
                Some(named) => prop_assert_eq!(authority, &named),
                None => prop_assert_eq!((hosts.len(), authority.as_str().as_bytes()), (1, hosts[0].as_bytes())),
            }
            prop_assert!(request.uri().scheme().is_some());
        } else {
            prop_assert!(named.is_none());
        }
    }

    #[test]
    fn names_resolve_whatever_their_case_and_their_dot(
        host in prop_oneof![
            "(voting|cart|nothing)(\\.(vote|shop|void))?(\\.svc)?(\\.cluster\\.local)?",
            "[a-zA-Z0-9.-]{1,20}", "10\\.4[23]\\.0\\.[0-9]{1,3}", "\\[[0-9a-f:]{1,8}\\]",
        ],
        port in proptest::option::of(any::<u16>()),
    ) {
        let table = table();
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let found = |host: &str| -> Option<Result<String, String>> {
            let authority: Authority = format!("{host}{port}").parse().ok()?;
            let found = resolve::authority(&table, &authority, 80, "vote", "cluster.local");
            Some(found.map(|target| format!("{target:?}")).map_err(|error| error.to_string().to_lowercase()))
        };
        let plain = found(&host);
        prop_assert_eq!(found(&host.to_uppercase()), plain.clone());
        if let (false, Some(Ok(plain))) = (host.ends_with(['.', ']']), plain) {
            let dotted = found(&format!("{host}."));
            // An address is no name, and has no dot at its end.
            let is_address = host.parse::<std::net::IpAddr>().is_ok();
            prop_assert!(is_address || dotted == Some(Ok(plain)));
        }
        let fallback = |host: &str| format!("{:?}", resolve::fallback_host(&table, host));
        let upper = format!("{}.LOCALHOST.", host.to_uppercase());
        prop_assert_eq!(fallback(&upper), fallback(&format!("{host}.localhost")));
    }

    #[test]
    fn who_calls_is_written_as_it_is_read(
        names in proptest::collection::vec("[a-zA-Z0-9._-]{0,20}", 5),
        line in value("[a-z;]{0,20}"),
    ) {
        let workload = WorkloadInfo {
            name: names[0].clone(),
            namespace: "vote".to_owned(),
            app: names[1].clone(),
            version: names[2].clone(),
            canonical_service: names[3].clone(),
            canonical_revision: names[4].clone(),
        };
        let written = wire::source_line(&workload);
        prop_assert_eq!(wire::source_workload(&written, "vote"), workload);
        // The namespace is what the certificate says.
        prop_assert_eq!(wire::source_workload(&line, "vote").namespace, "vote");
    }

    #[test]
    fn certificates_and_names_of_strangers_name_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..200), name in ".{0,40}") {
        prop_assert!(identity::spiffe_id(&CertificateDer::from(bytes)).is_err());
        let _ = identity::named_identity(&name, "cluster.local");
    }

    #[test]
    fn an_identity_is_found_again_by_its_name(account in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8})?", namespace in "[a-z0-9]{1,20}") {
        let id = SpiffeId::new("cluster.local", &namespace, &account);
        let name = identity::server_name(&id).unwrap();
        prop_assert_eq!(identity::named_identity(&name.to_str(), "cluster.local"), Some(id));
    }

    #[test]
    fn filters_keep_the_query_and_give_a_path(
        uri in target(),
        prefix in "(/app|/v1)?",
        text in "(/[a-z]{0,4}){0,3}",
        is_whole in any::<bool>(),
    ) {
        let change = if is_whole { PathChange::Full(text) } else { PathChange::Prefix(text) };
        let filter = Filter::Rewrite(Rewrite { hostname: None, path: Some(change.clone()) });
        let mut rewritten = uri.clone();
        rewritten = route::testing::rewritten(filter, &prefix, rewritten);
        prop_assert!(rewritten.path().starts_with('/'));
        prop_assert_eq!(rewritten.query(), uri.query());
        prop_assert_eq!(rewritten.authority(), uri.authority());
        let filter = Filter::Redirect(Redirect { path: Some(change), ..Redirect::default() });
        let (status, location) = route::testing::redirected(filter, &prefix, &uri);
        let location: Uri = location.parse().unwrap();
        prop_assert!(status.is_redirection());
        // Nobody is sent to another site by the path that they asked for.
        prop_assert_eq!((location.host(), location.path()), (uri.host(), rewritten.path()));
    }

    #[test]
    fn a_path_that_was_written_once_is_written_so(
        text in prop_oneof!["(/[a-z]{0,2}|/\\.{1,3}|%2[efEF]|%[0-9a-f]{2}|\\\\|%){1,8}", "/[ -~]{0,20}"],
    ) {
        let text = format!("/{text}");
        if let Ok(path) = ingress::path(&text) {
            prop_assert!(path.starts_with('/') && !path.contains("//") && !path.contains('\\'));
            prop_assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
            let again = ingress::path(&path);
            prop_assert_eq!(again.as_deref(), Ok(&*path));
            // Who unescapes it gets no other segments than who does not.
            let lower = path.to_lowercase();
            prop_assert!(!lower.contains("%2e") && !lower.contains("%00"));
        }
    }

    #[test]
    fn whatever_a_client_sends_has_one_host_and_no_claims_or_is_refused(
        hosts in proptest::collection::vec(value("[a-zA-Z.]{1,8}(:[0-9]{0,6})?|\\[::1\\]:80|a@b|[a-z/?#,]{1,6}"), 0..3),
        uri in prop_oneof![target(), Just(Uri::from_static("/a?b")), Just(Uri::from_static("*"))],
        version in proptest::sample::select(vec![Version::HTTP_10, Version::HTTP_11, Version::HTTP_2]),
        lines in lines(),
    ) {
        let mut request = Request::new(());
        *request.version_mut() = version;
        *request.uri_mut() = uri;
        *request.headers_mut() = lines;
        request.headers_mut().remove(header::HOST);
        for host in &hosts {
            request.headers_mut().append(header::HOST, host.clone());
        }
        if ingress::from_outside(&mut request, &LastHost::default(), http::uri::Scheme::HTTP).is_ok() {
            let authority = request.uri().authority().expect("an authority").as_str();
            prop_assert!(hosts.len() <= 1 && !(hosts.is_empty() && version == Version::HTTP_11));
            prop_assert_eq!(authority, authority.to_lowercase());
            let host = request.uri().host().unwrap_or_default();
            prop_assert!(!host.is_empty() && !host.ends_with('.') && !authority.contains('@'));
            for name in request.headers().keys() {
                let name = name.as_str();
                let is_claim = name.starts_with("x-weft-") || name == "x-forwarded-client-cert" || name == "host";
                prop_assert!(!is_claim, "{}", name);
            }
            let (uri, lines) = (request.uri().clone(), request.headers().clone());
            // It is in the form that it is brought into. A request of HTTP/1.1 has its host in the URI by now.
            *request.version_mut() = Version::HTTP_2;
            prop_assert!(ingress::from_outside(&mut request, &LastHost::default(), http::uri::Scheme::HTTP).is_ok());
            prop_assert_eq!((request.uri(), request.headers()), (&uri, &lines));
        }
    }

    #[test]
    fn what_crosses_the_wire_arrives_as_it_was_sent(
        mut lines in lines(), last in any::<u8>(), port in any::<u16>(), names in ("[a-z0-9-]{1,20}", "[a-z0-9-]{1,20}"),
        depth in any::<u32>(), attempt in any::<u32>(), millis in any::<u32>(), trace in any::<(u128, u64, u8)>(),
        worked in any::<u64>(),
    ) {
        let trace = TraceContext {
            trace_id: trace.0.max(1),
            span_id: trace.1.max(1),
            flags: trace.2 & 3,
            state: None,
        };
        let now = Instant::now();
        let context = CallContext {
            peer: Some(peer()),
            deadline: now.checked_add(Duration::from_millis(millis.into())),
            trace: Some(trace),
            depth,
            attempt,
            // It is a line of the request already.
            baggage: weft_call::baggage(&lines),
            ..CallContext::default()
        };
        let address = std::net::SocketAddr::from(([10, 42, 0, last], port));
        let (destination, service) = (wire::destination_line(address), wire::service_line(&names.0, &names.1));
        let source = HeaderValue::from_static("web;web;v1;web;v1");
        // Whatever a guest has sent is not among it.
        headers::strip_forged(&mut lines);
        let before: Vec<_> = lines.keys().cloned().collect();
        let to = wire::Addressed { destination: &destination, service: &service, source: &source };
        wire::encode_request(&to, &context, now, &mut lines);
        prop_assert_eq!(wire::destination(&lines), Some(address));
        let (said, called) = wire::source_and_service(&lines);
        prop_assert_eq!((said, wire::service_names(&called)), (source, (&*names.0, &*names.1)));
        prop_assert_eq!(wire::take_context(&mut lines, peer(), now), context);
        prop_assert!(lines.keys().all(|name| before.contains(name) || name == "traceparent"));

        let worked = Duration::from_nanos(worked);
        let mut lines = HeaderMap::new();
        wire::encode_worked(worked, &mut lines);
        prop_assert_eq!(wire::take_worked(&mut lines), Some(worked));
    }

    #[test]
    fn a_list_of_routes_chooses_as_going_through_all_of_them_would(
        routes in proptest::collection::vec(matching(), 0..8),
        path in "(/a|/b|/ab|/){0,4}",
        method in proptest::sample::select(vec!["GET", "POST"]),
        x in proptest::option::of("[12]"),
        query in proptest::option::of("(v=[12]&?){0,2}"),
    ) {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let uri: Uri = format!("http://a.test/{}{query}", path.trim_start_matches('/')).parse().unwrap();
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        *request.method_mut() = method.parse().unwrap();
        if let Some(x) = &x {
            request.headers_mut().insert("x", HeaderValue::from_str(x).unwrap());
        }
        let matched = |wanted: &Match| {
            let path = request.uri().path();
            let elements = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
            let path_fits = match &wanted.path {
                PathMatch::Exact(exact) => path == exact,
                PathMatch::Prefix(prefix) => {
                    let prefix = prefix.trim_end_matches('/');
                    elements(path).starts_with(&elements(prefix))
                }
                other => unreachable!("{other:?} is none of these"),
            };
            let first = request.uri().query().and_then(|query| {
                query.split('&').find_map(|pair| pair.strip_prefix("v="))
            });
            path_fits
                && wanted.method.as_ref().is_none_or(|method| method == request.method())
                && wanted.headers.iter().all(|(_, value)| x.as_ref() == Some(value))
                && wanted.query.iter().all(|(_, value)| first == Some(value.as_str()))
        };
        // The order of the Gateway API, said once more.
        let rank = |wanted: &Match| match &wanted.path {
            PathMatch::Exact(path) => (1, path.len(), wanted.method.is_some(), wanted.headers.len(), wanted.query.len()),
            PathMatch::Prefix(path) => {
                let length = path.trim_end_matches('/').len();
                (0, length, wanted.method.is_some(), wanted.headers.len(), wanted.query.len())
            }
            other => unreachable!("{other:?} is none of these"),
        };
        let mut best: Option<(usize, &Match)> = None;
        for (number, wanted) in routes.iter().enumerate().filter(|(_, wanted)| matched(wanted)) {
            if best.is_none_or(|(_, before)| rank(wanted) > rank(before)) {
                best = Some((number, wanted));
            }
        }
        let list = route::testing::list(&routes);
        let found = list.select(View::new(&request, 80)).map(|entry| entry.rule.route.clone());
        prop_assert_eq!(found, best.map(|(number, _)| format!("{number:03}")));
    }

    #[test]
    fn any_request_can_be_looked_up(uri in target(), lines in lines()) {
        let mut request = Request::new(());
        *request.uri_mut() = uri;
        *request.headers_mut() = lines;
        let none = route::RouteList::default();
        prop_assert!(none.select(View::new(&request, 80)).is_none());
        let _ = headers::within_limits(request.uri(), request.headers());
    }
}
