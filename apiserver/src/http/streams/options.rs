//! What is asked of a pod by exec, attach and port-forward: `PodExecOptions`, `PodAttachOptions` and `PodPortForwardOptions` of a query, and which container
//! that leaves.
//!
//! Pure; refusals are Kubernetes' sentences.

use serde_json::{Map, Value, json};
use weft_api::status::StatusError;
use weft_kinds::Subresource;
use weft_kinds::lens::{items, put, text};

use crate::request::Params;

/// Words of a command, and bytes of all of them: what fits a request's head.
const COMMAND_WORDS_MAX: usize = 4096;
/// Ports that one connection may forward in the form that names them in its query.
const PORTS_MAX: usize = 64;

/// The options of a query as the object that admission is shown.
pub(super) fn of_query(subresource: Subresource, params: &Params) -> Result<Value, StatusError> {
    let kind = match subresource.own_kind() {
        Some((_, _, kind)) => kind,
        None => return Err(StatusError::unknown_path()),
    };
    let mut options = json!({"kind": kind, "apiVersion": "v1"});
    if subresource == Subresource::PortForward {
        let ports = params.pairs().iter().filter(|(name, _)| name == "ports");
        let mut numbers = Vec::new();
        for (_, value) in ports.take(PORTS_MAX) {
            for part in value.split(',') {
                let number: i32 = part.parse().map_err(|_| {
                    StatusError::bad_request(format!(
                        "strconv.ParseInt: parsing {part:?}: invalid syntax"
                    ))
                })?;
                numbers.push(number);
            }
        }
        if !numbers.is_empty() {
            options["ports"] = json!(numbers);
        }
        return Ok(options);
    }
    for flag in ["stdin", "stdout", "stderr", "tty"] {
        if params.flag(flag) == Some(true) {
            options[flag] = true.into();
        }
    }
    let container = params.get("container").map(Value::from);
    put(&mut options, "container", container);
    if subresource == Subresource::Exec {
        let words = params.pairs().iter().filter(|(name, _)| name == "command");
        let words: Vec<&str> = words.map(|(_, word)| word.as_str()).collect();
        if words.len() > COMMAND_WORDS_MAX {
            return Err(StatusError::bad_request(format!(
                "a command has {} words, more than the {COMMAND_WORDS_MAX} that it may have",
                words.len()
            )));
        }
        if !words.is_empty() {
            options["command"] = json!(words);
        }
    }
    Ok(options)
}

/// Which streams there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Wanted {
    /// # Errors
    /// 400 where there would be none.
    pub(super) fn of(options: &Value) -> Result<Self, StatusError> {
        let flag = |name: &str| options.get(name).and_then(Value::as_bool) == Some(true);
        let tty = flag("tty");
        let wanted = Self {
            stdin: flag("stdin"),
            stdout: flag("stdout"),
            // A terminal is one stream.
            stderr: flag("stderr") && !tty,
            tty,
        };
        if !(wanted.stdin || wanted.stdout || wanted.stderr) {
            return Err(StatusError::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        Ok(wanted)
    }

    /// As a node is asked for it.
    fn query(self) -> String {
        let flags = [
            ("stdin", self.stdin),
            ("stdout", self.stdout),
            ("stderr", self.stderr),
            ("tty", self.tty),
        ];
        let flags = flags.iter().filter(|(_, is)| *is);
        let flags: Vec<String> = flags.map(|(name, _)| format!("{name}=1")).collect();
        flags.join("&")
    }
}

/// The container that is meant.
///
/// # Errors
/// 400 where there are several to choose from, or none of that name.
pub(crate) fn container<'p>(pod: &'p Value, asked: &'p str) -> Result<&'p str, StatusError> {
    let name = text(pod, "/metadata/name");
    let names = |list: &str| items(pod, list).iter().map(|one| text(one, "/name"));
    let all = ["initContainers", "containers", "ephemeralContainers"];
    let mut all = all.iter().flat_map(|list| names(&format!("/spec/{list}")));
    if !asked.is_empty() {
        return match all.any(|found| found == asked) {
            true => Ok(asked),
            false => Err(StatusError::bad_request(format!(
                "container {asked} is not valid for pod {name}"
            ))),
        };
    }
    match items(pod, "/spec/containers") {
        [only] => Ok(text(only, "/name")),
        [] => Err(StatusError::bad_request(format!(
            "a container name must be specified for pod {name}"
        ))),
        _ => {
            let all: Vec<&str> = all.collect();
            Err(StatusError::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                all.join(" ")
            )))
        }
    }
}

/// The node that a pod is on.
///
/// # Errors
/// 400 for a pod that is on none.
pub(super) fn node(pod: &Value) -> Result<&str, StatusError> {
    match text(pod, "/spec/nodeName") {
        "" => Err(StatusError::bad_request(format!(
            "pod {} does not have a host assigned",
            text(pod, "/metadata/name")
        ))),
        node => Ok(node),
    }
}

/// Where a node is asked for it: names are labels and subdomains, which need no escaping.
pub(super) fn node_path(
    subresource: Subresource,
    pod: &Value,
    container: &str,
    options: &Value,
    wanted: Wanted,
) -> String {
    let name = |pointer: &str| text(pod, pointer);
    let (namespace, pod, uid) = (
        name("/metadata/namespace"),
        name("/metadata/name"),
        name("/metadata/uid"),
    );
    let mut query = wanted.query();
    if subresource == Subresource::Exec {
        let mut words = form_urlencoded::Serializer::new(String::new());
        for word in items(options, "/command") {
            words.append_pair("command", word.as_str().unwrap_or_default());
        }
        query = format!("{}&{query}", words.finish());
    }
    format!(
        "/{}/{namespace}/{pod}/{uid}/{container}?{query}",
        subresource.name()
    )
}

/// The ports of a query, for the form of forwarding that names them there.
///
/// # Errors
/// 400 for none, and for what is no port.
pub(super) fn ports(options: &Value) -> Result<Vec<u16>, StatusError> {
    let ports = items(options, "/ports").iter().map(|port| {
        let number = port.as_i64().unwrap_or_default();
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        port.ok_or_else(|| match number {
            0 => StatusError::bad_request("port \"0\" must be > 0"),
            _ => StatusError::bad_request(format!("unable to parse \"{number}\" as a port")),
        })
    });
    let ports: Vec<u16> = ports.collect::<Result<_, _>>()?;
    match ports.len() {
        0 => Err(StatusError::bad_request(
            "query parameter \"ports\" is required",
        )),
        1..=PORTS_MAX => Ok(ports),
        many => Err(StatusError::bad_request(format!(
            "{many} ports are more than the {PORTS_MAX} of one connection"
        ))),
    }
}

/// What admission made of the options, without what it adds to every object.
pub(super) fn admitted(options: Value) -> Value {
    match options {
        Value::Object(mut options) => {
            options.retain(|field, value| {
                field != "metadata"
                    || value
                        .as_object()
                        .is_some_and(|map: &Map<String, Value>| !map.is_empty())
            });
            Value::Object(options)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::request::RequestInfo;

    fn query(subresource: Subresource, query: &str) -> Result<Value, StatusError> {
        let uri = format!("/?{query}").parse().unwrap();
        let registry = weft_kinds::Registry::builtin();
        let info = RequestInfo::of(&registry, &Method::GET, &uri);
        of_query(subresource, info.params().unwrap())
    }

    #[test]
    fn queries_are_options() {
        for (subresource, text, expected) in [
            (
                Subresource::Exec,
                "command=sh&command=-c&command=a%20b&stdin=1&stdout=true&stderr=0&tty&container=web",
                json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "stdout": true, "tty": true, "container": "web", "command": ["sh", "-c", "a b"]}),
            ),
            (
                Subresource::Attach,
                "stdout=1&command=x",
                json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdout": true}),
            ),
            (
                Subresource::PortForward,
                "ports=80&ports=81,82",
                json!({"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": [80, 81, 82]}),
            ),
        ] {
            assert_eq!(query(subresource, text).unwrap(), expected, "{text}");
        }
        let wrong = query(Subresource::PortForward, "ports=http").unwrap_err();
        assert_eq!(
            (wrong.code, wrong.message.as_str()),
            (400, "strconv.ParseInt: parsing \"http\": invalid syntax")
        );
    }

    #[test]
    fn a_terminal_is_one_stream_and_none_is_refused() {
        let of = |text| Wanted::of(&query(Subresource::Exec, text).unwrap());
        assert_eq!(
            of("tty=1&stdin=1&stdout=1&stderr=1").unwrap().query(),
            "stdin=1&stdout=1&tty=1"
        );
        for none in ["command=sh", "tty=1&stderr=1"] {
            assert_eq!(
                of(none).unwrap_err().message,
                "you must specify at least 1 of stdin, stdout, stderr"
            );
        }
    }

    #[test]
    fn the_container_is_chosen_as_kubernetes_does() {
        let pod = |init: &[&str], containers: &[&str], ephemeral: &[&str]| {
            let named = |names: &[&str]| -> Vec<Value> {
                names.iter().map(|name| json!({"name": name})).collect()
            };
            json!({"metadata": {"name": "p"}, "spec": {
                "initContainers": named(init), "containers": named(containers), "ephemeralContainers": named(ephemeral),
            }})
        };
        for (pod, asked, expected) in [
            (pod(&[], &["a"], &[]), "", Ok("a")),
            (pod(&["i"], &["a"], &["e"]), "", Ok("a")),
            (pod(&["i"], &["a"], &["e"]), "e", Ok("e")),
            (pod(&["i"], &["a"], &["e"]), "i", Ok("i")),
            (
                pod(&["i"], &["a", "b"], &["e"]),
                "",
                Err("a container name must be specified for pod p, choose one of: [i a b e]"),
            ),
            (
                pod(&[], &["a"], &[]),
                "x",
                Err("container x is not valid for pod p"),
            ),
            (
                pod(&[], &[], &[]),
                "",
                Err("a container name must be specified for pod p"),
            ),
        ] {
            let found = container(&pod, asked).map_err(|error| error.message);
            assert_eq!(found.as_deref().map_err(String::as_str), expected);
        }
    }

    #[test]
    fn what_a_node_is_asked() {
        let pod = json!({"metadata": {"namespace": "n", "name": "p", "uid": "u"}});
        let options = query(
            Subresource::Exec,
            "command=sh&command=a%26b+%C3%A9&stdout=1",
        )
        .unwrap();
        let wanted = Wanted::of(&options).unwrap();
        assert_eq!(
            node_path(Subresource::Exec, &pod, "c", &options, wanted),
            "/exec/n/p/u/c?command=sh&command=a%26b+%C3%A9&stdout=1"
        );
        assert_eq!(
            node_path(Subresource::Attach, &pod, "c", &options, wanted),
            "/attach/n/p/u/c?stdout=1"
        );
    }

    #[test]
    fn ports_are_named_in_the_query() {
        for (text, expected) in [
            ("ports=80,8080", Ok(vec![80, 8080])),
            ("", Err("query parameter \"ports\" is required")),
            ("ports=0", Err("port \"0\" must be > 0")),
            ("ports=70000", Err("unable to parse \"70000\" as a port")),
        ] {
            let found = ports(&query(Subresource::PortForward, text).unwrap());
            let found = found.map_err(|error| error.message);
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        }
    }
}
