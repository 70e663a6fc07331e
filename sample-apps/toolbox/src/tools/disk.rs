//! `du` and `df`: what files take.

use std::collections::BTreeSet;

use super::call::{Call, Ended, Stop, reason};
use super::filesystem;
use super::flags::Usage;
use super::ls::human;

/// How deep a tree may be.
const DEPTH_MAX: usize = 512;
/// Files with several names are counted once, as long as no more than these are known.
const LINKED_MAX: usize = 1 << 20;

const DU: Usage = Usage::new("du [-aHLdclsxhmkb] [FILE]...", "aHLd:clsxhmkb").long(&[
    ("all", 'a'),
    ("max-depth", 'd'),
    ("total", 'c'),
    ("summarize", 's'),
    ("human-readable", 'h'),
    ("bytes", 'b'),
]);

/// `du`
pub async fn du(call: &mut Call) -> Ended {
    let flags = DU.parse(call)?;
    let deepest = match flags.value('d') {
        _ if flags.has('s') => 0,
        None => usize::MAX,
        Some(text) => text
            .parse()
            .map_err(|_| Stop::failed(format!("invalid number '{text}'")))?,
    };
    let names = match flags.rest.is_empty() {
        true => vec![".".to_owned()],
        false => flags.rest.clone(),
    };
    let show = |bytes: u64| match flags.last_of("hmkb") {
        Some('h') => human(bytes),
        Some('m') => bytes.div_ceil(1 << 20).to_string(),
        Some('b') => bytes.to_string(),
        _ => bytes.div_ceil(1024).to_string(),
    };
    let mut seen = BTreeSet::new();
    let mut total = 0;
    for name in names {
        // Entries on the way down; a directory's sum is known when all below it is.
        let mut stack: Vec<(String, u64, Option<std::vec::IntoIter<String>>)> = Vec::new();
        let mut next = Some(name);
        loop {
            if let Some(name) = next.take() {
                let path = call.path(&name);
                match filesystem::about(&path, flags.has('L') || flags.has('H') && stack.is_empty())
                {
                    Err(error) => call.fault(format!("{name}: {}", reason(&error))).await,
                    Ok(about) => {
                        let several = about.links > 1 && !about.is_directory() && !flags.has('l');
                        let known = several && !seen.insert((about.device, about.inode));
                        if seen.len() > LINKED_MAX {
                            seen.clear();
                        }
                        let own = match (known, flags.has('b')) {
                            (true, _) => 0,
                            (false, true) => about.size,
                            (false, false) => about.blocks * 512,
                        };
                        let below = match about.is_directory() && stack.len() < DEPTH_MAX {
                            false => None,
                            true => match filesystem::entries(&path) {
                                Ok(entries) => Some(entries.into_iter()),
                                Err(error) => {
                                    call.fault(format!("can't open '{name}': {}", reason(&error)))
                                        .await;
                                    Some(Vec::new().into_iter())
                                }
                            },
                        };
                        stack.push((name, own, below));
                    }
                }
            }
            let depth = stack.len();
            let Some((name, sum, below)) = stack.last_mut() else {
                break;
            };
            if let Some(entry) = below.as_mut().and_then(Iterator::next) {
                next = Some(format!("{}/{entry}", name.trim_end_matches('/')));
                continue;
            }
            let (name, sum, directory) = (std::mem::take(name), *sum, below.is_some());
            stack.pop();
            match stack.last_mut() {
                Some((_, parent, _)) => *parent += sum,
                None => total += sum,
            }
            if depth - 1 <= deepest && (directory || flags.has('a') || depth == 1) {
                call.out(format!("{}\t{name}\n", show(sum))).await?;
            }
        }
    }
    if flags.has('c') {
        call.out(format!("{}\ttotal\n", show(total))).await?;
    }
    Ok(call.code)
}

const DF: Usage = Usage::new("df [-Pkmh] [FILE]...", "Pkmha");

/// `df`: what volumes may hold is told by `weft:files`; where nothing is told, the columns hold a dash.
pub async fn df(call: &mut Call) -> Ended {
    let flags = DF.parse(call)?;
    for name in &flags.rest {
        if let Err(error) = filesystem::about(&call.path(name), true) {
            call.fault(format!(
                "{name}: can't find mount point: {}",
                reason(&error)
            ))
            .await;
        }
    }
    if call.code != 0 {
        return Ok(call.code);
    }
    let unit = match flags.last_of("kmh") {
        Some('m') => "1M-blocks",
        Some('h') => "Size",
        _ => "1K-blocks",
    };
    call.out(format!(
        "{:<20} {unit:>10}      Used Available Use% Mounted on\n",
        "Filesystem"
    ))
    .await?;
    let mounts = super::system::mounts(call);
    let holding = |name: &String| {
        let path = filesystem::normal(&call.path(name));
        mounts
            .iter()
            .filter(|mount| path.starts_with(&mount.at))
            .max_by_key(|mount| mount.at.len())
    };
    let shown: Vec<_> = match flags.rest.is_empty() {
        true => mounts.iter().collect(),
        false => flags.rest.iter().filter_map(holding).collect(),
    };
    let show = |bytes: u64| match flags.last_of("kmh") {
        Some('m') => bytes.div_ceil(1 << 20).to_string(),
        Some('h') => human(bytes),
        _ => bytes.div_ceil(1024).to_string(),
    };
    let rows: Vec<String> = shown
        .iter()
        .map(|mount| {
            let dash = || "-".to_owned();
            let [all, used, free, share] = match mount.room {
                None => [dash(), dash(), dash(), dash()],
                Some((all, used)) => [
                    show(all),
                    show(used),
                    show(all.saturating_sub(used)),
                    format!("{}%", (used * 100).div_ceil(all.max(1))),
                ],
            };
            format!(
                "{:<20} {all:>10} {used:>9} {free:>9} {share:>4} {}\n",
                mount.what, mount.at
            )
        })
        .collect();
    for row in rows {
        call.out(row).await?;
    }
    Ok(call.code)
}
