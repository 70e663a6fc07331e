//! The values of granted configuration: ConfigMaps and Secrets merged key by key. Pure.
//!
//! Invariants: what is missing and not optional is an error; values are text, within bounds; no value ever reaches a message.

use std::collections::BTreeMap;

use super::granted::{ConfigSource, SourceKind};
use crate::config_error::ConfigError;
use crate::configuration::Configuration;

/// Bytes of all keys and values that one ServiceAccount is granted: as much as one ConfigMap may have.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// Keys of all of them.
pub const CONFIG_KEYS_MAX: usize = 4096;

/// What guests see.
pub type Values = BTreeMap<String, String>;

/// Merges what `sources` name of `configuration`, which holds what exists.
///
/// # Errors
/// [`ConfigError`] in Kubernetes' words for a source that is missing and not optional, a value that is no text, or too much of both.
pub fn merge(
    namespace: &str,
    sources: &[ConfigSource],
    configuration: &Configuration,
) -> Result<Values, ConfigError> {
    let mut merged = Merged::default();
    for source in sources {
        let prefix = &source.prefix;
        let is_there = match source.kind {
            SourceKind::ConfigMap => {
                let map = configuration.config_maps.get(&source.name);
                for (key, value) in map.iter().filter_map(|map| map.data.as_ref()).flatten() {
                    merged.insert(format!("{prefix}{key}"), value.clone())?;
                }
                map.is_some()
            }
            SourceKind::Secret => {
                let secret = configuration.secrets.get(&source.name);
                for (key, value) in secret
                    .iter()
                    .filter_map(|secret| secret.data.as_ref())
                    .flatten()
                {
                    let text = std::str::from_utf8(&value.0);
                    let text = text.map_err(|_| ConfigError::ConfigNotText {
                        namespace: namespace.to_owned(),
                        name: source.name.clone(),
                        key: key.clone(),
                    })?;
                    merged.insert(format!("{prefix}{key}"), text.to_owned())?;
                }
                secret.is_some()
            }
        };
        if !is_there && !source.optional {
            return Err(ConfigError::Missing {
                kind: match source.kind {
                    SourceKind::ConfigMap => "configmap",
                    SourceKind::Secret => "secret",
                },
                name: source.name.clone(),
            });
        }
    }
    Ok(merged.values)
}

#[derive(Default)]
struct Merged {
    values: Values,
    bytes: usize,
}

impl Merged {
    fn insert(&mut self, key: String, value: String) -> Result<(), ConfigError> {
        let added = key.len() + value.len();
        let before = self
            .values
            .get(&key)
            .map_or(0, |value| key.len() + value.len());
        self.bytes = self.bytes - before + added;
        self.values.insert(key, value);
        if self.bytes > CONFIG_BYTES_MAX || self.values.len() > CONFIG_KEYS_MAX {
            return Err(ConfigError::ConfigTooLarge {
                bytes: CONFIG_BYTES_MAX,
                keys: CONFIG_KEYS_MAX,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};

    use super::*;

    fn source(kind: SourceKind, name: &str, prefix: &str, optional: bool) -> ConfigSource {
        ConfigSource {
            kind,
            name: name.to_owned(),
            optional,
            prefix: prefix.to_owned(),
        }
    }

    fn configuration() -> Configuration {
        let text = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            Some(
                pairs
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            )
        };
        let map = |pairs| ConfigMap {
            data: text(pairs),
            ..ConfigMap::default()
        };
        let secret = |key: &str, value: &[u8]| Secret {
            data: Some([(key.to_owned(), ByteString(value.to_vec()))].into()),
            ..Secret::default()
        };
        let mut all = Configuration::default();
        all.config_maps
            .insert("base".into(), map(&[("colour", "blue"), ("size", "1")]));
        all.config_maps
            .insert("more".into(), map(&[("colour", "red")]));
        all.config_maps.insert("empty".into(), ConfigMap::default());
        let many: BTreeMap<String, String> =
            (0..4097).map(|n| (format!("{n}"), String::new())).collect();
        all.config_maps.insert(
            "many".into(),
            ConfigMap {
                data: Some(many),
                ..ConfigMap::default()
            },
        );
        all.config_maps
            .insert("large".into(), map(&[("k", &"x".repeat(CONFIG_BYTES_MAX))]));
        all.secrets
            .insert("key".into(), secret("token", b"hunter2"));
        all.secrets
            .insert("bytes".into(), secret("token", b"\xff\xfehunter2"));
        all
    }

    #[test]
    fn later_values_win_and_what_is_missing_is_said_as_kubernetes_says_it() {
        use SourceKind::{ConfigMap, Secret};
        let all = configuration();
        let cases = [
            (vec![], Ok("")),
            (
                vec![
                    source(ConfigMap, "base", "", false),
                    source(ConfigMap, "more", "", false),
                ],
                Ok("colour=red size=1"),
            ),
            (
                vec![
                    source(ConfigMap, "more", "", false),
                    source(ConfigMap, "base", "", false),
                ],
                Ok("colour=blue size=1"),
            ),
            (
                vec![
                    source(ConfigMap, "base", "app.", false),
                    source(Secret, "key", "", false),
                ],
                Ok("app.colour=blue app.size=1 token=hunter2"),
            ),
            (vec![source(ConfigMap, "empty", "", false)], Ok("")),
            (
                vec![
                    source(ConfigMap, "absent", "", true),
                    source(Secret, "absent", "", true),
                ],
                Ok(""),
            ),
            (
                vec![source(ConfigMap, "absent", "", false)],
                Err("configmap \"absent\" not found"),
            ),
            (
                vec![source(Secret, "absent", "", false)],
                Err("secret \"absent\" not found"),
            ),
            (
                vec![source(Secret, "bytes", "", false)],
                Err(
                    "key token in Secret shop/bytes is not UTF-8 text, so it cannot be configuration of a component",
                ),
            ),
            (
                vec![source(ConfigMap, "many", "", false)],
                Err(
                    "the granted configuration has more than 1048576 bytes or 4096 keys; grant less of it to one ServiceAccount",
                ),
            ),
            (
                vec![source(ConfigMap, "large", "", false)],
                Err(
                    "the granted configuration has more than 1048576 bytes or 4096 keys; grant less of it to one ServiceAccount",
                ),
            ),
        ];
        for (sources, expected) in cases {
            let found = merge("shop", &sources, &all).map(|values| {
                let pairs = values.iter().map(|(key, value)| format!("{key}={value}"));
                pairs.collect::<Vec<_>>().join(" ")
            });
            let found = found.map_err(|error| error.to_string());
            assert_eq!(
                found.as_deref().map_err(String::as_str),
                expected,
                "{sources:?}"
            );
            if let Err(message) = &found {
                assert!(!message.contains("hunter2"));
            }
        }
    }
}
