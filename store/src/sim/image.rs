//! The bytes of a simulated file, in pages that copies share: the power cuts make ten thousand disks out of one.

use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

/// A file's bytes. A clone costs a pointer a page; a page that was never written costs nothing.
#[derive(Debug, Default, Clone)]
pub(super) struct Image {
    length: usize,
    pages: Vec<Option<Arc<[u8; PAGE_BYTES]>>>,
}

impl Image {
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Cuts the file off, or makes it longer by zeros.
    pub(super) fn set_length(&mut self, length: usize) {
        if length < self.length
            && let Some(Some(page)) = self.pages.get_mut(length / PAGE_BYTES)
        {
            // Should it grow again, what was cut off has to be gone.
            Arc::make_mut(page)[length % PAGE_BYTES..].fill(0);
        }
        self.pages.resize(length.div_ceil(PAGE_BYTES), None);
        self.length = length;
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        if offset + data.len() > self.length {
            self.set_length(offset + data.len());
        }
        for (page, within, part) in parts(offset, data.len()) {
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[within..within + part.len()].copy_from_slice(&data[part]);
        }
    }

    /// Fills `out` from `offset` on; `None` if the file ends before that.
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        if offset.checked_add(out.len())? > self.length {
            return None;
        }
        for (page, within, part) in parts(offset, out.len()) {
            let out = &mut out[part];
            match &self.pages[page] {
                Some(page) => out.copy_from_slice(&page[within..within + out.len()]),
                None => out.fill(0),
            }
        }
        Some(())
    }
}

/// The pages that `length` bytes at `offset` lie on: which, from where in it, and which of the bytes.
fn parts(
    offset: usize,
    length: usize,
) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let within = (offset + done) % PAGE_BYTES;
        let page = (offset + done) / PAGE_BYTES;
        let part = done..length.min(done + PAGE_BYTES - within);
        done = part.end;
        (!part.is_empty()).then_some((page, within, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::random::Random;

    #[test]
    fn it_holds_what_a_vector_holds() {
        let mut random = Random::new(1, 1);
        let (mut image, mut bytes) = (Image::default(), Vec::new());
        for turn in 0..2000 {
            let length = random.below(3 * PAGE_BYTES as u64) as usize;
            let offset = random.below(6 * PAGE_BYTES as u64) as usize;
            if random.chance(1, 4) {
                image.set_length(offset);
                bytes.resize(offset, 0);
            } else {
                let data = vec![turn as u8; length];
                image.write(offset, &data);
                bytes.resize(bytes.len().max(offset + length), 0);
                bytes[offset..offset + length].copy_from_slice(&data);
            }
            let copy = image.clone();
            image.write(0, &[]);
            let mut found = vec![7; bytes.len()];
            copy.read(0, &mut found).expect("as long as that");
            assert!(found == bytes, "turn {turn}");
            assert_eq!(copy.read(1, &mut found), None);
        }
    }
}
