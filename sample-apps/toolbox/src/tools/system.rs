//! What a component has no system for, said plainly: `mount`, `sysctl`, `ip`, `ping`, `dmesg`; and `ps` and `top`.
//!
//! Nothing is made up. Mounts are the directories that the host lent; a process list has this instance, which is all that a component
//! is shown of its pod; `/proc` is read if there is one.

use super::call::{Call, Ended, Stop};
use super::flags::Usage;

/// A directory that the host lent.
pub struct Mount {
    pub what: String,
    pub at: String,
    pub kind: String,
    pub options: String,
    /// Bytes that it may hold, and holds, where that is known.
    pub room: Option<(u64, u64)>,
}

/// The mounts that this program sees.
pub fn mounts(call: &Call) -> Vec<Mount> {
    let text = std::fs::read_to_string(call.path("/proc/mounts")).unwrap_or_default();
    let listed: Vec<Mount> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            Some(Mount {
                what: words.next()?,
                at: words.next()?,
                kind: words.next()?,
                options: words.next()?,
                room: None,
            })
        })
        .collect();
    if listed.is_empty() { lent() } else { listed }
}

#[cfg(target_os = "wasi")]
fn lent() -> Vec<Mount> {
    let mounts = files::mounts().into_iter();
    mounts
        .map(|mount| Mount {
            what: mount.kind.clone(),
            at: mount.path,
            kind: mount.kind,
            options: if mount.read_only { "ro" } else { "rw" }.into(),
            room: mount.bytes.map(|bytes| (bytes, mount.bytes_used)),
        })
        .collect()
}

#[cfg(not(target_os = "wasi"))]
fn lent() -> Vec<Mount> {
    Vec::new()
}

const MOUNT: Usage = Usage::new("mount [-t TYPE]", "ao:t:rwnflsiv");

/// `mount`: lists; what is mounted is in the pod's specification.
pub async fn mount(call: &mut Call) -> Ended {
    let flags = MOUNT.parse(call)?;
    if !flags.rest.is_empty() {
        return Err(Stop::failed(format!(
            "mounting {} failed: Operation not permitted",
            flags.rest.join(" on ")
        )));
    }
    for mount in mounts(call) {
        if flags
            .value('t')
            .is_none_or(|kind| kind.split(',').any(|kind| kind == mount.kind))
        {
            let Mount {
                what,
                at,
                kind,
                options,
                room: _,
            } = mount;
            call.out(format!("{what} on {at} type {kind} ({options})\n"))
                .await?;
        }
    }
    Ok(0)
}

/// `umount`
pub async fn umount(call: &mut Call) -> Ended {
    let Some(name) = call.args.last() else {
        return Err(Stop::Said(
            1,
            "Usage: umount [OPTIONS] FILESYSTEM|DIRECTORY\n".into(),
        ));
    };
    Err(Stop::failed(format!(
        "can't unmount {name}: Operation not permitted"
    )))
}

const SYSCTL: Usage = Usage::new("sysctl [-enN] KEY...", "+enqNwaAp");

/// `sysctl`: reads below `/proc/sys`; a component has no kernel of its own to set.
pub async fn sysctl(call: &mut Call) -> Ended {
    let flags = SYSCTL.parse(call)?;
    if flags.rest.is_empty() {
        return Err(Stop::failed(
            "a component has no kernel settings to list; name a key below /proc/sys",
        ));
    }
    for key in &flags.rest {
        let (key, value) = match key.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (key.as_str(), None),
        };
        let below = key.replace('.', "/");
        let path = call.path(&format!("/proc/sys/{below}"));
        let read = std::fs::read_to_string(&path);
        match (read, value) {
            (Ok(_), Some(_)) => {
                call.fault(format!(
                    "error setting key '{key}': Operation not permitted"
                ))
                .await;
            }
            (Ok(text), None) => {
                let text = text.trim_end();
                let text = if flags.has('n') {
                    format!("{text}\n")
                } else {
                    format!("{key} = {text}\n")
                };
                call.out(text).await?;
            }
            (Err(_), _) if flags.has('e') => {}
            (Err(_), _) => {
                call.fault(format!("error: '{below}' is an unknown key"))
                    .await
            }
        }
    }
    Ok(call.code)
}

/// `ip`, `ifconfig`, `route`: devices and routes are the host's.
pub async fn ip(call: &mut Call) -> Ended {
    let words: Vec<&str> = call
        .args
        .iter()
        .map(String::as_str)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let changes = words.iter().any(|word| {
        matches!(
            *word,
            "add" | "del" | "delete" | "set" | "flush" | "change" | "replace"
        )
    });
    match (call.name.as_str(), changes) {
        ("ip", true) => Err(Stop::Said(
            2,
            "ip: RTNETLINK answers: Operation not permitted\n".into(),
        )),
        _ => Err(Stop::failed(
            "a component has no network devices; its pod's address is in $HOSTNAME's line of /etc/hosts and in the pod's status",
        )),
    }
}

/// `ping` and `traceroute`
pub async fn ping(_call: &mut Call) -> Ended {
    Err(Stop::failed(
        "can't create raw socket: Operation not permitted: a component has no raw sockets; try 'nc -zv HOST PORT'",
    ))
}

/// `dmesg`
pub async fn dmesg(_call: &mut Call) -> Ended {
    Err(Stop::failed("klogctl: Operation not permitted"))
}

const PS: Usage = Usage::new("ps [-o COL1,COL2] [-T]", "o:Taefuxwl");

/// `ps`: this instance is the only one that a component is shown.
pub async fn ps(call: &mut Call) -> Ended {
    let args: Vec<String> = call
        .args
        .iter()
        .map(
            |arg| match arg.chars().all(|letter| "auxefwl".contains(letter)) && !arg.is_empty() {
                true => format!("-{arg}"),
                false => arg.clone(),
            },
        )
        .collect();
    let flags = PS.sort(&call.name, &args)?;
    let row = this_instance(call);
    let columns: Vec<String> = match flags.value('o') {
        Some(list) => list
            .split(',')
            .map(|column| column.split('=').next().unwrap_or_default().to_owned())
            .collect(),
        None => ["pid", "user", "time", "args"].map(str::to_owned).to_vec(),
    };
    let (mut head, mut line) = (String::new(), String::new());
    for (index, column) in columns.iter().enumerate() {
        let (title, value, width) = match column.as_str() {
            "pid" => ("PID", "1", 5),
            "ppid" => ("PPID", "0", 5),
            "user" | "ruser" => ("USER", row.user.as_str(), 8),
            "group" | "rgroup" => ("GROUP", row.user.as_str(), 8),
            "time" => ("TIME", row.time.as_str(), 6),
            "comm" => ("COMMAND", row.name.as_str(), 16),
            "args" | "cmd" => ("COMMAND", row.arguments.as_str(), 27),
            "stat" => ("STAT", "R", 4),
            "vsz" | "rss" => ("VSZ", "0", 4),
            other => return Err(Stop::failed(format!("bad -o argument '{other}'"))),
        };
        let last = index + 1 == columns.len();
        let put = |to: &mut String, text: &str| match (column.ends_with("pid"), last) {
            (true, _) => *to += &format!("{text:>width$} "),
            (false, true) => *to += text,
            (false, false) => *to += &format!("{text:<width$} "),
        };
        put(&mut head, title);
        put(&mut line, value);
    }
    call.out(format!("{}\n{}\n", head.trim_end(), line.trim_end()))
        .await?;
    Ok(0)
}

struct Instance {
    user: String,
    time: String,
    name: String,
    arguments: String,
}

fn this_instance(call: &Call) -> Instance {
    let arguments: Vec<String> = std::env::args_os()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let name = arguments.first().map_or("toolbox", |name| {
        name.rsplit('/').next().unwrap_or_default()
    });
    Instance {
        user: super::identity::Names::of(call).user(super::filesystem::identity().0),
        time: "0:00".into(),
        name: name.to_owned(),
        arguments: arguments.join(" "),
    }
}

const TOP: Usage = Usage::new("top [-b] [-n COUNT] [-d SECONDS]", "bn:d:H");

/// `top`: once, since nothing in the list can change.
pub async fn top(call: &mut Call) -> Ended {
    TOP.parse(call)?;
    let row = this_instance(call);
    let text = format!(
        "What a pod's instances use is told by its metrics: kubectl top pod.\n  PID  PPID USER     STAT   COMMAND\n    1     0 {:<8} R      {}\n",
        row.user, row.arguments
    );
    call.out(text).await?;
    Ok(0)
}
