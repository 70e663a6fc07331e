//! The toolbox: a shell and the tools that go with it, in one command component.
//!
//! The name that it is called by picks the applet. Nothing is ever forked: a pipeline's parts, background jobs and
//! subshells are tasks of one thread, joined by bounded pipes. The same crate builds natively, where its tests run.

#![forbid(unsafe_code)]

pub mod applet;
pub mod clock;
mod console;
pub mod executor;
pub mod exit;
mod pipe;
pub mod sh;
mod stream;
mod terminal;
mod text;
pub mod tools;

/// Runs the applet that an argument list names and gives its exit code.
///
/// The name is the last part of `argv[0]`, or `argv[1]` where the program is called `toolbox` or by a name that is no
/// applet; by another name alone, as a container is, it is the shell. Blocks until the applet is done.
pub fn run(argv: Vec<String>) -> i32 {
    let (applet, argv) = match applet::choose(argv) {
        Ok(chosen) => chosen,
        Err((message, code)) => {
            console::complain(&message);
            return code;
        }
    };
    let io = applet::Io::of_process();
    executor::block_on(async move {
        let code = terminal::interruptible(applet(argv, io)).await;
        sh::end_orphans();
        stream::flush_all().await;
        code
    })
    .unwrap_or(1)
}
