//! `wasi:cli` and the streams of `wasi:io`.

use wasip2::cli::environment::{get_arguments, get_environment, initial_cwd};
use wasip2::cli::exit::{exit, exit_with_code};
use wasip2::cli::stderr::get_stderr;
use wasip2::cli::stdin::get_stdin;
use wasip2::cli::stdout::get_stdout;
use wasip2::cli::terminal_stderr::get_terminal_stderr;
use wasip2::cli::terminal_stdin::get_terminal_stdin;
use wasip2::cli::terminal_stdout::get_terminal_stdout;

pub fn row(row: &str) -> Result<Option<String>, ()> {
    Ok(Some(match row {
        "environment" => format!(
            "{:?}, the same again: {}",
            get_environment(),
            get_environment() == get_environment()
        ),
        "arguments" => format!("{:?}", get_arguments()),
        "initial-cwd" => format!("{:?}", initial_cwd()),
        "run-fails" => {
            println!("before");
            return Err(());
        }
        "exit-success" => leave(|| exit(Ok(()))),
        "exit-failure" => leave(|| exit(Err(()))),
        "exit-with-code-0" => leave(|| exit_with_code(0)),
        "exit-with-code-7" => leave(|| exit_with_code(7)),
        "exit-with-code-255" => leave(|| exit_with_code(255)),
        "stdin" => {
            let stdin = get_stdin();
            stdin.subscribe().block();
            let reads = [stdin.read(8), stdin.blocking_read(8), stdin.read(0)];
            format!("{reads:?}, skipped {:?}", stdin.blocking_skip(8))
        }
        "stdout" => {
            let stdout = get_stdout();
            let permit = stdout.check_write();
            let written = stdout.write(b"no line, ");
            let flushed = (stdout.flush(), stdout.blocking_flush());
            stdout.subscribe().block();
            let zeroes = stdout.blocking_write_zeroes_and_flush(0);
            format!("{permit:?} {written:?} {flushed:?} {zeroes:?}")
        }
        "stdout-without-permission" => {
            let stdout = get_stdout();
            let permit = stdout.check_write().unwrap_or_default();
            let much = vec![b'x'; permit as usize + 1];
            format!("{:?}", stdout.write(&much))
        }
        "stdout-blocking-write-of-4097" => {
            format!("{:?}", get_stdout().blocking_write_and_flush(&[b'x'; 4097]))
        }
        "stdout-splice" => {
            let spliced = get_stdout().blocking_splice(&get_stdin(), 8);
            format!("{spliced:?}")
        }
        "stderr" => {
            let written = get_stderr().blocking_write_and_flush(b"on stderr");
            format!("{written:?}")
        }
        "terminals" => format!(
            "{} {} {}",
            get_terminal_stdin().is_some(),
            get_terminal_stdout().is_some(),
            get_terminal_stderr().is_some()
        ),
        _ => return Ok(None),
    }))
}

fn leave(exit: impl FnOnce()) -> String {
    println!("before");
    exit();
    "after".to_owned()
}
