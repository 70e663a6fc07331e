//! Caches over a store in a temporary folder.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;
use weft_api::selector::{FieldSelector, LabelSelector};
use weft_store::{Config, Mutation, Precondition};

use super::view::Quota;
use super::*;
use crate::listing::{self, ListOptions, Page, Source, VersionMatch};
use crate::stored::Stored;
use weft_kinds as kinds;

struct World {
    store: Store,
    caches: Caches,
    dir: TempDir,
}

impl World {
    async fn new(bounds: Bounds) -> Self {
        Self::open(tempfile::tempdir().unwrap(), bounds).await
    }

    async fn open(dir: TempDir, bounds: Bounds) -> Self {
        let store = Store::open(Config::new(dir.path())).await.unwrap();
        let vault = Vault::new(store.clone(), None);
        let caches = Caches::new(store.clone(), vault, bounds);
        Self { store, caches, dir }
    }

    async fn put(&self, kind: KindRef<'_>, name: &str, more: Value) -> Revision {
        let mut value = json!({
            "apiVersion": kind.api_version(), "kind": kind.kind,
            "metadata": {"name": name, "namespace": "a"},
        });
        for (member, more) in more.as_object().into_iter().flatten() {
            value[member] = more.clone();
        }
        let encoded = stored::encode(&value).unwrap();
        let key = stored::key(kind, Some("a"), name);
        let put = Mutation::put(key, Precondition::None, encoded);
        self.store.write(vec![put], None).await.unwrap()
    }

    async fn pod(&self, name: &str, node: &str) -> Revision {
        let spec = json!({"spec": {"nodeName": node}});
        self.put(&kinds::POD, name, spec).await
    }

    async fn delete(&self, kind: KindRef<'_>, name: &str) -> Revision {
        let delete = Mutation::delete(stored::key(kind, Some("a"), name), Precondition::None);
        self.store.write(vec![delete], None).await.unwrap()
    }

    async fn cache(&self, kind: KindRef<'_>) -> Arc<Cache> {
        let revision = self.store.snapshot().revision();
        self.caches.at_least(kind, revision).await.unwrap()
    }

    async fn page(
        &self,
        user: &str,
        kind: KindRef<'_>,
        options: &ListOptions,
    ) -> Result<Page, StatusError> {
        self.page_at(user, kind, options, Instant::now()).await
    }

    async fn page_at(
        &self,
        user: &str,
        kind: KindRef<'_>,
        options: &ListOptions,
        now: Instant,
    ) -> Result<Page, StatusError> {
        let cache = self.cache(kind).await;
        let source = Source {
            caches: &self.caches,
            cache: &cache,
            vault: &self.caches.shared.vault,
            user,
            now,
        };
        listing::page(kind, Some("a"), options, source)
    }
}

/// A token ends after five minutes, however often it is used and although the history leads back to its revision; then the rest is
/// listed as it is now.
#[tokio::test]
async fn a_token_ends_where_nothing_else_happens_to_its_kind() {
    let world = World::new(Bounds::default()).await;
    for name in ["a", "b", "c", "d"] {
        world.pod(name, "n").await;
    }
    let begin = Instant::now();
    let after = |seconds| begin + Duration::from_secs(seconds);
    let options = |token: &Option<String>| ListOptions {
        limit: Some(1),
        continue_token: token.clone(),
        ..ListOptions::default()
    };
    let page = async |token: &Option<String>, seconds| {
        let options = options(token);
        let asked = world.page_at("reader", &kinds::POD, &options, after(seconds));
        asked.await
    };
    let first = page(&None, 0).await.unwrap();
    let mut expired = None;
    for twenties in 0..30 {
        // Something else happens in the cluster, as ever.
        world
            .put(
                &kinds::CONFIG_MAP,
                "beat",
                json!({"data": {"n": twenties.to_string()}}),
            )
            .await;
        match page(&first.next, twenties * 20).await {
            Ok(second) => assert_eq!(second.revision, first.revision),
            Err(error) => {
                expired = Some((twenties, error));
                break;
            }
        }
    }
    let (twenties, error) = expired.expect("a token that ends");
    assert_eq!((twenties, error.code, &*error.reason), (16, 410, "Expired"));
    let mut names = Vec::new();
    let mut token = error.continue_token;
    while token.is_some() {
        let rest = page(&token, 330).await.unwrap();
        assert_ne!(rest.revision, first.revision);
        names.extend(rest.items.iter().map(|item| item.name().to_owned()));
        token = rest.next;
    }
    assert_eq!(names, ["b", "c", "d"]);
}

fn on_node(node: &str) -> Selection {
    Selection {
        fields: FieldSelector::equal("spec.nodeName", node),
        labels: LabelSelector::everything(),
    }
}

/// Names of the objects of a view with the bytes of each.
fn shown(view: &View, kind: KindRef<'_>) -> BTreeMap<String, (Revision, Bytes)> {
    view.range(stored::prefix(kind, None), None)
        .map(|item| {
            let entry = item.entry().unwrap();
            assert_eq!((&entry.key, entry.revision), (item.key(), item.revision()));
            (entry.key.to_string(), (entry.revision, entry.value()))
        })
        .collect()
}

/// What one waiting watcher is told, as text.
fn told(subscription: &mut Subscription) -> String {
    let mut words = Vec::new();
    while let Some(Some(told)) = subscription.next().now_or_never() {
        let key = told.change.item.key().to_string();
        let name = key.rsplit('/').next().unwrap().to_owned();
        words.push(format!("{:?} {name}@{}", told.what, told.change.revision));
    }
    words.join(", ")
}

#[tokio::test]
async fn a_change_costs_only_those_whom_it_concerns() {
    let world = World::new(Bounds::default()).await;
    world.pod("p", "n0").await;
    let cache = world.cache(&kinds::POD).await;
    let mut watches: Vec<Subscription> = (0..500)
        .map(|n| {
            let selection = on_node(&format!("n{n}"));
            cache.watch(&kinds::POD, None, &selection, None).unwrap().0
        })
        .collect();
    let other = Selection {
        fields: FieldSelector::equal("metadata.name", "another"),
        ..Selection::default()
    };
    let mut by_name = cache.watch(&kinds::POD, Some("a"), &other, None).unwrap().0;
    let elsewhere = Selection::default();
    let mut elsewhere = cache
        .watch(&kinds::POD, Some("b"), &elsewhere, None)
        .unwrap()
        .0;
    let mut everything = cache
        .watch(&kinds::POD, None, &Selection::default(), None)
        .unwrap()
        .0;

    // It stays, moves, and goes: those of its node before and after, and who watches all, are looked at.
    world.pod("p", "n0").await;
    world.pod("p", "n7").await;
    world.delete(&kinds::POD, "p").await;
    world.cache(&kinds::POD).await;
    assert_eq!(cache.asked(), 2 + 3 + 2);
    assert_eq!(told(&mut watches[0]), "Modified p@2, Left p@3");
    assert_eq!(told(&mut watches[7]), "Added p@3, Deleted p@4");
    assert_eq!(
        told(&mut everything),
        "Modified p@2, Modified p@3, Deleted p@4"
    );
    for quiet in [&mut by_name, &mut elsewhere]
        .into_iter()
        .chain(&mut watches[8..])
    {
        assert_eq!(told(quiet), "");
    }
    // What nobody waits for any more is not kept encoded, and who left is not looked at.
    drop((watches, by_name, elsewhere, everything));
    let before = cache.asked();
    world.pod("p", "n0").await;
    world.cache(&kinds::POD).await;
    assert_eq!(cache.asked(), before);
}

#[tokio::test]
async fn every_revision_of_the_history_can_be_gone_back_to() {
    let world = World::new(Bounds::default()).await;
    let mut states = Vec::new();
    // Puts, replacements, moves between nodes and deletions, in an order without a pattern.
    let mut seed = 0x9e37_79b9_u32;
    for _ in 0..200 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let name = format!("p{}", (seed >> 8) % 13);
        if (seed >> 16).is_multiple_of(4) {
            world.delete(&kinds::POD, &name).await;
        } else {
            world.pod(&name, &format!("n{}", (seed >> 20) % 5)).await;
        }
        let view = world.cache(&kinds::POD).await.view();
        states.push((view.revision(), shown(&view, &kinds::POD)));
    }
    let cache = world.cache(&kinds::POD).await;
    let index = cache.index_of(&kinds::POD, "spec.nodeName").unwrap();
    for (revision, state) in &states {
        let view = cache.rewound(*revision).unwrap();
        assert_eq!(
            (view.revision(), &shown(&view, &kinds::POD)),
            (*revision, state)
        );
        assert_eq!(view.count(None), state.len());
        assert_eq!(view.count(Some(b"/core/pods/a/")), state.len());
        // The index tells of each object once, under its own node.
        let prefix = stored::prefix(&kinds::POD, None);
        let by_node: usize = (0..5)
            .map(|n| {
                view.range_with(index, &format!("n{n}"), prefix.clone(), None)
                    .count()
            })
            .sum();
        assert_eq!(by_node, state.len());
    }
    assert!(cache.rewound(cache.view().revision() + 1).is_none());
}

#[tokio::test]
async fn tokens_are_good_where_their_revision_can_be_reached() {
    let bounds = Bounds {
        history_changes_max: 5,
        ..Bounds::default()
    };
    let world = World::new(bounds).await;
    for name in ["a", "b", "c", "d"] {
        world.pod(name, "n").await;
    }
    let names = |page: &Page| {
        let names: Vec<&str> = page.items.iter().map(Stored::name).collect();
        names.join(" ")
    };
    let pages_of = |token: &Option<String>| ListOptions {
        limit: Some(2),
        continue_token: token.clone(),
        ..ListOptions::default()
    };
    let first = world
        .page("reader", &kinds::POD, &pages_of(&None))
        .await
        .unwrap();
    assert_eq!(
        (names(&first), first.remaining),
        ("a b".to_owned(), Some(2))
    );
    // One more reader begins hundreds of lists, of as many states, and evicts nobody.
    for number in 0..300 {
        world.pod("c", &format!("n{number}")).await;
        world
            .page("other", &kinds::POD, &pages_of(&None))
            .await
            .unwrap();
    }
    let second = world
        .page("reader", &kinds::POD, &pages_of(&first.next))
        .await
        .unwrap();
    assert_eq!(
        (names(&second), second.revision),
        ("c d".to_owned(), first.revision)
    );
    // Nobody has kept it for a third reader, as nobody has on another server, and the history is shorter than that.
    let expired = match world
        .page("third", &kinds::POD, &pages_of(&first.next))
        .await
    {
        Ok(page) => panic!("a page of revision {}", page.revision),
        Err(error) => error,
    };
    assert_eq!((expired.code, &*expired.reason), (410, "Expired"));
    let rest = pages_of(&expired.continue_token);
    let rest = world.page("third", &kinds::POD, &rest).await.unwrap();
    assert_eq!((names(&rest), rest.remaining), ("c d".to_owned(), None));
    // In pages of one it is told how many are left, from the first on that is of another state than the list began in.
    world.pod("e", "n").await;
    let mut token = expired.continue_token.clone();
    for expected in [("c", Some(2)), ("d", Some(1)), ("e", None)] {
        let one = ListOptions {
            limit: Some(1),
            ..pages_of(&token)
        };
        let page = world.page("third", &kinds::POD, &one).await.unwrap();
        assert_eq!((&*names(&page), page.remaining), expected);
        token = page.next;
    }
    world.delete(&kinds::POD, "e").await;
    // What the history reaches needs nobody to keep it: by token, and by name of the revision.
    let recent = world
        .page("reader", &kinds::POD, &pages_of(&None))
        .await
        .unwrap();
    world.delete(&kinds::POD, "d").await;
    let page = world
        .page("third", &kinds::POD, &pages_of(&recent.next))
        .await
        .unwrap();
    assert_eq!(
        (names(&page), page.revision),
        ("c d".to_owned(), recent.revision)
    );
    let exact = ListOptions {
        resource_version: Some(recent.revision),
        version_match: Some(VersionMatch::Exact),
        ..ListOptions::default()
    };
    let page = world.page("third", &kinds::POD, &exact).await.unwrap();
    assert_eq!(names(&page), "a b c d");
}

#[tokio::test]
async fn a_page_reads_only_what_it_carries() {
    let world = World::new(Bounds::default()).await;
    for number in 0..50 {
        world
            .put(&kinds::SECRET, &format!("s{number:02}"), json!({}))
            .await;
    }
    let options = ListOptions {
        limit: Some(5),
        ..ListOptions::default()
    };
    let page = world
        .page("reader", &kinds::SECRET, &options)
        .await
        .unwrap();
    assert_eq!((page.items.len(), page.remaining), (5, Some(45)));
    let view = world.cache(&kinds::SECRET).await.view();
    let read = view.range(stored::prefix(&kinds::SECRET, None), None);
    assert_eq!(read.filter(|item| item.is_read()).count(), 0);
}

#[tokio::test]
async fn events_are_found_by_what_they_are_about_and_the_oldest_give_way() {
    let world = World::new(Bounds::default()).await;
    let event = |about: &str| json!({"involvedObject": {"kind": "Pod", "name": about}});
    for number in 0..40 {
        let about = event(&format!("p{}", number % 10));
        world
            .put(&kinds::EVENT, &format!("e{number:02}"), about)
            .await;
    }
    // Seen again: it is the youngest now.
    world.put(&kinds::EVENT, "e00", event("p0")).await;
    let cache = world.cache(&kinds::EVENT).await;
    let view = cache.view();
    for (kind, field) in [
        (&kinds::EVENT, "involvedObject.name"),
        (&kinds::EVENT_V1, "regarding.name"),
    ] {
        let index = cache.index_of(kind, field).unwrap();
        let found = view.range_with(index, "p3", stored::prefix(kind, Some("a")), None);
        assert_eq!(found.count(), 4, "{field}");
    }
    let namespace = b"/core/events/a/";
    let excess = |objects, bytes, new| {
        let plan = Plan {
            quota: Some(Quota { objects, bytes }),
            ..cache.plan.clone()
        };
        let keys = view.excess(&plan, namespace, new, 3);
        let keys: Vec<String> = keys.iter().map(Key::to_string).collect();
        keys.join(" ").replace("/core/events/a/", "")
    };
    assert_eq!(excess(41, usize::MAX, 0), "");
    assert_eq!(excess(40, usize::MAX, 0), "e01");
    assert_eq!(excess(39, usize::MAX, 0), "e01 e02");
    assert_eq!(
        excess(1, usize::MAX, 0),
        "e01 e02 e03",
        "no more at once than asked"
    );
    let held: usize = view
        .range(stored::prefix(&kinds::EVENT, None), None)
        .map(|item| item.weight())
        .sum();
    assert_eq!(excess(1000, held + 10, 10), "");
    assert_eq!(excess(1000, held + 10, 11), "e01");
}

#[tokio::test]
async fn a_watch_goes_on_after_the_server_was_restarted() {
    let world = World::new(Bounds::default()).await;
    let first = world.pod("a", "n").await;
    world.pod("b", "n").await;
    world.delete(&kinds::POD, "a").await;
    world.store.shutdown().await;
    let World { store, caches, dir } = world;
    drop((store, caches));
    let world = World::open(dir, Bounds::default()).await;
    let cache = world.cache(&kinds::POD).await;
    let all = Selection::default();
    let mut resumed = cache.watch(&kinds::POD, None, &all, Some(first)).unwrap().0;
    assert_eq!(told(&mut resumed), "Added b@2, Deleted a@3");
    let gone = cache.watch(&kinds::POD, None, &all, Some(4)).err().unwrap();
    assert_eq!((gone.oldest, gone.newest), (0, 3));
}

#[tokio::test]
async fn a_quiet_kind_is_as_new_as_the_store() {
    let world = World::new(Bounds::default()).await;
    world.pod("a", "n").await;
    let cache = world.cache(&kinds::POD).await;
    let (watch, view) = cache
        .watch(&kinds::POD, None, &Selection::default(), None)
        .unwrap();
    assert_eq!((view.revision(), watch.progress()), (1, 1));
    for number in 0..9 {
        world
            .put(&kinds::CONFIG_MAP, &format!("m{number}"), json!({}))
            .await;
    }
    assert_eq!(world.cache(&kinds::POD).await.view().revision(), 10);
    assert_eq!(watch.progress(), 10);
}

#[tokio::test]
async fn what_nobody_asks_for_is_let_go_of() {
    let world = World::new(Bounds::default()).await;
    world.pod("a", "n").await;
    let cache = world.cache(&kinds::POD).await;
    world.cache(&kinds::SECRET).await;
    let all = Selection::default();
    let mut watch = cache.watch(&kinds::POD, None, &all, None).unwrap().0;
    drop(cache);
    let later = Instant::now() + IDLE_MAX + Duration::from_secs(2);
    world.caches.shared.sweep(Instant::now());
    assert_eq!(world.caches.len(), 2);
    world.caches.shared.sweep(later);
    assert_eq!(world.caches.len(), 1, "the one that is watched");
    world.pod("b", "n").await;
    world.cache(&kinds::POD).await;
    assert_eq!(told(&mut watch), "Added b@2");
    drop(watch);
    world.caches.shared.sweep(later);
    assert_eq!(world.caches.len(), 0);
    // It begins anew, with the history that the store has.
    let cache = world.cache(&kinds::POD).await;
    let mut again = cache.watch(&kinds::POD, None, &all, Some(1)).unwrap().0;
    assert_eq!(told(&mut again), "Added b@2");
}

#[tokio::test]
async fn what_is_encoded_lives_as_long_as_somebody_is_told_of_it() {
    let world = World::new(Bounds::default()).await;
    let cache = world.cache(&kinds::POD).await;
    let all = Selection::default();
    let watch = || cache.watch(&kinds::POD, None, &all, Some(0)).unwrap().0;
    let (mut first, mut second) = (watch(), watch());
    world.pod("a", "n").await;
    let next = first.next().await.unwrap();
    let also = second.next().await.unwrap();
    assert!(Arc::ptr_eq(&next.lines, &also.lines));
    // Whoever comes later, while it is still being told, shares it; after that nothing is left of it.
    let replayed = watch().next().await.unwrap();
    assert!(Arc::ptr_eq(&next.lines, &replayed.lines));
    let lines = Arc::downgrade(&next.lines);
    drop((next, also, replayed));
    assert!(lines.upgrade().is_none());
}

/// A value of this kind and number that hardly compresses.
fn noise(number: usize, bytes: usize) -> Value {
    let mut seed = number as u32 + 1;
    let text: String = (0..bytes)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'!' + ((seed >> 16) % 90) as u8)
        })
        .collect();
    json!({"metadata": {"labels": {"number": number.to_string()}}, "data": {"noise": text}})
}

impl World {
    async fn map(&self, number: usize, bytes: usize) -> Revision {
        let mut value = noise(number, bytes);
        let name = format!("m{number:03}");
        value["metadata"]["name"] = name.as_str().into();
        value["metadata"]["namespace"] = "a".into();
        self.put(&kinds::CONFIG_MAP, &name, value).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_in_memory_as_far_as_there_is_room_and_read_from_the_store_where_not() {
    const ROOM: usize = 64 << 10;
    let bounds = Bounds {
        values_bytes_max: ROOM,
        history_bytes_max: 16 << 10,
        ..Bounds::default()
    };
    let world = World::new(bounds).await;
    for number in 0..300 {
        world.map(number, 2000).await;
    }
    let values = Arc::clone(&world.caches.shared.values);
    let fits = |told: &str| {
        let (held, number, bytes) = values.counted();
        assert_eq!(held, bytes, "{told}");
        assert!(
            bytes <= ROOM && number <= ROOM / 2000,
            "{told}: {number} values of {bytes} bytes"
        );
    };
    let cache = world.cache(&kinds::CONFIG_MAP).await;
    fits("a cache that begins");
    let before = cache.view();
    let expected = shown(&before, &kinds::CONFIG_MAP);
    assert_eq!(expected.len(), 300);
    fits("a list");

    // Half of them are replaced and some deleted, by one who does not wait, while others list: each list is of its revision.
    let writer = async {
        for number in (0..300).step_by(2) {
            world.map(number, 2500).await;
            if number % 10 == 0 {
                let name = format!("m{number:03}");
                world.delete(&kinds::CONFIG_MAP, &name).await;
            }
        }
    };
    let lister = async {
        for _ in 0..20 {
            let view = world.cache(&kinds::CONFIG_MAP).await.view();
            let listed = shown(&view, &kinds::CONFIG_MAP);
            let newest = listed.values().map(|(revision, _)| *revision).max();
            assert!(newest <= Some(view.revision()));
            fits("a list beside writes");
        }
    };
    tokio::join!(writer, lister);
    assert_eq!(
        shown(&before, &kinds::CONFIG_MAP),
        expected,
        "a list that began before"
    );
    drop((before, expected, cache));
    let cache = world.cache(&kinds::CONFIG_MAP).await;
    let snapshot = world.store.snapshot();
    let stored: BTreeMap<_, _> = snapshot
        .range(&stored::prefix(&kinds::CONFIG_MAP, None), None)
        .map(|entry| (entry.key.to_string(), (entry.revision, entry.value())))
        .collect();
    assert_eq!(shown(&cache.view(), &kinds::CONFIG_MAP), stored);
    fits("afterwards");

    // Selections need no value.
    let wanted = Selection {
        labels: LabelSelector::parse("number in (7, 9)").unwrap(),
        ..Selection::default()
    };
    let options = ListOptions {
        selection: wanted,
        ..ListOptions::default()
    };
    let page = world.page("reader", &kinds::CONFIG_MAP, &options).await;
    let names: Vec<_> = page
        .unwrap()
        .items
        .iter()
        .map(|item| item.name().to_owned())
        .collect();
    assert_eq!(names, ["m007", "m009"]);

    // What is gone is not counted.
    drop(cache);
    world.caches.shutdown().await;
    assert_eq!(values.counted(), (0, 0, 0));
}

#[tokio::test]
async fn a_value_that_was_replaced_before_its_cache_heard_of_it_is_still_found() {
    let bounds = Bounds {
        values_bytes_max: 0,
        ..Bounds::default()
    };
    let world = World::new(bounds).await;
    world.map(1, 500).await;
    let revision = world.map(2, 500).await;
    let cache = world.cache(&kinds::CONFIG_MAP).await;
    // One value always stays: not this one.
    let key = stored::key(&kinds::CONFIG_MAP, Some("a"), "m001");
    let item = Arc::clone(cache.view().get(&key).unwrap());
    assert!(item.is_away());
    let values = &world.caches.shared.values;
    let expected = values.read(item.key(), item.revision()).unwrap();
    // As the store tells it, whatever the cache has heard by now: its history knows what was replaced.
    world.map(1, 700).await;
    world.delete(&kinds::CONFIG_MAP, "m001").await;
    let found = values.read(item.key(), item.revision()).unwrap();
    assert_eq!(found, expected);
    assert!(
        values.read(item.key(), revision).is_err(),
        "of another object"
    );
    // And when it has heard, the item keeps it for whoever still shows it.
    world.cache(&kinds::CONFIG_MAP).await;
    assert!(!item.is_away());
    assert_eq!(item.entry().unwrap(), expected);
}

#[tokio::test]
async fn a_cache_whose_task_panics_is_replaced_and_its_watches_end() {
    let world = World::new(Bounds::default()).await;
    world.pod("a", "n").await;
    let cache = world.cache(&kinds::POD).await;
    let all = Selection::default();
    let mut watch = cache.watch(&kinds::POD, None, &all, None).unwrap().0;
    cache.state.lock().panics = true;
    let last = world.pod("b", "n").await;
    // Its watchers are not left waiting for ever, and the next one finds a cache that shows everything.
    assert!(watch.next().await.is_none());
    let next = world.cache(&kinds::POD).await;
    assert!(!Arc::ptr_eq(&cache, &next));
    assert_eq!(next.view().revision(), last);
    let mut again = next
        .watch(&kinds::POD, None, &all, Some(last - 1))
        .unwrap()
        .0;
    assert_eq!(told(&mut again), "Added b@2");
}

#[tokio::test]
async fn a_shutdown_ends_watches_and_waits_for_every_task() {
    let world = World::new(Bounds::default()).await;
    world.pod("a", "n").await;
    let cache = world.cache(&kinds::POD).await;
    world.cache(&kinds::SECRET).await;
    let all = Selection::default();
    let mut watch = cache.watch(&kinds::POD, None, &all, None).unwrap().0;
    assert_eq!(world.caches.shared.tasks.len(), 2);
    world.caches.shutdown().await;
    assert_eq!(
        (world.caches.shared.tasks.len(), world.caches.len()),
        (0, 0)
    );
    assert!(watch.next().await.is_none());
    let revision = world.store.snapshot().revision();
    let refused = world.caches.at_least(&kinds::POD, revision).await;
    assert_eq!(refused.err().map(|error| error.code), Some(503));
}
