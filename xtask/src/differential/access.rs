//! Asks a real kube-apiserver who may do what, and writes down what it answers.
//!
//! The roles and bindings are those of a fresh cluster and of `objects.json`; a question is a review of what somebody may do, a request in somebody's
//! name, of which is kept whether it was let through, or with a body all that became of it, or a review of all that he may. Roles that gather others are filled in here: there is nothing else of a cluster than the server.
//!
//! What several bindings allow has a reason by chance: each question is asked several times, and a reason that differs is not kept.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::kube_apiserver::{KubeApiserver, Setup};

/// Where the objects and questions are, and what was answered.
const FOLDER: &str = "apiserver/tests/access";
const SETUP: Setup<'_> = Setup {
    token: "secret",
    // What it keeps is thrown away.
    etcd_flags: &["--unsafe-no-fsync"],
    flags: &["--authorization-mode=Node,RBAC"],
};
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";
/// How often each question is asked.
const TIMES: usize = 4;
/// Requests that curl is given at once.
const BATCH: usize = 500;
/// It knows of a change some moments after it is stored.
const SETTLES_WITHIN: Duration = Duration::from_secs(3);

struct Request {
    method: String,
    path: String,
    headers: Vec<String>,
    body: Value,
}

impl Request {
    fn new(method: &str, path: impl Into<String>, body: Value) -> Self {
        Self {
            method: method.to_owned(),
            path: path.into(),
            headers: Vec::new(),
            body,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// When the reference does not start or answer.
pub fn run(binaries: &Path) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("weft-access-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let reference = KubeApiserver::start(binaries, &dir, &SETUP)?;
    let recorded = record(&|requests| ask_all(&reference, &dir, requests));
    drop(reference);
    fs::remove_dir_all(&dir)?;
    recorded
}

/// Sends requests, and gives the code and body of each answer.
type Ask<'a> = &'a dyn Fn(&[Request]) -> Result<Vec<(u16, Value)>>;

fn record(ask: Ask<'_>) -> Result<()> {
    let read = |name: &str| -> Result<Vec<Value>> {
        let file = Path::new(FOLDER).join(name);
        let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(serde_json::from_slice(&text)?)
    };
    let made: Vec<Request> = read("objects.json")?
        .into_iter()
        .map(|object| Request::new("POST", path_of(&object), object))
        .collect();
    for (request, (code, answer)) in made.iter().zip(ask(&made)?) {
        ensure!(code == 201, "{}: {answer}", request.path);
    }
    while gather(ask)? {}
    std::thread::sleep(SETTLES_WITHIN);
    let questions = read("questions.json")?;
    let mut answers: Vec<Value> = Vec::new();
    for batch in questions.chunks(BATCH) {
        let requests: Vec<Request> = batch.iter().map(request_of).collect();
        let mut told: Vec<Value> = Vec::new();
        for _ in 0..TIMES {
            let found = batch.iter().zip(ask(&requests)?);
            let found: Vec<Value> = found
                .map(|(question, (code, answer))| told_of(question, code, &answer))
                .collect::<Result<_>>()?;
            if told.is_empty() {
                told = found;
                continue;
            }
            for (known, again) in told.iter_mut().zip(found) {
                if *known != again {
                    known["reason"] = Value::Null;
                }
            }
        }
        answers.extend(told);
    }
    let lines: Vec<String> = answers.iter().map(Value::to_string).collect();
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    fs::write(Path::new(FOLDER).join("answers.json"), text)?;
    println!("{} answers", answers.len());
    Ok(())
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn path_of(object: &Value) -> String {
    let resource = match text(object, "kind") {
        "Namespace" => return "/api/v1/namespaces".to_owned(),
        kind => format!("{}s", kind.to_ascii_lowercase()),
    };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{RBAC}/namespaces/{namespace}/{resource}"),
        None => format!("{RBAC}/{resource}"),
    }
}

fn request_of(question: &Value) -> Request {
    let groups = match &question["groups"] {
        Value::Null => json!(["system:authenticated"]),
        groups => groups.clone(),
    };
    let mut headers = vec![format!("Impersonate-User: {}", text(question, "user"))];
    for group in groups.as_array().into_iter().flatten() {
        let group = group.as_str().unwrap_or_default();
        headers.push(format!("Impersonate-Group: {group}"));
    }
    if let Some(line) = question["request"].as_str() {
        let (method, path) = line.split_once(' ').unwrap_or((line, "/"));
        let body = match (method, question.get("body")) {
            (_, Some(body)) => body.clone(),
            ("POST" | "PUT" | "PATCH", None) => json!({}),
            _ => Value::Null,
        };
        return Request {
            headers,
            ..Request::new(method, path, body)
        };
    }
    if question.get("rulesIn").is_some() {
        let body = json!({"spec": {"namespace": question["rulesIn"]}});
        let path = format!("{REVIEWS}/selfsubjectrulesreviews");
        return Request {
            headers,
            ..Request::new("POST", path, body)
        };
    }
    let mut spec = json!({"user": question["user"], "groups": groups});
    let (what, fields) = match question.get("path") {
        Some(_) => ("nonResourceAttributes", &["verb", "path"][..]),
        None => (
            "resourceAttributes",
            &[
                "verb",
                "group",
                "resource",
                "subresource",
                "namespace",
                "name",
            ][..],
        ),
    };
    for field in fields {
        if let Some(value) = question.get(*field) {
            spec[what][*field] = value.clone();
        }
    }
    let path = format!("{REVIEWS}/subjectaccessreviews");
    Request::new("POST", path, json!({"spec": spec}))
}

/// What is kept of an answer.
fn told_of(question: &Value, code: u16, answer: &Value) -> Result<Value> {
    if question.get("body").is_some() {
        return Ok(match code {
            200 | 201 => json!({"code": code}),
            _ => json!({"code": code, "message": answer["message"]}),
        });
    }
    if question.get("request").is_some() {
        return Ok(match code {
            403 => json!({"code": 403, "message": answer["message"]}),
            _ => json!({"allowed": true}),
        });
    }
    ensure!(code == 201, "{question}: {code} {answer}");
    let mut status = answer["status"].clone();
    for rules in ["resourceRules", "nonResourceRules"] {
        // In the order of chance.
        if let Some(rules) = status.get_mut(rules).and_then(Value::as_array_mut) {
            rules.sort_by_key(Value::to_string);
        }
    }
    Ok(status)
}

/// Gives roles that gather others the rules of those, as the controller does that is not there; whether one changed.
fn gather(ask: Ask<'_>) -> Result<bool> {
    let path = format!("{RBAC}/clusterroles");
    let listed = ask(&[Request::new("GET", path.as_str(), Value::Null)])?;
    let (_, listed) = listed.into_iter().next().context("no answer")?;
    let roles = listed["items"].as_array().cloned().unwrap_or_default();
    let mut changed = false;
    for role in &roles {
        let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array();
        let Some(selectors) = selectors else {
            continue;
        };
        let own = text(&role["metadata"], "name");
        let mut rules: Vec<Value> = Vec::new();
        for other in &roles {
            let fits = selectors.iter().any(|selector| selects(selector, other));
            if text(&other["metadata"], "name") == own || !fits {
                continue;
            }
            for rule in other["rules"].as_array().into_iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
        if json!(rules) != role["rules"] && !(rules.is_empty() && role["rules"].is_null()) {
            let patch = json!({"rules": rules});
            let told = ask(&[Request::new("PATCH", format!("{path}/{own}"), patch)])?;
            ensure!(told.iter().all(|(code, _)| *code == 200), "{own}: {told:?}");
            changed = true;
        }
    }
    Ok(changed)
}

fn selects(selector: &Value, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let plain = selector["matchLabels"].as_object().into_iter().flatten();
    let mut further = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    plain.into_iter().all(|(key, value)| labels[key] == *value)
        && further.all(|one| {
            let value = &labels[text(one, "key")];
            let values = one["values"].as_array();
            values.is_some_and(|values| values.contains(value))
        })
}

/// What curl is told for all of these, and what it was answered: code and body.
fn ask_all(
    reference: &KubeApiserver,
    dir: &Path,
    requests: &[Request],
) -> Result<Vec<(u16, Value)>> {
    let file = |what: &str, index: usize| dir.join(format!("{what}-{index}"));
    let mut config = String::new();
    for (index, request) in requests.iter().enumerate() {
        if index > 0 {
            config.push_str("next\n");
        }
        writeln!(config, "url = \"{}\"", reference.url(&request.path))?;
        match request.method.as_str() {
            "HEAD" => config.push_str("head\n"),
            method => writeln!(config, "request = \"{method}\"")?,
        }
        if !request.body.is_null() {
            let body = file("body", index);
            fs::write(&body, request.body.to_string())?;
            writeln!(config, "data-binary = \"@{}\"", body.display())?;
        }
        let media_type = match request.method.as_str() {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        writeln!(config, "header = \"Content-Type: {media_type}\"")?;
        writeln!(config, "header = \"{}\"", reference.authorization())?;
        for header in &request.headers {
            writeln!(config, "header = \"{header}\"")?;
        }
        writeln!(config, "output = \"{}\"", file("answer", index).display())?;
        config.push_str("write-out = \"%{http_code}\\n\"\ninsecure\nsilent\n");
        // What was answered last time must not be read as what is answered now.
        let _ = fs::remove_file(file("answer", index));
    }
    let path = dir.join("curl.config");
    fs::write(&path, config)?;
    let told = Command::new("curl").arg("--config").arg(&path).output()?;
    let codes = String::from_utf8_lossy(&told.stdout).into_owned();
    let codes: Vec<u16> = codes
        .lines()
        .map(|code| code.parse().unwrap_or(0))
        .collect();
    ensure!(
        codes.len() == requests.len(),
        "curl was not answered: {codes:?}"
    );
    let answers = codes.into_iter().enumerate().map(|(index, code)| {
        let body = fs::read(file("answer", index)).unwrap_or_default();
        (code, serde_json::from_slice(&body).unwrap_or_default())
    });
    Ok(answers.collect())
}
