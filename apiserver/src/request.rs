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

use std::num::{IntErrorKind, ParseIntError};
use std::sync::Arc;

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
use weft_kinds::apply::{manager_faults, manager_name};
use weft_kinds::{Kind, KindRef, NAMESPACE, Registry, Served, Subresource};
use weft_store::Key;

pub use self::aggregated::{Aggregated, AggregatedResource};

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
            } => access(
                &*kind.group,
                &*kind.resource,
                namespace.as_deref(),
                name.as_deref(),
            ),
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
                    || matches!(one.subresource, Some(Subresource::Log | Subresource::Proxy))
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
            Asked::Bindings { .. } | Asked::Review { .. } | Asked::Computed { .. } => false,
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

fn asked_of(registry: &Registry, path: &str, params: &Result<Params, StatusError>) -> Asked {
    if registry::serves(path) {
        return Asked::Registry;
    }
    let resource = |path: &str| {
        let segments = segments_of(path)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        resource_of(registry, &segments)
    };
    let found = proxied_of(path, resource).or_else(|| resource(path));
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

/// A path below a proxy: what follows is left as it came, for whoever is proxied to.
fn proxied_of(path: &str, resource: impl Fn(&str) -> Option<Asked>) -> Option<Asked> {
    const PROXY: &str = "/proxy";
    // Objects may be called so: a name, and what is below it.
    let places = path.match_indices(PROXY).map(|(at, _)| at + PROXY.len());
    for end in places.take(3) {
        let (above, rest) = path.split_at(end);
        if !(rest.is_empty() || rest.starts_with('/')) || leads_out(rest) {
            continue;
        }
        if let Some(Asked::Resource(one)) = resource(above)
            && one.subresource == Some(Subresource::Proxy)
        {
            let rest = rest.strip_prefix('/').unwrap_or(rest).to_owned();
            return Some(Asked::Resource(Resource { rest, ..one }));
        }
    }
    None
}

/// Whether a path has segments that lead out of what is above it.
fn leads_out(path: &str) -> bool {
    path.split('/').any(|segment| {
        let text = percent_decode_str(segment).decode_utf8_lossy();
        text.split(['/', '\\'])
            .any(|part| matches!(part, "." | ".."))
    })
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

/// What a path of the first kind of watches names, which Kubernetes still serves: `/api/v1/watch/…` before a collection or an object.
fn watched_of(registry: &Registry, path: &str) -> Option<Resource> {
    let segments = segments_of(path)?;
    let mut segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let place = match *segments.first()? {
        "api" => 2,
        "apis" => 3,
        _ => return None,
    };
    if segments.get(place) != Some(&"watch") {
        return None;
    }
    segments.remove(place);
    match resource_of(registry, &segments)? {
        Asked::Resource(one) if one.subresource.is_none() => Some(one),
        _ => None,
    }
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
            let asks = rest.is_empty() && namespace.is_some() == kind.namespaced;
            return asks.then(|| Asked::Review {
                kind: kind.clone(),
                namespace,
            });
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

/// What a URL would ask of a kind that is not served: who may ask that is told that it is not there, and nobody else.
fn unserved<'a>(path: &'a str, method: &str) -> Option<Access<'a>> {
    let mut parts = path.strip_prefix('/')?.split('/').collect::<Vec<_>>();
    if parts.contains(&"") {
        return None;
    }
    let (group, version_at) = match parts.first() {
        Some(&"api") => ("", 1),
        Some(&"apis") => (*parts.get(1)?, 2),
        _ => return None,
    };
    if parts.len() <= version_at + 1 {
        return None;
    }
    parts.drain(..=version_at);
    let mut namespace = None;
    if parts[0] == "namespaces" && parts.len() > 1 {
        namespace = Some(parts[1]);
        if parts.len() > 2 {
            parts.drain(..2);
        }
    }
    let name = parts.get(1).copied();
    let verb = match (method, name) {
        ("post", _) => "create",
        ("get" | "head", Some(_)) => "get",
        ("get" | "head", None) => "list",
        ("put", _) => "update",
        ("patch", _) => "patch",
        ("delete", Some(_)) => "delete",
        ("delete", None) => "deletecollection",
        _ => return None,
    };
    Some(Access {
        verb,
        group,
        resource: parts[0],
        subresource: parts.get(2).copied(),
        namespace,
        name,
    })
}

/// The query parameters that any verb knows.
#[derive(Clone, Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// As Go reads a query: what is no pair (a semicolon, a wrong escape) is as good as absent, whatever stands beside it.
    fn of(query: &str) -> Self {
        let pairs = query.split('&').filter_map(|pair| {
            if pair.is_empty() || pair.contains(';') {
                return None;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescaped(name)?, unescaped(value)?))
        });
        Self {
            pairs: pairs.collect(),
        }
    }

    /// The parameters of a watch that its path asked for, of all objects or of one.
    ///
    /// # Errors
    /// 400 for a selector of other objects than that one.
    fn watching(mut self, name: Option<&str>) -> Result<Self, StatusError> {
        self.pairs.retain(|(key, _)| key != "watch");
        self.pairs.push(("watch".to_owned(), "true".to_owned()));
        let Some(name) = name else {
            return Ok(self);
        };
        match self.get("fieldSelector").map(FieldSelector::parse) {
            None => {
                let selector = format!("metadata.name={name}");
                self.pairs.retain(|(key, _)| key != "fieldSelector");
                self.pairs.push(("fieldSelector".to_owned(), selector));
                Ok(self)
            }
            Some(Ok(selector)) if selector.exact("metadata.name") == Some(name) => Ok(self),
            // What does not parse is told where it is used.
            Some(Err(_)) => Ok(self),
            Some(Ok(_)) => Err(StatusError::bad_request(
                "fieldSelector metadata.name doesn't match requested name",
            )),
        }
    }

    /// All pairs, in the order of the query.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    fn first(&self, name: &str) -> Option<&str> {
        let mut pairs = self.pairs.iter();
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value of a parameter; an empty one is as good as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.first(name).filter(|value| !value.is_empty())
    }

    /// Whether something is asked for: whatever is said is a yes, but for `0` and `false`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.first(name)
            .map(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// # Errors
    /// 400 in Go's words, which Kubernetes passes on.
    pub fn number(&self, name: &str) -> Result<Option<i64>, StatusError> {
        let number = self.first(name).map(|text| {
            text.parse().map_err(|error: ParseIntError| {
                StatusError::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: {}",
                    what_is_wrong(&error)
                ))
            })
        });
        number.transpose()
    }

    /// Whether everything is to be done but storing it.
    ///
    /// # Errors
    /// For anything but `All`.
    pub fn dry_run(&self) -> Result<bool, Cause> {
        let values = self.pairs.iter().filter(|(key, _)| key == "dryRun");
        let values: Vec<&str> = values
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
            .collect();
        match values.iter().all(|value| *value == "All") {
            true => Ok(!values.is_empty()),
            false => Err(Cause::not_supported(
                "dryRun",
                &serde_json::json!(values),
                &["All"],
            )),
        }
    }

    /// What becomes of unknown fields; a word that is none of the three was told by [`Params::write_options`].
    pub fn validation(&self) -> Validation {
        match self.get("fieldValidation") {
            Some("Strict") => Validation::Strict,
            Some("Ignore") => Validation::Ignore,
            _ => Validation::Warn,
        }
    }

    /// Whether an apply takes fields from their owners.
    pub fn force(&self) -> bool {
        self.flag("force").unwrap_or(false)
    }

    /// The options of a write by a client that calls itself `user_agent`.
    ///
    /// # Errors
    /// 422 for what is no name of a manager, no dry run or no validation.
    pub fn write_options(
        &self,
        write: Write,
        user_agent: &str,
    ) -> Result<WriteOptions, StatusError> {
        let manager = self.get("fieldManager").unwrap_or_default();
        let force = match write {
            Write::Patch => self.flag("force"),
            _ => None,
        };
        let mut faults = manager_faults(manager, write == Write::Apply, force);
        let dry_run = self.dry_run().unwrap_or_else(|fault| {
            faults.push(fault);
            false
        });
        if let Some(other) = self
            .get("fieldValidation")
            .filter(|word| !matches!(*word, "Ignore" | "Warn" | "Strict"))
        {
            faults.push(Cause::not_supported(
                "fieldValidation",
                &other.into(),
                &["", "Ignore", "Strict", "Warn"],
            ));
        }
        if !faults.is_empty() {
            let about = write.options();
            return Err(StatusError::invalid(about, "meta.k8s.io", "", faults));
        }
        Ok(WriteOptions {
            dry_run,
            field_manager: Some(manager_name(manager, user_agent)),
            strict: self.validation() == Validation::Strict,
            ..WriteOptions::default()
        })
    }

    /// # Errors
    /// 400 and 422 for parameters that a list cannot have.
    pub fn list_options(&self, kind: KindRef<'_>) -> Result<ListOptions, StatusError> {
        let limit = self.number("limit")?;
        self.number("timeoutSeconds")?;
        self.check_reading(false)?;
        Ok(ListOptions {
            selection: self.selection(kind)?,
            // Less than one is none.
            limit: limit.and_then(|limit| usize::try_from(limit).ok()),
            continue_token: self.get("continue").map(str::to_owned),
            resource_version: self.resource_version()?,
            version_match: match self.get("resourceVersionMatch") {
                Some("Exact") => Some(VersionMatch::Exact),
                Some(_) => Some(VersionMatch::NotOlderThan),
                None => None,
            },
        })
    }

    /// The rules that Kubernetes has for the parameters of lists and watches, in its words.
    ///
    /// # Errors
    /// 422 with all that is wrong with them.
    pub fn check_reading(&self, watches: bool) -> Result<(), StatusError> {
        let version = self.get("resourceVersion");
        let mut matching = self.get("resourceVersionMatch");
        let mut initial = self.flag("sendInitialEvents");
        // A watch that begins anywhere begins with what is there, as one that asks for it in so many words.
        if watches && initial.is_none() && matching.is_none() && matches!(version, None | Some("0"))
        {
            (initial, matching) = (Some(true), Some(NOT_OLDER_THAN));
        }
        let mut causes = Vec::new();
        let mut forbidden = |field: &str, text: &str| causes.push(Cause::forbidden(field, text));
        const MATCH: &str = "resourceVersionMatch";
        let continues = self.get("continue").is_some();
        let twice = "resourceVersionMatch is forbidden when continue is provided";
        if watches {
            if initial.is_some() && matching != Some(NOT_OLDER_THAN) {
                let text =
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                forbidden(MATCH, text);
            }
            if let Some(wanted) = matching {
                if initial.is_none() {
                    let text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                    forbidden(MATCH, text);
                }
                if wanted != NOT_OLDER_THAN {
                    causes.push(Cause::not_supported(
                        MATCH,
                        &wanted.into(),
                        &[NOT_OLDER_THAN],
                    ));
                }
                if continues {
                    causes.push(Cause::forbidden(MATCH, twice));
                }
            }
        } else {
            if let Some(wanted) = matching {
                if version.is_none() {
                    let text =
                        "resourceVersionMatch is forbidden unless resourceVersion is provided";
                    forbidden(MATCH, text);
                }
                if continues {
                    forbidden(MATCH, twice);
                }
                if !matches!(wanted, "Exact" | NOT_OLDER_THAN) {
                    let supported = ["Exact", NOT_OLDER_THAN, ""];
                    causes.push(Cause::not_supported(MATCH, &wanted.into(), &supported));
                }
                if wanted == "Exact" && version == Some("0") {
                    let text =
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                    causes.push(Cause::forbidden(MATCH, text));
                }
            }
            if initial.is_some() {
                let text = "sendInitialEvents is forbidden for list";
                causes.push(Cause::forbidden("sendInitialEvents", text));
            }
        }
        if causes.is_empty() {
            return Ok(());
        }
        let (kind, group) = ("ListOptions", "meta.k8s.io");
        Err(StatusError::invalid(kind, group, "", causes))
    }

    /// # Errors
    /// 400 for selectors that do not parse, or name a field that the kind does not have.
    pub fn selection(&self, kind: KindRef<'_>) -> Result<Selection, StatusError> {
        Selection::parse(kind, self.get("labelSelector"), self.get("fieldSelector"))
    }

    /// # Errors
    /// 400 for what is no number.
    pub fn resource_version(&self) -> Result<Option<u64>, StatusError> {
        let version = self.get("resourceVersion").map(|text| {
            text.parse().map_err(|error: ParseIntError| {
                StatusError::bad_request(format!(
                    "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {}",
                    what_is_wrong(&error)
                ))
            })
        });
        version.transpose()
    }
}

const NOT_OLDER_THAN: &str = "NotOlderThan";

/// Why Go takes a text for no number.
fn what_is_wrong(error: &ParseIntError) -> &'static str {
    match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

/// A text of a query; `None` for a wrong escape. What is no UTF-8 is replaced: no name has it.
fn unescaped(text: &str) -> Option<String> {
    let sound = |escape: &str| {
        let digits = escape.as_bytes().first_chunk::<2>();
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(sound) {
        return None;
    }
    let spaced = text.replace('+', " ");
    Some(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// A way to write, as far as its options go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Create,
    Update,
    Patch,
    Apply,
}

impl Write {
    /// The kind of its options.
    fn options(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Patch | Self::Apply => "PatchOptions",
        }
    }
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
            Asked::Review { kind, namespace } => {
                let namespace = namespace.iter().map(|namespace| format!("{namespace} "));
                namespace.chain([kind.resource.to_string()]).collect()
            }
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
            Asked::Aggregated(one) => format!("another server's {}", one.path),
            Asked::Registry => "registry".to_owned(),
            Asked::Path(path) => format!("path {path}"),
        };
        let long = if info.long_running() { " (long)" } else { "" };
        format!("{} {what}{long}", info.verb)
    }

    #[test]
    fn queries_are_read_as_go_reads_them() {
        let params = Params::of(
            "a=1&a=2&b=%zz&c;d=1&e=x+y%2B&%ff=%ff&f&=g&limit=-1&h=999999999999999999999",
        );
        assert_eq!(params.get("a"), Some("1"));
        for absent in ["b", "c", "d", "f", "c;d"] {
            assert_eq!(params.get(absent), None, "{absent}");
        }
        assert_eq!(params.get("e"), Some("x y+"));
        assert_eq!(params.get("\u{fffd}"), Some("\u{fffd}"));
        assert_eq!((params.flag("f"), params.flag("g")), (Some(true), None));
        assert_eq!(params.number("limit").unwrap(), Some(-1));
        for (name, sentence) in [
            ("e", "strconv.ParseInt: parsing \"x y+\": invalid syntax"),
            ("f", "strconv.ParseInt: parsing \"\": invalid syntax"),
            (
                "h",
                "strconv.ParseInt: parsing \"999999999999999999999\": value out of range",
            ),
        ] {
            assert_eq!(params.number(name).unwrap_err().message, sentence);
        }
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
