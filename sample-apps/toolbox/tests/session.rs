//! What a person at a terminal sees: prompts, the line editor, ^C and ^D, with keys and screen in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use toolbox::applet::{self, Io, Output, find};
use toolbox::clock::sleep;
use toolbox::executor::{block_on, spawn};

/// A step of a session: keys, and text that must show before the next step.
type Step<'a> = (&'a str, &'a str);

/// Types the steps into an applet and gives its status and all that showed.
fn session(argv: &[&str], steps: &[Step]) -> (i32, String) {
    let (mut keys, input) = applet::pipe();
    let (screen, shown) = Output::memory();
    let (stdin, stdout) = applet::terminal(input, screen);
    let env = [("HOME", "/root"), ("PS1", "$ "), ("PATH", "/bin")];
    let io = Io {
        stdin,
        stderr: stdout.clone(),
        stdout,
        env: Rc::new(BTreeMap::from(
            env.map(|(name, value)| (name.to_owned(), value.to_owned())),
        )),
        cwd: PathBuf::from(env!("CARGO_MANIFEST_DIR")),
    };
    let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
    let applet = find(&argv[0]).unwrap();
    let status = block_on(async {
        let running = spawn(applet(argv, io));
        for (typed, shows) in steps {
            let from = shown.borrow().len();
            keys.write_all(typed.as_bytes()).await.unwrap();
            wait_for(&shown, from, shows).await;
        }
        drop(keys);
        running.await
    });
    let shown = String::from_utf8_lossy(&shown.borrow()).into_owned();
    (status.expect("the session ends"), shown)
}

/// Waits until the screen got that text; half a minute is for ever.
async fn wait_for(shown: &RefCell<Vec<u8>>, from: usize, text: &str) {
    for _ in 0..300 {
        if String::from_utf8_lossy(&shown.borrow()[from..]).contains(text) {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    let all = String::from_utf8_lossy(&shown.borrow()).into_owned();
    panic!("{text:?} does not show in {all:?}");
}

#[test]
fn commands_run_with_prompts_around() {
    let (status, shown) = session(
        &["sh"],
        &[
            ("", "$ "),
            ("echo one\r", "\r\none\r\n"),
            ("for i in 1 2\r", "> "),
            ("do echo n$i\r", "> "),
            ("done\r", "n1\r\nn2\r\n"),
            ("cd /; pwd\r", "\r\n/\r\n"),
            ("nope\r", "sh: nope: not found"),
            ("echo $?\r", "127"),
            ("exit 3\r", "\r\n"),
        ],
    );
    assert_eq!(status, 3, "{shown:?}");
    // Every line begins at the left.
    assert!(!shown.replace("\r\n", "").contains('\n'), "{shown:?}");
}

#[test]
fn the_end_of_the_input_ends_the_shell_with_the_last_status() {
    let (status, _) = session(&["sh"], &[("false\r", "$ "), ("\x04", "\r\n")]);
    assert_eq!(status, 1);
    let (status, _) = session(&["sh"], &[("(exit 4)\r", "$ ")]);
    assert_eq!(status, 4);
}

#[test]
fn interrupts_end_what_runs_and_not_the_shell() {
    let (status, shown) = session(
        &["sh"],
        &[
            ("", "$ "),
            ("while :; do :; done\r", "\r\n"),
            ("\x03", "$ "),
            ("echo $?\r", "130"),
            ("f() { x=2; read y; }; x=1; f\r", "\r\n"),
            ("\x03", "$ "),
            ("half a line\x03", "^C\r\n"),
            ("read a\r", "\r\n"),
            ("typed\x7f\x7fXd\r", "\r\n"),
            ("echo \"<$a>\"\r", "<typXd>"),
            ("n=0; trap 'n=$((n+1)); echo got $n' INT\r", "$ "),
            ("while [ $n -lt 2 ]; do :; done; echo after\r", "\r\n"),
            ("\x03", "got 1"),
            ("\x03", "got 2\r\nafter"),
        ],
    );
    assert_eq!(status, 0, "{shown:?}");
}

#[test]
fn an_interrupt_ends_a_script() {
    let (status, _) = session(
        &["sh", "-c", "echo here; while :; do :; done; echo no"],
        &[("", "here"), ("\x03", "^C")],
    );
    assert_eq!(status, 130);
    let script = "trap 'echo caught; exit 7' INT; echo here; while :; do :; done";
    let (status, _) = session(&["sh", "-c", script], &[("", "here"), ("\x03", "caught")]);
    assert_eq!(status, 7);
}

#[test]
fn lines_are_edited_and_come_back() {
    let (status, shown) = session(
        &["sh"],
        &[
            ("", "$ "),
            ("ecko\x7f\x7fho edited\x01\x05!\r", "\r\nedited!\r\n"),
            ("echo two\r", "\r\ntwo\r\n"),
            ("\x1b[A\x1b[A\r", "\r\nedited!\r\n"),
            ("cat_never\x15echo clear\r", "\r\nclear\r\n"),
            ("pw\t\r", "toolbox\r\n"),
            ("echo Carg\t\r", "\r\nCargo.toml\r\n"),
            ("echo src/to\t\r", "\r\nsrc/tools/\r\n"),
            ("echo src/s\t\t", "stream.rs"),
            ("\x03", "$ "),
            ("cat <<E\r", "> "),
        ],
    );
    assert_eq!(status, 0, "{shown:?}");
}

#[test]
fn what_is_typed_ahead_reaches_who_reads() {
    let (status, shown) = session(
        &["sh"],
        &[
            ("", "$ "),
            ("read a\rfirst\recho \"<$a>\"\r", "<first>\r\n"),
            ("cat\rone\r\x04echo $?\r", "one\r\n"),
            ("exit 5\r", "\r\n"),
        ],
    );
    assert_eq!(status, 5, "{shown:?}");
}

#[test]
fn an_applet_has_a_terminal_too() {
    let (status, shown) = session(&["cat"], &[("ab\x7fc\r", "c\r\nac\r\n"), ("\x04", "")]);
    assert_eq!(status, 0, "{shown:?}");
}

#[test]
fn jobs_are_told() {
    let (_, shown) = session(
        &["sh"],
        &[
            ("", "$ "),
            ("while :; do :; done & \r", "[1] "),
            ("jobs\r", "Running"),
            ("kill %1; wait %1; echo $?\r", "143"),
            ("(exit 3) & wait; echo waited\r", "\r\nwaited"),
            ("exit\r", "\r\n"),
        ],
    );
    assert!(shown.contains("while :; do :; done"), "{shown:?}");
}
