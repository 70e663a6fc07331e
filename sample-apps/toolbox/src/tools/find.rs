//! `find`: files of a tree that fulfil an expression, and what to do with them.
//!
//! The expression is parsed once; the tree is walked depth first in the order of names. Commands of `-exec` are applets that run as
//! part of this task, one after the other.

use std::future::Future;
use std::pin::Pin;
use std::time::SystemTime;

use crate::{applet, executor};

use super::call::{Call, Ended, Stop, reason};
use super::filesystem::{self, About, Kind};
use super::glob;
use super::identity::Names;
use super::pattern::{Pattern, Syntax};

/// How deep a tree may be.
const DEPTH_MAX: usize = 512;
/// The arguments of one command of `-exec … +`.
const BATCH_BYTES: usize = 64 << 10;

enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Always(bool),
    Name(Vec<u8>, bool),
    Path(Vec<u8>, bool),
    Regex(Pattern),
    Type(Vec<char>),
    Size(Compare, u64),
    Age(Compare, When, u64),
    Newer(SystemTime),
    Empty,
    Perm(char, u32),
    User(u32),
    Group(u32),
    Links(Compare),
    Inode(Compare),
    Prune,
    Print(&'static str),
    Printf(String),
    Exec(Vec<String>, bool),
    /// The command, and which of the batches is its.
    ExecMany(Vec<String>, usize),
    Delete,
    Quit,
}

#[derive(Clone, Copy)]
enum When {
    Modified,
    Accessed,
    Changed,
}

#[derive(Clone, Copy)]
struct Compare {
    sign: char,
    number: u64,
}

impl Compare {
    fn holds(self, value: u64) -> bool {
        match self.sign {
            '+' => value > self.number,
            '-' => value < self.number,
            _ => value == self.number,
        }
    }
}

struct Parser<'a> {
    call: &'a Call,
    args: std::iter::Peekable<std::vec::IntoIter<String>>,
    least: usize,
    most: usize,
    depth_first: bool,
    same_device: bool,
    acts: bool,
    batches: usize,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Expression, Stop> {
        let mut options = vec![self.all()?];
        while self
            .args
            .next_if(|arg| arg == "-o" || arg == "-or")
            .is_some()
        {
            options.push(self.all()?);
        }
        Ok(if options.len() == 1 {
            options.remove(0)
        } else {
            Expression::Any(options)
        })
    }

    fn all(&mut self) -> Result<Expression, Stop> {
        let mut parts = Vec::new();
        while let Some(arg) = self.args.peek() {
            if arg == "-o" || arg == "-or" || arg == ")" {
                break;
            }
            if arg == "-a" || arg == "-and" {
                self.args.next();
                continue;
            }
            parts.push(self.one()?);
        }
        Ok(Expression::All(parts))
    }

    fn value(&mut self, name: &str) -> Result<String, Stop> {
        self.args
            .next()
            .ok_or_else(|| Stop::failed(format!("option requires an argument -- '{name}'")))
    }

    fn compare(&mut self, name: &str) -> Result<Compare, Stop> {
        let text = self.value(name)?;
        let sign = text
            .chars()
            .next()
            .filter(|c| "+-".contains(*c))
            .unwrap_or('=');
        let number = text.trim_start_matches(['+', '-']).parse();
        let number = number.map_err(|_| Stop::failed(format!("invalid number '{text}'")))?;
        Ok(Compare { sign, number })
    }

    fn one(&mut self) -> Result<Expression, Stop> {
        let name = self.args.next().unwrap_or_default();
        let always = Ok(Expression::Always(true));
        Ok(match name.as_str() {
            "!" | "-not" => Expression::Not(Box::new(self.one()?)),
            "(" => {
                let inner = self.any()?;
                if self.args.next().as_deref() != Some(")") {
                    return Err(Stop::failed("unmatched '('"));
                }
                inner
            }
            "-name" => Expression::Name(self.value(&name)?.into_bytes(), false),
            "-iname" => Expression::Name(self.value(&name)?.to_lowercase().into_bytes(), true),
            "-path" | "-wholename" => Expression::Path(self.value(&name)?.into_bytes(), false),
            "-ipath" => Expression::Path(self.value(&name)?.to_lowercase().into_bytes(), true),
            "-regex" => {
                let text = self.value(&name)?;
                let syntax = Syntax {
                    whole: true,
                    ..Syntax::default()
                };
                let pattern = Pattern::new(text.as_bytes(), syntax);
                Expression::Regex(
                    pattern
                        .map_err(|error| Stop::failed(format!("bad regex '{text}': {error}")))?,
                )
            }
            "-type" => {
                let text = self.value(&name)?;
                let kinds: Vec<char> = text
                    .split(',')
                    .filter_map(|kind| kind.chars().next())
                    .collect();
                if kinds.is_empty() || kinds.iter().any(|kind| !"fdlpsbc".contains(*kind)) {
                    return Err(Stop::failed(format!(
                        "invalid argument '{text}' to '-type'"
                    )));
                }
                Expression::Type(kinds)
            }
            "-size" => {
                let text = self.value(&name)?;
                let sign = text
                    .chars()
                    .next()
                    .filter(|c| "+-".contains(*c))
                    .unwrap_or('=');
                let body = text.trim_start_matches(['+', '-']);
                let digits = body.trim_end_matches(|c: char| !c.is_ascii_digit());
                let unit = match body.get(digits.len()..) {
                    Some("c") => 1,
                    Some("w") => 2,
                    Some("" | "b") => 512,
                    Some("k") => 1 << 10,
                    Some("M") => 1 << 20,
                    Some("G") => 1 << 30,
                    _ => return Err(Stop::failed(format!("invalid number '{text}'"))),
                };
                let number = digits
                    .parse()
                    .map_err(|_| Stop::failed(format!("invalid number '{text}'")))?;
                Expression::Size(Compare { sign, number }, unit)
            }
            "-mtime" => Expression::Age(self.compare(&name)?, When::Modified, 86_400),
            "-atime" => Expression::Age(self.compare(&name)?, When::Accessed, 86_400),
            "-ctime" => Expression::Age(self.compare(&name)?, When::Changed, 86_400),
            "-mmin" => Expression::Age(self.compare(&name)?, When::Modified, 60),
            "-amin" => Expression::Age(self.compare(&name)?, When::Accessed, 60),
            "-cmin" => Expression::Age(self.compare(&name)?, When::Changed, 60),
            "-newer" => {
                let file = self.value(&name)?;
                let about = filesystem::about(&self.call.path(&file), true);
                let about =
                    about.map_err(|error| Stop::failed(format!("{file}: {}", reason(&error))))?;
                Expression::Newer(about.modified)
            }
            "-empty" => Expression::Empty,
            "-perm" => {
                let text = self.value(&name)?;
                let sign = text
                    .chars()
                    .next()
                    .filter(|c| "-/+".contains(*c))
                    .unwrap_or('=');
                let mode = u32::from_str_radix(text.trim_start_matches(['-', '/', '+']), 8);
                Expression::Perm(
                    sign,
                    mode.map_err(|_| Stop::failed(format!("invalid mode '{text}'")))?,
                )
            }
            "-user" | "-uid" => {
                let text = self.value(&name)?;
                let number = Names::of(self.call).user_number(&text);
                Expression::User(
                    number.ok_or_else(|| Stop::failed(format!("unknown user {text}")))?,
                )
            }
            "-group" | "-gid" => {
                let text = self.value(&name)?;
                let number = Names::of(self.call).group_number(&text);
                Expression::Group(
                    number.ok_or_else(|| Stop::failed(format!("unknown group {text}")))?,
                )
            }
            "-links" => Expression::Links(self.compare(&name)?),
            "-inum" => Expression::Inode(self.compare(&name)?),
            "-maxdepth" | "-mindepth" => {
                let depth = self.compare(&name)?.number;
                let depth = usize::try_from(depth).unwrap_or(usize::MAX);
                if name == "-maxdepth" {
                    self.most = depth;
                } else {
                    self.least = depth;
                }
                return always;
            }
            "-depth" | "-d" => {
                self.depth_first = true;
                return always;
            }
            "-xdev" | "-mount" => {
                self.same_device = true;
                return always;
            }
            "-follow" | "-noleaf" | "-daystart" | "-true" => return always,
            "-false" => Expression::Always(false),
            "-prune" => Expression::Prune,
            "-quit" => Expression::Quit,
            "-print" | "-print0" => {
                self.acts = true;
                Expression::Print(if name == "-print" { "\n" } else { "\0" })
            }
            "-printf" => {
                self.acts = true;
                Expression::Printf(self.value(&name)?)
            }
            "-delete" => {
                (self.acts, self.depth_first) = (true, true);
                Expression::Delete
            }
            "-exec" | "-ok" | "-execdir" => {
                self.acts = true;
                let mut command = Vec::new();
                loop {
                    let Some(arg) = self.args.next() else {
                        return Err(Stop::failed(format!(
                            "option requires an argument -- '{name}'"
                        )));
                    };
                    match arg.as_str() {
                        ";" => break Expression::Exec(command, name == "-ok"),
                        "+" if command.last().is_some_and(|last| last == "{}") => {
                            command.pop();
                            self.batches += 1;
                            break Expression::ExecMany(command, self.batches - 1);
                        }
                        _ => command.push(arg),
                    }
                }
            }
            _ => return Err(Stop::failed(format!("unrecognized: {name}"))),
        })
    }
}

struct Search<'c> {
    call: &'c mut Call,
    now: SystemTime,
    batches: Vec<Vec<String>>,
    pruned: bool,
    quit: bool,
}

struct Found<'f> {
    name: &'f str,
    about: &'f About,
    root: &'f str,
    depth: usize,
}

/// `find [-HL] [PATH]... [EXPRESSION]`
pub async fn find(call: &mut Call) -> Ended {
    let mut args = call.args.clone();
    let mut follow = false;
    while let Some(first @ ("-H" | "-L" | "-P")) = args.first().map(String::as_str) {
        follow = first == "-L";
        args.remove(0);
    }
    let starts = args
        .iter()
        .take_while(|arg| {
            !(arg.starts_with('-') && arg.len() > 1 || *arg == "!" || *arg == "(" || *arg == ")")
        })
        .count();
    let rest = args.split_off(starts);
    let roots = if args.is_empty() {
        vec![".".to_owned()]
    } else {
        args
    };
    let mut parser = Parser {
        call,
        args: rest.into_iter().peekable(),
        least: 0,
        most: usize::MAX,
        depth_first: false,
        same_device: false,
        acts: false,
        batches: 0,
    };
    let mut expression = parser.any()?;
    if let Some(extra) = parser.args.next() {
        return Err(Stop::failed(format!("unrecognized: {extra}")));
    }
    if !parser.acts {
        expression = Expression::All(vec![expression, Expression::Print("\n")]);
    }
    let Parser {
        least,
        most,
        depth_first,
        same_device,
        batches,
        ..
    } = parser;
    let mut commands = Vec::new();
    batch_commands(&expression, &mut commands);
    let mut search = Search {
        call,
        now: SystemTime::now(),
        batches: vec![Vec::new(); batches],
        pruned: false,
        quit: false,
    };
    'roots: for root in &roots {
        let mut device = None;
        // A name, its depth, and what was learnt of it if all below it is done.
        let mut waiting: Vec<(String, usize, Option<About>)> = vec![(root.clone(), 0, None)];
        while let Some((name, depth, done)) = waiting.pop() {
            if let Some(about) = done {
                let found = Found {
                    name: &name,
                    about: &about,
                    root,
                    depth,
                };
                if depth >= least {
                    search.holds(&expression, &found).await?;
                }
                if search.quit {
                    break 'roots;
                }
                continue;
            }
            let path = search.call.path(&name);
            let about = match filesystem::about(&path, follow) {
                Err(_) if follow => filesystem::about(&path, false),
                about => about,
            };
            let about = match about {
                Ok(about) => about,
                Err(error) => {
                    search
                        .call
                        .fault(format!("{name}: {}", reason(&error)))
                        .await;
                    continue;
                }
            };
            let device = *device.get_or_insert(about.device);
            search.pruned = false;
            if !depth_first && depth >= least {
                let found = Found {
                    name: &name,
                    about: &about,
                    root,
                    depth,
                };
                search.holds(&expression, &found).await?;
                if search.quit {
                    break 'roots;
                }
            }
            let descend = about.is_directory()
                && depth < most.min(DEPTH_MAX)
                && !search.pruned
                && !(same_device && about.device != device);
            if depth_first {
                waiting.push((name.clone(), depth, Some(about)));
            }
            if descend {
                match filesystem::entries(&path) {
                    Ok(entries) => {
                        let base = if name.ends_with('/') {
                            name.clone()
                        } else {
                            format!("{name}/")
                        };
                        waiting.extend(
                            entries
                                .into_iter()
                                .rev()
                                .map(|entry| (format!("{base}{entry}"), depth + 1, None)),
                        );
                    }
                    Err(error) => {
                        search
                            .call
                            .fault(format!("{name}: {}", reason(&error)))
                            .await
                    }
                }
                executor::yield_now().await;
            }
        }
    }
    for (index, command) in commands {
        search.run_batch(&command, index).await;
    }
    Ok(search.call.code)
}

fn batch_commands(expression: &Expression, to: &mut Vec<(usize, Vec<String>)>) {
    match expression {
        Expression::All(parts) | Expression::Any(parts) => {
            parts.iter().for_each(|part| batch_commands(part, to));
        }
        Expression::Not(inner) => batch_commands(inner, to),
        Expression::ExecMany(command, index) => to.push((*index, command.clone())),
        _ => {}
    }
}

type Verdict<'v> = Pin<Box<dyn Future<Output = Result<bool, Stop>> + 'v>>;

impl Search<'_> {
    fn holds<'v>(&'v mut self, expression: &'v Expression, found: &'v Found<'v>) -> Verdict<'v> {
        Box::pin(async move {
            let about = found.about;
            let base = || {
                let name = found
                    .name
                    .trim_end_matches('/')
                    .rsplit('/')
                    .next()
                    .unwrap_or_default();
                if name.is_empty() { "/" } else { name }
            };
            let cased = |text: &str, fold: bool| match fold {
                true => text.to_lowercase().into_bytes(),
                false => text.as_bytes().to_vec(),
            };
            Ok(match expression {
                Expression::All(parts) => {
                    for part in parts {
                        if !self.holds(part, found).await? {
                            return Ok(false);
                        }
                    }
                    true
                }
                Expression::Any(parts) => {
                    for part in parts {
                        if self.holds(part, found).await? {
                            return Ok(true);
                        }
                    }
                    false
                }
                Expression::Not(inner) => !self.holds(inner, found).await?,
                Expression::Always(value) => *value,
                Expression::Name(pattern, fold) => glob::matches(pattern, &cased(base(), *fold)),
                Expression::Path(pattern, fold) => {
                    glob::matches(pattern, &cased(found.name, *fold))
                }
                Expression::Regex(pattern) => pattern.is_match(found.name.as_bytes()),
                Expression::Type(kinds) => {
                    let letter = if about.kind == Kind::File {
                        'f'
                    } else {
                        about.kind.letter()
                    };
                    kinds.contains(&letter)
                }
                Expression::Size(compare, unit) => compare.holds(about.size.div_ceil(*unit)),
                Expression::Age(compare, when, unit) => {
                    let time = match when {
                        When::Modified => about.modified,
                        When::Accessed => about.accessed,
                        When::Changed => about.changed,
                    };
                    let age = self.now.duration_since(time).unwrap_or_default().as_secs();
                    compare.holds(age / unit)
                }
                Expression::Newer(time) => about.modified > *time,
                Expression::Empty => match about.kind {
                    Kind::Directory => filesystem::entries(&self.call.path(found.name))
                        .is_ok_and(|names| names.is_empty()),
                    Kind::File => about.size == 0,
                    _ => false,
                },
                Expression::Perm('-', mode) => about.mode & mode == *mode,
                Expression::Perm('/' | '+', mode) => *mode == 0 || about.mode & mode != 0,
                Expression::Perm(_, mode) => about.mode == *mode,
                Expression::User(number) => about.user == *number,
                Expression::Group(number) => about.group == *number,
                Expression::Links(compare) => compare.holds(about.links),
                Expression::Inode(compare) => compare.holds(about.inode),
                Expression::Prune => {
                    self.pruned = true;
                    true
                }
                Expression::Quit => {
                    self.quit = true;
                    true
                }
                Expression::Print(end) => {
                    self.call.out(format!("{}{end}", found.name)).await?;
                    true
                }
                Expression::Printf(format) => {
                    let text = self.printf(format, found);
                    self.call.out(text).await?;
                    true
                }
                Expression::Delete => {
                    let path = self.call.path(found.name);
                    let removed = match about.is_directory() {
                        _ if found.name == "." => Ok(()),
                        true => std::fs::remove_dir(&path),
                        false => std::fs::remove_file(&path),
                    };
                    match removed {
                        Ok(()) => true,
                        Err(error) => {
                            self.call
                                .fault(format!("{}: {}", found.name, reason(&error)))
                                .await;
                            false
                        }
                    }
                }
                Expression::Exec(command, ask) => {
                    let argv: Vec<String> = command
                        .iter()
                        .map(|part| part.replace("{}", found.name))
                        .collect();
                    if *ask
                        && !super::copy::confirmed(self.call, format!("{} ?", argv.join(" "))).await
                    {
                        return Ok(false);
                    }
                    applet::run(argv, self.call.io.clone()).await == 0
                }
                Expression::ExecMany(command, index) => {
                    let full = self.batches.get_mut(*index).is_some_and(|batch| {
                        batch.push(found.name.to_owned());
                        batch.iter().map(|name| name.len() + 1).sum::<usize>() > BATCH_BYTES
                    });
                    if full {
                        self.run_batch(command, *index).await;
                    }
                    true
                }
            })
        })
    }

    async fn run_batch(&mut self, command: &[String], index: usize) {
        let names = self
            .batches
            .get_mut(index)
            .map(std::mem::take)
            .unwrap_or_default();
        if names.is_empty() {
            return;
        }
        let argv = command.iter().cloned().chain(names).collect();
        if applet::run(argv, self.call.io.clone()).await != 0 {
            self.call.code = 1;
        }
    }

    fn printf(&self, format: &str, found: &Found<'_>) -> Vec<u8> {
        let about = found.about;
        let (format, _) = super::printf::unescape_all(format.as_bytes());
        let format = String::from_utf8_lossy(&format).into_owned();
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let seconds = super::calendar::since_epoch(about.modified).0;
            let base = found
                .name
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .unwrap_or_default();
            out += &match chars.next() {
                Some('p') => found.name.to_owned(),
                Some('P') => found
                    .name
                    .strip_prefix(found.root)
                    .unwrap_or(found.name)
                    .trim_start_matches('/')
                    .to_owned(),
                Some('f') => base.to_owned(),
                Some('h') => found
                    .name
                    .rsplit_once('/')
                    .map_or(".", |(parent, _)| parent)
                    .to_owned(),
                Some('s') => about.size.to_string(),
                Some('k') => (about.blocks / 2).to_string(),
                Some('b') => about.blocks.to_string(),
                Some('d') => found.depth.to_string(),
                Some('m') => format!("{:o}", about.mode),
                Some('M') => about.mode_text(),
                Some('n') => about.links.to_string(),
                Some('i') => about.inode.to_string(),
                Some('u' | 'U') => about.user.to_string(),
                Some('g' | 'G') => about.group.to_string(),
                Some('y') => if about.kind == Kind::File {
                    'f'
                } else {
                    about.kind.letter()
                }
                .to_string(),
                Some('T') if chars.as_str().starts_with('@') => {
                    chars.next();
                    seconds.to_string()
                }
                Some('t') => super::calendar::Date::of_time(about.modified, ("UTC".into(), 0))
                    .format("%a %b %e %H:%M:%S %Y"),
                Some('%') => "%".to_owned(),
                Some(other) => format!("%{other}"),
                None => "%".to_owned(),
            };
        }
        out.into_bytes()
    }
}
