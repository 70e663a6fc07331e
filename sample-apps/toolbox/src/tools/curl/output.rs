//! Where a body goes, and what is told of a transfer.

use std::fs::{File, OpenOptions};
use std::io::Write;

use crate::tools::call::{Call, Stop, reason};

use super::{Problem, Trouble};

/// What is told of a transfer by `-w`.
#[derive(Default)]
pub struct Told {
    pub status: u16,
    pub bytes: u64,
    pub sent: u64,
    pub redirects: u64,
    pub url: String,
    pub redirect_url: String,
    pub kind: String,
    pub method: String,
    pub took: f64,
    pub header_bytes: usize,
}

pub fn written(format: &str, told: &Told, code: i32) -> String {
    let mut out = String::new();
    let mut rest = format;
    while let Some(c) = rest.chars().next() {
        if let Some((name, after)) = rest
            .strip_prefix("%{")
            .and_then(|inner| inner.split_once('}'))
        {
            out += &match name {
                "http_code" | "response_code" => format!("{:03}", told.status),
                "size_download" => told.bytes.to_string(),
                "size_upload" => told.sent.to_string(),
                "size_header" => told.header_bytes.to_string(),
                "speed_download" => format!("{:.0}", told.bytes as f64 / told.took.max(1e-6)),
                "time_total" | "time_starttransfer" => format!("{:.6}", told.took),
                "time_namelookup" | "time_connect" | "time_appconnect" | "time_pretransfer"
                | "time_redirect" => "0.000000".into(),
                "url_effective" | "url" => told.url.clone(),
                "redirect_url" => told.redirect_url.clone(),
                "num_redirects" => told.redirects.to_string(),
                "content_type" => told.kind.clone(),
                "method" => told.method.clone(),
                "scheme" => told
                    .url
                    .split("://")
                    .next()
                    .unwrap_or_default()
                    .to_ascii_uppercase(),
                "http_version" => if told.status > 0 { "1.1" } else { "0" }.into(),
                "exitcode" => code.to_string(),
                "remote_ip" | "remote_port" | "local_ip" | "local_port" | "errormsg"
                | "ssl_verify_result" => String::new(),
                other => format!("%{{{other}}}"),
            };
            rest = after;
            continue;
        }
        let next = rest.chars().nth(1);
        let (text, used) = match (c, next) {
            ('%', Some('%')) => ('%', 2),
            ('\\', Some('n')) => ('\n', 2),
            ('\\', Some('r')) => ('\r', 2),
            ('\\', Some('t')) => ('\t', 2),
            (c, _) => (c, 1),
        };
        out.push(text);
        rest = rest
            .get(if used == 2 { 2 } else { c.len_utf8() }..)
            .unwrap_or_default();
    }
    out
}

/// Where the body goes: a file that is made when there is something for it, or standard output.
pub struct Sink {
    target: Option<(String, std::path::PathBuf)>,
    file: Option<File>,
    pub append: bool,
}

impl Sink {
    pub fn new(call: &Call, target: Option<&str>) -> Sink {
        let target = target
            .filter(|name| *name != "-")
            .map(|name| (name.to_owned(), call.path(name)));
        Sink {
            target,
            file: None,
            append: false,
        }
    }

    fn open(&mut self) -> Result<(), Trouble> {
        if let (Some((name, path)), None) = (&self.target, &self.file) {
            let opened = OpenOptions::new()
                .create(true)
                .write(true)
                .append(self.append)
                .truncate(!self.append)
                .open(path);
            let file = opened.map_err(|error| {
                Problem(
                    23,
                    format!("Failed to open the file {name}: {}", reason(&error)),
                )
            })?;
            self.file = Some(file);
        }
        Ok(())
    }

    pub async fn write(&mut self, call: &mut Call, bytes: &[u8]) -> Result<(), Trouble> {
        self.open()?;
        match &mut self.file {
            None => Ok(call.out(bytes).await?),
            Some(file) => file.write_all(bytes).map_err(|error| {
                Problem(
                    23,
                    format!("Failure writing output to destination: {}", reason(&error)),
                )
                .into()
            }),
        }
    }

    /// An empty body leaves an empty file.
    pub async fn finish(&mut self, call: &mut Call) -> Result<(), Trouble> {
        self.open()?;
        call.io
            .stdout
            .flush()
            .await
            .map_err(|error| Trouble::Stop(Stop::Output(error)))
    }
}
