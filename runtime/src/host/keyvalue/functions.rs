//! The functions of both drafts, as guests import them. They differ in a few types, and the older one has no compare-and-set.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Semaphore;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};

use super::{
    Checked, Entry, IDENTIFIER_BYTES_MAX, KeyValue, KeyValueError, OPERATION_WITHIN, Page, Swap,
};
use crate::host::{HostState, asking};
use crate::limits::HostBytes;

/// `error` of the interface.
#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<KeyValueError> for Error {
    fn from(error: KeyValueError) -> Error {
        match error {
            KeyValueError::NoSuchStore => Error::NoSuchStore,
            KeyValueError::AccessDenied { .. } => Error::AccessDenied,
            full @ KeyValueError::QuotaExceeded { .. } => Error::Other(full.to_string()),
            KeyValueError::Other { reason } => Error::Other(reason),
        }
    }
}

/// `cas-error` of the interface.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum CasError {
    #[component(name = "store-error")]
    Store(Error),
    #[component(name = "cas-failed")]
    Failed(Resource<Cas>),
}

/// `key-response`. The cursor is a text, and in the older draft a number.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Keys<C> {
    keys: Vec<String>,
    cursor: Option<C>,
}

/// Of a bucket's cursors, those that are remembered as numbers.
const CURSORS_MAX: usize = 16;

/// A bucket that the guest has opened.
pub(crate) struct Bucket {
    store: Checked,
    cursors: Cursors,
}

impl Bucket {
    /// What is held for it.
    pub(crate) fn bytes(&self) -> usize {
        let cursors = self.cursors.texts.iter();
        cursors.map(String::len).sum()
    }
}

/// A store says in a text where a listing goes on, and the older draft in a number: that of the text among those that were said.
#[derive(Default)]
struct Cursors {
    texts: VecDeque<String>,
    /// The number of the first of them.
    first: u64,
}

impl Cursors {
    fn number(&mut self, text: String) -> u64 {
        if self.texts.len() == CURSORS_MAX {
            self.texts.pop_front();
            self.first += 1;
        }
        self.texts.push_back(text);
        self.first + self.texts.len() as u64 - 1
    }

    fn text(&self, number: u64) -> Result<String, KeyValueError> {
        let index = number.checked_sub(self.first);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let text = index.and_then(|index| self.texts.get(index)).cloned();
        text.ok_or_else(|| KeyValueError::other("the cursor is none of this bucket's last 16"))
    }
}

/// A value that was looked at, and that only this very value is to be replaced.
pub(crate) struct Cas {
    store: Checked,
    key: String,
    entry: Option<Entry>,
}

impl Cas {
    /// What is held for it.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + value_bytes(&self.entry)
    }
}

fn value_bytes(entry: &Option<Entry>) -> usize {
    entry.as_ref().map_or(0, |entry| entry.value.len())
}

/// What a function of the interface returns.
type Said<T> = wasmtime::Result<(Result<T, Error>,)>;

/// An operation that a guest is asking for.
struct Asked {
    until: Instant,
    places: Arc<Semaphore>,
    memory: Arc<HostBytes>,
}

impl Asked {
    /// `bytes` are what came with the question.
    fn by(store: &mut StoreContextMut<'_, HostState>, bytes: usize) -> wasmtime::Result<Asked> {
        let call = asking(store)?;
        let latest = Instant::now() + OPERATION_WITHIN;
        let deadline = call.and_then(|call| call.deadline);
        let state = store.data();
        let memory = state.memory.host().clone();
        // Whoever has no room for the question has none for what the store makes of it.
        drop(memory.charge(bytes as u64)?);
        Ok(Asked {
            until: deadline.map_or(latest, |deadline| deadline.min(latest)),
            places: state.workload.key_value_places().clone(),
            memory,
        })
    }

    /// Has `work` done. `weigh` says how much of its result there is to hold.
    async fn done<T>(
        self,
        work: impl Future<Output = Result<T, KeyValueError>>,
        weigh: impl FnOnce(&T) -> usize,
    ) -> wasmtime::Result<Result<T, Error>> {
        let worked = async {
            let _place = self.places.acquire().await;
            work.await
        };
        let result = match tokio::time::timeout_at(self.until.into(), worked).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => return Ok(Err(error.into())),
            Err(_) => return Ok(Err(Error::Other("no answer in time".into()))),
        };
        drop(self.memory.charge(weigh(&result) as u64)?);
        Ok(Ok(result))
    }
}

fn nothing<T>(_: &T) -> usize {
    0
}

/// Anything of text and bytes that comes with a question.
fn total<'a>(keys: impl IntoIterator<Item = &'a String>) -> usize {
    keys.into_iter().map(String::len).sum()
}

impl HostState {
    /// Makes a resource of `value`, which holds `bytes`.
    fn hold<T: Send + 'static>(
        &mut self,
        value: T,
        bytes: usize,
    ) -> wasmtime::Result<Result<Resource<T>, Error>> {
        let Ok(resource) = self.table.push(value) else {
            let full = "the instance holds as many resources as it may".to_owned();
            return Ok(Err(Error::Other(full)));
        };
        self.took_resource(bytes)?;
        Ok(Ok(resource))
    }

    fn checked(&self, bucket: &Resource<Bucket>) -> wasmtime::Result<Checked> {
        Ok(self.table.get(bucket)?.store.clone())
    }
}

const DRAFT2: &str = "0.2.0-draft2";
const DRAFT: &str = "0.2.0-draft";

/// Links both drafts.
pub(super) fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    for version in [DRAFT2, DRAFT] {
        let mut store = linker.instance(&format!("wasi:keyvalue/store@{version}"))?;
        store.resource("bucket", ResourceType::host::<Bucket>(), drop_bucket)?;
        store.func_wrap("open", open)?;
        store.func_wrap_async(
            "[method]bucket.get",
            |mut store: StoreContextMut<'_, HostState>,
             (bucket, key): (Resource<Bucket>, String)| {
                Box::new(async move {
                    let checked = store.data().checked(&bucket)?;
                    let asked = Asked::by(&mut store, key.len())?;
                    let got = asked.done(checked.get(&key), value_bytes).await?;
                    Ok((got.map(|entry| entry.map(|entry| Vec::from(entry.value))),))
                })
            },
        )?;
        store.func_wrap_async(
            "[method]bucket.set",
            |mut store: StoreContextMut<'_, HostState>,
             (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
                Box::new(async move {
                    let checked = store.data().checked(&bucket)?;
                    let asked = Asked::by(&mut store, key.len() + value.len())?;
                    let set = checked.set(&key, value.into());
                    Ok((asked.done(set, nothing).await?,))
                })
            },
        )?;
        store.func_wrap_async(
            "[method]bucket.delete",
            |mut store: StoreContextMut<'_, HostState>,
             (bucket, key): (Resource<Bucket>, String)| {
                Box::new(async move {
                    let checked = store.data().checked(&bucket)?;
                    let asked = Asked::by(&mut store, key.len())?;
                    Ok((asked.done(checked.delete(&key), nothing).await?,))
                })
            },
        )?;
        store.func_wrap_async(
            "[method]bucket.exists",
            |mut store: StoreContextMut<'_, HostState>,
             (bucket, key): (Resource<Bucket>, String)| {
                Box::new(async move {
                    let checked = store.data().checked(&bucket)?;
                    let asked = Asked::by(&mut store, key.len())?;
                    Ok((asked.done(checked.exists(&key), nothing).await?,))
                })
            },
        )?;
        let mut batch = linker.instance(&format!("wasi:keyvalue/batch@{version}"))?;
        batch.func_wrap_async(
            "set-many",
            |mut store: StoreContextMut<'_, HostState>,
             (bucket, entries): (Resource<Bucket>, Vec<(String, Vec<u8>)>)| {
                Box::new(async move {
                    let checked = store.data().checked(&bucket)?;
                    let sizes = entries.iter().map(|(key, value)| key.len() + value.len());
                    let asked = Asked::by(&mut store, sizes.sum())?;
                    let entries = entries
                        .into_iter()
                        .map(|(key, value)| (key, Bytes::from(value)));
                    let set = checked.set_many(entries.collect());
                    Ok((asked.done(set, nothing).await?,))
                })
            },
        )?;
        batch.func_wrap_async(
            "delete-many",
            |mut store: StoreContextMut<'_, HostState>,
             (bucket, keys): (Resource<Bucket>, Vec<String>)| {
                Box::new(async move {
                    let checked = store.data().checked(&bucket)?;
                    let asked = Asked::by(&mut store, total(&keys))?;
                    Ok((asked.done(checked.delete_many(&keys), nothing).await?,))
                })
            },
        )?;
    }
    link_increment::<i64>(linker, DRAFT2)?;
    link_increment::<u64>(linker, DRAFT)?;
    link_get_many(linker, DRAFT2, |key, value| (key, value))?;
    link_get_many(linker, DRAFT, |key, value| Some((key, value?)))?;
    link_draft2(linker)?;
    link_draft(linker)
}

/// The number is signed, and in the older draft it is not.
fn link_increment<N>(linker: &mut Linker<HostState>, version: &str) -> wasmtime::Result<()>
where
    N: TryFrom<i64> + TryInto<i64> + ComponentType + Lift + Lower + Send + Sync + 'static,
{
    let mut atomics = linker.instance(&format!("wasi:keyvalue/atomics@{version}"))?;
    atomics.func_wrap_async(
        "increment",
        |mut store: StoreContextMut<'_, HostState>,
         (bucket, key, delta): (Resource<Bucket>, String, N)| {
            Box::new(async move {
                let checked = store.data().checked(&bucket)?;
                let asked = Asked::by(&mut store, key.len())?;
                let sum = async {
                    let delta = delta.try_into();
                    let delta =
                        delta.map_err(|_| KeyValueError::other("the delta is too large"))?;
                    let sum = N::try_from(checked.increment(&key, delta).await?);
                    sum.map_err(|_| KeyValueError::other("the number is negative"))
                };
                Ok((asked.done(sum, nothing).await?,))
            })
        },
    )
}

/// `told` makes an entry of the answer: the drafts differ in what they say of a key that is not there.
fn link_get_many<T>(
    linker: &mut Linker<HostState>,
    version: &str,
    told: fn(String, Option<Vec<u8>>) -> T,
) -> wasmtime::Result<()>
where
    T: ComponentType + Lower + Send + Sync + 'static,
{
    let mut batch = linker.instance(&format!("wasi:keyvalue/batch@{version}"))?;
    batch.func_wrap_async(
        "get-many",
        move |mut store: StoreContextMut<'_, HostState>,
              (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            Box::new(async move {
                let checked = store.data().checked(&bucket)?;
                let asked = Asked::by(&mut store, total(&keys))?;
                let weigh = |entries: &Vec<Option<Entry>>| entries.iter().map(value_bytes).sum();
                let got = asked.done(checked.get_many(&keys), weigh).await?;
                let found = got.map(|entries| {
                    let values = entries
                        .into_iter()
                        .map(|entry| entry.map(|entry| Vec::from(entry.value)));
                    let pairs = keys.into_iter().zip(values);
                    pairs
                        .map(|(key, value)| told(key, value))
                        .collect::<Vec<T>>()
                });
                Ok((found,))
            })
        },
    )
}

/// What is of its own in 0.2.0-draft2.
fn link_draft2(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker
        .instance("wasi:keyvalue/store@0.2.0-draft2")?
        .func_wrap_async(
            "[method]bucket.list-keys",
            |mut store: StoreContextMut<'_, HostState>,
             (bucket, cursor): (Resource<Bucket>, Option<String>)| {
                Box::new(async move {
                    let checked = store.data().checked(&bucket)?;
                    let page = list(&mut store, checked, cursor).await?;
                    Ok((page.map(|Page { keys, cursor }| Keys { keys, cursor }),))
                })
            },
        )?;
    let mut atomics = linker.instance("wasi:keyvalue/atomics@0.2.0-draft2")?;
    atomics.resource("cas", ResourceType::host::<Cas>(), drop_cas)?;
    atomics.func_wrap_async(
        "[static]cas.new",
        |mut store: StoreContextMut<'_, HostState>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move {
                let checked = store.data().checked(&bucket)?;
                let asked = Asked::by(&mut store, key.len())?;
                let entry = match asked.done(checked.get(&key), value_bytes).await? {
                    Ok(entry) => entry,
                    Err(error) => return Ok((Err(error),)),
                };
                let cas = Cas {
                    store: checked,
                    key,
                    entry,
                };
                let bytes = cas.bytes();
                Ok((store.data_mut().hold(cas, bytes)?,))
            })
        },
    )?;
    atomics.func_wrap("[method]cas.current", current)?;
    atomics.func_wrap_async(
        "swap",
        |mut store: StoreContextMut<'_, HostState>, (cas, value): (Resource<Cas>, Vec<u8>)| {
            Box::new(async move { Ok((swap(&mut store, cas, value).await?,)) })
        },
    )
}

/// What is of its own in 0.2.0-draft.
fn link_draft(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    linker
        .instance("wasi:keyvalue/store@0.2.0-draft")?
        .func_wrap_async(
            "[method]bucket.list-keys",
            |mut store: StoreContextMut<'_, HostState>,
             (bucket, number): (Resource<Bucket>, Option<u64>)| {
                Box::new(async move { list_by_number(&mut store, bucket, number).await })
            },
        )
}

fn open(
    mut store: StoreContextMut<'_, HostState>,
    (identifier,): (String,),
) -> Said<Resource<Bucket>> {
    let state = store.data_mut();
    // What is not granted does not exist, as far as the guest can tell.
    let found = match identifier.len() {
        0..=IDENTIFIER_BYTES_MAX => state.bound::<KeyValue>()?.get(&identifier),
        _ => Err(KeyValueError::NoSuchStore),
    };
    Ok((match found {
        Ok(store) => {
            let cursors = Cursors::default();
            state.hold(Bucket { store, cursors }, 0)?
        }
        Err(error) => Err(error.into()),
    },))
}

/// The value that the handle stands for, and not a newer one, which a swap could not replace.
fn current(
    store: StoreContextMut<'_, HostState>,
    (cas,): (Resource<Cas>,),
) -> Said<Option<Vec<u8>>> {
    let state = store.data();
    let entry = &state.table.get(&cas)?.entry;
    drop(state.memory.host().charge(value_bytes(entry) as u64)?);
    Ok((Ok(entry.as_ref().map(|entry| entry.value.to_vec())),))
}

/// The handle is used up, whatever comes of it; where the value was another one, a new handle stands for that.
async fn swap(
    store: &mut StoreContextMut<'_, HostState>,
    cas: Resource<Cas>,
    value: Vec<u8>,
) -> wasmtime::Result<Result<(), CasError>> {
    let cas = store.data_mut().table.delete(cas)?;
    let asked = Asked::by(store, value.len())?;
    let revision = cas.entry.as_ref().map_or(0, |entry| entry.revision);
    let swapped = cas.store.compare_and_set(&cas.key, revision, value.into());
    let weigh = |swap: &Swap| match swap {
        Swap::Done { .. } => 0,
        Swap::Changed(entry) => value_bytes(entry),
    };
    let newer = match asked.done(swapped, weigh).await? {
        Ok(Swap::Done { .. }) => return Ok(Ok(())),
        Ok(Swap::Changed(entry)) => Cas { entry, ..cas },
        Err(error) => return Ok(Err(CasError::Store(error))),
    };
    let bytes = newer.bytes();
    Ok(Err(match store.data_mut().hold(newer, bytes)? {
        Ok(newer) => CasError::Failed(newer),
        Err(error) => CasError::Store(error),
    }))
}

async fn list(
    store: &mut StoreContextMut<'_, HostState>,
    checked: Checked,
    cursor: Option<String>,
) -> wasmtime::Result<Result<Page, Error>> {
    let asked = Asked::by(store, cursor.as_ref().map_or(0, String::len))?;
    let weigh = |page: &Page| total(&page.keys);
    asked
        .done(checked.list_keys(cursor.as_deref()), weigh)
        .await
}

async fn list_by_number(
    store: &mut StoreContextMut<'_, HostState>,
    bucket: Resource<Bucket>,
    number: Option<u64>,
) -> Said<Keys<u64>> {
    let opened = store.data().table.get(&bucket)?;
    let checked = opened.store.clone();
    let cursor = match number.map(|number| opened.cursors.text(number)).transpose() {
        Ok(cursor) => cursor,
        Err(error) => return Ok((Err(error.into()),)),
    };
    let Page { keys, cursor } = match list(store, checked, cursor).await? {
        Ok(page) => page,
        Err(error) => return Ok((Err(error),)),
    };
    let state = store.data_mut();
    let bytes = cursor.as_ref().map_or(0, String::len);
    let opened = state.table.get_mut(&bucket)?;
    let cursor = cursor.map(|cursor| opened.cursors.number(cursor));
    state.took(bytes)?;
    Ok((Ok(Keys { keys, cursor }),))
}

fn drop_bucket(mut store: StoreContextMut<'_, HostState>, rep: u32) -> wasmtime::Result<()> {
    let bucket: Resource<Bucket> = Resource::new_own(rep);
    store.data_mut().table.delete(bucket)?;
    Ok(())
}

fn drop_cas(mut store: StoreContextMut<'_, HostState>, rep: u32) -> wasmtime::Result<()> {
    let cas: Resource<Cas> = Resource::new_own(rep);
    store.data_mut().table.delete(cas)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_one_of_the_last_cursors() {
        let mut cursors = Cursors::default();
        assert!(cursors.text(0).is_err());
        for number in 0..40 {
            assert_eq!(cursors.number(format!("after {number}")), number);
        }
        for (number, expected) in [(23, None), (24, Some("after 24")), (39, Some("after 39"))] {
            let text = cursors.text(number).ok();
            assert_eq!(text.as_deref(), expected, "{number}");
        }
        for absurd in [40, u64::MAX] {
            assert!(cursors.text(absurd).is_err(), "{absurd}");
        }
    }
}
