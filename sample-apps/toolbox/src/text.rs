//! Bytes as text and back, without loss.
//!
//! What is no UTF-8 becomes one private code point a byte (U+10FF80 to U+10FFFF), as does UTF-8 that already says one
//! of these, so that turning back always gives the same bytes.

const FIRST: u32 = 0x10_FF00;

fn escape(byte: u8, into: &mut String) {
    into.extend(char::from_u32(FIRST + u32::from(byte)));
}

fn is_escape(character: char) -> bool {
    (FIRST + 0x80..=FIRST + 0xFF).contains(&(character as u32))
}

/// Text for any bytes.
pub fn from_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        if chunk.valid().chars().any(is_escape) {
            for character in chunk.valid().chars() {
                if is_escape(character) {
                    let mut room = [0; 4];
                    character
                        .encode_utf8(&mut room)
                        .bytes()
                        .for_each(|byte| escape(byte, &mut text));
                } else {
                    text.push(character);
                }
            }
        } else {
            text.push_str(chunk.valid());
        }
        chunk
            .invalid()
            .iter()
            .for_each(|byte| escape(*byte, &mut text));
    }
    text
}

/// The bytes of such a text.
pub fn to_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut room = [0; 4];
    for character in text.chars() {
        if is_escape(character) {
            bytes.push((character as u32 - FIRST) as u8);
        } else {
            bytes.extend_from_slice(character.encode_utf8(&mut room).as_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_come_back() {
        let all: Vec<u8> = (0..=255)
            .chain(*b"\xF4\x8F\xBE\x80 \xC3\xA9 \xE2\x82")
            .collect();
        assert_eq!(super::to_bytes(&super::from_bytes(&all)), all);
    }
}
