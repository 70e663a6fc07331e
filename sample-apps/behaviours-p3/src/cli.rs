//! `wasi:cli`.

use wasip3::cli::environment::{get_arguments, get_environment, get_initial_cwd};
use wasip3::cli::exit::{exit, exit_with_code};
use wasip3::cli::terminal_stderr::get_terminal_stderr;
use wasip3::cli::terminal_stdin::get_terminal_stdin;
use wasip3::cli::terminal_stdout::get_terminal_stdout;
use wasip3::cli::{stderr, stdin, stdout};
use wasip3::wit_stream;

pub async fn row(row: &str) -> Result<Option<String>, ()> {
    Ok(Some(match row {
        "environment" => format!(
            "{:?}, the same again: {}",
            get_environment(),
            get_environment() == get_environment()
        ),
        "arguments" => format!("{:?}", get_arguments()),
        "initial-cwd" => format!("{:?}", get_initial_cwd()),
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
            let (bytes, end) = stdin::read_via_stream();
            format!("{:?}, ended with {:?}", bytes.collect().await, end.await)
        }
        "stdin-left-unread" => {
            let (bytes, end) = stdin::read_via_stream();
            drop(bytes);
            format!("ended with {:?}", end.await)
        }
        "stdout" => {
            let (mut writer, reader) = wit_stream::new();
            let written = stdout::write_via_stream(reader);
            let mut left = writer.write_all(b"no ".to_vec()).await;
            left.extend(writer.write_all(b"line, ".to_vec()).await);
            drop(writer);
            format!("{left:?} left, {:?}", written.await)
        }
        "stdout-after-run" => {
            let (mut writer, reader) = wit_stream::new();
            let written = stdout::write_via_stream(reader);
            wasip3::spawn_local(async move {
                let left = writer.write_all(b"and after it".to_vec()).await;
                drop(writer);
                println!(" {left:?} left, {:?}", written.await);
            });
            "run ends".to_owned()
        }
        "stderr" => {
            let (mut writer, reader) = wit_stream::new();
            let written = stderr::write_via_stream(reader);
            let left = writer.write_all(b"on stderr".to_vec()).await;
            drop(writer);
            format!("{left:?} left, {:?}", written.await)
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
