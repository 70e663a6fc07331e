//! The power goes at every write and sync of a script, and the files still hold what was promised.
//!
//! The script drives the log and the checkpoint as consensus does: votes, appends, truncations, purges, checkpoints and
//! installed snapshots. Its journal is replayed; at each step, what a power cut may leave is made several times over
//! (nothing, everything, any part, torn sectors of what was not synced) and opened.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::disk::{SimDisk, Step};
use super::random::{Random, mix};
use crate::checkpoint::{CheckpointFile, Loaded};
use crate::command::{Batch, Command, Mutation, Precondition};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::log::{Log, Payload, Record, Vote};
use crate::machine::{Position, State};
use crate::tables::Identity;
use crate::volume::Volume;
use crate::watch::{Bounds, Hub};

const DIR: &str = "/sim";

/// What the files owe, from some point of the script on.
#[derive(Debug, Clone, Default)]
struct Owed {
    term: u64,
    /// The term of each entry that was reported durable.
    log: BTreeMap<u64, u64>,
    /// No entry beyond this one, once a truncation was reported.
    ceiling: Option<u64>,
    /// The position of the last checkpoint that was reported.
    checkpoint: u64,
}

fn identity() -> Identity {
    Identity {
        cluster_id: "sim".to_owned(),
        server_id: 1,
    }
}

fn batch(index: u64, term: u64) -> Batch {
    let key = format!("/k/{}", index % 7);
    let mutations = if index.is_multiple_of(5) {
        vec![Mutation::delete(key, Precondition::None)]
    } else {
        // Digits without a pattern, so that it stays as long as it is.
        let digit = |at: u64| char::from_digit((at * at * 7919 / 31 % 10) as u32, 10);
        let rest: String = (index..index + index % 300).filter_map(digit).collect();
        let value = format!("{index}.{term} {rest}");
        vec![Mutation::put(key, Precondition::None, value)]
    };
    Batch(
        vec![Command {
            fence: None,
            mutations,
        }]
        .into(),
    )
}

fn position(index: u64, term: u64) -> Position {
    Position {
        term,
        server: 1,
        index,
    }
}

struct Open {
    log: Log,
    loaded: Loaded,
    file: CheckpointFile,
}

fn open(disk: &SimDisk) -> Result<Open, OpenError> {
    let dir = Path::new(DIR);
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let volume = Volume::open(disk, dir).expect("a volume opens");
    let (log, _) = Log::open(&volume, &dir.join("log.redb"), &identity())?;
    let (file, loaded) =
        CheckpointFile::open(&volume, &dir.join("state.redb"), &identity(), 1 << 12)?;
    Ok(Open { log, loaded, file })
}

fn fingerprint(state: &State) -> String {
    let entries = state.entries.all().into_iter().map(|entry| {
        let value = entry.value();
        let value = value.split(|byte| *byte == b' ').next();
        let value = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        format!("{}={value}@{}", entry.key, entry.revision)
    });
    let entries: Vec<_> = entries.collect();
    format!("{} {}", state.revision, entries.join(" "))
}

/// What the script did: what was owed at each mark, and the state after each position.
struct Script {
    disk: SimDisk,
    owed: Vec<Owed>,
    states: BTreeMap<u64, String>,
}

async fn append(log: &Log, records: Vec<Record>) {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done = Box::new(move |result| {
        let _ = sender.send(result);
    });
    log.append(records, done).await.expect("queued");
    receiver.await.expect("answered").expect("durable");
}

async fn run(seed: u64, operations: usize) -> Script {
    let disk = SimDisk::new(seed, 0).next_process();
    disk.keep_journal();
    let mut random = Random::new(seed, 7);
    let mut owed = Owed::default();
    let mut script = Script {
        disk: disk.clone(),
        owed: vec![owed.clone()],
        states: BTreeMap::from([(0, fingerprint(&State::default()))]),
    };
    let Open { log, loaded, file } = open(&disk).expect("an empty disk opens");
    let bounds = Bounds {
        history_events_max: 30,
        history_bytes_max: 1 << 20,
        history_shares: Vec::new(),
        unwatched: Vec::new(),
        queue_events_max: 10,
        queue_bytes_max: 1 << 20,
    };
    let hub = Arc::new(Hub::new(loaded.state, loaded.history, bounds));
    let checkpointer = file
        .run(Arc::clone(&hub), Duration::from_secs(3600))
        .expect("runs");
    let (mut term, mut last, mut applied) = (1, 0_u64, 0_u64);
    for _ in 0..operations {
        // What is about to be taken back is owed no more from here on.
        match random.below(12) {
            0 => {
                term += 1;
                let vote = Vote {
                    term,
                    server: 1,
                    committed: true,
                };
                log.save_vote(vote).await.expect("stored");
                owed.term = term;
            }
            1 if last > applied => {
                let to = applied + random.below(last - applied);
                owed.log.retain(|index, _| *index <= to);
                mark(&mut script, &owed);
                log.truncate((to > 0).then_some(to)).await.expect("stored");
                last = to;
                owed.ceiling = Some(to);
            }
            2 | 3 => {
                let state = checkpointer.now().await.expect("made");
                owed.checkpoint = state.applied.map_or(0, |applied| applied.index);
            }
            4 if owed.checkpoint > 3 => {
                let upto = owed.checkpoint - random.below(3);
                let purged = log.extent().purged.map_or(0, |purged| purged.index);
                if upto > purged {
                    let of = owed.log.get(&upto).copied().unwrap_or(term);
                    owed.log.retain(|index, _| *index > upto);
                    mark(&mut script, &owed);
                    log.purge(position(upto, of)).await.expect("queued");
                }
            }
            5 if random.chance(1, 3) => {
                // A snapshot from a leader that is ahead.
                let index = last + 1 + random.below(9);
                let mut state = hub.state();
                state.apply(position(index, term), &batch(index, term), &mut Vec::new());
                script.states.insert(index, fingerprint(&state));
                owed.log.clear();
                owed.ceiling = None;
                mark(&mut script, &owed);
                checkpointer.install(state).await.expect("installed");
                owed.checkpoint = index;
                mark(&mut script, &owed);
                log.purge(position(index, term)).await.expect("queued");
                (last, applied) = (index, index);
            }
            6 | 7 if last > applied => {
                let to = applied + 1 + random.below(last - applied);
                let records = log.read(applied + 1..=to, None).await.expect("readable");
                let published = hub.apply(|state, events| {
                    for record in records {
                        let Payload::Batch(batch) = &record.payload else {
                            continue;
                        };
                        state.apply(record.position, batch, events);
                        let index = record.position.index;
                        script.states.insert(index, fingerprint(state));
                    }
                });
                published.expect("readable");
                applied = to;
                log.note_committed(Some(position(to, term)));
            }
            _ => {
                let count = 1 + random.below(3);
                let records: Vec<_> = (last + 1..=last + count)
                    .map(|index| Record {
                        position: position(index, term),
                        payload: Payload::Batch(batch(index, term)),
                    })
                    .collect();
                owed.ceiling = None;
                mark(&mut script, &owed);
                append(&log, records).await;
                owed.log
                    .extend((last + 1..=last + count).map(|index| (index, term)));
                last += count;
            }
        }
        mark(&mut script, &owed);
    }
    checkpointer.stop().await;
    log.stop().await;
    script
}

fn mark(script: &mut Script, owed: &Owed) {
    script.disk.mark(script.owed.len());
    script.owed.push(owed.clone());
}

/// What is wrong with what a power cut left.
async fn inspect(left: &SimDisk, owed: &Owed, states: &BTreeMap<u64, String>) -> Option<String> {
    match open(left) {
        Ok(Open { log, loaded, .. }) => {
            let wrong = compare(&log, &loaded, owed, states).await;
            // Its writer ends before the next one begins.
            log.stop().await;
            wrong
        }
        Err(error) => Some(format!("it does not open: {error}: {error:?}")),
    }
}

async fn compare(
    log: &Log,
    loaded: &Loaded,
    owed: &Owed,
    states: &BTreeMap<u64, String>,
) -> Option<String> {
    let extent = log.extent();
    let found = log.vote().map_or(0, |vote| vote.term);
    if found < owed.term {
        return Some(format!(
            "the vote is of term {found}, {} was stored",
            owed.term
        ));
    }
    let records = match log.read(.., None).await {
        Ok(records) => records,
        Err(error) => return Some(error.to_string()),
    };
    let purged = extent.purged.map_or(0, |purged| purged.index);
    for record in &records {
        let Position { index, term, .. } = record.position;
        if record.payload != Payload::Batch(batch(index, term)) {
            return Some(format!("entry {index} holds something else"));
        }
    }
    for (index, term) in &owed.log {
        let found = records
            .iter()
            .find(|record| record.position.index == *index);
        if *index > purged && found.map(|record| record.position.term) != Some(*term) {
            return Some(format!("entry {index} of term {term} is {found:?}"));
        }
    }
    if let (Some(ceiling), Some(last)) = (owed.ceiling, extent.last)
        && last.index > ceiling.max(purged)
    {
        return Some(format!("entry {} is behind the end, {ceiling}", last.index));
    }
    let applied = loaded.state.applied.map_or(0, |applied| applied.index);
    if applied < owed.checkpoint {
        return Some(format!(
            "the checkpoint is of {applied}, {} was made",
            owed.checkpoint
        ));
    }
    if purged > applied {
        return Some(format!(
            "the log begins after {purged}, the checkpoint is of {applied}"
        ));
    }
    let state = fingerprint(&loaded.state);
    match states.get(&applied) {
        Some(expected) if *expected == state => None,
        expected => Some(format!(
            "the state at {applied} is {state}, not {expected:?}"
        )),
    }
}

/// Stops the script at each `stride`th step, in `variants` ways. Returns how many disks were opened, and what was wrong.
pub(super) fn enumerate(
    seed: u64,
    operations: usize,
    stride: u64,
    variants: u64,
) -> (u64, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let script = run(seed, operations).await;
        let mut replay = script.disk.replay();
        let (mut at, mut owed, mut opened) = (0_u64, 0, 0);
        let mut wrong = Vec::new();
        while let Some(step) = replay.step() {
            if let Step::Mark(mark) = step {
                owed = mark;
                continue;
            }
            at += 1;
            if !at.is_multiple_of(stride) {
                continue;
            }
            for variant in 0..variants {
                let left = replay.disk.after_power_cut(mix(seed ^ (at << 8) ^ variant));
                opened += 1;
                if let Some(reason) = inspect(&left, &script.owed[owed], &script.states).await {
                    wrong.push(format!("seed {seed}, step {at} ({step:?}): {reason}"));
                }
            }
        }
        (opened, wrong)
    })
}

#[test]
fn the_power_may_go_at_any_write_and_sync() {
    let number = super::number;
    let operations = number("WEFT_OPERATIONS").map_or(200, |n| n as usize);
    let stride = number("WEFT_STRIDE").unwrap_or(1);
    let variants = number("WEFT_VARIANTS").unwrap_or(8);
    let seed = number("WEFT_SEED").unwrap_or(1);
    let (opened, wrong) = enumerate(seed, operations, stride, variants);
    println!(
        "seed={seed} operations={operations} images={opened} violations={}",
        wrong.len()
    );
    assert!(opened > 50, "something was opened");
    assert!(
        wrong.is_empty(),
        "{}",
        wrong[..wrong.len().min(5)].join("\n")
    );
}
