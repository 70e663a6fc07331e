//! Who may call whom: what AuthorizationPolicies, RequestAuthentications, PeerAuthentications and NetworkPolicies say of a call, decided.
//!
//! [`Policies`] holds all of them, each read once when it changes; [`Policies::guard`] is what of them concerns one pod, and a [`Guard`]
//! judges calls to it. What a call is, its [`Attributes`], is handed in by whoever has it.
//!
//! ```text
//! objects ─► spec.rs ─► rule.rs (pattern.rs): one rule, in two forms: of requests, and of connections that are no HTTP
//!                       authorization.rs: DENY over ALLOW over nothing said; AUDIT beside them      token.rs: what a token has to be
//!                       network.rs: which pods are isolated, and whom they speak with all the same
//!          policies.rs: all of it, and what concerns a pod ─► guard.rs ─► verdicts with their reasons
//! ```
//! Invariants: equal objects give equal verdicts, in whatever order they came; each verdict names the policy and the rule that it rests on; a
//! policy that cannot be understood whole never lets in more than it would have otherwise: of an ALLOW the rule is left out, of a DENY the
//! part that is not understood is.
//! Left to others: finding out what a call is, keys and signatures of tokens (`weft_mesh`), statuses (`weft_controllers`).
//!
//! Source of the semantics: `istio.io/api` `security/v1beta1`, `istio.io/istio` `pilot/pkg/security`, and NetworkPolicy's own documentation.

mod attributes;
mod authorization;
mod guard;
mod network;
mod pattern;
mod policies;
mod rule;
mod spec;
mod token;

pub use attributes::{Attributes, Principal, Request};
pub use authorization::{Action, Authorization, Because, Matched, Verdict};
pub use guard::Guard;
pub use network::{Direction, End, Flow, Isolated, NamedPort, NetworkPolicy, Pod, Protocol};
pub use policies::{Object, Policies, PolicyKind, PolicyName, ROOT_NAMESPACES, faults};
pub use spec::{Target, peer_authentication_faults};
pub use token::{Claims, HeaderPlace, Issuer, TOKEN_BYTES_MAX, Taken, TokenFault};
