//! Reads: one object, lists, watches.
//!
//! Invariants: a read shows the newest state that anyone was acknowledged, unless its request says that an older one will
//! do; what a node may read of an object is judged on the object that is shown. Left to others: pages and watches
//! (`crate::listing`), how old the state may be ([`super::freshness`]).

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use weft_api::selector::FieldSelector;
use weft_api::status::StatusError;
use weft_kinds::{KindRef, gateway_api};
use weft_store::{Revision, Snapshot};

use super::conversion::{QUESTION_OBJECTS_MAX, needs_webhook};
use super::{ListOptions, ObjectWatch, Objects, Page, Selection, Stored, WatchOptions};
use crate::authz::Authorized;
use crate::listing::{self, Source, Unchosen};
use crate::{node_restriction, stored};

/// Who looks at more objects, or at more changes, than this takes milliseconds: not on a thread that others wait for.
const SCAN_MAX: usize = 1_000;

impl Objects {
    /// An object; `version` 0 takes what this server has, N what is not older than N, none the newest there is.
    ///
    /// # Errors
    /// 403, 404; 503 without a majority; 504 when this server has not reached `version`.
    pub async fn get(
        &self,
        asked: &Authorized,
        version: Option<Revision>,
    ) -> Result<Stored, StatusError> {
        let (object, _) = asked.object("get")?;
        let snapshot = self.newest(version).await?;
        if let Some(version) = version.filter(|version| *version > snapshot.revision()) {
            return Err(listing::too_large(version, snapshot.revision()));
        }
        let mut found = self.find(&snapshot, object)?;
        found.check_lost()?;
        if object.kind.custom.is_some()
            && let Some(item) =
                (self.inner.caches).shown(object.kind, found.key(), found.revision())
        {
            found = found.known_as(item);
        }
        let found = self.converted(found).await?;
        if node_restriction::concerns_read(asked) {
            let (pods, grants) = match node_restriction::needs_reference(asked) {
                Some(node) => {
                    let pods = self.pods_on(node, &snapshot).await?;
                    (pods, self.grants_in(&snapshot, object.namespace))
                }
                None => (Vec::new(), Vec::new()),
            };
            let traffic = || self.traffic(&snapshot);
            node_restriction::admit_reference(asked, &pods, &grants, traffic)?;
            node_restriction::admit(asked, Some(&found.stored_value()), None)?;
        }
        Ok(found)
    }

    /// # Errors
    /// 403; 400 for an unknown field; 410 for an expired continue token; 503 without a majority.
    pub async fn list(
        &self,
        asked: &Authorized,
        options: &ListOptions,
    ) -> Result<Page, StatusError> {
        let (kind, namespace) = asked.collection("list")?;
        node_restriction::admit_selection(asked, &options.selection.fields)?;
        let newest = self.newest(listing::revision_needed(options)?).await?;
        self.page(asked.caller().user(), kind, namespace, options, &newest)
            .await
    }

    /// A page of a list that was allowed, from the kind's cache as soon as that shows what `newest` does.
    pub(super) async fn page(
        &self,
        user: &str,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        options: &ListOptions,
        newest: &Snapshot,
    ) -> Result<Page, StatusError> {
        let (caches, vault) = (&self.inner.caches, &self.inner.vault);
        let cache = caches.at_least(kind, newest.revision()).await?;
        let limit = options.limit.filter(|limit| *limit > 0);
        let most = limit.filter(|_| options.selection.is_everything());
        let scans = cache.count().min(most.unwrap_or(usize::MAX)) > SCAN_MAX;
        let (caches, vault, options) = (caches.clone(), vault.clone(), options.clone());
        let kind = Arc::clone(kind);
        let (user, namespace) = (user.to_owned(), namespace.map(str::to_owned));
        if needs_webhook(&kind) && !options.selection.is_by_names() {
            let source = Source {
                caches: &caches,
                cache: &cache,
                vault: &vault,
                user: &user,
                now: Instant::now(),
            };
            return self
                .chosen(&kind, namespace.as_deref(), &options, source)
                .await;
        }
        let work = move || {
            let source = Source {
                caches: &caches,
                cache: &cache,
                vault: &vault,
                user: &user,
                now: Instant::now(),
            };
            listing::page(&kind, namespace.as_deref(), &options, source)
        };
        let mut page = match scans {
            false => work()?,
            true => {
                let page = tokio::task::spawn_blocking(work).await;
                page.map_err(StatusError::internal)??
            }
        };
        page.items = self.converted_all(page.items).await?;
        Ok(page)
    }

    /// A page of objects that have to be converted before anybody knows which are meant.
    async fn chosen(
        &self,
        kind: KindRef<'_>,
        namespace: Option<&str>,
        options: &ListOptions,
        source: Source<'_>,
    ) -> Result<Page, StatusError> {
        let unchosen = Unchosen::of(kind, namespace, options, source)?;
        let limit = options.limit.filter(|limit| *limit > 0);
        let limit = limit.unwrap_or(usize::MAX);
        let mut chosen = Vec::new();
        for part in unchosen.items.chunks(QUESTION_OBJECTS_MAX) {
            for stored in self.converted_all(part.to_vec()).await? {
                if options.selection.matches_shown(&stored) {
                    if chosen.len() == limit {
                        return Ok(unchosen.page(kind, chosen, true, source));
                    }
                    chosen.push(stored);
                }
            }
        }
        Ok(unchosen.page(kind, chosen, false, source))
    }

    /// The pods that are bound to a node: an index knows them.
    pub(super) async fn pods_on(
        &self,
        node: &str,
        snapshot: &Snapshot,
    ) -> Result<Vec<Arc<Value>>, StatusError> {
        let options = ListOptions {
            selection: Selection {
                fields: FieldSelector::equal("spec.nodeName", node),
                ..Selection::default()
            },
            ..ListOptions::default()
        };
        let page = self
            .page("", &weft_kinds::POD, None, &options, snapshot)
            .await?;
        let pods = page.items.iter().map(|pod| Arc::new(pod.stored_value()));
        Ok(pods.collect())
    }

    /// What may refer to certificates that nodes show and trust, and the grants for that.
    fn traffic(&self, snapshot: &Snapshot) -> Vec<Value> {
        let registry = self.registry();
        let kinds = node_restriction::TRAFFIC_KINDS.iter();
        let kinds = kinds.filter_map(|kind| registry.by_group_kind(gateway_api::GROUP, kind));
        let all = kinds.flat_map(|kind| {
            let prefix = stored::prefix(kind, None);
            let entries: Vec<_> = snapshot.range(&prefix, None).collect();
            let objects = entries.into_iter();
            objects.map(|entry| Stored::new(&self.inner.vault, kind, entry).stored_value())
        });
        all.collect()
    }

    /// The CapabilityGrants of a namespace.
    fn grants_in(&self, snapshot: &Snapshot, namespace: Option<&str>) -> Vec<Value> {
        let kind = &weft_kinds::CAPABILITY_GRANT;
        let prefix = stored::prefix(kind, namespace);
        let entries = snapshot.range(&prefix, None);
        let grants = entries.map(|entry| Stored::new(&self.inner.vault, kind, entry));
        grants.map(|grant| grant.stored_value()).collect()
    }

    /// # Errors
    /// 403; 400 for an unknown field. A revision that no watch can start from is told as the watch's only event.
    pub async fn watch(
        &self,
        asked: &Authorized,
        options: WatchOptions,
    ) -> Result<ObjectWatch, StatusError> {
        let (kind, namespace) = asked.collection("watch")?;
        node_restriction::admit_selection(asked, &options.selection.fields)?;
        // The watch must not begin behind what an unversioned request is promised.
        let newest = self.newest(options.resource_version).await?;
        let (caches, vault) = (&self.inner.caches, &self.inner.vault);
        let cache = caches.at_least(kind, newest.revision()).await?;
        let scans = cache.count().max(cache.changes()) > SCAN_MAX;
        let (vault, kind) = (vault.clone(), Arc::clone(kind));
        let namespace = namespace.map(str::to_owned);
        let converter = needs_webhook(&kind).then(|| self.clone());
        let mut options = options;
        let chosen = (converter.is_some() && !options.selection.is_by_names()).then(|| {
            let names = options.selection.by_names();
            std::mem::replace(&mut options.selection, names)
        });
        if let Some(chosen) = &chosen {
            chosen.check(&kind)?;
        }
        let work = move || ObjectWatch::start(&cache, &vault, &kind, namespace.as_deref(), options);
        let started = match scans {
            false => work()?,
            true => {
                let started = tokio::task::spawn_blocking(work).await;
                started.map_err(StatusError::internal)??
            }
        };
        Ok(match converter {
            Some(converter) => started.converted_by(converter, chosen),
            None => started,
        })
    }
}
