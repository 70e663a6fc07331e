//! Waiting.

use std::time::Duration;

use crate::host;

/// Waits without burning CPU; other futures of the same [`join`](crate::join()) go on meanwhile.
///
/// ```
/// # use weft_sdk as weft; use std::time::Duration;
/// # weft::block_on(async {
/// weft::time::sleep(Duration::from_millis(1)).await;
/// # });
/// ```
pub async fn sleep(duration: Duration) {
    host::sleep(duration).await;
}
