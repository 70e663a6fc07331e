//! Who is calling: the proof that a request was authenticated.
//!
//! A [`Caller`] has one constructor for each way in, so whoever holds one knows which check it passed. Only
//! [`Caller::system`] can carry a raft term; its writes are fenced, so that a leader that was deposed without
//! noticing cannot overwrite what its successor decided.
//!
//! Left to others: checking credentials (`authn`), deciding what a caller may do (`authz`).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use weft_store::Term;

use crate::ca::lapsed::Lapsed;

/// Everyone who presented a credential.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// Everyone who did not.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// May do everything; also the control loop's group.
pub const GROUP_MASTERS: &str = "system:masters";
/// Node agents, user `system:node:NAME`.
pub const GROUP_NODES: &str = "system:nodes";
/// Holders of a bootstrap token, who may only ask for a node certificate.
pub const GROUP_BOOTSTRAPPERS: &str = "system:bootstrappers";

/// Holders of a bootstrap token for servers, who may also join the servers themselves and get the authority for that.
pub const GROUP_SERVERS: &str = "system:bootstrappers:weft:servers";

/// Every ServiceAccount, and with a namespace behind it those in there.
pub const GROUP_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// What is told of a credential: which one it was.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// What is known of a user beside name, uid and groups.
pub type Extra = BTreeMap<String, Vec<String>>;

/// An authenticated (or knowingly anonymous) origin of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    user: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: Extra,
    term: Option<Term>,
    address: Option<IpAddr>,
    lapsed: Option<Lapsed>,
}

impl Caller {
    /// A component inside this process; `term` is the leadership it acts under, and fences its writes.
    pub fn system(component: &str, term: Option<Term>) -> Self {
        Self {
            user: format!("system:{component}"),
            groups: vec![GROUP_MASTERS.to_owned(), GROUP_AUTHENTICATED.to_owned()],
            term,
            ..Self::default()
        }
    }

    /// The subject of a client certificate that the cluster CA signed: CN is the user, O are the groups.
    pub fn client_certificate(common_name: impl Into<String>, organisations: Vec<String>) -> Self {
        let mut groups = organisations;
        groups.push(GROUP_AUTHENTICATED.to_owned());
        Self {
            user: common_name.into(),
            groups,
            ..Self::default()
        }
    }

    /// Who proved to be a node by a certificate that is over: may ask for a new one, and for nothing else. No role is bound to that name, and it is
    /// in no group of nodes.
    pub(crate) fn lapsed_node(lapsed: Lapsed) -> Self {
        Self {
            user: format!("system:lapsed-node:{}", lapsed.node),
            groups: vec![GROUP_AUTHENTICATED.to_owned()],
            lapsed: Some(lapsed),
            ..Self::default()
        }
    }

    /// The holder of bootstrap token `id`, whose secret half was checked, in the further groups that the token gives.
    pub fn bootstrap_token(id: &str, mut groups: Vec<String>) -> Self {
        groups.push(GROUP_BOOTSTRAPPERS.to_owned());
        groups.push(GROUP_AUTHENTICATED.to_owned());
        Self {
            user: format!("system:bootstrap:{id}"),
            groups,
            ..Self::default()
        }
    }

    /// A bearer token from the server's own token file: user, uid and groups as written there.
    pub fn static_token(
        user: impl Into<String>,
        uid: Option<String>,
        mut groups: Vec<String>,
    ) -> Self {
        groups.push(GROUP_AUTHENTICATED.to_owned());
        Self {
            user: user.into(),
            uid,
            groups,
            ..Self::default()
        }
    }

    /// A ServiceAccount whose token was verified.
    pub fn service_account(namespace: &str, name: &str, uid: Option<String>) -> Self {
        Self {
            user: service_account_user(namespace, name),
            uid,
            groups: vec![
                GROUP_SERVICE_ACCOUNTS.to_owned(),
                format!("{GROUP_SERVICE_ACCOUNTS}:{namespace}"),
                GROUP_AUTHENTICATED.to_owned(),
            ],
            ..Self::default()
        }
    }

    /// Whom a review of access asks about, or whom another caller may act for: never where a request comes from by itself.
    pub(crate) fn reviewed(user: &str, uid: Option<&str>, groups: Vec<String>) -> Self {
        Self {
            user: user.to_owned(),
            uid: uid.map(str::to_owned),
            groups,
            ..Self::default()
        }
    }

    /// No credential at all; may read health, version and discovery.
    pub fn anonymous() -> Self {
        Self {
            user: "system:anonymous".to_owned(),
            groups: vec![GROUP_UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// The same, and this is known of it, too.
    pub(crate) fn with_extra(self, extra: Extra) -> Self {
        Self { extra, ..self }
    }

    /// What is known beside name, uid and groups.
    pub fn extra(&self) -> &Extra {
        &self.extra
    }

    /// The same, with where the request came from. TCP proves that much.
    pub fn at_address(self, address: Option<IpAddr>) -> Self {
        Self { address, ..self }
    }

    /// Where the request came from; `None` inside this process.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// What a component inside this process is called; of others, who they are.
    pub fn component(&self) -> &str {
        self.user.strip_prefix("system:").unwrap_or(&self.user)
    }

    pub fn uid(&self) -> Option<&str> {
        self.uid.as_deref()
    }

    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|mine| mine == group)
    }

    /// The node this caller is, if it is one: user `system:node:NAME` in group `system:nodes`.
    pub fn node_name(&self) -> Option<&str> {
        if self.in_group(GROUP_NODES) {
            self.user.strip_prefix("system:node:")
        } else {
            None
        }
    }

    /// The node that this caller was while its certificate was good.
    pub(crate) fn lapsed(&self) -> Option<&Lapsed> {
        self.lapsed.as_ref()
    }

    pub fn is_anonymous(&self) -> bool {
        self.in_group(GROUP_UNAUTHENTICATED)
    }

    /// The raft term that fences this caller's writes.
    pub(crate) fn term(&self) -> Option<Term> {
        self.term
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.user)
    }
}

/// What a ServiceAccount is called as a user.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// Namespace and name of what is called as a ServiceAccount is.
pub(crate) fn service_account_parts(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

/// Namespace and name of the ServiceAccount that a user is, if it is one.
pub(crate) fn service_account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = service_account_parts(user)?;
    let sound = weft_api::name::dns1123_label(namespace).is_ok()
        && weft_api::name::dns1123_subdomain(name).is_ok();
    sound.then_some((namespace, name))
}
