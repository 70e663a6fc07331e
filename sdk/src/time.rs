//! Waiting.

use std::time::Duration;

use crate::host;

/// Waits without burning CPU; other futures of the same [`join`](crate::join()) go on meanwhile.
pub async fn sleep(duration: Duration) {
    host::sleep(duration).await;
}
