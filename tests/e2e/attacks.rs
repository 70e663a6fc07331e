//! Attacks of a component on its cluster. The numbers are those of `docs/attacks.md`; what is asked of the engine alone is in
//! `runtime/tests/attacks.rs`.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use serde_json::Value;
use weft_tests::cluster::{Cluster, eventually, success};

use crate::load;

/// Two tenants. Each has a service of the same name; the attacker has no secret, its neighbour has one.
const TENANTS: &str = r"
apiVersion: v1
kind: Namespace
metadata: {name: mallory}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: attacker, namespace: mallory, labels: {app: attacker}, annotations: {weft.dev/request-timeout: 20s}}
spec:
  containers: [{name: main, image: 'attacker:1', ports: [{containerPort: 8080}], resources: {limits: {memory: 64Mi}}}]
---
apiVersion: v1
kind: Service
metadata: {name: attacker, namespace: mallory}
spec: {selector: {app: attacker}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: victim, namespace: shop, labels: {app: victim}}
spec:
  containers: [{name: main, image: 'probe:1', ports: [{containerPort: 8080}], env: [{name: SECRET, value: hunter2}]}]
---
apiVersion: v1
kind: Service
metadata: {name: victim, namespace: shop}
spec: {selector: {app: victim}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: impostor, namespace: mallory, labels: {app: impostor}}
spec:
  containers: [{name: main, image: 'probe:1', ports: [{containerPort: 8080}], env: [{name: NAME, value: impostor}]}]
---
apiVersion: v1
kind: Service
metadata: {name: victim, namespace: mallory}
spec: {selector: {app: impostor}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public, namespace: shop}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: shop}
spec: {parentRefs: [{name: public}], hostnames: [shop.example], rules: [{backendRefs: [{name: victim, port: 80}]}]}
";

/// Claims on what belongs to others: their gateway, their host name, their service.
const CLAIMS: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: foreign-gateway, namespace: mallory}
spec:
  parentRefs: [{name: public, namespace: shop}]
  hostnames: [shop.example]
  rules: [{matches: [{path: {type: Exact, value: /env}}], backendRefs: [{name: victim, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: mine, namespace: mallory}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 8080, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: foreign-service, namespace: mallory}
spec:
  parentRefs: [{name: mine}]
  hostnames: [mallory.example]
  rules: [{backendRefs: [{name: victim, namespace: shop, port: 80}]}]
";

struct Attacked {
    cluster: Cluster,
    runtime: tokio::runtime::Runtime,
}

impl Attacked {
    fn start(arguments: &[&str]) -> Attacked {
        let cluster = Cluster::start_with(1, arguments).unwrap();
        cluster.push("probe", "probe:1").unwrap();
        cluster.push("attacker", "attacker:1").unwrap();
        let attacked = Attacked {
            cluster,
            runtime: tokio::runtime::Runtime::new().unwrap(),
        };
        attacked.apply(TENANTS);
        for host in [
            "attacker.mallory.localhost",
            "victim.shop.localhost",
            "victim.mallory.localhost",
        ] {
            eventually(&format!("{host} answers"), || {
                let (status, _) = attacked.get(host, "/hello")?;
                Ok((status == 200).then_some(()))
            })
            .unwrap();
        }
        attacked
    }

    fn apply(&self, manifest: &str) {
        let path = self.cluster.data_dir().join("attack.yaml");
        std::fs::write(&path, manifest).unwrap();
        let path = path.display().to_string();
        success(self.cluster.weft(&["apply", "-f", &path]).unwrap()).unwrap();
    }

    fn get(&self, host: &str, path: &str) -> anyhow::Result<(u16, String)> {
        self.runtime
            .block_on(load::get(&self.cluster.gateway, host, path))
    }

    /// What the attacker tells of its attack.
    fn attack(&self, path: &str) -> String {
        self.get("attacker.mallory.localhost", path).unwrap().1
    }

    fn weft(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        success(self.cluster.weft(&words).unwrap()).unwrap()
    }
}

#[test]
fn attacks_41_to_51_out_of_the_cluster_reach_nobody() {
    let attacked = Attacked::start(&[]);
    // What must hear nothing: services of the host on its loopback addresses.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let tcp6 = TcpListener::bind(("::1", port)).ok();
    let udp = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let api = attacked.cluster.api.rsplit(':').next().unwrap().to_owned();
    const DENIED: &str = "ErrorCode::HttpRequestDenied";
    // The pod's own loopback address, on which nothing listens.
    const ITSELF: &str = "ErrorCode::ConnectionRefused";
    const UNKNOWN: &str = "ErrorCode::DestinationNotFound";
    const NO_REQUEST: &str = "not a request";
    for (attack, request, told) in [
        (
            41,
            "http,169.254.169.254,/latest/meta-data".to_owned(),
            DENIED,
        ),
        (
            41,
            "http,[fd00:ec2::254],/latest/meta-data".to_owned(),
            DENIED,
        ),
        (42, format!("http,127.0.0.1:{port},/"), ITSELF),
        (42, format!("http,[::1]:{port},/"), ITSELF),
        (42, format!("http,0.0.0.0:{port},/"), DENIED),
        (42, format!("http,[::]:{port},/"), DENIED),
        (42, format!("http,localhost:{port},/"), ITSELF),
        (42, format!("http,LOCALHOST.:{port},/"), DENIED),
        (
            43,
            format!("https,127.0.0.1:{api},/api/v1/namespaces/shop/secrets"),
            ITSELF,
        ),
        (
            43,
            "https,10.43.0.1,/api/v1/namespaces/shop/secrets".to_owned(),
            DENIED,
        ),
        (44, format!("http,[::ffff:127.0.0.1]:{port},/"), DENIED),
        (44, format!("http,[64:ff9b::7f00:1]:{port},/"), DENIED),
        (44, format!("http,[2002:7f00:1::]:{port},/"), DENIED),
        (45, format!("http,2130706433:{port},/"), UNKNOWN),
        (45, format!("http,0x7f000001:{port},/"), UNKNOWN),
        (45, format!("http,0177.0.0.1:{port},/"), DENIED),
        (45, format!("http,127.1:{port},/"), DENIED),
        (46, format!("http,localtest.me:{port},/"), DENIED),
        (47, format!("http,127.0.0.1.nip.io:{port},/"), DENIED),
        (
            49,
            "http,victim.shop,/hello,host=api".to_owned(),
            "HeaderError::Forbidden",
        ),
        (50, format!("http,victim.shop@127.0.0.1:{port},/"), ITSELF),
        (
            50,
            format!("http,127.0.0.1:{port}\\@victim.shop,/"),
            NO_REQUEST,
        ),
        (
            50,
            format!("http,victim.shop%40127.0.0.1:{port},/"),
            NO_REQUEST,
        ),
        (51, "file,victim.shop,/etc/passwd".to_owned(), ""),
        (51, "unix,victim.shop,/run/weft.sock".to_owned(), ""),
        (51, format!("gopher,127.0.0.1:{port},/"), ""),
    ] {
        let request = request
            .replace('\\', "%5C")
            .replace("[", "%5B")
            .replace("]", "%5D");
        let saw = attacked.attack(&format!("/request?{request}"));
        if told.is_empty() {
            assert!(
                saw.starts_with("ErrorCode::") || saw == NO_REQUEST,
                "{attack} {request}: {saw}"
            );
        } else {
            assert_eq!(saw, told, "{attack} {request}");
        }
    }
    // 47: a name that changes its address between check and connection is not looked up at all. 48: a redirect is the
    // guest's to follow, and each of its requests is one of the above.
    let told = attacked.attack(&format!("/sockets?{port}"));
    for denied in [
        "tcp Err",
        "tcp6 Err",
        "mapped Err",
        "listen Err",
        "udp Err",
        "name Err",
    ] {
        assert!(told.contains(denied), "{told}");
    }
    tcp.set_nonblocking(true).unwrap();
    assert!(tcp.accept().is_err(), "a connection reached the host");
    if let Some(tcp6) = tcp6 {
        tcp6.set_nonblocking(true).unwrap();
        assert!(tcp6.accept().is_err(), "a connection reached the host");
    }
    udp.set_nonblocking(true).unwrap();
    assert!(
        udp.recv(&mut [0; 1]).is_err(),
        "a datagram reached the host"
    );
    // Who tried is on record: a counter, and the log of the node.
    let metrics = attacked.weft("get --raw /api/v1/nodes/node-1/proxy/metrics");
    let denied = metrics
        .lines()
        .find_map(|line| line.strip_prefix("weft_mesh_denied_total "));
    assert!(denied.unwrap().parse::<u64>().unwrap() > 10, "{denied:?}");
    let log = attacked.cluster.node_log(1).unwrap();
    assert!(
        log.lines()
            .any(|line| line.contains("a call out of the cluster was denied")
                && line.contains("ns/mallory/sa/default")),
        "{log}"
    );
}

/// All regular files below.
fn bytes_below(dir: &Path) -> u64 {
    let mut total = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        // What is removed meanwhile has no size.
        match entry.metadata() {
            Ok(found) if found.is_dir() => total += bytes_below(&entry.path()),
            Ok(found) => total += found.len(),
            Err(_) => {}
        }
    }
    total
}

#[test]
fn attacks_36_37_and_40_on_logs_and_settings() {
    let attacked = Attacked::start(&[]);
    let before = bytes_below(&attacked.cluster.data_dir());
    for _ in 0..4 {
        assert_eq!(attacked.attack("/36"), "64 MiB");
    }
    // Three files of 10 MiB and what is not yet rotated, of a quarter of a gigabyte.
    let grown = bytes_below(&attacked.cluster.data_dir()) - before;
    assert!(grown < 48 << 20, "{grown} bytes");
    eventually("the log says what is missing", || {
        let log = attacked.weft("logs attacker -n mallory --tail 100000");
        Ok(log
            .contains("bytes of log were dropped here: ")
            .then_some(()))
    })
    .unwrap();
    // To a pipe, what was printed goes as it is: the terminal's form is tested beside the command.
    assert_eq!(attacked.attack("/37"), "printed");
    eventually("the log has the line", || {
        let log = attacked.weft("logs attacker -n mallory --tail 5");
        Ok(log.contains("all is well").then_some(()))
    })
    .unwrap();
    let told = attacked.attack("/40");
    assert!(
        told.ends_with("Err(NotPresent)") && !told.contains("hunter2"),
        "{told}"
    );
    let (_, own) = attacked.get("victim.shop.localhost", "/env").unwrap();
    assert!(own.contains("SECRET=hunter2"), "{own}");
}

#[test]
fn attacks_103_to_105_on_the_names_and_accounts_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens.csv");
    std::fs::write(&tokens, "battery,mallory,2\n").unwrap();
    let attacked = Attacked::start(&["--token-auth-file", &tokens.display().to_string()]);
    let get = |host: &str, path: &str| attacked.get(host, path).unwrap();
    eventually("the route of the shop answers", || {
        Ok((get("shop.example", "/env").0 == 200).then_some(()))
    })
    .unwrap();

    // 103: claims on the gateway, host and service of another namespace.
    attacked.apply(CLAIMS);
    for (route, kind, reason) in [
        ("foreign-gateway", "Accepted", "NotAllowedByListeners"),
        ("foreign-service", "ResolvedRefs", "RefNotPermitted"),
    ] {
        eventually(&format!("{route} is refused"), || {
            let text = attacked.weft(&format!("get httproute {route} -n mallory -o json"));
            let route: Value = serde_json::from_str(&text)?;
            let conditions = route["status"]["parents"][0]["conditions"].as_array();
            let refused = conditions.into_iter().flatten().any(|condition| {
                condition["type"] == kind
                    && condition["status"] == "False"
                    && condition["reason"] == reason
            });
            Ok(refused.then_some(()))
        })
        .unwrap();
    }
    for _ in 0..20 {
        let (_, answer) = get("shop.example", "/env");
        assert!(answer.contains("SECRET=hunter2"), "{answer}");
        let (status, answer) = get("mallory.example", "/env");
        assert!(
            status >= 400 && !answer.contains("hunter2"),
            "{status} {answer}"
        );
    }

    // 104: a service of the same name is one's own, and nobody else's.
    let (_, own) = get("victim.mallory.localhost", "/env");
    assert!(own.contains("NAME=impostor"), "{own}");
    let through = |host: &str, url: &str| get(host, &format!("/call?url={url}")).1;
    let env = through("victim.shop.localhost", "http://victim/env");
    assert!(env.contains("SECRET=hunter2"), "{env}");
    let env = through("victim.mallory.localhost", "http://victim/env");
    assert!(env.contains("NAME=impostor"), "{env}");

    // 105: metrics and logs, without a name, with one that has no right, and from inside.
    let admin = std::fs::read_to_string(&attacked.cluster.kubeconfig).unwrap();
    let config = |token: Option<&str>| {
        let mut config = String::new();
        for line in admin.lines() {
            if line.contains("client-key-data") {
                let indent = &line[..line.len() - line.trim_start().len()];
                if let Some(token) = token {
                    config.push_str(&format!("{indent}token: {token}\n"));
                } else {
                    config.push_str(&format!("{indent}username: nobody\n"));
                }
            } else if !line.contains("client-certificate-data") {
                config.push_str(&format!("{line}\n"));
            }
        }
        let path = dir.path().join("kubeconfig");
        std::fs::write(&path, config).unwrap();
        path.display().to_string()
    };
    for (token, words) in [
        (None, &["system:anonymous", "Unauthorized"][..]),
        (Some("battery"), &["mallory\" cannot"]),
    ] {
        let kubeconfig = config(token);
        for line in [
            "get --raw /api/v1/nodes/node-1/proxy/metrics",
            "get --raw /metrics",
            "get --raw /api/v1/namespaces/shop/pods/victim/log",
            "get secrets -n shop",
        ] {
            let mut words_of_line: Vec<&str> = line.split_whitespace().collect();
            words_of_line.extend(["--kubeconfig", &kubeconfig]);
            let output = attacked.cluster.weft(&words_of_line).unwrap();
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                !output.status.success() && words.iter().any(|word| error.contains(word)),
                "{token:?} {line}: {error}"
            );
        }
    }
    let told = attacked.attack("/request?http,node-1,/metrics");
    assert_eq!(told, "ErrorCode::DestinationNotFound");
    for host in ["attacker.mallory.localhost", "shop.example"] {
        let (_, answer) = get(host, "/metrics");
        assert!(!answer.contains("istio_requests_total"), "{answer}");
    }
}
