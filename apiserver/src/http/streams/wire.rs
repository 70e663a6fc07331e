//! What a connection is asked to become, by the head of its request: which of the ways in which clients of Kubernetes carry several streams.
//!
//! | asked by | way | since kubectl |
//! | --- | --- | --- |
//! | `Upgrade: websocket`, a protocol with `v5` | channels in messages, with an end for each | 1.30 |
//! | the same with `v4`, without a version, in base64 or without a protocol | channels in messages | browsers, libraries |
//! | `Upgrade: SPDY/3.1` | [`crate::spdy`], for exec in one of four versions | ever |
//! | `Upgrade: websocket`, `SPDY/3.1+portforward.k8s.io` | the same inside of messages | 1.31 |
//!
//! Pure; refusals are Kubernetes' sentences.

use http::{HeaderMap, HeaderName, header};
use weft_api::status::StatusError;

use crate::authn::WEBSOCKET_TOKEN;

pub(super) const PROTOCOL_VERSION: HeaderName =
    HeaderName::from_static("x-stream-protocol-version");
pub(super) const ACCEPTED_VERSIONS: HeaderName =
    HeaderName::from_static("x-accepted-stream-protocol-versions");
const TUNNEL_PREFIX: &str = "SPDY/3.1+";
const TUNNEL_SUFFIX: &str = ".k8s.io";
const PORT_FORWARD: &str = "portforward.k8s.io";

/// How the end of a command is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// As text where it failed; input and errors end before they begin.
    V1,
    /// As text where it failed.
    V2,
    /// With sizes of a terminal.
    V3,
    /// As a Status.
    V4,
    /// With an end of each channel.
    V5,
}

impl Version {
    pub(super) fn has_sizes(self) -> bool {
        self >= Self::V3
    }

    pub(super) fn has_status(self) -> bool {
        self >= Self::V4
    }
}

/// A way to carry streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// Messages of a WebSocket, each of one channel; `protocol` is what was agreed on.
    Channels {
        protocol: Option<String>,
        is_base64: bool,
        version: Version,
    },
    /// `protocol` is what was agreed on; none of a version where ports are forwarded.
    Spdy {
        protocol: &'static str,
        version: Version,
    },
    /// SPDY inside of messages.
    Tunnel { protocol: String },
}

/// Why a connection becomes nothing, and what its client could have asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: StatusError,
    pub accepted: &'static [&'static str],
}

impl From<StatusError> for Refusal {
    fn from(status: StatusError) -> Self {
        let accepted = &[];
        Self { status, accepted }
    }
}

const COMMAND_VERSIONS: &[&str] = &[
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
];

impl Wire {
    /// For a command, or a look at one.
    pub(super) fn of_command(headers: &HeaderMap) -> Result<Self, Refusal> {
        if !asks_to_upgrade(headers) {
            return Err(not_asked());
        }
        if is_websocket(headers) {
            let offered = subprotocols(headers);
            if offered.contains(&"v5.channel.k8s.io") {
                return Ok(Self::Channels {
                    protocol: Some("v5.channel.k8s.io".to_owned()),
                    is_base64: false,
                    version: Version::V5,
                });
            }
            let known = [
                "v4.channel.k8s.io",
                "v4.base64.channel.k8s.io",
                "channel.k8s.io",
                "base64.channel.k8s.io",
            ];
            return channels(&offered, &known);
        }
        let protocol = versions(headers, COMMAND_VERSIONS)?;
        is_spdy(headers)?;
        let version = match protocol {
            "v4.channel.k8s.io" => Version::V4,
            "v3.channel.k8s.io" => Version::V3,
            "v2.channel.k8s.io" => Version::V2,
            _ => Version::V1,
        };
        Ok(Self::Spdy { protocol, version })
    }

    /// For ports.
    pub(super) fn of_ports(headers: &HeaderMap) -> Result<Self, Refusal> {
        if !asks_to_upgrade(headers) {
            return Err(not_asked());
        }
        if is_websocket(headers) {
            let offered = subprotocols(headers);
            let tunnels = offered.iter().filter_map(|protocol| {
                let inner = protocol.strip_prefix(TUNNEL_PREFIX)?;
                inner.ends_with(TUNNEL_SUFFIX).then_some((*protocol, inner))
            });
            let tunnels: Vec<(&str, &str)> = tunnels.collect();
            if let Some((protocol, _)) = tunnels.iter().find(|(_, inner)| *inner == PORT_FORWARD) {
                let protocol = (*protocol).to_owned();
                return Ok(Self::Tunnel { protocol });
            }
            if !tunnels.is_empty() {
                let inner: Vec<&str> = tunnels.iter().map(|(_, inner)| *inner).collect();
                return Err(no_agreement(&inner, &[PORT_FORWARD]));
            }
            return channels(&offered, &["v4.channel.k8s.io", "v4.base64.channel.k8s.io"]);
        }
        let protocol = versions(headers, &[PORT_FORWARD])?;
        is_spdy(headers)?;
        Ok(Self::Spdy {
            protocol,
            version: Version::V4,
        })
    }
}

fn not_asked() -> Refusal {
    StatusError::bad_request("Upgrade request required").into()
}

/// As Kubernetes finds out: a word that contains it is enough.
fn asks_to_upgrade(headers: &HeaderMap) -> bool {
    contains(headers, &header::CONNECTION, "upgrade")
}

fn contains(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let mut values = headers.get_all(name).iter();
    values.any(|value| {
        let value = value.to_str().unwrap_or_default();
        value.to_ascii_lowercase().contains(word)
    })
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let protocol = headers.get(header::UPGRADE);
    protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

fn is_spdy(headers: &HeaderMap) -> Result<(), Refusal> {
    if contains(headers, &header::UPGRADE, "spdy/3.1") {
        return Ok(());
    }
    Err(StatusError::bad_request("unable to upgrade: missing upgrade headers in request").into())
}

fn words<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter();
    let words = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    words.map(str::trim).filter(|word| !word.is_empty())
}

/// The protocols that are offered, without a token that stands among them.
fn subprotocols(headers: &HeaderMap) -> Vec<&str> {
    let words = words(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    words
        .filter(|word| !word.starts_with(WEBSOCKET_TOKEN))
        .collect()
}

/// The first of what is offered that is known; nothing is known, too.
fn channels(offered: &[&str], known: &[&'static str]) -> Result<Wire, Refusal> {
    if offered.is_empty() {
        return Ok(Wire::Channels {
            protocol: None,
            is_base64: false,
            version: Version::V1,
        });
    }
    let Some(protocol) = offered.iter().find(|protocol| known.contains(*protocol)) else {
        let status = StatusError::forbidden_message(format!(
            "requested protocol(s) are not supported: [{}]; supports [{}]",
            offered.join(" "),
            known.join(" ")
        ));
        return Err(status.into());
    };
    Ok(Wire::Channels {
        protocol: Some((*protocol).to_owned()),
        is_base64: protocol.contains("base64."),
        version: match protocol.starts_with("v4.") {
            true => Version::V4,
            false => Version::V1,
        },
    })
}

/// The first of the versions that a client of SPDY offers that is known.
fn versions(headers: &HeaderMap, known: &'static [&'static str]) -> Result<&'static str, Refusal> {
    let offered: Vec<&str> = words(headers, &PROTOCOL_VERSION).collect();
    if offered.is_empty() {
        let told = match headers.contains_key(&PROTOCOL_VERSION) {
            true => "unable to upgrade: header X-Stream-Protocol-Version has no valid protocols"
                .to_owned(),
            false => format!(
                "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {} headers",
                headers.len()
            ),
        };
        return Err(StatusError::bad_request(told).into());
    }
    let agreed = offered.iter().find_map(|offered| {
        let mut known = known.iter();
        known.find(|known| *known == offered)
    });
    agreed.copied().ok_or_else(|| no_agreement(&offered, known))
}

fn no_agreement(offered: &[&str], accepted: &'static [&'static str]) -> Refusal {
    let told = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
        offered.join(" "),
        accepted.join(" ")
    );
    Refusal {
        status: StatusError::forbidden_message(told),
        accepted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(upgrade: &str, protocols: &[(&HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, "keep-alive, Upgrade".parse().unwrap());
        headers.insert(header::UPGRADE, upgrade.parse().unwrap());
        for (name, value) in protocols {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn told(wire: Result<Wire, Refusal>) -> String {
        match wire {
            Ok(Wire::Channels {
                protocol,
                is_base64,
                version,
            }) => {
                format!(
                    "channels {} {version:?}{}",
                    protocol.as_deref().unwrap_or("-"),
                    if is_base64 { " base64" } else { "" }
                )
            }
            Ok(Wire::Spdy { protocol, version }) => format!("spdy {protocol} {version:?}"),
            Ok(Wire::Tunnel { protocol }) => format!("tunnel {protocol}"),
            Err(refusal) => format!(
                "{} {} {:?}",
                refusal.status.code, refusal.status.message, refusal.accepted
            ),
        }
    }

    #[test]
    fn what_clients_ask_for_a_command() {
        let token = format!("{WEBSOCKET_TOKEN}dG9r");
        let socket = &header::SEC_WEBSOCKET_PROTOCOL;
        for (upgrade, offered, expected) in [
            (
                "websocket",
                vec![(socket, "v5.channel.k8s.io")],
                "channels v5.channel.k8s.io V5",
            ),
            // The Python client.
            (
                "WebSocket",
                vec![(socket, "v4.channel.k8s.io,v5.channel.k8s.io")],
                "channels v5.channel.k8s.io V5",
            ),
            (
                "websocket",
                vec![(socket, "x, v4.channel.k8s.io")],
                "channels v4.channel.k8s.io V4",
            ),
            (
                "websocket",
                vec![(socket, "v4.base64.channel.k8s.io")],
                "channels v4.base64.channel.k8s.io V4 base64",
            ),
            (
                "websocket",
                vec![(socket, "base64.channel.k8s.io")],
                "channels base64.channel.k8s.io V1 base64",
            ),
            (
                "websocket",
                vec![(socket, "channel.k8s.io")],
                "channels channel.k8s.io V1",
            ),
            ("websocket", vec![], "channels - V1"),
            ("websocket", vec![(socket, token.as_str())], "channels - V1"),
            (
                "websocket",
                vec![(socket, "v3.channel.k8s.io")],
                "403 requested protocol(s) are not supported: [v3.channel.k8s.io]; supports [v4.channel.k8s.io v4.base64.channel.k8s.io channel.k8s.io base64.channel.k8s.io] []",
            ),
            // kubectl 1.20, and 1.29 which knows a fifth.
            (
                "SPDY/3.1",
                vec![
                    (&PROTOCOL_VERSION, "v4.channel.k8s.io"),
                    (&PROTOCOL_VERSION, "v3.channel.k8s.io"),
                ],
                "spdy v4.channel.k8s.io V4",
            ),
            (
                "SPDY/3.1",
                vec![(&PROTOCOL_VERSION, "v5.channel.k8s.io, v4.channel.k8s.io")],
                "spdy v4.channel.k8s.io V4",
            ),
            (
                "SPDY/3.1",
                vec![(&PROTOCOL_VERSION, "v2.channel.k8s.io")],
                "spdy v2.channel.k8s.io V2",
            ),
            (
                "SPDY/3.1",
                vec![(&PROTOCOL_VERSION, "channel.k8s.io")],
                "spdy channel.k8s.io V1",
            ),
            (
                "SPDY/3.1",
                vec![(&PROTOCOL_VERSION, "v9")],
                "403 unable to upgrade: unable to negotiate protocol: client supports [v9], server accepts [v4.channel.k8s.io v3.channel.k8s.io v2.channel.k8s.io channel.k8s.io] [\"v4.channel.k8s.io\", \"v3.channel.k8s.io\", \"v2.channel.k8s.io\", \"channel.k8s.io\"]",
            ),
            (
                "SPDY/3.1",
                vec![],
                "400 unable to upgrade: header X-Stream-Protocol-Version does not exist in request with 2 headers []",
            ),
            (
                "h2c",
                vec![(&PROTOCOL_VERSION, "v4.channel.k8s.io")],
                "400 unable to upgrade: missing upgrade headers in request []",
            ),
        ] {
            assert_eq!(
                told(Wire::of_command(&headers(upgrade, &offered))),
                expected
            );
        }
        assert_eq!(
            told(Wire::of_command(&HeaderMap::new())),
            "400 Upgrade request required []"
        );
    }

    #[test]
    fn what_clients_ask_for_ports() {
        let socket = &header::SEC_WEBSOCKET_PROTOCOL;
        for (upgrade, offered, expected) in [
            (
                "SPDY/3.1",
                vec![(&PROTOCOL_VERSION, "portforward.k8s.io")],
                "spdy portforward.k8s.io V4",
            ),
            (
                "websocket",
                vec![(socket, "SPDY/3.1+portforward.k8s.io")],
                "tunnel SPDY/3.1+portforward.k8s.io",
            ),
            (
                "websocket",
                vec![(socket, "SPDY/3.1+later.k8s.io")],
                "403 unable to upgrade: unable to negotiate protocol: client supports [later.k8s.io], server accepts [portforward.k8s.io] [\"portforward.k8s.io\"]",
            ),
            (
                "websocket",
                vec![(socket, "v4.channel.k8s.io")],
                "channels v4.channel.k8s.io V4",
            ),
            ("websocket", vec![], "channels - V1"),
        ] {
            assert_eq!(told(Wire::of_ports(&headers(upgrade, &offered))), expected);
        }
    }

    #[test]
    fn versions_say_what_they_have() {
        assert!(!Version::V2.has_sizes() && Version::V3.has_sizes());
        assert!(!Version::V3.has_status() && Version::V5.has_status());
    }
}
