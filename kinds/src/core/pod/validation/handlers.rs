//! Probes, and what happens around a container's life.

use serde_json::Value;

use crate::field::Field;
use crate::validate::{Problems, http_header_name_faults};

const ONE_HANDLER: &str = "may not specify more than 1 handler type";

/// Signals that a container may be stopped with, of Linux.
const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];
const SIGNALS_OF_WINDOWS: &[&str] = &["SIGKILL", "SIGTERM"];

/// Lifecycle and probes of a container that stays, with the pod's grace period and operating system.
pub(super) fn all(container: &Field<'_, '_>, spec: &Field<'_, '_>, problems: &mut Problems) {
    let grace = spec.child("terminationGracePeriodSeconds").integer();
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        let hook = container.child(hook);
        if hook.is_set() {
            handler(
                &hook,
                &["exec", "httpGet", "tcpSocket", "sleep"],
                grace,
                problems,
            );
        }
    }
    let signal = container.child("lifecycle.stopSignal");
    if signal.is_set() {
        match spec.child("os.name").text() {
            "linux" => problems.one_of(&signal, SIGNALS),
            "windows" => problems.one_of(&signal, SIGNALS_OF_WINDOWS),
            _ => {
                let sentence = "may not be set for containers with empty `spec.os.name`";
                problems.forbidden(&signal, sentence);
            }
        }
    }
    for (name, in_readiness) in [
        ("livenessProbe", false),
        ("readinessProbe", true),
        ("startupProbe", false),
    ] {
        let probe = container.child(name);
        if probe.is_set() {
            self::probe(&probe, in_readiness, grace, problems);
        }
    }
}

fn probe(probe: &Field<'_, '_>, in_readiness: bool, grace: Option<i64>, problems: &mut Problems) {
    handler(
        probe,
        &["exec", "httpGet", "tcpSocket", "grpc"],
        grace,
        problems,
    );
    for number in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        problems.not_negative(&probe.child(number));
    }
    let own_grace = probe.child("terminationGracePeriodSeconds");
    if let Some(seconds) = own_grace.integer().filter(|seconds| *seconds <= 0) {
        problems.invalid(&own_grace, seconds, "must be greater than 0");
    }
    let successes = probe.child("successThreshold");
    if in_readiness {
        if own_grace.is_set() {
            let sentence = "must not be set for readinessProbes";
            problems.invalid(&own_grace, own_grace.shown(), sentence);
        }
    } else if successes.integer() != Some(1) {
        problems.invalid(&successes, successes.integer().unwrap_or(0), "must be 1");
    }
}

/// Exactly one of these handlers.
fn handler(of: &Field<'_, '_>, allowed: &[&str], grace: Option<i64>, problems: &mut Problems) {
    let mut found = false;
    for name in allowed {
        let handler = of.child(name);
        if !handler.is_set() {
            continue;
        }
        if found {
            problems.forbidden(&handler, ONE_HANDLER);
            continue;
        }
        found = true;
        match *name {
            "exec" => {
                let command = handler.child("command");
                if command.list().is_empty() {
                    problems.required(&command, "");
                }
            }
            "httpGet" => http_get(&handler, problems),
            "tcpSocket" => problems.port_or_name(&handler.child("port")),
            "grpc" => {
                problems.port(&handler.child("port"));
                problems.one_of(&handler.child("mode"), &["Plaintext", "TLS"]);
            }
            _ => sleep(&handler, grace, problems),
        }
    }
    if !found {
        problems.required(of, "must specify a handler type");
    }
}

fn http_get(get: &Field<'_, '_>, problems: &mut Problems) {
    problems.required_text(&get.child("path"));
    problems.port_or_name(&get.child("port"));
    let scheme = get.child("scheme");
    problems.one_of(&scheme, &["HTTP", "HTTPS"]);
    for header in get.items("httpHeaders") {
        let name = header.child("name").text();
        for fault in http_header_name_faults(name) {
            problems.invalid(&get.child("httpHeaders"), name, &fault);
        }
    }
    let protocol = get.child("protocol");
    if protocol.text() == "HTTP2" {
        let host = get.child("host");
        if scheme.text() != "HTTP" {
            problems.invalid(&protocol, "HTTP2", "is only supported with HTTP (H2C)");
        } else if !host.text().is_empty() {
            let sentence = "must be empty when `protocol` is \"HTTP2\"";
            problems.invalid(&host, host.text(), sentence);
        }
    } else {
        problems.one_of(&protocol, &["HTTP1", "HTTP2"]);
    }
}

fn sleep(sleep: &Field<'_, '_>, grace: Option<i64>, problems: &mut Problems) {
    let seconds = sleep.child("seconds").integer().unwrap_or(0);
    if let Some(grace) = grace
        && !(0..=grace).contains(&seconds)
    {
        let sentence =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        problems.invalid(sleep, Value::from(seconds), &sentence);
    }
}
