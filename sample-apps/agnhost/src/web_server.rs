//! `test-webserver`: the files of the container, from its root.

use std::fs;
use std::path::{Path, PathBuf};

use hyper::header::{HeaderValue, LOCATION};
use hyper::{Method, StatusCode};

use crate::flags::{Flags, Known};
use crate::server::{Answer, answer, not_found};
use crate::{Code, machine, server};

const FLAGS: [Known; 1] = [("port", None, "80")];
const HEADERS: [(&str, &str); 5] = [
    ("cache-control", "private"),
    ("access-control-allow-origin", "*"),
    ("access-control-allow-credentials", "true"),
    ("access-control-allow-methods", "GET, POST, OPTIONS"),
    (
        "access-control-allow-headers",
        "DNT,X-Mx-ReqToken,Keep-Alive,User-Agent,X-Requested-With,Cache-Control,Content-Type",
    ),
];

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let port = flags.port("port")?.unwrap_or(80);
    machine::unpack();
    let listener = server::listen(port)
        .await
        .map_err(|error| error.to_string())?;
    let handler = server::handler(|request| async move {
        let path = server::unescaped(&request.path, false);
        let mut answer = file(Path::new("/"), &path);
        if request.method == Method::HEAD {
            *answer.body_mut() = Default::default();
        }
        for (name, value) in HEADERS {
            answer
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        answer
    });
    server::serve(listener, None, handler).await;
    Ok(0)
}

/// The file or folder at `path` under `root`, which is never left.
fn file(root: &Path, path: &str) -> Answer {
    let mut at = PathBuf::from(root);
    for part in path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
    {
        if part == ".." {
            return not_found();
        }
        at.push(part);
    }
    let is_folder = match fs::metadata(&at) {
        Ok(found) => found.is_dir(),
        // The image's own file, where there is no root that could have it.
        Err(_) => {
            return match machine::read(path) {
                Ok(bytes) => answer(StatusCode::OK, kind(path, &bytes), bytes),
                Err(_) => not_found(),
            };
        }
    };
    if is_folder {
        if !path.ends_with('/') {
            let name = path.rsplit('/').next().unwrap_or("");
            return moved(&format!("{name}/"));
        }
        return listed(&at);
    }
    match fs::read(&at) {
        Ok(bytes) => answer(StatusCode::OK, kind(path, &bytes), bytes),
        Err(_) => server::refused(StatusCode::FORBIDDEN, "403 Forbidden"),
    }
}

fn moved(to: &str) -> Answer {
    let mut moved = answer(
        StatusCode::MOVED_PERMANENTLY,
        "text/plain; charset=utf-8",
        "",
    );
    if let Ok(to) = HeaderValue::from_str(to) {
        moved.headers_mut().insert(LOCATION, to);
    }
    moved
}

/// Its index, or what is in it.
fn listed(folder: &Path) -> Answer {
    const HTML: &str = "text/html; charset=utf-8";
    if let Ok(index) = fs::read(folder.join("index.html")) {
        return answer(StatusCode::OK, HTML, index);
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let name = entry.file_name().to_string_lossy().into_owned();
            name + if is_folder { "/" } else { "" }
        })
        .collect();
    names.sort();
    let links = names
        .iter()
        .map(|name| format!("<a href=\"{name}\">{name}</a>\n"));
    let page = format!(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{}</pre>\n",
        links.collect::<String>()
    );
    answer(StatusCode::OK, HTML, page)
}

fn kind(path: &str, bytes: &[u8]) -> &'static str {
    match path.rsplit('.').next().unwrap_or("") {
        "html" | "htm" => "text/html; charset=utf-8",
        "json" => "application/json",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "crt" => "application/x-x509-ca-cert",
        _ if bytes
            .iter()
            .take(512)
            .all(|byte| *byte >= 0x20 || b"\t\n\r\x0c\x1b".contains(byte)) =>
        {
            "text/plain; charset=utf-8"
        }
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_served_and_nothing_above_the_root() {
        let root = std::env::temp_dir().join(format!("agnhost-web-{}", std::process::id()));
        fs::create_dir_all(root.join("results")).expect("a folder");
        fs::write(root.join("results/ok"), "OK\n").expect("a file");
        for (path, status) in [
            ("/results/ok", 200),
            ("/results/", 200),
            ("/results", 301),
            ("/results/no", 404),
            ("/../etc/passwd", 404),
            ("/results/../../etc", 404),
        ] {
            assert_eq!(file(&root, path).status().as_u16(), status, "{path}");
        }
        fs::remove_dir_all(root).expect("it is ours");
    }
}
