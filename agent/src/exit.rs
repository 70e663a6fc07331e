//! How a container ended, in Kubernetes' words. Pure.

use crate::pod_state::{Exit, StopReason};

/// Longest message of a container that ended; as the kubelet's.
const TERMINATION_MESSAGE_BYTES_MAX: usize = 4096;

/// A served container: it never ends by itself.
pub(crate) fn served(reason: StopReason) -> Exit {
    let (code, word, message) = match reason {
        StopReason::PodDeleted | StopReason::NodeDrain | StopReason::MainsDone => {
            (0, "Completed", None)
        }
        StopReason::Liveness => (137, "Error", Some("failed its liveness probe")),
        StopReason::Startup => (137, "Error", Some("failed its startup probe")),
        StopReason::PostStart => (137, "Error", Some("its postStart hook failed")),
        StopReason::DeadlineExceeded => (143, "Error", None),
        StopReason::Resize => (137, "Error", Some("it was given other amounts")),
    };
    Exit {
        code,
        reason: word.into(),
        message: message.map(Into::into),
    }
}

/// A container whose process ended.
pub(crate) fn lost(reason: &str) -> Exit {
    cut_off(format!("the worker process of its namespace {reason}"))
}

/// A container that ended with its node.
pub(crate) fn cut_off(message: String) -> Exit {
    Exit {
        code: 137,
        reason: "Error".into(),
        message: Some(message),
    }
}

/// A command, that ended by itself or was told to.
pub(crate) fn command(exit: &weft_runtime::Exit, why: Option<StopReason>) -> Exit {
    use weft_runtime::Exit as Ran;
    if let Ran::Lost { reason } = exit {
        return lost(reason);
    }
    let (reason, message) = match exit {
        Ran::Success => ("Completed", None),
        Ran::Failed(_) => ("Error", None),
        Ran::Trap { message, backtrace } => ("Trapped", Some(trapped(message, backtrace))),
        Ran::OutOfMemory { limit_bytes } => (
            "OOMKilled",
            Some(format!(
                "it needed more than its limit of {limit_bytes} bytes"
            )),
        ),
        Ran::Deadline => ("DeadlineExceeded", None),
        Ran::Stopped | Ran::Lost { .. } => ("Error", None),
        Ran::NotRunnable => (
            "Error",
            Some("the component does not export wasi:cli/run".to_owned()),
        ),
    };
    let code = match (exit, why) {
        // A sidecar that is told to go has done its work.
        (Ran::Stopped, Some(StopReason::MainsDone)) => 0,
        (
            Ran::Stopped,
            Some(
                StopReason::Liveness
                | StopReason::Startup
                | StopReason::PostStart
                | StopReason::Resize,
            ),
        ) => 137,
        _ => exit.code(),
    };
    Exit {
        code,
        reason: if code == 0 { "Completed" } else { reason }.into(),
        message,
    }
}

/// Why, and where: the guest's stack below the reason, cut at a line where it is longer than a status may be.
fn trapped(message: &str, backtrace: &str) -> String {
    let mut text = message.to_owned();
    for frame in backtrace.lines() {
        if text.len() + 1 + frame.len() > TERMINATION_MESSAGE_BYTES_MAX {
            break;
        }
        text.push('\n');
        text.push_str(frame);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_is_told_with_as_much_of_its_stack_as_a_status_holds() {
        let frames = "    0: abort\n    1: main\n";
        assert_eq!(
            trapped("unreachable", frames),
            "unreachable\n    0: abort\n    1: main"
        );
        let deep = "    9: recurse\n".repeat(1000);
        let told = trapped("call stack exhausted", &deep);
        assert!(told.len() <= TERMINATION_MESSAGE_BYTES_MAX);
        assert!(told.ends_with("\n    9: recurse"), "whole lines only");
    }

    #[test]
    fn commands_end_in_kubernetes_words() {
        use weft_runtime::Exit as Ran;
        let trap = Ran::Trap {
            message: "unreachable".into(),
            backtrace: String::new(),
        };
        for (exit, why, expected) in [
            (Ran::Success, None, "0 Completed"),
            (Ran::Failed(3), None, "3 Error"),
            (trap, None, "134 Trapped"),
            (Ran::OutOfMemory { limit_bytes: 1 }, None, "137 OOMKilled"),
            (Ran::Stopped, Some(StopReason::PodDeleted), "143 Error"),
            (Ran::Stopped, Some(StopReason::MainsDone), "0 Completed"),
            (Ran::Stopped, Some(StopReason::Liveness), "137 Error"),
        ] {
            let ended = command(&exit, why);
            assert_eq!(
                format!("{} {}", ended.code, ended.reason),
                expected,
                "{exit:?}"
            );
        }
    }
}
