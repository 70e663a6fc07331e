//! The tools answer as busybox does, and coreutils where busybox has no such option, held to tables of their answers; and the network
//! tools talk to servers of the test's own.
//!
//! The scripts are `tools/*.sh`, the answers `tools/*.json`, which `tools/record.py` writes. Output, errors and status must be the
//! same byte for byte, but for the help that busybox adds to the errors of wrong calls.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

/// So many cases there must be at least.
const CASES_MIN: usize = 500;

struct Answer {
    status: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// An empty folder that goes with its value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tools-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run_in(folder: &Path, argv: &[&str], stdin: &[u8]) -> Answer {
    let mut child = Command::new(env!("CARGO_BIN_EXE_toolbox"))
        .args(argv)
        .current_dir(folder)
        .env_clear()
        .envs([
            ("PATH", "/usr/bin:/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C"),
            ("TZ", "UTC"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    // A tool that does not read its input may end before it is written.
    let writer = thread::spawn(move || drop(input.write_all(&bytes)));
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Answer {
        status: done.status.code().unwrap_or(-1),
        stdout: done.stdout,
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

fn run(argv: &[&str], stdin: &[u8]) -> Answer {
    run_in(&Folder::new().0, argv, stdin)
}

fn cases(text: &str) -> Vec<(String, String)> {
    let mut cases: Vec<(String, String)> = Vec::new();
    for line in text.split_inclusive('\n') {
        match line.strip_prefix("#### ") {
            Some(name) => cases.push((name.trim().to_owned(), String::new())),
            None => cases
                .last_mut()
                .expect("a case's name comes first")
                .1
                .push_str(line),
        }
    }
    cases
}

#[test]
fn tools_do_what_they_do_elsewhere() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools");
    let wanted = std::env::var("CASE").unwrap_or_default();
    let mut topics: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    topics.retain(|path| path.extension().is_some_and(|extension| extension == "sh"));
    topics.sort();
    let (mut count, mut wrong) = (0, Vec::new());
    for topic in topics {
        let answers = fs::read_to_string(topic.with_extension("json")).unwrap();
        let answers: BTreeMap<String, Value> = serde_json::from_str(&answers).unwrap();
        let title = topic.file_stem().unwrap().to_string_lossy().into_owned();
        for (name, script) in cases(&fs::read_to_string(&topic).unwrap()) {
            let title = format!("{title}: {name}");
            let answer = answers.get(&name);
            let answer =
                answer.unwrap_or_else(|| panic!("{title}: no answer is recorded: run record.py"));
            if !title.contains(&wanted) {
                continue;
            }
            count += 1;
            let found = run(&["sh", "-c", &script], b"");
            let help = answer["stderr"]
                .as_str()
                .unwrap_or_default()
                .contains("BusyBox");
            let same = i64::from(found.status) == answer["status"]
                && found.text() == answer["stdout"]
                && (help || found.stderr == answer["stderr"]);
            if !same {
                wrong.push(format!(
                    "{title}\n  {script}  wanted {answer}\n  found  {} {:?} {:?}\n",
                    found.status,
                    found.text(),
                    found.stderr
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count} are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(
        count >= CASES_MIN || !wanted.is_empty(),
        "only {count} cases"
    );
}

/// Every byte there is, and more of them than any piece holds.
fn binary() -> Vec<u8> {
    (0..300_000u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

#[test]
fn binary_data_passes_unharmed() {
    let data = binary();
    for script in [
        "cat",
        "head -c 300000",
        "tail -c 300000",
        "tr a a",
        "tee /dev/null",
        "base64 | base64 -d",
        "xxd -p | xxd -r -p",
        "gzip | gunzip",
        "cat > f; tar cf - f | tar xOf -",
        "cat > f; tar czf - f | tar xzOf -",
        "cat > f; cp f g; cmp f g && cat g",
        "split -b 1000 -a 3; cat x*",
        "sed ''",
        "grep -a ''",
    ] {
        // Those that know lines end the last of them.
        let data: Vec<u8> = data.iter().copied().chain(*b"\n").collect();
        let data = if script.contains("300000") {
            &data[..300_000]
        } else {
            &data[..]
        };
        let found = run(&["sh", "-c", script], data);
        assert_eq!((found.status, found.stderr.as_str()), (0, ""), "{script}");
        assert!(
            found.stdout == data,
            "{script}: {} bytes of {}",
            found.stdout.len(),
            data.len()
        );
    }
}

#[test]
fn archives_do_not_leave_their_folder() {
    let folder = Folder::new();
    fs::create_dir(folder.0.join("t")).unwrap();
    // An archive by hand: a name that climbs, and a link with something written through it.
    let script = r#"
        mkdir s u out; echo evil > s/f; echo secret > out/s
        cd u; tar cf ../climbs.tar ../s/f 2>/dev/null; rm ../s/f; tar xf ../climbs.tar 2>/dev/null; ls ../s; cd ..
        cd s; ln -s /tmp l; tar cf ../link.tar l; rm l; mkdir l; echo evil > l/escaped; tar cf ../through.tar l/escaped; cd ..
        cd t; tar xf ../link.tar; tar xf ../through.tar; ls; cat l/escaped; test -L l; echo $?; cd ..
        cd s; echo x > l/s; ln l/s h; tar cf ../hard.tar l/s h; cd ..
        cd u; ln -s ../out l; tar xf ../hard.tar h 2>/dev/null; test -e h; echo $?"#;
    let found = run_in(&folder.0, &["sh", "-c", script], b"");
    assert_eq!(found.text(), "l\nevil\n1\n1\n", "{}", found.stderr);
    assert!(!Path::new("/tmp/escaped").exists());
}

#[test]
fn mistakes_are_sentences() {
    for (argv, stdin, status, stderr) in [
        (
            &["cat", "-Q"][..],
            "",
            1,
            "cat: invalid option -- 'Q'\nUsage: cat [-nbsvetAETu] [FILE]...\n",
        ),
        (
            &["head", "--nope"],
            "",
            1,
            "head: unrecognized option '--nope'\nUsage: head [OPTIONS] [FILE]...\n",
        ),
        (
            &["tail", "-n"],
            "",
            1,
            "tail: option requires an argument -- 'n'\nUsage: tail [OPTIONS] [FILE]...\n",
        ),
        (
            &["sed", "s/(/x/", "-E"],
            "a\n",
            1,
            "sed: bad regex '(': Unmatched ( or \\(\n",
        ),
        (
            &["grep", "-E", "a{2,1}x("],
            "a\n",
            2,
            "grep: bad regex 'a{2,1}x(': Unmatched ( or \\(\n",
        ),
        (
            &["awk", "BEGIN{getline x < }"],
            "",
            1,
            "awk: cmd. line:1: Unexpected token\n",
        ),
        (
            &["ping", "10.0.0.1"],
            "",
            1,
            "ping: can't create raw socket: Operation not permitted: a component has no raw sockets; try 'nc -zv HOST PORT'\n",
        ),
        (
            &["ip", "link", "add", "dummy0", "type", "dummy"],
            "",
            2,
            "ip: RTNETLINK answers: Operation not permitted\n",
        ),
    ] {
        let found = run(argv, stdin.as_bytes());
        assert_eq!(
            (found.status, found.stderr.as_str()),
            (status, stderr),
            "{argv:?}"
        );
    }
}

/// Expressions that would take others for ever end.
#[test]
fn expressions_end() {
    let text = "a".repeat(5000) + "!\n";
    assert_eq!(run(&["grep", "-E", "(a*)*b"], text.as_bytes()).status, 1);
    assert_eq!(run(&["grep", r"\(a*\)*\1b"], text.as_bytes()).status, 1);
    assert_eq!(run(&["grep", "-E", &"(".repeat(5000)], b"a\n").status, 2);
    assert_eq!(
        run(&["awk", &format!("BEGIN{{x={}}}", "(".repeat(5000))], b"").status,
        1
    );
    assert_eq!(run(&["awk", "function f(){f()}BEGIN{f()}"], b"").status, 1);
}

/// Work on files alone gives way: a limit of time is kept, and another task goes on.
#[test]
fn long_work_gives_way() {
    for work in [
        "seq 1 100000000 > /dev/null",
        "cat /dev/zero > /dev/null",
        "awk 'BEGIN{while(1){}}'",
        "sed ':a;ba' f",
        "yes > /dev/null",
    ] {
        let script = "echo > f; timeout 0.3 sh -c \"$1\"; echo $?";
        let found = run(&["sh", "-c", script, "sh", work], b"");
        assert_eq!(found.text(), "143\n", "{work}: {}", found.stderr);
    }
}

// The network.

/// A server of HTTP for so many requests, and its port. Requests are answered by what they ask for.
fn http_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || answer_http(stream.unwrap()));
        }
    });
    port
}

fn answer_http(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut buf = [0; 4096];
    let (head, length) = loop {
        let count = stream.read(&mut buf).unwrap_or(0);
        request.extend_from_slice(&buf[..count]);
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else {
            if count == 0 {
                return;
            }
            continue;
        };
        let head = String::from_utf8_lossy(&request[..end]).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.parse::<usize>().unwrap())
        });
        let length = length.unwrap_or(0);
        if request.len() >= end + 4 + length {
            break (head, length);
        }
    };
    let body = String::from_utf8_lossy(&request[request.len() - length..]).into_owned();
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let plain = |status: &str, headers: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let answer = match path.split('?').next().unwrap() {
        "/hello" => plain("200 OK", "Content-Type: text/plain\r\n", "hello\n"),
        "/echo" => plain("200 OK", "", &format!("{method} {path} {body}\n")),
        "/headers" => {
            let mut lines: Vec<&str> = head.lines().skip(1).filter(|line| !line.starts_with("Host")).collect();
            lines.sort_unstable();
            plain("200 OK", "", &(lines.join("\n") + "\n"))
        }
        "/moved" => plain("302 Found", "Location: /hello\r\n", "moved\n"),
        "/loop" => plain("302 Found", "Location: /loop\r\n", ""),
        "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n".to_owned(),
        "/cut" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_owned(),
        "/empty" => String::new(),
        "/slow" => {
            thread::sleep(std::time::Duration::from_secs(5));
            plain("200 OK", "", "late\n")
        }
        _ => plain("404 Not Found", "", "no such page\n"),
    };
    let _ = stream.write_all(answer.as_bytes());
}

#[test]
fn curl_and_wget_fetch() {
    let port = http_server();
    let base = format!("http://127.0.0.1:{port}");
    for (script, status, stdout, stderr) in [
        (
            "curl -g -q -s --connect-timeout 5 --max-time 30 BASE/hello",
            0,
            "hello\n",
            "",
        ),
        ("curl -s BASE/nope", 0, "no such page\n", ""),
        (
            "curl -f BASE/nope",
            22,
            "",
            "curl: (22) The requested URL returned error: 404\n",
        ),
        ("curl -sf BASE/nope", 22, "", ""),
        (
            "curl -sSf BASE/nope",
            22,
            "",
            "curl: (22) The requested URL returned error: 404\n",
        ),
        (
            "curl -s --fail-with-body BASE/nope",
            22,
            "no such page\n",
            "",
        ),
        ("curl -s BASE/moved", 0, "moved\n", ""),
        ("curl -sL BASE/moved", 0, "hello\n", ""),
        (
            "curl -L BASE/loop",
            47,
            "",
            "curl: (47) Maximum (50) redirects followed\n",
        ),
        (
            "curl -s -d a=1 -d b=2 BASE/echo",
            0,
            "POST /echo a=1&b=2\n",
            "",
        ),
        ("curl -s -X PUT -d x BASE/echo", 0, "PUT /echo x\n", ""),
        ("curl -s -G -d q=1 BASE/echo", 0, "GET /echo?q=1 \n", ""),
        (
            "curl -s --data-urlencode 'q=a b&c' BASE/echo",
            0,
            "POST /echo q=a%20b%26c\n",
            "",
        ),
        (
            "printf 'a\\nb' > f; curl -s -d @f BASE/echo; curl -s --data-binary @f BASE/echo",
            0,
            "POST /echo ab\nPOST /echo a\nb\n",
            "",
        ),
        (
            "printf up > f; curl -s -T f BASE/echo",
            0,
            "PUT /echo up\n",
            "",
        ),
        ("curl -s --json '{}' BASE/echo", 0, "POST /echo {}\n", ""),
        ("curl -s -o f BASE/hello; cat f", 0, "hello\n", ""),
        ("curl -s -O BASE/hello; cat hello", 0, "hello\n", ""),
        (
            "curl -s -w '%{http_code} %{size_download}\\n' -o /dev/null BASE/hello",
            0,
            "200 6\n",
            "",
        ),
        ("curl -s BASE/chunked", 0, "abcdefg", ""),
        ("curl -s BASE/cut", 18, "abc", ""),
        (
            "curl BASE/empty",
            52,
            "",
            "curl: (52) Empty reply from server\n",
        ),
        ("curl -s -m 0.3 BASE/slow; echo $?", 0, "28\n", ""),
        (
            "curl -si BASE/hello | head -n 1",
            0,
            "HTTP/1.1 200 OK\r\n",
            "",
        ),
        (
            "curl -sI BASE/hello | tail -n 2",
            0,
            "Content-Length: 6\r\n\r\n",
            "",
        ),
        (
            "curl -s -u me:secret -A agent -H 'X-One: 1' -H 'Accept:' BASE/headers",
            0,
            "Authorization: Basic bWU6c2VjcmV0\nConnection: close\nUser-Agent: agent\nX-One: 1\n",
            "",
        ),
        (
            "curl http://127.0.0.1:1/ 2>&1 | sed 's/after [0-9]* ms/after N ms/'",
            0,
            "curl: (7) Failed to connect to 127.0.0.1 port 1 after N ms: Couldn't connect to server\n",
            "",
        ),
        (
            "curl",
            2,
            "",
            "curl: no URL specified!\ncurl: try 'curl --help' for more information\n",
        ),
        (
            "curl --nope x",
            2,
            "",
            "curl: option --nope: is unknown\ncurl: try 'curl --help' for more information\n",
        ),
        (
            "curl ftp://x/",
            1,
            "",
            "curl: (1) Protocol \"ftp\" not supported or disabled in libcurl\n",
        ),
        (
            "curl 'http://a b/'",
            3,
            "",
            "curl: (3) URL using bad/illegal format or missing URL\n",
        ),
        ("wget -q -O - BASE/hello", 0, "hello\n", ""),
        ("wget -q BASE/hello; cat hello", 0, "hello\n", ""),
        (
            "wget -q -O- '--post-data={\"Source\": \"prestop\"}' BASE/echo",
            0,
            "POST /echo {\"Source\": \"prestop\"}\n",
            "",
        ),
        ("wget -q -O- BASE/moved", 0, "hello\n", ""),
        (
            "wget -q -O- BASE/nope",
            1,
            "",
            "wget: server returned error: HTTP/1.1 404 Not Found\n",
        ),
        (
            "wget -q -S -O- BASE/hello 2>&1 | head -n 1",
            0,
            "  HTTP/1.1 200 OK\n",
            "",
        ),
        (
            "wget -q -T 0.3 -O- BASE/slow",
            1,
            "",
            "wget: download timed out\n",
        ),
        ("wget -q --spider BASE/hello", 0, "", ""),
        (
            "wget -q -O- --header 'X: y' BASE/headers | grep X",
            0,
            "X: y\n",
            "",
        ),
        (
            "wget -q -O- http://127.0.0.1:1/",
            1,
            "",
            "wget: can't connect to remote host (127.0.0.1): Connection refused\n",
        ),
    ] {
        let script = script.replace("BASE", &base);
        let found = run(&["sh", "-c", &script], b"");
        let answer = (found.status, found.text(), found.stderr.as_str());
        assert_eq!(answer, (status, stdout.to_owned(), stderr), "{script}");
    }
}

#[test]
fn nc_talks_and_listens() {
    let port = http_server().to_string();
    let ok = run(&["nc", "-z", "-v", "127.0.0.1", &port], b"");
    assert_eq!(
        (ok.status, ok.stderr),
        (0, format!("127.0.0.1 (127.0.0.1:{port}) open\n"))
    );
    let refused = run(&["nc", "-zv", "127.0.0.1", "1"], b"");
    assert_eq!(
        (refused.status, refused.stderr.as_str()),
        (1, "nc: 127.0.0.1 (127.0.0.1:1): Connection refused\n")
    );
    let got = run(
        &["nc", "-w", "2", "127.0.0.1", &port],
        b"GET /hello HTTP/1.1\r\n\r\n",
    );
    assert!(got.text().ends_with("hello\n"), "{}", got.text());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = socket.local_addr().unwrap().port().to_string();
    thread::spawn(move || {
        let mut buf = [0; 100];
        let (count, from) = socket.recv_from(&mut buf).unwrap();
        socket
            .send_to(&[b"got ", &buf[..count]].concat(), from)
            .unwrap();
    });
    let got = run(&["nc", "-u", "-w", "1", "127.0.0.1", &udp], b"hostName\n");
    assert_eq!(
        (got.status, got.text().as_str(), got.stderr.as_str()),
        (0, "got hostName\n", "")
    );
    // A listener and its caller are tasks of one shell.
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let script = format!(
        "echo from server | nc -l -p {free} > got & sleep 0.2; echo from caller | nc -w 1 127.0.0.1 {free}; wait; cat got"
    );
    let got = run(&["sh", "-c", &script], b"");
    assert_eq!(
        (got.text().as_str(), got.stderr.as_str()),
        ("from server\nfrom caller\n", "")
    );
}

/// A name server with a few names, over UDP and TCP on the same port. Long answers are cut short over UDP.
fn name_server() -> u16 {
    let (udp, tcp, port) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if let Ok(udp) = UdpSocket::bind(("127.0.0.1", port)) {
            break (udp, tcp, port);
        }
    };
    thread::spawn(move || {
        let mut buf = [0; 1000];
        while let Ok((count, from)) = udp.recv_from(&mut buf) {
            udp.send_to(&answer_dns(&buf[..count], false), from)
                .unwrap();
        }
    });
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 2];
            stream.read_exact(&mut head).unwrap();
            let mut query = vec![0; usize::from(u16::from_be_bytes(head))];
            stream.read_exact(&mut query).unwrap();
            let answer = answer_dns(&query, true);
            let length = u16::try_from(answer.len()).unwrap();
            stream
                .write_all(&[&length.to_be_bytes()[..], &answer].concat())
                .unwrap();
        }
    });
    port
}

fn answer_dns(query: &[u8], whole: bool) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let length = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..at + 1 + length]).into_owned());
        at += 1 + length;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let name = |text: &str| -> Vec<u8> {
        let labels = text
            .split('.')
            .flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
        labels.chain([0]).collect()
    };
    let (code, flags, records): (u8, u8, Vec<(u16, Vec<u8>)>) =
        match (labels.join(".").as_str(), kind) {
            ("web.test", 1) => (0, 0, vec![(1, vec![10, 0, 0, 7])]),
            ("web.test", _) => (0, 0, vec![]),
            ("six.test", 28) => (
                0,
                0,
                vec![(28, vec![0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])],
            ),
            ("alias.test", 1 | 5) => (0, 0, vec![(5, name("web.test"))]),
            ("_http._tcp.web.test", 33) => (
                0,
                0,
                vec![(
                    33,
                    [&[0, 10, 0, 100, 0, 80][..], &name("web.test")].concat(),
                )],
            ),
            ("7.0.0.10.in-addr.arpa", 12) => (0, 0, vec![(12, name("web.test"))]),
            ("text.test", 16) => (0, 0, vec![(16, b"\x05hello\x02a\"".to_vec())]),
            ("long.test", 1) if !whole => (0, 2, vec![]),
            ("long.test", 1) => (
                0,
                0,
                (0..100).map(|last| (1, vec![10, 1, 0, last])).collect(),
            ),
            _ => (3, 0, vec![]),
        };
    let mut answer = query[..2].to_vec();
    answer.extend([
        0x85 | flags,
        0x80 | code,
        0,
        1,
        0,
        records.len() as u8,
        0,
        0,
        0,
        0,
    ]);
    answer.extend(&query[12..at + 5]);
    for (kind, data) in records {
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1, 0, 0, 0, 30]);
        answer.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        answer.extend(data);
    }
    answer
}

#[test]
fn names_are_looked_up() {
    let port = name_server();
    for (script, status, stdout) in [
        ("dig DIG +short web.test", 0, "10.0.0.7\n"),
        (
            "dig DIG +notcp +noall +answer +search web.test A",
            0,
            "web.test.\t\t30\tIN\tA\t10.0.0.7\n",
        ),
        (
            "dig DIG +tcp +noall +answer +search web.test A",
            0,
            "web.test.\t\t30\tIN\tA\t10.0.0.7\n",
        ),
        (
            "dig DIG +tcp +noall +answer _http._tcp.web.test SRV",
            0,
            "_http._tcp.web.test.\t30\tIN\tSRV\t10 100 80 web.test.\n",
        ),
        ("dig DIG +short -x 10.0.0.7", 0, "web.test.\n"),
        ("dig DIG +short alias.test CNAME", 0, "web.test.\n"),
        ("dig DIG +short six.test AAAA", 0, "fd00::1\n"),
        ("dig DIG +short text.test TXT", 0, "\"hello\" \"a\\\"\"\n"),
        ("dig DIG +short none.test", 0, ""),
        ("dig DIG +noall +answer none.test", 0, ""),
        ("dig DIG +short long.test | wc -l", 0, "100\n"),
        (
            "dig DIG web.test | grep status",
            0,
            ";; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: N\n",
        ),
        (
            "dig DIG none.test | grep status",
            0,
            ";; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN, id: N\n",
        ),
        (
            "dig @127.0.0.1 -p 1 +time=1 +tries=1 x.test > /dev/null; echo $?",
            0,
            "9\n",
        ),
        (
            "nslookup -port=PORT -type=a web.test 127.0.0.1",
            0,
            "Server:\t\t127.0.0.1\nAddress:\t127.0.0.1:PORT\n\nName:\tweb.test\nAddress: 10.0.0.7\n\n",
        ),
        (
            "nslookup -port=PORT -type=a alias.test 127.0.0.1 | tail -n 2",
            0,
            "alias.test\tcanonical name = web.test\n\n",
        ),
        (
            "nslookup -port=PORT none.test. 127.0.0.1 | tail -n 2; nslookup -port=PORT none.test. 127.0.0.1 > /dev/null; echo $?",
            0,
            "** server can't find none.test.: NXDOMAIN\n\n1\n",
        ),
        (
            "nslookup -port=PORT 10.0.0.7 127.0.0.1 | tail -n 2",
            0,
            "7.0.0.10.in-addr.arpa\tname = web.test\n\n",
        ),
        ("getent hosts localhost | grep -c localhost", 0, "1\n"),
        ("getent hosts 127.0.0.1 | grep -c localhost", 0, "1\n"),
        ("getent nonsense x; echo $?", 0, "1\n"),
    ] {
        let script = script
            .replace("DIG", &format!("@127.0.0.1 -p {port}"))
            .replace("PORT", &port.to_string());
        let found = run(&["sh", "-c", &script], b"");
        let text = found.text();
        let text = match text.split_once("id: ") {
            Some((head, _)) if stdout.contains("id: N") => format!("{head}id: N\n"),
            _ => text,
        };
        let stdout = stdout.replace("PORT", &port.to_string());
        assert_eq!(
            (found.status, text),
            (status, stdout),
            "{script}\n{}",
            found.stderr
        );
    }
}
