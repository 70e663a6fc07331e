//! What holds for any rule: it is read or refused, what is printed is read the same again, and what runs ends within its budget.
//!
//! Cases are the same in every run; `WEFT_SEED=17` tries others, and a failure prints the seed and the smallest input.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value as Json, json};
use weft_kinds::cel::ast::{Call, Entry, Expr, HEIGHT_MAX, Item, Kind, Literal, operator};
use weft_kinds::cel::{Decl, Meter, Program, Type, Value, parse, rules};
use weft_kinds::schema::{Node, Schema};

const CASES: u32 = 1500;

fn config() -> ProptestConfig {
    let seed = std::env::var("WEFT_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("WEFT_SEED={seed}");
    ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

fn name() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "self", "oldSelf", "x", "y", "l", "m", "s", "i", "o", "int", "type", "_a1",
    ])
    .prop_map(str::to_owned)
}

/// Functions by name: macros, those of libraries, and nobody's.
fn function() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "size",
        "all",
        "exists",
        "exists_one",
        "map",
        "filter",
        "has",
        "transformMap",
        "transformList",
        "optMap",
        "orValue",
        "matches",
        "contains",
        "split",
        "join",
        "replace",
        "substring",
        "indexOf",
        "sum",
        "max",
        "isSorted",
        "flatten",
        "sort",
        "sortBy",
        "first",
        "includes",
        "distinct",
        "slice",
        "reverse",
        "find",
        "findAll",
        "format",
        "quantity",
        "ip",
        "cidr",
        "url",
        "semver",
        "duration",
        "timestamp",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "bool",
        "type",
        "dyn",
        "getHours",
        "nobody",
    ])
    .prop_map(str::to_owned)
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        Just(Literal::Null),
        any::<bool>().prop_map(Literal::Bool),
        (-3_i64..30).prop_map(Literal::Int),
        any::<i64>().prop_map(Literal::Int),
        any::<u64>().prop_map(Literal::Uint),
        (-1.0e30..1.0e30).prop_map(Literal::Double),
        (-2.0..2.0).prop_map(Literal::Double),
        ".{0,6}".prop_map(Literal::String),
        "[a-z0-9./:-]{0,12}".prop_map(Literal::String),
        proptest::collection::vec(any::<u8>(), 0..5).prop_map(Literal::Bytes),
    ]
}

fn expression() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        literal().prop_map(|literal| Expr::literal(0, literal)),
        name().prop_map(|name| Expr::ident(0, &name)),
    ];
    leaf.prop_recursive(6, 60, 4, |inner| {
        let binary = proptest::sample::select(vec![
            operator::LESS,
            operator::LESS_EQUALS,
            operator::GREATER,
            operator::GREATER_EQUALS,
            operator::EQUALS,
            operator::NOT_EQUALS,
            operator::IN,
            operator::ADD,
            operator::SUBTRACT,
            operator::MULTIPLY,
            operator::DIVIDE,
            operator::MODULO,
            operator::INDEX,
            operator::OPTIONAL_INDEX,
        ]);
        let unary = proptest::sample::select(vec![operator::NOT, operator::NEGATE]);
        let logic = proptest::sample::select(vec![operator::AND, operator::OR]);
        let many = proptest::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            2 => (inner.clone(), name(), any::<bool>())
                .prop_map(|(operand, field, optional)| Expr::select(0, operand, &field, optional)),
            4 => (binary, inner.clone(), inner.clone())
                .prop_map(|(function, a, b)| Expr::call(0, function, vec![a, b])),
            1 => (unary, inner.clone()).prop_map(|(function, a)| Expr::call(0, function, vec![a])),
            2 => (logic, proptest::collection::vec(inner.clone(), 2..4))
                .prop_map(|(function, terms)| Expr::call(0, function, terms)),
            1 => (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| Expr::call(0, operator::CONDITIONAL, vec![a, b, c])),
            2 => (function(), many.clone()).prop_map(|(function, args)| Expr::call(0, &function, args)),
            4 => (inner.clone(), function(), many.clone())
                .prop_map(|(target, function, args)| Expr::member(0, target, &function, args)),
            2 => (inner.clone(), function(), name(), inner.clone()).prop_map(|(target, function, name, body)| {
                Expr::member(0, target, &function, vec![Expr::ident(0, &name), body])
            }),
            1 => proptest::collection::vec((inner.clone(), any::<bool>()), 0..4).prop_map(|items| {
                let items = items.into_iter().map(|(value, optional)| Item { value, optional });
                Expr::new(0, Kind::List(items.collect()))
            }),
            1 => proptest::collection::vec((inner.clone(), inner.clone(), any::<bool>()), 0..3).prop_map(|entries| {
                let entry = |(key, value, optional)| Entry { key, value, optional };
                Expr::new(0, Kind::Map(entries.into_iter().map(entry).collect()))
            }),
        ]
    })
}

/// Signs and words in no order.
fn noise() -> impl Strategy<Value = String> {
    let word = proptest::sample::select(vec![
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ".",
        ",",
        "?",
        ":",
        "!",
        "-",
        "+",
        "*",
        "/",
        "%",
        "&&",
        "||",
        "==",
        "<",
        "in",
        "'",
        "\"",
        "\\",
        "'''",
        "r'",
        "b\"",
        "0x",
        "1",
        "1e",
        "1.5",
        "9223372036854775808",
        "u",
        "self",
        "all",
        "has",
        "true",
        "null",
        "//",
        "\n",
        "é",
        "\u{1F600}",
        " ",
    ]);
    prop_oneof![
        proptest::collection::vec(word, 0..25).prop_map(|words| words.concat()),
        any::<String>(),
    ]
}

fn schema() -> Node {
    Node::parse(&json!({ "type": "object", "properties": {
        "s": { "type": "string" },
        "i": { "type": "integer" },
        "l": { "type": "array", "items": { "type": "string" } },
        "m": { "type": "object", "additionalProperties": { "type": "integer" } },
        "o": { "type": "object", "properties": { "x": { "type": "string", "nullable": true }, "y": { "x-kubernetes-int-or-string": true } } },
    } }))
    .expect("it is a schema")
}

fn object() -> Json {
    let list: Vec<String> = (0..40).map(|number| format!("item-{number}")).collect();
    json!({ "s": "a text", "i": 7, "l": list, "m": { "a": 1, "b": 2 }, "o": { "x": null, "y": "5" } })
}

/// Runs a rule that compiles; whatever it gives, it ends.
fn run(rule: &str, variables: &[(&str, Type)], decl: &std::sync::Arc<Decl>, object: &Json) {
    let Ok(program) = Program::compile(rule, variables, Some(decl)) else {
        return;
    };
    let Ok(value) = Value::of(object, decl) else {
        return;
    };
    let bound = [("self", value.clone()), ("oldSelf", value)];
    for budget in [0, 50, 20_000] {
        let mut meter = Meter::new(budget);
        let result = program.eval(&bound, &mut meter);
        let ended = matches!(&result, Err(error) if error.is_final);
        assert!(ended || meter.cost() <= budget, "{rule} {}", meter.cost());
        if let Ok(value) = result {
            let _ = value.to_string();
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_printed_is_read_the_same(expr in expression()) {
        if expr.height() <= HEIGHT_MAX {
            let printed = expr.to_string();
            let read = parse(&printed);
            prop_assert!(read.is_ok(), "{printed}: {read:?}");
            prop_assert_eq!(read.unwrap(), expr, "{}", printed);
        }
    }

    #[test]
    fn any_text_is_a_rule_or_a_mistake(text in noise()) {
        match parse(&text) {
            Ok(expr) => {
                let printed = expr.to_string();
                prop_assert_eq!(parse(&printed).unwrap(), expr, "{}", printed);
            }
            Err(fault) => {
                let told = fault.describe(&text);
                prop_assert!(told.starts_with("ERROR: <input>:"), "{}", told);
            }
        }
    }

    #[test]
    fn any_rule_ends_within_its_budget(expr in expression()) {
        let (node, object) = (schema(), object());
        let decl = Decl::of(Schema::at(&node), true).unwrap();
        let rule = expr.to_string();
        // By its schema few would pass; without types nearly all do, and fail where they run.
        let typed = decl.cel_type();
        run(&rule, &[("self", typed.clone()), ("oldSelf", typed)], &decl, &object);
        let names = ["self", "oldSelf", "x", "y", "l", "m", "s", "i", "o", "_a1"];
        run(&rule, &names.map(|name| (name, Type::Dyn)), &decl, &object);
    }

    #[test]
    fn any_rule_of_a_schema_is_judged_when_it_is_defined(expr in expression(), message in noise(), path in "[.\\['a-z\\]]{0,8}") {
        let schema = json!({ "type": "object", "properties": {
            "l": { "type": "array", "items": { "type": "string" }, "x-kubernetes-validations": [
                { "rule": expr.to_string(), "messageExpression": message, "fieldPath": path },
            ] },
        } });
        let node = Node::parse(&schema).unwrap();
        for cause in rules::definition_faults(Schema::at(&node), "spec") {
            prop_assert!(cause.field.starts_with("spec"), "{}", cause.field);
        }
    }

    #[test]
    fn calls_are_what_they_look_like(function in function(), args in proptest::collection::vec(literal(), 0..4), member in any::<bool>()) {
        let mut args: Vec<Expr> = args.into_iter().map(|literal| Expr::literal(0, literal)).collect();
        let target = (member && !args.is_empty()).then(|| Box::new(args.remove(0)));
        let call = Expr::new(0, Kind::Call(Call { target, function, args }));
        prop_assert_eq!(parse(&call.to_string()).unwrap(), call.clone());
        if let Ok(program) = Program::compile(&call.to_string(), &[], None) {
            let _ = program.eval(&[], &mut Meter::per_call());
        }
    }
}
