//! Records: a stream cut where `RS` says.

use std::io;
use std::rc::Rc;

use crate::applet::Input;
use crate::tools::call::{CHUNK_BYTES, HELD_BYTES_MAX};
use crate::tools::pattern::Pattern;

/// Where a record ends.
#[derive(Clone)]
pub enum Separator {
    Byte(u8),
    /// At empty lines; those at the start are no records.
    Paragraph,
    Pattern(Rc<Pattern>),
}

pub struct Records {
    input: Input,
    held: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Records {
    pub fn new(input: Input) -> Records {
        Records {
            input,
            held: Vec::new(),
            at: 0,
            ended: false,
        }
    }

    fn rest(&self) -> &[u8] {
        self.held.get(self.at..).unwrap_or_default()
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.held.drain(..self.at);
        self.at = 0;
        if self.held.len() > HELD_BYTES_MAX {
            let text = format!("a record is longer than {HELD_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let length = self.held.len();
        self.held.resize(length + CHUNK_BYTES, 0);
        let read = self
            .input
            .read(self.held.get_mut(length..).unwrap_or_default())
            .await;
        self.held.truncate(length + *read.as_ref().unwrap_or(&0));
        self.ended = read? == 0;
        Ok(())
    }

    /// The next record; `None` at the end.
    pub async fn next(&mut self, separator: &Separator) -> io::Result<Option<Vec<u8>>> {
        if matches!(separator, Separator::Byte(b'\n')) && self.rest().is_empty() && !self.ended {
            // Nothing is read ahead, so that a command that reads the same stream goes on behind this line.
            let mut line = self.input.line().await?;
            if let Some(line) = &mut line
                && line.last() == Some(&b'\n')
            {
                line.pop();
            }
            return Ok(line);
        }
        let mut searched = 0;
        loop {
            if matches!(separator, Separator::Paragraph) {
                self.at += self
                    .rest()
                    .iter()
                    .take_while(|byte| **byte == b'\n')
                    .count();
            }
            let rest = self.rest();
            let found = match separator {
                Separator::Byte(byte) => {
                    let from = rest.get(searched..).unwrap_or_default();
                    from.iter()
                        .position(|found| found == byte)
                        .map(|at| (searched + at, searched + at + 1))
                }
                Separator::Paragraph => {
                    let from = searched.saturating_sub(1);
                    let at = rest
                        .get(from..)
                        .unwrap_or_default()
                        .windows(2)
                        .position(|pair| pair == b"\n\n");
                    at.map(|at| (from + at, from + at + 2))
                }
                // A match at the end of what was read could go on.
                Separator::Pattern(pattern) => pattern
                    .find_at(rest, 0)
                    .filter(|(from, to)| to > from && (*to < rest.len() || self.ended)),
            };
            if let Some((from, to)) = found {
                let record = rest.get(..from).unwrap_or_default().to_vec();
                self.at += to;
                return Ok(Some(record));
            }
            searched = rest.len();
            if self.ended {
                let mut record = rest.to_vec();
                self.at = self.held.len();
                let bare = !matches!(separator, Separator::Byte(_));
                if bare && record.last() == Some(&b'\n') {
                    record.pop();
                    return Ok(Some(record));
                }
                return Ok((!record.is_empty()).then_some(record));
            }
            self.fill().await?;
        }
    }
}
