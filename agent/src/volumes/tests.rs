//! Volumes from what pods ask for to what is on disk.

use super::*;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

fn pod(annotations: Value, volumes: Value, mounts: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "annotations": annotations},
        "spec": {"volumes": volumes, "containers": [{"name": "c", "volumeMounts": mounts}]},
    }))
    .expect("a pod")
}

fn asked(pod: &Pod) -> Result<Vec<Mount>, ConfigError> {
    let node = node();
    let at = Downward {
        pod: PodView(pod),
        pod_ip: "10.42.0.7".parse().expect("an address"),
        node: &node,
    };
    let container = &pod.spec.as_ref().expect("a spec").containers[0];
    mounts(at, &Environment::default(), container)
}

#[test]
fn mounts_are_translated_with_their_limits() {
    let mounts = json!([
        {"name": "data", "mountPath": "/data"},
        {"name": "data", "mountPath": "same", "readOnly": true},
        {"name": "cache", "mountPath": "/cache"},
        {"name": "kube-api-access-abcde", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
        {"name": "settings", "mountPath": "/settings"},
    ]);
    let volumes = json!([
        {"name": "data", "emptyDir": {"sizeLimit": "10Mi"}},
        {"name": "cache", "emptyDir": {"sizeLimit": "0"}},
        {"name": "kube-api-access-abcde", "projected": {"sources": []}},
        {"name": "settings", "configMap": {"name": "settings"}},
    ]);
    let shown = |annotations| {
        let asked = asked(&pod(annotations, volumes.clone(), mounts.clone())).expect("mounts");
        let lines: Vec<String> = asked
            .iter()
            .map(|mount| {
                let Holds::Own(VolumeLimits { bytes, inodes }) = mount.holds else {
                    return format!(
                        "{} at {} {:?} files",
                        mount.volume, mount.path, mount.access
                    );
                };
                format!(
                    "{} at {} {:?} {} {}",
                    mount.volume,
                    mount.path,
                    mount.access,
                    bytes.unwrap_or_default(),
                    inodes.unwrap_or_default()
                )
            })
            .collect();
        lines.join("\n")
    };
    insta::assert_snapshot!(shown(json!({})), @r"
    data at /data ReadWrite 10485760 65536
    data at /same ReadOnly 10485760 65536
    cache at /cache ReadWrite 1073741824 65536
    kube-api-access-abcde at /var/run/secrets/kubernetes.io/serviceaccount ReadOnly files
    settings at /settings ReadOnly files
    ");
    insta::assert_snapshot!(shown(json!({"weft.dev/max-volume-inodes": "100"})), @r"
    data at /data ReadWrite 10485760 100
    data at /same ReadOnly 10485760 100
    cache at /cache ReadWrite 1073741824 100
    kube-api-access-abcde at /var/run/secrets/kubernetes.io/serviceaccount ReadOnly files
    settings at /settings ReadOnly files
    ");
}

#[test]
fn limits_that_are_none_are_refused() {
    let mounts = json!([{"name": "data", "mountPath": "/data"}]);
    let refused = |annotations, limit| {
        let volumes = json!([{"name": "data", "emptyDir": {"sizeLimit": limit}}]);
        let asked = asked(&pod(annotations, volumes, mounts.clone()));
        asked.expect_err("refused").to_string()
    };
    let inodes = |text| refused(json!({"weft.dev/max-volume-inodes": text}), "1Mi");
    let lines = [
        refused(json!({}), "much"),
        refused(json!({}), "-1"),
        inodes("0"),
        inodes("1000001"),
        inodes("1k"),
    ];
    insta::assert_snapshot!(lines.join("\n"), @r#"
    volume data: emptyDir.sizeLimit: "much" is not a quantity
    volume data: emptyDir.sizeLimit: "-1" is not a quantity
    annotation weft.dev/max-volume-inodes: "0" is not a number from 1 to 1000000
    annotation weft.dev/max-volume-inodes: "1000001" is not a number from 1 to 1000000
    annotation weft.dev/max-volume-inodes: "1k" is not a number from 1 to 1000000
    "#);
}

fn node() -> NodeFacts {
    NodeFacts {
        name: "node-0".into(),
        host_ip: "127.0.0.1".parse().expect("an address"),
        allocatable_cpu_millis: 2000,
        allocatable_memory_bytes: 4 << 30,
    }
}

/// The volume of a mount as a container that gets ready would find it.
async fn mount(
    volumes: &Volumes,
    pod: &Arc<Pod>,
    asked: &Mount,
    configuration: &Configuration,
) -> Result<Volume, MountError> {
    mount_of(volumes, &KeptPod::new(pod), asked, configuration).await
}

/// The same for a pod that is going to change.
async fn mount_of(
    volumes: &Volumes,
    kept: &KeptPod,
    mount: &Mount,
    configuration: &Configuration,
) -> Result<Volume, MountError> {
    let pod = kept.read();
    let (recorder, _writing) = Recorder::new("node");
    let at = Downward {
        pod: PodView(&pod),
        pod_ip: "10.42.0.7".parse().expect("an address"),
        node: &node(),
    };
    let given = Given {
        configuration,
        image: None,
        recorder: &recorder,
    };
    let found = volumes.find(kept, "c", mount, at, given);
    found.await.map(|found| match found {
        Below::Folder(volume) => volume,
        Below::File(file) => panic!("a file: {file:?}"),
    })
}

#[tokio::test]
async fn a_volume_is_shared_and_goes_with_its_pod() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path().join("volumes");
    let volumes = Volumes::open(&root, Vec::new()).expect("volumes");
    let nothing = Configuration::default();
    let both = json!([{"name": "a", "mountPath": "/a"}, {"name": "b", "mountPath": "/b"}]);
    let pod = Arc::new(pod(
        json!({}),
        json!([{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}]),
        both,
    ));
    let asked = asked(&pod).expect("mounts");
    assert!(volumes.of_pod("u").is_empty());
    for wanted in [&asked[0], &asked[1], &asked[0]] {
        let made = mount(&volumes, &pod, wanted, &nothing).await;
        made.expect("a volume");
    }
    let names: Vec<String> = volumes
        .of_pod("u")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["a", "b"]);
    std::fs::write(root.join("u/a/file"), "kept").expect("written");

    // The node starts again: what is there is counted, and stays while the pod does.
    let volumes = Volumes::open(&root, Vec::new()).expect("volumes");
    volumes.sweep(|uid| uid == "u");
    let made = mount(&volumes, &pod, &asked[0], &nothing).await;
    assert_eq!(made.expect("a volume").usage().inodes, 1);
    volumes.remove_pod(PodView(&pod)).await;
    assert!(!root.join("u").exists());
    assert!(volumes.of_pod("u").is_empty());
}

fn configured(colour: &str) -> Configuration {
    let map = json!({"data": {"colour": colour, "a.b.c": "x"}, "binaryData": {"raw": "/w=="}});
    let secret = json!({"data": {"token": "c2VzYW1l"}});
    Configuration {
        config_maps: [(
            "settings".to_owned(),
            serde_json::from_value(map).expect("a map"),
        )]
        .into(),
        secrets: [(
            "keys".to_owned(),
            serde_json::from_value(secret).expect("a secret"),
        )]
        .into(),
        ..Configuration::default()
    }
}

/// A pod with one volume, which is mounted.
fn with(volume: Value) -> Arc<Pod> {
    let mut volume = volume;
    volume["name"] = json!("v");
    let mounts = json!([{"name": "v", "mountPath": "/v"}]);
    let mut pod = pod(json!({"note": "n"}), json!([volume]), mounts);
    pod.metadata.labels = Some([("app".to_owned(), "web".to_owned())].into());
    Arc::new(pod)
}

fn files_of(pod: &Pod, configuration: &Configuration) -> String {
    let at = Downward {
        pod: PodView(pod),
        pod_ip: "10.42.0.7".parse().expect("an address"),
        node: &node(),
    };
    match shown(at, "v", configuration) {
        Ok(files) => {
            let line = |(path, file): (&str, &files::Shown)| {
                let mode = match file.mode {
                    0o644 => String::new(),
                    mode => format!("({mode:o})"),
                };
                format!("{path}{mode}={}", file.bytes.escape_ascii())
            };
            files.iter().map(line).collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_kind_of_files_shows_what_it_names_or_says_what_is_missing() {
    let map = |more: Value| {
        let mut source = json!({"name": "settings"});
        let fields = source.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        json!({"configMap": source})
    };
    let lines: Vec<String> = [
        map(json!({})),
        map(json!({"items": [{"key": "colour", "path": "sub/x"}]})),
        map(json!({"items": [{"key": "gone", "path": "x"}]})),
        map(json!({"items": [{"key": "gone", "path": "x"}], "optional": true})),
        map(json!({"items": [{"key": "colour", "path": "../x"}]})),
        map(json!({"defaultMode": 0o400, "items": [
            {"key": "colour", "path": "a"}, {"key": "colour", "path": "b", "mode": 0o777},
        ]})),
        json!({"configMap": {"name": "nope"}}),
        json!({"configMap": {"name": "nope", "optional": true}}),
        json!({"secret": {"secretName": "keys"}}),
        json!({"secret": {"secretName": "nope"}}),
        json!({"downwardAPI": {"items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "me/name", "fieldRef": {"fieldPath": "metadata.name"}},
            {"path": "mib", "resourceFieldRef": {"containerName": "c", "resource": "limits.memory", "divisor": "1Mi"}},
        ]}}),
        json!({"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "spec.weather"}}]}}),
        json!({"downwardAPI": {"items": [{"path": "x", "resourceFieldRef": {"resource": "limits.memory"}}]}}),
        json!({"projected": {"sources": [
            {"configMap": {"name": "settings", "items": [{"key": "colour", "path": "same"}]}},
            {"secret": {"name": "keys", "items": [{"key": "token", "path": "same"}]}},
            {"downwardAPI": {"items": [{"path": "uid", "fieldRef": {"fieldPath": "metadata.uid"}}]}},
        ]}}),
        json!({"projected": {"sources": [{"secret": {"name": "nope"}}]}}),
    ]
    .into_iter()
    .map(|volume| files_of(&with(volume), &configured("blue")))
    .collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    a.b.c=x colour=blue raw=\xff
    sub/x=blue
    volume "v": configmap "settings" has no key "gone"

    volume "v": "../x" is no path below the volume
    a(400)=blue b(777)=blue
    volume "v": configmap "nope" not found

    token=sesame
    volume "v": secret "nope" not found
    labels=app=\"web\" me/name=p mib=256
    volume "v": file x: unsupported fieldPath "spec.weather"
    volume "v": file x: unsupported resource "limits.memory"
    same=sesame uid=u
    volume "v": secret "nope" not found
    "#);
}

#[test]
fn what_volumes_name_is_fetched_and_what_is_not_mounted_is_not() {
    let pod = with(json!({"projected": {"sources": [
        {"configMap": {"name": "a"}}, {"secret": {"name": "s"}}, {"configMap": {"name": "b"}},
    ]}}));
    let container = &pod.spec.as_ref().expect("a spec").containers[0];
    let found = references(PodView(&pod), container, true);
    let names: Vec<&String> = found.config_maps.iter().chain(&found.secrets).collect();
    assert_eq!(names, ["a", "b", "s"]);
    let container = Container::default();
    assert!(references(PodView(&pod), &container, true).is_empty());
}

#[test]
fn tokens_are_shown_and_the_automatic_one_is_left_out_where_nobody_reads_files() {
    let projected = json!({"projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}},
    ]}});
    let named = with(projected.clone());
    let container = &named.spec.as_ref().expect("a spec").containers[0];
    let found = references(PodView(&named), container, false);
    assert_eq!(found.tokens.len(), 1, "somebody asked for it");
    let mut configuration = configured("blue");
    assert_eq!(
        files_of(&named, &configuration),
        "volume \"v\": its token was not asked for"
    );
    let tokens = found.tokens.into_iter();
    configuration.tokens = tokens.map(|wish| (wish, "a.b.c".to_owned())).collect();
    assert_eq!(files_of(&named, &configuration), "token=a.b.c");

    let mut volume = projected;
    volume["name"] = json!("kube-api-access-abcde");
    let mounts = json!([{
        "name": "kube-api-access-abcde",
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    }]);
    let automatic = pod(json!({}), json!([volume]), mounts);
    let container = &automatic.spec.as_ref().expect("a spec").containers[0];
    for (sees_files, tokens) in [(true, 1), (false, 0)] {
        let found = references(PodView(&automatic), container, sees_files);
        assert_eq!(found.tokens.len(), tokens);
    }
    assert!(asked(&automatic).expect("mounts")[0].automatic);
}

#[tokio::test]
async fn files_follow_their_sources_and_stay_when_these_go() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path().join("volumes");
    let volumes = Volumes::open(&root, Vec::new()).expect("volumes");
    let pod = with(json!({"projected": {"sources": [
        {"configMap": {"name": "settings"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]}}));
    let asked = asked(&pod).expect("mounts");
    assert_eq!(
        (asked[0].holds, asked[0].access),
        (Holds::Files, Access::ReadOnly)
    );

    let missing = mount(&volumes, &pod, &asked[0], &Configuration::default()).await;
    let missing = missing.expect_err("nothing to show").to_string();
    assert_eq!(missing, "volume \"v\": configmap \"settings\" not found");
    let kept = KeptPod::new(&pod);
    mount_of(&volumes, &kept, &asked[0], &configured("blue"))
        .await
        .expect("a volume");
    let read = |name: &str| std::fs::read_to_string(root.join("u/v").join(name)).expect("a file");
    assert_eq!((read("colour"), read("a.b.c")), ("blue".into(), "x".into()));
    assert!(
        volumes.of_pod("u").is_empty(),
        "nothing of it is the pod's to fill"
    );

    let mut relabelled = Pod::clone(&pod);
    relabelled.metadata.labels = Some([("app".to_owned(), "shop".to_owned())].into());
    kept.set(&Arc::new(relabelled));
    volumes.refresh("other", &configured("red"), &node()).await;
    assert_eq!(read("colour"), "blue", "that is another namespace's");
    volumes.refresh("n", &configured("red"), &node()).await;
    assert_eq!(
        (read("colour"), read("labels")),
        ("red".into(), "app=\"shop\"".into())
    );
    volumes
        .refresh("n", &Configuration::default(), &node())
        .await;
    assert_eq!(read("colour"), "red", "what is shown stays");

    volumes.remove_pod(PodView(&pod)).await;
    assert!(!root.join("u").exists());
    volumes.refresh("n", &configured("green"), &node()).await;
    assert!(!root.join("u").exists(), "and nothing brings it back");
}

#[tokio::test]
async fn volumes_belong_to_the_pods_group_and_memory_is_told_as_what_it_is() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path().join("volumes");
    let volumes = Volumes::open(&root, Vec::new()).expect("volumes");
    let nothing = Configuration::default();
    for (volume, fs_group, expected) in [
        (json!({"emptyDir": {}}), None, (0o777, 0)),
        (
            json!({"emptyDir": {"medium": "Memory"}}),
            Some(123),
            (0o2777, 123),
        ),
    ] {
        let mut named = Pod::clone(&with(volume.clone()));
        named.metadata.uid = Some(format!("u-{fs_group:?}"));
        if let Some(spec) = &mut named.spec {
            spec.security_context =
                serde_json::from_value(json!({"fsGroup": fs_group})).expect("a context");
        }
        let named = Arc::new(named);
        let asked = asked(&named).expect("mounts");
        let made = mount(&volumes, &named, &asked[0], &nothing).await;
        let made = made.expect("a volume");
        let found = ownership::attributes(made.dir()).expect("attributes");
        assert_eq!((found.mode, found.group), expected, "{volume}");
        let is_memory = matches!(asked[0].holds, Holds::Memory(_));
        assert_eq!(is_memory, fs_group.is_some());
    }
}

#[test]
fn memory_is_bounded_by_what_the_pod_and_the_node_have() {
    let of = |size: Option<&str>, limits: Option<&str>| {
        let mut pod = Pod::clone(&with(
            json!({"emptyDir": {"medium": "Memory", "sizeLimit": size}}),
        ));
        if let (Some(limit), Some(spec)) = (limits, &mut pod.spec) {
            spec.containers[0].resources =
                serde_json::from_value(json!({"limits": {"memory": limit}})).expect("limits");
        }
        let asked = asked(&pod).expect("mounts");
        asked[0].holds.limits().and_then(|limits| limits.bytes)
    };
    for (size, limits, expected) in [
        (None, None, 4 << 30),
        (None, Some("64Mi"), 64 << 20),
        (Some("10Mi"), Some("64Mi"), 10 << 20),
        (Some("80Mi"), Some("64Mi"), 64 << 20),
        (Some("80Mi"), None, 80 << 20),
        (Some("80Gi"), None, 4 << 30),
    ] {
        assert_eq!(of(size, limits), Some(expected), "{size:?} {limits:?}");
    }
}

#[tokio::test]
async fn a_part_of_a_volume_is_mounted_and_nothing_leads_out_of_it() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path().join("volumes");
    let volumes = Volumes::open(&root, Vec::new()).expect("volumes");
    let (recorder, _writing) = Recorder::new("node");
    let node = node();
    let find = async |pod: &Arc<Pod>, sub_path: &str, configuration: &Configuration| {
        let mut asked = asked(pod).expect("mounts");
        asked[0].sub_path = sub_path.to_owned();
        let at = Downward {
            pod: PodView(pod),
            pod_ip: "10.42.0.7".parse().expect("an address"),
            node: &node,
        };
        let given = Given {
            configuration,
            image: None,
            recorder: &recorder,
        };
        let kept = KeptPod::new(pod);
        let found = volumes.find(&kept, "c", &asked[0], at, given);
        match found.await {
            Ok(Below::Folder(_)) => "a folder".to_owned(),
            Ok(Below::File(_)) => "a file".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let nothing = Configuration::default();
    let own = with(json!({"emptyDir": {}}));
    assert_eq!(find(&own, "a/b", &nothing).await, "a folder");
    assert!(root.join("u/v/a/b").is_dir(), "made for the container");
    std::os::unix::fs::symlink("/etc", root.join("u/v/out")).expect("a link");
    std::fs::write(root.join("u/v/file"), "x").expect("written");
    assert_eq!(find(&own, "file", &nothing).await, "a file");
    for path in ["out", "out/passwd", "file/x"] {
        assert_eq!(
            find(&own, path, &nothing).await,
            "failed to create subPath directory for volumeMount \"v\" of container \"c\"",
            "{path}"
        );
    }
    let mut shown = Pod::clone(&with(json!({"configMap": {"name": "settings"}})));
    shown.metadata.uid = Some("s".into());
    let shown = Arc::new(shown);
    assert_eq!(find(&shown, "colour", &configured("blue")).await, "a file");
    assert_eq!(
        find(&shown, "none", &configured("blue")).await,
        "failed to prepare subPath for volumeMount \"v\" of container \"c\""
    );
}

#[test]
fn a_sub_path_is_relative_and_its_variables_are_there() {
    let of = |mount: Value| {
        let mut whole = json!({"name": "v", "mountPath": "/v"});
        let fields = whole.as_object_mut().expect("an object");
        fields.extend(mount.as_object().expect("an object").clone());
        let pod = pod(
            json!({}),
            json!([{"name": "v", "emptyDir": {}}]),
            json!([whole]),
        );
        match asked(&pod) {
            Ok(mounts) => mounts[0].sub_path.clone(),
            Err(error) => error.to_string(),
        }
    };
    for (mount, expected) in [
        (json!({"subPath": "a/b"}), "a/b"),
        (json!({"subPathExpr": "a/$$b"}), "a/$b"),
        (
            json!({"subPathExpr": "$(B)/$(A)/$(B)"}),
            "missing value for A, B",
        ),
        (
            json!({"subPath": "/a"}),
            "error SubPath `/a` must not be an absolute path",
        ),
        (
            json!({"subPath": "a/../../b"}),
            "unable to provision SubPath `a/../../b`: must not contain '..'",
        ),
    ] {
        assert_eq!(of(mount.clone()), expected, "{mount}");
    }
}

#[tokio::test]
async fn a_claim_for_one_pod_is_one_pods_until_nothing_of_it_runs() {
    let root = tempfile::tempdir().expect("a folder");
    let root = root.path().join("volumes");
    let volumes = Volumes::open(&root, Vec::new()).expect("volumes");
    let claim = |is_for_one| {
        let bound = Claimed::Folder {
            name: "pv".to_owned(),
            bytes: 1 << 20,
        };
        Configuration {
            claims: [("data".to_owned(), Claim { bound, is_for_one })].into(),
            ..Configuration::default()
        }
    };
    let of = |uid: &str| {
        let pod = with(json!({"persistentVolumeClaim": {"claimName": "data"}}));
        let mut pod = Arc::unwrap_or_clone(pod);
        pod.metadata.uid = Some(uid.to_owned());
        Arc::new(pod)
    };
    let (first, second) = (of("first"), of("second"));
    let take = async |pod: &Arc<Pod>, claim: &Configuration| {
        let asked = asked(pod).expect("mounts");
        let found = mount(&volumes, pod, &asked[0], claim).await;
        found.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(take(&first, &claim(true)).await, Ok(()));
    assert_eq!(take(&first, &claim(true)).await, Ok(()), "its own");
    let refused = take(&second, &claim(true)).await.expect_err("refused");
    assert!(
        refused.ends_with(
            "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
        ),
        "{refused}"
    );
    assert_eq!(take(&second, &claim(false)).await, Ok(()), "of any other");
    volumes.let_go("first");
    assert_eq!(take(&second, &claim(true)).await, Ok(()));
}
