//! Which cluster a client command talks to, and the client for it.
//!
//! Order: `--kubeconfig`, `$WEFT_KUBECONFIG`, the kubeconfig in the data folder of a weft on this machine,
//! `$KUBECONFIG`, `~/.kube/config`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::data_dir;
use crate::exit::Failure;

/// The arguments that every client command shares.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ClientArgs {
    /// Path of the kubeconfig to use
    #[arg(long, env = "WEFT_KUBECONFIG", value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
}

/// How long a client command waits for a connection before it says that the cluster does not answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl ClientArgs {
    /// The file that decides, or `None` for the defaults of Kubernetes' own clients.
    fn path(&self) -> Option<PathBuf> {
        self.kubeconfig.clone().or_else(|| {
            let dir =
                std::env::var_os("WEFT_DATA_DIR").map_or_else(data_dir::default, PathBuf::from);
            Some(data_dir::kubeconfig(&dir)).filter(|path| path.exists())
        })
    }

    /// # Errors
    /// A [`Failure`] naming the file and what is wrong with it.
    pub async fn client(&self) -> Result<kube::Client, Failure> {
        let path = self.path();
        let failure = |why: String| {
            let what = match &path {
                Some(path) => format!("cannot use the kubeconfig {}", path.display()),
                None => "no cluster to talk to".to_owned(),
            };
            Failure::new(
                what,
                why,
                "start one with `weft up`, or name a kubeconfig with --kubeconfig FILE",
            )
            .usage()
        };
        let kubeconfig = match &path {
            Some(path) => read(path),
            None => Kubeconfig::read().map_err(|error| chain(&error)),
        };
        let options = KubeConfigOptions::default();
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig.map_err(failure)?, &options)
                .await
                .map_err(|error| failure(chain(&error)))?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // Streams of logs and watches are silent for as long as nothing happens.
        config.read_timeout = None;
        kube::Client::try_from(config).map_err(|error| failure(chain(&error)))
    }
}

fn read(path: &Path) -> Result<Kubeconfig, String> {
    // Read first: the library's error does not tell a missing file from a forbidden one.
    std::fs::read(path).map_err(|error| error.to_string())?;
    Kubeconfig::read_from(path).map_err(|error| chain(&error))
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    crate::exit::Chain(error).to_string()
}

/// Turns an answer of the API into a failure that names what was tried.
pub fn api_failure(what: impl Into<String>, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => {
            let next = match status.code {
                401 => {
                    "the certificate of this kubeconfig is not of this cluster; take the one from the server's data folder"
                }
                403 => "use a kubeconfig of a user who may",
                404 => "list what there is with `weft get`",
                _ => "",
            };
            Failure::new(what, &status.message, next)
        }
        error => Failure::new(
            what,
            chain(error),
            "is the cluster up? `weft up` starts one",
        ),
    }
}
