//! Redirections: descriptors opened, copied and closed, and put back afterwards.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::rc::Rc;

use super::shell::{Outcome, Shell};
use super::syntax_tree::{Redirect, RedirectKind};
use crate::stream::Stream;
use crate::text;

/// Descriptors are numbers up to this.
const DESCRIPTOR_MAX: u32 = 1023;

/// What descriptors were before; nothing means closed.
#[derive(Default)]
pub struct Saved(Vec<(u32, Option<Rc<Stream>>)>);

impl Shell {
    /// Does the redirections in their order. After an error, which is told, nothing of them is left and the status is
    /// the inner error.
    pub async fn redirect(&mut self, redirects: &[Redirect]) -> Outcome<Result<Saved, i32>> {
        let mut saved = Saved::default();
        for redirect in redirects {
            let target = match self.target(redirect).await {
                Ok(target) => target,
                Err(flow) => {
                    self.put_back(saved);
                    return Err(flow);
                }
            };
            match target {
                Ok(targets) => {
                    for (descriptor, stream) in targets {
                        let before = self.descriptors.get(&descriptor).cloned();
                        match stream {
                            Some(stream) => drop(self.descriptors.insert(descriptor, stream)),
                            None => drop(self.descriptors.remove(&descriptor)),
                        }
                        saved.0.push((descriptor, before));
                    }
                }
                Err(message) => {
                    self.complain(&message).await;
                    self.put_back(saved);
                    return Ok(Err(1));
                }
            }
        }
        Ok(Ok(saved))
    }

    pub fn put_back(&mut self, saved: Saved) {
        for (descriptor, stream) in saved.0.into_iter().rev() {
            match stream {
                Some(stream) => drop(self.descriptors.insert(descriptor, stream)),
                None => drop(self.descriptors.remove(&descriptor)),
            }
        }
    }

    /// Which descriptors become what, or the words of an error.
    async fn target(
        &mut self,
        redirect: &Redirect,
    ) -> Outcome<Result<Vec<(u32, Option<Rc<Stream>>)>, String>> {
        let descriptor = redirect.descriptor;
        if descriptor > DESCRIPTOR_MAX {
            return Ok(Err(format!("{descriptor}: Bad file descriptor")));
        }
        let read = |options: &mut OpenOptions| options.read(true).to_owned();
        let (word, options) = match &redirect.kind {
            RedirectKind::Read(word) => (word, read(&mut OpenOptions::new())),
            RedirectKind::ReadWrite(word) => (
                word,
                OpenOptions::new()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .to_owned(),
            ),
            RedirectKind::Append(word) => (
                word,
                OpenOptions::new().append(true).create(true).to_owned(),
            ),
            RedirectKind::Write(word)
            | RedirectKind::Overwrite(word)
            | RedirectKind::Both(word) => (
                word,
                OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .to_owned(),
            ),
            RedirectKind::Here(word) => {
                let word = word.borrow().clone();
                let body = self.expand_here(&word).await?;
                return Ok(Ok(vec![(
                    descriptor,
                    Some(Stream::bytes(text::to_bytes(&body))),
                )]));
            }
            RedirectKind::HereText(word) => {
                let body = self.expand_text(word).await? + "\n";
                return Ok(Ok(vec![(
                    descriptor,
                    Some(Stream::bytes(text::to_bytes(&body))),
                )]));
            }
            RedirectKind::Duplicate(word) => {
                let from = self.expand_text(word).await?;
                if from == "-" {
                    return Ok(Ok(vec![(descriptor, None)]));
                }
                return Ok(match from.parse::<u32>() {
                    Ok(number) => match self.descriptors.get(&number) {
                        Some(stream) => Ok(vec![(descriptor, Some(Rc::clone(stream)))]),
                        None => Err(format!("{number}: Bad file descriptor")),
                    },
                    // `>&file`
                    Err(_) if descriptor == 1 => {
                        let options = OpenOptions::new()
                            .write(true)
                            .create(true)
                            .truncate(true)
                            .to_owned();
                        self.open(&from, options, true)
                            .map(|stream| vec![(1, Some(Rc::clone(&stream))), (2, Some(stream))])
                    }
                    Err(_) => return self.fail("syntax error: bad fd number").await,
                });
            }
        };
        let name = self.expand_text(word).await?;
        let creates = !matches!(redirect.kind, RedirectKind::Read(_));
        if matches!(redirect.kind, RedirectKind::Write(_)) && self.options.has("noclobber") {
            let path = self.cwd.join(&name);
            if path.is_file() {
                return Ok(Err(format!("can't create {name}: File exists")));
            }
        }
        let opened = self.open(&name, options, creates);
        Ok(opened.map(|stream| match redirect.kind {
            RedirectKind::Both(_) => vec![(1, Some(Rc::clone(&stream))), (2, Some(stream))],
            _ => vec![(descriptor, Some(stream))],
        }))
    }

    /// Opens a file, with the words of busybox if that fails.
    fn open(&self, name: &str, options: OpenOptions, creates: bool) -> Result<Rc<Stream>, String> {
        let number = match name {
            "/dev/null" => return Ok(Stream::null()),
            "/dev/stdin" => Some(0),
            "/dev/stdout" => Some(1),
            "/dev/stderr" => Some(2),
            _ => name
                .strip_prefix("/dev/fd/")
                .and_then(|number| number.parse().ok()),
        };
        let opened = match number.and_then(|number: u32| self.descriptors.get(&number)) {
            Some(stream) => return Ok(Rc::clone(stream)),
            None if name.is_empty() => Err(io::ErrorKind::NotFound.into()),
            None => open(&self.cwd.join(name), &options, creates),
        };
        opened.map(Stream::file).map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound
                || error.kind() == io::ErrorKind::NotADirectory;
            let reason = match (missing, creates) {
                (true, true) => "nonexistent directory".to_owned(),
                (true, false) => "no such file".to_owned(),
                (false, _) => super::words(&error),
            };
            let verb = if creates { "create" } else { "open" };
            format!("can't {verb} {name}: {reason}")
        })
    }

    /// The text of a here-document.
    async fn expand_here(&mut self, word: &super::syntax_tree::Word) -> Outcome<String> {
        let quoted = super::syntax_tree::Word(vec![super::syntax_tree::Part::Double(word.clone())]);
        self.expand_text(&quoted).await
    }
}

fn open(path: &Path, options: &OpenOptions, creates: bool) -> io::Result<File> {
    if creates && path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    options.open(path)
}
