//! The host keeps WASI's word: a table of what the interfaces' text promises (0.2.12 and 0.3.0, as wasmtime ships it) and
//! what a guest sees here. The guests are `sample-apps/behaviours` and `behaviours-p3`; a row's name is what they are asked
//! to do, with a variant of the circumstances after `#`.
//!
//! Where the host does not keep its word, the row says so after the quotation and holds what it does today.

mod guest;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use weft_runtime::{
    Access, Artifact, Body, BoxError, Engine, Exit, Failure, FailureKind, InstancePolicy, Limits,
    LogSink, Outbound, Volume, VolumeLimits, Workload, WorkloadBuilder,
};

/// The largest body of the calls below.
const BODY_BYTES: u64 = 100_000;

/// What is asked for, what the interface's text says of it, and what the guest sees.
type Row = (&'static str, &'static str, &'static str);

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::builder().instances_max(64).build().unwrap());

async fn guest(name: &str) -> Artifact {
    ENGINE.load(guest::bytes(name)).await.unwrap()
}

/// A workload and what it prints.
fn printing(artifact: &Artifact) -> (WorkloadBuilder, Arc<Mutex<String>>) {
    let printed = Arc::new(Mutex::new(String::new()));
    let sink = |name: &'static str| {
        let printed = printed.clone();
        LogSink::new(move |bytes| {
            let text = String::from_utf8_lossy(bytes);
            *printed.lock().unwrap() += &format!("{name}{text}");
        })
    };
    let workload = Workload::builder(&ENGINE, artifact)
        .stdout(sink(""))
        .stderr(sink("!"));
    (workload, printed)
}

/// The directories of `sample-apps/behaviours/src/filesystem.rs`, and the secret beside them.
fn directories(parent: &Path) {
    std::fs::write(parent.join("secret"), "secret").unwrap();
    for name in ["ro", "rw"] {
        let dir = parent.join(name);
        std::fs::create_dir_all(dir.join("folder")).unwrap();
        std::fs::write(dir.join("file"), "hello").unwrap();
        std::fs::write(dir.join("folder/inside"), "").unwrap();
        symlink("file", dir.join("in")).unwrap();
        symlink("../secret", dir.join("out")).unwrap();
        symlink("/etc", dir.join("root")).unwrap();
    }
}

/// Whether the guest's directories are volumes with limits that it does not come near: then nothing is to be different.
#[derive(Clone, Copy, PartialEq)]
enum Lent {
    Directories,
    Volumes,
}

async fn run(artifact: &Artifact, row: &str, lent: Lent) -> String {
    let parent = tempfile::tempdir().unwrap();
    directories(parent.path());
    let (workload, printed) = printing(artifact);
    let workload = workload
        .args(vec!["behaviours".into(), row.into()])
        .env(vec![
            ("COLOR".into(), "green".into()),
            ("EMPTY".into(), String::new()),
        ]);
    let (ro, rw) = (parent.path().join("ro"), parent.path().join("rw"));
    let workload = match lent {
        Lent::Directories => {
            workload
                .preopen(ro, "/ro", Access::ReadOnly)
                .preopen(rw, "/rw", Access::ReadWrite)
        }
        Lent::Volumes => {
            let limits = VolumeLimits {
                bytes: Some(1 << 20),
                inodes: Some(100),
            };
            let volume = |dir| Volume::open(dir, limits).unwrap();
            workload
                .volume(&volume(ro), "/ro", Access::ReadOnly)
                .volume(&volume(rw), "/rw", Access::ReadWrite)
        }
    };
    let exit = workload.build().unwrap().run().await;
    let secret = std::fs::read_to_string(parent.path().join("secret"));
    assert_eq!(secret.unwrap(), "secret", "{row}");
    let saw = printed.lock().unwrap().trim_end().to_owned();
    match exit {
        Exit::Success => saw,
        Exit::Failed(code) => format!("{saw} (exit code {code})"),
        Exit::Trap { message, .. } => format!("trap: {message}"),
        other => format!("{other:?}"),
    }
}

fn trailers(names: &[&'static str]) -> HeaderMap {
    let fields = names
        .iter()
        .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("5")));
    fields.collect()
}

fn frames(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Body {
    Body::new(StreamBody::new(futures::stream::iter(frames)))
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(text.into()))
}

/// A body's bytes, its trailers and what broke it.
async fn shown(mut body: Body) -> String {
    let mut text = String::new();
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => text += &String::from_utf8_lossy(&data),
            Ok(Err(frame)) => {
                let fields = frame.into_trailers().unwrap_or_default();
                text += &format!(" + {fields:?}");
            }
            Err(error) => return format!("{text} (broken: {error})"),
        }
    }
    text
}

/// What answers the guests' requests, by authority.
fn outbound() -> Outbound {
    Outbound::new(tower::service_fn(async |request: Request<Body>| {
        let (head, body) = request.into_parts();
        let host = head.uri.host().unwrap_or_default().to_owned();
        match host.as_str() {
            "error" => Err(FailureKind::LoopDetected.into()),
            "broken" => Ok(Response::new(frames(vec![
                data("part"),
                Err(Box::new(Failure::from(FailureKind::Deadline))),
            ]))),
            _ => {
                let body = shown(body).await;
                let host = head.headers.get("host");
                let text = format!("{} {} host {host:?} [{body}]", head.method, head.uri);
                Ok(Response::new(frames(vec![
                    Ok(Frame::data(text.into())),
                    Ok(Frame::trailers(trailers(&["x-end"]))),
                ])))
            }
        }
    }))
}

fn request(name: &str) -> Request<Body> {
    let (path, variant) = name.split_once('#').unwrap_or((name, ""));
    let request = Request::builder().uri(format!("/{path}?a=b"));
    let request = match variant {
        "host" => request.header("host", "shop.test:81"),
        "absolute" => request.uri(format!("https://shop.test/{path}")),
        "no-path" => request.uri("http://shop.test"),
        "method" => request.method("PURGE"),
        _ => request,
    };
    let request = request
        .header("x-twice", "one")
        .header("x-twice", "two")
        .header("x-empty", "");
    let body = match variant {
        "whole" => frames(vec![data("hello, "), data("world")]),
        "trailers" => frames(vec![
            data("hello"),
            Ok(Frame::trailers(trailers(&["x-sum"]))),
        ]),
        "broken" => frames(vec![
            data("hello"),
            Err(Box::new(Failure::from(FailureKind::Malformed))),
        ]),
        "large" => frames(vec![
            data("hello"),
            Ok(Frame::data(vec![b'x'; BODY_BYTES as usize].into())),
        ]),
        _ => Body::empty(),
    };
    request.body(body).unwrap()
}

async fn call(artifact: &Artifact, name: &str) -> String {
    let (workload, printed) = printing(artifact);
    let workload = workload
        .outbound(outbound())
        .limits(Limits {
            body_bytes: BODY_BYTES,
            ..Limits::default()
        })
        .instance_policy(InstancePolicy::PerRequest)
        .build()
        .unwrap();
    let saw = match workload.call(request(name)).await {
        Ok(response) => {
            let (head, body) = response.into_parts();
            let twice: Vec<_> = head.headers.get_all("x-twice").iter().collect();
            let twice = if twice.is_empty() {
                String::new()
            } else {
                format!(" {twice:?}")
            };
            format!("{}{twice} {}", head.status.as_u16(), shown(body).await)
        }
        Err(error) => format!("{error}"),
    };
    // What it prints last may come after its response. The bound only keeps a failing test from hanging.
    for _ in 0..2_000 {
        if workload.usage().instances == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    workload.stop(std::time::Duration::from_secs(60)).await;
    let printed = printed.lock().unwrap();
    match printed.trim_end() {
        "" => saw,
        printed => format!("{saw} | {printed}"),
    }
}

/// Holds every row against what happens, and tells of all that differ.
async fn hold(artifact: &Artifact, table: &[Row]) {
    let mut broken = String::new();
    for (name, word, expected) in table {
        let saw = match name.split_once('/') {
            Some(("http", row)) => call(artifact, row).await,
            Some(("filesystem", _)) => {
                let saw = run(artifact, name, Lent::Directories).await;
                let volumes = run(artifact, name, Lent::Volumes).await;
                if volumes == saw {
                    saw
                } else {
                    format!("{saw}, but in volumes {volumes}")
                }
            }
            _ => run(artifact, name, Lent::Directories).await,
        };
        if saw != *expected {
            broken += &format!("{name}: {word}\n  expected {expected}\n  saw      {saw}\n");
        }
    }
    assert!(broken.is_empty(), "\n{broken}");
}

const P2: &[Row] = &[
    (
        "cli/environment",
        "this import function should return the same values each time it is called.",
        "[(\"COLOR\", \"green\"), (\"EMPTY\", \"\")], the same again: true",
    ),
    (
        "cli/arguments",
        "Get the POSIX-style arguments to the program.",
        "[\"behaviours\", \"cli/arguments\"]",
    ),
    (
        "cli/initial-cwd",
        "Return a path that programs should use as their initial current working directory, interpreting `.` as shorthand for this.",
        "None",
    ),
    (
        "cli/run-fails",
        "run: func() -> result;",
        "before (exit code 1)",
    ),
    (
        "cli/exit-success",
        "Exit the current instance and any linked instances.",
        "before",
    ),
    (
        "cli/exit-failure",
        "Exit the current instance and any linked instances.",
        "before (exit code 1)",
    ),
    (
        "cli/exit-with-code-0",
        "The meaning of the code depends on the context, with 0 usually meaning \"success\", and other values indicating various types of failure.",
        "before",
    ),
    (
        "cli/exit-with-code-7",
        "This function does not return; the effect is analogous to a trap, but without the connotation that something bad has happened.",
        "before (exit code 7)",
    ),
    (
        "cli/exit-with-code-255",
        "The meaning of the code depends on the context, with 0 usually meaning \"success\", and other values indicating various types of failure.",
        "before (exit code 255)",
    ),
    (
        "cli/stdin",
        "If the stream is still open, this call should succeed and return an empty list, or otherwise fail with `closed`.",
        "[Err(StreamError::Closed), Err(StreamError::Closed), Err(StreamError::Closed)], skipped Err(StreamError::Closed)",
    ),
    (
        "cli/stdout",
        "the output which is expected to be flushed is all that has been passed to `write` prior to this call.",
        "no line, Ok(65536) Ok(()) (Ok(()), Ok(())) Ok(())",
    ),
    (
        "cli/stdout-without-permission",
        "Calling `write` with more bytes than this function has permitted will trap.",
        "trap: more was written than `check-write` permits",
    ),
    (
        "cli/stdout-blocking-write-of-4097",
        "Perform a write of up to 4096 bytes, and then flush the stream.",
        "trap: Buffer too large for blocking-write-and-flush (expected at most 4096)",
    ),
    (
        "cli/stdout-splice",
        "Any error reported by the call to `check-write`, `read`, or `write` ends the splice and reports that error.",
        "Err(StreamError::Closed)",
    ),
    (
        "cli/stderr",
        "Returns success when all of the contents written are successfully flushed to output.",
        "!on stderrOk(())",
    ),
    (
        "cli/terminals",
        "If stdin is connected to a terminal, return a `terminal-input` handle allowing further interaction with it.",
        "false false false",
    ),
    (
        "clocks/monotonic",
        "The clock is monotonic, therefore calling this function repeatedly will produce a sequence of non-decreasing values.",
        "goes back: false, ticks: true",
    ),
    (
        "clocks/wall",
        "The nanoseconds field of the output is always less than 1000000000.",
        "after 2020: true, sane: true",
    ),
    (
        "clocks/subscribe-duration",
        "Create a `pollable` that will resolve after the specified duration has elapsed from the time this function is invoked.",
        "early: false, ready: true, long enough: true",
    ),
    (
        "clocks/subscribe-instant",
        "Create a `pollable` which will resolve once the specified instant has occurred.",
        "long enough: true",
    ),
    (
        "clocks/subscribe-now",
        "Create a `pollable` which will resolve once the specified instant has occurred.",
        "true true",
    ),
    (
        "clocks/subscribe-never",
        "A timeout can be implemented by adding a pollable from the wasi-clocks API to the list.",
        "[2]",
    ),
    (
        "clocks/poll-both",
        "The result `list<u32>` contains one or more indices of handles in the argument list that is ready for I/O.",
        "[0, 2, 1]",
    ),
    (
        "clocks/poll-nothing",
        "This function traps if either: - the list is empty, or:",
        "trap: empty poll list",
    ),
    (
        "random/lengths",
        "Return `len` cryptographically-secure random or pseudo-random bytes.",
        "[0, 1, 17, 65536] [0, 1, 17, 65536]",
    ),
    (
        "random/fresh",
        "This function must always return fresh data.",
        "repeats: false false false",
    ),
    (
        "random/seed",
        "Return a 128-bit value that may contain a pseudo-random value.",
        "nothing: false",
    ),
    (
        "random/too-much",
        "Return `len` cryptographically-secure random or pseudo-random bytes. (There is no error for more than a host will make.)",
        "trap: requested len 18446744073709551615 exceeds limit 1048576",
    ),
    (
        "filesystem/preopens",
        "Return the set of preopened directories, and their paths.",
        "[\"/ro\", \"/rw\"]",
    ),
    (
        "filesystem/flags",
        "Get flags associated with a descriptor.",
        "ro Ok(DescriptorFlags(READ)), rw Ok(DescriptorFlags(READ | MUTATE_DIRECTORY))",
    ),
    (
        "filesystem/open-missing",
        "No such file or directory, similar to `ENOENT` in POSIX.",
        "ro no-entry, rw no-entry",
    ),
    (
        "filesystem/open-to-read",
        "Open a file or directory.",
        "ro ok, rw ok",
    ),
    (
        "filesystem/open-to-write",
        "If `flags` contains `write` or `mutate-directory`, or `open-flags` contains `truncate` or `create`, and the base descriptor doesn't have `descriptor-flags::mutate-directory` set, `open-at` fails with `error-code::read-only`.",
        "ro read-only, rw ok",
    ),
    (
        "filesystem/open-create",
        "If `flags` contains `write` or `mutate-directory`, or `open-flags` contains `truncate` or `create`, and the base descriptor doesn't have `descriptor-flags::mutate-directory` set, `open-at` fails with `error-code::read-only`.",
        "ro read-only, rw ok",
    ),
    (
        "filesystem/open-create-to-read",
        "If `flags` contains `write` or `mutate-directory`, or `open-flags` contains `truncate` or `create`, and the base descriptor doesn't have `descriptor-flags::mutate-directory` set, `open-at` fails with `error-code::read-only`.",
        "ro read-only, rw ok",
    ),
    (
        "filesystem/open-exclusive",
        "Fail if file already exists, similar to `O_EXCL` in POSIX.",
        "ro read-only, rw exist",
    ),
    (
        "filesystem/open-truncate",
        "If `flags` contains `write` or `mutate-directory`, or `open-flags` contains `truncate` or `create`, and the base descriptor doesn't have `descriptor-flags::mutate-directory` set, `open-at` fails with `error-code::read-only`.",
        "ro read-only 5, rw ok 0",
    ),
    (
        "filesystem/open-file-as-directory",
        "Fail if not a directory, similar to `O_DIRECTORY` in POSIX.",
        "ro not-directory, rw not-directory",
    ),
    (
        "filesystem/open-directory-mutably",
        "If `flags` contains `descriptor-flags::mutate-directory`, and the base descriptor doesn't have `descriptor-flags::mutate-directory` set, `open-at` fails with `error-code::read-only`.",
        "ro read-only, rw ok",
    ),
    (
        "filesystem/open-below-unmutable",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed. (wasmtime does not look at the flag: #12912)",
        "ok",
    ),
    (
        "filesystem/within",
        "All paths in WASI are relative paths, and are interpreted relative to a `descriptor` referring to a base directory.",
        "ro ok ok ok ok, rw ok ok ok ok",
    ),
    (
        "filesystem/escapes",
        "If a `path` argument to any WASI function starts with `/`, or if any step of resolving a `path`, including `..` and symbolic link steps, reaches a directory outside of the base directory, or reaches a symlink to an absolute or rooted path in the underlying filesystem, the function fails with `error-code::not-permitted`.",
        "ro not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted, rw not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted",
    ),
    (
        "filesystem/escapes-by-stat",
        "If a `path` argument to any WASI function starts with `/`, or if any step of resolving a `path`, including `..` and symbolic link steps, reaches a directory outside of the base directory, or reaches a symlink to an absolute or rooted path in the underlying filesystem, the function fails with `error-code::not-permitted`.",
        "ro not-permitted not-permitted not-permitted not-permitted, rw not-permitted not-permitted not-permitted not-permitted",
    ),
    (
        "filesystem/escapes-by-change",
        "If a `path` argument to any WASI function starts with `/`, or if any step of resolving a `path`, including `..` and symbolic link steps, reaches a directory outside of the base directory, or reaches a symlink to an absolute or rooted path in the underlying filesystem, the function fails with `error-code::not-permitted`. (What may only be read says that first.)",
        "ro read-only read-only read-only read-only read-only read-only read-only, rw not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted",
    ),
    (
        "filesystem/open-link-itself",
        "As long as the resolved path corresponds to a symbolic link, it is expanded.",
        "ro loop, rw loop",
    ),
    (
        "filesystem/empty-path",
        "No such file or directory, similar to `ENOENT` in POSIX.",
        "ro no-entry, rw no-entry",
    ),
    (
        "filesystem/readlink",
        "If the contents contain an absolute or rooted path in the underlying filesystem, this function fails with `error-code::not-permitted`.",
        "ro file ../secret not-permitted invalid, rw file ../secret not-permitted invalid",
    ),
    (
        "filesystem/symlink",
        "If `old-path` starts with `/`, the function fails with `error-code::not-permitted`. (What may only be read says that first.)",
        "ro read-only read-only, rw ok not-permitted",
    ),
    (
        "filesystem/link",
        "Fails with `error-code::no-entry` if the old path does not exist, with `error-code::exist` if the new path already exists, and `error-code::not-permitted` if the old path is not a file.",
        "ro read-only read-only read-only read-only, rw no-entry exist not-permitted ok",
    ),
    (
        "filesystem/link-across",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed.",
        "into ro read-only, out of ro read-only",
    ),
    (
        "filesystem/rename",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed.",
        "ro read-only read-only, rw ok no-entry",
    ),
    (
        "filesystem/rename-across",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed.",
        "into ro read-only, out of ro read-only",
    ),
    (
        "filesystem/create-directory",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed.",
        "ro read-only read-only, rw ok exist",
    ),
    (
        "filesystem/remove",
        "Return `error-code::not-empty` if the directory is not empty.",
        "ro read-only read-only read-only read-only read-only, rw is-directory not-empty not-directory no-entry ok",
    ),
    (
        "filesystem/set-times",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed. (wasmtime refuses with `not-permitted`: #12912)",
        "ro not-permitted, rw ok",
    ),
    (
        "filesystem/set-size",
        "If this increases the file's size, the extra bytes are filled with zeros.",
        "ro not-permitted read-only 5, rw invalid ok 8",
    ),
    (
        "filesystem/stat",
        "For symbolic links, the length in bytes of the pathname contained in the symbolic link.",
        "ro RegularFile Directory SymbolicLink 5 4, rw RegularFile Directory SymbolicLink 5 4",
    ),
    (
        "filesystem/read-directory",
        "On filesystems where directories contain entries referring to themselves and their parents, often named `.` and `..` respectively, these entries are omitted.",
        "ro file folder in out root, rw file folder in out root",
    ),
    (
        "filesystem/read-at-end",
        "a bool which, when true, indicates that the end of the file was reached.",
        "Ok((3, false)) Ok((2, false)) Ok((0, true))",
    ),
    (
        "filesystem/read-directory-as-file",
        "Bad descriptor, similar to `EBADF` in POSIX.",
        "Err(\"bad-descriptor\")",
    ),
    (
        "filesystem/read-stream",
        "This function fails with a `stream-error` when the operation encounters an error, giving `last-operation-failed`, or when the stream is closed, giving `closed`.",
        "[Ok(2), Err(StreamError::Closed), Err(StreamError::Closed)]",
    ),
    (
        "filesystem/write-past-end",
        "It is valid to write past the end of a file; the file is extended to the extent of the write, with bytes between the previous end and the start of the write set to zero.",
        "Ok(1) Ok(([104, 101, 108, 108, 111, 0, 0, 33], false))",
    ),
    (
        "filesystem/write-streams",
        "Return a stream for appending to a file, if available.",
        "Ok(()) Ok(()) hEllo!",
    ),
    (
        "filesystem/write-without-permission",
        "After this, the stream will be closed.",
        "Err(\"bad-descriptor\") Ok(\"failed Some(\\\"bad-descriptor\\\")\") 5",
    ),
    (
        "filesystem/stream-fails-then-is-closed",
        "May fail with an error-code describing why the file cannot be read.",
        "no stream: is-directory",
    ),
    (
        "filesystem/same-object",
        "Test whether two descriptors refer to the same filesystem object.",
        "true false true",
    ),
    (
        "http/request",
        "Returns the protocol scheme from the request.",
        "200 Method::Get Some(Scheme::Http) Some(\"localhost\") Some(\"/request?a=b\")",
    ),
    (
        "http/request#host",
        "Returns the authority of the Request's target URI, if present.",
        "200 Method::Get Some(Scheme::Http) Some(\"shop.test:81\") Some(\"/request?a=b\")",
    ),
    (
        "http/request#absolute",
        "Returns the protocol scheme from the request.",
        "200 Method::Get Some(Scheme::Https) Some(\"shop.test\") Some(\"/request\")",
    ),
    (
        "http/request#no-path",
        "Returns the path with query parameters from the request, as a string.",
        "200 Method::Get Some(Scheme::Http) Some(\"shop.test\") Some(\"/\")",
    ),
    (
        "http/request#method",
        "Returns the method of the incoming request.",
        "200 Method::Other(\"PURGE\") Some(Scheme::Http) Some(\"localhost\") Some(\"/request?a=b\")",
    ),
    (
        "http/request-headers",
        "If the name is not present in this `fields` or is syntactically invalid, an empty list is returned.",
        "200 [\"one\", \"two\"] [\"one\", \"two\"] [\"\"] false [] []",
    ),
    (
        "http/request-headers-are-immutable",
        "The returned `headers` resource is immutable: `set`, `append`, and `delete` operations will fail with `header-error.immutable`.",
        "200 Err(HeaderError::Immutable) Err(HeaderError::Immutable) Err(HeaderError::Immutable) Ok(())",
    ),
    (
        "http/fields",
        "Field names should always be treated as case insensitive by the `fields` resource for the purposes of equality checking.",
        "200 a=1 a=3 b=2; append Ok(()) a=1 a=3 b=2 b=4; set Ok(()) a=5 b=2 b=4; delete Ok(()) a=5; delete Ok(()) a=5; copy a=1 a=3 b=2",
    ),
    (
        "http/fields-refused",
        "An error result will be returned if any `field-name` or `field-value` is syntactically invalid, or if a field is forbidden.",
        "200 [true, true, true, true, true, true] Err(HeaderError::Forbidden) Err(HeaderError::InvalidSyntax) Err(HeaderError::InvalidSyntax) Err(HeaderError::InvalidSyntax) Err(HeaderError::InvalidSyntax) false",
    ),
    (
        "http/fields-too-large",
        "This error indicates that the operation on the `fields` was not permitted because the fields are immutable. (The last error there is: none for size.)",
        "the guest trapped: total size of fields exceeds limit",
    ),
    (
        "http/field-names-keep-their-case",
        "The names and values are always returned in the original casing and in the order in which they will be serialized for transport. (wasmtime: in lower case, #11770)",
        "200 Ok(()) [\"x-name\"]",
    ),
    (
        "http/consume-twice",
        "Will only return success at most once, and subsequent calls will return error.",
        "200 true false Some((true, false))",
    ),
    (
        "http/request-body",
        "It will be success on the first call in which the outer option is `some`, and error on subsequent calls.",
        "200 , closed, then closed; no trailers, then Some(false)",
    ),
    (
        "http/request-body#whole",
        "The stream is closed: no more input will be accepted by the stream.",
        "200 hello, world, closed, then closed; no trailers, then Some(false)",
    ),
    (
        "http/request-body#trailers",
        "When some `trailers` are returned by this method, the `trailers` resource is immutable, and a child.",
        "200 hello, closed, then closed; [\"x-sum\"] Err(HeaderError::Immutable), then Some(false)",
    ),
    (
        "http/request-body#broken",
        "This payload can be passed through to this function to see if there's http-related information about the error to return. (wasmtime's future-trailers then says that all went well.)",
        "200 hello, failed Some(ErrorCode::HttpProtocolError), then closed; no trailers, then Some(false)",
    ),
    (
        "http/request-body#large",
        "HTTP-request-body-size",
        "200 hello, failed Some(ErrorCode::HttpRequestBodySize(Some(100000))), then closed; no trailers, then Some(false)",
    ),
    (
        "http/request-trailers-without-reading#trailers",
        "This allows for network backpressure is to be applied when the user is consuming the body, and for that backpressure to not inhibit delivery of the trailers if the user does not read the entire body.",
        "200 [\"x-sum\"] Err(HeaderError::Immutable), then Some(false)",
    ),
    (
        "http/status",
        "Fails if the status-code given is not a valid http status code. (wasmtime takes 999.)",
        "200 200 [false, false, true, true, true, true, true, true, false, false]",
    ),
    (
        "http/response-body-once",
        "the `outgoing-body` resource for this `outgoing-response` can be retrieved at most once. Subsequent calls will return error.",
        "200 true false Some((true, false))",
    ),
    (
        "http/options",
        "Set the timeout for the initial connect to the HTTP Server. An error return value indicates that this timeout is not supported.",
        "200 None (Ok(()), Ok(()), Ok(())) Some(5) Some(6) Some(7)",
    ),
    (
        "http/request-setters",
        "Fails is the string given is not a syntactically valid path and query uri component.",
        "200 Method::Get None None None; Err(()) Err(()) Err(()) Err(()) Err(())",
    ),
    (
        "http/send",
        "This function is invoked with an outgoing HTTP Request, and it returns a resource `future-incoming-response` which represents an HTTP Response which may arrive in the future.",
        "200 200 Err(HeaderError::Immutable) PUT https://next:81/a?b=c host Some(\"next:81\") [], closed, then closed; [\"x-end\"] Err(HeaderError::Immutable), then Some(false); again Some(false)",
    ),
    (
        "http/send-defaults",
        "When `none`, this represents an empty Path and empty Query.",
        "200 200 Err(HeaderError::Immutable) GET http://next/ host Some(\"next\") [], closed, then closed; [\"x-end\"] Err(HeaderError::Immutable), then Some(false); again Some(false)",
    ),
    (
        "http/send-error",
        "The inner `result` represents that either the incoming HTTP Response status and headers have received successfully, or that an error occurred.",
        "200 ErrorCode::LoopDetected; again Some(false)",
    ),
    (
        "http/send-no-authority",
        "It is the obligation of the `outgoing-handler.handle` implementation to reject invalid constructions of `outgoing-request`.",
        "200 refused ErrorCode::HttpRequestUriInvalid",
    ),
    (
        "http/send-broken-response",
        "Errors may also occur while consuming the response body, but those will be reported by the `incoming-body` and its `output-stream` child. (wasmtime's future-trailers then says that all went well.)",
        "200 200 Err(HeaderError::Immutable) part, failed Some(ErrorCode::HttpResponseTimeout), then closed; no trailers, then Some(false); again Some(false)",
    ),
    (
        "http/send-trailers",
        "Finalize an outgoing body, optionally providing trailers.",
        "200 Ok(()); 200 Err(HeaderError::Immutable) POST http://echo/ host Some(\"echo\") [hello + {\"x-sum\": \"5\"}], closed, then closed; [\"x-end\"] Err(HeaderError::Immutable), then Some(false); again Some(false)",
    ),
    (
        "http/send-unfinished",
        "If the user code drops this resource, as opposed to calling the static method `finish`, the implementation should treat the body as incomplete, and that an error has occurred.",
        "200 dropped; 200 Err(HeaderError::Immutable) POST http://echo/ host Some(\"echo\") [hello (broken: HTTP protocol error)], closed, then closed; [\"x-end\"] Err(HeaderError::Immutable), then Some(false); again Some(false)",
    ),
    (
        "http/send-short",
        "Fails if the body's `outgoing-request` or `outgoing-response` was constructed with a Content-Length header, and the contents written to the body (via `write`) does not match the value given in the Content-Length.",
        "200 Err(ErrorCode::HttpRequestBodySize(Some(5))); 200 Err(HeaderError::Immutable) POST http://echo/ host Some(\"echo\") [hello (broken: HTTP protocol error)], closed, then closed; [\"x-end\"] Err(HeaderError::Immutable), then Some(false); again Some(false)",
    ),
    (
        "http/no-answer",
        "If it is never called, the implementation will respond with an error.",
        "the guest returned without a response",
    ),
    (
        "http/error",
        "The user may provide an `error` to `response` to allow the implementation determine how to respond with an HTTP error response.",
        "the guest answered with the error ErrorCode::ConnectionTimeout",
    ),
    (
        "http/answer-twice",
        "This method consumes the `response-outparam` to ensure that it is called at most once.",
        "200  (broken: the guest trapped: unknown handle index 2)",
    ),
    (
        "http/answer-103",
        "Unlike `response-outparam.set`, this does not consume the `response-outparam`, allowing the guest to send an arbitrary number of informational responses before sending the final response using `response-outparam.set`.",
        "the guest answered with the error ErrorCode::HttpProtocolError",
    ),
    (
        "http/answer-duplicates",
        "Names which have multiple values are represented by multiple entries in this list with the same name.",
        "200 [\"one\", \"two\"] ",
    ),
    (
        "http/trailers",
        "Finalize an outgoing body, optionally providing trailers.",
        "200 hello + {\"x-sum\": \"5\"} | written true, finished Ok(())",
    ),
    (
        "http/unfinished",
        "If the user code drops this resource, as opposed to calling the static method `finish`, the implementation should treat the body as incomplete, and that an error has occurred.",
        "200 hello (broken: HTTP protocol error) | written true, finished Ok(())",
    ),
    (
        "http/length-right",
        "Fails if the body's `outgoing-request` or `outgoing-response` was constructed with a Content-Length header, and the contents written to the body (via `write`) does not match the value given in the Content-Length.",
        "200 hello | written true, finished Ok(())",
    ),
    (
        "http/length-short",
        "Fails if the body's `outgoing-request` or `outgoing-response` was constructed with a Content-Length header, and the contents written to the body (via `write`) does not match the value given in the Content-Length.",
        "200 hello (broken: HTTP protocol error) | written true, finished Err(ErrorCode::HttpResponseBodySize(Some(5)))",
    ),
    (
        "http/length-long",
        "Fails if the body's `outgoing-request` or `outgoing-response` was constructed with a Content-Length header, and the contents written to the body (via `write`) does not match the value given in the Content-Length.",
        "200 hello (broken: HTTP protocol error) | written false, finished Err(ErrorCode::HttpResponseBodySize(Some(5)))",
    ),
    (
        "http/trap-in-body",
        "This must be called to signal that the response is complete.",
        "200 hello (broken: the guest trapped: wasm trap: wasm `unreachable` instruction executed)",
    ),
];

#[tokio::test]
async fn wasi_0_2() {
    hold(&guest("behaviours").await, P2).await;
}

const P3: &[Row] = &[
    (
        "cli/environment",
        "this import function should return the same values each time it is called.",
        "[(\"COLOR\", \"green\"), (\"EMPTY\", \"\")], the same again: true",
    ),
    (
        "cli/arguments",
        "Get the POSIX-style arguments to the program.",
        "[\"behaviours\", \"cli/arguments\"]",
    ),
    (
        "cli/initial-cwd",
        "Return a path that programs should use as their initial current working directory, interpreting `.` as shorthand for this.",
        "None",
    ),
    (
        "cli/run-fails",
        "run: async func() -> result;",
        "before (exit code 1)",
    ),
    (
        "cli/exit-success",
        "Exit the current instance and any linked instances.",
        "before",
    ),
    (
        "cli/exit-failure",
        "Exit the current instance and any linked instances.",
        "before (exit code 1)",
    ),
    (
        "cli/exit-with-code-0",
        "The meaning of the code depends on the context, with 0 usually meaning \"success\", and other values indicating various types of failure.",
        "before",
    ),
    (
        "cli/exit-with-code-7",
        "This function does not return; the effect is analogous to a trap, but without the connotation that something bad has happened.",
        "before (exit code 7)",
    ),
    (
        "cli/exit-with-code-255",
        "The meaning of the code depends on the context, with 0 usually meaning \"success\", and other values indicating various types of failure.",
        "before (exit code 255)",
    ),
    (
        "cli/stdin",
        "If the stream's writable end is dropped the future will either resolve to success if stdin was closed by the writer or to an error-code if reading failed for some other reason.",
        "[], ended with Ok(())",
    ),
    (
        "cli/stdin-left-unread",
        "If the stream's readable end is dropped the future will resolve to success.",
        "ended with Ok(())",
    ),
    (
        "cli/stdout",
        "If the stream's writable end is dropped this function will either return success once the entire contents of the stream have been written or an error-code representing a failure.",
        "no line, [] left, Ok(())",
    ),
    (
        "cli/stdout-after-run",
        "If the stream's writable end is dropped this function will either return success once the entire contents of the stream have been written or an error-code representing a failure.",
        "run ends\nand after it [] left, Ok(())",
    ),
    (
        "cli/stderr",
        "If the stream's writable end is dropped this function will either return success once the entire contents of the stream have been written or an error-code representing a failure.",
        "!on stderr[] left, Ok(())",
    ),
    (
        "cli/terminals",
        "If stdin is connected to a terminal, return a `terminal-input` handle allowing further interaction with it.",
        "false false false",
    ),
    (
        "clocks/monotonic",
        "The clock is monotonic, therefore calling this function repeatedly will produce a sequence of non-decreasing values.",
        "goes back: false, ticks: true",
    ),
    (
        "clocks/system",
        "The nanoseconds field of the output is always less than 1000000000.",
        "after 2020: true, sane: true",
    ),
    (
        "clocks/wait-for",
        "Wait for the specified duration to elapse.",
        "long enough: true",
    ),
    (
        "clocks/wait-until",
        "Wait until the specified mark has occurred.",
        "long enough: true",
    ),
    (
        "clocks/wait-for-nothing",
        "Wait until the specified mark has occurred.",
        "done",
    ),
    (
        "clocks/wait-for-ever",
        "Wait until the specified mark has occurred.",
        "over: (false, false)",
    ),
    (
        "clocks/wait-in-any-order",
        "Wait for the specified duration to elapse.",
        "early, late",
    ),
    (
        "random/lengths",
        "When `max-len` is zero, implementations MUST return an empty list without trapping.",
        "[0, 1, 17, 65536] [0, 1, 17, 65536]",
    ),
    (
        "random/fresh",
        "This function must always return fresh data.",
        "repeats: false false false",
    ),
    (
        "random/seed",
        "Return a 128-bit value that may contain a pseudo-random value.",
        "nothing: false",
    ),
    (
        "random/too-much",
        "Implementations MAY return fewer bytes than requested (a short read).",
        "1048576 1048576",
    ),
    (
        "filesystem/flags",
        "Get flags associated with a descriptor.",
        "ro Ok(DescriptorFlags(READ)), rw Ok(DescriptorFlags(READ | MUTATE_DIRECTORY))",
    ),
    (
        "filesystem/open-missing",
        "No such file or directory, similar to `ENOENT` in POSIX.",
        "ro no-entry, rw no-entry",
    ),
    (
        "filesystem/open-to-read",
        "Open a file or directory.",
        "ro ok, rw ok",
    ),
    (
        "filesystem/open-to-write",
        "If `flags` contains `write` or `mutate-directory`, or `open-flags` contains `truncate` or `create`, and the base descriptor doesn't have `descriptor-flags::mutate-directory` set, `open-at` fails with `error-code::read-only`.",
        "ro read-only, rw ok",
    ),
    (
        "filesystem/open-create",
        "If `flags` contains `write` or `mutate-directory`, or `open-flags` contains `truncate` or `create`, and the base descriptor doesn't have `descriptor-flags::mutate-directory` set, `open-at` fails with `error-code::read-only`.",
        "ro read-only, rw ok",
    ),
    (
        "filesystem/open-create-to-read",
        "If `flags` contains `write` or `mutate-directory`, or `open-flags` contains `truncate` or `create`, and the base descriptor doesn't have `descriptor-flags::mutate-directory` set, `open-at` fails with `error-code::read-only`.",
        "ro read-only, rw ok",
    ),
    (
        "filesystem/open-exclusive",
        "Fail if file already exists, similar to `O_EXCL` in POSIX.",
        "ro read-only, rw exist",
    ),
    (
        "filesystem/open-truncate",
        "If `flags` contains `write` or `mutate-directory`, or `open-flags` contains `truncate` or `create`, and the base descriptor doesn't have `descriptor-flags::mutate-directory` set, `open-at` fails with `error-code::read-only`.",
        "ro read-only 5, rw ok 0",
    ),
    (
        "filesystem/open-file-as-directory",
        "Fail if not a directory, similar to `O_DIRECTORY` in POSIX.",
        "ro not-directory, rw not-directory",
    ),
    (
        "filesystem/within",
        "All paths in WASI are relative paths, and are interpreted relative to a `descriptor` referring to a base directory.",
        "ro ok ok ok ok, rw ok ok ok ok",
    ),
    (
        "filesystem/escapes",
        "If a `path` argument to any WASI function starts with `/`, or if any step of resolving a `path`, including `..` and symbolic link steps, reaches a directory outside of the base directory, or reaches a symlink to an absolute or rooted path in the underlying filesystem, the function fails with `error-code::not-permitted`.",
        "ro not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted, rw not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted",
    ),
    (
        "filesystem/escapes-by-change",
        "If a `path` argument to any WASI function starts with `/`, or if any step of resolving a `path`, including `..` and symbolic link steps, reaches a directory outside of the base directory, or reaches a symlink to an absolute or rooted path in the underlying filesystem, the function fails with `error-code::not-permitted`. (What may only be read says that first.)",
        "ro read-only read-only read-only read-only read-only read-only read-only, rw not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted not-permitted",
    ),
    (
        "filesystem/open-link-itself",
        "As long as the resolved path corresponds to a symbolic link, it is expanded.",
        "ro loop, rw loop",
    ),
    (
        "filesystem/empty-path",
        "No such file or directory, similar to `ENOENT` in POSIX.",
        "ro no-entry, rw no-entry",
    ),
    (
        "filesystem/readlink",
        "If the contents contain an absolute or rooted path in the underlying filesystem, this function fails with `error-code::not-permitted`.",
        "ro file ../secret not-permitted invalid, rw file ../secret not-permitted invalid",
    ),
    (
        "filesystem/symlink",
        "If `old-path` starts with `/`, the function fails with `error-code::not-permitted`. (What may only be read says that first.)",
        "ro read-only read-only, rw ok not-permitted",
    ),
    (
        "filesystem/link",
        "Fails with `error-code::no-entry` if the old path does not exist, with `error-code::exist` if the new path already exists, and `error-code::not-permitted` if the old path is not a file.",
        "ro read-only read-only read-only read-only, rw no-entry exist not-permitted ok",
    ),
    (
        "filesystem/rename",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed.",
        "ro read-only read-only, rw ok no-entry",
    ),
    (
        "filesystem/create-directory",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed.",
        "ro read-only read-only, rw ok exist",
    ),
    (
        "filesystem/remove",
        "Return `error-code::not-empty` if the directory is not empty.",
        "ro read-only read-only read-only read-only read-only, rw is-directory not-empty not-directory no-entry ok",
    ),
    (
        "filesystem/set-times",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed. (wasmtime refuses with `not-permitted`: #12912)",
        "ro not-permitted, rw ok",
    ),
    (
        "filesystem/set-size",
        "If this increases the file's size, the extra bytes are filled with zeros.",
        "ro not-permitted read-only 5, rw invalid ok 8",
    ),
    (
        "filesystem/stat",
        "For symbolic links, the length in bytes of the pathname contained in the symbolic link.",
        "ro RegularFile 5 Directory 9 SymbolicLink 4, rw RegularFile 5 Directory 9 SymbolicLink 4",
    ),
    (
        "filesystem/read-directory",
        "On filesystems where directories contain entries referring to themselves and their parents, often named `.` and `..` respectively, these entries are omitted.",
        "ro file folder in out root Ok(()), rw file folder in out root Ok(())",
    ),
    (
        "filesystem/read-stream",
        "If no error is encountered, `stream.read` on the `stream` will return `read-status::closed` with no `error-context` and the future resolves to the value `ok`.",
        "ro 5 Ok(()), 2 Ok(()), 0 Ok(()), rw 5 Ok(()), 2 Ok(()), 0 Ok(())",
    ),
    (
        "filesystem/read-stream-dropped",
        "If no error is encountered, `stream.read` on the `stream` will return `read-status::closed` with no `error-context` and the future resolves to the value `ok`.",
        "ro Ok(()), rw Ok(())",
    ),
    (
        "filesystem/read-directory-as-file",
        "If an error is encountered, `stream.read` on the `stream` returns `read-status::closed` with an `error-context` and the future resolves to `err` with an `error-code`.",
        "ro 0 Err(ErrorCode::IsDirectory), rw 0 Err(ErrorCode::IsDirectory)",
    ),
    (
        "filesystem/read-file-as-directory",
        "Not a directory or a symbolic link to a directory, similar to `ENOTDIR` in POSIX.",
        "ro 0 Err(ErrorCode::NotDirectory), rw 0 Err(ErrorCode::NotDirectory)",
    ),
    (
        "filesystem/preopens",
        "Return the set of preopened directories, and their paths.",
        "[\"/ro\", \"/rw\"]",
    ),
    (
        "filesystem/open-below-unmutable",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed. (wasmtime does not look at the flag: #12912)",
        "ok",
    ),
    (
        "filesystem/link-across",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed.",
        "into ro read-only, out of ro read-only",
    ),
    (
        "filesystem/rename-across",
        "When this flag is unset on a descriptor, operations using the descriptor which would create, rename, delete, modify the data or metadata of filesystem objects, or obtain another handle which would permit any of those, shall fail with `error-code::read-only` if they would otherwise succeed.",
        "into ro read-only, out of ro read-only",
    ),
    (
        "filesystem/write-past-end",
        "It is valid to write past the end of a file; the file is extended to the extent of the write, with bytes between the previous end and the start of the write set to zero.",
        "[] left, Ok(()) [104, 101, 108, 108, 111, 0, 0, 33]",
    ),
    (
        "filesystem/write-streams",
        "This function returns once either full contents of the stream are written or an error is encountered.",
        "[] left, Ok(()); [] left, Ok(()); hEllo!",
    ),
    (
        "filesystem/write-without-permission",
        "May fail with an error-code describing why the file cannot be written.",
        "[33] left, Err(ErrorCode::BadDescriptor); 5",
    ),
    (
        "filesystem/same-object",
        "Test whether two descriptors refer to the same filesystem object.",
        "true false true",
    ),
    (
        "http/request",
        "Get the HTTP Related Scheme for the Request.",
        "200 Method::Get Some(Scheme::Http) Some(\"localhost\") Some(\"/request?a=b\")",
    ),
    (
        "http/request#host",
        "The HTTP and HTTPS schemes always require an authority.",
        "200 Method::Get Some(Scheme::Http) Some(\"shop.test:81\") Some(\"/request?a=b\")",
    ),
    (
        "http/request#absolute",
        "Get the authority of the Request's target URI.",
        "200 Method::Get Some(Scheme::Https) Some(\"shop.test\") Some(\"/request\")",
    ),
    (
        "http/request#no-path",
        "When `none`, this represents an empty Path and empty Query.",
        "200 Method::Get Some(Scheme::Http) Some(\"shop.test\") Some(\"/\")",
    ),
    (
        "http/request#method",
        "Get the Method for the Request.",
        "200 Method::Other(\"PURGE\") Some(Scheme::Http) Some(\"localhost\") Some(\"/request?a=b\")",
    ),
    (
        "http/request-headers",
        "However, if the name is present but empty, this is represented by a list with one or more empty field-values present.",
        "200 [\"one\", \"two\"] [\"one\", \"two\"] [\"\"] false [] []",
    ),
    (
        "http/request-headers-are-immutable",
        "The returned `headers` resource is immutable: `set`, `append`, and `delete` operations will fail with `header-error.immutable`.",
        "200 Err(HeaderError::Immutable) Err(HeaderError::Immutable) Err(HeaderError::Immutable) Err(HeaderError::Immutable) Ok(())",
    ),
    (
        "http/fields",
        "Field names should always be treated as case insensitive by the `fields` resource for the purposes of equality checking.",
        "200 a=1 a=3 b=2; append Ok(()) a=1 a=3 b=2 b=4; set Ok(()) a=5 b=2 b=4; delete Ok(()) a=5; delete Ok(()) a=5; take Ok([\"5\"]) ; copy a=1 a=3 b=2",
    ),
    (
        "http/fields-refused",
        "This error indicates that a forbidden `field-name` was used when trying to set a header in a `fields`.",
        "200 [true, true, true, true, true, true] Err(HeaderError::Forbidden) Err(HeaderError::InvalidSyntax) Err(HeaderError::InvalidSyntax) Err(HeaderError::InvalidSyntax) Err(HeaderError::InvalidSyntax) false",
    ),
    (
        "http/fields-too-large",
        "Operations that would exceed these limits fail with `header-error.size-exceeded`",
        "200 Err(HeaderError::SizeExceeded)",
    ),
    (
        "http/field-names-keep-their-case",
        "The names and values are always returned in the original casing and in the order in which they will be serialized for transport. (wasmtime: in lower case, #11770)",
        "200 Ok(()) [\"x-name\"]",
    ),
    (
        "http/headers-outlive-their-request",
        "Note that function will move the `request`, but references to headers or request options acquired from it previously will remain valid.",
        "200 [\"one\", \"two\"] ; no trailers",
    ),
    (
        "http/request-body",
        "Once it is closed, `trailers` future must resolve to a result.",
        "200 ; no trailers",
    ),
    (
        "http/request-body#whole",
        "Stream returned by this method represents the contents of the body.",
        "200 hello, world; no trailers",
    ),
    (
        "http/request-body#trailers",
        "Once the stream is reported as closed, callers should await the returned future to determine whether the body was received successfully.",
        "200 hello; [\"x-sum\"] Err(HeaderError::Immutable)",
    ),
    (
        "http/request-body#broken",
        "Once the stream is reported as closed, callers should await the returned future to determine whether the body was received successfully.",
        "200 hello; ErrorCode::HttpProtocolError",
    ),
    (
        "http/request-body#large",
        "HTTP-request-body-size",
        "200 hello; ErrorCode::HttpRequestBodySize(Some(100000))",
    ),
    (
        "http/request-body-dropped#trailers",
        "The future will only resolve after the stream is reported as closed.",
        "200 trailers: false",
    ),
    (
        "http/status",
        "Fails if the status-code given is not a valid http status code.",
        "200 200 [false, false, true, true, true, true, true, false, false, false]",
    ),
    (
        "http/options",
        "The returned `request-options` resource is immutable: `set-*` operations will fail if invoked.",
        "200 None (Ok(()), Ok(()), Ok(())) Some(5) Some(6) Some(7); immutable Some(Err(RequestOptionsError::Immutable)), copy Ok(())",
    ),
    (
        "http/request-setters",
        "Fails is the string given is not a syntactically valid path and query uri component.",
        "200 Method::Get None None None; Err(()) Err(()) Err(()) Err(()) Err(())",
    ),
    (
        "http/send",
        "This function may be used to either send an outgoing request over the network or to forward it to another component.",
        "200 200 Err(HeaderError::Immutable) PUT https://next:81/a?b=c host Some(\"next:81\") []; [\"x-end\"] Err(HeaderError::Immutable); sent Ok(())",
    ),
    (
        "http/send-defaults",
        "When `none`, this represents an empty Path and empty Query.",
        "200 200 Err(HeaderError::Immutable) GET http://next/ host Some(\"next\") []; [\"x-end\"] Err(HeaderError::Immutable); sent Ok(())",
    ),
    (
        "http/send-error",
        "The returned future resolves to result of transmission of this request. (wasmtime says that it was sent: its known failure `http-client-sent`.)",
        "200 ErrorCode::LoopDetected; sent Ok(())",
    ),
    (
        "http/send-no-authority",
        "It is the obligation of the `handler.handle` implementation to reject invalid constructions of `request`.",
        "200 ErrorCode::HttpRequestUriInvalid; sent Ok(())",
    ),
    (
        "http/send-broken-response",
        "Once the stream is reported as closed, callers should await the returned future to determine whether the body was received successfully.",
        "200 200 Err(HeaderError::Immutable) part; ErrorCode::HttpResponseTimeout; sent Ok(())",
    ),
    (
        "http/send-trailers",
        "Once it is closed, `trailers` future must resolve to a result.",
        "200 200 Err(HeaderError::Immutable) POST http://echo/ host Some(\"echo\") [hello + {\"x-sum\": \"5\"}]; [\"x-end\"] Err(HeaderError::Immutable); sent Ok(())",
    ),
    (
        "http/send-failed",
        "If `trailers` resolves to an error, underlying connection will be closed immediately. (wasmtime says that it was sent: its known failure `http-client-sent`.)",
        "200 200 Err(HeaderError::Immutable) POST http://echo/ host Some(\"echo\") [hello (broken: internal error: the guest gave up)]; [\"x-end\"] Err(HeaderError::Immutable); sent Ok(())",
    ),
    (
        "http/send-short",
        "The returned future resolves to result of transmission of this request.",
        "200 200 Err(HeaderError::Immutable) POST http://echo/ host Some(\"echo\") [hello (broken: HTTP request body size exceeds limit: 5 bytes)]; [\"x-end\"] Err(HeaderError::Immutable); sent Err(ErrorCode::HttpRequestBodySize(Some(5)))",
    ),
    (
        "http/error",
        "handle: async func(request: request) -> result<response, error-code>;",
        "the guest answered with the error ErrorCode::ConnectionTimeout",
    ),
    (
        "http/answer-103",
        "Fails if the status-code given is not a valid http status code. (It is one, but no answer.)",
        "the guest answered with the error ErrorCode::HttpProtocolError",
    ),
    (
        "http/answer-duplicates",
        "Names which have multiple values are represented by multiple entries in this list with the same name.",
        "200 [\"one\", \"two\"] ",
    ),
    (
        "http/trailers",
        "Once it is closed, `trailers` future must resolve to a result.",
        "200 hello + {\"x-sum\": \"5\"} | 0 left, told true, sent Ok(())",
    ),
    (
        "http/failed",
        "If `trailers` resolves to an error, underlying connection will be closed immediately.",
        "200 hello (broken: internal error: the guest gave up) | 0 left, told true, sent Ok(())",
    ),
    (
        "http/length-right",
        "The returned future resolves to result of transmission of this response.",
        "200 hello | 0 left, told true, sent Ok(())",
    ),
    (
        "http/length-short",
        "The returned future resolves to result of transmission of this response.",
        "200 hello (broken: HTTP response body size exceeds limit: 5 bytes) | 0 left, told true, sent Err(ErrorCode::HttpResponseBodySize(Some(5)))",
    ),
    (
        "http/length-long",
        "The returned future resolves to result of transmission of this response.",
        "200  (broken: HTTP response body size exceeds limit: 5 bytes) | 5 left, told true, sent Err(ErrorCode::HttpResponseBodySize(Some(5)))",
    ),
    (
        "http/trap-in-body",
        "The returned future resolves to result of transmission of this response.",
        "200 hello (broken: the guest trapped: wasm trap: wasm `unreachable` instruction executed)",
    ),
];

#[tokio::test]
async fn wasi_0_3() {
    hold(&guest("behaviours-p3").await, P3).await;
}
