//! Values with a reader of their own in Go: quantities, times, bytes, numbers that may be names.
//!
//! Each is parsed as Go parses it, told in Go's words when it does not fit, and has one canonical spelling.
//! Source: k8s.io/apimachinery `resource.Quantity`, `metav1.Time`, `metav1.MicroTime`, `intstr.IntOrString`; Go's `time.Parse` and
//! `encoding/base64`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use weft_api::quantity::Quantity;
use weft_api::time::{TimeError, WireTime};

pub(super) use crate::schema::Special;

/// What Kubernetes says of a text that is no quantity.
pub(super) const QUANTITY_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

impl Special {
    pub(super) fn zero(self) -> Value {
        match self {
            Self::Bytes | Self::MicroTime | Self::Time => Value::Null,
            Self::IntOrString => 0.into(),
            Self::Quantity => "0".into(),
        }
    }

    /// The Go type that its reader hands the JSON to; none for one that reads the text itself.
    pub(super) fn decodes_through(self) -> Option<&'static str> {
        match self {
            Self::Bytes => Some("[]uint8"),
            Self::IntOrString => Some("int32"),
            Self::MicroTime | Self::Time => Some("string"),
            Self::Quantity => None,
        }
    }

    /// The canonical value of a JSON string.
    ///
    /// # Errors
    /// Go's sentence.
    pub(super) fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Bytes => bytes(text),
            Self::IntOrString => Ok(text.into()),
            Self::MicroTime => time(WireTime::parse_micro(text), WireTime::rfc3339_micros),
            Self::Quantity => quantity(text),
            Self::Time => time(WireTime::parse(text), WireTime::rfc3339),
        }
    }
}

/// Whether a text is its own canonical form at first sight, as nearly all are that were written by a server. What this does not know, it denies.
pub(super) fn is_plain(special: Special, text: &str) -> bool {
    match special {
        Special::IntOrString => true,
        Special::Time => is_plain_time(text.as_bytes()),
        Special::Quantity => is_plain_quantity(text),
        Special::Bytes | Special::MicroTime => false,
    }
}

/// `2026-01-02T03:04:05Z`, on a day that every month has.
fn is_plain_time(text: &[u8]) -> bool {
    const FORM: &[u8; 20] = b"dddd-dd-ddTdd:dd:ddZ";
    let Ok(text): Result<&[u8; 20], _> = text.try_into() else {
        return false;
    };
    let fits = text.iter().zip(FORM).all(|(byte, form)| match form {
        b'd' => byte.is_ascii_digit(),
        sign => byte == sign,
    });
    let number = |from: usize, upto: usize| {
        let digits = text[from..upto].iter();
        digits.fold(0, |number, digit| number * 10 + u32::from(digit & 0xf))
    };
    fits && number(0, 4) >= 1970
        && (1..=12).contains(&number(5, 7))
        && (1..=28).contains(&number(8, 10))
        && number(11, 13) < 24
        && number(14, 16) < 60
        && number(17, 19) < 60
}

/// A whole number that no larger unit could tell.
fn is_plain_quantity(text: &str) -> bool {
    const DIGITS_MAX: usize = 9;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if !(1..=DIGITS_MAX).contains(&digits) || number.starts_with('0') {
        return false;
    }
    match unit {
        "" | "m" | "k" | "M" | "G" => !number.ends_with("000"),
        "Ki" | "Mi" | "Gi" => number
            .parse()
            .is_ok_and(|number: u32| !number.is_multiple_of(1024)),
        _ => false,
    }
}

/// A quantity in its canonical form.
pub(super) fn quantity(text: &str) -> Result<Value, String> {
    let text = text.trim();
    match Quantity::canonical(text) {
        Ok(canonical) => Ok(canonical.into()),
        Err(error) => Err(error.to_string()),
    }
}

pub(super) fn base64(bytes: &[u8]) -> Value {
    STANDARD.encode(bytes).into()
}

/// Bytes in base64, with line breaks wherever; canonical without.
fn bytes(text: &str) -> Result<Value, String> {
    let broken = text.contains(['\r', '\n']);
    let joined = match broken {
        true => text.replace(['\r', '\n'], ""),
        false => text.to_owned(),
    };
    // Bits that a last digit has too many are nobody's, to Go; the canonical form has none.
    match LENIENT.decode(&joined) {
        Ok(bytes) => Ok(base64(&bytes)),
        Err(_) => Err(format!(
            "illegal base64 data at input byte {}",
            corrupt_at(text, |byte| matches!(byte, b'+' | b'/'))
        )),
    }
}

/// Bytes in the alphabet of URLs, as what reads a structural schema's `byte` for a rule takes them.
///
/// # Errors
/// Go's sentence.
pub(crate) fn url_bytes(text: &str) -> Result<Vec<u8>, String> {
    let told = |_| {
        let at = corrupt_at(text, |byte| matches!(byte, b'-' | b'_'));
        format!("illegal base64 data at input byte {at}")
    };
    URL_LENIENT
        .decode(text.replace(['\r', '\n'], ""))
        .map_err(told)
}

const URL_LENIENT: base64::engine::GeneralPurpose = base64::engine::GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

const LENIENT: base64::engine::GeneralPurpose = base64::engine::GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    base64::engine::GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Where Go's decoder stops at a text that is no base64. It reads quanta of four digits, past line breaks.
fn corrupt_at(text: &str, is_sign: fn(u8) -> bool) -> usize {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || is_sign(byte);
    let mut bytes = text
        .bytes()
        .enumerate()
        .filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'));
    loop {
        for place in 0..4 {
            match bytes.next() {
                None if place == 0 => return text.len(),
                // What is missing is told from where the quantum began.
                None => return text.len() - place,
                Some((_, byte)) if is_digit(byte) => {}
                Some((at, b'=')) if place >= 2 => {
                    if place == 2 {
                        match bytes.next() {
                            None => return text.len(),
                            Some((_, b'=')) => {}
                            Some((at, _)) => return at - 1,
                        }
                    }
                    return bytes.next().map_or(at, |(at, _)| at);
                }
                Some((at, _)) => return at,
            }
        }
    }
}

/// A time in its canonical form; Go's zero time stands for none.
fn time(
    read: Result<WireTime, TimeError>,
    written: fn(WireTime) -> String,
) -> Result<Value, String> {
    match read {
        Ok(time) if time.is_zero() => Ok(Value::Null),
        Ok(time) => Ok(written(time).into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_plain_is_its_own_form() {
        let same = |special: Special, text: &str| special.parse(text) == Ok(text.into());
        let mut known = 0;
        for unit in ["", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "e3", "n"] {
            for number in (0..=2_100).chain([4_000, 65_536, 999_999_999, 1_000_000_000]) {
                for text in [format!("{number}{unit}"), format!("0{number}{unit}")] {
                    if is_plain(Special::Quantity, &text) {
                        assert!(same(Special::Quantity, &text), "{text}");
                        known += 1;
                    }
                }
            }
        }
        assert!(known > 10_000, "{known}");
        let digits = [
            "00", "01", "12", "13", "23", "24", "28", "29", "59", "60", "x1", "-1",
        ];
        let mut times = 0;
        for year in ["0001", "1969", "1970", "2026", "9999"] {
            for part in 0..5 {
                for two in digits {
                    let mut parts = ["02", "03", "04", "05", "06"];
                    parts[part] = two;
                    let [month, day, hour, minute, second] = parts;
                    let text = format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z");
                    if is_plain(Special::Time, &text) {
                        assert!(same(Special::Time, &text), "{text}");
                        times += 1;
                    }
                }
            }
        }
        assert!(times > 80, "{times}");
        for (special, text) in [
            (Special::Time, "2026-01-02t03:04:05Z"),
            (Special::Time, "2026-01-02T03:04:05+00:00"),
            (Special::Quantity, ""),
            (Special::Quantity, "+1"),
            (Special::Quantity, " 1"),
            (Special::Quantity, "1.5"),
        ] {
            assert!(!is_plain(special, text), "{text}");
        }
    }

    #[test]
    fn bytes_are_base64_as_go_reads_it() {
        for (text, expected) in [
            ("", Ok("")),
            ("YWFh", Ok("YWFh")),
            ("YWFh\nYWFh\r\n", Ok("YWFhYWFh")),
            ("YQ==", Ok("YQ==")),
            ("YR==", Ok("YQ==")),
            ("YWE=", Ok("YWE=")),
            ("YW Fh", Err("illegal base64 data at input byte 2")),
            ("YWFh!", Err("illegal base64 data at input byte 4")),
            ("YQ", Err("illegal base64 data at input byte 0")),
            ("YWFhYQ=", Err("illegal base64 data at input byte 7")),
            ("YQ==YQ==", Err("illegal base64 data at input byte 4")),
        ] {
            let expected = expected.map(Value::from).map_err(str::to_owned);
            assert_eq!(Special::Bytes.parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn times_are_read_and_told_as_go_does() {
        for (special, text, expected) in [
            (
                Special::Time,
                "2026-01-02T03:04:05Z",
                Ok("2026-01-02T03:04:05Z"),
            ),
            (
                Special::Time,
                "2026-01-02T03:04:05.999+02:00",
                Ok("2026-01-02T01:04:05Z"),
            ),
            (
                Special::MicroTime,
                "2026-01-02T03:04:05.000001-01:30",
                Ok("2026-01-02T04:34:05.000001Z"),
            ),
            (
                Special::Time,
                "yesterday",
                Err(
                    "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
                ),
            ),
            (
                Special::Time,
                "2026-01-02",
                Err(
                    "parsing time \"2026-01-02\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"T\"",
                ),
            ),
            (
                Special::Time,
                "2026-13-02T03:04:05Z",
                Err("parsing time \"2026-13-02T03:04:05Z\": month out of range"),
            ),
            (
                Special::Time,
                "2026-02-30T03:04:05Z",
                Err("parsing time \"2026-02-30T03:04:05Z\": day out of range"),
            ),
            (
                Special::Time,
                "2026-01-02T03:04:05Zx",
                Err("parsing time \"2026-01-02T03:04:05Zx\": extra text: \"x\""),
            ),
            (
                Special::MicroTime,
                "2026-01-02T03:04:05Z",
                Err(
                    "parsing time \"2026-01-02T03:04:05Z\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"Z\" as \".000000\"",
                ),
            ),
            (
                Special::Time,
                "",
                Err(
                    "parsing time \"\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"2006\"",
                ),
            ),
        ] {
            let expected = expected.map(Value::from).map_err(str::to_owned);
            assert_eq!(special.parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn quantities_have_one_spelling() {
        for (text, expected) in [
            (".5", "500m"),
            ("0.1", "100m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("0.5Gi", "512Mi"),
            ("1", "1"),
            (" 2 ", "2"),
        ] {
            assert_eq!(quantity(text), Ok(json!(expected)), "{text}");
        }
        assert_eq!(quantity("1 Gi"), Err(QUANTITY_FORMAT.to_owned()));
    }
}
