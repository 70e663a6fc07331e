//! The shell answers as dash and busybox' ash do, held to a table of their answers.
//!
//! The scripts are `cases/*.sh`, the answers `cases/*.json`, which `cases/record.py` writes. Output and status must be
//! the same byte for byte. Of errors the words must be: without line numbers, which the two shells count differently.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::rc::Rc;

use serde_json::Value;
use toolbox::applet::{Input, Io, Output, find};
use toolbox::executor::block_on;

/// So many cases there must be at least.
const CASES_MIN: usize = 300;

/// As much as the component has.
const STACK_BYTES: usize = 64 << 20;

struct Answer {
    status: i32,
    stdout: String,
    stderr: String,
}

fn run(name: &str, script: &str) -> Answer {
    let folder = std::env::temp_dir().join(format!("toolbox-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let script = script.to_owned();
    let cwd = folder.clone();
    let work = move || {
        let (stdout, out) = Output::memory();
        let (stderr, err) = Output::memory();
        let env = [("PATH", "/usr/bin:/bin"), ("HOME", "/root")];
        let io = Io {
            stdin: Input::empty(),
            stdout,
            stderr,
            env: Rc::new(
                env.map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            ),
            cwd,
        };
        let argv = vec!["sh".to_owned(), "-c".to_owned(), script];
        let status = block_on(find("sh").unwrap()(argv, io)).expect("the shell ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Answer {
            status,
            stdout: text(&out.borrow()),
            stderr: text(&err.borrow()),
        }
    };
    let thread = std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(work)
        .unwrap();
    let answer = thread.join();
    fs::remove_dir_all(&folder).unwrap();
    answer.unwrap_or_else(|_| Answer {
        status: -1,
        stdout: String::new(),
        stderr: "panicked".to_owned(),
    })
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

/// Errors without what may differ: `line 3: ` and the number that stands for the shell's own process.
fn shape(stderr: &str) -> String {
    let mut shape = String::new();
    for line in stderr.lines() {
        let mut words = Vec::new();
        for word in line.split(": ") {
            let is_line = word
                .strip_prefix("line ")
                .is_some_and(|number| number.chars().all(|digit| digit.is_ascii_digit()));
            if !is_line {
                words.push(word);
            }
        }
        shape.push_str(&words.join(": "));
        shape.push('\n');
    }
    shape
}

#[test]
fn scripts_do_what_they_do_elsewhere() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let wanted = std::env::var("CASE").unwrap_or_default();
    let mut count = 0;
    let mut wrong = Vec::new();
    let mut topics: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    topics.sort();
    for topic in topics
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "sh"))
    {
        let answers = fs::read_to_string(topic.with_extension("json")).unwrap();
        let answers: BTreeMap<String, Value> = serde_json::from_str(&answers).unwrap();
        let title = topic.file_stem().unwrap().to_string_lossy().into_owned();
        for (place, (name, script)) in cases(&fs::read_to_string(topic).unwrap())
            .iter()
            .enumerate()
        {
            let answer = answers
                .get(name)
                .unwrap_or_else(|| panic!("{title}: {name}: no answer is recorded: run record.py"));
            if !format!("{title}: {name}").contains(&wanted) {
                continue;
            }
            count += 1;
            let found = run(&format!("{title}-{place}"), script);
            let mut differences = Vec::new();
            if i64::from(found.status) != answer["status"] {
                differences.push(format!(
                    "status {} instead of {}",
                    found.status, answer["status"]
                ));
            }
            if found.stdout != answer["stdout"] {
                differences.push(format!(
                    "stdout {:?} instead of {:?}",
                    found.stdout, answer["stdout"]
                ));
            }
            let stderr = answer["stderr"].as_str();
            if let Some(stderr) = stderr.filter(|stderr| shape(&found.stderr) != shape(stderr)) {
                differences.push(format!("stderr {:?} instead of {stderr:?}", found.stderr));
            }
            if !differences.is_empty() {
                wrong.push(format!("{title}: {name}: {}", differences.join("; ")));
            }
        }
    }
    assert!(
        count >= CASES_MIN || !wanted.is_empty(),
        "only {count} cases"
    );
    assert!(
        wrong.is_empty(),
        "{} of {count} cases:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
