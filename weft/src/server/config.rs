//! What a server needs to know to start, and the files that say it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use weft_apiserver::audit::Audit;
use weft_apiserver::audit::log::{Log, LogConfig};
use weft_apiserver::audit::policy::Policy;
use weft_apiserver::audit::webhook::{BatchConfig, Target, Webhook};
use weft_apiserver::authn::{AuthenticationConfiguration, StaticToken};

use super::JoinConfig;
use crate::exit::Failure;

/// What a server needs to know to start.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    pub data_dir: PathBuf,
    /// Where the API listens; port 0 takes the one it had before, or picks a free one.
    pub address: SocketAddr,
    /// Where other servers' messages arrive, on the same address; 0 as above. Without it the cluster stays at this server.
    pub peer_port: Option<u16>,
    /// The address that clients and other servers are told; the one listened on when not given.
    pub advertise_address: Option<IpAddr>,
    /// `HOST:PORT` under which clients reach all servers, as a load balancer's.
    pub control_plane_endpoint: Option<String>,
    /// The cluster to join; a server that belongs to one already goes on there.
    pub join: Option<JoinConfig>,
    /// Bearer tokens in Kubernetes' form: `token,user,uid,"group1,group2"` a line.
    pub token_auth_file: Option<PathBuf>,
    /// What Secrets are encrypted with; `pki/encryption.key` in the data folder, made when missing, unless named.
    pub encryption_key_file: Option<PathBuf>,
    /// Who else is believed: an AuthenticationConfiguration of `apiserver.config.k8s.io/v1`.
    pub authentication_file: Option<PathBuf>,
    /// Which requests are written down, and where.
    pub audit: Option<AuditConfig>,
}

/// The audit log, as the operator asks for it.
#[derive(Debug, Clone)]
pub struct AuditConfig {
    /// A Policy of `audit.k8s.io/v1`.
    pub policy_file: PathBuf,
    pub log: Option<LogConfig>,
    /// A kubeconfig that says where events are sent, and how.
    pub webhook: Option<(PathBuf, BatchConfig)>,
}

impl ServerConfig {
    /// A cluster of this one server.
    pub fn alone(data_dir: PathBuf, address: SocketAddr) -> Self {
        Self {
            data_dir,
            address,
            peer_port: None,
            advertise_address: None,
            control_plane_endpoint: None,
            join: None,
            token_auth_file: None,
            encryption_key_file: None,
            authentication_file: None,
            audit: None,
        }
    }

    /// Where the keys are that Secrets are encrypted with.
    pub(super) fn key_file(&self) -> PathBuf {
        let own = || self.data_dir.join("pki/encryption.key");
        self.encryption_key_file.clone().unwrap_or_else(own)
    }

    /// The address to call, where the one to listen on may be all of them.
    pub(super) fn advertised(&self) -> IpAddr {
        let listened = self.address.ip();
        self.advertise_address.unwrap_or(match listened {
            all if all.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            one => one,
        })
    }
}
pub(super) fn authentication(
    path: Option<&Path>,
) -> Result<Option<AuthenticationConfiguration>, Failure> {
    let Some(path) = path else {
        return Ok(None);
    };
    let failure = |why: String| {
        let what = format!(
            "cannot use the authentication configuration {}",
            path.display()
        );
        let next = "write an AuthenticationConfiguration of apiserver.config.k8s.io/v1";
        Failure::new(what, why, next).usage()
    };
    let text = std::fs::read_to_string(path).map_err(|error| failure(error.to_string()))?;
    let read = AuthenticationConfiguration::parse(&text);
    read.map(Some).map_err(|error| failure(error.to_string()))
}

pub(super) fn audit(config: &AuditConfig) -> Result<Audit, Failure> {
    let AuditConfig {
        policy_file,
        log,
        webhook,
    } = config;
    let failure = |why: String, next: &str| {
        let what = format!("cannot write down requests by {}", policy_file.display());
        Failure::new(what, why, next).usage()
    };
    let next = "write a Policy of audit.k8s.io/v1 with at least one rule";
    let text = std::fs::read_to_string(policy_file);
    let text = text.map_err(|error| failure(error.to_string(), next))?;
    let policy = Policy::parse(&text).map_err(|error| failure(error.to_string(), next))?;
    let mut audit = Audit::new(policy);
    if let Some(log) = log {
        let opened = Log::open(log.clone()).map_err(|error| {
            let why = format!("{}: {error}", log.path.display());
            failure(why, "name a file that can be written with --audit-log-path")
        });
        audit = audit.to_log(opened?);
    }
    if let Some((file, batch)) = webhook {
        let unfit = |why: String| {
            let next = "name a kubeconfig with --audit-webhook-config-file";
            failure(format!("{}: {why}", file.display()), next)
        };
        let text = std::fs::read_to_string(file).map_err(|error| unfit(error.to_string()))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let target = Target::parse(&text, folder).map_err(|error| unfit(error.to_string()))?;
        let started = Webhook::start(target, *batch);
        audit = audit.to_webhook(started.map_err(|error| unfit(error.to_string()))?);
    }
    if log.is_none() && webhook.is_none() {
        let next =
            "name a file with --audit-log-path, or a webhook with --audit-webhook-config-file";
        return Err(failure("they would be written nowhere".to_owned(), next));
    }
    Ok(audit)
}

pub(super) fn static_tokens(path: Option<&Path>) -> Result<Vec<StaticToken>, Failure> {
    let Some(path) = path else {
        return Ok(Vec::new());
    };
    let failure = |why: String| {
        let what = format!("cannot use the token file {}", path.display());
        Failure::new(
            what,
            why,
            "write a line `token,user,uid,\"group1,group2\"` for each token",
        )
        .usage()
    };
    let text = std::fs::read_to_string(path).map_err(|error| failure(error.to_string()))?;
    StaticToken::parse_file(&text).map_err(|error| failure(error.to_string()))
}
