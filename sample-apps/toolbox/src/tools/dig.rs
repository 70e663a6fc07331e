//! `dig`, `nslookup` and `getent`: what the name servers answer, shown in three ways.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::call::{Call, Ended, Stop};
use super::identity::Names;
use super::resolver::message::{self, A, AAAA, CNAME, Message, PTR, Record};
use super::resolver::{self, Configuration};

/// What `dig` shows.
#[derive(Clone, Copy)]
struct Shown {
    short: bool,
    command: bool,
    comments: bool,
    question: bool,
    answer: bool,
    authority: bool,
    additional: bool,
    statistics: bool,
}

impl Shown {
    fn all(on: bool) -> Shown {
        Shown {
            short: false,
            command: on,
            comments: on,
            question: on,
            answer: on,
            authority: on,
            additional: on,
            statistics: on,
        }
    }
}

/// `dig [@SERVER] [-x ADDRESS] [-t TYPE] [-p PORT] NAME [TYPE] [+OPTION]...`
pub async fn dig(call: &mut Call) -> Ended {
    let mut configuration = Configuration::read(call);
    configuration.attempts = 3;
    let mut shown = Shown::all(true);
    let (mut name, mut kind, mut search, mut port) = (None, None, false, 53);
    let mut server: Option<String> = None;
    let wrong = |text: String| {
        Stop::Said(
            1,
            format!(
                "{text}\nUsage: dig [@SERVER] [-x ADDRESS] [-t TYPE] [-p PORT] NAME [TYPE] [+OPTION]...\n"
            ),
        )
    };
    let mut args = call.args.clone().into_iter();
    while let Some(arg) = args.next() {
        if let Some(option) = arg.strip_prefix('+') {
            let (option, on) = match option.strip_prefix("no") {
                Some(rest) if rest != "rec" || option == "norec" => (rest, true),
                _ => (option, false),
            };
            let on = !on;
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let number = value.parse::<u64>().ok();
            match key {
                "short" => shown.short = on,
                "all" => {
                    shown = Shown {
                        short: shown.short,
                        ..Shown::all(on)
                    }
                }
                "cmd" => shown.command = on,
                "comments" => shown.comments = on,
                "question" => shown.question = on,
                "answer" => shown.answer = on,
                "authority" => shown.authority = on,
                "additional" => shown.additional = on,
                "stats" => shown.statistics = on,
                "search" | "defname" | "showsearch" => search = on,
                "tcp" | "vc" => configuration.tcp = on,
                "recurse" | "rec" | "rdflag" => configuration.recurse = on,
                "time" | "timeout" => {
                    configuration.timeout = Duration::from_secs(number.unwrap_or(5).clamp(1, 300));
                }
                "tries" => configuration.attempts = number.unwrap_or(3).clamp(1, 10) as u32,
                "retry" => configuration.attempts = number.unwrap_or(2).clamp(0, 9) as u32 + 1,
                "ndots" => {
                    configuration.dots = number.unwrap_or(1) as usize;
                    search = true;
                }
                // What changes nothing that is shown here.
                "ignore" | "edns" | "dnssec" | "cookie" | "adflag" | "cdflag" | "ttlid"
                | "multiline" | "cl" | "identify" | "class" | "bufsize" | "fail" | "besteffort" => {
                }
                _ => return Err(wrong(format!("Invalid option: {arg}"))),
            }
        } else if let Some(text) = arg.strip_prefix('@') {
            server = Some(text.to_owned());
        } else if let Some(letter) = arg.strip_prefix('-').filter(|rest| !rest.is_empty()) {
            let (letter, attached) = letter.split_at(1);
            if letter == "4" || letter == "6" || letter == "r" || letter == "u" {
                continue;
            }
            let value = match attached.is_empty() {
                false => attached.to_owned(),
                true => args
                    .next()
                    .ok_or_else(|| wrong(format!("Invalid option: {arg}")))?,
            };
            match letter {
                "x" => {
                    let address = value
                        .parse::<IpAddr>()
                        .map_err(|_| wrong(format!("Invalid IP address {value}")))?;
                    name = Some(message::reverse_name(address));
                    kind = Some(PTR);
                }
                "t" => {
                    kind = Some(
                        message::type_number(&value)
                            .ok_or_else(|| wrong(format!("Invalid type: {value}")))?,
                    )
                }
                "q" => name = Some(value),
                "p" => {
                    port = value
                        .parse()
                        .map_err(|_| wrong(format!("Couldn't parse port number: {value}")))?
                }
                "c" | "b" | "k" | "y" => {}
                _ => return Err(wrong(format!("Invalid option: {arg}"))),
            }
        } else if let Some(number) = message::type_number(&arg)
            .filter(|_| name.is_some() || arg.chars().all(|c| c.is_ascii_uppercase()))
        {
            kind = Some(number);
        } else if name.is_some() && arg == "IN" {
            // The only class there is.
        } else {
            name = Some(arg);
        }
    }
    let given = name.clone();
    let name = name.unwrap_or_else(|| ".".to_owned());
    let kind = kind.unwrap_or(if given.is_some() { A } else { 2 });
    if let Some(server) = &server {
        let found = resolver::addresses(call, server).await;
        let found = found.map(|(_, addresses)| addresses).unwrap_or_default();
        if found.is_empty() {
            return Err(Stop::Said(
                10,
                format!("dig: couldn't get address for '{server}': not found\n"),
            ));
        }
        configuration.servers = found
            .into_iter()
            .map(|address| SocketAddr::new(address, port))
            .collect();
    }
    configuration
        .servers
        .iter_mut()
        .for_each(|server| server.set_port(port));
    if configuration.servers.is_empty() {
        return Err(Stop::Said(
            10,
            "dig: no nameserver in /etc/resolv.conf; name one with @SERVER\n".into(),
        ));
    }
    let candidates = match search {
        true => configuration.candidates(&name),
        false => vec![format!("{}.", name.trim_end_matches('.'))],
    };
    let started = Instant::now();
    let mut found: Option<(Message, SocketAddr)> = None;
    for candidate in candidates {
        match configuration.ask(&candidate, kind).await {
            Err(error) => {
                let server = configuration
                    .servers
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                let server = server
                    .rsplit_once(':')
                    .map_or(server.clone(), |(host, port)| format!("{host}#{port}"));
                let why = match error.kind() {
                    std::io::ErrorKind::TimedOut => "timed out".to_owned(),
                    std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                    _ => error.to_string(),
                };
                let text = format!(
                    ";; communications error to {server}: {why}\n;; no servers could be reached\n"
                );
                call.out(text).await?;
                return Ok(9);
            }
            Ok(answer) => {
                let done = answer.0.code() == 0 && !answer.0.answer.is_empty();
                found = Some(answer);
                if done {
                    break;
                }
            }
        }
    }
    let Some((answer, server)) = found else {
        return Ok(9);
    };
    if shown.short {
        let text: String = answer
            .answer
            .iter()
            .map(|record| format!("{}\n", record.data))
            .collect();
        call.out(text).await?;
        return Ok(0);
    }
    let text = full(
        &answer,
        server,
        shown,
        &call.args,
        started.elapsed(),
        configuration.tcp,
    );
    call.out(text).await?;
    Ok(0)
}

fn full(
    answer: &Message,
    server: SocketAddr,
    shown: Shown,
    args: &[String],
    took: Duration,
    tcp: bool,
) -> String {
    let mut out = String::new();
    if shown.command {
        out += &format!(
            "\n; <<>> DiG <<>> {}\n;; global options: +cmd\n",
            args.join(" ")
        );
    }
    if shown.comments {
        let flags = [
            ("qr", 0x8000),
            ("aa", 0x0400),
            ("tc", 0x0200),
            ("rd", 0x0100),
            ("ra", 0x0080),
            ("ad", 0x0020),
            ("cd", 0x0010),
        ];
        let flags: String = flags
            .iter()
            .filter(|(_, bit)| answer.flags & bit != 0)
            .map(|(name, _)| format!(" {name}"))
            .collect();
        out += &format!(
            ";; Got answer:\n;; ->>HEADER<<- opcode: QUERY, status: {}, id: {}\n;; flags:{flags}; QUERY: {}, ANSWER: {}, AUTHORITY: {}, ADDITIONAL: {}\n\n",
            message::code_name(answer.code()),
            answer.id,
            usize::from(answer.question.is_some()),
            answer.answer.len(),
            answer.authority.len(),
            answer.additional.len()
        );
    }
    let tabs = |name: &str| {
        if name.len() < 8 {
            "\t\t\t"
        } else if name.len() < 16 {
            "\t\t"
        } else {
            "\t"
        }
    };
    if let Some((name, kind)) = answer.question.as_ref().filter(|_| shown.question) {
        if shown.comments {
            out += ";; QUESTION SECTION:\n";
        }
        let asked = format!(";{name}");
        out += &format!(
            "{asked}{}\tIN\t{}\n",
            tabs(&asked),
            message::type_name(*kind)
        );
        out.push('\n');
    }
    let sections = [
        ("ANSWER", &answer.answer, shown.answer),
        ("AUTHORITY", &answer.authority, shown.authority),
        ("ADDITIONAL", &answer.additional, shown.additional),
    ];
    for (title, records, on) in sections {
        // OPT is of the transport, no record of a zone.
        let records: Vec<&Record> = records.iter().filter(|record| record.kind != 41).collect();
        if !on || records.is_empty() {
            continue;
        }
        if shown.comments {
            out += &format!(";; {title} SECTION:\n");
        }
        for record in records {
            out += &format!(
                "{}{}{}\tIN\t{}\t{}\n",
                record.name,
                tabs(&record.name),
                record.ttl,
                message::type_name(record.kind),
                record.data
            );
        }
        if shown.comments {
            out.push('\n');
        }
    }
    if shown.statistics {
        let now = super::calendar::Date::of_time(std::time::SystemTime::now(), ("UTC".into(), 0));
        let transport = if tcp { "TCP" } else { "UDP" };
        out += &format!(
            ";; Query time: {} msec\n;; SERVER: {}#{}({}) ({transport})\n;; WHEN: {}\n;; MSG SIZE  rcvd: {}\n\n",
            took.as_millis(),
            server.ip(),
            server.port(),
            server.ip(),
            now.format("%a %b %d %H:%M:%S %Z %Y"),
            answer.size
        );
    }
    out
}

/// `nslookup [-type=TYPE] NAME [SERVER]`
pub async fn nslookup(call: &mut Call) -> Ended {
    let mut configuration = Configuration::read(call);
    let (mut kinds, mut names, mut port) = (Vec::new(), Vec::new(), 53);
    for arg in &call.args {
        let Some(option) = arg.strip_prefix('-') else {
            names.push(arg.clone());
            continue;
        };
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "type" | "querytype" | "q" => {
                let kind = message::type_number(value);
                kinds.push(
                    kind.ok_or_else(|| Stop::failed(format!("invalid query type \"{value}\"")))?,
                );
            }
            "port" => {
                port = value
                    .parse()
                    .map_err(|_| Stop::failed(format!("invalid number '{value}'")))?
            }
            "timeout" => {
                configuration.timeout =
                    Duration::from_secs(value.parse().unwrap_or(5u64).clamp(1, 65))
            }
            "retry" => configuration.attempts = value.parse().unwrap_or(2).clamp(1, 9),
            "debug" | "stats" => {}
            _ => return Err(Stop::failed(format!("invalid option '{arg}'"))),
        }
    }
    let [name, rest @ ..] = names.as_slice() else {
        return Err(Stop::Said(
            1,
            "Usage: nslookup [-type=QUERY_TYPE] HOST [DNS_SERVER]\n".into(),
        ));
    };
    if let Some(server) = rest.first() {
        let (_, found) = resolver::addresses(call, server)
            .await
            .map_err(|_| Stop::failed(format!("can't resolve server '{server}'")))?;
        configuration.servers = found
            .into_iter()
            .map(|address| SocketAddr::new(address, port))
            .collect();
    }
    configuration
        .servers
        .iter_mut()
        .for_each(|server| server.set_port(port));
    let Some(first) = configuration.servers.first().copied() else {
        return Err(Stop::failed(
            "no nameserver in /etc/resolv.conf; name one behind the host",
        ));
    };
    call.out(format!("Server:\t\t{}\nAddress:\t{first}\n\n", first.ip()))
        .await?;
    let address = name.parse::<IpAddr>().ok();
    let candidates = match address {
        Some(address) => vec![message::reverse_name(address)],
        None => configuration.candidates(name),
    };
    if kinds.is_empty() {
        kinds = if address.is_some() {
            vec![PTR]
        } else {
            vec![A, AAAA]
        };
    }
    let (mut code, mut failed) = (None, None);
    for candidate in &candidates {
        let (mut text, mut some) = (String::new(), false);
        for kind in &kinds {
            match configuration.ask(candidate, *kind).await {
                Err(error) => failed = Some(error),
                Ok((answer, _)) => {
                    code = Some(answer.code());
                    if answer.answer.is_empty() {
                        continue;
                    }
                    if !some && !answer.is_authoritative() {
                        text += "Non-authoritative answer:\n";
                    }
                    some = true;
                    answer
                        .answer
                        .iter()
                        .for_each(|record| text += &looked_up(record));
                    text.push('\n');
                }
            }
        }
        if some {
            call.out(text).await?;
            return Ok(0);
        }
    }
    let text = match (code, failed) {
        (Some(0), _) => format!("*** Can't find {name}: No answer\n\n"),
        (Some(code), _) => format!(
            "** server can't find {name}: {}\n\n",
            message::code_name(code)
        ),
        (None, Some(error)) if error.kind() != std::io::ErrorKind::TimedOut => {
            format!(
                ";; connection to {first} failed: {}\n\n",
                super::call::reason(&error)
            )
        }
        (None, _) => ";; connection timed out; no servers could be reached\n\n".to_owned(),
    };
    call.out(text).await?;
    Ok(1)
}

fn looked_up(record: &Record) -> String {
    let name = record.name.trim_end_matches('.');
    let data = record.data.trim_end_matches('.');
    match record.kind {
        A | AAAA => format!("Name:\t{name}\nAddress: {data}\n"),
        CNAME => format!("{name}\tcanonical name = {data}\n"),
        PTR => format!("{name}\tname = {data}\n"),
        2 => format!("{name}\tnameserver = {data}\n"),
        15 => format!("{name}\tmail exchanger = {data}\n"),
        16 => format!("{name}\ttext = {data}\n"),
        33 => format!("{name}\tservice = {data}\n"),
        other => format!("{name}\t{} = {data}\n", message::type_name(other)),
    }
}

/// `getent hosts|ahosts|passwd|group [KEY]...`: 2 if a key is not found.
pub async fn getent(call: &mut Call) -> Ended {
    let Some((database, keys)) = call
        .args
        .clone()
        .split_first()
        .map(|(first, rest)| (first.clone(), rest.to_vec()))
    else {
        return Err(Stop::Said(1, "Usage: getent DATABASE [KEY]...\n".into()));
    };
    match database.as_str() {
        "hosts" | "ahosts" | "ahostsv4" | "ahostsv6" => {
            if keys.is_empty() {
                for (address, names) in resolver::hosts(call) {
                    call.out(format!("{:<15} {}\n", address.to_string(), names.join(" ")))
                        .await?;
                }
            }
            for key in keys {
                let text = host(call, &database, &key).await;
                match text.is_empty() {
                    true => call.code = 2,
                    false => call.out(text).await?,
                }
            }
            Ok(call.code)
        }
        "passwd" | "group" => {
            let text =
                std::fs::read_to_string(call.path(&format!("/etc/{database}"))).unwrap_or_default();
            let names = Names::of(call);
            for line in text.lines().filter(|_| keys.is_empty()) {
                call.out(format!("{line}\n")).await?;
            }
            for key in keys {
                let number = match database.as_str() {
                    "passwd" => names.user_number(&key),
                    _ => names.group_number(&key),
                };
                let line = text.lines().find(|line| {
                    let mut parts = line.split(':');
                    let name = parts.next();
                    name == Some(&key)
                        || number.is_some()
                            && parts.nth(1).and_then(|part| part.parse().ok()) == number
                });
                match line {
                    Some(line) => call.out(format!("{line}\n")).await?,
                    None => call.code = 2,
                }
            }
            Ok(call.code)
        }
        _ => Err(Stop::Said(1, format!("Unknown database: {database}\n"))),
    }
}

async fn host(call: &Call, database: &str, key: &str) -> String {
    if let Ok(address) = key.parse::<IpAddr>() {
        if let Some((_, names)) = resolver::hosts(call)
            .into_iter()
            .find(|(known, _)| *known == address)
        {
            return format!("{key:<15} {}\n", names.join(" "));
        }
        let configuration = Configuration::read(call);
        let answer = configuration
            .ask(&message::reverse_name(address), PTR)
            .await;
        let names = answer.map(|(answer, _)| answer.answer).unwrap_or_default();
        let name = names.iter().find(|record| record.kind == PTR);
        return name.map_or_else(String::new, |record| {
            format!("{key:<15} {}\n", record.data.trim_end_matches('.'))
        });
    }
    let Ok((proper, found)) = resolver::addresses(call, key).await else {
        return String::new();
    };
    let found = found.into_iter().filter(|address| match database {
        "ahostsv4" => address.is_ipv4(),
        "ahostsv6" => address.is_ipv6(),
        _ => true,
    });
    if database != "hosts" {
        return found
            .flat_map(|address| {
                ["STREAM", "DGRAM", "RAW"].map(|kind| {
                    let line = format!(
                        "{:<15} {kind:<6} {}",
                        address.to_string(),
                        if kind == "STREAM" {
                            proper.as_str()
                        } else {
                            ""
                        }
                    );
                    format!("{}\n", line.trim_end())
                })
            })
            .collect();
    }
    let aliases: Vec<String> = resolver::hosts(call)
        .into_iter()
        .filter(|(_, names)| names.iter().any(|name| name.eq_ignore_ascii_case(key)))
        .flat_map(|(_, names)| names.into_iter().skip(1))
        .collect();
    let tail = if aliases.is_empty() {
        String::new()
    } else {
        format!(" {}", aliases.join(" "))
    };
    found
        .map(|address| format!("{:<15} {proper}{tail}\n", address.to_string()))
        .collect()
}
