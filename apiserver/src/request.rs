//! What a request asks, decoded once: verb, kind, namespace, name, subresource, and how long it may take.
//!
//! Everything that judges a request before its handler runs (authorisation, priority, deadlines, the log) reads this one
//! value, and so do the handler and the verb of `crate::objects` that it calls: there is no second interpretation of a URL.
//! Who asks from inside the process says the same with [`RequestInfo::of_object`] and its neighbours. After Kubernetes'
//! `RequestInfo`.
//!
//! Invariants: pure; namespaces and names are sound single path segments without escapes; what decides how long a request
//! may take is a decoded verb or subresource, never a piece of text in the URL. A query that does not parse is told by
//! [`RequestInfo::params`], after it is known who asks. Left to others: who may (`crate::authz`), what is done.

use std::sync::Arc;

use axum::extract::Query;
use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use weft_api::name;
use weft_api::selector::FieldSelector;
use weft_api::status::{Cause, StatusError};

use crate::authz::Access;
use crate::http::registry;
use crate::listing::{ListOptions, Selection, VersionMatch};
use crate::objects::{REWRAP_PATH, WriteOptions};
use crate::stored;
use weft_kinds::{Kind, KindRef, Registry, Served, Subresource};
use weft_store::Key;

/// A request, decoded. Lives in the request's extensions from the front on.
#[derive(Clone, Debug)]
pub struct RequestInfo {
    /// Kubernetes' verb for resources; the method in lower case for paths that are none.
    pub verb: &'static str,
    pub asked: Asked,
    params: Result<Params, StatusError>,
}

/// What a URL names.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Objects of a kind, one of them, or something below one.
    Resource(Resource),
    /// `namespaces/NS/bindings`: the pod is named in the body.
    Bindings { namespace: String },
    /// A question that is asked by creating an object.
    Review(Arc<Kind>),
    /// Objects that are made when they are read.
    Computed {
        kind: Arc<Kind>,
        namespace: Option<String>,
        name: Option<String>,
    },
    /// The OCI registry, which has limits and refusals of its own.
    Registry,
    /// Everything else: health, discovery, weft's own paths, and what does not exist.
    Path(String),
}

/// A path of the table of kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: Arc<Kind>,
    pub namespace: Option<String>,
    /// `None` for collections.
    pub name: Option<String>,
    pub subresource: Option<Subresource>,
    /// What follows a proxy subresource.
    pub rest: String,
    /// The one name that a field selector leaves, as far as authorisation is concerned.
    selected: Option<String>,
}

/// One object: its kind, and where it is.
#[derive(Clone, Copy, Debug)]
pub struct ObjectRef<'a> {
    pub kind: KindRef<'a>,
    /// `None` for kinds without namespaces.
    pub namespace: Option<&'a str>,
    pub name: &'a str,
}

impl<'a> ObjectRef<'a> {
    pub fn new(kind: KindRef<'a>, namespace: Option<&'a str>, name: &'a str) -> Self {
        Self {
            kind,
            namespace,
            name,
        }
    }

    /// Where it lies in the store.
    pub(crate) fn key(&self) -> Key {
        stored::key(self.kind, self.namespace, self.name)
    }
}

impl Resource {
    /// The object that is asked for, or that something is asked for below of; `None` for a collection.
    pub fn object(&self) -> Option<ObjectRef<'_>> {
        Some(ObjectRef {
            kind: &self.kind,
            namespace: self.namespace.as_deref(),
            name: self.name.as_deref()?,
        })
    }
}

impl RequestInfo {
    /// What a URL of one object is decoded to, or of something below it.
    pub fn of_object(
        verb: &'static str,
        object: ObjectRef<'_>,
        subresource: Option<Subresource>,
    ) -> Self {
        Self::of_resource(
            verb,
            Resource {
                kind: object.kind.clone(),
                namespace: object.namespace.map(str::to_owned),
                name: Some(object.name.to_owned()),
                subresource,
                rest: String::new(),
                selected: None,
            },
        )
    }

    /// What a URL of the objects of a kind is decoded to, of all or of those in one namespace. `selected` is the one name
    /// that is asked for, if a field selector says so.
    pub fn of_collection(
        verb: &'static str,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        selected: Option<&str>,
    ) -> Self {
        Self::of_resource(
            verb,
            Resource {
                kind: kind.clone(),
                namespace: namespace.map(str::to_owned),
                name: None,
                subresource: None,
                rest: String::new(),
                selected: selected.map(str::to_owned),
            },
        )
    }

    /// What a URL that is no resource is decoded to.
    pub fn of_path(verb: &'static str, path: &str) -> Self {
        Self {
            verb,
            asked: Asked::Path(path.to_owned()),
            params: Ok(Params::default()),
        }
    }

    fn of_resource(verb: &'static str, resource: Resource) -> Self {
        Self {
            verb,
            asked: Asked::Resource(resource),
            params: Ok(Params::default()),
        }
    }

    pub fn of(registry: &Registry, method: &Method, uri: &Uri) -> Self {
        let params = Params::of(uri);
        let asked = asked_of(registry, uri.path(), &params);
        let watches =
            matches!(&params, Ok(params) if matches!(params.flag("watch"), Ok(Some(true))));
        let verb = match (&asked, method) {
            (Asked::Registry | Asked::Path(_), method) => method_word(method),
            (Asked::Resource(resource), &Method::GET | &Method::HEAD)
                if resource.name.is_none() =>
            {
                if watches {
                    "watch"
                } else {
                    "list"
                }
            }
            (Asked::Computed { name: None, .. }, &Method::GET | &Method::HEAD) => "list",
            (_, &Method::GET | &Method::HEAD) => "get",
            (_, &Method::POST) => "create",
            (_, &Method::PUT) => "update",
            (_, &Method::PATCH) => "patch",
            (Asked::Resource(resource), &Method::DELETE) if resource.name.is_none() => {
                "deletecollection"
            }
            (_, &Method::DELETE) => "delete",
            (_, method) => method_word(method),
        };
        Self {
            verb,
            asked,
            params,
        }
    }

    /// The parameters of the query.
    ///
    /// # Errors
    /// 400 for a query that does not parse.
    pub fn params(&self) -> Result<&Params, StatusError> {
        self.params.as_ref().map_err(Clone::clone)
    }

    /// What has to be allowed; `None` for what is no resource.
    pub fn access(&self) -> Option<Access<'_>> {
        let access = |group, resource, namespace, name| Access {
            verb: self.verb,
            group,
            resource,
            subresource: None,
            namespace,
            name,
        };
        Some(match &self.asked {
            Asked::Resource(one) => Access {
                subresource: one.subresource.map(Subresource::name),
                ..access(
                    &*one.kind.group,
                    &*one.kind.resource,
                    one.namespace.as_deref(),
                    one.name.as_deref().or(one.selected.as_deref()),
                )
            },
            Asked::Bindings { namespace } => access("", "bindings", Some(namespace.as_str()), None),
            Asked::Review(review) => access(&*review.group, &*review.resource, None, None),
            Asked::Computed {
                kind,
                namespace,
                name,
            } => access(
                &*kind.group,
                &*kind.resource,
                namespace.as_deref(),
                name.as_deref(),
            ),
            Asked::Registry | Asked::Path(_) => return None,
        })
    }

    /// Whether it changes something, as far as its verb tells.
    pub fn writes(&self) -> bool {
        !matches!(
            self.verb,
            "get" | "list" | "watch" | "head" | "options" | "trace"
        )
    }

    /// Whether it may stay open for as long as its client likes: no deadline, and no place among those in flight.
    pub fn long_running(&self) -> bool {
        match &self.asked {
            Asked::Resource(one) => {
                self.verb == "watch"
                    || matches!(one.subresource, Some(Subresource::Log | Subresource::Proxy))
            }
            // An image takes as long as it takes. A backup and a change of keys do work in proportion to the store; who
            // may ask for them is an administrator.
            Asked::Registry => true,
            Asked::Path(path) => matches!(path.as_str(), REWRAP_PATH | "/weft/v1/backup"),
            Asked::Bindings { .. } | Asked::Review(_) | Asked::Computed { .. } => false,
        }
    }

    /// Whether the request's body goes on while its answer does.
    pub fn proxied(&self) -> bool {
        matches!(
            &self.asked,
            Asked::Resource(Resource {
                subresource: Some(Subresource::Proxy),
                ..
            })
        )
    }
}

fn method_word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        Method::TRACE => "trace",
        Method::CONNECT => "connect",
        _ => "other",
    }
}

fn asked_of(registry: &Registry, path: &str, params: &Result<Params, StatusError>) -> Asked {
    if registry::serves(path) {
        return Asked::Registry;
    }
    let found = segments_of(path).and_then(|segments| {
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        resource_of(registry, &segments)
    });
    match found {
        Some(Asked::Resource(mut one)) if one.name.is_none() => {
            let fields = params
                .as_ref()
                .ok()
                .and_then(|params| params.get("fieldSelector"));
            let fields = fields.and_then(|text| FieldSelector::parse(text).ok());
            one.selected = fields
                .as_ref()
                .and_then(|fields| fields.exact("metadata.name"))
                .map(str::to_owned);
            Asked::Resource(one)
        }
        Some(asked) => asked,
        None => Asked::Path(path.to_owned()),
    }
}

/// The segments of a path without their percent escapes; `None` when one is not sound.
fn segments_of(path: &str) -> Option<Vec<String>> {
    let segment = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().ok()?.into_owned();
        let sound = !text.is_empty()
            && name::path_segment(&text).is_ok()
            && !text.bytes().any(|byte| byte.is_ascii_control());
        sound.then_some(text)
    };
    path.trim_matches('/').split('/').map(segment).collect()
}

fn resource_of(registry: &Registry, segments: &[&str]) -> Option<Asked> {
    let (group, version, rest) = match segments {
        ["api", "v1", rest @ ..] => ("", "v1", rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        // `namespaces/NS/status` is about the namespace itself.
        ["namespaces", namespace, resource, rest @ ..]
            if !group.is_empty() || !matches!(*resource, "status" | "finalize") =>
        {
            (Some((*namespace).to_owned()), [&[*resource], rest].concat())
        }
        rest => (None, rest.to_vec()),
    };
    let (resource, rest) = rest.split_first()?;
    if group.is_empty() && *resource == "bindings" {
        let namespace = namespace.filter(|_| rest.is_empty())?;
        return Some(Asked::Bindings { namespace });
    }
    let kind = registry.by_resource(group, version, resource)?;
    match kind.served {
        Served::Stored => {}
        Served::Review => {
            let asks = rest.is_empty() && namespace.is_none();
            return asks.then(|| Asked::Review(kind.clone()));
        }
        Served::Computed => {
            let name = match rest {
                [] => None,
                [name] => Some((*name).to_owned()),
                _ => return None,
            };
            check_scope(kind.namespaced, namespace.is_some(), name.is_some())?;
            return Some(Asked::Computed {
                kind: kind.clone(),
                namespace,
                name,
            });
        }
    }
    check_scope(kind.namespaced, namespace.is_some(), !rest.is_empty())?;
    let (name, subresource, rest) = match rest {
        [] => (None, None, String::new()),
        [name] => (Some((*name).to_owned()), None, String::new()),
        [name, below, rest @ ..] => {
            let subresource = *kind
                .subresources
                .iter()
                .find(|subresource| subresource.name() == *below)?;
            if !rest.is_empty() && subresource != Subresource::Proxy {
                return None;
            }
            (Some((*name).to_owned()), Some(subresource), rest.join("/"))
        }
    };
    Some(Asked::Resource(Resource {
        kind: kind.clone(),
        namespace,
        name,
        subresource,
        rest,
        selected: None,
    }))
}

/// A kind without namespaces is in none; one with them has its objects in one, and its lists in one or all.
fn check_scope(namespaced: bool, in_namespace: bool, named: bool) -> Option<()> {
    let fits = if namespaced {
        in_namespace || !named
    } else {
        !in_namespace
    };
    fits.then_some(())
}

/// The query parameters that any verb knows.
#[derive(Clone, Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    fn of(uri: &Uri) -> Result<Self, StatusError> {
        Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map(|Query(pairs)| Self { pairs })
            .map_err(|error| StatusError::bad_request(error.body_text()))
    }

    /// All pairs, in the order of the query.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// The first value of a parameter; an empty one is as good as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// # Errors
    /// 400 for a value that is neither true nor false.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, StatusError> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "1" | "True" | "t" | "T") => Ok(Some(true)),
            Some("false" | "0" | "False" | "f" | "F") => Ok(Some(false)),
            Some(other) => Err(StatusError::bad_request(format!(
                "{name} must be true or false, not {other:?}"
            ))),
        }
    }

    /// # Errors
    /// 400 for a value that is no number of that type.
    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, StatusError> {
        self.get(name)
            .map(|text| {
                text.parse().map_err(|_| {
                    StatusError::bad_request(format!("{name} must be a number, not {text:?}"))
                })
            })
            .transpose()
    }

    /// # Errors
    /// 422 for anything but `All`.
    pub fn dry_run(&self) -> Result<bool, StatusError> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(create_options_invalid(Cause::not_supported(
                "dryRun",
                &other.into(),
                &["All"],
            ))),
        }
    }

    /// # Errors
    /// 422 for a word that is none of the three.
    pub fn validation(&self) -> Result<Validation, StatusError> {
        match self.get("fieldValidation") {
            None | Some("Warn") => Ok(Validation::Warn),
            Some("Strict") => Ok(Validation::Strict),
            Some("Ignore") => Ok(Validation::Ignore),
            Some(other) => Err(create_options_invalid(Cause::not_supported(
                "fieldValidation",
                &other.into(),
                &["Ignore", "Warn", "Strict"],
            ))),
        }
    }

    /// # Errors
    /// As [`Params::dry_run`] and [`Params::validation`].
    pub fn write_options(&self) -> Result<WriteOptions, StatusError> {
        Ok(WriteOptions {
            dry_run: self.dry_run()?,
            field_manager: self.get("fieldManager").map(str::to_owned),
            strict: self.validation()? == Validation::Strict,
            ..WriteOptions::default()
        })
    }

    /// # Errors
    /// 400 and 422 for parameters that a list cannot have.
    pub fn list_options(&self, kind: KindRef<'_>) -> Result<ListOptions, StatusError> {
        Ok(ListOptions {
            selection: self.selection(kind)?,
            limit: self.number("limit")?,
            continue_token: self.get("continue").map(str::to_owned),
            resource_version: self.resource_version()?,
            version_match: match self.get("resourceVersionMatch") {
                None => None,
                Some("NotOlderThan") => Some(VersionMatch::NotOlderThan),
                Some("Exact") => Some(VersionMatch::Exact),
                Some(other) => {
                    return Err(list_options_invalid(Cause::not_supported(
                        "resourceVersionMatch",
                        &other.into(),
                        &["Exact", "NotOlderThan"],
                    )));
                }
            },
        })
    }

    /// # Errors
    /// 400 for selectors that do not parse, or name a field that the kind does not have.
    pub fn selection(&self, kind: KindRef<'_>) -> Result<Selection, StatusError> {
        Selection::parse(kind, self.get("labelSelector"), self.get("fieldSelector"))
    }

    /// # Errors
    /// 422 for what is no number.
    pub fn resource_version(&self) -> Result<Option<u64>, StatusError> {
        self.get("resourceVersion")
            .map(|text| {
                text.parse().map_err(|_| {
                    list_options_invalid(Cause::invalid(
                        "resourceVersion",
                        &text.into(),
                        "must be a number that this server gave",
                    ))
                })
            })
            .transpose()
    }
}

fn create_options_invalid(cause: Cause) -> StatusError {
    StatusError::invalid("CreateOptions", "meta.k8s.io", "", vec![cause])
}

pub(crate) fn list_options_invalid(cause: Cause) -> StatusError {
    StatusError::invalid("ListOptions", "meta.k8s.io", "", vec![cause])
}

/// What becomes of fields that the kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    Ignore,
    Warn,
    Strict,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(method: &Method, target: &str) -> String {
        let info = RequestInfo::of(&Registry::builtin(), method, &target.parse().unwrap());
        let what = match &info.asked {
            Asked::Resource(one) => {
                let subresource = one.subresource.map(Subresource::name).unwrap_or_default();
                let name = one.name.as_deref().or(one.selected.as_deref());
                let parts = [
                    one.namespace.as_deref().unwrap_or("-"),
                    &*one.kind.resource,
                    name.unwrap_or_default(),
                    subresource,
                    &one.rest,
                ];
                let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                parts.join(" ")
            }
            Asked::Bindings { namespace } => format!("{namespace} bindings"),
            Asked::Review(review) => review.resource.to_string(),
            Asked::Computed {
                kind,
                namespace,
                name,
            } => format!(
                "{} usage of {} {}",
                namespace.as_deref().unwrap_or("-"),
                kind.resource,
                name.as_deref().unwrap_or("all")
            ),
            Asked::Registry => "registry".to_owned(),
            Asked::Path(path) => format!("path {path}"),
        };
        let long = if info.long_running() { " (long)" } else { "" };
        format!("{} {what}{long}", info.verb)
    }

    #[test]
    fn requests_decode_by_the_table() {
        for (method, target, expected) in [
            ("GET", "/api/v1/pods", "list - pods"),
            ("GET", "/api/v1/pods?watch=true", "watch - pods (long)"),
            ("GET", "/api/v1/pods?watch=0", "list - pods"),
            ("GET", "/api/v1/namespaces", "list - namespaces"),
            ("GET", "/api/v1/namespaces/a", "get - namespaces a"),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                "update - namespaces a finalize",
            ),
            ("GET", "/api/v1/namespaces/a/pods", "list a pods"),
            (
                "DELETE",
                "/api/v1/namespaces/a/pods",
                "deletecollection a pods",
            ),
            ("GET", "/api/v1/namespaces/a/pods/p", "get a pods p"),
            ("HEAD", "/api/v1/namespaces/a/pods/p/", "get a pods p"),
            (
                "PATCH",
                "/api/v1/namespaces/a/pods/p/status",
                "patch a pods p status",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/p/log",
                "get a pods p log (long)",
            ),
            (
                "GET",
                "/api/v1/nodes/n/proxy/metrics/x",
                "get - nodes n proxy metrics/x (long)",
            ),
            ("POST", "/api/v1/namespaces/a/bindings", "create a bindings"),
            (
                "PUT",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "update a deployments d scale",
            ),
            (
                "GET",
                "/apis/certificates.k8s.io/v1/certificatesigningrequests/node%3An",
                "get - certificatesigningrequests node:n",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp",
                "list a pods p",
            ),
            (
                "POST",
                "/apis/authentication.k8s.io/v1/selfsubjectreviews",
                "create selfsubjectreviews",
            ),
            (
                "GET",
                "/apis/metrics.k8s.io/v1beta1/nodes/n",
                "get - usage of nodes n",
            ),
            (
                "GET",
                "/apis/metrics.k8s.io/v1beta1/namespaces/a/pods",
                "list a usage of pods all",
            ),
            // What is no resource is a path, whatever it looks like.
            ("GET", "/api/v1/pods/p", "get path /api/v1/pods/p"),
            (
                "GET",
                "/api/v1/namespaces/a/nodes",
                "get path /api/v1/namespaces/a/nodes",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/p/nothing",
                "get path /api/v1/namespaces/a/pods/p/nothing",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/..%2Fx",
                "get path /api/v1/namespaces/a/pods/..%2Fx",
            ),
            (
                "GET",
                "/api/v1/namespaces/%2e%2e/pods",
                "get path /api/v1/namespaces/%2e%2e/pods",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/p%00",
                "get path /api/v1/namespaces/a/pods/p%00",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/p%zz",
                "get path /api/v1/namespaces/a/pods/p%zz",
            ),
            (
                "GET",
                "/apis/apps/v1beta1/deployments",
                "get path /apis/apps/v1beta1/deployments",
            ),
            (
                "GET",
                "/apis/metrics.k8s.io/v1beta1/namespaces/a/nodes",
                "get path /apis/metrics.k8s.io/v1beta1/namespaces/a/nodes",
            ),
            ("GET", "/v2/a/blobs/uploads", "get registry (long)"),
            ("GET", "/v2x", "get path /v2x"),
            ("BREW", "/coffee", "other path /coffee"),
            ("GET", "/weft/v1/backup", "get path /weft/v1/backup (long)"),
            // Words in the wrong place buy no time: each of these was without limits once.
            (
                "POST",
                "/api/v1/namespaces/a/pods?x=watch=",
                "create a pods",
            ),
            (
                "POST",
                "/api/v1/namespaces/a/pods?watch=true",
                "create a pods",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/p?follow=true",
                "get a pods p",
            ),
            ("POST", "/api/v1/namespaces/proxy/pods", "create proxy pods"),
            ("GET", "/api/v1/namespaces/proxy", "get - namespaces proxy"),
        ] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(describe(&method, target), expected, "{method} {target}");
        }
    }
}
