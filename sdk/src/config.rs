//! Settings from the cluster, as they are now: what a `CapabilityGrant` takes from ConfigMaps and Secrets for this workload.
//!
//! Unlike the environment, which stays as it was when the pod started, a setting is the newest each time that it is asked for.
//!
//! ```
//! # use weft_sdk as weft;
//! # #[cfg(not(target_family = "wasm"))] weft::config::set("greeting", "good day");
//! #[weft::http]
//! async fn handle(_: weft::Request) -> Result<weft::Response, weft::config::Error> {
//!     let greeting = weft::config::get("greeting")?.unwrap_or("hello".to_owned());
//!     let times: usize = weft::config::parse("times", 1)?;
//!     Ok(weft::Response::new(greeting.repeat(times).into()))
//! }
//! # let answer = weft::block_on(handle(weft::Request::new(weft::Body::empty()))).unwrap();
//! # assert_eq!(weft::block_on(answer.into_body().text()).unwrap(), "good day");
//! ```
//!
//! A component that asks for settings imports `wasi:config/store`, and is not started without a grant of it. Natively, as under
//! `cargo test`, settings are what the same thread has [`set`]: none at first, and each test has its own.

use std::fmt;
use std::str::FromStr;

use crate::host;

/// Why a setting could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The host could not say; the text is its reason.
    Unavailable(String),
    /// The setting is there, and is not what was asked for.
    Malformed {
        /// The setting.
        name: String,
        /// Why its value was refused; the value itself is left out, it may be a secret.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(reason) => write!(f, "no settings are to be had: {reason}"),
            Self::Malformed { name, reason } => write!(f, "setting {name}: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

/// The setting of that name, if there is one.
///
/// # Errors
/// [`Error::Unavailable`]; weft's own hosts always have an answer.
pub fn get(name: &str) -> Result<Option<String>, Error> {
    host::config_get(name)
}

/// All settings, with their names, of one moment.
///
/// # Errors
/// As [`get`].
pub fn all() -> Result<Vec<(String, String)>, Error> {
    host::config_all()
}

/// The setting of that name parsed as `T`, or `default` when there is none.
///
/// # Errors
/// As [`get`], and [`Error::Malformed`] when it is set to something else: better a clear error than a silent default.
pub fn parse<T>(name: &str, default: T) -> Result<T, Error>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    match get(name)? {
        None => Ok(default),
        Some(value) => value.parse().map_err(|reason: T::Err| Error::Malformed {
            name: name.to_owned(),
            reason: reason.to_string(),
        }),
    }
}

/// Sets what [`get`] answers on this thread from now on. Natively only: for tests.
#[cfg(not(target_family = "wasm"))]
pub fn set(name: &str, value: &str) {
    host::config_set(name, value);
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_the_newest_and_a_wrong_one_is_an_error_without_its_value() {
        assert_eq!(get("times"), Ok(None));
        assert_eq!(parse("times", 3), Ok(3));
        set("times", "4");
        set("name", "x");
        assert_eq!(parse("times", 3), Ok(4));
        set("times", "hunter2");
        let error = parse("times", 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "setting times: invalid digit found in string"
        );
        assert_eq!(all().map(|all| all.len()), Ok(2));
    }
}
