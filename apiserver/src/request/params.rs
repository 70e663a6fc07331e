//! The query of a request: read as Go reads it, and what its parameters ask of lists, watches and writes.
//!
//! Invariants: pure; what is wrong is told in Kubernetes' words, all of it at once where Kubernetes does so.

use std::num::{IntErrorKind, ParseIntError};

use percent_encoding::percent_decode_str;
use weft_api::selector::FieldSelector;
use weft_api::status::{Cause, StatusError};
use weft_kinds::KindRef;
use weft_kinds::apply::{manager_faults, manager_name};

use crate::listing::{ListOptions, Selection, VersionMatch};
use crate::objects::WriteOptions;

/// The query parameters that any verb knows.
#[derive(Clone, Debug, Default)]
pub struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// As Go reads a query: what is no pair (a semicolon, a wrong escape) is as good as absent, whatever stands beside it.
    pub(super) fn of(query: &str) -> Self {
        let pairs = query.split('&').filter_map(|pair| {
            if pair.is_empty() || pair.contains(';') {
                return None;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescaped(name)?, unescaped(value)?))
        });
        Self {
            pairs: pairs.collect(),
        }
    }

    /// The parameters of a watch that its path asked for, of all objects or of one.
    ///
    /// # Errors
    /// 400 for a selector of other objects than that one.
    pub(super) fn watching(mut self, name: Option<&str>) -> Result<Self, StatusError> {
        self.pairs.retain(|(key, _)| key != "watch");
        self.pairs.push(("watch".to_owned(), "true".to_owned()));
        let Some(name) = name else {
            return Ok(self);
        };
        match self.get("fieldSelector").map(FieldSelector::parse) {
            None => {
                let selector = format!("metadata.name={name}");
                self.pairs.retain(|(key, _)| key != "fieldSelector");
                self.pairs.push(("fieldSelector".to_owned(), selector));
                Ok(self)
            }
            Some(Ok(selector)) if selector.exact("metadata.name") == Some(name) => Ok(self),
            // What does not parse is told where it is used.
            Some(Err(_)) => Ok(self),
            Some(Ok(_)) => Err(StatusError::bad_request(
                "fieldSelector metadata.name doesn't match requested name",
            )),
        }
    }

    /// All pairs, in the order of the query.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    fn first(&self, name: &str) -> Option<&str> {
        let mut pairs = self.pairs.iter();
        pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value of a parameter; an empty one is as good as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.first(name).filter(|value| !value.is_empty())
    }

    /// Whether something is asked for: whatever is said is a yes, but for `0` and `false`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.first(name)
            .map(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }

    /// # Errors
    /// 400 in Go's words, which Kubernetes passes on.
    pub fn number(&self, name: &str) -> Result<Option<i64>, StatusError> {
        let number = self.first(name).map(|text| {
            text.parse().map_err(|error: ParseIntError| {
                StatusError::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: {}",
                    what_is_wrong(&error)
                ))
            })
        });
        number.transpose()
    }

    /// Whether everything is to be done but storing it.
    ///
    /// # Errors
    /// For anything but `All`.
    pub fn dry_run(&self) -> Result<bool, Cause> {
        let values = self.pairs.iter().filter(|(key, _)| key == "dryRun");
        let values: Vec<&str> = values
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
            .collect();
        match values.iter().all(|value| *value == "All") {
            true => Ok(!values.is_empty()),
            false => Err(Cause::not_supported(
                "dryRun",
                &serde_json::json!(values),
                &["All"],
            )),
        }
    }

    /// What becomes of unknown fields; a word that is none of the three was told by [`Params::write_options`].
    pub fn validation(&self) -> Validation {
        match self.get("fieldValidation") {
            Some("Strict") => Validation::Strict,
            Some("Ignore") => Validation::Ignore,
            _ => Validation::Warn,
        }
    }

    /// Whether an apply takes fields from their owners.
    pub fn force(&self) -> bool {
        self.flag("force").unwrap_or(false)
    }

    /// The options of a write by a client that calls itself `user_agent`.
    ///
    /// # Errors
    /// 422 for what is no name of a manager, no dry run or no validation.
    pub fn write_options(
        &self,
        write: Write,
        user_agent: &str,
    ) -> Result<WriteOptions, StatusError> {
        let manager = self.get("fieldManager").unwrap_or_default();
        let force = match write {
            Write::Patch => self.flag("force"),
            _ => None,
        };
        let mut faults = manager_faults(manager, write == Write::Apply, force);
        let dry_run = self.dry_run().unwrap_or_else(|fault| {
            faults.push(fault);
            false
        });
        if let Some(other) = self
            .get("fieldValidation")
            .filter(|word| !matches!(*word, "Ignore" | "Warn" | "Strict"))
        {
            faults.push(Cause::not_supported(
                "fieldValidation",
                &other.into(),
                &["", "Ignore", "Strict", "Warn"],
            ));
        }
        if !faults.is_empty() {
            let about = write.options();
            return Err(StatusError::invalid(about, "meta.k8s.io", "", faults));
        }
        Ok(WriteOptions {
            dry_run,
            field_manager: Some(manager_name(manager, user_agent)),
            strict: self.validation() == Validation::Strict,
            ..WriteOptions::default()
        })
    }

    /// # Errors
    /// 400 and 422 for parameters that a list cannot have.
    pub fn list_options(&self, kind: KindRef<'_>) -> Result<ListOptions, StatusError> {
        let limit = self.number("limit")?;
        self.number("timeoutSeconds")?;
        self.check_reading(false)?;
        Ok(ListOptions {
            selection: self.selection(kind)?,
            // Less than one is none.
            limit: limit.and_then(|limit| usize::try_from(limit).ok()),
            continue_token: self.get("continue").map(str::to_owned),
            resource_version: self.resource_version()?,
            version_match: match self.get("resourceVersionMatch") {
                Some("Exact") => Some(VersionMatch::Exact),
                Some(_) => Some(VersionMatch::NotOlderThan),
                None => None,
            },
        })
    }

    /// The rules that Kubernetes has for the parameters of lists and watches, in its words.
    ///
    /// # Errors
    /// 422 with all that is wrong with them.
    pub fn check_reading(&self, watches: bool) -> Result<(), StatusError> {
        let version = self.get("resourceVersion");
        let mut matching = self.get("resourceVersionMatch");
        let mut initial = self.flag("sendInitialEvents");
        // A watch that begins anywhere begins with what is there, as one that asks for it in so many words.
        if watches && initial.is_none() && matching.is_none() && matches!(version, None | Some("0"))
        {
            (initial, matching) = (Some(true), Some(NOT_OLDER_THAN));
        }
        let mut causes = Vec::new();
        let mut forbidden = |field: &str, text: &str| causes.push(Cause::forbidden(field, text));
        const MATCH: &str = "resourceVersionMatch";
        let continues = self.get("continue").is_some();
        let twice = "resourceVersionMatch is forbidden when continue is provided";
        if watches {
            if initial.is_some() && matching != Some(NOT_OLDER_THAN) {
                let text =
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                forbidden(MATCH, text);
            }
            if let Some(wanted) = matching {
                if initial.is_none() {
                    let text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                    forbidden(MATCH, text);
                }
                if wanted != NOT_OLDER_THAN {
                    causes.push(Cause::not_supported(
                        MATCH,
                        &wanted.into(),
                        &[NOT_OLDER_THAN],
                    ));
                }
                if continues {
                    causes.push(Cause::forbidden(MATCH, twice));
                }
            }
        } else {
            if let Some(wanted) = matching {
                if version.is_none() {
                    let text =
                        "resourceVersionMatch is forbidden unless resourceVersion is provided";
                    forbidden(MATCH, text);
                }
                if continues {
                    forbidden(MATCH, twice);
                }
                if !matches!(wanted, "Exact" | NOT_OLDER_THAN) {
                    let supported = ["Exact", NOT_OLDER_THAN, ""];
                    causes.push(Cause::not_supported(MATCH, &wanted.into(), &supported));
                }
                if wanted == "Exact" && version == Some("0") {
                    let text =
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                    causes.push(Cause::forbidden(MATCH, text));
                }
            }
            if initial.is_some() {
                let text = "sendInitialEvents is forbidden for list";
                causes.push(Cause::forbidden("sendInitialEvents", text));
            }
        }
        if causes.is_empty() {
            return Ok(());
        }
        let (kind, group) = ("ListOptions", "meta.k8s.io");
        Err(StatusError::invalid(kind, group, "", causes))
    }

    /// # Errors
    /// 400 for selectors that do not parse, or name a field that the kind does not have.
    pub fn selection(&self, kind: KindRef<'_>) -> Result<Selection, StatusError> {
        Selection::parse(kind, self.get("labelSelector"), self.get("fieldSelector"))
    }

    /// # Errors
    /// 400 for what is no number.
    pub fn resource_version(&self) -> Result<Option<u64>, StatusError> {
        let version = self.get("resourceVersion").map(|text| {
            text.parse().map_err(|error: ParseIntError| {
                StatusError::bad_request(format!(
                    "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {}",
                    what_is_wrong(&error)
                ))
            })
        });
        version.transpose()
    }
}

const NOT_OLDER_THAN: &str = "NotOlderThan";

/// Why Go takes a text for no number.
fn what_is_wrong(error: &ParseIntError) -> &'static str {
    match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

/// A text of a query; `None` for a wrong escape. What is no UTF-8 is replaced: no name has it.
fn unescaped(text: &str) -> Option<String> {
    let sound = |escape: &str| {
        let digits = escape.as_bytes().first_chunk::<2>();
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(sound) {
        return None;
    }
    let spaced = text.replace('+', " ");
    Some(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// A way to write, as far as its options go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Create,
    Update,
    Patch,
    Apply,
}

impl Write {
    /// The kind of its options.
    fn options(self) -> &'static str {
        match self {
            Self::Create => "CreateOptions",
            Self::Update => "UpdateOptions",
            Self::Patch | Self::Apply => "PatchOptions",
        }
    }
}

/// What becomes of fields that the kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    Ignore,
    Warn,
    Strict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_go_reads_them() {
        let params = Params::of(
            "a=1&a=2&b=%zz&c;d=1&e=x+y%2B&%ff=%ff&f&=g&limit=-1&h=999999999999999999999",
        );
        assert_eq!(params.get("a"), Some("1"));
        for absent in ["b", "c", "d", "f", "c;d"] {
            assert_eq!(params.get(absent), None, "{absent}");
        }
        assert_eq!(params.get("e"), Some("x y+"));
        assert_eq!(params.get("\u{fffd}"), Some("\u{fffd}"));
        assert_eq!((params.flag("f"), params.flag("g")), (Some(true), None));
        assert_eq!(params.number("limit").unwrap(), Some(-1));
        for (name, sentence) in [
            ("e", "strconv.ParseInt: parsing \"x y+\": invalid syntax"),
            ("f", "strconv.ParseInt: parsing \"\": invalid syntax"),
            (
                "h",
                "strconv.ParseInt: parsing \"999999999999999999999\": value out of range",
            ),
        ] {
            assert_eq!(params.number(name).unwrap_err().message, sentence);
        }
    }
}
