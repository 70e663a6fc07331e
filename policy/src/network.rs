//! NetworkPolicies: which pods are isolated, and with whom they speak all the same.
//!
//! A pod that some policy of its namespace selects is isolated in the directions that the policy is about; then it speaks with those that one
//! of the policies names, and with nobody else. Policies add to each other, and their order means nothing. A connection needs both: that its
//! caller may speak out, and that its callee may be spoken to. Answers need nothing.
//!
//! Invariants: a pod always reaches itself; what is not known of the other side, it is not; ports are those of the pod that is called, whatever
//! Service led there.
//! Left to others: that a node reaches the pods that it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use weft_api::selector::LabelSelector;

use crate::policies::PolicyName;
use crate::spec::or_default;

/// What ports are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }
}

/// A port that a container has given a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// A pod, as far as policies look at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub ports: Vec<NamedPort>,
    /// It is on its node's network, which no policy is about.
    pub on_host: bool,
}

/// One side of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct End<'a> {
    pub ip: Option<IpAddr>,
    /// None for what is no pod, or of which that is not known.
    pub pod: Option<&'a Pod>,
}

/// A connection, or datagrams, at the port of a pod.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'a> {
    pub from: End<'a>,
    pub to: End<'a>,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// Who is not spoken with, and because of which pod's isolation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Isolated {
    pub direction: Direction,
    /// One of the policies that isolate the pod.
    pub policy: PolicyName,
}

impl fmt::Display for Isolated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = &self.policy;
        match self.direction {
            Direction::Ingress => write!(f, "{policy} isolates the pod that is called"),
            Direction::Egress => write!(f, "{policy} isolates the pod that calls"),
        }
    }
}

/// A NetworkPolicy, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    pub name: PolicyName,
    pods: LabelSelector,
    /// None where it is not about that direction.
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

/// Ports and others, of each of which one has to be meant; all of them where there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    ports: Vec<PortRule>,
    others: Vec<Other>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PortRule {
    protocol: Protocol,
    port: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Ports {
    Any,
    /// From and to.
    Numbers(u16, u16),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Other {
    Block {
        range: IpNet,
        except: Vec<IpNet>,
    },
    Pods {
        /// None for those of the policy's own namespace.
        namespaces: Option<LabelSelector>,
        pods: LabelSelector,
    },
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    pod_selector: Value,
    #[serde(deserialize_with = "or_default")]
    policy_types: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    ingress: Vec<RuleSpec>,
    #[serde(deserialize_with = "or_default")]
    egress: Vec<RuleSpec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RuleSpec {
    #[serde(deserialize_with = "or_default")]
    ports: Vec<PortSpec>,
    #[serde(alias = "to", deserialize_with = "or_default")]
    from: Vec<OtherSpec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortSpec {
    protocol: Option<String>,
    port: Option<Value>,
    end_port: Option<u16>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OtherSpec {
    pod_selector: Option<Value>,
    namespace_selector: Option<Value>,
    ip_block: Option<Block>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Block {
    cidr: String,
    #[serde(deserialize_with = "or_default")]
    except: Vec<String>,
}

impl NetworkPolicy {
    /// What is not understood of a rule is met by nobody.
    ///
    /// # Errors
    /// When a field has another type than in the API.
    pub(crate) fn read(name: PolicyName, spec: &Value) -> Result<Self, serde_json::Error> {
        let spec: Option<Spec> = serde_json::from_value(spec.clone())?;
        let spec = spec.unwrap_or_default();
        let is_about = |direction: &str, is_usual: bool| match spec.policy_types.is_empty() {
            true => is_usual,
            false => spec.policy_types.iter().any(|one| one == direction),
        };
        let rules = |rules: &[RuleSpec]| rules.iter().map(Rule::of).collect::<Vec<_>>();
        let pods = match spec.pod_selector.is_null() {
            true => LabelSelector::everything(),
            false => selector(&spec.pod_selector),
        };
        Ok(Self {
            ingress: is_about("Ingress", true).then(|| rules(&spec.ingress)),
            egress: is_about("Egress", !spec.egress.is_empty()).then(|| rules(&spec.egress)),
            pods,
            name,
        })
    }

    fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    pub(crate) fn selects(&self, pod: &Pod) -> bool {
        pod.namespace == self.name.namespace && self.pods.matches(&pod.labels)
    }
}

/// What is no selector selects nothing.
fn selector(value: &Value) -> LabelSelector {
    LabelSelector::from_object(value).unwrap_or_else(|_| LabelSelector::nothing())
}

impl Rule {
    fn of(spec: &RuleSpec) -> Self {
        let ports = spec.ports.iter().filter_map(PortRule::of);
        let others = spec.from.iter().filter_map(Other::of);
        let (ports, others): (Vec<_>, Vec<_>) = (ports.collect(), others.collect());
        // Left out, they must not come to mean everything.
        let is_met = (spec.ports.is_empty() || !ports.is_empty())
            && (spec.from.is_empty() || !others.is_empty());
        match is_met {
            true => Self { ports, others },
            false => Self {
                ports,
                others: vec![Other::Pods {
                    namespaces: Some(LabelSelector::nothing()),
                    pods: LabelSelector::nothing(),
                }],
            },
        }
    }

    fn meets(
        &self,
        flow: &Flow<'_>,
        other: &End<'_>,
        own: &str,
        namespaces: &dyn Namespaces,
    ) -> bool {
        let port = self.ports.is_empty() || self.ports.iter().any(|port| port.meets(flow));
        port && (self.others.is_empty()
            || self
                .others
                .iter()
                .any(|one| one.meets(other, own, namespaces)))
    }
}

impl PortRule {
    fn of(spec: &PortSpec) -> Option<Self> {
        let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
        let port = match &spec.port {
            None | Some(Value::Null) => Ports::Any,
            Some(Value::String(name)) => Ports::Name(name.clone()),
            Some(value) => {
                let first = number(value)?;
                Ports::Numbers(first, spec.end_port.unwrap_or(first))
            }
        };
        Some(Self {
            protocol: Protocol::parse(spec.protocol.as_deref())?,
            port,
        })
    }

    fn meets(&self, flow: &Flow<'_>) -> bool {
        if self.protocol != flow.protocol {
            return false;
        }
        match &self.port {
            Ports::Any => true,
            Ports::Numbers(first, last) => (*first..=*last).contains(&flow.port),
            Ports::Name(name) => flow.to.pod.is_some_and(|pod| {
                let mut ports = pod.ports.iter();
                ports.any(|port| {
                    port.name == *name && port.protocol == flow.protocol && port.port == flow.port
                })
            }),
        }
    }
}

impl Other {
    fn of(spec: &OtherSpec) -> Option<Self> {
        if let Some(block) = &spec.ip_block {
            let except = block.except.iter().map(|range| range.parse());
            return Some(Self::Block {
                range: block.cidr.parse().ok()?,
                // An exception that is not understood could be the one that counts.
                except: except.collect::<Result<_, _>>().ok()?,
            });
        }
        let given = |value: &Option<Value>| {
            value
                .as_ref()
                .filter(|value| !value.is_null())
                .map(selector)
        };
        let (pods, namespaces) = (given(&spec.pod_selector), given(&spec.namespace_selector));
        if pods.is_none() && namespaces.is_none() {
            return None;
        }
        Some(Self::Pods {
            namespaces,
            pods: pods.unwrap_or_else(LabelSelector::everything),
        })
    }

    fn meets(&self, other: &End<'_>, own: &str, known: &dyn Namespaces) -> bool {
        match self {
            Self::Block { range, except } => other.ip.is_some_and(|ip| {
                let ip = ip.to_canonical();
                range.contains(&ip) && !except.iter().any(|range| range.contains(&ip))
            }),
            Self::Pods { namespaces, pods } => other.pod.is_some_and(|pod| {
                let is_there = match namespaces {
                    None => pod.namespace == own,
                    Some(selector) => known.matches(&pod.namespace, selector),
                };
                is_there && !pod.on_host && pods.matches(&pod.labels)
            }),
        }
    }
}

/// Labels of namespaces.
pub(crate) trait Namespaces {
    fn matches(&self, namespace: &str, selector: &LabelSelector) -> bool;
}

/// Says what `policies`, all of the namespace of the pod on this side, make of a flow. Their cost is that of the policies that select the pod.
///
/// # Errors
/// One that isolates the pod, where none lets the other side through.
pub(crate) fn judge(
    policies: &[Arc<NetworkPolicy>],
    direction: Direction,
    flow: &Flow<'_>,
    namespaces: &dyn Namespaces,
) -> Result<(), Isolated> {
    let (here, there) = match direction {
        Direction::Ingress => (&flow.to, &flow.from),
        Direction::Egress => (&flow.from, &flow.to),
    };
    let Some(pod) = here.pod.filter(|pod| !pod.on_host) else {
        return Ok(());
    };
    if here.ip.is_some() && here.ip == there.ip {
        return Ok(());
    }
    let mut isolated = None;
    for policy in policies {
        let Some(rules) = policy.rules(direction).filter(|_| policy.selects(pod)) else {
            continue;
        };
        let mut rules = rules.iter();
        if rules.any(|rule| rule.meets(flow, there, &pod.namespace, namespaces)) {
            return Ok(());
        }
        isolated.get_or_insert(policy);
    }
    match isolated {
        None => Ok(()),
        Some(policy) => Err(Isolated {
            direction,
            policy: policy.name.clone(),
        }),
    }
}
