//! What stands in the head of a request: paths, parameters, selectors, media types; and the texts inside objects that have a grammar
//! of their own.

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use weft_api::quantity::Quantity;
use weft_api::selector::{FieldSelector, LabelSelector};
use weft_api::time::{WireTime, parse_duration};
use weft_apiserver::http::negotiate;
use weft_apiserver::listing::Selection;
use weft_apiserver::request::{RequestInfo, Write};
use weft_kinds::Registry;

use crate::seeds;

pub fn labels(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(selector) = LabelSelector::parse(text) else {
        return;
    };
    let takes = |selector: &LabelSelector| {
        ["", "a", "5", "x"]
            .map(|value| selector.matches_with(|_| (!value.is_empty()).then_some(value)))
    };
    // What it says of itself is read as the same.
    let written = selector.to_string();
    let read = LabelSelector::parse(&written);
    let read = read.unwrap_or_else(|error| panic!("{written:?}: {error}"));
    assert_eq!(takes(&read), takes(&selector), "{written:?}");
}

pub fn label_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "a=b",
        "a==b,c!=d",
        "a in (x,y), b notin (z)",
        "a,!b,example.com/c",
        "a>1,b<2",
        "a in ()",
        " a = b ",
        "x in (in,notin)",
    ])
}

pub fn fields(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(selector) = FieldSelector::parse(text) {
        for value in ["", "a", "\\,="] {
            let _ = selector.matches(|_| Some(value.into()));
        }
    }
    for kind in [
        &weft_kinds::POD,
        &weft_kinds::CONFIG_MAP,
        &weft_kinds::EVENT,
    ] {
        let _ = Selection::parse(kind, Some(text), Some(text));
    }
}

pub fn field_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "metadata.name=a",
        "metadata.name==a,spec.nodeName!=b",
        "involvedObject.kind=Pod,involvedObject.name=a\\,b\\=c\\\\",
        "status.phase=",
        "metadata.namespace=default",
    ])
}

/// A method, a blank, and a path with a query.
pub fn query(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (method, target) = text.split_once(' ').unwrap_or(("GET", &text));
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method.as_bytes()), target.parse::<Uri>())
    else {
        return;
    };
    let info = RequestInfo::of(&Registry::builtin(), &method, &uri);
    if let Some(access) = info.access() {
        for name in access.namespace.into_iter().chain(access.name) {
            assert!(
                !name.contains('/') && name != ".." && name != ".",
                "{name:?}"
            );
        }
    }
    let _ = (info.long_running(), info.writes(), info.proxied());
    let Ok(params) = info.params() else {
        return;
    };
    for watches in [true, false] {
        let _ = params.check_reading(watches);
    }
    let _ = params.list_options(&weft_kinds::POD);
    let _ = (
        params.resource_version(),
        params.force(),
        params.validation(),
    );
    for write in [Write::Create, Write::Update, Write::Patch, Write::Apply] {
        let _ = params.write_options(write, &text);
    }
}

pub fn query_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "GET /api/v1/namespaces/default/pods?limit=500&continue=eyJydiI6MX0&resourceVersion=0",
        "GET /api/v1/watch/namespaces/a/pods/b?timeoutSeconds=10&allowWatchBookmarks=true",
        "GET /apis/apps/v1/deployments?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
        "PATCH /apis/apps/v1/namespaces/a/deployments/d/scale?fieldManager=m&force=true&dryRun=All&fieldValidation=Strict",
        "DELETE /api/v1/namespaces/a/pods/b?gracePeriodSeconds=0&propagationPolicy=Foreground&orphanDependents=false",
        "GET /api/v1/nodes/n/proxy/metrics/cadvisor?x=%20+y",
        "GET /api/v1/namespaces/a/pods/b/log?follow=true&container=c&tailLines=-1&sinceTime=2026-01-01T00:00:00Z",
        "GET /apis/metrics.k8s.io/v1beta1/nodes?labelSelector=a%20in%20(b)&fieldSelector=metadata.name%3Dx",
        "POST /api/v1/namespaces/%2e%2e/pods?dryRun=All&dryRun=&pretty",
        "GET /v2/a/b/manifests/latest",
    ])
}

pub fn accept(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, value.clone());
    headers.insert(header::CONTENT_TYPE, value.clone());
    headers.insert(header::USER_AGENT, value);
    let _ = (negotiate::form(&headers), negotiate::encodings(&headers));
    let _ = (
        negotiate::media_type(&headers),
        negotiate::user_agent(&headers),
    );
    let _ = negotiate::decode(&headers, b"{}");
}

pub fn accept_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "application/json, */*;q=0.5",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer",
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        "text/html;q=\"0.1\\\"\"; x=y, application/yaml ;Q=0",
    ])
}

pub fn scalar(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(canonical) = Quantity::canonical(text) {
        // A form that is the same once more, and the same amount.
        let again = Quantity::canonical(&canonical).map(|again| again.into_owned());
        assert_eq!(again.as_deref(), Ok(&*canonical), "{text:?}");
        let (one, other) = (Quantity::parse(text), Quantity::parse(&canonical));
        assert_eq!(
            one.map(Quantity::milli).ok(),
            other.map(Quantity::milli).ok(),
            "{text:?}"
        );
    }
    let _ = parse_duration(text);
    for time in [WireTime::parse(text), WireTime::parse_micro(text)] {
        let Ok(time) = time else {
            continue;
        };
        if time.is_in_range() {
            let written = time.rfc3339_micros();
            let again = WireTime::parse_micro(&written);
            let again = again.unwrap_or_else(|error| panic!("{text:?} {written:?}: {error}"));
            assert_eq!(again.rfc3339_micros(), written, "{text:?}");
        }
    }
}

pub fn scalar_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "100m",
        "1.5Gi",
        "12e6",
        "-0.001",
        "+5E",
        "9223372036854775807Ei",
        "0.0000000001n",
        "1h2m3.5s",
        "-1.5h",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.123456789+23:59",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:60Z",
    ])
}
