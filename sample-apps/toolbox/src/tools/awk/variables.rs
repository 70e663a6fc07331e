//! What an awk program reads and writes by name and number: variables, arrays, the record and its fields.
//!
//! The record is cut into fields when one is asked for, by the `FS` that it was read under, and joined again when it is asked for whole.

use std::rc::Rc;

use crate::tools::call::Stop;
use crate::tools::pattern::Pattern;

use super::interpreter::{Array, CONVFMT, Cell, FS, Interpreter, NF, OFS, RS, Result};
use super::syntax_tree::Place;
use super::value::Value;

/// A field's number; beyond it is a mistake, and memory.
const FIELDS_MAX: usize = 1 << 22;

impl Interpreter<'_> {
    pub fn scalar(&self, place: usize) -> Value {
        match self.globals.get(place) {
            Some(Cell::Scalar(value)) => value.clone(),
            _ => Value::Unset,
        }
    }

    pub fn special(&self, place: usize) -> Rc<Vec<u8>> {
        self.scalar(place).bytes(b"%.6g")
    }

    pub fn set_special(&mut self, place: usize, value: Value) {
        if let Some(slot) = self.globals.get_mut(place) {
            *slot = Cell::Scalar(value);
        }
    }

    pub fn cell(&mut self, place: Place) -> Option<&mut Cell> {
        match place {
            Place::Global(index) => self.globals.get_mut(index),
            Place::Local(index) => self.frames.last_mut()?.get_mut(index),
        }
    }

    pub fn global_array(&mut self, place: usize) -> Result<Array> {
        self.array(Place::Global(place))
    }

    pub fn array(&mut self, place: Place) -> Result<Array> {
        let cell = self
            .cell(place)
            .ok_or_else(|| Stop::Failed(1, "no such variable".into()))?;
        match cell {
            Cell::Array(array) => Ok(Rc::clone(array)),
            Cell::Scalar(Value::Unset) => {
                let array = Array::default();
                *cell = Cell::Array(Rc::clone(&array));
                Ok(array)
            }
            Cell::Scalar(_) => Err(Stop::Failed(
                1,
                "a variable is used as an array and as a value".into(),
            )),
        }
    }

    pub fn is_array(&mut self, place: Place) -> bool {
        matches!(self.cell(place), Some(Cell::Array(_)))
    }

    pub fn read(&mut self, place: Place) -> Result<Value> {
        if place == Place::Global(NF) {
            self.split_record()?;
        }
        match self.cell(place) {
            Some(Cell::Scalar(value)) => Ok(value.clone()),
            _ => Err(Stop::Failed(1, "an array is used as a value".into())),
        }
    }

    pub fn write(&mut self, place: Place, value: Value) -> Result<()> {
        // A new separator is for the records to come.
        if place == Place::Global(FS) {
            self.split_record()?;
        }
        if place == Place::Global(NF) {
            self.split_record()?;
            let count = self.field_number(value.number())?;
            self.fields.resize(count, Value::Unset);
            self.joined = false;
            self.set_special(NF, Value::Number(count as f64));
            return Ok(());
        }
        match self.cell(place) {
            Some(cell @ Cell::Scalar(_)) => {
                *cell = Cell::Scalar(value);
                Ok(())
            }
            _ => Err(Stop::Failed(1, "an array is used as a value".into())),
        }
    }

    pub fn set_record(&mut self, record: Vec<u8>) {
        self.record = Rc::new(record);
        (self.split, self.joined) = (false, true);
    }

    pub fn record(&mut self) -> Rc<Vec<u8>> {
        if !self.joined {
            let separator = self.special(OFS);
            let format = self.special(CONVFMT);
            let mut text = Vec::new();
            for (index, field) in self.fields.iter().enumerate() {
                if index > 0 {
                    text.extend_from_slice(&separator);
                }
                text.extend_from_slice(&field.bytes(&format));
            }
            (self.record, self.joined) = (Rc::new(text), true);
        }
        Rc::clone(&self.record)
    }

    pub fn split_record(&mut self) -> Result<()> {
        if self.split {
            return Ok(());
        }
        self.split = true;
        let separator = self.special(FS);
        let paragraph = self.special(RS).is_empty();
        let record = Rc::clone(&self.record);
        let mut parts = self.parts(&record, &separator)?;
        if paragraph && separator.as_slice() != b" " {
            parts = parts
                .iter()
                .flat_map(|part| part.split(|byte| *byte == b'\n'))
                .map(<[u8]>::to_vec)
                .collect();
        }
        self.fields = parts.into_iter().map(Value::input).collect();
        self.set_special(NF, Value::Number(self.fields.len() as f64));
        Ok(())
    }

    /// A text cut by a separator as `FS` and `split` cut.
    pub fn parts(&mut self, text: &[u8], separator: &[u8]) -> Result<Vec<Vec<u8>>> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        Ok(match separator {
            b" " => text
                .split(|byte| matches!(byte, b' ' | b'\t' | b'\n'))
                .filter(|part| !part.is_empty())
                .map(<[u8]>::to_vec)
                .collect(),
            [] => text.iter().map(|byte| vec![*byte]).collect(),
            [byte] if *byte != b'\\' => text
                .split(|found| found == byte)
                .map(<[u8]>::to_vec)
                .collect(),
            pattern => {
                let pattern = self.pattern(pattern)?;
                cut(text, &pattern)
            }
        })
    }

    pub fn field_number(&self, number: f64) -> Result<usize> {
        if !(0.0..FIELDS_MAX as f64).contains(&number) {
            return Err(Stop::Failed(1, "Access to negative field".into()));
        }
        Ok(number as usize)
    }

    pub fn field(&mut self, number: f64) -> Result<Value> {
        match self.field_number(number)? {
            0 => Ok(Value::input(self.record().to_vec())),
            index => {
                self.split_record()?;
                Ok(self.fields.get(index - 1).cloned().unwrap_or_default())
            }
        }
    }

    pub fn set_field(&mut self, number: f64, value: Value) -> Result<()> {
        let index = self.field_number(number)?;
        if index == 0 {
            let format = self.special(CONVFMT);
            self.set_record(value.bytes(&format).to_vec());
            return Ok(());
        }
        self.split_record()?;
        if index > self.fields.len() {
            self.fields.resize(index, Value::text(""));
            self.set_special(NF, Value::Number(index as f64));
        }
        if let Some(slot) = self.fields.get_mut(index - 1) {
            *slot = value;
        }
        self.joined = false;
        Ok(())
    }
}

/// A text cut at the matches of an expression.
pub fn cut(text: &[u8], pattern: &Pattern) -> Vec<Vec<u8>> {
    let (mut parts, mut start, mut at) = (Vec::new(), 0, 0);
    while let Some((from, to)) = pattern.find_at(text, at) {
        if to == from {
            at = to + 1;
            if at > text.len() {
                break;
            }
            continue;
        }
        parts.push(text.get(start..from).unwrap_or_default().to_vec());
        (start, at) = (to, to);
    }
    parts.push(text.get(start..).unwrap_or_default().to_vec());
    parts
}
