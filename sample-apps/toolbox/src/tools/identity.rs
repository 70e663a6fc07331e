//! Who and where this is: `id`, `whoami`, `groups`, `hostname`, `uname`, `nproc`, `uptime`, `free`.
//!
//! WASI tells a component neither a user nor a machine. The identity is that of [`super::filesystem::identity`], whom its files are told of, its names those of
//! `/etc/passwd` and `/etc/group` if there are such files; the host name is `/etc/hostname` or `$HOSTNAME`, which the node writes.

use std::collections::BTreeMap;

use super::call::{Call, Ended, Stop};
use super::filesystem;
use super::flags::Usage;

/// A file of names is read to this length.
const NAMES_BYTES_MAX: usize = 1 << 20;

/// Names of users and groups.
pub struct Names {
    users: BTreeMap<u32, String>,
    groups: BTreeMap<u32, String>,
}

impl Names {
    pub fn of(call: &Call) -> Names {
        let read = |path: &str| -> BTreeMap<u32, String> {
            let mut names = BTreeMap::from([(0, "root".to_owned())]);
            let text = std::fs::read(call.path(path)).unwrap_or_default();
            let text =
                String::from_utf8_lossy(text.get(..NAMES_BYTES_MAX).unwrap_or(&text)).into_owned();
            for line in text.lines() {
                let mut parts = line.split(':');
                if let (Some(name), Some(number)) = (parts.next(), parts.nth(1))
                    && let Ok(number) = number.parse()
                {
                    names.insert(number, name.to_owned());
                }
            }
            names
        };
        Names {
            users: read("/etc/passwd"),
            groups: read("/etc/group"),
        }
    }

    pub fn user(&self, number: u32) -> String {
        self.users
            .get(&number)
            .cloned()
            .unwrap_or_else(|| number.to_string())
    }

    pub fn group(&self, number: u32) -> String {
        self.groups
            .get(&number)
            .cloned()
            .unwrap_or_else(|| number.to_string())
    }

    pub fn user_number(&self, name: &str) -> Option<u32> {
        let named = self.users.iter().find(|(_, known)| known.as_str() == name);
        named
            .map(|(number, _)| *number)
            .or_else(|| name.parse().ok())
    }

    pub fn group_number(&self, name: &str) -> Option<u32> {
        let named = self.groups.iter().find(|(_, known)| known.as_str() == name);
        named
            .map(|(number, _)| *number)
            .or_else(|| name.parse().ok())
    }
}

const ID: Usage = Usage::new("id [-ugGnr] [USER]", "ugGnr").long(&[
    ("user", 'u'),
    ("group", 'g'),
    ("groups", 'G'),
    ("name", 'n'),
    ("real", 'r'),
]);

/// `id`
pub async fn id(call: &mut Call) -> Ended {
    let flags = ID.parse(call)?;
    let names = Names::of(call);
    let (mut user, mut group) = filesystem::identity();
    let mut groups = filesystem::groups();
    if let Some(name) = flags.rest.first() {
        let found = names
            .user_number(name)
            .filter(|number| names.users.contains_key(number));
        user = found.ok_or_else(|| Stop::failed(format!("unknown user {name}")))?;
        group = user;
        groups.clear();
    }
    groups.retain(|other| *other != group);
    groups.insert(0, group);
    let named = |number: u32, name: String| {
        if flags.has('n') {
            name
        } else {
            number.to_string()
        }
    };
    let text = match flags.last_of("ugG") {
        Some('u') => named(user, names.user(user)),
        Some('G') => {
            let all: Vec<String> = groups
                .iter()
                .map(|group| named(*group, names.group(*group)))
                .collect();
            all.join(" ")
        }
        Some(_) => named(group, names.group(group)),
        None if flags.has('n') => {
            return Err(Stop::failed(
                "cannot print only names or real IDs in default format",
            ));
        }
        None => {
            let user_name = names
                .users
                .get(&user)
                .map(|name| format!("({name})"))
                .unwrap_or_default();
            let group_name = names
                .groups
                .get(&group)
                .map(|name| format!("({name})"))
                .unwrap_or_default();
            let all: Vec<String> = groups
                .iter()
                .map(|group| match names.groups.get(group) {
                    Some(name) => format!("{group}({name})"),
                    None => group.to_string(),
                })
                .collect();
            format!(
                "uid={user}{user_name} gid={group}{group_name} groups={}",
                all.join(",")
            )
        }
    };
    call.out(format!("{text}\n")).await?;
    Ok(0)
}

/// `whoami` and `groups`
pub async fn whoami(call: &mut Call) -> Ended {
    let names = Names::of(call);
    let (user, group) = filesystem::identity();
    let name = if call.name == "groups" {
        names.group(group)
    } else {
        names.user(user)
    };
    call.out(format!("{name}\n")).await?;
    Ok(0)
}

/// What this host is called.
pub fn host_name(call: &Call) -> String {
    let written = std::fs::read_to_string(call.path("/etc/hostname")).unwrap_or_default();
    match (written.trim(), call.variable("HOSTNAME")) {
        ("", Some(name)) if !name.is_empty() => name.to_owned(),
        ("", _) => "localhost".to_owned(),
        (name, _) => name.to_owned(),
    }
}

const HOSTNAME: Usage = Usage::new("hostname [-sfid] [NAME]", "sfidI");

/// `hostname`
pub async fn hostname(call: &mut Call) -> Ended {
    let flags = HOSTNAME.parse(call)?;
    if !flags.rest.is_empty() {
        return Err(Stop::failed("sethostname: Operation not permitted"));
    }
    let name = host_name(call);
    let hosts = std::fs::read_to_string(call.path("/etc/hosts")).unwrap_or_default();
    let row = hosts.lines().find(|line| {
        let line = line.split('#').next().unwrap_or_default();
        line.split_whitespace()
            .skip(1)
            .any(|known| known == name || known.split('.').next() == Some(&name))
    });
    let row: Vec<&str> = row.unwrap_or_default().split_whitespace().collect();
    let full = row.get(1).map_or(name.clone(), |full| (*full).to_owned());
    let text = match flags.last_of("sfidI") {
        Some('s') => name.split('.').next().unwrap_or_default().to_owned(),
        Some('f') => full,
        Some('d') => full
            .split_once('.')
            .map_or(String::new(), |(_, domain)| domain.to_owned()),
        Some(_) => row
            .first()
            .map_or_else(|| "127.0.0.1".to_owned(), |address| (*address).to_owned()),
        None => name,
    };
    call.out(format!("{text}\n")).await?;
    Ok(0)
}

const UNAME: Usage = Usage::new("uname [-amnrspvio]", "amnrspvio").long(&[
    ("all", 'a'),
    ("machine", 'm'),
    ("nodename", 'n'),
    ("kernel-release", 'r'),
    ("kernel-name", 's'),
    ("processor", 'p'),
    ("kernel-version", 'v'),
    ("operating-system", 'o'),
]);

/// `uname`: the system of a component is WASI, not the kernel below it.
pub async fn uname(call: &mut Call) -> Ended {
    let flags = UNAME.parse(call)?;
    let wasi = cfg!(target_os = "wasi");
    let host = host_name(call);
    let parts = [
        ('s', if wasi { "WASI" } else { "Linux" }),
        ('n', host.as_str()),
        ('r', if wasi { "0.2" } else { "0" }),
        ('v', "weft"),
        ('m', std::env::consts::ARCH),
        ('o', if wasi { "WASI" } else { "GNU/Linux" }),
    ];
    let all = flags.has('a');
    let any = all || !flags.seen.is_empty();
    let wanted = parts.iter().filter(|(letter, _)| match any {
        true => all || flags.has(*letter) || *letter == 'm' && (flags.has('p') || flags.has('i')),
        false => *letter == 's',
    });
    let text: Vec<&str> = wanted.map(|(_, text)| *text).collect();
    call.out(format!("{}\n", text.join(" "))).await?;
    Ok(0)
}

/// `nproc`: an instance has one thread.
pub async fn nproc(call: &mut Call) -> Ended {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    call.out(format!("{count}\n")).await?;
    Ok(0)
}

/// `uptime` and `free` need `/proc`, which a component has only if the node lends it.
pub async fn uptime(call: &mut Call) -> Ended {
    let text = std::fs::read_to_string(call.path("/proc/uptime")).unwrap_or_default();
    let Some(up) = text
        .split('.')
        .next()
        .and_then(|text| text.parse::<u64>().ok())
    else {
        return Err(Stop::failed(
            "a component is not told how long its host has been up; the pod's start is in its status",
        ));
    };
    let load = std::fs::read_to_string(call.path("/proc/loadavg")).unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    let zone = super::calendar::zone(call.variable("TZ"));
    let now = super::calendar::Date::of_time(std::time::SystemTime::now(), zone).format("%H:%M:%S");
    let (days, hours, minutes) = (up / 86_400, up / 3600 % 24, up / 60 % 60);
    let days = match days {
        0 => String::new(),
        1 => "1 day, ".into(),
        days => format!("{days} days, "),
    };
    let clock = if hours > 0 {
        format!("{hours:2}:{minutes:02}")
    } else {
        format!("{minutes} min")
    };
    let text = format!(
        " {now} up {days}{clock},  0 users,  load average: {}\n",
        load.join(", ")
    );
    call.out(text).await?;
    Ok(0)
}

const FREE: Usage = Usage::new("free [-bkmgh]", "bkmgh");

/// `free`
pub async fn free(call: &mut Call) -> Ended {
    let flags = FREE.parse(call)?;
    let text = std::fs::read_to_string(call.path("/proc/meminfo")).unwrap_or_default();
    let value = |name: &str| -> Option<u64> {
        let line = text
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let Some(total) = value("MemTotal") else {
        return Err(Stop::failed(
            "a component is not told of its host's memory; what the pod uses is in its metrics, what it may use in its limits",
        ));
    };
    let read = |name| value(name).unwrap_or(0);
    let (unused, shared) = (read("MemFree"), read("Shmem"));
    let cached = read("Buffers") + read("Cached") + read("SReclaimable");
    let show = |kib: u64| match flags.last_of("bkmgh") {
        Some('b') => (kib * 1024).to_string(),
        Some('m') => (kib / 1024).to_string(),
        Some('g') => (kib / 1024 / 1024).to_string(),
        Some('h') => super::ls::human(kib * 1024),
        _ => kib.to_string(),
    };
    let used = total.saturating_sub(unused + cached);
    let row = |name: &str, values: &[u64]| {
        let values: String = values
            .iter()
            .map(|value| format!("{:>12}", show(*value)))
            .collect();
        format!("{name:<7}{values}\n")
    };
    let mut out = format!(
        "{:>19}{:>12}{:>12}{:>12}{:>12}{:>12}\n",
        "total", "used", "free", "shared", "buff/cache", "available"
    );
    out += &row(
        "Mem:",
        &[total, used, unused, shared, cached, read("MemAvailable")],
    );
    let (swap, swap_free) = (read("SwapTotal"), read("SwapFree"));
    out += &row("Swap:", &[swap, swap.saturating_sub(swap_free), swap_free]);
    call.out(out).await?;
    Ok(0)
}
