//! What a request asks, decoded once: verb, kind, namespace, name, subresource, and how long it may take.
//!
//! Everything that judges a request before its handler runs (authorisation, priority, deadlines, the log) reads this one
//! value, and so do the handler and the verb of `crate::objects` that it calls: there is no second interpretation of a URL.
//! Who asks from inside the process says the same with [`RequestInfo::of_object`] and its neighbours. After Kubernetes'
//! `RequestInfo`.
//!
//! Invariants: pure; namespaces and names are sound single path segments without escapes; what decides how long a request
//! may take is a decoded verb or subresource, never a piece of text in the URL. A query that contradicts its path is told by
//! [`RequestInfo::params`], after it is known who asks. Left to others: who may (`crate::authz`), what is done.

mod aggregated;
mod params;
mod path;

use std::sync::Arc;

use http::{Method, Uri};
use weft_api::status::StatusError;

use crate::authz::Access;
use crate::objects::REWRAP_PATH;
use crate::stored;
use weft_kinds::{Kind, KindRef, NAMESPACE, Registry, Subresource};
use weft_store::Key;

use self::path::{asked_of, unserved, watched_of};

pub use self::aggregated::{Aggregated, AggregatedResource};
pub use self::params::{Params, Validation, Write};

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
    /// A question that is asked by creating an object, some of them in the namespace that they are about.
    Review {
        kind: Arc<Kind>,
        namespace: Option<String>,
    },
    /// Objects that are made when they are read.
    Computed {
        kind: Arc<Kind>,
        namespace: Option<String>,
        name: Option<String>,
        /// What is measured of them.
        metric: Option<String>,
    },
    /// What another server serves, wherever its APIService says that it is.
    Aggregated(Aggregated),
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
        let mut params = Ok(Params::of(uri.query().unwrap_or("")));
        let mut asked = asked_of(registry, uri.path(), &params);
        if let Asked::Path(path) = &asked
            && let Some(watched) = watched_of(registry, path)
        {
            params = match *method {
                Method::GET => params.and_then(|params| params.watching(watched.name.as_deref())),
                _ => Err(StatusError::method_not_allowed()),
            };
            asked = Asked::Resource(Resource {
                selected: watched.name.clone(),
                name: None,
                ..watched
            });
        }
        let watches = matches!(&params, Ok(params) if params.flag("watch") == Some(true));
        let verb = match (&asked, method) {
            (Asked::Registry | Asked::Path(_), method) => method_word(method),
            (Asked::Resource(resource), &Method::GET | &Method::HEAD)
                if resource.name.is_none() =>
            {
                if watches && method == Method::GET {
                    "watch"
                } else {
                    "list"
                }
            }
            (
                Asked::Computed {
                    name: None, kind, ..
                },
                &Method::GET,
            ) if watches && kind.served.is_told() => "watch",
            (Asked::Computed { name: None, .. }, &Method::GET | &Method::HEAD) => "list",
            (_, &Method::GET | &Method::HEAD) => "get",
            (_, &Method::POST) => "create",
            (_, &Method::PUT) => "update",
            (_, &Method::PATCH) => "patch",
            (Asked::Resource(resource), &Method::DELETE) if resource.name.is_none() => {
                "deletecollection"
            }
            (_, &Method::DELETE) => "delete",
            // What Kubernetes has no word for, only who may do everything may ask.
            (_, _) => "",
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
    /// 400 for a query that contradicts the path.
    pub fn params(&self) -> Result<&Params, StatusError> {
        self.params.as_ref().map_err(Clone::clone)
    }

    /// What has to be allowed; `None` for what is no resource, be it served or not.
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
                    // A namespace is in itself: who may do everything in it may look at it.
                    match **one.kind.stored() == **NAMESPACE {
                        true => one.name.as_deref(),
                        false => one.namespace.as_deref(),
                    },
                    one.name.as_deref().or(one.selected.as_deref()),
                )
            },
            Asked::Bindings { namespace } => access("", "bindings", Some(namespace.as_str()), None),
            Asked::Review { kind, namespace } => {
                access(&*kind.group, &*kind.resource, namespace.as_deref(), None)
            }
            Asked::Computed {
                kind,
                namespace,
                name,
                metric,
            } => Access {
                subresource: metric.as_deref(),
                ..access(
                    &*kind.group,
                    &*kind.resource,
                    namespace.as_deref(),
                    name.as_deref(),
                )
            },
            Asked::Aggregated(one) => {
                let group = &*one.service.group;
                let one = one.resource.as_ref()?;
                Access {
                    subresource: one.subresource.as_deref(),
                    ..access(
                        group,
                        &*one.resource,
                        one.namespace.as_deref(),
                        one.name.as_deref(),
                    )
                }
            }
            Asked::Path(path) => return unserved(path, self.verb),
            Asked::Registry => return None,
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
                    || one.subresource.is_some_and(|part| {
                        part.is_stream() || matches!(part, Subresource::Log | Subresource::Proxy)
                    })
            }
            // An image takes as long as it takes. A backup and a change of keys do work in proportion to the store; who
            // may ask for them is an administrator.
            Asked::Registry => true,
            Asked::Path(path) => matches!(path.as_str(), REWRAP_PATH | "/weft/v1/backup"),
            Asked::Aggregated(one) => {
                let part = one.resource.as_ref();
                let part = part.and_then(|one| one.subresource.as_deref());
                matches!(self.verb, "watch" | "proxy")
                    || matches!(
                        part,
                        Some("attach" | "exec" | "log" | "portforward" | "proxy")
                    )
            }
            Asked::Computed { .. } => self.verb == "watch",
            Asked::Bindings { .. } | Asked::Review { .. } => false,
        }
    }

    /// Whether the URL is that of a resource which is not served here: of one of a user's kinds, maybe.
    pub(crate) fn may_name_a_new_kind(&self) -> bool {
        let Asked::Path(path) = &self.asked else {
            return false;
        };
        let mut parts = path.trim_matches('/').split('/');
        let group = (parts.next() == Some("apis")).then(|| parts.next());
        group.flatten().is_some_and(|group| group.contains('.')) && parts.count() >= 2
    }

    /// Whether the request's body goes on while its answer does.
    pub fn proxied(&self) -> bool {
        matches!(
            &self.asked,
            Asked::Resource(Resource {
                subresource: Some(Subresource::Proxy),
                ..
            }) | Asked::Aggregated(_)
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
            Asked::Review { kind, namespace } => {
                let namespace = namespace.iter().map(|namespace| format!("{namespace} "));
                namespace.chain([kind.resource.to_string()]).collect()
            }
            Asked::Computed {
                kind,
                namespace,
                name,
                metric,
            } => format!(
                "{} {} of {} {}",
                namespace.as_deref().unwrap_or("-"),
                metric.as_deref().unwrap_or("usage"),
                kind.resource,
                name.as_deref().unwrap_or("all")
            ),
            Asked::Aggregated(one) => format!("another server's {}", one.path),
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
            ("GET", "/api/v1/pods?watch=banana", "watch - pods (long)"),
            ("GET", "/api/v1/pods?watch", "watch - pods (long)"),
            ("GET", "/api/v1/pods?watch=False&watch=1", "list - pods"),
            ("HEAD", "/api/v1/pods?watch=1", "list - pods"),
            // The paths of the first watches.
            ("GET", "/api/v1/watch/pods?watch=0", "watch - pods (long)"),
            (
                "GET",
                "/apis/apps/v1/watch/namespaces/a/deployments",
                "watch a deployments (long)",
            ),
            (
                "GET",
                "/api/v1/watch/namespaces/a/pods/p",
                "watch a pods p (long)",
            ),
            (
                "GET",
                "/api/v1/watch/namespaces/a",
                "watch - namespaces a (long)",
            ),
            ("POST", "/api/v1/watch/pods", "create - pods"),
            ("GET", "/api/v1/watch", "get path /api/v1/watch"),
            (
                "GET",
                "/api/v1/watch/namespaces/a/pods/p/log",
                "get path /api/v1/watch/namespaces/a/pods/p/log",
            ),
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
                "POST",
                "/api/v1/namespaces/a/pods/p/exec?command=sh",
                "create a pods p exec (long)",
            ),
            (
                "GET",
                "/api/v1/namespaces/a/pods/p/portforward",
                "get a pods p portforward (long)",
            ),
            (
                "PATCH",
                "/api/v1/namespaces/a/pods/p/ephemeralcontainers",
                "patch a pods p ephemeralcontainers",
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

    #[test]
    fn what_follows_a_proxy_stays_as_it_came() {
        let registry = Registry::builtin();
        for (path, expected) in [
            ("/api/v1/namespaces/n/pods/p:80/proxy", Some(("p:80", ""))),
            ("/api/v1/namespaces/n/pods/p/proxy/", Some(("p", ""))),
            (
                "/api/v1/namespaces/n/pods/p/proxy/a%2Fb//%25/",
                Some(("p", "a%2Fb//%25/")),
            ),
            (
                "/api/v1/namespaces/n/services/proxy/proxy/x",
                Some(("proxy", "x")),
            ),
            (
                "/api/v1/namespaces/n/pods/p/proxy/proxy/x",
                Some(("p", "proxy/x")),
            ),
            ("/api/v1/nodes/a/proxy/metrics", Some(("a", "metrics"))),
            ("/api/v1/namespaces/n/pods/p/proxy/../../q/proxy", None),
            ("/api/v1/namespaces/n/pods/p/proxy/%2e%2e/x", None),
            ("/api/v1/namespaces/n/pods/p/proxyx/x", None),
        ] {
            let info = RequestInfo::of(&registry, &Method::GET, &path.parse().unwrap());
            let found = match &info.asked {
                Asked::Resource(one) if info.proxied() => {
                    Some((one.name.as_deref().unwrap(), one.rest.as_str()))
                }
                _ => None,
            };
            assert_eq!(found, expected, "{path}");
        }
    }
}
