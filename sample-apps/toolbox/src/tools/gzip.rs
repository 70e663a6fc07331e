//! `gzip`, `gunzip` and `zcat`, and packing in pieces for tar.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::applet::{Input, Output};

use super::call::{Call, Ended, Stop, cannot_open, reason};
use super::filesystem;
use super::flags::{Flags, Usage};

/// How much one step makes at most.
const STEP_BYTES: usize = 64 << 10;

/// Bytes into a gzip stream.
pub struct Packer {
    deflate: Compress,
    sum: Crc,
    length: u32,
    begun: bool,
}

impl Packer {
    pub fn new() -> Packer {
        Packer::with_level(6)
    }

    pub fn with_level(level: u32) -> Packer {
        Packer {
            deflate: Compress::new(Compression::new(level), false),
            sum: Crc::new(),
            length: 0,
            begun: false,
        }
    }

    fn head(&mut self) -> Vec<u8> {
        match std::mem::replace(&mut self.begun, true) {
            true => Vec::new(),
            // No name and no time, so that equal input gives equal output; the system is Unix.
            false => vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3],
        }
    }

    pub fn pack(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = self.head();
        self.sum.add(bytes);
        self.length = self.length.wrapping_add(bytes.len() as u32);
        self.step(bytes, FlushCompress::None, &mut out)?;
        Ok(out)
    }

    pub fn finish(&mut self) -> Result<Vec<u8>, String> {
        let mut out = self.head();
        self.step(&[], FlushCompress::Finish, &mut out)?;
        out.extend_from_slice(&self.sum.value().to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        Ok(out)
    }

    fn step(
        &mut self,
        mut bytes: &[u8],
        flush: FlushCompress,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        loop {
            out.reserve(STEP_BYTES);
            let before = self.deflate.total_in();
            let status = self
                .deflate
                .compress_vec(bytes, out, flush)
                .map_err(|error| error.to_string())?;
            let used = (self.deflate.total_in() - before) as usize;
            bytes = bytes.get(used..).unwrap_or_default();
            let more = out.capacity() == out.len();
            let finishing = matches!(flush, FlushCompress::Finish) && status != Status::StreamEnd;
            if bytes.is_empty() && !more && !finishing {
                return Ok(());
            }
        }
    }
}

/// A gzip stream, of one or more members, into bytes.
pub struct Unpacker {
    state: State,
    inflate: Decompress,
    sum: Crc,
    length: u32,
    /// A header or trailer that is not yet whole.
    part: Vec<u8>,
    members: u64,
}

#[derive(PartialEq)]
enum State {
    Head,
    Data,
    Tail,
}

/// A header's name and comment may be this long.
const HEAD_BYTES_MAX: usize = 64 << 10;

impl Unpacker {
    pub fn new() -> Unpacker {
        Unpacker {
            state: State::Head,
            inflate: Decompress::new(false),
            sum: Crc::new(),
            length: 0,
            part: Vec::new(),
            members: 0,
        }
    }

    pub fn unpack(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            match self.state {
                State::Head => {
                    // Zeros behind the last member are padding.
                    if self.members > 0 && self.part.is_empty() && bytes.first() == Some(&0) {
                        bytes = bytes.get(1..).unwrap_or_default();
                        continue;
                    }
                    self.part.extend_from_slice(bytes);
                    match head_length(&self.part)? {
                        None if self.part.len() > HEAD_BYTES_MAX => {
                            return Err("invalid magic".into());
                        }
                        None => bytes = &[],
                        Some(length) => {
                            let rest = self.part.len() - length;
                            bytes = bytes.get(bytes.len() - rest..).unwrap_or_default();
                            self.part.clear();
                            self.inflate.reset(false);
                            (self.sum, self.length, self.state) = (Crc::new(), 0, State::Data);
                        }
                    }
                }
                State::Data => {
                    let start = out.len();
                    out.reserve(STEP_BYTES);
                    let before = self.inflate.total_in();
                    let status = self
                        .inflate
                        .decompress_vec(bytes, &mut out, FlushDecompress::None)
                        .map_err(|_| "corrupted data".to_owned())?;
                    let used = (self.inflate.total_in() - before) as usize;
                    bytes = bytes.get(used..).unwrap_or_default();
                    let made = out.get(start..).unwrap_or_default();
                    self.sum.add(made);
                    self.length = self.length.wrapping_add(made.len() as u32);
                    if status == Status::StreamEnd {
                        self.state = State::Tail;
                    } else if used == 0 && made.is_empty() {
                        return Err("corrupted data".into());
                    }
                    if bytes.is_empty() && status != Status::StreamEnd {
                        // What the decoder still holds comes out before more goes in.
                        self.drain(&mut out)?;
                    }
                }
                State::Tail => {
                    let missing = 8 - self.part.len();
                    let count = missing.min(bytes.len());
                    self.part
                        .extend_from_slice(bytes.get(..count).unwrap_or_default());
                    bytes = bytes.get(count..).unwrap_or_default();
                    if let [a, b, c, d, e, f, g, h] = *self.part.as_slice() {
                        if u32::from_le_bytes([a, b, c, d]) != self.sum.value() {
                            return Err("crc error".into());
                        }
                        if u32::from_le_bytes([e, f, g, h]) != self.length {
                            return Err("incorrect length".into());
                        }
                        self.part.clear();
                        (self.state, self.members) = (State::Head, self.members + 1);
                    }
                }
            }
        }
        Ok(out)
    }

    fn drain(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        loop {
            let start = out.len();
            out.reserve(STEP_BYTES);
            let status = self.inflate.decompress_vec(&[], out, FlushDecompress::None);
            let made = out.get(start..).unwrap_or_default();
            self.sum.add(made);
            self.length = self.length.wrapping_add(made.len() as u32);
            match status {
                Ok(Status::StreamEnd) => {
                    self.state = State::Tail;
                    return Ok(());
                }
                Ok(_) if !made.is_empty() => {}
                // Without input there is nothing to do, which is no error.
                _ => return Ok(()),
            }
        }
    }

    /// Whether the input ended where a stream may end.
    pub fn finish(&self) -> Result<(), String> {
        match self.state == State::Head && self.part.is_empty() && self.members > 0 {
            true => Ok(()),
            false => Err("unexpected end of file".into()),
        }
    }
}

/// How long a header is; `None` while it is not whole.
fn head_length(bytes: &[u8]) -> Result<Option<usize>, String> {
    let magic = [0x1f, 0x8b, 8];
    if bytes
        .iter()
        .zip(magic)
        .any(|(found, wanted)| *found != wanted)
    {
        return Err("invalid magic".into());
    }
    let Some(flags) = bytes.get(3).copied().filter(|_| bytes.len() >= 10) else {
        return Ok(None);
    };
    let mut at = 10;
    if flags & 4 != 0 {
        let (Some(low), Some(high)) = (bytes.get(at), bytes.get(at + 1)) else {
            return Ok(None);
        };
        at += 2 + usize::from(u16::from_le_bytes([*low, *high]));
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == 0) else {
                return Ok(None);
            };
            at += end + 1;
        }
    }
    at += if flags & 2 != 0 { 2 } else { 0 };
    Ok((bytes.len() >= at).then_some(at))
}

/// The check sum of gzip.
struct Crc(flate2::Crc);

impl Crc {
    fn new() -> Crc {
        Crc(flate2::Crc::new())
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn value(&self) -> u32 {
        self.0.sum()
    }
}

const USAGE: Usage =
    Usage::new("gzip [-cfkdt123456789] [FILE]...", "cfkdtqvnNlr123456789").long(&[
        ("stdout", 'c'),
        ("to-stdout", 'c'),
        ("force", 'f'),
        ("keep", 'k'),
        ("decompress", 'd'),
        ("test", 't'),
        ("quiet", 'q'),
        ("verbose", 'v'),
        ("no-name", 'n'),
        ("fast", '1'),
        ("best", '9'),
    ]);

/// `gzip`, `gunzip` and `zcat`
pub async fn gzip(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let unpack = flags.has('d')
        || flags.has('t')
        || matches!(call.name.as_str(), "gunzip" | "zcat" | "gzcat");
    let to_stdout =
        flags.has('c') || matches!(call.name.as_str(), "zcat" | "gzcat") || flags.rest.is_empty();
    for name in flags.files() {
        let mut input = match call.open(&name) {
            Ok(input) => input,
            Err(error) => {
                call.fault(cannot_open(&name, &error)).await;
                continue;
            }
        };
        if name == "-" || to_stdout || flags.has('t') {
            let output = call.io.stdout.clone();
            if !unpack && !flags.has('f') && output.is_terminal() {
                return Err(Stop::failed(
                    "compressed data not written to terminal, use -f to force it",
                ));
            }
            let output = if flags.has('t') {
                Output::null()
            } else {
                output
            };
            if let Err(text) = copy(&mut input, output, unpack, &flags).await? {
                call.fault(describe(&name, &text)).await;
            }
            continue;
        }
        let path = call.path(&name);
        if path.is_dir() {
            call.fault(format!("{name}: Is a directory")).await;
            continue;
        }
        let target = match (unpack, name.strip_suffix(".tgz"), name.strip_suffix(".gz")) {
            (false, _, Some(_)) => {
                call.fault(format!("{name}: already has .gz suffix - unchanged"))
                    .await;
                continue;
            }
            (false, ..) => format!("{name}.gz"),
            (true, Some(stem), _) => format!("{stem}.tar"),
            (true, None, Some(stem)) => stem.to_owned(),
            (true, None, None) => {
                call.fault(format!("{name}: unknown suffix - ignored"))
                    .await;
                continue;
            }
        };
        let to = call.path(&target);
        let opened = match flags.has('f') {
            true => File::create(&to),
            false => OpenOptions::new().write(true).create_new(true).open(&to),
        };
        let file = match opened {
            Ok(file) => file,
            Err(error) => {
                call.fault(cannot_open(&target, &error)).await;
                continue;
            }
        };
        match copy(&mut input, Output::file(file), unpack, &flags).await {
            Ok(Ok(())) => {
                keep_facts(&path, &to);
                if !flags.has('k')
                    && let Err(error) = fs::remove_file(&path)
                {
                    call.fault(format!("can't remove '{name}': {}", reason(&error)))
                        .await;
                }
            }
            Ok(Err(text)) => {
                // Half a file helps nobody.
                let _ = fs::remove_file(&to);
                call.fault(describe(&name, &text)).await;
            }
            Err(stop) => {
                let _ = fs::remove_file(&to);
                return Err(stop);
            }
        }
    }
    Ok(call.code)
}

fn describe(name: &str, text: &str) -> String {
    if name == "-" {
        text.to_owned()
    } else {
        format!("{name}: {text}")
    }
}

/// Gives the new file what is kept of the old one.
fn keep_facts(from: &Path, to: &Path) {
    let Ok(about) = filesystem::about(from, true) else {
        return;
    };
    // A file system that has none of it keeps none of it.
    let _ = filesystem::set_mode(to, about.mode);
    let times = fs::FileTimes::new()
        .set_modified(about.modified)
        .set_accessed(about.accessed);
    let _ = OpenOptions::new()
        .write(true)
        .open(to)
        .and_then(|mut file| {
            file.flush()?;
            file.set_times(times)
        });
}

/// Packs or unpacks a stream. The inner error is of the data, the outer one of the output.
async fn copy(
    input: &mut Input,
    mut output: Output,
    unpack: bool,
    flags: &Flags,
) -> Result<Result<(), String>, Stop> {
    let level = "123456789"
        .chars()
        .filter(|digit| flags.has(*digit))
        .filter_map(|digit| digit.to_digit(10))
        .next_back();
    let mut packer = Packer::with_level(level.unwrap_or(6));
    let mut unpacker = Unpacker::new();
    let mut buf = vec![0; super::call::CHUNK_BYTES];
    loop {
        let read = match input.read(&mut buf).await {
            Ok(read) => read,
            Err(error) => return Ok(Err(format!("read error: {}", reason(&error)))),
        };
        let bytes = buf.get(..read).unwrap_or_default();
        let made = match (unpack, read) {
            (true, 0) => unpacker.finish().map(|()| Vec::new()),
            (true, _) => unpacker.unpack(bytes),
            (false, 0) => packer.finish(),
            (false, _) => packer.pack(bytes),
        };
        match made {
            Err(text) => return Ok(Err(text)),
            Ok(made) => output.write_all(&made).await.map_err(Stop::Output)?,
        }
        if read == 0 {
            output.flush().await.map_err(Stop::Output)?;
            return Ok(Ok(()));
        }
    }
}
