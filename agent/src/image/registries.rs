//! What the node's owner says of registries: mirrors, credentials and certificates, in the format of k3s' `registries.yaml`.
//!
//! ```yaml
//! mirrors:
//!   ghcr.io:
//!     endpoint: ["https://mirror.example:5000"]   # tried in this order, then the registry itself
//!     rewrite: {"^team/(.*)": "cache/team/$1"}    # of the repository's name, at mirrors only
//!   "*": {endpoint: ["https://mirror.example"]}   # of every registry that has no mirrors of its own
//! configs:
//!   "mirror.example:5000":
//!     auth: {username: ann, password: secret}     # or auth (base64 of USER:PASSWORD), or identity_token
//!     tls: {ca_file: /etc/mirror.crt, cert_file: …, key_file: …, insecure_skip_verify: false}
//! ```
//!
//! An endpoint without a scheme is `https`, but `http` for localhost on a port of its own; one with a path is used as it stands, else
//! `/v2` follows. As in k3s, `configs` are for hosts, also those of endpoints.
//!
//! Invariants: what is wrong with the file, or with a file that it names, is told when it is read; plain HTTP and addresses that are
//! refused otherwise ([`super::egress`]) are for hosts named here and for no others; a mirror is never shown what pods bring for the
//! registry that it stands for.

use super::keyring::Credential;
use regex::Regex;
use reqwest::{Certificate, Identity, Url};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Largest file of configuration or certificates, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Docker Hub, as images name it, and where it is.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOSTS: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
const DOCKER_HUB_URL: &str = "https://registry-1.docker.io/v2";
/// Stands for every registry without mirrors of its own.
const ANY: &str = "*";

/// Why a file of registries cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("reading the registries in {path}: {reason}")]
pub struct RegistriesError {
    path: PathBuf,
    reason: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    mirrors: Option<BTreeMap<String, Option<Mirror>>>,
    configs: Option<BTreeMap<String, Option<HostConfig>>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mirror {
    endpoint: Option<Vec<String>>,
    rewrite: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HostConfig {
    auth: Option<Auth>,
    tls: Option<TlsFiles>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Auth {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    identity_token: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TlsFiles {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    insecure_skip_verify: bool,
}

/// Scheme, host and port: who answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Origin {
    pub(super) secure: bool,
    host: String,
    port: u16,
}

impl Origin {
    pub(super) fn of(url: &Url) -> Self {
        Self {
            secure: url.scheme() == "https",
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port_or_known_default().unwrap_or_default(),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (scheme, usual) = if self.secure {
            ("https", 443)
        } else {
            ("http", 80)
        };
        write!(f, "{scheme}://{}", self.host)?;
        match self.port {
            port if port == usual => Ok(()),
            port => write!(f, ":{port}"),
        }
    }
}

/// How a host is known, and makes itself known.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    /// Roots beside the machine's.
    pub(super) roots: Vec<Certificate>,
    pub(super) identity: Option<Identity>,
    pub(super) unverified: bool,
}

/// Where a repository is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// With the path that stands before repositories' names, as `https://ghcr.io/v2`.
    pub(super) base: Url,
    pub(super) repository: String,
    /// The registry that this is a mirror of, as mirrors of several are told it (`?ns=`).
    pub(super) mirror_of: Option<String>,
    /// What the node's owner gave for it.
    pub(super) credential: Option<Credential>,
}

struct Mirrors {
    bases: Vec<Url>,
    rewrites: Vec<(Regex, String)>,
}

/// What is configured; nothing by default.
#[derive(Default)]
pub struct Registries {
    mirrors: BTreeMap<String, Mirrors>,
    credentials: BTreeMap<String, Credential>,
    /// Hosts that were named, which may be anywhere and may do without TLS where they are named so.
    named: HashMap<Origin, Tls>,
}

impl Registries {
    /// Reads a file.
    ///
    /// # Errors
    /// When it, or a file that it names, cannot be read or is malformed.
    pub fn read(path: &Path) -> Result<Self, RegistriesError> {
        let failed = |reason: String| RegistriesError {
            path: path.to_owned(),
            reason,
        };
        let bytes = contents(path).map_err(failed)?;
        let text = String::from_utf8(bytes).map_err(|error| failed(error.to_string()))?;
        Self::parse(&text).map_err(failed)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// What is wrong with it, or with a file that it names, as a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let files: Vec<File> = serde_saphyr::from_multiple(text)
            .map_err(|error| error.without_snippet().to_string())?;
        if files.len() > 1 {
            return Err(format!("it has {} documents, and one is read", files.len()));
        }
        let file = files.into_iter().next().unwrap_or_default();
        let mut registries = Self::default();
        let mut settings: BTreeMap<String, Tls> = BTreeMap::new();
        for (host, config) in file.configs.unwrap_or_default() {
            let config = config.unwrap_or_default();
            if host == ANY {
                return Err(
                    "configs: \"*\" is no host, and what is given for one would be shown to all"
                        .to_owned(),
                );
            }
            let base = endpoint(&host).map_err(|why| format!("configs: {host}: {why}"))?;
            let name = name_of(&base);
            if let Some(auth) = config.auth {
                let credential = auth
                    .credential()
                    .map_err(|why| format!("configs: {host}: auth: {why}"))?;
                registries.credentials.insert(name.clone(), credential);
            }
            let tls = config.tls.unwrap_or_default();
            let tls = tls
                .load()
                .map_err(|why| format!("configs: {host}: tls: {why}"))?;
            registries.named.insert(Origin::of(&base), tls.clone());
            settings.insert(name, tls);
        }
        let tls_of = |base: &Url| settings.get(&name_of(base)).cloned().unwrap_or_default();
        for (host, mirror) in file.mirrors.unwrap_or_default() {
            let mirror = mirror.unwrap_or_default();
            let mut bases = Vec::new();
            for text in mirror.endpoint.unwrap_or_default() {
                let base = endpoint(&text)
                    .map_err(|why| format!("mirrors: {host}: endpoint {text}: {why}"))?;
                registries.named.insert(Origin::of(&base), tls_of(&base));
                bases.push(base);
            }
            let rewrites = mirror.rewrite.unwrap_or_default().into_iter();
            let rewrites = rewrites.map(|(pattern, replacement)| {
                Regex::new(&pattern).map(|pattern| (pattern, replacement))
            });
            let rewrites: Result<Vec<_>, regex::Error> = rewrites.collect();
            let rewrites = rewrites.map_err(|why| format!("mirrors: {host}: rewrite: {why}"))?;
            let name = if host == ANY {
                host
            } else {
                let own = endpoint(&host).map_err(|why| format!("mirrors: {host}: {why}"))?;
                registries.named.insert(Origin::of(&own), tls_of(&own));
                name_of(&own)
            };
            registries.mirrors.insert(name, Mirrors { bases, rewrites });
        }
        Ok(registries)
    }

    /// Where to ask for a repository of the registry `host`, in this order: its mirrors, then itself.
    ///
    /// # Errors
    /// When a rewrite makes a name that no repository can have, or the host is none; a sentence.
    pub(super) fn endpoints(&self, host: &str, repository: &str) -> Result<Vec<Endpoint>, String> {
        let own = endpoint(host)?;
        // A host that nobody named is never asked in the clear.
        let own = if self.named.contains_key(&Origin::of(&own)) || own.scheme() == "https" {
            own
        } else {
            endpoint(&format!("https://{host}"))?
        };
        let name = name_of(&own);
        let repository = match name.as_str() {
            DOCKER_HUB if !repository.contains('/') => format!("library/{repository}"),
            _ => repository.to_owned(),
        };
        let mut endpoints = Vec::new();
        if let Some(mirrors) = self.mirrors.get(&name).or_else(|| self.mirrors.get(ANY)) {
            let rewritten = mirrors.rewritten(&repository)?;
            for base in &mirrors.bases {
                let is_own = Origin::of(base) == Origin::of(&own);
                endpoints.push(Endpoint {
                    base: base.clone(),
                    repository: rewritten.clone(),
                    mirror_of: (!is_own).then(|| name.clone()),
                    credential: self.credentials.get(&name_of(base)).cloned(),
                });
            }
        }
        let itself = Endpoint {
            base: own,
            repository,
            mirror_of: None,
            credential: self.credentials.get(&name).cloned(),
        };
        if !endpoints.contains(&itself) {
            endpoints.push(itself);
        }
        Ok(endpoints)
    }

    /// How the owner wants a host to be spoken to; nothing for a host that nobody named.
    pub(super) fn named(&self, origin: &Origin) -> Option<&Tls> {
        self.named.get(origin)
    }

    pub(super) fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.named.keys()
    }
}

impl Mirrors {
    /// As k3s, the first rule that changes the name is the only one.
    fn rewritten(&self, repository: &str) -> Result<String, String> {
        for (pattern, replacement) in &self.rewrites {
            let rewritten = pattern.replace_all(repository, replacement.as_str());
            if rewritten == repository {
                continue;
            }
            if !weft_api::image::is_repository(&rewritten) {
                return Err(format!(
                    "the rewrite {:?} makes {rewritten:?} of {repository}, which is no repository; correct it in the node's --private-registry file",
                    pattern.as_str()
                ));
            }
            return Ok(rewritten.into_owned());
        }
        Ok(repository.to_owned())
    }
}

impl Auth {
    fn credential(self) -> Result<Credential, String> {
        let mut credential = match self.auth.as_deref().filter(|auth| !auth.is_empty()) {
            Some(auth) => {
                Credential::of_basic(auth).ok_or("auth is not USER:PASSWORD in base64")?
            }
            None => Credential::default(),
        };
        if let Some(username) = self.username {
            credential.username = username;
        }
        if let Some(password) = self.password {
            credential.password = password;
        }
        credential.identity_token = self.identity_token.unwrap_or_default();
        if credential == Credential::default() {
            return Err(
                "it has neither username and password, nor auth, nor identity_token".to_owned(),
            );
        }
        Ok(credential)
    }
}

impl TlsFiles {
    fn load(self) -> Result<Tls, String> {
        let of = |path: &Path, why: String| format!("{}: {why}", path.display());
        let roots = match &self.ca_file {
            None => Vec::new(),
            Some(path) => {
                let pem = contents(path)?;
                let roots = Certificate::from_pem_bundle(&pem)
                    .map_err(|error| of(path, error.to_string()))?;
                if roots.is_empty() {
                    return Err(of(path, "it holds no certificate".to_owned()));
                }
                roots
            }
        };
        let identity = match (&self.cert_file, &self.key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let mut pem = contents(key)?;
                pem.push(b'\n');
                pem.extend(contents(certificate)?);
                let identity = Identity::from_pem(&pem);
                Some(identity.map_err(|error| of(certificate, error.to_string()))?)
            }
            _ => return Err("cert_file and key_file go together".to_owned()),
        };
        Ok(Tls {
            roots,
            identity,
            unverified: self.insecure_skip_verify,
        })
    }
}

fn contents(path: &Path) -> Result<Vec<u8>, String> {
    let of = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let found = std::fs::metadata(path).map_err(|error| of(&error))?;
    if !found.is_file() || found.len() > FILE_BYTES_MAX {
        return Err(of(&format!(
            "it is no file of at most {FILE_BYTES_MAX} bytes"
        )));
    }
    std::fs::read(path).map_err(|error| of(&error))
}

/// What `configs` call the host of an endpoint.
fn name_of(base: &Url) -> String {
    let host = base.host_str().unwrap_or_default();
    if DOCKER_HUB_HOSTS.contains(&host) {
        return DOCKER_HUB.to_owned();
    }
    match base.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Reads `ghcr.io`, `localhost:5000` or `https://mirror.example/v2/cache`.
fn endpoint(text: &str) -> Result<Url, String> {
    let bare = text.split('/').next().unwrap_or_default();
    let (host, port) = bare.rsplit_once(':').unwrap_or((bare, ""));
    let is_local = host == "localhost" || host.starts_with("127.") || host == "[::1]";
    let written = if text.contains("://") {
        text.to_owned()
    } else if is_local && !matches!(port, "" | "443") {
        format!("http://{text}")
    } else {
        format!("https://{text}")
    };
    let mut url = Url::parse(&written).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{} is neither http nor https", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials go to configs, under auth".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("an endpoint has neither ? nor #".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    if host.is_empty() {
        return Err("it has no host".to_owned());
    }
    if host == DOCKER_HUB || DOCKER_HUB_HOSTS.contains(&host) {
        return Url::parse(DOCKER_HUB_URL).map_err(|error| error.to_string());
    }
    let path = match url.path().trim_end_matches('/') {
        "" => "/v2".to_owned(),
        path => path.to_owned(),
    };
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
mirrors:
  docker.io:
    endpoint:
      - "https://mirror.example:5000"
      - "http://harbor.example/v2/hub"
    rewrite:
      "^library/(.*)": "cache/$1"
      "^cache/(.*)": "never/$1"
  "localhost:5000":
  self.example:
    endpoint: ["https://other.example", "https://self.example"]
  "*":
    endpoint: ["https://all.example"]
configs:
  "mirror.example:5000":
    auth: {username: ann, password: secret}
  registry-1.docker.io:
    auth: {auth: YW5uOnA6dw==}
  "lan.example:5000":
    tls: {insecure_skip_verify: true}
"#;

    fn asked(registries: &Registries, host: &str, repository: &str) -> Vec<String> {
        let endpoints = registries.endpoints(host, repository).expect("endpoints");
        let shown = endpoints.iter().map(|endpoint| {
            let of = endpoint.mirror_of.as_ref();
            let of = of.map_or(String::new(), |of| format!(" for {of}"));
            let by = endpoint.credential.as_ref();
            let by = by.map_or(String::new(), |by| format!(" by {}", by.username));
            format!("{}/{}{of}{by}", endpoint.base, endpoint.repository)
        });
        shown.collect()
    }

    #[test]
    fn mirrors_are_asked_first_and_the_registry_last() {
        let registries = Registries::parse(FILE).expect("sound");
        for (host, repository, expected) in [
            (
                "docker.io",
                "web",
                vec![
                    "https://mirror.example:5000/v2/cache/web for docker.io by ann",
                    "http://harbor.example/v2/hub/cache/web for docker.io",
                    "https://registry-1.docker.io/v2/library/web by ann",
                ],
            ),
            // Spellings of one registry.
            (
                "index.docker.io",
                "team/web",
                vec![
                    "https://mirror.example:5000/v2/team/web for docker.io by ann",
                    "http://harbor.example/v2/hub/team/web for docker.io",
                    "https://registry-1.docker.io/v2/team/web by ann",
                ],
            ),
            ("localhost:5000", "x", vec!["http://localhost:5000/v2/x"]),
            (
                "self.example",
                "x",
                vec![
                    "https://other.example/v2/x for self.example",
                    "https://self.example/v2/x",
                ],
            ),
            (
                "GHCR.io",
                "x/y",
                vec![
                    "https://all.example/v2/x/y for ghcr.io",
                    "https://ghcr.io/v2/x/y",
                ],
            ),
        ] {
            assert_eq!(asked(&registries, host, repository), expected, "{host}");
        }
        let nothing = Registries::default();
        // Nobody named it: not in the clear, and refused when it is resolved.
        assert_eq!(
            asked(&nothing, "localhost:5000", "x"),
            ["https://localhost:5000/v2/x"]
        );
    }

    #[test]
    fn only_hosts_that_are_named_are_trusted() {
        let registries = Registries::parse(FILE).expect("sound");
        let tls = |url: &str| {
            registries
                .named(&Origin::of(&Url::parse(url).expect("a URL")))
                .map(|tls| tls.unverified)
        };
        assert_eq!(tls("https://lan.example:5000/v2"), Some(true));
        assert_eq!(tls("https://mirror.example:5000"), Some(false));
        assert_eq!(tls("http://harbor.example/"), Some(false));
        assert_eq!(tls("http://localhost:5000/"), Some(false));
        // Another port, another scheme.
        for elsewhere in [
            "https://lan.example/v2",
            "https://harbor.example/",
            "http://mirror.example:5000/",
            "https://ghcr.io/",
        ] {
            assert_eq!(tls(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            ("mirrors: {a.example: {endpoints: [x]}}", "endpoints"),
            (
                "mirrors: {a.example: {endpoint: ['ftp://b']}}",
                "mirrors: a.example: endpoint ftp://b: ftp is neither http nor https",
            ),
            (
                "mirrors: {a.example: {endpoint: ['https://u:p@b']}}",
                "credentials go to configs, under auth",
            ),
            (
                "mirrors: {a.example: {rewrite: {'(': x}}}",
                "mirrors: a.example: rewrite: ",
            ),
            (
                "configs: {'*': {auth: {username: a}}}",
                "configs: \"*\" is no host",
            ),
            (
                "configs: {a.example: {auth: {}}}",
                "configs: a.example: auth: it has neither username",
            ),
            (
                "configs: {a.example: {tls: {cert_file: x}}}",
                "configs: a.example: tls: cert_file and key_file go together",
            ),
            (
                "configs: {a.example: {tls: {ca_file: /nowhere}}}",
                "configs: a.example: tls: /nowhere: ",
            ),
        ] {
            let told = Registries::parse(text).err().unwrap_or_default();
            assert!(told.contains(expected), "{text}: {told}");
        }
        for nothing in ["", "mirrors:\nconfigs:\n", "{}"] {
            assert!(Registries::parse(nothing).is_ok(), "{nothing:?}");
        }
        let bad = Registries::parse(
            "mirrors: {a.example: {endpoint: [b.example], rewrite: {'x': 'Y Z'}}}",
        );
        let told = bad.expect("sound").endpoints("a.example", "x").unwrap_err();
        assert!(told.contains("makes \"Y Z\" of x"), "{told}");
    }
}
