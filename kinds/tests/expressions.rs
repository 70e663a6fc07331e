//! Expressions: over a thousand beside what kube-apiserver's own packages make of them (`upstream/README.md`), and hostile ones.

use serde::Deserialize;
use serde_json::{Value as Json, json};

use weft_kinds::cel::{Decl, Meter, Program, Type, Value};
use weft_kinds::schema::{Node, Schema};

/// A table of upstream's answers, one a line.
fn table<T: serde::de::DeserializeOwned>(packed: &[u8]) -> Vec<T> {
    let text = lz4_flex::block::decompress_size_prepended(packed).expect("the table is LZ4");
    let text = String::from_utf8(text).expect("the table is text");
    let read = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:.300}"))
    };
    text.lines().map(read).collect()
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "Schema")]
    schema: Json,
    #[serde(rename = "Object")]
    object: Json,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Row {
    Head(Head),
    Case(Case),
}

#[derive(Deserialize)]
struct Case {
    rule: String,
    error: Option<String>,
    estimate: Option<u64>,
    cost: Option<u64>,
    told: Option<Vec<(String, String, String)>>,
}

/// Of the expressions, those that are known to differ, which `upstream/README.md` names. To be brought down, never up.
const DIFFERENT_MAX: usize = 1;

/// What becomes of a rule over one object.
#[derive(Debug, PartialEq)]
enum Outcome {
    Refused(String),
    Judged {
        estimate: u64,
        cost: u64,
        told: Vec<String>,
    },
}

fn judged(node: &Node, object: &Json, rule: &str) -> Outcome {
    let decl = Decl::of(Schema::at(node), false).unwrap();
    let of = decl.cel_type();
    let variables = [("self", of.clone()), ("oldSelf", of)];
    let program = match Program::compile(rule, &variables, Some(&decl)) {
        Ok(program) if *program.output() != Type::Bool => {
            return Outcome::Refused("cel expression must evaluate to a bool".to_owned());
        }
        Ok(program) => program,
        Err(told) if told.starts_with("program instantiation failed") => {
            return Outcome::Refused(told);
        }
        Err(told) => return Outcome::Refused(format!("compilation failed: {told}")),
    };
    let mut meter = Meter::per_call();
    let value = Value::of(object, &decl).unwrap();
    let told = match program.eval(&[("self", value)], &mut meter) {
        Ok(Value::Bool(true)) => Vec::new(),
        Ok(_) => vec!["false".to_owned()],
        Err(error) => vec![error.message],
    };
    Outcome::Judged {
        estimate: program.cost_max(),
        cost: meter.cost(),
        told,
    }
}

/// Of upstream's errors, what went wrong, without what the rule says of it.
fn upstream(case: &Case) -> Outcome {
    if let Some(error) = &case.error {
        return Outcome::Refused(error.clone());
    }
    let told = case.told.iter().flatten().map(|(_, _, message)| {
        let message = message.strip_prefix("Invalid value: ").unwrap_or(message);
        let message = message.strip_prefix("\"object\": ").unwrap_or(message);
        let rule = case.rule.trim();
        if let Some(error) = message.strip_suffix(&format!(" evaluating rule: {rule}")) {
            return error.to_owned();
        }
        match message
            .strip_prefix('\'')
            .and_then(|message| message.split_once("': "))
        {
            Some((error, _)) => error.to_owned(),
            None if message == format!("failed rule: {rule}") => "false".to_owned(),
            None => message.to_owned(),
        }
    });
    Outcome::Judged {
        estimate: case.estimate.unwrap_or(0),
        cost: case.cost.unwrap_or(0),
        told: told.collect(),
    }
}

/// Errors name the types of objects by a number that is new each time.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("selfType") {
        let end = at + "selfType".len();
        out.push_str(&rest[..end]);
        rest = rest[end..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out.push_str(rest);
    out
}

#[test]
fn expressions_mean_cost_and_fail_as_upstream_has_them() {
    let rows: Vec<Row> = table(include_bytes!("upstream/expressions.lz4"));
    let mut rows = rows.into_iter();
    let Some(Row::Head(head)) = rows.next() else {
        panic!("the first line is the schema and the object");
    };
    let node = Node::parse(&head.schema).unwrap();
    let mut different = Vec::new();
    let mut count = 0;
    for row in rows {
        let Row::Case(case) = row else { continue };
        count += 1;
        let ours = judged(&node, &head.object, &case.rule);
        let theirs = match upstream(&case) {
            Outcome::Refused(told) => Outcome::Refused(without_numbers(&told)),
            judged => judged,
        };
        if ours != theirs {
            different.push(format!(
                "{}\n  ours     {ours:?}\n  upstream {theirs:?}",
                case.rule
            ));
        }
    }
    assert!(count > 1300, "{count}");
    println!("{} of {count} differ", different.len());
    assert!(different.len() <= DIFFERENT_MAX, "{}", different.join("\n"));
}

fn compile(rule: &str) -> Result<Program, String> {
    Program::compile(rule, &[("self", Type::Dyn)], None)
}

/// What a rule gives without an object.
fn run(rule: &str) -> Result<String, String> {
    let program = compile(rule)?;
    let mut meter = Meter::per_call();
    match program.eval(&[], &mut meter) {
        Ok(value) => Ok(value.to_string()),
        Err(error) => Err(error.message),
    }
}

const USED_UP: &str = "operation cancelled: actual cost limit exceeded";

#[test]
fn what_doubles_itself_ends() {
    let doubled = |start: &str, times: usize| {
        let mut rule = start.to_owned();
        for _ in 0..times {
            rule = format!("[{rule}].map(v, v + v)[0]");
        }
        format!("{rule}.size() > 0")
    };
    assert_eq!(run(&doubled("'ab'", 4)).as_deref(), Ok("true"));
    // Texts end by their cost; lists, whose sums cost upstream nothing that grows, by the values that they hold.
    for start in ["'abcdefgh'", "b'abcdefgh'", "[1, 2, 3]"] {
        assert_eq!(run(&doubled(start, 24)), Err(USED_UP.to_owned()), "{start}");
    }
    let replaced = "'aaaaaaaaaa'.replace('a', 'aaaaaaaaaa')";
    let replaced = (0..8).fold(replaced.to_owned(), |rule, _| {
        format!("{rule}.replace('a', 'aaaaaaaaaa')")
    });
    assert_eq!(run(&format!("{replaced} == ''")), Err(USED_UP.to_owned()));
    assert_eq!(
        run("lists.range(1000000).map(x, lists.range(1000000)).size() > 0"),
        Err(USED_UP.to_owned())
    );
    // What macros write twice is bounded before it is written.
    let optional = (0..40).fold("optional.of(1)".to_owned(), |rule, _| {
        format!("{rule}.optMap(v, v)")
    });
    let told = compile(&optional).unwrap_err();
    assert!(
        told.contains("nodes") || told.contains("recursion limit"),
        "{told}"
    );
}

#[test]
fn loops_in_loops_end_by_their_cost() {
    let range = "lists.range(100)";
    let rule = format!(
        "{range}.all(a, {range}.all(b, {range}.all(c, {range}.all(d, a + b + c + d >= 0))))"
    );
    let program = compile(&rule).unwrap();
    let mut meter = Meter::per_call();
    let error = program.eval(&[], &mut meter).unwrap_err();
    assert!(error.is_final);
    // It ends at the call that goes beyond, not later.
    assert!(meter.cost() < 1_001_000, "{}", meter.cost());
    assert!(program.cost_max() > 100_000_000);
    // An error is absorbed by a term that decides; the end of a budget is not.
    assert_eq!(run(&format!("true || {rule}")).as_deref(), Ok("true"));
    assert_eq!(run(&format!("{rule} || true")), Err(USED_UP.to_owned()));
}

#[test]
fn patterns_are_bounded() {
    let text = "a".repeat(2000);
    assert_eq!(
        run(&format!(
            "'{text}'.matches('(a*)*b') || '{text}'.matches('(a|aa)+$')"
        ))
        .as_deref(),
        Ok("true")
    );
    let told = compile("'a'.matches('((a{1000}){1000}){1000}')").unwrap_err();
    assert!(told.contains("invalid matches argument"), "{told}");
    let built = run("'a'.matches('((a{1000}){1000}' + '){1000}')").unwrap_err();
    assert!(built.starts_with("error parsing regexp"), "{built}");
}

#[test]
fn the_highest_expression_runs_on_a_small_stack() {
    let small = std::thread::Builder::new().stack_size(1 << 20);
    let run_all = || {
        let parentheses = 90;
        for rule in [
            format!(
                "{}1{} == 1",
                "(".repeat(parentheses),
                ")".repeat(parentheses)
            ),
            format!("1{} == 91", " + 1".repeat(90)),
            format!("{}1{} == 1", "[".repeat(90), "][0]".repeat(90)),
            format!("{}true{}", "[1].all(x, ".repeat(40), ")".repeat(40)),
            format!("{}true{}", "!(false || !".repeat(20), ")".repeat(20)),
            format!(
                "true ? {}true{}",
                "(true ? ".repeat(40),
                " : false)".repeat(40) + " : false"
            ),
        ] {
            match compile(&rule) {
                Ok(program) => {
                    let found = program.eval(&[], &mut Meter::per_call());
                    assert!(found.is_ok(), "{found:?} {rule:.60}");
                }
                Err(told) => assert!(told.contains("recursion limit"), "{told:.200}"),
            }
        }
        // An object as deep as one may be is compared with itself.
        let mut deep = json!("x");
        let mut schema = json!({ "type": "string" });
        for _ in 0..95 {
            deep = json!({ "a": deep });
            schema = json!({ "type": "object", "properties": { "a": schema } });
        }
        let node = Node::parse(&schema).unwrap();
        let decl = Decl::of(Schema::at(&node), false).unwrap();
        let program = Program::compile("self == self", &[("self", decl.cel_type())], Some(&decl));
        let program = program.unwrap();
        let value = Value::of(&deep, &decl).unwrap();
        let found = program.eval(&[("self", value)], &mut Meter::per_call());
        assert!(matches!(found, Ok(Value::Bool(true))));
    };
    let thread = small.spawn(run_all).unwrap();
    assert!(thread.join().is_ok());
}
