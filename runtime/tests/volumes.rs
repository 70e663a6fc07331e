//! Guests in volumes that are too small for them. The numbers are those of the list of attacks (`docs/attacks.md`); the steps
//! of the scripts are explained in `sample-apps/behaviours/src/volume.rs`. Everything is done by a guest of WASI 0.2 and by one
//! of 0.3, which have to see the same.

mod guest;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use weft_runtime::{
    Access, Artifact, Engine, Exit, Full, Limits, LogSink, Volume, VolumeLimits, Workload,
    WorkloadBuilder, volume,
};

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::builder().instances_max(64).build().unwrap());

const GUESTS: [&str; 2] = ["behaviours", "behaviours-p3"];

async fn guest(name: &str) -> Artifact {
    ENGINE.load(guest::bytes(name)).await.unwrap()
}

fn limits(bytes: impl Into<Option<u64>>, inodes: impl Into<Option<u64>>) -> VolumeLimits {
    VolumeLimits {
        bytes: bytes.into(),
        inodes: inodes.into(),
    }
}

fn volume_of(limits: VolumeLimits) -> (TempDir, Volume) {
    let dir = tempfile::tempdir().unwrap();
    let volume = Volume::open(dir.path(), limits).unwrap();
    (dir, volume)
}

/// A workload that goes through the steps, one a line, and what it prints.
fn going(artifact: &Artifact, steps: &str) -> (WorkloadBuilder, Arc<Mutex<String>>) {
    let steps = steps.split(';').map(|step| step.trim().to_owned());
    let args = ["behaviours".to_owned(), "volume/rw".to_owned()];
    let printed = Arc::new(Mutex::new(String::new()));
    let sink = printed.clone();
    let workload = Workload::builder(&ENGINE, artifact)
        .args(args.into_iter().chain(steps).collect())
        .stdout(LogSink::new(move |bytes| {
            *sink.lock().unwrap() += &String::from_utf8_lossy(bytes);
        }));
    (workload, printed)
}

async fn through(workload: WorkloadBuilder, printed: Arc<Mutex<String>>) -> String {
    assert_eq!(workload.build().unwrap().run().await, Exit::Success);
    let printed = printed.lock().unwrap();
    printed.trim_end().to_owned()
}

/// What a guest sees that has `volume` at `/rw`.
async fn script(artifact: &Artifact, volume: &Volume, steps: &str) -> String {
    let (workload, printed) = going(artifact, steps);
    through(workload.volume(volume, "/rw", Access::ReadWrite), printed).await
}

/// What both guests see, each in a volume of its own. The volumes must be as full as their directories, and within their
/// limits.
async fn both(limits: VolumeLimits, steps: &str) -> String {
    let mut saw = Vec::new();
    for name in GUESTS {
        let (dir, volume) = volume_of(limits);
        saw.push(script(&guest(name).await, &volume, steps).await);
        let believed = volume.usage();
        let counted = volume.count().await.unwrap();
        assert!(believed.bytes >= counted.bytes, "{name}: {believed:?}");
        assert!(believed.inodes >= counted.inodes, "{name}: {believed:?}");
        let held = held(dir.path());
        assert_eq!((counted.bytes, counted.inodes), held, "{name}");
        assert!(held.0 <= limits.bytes.unwrap_or(u64::MAX), "{name}");
        assert!(held.1 <= limits.inodes.unwrap_or(u64::MAX), "{name}");
        // No more than that on the disk: what a file system of another kind takes for a file is its affair.
        assert!(on_disk(dir.path()) <= held.0, "{name}");
    }
    assert_eq!(saw[0], saw[1]);
    saw.remove(0)
}

/// Bytes in blocks of 4 KiB, and names, in all that is below `dir`. No hard links.
fn held(dir: &Path) -> (u64, u64) {
    let (mut bytes, mut inodes) = (0, 0);
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let below = match metadata.is_dir() {
            true => held(&entry.path()),
            false => (0, 0),
        };
        bytes += below.0
            + match metadata.is_file() {
                true => metadata.len().div_ceil(4096) * 4096,
                false => 4096,
            };
        inodes += 1 + below.1;
    }
    (bytes, inodes)
}

/// What the kernel has for the files below `dir`.
fn on_disk(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            match metadata.is_dir() {
                true => on_disk(&entry.path()),
                false => metadata.blocks() * 512,
            }
        })
        .sum()
}

#[tokio::test]
async fn attack_58_a_volume_is_filled_to_its_limit_and_no_further() {
    let steps = "write a 100000; append a 1; size a 40961; write b 1; unlink b; unlink a; \
                 write b 20000; append b 5000; append b 3000; stream c 100000; append c 1; \
                 files d 1; write d0 1; size d0 1; unlink c; size d0 12288; size d0 12289; \
                 size d0 0; append d0 4096; append d0 9000; write b 20000; directories e 1; \
                 unlink d0; directories e 1; symlinks f 2";
    insta::assert_snapshot!(both(limits(40_960, None), steps).await, @r"
    write a 100000: 40960, then quota
    append a 1: 0, then quota
    size a 40961: quota
    write b 1: 0, then quota
    unlink b: ok
    unlink a: ok
    write b 20000: 20000
    append b 5000: 5000
    append b 3000: 3000
    stream c 100000: 12288, then quota
    append c 1: 0, then quota
    files d 1: 1
    write d0 1: 0, then quota
    size d0 1: quota
    unlink c: ok
    size d0 12288: ok
    size d0 12289: quota
    size d0 0: ok
    append d0 4096: 4096
    append d0 9000: 8192, then quota
    write b 20000: 20000
    directories e 1: 0, then quota
    unlink d0: ok
    directories e 1: 1
    symlinks f 2: 2
    ");
}

#[tokio::test]
async fn attack_58_what_is_unlinked_and_still_open_takes_room() {
    let steps = "open a; append a 40960; unlink a; write b 1; close; write b 40960; \
                 open b; rename b c; unlink c; files d 1; append d0 1; close; append d0 1";
    insta::assert_snapshot!(both(limits(40_960, None), steps).await, @r"
    open a: ok
    append a 40960: 40960
    unlink a: ok
    write b 1: 0, then quota
    close: ok
    write b 40960: 40960
    open b: ok
    rename b c: ok
    unlink c: ok
    files d 1: 1
    append d0 1: 0, then quota
    close: ok
    append d0 1: 1
    ");
}

#[tokio::test]
async fn attack_58_a_file_is_in_one_volume_only() {
    for name in GUESTS {
        let artifact = guest(name).await;
        let (_dir, here) = volume_of(limits(40_960, None));
        let (_other_dir, there) = volume_of(limits(40_960, 10));
        let plain = tempfile::tempdir().unwrap();
        let steps = "write a 10; move a /there; link a /there; move a /plain; link a /plain; \
                     move a /rw; move a /ro; link a /ro; link a /same; rename a b; \
                     move b /same; unlink b; enter c; move d /ro";
        let (workload, printed) = going(&artifact, steps);
        let workload = workload
            .volume(&here, "/ro", Access::ReadOnly)
            .volume(&there, "/there", Access::ReadWrite)
            .preopen(plain.path(), "/plain", Access::ReadWrite)
            .volume(&here, "/same", Access::ReadWrite)
            .volume(&here, "/rw", Access::ReadWrite);
        let saw = through(workload, printed).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(saw, @r"
            write a 10: 10
            move a /there: cross-device
            link a /there: cross-device
            move a /plain: cross-device
            link a /plain: cross-device
            move a /rw: ok
            move a /ro: read-only
            link a /ro: read-only
            link a /same: exist
            rename a b: ok
            move b /same: ok
            unlink b: ok
            enter c: ok
            move d /ro: read-only
            ");
        }
        assert_eq!(held(plain.path()), (0, 0));
        assert_eq!(there.usage().inodes, 0);
    }
}

#[tokio::test]
async fn attacks_55_and_56_what_is_read_only_stays_as_it_is() {
    for name in GUESTS {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "as it was").unwrap();
        // Full: the reason has to be that it is read-only all the same.
        let volume = Volume::open(dir.path(), limits(4096, 1)).unwrap();
        let steps = "write a 10; stream a 10; append a 10; size a 0; files b 1; directories c 1; \
                     symlinks d 1; links a e 1; rename a f; unlink a; rmdir g";
        let (workload, printed) = going(&guest(name).await, steps);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sink = heard.clone();
        volume.on_full(move |full| sink.lock().unwrap().push(full));
        let workload = workload.volume(&volume, "/rw", Access::ReadOnly);
        let saw = through(workload, printed).await;
        insta::allow_duplicates! {
            insta::assert_snapshot!(saw, @r"
            write a 10: read-only
            stream a 10: read-only
            append a 10: read-only
            size a 0: read-only
            files b 1: 0, then read-only
            directories c 1: 0, then read-only
            symlinks d 1: 0, then read-only
            links a e 1: 0, then read-only
            rename a f: read-only
            unlink a: read-only
            rmdir g: read-only
            ");
        }
        assert_eq!(heard.lock().unwrap().len(), 0);
        let text = fs::read_to_string(dir.path().join("a")).unwrap();
        assert_eq!((text.as_str(), held(dir.path())), ("as it was", (4096, 1)));
    }
}

#[tokio::test]
async fn attack_59_a_million_files_meet_the_limit_of_inodes() {
    let steps = "files a 1000000; files a 10; write a0 5; directories b 1; unlink a0; directories b 2; \
                 unlink a1; symlinks c 2; unlink a2; links a3 d 2; unlink a3; unlink a4; \
                 rename d0 a3; rename a3 a5; files e 5; rmdir b0; enter f; files g 1";
    insta::assert_snapshot!(both(limits(None, 10), steps).await, @r"
    files a 1000000: 10, then quota
    files a 10: 10
    write a0 5: 5
    directories b 1: 0, then quota
    unlink a0: ok
    directories b 2: 1, then quota
    unlink a1: ok
    symlinks c 2: 1, then quota
    unlink a2: ok
    links a3 d 2: 1, then quota
    unlink a3: ok
    unlink a4: ok
    rename d0 a3: ok
    rename a3 a5: ok
    files e 5: 3, then quota
    rmdir b0: ok
    enter f: ok
    files g 1: 0, then quota
    ");
}

#[tokio::test]
async fn attack_59_directories_deeper_than_a_path_is_long() {
    for name in GUESTS {
        let steps = "enter deeper;".repeat(601) + "files e 1; unlink e0; files e 1; write e0 5000";
        let (dir, volume) = volume_of(limits(None, 600));
        let saw = script(&guest(name).await, &volume, &steps).await;
        let last: Vec<&str> = saw.lines().rev().take(5).collect();
        insta::allow_duplicates! {
            insta::assert_snapshot!(last.join("\n"), @r"
            write e0 5000: quota
            files e 1: 0, then quota
            unlink e0: no-entry
            files e 1: 0, then quota
            enter deeper: quota
            ");
        }
        assert_eq!(volume.count().await.unwrap().inodes, 600);
        volume::remove_tree(dir.path()).unwrap();
        assert!(!dir.path().exists());
        volume::remove_tree(dir.path()).unwrap();
    }
}

#[tokio::test]
async fn what_was_there_before_counts() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    fs::write(dir.path().join("folder/a"), vec![1; 5000]).unwrap();
    fs::hard_link(dir.path().join("folder/a"), dir.path().join("b")).unwrap();
    std::os::unix::fs::symlink("/etc", dir.path().join("c")).unwrap();
    let allowed = limits(20_480, 6);
    let volume = Volume::open(dir.path(), allowed).unwrap();
    let usage = volume.usage();
    // Two blocks of the file with two names, and one each for the folder and the link.
    assert_eq!((usage.bytes, usage.inodes), (16_384, 4));
    assert_eq!(usage.limits, allowed);
    let artifact = guest("behaviours").await;
    insta::assert_snapshot!(script(&artifact, &volume, "write d 5000; files e 3").await, @r"
    write d 5000: 4096, then quota
    files e 3: 1, then quota
    ");
    assert_eq!((volume.usage().bytes, volume.usage().inodes), (20_480, 6));
    // The embedder makes room behind the guests' backs.
    fs::remove_file(dir.path().join("b")).unwrap();
    fs::remove_file(dir.path().join("folder/a")).unwrap();
    assert_eq!(volume.count().await.unwrap().inodes, 4);
    assert_eq!(volume.usage().bytes, 12_288);
}

#[tokio::test]
async fn who_lends_it_hears_of_it() {
    let (_dir, volume) = volume_of(limits(8192, 2));
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = heard.clone();
    volume.on_full(move |full| sink.lock().unwrap().push(full));
    for name in GUESTS {
        script(&guest(name).await, &volume, "write a 8192").await;
        assert_eq!(heard.lock().unwrap().len(), 0, "{name}");
        script(&guest(name).await, &volume, "append a 1; files b 2").await;
        let heard = std::mem::take(&mut *heard.lock().unwrap());
        assert_eq!(heard, [Full::Bytes, Full::Inodes], "{name}");
        script(&guest(name).await, &volume, "unlink a; unlink b0").await;
    }
}

/// Four guests at a time on one volume: none gets past its limits, and together they use all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn attack_58_several_at_once_do_not_get_more() {
    let artifacts = [guest(GUESTS[0]).await, guest(GUESTS[1]).await];
    for round in 0..8 {
        let (dir, volume) = volume_of(limits(1 << 20, 40));
        let all = (0..4).map(|one| {
            let (artifact, volume) = (artifacts[one % 2].clone(), volume.clone());
            tokio::spawn(async move {
                // One file that all write, one that each has of its own, and small ones.
                let steps = format!(
                    "append all 200000; stream own{one} 300000; files small{one}- 20; \
                     append all 70000; unlink own{one}; append all 1000000"
                );
                script(&artifact, &volume, &steps).await
            })
        });
        for saw in futures::future::join_all(all).await {
            assert!(saw.unwrap().contains("then quota"), "round {round}");
        }
        let (bytes, inodes) = held(dir.path());
        assert!(bytes <= 1 << 20 && inodes <= 40, "{bytes} {inodes}");
        assert_eq!(bytes, 1 << 20, "round {round}");
        let counted = volume.count().await.unwrap();
        assert_eq!((counted.bytes, counted.inodes), (bytes, inodes));
    }
}

/// What an instance had begun when it was ended is finished, and counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_58_who_is_ended_in_the_middle_leaves_nothing_uncounted() {
    for name in GUESTS {
        let artifact = guest(name).await;
        let (dir, volume) = volume_of(limits(4 << 20, 300));
        for millis in 1..40 {
            let steps =
                format!("files a{millis}- 3; append b{millis} 300000; directories c{millis}- 3");
            let (workload, _) = going(&artifact, &steps);
            let workload = workload
                .volume(&volume, "/rw", Access::ReadWrite)
                .limits(Limits {
                    run_timeout: Some(Duration::from_millis(millis % 10)),
                    ..Limits::default()
                });
            workload.build().unwrap().run().await;
        }
        script(
            &artifact,
            &volume,
            "write z 5000000; files y 1000; size z 5000000",
        )
        .await;
        let (bytes, inodes) = held(dir.path());
        assert!(bytes <= 4 << 20, "{name}: {bytes}");
        assert!(inodes <= 300, "{name}: {inodes}");
    }
}
