//! The frame around every record on disk, and the two cursors that build and read bodies.
//!
//! Frame: `crc32c (4, little endian) ‖ version (1) ‖ body`. The checksum covers a context (the table key under
//! which the record lies), the version and the body, so a record found under the wrong key fails too.
//! The frame itself never changes; only bodies have versions.
//!
//! Invariants: reading never panics and never allocates more than the record's own length.

use bytes::Bytes;

use crate::error::DecodeError;

const FRAME_BYTES: usize = 5;

fn checksum(context: &[u8], rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(context), rest)
}

/// Builds one record.
pub(crate) struct Writer {
    record: Vec<u8>,
    packs: bool,
}

impl Writer {
    pub(crate) fn new(version: u8) -> Self {
        let mut record = Vec::with_capacity(64);
        record.extend_from_slice(&[0, 0, 0, 0, version]);
        Writer {
            record,
            packs: true,
        }
    }

    /// A record for a reader of before values were compressed.
    pub(crate) fn unpacking(version: u8) -> Self {
        Writer {
            packs: false,
            ..Writer::new(version)
        }
    }

    /// Whether values may be compressed in it.
    pub(crate) fn packs(&self) -> bool {
        self.packs
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.record.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.record.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.record.extend_from_slice(&value.to_le_bytes());
    }

    /// A count of things held in memory; the size limits on commands keep it far below `u32::MAX`.
    pub(crate) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("command limits keep every count below 2^32"));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.record.extend_from_slice(bytes);
    }

    /// Bytes up to the end of the record, without a length of their own.
    pub(crate) fn tail(&mut self, bytes: &[u8]) {
        self.record.extend_from_slice(bytes);
    }

    pub(crate) fn finish(mut self, context: &[u8]) -> Vec<u8> {
        let sum = checksum(context, &self.record[4..]);
        self.record[..4].copy_from_slice(&sum.to_le_bytes());
        self.record
    }
}

/// Reads one record, front to back.
pub(crate) struct Reader {
    rest: Bytes,
    version: u8,
}

impl Reader {
    /// Checks the frame; refuses a version above `supported`.
    pub(crate) fn open(
        mut record: Bytes,
        context: &[u8],
        supported: u8,
    ) -> Result<Self, DecodeError> {
        if record.len() < FRAME_BYTES {
            return Err(DecodeError::Truncated);
        }
        let sum = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
        if sum != checksum(context, &record[4..]) {
            return Err(DecodeError::Checksum);
        }
        let version = record[4];
        if version == 0 || version > supported {
            return Err(DecodeError::Version {
                found: version,
                supported,
            });
        }
        Ok(Reader {
            rest: record.split_off(FRAME_BYTES),
            version,
        })
    }

    /// The version the body was written in.
    pub(crate) fn version(&self) -> u8 {
        self.version
    }

    fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if self.rest.len() < length {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.split_to(length))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        let mut eight = [0; 8];
        eight.copy_from_slice(&self.take(8)?);
        Ok(u64::from_le_bytes(eight))
    }

    /// A count of things that take at least so many bytes each: more than the bytes left have room for is a lie, found before
    /// anything is allocated for them.
    pub(crate) fn count(&mut self, each_bytes_min: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > self.rest.len() / each_bytes_min {
            return Err(DecodeError::Truncated);
        }
        Ok(count)
    }

    pub(crate) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(crate) fn flag(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(DecodeError::Tag { what, tag }),
        }
    }

    pub(crate) fn tail(self) -> Bytes {
        self.rest
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing {
                bytes: self.rest.len(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let mut writer = Writer::new(1);
        writer.u64(7);
        writer.bytes(b"value");
        let record = writer.finish(b"key");
        for bit in 0..record.len() * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                Reader::open(Bytes::from(bad), b"key", 1).is_err(),
                "bit {bit}"
            );
        }
        for length in 0..record.len() {
            let cut = Bytes::copy_from_slice(&record[..length]);
            assert!(Reader::open(cut, b"key", 1).is_err(), "length {length}");
        }
        assert!(Reader::open(Bytes::from(record), b"other key", 1).is_err());
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let record = Bytes::from(Writer::new(2).finish(b""));
        let error = Reader::open(record, b"", 1).err().expect("refused");
        assert_eq!(
            error.to_string(),
            "it has format 2, and this program reads formats up to 1; use a newer weft"
        );
    }

    #[test]
    fn a_count_larger_than_the_record_is_refused() {
        let mut writer = Writer::new(1);
        writer.u32(u32::MAX);
        let record = Bytes::from(writer.finish(b""));
        let mut reader = Reader::open(record, b"", 1).expect("frame is sound");
        assert!(matches!(reader.count(1), Err(DecodeError::Truncated)));
    }
}
