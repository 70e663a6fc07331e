//! Expansion: words to fields.
//!
//! In POSIX' order: tilde, parameters, substitutions and arithmetic, then splitting by `IFS`, file names, and the
//! removal of quotes. What was quoted is known character by character until the end, so that nothing of it is split or
//! matched.

use super::arithmetic;
use super::glob;
use super::pattern::{Pattern, Quotable};
use super::shell::{Outcome, Pending, Shell, TEXT_BYTES_MAX};
use super::syntax_tree::{Operation, Parameter, Part, Word, is_name};

/// How a word's parts are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mode {
    /// In double quotes: nothing is split or matched.
    quoted: bool,
    /// Fields are made at `IFS`.
    split: bool,
    /// The word's own text is split too, as in `${x-a b}`.
    split_text: bool,
}

#[derive(Default)]
struct Field {
    text: Quotable,
}

/// Fields as they come out.
struct Fields {
    done: Vec<Field>,
    current: Option<Field>,
    /// Blanks ended the last field, so that a separator that follows belongs to them.
    blank: bool,
    ifs: String,
    bytes: usize,
}

impl Fields {
    fn new(ifs: String) -> Self {
        Self {
            done: Vec::new(),
            current: None,
            blank: false,
            ifs,
            bytes: 0,
        }
    }

    fn field(&mut self) -> &mut Field {
        self.blank = false;
        self.current.get_or_insert_default()
    }

    fn end(&mut self) {
        self.done.extend(self.current.take());
    }

    fn push(&mut self, text: &str, quoted: bool) {
        self.bytes += text.len();
        if quoted || !text.is_empty() {
            self.field().text.push(text, quoted);
        }
    }

    fn push_split(&mut self, text: &str) {
        self.bytes += text.len();
        for character in text.chars() {
            if !self.ifs.contains(character) {
                self.field().text.0.push((character, false));
            } else if matches!(character, ' ' | '\t' | '\n') {
                if self.current.is_some() {
                    self.end();
                    self.blank = true;
                }
            } else if self.current.is_some() {
                self.end();
            } else if self.blank {
                self.blank = false;
            } else {
                self.done.push(Field::default());
            }
        }
    }

    fn add(&mut self, text: &str, mode: Mode) {
        match mode {
            Mode { quoted: true, .. } => self.push(text, true),
            Mode { split: true, .. } => self.push_split(text),
            _ => self.push(text, false),
        }
    }
}

impl Shell {
    /// All fields of a command's words.
    pub async fn expand_words(&mut self, words: &[Word]) -> Outcome<Vec<String>> {
        let mut arguments = Vec::with_capacity(words.len());
        for word in words {
            self.expand_word(word, &mut arguments).await?;
        }
        Ok(arguments)
    }

    /// The fields of one word.
    pub async fn expand_word(&mut self, word: &Word, into: &mut Vec<String>) -> Outcome<()> {
        if let Some(text) = word
            .as_text()
            .filter(|text| !text.contains(['*', '?', '[', '\\']))
        {
            into.push(text.to_owned());
            return Ok(());
        }
        let mode = Mode {
            quoted: false,
            split: true,
            split_text: false,
        };
        let fields = self.fields(word, mode).await?;
        for field in fields {
            let pattern = Pattern::new(&field.text);
            if !self.options.has("noglob") && pattern.is_special() {
                let names = glob::expand(&self.cwd, &field.text);
                if !names.is_empty() {
                    into.extend(names);
                    continue;
                }
            }
            into.push(field.text.text());
        }
        Ok(())
    }

    /// The text of a word that is not split: what is assigned, a redirection's file, `case`'s word.
    pub async fn expand_text(&mut self, word: &Word) -> Outcome<String> {
        if let Some(text) = word.as_text() {
            return Ok(text.to_owned());
        }
        Ok(self.expand_quotable(word).await?.text())
    }

    /// A word as a pattern.
    pub async fn expand_pattern(&mut self, word: &Word) -> Outcome<Pattern> {
        Ok(Pattern::new(&self.expand_quotable(word).await?))
    }

    async fn expand_quotable(&mut self, word: &Word) -> Outcome<Quotable> {
        let mode = Mode {
            quoted: false,
            split: false,
            split_text: false,
        };
        let fields = self.fields(word, mode).await?;
        let mut all = Quotable::default();
        for (place, field) in fields.into_iter().enumerate() {
            if place > 0 {
                all.push(" ", true);
            }
            all.0.extend(field.text.0);
        }
        Ok(all)
    }

    async fn fields(&mut self, word: &Word, mode: Mode) -> Outcome<Vec<Field>> {
        let ifs = self.variables.get("IFS").unwrap_or(" \t\n").to_owned();
        let mut fields = Fields::new(ifs);
        self.expand_parts(word, mode, &mut fields).await?;
        fields.end();
        Ok(fields.done)
    }

    fn expand_parts<'a>(
        &'a mut self,
        word: &'a Word,
        mode: Mode,
        fields: &'a mut Fields,
    ) -> Pending<'a, Outcome<()>> {
        Box::pin(async move {
            for part in &word.0 {
                match part {
                    Part::Text(text) if mode.quoted => fields.push(text, true),
                    Part::Text(text) if mode.split_text => fields.push_split(text),
                    Part::Text(text) => fields.push(text, false),
                    Part::Quoted(text) => fields.push(text, true),
                    Part::Double(inner) => {
                        let mode = Mode {
                            quoted: true,
                            ..mode
                        };
                        // `"$@"` without parameters is no field; everything else in quotes is one.
                        if !(self.arguments.is_empty() && is_all_arguments(inner)) {
                            fields.field();
                        }
                        self.expand_parts(inner, mode, fields).await?;
                    }
                    Part::Tilde(name) => match self.home(name) {
                        Some(home) => fields.push(&home, true),
                        None => fields.push(&format!("~{name}"), false),
                    },
                    Part::Arithmetic(inner) => {
                        let value = self.expand_arithmetic(inner).await?;
                        fields.add(&value.to_string(), mode);
                    }
                    Part::Command(list) => {
                        let output = self.substitute(list).await?;
                        fields.add(&output, mode);
                    }
                    Part::Parameter(parameter) => {
                        self.expand_parameter(parameter, mode, fields).await?
                    }
                }
                if fields.bytes > TEXT_BYTES_MAX {
                    return self
                        .fail(&format!("a word of more than {TEXT_BYTES_MAX} bytes"))
                        .await;
                }
            }
            Ok(())
        })
    }

    fn home(&self, name: &str) -> Option<String> {
        match name {
            "" => self.variables.get("HOME").map(str::to_owned),
            "root" => Some("/root".to_owned()),
            _ => None,
        }
    }

    /// The value of `$(( ))`.
    pub async fn expand_arithmetic(&mut self, word: &Word) -> Outcome<i64> {
        let mode = Mode {
            quoted: true,
            split: false,
            split_text: false,
        };
        let fields = self.fields(word, mode).await?;
        let text: String = fields.iter().map(|field| field.text.text()).collect();
        match arithmetic::evaluate(&text, &mut self.variables) {
            Ok(value) => Ok(value),
            Err(message) => self.fail(&message).await,
        }
    }

    /// The value of a parameter that is not a list.
    pub fn parameter(&mut self, name: &str) -> Option<String> {
        match name {
            "?" => Some(self.status.to_string()),
            "$" => Some(self.main_pid.to_string()),
            "!" => self.last_job.map(|pid| pid.to_string()),
            "#" => Some(self.arguments.len().to_string()),
            "-" => Some(self.options.letters()),
            "0" => Some(self.arg0.clone()),
            "@" | "*" => {
                let separator = match name {
                    "@" => " ".to_owned(),
                    _ => self.separator(),
                };
                Some(self.arguments.join(&separator)).filter(|_| !self.arguments.is_empty())
            }
            _ if name.starts_with(|first: char| first.is_ascii_digit()) => {
                let place: usize = name.parse().ok()?;
                match place {
                    0 => Some(self.arg0.clone()),
                    place => self.arguments.get(place - 1).cloned(),
                }
            }
            _ => self.variables.read(name),
        }
    }

    /// What joins `"$*"`.
    fn separator(&self) -> String {
        match self.variables.get("IFS") {
            None => " ".to_owned(),
            Some(ifs) => ifs.chars().take(1).collect(),
        }
    }

    async fn expand_parameter(
        &mut self,
        parameter: &Parameter,
        mode: Mode,
        fields: &mut Fields,
    ) -> Outcome<()> {
        let name = parameter.name.as_str();
        let list = matches!(name, "@" | "*");
        let value = self.parameter(name);
        let missing = |null: bool| match &value {
            None => true,
            Some(value) => null && value.is_empty(),
        };
        match &parameter.operation {
            Operation::Default { null, word } if missing(*null) => {
                let mode = Mode {
                    split_text: mode.split,
                    ..mode
                };
                return self.expand_parts(word, mode, fields).await;
            }
            Operation::Alternative { null, word } => {
                if missing(*null) {
                    return Ok(());
                }
                let mode = Mode {
                    split_text: mode.split,
                    ..mode
                };
                return self.expand_parts(word, mode, fields).await;
            }
            Operation::Assign { null, word } if missing(*null) => {
                if !is_name(name) {
                    return self.fail(&format!("{name}: bad variable name")).await;
                }
                let text = self.expand_text_in(word, mode).await?;
                self.assign(name, text.clone()).await?;
                fields.add(&text, mode);
                return Ok(());
            }
            Operation::Require { null, word } if missing(*null) => {
                let text = self.expand_text_in(word, mode).await?;
                let message = match text.as_str() {
                    "" if *null => format!("{name}: parameter not set or null"),
                    "" => format!("{name}: parameter not set"),
                    text => format!("{name}: {text}"),
                };
                return self.fail(&message).await;
            }
            Operation::Bad => return self.fail("syntax error: bad substitution").await,
            _ => {}
        }
        let is_value = matches!(
            parameter.operation,
            Operation::Plain
                | Operation::Default { .. }
                | Operation::Assign { .. }
                | Operation::Require { .. }
        );
        if value.is_none() && self.options.has("nounset") && !list {
            return self.fail(&format!("{name}: parameter not set")).await;
        }
        if list && is_value {
            self.expand_arguments(name, mode, fields);
            return Ok(());
        }
        let value = value.unwrap_or_default();
        let result = match &parameter.operation {
            Operation::Length => value.chars().count().to_string(),
            Operation::RemovePrefix { longest, pattern } => {
                let pattern = self.expand_pattern(pattern).await?;
                pattern.without_prefix(&value, *longest)
            }
            Operation::RemoveSuffix { longest, pattern } => {
                let pattern = self.expand_pattern(pattern).await?;
                pattern.without_suffix(&value, *longest)
            }
            Operation::Replace { all, pattern, with } => {
                let pattern = self.expand_pattern(pattern).await?;
                let with = self.expand_text(with).await?;
                pattern.replace(&value, &with, *all)
            }
            Operation::Slice { offset, length } => {
                let offset = self.expand_arithmetic(offset).await?;
                let length = match length {
                    Some(length) => Some(self.expand_arithmetic(length).await?),
                    None => None,
                };
                slice(&value, offset, length)
            }
            _ => value,
        };
        fields.add(&result, mode);
        Ok(())
    }

    async fn expand_text_in(&mut self, word: &Word, mode: Mode) -> Outcome<String> {
        let mode = Mode {
            split: false,
            split_text: false,
            ..mode
        };
        let fields = self.fields(word, mode).await?;
        let texts: Vec<_> = fields.iter().map(|field| field.text.text()).collect();
        Ok(texts.join(" "))
    }

    /// `$@` and `$*`.
    fn expand_arguments(&mut self, name: &str, mode: Mode, fields: &mut Fields) {
        let arguments = std::rc::Rc::clone(&self.arguments);
        if mode.quoted && name == "*" || !mode.split {
            let separator = match name {
                "@" => " ".to_owned(),
                _ => self.separator(),
            };
            if !arguments.is_empty() {
                fields.add(&arguments.join(&separator), mode);
            }
            return;
        }
        for (place, argument) in arguments.iter().enumerate() {
            if place > 0 {
                fields.end();
                fields.blank = false;
            }
            match mode.quoted {
                true => fields.push(argument, true),
                false => fields.push_split(argument),
            }
        }
    }
}

/// Whether a quoted word is `$@` alone.
fn is_all_arguments(word: &Word) -> bool {
    match word.0.as_slice() {
        [] => false,
        parts => parts.iter().all(|part| {
            matches!(part, Part::Parameter(parameter) if parameter.name == "@" && matches!(parameter.operation, Operation::Plain))
        }),
    }
}

/// `${x:offset:length}`: a negative offset counts from the end, a negative length ends before it.
fn slice(value: &str, offset: i64, length: Option<i64>) -> String {
    let count = i64::try_from(value.chars().count()).unwrap_or(i64::MAX);
    let from = match offset {
        0.. => offset.min(count),
        _ => count.saturating_add(offset),
    };
    if from < 0 {
        return String::new();
    }
    let to = match length {
        None => count,
        Some(length @ 0..) => from.saturating_add(length).min(count),
        Some(length) => count.saturating_add(length),
    };
    let skip = usize::try_from(from).unwrap_or(usize::MAX);
    let take = usize::try_from(to.saturating_sub(from)).unwrap_or(0);
    value.chars().skip(skip).take(take).collect()
}
