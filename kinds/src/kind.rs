//! What a kind is: names, scope, what can be asked of it, and the strategy that judges its objects.
//!
//! A [`Kind`] is data that is shared by reference counting, so that kinds of users, made at run time, are kinds like any other.
//! Some are spellings: another API group's form of the same stored objects (`events.k8s.io/v1` over `v1` Event), converted on
//! the way in and out. Some are never stored: a review answers a question, usage is computed when it is read ([`Served`]).
//!
//! Invariants: a spelling is of a stored kind, never of a spelling. Left to others: which kinds there are (`crate::registry`),
//! rules (`crate::strategy`), fields (`crate::schema`).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use weft_api::gvk::GroupVersionKind;

use crate::apiextensions::Custom;
use crate::columns::{Column, name_and_age};
use crate::decode::{Readable as _, Reading};
use crate::schema::Schema;
use crate::strategy::{MetadataOnly, Strategy};

/// A name that is compiled in or came from a user.
pub type Name = Cow<'static, str>;

/// One kind of object.
pub struct Kind {
    pub group: Name,
    pub version: Name,
    pub kind: Name,
    /// Plural, as in URLs and store keys.
    pub resource: Name,
    pub singular: Name,
    pub short_names: Vec<Name>,
    pub categories: Vec<Name>,
    pub namespaced: bool,
    pub served: Served,
    pub subresources: Vec<Subresource>,
    pub columns: Vec<Column>,
    /// Fields a selector may name, beyond `metadata.name` and `metadata.namespace`.
    pub selectable: Vec<Selectable>,
    /// Whether `metadata.generation` counts changes of the desired state.
    pub counts_generations: bool,
    /// Which names are valid.
    pub name_rule: NameRule,
    /// What a write of the status makes of the metadata.
    pub status_metadata: StatusMetadata,
    /// What whoever asks for it is told: that it is old, and what came instead.
    pub deprecated: Option<Name>,
    /// Whether objects are ciphertext at rest.
    pub sealed: bool,
    /// Whether strategic merge patches are taken. Kinds that Kubernetes knows as custom resources do not: their
    /// definitions have no merge keys.
    pub merges_strategically: bool,
    /// Set when this kind is another spelling of a stored one.
    pub spelling: Option<Spelling>,
    /// Whether clients find it in discovery and OpenAPI. What only clients of long ago ask for is served unlisted, so that no other
    /// picks it.
    pub listed: bool,
    /// Set when a CustomResourceDefinition defines this kind, of which it is one version.
    pub custom: Option<Custom>,
    pub strategy: Arc<dyn Strategy>,
}

impl Kind {
    /// A namespaced, stored kind whose metadata is all there is to judge; the rest is said by struct update.
    pub fn new(
        group: impl Into<Name>,
        version: impl Into<Name>,
        kind: impl Into<Name>,
        resource: impl Into<Name>,
    ) -> Self {
        let kind = kind.into();
        Self {
            group: group.into(),
            version: version.into(),
            singular: Cow::Owned(kind.to_lowercase()),
            kind,
            resource: resource.into(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            served: Served::Stored,
            subresources: Vec::new(),
            columns: name_and_age(),
            selectable: Vec::new(),
            counts_generations: false,
            name_rule: NameRule::Subdomain,
            status_metadata: StatusMetadata::Kept,
            deprecated: None,
            sealed: false,
            merges_strategically: true,
            spelling: None,
            listed: true,
            custom: None,
            strategy: Arc::new(MetadataOnly),
        }
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_string()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub fn gvk(&self) -> GroupVersionKind {
        GroupVersionKind::new(&self.group, &self.version, &self.kind)
    }

    /// `deployments.apps` or `pods`: how messages name the resource.
    pub fn qualified_resource(&self) -> String {
        if self.group.is_empty() {
            self.resource.to_string()
        } else {
            format!("{}.{}", self.resource, self.group)
        }
    }

    /// The kind whose objects are in the store: itself, unless it is a spelling.
    pub fn stored(self: &Arc<Self>) -> &Arc<Self> {
        match &self.spelling {
            Some(spelling) => &spelling.of,
            None => self,
        }
    }

    /// The schema of its objects; none where none is known.
    pub fn schema(&self) -> Option<Schema<'_>> {
        match self.reading() {
            Reading::Typed(schema) => Some(schema),
            Reading::Structural(schema) => Some(schema),
            Reading::Free => None,
        }
    }

    /// What a list of objects calls itself.
    pub fn list_kind(&self) -> Name {
        match &self.custom {
            Some(custom) => Cow::Owned(custom.definition().list_kind.clone()),
            None => Cow::Owned(format!("{}List", self.kind)),
        }
    }

    /// What can be asked of it, as discovery lists it. One that is on its way out takes nothing new.
    pub fn verbs(&self) -> &'static [&'static str] {
        match &self.custom {
            Some(custom) if custom.definition().is_ending => {
                &["delete", "deletecollection", "get", "list", "watch"]
            }
            _ => self.served.verbs(),
        }
    }

    /// Whether it is the kind that stored objects are seen as where that can be one only: neither a spelling of another, nor one of several
    /// versions.
    pub fn stands_for_stored(&self) -> bool {
        self.served == Served::Stored
            && self.spelling.is_none()
            && self.custom.as_ref().is_none_or(Custom::is_primary)
    }

    /// The fields that are read out of every stored object, whichever version asks: those of the stored kind, or of all versions.
    pub fn looked_at(&self) -> &[Selectable] {
        match (&self.custom, &self.spelling) {
            (Some(custom), _) => custom.definition().selectable(),
            (None, Some(spelling)) => &spelling.of.selectable,
            (None, None) => &self.selectable,
        }
    }

    /// What tells the objects of this kind, in the state that its definition is in, from all others: their keys, and the state.
    pub fn cached_as(&self) -> String {
        let prefix = self.key_prefix();
        match &self.custom {
            Some(custom) => format!("{prefix}#{}", custom.definition().serial()),
            None => prefix,
        }
    }

    /// Whether the answer to a deletion is the object that is gone, and not a Status; as of each store of Kubernetes'.
    pub fn is_returned_deleted(&self) -> bool {
        match &*self.group {
            "" => matches!(
                &*self.kind,
                "PersistentVolume"
                    | "PersistentVolumeClaim"
                    | "Pod"
                    | "PodTemplate"
                    | "ResourceQuota"
                    | "Service"
                    | "ServiceAccount"
            ),
            "resource.k8s.io" => true,
            "storage.k8s.io" => &*self.kind != "CSIStorageCapacity",
            _ => false,
        }
    }

    /// Whether both are versions of one kind, or the same.
    pub fn is_version_of(&self, other: &Self) -> bool {
        self.resource == other.resource && self.group == other.group
    }

    /// Group, version and kind of what a subresource exchanges, as discovery lists it, when it is not its own.
    pub fn exchanged(&self, subresource: Subresource) -> Option<GroupVersionKind> {
        match subresource {
            Subresource::Proxy => {
                let options = format!("{}ProxyOptions", self.kind);
                Some(GroupVersionKind::new("", "v1", &options))
            }
            other => {
                let (group, version, kind) = other.own_kind()?;
                Some(GroupVersionKind::new(group, version, kind))
            }
        }
    }

    pub fn has(&self, subresource: Subresource) -> bool {
        self.subresources.contains(&subresource)
    }

    /// Start of every store key of this kind: `/core/pods/`.
    pub fn key_prefix(&self) -> String {
        let stored = self
            .spelling
            .as_ref()
            .map_or(self, |spelling| &*spelling.of);
        let group = if stored.group.is_empty() {
            CORE_IN_KEYS
        } else {
            &stored.group
        };
        format!("/{group}/{}/", stored.resource)
    }
}

/// Stands for the group without a name in store keys.
pub(crate) const CORE_IN_KEYS: &str = "core";

impl fmt::Debug for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}/{}/{}",
            self.group, self.version, self.resource
        )
    }
}

/// Kinds are equal by their names: a kind of the registry of before is the same kind.
impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.resource == other.resource
            && self.group == other.group
            && self.version == other.version
    }
}

impl Eq for Kind {}

/// In the order of their names.
impl Ord for Kind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.resource
            .cmp(&other.resource)
            .then_with(|| self.group.cmp(&other.group))
            .then_with(|| self.version.cmp(&other.version))
    }
}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A kind in whichever version, to find something by: objects of all versions are the same objects.
#[derive(Clone, Debug)]
pub struct AnyVersion(pub Arc<Kind>);

impl PartialEq for AnyVersion {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_version_of(&other.0)
    }
}

impl Eq for AnyVersion {}

/// In the order of their names.
impl Ord for AnyVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_resource = self.0.resource.cmp(&other.0.resource);
        by_resource.then_with(|| self.0.group.cmp(&other.0.group))
    }
}

impl PartialOrd for AnyVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What becomes of objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// They are stored.
    Stored,
    /// A question: created, answered, never stored.
    Review,
    /// Made when they are read, never stored.
    Computed,
    /// Numbers of objects of another kind, read by the object's name and the metric's.
    Measured,
    /// How things go now, never stored. It can be followed as well, but not as objects are watched, so that discovery has the list alone: clients
    /// that watch whatever they can would take its lines for objects.
    Watched,
    /// What happens, a line each while somebody looks, never stored.
    Streamed,
}

impl Served {
    /// Whether it is told while somebody looks.
    pub fn is_told(self) -> bool {
        matches!(self, Self::Watched | Self::Streamed)
    }

    /// What can be asked of such kinds, as discovery lists it.
    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Stored => &[
                "create",
                "delete",
                "deletecollection",
                "get",
                "list",
                "patch",
                "update",
                "watch",
            ],
            Self::Review => &["create"],
            Self::Computed => &["get", "list"],
            Self::Measured => &["get"],
            Self::Watched => &["list"],
            Self::Streamed => &["watch"],
        }
    }
}

/// What an object of a kind may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// Up to 253 characters with dots.
    Subdomain,
    /// Up to 63 characters without dots.
    Label,
    /// Anything that is one path segment.
    PathSegment,
    /// An address of the internet protocol, as there is one spelling of each.
    Address,
}

/// What a write of the status makes of the metadata in its body: of kinds whose strategy in Kubernetes is older than the rule that a status
/// is all that is written there, it is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusMetadata {
    Kept,
    /// All but these members.
    TakenBut(&'static [&'static str]),
}

impl StatusMetadata {
    pub(crate) const TAKEN: Self = Self::TakenBut(&[]);
}

/// A field that selectors may name.
#[derive(Clone)]
pub struct Selectable {
    pub field: Name,
    /// JSON pointer into the stored object.
    pub pointer: Name,
    /// JSON pointer to what counts where there is nothing at the first one.
    pub instead: Option<Name>,
    /// What an absent field counts as.
    pub absent: Name,
}

impl Selectable {
    pub(crate) fn new(field: &'static str, pointer: &'static str) -> Self {
        Self::or(field, pointer, "")
    }

    pub(crate) fn or(field: &'static str, pointer: &'static str, absent: &'static str) -> Self {
        Self {
            field: field.into(),
            pointer: pointer.into(),
            instead: None,
            absent: absent.into(),
        }
    }
}

/// Another spelling of a stored kind.
pub struct Spelling {
    pub of: Arc<Kind>,
    /// Stored form to this spelling.
    pub read: fn(&mut Value),
    /// This spelling to the stored form.
    pub write: fn(&mut Value),
}

/// A path below an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subresource {
    Status,
    Scale,
    Binding,
    Eviction,
    Log,
    Finalize,
    Proxy,
    Approval,
    /// A token of a ServiceAccount, made when it is asked for.
    Token,
    /// What is kept under an object's name beside the object: the keys and values of a store.
    Data,
    /// A command in a container: a connection that becomes streams, as the next two.
    Exec,
    /// The streams of what runs in a container already.
    Attach,
    /// Ports of a pod.
    PortForward,
    /// Containers that are added to a pod that runs, to look around.
    EphemeralContainers,
    /// What the containers of a pod that runs may use.
    Resize,
}

impl Subresource {
    pub fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Scale => "scale",
            Self::Binding => "binding",
            Self::Eviction => "eviction",
            Self::Log => "log",
            Self::Finalize => "finalize",
            Self::Proxy => "proxy",
            Self::Approval => "approval",
            Self::Token => "token",
            Self::Data => "data",
            Self::Exec => "exec",
            Self::Attach => "attach",
            Self::PortForward => "portforward",
            Self::EphemeralContainers => "ephemeralcontainers",
            Self::Resize => "resize",
        }
    }

    pub fn verbs(self) -> &'static [&'static str] {
        match self {
            Self::Status
            | Self::Scale
            | Self::Approval
            | Self::EphemeralContainers
            | Self::Resize => &["get", "patch", "update"],
            Self::Binding | Self::Eviction | Self::Token | Self::Data => &["create"],
            Self::Log => &["get"],
            Self::Exec | Self::Attach | Self::PortForward => &["create", "get"],
            Self::Finalize => &["update"],
            Self::Proxy => &["create", "delete", "get", "patch", "update"],
        }
    }

    /// Whether a connection becomes something else by it.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Exec | Self::Attach | Self::PortForward)
    }

    /// Group, version and kind of what the subresource exchanges, when it is not its parent's.
    pub fn own_kind(self) -> Option<(&'static str, &'static str, &'static str)> {
        match self {
            Self::Scale => Some(("autoscaling", "v1", "Scale")),
            Self::Binding => Some(("", "v1", "Binding")),
            Self::Eviction => Some(("policy", "v1", "Eviction")),
            Self::Token => Some(("authentication.k8s.io", "v1", "TokenRequest")),
            Self::Exec => Some(("", "v1", "PodExecOptions")),
            Self::Attach => Some(("", "v1", "PodAttachOptions")),
            Self::PortForward => Some(("", "v1", "PodPortForwardOptions")),
            Self::Status
            | Self::Log
            | Self::Finalize
            | Self::Proxy
            | Self::Approval
            | Self::EphemeralContainers
            | Self::Resize
            | Self::Data => None,
        }
    }
}
