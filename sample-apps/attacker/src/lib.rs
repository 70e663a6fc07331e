//! A component that wishes its host ill. The path is the attack's number in the list that `runtime/tests/attacks.rs` and
//! `tests/e2e/attacks.rs` go through; the answer, where there is one, says how far it came.

mod network;

use wasip2::cli::stdout::get_stdout;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    RequestOptions, ResponseOutparam,
};
use wasip2::random::random::get_random_bytes;

struct Attacker;

impl incoming_handler::Guest for Attacker {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (attack, argument) = target.split_once('?').unwrap_or((&target, ""));
        let said = match attack.trim_start_matches('/') {
            "1" => loop {
                std::hint::spin_loop();
            },
            "18" => trap_if_new(argument),
            "19" => format!("{} fields", many(10_000, || Some(Fields::new()))),
            "21" => format!("{} bytes", vec![1_u8; 1 << 30].len()),
            "22" => invalid_text(),
            "23" => many_fields(),
            "24" => format!("{:?}", Fields::new().append("large", &[b'x'; 1_000_000])),
            "25" => return lengths(out),
            "26" => forbidden(),
            "27" => line_breaks(),
            "28" => return endless(out),
            "29" => return unfinished(out),
            "30" if argument == "never" => return,
            "30" => return twice(out),
            "31" => timeouts(),
            "32" => many_requests(),
            "34" => format!("{} bytes", get_random_bytes(1 << 40).len()),
            "35" => nested_lists(),
            "36" => flood(),
            "37" => {
                print!("\u{1b}[2J\u{1b}]0;owned\u{7}\r\u{8}all is well\n");
                "printed".to_owned()
            }
            "38" => format!(
                "{} pollables",
                many(1_000_000, || Some(subscribe_duration(1 << 40)))
            ),
            "39" => {
                subscribe_duration(u64::MAX).block();
                "awake".to_owned()
            }
            "40" => {
                let variables: Vec<_> = std::env::vars().collect();
                format!("{variables:?} {:?}", std::env::var("SECRET"))
            }
            "bodies" => format!("{} requests", many(1_000, || unsent(argument))),
            "fields" => format!("{} fields", many(1_000, large_fields)),
            "clones" => {
                let first = large_fields();
                format!("{} clones", many(900, || changed_clone(first.as_ref()?)))
            }
            "methods" => format!("{} methods", many(1_000, long_method)),
            "sockets" => network::sockets(argument),
            "request" => network::request(argument),
            _ => "no such attack".to_owned(),
        };
        answer(out, &said);
    }
}

wasip2::http::proxy::export!(Attacker);

fn answer(out: ResponseOutparam, text: &str) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("a new response has its body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("a new body has its stream");
    for chunk in text.as_bytes().chunks(4_096) {
        // A caller that went away is of no use any more.
        if stream.blocking_write_and_flush(chunk).is_err() {
            break;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

/// Holds on to as many as it gets.
fn many<T>(wanted: usize, mut make: impl FnMut() -> Option<T>) -> usize {
    let mut held = Vec::new();
    while held.len() < wanted {
        match make() {
            Some(one) => held.push(one),
            None => break,
        }
    }
    held.len()
}

/// Traps in an instance that is new, and tells on being called in one that was here before.
fn trap_if_new(argument: &str) -> String {
    static CALLS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let before = CALLS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    if argument == "trap" {
        std::process::abort();
    }
    format!("{before} calls before")
}

fn invalid_text() -> String {
    // Safety: none; what is not text is what the attack sends.
    let name = unsafe { String::from_utf8_unchecked(vec![b'a', 0xff, 0xfe, 0xed, 0xa0, 0x80]) };
    format!("{:?}", Fields::new().append(&name, b"x"))
}

fn many_fields() -> String {
    let fields = Fields::new();
    let accepted = (0..100_000).take_while(|n| fields.append(&format!("x-{n}"), b"1").is_ok());
    format!("{} fields", accepted.count())
}

fn lengths(out: ResponseOutparam) {
    let headers = Fields::new();
    let appended: Vec<_> = [&b"5"[..], b"6", b"5"]
        .iter()
        .map(|length| headers.append("content-length", length).is_ok())
        .collect();
    let response = OutgoingResponse::new(headers);
    let body = response.body();
    ResponseOutparam::set(out, Ok(response));
    println!("{appended:?} body {}", body.is_ok());
    if let Ok(body) = body {
        let stream = body.write().expect("a new body has its stream");
        let _ = stream.blocking_write_and_flush(b"hello!");
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}

const FORBIDDEN: [&str; 6] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

fn forbidden() -> String {
    let fields = Fields::new();
    let accepted: Vec<_> = FORBIDDEN
        .iter()
        .filter(|name| fields.append(name, b"evil").is_ok())
        .collect();
    format!("accepted {accepted:?}")
}

fn line_breaks() -> String {
    let fields = Fields::new();
    let request = OutgoingRequest::new(Fields::new());
    let refused = [
        fields.append("x", b"a\r\nhost: evil").is_err(),
        fields.append("x\r\nhost", b"evil").is_err(),
        fields.append("x", b"a\0b").is_err(),
        request
            .set_path_with_query(Some("/\r\nhost: evil"))
            .is_err(),
        request.set_path_with_query(Some("/a b HTTP/1.0")).is_err(),
        request.set_authority(Some("a\r\nhost: evil")).is_err(),
    ];
    format!("refused {refused:?}")
}

fn endless(out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("a new response has its body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("a new body has its stream");
    while stream.blocking_write_and_flush(&[b'x'; 4_096]).is_ok() {}
}

fn unfinished(out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().expect("a new response has its body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("a new body has its stream");
    let _ = stream.blocking_write_and_flush(b"a beginning");
    subscribe_duration(u64::MAX).block();
}

fn twice(out: ResponseOutparam) {
    let handle = out.handle();
    ResponseOutparam::set(out, Ok(OutgoingResponse::new(Fields::new())));
    // Safety: none; the handle is used up, which is the attack.
    let again = unsafe { ResponseOutparam::from_handle(handle) };
    ResponseOutparam::set(again, Ok(OutgoingResponse::new(Fields::new())));
}

fn to_next() -> OutgoingRequest {
    let request = OutgoingRequest::new(Fields::new());
    request
        .set_authority(Some("next"))
        .expect("a valid authority");
    request
        .set_path_with_query(Some("/"))
        .expect("a valid path");
    request
}

/// A request with a body of as many bytes as it takes, at most `wanted`, that is never sent.
fn unsent(wanted: &str) -> Option<OutgoingRequest> {
    let mut left = wanted.parse().unwrap_or(usize::MAX);
    let request = to_next();
    let body = request.body().ok()?;
    let stream = body.write().ok()?;
    while left > 0
        && let Ok(most @ 1..) = stream.check_write()
    {
        let chunk = left.min(usize::try_from(most).ok()?);
        stream.write(&vec![b'x'; chunk]).ok()?;
        left -= chunk;
    }
    drop(stream);
    // Without a handle of its own any more, but as full as it was.
    OutgoingBody::finish(body, None).ok()?;
    Some(request)
}

fn large_fields() -> Option<Fields> {
    let fields = Fields::new();
    fields.append("x", &[b'x'; 60_000]).ok()?;
    Some(fields)
}

/// A copy costs nothing until one of the two is changed.
fn changed_clone(fields: &Fields) -> Option<Fields> {
    let clone = fields.clone();
    clone.append("y", b"1").ok()?;
    Some(clone)
}

fn long_method() -> Option<OutgoingRequest> {
    let request = to_next();
    request
        .set_method(&Method::Other("X".repeat(1 << 20)))
        .ok()?;
    Some(request)
}

fn timeouts() -> String {
    let ask = |nanoseconds| {
        let options = RequestOptions::new();
        let set = options.set_connect_timeout(Some(nanoseconds)).is_ok()
            && options.set_first_byte_timeout(Some(nanoseconds)).is_ok()
            && options.set_between_bytes_timeout(Some(nanoseconds)).is_ok();
        let Ok(response) = outgoing_handler::handle(to_next(), Some(options)) else {
            return "not sent".to_owned();
        };
        response.subscribe().block();
        match response.get() {
            Some(Ok(Ok(response))) => format!("{set} {}", response.status()),
            Some(Ok(Err(code))) => format!("{set} {code:?}"),
            _ => format!("{set} nothing"),
        }
    };
    format!("zero: {}, huge: {}", ask(0), ask(u64::MAX))
}

/// Ten thousand, of which those that were refused make room for the next.
fn many_requests() -> String {
    let (mut held, mut refused, mut reason) = (Vec::new(), 0, String::new());
    for _ in 0..10_000 {
        match outgoing_handler::handle(to_next(), None) {
            Ok(response) => held.push(response),
            Err(code) => reason = format!("{code:?}"),
        }
        if held.len() == 512 {
            // The last is one too many, and is told so.
            held[511].subscribe().block();
            held.retain(|response| match response.get() {
                Some(Ok(Err(code))) => {
                    refused += 1;
                    reason = format!("{code:?}");
                    false
                }
                _ => true,
            });
        }
    }
    format!("{} open, {refused} refused: {reason}", held.len())
}

/// 128 MB in one call, a megabyte at a time.
fn nested_lists() -> String {
    let entries: Vec<(String, Vec<u8>)> = (0..128)
        .map(|n| (format!("x-{n}"), vec![b'x'; 1 << 20]))
        .collect();
    match Fields::from_list(&entries) {
        Ok(_) => "taken".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

/// 64 MB of log, as fast as it goes.
fn flood() -> String {
    let stdout = get_stdout();
    let line = [&[b'x'; 4_095][..], b"\n"].concat();
    let written = (0..16_384).filter(|_| stdout.blocking_write_and_flush(&line).is_ok());
    format!("{} MiB", written.count() / 256)
}
