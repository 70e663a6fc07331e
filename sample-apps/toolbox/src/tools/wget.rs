//! `wget`: a file of a URL.

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use super::base64;
use super::call::{Call, Ended, Stop, cannot_open, reason};
use super::flags::{Flags, Usage};
use super::http::{self, Failure, Request, Response, Url, UrlError};
use super::sleep::{span, within};

const POST: char = '\u{1}';
const POST_FILE: char = '\u{2}';
const HEADER: char = '\u{3}';
const SPIDER: char = '\u{4}';
const METHOD: char = '\u{5}';
/// Options of TLS and of progress, which are the host's and nobody's.
const IGNORED: char = '\u{6}';
const IGNORED_VALUE: char = '\u{7}';
const REDIRECTS_MAX: usize = 10;
/// Busybox waits that long for any piece.
const TIMEOUT: Duration = Duration::from_secs(900);

const USAGE: Usage = Usage::new(
    "wget [-qS] [-O FILE] [-P DIR] [-T SEC] [-U STR] [--spider] [--header STR] [--post-data STR | --post-file FILE] URL...",
    "qSO:P:T:U:t:Y:n:v\u{1}:\u{2}:\u{3}:\u{4}\u{5}:\u{6}\u{7}:",
)
.long(&[
    ("output-document", 'O'),
    ("directory-prefix", 'P'),
    ("quiet", 'q'),
    ("server-response", 'S'),
    ("timeout", 'T'),
    ("user-agent", 'U'),
    ("tries", 't'),
    ("post-data", POST),
    ("post-file", POST_FILE),
    ("header", HEADER),
    ("spider", SPIDER),
    ("method", METHOD),
    ("body-data", POST),
    ("no-check-certificate", IGNORED),
    ("no-verbose", IGNORED),
    ("no-proxy", IGNORED),
    ("proxy", IGNORED_VALUE),
    ("ca-certificate", IGNORED_VALUE),
    ("connect-timeout", IGNORED_VALUE),
]);

pub async fn wget(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    if flags.rest.is_empty() {
        return Err(USAGE.wrong());
    }
    for text in flags.rest.clone() {
        one(call, &flags, &text).await?;
    }
    Ok(call.code)
}

fn bad_url(text: &str, error: UrlError) -> Stop {
    match error {
        UrlError::Scheme(_) => Stop::failed(format!("not an http or ftp url: {text}")),
        UrlError::Form => Stop::failed(format!("bad address '{text}'")),
    }
}

async fn one(call: &mut Call, flags: &Flags, text: &str) -> Result<(), Stop> {
    let quiet = flags.has('q');
    let limit = match flags.value('T') {
        None => TIMEOUT,
        Some(text) => span(text).ok_or_else(|| Stop::failed(format!("invalid number '{text}'")))?,
    };
    let mut url = Url::parse(text).map_err(|error| bad_url(text, error))?;
    let body = match (flags.value(POST), flags.value(POST_FILE)) {
        (Some(data), _) => Some(data.as_bytes().to_vec()),
        (None, Some(name)) => Some(call.whole(name).await?),
        (None, None) => None,
    };
    let mut method = match (flags.value(METHOD), &body, flags.has(SPIDER)) {
        (Some(method), ..) => method.to_ascii_uppercase(),
        (None, Some(_), _) => "POST".into(),
        (None, None, true) => "HEAD".into(),
        (None, None, false) => "GET".into(),
    };
    let mut body = body.unwrap_or_default();
    let mut redirects = 0;
    let mut response = loop {
        let mut headers = vec![(
            "User-Agent".to_owned(),
            flags.value('U').unwrap_or("Wget").to_owned(),
        )];
        for header in flags.values(HEADER) {
            if let Some((name, value)) = header.split_once(':') {
                headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name.trim()));
                headers.push((name.trim().to_owned(), value.trim().to_owned()));
            }
        }
        if let Some(user) = &url.user {
            let credentials = base64::encode(user.as_bytes());
            headers.push((
                "Authorization".into(),
                format!("Basic {}", String::from_utf8_lossy(&credentials)),
            ));
        }
        if method == "POST"
            && !headers
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case("content-type"))
        {
            headers.push((
                "Content-Type".into(),
                "application/x-www-form-urlencoded".into(),
            ));
        }
        if !quiet {
            call.say(format!(
                "Connecting to {}:{}\n",
                url.host,
                url.port_number()
            ))
            .await;
        }
        let request = Request {
            method: method.clone(),
            url: url.clone(),
            headers,
            body: body.clone(),
            connect_timeout: Some(limit),
        };
        let sent = within(limit, http::send(call, request))
            .await
            .unwrap_or(Err(Failure::Timeout));
        let response = sent.map_err(|failure| Stop::failed(words(&failure, &url)))?;
        if flags.has('S') {
            let head = response.head();
            let shown: String = head
                .lines()
                .filter(|line| !line.is_empty())
                .map(|line| format!("  {line}\n"))
                .collect();
            call.say(shown).await;
        }
        match http::redirect(&response, &url) {
            None => break response,
            Some(_) if redirects >= REDIRECTS_MAX => {
                return Err(Stop::failed("too many redirections"));
            }
            Some(to) => {
                let next = to.map_err(|error| bad_url(text, error))?;
                url = Url {
                    user: url.user.clone().filter(|_| next.host == url.host),
                    ..next
                };
                redirects += 1;
                if matches!(response.status, 301..=303) && method == "POST" {
                    (method, body) = ("GET".into(), Vec::new());
                }
            }
        }
    };
    if !(200..300).contains(&response.status) {
        let text = format!(
            "server returned error: HTTP/1.1 {} {}",
            response.status,
            http::status_text(response.status)
        );
        return Err(Stop::failed(text.trim_end()));
    }
    if flags.has(SPIDER) {
        if !quiet {
            call.say("remote file exists\n").await;
        }
        return Ok(());
    }
    let name = match flags.value('O') {
        Some(name) => name.to_owned(),
        None => {
            let name = url.file_name();
            let name = if name.is_empty() { "index.html" } else { name };
            match flags.value('P') {
                Some(directory) => format!("{}/{name}", directory.trim_end_matches('/')),
                None => name.to_owned(),
            }
        }
    };
    save(call, &mut response, &name, quiet, limit, flags.has('O'))
        .await
        .inspect_err(|stop| {
            if matches!(stop, Stop::Failed(..)) && name != "-" && !flags.has('O') {
                // Half a file that nobody named helps nobody.
                let _ = fs::remove_file(call.path(&name));
            }
        })
}

async fn save(
    call: &mut Call,
    response: &mut Response,
    name: &str,
    quiet: bool,
    limit: Duration,
    named: bool,
) -> Result<(), Stop> {
    let mut file = match name {
        "-" => None,
        name => {
            let file = if named {
                File::create(call.path(name))
            } else {
                File::create_new(call.path(name))
            };
            Some(file.map_err(|error| Stop::failed(cannot_open(name, &error)))?)
        }
    };
    if !quiet {
        let text = if name == "-" {
            "writing to stdout\n".to_owned()
        } else {
            format!("saving to '{name}'\n")
        };
        call.say(text).await;
    }
    loop {
        let chunk = within(limit, response.chunk())
            .await
            .unwrap_or(Err(Failure::Timeout));
        let chunk = chunk.map_err(|failure| match failure {
            Failure::Timeout => Stop::failed("download timed out"),
            _ => Stop::failed("connection closed prematurely"),
        })?;
        let Some(chunk) = chunk else { break };
        match &mut file {
            None => call.out(chunk).await?,
            Some(file) => file
                .write_all(&chunk)
                .map_err(|error| Stop::failed(format!("{name}: {}", reason(&error))))?,
        }
    }
    if !quiet {
        let text = if name == "-" {
            "written to stdout\n".to_owned()
        } else {
            format!("'{name}' saved\n")
        };
        call.say(text).await;
    }
    Ok(())
}

fn words(failure: &Failure, url: &Url) -> String {
    match failure {
        Failure::Name => format!("bad address '{}'", url.authority()),
        Failure::Connect(why) => format!("can't connect to remote host ({}): {why}", url.host),
        Failure::Timeout => "download timed out".into(),
        Failure::Tls(why) => format!("TLS error from peer ({why})"),
        Failure::Denied(why) | Failure::Other(why) => format!("error getting response: {why}"),
        Failure::Ended { .. } => "error getting response".into(),
        Failure::Header(name) => format!("the header '{name}' is the host's to set"),
    }
}
