//! The examples: each does what its header says, with components that `cargo xtask guests` built.

mod example;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn guest(name: &str) -> PathBuf {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests");
    let path = guests.join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "{} is missing; run `cargo xtask guests` first",
        path.display()
    );
    path
}

/// Its exit code and what it printed.
fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().unwrap_or_else(|| panic!("{stderr}"));
    assert!(!stderr.contains("panicked"), "{stderr}");
    format!("{code}: {}", String::from_utf8_lossy(&output.stdout))
}

#[test]
fn embed_hosts_a_component_and_lends_it_something_in_under_seventy_five_lines() {
    assert_eq!(
        ran(&mut Command::new(example::path("embed"))),
        "0: five letters of apple cost 40\n"
    );
    let lines = include_str!("../examples/embed.rs").lines().count();
    assert!(lines < 75, "{lines} lines");
}

#[test]
fn plugins_calls_and_is_called_with_types() {
    assert_eq!(
        ran(Command::new(example::path("plugins")).arg(guest("discount"))),
        "0: 12 apple: 36 cents off\n\
         2 melon: no discount, only 3 are left\n\
         1 pear: no discount, only 0 are left\n"
    );
}

#[test]
fn job_passes_arguments_in_and_output_and_exit_code_out() {
    let data = tempfile::tempdir().unwrap();
    std::fs::write(data.path().join("poem"), "one two\nthree\n").unwrap();
    let job = || {
        let mut job = Command::new(example::path("job"));
        job.arg(guest("wordcount")).current_dir(data.path());
        job
    };
    assert_eq!(ran(job().arg("/data/poem")), "0: 3 words in /data/poem\n");
    assert_eq!(ran(job().arg("/etc/passwd")), "3: ");
    assert_eq!(ran(&mut job()), "2: ");
}

/// A server that ends with its test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Dead already, at worst.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn axum_answers_with_the_component_beside_ordinary_routes() {
    let mut server = Server(
        Command::new(example::path("axum"))
            .arg(guest("hello"))
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .trim()
        .strip_prefix("listening on http://")
        .unwrap_or_else(|| panic!("{line}"));
    let get = |path: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        format!("{} {body}", answer.split(' ').nth(1).unwrap_or_default())
    };
    assert_eq!(get("/health"), "200 ok\n");
    assert_eq!(get("/guest"), "200 hello\n");
    assert_eq!(get("/guest/of/honour?a=b"), "200 hello\n");
    assert_eq!(get("/elsewhere"), "404 ");
    server.0.kill().unwrap();
    let mut told = String::new();
    let mut stderr = server.0.stderr.take().unwrap();
    stderr.read_to_string(&mut told).unwrap();
    assert_eq!(told.matches("Answered(200)").count(), 2, "{told}");
}
