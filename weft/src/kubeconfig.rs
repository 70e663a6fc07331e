//! Which cluster a client command talks to, and the client for it.
//!
//! Order: `--kubeconfig`, `$WEFT_KUBECONFIG`, the kubeconfig in `$WEFT_DATA_DIR`, `$KUBECONFIG`, the kubeconfig in the
//! usual data folder of a weft on this machine, `~/.kube/config`. What somebody said comes before what is lying around.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig, NamedCluster};
use parking_lot::Mutex;
use tower::util::MapResponseLayer;

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

/// How long one of several servers may take to say whether it is ready before the next one is asked. That it takes a
/// connection says nothing: the kernel does that for a process that was stopped.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);

/// Sentences of servers that one command prints.
const WARNINGS_MAX: usize = 100;

impl ClientArgs {
    /// The file that decides, or `None` for the defaults of Kubernetes' own clients.
    fn path(&self) -> Option<PathBuf> {
        let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
        choose(
            self.kubeconfig.clone(),
            named("WEFT_DATA_DIR").map(PathBuf::from),
            named("KUBECONFIG").is_some(),
            &data_dir::default(),
            |path| path.exists(),
        )
    }

    /// # Errors
    /// A [`Failure`] naming the file and what is wrong with it.
    pub async fn client(&self) -> Result<kube::Client, Failure> {
        self.client_of().await.map(|(client, _)| client)
    }

    /// The same, with the URL of the server that it is a client of.
    ///
    /// # Errors
    /// As [`ClientArgs::client`].
    pub async fn client_of(&self) -> Result<(kube::Client, String), Failure> {
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
        let kubeconfig = kubeconfig.map_err(failure)?;
        let servers = servers(&kubeconfig);
        let options = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| failure(chain(&error)))?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // Streams of logs and watches are silent for as long as nothing happens.
        config.read_timeout = None;
        let client = |config: kube::Config| {
            let url = config.cluster_url.to_string();
            let built = ClientBuilder::try_from(config).map_err(|error| failure(chain(&error)))?;
            let client = built.with_layer(&MapResponseLayer::new(warn)).build();
            Ok::<_, Failure>((client, url))
        };
        // Where none is ready, one that says why is better than one that says nothing.
        let mut unready = None;
        for url in if servers.len() > 1 {
            servers
        } else {
            Vec::new()
        } {
            let mut config = config.clone();
            config.cluster_url = url;
            let client = client(config)?;
            match is_ready(&client.0).await {
                Some(true) => return Ok(client),
                Some(false) => unready = unready.or(Some(client)),
                None => {}
            }
        }
        unready.map_or_else(|| client(config), Ok)
    }
}

/// Prints what the server has to say besides its answer, each sentence once a command, as kubectl does.
fn warn<B>(response: http::Response<B>) -> http::Response<B> {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    for value in response.headers().get_all(http::header::WARNING) {
        let Some(text) = value.to_str().ok().and_then(warning) else {
            continue;
        };
        let mut told = TOLD.lock();
        if told.len() < WARNINGS_MAX && told.insert(text.clone()) {
            eprintln!("Warning: {text}");
        }
    }
    response
}

/// The text of `299 - "text"` (RFC 7234 §5.5), without what a terminal would obey.
fn warning(value: &str) -> Option<String> {
    let quoted = value.strip_prefix("299 ")?.split_once(' ')?.1;
    let quoted = quoted.strip_prefix('"')?;
    let mut text = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            c if c.is_control() => text.push('\u{fffd}'),
            c => text.push(c),
        }
    }
}

/// The servers of the cluster that the file chooses, that one first: those with the same authority.
fn servers(kubeconfig: &Kubeconfig) -> Vec<http::Uri> {
    let current = kubeconfig.current_context.as_deref().unwrap_or_default();
    let context = kubeconfig
        .contexts
        .iter()
        .find(|context| context.name == current)
        .and_then(|context| context.context.as_ref());
    let Some(context) = context else {
        return Vec::new();
    };
    let (mut chosen, others): (Vec<_>, Vec<_>) = kubeconfig
        .clusters
        .iter()
        .partition(|cluster| cluster.name == context.cluster);
    let authority = |cluster: &NamedCluster| {
        let cluster = cluster.cluster.as_ref()?;
        cluster.certificate_authority_data.clone()
    };
    let ours = chosen.first().and_then(|chosen| authority(chosen));
    // Without one there is nothing that says they belong together.
    let others = others
        .into_iter()
        .filter(|other| ours.is_some() && authority(other) == ours);
    chosen.extend(others);
    chosen
        .into_iter()
        .filter_map(|cluster| cluster.cluster.as_ref()?.server.as_ref()?.parse().ok())
        .collect()
}

/// Whether a server says that it is ready; `None` where it says nothing. The connection serves what is asked next.
async fn is_ready(client: &kube::Client) -> Option<bool> {
    let request = http::Request::get("/readyz").body(Vec::new()).ok()?;
    let answer = tokio::time::timeout(TRY_TIMEOUT, client.request_text(request));
    match answer.await {
        Ok(Ok(_)) => Some(true),
        Ok(Err(kube::Error::Api(_))) => Some(false),
        Ok(Err(_)) | Err(_) => None,
    }
}

fn choose(
    explicit: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    kubeconfig_is_set: bool,
    usual_data_dir: &Path,
    exists: impl Fn(&Path) -> bool,
) -> Option<PathBuf> {
    let in_folder = |dir: &Path| Some(data_dir::kubeconfig(dir)).filter(|path| exists(path));
    explicit
        .or_else(|| data_dir.as_deref().and_then(in_folder))
        .or_else(|| {
            (!kubeconfig_is_set)
                .then(|| in_folder(usual_data_dir))
                .flatten()
        })
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
        kube::Error::Service(error) => no_answer(what.into(), error.as_ref()),
        error => no_answer(what.into(), error),
    }
}

/// The cluster was not reached, or broke off.
fn no_answer(what: String, error: &(dyn std::error::Error + 'static)) -> Failure {
    let next = "is the cluster up? `weft up` starts one";
    // An I/O error around another one does not name it as its source.
    let causes = std::iter::successors(Some(error), |error| {
        match error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    });
    for cause in causes {
        let refused = cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        if refused {
            let why = "nothing listens at the address that the kubeconfig names";
            return Failure::new(what, why, next);
        }
        if let Some(rustls::Error::InvalidCertificate(_)) = cause.downcast_ref() {
            let why = format!("who answers there has no certificate of this cluster: {cause}");
            let next = "the kubeconfig is of another cluster, or of one that ran here before; take the one from the server's data folder";
            return Failure::new(what, why, next);
        }
    }
    Failure::new(what, chain(error), next)
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;
    use serde_json::json;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

        #[test]
        fn any_file_is_a_kubeconfig_or_a_sentence(
            text in prop_oneof![
                any::<String>(),
                "((apiVersion: v1|kind: Config|clusters:|contexts:|users:|current-context: [ab~]|- name: [ab]|  (cluster|context|user): ?(~|\\{cluster: a, user: b\\}|\\{server: 'https://[a-z: ]{0,4}'\\})?|&a \\*a|---|\t|[{\\[]| )\n?){0,12}",
            ]
        ) {
            match Kubeconfig::from_yaml(&text) {
                Ok(kubeconfig) => prop_assert!(servers(&kubeconfig).len() <= kubeconfig.clusters.len()),
                Err(error) => prop_assert!(!chain(&error).is_empty()),
            }
        }

        #[test]
        fn the_chosen_server_comes_first_and_others_are_of_its_authority(
            clusters in proptest::collection::btree_map("[a-d]", ("[a-z]{1,5}|a b|", proptest::option::of("[xy]")), 0..5),
            chosen in "[a-d]",
        ) {
            let url = |host: &str| format!("https://{host}");
            let written = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": chosen, "user": "u"}}],
                "clusters": clusters.iter().map(|(name, (host, authority))| {
                    json!({"name": name, "cluster": {"server": url(host), "certificate-authority-data": authority}})
                }).collect::<Vec<_>>(),
            });
            let read = Kubeconfig::from_yaml(&written.to_string()).unwrap();
            let ours = clusters.get(&chosen).map(|(_, authority)| authority.clone());
            let mut expected: Vec<&String> = clusters.get(&chosen).iter().map(|(host, _)| host).collect();
            expected.extend(clusters.iter().filter_map(|(name, (host, authority))| {
                (*name != chosen && authority.is_some() && Some(authority) == ours.as_ref()).then_some(host)
            }));
            let expected: Vec<http::Uri> = expected.into_iter().filter_map(|host| url(host).parse().ok()).collect();
            prop_assert_eq!(servers(&read), expected);
            let again = serde_json::to_string(&read).unwrap();
            let twice = serde_json::to_string(&Kubeconfig::from_yaml(&again).unwrap()).unwrap();
            prop_assert_eq!(twice, again);
        }
    }

    #[test]
    fn warnings_are_read_from_their_header() {
        for (value, text) in [
            (
                r#"299 - "unknown field \"spec.x\"""#,
                Some(r#"unknown field "spec.x""#),
            ),
            (r#"299 weft "a" "date""#, Some("a")),
            ("299 - \"a\u{1b}[2J\"", Some("a\u{fffd}[2J")),
            (r#"199 - "a""#, None),
            (r#"299 - "a"#, None),
            (r#"299 - a"#, None),
            ("", None),
        ] {
            assert_eq!(warning(value).as_deref(), text, "{value}");
        }
    }

    #[test]
    fn what_somebody_said_comes_before_what_lies_around() {
        for (explicit, data_dir, kubeconfig_is_set, there, chosen) in [
            (Some("/x"), Some("/d"), true, true, Some("/x")),
            (None, Some("/d"), true, true, Some("/d/kubeconfig")),
            (None, None, true, true, None),
            (None, None, false, true, Some("/usual/kubeconfig")),
            (None, Some("/d"), false, false, None),
        ] {
            let found = choose(
                explicit.map(PathBuf::from),
                data_dir.map(PathBuf::from),
                kubeconfig_is_set,
                Path::new("/usual"),
                |_| there,
            );
            assert_eq!(
                found.as_deref(),
                chosen.map(Path::new),
                "{explicit:?} {data_dir:?}"
            );
        }
    }

    #[test]
    fn other_servers_are_those_of_the_same_authority() {
        let text = r"
            apiVersion: v1
            kind: Config
            clusters:
            - {name: other, cluster: {server: 'https://o:1', certificate-authority-data: eA==}}
            - {name: weft-server-2, cluster: {server: 'https://b:2', certificate-authority-data: YQ==}}
            - {name: weft, cluster: {server: 'https://a:1', certificate-authority-data: YQ==}}
            contexts:
            - {name: weft, context: {cluster: weft, user: u}}
            - {name: other, context: {cluster: other, user: u}}
            current-context: weft
        ";
        let mut kubeconfig = Kubeconfig::from_yaml(text).unwrap();
        let hosts = |kubeconfig: &Kubeconfig| {
            let servers = servers(kubeconfig).into_iter();
            servers
                .map(|server| server.host().unwrap().to_owned())
                .collect::<String>()
        };
        assert_eq!(hosts(&kubeconfig), "ab");
        kubeconfig.current_context = Some("other".to_owned());
        assert_eq!(hosts(&kubeconfig), "o");
        kubeconfig.current_context = None;
        assert_eq!(hosts(&kubeconfig), "");
    }

    #[tokio::test]
    async fn a_server_is_asked_for_an_answer_and_not_for_a_connection() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let server = async |answer: Option<&'static str>| {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(answer) = answer else {
                    // As a process that was stopped.
                    return std::future::pending().await;
                };
                let _ = stream.read(&mut [0; 1024]).await;
                let head = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
            });
            url
        };
        for (url, ready) in [
            (server(Some("200 OK")).await, Some(true)),
            (server(Some("500 Not ready")).await, Some(false)),
            (server(None).await, None),
            ("http://127.0.0.1:1".to_owned(), None),
        ] {
            let config = kube::Config::new(url.parse().unwrap());
            let client = kube::Client::try_from(config).unwrap();
            assert_eq!(is_ready(&client).await, ready, "{url}");
        }
    }

    #[test]
    fn a_cluster_that_is_down_is_said_in_words() {
        let failure = |kind: ErrorKind| {
            let error = Error::other(Error::from(kind));
            api_failure("cannot get pods", &kube::Error::Service(error.into()))
        };
        let refused = failure(ErrorKind::ConnectionRefused);
        assert!(refused.why.starts_with("nothing listens"), "{refused}");
        assert!(failure(ErrorKind::ConnectionReset).why.contains("reset"));
        let stranger = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = Error::other(Error::new(ErrorKind::InvalidData, stranger));
        let told = api_failure("cannot get pods", &kube::Error::Service(error.into()));
        assert!(told.next.contains("of another cluster"), "{told}");
    }
}
