//! What guests are told of their files by `weft:files`, and held to: scripts of the toolbox' shell, as users and as user 0.

mod guest;

use std::path::Path;
use std::sync::LazyLock;

use tempfile::TempDir;
use tokio::sync::mpsc;
use weft_runtime::ownership::{self, Attributes};
use weft_runtime::{
    Access, Artifact, Engine, Identity, Session, Stdio, Told, Volume, VolumeLimits, Workload,
};

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::builder().instances_max(16).build().unwrap());

async fn toolbox() -> Artifact {
    ENGINE.load(guest::bytes("toolbox")).await.unwrap()
}

fn attributes(mode: u32, user: u32, group: u32) -> Attributes {
    Attributes { mode, user, group }
}

/// A volume with what the scripts are about, told as memory.
fn volume() -> (TempDir, Volume) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    ownership::open_to_guests(dir.path(), 0o777).unwrap();
    for (name, mode, user, group) in [
        ("secret", 0o400, 0, 0),
        ("shared", 0o660, 0, 5),
        ("readable", 0o444, 0, 0),
    ] {
        std::fs::write(at(name), format!("{name}\n")).unwrap();
        ownership::set_attributes(&at(name), attributes(mode, user, group)).unwrap();
    }
    for (name, mode, group) in [
        ("shut", 0o700, 0),
        ("groups", 0o2777, 5),
        ("sticky", 0o1777, 0),
    ] {
        std::fs::create_dir(at(name)).unwrap();
        ownership::set_attributes(&at(name), attributes(mode, 0, group)).unwrap();
    }
    std::fs::write(at("shut/in"), "in\n").unwrap();
    std::fs::write(at("sticky/roots"), "x\n").unwrap();
    let limits = VolumeLimits {
        bytes: Some(10 << 20),
        inodes: Some(100),
    };
    let told = Told {
        file_system: Some("tmpfs"),
        ..Told::default()
    };
    let volume = Volume::open_as(dir.path(), limits, told).unwrap();
    (dir, volume)
}

/// What a script prints on both of its streams.
async fn ran(toolbox: &Artifact, volume: &Volume, who: &Identity, script: &str) -> String {
    let workload = Workload::builder(&ENGINE, toolbox)
        .identity(who.clone())
        .volume(volume, "/data", Access::ReadWrite)
        .volume(volume, "/kept", Access::ReadOnly)
        .build()
        .unwrap();
    let (stdout, mut out) = mpsc::channel(16);
    let stdio = Stdio {
        stderr: Some(stdout.clone()),
        stdout: Some(stdout),
        ..Stdio::default()
    };
    let session = Session {
        args: ["sh", "-c", script].map(str::to_owned).into(),
        ..Session::default()
    };
    let collected = async {
        let mut text = Vec::new();
        while let Some(chunk) = out.recv().await {
            text.extend_from_slice(&chunk);
        }
        String::from_utf8(text).unwrap()
    };
    let (ended, text) = tokio::join!(workload.session(toolbox, session, stdio), collected);
    ended.unwrap();
    text.trim_end().to_owned()
}

#[tokio::test]
async fn modes_and_owners_mean_something() {
    let toolbox = toolbox().await;
    let root = Identity::default();
    let user = Identity {
        user: 1001,
        group: 1001,
        groups: vec![5],
    };
    for (who, script, expected) in [
        (&user, "id", "uid=1001 gid=1001 groups=1001,5"),
        (&root, "id -u", "0"),
        (
            &user,
            "umask 0; echo x > /data/a; stat -c '%a %u %g' /data/a",
            "666 1001 1001",
        ),
        (
            &root,
            "echo x > /data/a; stat -c '%a %u %g' /data/a",
            "644 0 0",
        ),
        (&user, "umask 077; mkdir /data/d; stat -c %a /data/d", "700"),
        (
            &user,
            "echo x > /data/a; chmod 2640 /data/a; ls -l /data/a | cut -c1-10",
            "-rw-r-S---",
        ),
        (
            &user,
            "echo x > /data/groups/a; stat -c '%u %g' /data/groups/a",
            "1001 5",
        ),
        (
            &user,
            "mkdir /data/groups/d; stat -c '%a %g' /data/groups/d",
            "2755 5",
        ),
        (
            &user,
            "echo x > /data/a; mv /data/a /data/b; stat -c %u /data/b",
            "1001",
        ),
        (&user, "cat /data/readable /data/shared", "readable\nshared"),
        (
            &user,
            "echo y >> /data/shared; cat /data/shared",
            "shared\ny",
        ),
        (&root, "cat /data/secret /data/shut/in", "secret\nin"),
        (
            &root,
            "chown 7:8 /data/secret; stat -c '%u %g' /data/secret",
            "7 8",
        ),
        (&user, "mount | grep data", "tmpfs on /data type tmpfs (rw)"),
        (&user, "df /data | awk 'NR==2 {print $2}'", "10240"),
    ] {
        let (_dir, volume) = volume();
        let said = ran(&toolbox, &volume, who, script).await;
        assert_eq!(said, expected, "{script} as {}", who.user);
    }
    for (script, refused) in [
        ("cat /data/secret", "Permission denied"),
        ("cat /data/shut/in", "Permission denied"),
        ("echo x > /data/readable", "Permission denied"),
        ("echo x > /data/shut/new", "Permission denied"),
        ("rm /data/sticky/roots", "not permitted"),
        ("mv /data/sticky/roots /data/mine", "not permitted"),
        ("chmod 777 /data/secret", "not permitted"),
        ("chown 1001 /data/secret", "not permitted"),
        ("chmod 777 /kept/readable", "Read-only"),
    ] {
        let (dir, volume) = volume();
        let said = ran(&toolbox, &volume, &user, script).await;
        assert!(said.contains(refused), "{script}: {said}");
        assert!(is_as_it_was(dir.path()), "{script}");
    }
}

fn is_as_it_was(dir: &Path) -> bool {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap_or_default();
    let secret = ownership::attributes(&dir.join("secret")).unwrap();
    read("readable") == "readable\n"
        && read("sticky/roots") == "x\n"
        && !dir.join("shut/new").exists()
        && secret == attributes(0o400, 0, 0)
}
