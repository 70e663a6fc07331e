//! The server that is compared, and its answers beside the recorded ones.

use std::time::Duration;

use base64::Engine as _;
use http::header;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::is_definition;
use crate::world::{JSON, Setup, World};

const NAMESPACE: &str = "diff";
/// Stands in the corpus for the resourceVersion that an object has here.
const CURRENT: &str = "CURRENT";
/// Who made the objects that are changed, and who applies to them.
const MAKER: &str = "maker";
const APPLIER: &str = "applier";

pub struct Answer {
    pub code: u16,
    pub message: String,
    pub object: Value,
}

impl Answer {
    pub fn recorded(case: &Value) -> Self {
        let mut object = case["object"].clone();
        let is_binary = matches!(
            case["action"].as_str(),
            Some("read protobuf" | "list protobuf")
        );
        if is_binary && object.is_string() {
            let bytes = base64::engine::general_purpose::STANDARD.decode(object.as_str().unwrap());
            object = weft_kinds::protobuf::decode(&bytes.unwrap()).unwrap().value;
        }
        Self {
            code: case["code"].as_u64().unwrap() as u16,
            message: case["message"].as_str().unwrap_or_default().to_owned(),
            object,
        }
    }
}

/// The server that is compared, and what it is asked about.
pub struct Compared {
    world: World,
    /// Of each manifest's object, once it is there.
    versions: Vec<Option<String>>,
}

impl Compared {
    pub async fn new() -> Self {
        // Nothing signs: a request stays as it was sent, as it does there without controllers.
        let setup = Setup {
            signs: false,
            ..Setup::default()
        };
        let compared = Self {
            world: World::with(setup).await,
            versions: Vec::new(),
        };
        compared.world.define_gateway_api().await;
        for (path, body) in [
            (
                "/api/v1/namespaces".to_owned(),
                json!({ "metadata": { "name": NAMESPACE } }),
            ),
            (
                format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"),
                json!({ "metadata": { "name": "default" } }),
            ),
        ] {
            let answer = compared.send("POST", &path, JSON, &body).await;
            assert!(
                matches!(answer.code, 201 | 409),
                "{path}: {}",
                answer.message
            );
        }
        compared
    }

    /// Makes the kinds that the manifests define, and waits until they are served.
    pub async fn define(&self, manifests: &[Value]) {
        let objects = &self.world.objects;
        let closing = CancellationToken::new();
        tokio::spawn(objects.clone().follow_definitions(closing.clone()));
        tokio::spawn(objects.clone().tend_definitions(closing));
        for definition in manifests.iter().filter(|one| is_definition(one)) {
            let path = self.path_of(definition);
            let answer = self.send("POST", &path, JSON, definition).await;
            let name = &definition["metadata"]["name"];
            if answer.code != 201 {
                println!("{name}: {}", answer.message);
                continue;
            }
            let spec = &definition["spec"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let (group, kind) = (text(&spec["group"]), text(&spec["names"]["kind"]));
            let served = async {
                while objects.registry().by_group_kind(&group, &kind).is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let patience = Duration::from_secs(60);
            if tokio::time::timeout(patience, served).await.is_err() {
                println!("{name} is not served");
            }
        }
    }

    /// What changes are about. One that is refused here is missed by each of them.
    pub async fn create_all(&mut self, manifests: &[Value]) {
        for manifest in manifests {
            let mut version = None;
            if manifest["metadata"]["name"].is_string() {
                let path = self.path_of(manifest);
                let made = format!("{path}?fieldManager={MAKER}");
                let mut answer = self.send("POST", &made, JSON, manifest).await;
                if answer.code == 409 {
                    let name = manifest["metadata"]["name"].as_str().unwrap();
                    answer = self
                        .send("GET", &format!("{path}/{name}"), JSON, &json!({}))
                        .await;
                }
                if !matches!(answer.code, 200 | 201) {
                    println!("{path}: {}", answer.message);
                }
                let made = &answer.object["metadata"]["resourceVersion"];
                version = made.as_str().map(str::to_owned);
            }
            self.versions.push(version);
        }
    }

    pub async fn ask(&self, manifest: &Value, case: &Value) -> Answer {
        let collection = self.path_of(manifest);
        let mut query = format!(
            "dryRun=All&fieldValidation={}",
            case["validation"].as_str().unwrap()
        );
        let action = case["action"].as_str().unwrap();
        match action {
            "apply" => query += &format!("&fieldManager={APPLIER}"),
            "apply force" => query += &format!("&fieldManager={APPLIER}&force=true"),
            "delete" => query = "dryRun=All".to_owned(),
            _ => {}
        }
        let mut words = action.split(' ').peekable();
        let below = words.next_if(|word| matches!(*word, "status" | "scale"));
        let (method, media_type) = match words.next() {
            Some("create") => ("POST", JSON),
            Some("json") => ("PATCH", "application/json-patch+json"),
            Some("merge") => ("PATCH", "application/merge-patch+json"),
            Some("strategic") => ("PATCH", "application/strategic-merge-patch+json"),
            Some("apply") => ("PATCH", "application/apply-patch+yaml"),
            Some("delete") => ("DELETE", JSON),
            Some("read") => {
                let name = manifest["metadata"]["name"].as_str().unwrap_or("none");
                return self.read(&format!("{collection}/{name}"), action).await;
            }
            Some("list" | "watch") => {
                let name = manifest["metadata"]["name"].as_str().unwrap_or("none");
                let more = match action {
                    "list table" => "&includeObject=Object",
                    "watch json" => "&watch=1",
                    _ => "",
                };
                let path = format!("{collection}?fieldSelector=metadata.name%3D{name}{more}");
                return self.read(&path, action).await;
            }
            _ => ("PUT", JSON),
        };
        let name = manifest["metadata"]["name"].as_str().unwrap_or("none");
        let path = match (method, below) {
            ("POST", _) => collection,
            (_, None) => format!("{collection}/{name}"),
            (_, Some(below)) => format!("{collection}/{name}/{below}"),
        };
        let mut body = case["body"].clone();
        for pointer in [
            "/metadata/resourceVersion",
            "/preconditions/resourceVersion",
        ] {
            if let Some(named) = body.pointer_mut(pointer)
                && *named == CURRENT
            {
                let index = case["manifest"].as_u64().unwrap() as usize;
                *named = self.versions[index].clone().unwrap_or_default().into();
            }
        }
        self.send(method, &format!("{path}?{query}"), media_type, &body)
            .await
    }

    /// An object or a list in one of its forms, decoded; of a watch, the first event.
    async fn read(&self, path: &str, action: &str) -> Answer {
        let accept = match action {
            "read yaml" | "list yaml" => "application/yaml",
            "read protobuf" | "list protobuf" => "application/vnd.kubernetes.protobuf",
            "read table" | "list table" => "application/json;as=Table;v=v1;g=meta.k8s.io",
            "list metadata" => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "read metadata" => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            _ => JSON,
        };
        let request = self
            .world
            .request(&format!("GET {path}"), &[(header::ACCEPT, accept)], "");
        let (code, bytes) = match action {
            "watch json" => self.first_line(request).await,
            _ => self.world.send_for_bytes(request).await,
        };
        let object: Value = match action {
            "read yaml" | "list yaml" => {
                serde_saphyr::from_str(&String::from_utf8(bytes).unwrap()).unwrap()
            }
            "read protobuf" | "list protobuf" if code < 300 => {
                weft_kinds::protobuf::decode(&bytes).unwrap().value
            }
            // A refusal may be plain text.
            _ => serde_json::from_slice(&bytes).unwrap_or_default(),
        };
        let told = object["message"].as_str().filter(|_| code >= 300);
        Answer {
            code,
            message: told.unwrap_or_default().to_owned(),
            object,
        }
    }

    /// A watch has no end: what it begins with.
    async fn first_line(&self, request: http::Request<axum::body::Body>) -> (u16, Vec<u8>) {
        let response = self.world.router.clone().oneshot(request).await.unwrap();
        let (code, mut body) = (response.status().as_u16(), response.into_body());
        let mut bytes = Vec::new();
        while !bytes.contains(&b'\n')
            && let Some(frame) = body.frame().await
        {
            bytes.extend(frame.unwrap().into_data().unwrap_or_default());
        }
        let first = bytes.split(|byte| *byte == b'\n').next();
        (code, first.unwrap_or_default().to_vec())
    }

    async fn send(&self, method: &str, path: &str, media_type: &str, body: &Value) -> Answer {
        let line = format!("{method} {path}");
        let headers = [(header::CONTENT_TYPE, media_type)];
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let request = self.world.request(&line, &headers, &body);
        let answer = self.world.send(request).await;
        let told = answer.body["message"].as_str();
        Answer {
            code: answer.status,
            message: told
                .filter(|_| answer.status >= 300)
                .unwrap_or_default()
                .to_owned(),
            object: answer.body,
        }
    }

    /// Where objects like this one are.
    fn path_of(&self, manifest: &Value) -> String {
        let (version, kind) = (
            manifest["apiVersion"].as_str().unwrap(),
            manifest["kind"].as_str().unwrap(),
        );
        let (group, plain) = version.split_once('/').unwrap_or(("", version));
        let registry = self.world.objects.registry();
        let kind = registry
            .by_kind(group, plain, kind)
            .unwrap_or_else(|| panic!("{version} {kind} is not served"));
        let root = match version.contains('/') {
            true => "apis",
            false => "api",
        };
        match kind.namespaced {
            true => format!("/{root}/{version}/namespaces/{NAMESPACE}/{}", kind.resource),
            false => format!("/{root}/{version}/{}", kind.resource),
        }
    }
}
