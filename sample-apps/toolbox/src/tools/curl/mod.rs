//! `curl`: a request as it is described, and what came back.
//!
//! No progress is shown. What the host decides is accepted and without effect: the version of HTTP, the source address, proxies, and
//! which certificates are trusted (`-v` says so).

mod options;
mod output;

use std::time::{Duration, Instant};

use self::options::parse;
use self::output::{Sink, Told, written};
use super::base64;
use super::call::{Call, Ended, HELD_BYTES_MAX, Stop, reason};
use super::flags::Flags;
use super::http::url::form_encoded;
use super::http::{self, Failure, Request, Response, Url, UrlError};
use super::sleep::{span, within};

const REDIRECTS_MAX: u64 = 50;
const LONG_AGO: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// An error of curl: its number and its words.
struct Problem(i32, String);

pub async fn curl(call: &mut Call) -> Ended {
    let mut flags = parse(&call.args)?;
    let urls: Vec<String> = flags.values('l').map(str::to_owned).collect();
    flags.rest.extend(urls);
    if flags.rest.is_empty() {
        return Err(Stop::Said(
            2,
            "curl: no URL specified!\ncurl: try 'curl --help' for more information\n".into(),
        ));
    }
    let mut code = 0;
    let mut outputs = flags
        .values('o')
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter();
    for text in flags.rest.clone() {
        let target = match (outputs.next(), flags.has('O')) {
            (Some(name), _) => Some(name),
            (None, true) => {
                let name = Url::parse(&text)
                    .ok()
                    .map(|url| url.file_name().to_owned())
                    .filter(|name| !name.is_empty());
                Some(name.ok_or_else(|| {
                    Stop::Said(23, "curl: Remote file name has no length\n".into())
                })?)
            }
            (None, false) => None,
        };
        code = transfer(call, &flags, &text, target).await?;
    }
    Ok(code)
}

async fn transfer(call: &mut Call, flags: &Flags, text: &str, target: Option<String>) -> Ended {
    let seconds = |letter: char| -> Result<Option<Duration>, Stop> {
        match flags.value(letter) {
            None => Ok(None),
            Some(text) => match span(text) {
                Some(span) if span.is_zero() => Ok(None),
                Some(span) => Ok(Some(span)),
                None => Err(Stop::Said(
                    2,
                    format!("curl: expected a proper numerical parameter: {text}\n"),
                )),
            },
        }
    };
    let (limit, connect) = (seconds('m')?, seconds('c')?);
    let retries = flags
        .value('y')
        .and_then(|text| text.parse::<u32>().ok())
        .unwrap_or(0)
        .min(1000);
    let mut told = Told::default();
    let started = Instant::now();
    let mut attempt = 0;
    let ended = loop {
        let work = exchange(call, flags, text, target.as_deref(), connect, &mut told);
        let ended = within(limit.unwrap_or(LONG_AGO), work).await;
        let ended = match ended {
            Some(ended) => ended,
            None => {
                let bytes = told.bytes;
                let spent = started.elapsed().as_millis();
                Err(Trouble::Problem(Problem(
                    28,
                    format!(
                        "Operation timed out after {spent} milliseconds with {bytes} bytes received"
                    ),
                )))
            }
        };
        let again = match &ended {
            Ok(()) => matches!(told.status, 408 | 429 | 500 | 502 | 503 | 504),
            Err(Trouble::Problem(Problem(code, _))) => matches!(code, 6 | 7 | 28 | 52 | 56),
            Err(Trouble::Stop(_)) => false,
        };
        if !again || attempt >= retries {
            break ended;
        }
        let pause = seconds('Y')?.unwrap_or(Duration::from_secs(1 << attempt.min(9)));
        attempt += 1;
        crate::clock::sleep(pause).await;
    };
    told.took = started.elapsed().as_secs_f64();
    let (code, said) = match ended {
        Ok(()) => (0, None),
        Err(Trouble::Problem(Problem(code, text))) => (code, Some(text)),
        Err(Trouble::Stop(stop)) => return Err(stop),
    };
    if let Some(text) = said
        && (!flags.has('s') || flags.has('S'))
    {
        call.say(format!("curl: ({code}) {text}\n")).await;
    }
    if let Some(format) = flags.value('w') {
        let text = written(format, &told, code);
        call.out(text).await?;
    }
    Ok(code)
}

enum Trouble {
    Problem(Problem),
    Stop(Stop),
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Trouble {
        Trouble::Problem(problem)
    }
}

impl From<Stop> for Trouble {
    fn from(stop: Stop) -> Trouble {
        Trouble::Stop(stop)
    }
}

/// The body that options describe, and its type.
async fn body(call: &mut Call, flags: &Flags) -> Result<Option<(Vec<u8>, &'static str)>, Trouble> {
    if let Some(name) = flags.value('T') {
        return Ok(Some((whole(call, name).await?, "")));
    }
    let mut all: Option<Vec<u8>> = None;
    let mut kind = "application/x-www-form-urlencoded";
    for (letter, value) in &flags.seen {
        let mut part = match (letter, value.strip_prefix('@')) {
            ('d' | 'b' | 'J', Some(name)) => whole(call, name).await?,
            ('d' | 'b' | 'J' | 'r', _) => value.as_bytes().to_vec(),
            ('u', _) => match value.split_once(['=', '@']) {
                None => form_encoded(value.as_bytes()).into_bytes(),
                Some((name, text)) => {
                    let from_file = value
                        .get(name.len()..)
                        .is_some_and(|rest| rest.starts_with('@'));
                    let text = if from_file {
                        whole(call, text).await?
                    } else {
                        text.as_bytes().to_vec()
                    };
                    let encoded = form_encoded(&text);
                    if name.is_empty() {
                        encoded.into_bytes()
                    } else {
                        format!("{name}={encoded}").into_bytes()
                    }
                }
            },
            _ => continue,
        };
        if *letter == 'd' && value.starts_with('@') {
            part.retain(|byte| !matches!(byte, b'\r' | b'\n'));
        }
        if *letter == 'J' {
            kind = "application/json";
        }
        match &mut all {
            None => all = Some(part),
            Some(all) => {
                if *letter != 'J' {
                    all.push(b'&');
                }
                all.extend(part);
            }
        }
    }
    Ok(all.map(|all| (all, kind)))
}

async fn whole(call: &mut Call, name: &str) -> Result<Vec<u8>, Trouble> {
    let failed =
        |error: &std::io::Error| Problem(26, format!("Failed to open {name}: {}", reason(error)));
    let mut input = call.open(name).map_err(|error| failed(&error))?;
    Ok(input
        .all(HELD_BYTES_MAX)
        .await
        .map_err(|error| failed(&error))?)
}

fn bad_url(error: UrlError) -> Problem {
    match error {
        UrlError::Scheme(scheme) => Problem(
            1,
            format!("Protocol \"{scheme}\" not supported or disabled in libcurl"),
        ),
        UrlError::Form => Problem(3, "URL using bad/illegal format or missing URL".into()),
    }
}

async fn exchange(
    call: &mut Call,
    flags: &Flags,
    text: &str,
    target: Option<&str>,
    connect: Option<Duration>,
    told: &mut Told,
) -> Result<(), Trouble> {
    let verbose = flags.has('v');
    let mut url = Url::parse(text).map_err(bad_url)?;
    let given = body(call, flags).await?;
    let (mut data, kind) = given.clone().unwrap_or_default();
    let mut method = match flags.value('X') {
        Some(method) => method.to_owned(),
        None if flags.has('I') => "HEAD".into(),
        None if flags.has('T') => "PUT".into(),
        None if given.is_some() && !flags.has('G') => "POST".into(),
        None => "GET".into(),
    };
    if flags.has('G') && !data.is_empty() {
        let mark = if url.path.contains('?') { '&' } else { '?' };
        url.path = format!("{}{mark}{}", url.path, String::from_utf8_lossy(&data));
        data.clear();
    }
    let most = flags
        .value('R')
        .and_then(|text| text.parse::<i64>().ok())
        .unwrap_or(REDIRECTS_MAX as i64);
    let first_host = (url.host.clone(), url.port_number());
    let mut output = Sink::new(call, target);
    if verbose && (flags.has('k') || flags.has('+')) {
        call.say("* certificates, proxies and source addresses are the host's to choose\n")
            .await;
    }
    loop {
        let same_host = first_host == (url.host.clone(), url.port_number());
        let headers = headers(
            flags,
            &url,
            (!data.is_empty())
                .then_some(kind)
                .filter(|kind| !kind.is_empty()),
            same_host,
        );
        if verbose {
            let mut shown = format!(
                "> {method} {} HTTP/1.1\n> Host: {}\n",
                url.path,
                url.authority()
            );
            for (name, value) in &headers {
                shown += &format!("> {name}: {value}\n");
            }
            call.say(format!("{shown}> \n")).await;
        }
        told.sent = data.len() as u64;
        (told.url, told.method) = (url.to_string(), method.clone());
        let request = Request {
            method: method.clone(),
            url: url.clone(),
            headers,
            body: data.clone(),
            connect_timeout: connect,
        };
        let begun = Instant::now();
        let sent = http::send(call, request).await;
        let mut response = sent.map_err(|failure| problem(&failure, &url, begun, connect))?;
        told.status = response.status;
        told.kind = response
            .header("content-type")
            .unwrap_or_default()
            .to_owned();
        let head = response.head();
        told.header_bytes += head.len();
        if verbose {
            let shown: String = head.lines().map(|line| format!("< {line}\n")).collect();
            call.say(shown).await;
        }
        let next = http::redirect(&response, &url);
        if let Some(name) = flags.value('D') {
            let mut file = Sink::new(call, (name != "-").then_some(name));
            file.append = told.redirects > 0;
            file.write(call, head.as_bytes()).await?;
        }
        let failed = response.status >= 400 && (flags.has('f') || flags.has('F'));
        if (flags.has('i') || flags.has('I')) && !(failed && flags.has('f')) {
            output.write(call, head.as_bytes()).await?;
        }
        if let Some(to) = next {
            let to = to.map_err(bad_url)?;
            told.redirect_url = to.to_string();
            if flags.has('L') {
                if most >= 0 && told.redirects as i64 >= most {
                    return Err(Problem(47, format!("Maximum ({most}) redirects followed")).into());
                }
                told.redirects += 1;
                told.redirect_url.clear();
                if (response.status == 303 && method != "HEAD"
                    || matches!(response.status, 301 | 302) && method == "POST")
                    && !flags.has('X')
                {
                    (method, data) = ("GET".into(), Vec::new());
                }
                url = Url {
                    user: url.user.clone().filter(|_| to.host == url.host),
                    ..to
                };
                continue;
            }
        }
        if failed && flags.has('f') {
            return Err(Problem(
                22,
                format!("The requested URL returned error: {}", response.status),
            )
            .into());
        }
        receive(call, &mut response, &mut output, told).await?;
        if failed {
            return Err(Problem(
                22,
                format!("The requested URL returned error: {}", response.status),
            )
            .into());
        }
        return output.finish(call).await;
    }
}

fn headers(flags: &Flags, url: &Url, kind: Option<&str>, same_host: bool) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    let mut put = |name: &str, value: String| headers.push((name.to_owned(), value));
    let user = flags
        .value('U')
        .map(str::to_owned)
        .or(url.user.clone())
        .filter(|_| same_host);
    if let Some(user) = user {
        let user = if user.contains(':') {
            user
        } else {
            format!("{user}:")
        };
        put(
            "Authorization",
            format!(
                "Basic {}",
                String::from_utf8_lossy(&base64::encode(user.as_bytes()))
            ),
        );
    }
    if let Some(token) = flags.value('B').filter(|_| same_host) {
        put("Authorization", format!("Bearer {token}"));
    }
    put(
        "User-Agent",
        flags.value('A').unwrap_or("curl/8.0").to_owned(),
    );
    put(
        "Accept",
        if flags.has('J') {
            "application/json"
        } else {
            "*/*"
        }
        .to_owned(),
    );
    if let Some(referer) = flags.value('e') {
        put("Referer", referer.to_owned());
    }
    if let Some(cookie) = flags.value('K') {
        put("Cookie", cookie.to_owned());
    }
    if let Some(kind) = kind {
        put("Content-Type", kind.to_owned());
    }
    for header in flags.values('H') {
        let (name, value) = match (header.split_once(':'), header.strip_suffix(';')) {
            (Some((name, value)), _) => (name, value.trim()),
            // `Name;` is a header without a value.
            (None, Some(name)) => {
                headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
                headers.push((name.to_owned(), String::new()));
                continue;
            }
            (None, None) => continue,
        };
        headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        let secret = ["authorization", "cookie"].contains(&name.to_ascii_lowercase().as_str());
        // `Name:` takes a header away; secrets stay with the host they were meant for.
        if !value.is_empty() && (same_host || !secret) {
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    headers
}

async fn receive(
    call: &mut Call,
    response: &mut Response,
    output: &mut Sink,
    told: &mut Told,
) -> Result<(), Trouble> {
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(()),
            Ok(Some(chunk)) => {
                told.bytes += chunk.len() as u64;
                output.write(call, &chunk).await?;
            }
            Err(Failure::Timeout) => {
                return Err(Problem(
                    28,
                    format!("Operation timed out with {} bytes received", told.bytes),
                )
                .into());
            }
            Err(Failure::Ended { .. }) => {
                return Err(Problem(
                    18,
                    "transfer closed with outstanding read data remaining".into(),
                )
                .into());
            }
            Err(other) => return Err(Problem(56, format!("Recv failure: {other:?}")).into()),
        }
    }
}

fn problem(failure: &Failure, url: &Url, begun: Instant, connect: Option<Duration>) -> Problem {
    let spent = begun.elapsed().as_millis();
    match failure {
        Failure::Name => Problem(6, format!("Could not resolve host: {}", url.host)),
        Failure::Connect(_) => Problem(
            7,
            format!(
                "Failed to connect to {} port {} after {spent} ms: Couldn't connect to server",
                url.host,
                url.port_number()
            ),
        ),
        Failure::Timeout if connect.is_some() => Problem(
            28,
            format!(
                "Failed to connect to {} port {} after {spent} ms: Timeout was reached",
                url.host,
                url.port_number()
            ),
        ),
        Failure::Timeout => Problem(
            28,
            format!("Connection timed out after {spent} milliseconds"),
        ),
        Failure::Tls(why) => Problem(60, format!("SSL certificate problem: {why}")),
        Failure::Denied(why) => Problem(
            7,
            format!(
                "Failed to connect to {} port {}: {why}",
                url.host,
                url.port_number()
            ),
        ),
        Failure::Ended { empty: true } => Problem(52, "Empty reply from server".into()),
        Failure::Ended { empty: false } => {
            Problem(56, "Recv failure: Connection reset by peer".into())
        }
        Failure::Header(name) => Problem(
            2,
            format!("the header '{name}' is the host's to set; put the name into the URL"),
        ),
        Failure::Other(why) => Problem(1, why.clone()),
    }
}
