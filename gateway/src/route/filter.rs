//! Filters of rules and backends, from how they are written to values. Pure.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};

use super::matches::header_name;
use super::target;
use crate::api::{
    CorsFilter, HeaderLine, HeaderModifier, HttpRouteFilter, PathModifier, RequestMirror,
    RequestRedirect,
};
use crate::rule::{
    Allowed, Backend, Cors, Filter, HeaderChange, Mirror, Origin, PathChange, Redirect, Rewrite,
};

/// Seconds for which a preflight's answer may be kept where nothing is said (the Gateway API's default).
const MAX_AGE_USUAL: u32 = 5;

/// `namespace` is the route's.
///
/// # Errors
/// Half a sentence with what is not supported.
pub(super) fn filter(namespace: &str, filter: &HttpRouteFilter) -> Result<Filter, String> {
    let kind = filter.kind.as_str();
    let lacks = || format!("filter {kind} lacks its settings");
    match kind {
        "RequestHeaderModifier" => {
            let change = filter.request_header_modifier.as_ref().ok_or_else(lacks)?;
            header_change(change).map(Filter::RequestHeaders)
        }
        "ResponseHeaderModifier" => {
            let change = filter.response_header_modifier.as_ref().ok_or_else(lacks)?;
            header_change(change).map(Filter::ResponseHeaders)
        }
        "RequestRedirect" => {
            redirect(filter.request_redirect.as_ref().ok_or_else(lacks)?).map(Filter::Redirect)
        }
        "URLRewrite" => {
            let rewrite = filter.url_rewrite.as_ref().ok_or_else(lacks)?;
            Ok(Filter::Rewrite(Rewrite {
                hostname: rewrite.hostname.clone(),
                path: rewrite.path.as_ref().map(path_change).transpose()?,
            }))
        }
        "RequestMirror" => {
            let mirror = filter.request_mirror.as_ref().ok_or_else(lacks)?;
            Ok(Filter::Mirror(self::mirror(namespace, mirror)))
        }
        "CORS" => cors(filter.cors.as_ref().ok_or_else(lacks)?)
            .map(Arc::new)
            .map(Filter::Cors),
        other => Err(format!("filter {other} is not supported")),
    }
}

fn mirror(namespace: &str, written: &RequestMirror) -> Mirror {
    let (share, of) = match (&written.fraction, written.percent) {
        (Some(fraction), _) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (None, Some(percent)) => (percent, 100),
        (None, None) => (1, 1),
    };
    Mirror {
        backend: Backend::new(target(namespace, &written.backend_ref)),
        share,
        of: of.max(1),
    }
}

fn cors(written: &CorsFilter) -> Result<Cors, String> {
    let origins = written.allow_origins.iter().map(|origin| {
        let origin = origin.to_ascii_lowercase();
        match origin.split_once('*') {
            Some(("", "")) => Origin::Any,
            Some((before, after)) => Origin::Wildcard(before.to_owned(), after.to_owned()),
            None => Origin::Exact(origin),
        }
    });
    Ok(Cors {
        origins: origins.collect(),
        credentials: written.allow_credentials,
        methods: allowed(&written.allow_methods)?,
        headers: allowed(&written.allow_headers)?,
        exposed: list(&written.expose_headers)?,
        max_age_seconds: written.max_age.unwrap_or(MAX_AGE_USUAL),
    })
}

fn allowed(names: &[String]) -> Result<Allowed, String> {
    match names.iter().any(|name| name == "*") {
        true => Ok(Allowed::All),
        false => list(names).map(Allowed::Listed),
    }
}

fn list(names: &[String]) -> Result<Option<HeaderValue>, String> {
    if names.is_empty() {
        return Ok(None);
    }
    let line = names.join(", ");
    let value = line.parse::<HeaderValue>();
    let bad = |_| format!("{line:?} cannot be in a header");
    value.map(Some).map_err(bad)
}

fn header_change(written: &HeaderModifier) -> Result<HeaderChange, String> {
    let pairs = |lines: &[HeaderLine]| -> Result<Vec<(HeaderName, HeaderValue)>, String> {
        let pairs = lines.iter().map(|line| {
            let value = line.value.parse();
            let bad = |_| format!("the value of {:?} cannot be in a header", line.name);
            Ok((header_name(&line.name)?, value.map_err(bad)?))
        });
        pairs.collect()
    };
    let remove = written.remove.iter().map(|name| header_name(name));
    Ok(HeaderChange {
        set: pairs(&written.set)?,
        add: pairs(&written.add)?,
        remove: remove.collect::<Result<_, _>>()?,
    })
}

fn redirect(written: &RequestRedirect) -> Result<Redirect, String> {
    let status = written.status_code.map(|code| {
        let status = StatusCode::from_u16(code).ok();
        let status = status.filter(StatusCode::is_redirection);
        status.ok_or_else(|| format!("{code} is no status code of a redirect"))
    });
    Ok(Redirect {
        scheme: written.scheme.clone(),
        hostname: written.hostname.clone(),
        port: written.port,
        path: written.path.as_ref().map(path_change).transpose()?,
        status: status.transpose()?,
    })
}

fn path_change(written: &PathModifier) -> Result<PathChange, String> {
    let slash = |path: &Option<String>| path.clone().unwrap_or_else(|| "/".to_owned());
    match &*written.kind {
        "ReplaceFullPath" => Ok(PathChange::Full(slash(&written.replace_full_path))),
        "ReplacePrefixMatch" => Ok(PathChange::Prefix(slash(&written.replace_prefix_match))),
        other => Err(format!("a path change of type {other} is not supported")),
    }
}
