//! weft's own commands as a user of kubectl expects them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use weft_tests::cluster::{Cluster, success, weft};

const MANIFEST: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Secret
metadata: {name: one, namespace: shop, labels: {tier: front}}
---
apiVersion: v1
kind: Secret
metadata: {name: two, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

struct Shop(Cluster);

impl Shop {
    fn open() -> Self {
        let cluster = Cluster::start(1).unwrap();
        let folder = cluster.data_dir().join("manifests");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("shop.yaml"), MANIFEST).unwrap();
        std::fs::write(folder.join("notes.txt"), "no manifest").unwrap();
        let shop = Self(cluster);
        let applied = shop.run(&format!("apply -f {}", folder.display()));
        assert_eq!(
            applied,
            "namespace/shop created\nsecret/one created\nsecret/two created\nservice/web created\n"
        );
        shop
    }

    fn run(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        success(self.0.weft(&words).unwrap()).unwrap()
    }

    /// The exit code, what was printed, and the error.
    fn fail(&self, line: &str) -> (Option<i32>, String, String) {
        let words: Vec<&str> = line.split(' ').collect();
        let output = self.0.weft(&words).unwrap();
        assert!(!output.status.success(), "{line}");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    }
}

#[test]
fn get_shows_what_was_asked_for_in_the_form_that_was_asked_for() {
    let shop = Shop::open();
    let names = |line: &str| shop.run(&format!("{line} -n shop -o name"));
    assert_eq!(names("get secret"), "secret/one\nsecret/two\n");
    assert_eq!(names("get secret -l tier=front"), "secret/one\n");
    assert_eq!(
        names("get secret --field-selector metadata.name=two"),
        "secret/two\n"
    );
    assert_eq!(
        names("get secret/one service/web"),
        "secret/one\nservice/web\n"
    );
    assert_eq!(names("get all"), "service/web\n");
    let labels = shop.run("get secret one -n shop --no-headers --show-labels");
    assert!(
        labels.starts_with("one ") && labels.ends_with(" tier=front\n"),
        "{labels}"
    );
    let everywhere = shop.run("get secret -A");
    assert!(
        everywhere.starts_with("NAMESPACE") && everywhere.contains("shop"),
        "{everywhere}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&shop.run("get secret -n shop -o json")).unwrap();
    assert_eq!(json["items"][1]["metadata"]["name"], "two");
    assert!(
        shop.run("get secret one -n shop -o yaml")
            .contains("kind: Secret\n")
    );

    // What is there is shown, and what is not is the error.
    let (code, shown, error) = shop.fail("get secret one gone -n shop -o name");
    assert_eq!((code, shown.as_str()), (Some(1), "secret/one\n"));
    assert!(error.contains("secrets \"gone\" not found"), "{error}");
    let (code, _, error) = shop.fail("get nonsense");
    assert_eq!(code, Some(2));
    assert!(
        error.contains("try: one of: ") && error.contains("deployments"),
        "{error}"
    );
}

#[test]
fn get_watch_goes_on_with_every_change() {
    let shop = Shop::open();
    let mut watching = Command::new(weft())
        .args(["get", "secret", "-n", "shop", "--watch", "-o", "name"])
        .env("WEFT_KUBECONFIG", &shop.0.kubeconfig)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!([next(), next()], ["secret/one", "secret/two"]);
    shop.run("delete secret two -n shop");
    assert_eq!(next(), "secret/two");
    watching.kill().unwrap();
    watching.wait().unwrap();
    let (_, _, error) = shop.fail("get secret gone -n shop --watch");
    assert!(error.contains("not found"), "{error}");
}

#[test]
fn delete_goes_through_everything_that_was_named() {
    let shop = Shop::open();
    let (code, deleted, error) = shop.fail("delete secret/one secret/gone service/web -n shop");
    assert_eq!(code, Some(1));
    assert_eq!(deleted, "secret/one deleted\nservice/web deleted\n");
    assert!(error.contains("cannot delete secret/gone"), "{error}");
}

#[test]
fn get_prints_by_template_in_columns_and_in_order() {
    let shop = Shop::open();
    let words = |words: &[&str]| success(shop.0.weft(words).unwrap()).unwrap();
    let get = |more: &[&str]| words(&[&["get", "secret", "-n", "shop"], more].concat());
    assert_eq!(
        get(&["-o", "jsonpath={.items[*].metadata.name}"]),
        "one two"
    );
    assert_eq!(
        get(&[
            "-o",
            r#"jsonpath={range .items[*]}{.metadata.name}={.metadata.labels.tier}{"\n"}{end}"#
        ]),
        "one=front\ntwo=\n"
    );
    assert_eq!(
        get(&[
            "-o",
            "custom-columns=NAME:.metadata.name,TIER:.metadata.labels.tier"
        ]),
        "NAME   TIER\none    front\ntwo    <none>\n"
    );
    // Labels that are not there come first, and so does what is older.
    assert_eq!(
        get(&["-o", "name", "--sort-by", ".metadata.labels.tier"]),
        "secret/two\nsecret/one\n"
    );
    let table = get(&[
        "--sort-by",
        "{.metadata.labels.tier}",
        "-L",
        "tier",
        "--chunk-size",
        "1",
    ]);
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        (rows[0].last(), rows[1][0], rows[2][0], rows[2].last()),
        (Some(&"TIER"), "two", "one", Some(&"front"))
    );
    let folder = shop.0.data_dir().join("manifests");
    let folder = folder.to_str().unwrap();
    assert_eq!(
        words(&["get", "-f", folder, "-o", "name"]),
        "namespace/shop\nsecret/one\nsecret/two\nservice/web\n"
    );
    assert_eq!(get(&["gone", "--ignore-not-found"]), "");
    let (code, _, error) = shop.fail("get secret -o jsonpath={.a");
    assert!(
        code == Some(2) && error.contains("a brace is not closed"),
        "{error}"
    );
}

#[test]
fn apply_merges_on_the_server_when_it_is_told_to() {
    let shop = Shop::open();
    let file = shop.0.data_dir().join("settings.yaml");
    let manifest = |data: &str| {
        std::fs::write(
            &file,
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings, namespace: shop}}\ndata: {data}\n"),
        )
        .unwrap();
        format!("apply -f {} --server-side", file.display())
    };
    let apply = manifest("{a: '1', b: '1'}");
    assert_eq!(shop.run(&apply), "configmap/settings created\n");
    assert_eq!(shop.run(&apply), "configmap/settings unchanged\n");
    assert_eq!(
        shop.run(&format!("{apply} --dry-run -o jsonpath={{.data.a}}")),
        "1"
    );
    // Somebody else takes one field; what is left out goes.
    let other = manifest("{b: '2'}");
    let (code, _, error) = shop.fail(&format!("{other} --field-manager other"));
    assert_eq!(code, Some(1));
    assert!(
        error.contains("conflict with \"weft\"") && error.contains(".data.b"),
        "{error}"
    );
    let forced = shop.run(&format!("{other} --field-manager other --force-conflicts"));
    assert_eq!(forced, "configmap/settings configured\n");
    let back = manifest("{a: '1', b: '2'}");
    assert_eq!(shop.run(&back), "configmap/settings configured\n");
    let alone = manifest("{b: '2'}");
    assert_eq!(shop.run(&alone), "configmap/settings configured\n");
    assert_eq!(
        shop.run("get configmap settings -n shop -o jsonpath={.data}"),
        r#"{"b":"2"}"#
    );
    // A word of the server's on a field that it does not know.
    std::fs::write(
        &file,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: typo, namespace: shop}\ndatta: {a: b}\n",
    )
    .unwrap();
    let path = file.to_str().unwrap();
    let (_, _, error) = shop.fail(&format!("apply -f {path}"));
    assert!(error.contains("unknown field \"datta\""), "{error}");
    let told = shop
        .0
        .weft(&["apply", "-f", path, "--validate=warn"])
        .unwrap();
    assert!(told.status.success());
    let warning = String::from_utf8(told.stderr).unwrap();
    assert_eq!(warning, "Warning: unknown field \"datta\"\n");
}

#[test]
fn delete_takes_what_a_selector_chooses() {
    let shop = Shop::open();
    assert_eq!(
        shop.run("delete secret -n shop -l tier=front --dry-run"),
        "secret/one deleted (server dry run)\n"
    );
    assert_eq!(
        shop.run("delete secret -n shop -l tier=front"),
        "secret/one deleted\n"
    );
    assert_eq!(
        shop.run("delete secret,service -n shop --all -o name"),
        "secret/two\nservice/web\n"
    );
    let (code, _, error) = shop.fail("delete secret one --all -n shop");
    assert_eq!(code, Some(2));
    assert!(error.contains("leave out one of the two"), "{error}");
    let (code, _, error) = shop.fail("delete pod one --grace-period=0 -n shop");
    assert!(code == Some(2) && error.contains("--force"), "{error}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let shop = Shop::open();
    let mut listing = Command::new(weft())
        .args(["get", "secret", "-A", "-o", "name"])
        .env("WEFT_KUBECONFIG", &shop.0.kubeconfig)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(listing.stdout.take());
    let mut error = String::new();
    listing
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut error)
        .unwrap();
    assert_eq!(listing.wait().unwrap().code(), Some(141), "{error}");
    assert_eq!(error, "");
}
