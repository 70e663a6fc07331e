//! Credentials that pods bring along: Secrets of type `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`.
//!
//! A credential is for a registry, or for a part of its repositories, as a kubelet matches them: `*.example.com` (`*` and `?` stand
//! within one label), `example.com:5000/team`, `https://index.docker.io/v1/`. Longer names are tried first.
//!
//! Invariants: pure; a credential is given out for the registries that it names and for no other; none is ever shown.

use base64::Engine as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// Credentials that are tried for one image.
const CREDENTIALS_MAX: usize = 8;
/// Entries that are looked at, of all Secrets of a pod.
const ENTRIES_MAX: usize = 256;
/// What Docker Hub is called in images, in Docker's own files and on the wire.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// What a registry is shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credential {
    pub(super) username: String,
    pub(super) password: String,
    /// An OAuth2 refresh token, exchanged at the registry's token service.
    pub(super) identity_token: String,
    /// A bearer token that is sent as it is.
    pub(super) registry_token: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential of {:?}", self.username)
    }
}

impl Credential {
    /// Stands for the credential where it must not be told: in keys of what was had with it.
    pub(super) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        for part in [
            &self.username,
            &self.password,
            &self.identity_token,
            &self.registry_token,
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        format!("{:x}", hash.finalize())
    }

    /// `USER:PASSWORD` in base64, as Docker's files and k3s' have it.
    pub(super) fn of_basic(text: &str) -> Option<Self> {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text.trim().trim_end_matches('\0'))
            .ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let (username, password) = text.split_once(':')?;
        Some(Self {
            username: username.to_owned(),
            password: password.trim_end_matches('\0').to_owned(),
            ..Self::default()
        })
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An entry of Docker's configuration.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// Which repositories a credential is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    /// Labels of the host, of which each may have `*` and `?`.
    labels: Vec<String>,
    port: Option<String>,
    /// Parts of the repository's name that it begins with.
    path: Vec<String>,
}

impl Scope {
    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .unwrap_or(text);
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        // The API's version is no part of a repository's name.
        let path = match path.split_once('/').unwrap_or((path, "")) {
            ("v1" | "v2", rest) => rest,
            _ => path,
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.to_owned())),
            None => (authority, None),
        };
        if host.is_empty() {
            return None;
        }
        let host = host.to_ascii_lowercase();
        let host = if DOCKER_HUB.contains(&host.as_str()) {
            DOCKER_HUB[0].to_owned()
        } else {
            host
        };
        Some(Self {
            labels: host.split('.').map(str::to_owned).collect(),
            port,
            path: path
                .split('/')
                .filter(|part| !part.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    }

    fn covers(&self, target: &Self) -> bool {
        let labels = self.labels.iter().zip(&target.labels);
        self.labels.len() == target.labels.len()
            && self.port == target.port
            && target.path.starts_with(&self.path)
            && labels
                .into_iter()
                .all(|(pattern, label)| glob(pattern.as_bytes(), label.as_bytes()))
    }
}

/// Whether `text` is what `pattern` says, of which `*` is any run of bytes and `?` any one.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where the last `*` was, and how much it took: only that one ever has to take more.
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[read] => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((back, taken)) => {
                    star = Some((back, taken + 1));
                    at = back + 1;
                    read = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// The credentials of a pod.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    entries: Vec<(Scope, Credential)>,
}

impl Keyring {
    /// Takes in the credentials of a Secret.
    ///
    /// # Errors
    /// Why it has none, as the end of a sentence that begins with the Secret: it is of another type, lacks its key, or is malformed.
    pub fn add<'a>(
        &mut self,
        type_: &str,
        data: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<(), String> {
        let key = match type_ {
            "kubernetes.io/dockerconfigjson" => ".dockerconfigjson",
            "kubernetes.io/dockercfg" => ".dockercfg",
            other => {
                return Err(format!(
                    "is of type {other:?}; it must be kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg"
                ));
            }
        };
        let content = data(key).ok_or_else(|| format!("has no {key}"))?;
        // What is wrong with it is not told: the message would hold a piece of it.
        let malformed = |_| format!("has a malformed {key}");
        let auths = if key == ".dockercfg" {
            serde_json::from_slice(content).map_err(malformed)?
        } else {
            let config: DockerConfig = serde_json::from_slice(content).map_err(malformed)?;
            config.auths
        };
        for (name, entry) in auths {
            let Some(scope) = Scope::read(&name) else {
                continue;
            };
            let of_auth = entry.auth.as_deref().and_then(Credential::of_basic);
            let mut credential = of_auth.unwrap_or_default();
            if let Some(username) = entry.username.filter(|username| !username.is_empty()) {
                credential.username = username;
            }
            if let Some(password) = entry.password.filter(|password| !password.is_empty()) {
                credential.password = password;
            }
            credential.identity_token = entry.identitytoken.unwrap_or_default();
            credential.registry_token = entry.registrytoken.unwrap_or_default();
            if !credential.is_empty() && self.entries.len() < ENTRIES_MAX {
                self.entries.push((scope, credential));
            }
        }
        // As long names say more, they are tried first; the order of Secrets decides between equals.
        let length = |scope: &Scope| (scope.path.len(), scope.labels.len());
        self.entries
            .sort_by_key(|(scope, _)| std::cmp::Reverse(length(scope)));
        Ok(())
    }

    /// What to show the registry `host` for `repository`, in the order to try it in.
    pub(super) fn matching(&self, host: &str, repository: &str) -> Vec<Credential> {
        let Some(target) = Scope::read(&format!("{host}/")) else {
            return Vec::new();
        };
        let target = Scope {
            path: repository.split('/').map(str::to_owned).collect(),
            ..target
        };
        let mut found: Vec<Credential> = Vec::new();
        for (scope, credential) in &self.entries {
            if found.len() < CREDENTIALS_MAX && scope.covers(&target) && !found.contains(credential)
            {
                found.push(credential.clone());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn keyring(auths: &serde_json::Value) -> Keyring {
        let mut keyring = Keyring::default();
        let content = json!({"auths": auths}).to_string();
        keyring
            .add("kubernetes.io/dockerconfigjson", |key| {
                (key == ".dockerconfigjson").then_some(content.as_bytes())
            })
            .expect("a sound Secret");
        keyring
    }

    fn users(keyring: &Keyring, host: &str, repository: &str) -> Vec<String> {
        let found = keyring.matching(host, repository);
        found.into_iter().map(|found| found.username).collect()
    }

    #[test]
    fn a_credential_is_for_the_registry_that_it_names() {
        let of = |name: &str| json!({"username": name, "password": "p"});
        let keyring = keyring(&json!({
            "ghcr.io": of("all"),
            "ghcr.io/team": of("team"),
            "https://r.example:5000/v2/": of("port"),
            "*.azurecr.io": of("glob"),
            "https://index.docker.io/v1/": of("hub"),
        }));
        for (host, repository, expected) in [
            ("ghcr.io", "team/web", vec!["team", "all"]),
            // A part of a name is not a part of a word.
            ("ghcr.io", "teammate/web", vec!["all"]),
            ("GHCR.io", "x", vec!["all"]),
            ("ghcr.io:443", "x", vec![]),
            ("ghcr.io.evil.example", "team/web", vec![]),
            ("r.example:5000", "x", vec!["port"]),
            ("r.example", "x", vec![]),
            ("us.azurecr.io", "x", vec!["glob"]),
            ("a.us.azurecr.io", "x", vec![]),
            ("azurecr.io", "x", vec![]),
            ("docker.io", "library/x", vec!["hub"]),
            ("registry-1.docker.io", "library/x", vec!["hub"]),
        ] {
            assert_eq!(
                users(&keyring, host, repository),
                expected,
                "{host}/{repository}"
            );
        }
    }

    #[test]
    fn every_form_of_an_entry_is_read() {
        // "ann:p:w" in base64.
        let keyring = keyring(&json!({
            "a.example": {"auth": "YW5uOnA6dw=="},
            "b.example": {"auth": "YW5uOnA6dw==", "identitytoken": "refresh"},
            "c.example": {"registrytoken": "bearer"},
            "d.example": {},
            "e.example": {"auth": "no base64!"},
        }));
        let of = |host: &str| keyring.matching(host, "x").pop();
        let ann = Credential {
            username: "ann".into(),
            password: "p:w".into(),
            ..Credential::default()
        };
        assert_eq!(of("a.example"), Some(ann.clone()));
        let with_token = Credential {
            identity_token: "refresh".into(),
            ..ann
        };
        assert_eq!(of("b.example"), Some(with_token));
        let bearer = Credential {
            registry_token: "bearer".into(),
            ..Credential::default()
        };
        assert_eq!(of("c.example"), Some(bearer));
        assert_eq!(of("d.example"), None);
        assert_eq!(of("e.example"), None);

        let mut old = Keyring::default();
        let content = br#"{"f.example": {"username": "old", "password": "p", "email": "e"}}"#;
        let added = old.add("kubernetes.io/dockercfg", |key| {
            (key == ".dockercfg").then_some(content.as_slice())
        });
        assert_eq!(added, Ok(()));
        assert_eq!(users(&old, "f.example", "x"), ["old"]);
    }

    #[test]
    fn what_is_no_pull_secret_says_why_and_shows_nothing() {
        let add = |type_: &str, content: Option<&'static [u8]>| {
            Keyring::default().add(type_, |_| content).unwrap_err()
        };
        assert_eq!(
            add("Opaque", None),
            "is of type \"Opaque\"; it must be kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg"
        );
        let json = "kubernetes.io/dockerconfigjson";
        assert_eq!(add(json, None), "has no .dockerconfigjson");
        let secret = br#"{"auths": {"a": {"auth": 5, "password": "hunter2"}}}"#;
        assert_eq!(add(json, Some(secret)), "has a malformed .dockerconfigjson");
        let credential = Credential {
            username: "ann".into(),
            password: "hunter2".into(),
            ..Credential::default()
        };
        assert_eq!(format!("{credential:?}"), "Credential of \"ann\"");
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        /// Judged by the plain recursive definition.
        #[test]
        fn patterns_match_as_defined(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn plain(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.first(), text.first()) {
                    (None, None) => true,
                    (Some(b'*'), _) => {
                        plain(&pattern[1..], text) || (!text.is_empty() && plain(pattern, &text[1..]))
                    }
                    (Some(b'?'), Some(_)) => plain(&pattern[1..], &text[1..]),
                    (Some(a), Some(b)) if a == b => plain(&pattern[1..], &text[1..]),
                    _ => false,
                }
            }
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(glob(pattern, text), plain(pattern, text));
        }
    }
}
