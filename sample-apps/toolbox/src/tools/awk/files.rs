//! The files that an awk program is run over: those that `ARGV` names, with the assignments between them, or standard input.

use super::input::{Records, Separator};
use super::interpreter::{ARGC, ARGV, FILENAME, FNR, Interpreter, NF, NR, RS, Result};
use super::value::Value;

impl Interpreter<'_> {
    /// The next record of the files that are named.
    pub async fn read_main(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            if self.main.is_none() && !self.open_next().await? {
                return Ok(None);
            }
            let separator = self.separator()?;
            let Some(main) = &mut self.main else {
                return Ok(None);
            };
            match main.next(&separator).await {
                Ok(Some(record)) => {
                    for place in [NR, FNR] {
                        let number = self.scalar(place).number() + 1.0;
                        self.set_special(place, Value::Number(number));
                    }
                    return Ok(Some(record));
                }
                Ok(None) => self.main = None,
                Err(error) => {
                    let name = String::from_utf8_lossy(&self.special(FILENAME)).into_owned();
                    self.call
                        .fault(format!("{name}: {}", crate::tools::call::reason(&error)))
                        .await;
                    (self.main, self.exit_code) = (None, 1);
                }
            }
        }
    }

    async fn open_next(&mut self) -> Result<bool> {
        loop {
            let count = self.scalar(ARGC).number();
            if self.argument as f64 >= count {
                if self.files_seen {
                    return Ok(false);
                }
                self.files_seen = true;
                self.main = Some(Records::new(self.call.io.stdin.clone()));
                return Ok(true);
            }
            let key = self.argument.to_string().into_bytes();
            self.argument += 1;
            let argv = self.global_array(ARGV)?;
            let name = argv.borrow().get(&key).map(|value| value.bytes(b"%.6g"));
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                continue;
            };
            let name = String::from_utf8_lossy(&name).into_owned();
            if let Some((variable, value)) = assignment(&name) {
                self.assign_named(variable, value);
                continue;
            }
            self.files_seen = true;
            match self.call.open(&name) {
                Ok(input) => {
                    self.set_special(FILENAME, Value::text(name));
                    self.set_special(FNR, Value::Number(0.0));
                    self.main = Some(Records::new(input));
                    return Ok(true);
                }
                Err(error) => {
                    self.call
                        .fault(format!("{name}: {}", crate::tools::call::reason(&error)))
                        .await;
                    self.exit_code = 1;
                }
            }
        }
    }

    /// Sets a variable by its name, as `-v` does. One that the program does not use is not kept.
    pub fn assign_named(&mut self, name: &str, value: &str) {
        let place = self.program.globals.iter().position(|known| known == name);
        if let Some(place) = place {
            let value = Value::input(super::lexer::unescape(value.as_bytes()));
            if place == NF {
                return;
            }
            self.set_special(place, value);
        }
    }

    pub fn separator(&mut self) -> Result<Separator> {
        let text = self.special(RS);
        Ok(match text.as_slice() {
            [] => Separator::Paragraph,
            [byte] => Separator::Byte(*byte),
            _ => Separator::Pattern(self.pattern(&text)?),
        })
    }
}

/// `name=value`, where the name is one.
fn assignment(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let mut letters = name.chars();
    let first = letters.next()?;
    let named = (first.is_ascii_alphabetic() || first == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_');
    named.then_some((name, value))
}
