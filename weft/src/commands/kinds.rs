//! Which kinds the cluster serves, and which of them a user means.
//!
//! A kind has many names: `pods`, `pod`, `po`, `Pod`, `deployments.apps`. `all` is the kinds that the cluster itself counts
//! to that category. What is served is asked once a command.

use kube::discovery::{ApiResource, Scope};
use serde_json::Value;

use crate::exit::Failure;
use crate::kubeconfig::api_failure;

/// The kinds that a cluster serves, in its own order.
pub struct Kinds(Vec<Kind>);

#[derive(Debug, Clone)]
pub struct Kind {
    pub resource: ApiResource,
    pub scope: Scope,
    /// Everything it is called, in lower case.
    names: Vec<String>,
    categories: Vec<String>,
    /// There are objects of it, not only questions that the server answers.
    listed: bool,
}

impl Kinds {
    /// # Errors
    /// A [`Failure`] when the cluster does not answer.
    pub async fn discover(client: &kube::Client) -> Result<Self, Failure> {
        let failed = |error: &kube::Error| api_failure("cannot ask which kinds are served", error);
        let mut groups = vec![("api/v1".to_owned(), String::new(), "v1".to_owned())];
        let listed = client.list_api_groups().await.map_err(|e| failed(&e))?;
        for group in listed.groups {
            let version = group
                .preferred_version
                .as_ref()
                .or(group.versions.first())
                .map(|version| version.version.clone())
                .unwrap_or_default();
            let path = format!("apis/{}/{version}", group.name);
            groups.push((path, group.name, version));
        }
        let mut kinds = Vec::new();
        for (path, group, version) in groups {
            let request = http::Request::get(format!("/{path}"))
                .body(Vec::new())
                .map_err(|error| Failure::new("cannot ask for the kinds", error, ""))?;
            let list: Value = client.request(request).await.map_err(|e| failed(&e))?;
            let resources = list["resources"].as_array();
            kinds.extend(
                resources
                    .into_iter()
                    .flatten()
                    .filter_map(|resource| Kind::read(resource, &group, &version)),
            );
        }
        Ok(Self(kinds))
    }

    /// The kinds that `name` means: one, or all of a category.
    ///
    /// # Errors
    /// A [`Failure`] when it means none; it lists what is served.
    pub fn find(&self, name: &str) -> Result<Vec<&Kind>, Failure> {
        let wanted = name.to_lowercase();
        if let Some(kind) = self.0.iter().find(|kind| kind.names.contains(&wanted)) {
            return Ok(vec![kind]);
        }
        let category: Vec<&Kind> = self
            .0
            .iter()
            .filter(|kind| kind.categories.contains(&wanted))
            .collect();
        if !category.is_empty() {
            return Ok(category);
        }
        let mut served: Vec<&str> = self
            .0
            .iter()
            .filter(|kind| kind.listed)
            .map(|kind| kind.resource.plural.as_str())
            .collect();
        served.sort_unstable();
        // Events are served by two groups.
        served.dedup();
        Err(Failure::new(
            format!("cannot find the kind {name:?}"),
            "the cluster serves no such kind",
            format!("one of: {}", served.join(", ")),
        )
        .usage())
    }

    /// The one kind that `name` means.
    ///
    /// # Errors
    /// As [`Kinds::find`], and when it means several.
    pub fn resolve(&self, name: &str) -> Result<&Kind, Failure> {
        match self.find(name)?.as_slice() {
            [kind] => Ok(kind),
            _ => Err(Failure::new(
                format!("cannot tell which objects {name:?} means"),
                "it stands for several kinds",
                "name a kind, as in `pod web-1` or `deployment/web`",
            )
            .usage()),
        }
    }
}

impl Kind {
    /// From an entry of discovery; a subresource is no kind.
    fn read(resource: &Value, group: &str, version: &str) -> Option<Self> {
        let text = |key: &str| resource[key].as_str().unwrap_or_default();
        let list = |key: &str| -> Vec<String> {
            let items = resource[key].as_array().into_iter().flatten();
            items
                .filter_map(|item| item.as_str().map(str::to_lowercase))
                .collect()
        };
        let plural = text("name");
        if plural.contains('/') {
            return None;
        }
        let mut names = vec![plural.to_owned(), text("kind").to_lowercase()];
        names.push(text("singularName").to_owned());
        if !group.is_empty() {
            names.push(format!("{plural}.{group}"));
            names.push(format!("{}.{group}", text("singularName")));
        }
        names.extend(list("shortNames"));
        names.retain(|name| !name.is_empty());
        Some(Self {
            resource: ApiResource {
                plural: plural.into(),
                kind: text("kind").into(),
                group: group.to_owned(),
                version: version.to_owned(),
                api_version: match group {
                    "" => version.to_owned(),
                    group => format!("{group}/{version}"),
                },
            },
            scope: if resource["namespaced"] == Value::Bool(true) {
                Scope::Namespaced
            } else {
                Scope::Cluster
            },
            names,
            categories: list("categories"),
            listed: list("verbs").iter().any(|verb| verb == "list"),
        })
    }
}

/// What a user named: a kind, and the names of its objects or none for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub kind: String,
    pub names: Vec<String>,
}

/// Reads `pods`, `pod a b`, `pod/a svc/b` and `deploy,rs,pods`.
///
/// # Errors
/// A [`Failure`] when both forms are mixed, or a name is missing.
pub fn named(what: &[String]) -> Result<Vec<Named>, Failure> {
    let unclear = |why: &str| {
        Failure::new(
            "cannot tell which objects are meant",
            why,
            "write `pod a b` or `pod/a service/b`",
        )
        .usage()
    };
    let Some(first) = what.first() else {
        return Ok(Vec::new());
    };
    if !first.contains('/') {
        if what.iter().skip(1).any(|name| name.contains('/')) {
            return Err(unclear("KIND/NAME and KIND NAME are mixed"));
        }
        return Ok(first
            .split(',')
            .map(|kind| Named {
                kind: kind.to_owned(),
                names: what[1..].to_vec(),
            })
            .collect());
    }
    let mut found: Vec<Named> = Vec::new();
    for text in what {
        let Some((kind, name)) = text.split_once('/') else {
            return Err(unclear("KIND/NAME and KIND NAME are mixed"));
        };
        if kind.is_empty() || name.is_empty() {
            return Err(unclear("KIND/NAME lacks one of the two"));
        }
        match found.last_mut() {
            Some(last) if last.kind == kind => last.names.push(name.to_owned()),
            _ => found.push(Named {
                kind: kind.to_owned(),
                names: vec![name.to_owned()],
            }),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_named_as_in_kubectl() {
        for (text, expected) in [
            ("pods", "pods:"),
            ("pod a b", "pod:a+b"),
            ("pod/a pod/b", "pod:a+b"),
            ("pod/a svc/b", "pod:a svc:b"),
            ("deploy,rs web", "deploy:web rs:web"),
            ("pod a/b", "KIND/NAME and KIND NAME are mixed"),
            ("pod/a b", "KIND/NAME and KIND NAME are mixed"),
            ("pod/", "KIND/NAME lacks one of the two"),
        ] {
            let what: Vec<String> = text.split(' ').map(str::to_owned).collect();
            let found = match named(&what) {
                Ok(found) => found
                    .iter()
                    .map(|named| format!("{}:{}", named.kind, named.names.join("+")))
                    .collect::<Vec<_>>()
                    .join(" "),
                Err(failure) => failure.why,
            };
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_kind_goes_by_all_its_names() {
        let read = |value: Value| Kind::read(&value, "apps", "v1");
        let deployment = json!({"name": "deployments", "singularName": "deployment", "kind": "Deployment",
            "namespaced": true, "shortNames": ["deploy"], "categories": ["all"], "verbs": ["get", "list"]});
        let status =
            json!({"name": "deployments/status", "kind": "Deployment", "namespaced": true});
        let node = json!({"name": "nodes", "singularName": "node", "kind": "Node", "namespaced": false, "verbs": ["list"]});
        let review =
            json!({"name": "selfsubjectreviews", "kind": "SelfSubjectReview", "verbs": ["create"]});
        let kinds = Kinds(
            [deployment, status, review, node]
                .into_iter()
                .filter_map(read)
                .collect(),
        );
        let found = |name: &str| match kinds.find(name) {
            Ok(found) => found
                .iter()
                .map(|kind| kind.resource.kind.clone())
                .collect::<Vec<_>>()
                .join(" "),
            Err(failure) => failure.next,
        };
        for name in [
            "deploy",
            "Deployment",
            "DEPLOYMENTS",
            "deployments.apps",
            "deployment.apps",
            "all",
        ] {
            assert_eq!(found(name), "Deployment", "{name}");
        }
        assert_eq!(found("dep"), "one of: deployments, nodes");
    }
}
