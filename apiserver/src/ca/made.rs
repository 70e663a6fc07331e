//! What is made of the authority, and anew when another follows it: TLS of listeners and of connections.
//!
//! Invariant: whoever asks after a succession gets what was made after it, unless that cannot be made; then the one before goes on, and the log
//! says so.

use parking_lot::Mutex;

use super::{Authority, CaError};

type Make<T> = Box<dyn Fn(&Authority) -> Result<T, CaError> + Send + Sync>;

/// One such thing.
pub(crate) struct Made<T> {
    authority: Authority,
    make: Make<T>,
    /// With the succession that it was made after.
    newest: Mutex<(u64, T)>,
}

impl<T: Clone> Made<T> {
    /// Makes the first.
    ///
    /// # Errors
    /// As `make`.
    pub(crate) fn new(
        authority: &Authority,
        make: impl Fn(&Authority) -> Result<T, CaError> + Send + Sync + 'static,
    ) -> Result<Self, CaError> {
        let generation = authority.generation();
        Ok(Self {
            newest: Mutex::new((generation, make(authority)?)),
            authority: authority.clone(),
            make: Box::new(make),
        })
    }

    /// The newest. After a succession the first to ask makes it, which writes a file or two.
    pub(crate) fn now(&self) -> T {
        let generation = self.authority.generation();
        let mut newest = self.newest.lock();
        if newest.0 != generation {
            match (self.make)(&self.authority) {
                Ok(made) => *newest = (generation, made),
                Err(error) => {
                    tracing::error!(%error, "TLS goes on with the authority of before");
                }
            }
        }
        newest.1.clone()
    }
}
