//! Which subcommand is meant, and running it.
//!
//! The program's own name says it where it is a path of an applet (`/bin/sh`, `nc`: the toolbox), else the first argument does; without one it
//! is `pause`. A container without a command of its own has its name for a program: it means the image's program, `/agnhost`.
//!
//! Invariant: what is no subcommand is an applet of the toolbox, and what is neither is an error in cobra's words.

use std::future::Future;

use crate::{
    Code, connect, converter, discovery, git_server, grpc_health, guestbook, in_cluster, liveness,
    logs_generator, mount_test, mtls, net_exec, net_test, pause, porter, resolver, serve_hostname,
    web_server, webhook,
};

/// The program of the image.
const PROGRAM: &str = "/agnhost";

const SUBCOMMANDS: [&str; 27] = [
    "client",
    "connect",
    "crd-conversion-webhook",
    "dns-server-list",
    "dns-suffix",
    "entrypoint-tester",
    "etc-hosts",
    "fake-gitserver",
    "grpc-health-checking",
    "guestbook",
    "inclusterclient",
    "liveness",
    "logs-generator",
    "mounttest",
    "mtlsclient",
    "mtlsserver",
    "netexec",
    "nettest",
    "nonewprivs",
    "pause",
    "porter",
    "serve-hostname",
    "test-service-account-issuer-discovery",
    "test-webserver",
    "webhook",
    "help",
    "--version",
];

/// Upstream's, whose place this takes.
const VERSION: &str = "2.66.1";

/// Runs what `argv` means, to its end.
pub fn run(argv: &[String]) -> Code {
    run_by_default(argv, "pause")
}

/// The same, where the image's own subcommand is another than `pause`.
pub fn run_by_default(argv: &[String], default: &str) -> Code {
    match Meant::of(argv) {
        Meant::Sub { program, arguments } if arguments.is_empty() => {
            subcommand(&program, &[default.to_owned()])
        }
        Meant::Applet(argv) => applet(&argv),
        Meant::Sub { program, arguments } => subcommand(&program, &arguments),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Meant {
    /// A command of the toolbox.
    Applet(Vec<String>),
    Sub {
        program: String,
        /// The subcommand's name first.
        arguments: Vec<String>,
    },
}

impl Meant {
    fn of(argv: &[String]) -> Meant {
        let program = argv.first().map_or(PROGRAM, String::as_str);
        let rest = argv.get(1..).unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or(program);
        let is_named = rest
            .first()
            .is_some_and(|first| SUBCOMMANDS.contains(&first.as_str()));
        let is_ours = name.starts_with("agnhost");
        // A container's name alone may be a word that is a command, too; `sh` is one that is run so.
        let is_bare = rest.is_empty() && !program.contains('/') && name != "sh";
        if !is_ours && !is_named && !is_bare && is_applet(name) {
            return Meant::Applet(argv.to_vec());
        }
        // A container's name, which says nothing, whatever it is.
        let program = match program.contains('/') {
            true => program,
            false => PROGRAM,
        };
        match rest.first() {
            Some(first) if !is_named && is_applet(first) => Meant::Applet(rest.to_vec()),
            _ => Meant::Sub {
                program: program.to_owned(),
                arguments: rest.to_vec(),
            },
        }
    }
}

/// Whether the toolbox has an applet of that name.
fn is_applet(name: &str) -> bool {
    crate::applets::is_known(name)
}

fn applet(argv: &[String]) -> Code {
    crate::applets::run(argv)
}

fn subcommand(program: &str, arguments: &[String]) -> Code {
    let name = arguments.first().map_or("pause", String::as_str);
    let rest = arguments.get(1..).unwrap_or_default();
    let done = match name {
        "pause" => Ok(pause::run()),
        "entrypoint-tester" => {
            let all = std::iter::once(program).chain(arguments.iter().map(String::as_str));
            println!("[{}]", all.collect::<Vec<_>>().join(" "));
            Ok(0)
        }
        "dns-suffix" => Ok(resolver::print_list("search")),
        "dns-server-list" => Ok(resolver::print_list("nameserver")),
        "etc-hosts" => Ok(resolver::print_hosts()),
        "nonewprivs" => {
            println!("Effective uid: {}", effective_user());
            Ok(0)
        }
        "logs-generator" => logs_generator::run(rest),
        "mounttest" => mount_test::run(rest),
        "connect" => blocked(connect::run(rest)),
        "netexec" => blocked(net_exec::run(rest)),
        "nettest" => blocked(net_test::run(rest)),
        "serve-hostname" => blocked(serve_hostname::run(rest)),
        "test-webserver" => blocked(web_server::run(rest)),
        "liveness" => blocked(liveness::run()),
        "porter" => blocked(porter::run(rest)),
        "guestbook" => blocked(guestbook::run(rest)),
        "webhook" => blocked(webhook::run(rest)),
        "crd-conversion-webhook" => blocked(converter::run(rest)),
        "grpc-health-checking" => blocked(grpc_health::run(rest)),
        "mtlsserver" => blocked(mtls::serve(rest)),
        "mtlsclient" => blocked(mtls::poll(rest)),
        "test-service-account-issuer-discovery" => blocked(discovery::run(rest)),
        "inclusterclient" | "client" => blocked(in_cluster::run(rest)),
        "fake-gitserver" => blocked(git_server::run()),
        "--version" => {
            println!("agnhost version {VERSION}");
            Ok(0)
        }
        "help" | "--help" | "-h" => {
            println!("Usage:\n  agnhost [command]\n\nAvailable Commands:");
            for name in SUBCOMMANDS.iter().filter(|name| !name.starts_with('-')) {
                println!("  {name}");
            }
            Ok(0)
        }
        unknown => Err(format!("unknown command {unknown:?} for \"agnhost\"")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("Error: {error}");
        1
    })
}

/// Runs a subcommand that waits, on this thread.
fn blocked(work: impl Future<Output = Result<Code, String>>) -> Result<Code, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let set = tokio::task::LocalSet::new();
    set.block_on(&runtime, work)
}

/// As whom this runs: a component is that to its files, and gains nothing by being started.
#[cfg(target_os = "wasi")]
fn effective_user() -> String {
    files::who().user.to_string()
}

#[cfg(not(target_os = "wasi"))]
fn effective_user() -> String {
    std::env::var("EUID").unwrap_or_else(|_| "1000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(argv: &[&str]) -> String {
        let argv: Vec<String> = argv.iter().map(|it| (*it).to_owned()).collect();
        match Meant::of(&argv) {
            Meant::Applet(argv) => format!("applet {}", argv.join(" ")),
            Meant::Sub { program, arguments } => format!("{program}: {}", arguments.join(" ")),
        }
    }

    #[test]
    fn a_command_line_means_one_thing() {
        for (argv, expected) in [
            (&["/agnhost", "netexec"][..], "/agnhost: netexec"),
            (
                &["/agnhost-2", "entrypoint-tester", "a"],
                "/agnhost-2: entrypoint-tester a",
            ),
            // A container called so, with the image's program.
            (&["web", "pause"], "/agnhost: pause"),
            (&["web"], "/agnhost: "),
            (&["test"], "/agnhost: "),
            (&["test", "pause"], "/agnhost: pause"),
            (&["sh"], "applet sh"),
            (&["/bin/sh", "-c", "true"], "applet /bin/sh -c true"),
            (&["test", "-f", "a"], "applet test -f a"),
            (&["/agnhost", "sh", "-c", "true"], "applet sh -c true"),
            (
                &["agnhost-container", "entrypoint-tester"],
                "/agnhost: entrypoint-tester",
            ),
        ] {
            assert_eq!(meant(argv), expected, "{argv:?}");
        }
    }
}
