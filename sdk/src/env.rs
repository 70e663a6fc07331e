//! Configuration from the environment, which pods fill from `env`, ConfigMaps and Secrets.

use std::fmt;
use std::str::FromStr;

/// A variable that is set but does not parse.
#[derive(Debug, PartialEq, Eq)]
pub struct EnvError {
    /// The variable.
    pub name: String,
    /// Why its value was refused; the value itself is left out, it may be a secret.
    pub reason: String,
}

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "environment variable {}: {}", self.name, self.reason)
    }
}

impl std::error::Error for EnvError {}

/// The value of `name`, unless it is unset, empty or not UTF-8.
pub fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The value of `name` parsed as `T`, or `default` when it is unset.
///
/// ```
/// # use weft_sdk as weft;
/// let per_second: u32 = weft::env::parse("RATE", 2)?;
/// # assert_eq!(per_second, 2);
/// # Ok::<(), weft::env::EnvError>(())
/// ```
///
/// # Errors
/// [`EnvError`] when it is set to something else: better a clear stop than a silent default.
pub fn parse<T>(name: &str, default: T) -> Result<T, EnvError>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    match var(name) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|reason: T::Err| EnvError {
            name: name.to_owned(),
            reason: reason.to_string(),
        }),
    }
}
