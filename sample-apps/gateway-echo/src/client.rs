//! A mesh's client: `client URL --method=GET -H name:value --count=N` prints what each call was answered, with a blank line between.
//!
//! It calls by `wasi:http`, so that the mesh sees requests. Outside of a component there is none, and it says so.

use crate::Ended;

/// Calls in one run.
const COUNT_MAX: usize = 10_000;

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    scheme: String,
    authority: String,
    target: String,
    method: String,
    lines: Vec<(String, String)>,
    count: usize,
}

impl Wanted {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let mut wanted = Self {
            method: "GET".to_owned(),
            count: 1,
            ..Self::default()
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if let Some(method) = argument.strip_prefix("--method=") {
                method.clone_into(&mut wanted.method);
            } else if let Some(count) = argument.strip_prefix("--count=") {
                let count = count.parse().ok().filter(|count| *count <= COUNT_MAX);
                wanted.count = count.ok_or_else(|| format!("{argument} is no count"))?;
            } else if argument == "-H" {
                let line = arguments.next().and_then(|line| line.split_once(':'));
                let (name, value) = line.ok_or("-H needs name:value")?;
                wanted
                    .lines
                    .push((name.to_owned(), value.trim().to_owned()));
            } else if let Some((scheme, rest)) = argument.split_once("://") {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                scheme.clone_into(&mut wanted.scheme);
                authority.clone_into(&mut wanted.authority);
                wanted.target = format!("/{path}");
            } else {
                return Err(format!("{argument} is not known"));
            }
        }
        match wanted.authority.is_empty() {
            true => Err("no URL is given".to_owned()),
            false => Ok(wanted),
        }
    }
}

/// Makes the calls.
///
/// # Errors
/// When the arguments cannot be read.
pub fn client(arguments: &[String]) -> Ended {
    let wanted = Wanted::read(arguments)?;
    for number in 0..wanted.count {
        if number > 0 {
            println!();
        }
        match calls::call(&wanted) {
            Ok(told) => print!("{told}"),
            Err(why) => println!("Error={why}"),
        }
    }
    Ok(())
}

#[cfg(not(target_os = "wasi"))]
mod calls {
    pub(super) fn call(_: &super::Wanted) -> Result<String, String> {
        Err("there is no wasi:http here".to_owned())
    }
}

#[cfg(target_os = "wasi")]
mod calls {
    use wasip2::http::outgoing_handler;
    use wasip2::http::types::{
        Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
    };

    use super::Wanted;

    /// The message that a call of gRPC sends: an empty one.
    const EMPTY: [u8; 5] = [0; 5];
    const GRPC_METHOD: &str = "/proto.EchoTestService/Echo";

    pub(super) fn call(wanted: &Wanted) -> Result<String, String> {
        let is_grpc = wanted.scheme == "grpc";
        let lines = Fields::new();
        let add = |name: &str, value: &str| {
            // What may not be set is the host's own.
            let _ = lines.append(name, value.as_bytes());
        };
        for (name, value) in &wanted.lines {
            add(&name.to_ascii_lowercase(), value);
        }
        if is_grpc {
            add("content-type", "application/grpc");
            add("te", "trailers");
        }
        let request = OutgoingRequest::new(lines);
        let method = match (is_grpc, wanted.method.as_str()) {
            (true, _) | (_, "POST") => Method::Post,
            (_, "GET") => Method::Get,
            (_, "HEAD") => Method::Head,
            (_, "PUT") => Method::Put,
            (_, "DELETE") => Method::Delete,
            (_, "OPTIONS") => Method::Options,
            (_, "PATCH") => Method::Patch,
            (_, other) => Method::Other(other.to_owned()),
        };
        let scheme = match wanted.scheme.as_str() {
            "https" => Scheme::Https,
            _ => Scheme::Http,
        };
        let target = if is_grpc { GRPC_METHOD } else { &wanted.target };
        let bad = |()| "the request cannot be made".to_owned();
        request.set_method(&method).map_err(bad)?;
        request.set_scheme(Some(&scheme)).map_err(bad)?;
        request
            .set_authority(Some(&wanted.authority))
            .map_err(bad)?;
        request.set_path_with_query(Some(target)).map_err(bad)?;
        let body = request.body().map_err(bad)?;
        let answer = outgoing_handler::handle(request, None);
        let answer = answer.map_err(|code| format!("{code:?}"))?;
        if is_grpc {
            let stream = body.write().map_err(bad)?;
            let wrote = stream.blocking_write_and_flush(&EMPTY);
            wrote.map_err(|error| error.to_string())?;
        }
        OutgoingBody::finish(body, None).map_err(|code| format!("{code:?}"))?;
        answer.subscribe().block();
        let response = answer
            .get()
            .ok_or("no answer")?
            .map_err(|()| "the answer was taken")?
            .map_err(|code| format!("{code:?}"))?;
        Ok(told(&response, is_grpc))
    }

    fn told(response: &IncomingResponse, is_grpc: bool) -> String {
        let mut told = format!("StatusCode={}\n", response.status());
        for (name, value) in response.headers().entries() {
            let value = String::from_utf8_lossy(&value).into_owned();
            let name = crate::http::spelled(&name);
            told.push_str(&format!("ResponseHeader={name}:{value}\n"));
        }
        let mut body = Vec::new();
        if let Ok(incoming) = response.consume() {
            if let Ok(stream) = incoming.stream() {
                while let Ok(bytes) = stream.blocking_read(64 << 10) {
                    body.extend(bytes);
                }
            }
        }
        // A frame's head and the tag of its text are no text.
        let body = if is_grpc { text_of(&body) } else { &body };
        told.push_str(String::from_utf8_lossy(body).trim_end());
        told.push('\n');
        told
    }

    fn text_of(frame: &[u8]) -> &[u8] {
        let field = frame.get(6..).unwrap_or_default();
        let length = field.iter().take_while(|byte| **byte & 128 != 0).count() + 1;
        field.get(length..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_the_suite() {
        let read = |text: &str| {
            let arguments: Vec<String> = text.split(' ').map(str::to_owned).collect();
            Wanted::read(&arguments)
        };
        let found = read("http://echo:80/a?b=c --method=GET -H X-A:b --count=500");
        let expected = Wanted {
            scheme: "http".to_owned(),
            authority: "echo:80".to_owned(),
            target: "/a?b=c".to_owned(),
            method: "GET".to_owned(),
            lines: vec![("X-A".to_owned(), "b".to_owned())],
            count: 500,
        };
        assert_eq!(found, Ok(expected));
        assert!(read("--method=GET").is_err() && read("http://a --count=x").is_err());
    }
}
