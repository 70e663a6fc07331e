//! Fields as they stand in the bytes.
//!
//! Invariant: any bytes give fields, then at most one error; nothing is read beyond their end.

use super::DecodeError;
use super::table::Form;

/// The value of one field as it stands on the wire.
pub(super) enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Eight bytes.
    Double(f64),
    /// Four bytes; no served field is written so.
    Fixed,
}

impl<'a> Wire<'a> {
    /// What stands for nothing in the place of such a value.
    pub(super) fn empty(form: Form) -> Self {
        match form {
            Form::Bool | Form::Int => Self::Varint(0),
            Form::Double => Self::Double(0.0),
            _ => Self::Bytes(&[]),
        }
    }

    pub(super) fn bytes(&self, path: &str) -> Result<&'a [u8], DecodeError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Double(_) | Self::Fixed => {
                Err(DecodeError::WireType(path.to_owned()))
            }
        }
    }

    pub(super) fn text(&self, path: &str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(path)?).map_err(|_| DecodeError::NotText(path.to_owned()))
    }

    /// Signed numbers are written as the 64 bits of their two's complement.
    pub(super) fn number(&self, path: &str) -> Result<i64, DecodeError> {
        match self {
            Self::Varint(number) => Ok(number.cast_signed()),
            Self::Bytes(_) | Self::Double(_) | Self::Fixed => {
                Err(DecodeError::WireType(path.to_owned()))
            }
        }
    }

    pub(super) fn double(&self, path: &str) -> Result<f64, DecodeError> {
        match self {
            Self::Double(number) => Ok(*number),
            _ => Err(DecodeError::WireType(path.to_owned())),
        }
    }
}

/// The fields of a message in their order on the wire; an error is the last item.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Wire<'a>), DecodeError> {
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).map_err(|_| DecodeError::Truncated)?;
    let wire = match key & 7 {
        0 => Wire::Varint(varint(rest)?),
        1 => {
            let bytes = take(rest, 8)?.first_chunk::<8>();
            Wire::Double(f64::from_le_bytes(*bytes.ok_or(DecodeError::Truncated)?))
        }
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| DecodeError::Truncated)?;
            Wire::Bytes(take(rest, length)?)
        }
        5 => {
            take(rest, 4)?;
            Wire::Fixed
        }
        _ => return Err(DecodeError::WireType(format!("#{number}"))),
    };
    Ok((number, wire))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], DecodeError> {
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or(DecodeError::Truncated)?;
    *rest = tail;
    Ok(head)
}

/// Seven bits a byte, least first; ten bytes at most.
pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut number = 0_u64;
    for shift in (0..70).step_by(7) {
        let (first, tail) = rest.split_first().ok_or(DecodeError::Truncated)?;
        *rest = tail;
        // The tenth byte has room for one bit; what is beyond it is cut off, as in Go.
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DecodeError::Truncated)
}
