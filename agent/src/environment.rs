//! The environment of a container: service variables, then `envFrom`, then `env`, each seeing those before it.
//!
//! [`references`] says which objects must be fetched, [`Context::environment`] resolves everything. Pure.
//!
//! Invariants: a reference that is not optional and does not resolve is an error; values of Secrets never reach a message;
//! what a container asks for, arguments included, has at most [`ENVIRONMENT_BYTES_MAX`] bytes, whatever refers to what.

use crate::config_error::ConfigError;
use crate::configuration::{Configuration, References};
use crate::downward::Downward;
use k8s_openapi::api::core::v1::{Container, EnvVarSource, Service};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Most bytes of the variables and arguments of one container: what Linux gives a process with a stack of 8 MiB. A value may
/// name the one before it twice, so that forty short lines would be a terabyte.
pub const ENVIRONMENT_BYTES_MAX: usize = 2 << 20;

/// Which ConfigMaps and Secrets the environment of `container` names.
pub fn references(container: &Container) -> References {
    let mut found = References::default();
    for source in container.env_from.iter().flatten() {
        found
            .config_maps
            .extend(source.config_map_ref.iter().map(|r| r.name.clone()));
        found
            .secrets
            .extend(source.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.value_from.as_ref())
    {
        found
            .config_maps
            .extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        found
            .secrets
            .extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    found
}

pub(crate) struct Context<'a> {
    pub(crate) at: Downward<'a>,
    pub(crate) container: &'a Container,
    pub(crate) configuration: &'a Configuration,
}

impl Context<'_> {
    /// The variables in the order they are defined in; a name defined twice keeps its last value.
    ///
    /// # Errors
    /// A reference that is not optional and does not resolve, or more than [`ENVIRONMENT_BYTES_MAX`].
    pub(crate) fn environment(&self, services: &[Service]) -> Result<Environment, ConfigError> {
        let mut env = Environment::default();
        let spec = self.at.pod.spec();
        let links = spec
            .and_then(|spec| spec.enable_service_links)
            .unwrap_or(true);
        for service in services {
            let kubernetes = service.metadata.namespace.as_deref() == Some("default")
                && service.metadata.name.as_deref() == Some("kubernetes");
            let own = service.metadata.namespace.as_deref() == Some(self.at.pod.namespace());
            if kubernetes || (own && links) {
                service_variables(service, &mut env);
            }
        }
        for source in self.container.env_from.iter().flatten() {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            if let Some(reference) = &source.config_map_ref {
                match self.configuration.config_maps.get(&reference.name) {
                    Some(map) => {
                        for (key, value) in map.data.iter().flatten() {
                            env.set_own(format!("{prefix}{key}"), value.clone())?;
                        }
                    }
                    None if reference.optional == Some(true) => {}
                    None => {
                        return Err(ConfigError::Missing {
                            kind: "configmap",
                            name: reference.name.clone(),
                        });
                    }
                }
            }
            if let Some(reference) = &source.secret_ref {
                match self.configuration.secrets.get(&reference.name) {
                    Some(secret) => {
                        for (key, value) in secret.data.iter().flatten() {
                            env.set_own(
                                format!("{prefix}{key}"),
                                self.text("Secret", &reference.name, key, value.0.clone())?,
                            )?;
                        }
                    }
                    None if reference.optional == Some(true) => {}
                    None => {
                        return Err(ConfigError::Missing {
                            kind: "secret",
                            name: reference.name.clone(),
                        });
                    }
                }
            }
        }
        for variable in self.container.env.iter().flatten() {
            let value = match (&variable.value, &variable.value_from) {
                (_, Some(source)) => match self.value_from(&variable.name, source)? {
                    Some(value) => value,
                    None => continue,
                },
                (Some(value), None) => env.expand(value)?,
                (None, None) => String::new(),
            };
            env.set_own(variable.name.clone(), value)?;
        }
        Ok(env)
    }

    /// `None` when an optional reference does not resolve: the variable is left out.
    fn value_from(
        &self,
        variable: &str,
        source: &EnvVarSource,
    ) -> Result<Option<String>, ConfigError> {
        if let Some(key) = &source.config_map_key_ref {
            let optional = key.optional == Some(true);
            let Some(map) = self.configuration.config_maps.get(&key.name) else {
                return if optional {
                    Ok(None)
                } else {
                    Err(ConfigError::Missing {
                        kind: "configmap",
                        name: key.name.clone(),
                    })
                };
            };
            if let Some(value) = map.data.as_ref().and_then(|data| data.get(&key.key)) {
                return Ok(Some(value.clone()));
            }
            return if optional {
                Ok(None)
            } else {
                Err(self.missing_key("ConfigMap", &key.name, &key.key))
            };
        }
        if let Some(key) = &source.secret_key_ref {
            let optional = key.optional == Some(true);
            let Some(secret) = self.configuration.secrets.get(&key.name) else {
                return if optional {
                    Ok(None)
                } else {
                    Err(ConfigError::Missing {
                        kind: "secret",
                        name: key.name.clone(),
                    })
                };
            };
            return match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
                Some(value) => self
                    .text("Secret", &key.name, &key.key, value.0.clone())
                    .map(Some),
                None if optional => Ok(None),
                None => Err(self.missing_key("Secret", &key.name, &key.key)),
            };
        }
        let of = || format!("environment variable {variable}");
        if let Some(field) = &source.field_ref {
            let text = self.at.field(&field.field_path);
            let text = text.ok_or_else(|| ConfigError::FieldPath {
                of: of(),
                path: field.field_path.clone(),
            })?;
            return Ok(Some(text));
        }
        if let Some(resource) = &source.resource_field_ref {
            let own = Some(self.container);
            return self.at.resource(&of(), own, resource).map(Some);
        }
        Err(ConfigError::Source {
            variable: variable.into(),
            what: "this kind of valueFrom",
        })
    }

    fn missing_key(&self, kind: &'static str, name: &str, key: &str) -> ConfigError {
        ConfigError::MissingKey {
            kind,
            namespace: self.at.pod.namespace().into(),
            name: name.into(),
            key: key.into(),
        }
    }

    fn text(
        &self,
        kind: &'static str,
        name: &str,
        key: &str,
        bytes: Vec<u8>,
    ) -> Result<String, ConfigError> {
        String::from_utf8(bytes).map_err(|_| ConfigError::NotText {
            kind,
            namespace: self.at.pod.namespace().into(),
            name: name.into(),
            key: key.into(),
        })
    }
}

/// Variables in the order they were defined; setting a name again moves nothing and replaces its value.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    variables: Vec<(String, String)>,
    index: BTreeMap<String, usize>,
    /// Of names, values and arguments that the container asks for; a namespace has as many services as it has.
    bytes: usize,
}

impl Environment {
    fn set(&mut self, name: String, value: String) {
        match self.index.get(&name) {
            Some(&at) => self.variables[at].1 = value,
            None => {
                self.index.insert(name.clone(), self.variables.len());
                self.variables.push((name, value));
            }
        }
    }

    /// What the container itself asks for, within its room.
    fn set_own(&mut self, name: String, value: String) -> Result<(), ConfigError> {
        let before = self.get(&name).map_or(0, |value| name.len() + value.len());
        self.bytes = self.bytes.saturating_sub(before);
        self.spend(name.len() + value.len())?;
        self.set(name, value);
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let at = *self.index.get(name)?;
        Some(&self.variables[at].1)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), ConfigError> {
        if bytes > ENVIRONMENT_BYTES_MAX - self.bytes {
            return Err(ConfigError::EnvironmentTooLarge {
                most: ENVIRONMENT_BYTES_MAX,
            });
        }
        self.bytes += bytes;
        Ok(())
    }

    /// `text` with the variables that are defined so far.
    fn expand(&self, text: &str) -> Result<String, ConfigError> {
        let room = ENVIRONMENT_BYTES_MAX - self.bytes;
        expand(text, |name| self.get(name), room).ok_or(ConfigError::EnvironmentTooLarge {
            most: ENVIRONMENT_BYTES_MAX,
        })
    }

    /// `command` or `args` with all variables.
    pub(crate) fn arguments(
        &mut self,
        words: Option<&Vec<String>>,
    ) -> Result<Vec<String>, ConfigError> {
        let mut arguments = Vec::new();
        for word in words.into_iter().flatten() {
            let argument = self.expand(word)?;
            self.spend(argument.len())?;
            arguments.push(argument);
        }
        Ok(arguments)
    }

    /// `text` of a `subPathExpr`.
    ///
    /// # Errors
    /// A variable that is not there, or empty.
    pub(crate) fn sub_path(&self, text: &str) -> Result<String, ConfigError> {
        let missing = RefCell::new(BTreeSet::new());
        let look = |name: &str| {
            let value = self.get(name).filter(|value| !value.is_empty());
            if value.is_none() {
                missing.borrow_mut().insert(name.to_owned());
            }
            value
        };
        let room = ENVIRONMENT_BYTES_MAX;
        let expanded = expand(text, look, room).ok_or(ConfigError::EnvironmentTooLarge {
            most: ENVIRONMENT_BYTES_MAX,
        })?;
        let missing: Vec<String> = missing.into_inner().into_iter().collect();
        match missing.is_empty() {
            true => Ok(expanded),
            false => Err(ConfigError::SubPath(format!(
                "missing value for {}",
                missing.join(", ")
            ))),
        }
    }

    pub(crate) fn into_variables(self) -> Vec<(String, String)> {
        self.variables
    }
}

/// `FOO_SERVICE_HOST`, `FOO_SERVICE_PORT[_NAME]` and the Docker-link forms, as the kubelet makes them.
fn service_variables(service: &Service, env: &mut Environment) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec
        .cluster_ip
        .as_deref()
        .filter(|ip| !ip.is_empty() && *ip != "None")
    else {
        return;
    };
    let Some(ports) = spec.ports.as_deref().filter(|ports| !ports.is_empty()) else {
        return;
    };
    let name = variable_name(service.metadata.name.as_deref().unwrap_or_default());
    env.set(format!("{name}_SERVICE_HOST"), ip.to_owned());
    env.set(format!("{name}_SERVICE_PORT"), ports[0].port.to_string());
    for port in ports {
        if let Some(port_name) = port
            .name
            .as_deref()
            .filter(|port_name| !port_name.is_empty())
        {
            env.set(
                format!("{name}_SERVICE_PORT_{}", variable_name(port_name)),
                port.port.to_string(),
            );
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{ip}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            env.set(format!("{name}_PORT"), url.clone());
        }
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_uppercase());
        env.set(prefix.clone(), url);
        env.set(format!("{prefix}_PROTO"), protocol.to_lowercase());
        env.set(format!("{prefix}_PORT"), port.port.to_string());
        env.set(format!("{prefix}_ADDR"), ip.to_owned());
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// Kubernetes' expansion: `$(NAME)` if it is defined, left as it stands if not; `$$` is `$`. `None` where that would be more
/// than `bytes_max`.
///
/// Source: k8s.io/kubernetes `third_party/forked/golang/expansion`.
fn expand<'v>(
    text: &str,
    value_of: impl Fn(&str) -> Option<&'v str>,
    bytes_max: usize,
) -> Option<String> {
    let mut out = String::with_capacity(text.len().min(bytes_max));
    let mut push = |piece: &str| {
        let fits = piece.len() <= bytes_max - out.len();
        fits.then(|| out.push_str(piece))
    };
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        push(&rest[..at])?;
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            push("$")?;
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match value_of(name) {
                Some(value) => push(value)?,
                None => {
                    push("$(")?;
                    push(name)?;
                    push(")")?;
                }
            }
            rest = after;
        } else {
            push("$")?;
        }
    }
    push(rest)?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_facts::NodeFacts;
    use crate::pod_view::PodView;
    use k8s_openapi::api::core::v1::Pod;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn resolved(container: &Value) -> Result<(Vec<String>, Vec<String>), ConfigError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "t", "uid": "u"}, "spec": {"containers": [container]},
        }))
        .expect("a pod");
        let map =
            json!({"data": {"URL": "http://$(HOST)", "app.properties": "a=$(B)", "a-b.c": "x"}});
        let secret = json!({"data": {"d": "JChCKQ=="}});
        let configuration = Configuration {
            config_maps: BTreeMap::from([(
                "settings".to_owned(),
                serde_json::from_value(map).expect("a map"),
            )]),
            secrets: BTreeMap::from([(
                "keys".to_owned(),
                serde_json::from_value(secret).expect("a secret"),
            )]),
            ..Configuration::default()
        };
        let probe: Service = serde_json::from_value(json!({
            "metadata": {"name": "probe", "namespace": "t"}, "spec": {"clusterIP": "10.43.0.9", "ports": [{"port": 80}]},
        }))
        .expect("a service");
        let container = &pod.spec.as_ref().expect("a spec").containers[0];
        let context = Context {
            at: Downward {
                pod: PodView(&pod),
                pod_ip: "10.42.0.7".parse().expect("an address"),
                node: &NodeFacts {
                    name: "node-0".into(),
                    host_ip: "127.0.0.1".parse().expect("an address"),
                    allocatable_cpu_millis: 2000,
                    allocatable_memory_bytes: 4 << 30,
                },
            },
            container,
            configuration: &configuration,
        };
        let mut env = context.environment(&[probe])?;
        let mut arguments = env.arguments(container.command.as_ref())?;
        arguments.extend(env.arguments(container.args.as_ref())?);
        let variables = env.into_variables().into_iter();
        let own = variables.filter(|(name, _)| !name.starts_with("PROBE_"));
        let lines = own.map(|(name, value)| format!("{name}={value}"));
        Ok((lines.collect(), arguments))
    }

    #[test]
    fn references_look_back_and_what_comes_from_a_map_or_a_secret_is_not_expanded() {
        let (env, arguments) = resolved(&json!({
            "name": "main", "command": ["$(B)"], "args": ["$(C)", "$(NOPE)", "$$(B)"],
            "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "P_", "configMapRef": {"name": "settings"}}],
            "env": [
                {"name": "A", "value": "$(B)"},
                {"name": "B", "value": "1"},
                {"name": "C", "value": "$(B)-$$(B)-$(NOPE)-$(B"},
                {"name": "D", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "d"}}},
                {"name": "E", "value": "$(D)"},
                {"name": "F", "value": "$(PROBE_SERVICE_HOST)"},
                {"name": "TWICE", "value": "first"},
                {"name": "G", "value": "$(TWICE) $(URL) $(P_app.properties)"},
                {"name": "TWICE", "value": "not $(TWICE)"},
            ],
        }))
        .expect("everything is there");
        insta::assert_snapshot!(env.join("\n"), @r"
        URL=http://$(HOST)
        a-b.c=x
        app.properties=a=$(B)
        P_URL=http://$(HOST)
        P_a-b.c=x
        P_app.properties=a=$(B)
        A=$(B)
        B=1
        C=1-$(B)-$(NOPE)-$(B
        D=$(B)
        E=$(B)
        F=10.43.0.9
        TWICE=not first
        G=first http://$(HOST) a=$(B)
        ");
        assert_eq!(arguments, ["1", "1-$(B)-$(NOPE)-$(B", "$(NOPE)", "$(B)"]);
    }

    #[test]
    fn values_that_double_each_other_end_at_a_bound() {
        let mut env = vec![json!({"name": "V0", "value": "x".repeat(1 << 10)})];
        for n in 1..60 {
            let value = format!("$(V{0})$(V{0})", n - 1);
            env.push(json!({"name": format!("V{n}"), "value": value}));
        }
        let told =
            "the variables and arguments have more than 2097152 bytes, with what they refer to";
        let doubled = resolved(&json!({"name": "main", "env": env}));
        assert_eq!(doubled.expect_err("it has no end").to_string(), told);
        // Half of the room in one variable, and once more in an argument, is one byte too much with the names.
        let half = "x".repeat(ENVIRONMENT_BYTES_MAX / 2 - 100);
        let container = |words: &[&str]| json!({"name": "main", "args": words, "env": [{"name": "V", "value": half}]});
        assert!(resolved(&container(&["$(V)"])).is_ok());
        let doubled = resolved(&container(&["$(V)", "$(V)"]));
        assert_eq!(doubled.expect_err("too much").to_string(), told);
        // A name that is set again has the room of its last value only.
        let again = vec![json!({"name": "V", "value": half}); 5];
        assert!(resolved(&json!({"name": "main", "env": again})).is_ok());
    }

    /// Kubernetes' own, byte for byte.
    fn expanded_as_upstream(input: &str, value_of: impl Fn(&str) -> String) -> String {
        let (input_bytes, mut out, mut checkpoint, mut cursor) =
            (input.as_bytes(), String::new(), 0, 0);
        while cursor < input_bytes.len() {
            if input_bytes[cursor] == b'$' && cursor + 1 < input_bytes.len() {
                out.push_str(&input[checkpoint..cursor]);
                let rest = &input[cursor + 1..];
                let (read, is_variable, advance) = match rest.as_bytes()[0] {
                    b'$' => ("$".to_owned(), false, 1),
                    b'(' => match rest.find(')') {
                        Some(end) => (rest[1..end].to_owned(), true, end + 1),
                        None => ("$(".to_owned(), false, 1),
                    },
                    _ => (format!("${}", &rest[..1]), false, 1),
                };
                out.push_str(&if is_variable { value_of(&read) } else { read });
                cursor += advance;
                checkpoint = cursor + 1;
            }
            cursor += 1;
        }
        out + &input[checkpoint..]
    }

    proptest! {
        #![proptest_config(crate::properties::config())]

        #[test]
        fn a_text_expands_as_upstream_and_within_its_room(text in "[$()ABx]{0,24}", room in 0..40_usize) {
            let value = |name: &str| match name {
                "A" => Some("$(B)"),
                "B" => Some(""),
                "AB" => Some("12345678"),
                _ => None,
            };
            let upstream = expanded_as_upstream(&text, |name| {
                value(name).map_or_else(|| format!("$({name})"), str::to_owned)
            });
            prop_assert_eq!(expand(&text, value, usize::MAX), Some(upstream.clone()));
            prop_assert_eq!(expand(&text, value, room), Some(upstream).filter(|text| text.len() <= room));
        }

        #[test]
        fn any_text_expands(text in any::<String>()) {
            prop_assert_eq!(expand(&text.replace('$', "$$"), |_| None, usize::MAX), Some(text));
        }
    }

    #[test]
    fn references_names_each_object_once() {
        let container: Container = serde_json::from_value(json!({
            "name": "web",
            "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "s"}}],
            "env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "k"}}}],
        }))
        .expect("a container");
        let found = references(&container);
        assert_eq!((found.config_maps.len(), found.secrets.len()), (1, 1));
    }
}
