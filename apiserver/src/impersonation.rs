//! Acting for somebody else: who may ask in whose name, and as whom.
//!
//! A caller names a user in a header, perhaps with a uid, groups and further facts. He has to be allowed each of them: as one who may `impersonate`
//! users for whatever it is, or as one who may do so in one of the constrained modes, and for just this verb on just this. The modes come
//! first, and of those, the one of the node that the caller's own pod runs on.
//!
//! Invariants: pure but for the roles; who acts for another acts with that one's rights and never with his own; in a constrained mode nobody
//! becomes a member of `system:masters`, or of those who let servers in. Source: k8s.io/apiserver `pkg/endpoints/filters/impersonation`, 1.37; KEP 5284.

use std::collections::BTreeMap;

use http::HeaderMap;
use percent_encoding::percent_decode_str;
use weft_api::name;
use weft_api::status::StatusError;

use crate::authz::{Access, Authorizer};
use crate::caller::{
    Caller, Extra, GROUP_AUTHENTICATED, GROUP_MASTERS, GROUP_NODES, GROUP_SERVERS,
    GROUP_SERVICE_ACCOUNTS, GROUP_UNAUTHENTICATED, service_account_of,
};
use crate::request::{Asked, RequestInfo};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
const ANONYMOUS: &str = "system:anonymous";
/// From so many groups, or facts, on it is asked first whether all of them are allowed.
const MANY: usize = 4;

/// Whom a request is to be made as, in its own words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: Extra,
}

impl Wanted {
    /// `None` where the request is its caller's own.
    ///
    /// # Errors
    /// 400 for facts about nobody.
    fn of(headers: &HeaderMap) -> Result<Option<Self>, StatusError> {
        let text =
            |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let first = |name: &str| headers.get(name).map(text).unwrap_or_default();
        let mut extra = Extra::new();
        let keys = headers
            .keys()
            .filter_map(|name| name.as_str().strip_prefix(EXTRA));
        for key in keys {
            let values = headers.get_all(format!("{EXTRA}{key}")).iter().map(text);
            let decoded = percent_decode_str(key).decode_utf8();
            let decoded = decoded.map_or_else(|_| key.to_owned(), |key| key.into_owned());
            extra.entry(decoded).or_default().extend(values);
        }
        let wanted = Self {
            user: first(USER),
            uid: first(UID),
            groups: headers.get_all(GROUP).iter().map(text).collect(),
            extra,
        };
        if !wanted.user.is_empty() {
            return Ok(Some(wanted));
        }
        match wanted == Self::default() {
            true => Ok(None),
            false => Err(StatusError::bad_request(format!(
                "requested {} without impersonating a user name",
                wanted.shown()
            ))),
        }
    }

    /// As Go prints it.
    fn shown(&self) -> String {
        let list = |list: &[String]| {
            let quoted: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
            match quoted.is_empty() {
                true => "[]string(nil)".to_owned(),
                false => format!("[]string{{{}}}", quoted.join(", ")),
            }
        };
        let extra = match self.extra.is_empty() {
            true => "map[string][]string(nil)".to_owned(),
            false => {
                let entries = self.extra.iter().map(|(key, values)| {
                    let values = list(values);
                    let values = values.strip_prefix("[]string").unwrap_or(&values);
                    format!("{key:?}:[]string{values}")
                });
                let entries: Vec<String> = entries.collect();
                format!("map[string][]string{{{}}}", entries.join(", "))
            }
        };
        format!(
            "&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{}, Extra:{extra}}}",
            self.user,
            self.uid,
            list(&self.groups)
        )
    }

    fn is_name_alone(&self) -> bool {
        self.uid.is_empty() && self.groups.is_empty() && self.extra.is_empty()
    }
}

/// The name of the node that a user is called after.
fn node_of(user: &str) -> Option<&str> {
    let node = user.strip_prefix("system:node:")?;
    name::dns1123_subdomain(node).is_ok().then_some(node)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    Legacy,
}

impl Mode {
    const ALL: [Self; 5] = [
        Self::AssociatedNode,
        Self::ArbitraryNode,
        Self::ServiceAccount,
        Self::UserInfo,
        Self::Legacy,
    ];

    /// How it is called in verbs; the oldest has no name.
    fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "",
        }
    }

    /// Whether it is one for this caller and that user at all.
    fn fits(self, wanted: &Wanted, caller: &Caller) -> bool {
        let node = node_of(&wanted.user);
        let account = service_account_of(&wanted.user);
        match self {
            Self::AssociatedNode => {
                let own = caller.extra().get("authentication.kubernetes.io/node-name");
                let own = own.map(Vec::as_slice);
                let is_own = matches!((node, own), (Some(node), Some([own])) if node == own);
                wanted.is_name_alone() && is_own && service_account_of(caller.user()).is_some()
            }
            Self::ArbitraryNode => wanted.is_name_alone() && node.is_some(),
            Self::ServiceAccount => wanted.is_name_alone() && account.is_some(),
            Self::UserInfo => node.is_none() && account.is_none(),
            Self::Legacy => true,
        }
    }

    fn is_constrained(self) -> bool {
        self != Self::Legacy
    }
}

/// Whether a request may be meant in another's name.
pub(crate) fn is_asked(headers: &HeaderMap) -> bool {
    headers.contains_key(USER)
}

/// Whom the request is to be taken as coming from: its caller, or somebody in whose name he may ask.
///
/// # Errors
/// 400 for headers that contradict themselves; 403 with what the caller may not.
pub(crate) fn acting(
    authorizer: &Authorizer,
    caller: Caller,
    info: &RequestInfo,
    headers: &HeaderMap,
) -> Result<Caller, StatusError> {
    let Some(wanted) = Wanted::of(headers)? else {
        return Ok(caller);
    };
    let mut first = None;
    for mode in Mode::ALL {
        if !mode.fits(&wanted, &caller) {
            continue;
        }
        let judge = Judge {
            authorizer,
            caller: &caller,
            mode,
        };
        match judge.judged(&wanted, info) {
            Ok(groups) => {
                tracing::debug!(
                    caller = caller.user(),
                    user = wanted.user,
                    "acts for another"
                );
                let uid = Some(wanted.uid.as_str()).filter(|uid| !uid.is_empty());
                return Ok(Caller::reviewed(&wanted.user, uid, groups)
                    .with_extra(wanted.extra)
                    .at_address(caller.address()));
            }
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(first.unwrap_or_else(|| StatusError::internal("all impersonation modes failed")))
}

struct Judge<'a> {
    authorizer: &'a Authorizer,
    caller: &'a Caller,
    mode: Mode,
}

impl Judge<'_> {
    /// The groups that the user has then.
    fn judged(&self, wanted: &Wanted, info: &RequestInfo) -> Result<Vec<String>, StatusError> {
        if self.mode.is_constrained() {
            self.check_request(info)?;
        }
        let mut groups = self.check_user(wanted)?;
        if !wanted.uid.is_empty() {
            self.check(AUTHENTICATION, "uids", None, None, &wanted.uid)?;
        }
        self.check_groups(&wanted.groups)?;
        self.check_extra(&wanted.extra)?;
        let has = |groups: &[String], one: &str| groups.iter().any(|group| group == one);
        let ensured = match wanted.user.as_str() {
            ANONYMOUS => Some(GROUP_UNAUTHENTICATED),
            _ if !has(&groups, GROUP_UNAUTHENTICATED) => Some(GROUP_AUTHENTICATED),
            _ => None,
        };
        groups.extend(
            ensured
                .filter(|ensured| !has(&groups, ensured))
                .map(str::to_owned),
        );
        Ok(groups)
    }

    fn verb(&self) -> String {
        match self.mode.is_constrained() {
            true => format!("impersonate:{}", self.mode.name()),
            false => "impersonate".to_owned(),
        }
    }

    /// Names of users and groups are in another group of the API than they were at first.
    fn group(&self) -> &'static str {
        match self.mode.is_constrained() {
            true => AUTHENTICATION,
            false => "",
        }
    }

    fn check(
        &self,
        group: &str,
        resource: &str,
        subresource: Option<&str>,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<(), StatusError> {
        let access = Access {
            verb: &self.verb(),
            group,
            resource,
            subresource,
            namespace,
            name: Some(name),
        };
        self.authorizer.check(self.caller, &access).map(drop)
    }

    fn refused(&self, group: &str, resource: &str, name: Option<&str>, why: &str) -> StatusError {
        let access = Access {
            verb: &self.verb(),
            group,
            resource,
            subresource: None,
            namespace: None,
            name,
        };
        access.forbidden(self.caller, why)
    }

    /// Whether the caller may do just this in this mode.
    fn check_request(&self, info: &RequestInfo) -> Result<(), StatusError> {
        let verb = format!("impersonate-on:{}:{}", self.mode.name(), info.verb);
        match (info.access(), &info.asked) {
            (Some(access), _) => {
                let access = Access {
                    verb: &verb,
                    ..access
                };
                self.authorizer.check(self.caller, &access).map(drop)
            }
            (None, Asked::Path(path)) => {
                let checked = self.authorizer.check_path(self.caller, &verb, path);
                checked.map(drop)
            }
            // The registry judges for itself, and knows callers of the oldest kind only.
            (None, _) => Err(StatusError::forbidden_message("forbidden")),
        }
    }

    fn check_user(&self, wanted: &Wanted) -> Result<Vec<String>, StatusError> {
        let Wanted { user, groups, .. } = wanted;
        if let (true, Some(node)) = (self.mode.is_constrained(), node_of(user)) {
            // Which node it is was seen already.
            let name = match self.mode {
                Mode::AssociatedNode => "*",
                _ => node,
            };
            self.check(self.group(), "nodes", None, None, name)?;
            return Ok(vec![GROUP_NODES.to_owned()]);
        }
        if let Some((namespace, name)) = service_account_of(user) {
            let place = Some(namespace);
            self.check(self.group(), "serviceaccounts", None, place, name)?;
            return Ok(match groups.is_empty() {
                true => vec![
                    GROUP_SERVICE_ACCOUNTS.to_owned(),
                    format!("{GROUP_SERVICE_ACCOUNTS}:{namespace}"),
                ],
                false => groups.clone(),
            });
        }
        self.check(self.group(), "users", None, None, user)?;
        Ok(groups.clone())
    }

    fn check_groups(&self, groups: &[String]) -> Result<(), StatusError> {
        if self.mode.is_constrained() {
            let refused = |name, why: &str| self.refused(self.group(), "groups", name, why);
            if groups.iter().any(String::is_empty) {
                let why = "impersonating the empty string group is not allowed";
                return Err(refused(None, why));
            }
            // Who lets servers in has as much.
            for all_powerful in [GROUP_MASTERS, GROUP_SERVERS] {
                if groups.iter().any(|group| group == all_powerful) {
                    let why = format!("impersonating the {all_powerful} group is not allowed");
                    return Err(refused(Some(all_powerful), &why));
                }
            }
            let all = || self.check(self.group(), "groups", None, None, "*");
            if groups.len() >= MANY && all().is_ok() {
                return Ok(());
            }
        }
        groups
            .iter()
            .try_for_each(|group| self.check(self.group(), "groups", None, None, group))
    }

    fn check_extra(&self, extra: &BTreeMap<String, Vec<String>>) -> Result<(), StatusError> {
        if self.mode.is_constrained() {
            let refused = |why: &str| self.refused(AUTHENTICATION, "userextras", None, why);
            for (key, values) in extra {
                sound(key, values).map_err(|why| refused(&why))?;
            }
            let count: usize = extra.values().map(Vec::len).sum();
            let all = || self.check(AUTHENTICATION, "userextras", Some("*"), None, "*");
            if extra.len().max(count) >= MANY && all().is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.check(AUTHENTICATION, "userextras", Some(key), None, value)?;
            }
        }
        Ok(())
    }
}

/// Whether a fact is one that a constrained mode takes.
fn sound(key: &str, values: &[String]) -> Result<(), String> {
    if key.is_empty() {
        return Err("impersonating the empty string key in extra is not allowed".to_owned());
    }
    let of_domain = key
        .split_once('/')
        .is_some_and(|(domain, path)| name::dns1123_subdomain(domain).is_ok() && !path.is_empty());
    if !of_domain {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        return Err(format!(
            "impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {key:?}: {why}"
        ));
    }
    if key.chars().any(char::is_uppercase) {
        return Err(format!(
            "impersonating a non-lowercase key in extra is not allowed: {key:?}"
        ));
    }
    match values {
        [] => Err("impersonating empty values in extra is not allowed".to_owned()),
        values if values.iter().any(String::is_empty) => {
            Err("impersonating the empty string value in extra is not allowed".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use weft_kinds::rbac::rules::quoted;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, http::HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn who_is_meant_stands_in_the_headers() {
        assert_eq!(Wanted::of(&headers(&[])).unwrap(), None);
        let wanted = Wanted::of(&headers(&[
            (USER, "jo"),
            (UID, "7"),
            (GROUP, "a"),
            (GROUP, "b"),
            ("impersonate-extra-example.com%2fteam", "x"),
            ("impersonate-extra-example.com%2fteam", "y"),
        ]));
        let wanted = wanted.unwrap().unwrap();
        assert_eq!((wanted.user.as_str(), wanted.uid.as_str()), ("jo", "7"));
        assert_eq!(quoted(&wanted.groups), r#"["a" "b"]"#);
        let values = vec!["x".to_owned(), "y".to_owned()];
        let extra = Extra::from([("example.com/team".to_owned(), values)]);
        assert_eq!(wanted.extra, extra);
        let nobody = Wanted::of(&headers(&[(GROUP, "a")])).unwrap_err();
        assert_eq!(
            nobody.message,
            r#"requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"a"}, Extra:map[string][]string(nil)} without impersonating a user name"#
        );
    }

    #[test]
    fn a_mode_is_for_one_kind_of_user() {
        let plain = Caller::client_certificate("root", vec![]);
        let node = ("authentication.kubernetes.io/node-name", "a");
        let extra = Extra::from([(node.0.to_owned(), vec![node.1.to_owned()])]);
        let on_a = Caller::service_account("n", "agent", None).with_extra(extra);
        let fitting = |user: &str, groups: &[&str], caller: &Caller| {
            let wanted = Wanted {
                user: user.to_owned(),
                groups: groups.iter().map(|&group| group.to_owned()).collect(),
                ..Wanted::default()
            };
            let modes = Mode::ALL.into_iter();
            let names = modes.filter(|mode| mode.fits(&wanted, caller));
            names.map(Mode::name).collect::<Vec<_>>().join(" ")
        };
        for (user, groups, caller, expected) in [
            ("jo", &["a"][..], &plain, "user-info "),
            ("system:node:a", &[], &plain, "arbitrary-node "),
            (
                "system:node:a",
                &[],
                &on_a,
                "associated-node arbitrary-node ",
            ),
            ("system:node:b", &[], &on_a, "arbitrary-node "),
            ("system:node:a", &["g"], &on_a, ""),
            ("system:serviceaccount:n:x", &[], &plain, "serviceaccount "),
            ("system:serviceaccount:n:x", &["g"], &plain, ""),
        ] {
            assert_eq!(fitting(user, groups, caller), expected, "{user}");
        }
    }
}
