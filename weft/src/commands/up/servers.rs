//! The servers of `weft up`: one in this process, or several as children that any one of may die.
//!
//! With several, this process listens at the API's port and passes connections on to whichever server answers, so that
//! the kubeconfig outlives each of them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use serde_json::Value;
use tokio::process::Child;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::process::{Process, tail};
use crate::balancer::{Balancer, host_and_port};
use crate::commands::dash;
use crate::data_dir;
use crate::exit::{Chain, Failure};
use crate::kubeconfig::ClientArgs;
use crate::server::{self, Server, ServerConfig};

/// How long a server may take to end: requests have ten seconds, and leadership is handed over before.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// A server that died comes back at once: the others have taken over by then, or need it.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// How long a server may take to be ready, far above the usual second.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// The servers, however they run, and what nodes and users need to reach them.
pub(super) struct Servers {
    pub url: String,
    pub kubeconfig: PathBuf,
    pub ca_file: PathBuf,
    pub join_token_file: PathBuf,
    /// Addresses of all of them.
    pub urls: Vec<String>,
    run: Run,
}

enum Run {
    Here(Box<Server>),
    Children {
        supervised: JoinSet<()>,
        stop: CancellationToken,
        balancer: Balancer,
    },
}

/// What a child says once it is ready.
struct Ready {
    url: String,
    ca_file: PathBuf,
    join_token_file: PathBuf,
    server_token_file: PathBuf,
    kubeconfig: PathBuf,
}

impl Servers {
    /// Starts one server in this process, or `count` of them as children, and waits until they are ready. `None` when
    /// `stop` came first.
    ///
    /// # Errors
    /// A [`Failure`] when a port or the data folder is in use, or a server does not become ready.
    pub async fn start(
        config: ServerConfig,
        count: u16,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, Failure> {
        if count == 1 {
            return Self::start_single(config, stop).await;
        }
        let started = Self::several(&config, count);
        tokio::select! {
            biased;
            started = started => started.map(Some),
            // What was started ends with its handle.
            () = stop.cancelled() => Ok(None),
        }
    }

    async fn start_single(
        config: ServerConfig,
        stop: &CancellationToken,
    ) -> Result<Option<Self>, Failure> {
        let mut server = server::start(config, stop).await?;
        let ready = tokio::select! {
            biased;
            ready = server.ready() => ready.map(|()| true),
            () = stop.cancelled() => Ok(false),
        };
        match ready {
            Ok(true) => Ok(Some(Self {
                url: server.url.clone(),
                kubeconfig: server.kubeconfig.clone(),
                ca_file: server.ca_file.clone(),
                join_token_file: server.join_token_file.clone(),
                urls: vec![server.url.clone()],
                run: Run::Here(Box::new(server)),
            })),
            Ok(false) => server.stop().await.map(|()| None),
            Err(failure) => {
                // The first failure is the one to tell.
                let _ = server.stop().await;
                Err(failure)
            }
        }
    }

    async fn several(config: &ServerConfig, count: u16) -> Result<Self, Failure> {
        let (dir, address) = (config.data_dir.as_path(), config.address);
        data_dir::create_private(dir)?;
        let cannot = |error| server::cannot_listen("API", address, &error);
        let listener = TcpListener::bind(address).map_err(cannot)?;
        let endpoint = listener.local_addr().map_err(cannot)?;
        listener.set_nonblocking(true).map_err(cannot)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(cannot)?;
        let program = std::env::current_exe().map_err(|error| {
            Failure::new("cannot start a server", error, "run weft by its full path")
        })?;
        let child = |number: u16, join: Option<&Ready>| {
            let own = own_dir(dir, number);
            let mut arguments: Vec<String> = vec!["server".to_owned()];
            let mut option = |flag: &str, value: String| {
                arguments.extend([flag.to_owned(), value]);
            };
            option("--data-dir", own.display().to_string());
            option("--address", address.ip().to_string());
            option("--api-port", "0".to_owned());
            option("--peer-port", "0".to_owned());
            option("--control-plane-endpoint", endpoint.to_string());
            option("--output", "json".to_owned());
            let files = [
                ("--token-auth-file", &config.token_auth_file),
                ("--encryption-key-file", &config.encryption_key_file),
            ];
            for (flag, file) in files {
                if let Some(file) = file {
                    option(flag, file.display().to_string());
                }
            }
            if let Some(join) = join {
                option("--join", join.url.clone());
                option("--ca-file", join.ca_file.display().to_string());
                option("--token-file", join.server_token_file.display().to_string());
            }
            arguments.push("--exit-with-parent".to_owned());
            Process {
                name: format!("server-{number}"),
                program: program.clone(),
                arguments,
                log: own.join("server.log"),
                restart_delay: RESTART_DELAY,
                drain_timeout: DRAIN_TIMEOUT,
                start_timeout: Duration::ZERO,
            }
        };
        // Those that belong to the cluster need each other to have a leader; the first of all needs nobody.
        let (there, new): (Vec<u16>, Vec<u16>) = (1..=count)
            .partition(|number| *number == 1 || own_dir(dir, *number).join("server.json").exists());
        let mut running: Vec<(Process, Child, Ready)> = try_join_all(
            there
                .iter()
                .map(|number| ready(child(*number, None), own_dir(dir, *number))),
        )
        .await?;
        for number in new {
            let first = running.first().map(|(_, _, ready)| ready);
            let process = child(number, first);
            running.push(ready(process, own_dir(dir, number)).await?);
        }
        let urls: Vec<String> = running
            .iter()
            .map(|(_, _, ready)| ready.url.clone())
            .collect();
        let stop = CancellationToken::new();
        let mut supervised = JoinSet::new();
        let mut files = None;
        for (process, child, ready) in running {
            files.get_or_insert(ready);
            // They started once; from now on they are started again for as long as it takes.
            let unused = CancellationToken::new();
            supervised.spawn(process.supervise_from(Some(child), stop.clone(), unused));
        }
        let Some(first) = files else {
            return Err(Failure::new(
                "cannot start a server",
                "none was asked for",
                "",
            ));
        };
        let authority = weft_agent::identity::read_authority(&first.ca_file).map_err(|error| {
            let next = format!("read the logs of the servers in {}", dir.display());
            Failure::new("cannot reach the servers", Chain(&error), next)
        })?;
        let addresses: Vec<String> = urls.iter().filter_map(|url| host_and_port(url)).collect();
        let file = first.ca_file.clone();
        // The servers keep the file as their authorities are; between two of them it is as good as before.
        let trusted = Arc::new(move || {
            weft_agent::identity::read_authority(&file).unwrap_or_else(|_| authority.clone())
        });
        let balancer = Balancer::serve(listener, &addresses, trusted).map_err(cannot)?;
        Ok(Self {
            url: format!("https://{endpoint}"),
            kubeconfig: first.kubeconfig,
            ca_file: first.ca_file,
            join_token_file: first.join_token_file,
            urls,
            run: Run::Children {
                supervised,
                stop,
                balancer,
            },
        })
    }

    /// A client with the administrator's certificate.
    ///
    /// # Errors
    /// A [`Failure`] when the kubeconfig just written cannot be used.
    pub async fn client(&self) -> Result<kube::Client, Failure> {
        ClientArgs {
            kubeconfig: Some(self.kubeconfig.clone()),
        }
        .client()
        .await
    }

    /// Where the dashboard is, with what signs its administrator in once; the page alone where no link can be made now.
    pub async fn dashboard(&self) -> String {
        let made = match self.client().await {
            Ok(client) => dash::link(&client, &self.url).await,
            Err(failure) => Err(failure),
        };
        made.map_or_else(
            |error| {
                tracing::warn!(%error, "no link to the dashboard could be made");
                format!("{}/dashboard/", self.url)
            },
            |link| link.url,
        )
    }

    /// Comes when the server of this process ended by itself. Children are started again instead.
    pub async fn failed(&self) -> Failure {
        match &self.run {
            Run::Here(server) => server.failed().await,
            Run::Children { .. } => std::future::pending().await,
        }
    }

    /// Ends them in order.
    ///
    /// # Errors
    /// A [`Failure`] when a part of the server in this process had ended by itself before.
    pub async fn stop(self) -> Result<(), Failure> {
        match self.run {
            Run::Here(server) => server.stop().await,
            Run::Children {
                mut supervised,
                stop,
                balancer,
            } => {
                stop.cancel();
                while supervised.join_next().await.is_some() {}
                balancer.stop().await;
                Ok(())
            }
        }
    }
}

/// The first server has the cluster's own folder, so that a cluster of one can become one of three and is where it was.
fn own_dir(dir: &Path, number: u16) -> PathBuf {
    match number {
        1 => dir.to_owned(),
        number => dir.join("servers").join(format!("server-{number}")),
    }
}

/// Starts a child and waits for what it says.
async fn ready(process: Process, own: PathBuf) -> Result<(Process, Child, Ready), Failure> {
    data_dir::create_private(&own)?;
    let failed = |why: String| {
        let why = match tail(&process.log) {
            tail if tail.is_empty() => why,
            tail => tail,
        };
        Failure::new(
            format!("{} did not become ready", process.name),
            why,
            format!("read its log {}", process.log.display()),
        )
    };
    let said = tokio::time::timeout(READY_TIMEOUT, process.first_line()).await;
    let (child, line) = match said {
        Ok(Ok(said)) => said,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("{} s passed", READY_TIMEOUT.as_secs()))),
    };
    let said: Value = line
        .and_then(|line| serde_json::from_str(&line).ok())
        .ok_or_else(|| failed("it ended".to_owned()))?;
    let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
    let ready = Ready {
        url: text("api"),
        ca_file: text("caFile").into(),
        join_token_file: text("joinTokenFile").into(),
        server_token_file: text("serverTokenFile").into(),
        kubeconfig: text("kubeconfig").into(),
    };
    Ok((process, child, ready))
}
