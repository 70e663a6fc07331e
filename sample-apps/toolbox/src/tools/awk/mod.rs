//! `awk`: patterns and actions over records.
//!
//! ```text
//! text ──lexer──► tokens ──parser──► program ──interpreter──► output
//! ```
//!
//! The language is POSIX' with what busybox adds (bit functions, time) and `gensub`, `nextfile`, `match` with an array, `RS` as an
//! expression. Strings are bytes. Input and output wait without keeping other tasks from running.

mod builtins;
mod expressions;
mod files;
mod input;
mod interpreter;
mod lexer;
mod parser;
mod streams;
mod syntax_tree;
mod value;
mod variables;

use super::call::{Call, Ended, Stop};
use super::flags::Usage;

use self::interpreter::{FS, Interpreter};
use self::value::Value;

const USAGE: Usage = Usage::new(
    "awk [-F SEP] [-v VAR=VAL]... [-f FILE]... | [AWK_PROGRAM] [FILE]...",
    "+F:v:f:e:W:",
)
.long(&[
    ("field-separator", 'F'),
    ("assign", 'v'),
    ("file", 'f'),
    ("source", 'e'),
]);

pub async fn awk(call: &mut Call) -> Ended {
    let mut flags = USAGE.parse(call)?;
    let mut text: Vec<u8> = Vec::new();
    let mut given = false;
    for (letter, value) in &flags.seen {
        match letter {
            'f' => text.extend(call.whole(value).await?),
            'e' => text.extend_from_slice(value.as_bytes()),
            _ => continue,
        }
        text.push(b'\n');
        given = true;
    }
    if !given {
        if flags.rest.is_empty() {
            return Err(USAGE.wrong());
        }
        text = flags.rest.remove(0).into_bytes();
    }
    let program = lexer::tokens(&text)
        .and_then(parser::parse)
        .map_err(Stop::failed)?;
    let arguments = std::iter::once("awk".to_owned())
        .chain(std::mem::take(&mut flags.rest))
        .collect();
    let mut interpreter = Interpreter::new(call, program, arguments);
    for (letter, value) in &flags.seen {
        match letter {
            'F' => {
                let separator = match value.as_str() {
                    "t" => b"\t".to_vec(),
                    value => lexer::unescape(value.as_bytes()),
                };
                interpreter.set_special(FS, Value::text(separator));
            }
            'v' => match value.split_once('=') {
                Some((name, value)) => interpreter.assign_named(name, value),
                None => return Err(USAGE.wrong()),
            },
            _ => {}
        }
    }
    interpreter.run().await
}
