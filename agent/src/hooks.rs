//! What a container asks to be done once it runs, and before it is stopped: `lifecycle.postStart` and `lifecycle.preStop`.
//!
//! A command is run in the container's context; a request is the pod's own, to itself or to where it says, whatever is answered and by whomever: of a server that
//! speaks no TLS, what was to be asked over it is asked without. A pause is a pause. What failed is told in the kubelet's words.
//!
//! Left to others: when a hook is due and what follows from its failure (`execute`, `run`).

use crate::context::Context;
use crate::node::Node;
use crate::pod_view::{ContainerView, PodView};
use crate::prepare::workload_info;
use crate::socket_probe::{over_tls, speaks_no_tls};
use crate::sockets;
use http::Request;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use rustls_pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use weft_api::SpiffeId;
use weft_mesh::{CallerInfo, Outbound, PodAddress};

/// How long a request of a hook may take; a kubelet's client waits as long.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// One hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Exec(Vec<String>),
    Http {
        /// None is the pod itself.
        host: Option<String>,
        port: u16,
        path: String,
        headers: Vec<(String, String)>,
        is_tls: bool,
    },
    Sleep(Duration),
    /// `tcpSocket`, which nobody ever carried out.
    Nothing,
}

/// Both of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hooks {
    pub(crate) post_start: Option<Hook>,
    pub(crate) pre_stop: Option<Hook>,
}

/// Why a hook cannot be carried out here, as one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HookError {
    #[error("lifecycle.{hook}: the container has no port \"{port}\"")]
    NoPort { hook: &'static str, port: String },
}

/// Whose hook it is.
pub(crate) struct Place {
    pub(crate) node: Arc<Node>,
    pub(crate) context: Arc<Context>,
    pub(crate) container: String,
    /// `name_namespace(uid)`.
    pub(crate) pod: String,
    pub(crate) ip: IpAddr,
    /// Requests are the pod's own: what it may not call, its hooks may not.
    outbound: Outbound,
}

impl Place {
    pub(crate) fn new(
        node: &Arc<Node>,
        context: &Arc<Context>,
        container: &str,
        pod: &Pod,
        ip: IpAddr,
    ) -> Self {
        let pod = PodView(pod);
        let (namespace, account) = (pod.namespace(), pod.service_account());
        Self {
            node: node.clone(),
            context: context.clone(),
            container: container.to_owned(),
            pod: pod.full_name(),
            ip,
            outbound: node.mesh.outbound_of_pod(
                CallerInfo {
                    identity: SpiffeId::new(&node.trust_domain, namespace, account),
                    workload: workload_info(pod),
                },
                ip,
            ),
        }
    }
}

/// The hooks of a container.
///
/// # Errors
/// [`HookError`], a message for `CreateContainerConfigError`.
pub(crate) fn hooks(container: &Container) -> Result<Hooks, HookError> {
    let Some(lifecycle) = &container.lifecycle else {
        return Ok(Hooks::default());
    };
    let read = |hook, handler: &Option<LifecycleHandler>| {
        let handler = handler.as_ref();
        handler
            .map(|handler| read(container, hook, handler))
            .transpose()
    };
    Ok(Hooks {
        post_start: read("postStart", &lifecycle.post_start)?,
        pre_stop: read("preStop", &lifecycle.pre_stop)?,
    })
}

fn read(
    container: &Container,
    hook: &'static str,
    handler: &LifecycleHandler,
) -> Result<Hook, HookError> {
    if let Some(exec) = &handler.exec {
        return Ok(Hook::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(sleep) = &handler.sleep {
        let seconds = sleep.seconds.max(0).unsigned_abs();
        return Ok(Hook::Sleep(Duration::from_secs(seconds)));
    }
    let Some(get) = &handler.http_get else {
        return Ok(Hook::Nothing);
    };
    let scheme = get.scheme.as_deref().unwrap_or_default();
    let port = ContainerView(container).port_number(&get.port);
    let port = port.ok_or_else(|| HookError::NoPort {
        hook,
        port: crate::probes::written(&get.port),
    })?;
    let path = get.path.clone().unwrap_or_default();
    Ok(Hook::Http {
        host: get.host.clone().filter(|host| !host.is_empty()),
        port,
        path: match path.starts_with('/') {
            true => path,
            false => format!("/{path}"),
        },
        headers: get
            .http_headers
            .iter()
            .flatten()
            .map(|header| (header.name.clone(), header.value.clone()))
            .collect(),
        is_tls: scheme.eq_ignore_ascii_case("https"),
    })
}

impl Hook {
    /// Carries it out; dropping the future ends it.
    ///
    /// # Errors
    /// The kubelet's sentence about what failed.
    pub(crate) async fn run(&self, place: &Place) -> Result<(), String> {
        let Place { container, pod, .. } = place;
        match self {
            Hook::Nothing => Ok(()),
            Hook::Sleep(pause) => {
                tokio::time::sleep(*pause).await;
                Ok(())
            }
            Hook::Exec(command) => {
                let (error, output) = match place.context.run(&place.node, command, None).await {
                    Ok(ran) if ran.exit.code() == 0 => return Ok(()),
                    Ok(ran) => (
                        format!(
                            "command '{}' exited with {}: {}",
                            command.join(" "),
                            ran.exit.code(),
                            ran.stderr
                        ),
                        ran.output,
                    ),
                    Err(error) => (error.to_string(), String::new()),
                };
                Err(format!(
                    "Exec lifecycle hook ([{}]) for Container \"{container}\" in Pod \"{pod}\" failed - error: {error}, message: {output:?}",
                    command.join(" ")
                ))
            }
            Hook::Http { path, .. } => {
                let asked = tokio::time::timeout(REQUEST_MAX, self.ask(place)).await;
                let asked = asked.unwrap_or_else(|_| {
                    Err("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".into())
                });
                asked.map_err(|error| {
                    format!(
                        "HTTP lifecycle hook ({path}) for Container \"{container}\" in Pod \"{pod}\" failed - error: {error}"
                    )
                })
            }
        }
    }

    /// Makes its request; whatever is answered will do.
    async fn ask(&self, place: &Place) -> Result<(), String> {
        let Hook::Http {
            host,
            port,
            path,
            headers,
            is_tls,
        } = self
        else {
            return Ok(());
        };
        let port = *port;
        let own = SocketAddr::new(place.ip, port).to_string();
        let authority = match host {
            Some(host) => format!("{host}:{port}"),
            None => own.clone(),
        };
        let uri = format!("http://{authority}{path}");
        let request = |with: &dyn Fn(&str) -> bool| {
            let mut request = Request::get(&uri)
                .header(http::header::HOST, &authority)
                .header(http::header::USER_AGENT, "kube-lifecycle/1.37");
            for (name, value) in headers.iter().filter(|(name, _)| with(name)) {
                request = request.header(name, value);
            }
            let request = request.body(weft_mesh::Body::empty());
            request.map_err(|error| error.to_string())
        };
        let core = || place.node.next_core.fetch_add(1, Ordering::Relaxed);
        let over = |_| "the node is shutting down".to_owned();
        if *is_tls {
            let (node, at, request) = (place.node.clone(), authority.clone(), request(&|_| true)?);
            let outbound = place.outbound.clone();
            let name = host.clone().unwrap_or_else(|| place.ip.to_string());
            let asking = async move { ask_over_tls(&node, &outbound, &at, name, request).await };
            let asking = AbortOnDropHandle::new(place.node.cores.spawn_on(core(), asking));
            match asking.await.map_err(over)? {
                Ok(()) => return Ok(()),
                Err(None) => {}
                Err(Some(error)) => {
                    return Err(format!("Get \"https://{authority}{path}\": {error}"));
                }
            }
        }
        // What proves who asks is not said in the open.
        let is_open = |name: &str| !is_tls || !name.eq_ignore_ascii_case("authorization");
        let request = request(&is_open)?;
        let (caller, ip) = (place.outbound.clone(), place.ip);
        let is_own = authority == own;
        let calling = place.node.cores.spawn_on(core(), async move {
            let called = match is_own {
                true => caller.call_attached(PodAddress { ip, port }, request).await,
                false => caller.call(request).await,
            };
            called.map(|response| response.status())
        });
        let called = AbortOnDropHandle::new(calling).await.map_err(over)?;
        called
            .map(drop)
            .map_err(|error| format!("Get \"{uri}\": {error}"))
    }
}

/// Asks whoever serves TLS at `authority`; no error is told of one who speaks none.
async fn ask_over_tls(
    node: &Arc<Node>,
    outbound: &Outbound,
    authority: &str,
    name: String,
    request: Request<weft_mesh::Body>,
) -> Result<(), Option<String>> {
    let told = |error: &dyn std::fmt::Display| Some(error.to_string());
    let stream = sockets::dial(node, outbound, authority).await;
    let stream = stream.map_err(|error| told(&error))?;
    let name = ServerName::try_from(name).map_err(|error| told(&error))?;
    let stream = match over_tls(stream, name).await {
        Ok(stream) => stream,
        Err(error) if speaks_no_tls(&error) => return Err(None),
        Err(error) => return Err(told(&error)),
    };
    let asked = weft_mesh::speak(stream, request).await;
    asked.map(drop).map_err(|failure| told(&failure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(post_start: Value) -> Result<Option<Hook>, String> {
        let container = json!({
            "name": "web",
            "ports": [{"name": "http", "containerPort": 8080}],
            "lifecycle": {"postStart": post_start},
        });
        let container: Container = serde_json::from_value(container).expect("a container");
        let hooks = hooks(&container).map_err(|error| error.to_string())?;
        Ok(hooks.post_start)
    }

    #[test]
    fn hooks_are_read_with_their_defaults() {
        let http = |host: Option<&str>, path: &str, is_tls| Hook::Http {
            host: host.map(str::to_owned),
            port: 8080,
            path: path.into(),
            headers: vec![("X-A".into(), "1".into())],
            is_tls,
        };
        let headers = json!([{"name": "X-A", "value": "1"}]);
        for (handler, expected) in [
            (
                json!({"exec": {"command": ["sh", "-c", "true"]}}),
                Hook::Exec(vec!["sh".into(), "-c".into(), "true".into()]),
            ),
            (
                json!({"httpGet": {"port": "http", "httpHeaders": headers}}),
                http(None, "/", false),
            ),
            (
                json!({"httpGet": {"port": "http", "scheme": "HTTPS", "httpHeaders": headers}}),
                http(None, "/", true),
            ),
            (
                json!({"httpGet": {"port": 8080, "host": "db", "path": "up?x=1", "httpHeaders": headers}}),
                http(Some("db"), "/up?x=1", false),
            ),
            (
                json!({"sleep": {"seconds": 3}}),
                Hook::Sleep(Duration::from_secs(3)),
            ),
            (json!({"tcpSocket": {"port": 1}}), Hook::Nothing),
        ] {
            assert_eq!(of(handler.clone()), Ok(Some(expected)), "{handler}");
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_a_sentence() {
        let refused = of(json!({"httpGet": {"port": "nope"}}));
        let expected = "lifecycle.postStart: the container has no port \"nope\"";
        assert_eq!(refused, Err(expected.to_owned()));
    }
}
