//! One object by its resource and name, as JSON: what commands about a kind of their own read and write.
//!
//! Left to others: kinds that are not known beforehand (`kinds.rs`), manifests (`apply.rs`).

use http::{Method, Request};
use serde_json::Value;

use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};

/// Whom changes are of, as `metadata.managedFields` has it.
const MANAGER: &str = "weft-cli";

/// Objects of one resource in one namespace.
pub struct Resource {
    client: kube::Client,
    /// `/apis/GROUP/VERSION/namespaces/NAMESPACE/RESOURCE`
    path: String,
    /// As sentences name one.
    noun: &'static str,
}

impl Resource {
    /// Those of `resource` (`apps/v1/replicasets`) in the namespace that is meant.
    ///
    /// # Errors
    /// When there is no cluster to talk to.
    pub async fn open(
        args: &ClientArgs,
        namespace: Option<&str>,
        resource: &str,
        noun: &'static str,
    ) -> Result<Self, Failure> {
        let client = args.client().await?;
        let namespace = namespace.unwrap_or(client.default_namespace()).to_owned();
        Ok(Self::of(client, &namespace, resource, noun))
    }

    fn of(client: kube::Client, namespace: &str, resource: &str, noun: &'static str) -> Self {
        let (version, resource) = resource.rsplit_once('/').unwrap_or(("v1", resource));
        let root = match version.contains('/') {
            true => "apis",
            false => "api",
        };
        Self {
            client,
            path: format!("/{root}/{version}/namespaces/{namespace}/{resource}"),
            noun,
        }
    }

    /// Those of another resource in the same namespace.
    pub fn beside(&self, resource: &str, noun: &'static str) -> Self {
        Self::of(self.client.clone(), self.namespace(), resource, noun)
    }

    pub fn namespace(&self) -> &str {
        let mut parts = self.path.rsplit('/');
        parts.nth(1).unwrap_or_default()
    }

    /// # Errors
    /// What the server says.
    pub async fn get(&self, name: &str) -> Result<Value, Failure> {
        let path = format!("{}/{name}", self.path);
        let found = self.ask(Method::GET, &path, None, "").await;
        found.map_err(|error| api_failure(format!("cannot read {} {name}", self.noun), &error))
    }

    /// None where it is not there.
    ///
    /// # Errors
    /// What else the server says.
    pub async fn find(&self, name: &str) -> Result<Option<Value>, Failure> {
        let path = format!("{}/{name}", self.path);
        match self.ask(Method::GET, &path, None, "").await {
            Ok(found) => Ok(Some(found)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(api_failure(
                format!("cannot read {} {name}", self.noun),
                &error,
            )),
        }
    }

    /// All of the namespace.
    ///
    /// # Errors
    /// What the server says.
    pub async fn list(&self) -> Result<Vec<Value>, Failure> {
        let found = self.ask(Method::GET, &self.path, None, "").await;
        let mut found =
            found.map_err(|error| api_failure(format!("cannot list {}s", self.noun), &error))?;
        match found["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// A merge patch.
    ///
    /// # Errors
    /// What the server says.
    pub async fn patch(&self, name: &str, body: &Value) -> Result<Value, Failure> {
        let path = format!("{}/{name}?fieldManager={MANAGER}", self.path);
        let kind = "application/merge-patch+json";
        let patched = self.ask(Method::PATCH, &path, Some(body), kind).await;
        patched.map_err(|error| api_failure(format!("cannot change {} {name}", self.noun), &error))
    }

    /// Puts this in its place, if nobody has changed it since it was read.
    ///
    /// # Errors
    /// What the server says.
    pub async fn replace(&self, name: &str, body: &Value) -> Result<Value, Failure> {
        let path = format!("{}/{name}?fieldManager={MANAGER}", self.path);
        let replaced = self
            .ask(Method::PUT, &path, Some(body), "application/json")
            .await;
        replaced.map_err(|error| api_failure(format!("cannot change {} {name}", self.noun), &error))
    }

    /// # Errors
    /// What the server says.
    pub async fn create(&self, body: &Value) -> Result<Value, Failure> {
        let path = format!("{}?fieldManager={MANAGER}", self.path);
        let created = self
            .ask(Method::POST, &path, Some(body), "application/json")
            .await;
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        created.map_err(|error| api_failure(format!("cannot make {} {name}", self.noun), &error))
    }

    /// Whether it was there.
    ///
    /// # Errors
    /// What the server says.
    pub async fn delete(&self, name: &str) -> Result<bool, Failure> {
        let path = format!("{}/{name}", self.path);
        match self.ask(Method::DELETE, &path, None, "").await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(api_failure(
                format!("cannot delete {} {name}", self.noun),
                &error,
            )),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        kind: &str,
    ) -> Result<Value, kube::Error> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, kind);
        }
        let body = body.map(|body| body.to_string().into_bytes());
        let request = request.body(body.unwrap_or_default());
        let request = request.map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}
