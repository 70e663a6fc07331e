//! The subcommands as programs of this machine: what is asked of them over sockets, and what they answer.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

const CRT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/files/localhost.crt");
const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/files/localhost.key");

/// A program that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_agnhost"));
    program.env("HOSTNAME", "pod-1").env_remove("POD_IP");
    program
}

/// Starts one, and waits until it listens on `port`.
fn started(port: u16, arguments: &[&str], env: &[(&str, &str)]) -> Running {
    let mut program = program();
    program.args(arguments).envs(env.iter().copied());
    program.stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(program.spawn().expect("it starts"));
    for _ in 0..500 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return running;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{arguments:?} does not listen on {port}");
}

fn ran(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output: Output = program().args(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A port that is free now.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// What comes back to a text, to the end.
fn said(stream: &mut (impl Read + Write), text: &str) -> String {
    stream.write_all(text.as_bytes()).expect("it is read");
    let mut answer = Vec::new();
    // An end without a goodbye is one.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn asking(head: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{head} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// Status and body.
fn answered(text: &str) -> (u16, &str) {
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    (status.unwrap_or(0), body)
}

fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let text = said(&mut stream, &asking(&format!("GET {path}"), ""));
    let (status, body) = answered(&text);
    (status, body.to_owned())
}

/// A connection that trusts the image's certificate, and shows it if asked to.
fn secured(port: u16, shows: bool) -> StreamOwned<ClientConnection, TcpStream> {
    let pem = std::fs::read(CRT).expect("a certificate");
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .map(|it| it.expect("a certificate"))
        .collect();
    let mut roots = RootCertStore::empty();
    roots.add(chain[0].clone()).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls_rustcrypto::provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let config = match shows {
        false => builder.with_no_client_auth(),
        true => {
            let key = PrivateKeyDer::from_pem_slice(&std::fs::read(KEY).expect("a key"));
            builder
                .with_client_auth_cert(chain, key.expect("a key"))
                .expect("they fit")
        }
    };
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    StreamOwned::new(connection, stream)
}

#[test]
fn netexec_says_who_it_is_and_asks_others() {
    let (http, udp) = (port(), port());
    let (http_flag, udp_flag) = (format!("--http-port={http}"), format!("--udp-port={udp}"));
    let _running = started(
        http,
        &["netexec", &http_flag, &udp_flag],
        &[("COLOUR", "blue")],
    );
    let dialled = |protocol: &str, port: u16, request: &str| {
        format!("/dial?host=127.0.0.1&port={port}&protocol={protocol}&request={request}&tries=2")
    };
    let http_text = http.to_string();
    for (path, expected) in [
        ("/hostname", (200, "pod-1")),
        ("/hostName", (200, "pod-1")),
        ("/healthz", (200, "")),
        ("/readyz", (200, "ok")),
        ("/serverport", (200, &*http_text)),
        ("/echo?msg=a%20b", (200, "a b")),
        ("/echo?msg=no&code=418", (418, "no")),
        ("/envvar?var=COLOUR", (200, "blue")),
        ("/envvar?var=NOPE", (500, "env var \"NOPE\" is not set\n")),
        ("/header?key=host", (200, "a")),
        (
            "/dial?host=x&port=1",
            (400, "request parameter not specified. <nil>\n"),
        ),
        (
            &dialled("http", http, "hostName"),
            (200, "{\"responses\":[\"pod-1\",\"pod-1\"]}"),
        ),
        (
            &dialled("udp", udp, "echo%20Hello"),
            (200, "{\"responses\":[\"hello\",\"hello\"]}"),
        ),
    ] {
        let (status, body) = get(http, path);
        assert_eq!((status, body.as_str()), expected, "{path}");
    }
    let (status, told) = get(http, &dialled("http", port(), "hostName"));
    assert!(
        status == 200 && told.contains("connection refused"),
        "{told}"
    );
    // What is no HTTP has an answer, too.
    let mut stream = TcpStream::connect(("127.0.0.1", http)).expect("it listens");
    assert!(said(&mut stream, "hostName\n").starts_with("HTTP/1.1 400 "));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a timeout");
    socket
        .send_to(b"hostName\n", ("127.0.0.1", udp))
        .expect("sent");
    let mut buffer = [0; 64];
    let (count, _) = socket.recv_from(&mut buffer).expect("an answer");
    assert_eq!(&buffer[..count], b"pod-1");
}

#[test]
fn servers_of_one_thing_serve_it() {
    let at = port();
    let flag = format!("--port={at}");
    let running = started(at, &["serve-hostname", &flag], &[]);
    assert_eq!(get(at, "/"), (200, "pod-1".to_owned()));
    drop(running);
    let at = port();
    let flag = format!("--port={at}");
    let _raw = started(
        at,
        &["serve-hostname", "--http=false", "--tcp", "--udp", &flag],
        &[],
    );
    let mut stream = TcpStream::connect(("127.0.0.1", at)).expect("it listens");
    assert_eq!(said(&mut stream, ""), "pod-1");
    let at = port();
    let flag = format!("--port={at}");
    let _files = started(at, &["test-webserver", &flag], &[]);
    assert_eq!(get(at, "/no/such/file").0, 404);
    assert_eq!(
        get(at, CRT).1,
        std::fs::read_to_string(CRT).expect("a file")
    );
    let at = port();
    let flag = format!("--port={at}");
    let _peers = started(at, &["nettest", &flag, "--peers=1"], &[]);
    assert_eq!(get(at, "/status").1, "running");
    let mut stream = TcpStream::connect(("127.0.0.1", at)).expect("it listens");
    let text = said(&mut stream, &asking("POST /write", "{\"Source\":\"b\"}"));
    assert_eq!(answered(&text).1, "{\"Hostname\":\"pod-1\"}\n");
    assert_eq!(get(at, "/status").1, "pass");
}

#[test]
fn porter_serves_what_its_environment_says() {
    let (plain, tls) = (port(), port());
    let (plain_name, tls_name) = (
        format!("SERVE_PORT_{plain}"),
        format!("SERVE_TLS_PORT_{tls}"),
    );
    let env = [
        (&*plain_name, "<a href=\"/rewriteme\">test</a>"),
        (&*tls_name, "tls foo"),
        ("CERT_FILE", CRT),
        ("KEY_FILE", KEY),
    ];
    let _running = started(tls, &["porter"], &env);
    let text = said(
        &mut TcpStream::connect(("127.0.0.1", plain)).expect("it listens"),
        &asking("GET /", ""),
    );
    assert_eq!(answered(&text).1, "<a href=\"/rewriteme\">test</a>");
    assert!(
        text.contains("content-type: text/html; charset=utf-8"),
        "{text}"
    );
    let text = said(&mut secured(tls, false), &asking("GET /", ""));
    assert_eq!(answered(&text), (200, "tls foo"));
}

#[test]
fn webhooks_answer_reviews_over_tls() {
    let at = port();
    let flag = format!("--port={at}");
    let (crt, key) = (
        format!("--tls-cert-file={CRT}"),
        format!("--tls-private-key-file={KEY}"),
    );
    let _running = started(at, &["webhook", &crt, &key, &flag], &[]);
    let review = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","operation":"CREATE","object":{}}}"#;
    let text = said(
        &mut secured(at, false),
        &asking("POST /always-deny?timeout=1s", review),
    );
    assert_eq!(
        answered(&text),
        (
            200,
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"allowed":false,"status":{"message":"this webhook denies all requests","metadata":{}},"uid":"u-1"}}"#
        )
    );
    assert_eq!(
        answered(&said(&mut secured(at, false), &asking("GET /readyz", ""))).1,
        "ok"
    );
    assert_eq!(
        answered(&said(&mut secured(at, false), &asking("GET /nothing", ""))).0,
        404
    );

    let at = port();
    let flag = format!("--port={at}");
    let _converter = started(at, &["crd-conversion-webhook", &crt, &key, &flag], &[]);
    let review = r#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","request":{"uid":"u","desiredAPIVersion":"stable.example.com/v2","objects":[{"apiVersion":"stable.example.com/v1","hostPort":"a:1"}]}}"#;
    let text = said(&mut secured(at, false), &asking("POST /crdconvert", review));
    assert!(
        text.contains(r#"{"apiVersion":"stable.example.com/v2","host":"a","port":"1"}"#),
        "{text}"
    );
}

#[test]
fn a_certificate_without_an_identity_is_told_so() {
    let at = port();
    let bundle = std::env::temp_dir().join(format!("agnhost-creds-{}", std::process::id()));
    let both = [CRT, KEY].map(|file| std::fs::read_to_string(file).expect("a file"));
    std::fs::write(&bundle, both.concat()).expect("a file");
    let listen = format!("--listen=0.0.0.0:{at}");
    let credentials = format!("--server-creds={}", bundle.display());
    let trust = format!("--spiffe-trust-bundle={CRT}");
    let _running = started(at, &["mtlsserver", &listen, &credentials, &trust], &[]);
    for (shows, expected) in [
        (false, "SPIFFE client certificate authentication required\n"),
        (true, "Malformed SPIFFE certificate\n"),
    ] {
        let text = said(&mut secured(at, shows), &asking("GET /spiffe-echo", ""));
        let (status, body) = answered(&text);
        assert_eq!((status, body), (401, expected), "{shows}");
    }
    std::fs::remove_file(&bundle).expect("it is ours");
}

#[test]
fn a_guestbook_keeps_what_it_is_told() {
    let at = port();
    let flag = format!("--http-port={at}");
    let _running = started(at, &["guestbook", &flag], &[]);
    assert_eq!(get(at, "/get").1, "{\"data\":{}}");
    assert_eq!(
        get(at, "/set?key=messages&value=TestEntry").1,
        "{\"message\":\"Updated\"}"
    );
    assert_eq!(get(at, "/get?key=messages").1, "{\"data\":\"TestEntry\"}");
    assert_eq!(
        get(at, "/set?value=x"),
        (400, "cannot set with empty key.\n".to_owned())
    );
    assert_eq!(
        get(at, "/guestbook?cmd=burn"),
        (400, "unsupported cmd: 'burn'\n".to_owned())
    );
}

#[test]
fn programs_that_end_print_what_tests_read() {
    for (arguments, code, out, error) in [
        (
            &["entrypoint-tester", "a", "b"][..],
            0,
            "entrypoint-tester a b]\n",
            "",
        ),
        (&["nonewprivs"], 0, "Effective uid: 1000\n", ""),
        (
            &["mounttest", "--file_content=/no/such"],
            1,
            "error reading file content for \"/no/such\": open /no/such: no such file or directory\n",
            "",
        ),
        (
            &["nope"],
            1,
            "",
            "Error: unknown command \"nope\" for \"agnhost\"\n",
        ),
        (
            &["netexec", "--nope"],
            1,
            "",
            "Error: unknown flag: --nope\n",
        ),
        (
            &["connect", "127.0.0.1"],
            1,
            "",
            "UNKNOWN: address 127.0.0.1: missing port in address\n",
        ),
        (&["mtlsclient"], 1, "", "Error: missing required flags\n"),
    ] {
        let (found_code, found_out, found_error) = ran(arguments);
        assert_eq!(found_code, Some(code), "{arguments:?}");
        assert!(found_out.ends_with(out), "{arguments:?}: {found_out}");
        assert_eq!(found_error, error, "{arguments:?}");
    }
    let closed = format!("127.0.0.1:{}", port());
    assert_eq!(ran(&["connect", &closed]).2, "REFUSED\n");
    let (code, _, log) = ran(&["logs-generator", "-t", "3", "-d", "30ms"]);
    assert_eq!((code, log.lines().count()), (Some(0), 3), "{log}");
}

#[test]
fn a_new_file_has_the_mode_that_it_is_written_with() {
    let path = std::env::temp_dir().join(format!("agnhost-mount-{}", std::process::id()));
    let path = path.display().to_string();
    let (new, mode, perm) = (
        format!("--new_file_0660={path}"),
        format!("--file_mode={path}"),
        format!("--file_perm={path}"),
    );
    let (code, out, _) = ran(&["mounttest", &new, &mode, &perm]);
    let expected = format!(
        "content of file \"{path}\": mount-tester new file\n\nmode of file \"{path}\": -rw-rw----\nperms of file \"{path}\": -rw-rw----\n"
    );
    assert_eq!((code, out), (Some(0), expected));
    std::fs::remove_file(path).expect("it is ours");
}
