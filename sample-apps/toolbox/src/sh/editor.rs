//! The line editor: keys in, a line and what to draw out.
//!
//! Knows nothing of streams or files: [`Editor::key`] takes a byte and says what is to be done. A line that is wider
//! than the screen scrolls sideways, so that drawing never depends on where the screen wraps.

/// How many lines are remembered.
const HISTORY_MAX: usize = 500;

/// A line may be so long.
const LINE_CHARS_MAX: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Draw this.
    Draw(String),
    /// The line is done; draw the text.
    Done(String),
    /// ^C
    Cancel,
    /// ^D on an empty line.
    End,
    /// A tab: complete the word before the cursor. The second one in a row lists.
    Complete { again: bool },
}

pub struct Editor {
    prompt: String,
    width: usize,
    line: Vec<char>,
    cursor: usize,
    history: Vec<String>,
    /// Which line of the history shows; the one past the end is new.
    place: usize,
    /// The new line while the history shows.
    kept: Vec<char>,
    killed: Vec<char>,
    /// Bytes of an escape sequence.
    escape: Vec<u8>,
    /// Bytes of a character.
    partial: Vec<u8>,
    tabbed: bool,
    /// The last key was a carriage return: a newline right behind it is the same key.
    returned: bool,
}

impl Editor {
    pub fn new(width: usize) -> Self {
        Self {
            prompt: String::new(),
            width: width.max(20),
            line: Vec::new(),
            cursor: 0,
            history: Vec::new(),
            place: 0,
            kept: Vec::new(),
            killed: Vec::new(),
            escape: Vec::new(),
            partial: Vec::new(),
            tabbed: false,
            returned: false,
        }
    }

    /// Begins a line; gives what to draw.
    pub fn begin(&mut self, prompt: &str, width: usize) -> String {
        self.prompt = prompt.to_owned();
        self.width = width.max(20);
        self.line.clear();
        self.cursor = 0;
        self.place = self.history.len();
        self.escape.clear();
        self.partial.clear();
        self.draw()
    }

    pub fn remember(&mut self, line: &str) {
        let line = line.trim_end_matches('\n');
        if line.trim().is_empty() || self.history.last().is_some_and(|last| last == line) {
            return;
        }
        if self.history.len() >= HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(line.to_owned());
    }

    /// The text before the cursor.
    pub fn before_cursor(&self) -> String {
        self.line.iter().take(self.cursor).collect()
    }

    /// Types text, as completion does.
    pub fn insert(&mut self, text: &str) -> String {
        for character in text.chars() {
            if self.line.len() < LINE_CHARS_MAX {
                self.line.insert(self.cursor, character);
                self.cursor += 1;
            }
        }
        self.draw()
    }

    /// The prompt and the line again, with the cursor in its place.
    pub fn draw(&self) -> String {
        let prompt = self.prompt.rsplit('\n').next().unwrap_or_default();
        // Colours take no room.
        let mut taken = 0;
        let mut coloured = false;
        for character in prompt.chars() {
            match character {
                '\x1b' => coloured = true,
                character if coloured => coloured = !character.is_ascii_alphabetic(),
                _ => taken += 1,
            }
        }
        let room = self.width.saturating_sub(taken + 1).max(10);
        let from = self.cursor.saturating_sub(room.saturating_sub(1));
        let shown: String = self
            .line
            .iter()
            .skip(from)
            .take(room)
            .map(|character| {
                if character.is_control() {
                    '?'
                } else {
                    *character
                }
            })
            .collect();
        let back = shown.chars().count() - (self.cursor - from);
        let mut text = format!("\r{prompt}{shown}\x1b[K");
        if back > 0 {
            text.push_str(&format!("\x1b[{back}D"));
        }
        text
    }

    pub fn key(&mut self, byte: u8) -> Option<Action> {
        let tabbed = std::mem::replace(&mut self.tabbed, byte == b'\t');
        let returned = std::mem::replace(&mut self.returned, byte == b'\r');
        if !self.escape.is_empty() {
            return self.escaped(byte);
        }
        if !self.partial.is_empty() || byte >= 0x80 {
            return self.character(byte);
        }
        match byte {
            b'\n' if returned => None,
            b'\r' | b'\n' => {
                let line: String = self.line.iter().collect();
                Some(Action::Done(line))
            }
            0x01 => self.go(0),
            0x02 => self.go(self.cursor.saturating_sub(1)),
            0x03 => Some(Action::Cancel),
            0x04 if self.line.is_empty() => Some(Action::End),
            0x04 => self.delete(self.cursor, self.cursor + 1),
            0x05 => self.go(self.line.len()),
            0x06 => self.go(self.cursor + 1),
            0x08 | 0x7F => self.delete(self.cursor.saturating_sub(1), self.cursor),
            b'\t' => Some(Action::Complete { again: tabbed }),
            0x0B => self.kill(self.cursor, self.line.len()),
            0x0C => Some(Action::Draw(format!("\x1b[H\x1b[J{}", self.draw()))),
            0x0E => self.history(1),
            0x10 => self.history(-1),
            0x14 => self.transpose(),
            0x15 => self.kill(0, self.cursor),
            0x17 => self.kill(self.word_left(), self.cursor),
            0x19 => {
                let text: String = self.killed.iter().collect();
                Some(Action::Draw(self.insert(&text)))
            }
            0x1B => {
                self.escape.push(byte);
                None
            }
            0..0x20 => None,
            byte => Some(Action::Draw(self.insert(&char::from(byte).to_string()))),
        }
    }

    fn character(&mut self, byte: u8) -> Option<Action> {
        self.partial.push(byte);
        match std::str::from_utf8(&self.partial) {
            Ok(text) => {
                let text = text.to_owned();
                self.partial.clear();
                Some(Action::Draw(self.insert(&text)))
            }
            Err(error) if error.error_len().is_none() && self.partial.len() < 4 => None,
            Err(_) => {
                self.partial.clear();
                None
            }
        }
    }

    fn escaped(&mut self, byte: u8) -> Option<Action> {
        self.escape.push(byte);
        let sequence = self.escape.get(1..).unwrap_or_default();
        let whole = match sequence {
            [b'[' | b'O'] => false,
            [b'[', .., last] => last.is_ascii_alphabetic() || *last == b'~',
            _ => true,
        };
        if !whole && self.escape.len() < 16 {
            return None;
        }
        let sequence = std::mem::take(&mut self.escape);
        match sequence.get(1..).unwrap_or_default() {
            b"[A" | b"OA" => self.history(-1),
            b"[B" | b"OB" => self.history(1),
            b"[C" | b"OC" => self.go(self.cursor + 1),
            b"[D" | b"OD" => self.go(self.cursor.saturating_sub(1)),
            b"[H" | b"OH" | b"[1~" | b"[7~" => self.go(0),
            b"[F" | b"OF" | b"[4~" | b"[8~" => self.go(self.line.len()),
            b"[3~" => self.delete(self.cursor, self.cursor + 1),
            b"b" | b"[1;5D" | b"[1;3D" => self.go(self.word_left()),
            b"f" | b"[1;5C" | b"[1;3C" => self.go(self.word_right()),
            b"d" => self.kill(self.cursor, self.word_right()),
            [0x7F] => self.kill(self.word_left(), self.cursor),
            _ => None,
        }
    }

    fn go(&mut self, cursor: usize) -> Option<Action> {
        self.cursor = cursor.min(self.line.len());
        Some(Action::Draw(self.draw()))
    }

    fn delete(&mut self, from: usize, to: usize) -> Option<Action> {
        let to = to.min(self.line.len());
        if from >= to {
            return None;
        }
        self.line.drain(from..to);
        self.cursor = from;
        Some(Action::Draw(self.draw()))
    }

    fn kill(&mut self, from: usize, to: usize) -> Option<Action> {
        self.killed = self.line.get(from..to).unwrap_or_default().to_vec();
        self.delete(from, to)
    }

    fn word_left(&self) -> usize {
        let mut at = self.cursor;
        let blank = |at: usize| {
            self.line
                .get(at)
                .is_some_and(|character| character.is_whitespace())
        };
        while at > 0 && blank(at - 1) {
            at -= 1;
        }
        while at > 0 && !blank(at - 1) {
            at -= 1;
        }
        at
    }

    fn word_right(&self) -> usize {
        let mut at = self.cursor;
        let blank = |at: usize| {
            self.line
                .get(at)
                .is_some_and(|character| character.is_whitespace())
        };
        while at < self.line.len() && blank(at) {
            at += 1;
        }
        while at < self.line.len() && !blank(at) {
            at += 1;
        }
        at
    }

    fn transpose(&mut self) -> Option<Action> {
        let at = self.cursor.min(self.line.len().saturating_sub(1));
        if at == 0 {
            return None;
        }
        self.line.swap(at - 1, at);
        self.go(at + 1)
    }

    fn history(&mut self, step: isize) -> Option<Action> {
        let place = self
            .place
            .checked_add_signed(step)
            .filter(|place| *place <= self.history.len())?;
        if self.place == self.history.len() {
            self.kept = self.line.clone();
        }
        self.place = place;
        self.line = match self.history.get(place) {
            Some(line) => line.chars().collect(),
            None => std::mem::take(&mut self.kept),
        };
        self.go(self.line.len())
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Editor};

    fn type_in(editor: &mut Editor, keys: &[u8]) -> Vec<Action> {
        keys.iter()
            .filter_map(|key| editor.key(*key))
            .filter(|action| !matches!(action, Action::Draw(_)))
            .collect()
    }

    #[test]
    fn keys_edit_the_line() {
        for (keys, line) in [
            (&b"echo hi\r"[..], "echo hi"),
            (b"eco\x02h\r", "echo"),
            (b"abc\x7f\x7fx\r", "ax"),
            (b"one two\x17three\r", "one three"),
            (b"gone\x15kept\r", "kept"),
            (b"ab\x01x\x05y\r", "xaby"),
            (b"ab\x1b[D\x1b[Dx\x1b[C\x1b[3~\r", "xa"),
            (b"a b\x17\x19\x19\r", "a bb"),
            (b"ab\x14\r", "ba"),
            ("h\u{e9}\u{20ac}\x7f\r".as_bytes(), "h\u{e9}"),
            (b"\xff\xfe\x00ok\r", "ok"),
        ] {
            let mut editor = Editor::new(80);
            editor.begin("$ ", 80);
            assert_eq!(
                type_in(&mut editor, keys),
                [Action::Done(line.to_owned())],
                "{keys:?}"
            );
        }
    }

    #[test]
    fn arrows_bring_lines_back() {
        let mut editor = Editor::new(80);
        for line in ["first", "second", "second", " "] {
            editor.remember(line);
        }
        editor.begin("$ ", 80);
        let actions = type_in(&mut editor, b"new\x1b[A\x1b[A\x1b[A\x1b[B\r");
        assert_eq!(actions, [Action::Done("second".to_owned())]);
        editor.begin("$ ", 80);
        let actions = type_in(&mut editor, b"new\x1b[A\x1b[B!\r\n\x03\t\t");
        let complete = |again| Action::Complete { again };
        assert_eq!(
            actions,
            [
                Action::Done("new!".to_owned()),
                Action::Cancel,
                complete(false),
                complete(true)
            ]
        );
        editor.begin("$ ", 80);
        assert_eq!(type_in(&mut editor, b"\x04"), [Action::End]);
    }
}
