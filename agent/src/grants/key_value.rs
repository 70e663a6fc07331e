//! The cluster's key-value stores as a container of this node reaches them: over the API server, an operation a request.
//!
//! What is granted is looked up at each operation, so that a grant that was withdrawn or narrowed holds for guests that run. The API server
//! judges the same again: the request says for which pod it is.
//!
//! ```text
//! POST /apis/weft.dev/v1alpha1/namespaces/NS/keyvaluestores/NAME/data      weft-pod: NAMESPACE/NAME/UID
//! {"op": "get", "key": …}  →  {"value": base64, "revision": …}  or a Status
//! ```
//! Tried again: what the server says it did not take (429, 503), and reads that got no answer. A write that got none may have happened, and is
//! told as that and not sent again: the server knows it by its id only until somebody else writes the key.
//!
//! Invariants: operations under way are bounded for the pod and the node; answers are read up to [`ANSWER_BYTES_MAX`]; an operation ends
//! when it is dropped, at the latest after [`ANSWER_WITHIN`] for each try.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use weft_runtime::host::keyvalue::{Entry, Operation, Page, Swap};
use weft_runtime::{KeyValueError, KeyValueStore};

use super::Account;
use super::granted::{Access, StoreGrant};
use crate::identity::{Chain, Link};
use crate::pod_view::PodView;

/// Operations of all pods of this node that are under way: as many as the API server takes of one node.
const OPERATIONS_MAX: usize = 64;
/// Of these for one container; further ones wait.
const OPERATIONS_OF_ONE_MAX: usize = 32;
/// Values of a batch have a mebibyte together. Base64 adds to it, and so do a thousand keys, which JSON may write six times as long.
pub const ANSWER_BYTES_MAX: usize = 6 << 20;
/// What one try may take: a write is one entry of the log on most servers, and a leader is found again within seconds.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Further tries after the first.
const RETRIES_MAX: u32 = 5;
/// The pause before the first of them; doubled each time, with jitter.
const PAUSE: Duration = Duration::from_millis(50);

const POD: HeaderName = HeaderName::from_static("weft-pod");

/// Operations of this node that are under way.
#[derive(Clone)]
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(OPERATIONS_MAX)))
    }
}

/// What one container reaches stores by.
#[derive(Clone)]
pub struct Stores {
    link: Link,
    account: Arc<Account>,
    /// `NAMESPACE/NAME/UID`.
    pod: HeaderValue,
    node: Places,
    own: Arc<Semaphore>,
}

impl Stores {
    /// For a container of `pod` that runs under `account`.
    pub fn new(link: Link, account: Arc<Account>, pod: PodView<'_>, node: Places) -> Self {
        let name = format!("{}/{}/{}", pod.namespace(), pod.name(), pod.uid());
        Self {
            link,
            account,
            // Names and uids of objects are ASCII; a server that is told nothing refuses.
            pod: HeaderValue::from_str(&name).unwrap_or_else(|_| HeaderValue::from_static("")),
            node,
            own: Arc::new(Semaphore::new(OPERATIONS_OF_ONE_MAX)),
        }
    }

    /// The store that guests open as `identifier`, whichever that is at the time.
    pub fn store(&self, identifier: &str) -> Store {
        Store {
            stores: self.clone(),
            identifier: identifier.to_owned(),
        }
    }
}

/// One store, as a guest has opened it.
pub struct Store {
    stores: Stores,
    identifier: String,
}

/// What is asked of a store. Values are base64.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "camelCase")]
enum Asked<'a> {
    Get {
        key: &'a str,
    },
    GetMany {
        keys: &'a [String],
    },
    Set {
        key: &'a str,
        value: String,
    },
    SetMany {
        entries: Vec<NewEntry>,
    },
    Delete {
        key: &'a str,
    },
    DeleteMany {
        keys: &'a [String],
    },
    Exists {
        key: &'a str,
    },
    ListKeys {
        #[serde(skip_serializing_if = "Option::is_none")]
        cursor: Option<&'a str>,
    },
    Increment {
        key: &'a str,
        delta: i64,
    },
    CompareAndSet {
        key: &'a str,
        revision: u64,
        value: String,
    },
}

/// An operation, and of a write what the server knows it again by.
#[derive(Debug, Serialize)]
struct Message<'a> {
    #[serde(flatten)]
    operation: &'a Asked<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

#[derive(Debug, Serialize)]
struct NewEntry {
    key: String,
    value: String,
}

impl Asked<'_> {
    fn is_read(&self) -> bool {
        match self {
            Self::Get { .. }
            | Self::GetMany { .. }
            | Self::Exists { .. }
            | Self::ListKeys { .. } => true,
            Self::Set { .. }
            | Self::SetMany { .. }
            | Self::Delete { .. }
            | Self::DeleteMany { .. }
            | Self::Increment { .. }
            | Self::CompareAndSet { .. } => false,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Value {
    key: String,
    value: Option<String>,
    revision: u64,
}

impl Value {
    fn entry(self) -> Result<Option<Entry>, KeyValueError> {
        let Some(value) = self.value else {
            return Ok(None);
        };
        let value = BASE64
            .decode(value)
            .map_err(|_| unreadable("a value is not base64"))?;
        Ok(Some(Entry {
            value: value.into(),
            revision: self.revision,
        }))
    }
}

#[derive(Debug, Deserialize)]
struct Values {
    values: Vec<Value>,
}

#[derive(Debug, Deserialize)]
struct Exists {
    exists: bool,
}

#[derive(Debug, Deserialize)]
struct Number {
    number: i64,
}

#[derive(Debug, Deserialize)]
struct Swapped {
    swapped: bool,
    #[serde(flatten)]
    value: Value,
}

/// Of a write, only that it was.
#[derive(Debug, Deserialize)]
struct Written {}

/// `metav1.Status`, as far as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
}

fn other(reason: String) -> KeyValueError {
    KeyValueError::Other { reason }
}

fn unreadable(why: &str) -> KeyValueError {
    other(format!("the API server's answer cannot be read: {why}"))
}

impl KeyValueStore for Store {
    fn get<'a>(&'a self, key: &'a str) -> Operation<'a, Option<Entry>> {
        Box::pin(async move {
            let value: Value = self.ask(&Asked::Get { key }).await?;
            value.entry()
        })
    }

    fn get_many<'a>(&'a self, keys: &'a [String]) -> Operation<'a, Vec<Option<Entry>>> {
        Box::pin(async move {
            let Values { values } = self.ask(&Asked::GetMany { keys }).await?;
            let mut pairs = values.iter().zip(keys);
            if values.len() != keys.len() || pairs.any(|(value, key)| value.key != *key) {
                return Err(unreadable("it is for other keys"));
            }
            values.into_iter().map(Value::entry).collect()
        })
    }

    fn set<'a>(&'a self, key: &'a str, value: Bytes) -> Operation<'a, ()> {
        Box::pin(async move {
            let value = BASE64.encode(value);
            self.write(&Asked::Set { key, value }).await
        })
    }

    fn set_many(&self, entries: Vec<(String, Bytes)>) -> Operation<'_, ()> {
        Box::pin(async move {
            let entries = entries.into_iter().map(|(key, value)| NewEntry {
                key,
                value: BASE64.encode(value),
            });
            let entries = entries.collect();
            self.write(&Asked::SetMany { entries }).await
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Operation<'a, ()> {
        Box::pin(async move { self.write(&Asked::Delete { key }).await })
    }

    fn delete_many<'a>(&'a self, keys: &'a [String]) -> Operation<'a, ()> {
        Box::pin(async move { self.write(&Asked::DeleteMany { keys }).await })
    }

    fn exists<'a>(&'a self, key: &'a str) -> Operation<'a, bool> {
        Box::pin(async move {
            let Exists { exists } = self.ask(&Asked::Exists { key }).await?;
            Ok(exists)
        })
    }

    fn list_keys<'a>(&'a self, cursor: Option<&'a str>) -> Operation<'a, Page> {
        Box::pin(async move { self.ask(&Asked::ListKeys { cursor }).await })
    }

    fn increment<'a>(&'a self, key: &'a str, delta: i64) -> Operation<'a, i64> {
        Box::pin(async move {
            let Number { number } = self.ask(&Asked::Increment { key, delta }).await?;
            Ok(number)
        })
    }

    fn compare_and_set<'a>(
        &'a self,
        key: &'a str,
        revision: u64,
        value: Bytes,
    ) -> Operation<'a, Swap> {
        Box::pin(async move {
            let value = BASE64.encode(value);
            let asked = Asked::CompareAndSet {
                key,
                revision,
                value,
            };
            let Swapped { swapped, value } = self.ask(&asked).await?;
            match swapped {
                true => Ok(Swap::Done {
                    revision: value.revision,
                }),
                false => value.entry().map(Swap::Changed),
            }
        })
    }
}

impl Store {
    async fn write(&self, asked: &Asked<'_>) -> Result<(), KeyValueError> {
        let Written {} = self.ask(asked).await?;
        Ok(())
    }

    /// The store that is granted for this operation.
    fn granted(&self, is_read: bool) -> Result<StoreGrant, KeyValueError> {
        let granted = self.stores.account.granted();
        let identity = &self.stores.account.identity;
        let Some(store) = granted.key_value.get(&self.identifier) else {
            return Err(KeyValueError::AccessDenied {
                missing: format!(
                    "no CapabilityGrant gives ServiceAccount {}/{} a key-value store as \"{}\" any more",
                    identity.namespace, identity.service_account, self.identifier
                ),
            });
        };
        if !is_read && store.access == Access::ReadOnly {
            return Err(KeyValueError::AccessDenied {
                missing: format!(
                    "{} lets store {} be read only; writing would need access: ReadWrite",
                    store.grant, store.store
                ),
            });
        }
        Ok(store.clone())
    }

    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        operation: &Asked<'_>,
    ) -> Result<T, KeyValueError> {
        // Neither semaphore is ever closed.
        let _own = self.stores.own.acquire().await;
        let message = Message {
            operation,
            id: (!operation.is_read()).then(|| format!("{:032x}", rand::random::<u128>())),
        };
        let body = serde_json::to_vec(&message).map_err(|error| other(error.to_string()))?;
        let body = Bytes::from(body);
        let mut attempt = 0;
        loop {
            let store = self.granted(operation.is_read())?;
            let tried = async {
                // Not held while it pauses: stores that are busy keep nobody from others.
                let _node = self.stores.node.0.acquire().await;
                tokio::time::timeout(ANSWER_WITHIN, self.once(&store, body.clone())).await
            };
            let failed = match tried
                .await
                .unwrap_or(Err(Failed::Unanswered("it took too long".into())))
            {
                Ok((status, answer)) if status.is_success() => {
                    return serde_json::from_slice(&answer)
                        .map_err(|error| unreadable(&error.to_string()));
                }
                Ok((status, answer)) => Failed::Answered(status, answer),
                Err(failed) => failed,
            };
            let again = match &failed {
                Failed::Answered(status, _) => {
                    matches!(
                        *status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
                    )
                }
                Failed::Unanswered(_) => operation.is_read(),
            };
            if !again || attempt >= RETRIES_MAX {
                return Err(self.error(&store, failed, operation.is_read()));
            }
            let pause = PAUSE * 2_u32.saturating_pow(attempt);
            tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * rand::random::<f64>())).await;
            attempt += 1;
        }
    }

    async fn once(&self, store: &StoreGrant, body: Bytes) -> Result<(StatusCode, Bytes), Failed> {
        let unanswered =
            |error: &dyn std::error::Error| Failed::Unanswered(Chain(error).to_string());
        let namespace = &self.stores.account.identity.namespace;
        let request = Request::post(format!(
            "/apis/weft.dev/v1alpha1/namespaces/{namespace}/keyvaluestores/{}/data",
            store.store
        ))
        .header(header::CONTENT_TYPE, "application/json")
        .header(POD, self.stores.pod.clone())
        .body(kube::client::Body::from(Vec::from(body)))
        .map_err(|error| unanswered(&error))?;
        let sent = self.stores.link.client().send(request).await;
        let (head, body) = sent.map_err(|error| unanswered(&error))?.into_parts();
        let read = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let read = read.map_err(|error| unanswered(&*error))?;
        Ok((head.status, read.to_bytes()))
    }

    fn error(&self, store: &StoreGrant, failed: Failed, is_read: bool) -> KeyValueError {
        let (status, answer) = match failed {
            Failed::Answered(status, answer) => (status, answer),
            Failed::Unanswered(why) => {
                let perhaps = if is_read {
                    ""
                } else {
                    "; the write may have happened"
                };
                return other(format!("the API server could not be asked: {why}{perhaps}"));
            }
        };
        let told: Status = serde_json::from_slice(&answer).unwrap_or_default();
        match status {
            StatusCode::NOT_FOUND => {
                tracing::debug!(identity = %self.stores.account.identity, store = store.store, grant = store.grant, "a store that is granted does not exist");
                KeyValueError::NoSuchStore
            }
            StatusCode::FORBIDDEN => KeyValueError::AccessDenied {
                missing: told.message,
            },
            StatusCode::INSUFFICIENT_STORAGE => KeyValueError::QuotaExceeded {
                reason: told.message,
            },
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::BAD_REQUEST
            | StatusCode::CONFLICT => other(told.message),
            status => other(format!(
                "the API server answered {status}: {}",
                told.message
            )),
        }
    }
}

enum Failed {
    Answered(StatusCode, Bytes),
    Unanswered(String),
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use http::Response;
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::json;
    use weft_api::SpiffeId;

    use super::super::granted::GrantSpec;
    use super::*;

    type Answers = Arc<Mutex<VecDeque<Option<(u16, serde_json::Value)>>>>;

    /// A server that answers what it is told, or hangs up, and what it was asked.
    struct Server {
        answers: Answers,
        asked: Arc<Mutex<Vec<String>>>,
        /// By which writes are known again.
        ids: Arc<Mutex<Vec<String>>>,
        account: Arc<Account>,
        store: Store,
    }

    impl Server {
        fn new() -> Self {
            let (answers, asked) = (Answers::default(), Arc::new(Mutex::new(Vec::new())));
            let (told, heard) = (answers.clone(), asked.clone());
            let ids = Arc::new(Mutex::new(Vec::new()));
            let known = ids.clone();
            let service = tower::service_fn(move |request: Request<Body>| {
                let (told, heard, ids) = (told.clone(), heard.clone(), known.clone());
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect_bytes().await.expect("a body");
                    let pod = head.headers[POD].to_str().expect("text").to_owned();
                    let text = String::from_utf8_lossy(&body).into_owned();
                    // Another for each write, and the same each time that it is sent.
                    let (text, id) = match text.split_once(",\"id\":\"") {
                        None => (text, None),
                        Some((asked, id)) => (format!("{asked}}}"), id.strip_suffix("\"}")),
                    };
                    ids.lock().extend(id.map(str::to_owned));
                    heard
                        .lock()
                        .push(format!("{} {pod} {text}", head.uri.path()));
                    let next = told.lock().pop_front().expect("an answer is left");
                    let (status, body) = next.ok_or_else(|| {
                        Box::<dyn std::error::Error + Send + Sync>::from("hung up")
                    })?;
                    let response = Response::builder()
                        .status(status)
                        .body(Body::from(body.to_string().into_bytes()));
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(response.expect("a response"))
                }
            });
            let client = kube::Client::new(service, "default");
            let account = Arc::new(Account::new(SpiffeId::new("cluster.local", "shop", "cart")));
            let pod = json!({"metadata": {"name": "cart-1", "namespace": "shop", "uid": "u-1"}});
            let pod = serde_json::from_value(pod).expect("a pod");
            let stores = Stores::new(
                Link::of(client),
                account.clone(),
                PodView(&pod),
                Places::default(),
            );
            let server = Self {
                answers,
                asked,
                ids,
                account,
                store: stores.store("default"),
            };
            server.grant("ReadWrite");
            server
        }

        fn grant(&self, access: &str) {
            let spec = json!({"serviceAccountNames": ["cart"], "keyValue": [
                {"identifier": "default", "store": "carts", "access": access},
            ]});
            let spec: GrantSpec = serde_json::from_value(spec).expect("a grant");
            self.account.evaluate(&[("cart".to_owned(), spec)].into());
        }

        fn answer(&self, status: u16, body: serde_json::Value) {
            self.answers.lock().push_back(Some((status, body)));
        }

        fn hang_up(&self) {
            self.answers.lock().push_back(None);
        }

        fn asked(&self) -> Vec<String> {
            std::mem::take(&mut *self.asked.lock())
        }
    }

    fn entry(value: &'static str, revision: u64) -> Entry {
        Entry {
            value: Bytes::from_static(value.as_bytes()),
            revision,
        }
    }

    #[tokio::test]
    async fn operations_are_written_and_read_as_the_server_has_them() {
        let server = Server::new();
        let store = &server.store;
        let keys = ["a".to_owned(), "b".to_owned()];
        server.answer(200, json!({"value": "aGk=", "revision": 17}));
        assert_eq!(store.get("k").await, Ok(Some(entry("hi", 17))));
        server.answer(200, json!({}));
        assert_eq!(store.get("k").await, Ok(None));
        server.answer(
            200,
            json!({"values": [{"key": "a", "value": "aGk=", "revision": 3}, {"key": "b"}]}),
        );
        assert_eq!(
            store.get_many(&keys).await,
            Ok(vec![Some(entry("hi", 3)), None])
        );
        server.answer(200, json!({"values": [{"key": "b"}, {"key": "a"}]}));
        assert!(store.get_many(&keys).await.is_err(), "for other keys");
        server.answer(200, json!({"revision": 18}));
        assert_eq!(store.set("k", Bytes::from_static(b"hi")).await, Ok(()));
        server.answer(200, json!({"revision": 19}));
        let entries = vec![("a".to_owned(), Bytes::from_static(b"1"))];
        assert_eq!(store.set_many(entries).await, Ok(()));
        server.answer(200, json!({"revision": 20}));
        assert_eq!(store.delete("k").await, Ok(()));
        server.answer(200, json!({"revision": 20}));
        assert_eq!(store.delete_many(&keys).await, Ok(()));
        server.answer(200, json!({"exists": true}));
        assert_eq!(store.exists("k").await, Ok(true));
        server.answer(200, json!({"keys": ["a"], "cursor": "c"}));
        let page = store.list_keys(None).await.expect("a page");
        assert_eq!(
            (page.keys, page.cursor.as_deref()),
            (vec!["a".to_owned()], Some("c"))
        );
        server.answer(200, json!({"keys": []}));
        assert_eq!(store.list_keys(Some("c")).await, Ok(Page::default()));
        server.answer(200, json!({"value": "NDI=", "number": 42, "revision": 21}));
        assert_eq!(store.increment("k", -3).await, Ok(42));
        server.answer(200, json!({"swapped": true, "revision": 22}));
        assert_eq!(
            store
                .compare_and_set("k", 17, Bytes::from_static(b"hi"))
                .await,
            Ok(Swap::Done { revision: 22 })
        );
        server.answer(
            200,
            json!({"swapped": false, "value": "aGk=", "revision": 21}),
        );
        assert_eq!(
            store
                .compare_and_set("k", 17, Bytes::from_static(b"x"))
                .await,
            Ok(Swap::Changed(Some(entry("hi", 21))))
        );
        server.answer(200, json!({"swapped": false}));
        assert_eq!(
            store
                .compare_and_set("k", 17, Bytes::from_static(b"x"))
                .await,
            Ok(Swap::Changed(None))
        );
        let asked = server.asked();
        let path =
            "/apis/weft.dev/v1alpha1/namespaces/shop/keyvaluestores/carts/data shop/cart-1/u-1 ";
        let bodies: Vec<&str> = asked
            .iter()
            .map(|asked| asked.strip_prefix(path).expect(asked))
            .collect();
        assert_eq!(
            bodies,
            [
                r#"{"op":"get","key":"k"}"#,
                r#"{"op":"get","key":"k"}"#,
                r#"{"op":"getMany","keys":["a","b"]}"#,
                r#"{"op":"getMany","keys":["a","b"]}"#,
                r#"{"op":"set","key":"k","value":"aGk="}"#,
                r#"{"op":"setMany","entries":[{"key":"a","value":"MQ=="}]}"#,
                r#"{"op":"delete","key":"k"}"#,
                r#"{"op":"deleteMany","keys":["a","b"]}"#,
                r#"{"op":"exists","key":"k"}"#,
                r#"{"op":"listKeys"}"#,
                r#"{"op":"listKeys","cursor":"c"}"#,
                r#"{"op":"increment","key":"k","delta":-3}"#,
                r#"{"op":"compareAndSet","key":"k","revision":17,"value":"aGk="}"#,
                r#"{"op":"compareAndSet","key":"k","revision":17,"value":"eA=="}"#,
                r#"{"op":"compareAndSet","key":"k","revision":17,"value":"eA=="}"#,
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_did_not_happen_and_what_changes_nothing_is_asked_again() {
        let server = Server::new();
        let store = &server.store;
        let busy = || json!({"message": "later"});
        server.answer(503, busy());
        server.answer(429, busy());
        server.answer(200, json!({"revision": 1}));
        assert_eq!(store.set("k", Bytes::from_static(b"v")).await, Ok(()));
        assert_eq!(server.asked().len(), 3);
        server.hang_up();
        server.answer(200, json!({}));
        assert_eq!(store.get("k").await, Ok(None));
        assert_eq!(server.asked().len(), 2);
        server.ids.lock().clear();
        server.answer(503, busy());
        server.answer(200, json!({"number": 1}));
        assert_eq!(store.increment("k", 1).await, Ok(1));
        server.answer(200, json!({"number": 2}));
        assert_eq!(store.increment("k", 1).await, Ok(2));
        let ids = std::mem::take(&mut *server.ids.lock());
        assert!(ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
        assert_eq!(server.asked().len(), 3);
        // Sent again after somebody else's, it would count twice.
        server.hang_up();
        let error = store
            .increment("k", 1)
            .await
            .expect_err("no answer")
            .to_string();
        assert!(error.ends_with("the write may have happened"), "{error}");
        assert_eq!(server.asked().len(), 1);
        for _ in 0..=RETRIES_MAX {
            server.answer(503, busy());
        }
        let error = store.get("k").await.expect_err("busy").to_string();
        assert_eq!(
            error,
            "the API server answered 503 Service Unavailable: later"
        );
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        let server = Server::new();
        let store = &server.store;
        let told = |message: &str| json!({"kind": "Status", "message": message});
        server.answer(404, told("not found"));
        assert_eq!(store.get("k").await, Err(KeyValueError::NoSuchStore));
        server.answer(403, told("no"));
        assert_eq!(
            store.get("k").await,
            Err(KeyValueError::AccessDenied {
                missing: "no".into()
            })
        );
        server.answer(507, told("full"));
        assert_eq!(
            store.set("k", Bytes::new()).await,
            Err(KeyValueError::QuotaExceeded {
                reason: "full".into()
            })
        );
        server.answer(422, told("too long"));
        assert_eq!(
            store.set("k", Bytes::new()).await,
            Err(KeyValueError::Other {
                reason: "too long".into()
            })
        );
        server.answer(200, json!([]));
        assert!(store.exists("k").await.is_err());
        server.asked();
    }

    #[tokio::test]
    async fn what_is_withdrawn_is_denied_at_the_next_operation() {
        let server = Server::new();
        let store = &server.store;
        server.grant("ReadOnly");
        server.answer(200, json!({}));
        assert_eq!(store.get("k").await, Ok(None));
        assert_eq!(
            store.set("k", Bytes::from_static(b"v")).await,
            Err(KeyValueError::AccessDenied { missing: "CapabilityGrant shop/cart lets store carts be read only; writing would need access: ReadWrite".into() })
        );
        server.account.evaluate(&BTreeMap::new());
        assert_eq!(
            store.get("k").await,
            Err(KeyValueError::AccessDenied { missing: "no CapabilityGrant gives ServiceAccount shop/cart a key-value store as \"default\" any more".into() })
        );
        assert_eq!(server.asked().len(), 1);
    }
}
