//! Whatever a shell is given, it ends with an error of its own: no panic, no endless loop, no memory without a bound.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use toolbox::applet::{Input, Io, Output, find};
use toolbox::executor::block_on;

const STACK_BYTES: usize = 64 << 20;

/// Runs a script from a file's place (stdin) and gives status, output and errors.
fn run(argv: &[&str], stdin: Vec<u8>) -> (i32, Vec<u8>, String) {
    let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
    let work = move || {
        let (stdout, out) = Output::memory();
        let (stderr, err) = Output::memory();
        let io = Io {
            stdin: Input::bytes(stdin),
            stdout,
            stderr,
            env: Rc::new(BTreeMap::new()),
            cwd: PathBuf::from("/nonexistent"),
        };
        let status = block_on(find("sh").unwrap()(argv, io)).expect("the shell ends");
        (
            status,
            out.take(),
            String::from_utf8_lossy(&err.borrow()).into_owned(),
        )
    };
    std::thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(work)
        .unwrap()
        .join()
        .expect("no panic")
}

#[test]
fn commands_leave_the_rest_of_the_input_to_others() {
    let script = b"read a\nfirst\nread b; echo $a $b\nsecond\necho end\n".to_vec();
    assert_eq!(run(&["sh"], script).1, b"first second\nend\n");
}

#[test]
fn lines_are_counted() {
    assert_eq!(
        run(&["sh", "-c", "echo $LINENO\n\necho $LINENO"], Vec::new()).1,
        b"1\n3\n"
    );
}

#[test]
fn a_line_of_a_mebibyte_is_a_line() {
    let long = "x".repeat(1 << 20);
    let (status, out, _) = run(&["sh"], format!("echo {long}\n").into_bytes());
    assert_eq!((status, out.len()), (0, (1 << 20) + 1));
    let (status, out, _) = run(
        &["sh"],
        format!("x='{long}'; echo ${{#x}} \"${{x%%x*}}\" ${{#x}}\n").into_bytes(),
    );
    assert_eq!((status, out.as_slice()), (0, &b"1048576  1048576\n"[..]));
    let (status, _, errors) = run(&["sh"], format!("{long}\n").into_bytes());
    assert!(status == 127 && errors.ends_with(": not found\n"));
    let (status, _, errors) = run(&["sh"], format!("echo '{long}").into_bytes());
    assert_eq!(
        (status, errors.as_str()),
        (2, "sh: syntax error: unterminated quoted string\n")
    );
    let many = "echo y;".repeat(1 << 17);
    let (status, out, _) = run(&["sh"], many.into_bytes());
    assert_eq!((status, out.len()), (0, 2 << 17));
}

#[test]
fn nesting_has_an_end() {
    let nested = |open: &str, inner: &str, close: &str| {
        let script = open.repeat(100_000) + inner + &close.repeat(100_000);
        let (status, _, errors) = run(&["sh"], script.into_bytes());
        assert!(
            status == 2 && errors.starts_with("sh: "),
            "{open}: {status} {errors:.200}"
        );
    };
    nested("{ ", "echo x", "; }");
    nested("(", "echo x", ")");
    nested("$(", "echo x", ")");
    nested("if true; then ", "echo x", "; fi");
    nested("$((", "1", "))");
    nested("${x:-", "1", "}");
    nested("\"$(", "echo x", ")\"");
    nested("! ", "|", "");
    nested("case x in x) ", "echo x", ";; esac");
    // No arithmetic after all, on every level.
    let (status, _, _) = run(
        &["sh"],
        ("$(( ".repeat(100) + "x" + &") ) ".repeat(100)).into_bytes(),
    );
    assert_ne!(status, 0);
    let (status, _, _) = run(
        &["sh"],
        format!("echo $(({}1{}))", "(".repeat(100_000), ")".repeat(100_000)).into_bytes(),
    );
    assert_ne!(status, 0);
}

#[test]
fn calls_have_an_end() {
    for script in [
        "f() { f; }; f",
        "f() { eval f; }; f",
        "f() { if f; then f; fi; }; f",
        "x='eval \"$x\"'; eval \"$x\"",
        "trap 'kill -USR1 $$; exit 3' USR1; kill -USR1 $$; :",
        "f() { { { { { { { { f; }; }; }; }; }; }; }; }; f",
    ] {
        let (status, _, errors) = run(&["sh", "-c", script], Vec::new());
        assert!(status != 0, "{script}: {status} {errors}");
    }
}

#[test]
fn growth_has_an_end() {
    let (status, _, errors) = run(
        &["sh", "-c", "x=0123456789; while :; do x=$x$x; done"],
        Vec::new(),
    );
    assert!(status == 2 && errors.contains("bytes"), "{errors:.200}");
    let (status, _, errors) = run(
        &["sh", "-c", "x=$(while :; do printf '%65536s' x; done)"],
        Vec::new(),
    );
    assert!(status == 2 && errors.contains("bytes"), "{errors:.200}");
}

#[test]
fn a_broken_pipe_ends_its_writer() {
    let script = "{ while :; do echo y; done; echo no; } | { read x; echo $x; }; echo $?";
    assert_eq!(run(&["sh", "-c", script], Vec::new()).1, b"y\n0\n");
}

#[test]
fn any_bytes_end_somehow() {
    // Shell-like noise, the same every time.
    let pieces: Vec<&[u8]> = [
        "echo", "x", "$", "${", "}", "(", ")", "((", "))", "$(", "`", "'", "\"", "\\", "\n", ";",
        "&", "|", "<", ">", "<<E", "E\n", "if", "then", "fi", "case", "in", "esac", "for", "do",
        "done", "{", "!", "*", "[a", "]", "~", "#", "%", "=", "x=1", "$x", "$@", "1", "2>", ">&",
        "-", ":", "/", "0x", " ", " ", " ", "eval", "set", "--", "read", "trap", "EXIT", "\t",
        "f()", "return", "test", "-a", "printf", "%s", "%d", "%*d", "let",
    ]
    .iter()
    .map(|piece| piece.as_bytes())
    .chain([&b"\xff"[..], b"\x00", b"\xf4\x8f\xbe\x80", b"\xe2\x82"])
    .collect();
    let mut state = 7_u64;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..3000 {
        let mut script = Vec::new();
        for _ in 0..next(30) {
            script.extend_from_slice(pieces[next(pieces.len())]);
            if next(3) == 0 {
                script.push(b' ');
            }
        }
        let text = String::from_utf8_lossy(&script).into_owned();
        run(&["sh"], script);
        run(&["sh", "-c", &text], Vec::new());
    }
}
