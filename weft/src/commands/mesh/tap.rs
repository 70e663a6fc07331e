//! `weft mesh tap`: a line a call, as calls end.

use clap::ValueEnum;
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use http::Request;
use serde_json::Value;

use super::{Form, Scope, shown_micros};
use crate::commands::output::printable;
use crate::kubeconfig::api_failure;
use crate::stdout;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Reporter {
    Source,
    Destination,
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only calls that this workload makes or takes
    #[arg(value_name = "WORKLOAD")]
    workload: Option<String>,
    #[command(flatten)]
    scope: Scope,
    /// Only calls to this Service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only of this method
    #[arg(long)]
    method: Option<String>,
    /// Only of paths that begin so
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only with this status, as 404, 500-503 or 5xx; 0 is a call without an answer
    #[arg(long, value_name = "CODES")]
    code: Option<String>,
    /// Only those that took at least so many milliseconds
    #[arg(long, value_name = "MILLIS")]
    slower_than: Option<u32>,
    /// Only as this end saw them
    #[arg(long, value_enum)]
    reporter: Option<Reporter>,
    /// Of those that fit so many, as 0.01 for one in a hundred
    #[arg(long, value_name = "SHARE")]
    share: Option<f64>,
    /// End after so many lines
    #[arg(long, value_name = "NUMBER")]
    max: Option<usize>,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

impl Args {
    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("watch", "true");
        let reporter = self.reporter.map(|reporter| match reporter {
            Reporter::Source => "source".to_owned(),
            Reporter::Destination => "destination".to_owned(),
        });
        for (name, value) in [
            ("workload", self.workload.clone()),
            ("service", self.service.clone()),
            ("method", self.method.clone()),
            ("path", self.path.clone()),
            ("code", self.code.clone()),
            (
                "slowerThan",
                self.slower_than.map(|millis| millis.to_string()),
            ),
            ("reporter", reporter),
            ("share", self.share.map(|share| share.to_string())),
        ] {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        query.finish()
    }
}

/// # Errors
/// What the server says, and what keeps it from being asked.
pub(super) async fn run(client: &kube::Client, args: &Args) -> anyhow::Result<()> {
    let path = format!("{}?{}", args.scope.path(client, "tap"), args.query());
    let request = Request::get(path).body(Vec::new())?;
    let lines = client.request_stream(request).await;
    let lines = lines.map_err(|error| api_failure("cannot watch calls", &error))?;
    let mut lines = lines.lines();
    let mut shown = 0;
    while let Some(line) = lines.try_next().await? {
        if line.is_empty() {
            continue;
        }
        if args.output == Form::Json {
            stdout::line(&line)?;
        } else {
            let call: Value = serde_json::from_str(&line)?;
            match text(&call) {
                Ok(line) => stdout::line(line)?,
                // Beside the calls, so that a pipe has those alone.
                Err(told) => {
                    eprintln!("{told}");
                    continue;
                }
            }
        }
        shown += 1;
        if args.max.is_some_and(|max| shown >= max) {
            break;
        }
    }
    Ok(())
}

/// A call as a line; or what else was told.
fn text(call: &Value) -> Result<String, String> {
    if let Some(lost) = call["lost"].as_u64() {
        return Err(format!(
            "{lost} calls were not told, as this reads too slowly"
        ));
    }
    if let Some(warning) = call["warning"].as_str() {
        return Err(printable(warning));
    }
    let word = |pointer: &str| {
        let text = call.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default()
    };
    let end = |which: &str| {
        let (workload, namespace) = (
            word(&format!("/{which}/workload")),
            word(&format!("/{which}/namespace")),
        );
        match workload {
            "" => "(nobody)".to_owned(),
            workload => format!("{workload}.{namespace}"),
        }
    };
    let time = word("/time");
    let time = time.split_once('T').map_or(time, |(_, time)| time);
    let mut line = format!(
        "{time} {} -> {} {} {}{} {}",
        end("source"),
        end("destination"),
        word("/method"),
        word("/authority"),
        word("/path"),
        call["code"],
    );
    if let Some(status) = call["grpcStatus"].as_u64() {
        line.push_str(&format!(" grpc={status}"));
    }
    if word("/flags") != "-" {
        line.push_str(&format!(" {}", word("/flags")));
    }
    let took = call["durationMicros"].as_f64().unwrap_or_default();
    line.push_str(&format!(
        " {} {}B/{}B {} {}",
        shown_micros(took),
        call["requestBytes"],
        call["responseBytes"],
        word("/security"),
        word("/reporter"),
    ));
    let retries = call["retries"].as_array().map_or(0, Vec::len);
    if retries > 0 {
        line.push_str(&format!(" retries={retries}"));
    }
    if call["recorded"] == true {
        line.push_str(&format!(" trace={}", word("/traceID")));
    }
    Ok(printable(&line))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_is_a_line() {
        let call = |more: Value| {
            let mut call = json!({
                "time": "2026-01-02T03:04:05.678901Z", "node": "a", "reporter": "source",
                "source": {"namespace": "shop", "workload": "web"},
                "destination": {"namespace": "bank", "workload": "pay"},
                "service": {"namespace": "bank", "name": "pay"},
                "protocol": "http", "security": "in_process",
                "method": "GET", "authority": "pay.bank", "path": "/a",
                "code": 200, "flags": "-", "durationMicros": 1234, "requestBytes": 0, "responseBytes": 17,
            });
            for (field, value) in more.as_object().expect("fields") {
                call[field] = value.clone();
            }
            text(&call)
        };
        let lines = [
            call(json!({})),
            call(
                json!({"code": 503, "flags": "UH", "destination": {"namespace": "", "workload": ""}}),
            ),
            call(json!({"grpcStatus": 14, "path": "/p.Pay/Do\u{1b}[2J"})),
            call(
                json!({"retries": [{"reason": "unreachable"}], "recorded": true, "traceID": "4bf9"}),
            ),
            text(&json!({"lost": 7})),
            text(&json!({"warning": "nothing is told of node b: no answer"})),
        ];
        let lines = lines.map(|line| match line {
            Ok(line) => line,
            Err(told) => format!("! {told}"),
        });
        insta::assert_snapshot!(lines.join("\n"), @r"
        03:04:05.678901Z web.shop -> pay.bank GET pay.bank/a 200 1.23ms 0B/17B in_process source
        03:04:05.678901Z web.shop -> (nobody) GET pay.bank/a 503 UH 1.23ms 0B/17B in_process source
        03:04:05.678901Z web.shop -> pay.bank GET pay.bank/p.Pay/Do�[2J 200 grpc=14 1.23ms 0B/17B in_process source
        03:04:05.678901Z web.shop -> pay.bank GET pay.bank/a 200 1.23ms 0B/17B in_process source retries=1 trace=4bf9
        ! 7 calls were not told, as this reads too slowly
        ! nothing is told of node b: no answer
        ");
    }
}
