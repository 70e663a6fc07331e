//! `mkdir`, `touch`, `mktemp` and `truncate`: files and directories that were not there.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::ErrorKind;
use std::time::SystemTime;

use super::calendar;
use super::call::{Call, Ended, Stop, reason};
use super::filesystem;
use super::flags::{self, Usage};

const MKDIR: Usage = Usage::new("mkdir [-m MODE] [-p] DIRECTORY...", "m:pv").long(&[
    ("mode", 'm'),
    ("parents", 'p'),
    ("verbose", 'v'),
]);

/// `mkdir`
pub async fn mkdir(call: &mut Call) -> Ended {
    let flags = MKDIR.parse(call)?;
    if flags.rest.is_empty() {
        return Err(MKDIR.wrong());
    }
    let mode = match flags.value('m') {
        None => None,
        Some(text) => Some(
            u32::from_str_radix(text, 8)
                .map_err(|_| Stop::failed(format!("invalid mode '{text}'")))?,
        ),
    };
    for name in &flags.rest {
        let path = call.path(name);
        let made = match flags.has('p') {
            true => fs::create_dir_all(&path),
            false => fs::create_dir(&path),
        };
        match made {
            Err(error) => {
                call.fault(format!(
                    "can't create directory '{name}': {}",
                    reason(&error)
                ))
                .await;
            }
            Ok(()) => {
                if flags.has('v') {
                    call.out(format!("created directory: '{name}'\n")).await?;
                }
                if let Some(mode) = mode
                    && let Err(error) = filesystem::set_mode(&path, mode)
                {
                    call.fault(format!("{name}: {}", reason(&error))).await;
                }
            }
        }
    }
    Ok(call.code)
}

const TOUCH: Usage = Usage::new(
    "touch [-cham] [-d DATE] [-t DATE] [-r FILE] FILE...",
    "chamd:t:r:",
)
.long(&[("no-create", 'c'), ("date", 'd'), ("reference", 'r')]);

/// `touch`
pub async fn touch(call: &mut Call) -> Ended {
    let flags = TOUCH.parse(call)?;
    if flags.rest.is_empty() {
        return Err(TOUCH.wrong());
    }
    let now = SystemTime::now();
    let (mut accessed, mut modified) = (now, now);
    if let Some(name) = flags.value('r') {
        let about = filesystem::about(&call.path(name), true)
            .map_err(|error| Stop::failed(format!("{name}: {}", reason(&error))))?;
        (accessed, modified) = (about.accessed, about.modified);
    }
    if let Some(text) = flags.value('d').or(flags.value('t')) {
        let zone = calendar::zone(call.variable("TZ"));
        let time = calendar::parse(text, now, zone)
            .and_then(|(seconds, nanos)| calendar::time_at(seconds, nanos))
            .ok_or_else(|| Stop::failed(format!("invalid date '{text}'")))?;
        (accessed, modified) = (time, time);
    }
    let mut times = FileTimes::new();
    if !flags.has('m') || flags.has('a') {
        times = times.set_accessed(accessed);
    }
    if !flags.has('a') || flags.has('m') {
        times = times.set_modified(modified);
    }
    for name in &flags.rest {
        let path = call.path(name);
        let create = !flags.has('c');
        let opened = match OpenOptions::new().write(true).create(create).open(&path) {
            Err(error) if error.kind() == ErrorKind::IsADirectory => File::open(&path),
            opened => opened,
        };
        match opened.and_then(|file| file.set_times(times)) {
            Err(error) if flags.has('c') && error.kind() == ErrorKind::NotFound => {}
            Err(error) => call.fault(format!("{name}: {}", reason(&error))).await,
            Ok(()) => {}
        }
    }
    Ok(call.code)
}

const MKTEMP: Usage = Usage::new("mktemp [-dt] [-p DIR] [TEMPLATE]", "dtp:qu").long(&[
    ("directory", 'd'),
    ("tmpdir", 'p'),
    ("quiet", 'q'),
    ("dry-run", 'u'),
]);

/// `mktemp`
pub async fn mktemp(call: &mut Call) -> Ended {
    let flags = MKTEMP.parse(call)?;
    let template = flags.rest.first().map_or("tmp.XXXXXX", String::as_str);
    let stem = template.trim_end_matches('X');
    let places = template.len() - stem.len();
    let failed = |text: &str| Stop::failed(format!("{template}: {text}"));
    if places < 6 {
        return Err(failed("Invalid argument"));
    }
    let temporary = call.variable("TMPDIR").unwrap_or("/tmp").to_owned();
    let directory = match (flags.value('p'), flags.has('t') || flags.rest.is_empty()) {
        (Some(directory), _) => Some(directory.to_owned()),
        (None, true) => Some(temporary),
        (None, false) => None,
    };
    for _ in 0..100 {
        let name = format!("{stem}{}", random_letters(places));
        let name = match &directory {
            Some(directory) => format!("{}/{name}", directory.trim_end_matches('/')),
            None => name,
        };
        let path = call.path(&name);
        let made = match (flags.has('u'), flags.has('d')) {
            (true, _) => Ok(()),
            (false, true) => fs::create_dir(&path),
            (false, false) => OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&path)
                .map(drop),
        };
        match made {
            Ok(()) => {
                if !flags.has('u') {
                    // Where there are modes it is nobody else's; where there are none there is nobody else.
                    let _ = filesystem::set_mode(&path, if flags.has('d') { 0o700 } else { 0o600 });
                }
                call.out(format!("{name}\n")).await?;
                return Ok(0);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Stop::failed(format!("(null): {}", reason(&error)))),
        }
    }
    Err(failed("File exists"))
}

/// Letters that differ from call to call: the seeds of the standard library's hashes are random.
pub fn random_letters(count: usize) -> String {
    use std::hash::{BuildHasher, RandomState};
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    let mut state = 0u64;
    (0..count)
        .map(|index| {
            if index % 8 == 0 {
                state = RandomState::new().hash_one(index);
            }
            let letter = LETTERS.get((state % 62) as usize).copied().unwrap_or(b'x');
            state /= 62;
            char::from(letter)
        })
        .collect()
}

const TRUNCATE: Usage =
    Usage::new("truncate [-c] -s SIZE FILE...", "cs:").long(&[("no-create", 'c'), ("size", 's')]);

/// `truncate`
pub async fn truncate(call: &mut Call) -> Ended {
    let flags = TRUNCATE.parse(call)?;
    let Some(text) = flags.value('s').filter(|_| !flags.rest.is_empty()) else {
        return Err(TRUNCATE.wrong());
    };
    let sign = text.chars().next().filter(|c| "+-".contains(*c));
    let size = flags::size(text.trim_start_matches(['+', '-']))?;
    for name in &flags.rest {
        let opened = OpenOptions::new()
            .write(true)
            .create(!flags.has('c'))
            .truncate(false)
            .open(call.path(name));
        let cut = opened.and_then(|file| {
            let old = file.metadata()?.len();
            file.set_len(match sign {
                Some('+') => old.saturating_add(size),
                Some(_) => old.saturating_sub(size),
                None => size,
            })
        });
        match cut {
            Err(error) if flags.has('c') && error.kind() == ErrorKind::NotFound => {}
            Err(error) => call.fault(format!("{name}: {}", reason(&error))).await,
            Ok(()) => {}
        }
    }
    Ok(call.code)
}
