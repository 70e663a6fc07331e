//! Streams of a component with the clients of two times, unmodified, and with weft's own: kubectl 1.20 speaks SPDY, 1.37 WebSocket, and SPDY inside of it.
//!
//! A port that leads to a component, its log; then what is done in a container: a command with its input and its code, files both ways, a look at what runs,
//! a container that is added to look around.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use weft_tests::clients;
use weft_tests::cluster::{Cluster, eventually, success, weft};

const OBJECTS: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: hello}
spec: {containers: [{name: main, image: 'hello:1', ports: [{name: web, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: box}
spec: {containers: [{name: main, image: 'toolbox:1', command: [sh, -c, 'while true; do echo tick; sleep 1; done']}]}
";

#[test]
fn ports_of_a_component_with_kubectl_1_20() {
    if let Some(kubectl) = clients::kubectl(20) {
        ports(&Client::kubectl(kubectl)).unwrap();
    }
}

#[test]
fn ports_of_a_component_with_kubectl_1_37() {
    if let Some(kubectl) = clients::kubectl(37) {
        ports(&Client::kubectl(kubectl)).unwrap();
    }
}

#[test]
fn ports_of_a_component_with_weft() {
    ports(&Client::weft()).unwrap();
}

#[test]
fn a_shell_in_a_component_with_kubectl_1_20() {
    if let Some(kubectl) = clients::kubectl(20) {
        commands(&Client::kubectl(kubectl), false).unwrap();
    }
}

#[test]
fn a_shell_in_a_component_with_kubectl_1_37() {
    if let Some(kubectl) = clients::kubectl(37) {
        commands(&Client::kubectl(kubectl), true).unwrap();
    }
}

#[test]
fn a_shell_in_a_component_with_weft() {
    commands(&Client::weft(), true).unwrap();
}

#[test]
fn a_node_that_dies_ends_its_streams_with_a_sentence() {
    let cluster = start("box", "toolbox").unwrap();
    let node = cluster.node_process("node-1").unwrap();
    let mut clients = vec![Client::weft()];
    clients.extend(clients::kubectl(37).map(Client::kubectl));
    let commands = [
        &["exec", "box", "--", "sh", "-c", "echo begun; sleep 1000"][..],
        &["attach", "box"],
    ];
    let pairs = clients
        .iter()
        .flat_map(|client| commands.map(|command| (client, command)));
    let mut sessions = Vec::new();
    for (client, command) in pairs {
        let mut session = client.command(&cluster, command);
        let session = session.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut session = Running(session.spawn().unwrap());
        let mut said = BufReader::new(session.0.stdout.take().expect("stdout is piped"));
        // It is under way.
        said.read_line(&mut String::new()).unwrap();
        sessions.push((session, said));
    }
    let killed = Command::new("kill")
        .args(["-9", &node.to_string()])
        .status();
    assert!(killed.unwrap().success());
    for (mut session, mut said) in sessions {
        said.read_to_end(&mut Vec::new()).unwrap();
        let mut told = String::new();
        let mut errors = session.0.stderr.take().expect("stderr is piped");
        errors.read_to_string(&mut told).unwrap();
        assert!(told.contains("node \"node-1\" is lost: "), "{told}");
        assert!(!session.0.wait().unwrap().success());
    }
}

/// A program that speaks to the cluster.
struct Client {
    program: PathBuf,
    kubeconfig: &'static str,
}

impl Client {
    fn kubectl(kubectl: impl AsRef<Path>) -> Self {
        Self {
            program: kubectl.as_ref().to_owned(),
            kubeconfig: "KUBECONFIG",
        }
    }

    fn weft() -> Self {
        Self {
            program: weft(),
            kubeconfig: "WEFT_KUBECONFIG",
        }
    }

    fn command(&self, cluster: &Cluster, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .env(self.kubeconfig, &cluster.kubeconfig)
            .env("KUBECACHEDIR", cluster.data_dir().join("kubecache"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, cluster: &Cluster, args: &[&str]) -> anyhow::Result<String> {
        let ran = success(self.command(cluster, args).output()?);
        ran.map_err(|error| error.context(args.join(" ")))
    }
}

/// Something that runs until it is let go of.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(pod: &str, image: &str) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(1)?;
    for (guest, name) in [("hello", "hello:1"), (image, &format!("{image}:1"))] {
        cluster.push(guest, name)?;
    }
    let path = cluster.data_dir().join("pods.yaml");
    let objects = OBJECTS.split("---");
    let objects = objects.filter(|object| {
        let name = format!("name: {pod}}}");
        object.contains("name: hello}") || object.contains(&name)
    });
    std::fs::write(&path, objects.collect::<Vec<_>>().join("---"))?;
    success(cluster.weft(&["apply", "-f", &path.display().to_string()])?)?;
    for pod in ["hello", pod] {
        eventually(&format!("{pod} runs"), || {
            let shown = success(cluster.weft(&["get", "pod", pod])?)?;
            Ok(shown.contains("Running").then_some(()))
        })?;
    }
    Ok(cluster)
}

fn ports(client: &Client) -> anyhow::Result<()> {
    let cluster = start("hello", "hello")?;
    let mut forward = client.command(&cluster, &["port-forward", "pod/hello", ":8080"]);
    let mut forward = Running(forward.stdout(Stdio::piped()).spawn()?);
    let told = forward.0.stdout.take().expect("stdout is piped");
    let mut told = BufReader::new(told);
    let mut line = String::new();
    told.read_line(&mut line)?;
    let port = line
        .split(" -> ")
        .next()
        .and_then(|from| from.rsplit(':').next());
    let port: u16 = port
        .unwrap_or_default()
        .parse()
        .map_err(|_| anyhow::anyhow!("{line}"))?;
    let ask = || -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: hello\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let both = std::thread::scope(|scope| {
        let two = [scope.spawn(ask), scope.spawn(ask)];
        two.map(|one| one.join().expect("no panic"))
    });
    for answer in both {
        let answer = answer?;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("hello\n"), "{answer}");
    }
    client.run(&cluster, &["logs", "hello", "--since=1h", "--tail=5"])?;
    Ok(())
}

fn commands(client: &Client, debugs: bool) -> anyhow::Result<()> {
    let cluster = start("box", "toolbox")?;
    let run = |args: &[&str]| client.run(&cluster, args);
    assert_eq!(run(&["exec", "box", "--", "echo", "a b"])?, "a b\n");
    let mut cat = client.command(
        &cluster,
        &["exec", "-i", "box", "--", "sh", "-c", "cat; exit 7"],
    );
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = cat.stdin.take().expect("stdin is piped");
    input.write_all(b"typed")?;
    drop(input);
    let ended = cat.wait_with_output()?;
    assert_eq!(
        (ended.status.code(), &ended.stdout[..]),
        (Some(7), &b"typed"[..])
    );

    let file = cluster.data_dir().join("notes.txt");
    let back = cluster.data_dir().join("back.txt");
    std::fs::write(&file, "notes\n")?;
    run(&["cp", &file.display().to_string(), "box:/tmp/notes.txt"])?;
    assert_eq!(
        run(&["exec", "box", "--", "cat", "/tmp/notes.txt"])?,
        "notes\n"
    );
    run(&["cp", "box:/tmp/notes.txt", &back.display().to_string()])?;
    assert_eq!(std::fs::read_to_string(&back)?, "notes\n");

    for args in [
        &["attach", "box"][..],
        &["logs", "-f", "--since=10s", "box"],
    ] {
        let mut following = client.command(&cluster, args);
        let mut following = Running(following.stdout(Stdio::piped()).spawn()?);
        let told = following.0.stdout.take().expect("stdout is piped");
        let lines: Result<Vec<String>, _> = BufReader::new(told).lines().take(2).collect();
        assert_eq!(lines?, ["tick", "tick"], "{args:?}");
    }

    if debugs {
        run(&[
            "debug",
            "hello",
            "--image=toolbox:1",
            "--",
            "sh",
            "-c",
            "echo debugged",
        ])?;
        eventually("what was added has spoken", || {
            let found = cluster.weft(&["get", "pod", "hello", "-o", "json"])?;
            let found: serde_json::Value = serde_json::from_str(&success(found)?)?;
            let name = found["spec"]["ephemeralContainers"][0]["name"].as_str();
            let name = name.unwrap_or_default();
            let log = run(&["logs", "hello", "-c", name])?;
            Ok((log == "debugged\n").then_some(()))
        })?;
        turned_off(client, &cluster)?;
    }
    Ok(())
}

/// A namespace that turns the toolbox off keeps it out of its containers; what their own components are runs on.
fn turned_off(client: &Client, cluster: &Cluster) -> anyhow::Result<()> {
    let echo = ["exec", "hello", "--", "echo", "a"];
    assert_eq!(client.run(cluster, &echo)?, "a\n");
    let path = cluster.data_dir().join("namespace.yaml");
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: default, labels: {weft.dev/toolbox: 'off'}}}";
    std::fs::write(&path, namespace)?;
    success(cluster.weft(&["apply", "-f", &path.display().to_string()])?)?;
    eventually("the toolbox is turned off", || {
        let ran = client.command(cluster, &echo).output()?;
        let error = String::from_utf8_lossy(&ran.stderr).into_owned();
        let refused = error.contains("exec: \"echo\": executable file not found in $PATH");
        Ok((refused && !ran.status.success()).then_some(()))
    })?;
    let own = client.run(cluster, &["exec", "box", "--", "echo", "a"])?;
    assert_eq!(own, "a\n");
    Ok(())
}
