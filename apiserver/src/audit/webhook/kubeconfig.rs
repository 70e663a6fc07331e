//! Where a webhook is and how this server proves itself to it, as a kubeconfig says it: its current context, or the only one.
//!
//! Files that it names are looked for beside it, and read once. Invariant: what cannot be used as a whole is refused, without a word of a credential.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio_rustls::TlsConnector;

use crate::reach::tls::{self, Trust};
use crate::reach::{Tls, Way};

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("it is no kubeconfig: {0}")]
    Unread(String),
    #[error("it has no {what} {name:?}")]
    Missing { what: &'static str, name: String },
    #[error("{server:?} is no http or https URL with a host")]
    Server { server: String },
    #[error("{what}: {why}")]
    Credential { what: &'static str, why: String },
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Kubeconfig {
    clusters: Vec<Named>,
    users: Vec<Named>,
    contexts: Vec<Named>,
    current_context: String,
}

/// A cluster, a user or a context under its name.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    cluster: Cluster,
    user: User,
    context: Context,
}

#[derive(Default, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    tls_server_name: String,
}

#[derive(Default, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    token: String,
    // It is no word of two, there.
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    password: String,
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
}

#[derive(Default, Clone, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

/// Where a webhook is.
#[derive(Clone)]
pub struct Target {
    way: Way,
    tls: Option<(TlsConnector, String)>,
    host: String,
    path: String,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Target({})", self.host)
    }
}

fn named<'a>(
    all: &'a [Named],
    what: &'static str,
    name: &str,
) -> Result<&'a Named, KubeconfigError> {
    let missing = || KubeconfigError::Missing {
        what,
        name: name.to_owned(),
    };
    all.iter().find(|one| one.name == name).ok_or_else(missing)
}

/// What stands in a file, or in the kubeconfig itself; nothing where neither is said.
fn material(
    folder: &Path,
    file: &str,
    data: &str,
    what: &'static str,
) -> Result<Option<Vec<u8>>, KubeconfigError> {
    let failed = |why: String| KubeconfigError::Credential { what, why };
    if !data.is_empty() {
        let decoded = STANDARD.decode(data);
        return decoded
            .map(Some)
            .map_err(|_| failed("it is no base64".to_owned()));
    }
    if file.is_empty() {
        return Ok(None);
    }
    let read = std::fs::read(folder.join(file));
    read.map(Some).map_err(|error| failed(error.to_string()))
}

impl Target {
    /// Reads a kubeconfig; `folder` is where files that it names are.
    ///
    /// # Errors
    /// [`KubeconfigError`].
    pub fn parse(text: &str, folder: &Path) -> Result<Self, KubeconfigError> {
        let read: Result<Kubeconfig, _> = serde_saphyr::from_str(text);
        let config = read.map_err(|error| KubeconfigError::Unread(error.to_string()))?;
        let context = match (config.current_context.as_str(), config.contexts.as_slice()) {
            ("", [only]) => only,
            (name, all) => named(all, "context", name)?,
        };
        let Context { cluster, user } = context.context.clone();
        let cluster = named(&config.clusters, "cluster", &cluster)?
            .cluster
            .clone();
        let user = match user.as_str() {
            "" => User::default(),
            user => named(&config.users, "user", user)?.user.clone(),
        };
        let server = || KubeconfigError::Server {
            server: cluster.server.clone(),
        };
        let uri: http::Uri = cluster.server.parse().map_err(|_| server())?;
        let (host, scheme) = (uri.host().unwrap_or(""), uri.scheme_str().unwrap_or(""));
        let port = match scheme {
            "https" => uri.port_u16().unwrap_or(443),
            "http" => uri.port_u16().unwrap_or(80),
            _ => return Err(server()),
        };
        if host.is_empty() {
            return Err(server());
        }
        let tls = match scheme {
            "https" => {
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let name = match cluster.tls_server_name.as_str() {
                    "" => bare,
                    name => name,
                };
                let settings = tls_of(&cluster, &user, folder)?;
                Some((TlsConnector::from(settings), name.to_owned()))
            }
            _ => None,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            way: Way::Address(format!("{host}:{port}")),
            tls,
            host: uri
                .authority()
                .map_or_else(String::new, ToString::to_string),
            path: path.to_owned(),
            authorization: authorization(&user, folder)?,
        })
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    pub(super) fn tls(&self) -> Option<Tls<'_>> {
        let (connector, server_name) = self.tls.as_ref()?;
        Some(Tls {
            connector,
            server_name,
        })
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn authorization(&self) -> Option<HeaderValue> {
        self.authorization.clone()
    }
}

fn tls_of(
    cluster: &Cluster,
    user: &User,
    folder: &Path,
) -> Result<Arc<ClientConfig>, KubeconfigError> {
    const SHOWN: &str = "the client certificate";
    let authority = material(
        folder,
        &cluster.certificate_authority,
        &cluster.certificate_authority_data,
        "the certificate authority",
    )?;
    let trust = match (&authority, cluster.insecure_skip_tls_verify) {
        (_, true) => Trust::Anybody,
        (Some(pem), false) => Trust::Bundle(pem),
        (None, false) => Trust::Machine,
    };
    let (certificate, key) = (&user.client_certificate, &user.client_key);
    let certificate = material(folder, certificate, &user.client_certificate_data, SHOWN)?;
    let key = material(folder, key, &user.client_key_data, "the client key")?;
    let failed = |what: &'static str, why: String| KubeconfigError::Credential { what, why };
    let shown = match certificate.zip(key) {
        Some((certificate, key)) => {
            let chain: Result<Vec<CertificateDer<'static>>, _> =
                CertificateDer::pem_slice_iter(&certificate).collect();
            let chain = chain.map_err(|error| failed(SHOWN, error.to_string()))?;
            let key = PrivateKeyDer::from_pem_slice(&key);
            let key = key.map_err(|_| failed("the client key", "it is no key".to_owned()))?;
            Some((chain, key))
        }
        None => None,
    };
    tls::client_config(trust, shown).map_err(|why| failed("TLS", why))
}

fn authorization(user: &User, folder: &Path) -> Result<Option<HeaderValue>, KubeconfigError> {
    let what = "the token";
    let text = match material(folder, &user.token_file, "", what)? {
        Some(bytes) => format!("Bearer {}", String::from_utf8_lossy(&bytes).trim()),
        None if !user.token.is_empty() => format!("Bearer {}", user.token),
        None if !user.username.is_empty() => {
            let pair = format!("{}:{}", user.username, user.password);
            format!("Basic {}", STANDARD.encode(pair))
        }
        None => return Ok(None),
    };
    let value = HeaderValue::from_str(&text).map_err(|_| KubeconfigError::Credential {
        what,
        why: "it has letters that no header may have".to_owned(),
    });
    value.map(|mut value| {
        value.set_sensitive(true);
        Some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(cluster: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: c, cluster: {cluster}}}]\n\
             users: [{{name: u, user: {user}}}]\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n"
        )
    }

    #[test]
    fn a_kubeconfig_says_where_and_as_whom() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "of a file\n").unwrap();
        for (cluster, user, host, path, authorization) in [
            (
                "{server: 'http://sink:8080/audit?x=1'}",
                "{token: secret}",
                "sink:8080",
                "/audit?x=1",
                Some("Bearer secret"),
            ),
            (
                "{server: 'https://sink.example.com', insecure-skip-tls-verify: true}",
                "{tokenFile: token}",
                "sink.example.com",
                "/",
                Some("Bearer of a file"),
            ),
            (
                "{server: 'https://[::1]:8443/a', insecure-skip-tls-verify: true, tls-server-name: sink}",
                "{username: jo, password: pw}",
                "[::1]:8443",
                "/a",
                Some("Basic am86cHc="),
            ),
            ("{server: 'http://sink'}", "{}", "sink", "/", None),
        ] {
            let target = Target::parse(&config(cluster, user), dir.path()).unwrap();
            assert_eq!((target.host(), target.path()), (host, path));
            let found = target.authorization();
            let found = found.as_ref().map(|value| value.to_str().unwrap());
            assert_eq!(found, authorization, "{cluster}");
            assert!(!format!("{target:?}").contains("secret"));
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_a_secret() {
        let dir = tempfile::tempdir().unwrap();
        let sink = "{server: 'https://sink'}";
        for (text, told) in [
            ("clusters: 3".to_owned(), "it is no kubeconfig"),
            ("{}".to_owned(), "it has no context \"\""),
            (
                "current-context: y\ncontexts: [{name: x}]".to_owned(),
                "it has no context \"y\"",
            ),
            (
                "contexts: [{name: x, context: {cluster: z}}]".to_owned(),
                "it has no cluster \"z\"",
            ),
            (
                config("{server: 'ftp://sink'}", "{}"),
                "is no http or https URL",
            ),
            (config("{server: sink}", "{}"), "is no http or https URL"),
            (
                config(
                    "{server: 'https://sink', certificate-authority-data: '%'}",
                    "{}",
                ),
                "the certificate authority: it is no base64",
            ),
            (
                config(
                    "{server: 'https://sink', certificate-authority: none.pem}",
                    "{}",
                ),
                "the certificate authority: No such file",
            ),
            (
                config(
                    sink,
                    "{client-certificate-data: c2VjcmV0, client-key-data: c2VjcmV0}",
                ),
                "the client key: it is no key",
            ),
            (
                config(sink, "{token: \"se\\ncret\"}"),
                "the token: it has letters",
            ),
        ] {
            let error = Target::parse(&text, dir.path()).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
            assert!(
                !error.contains("c2VjcmV0") && !error.contains("cret"),
                "{error}"
            );
        }
    }
}
