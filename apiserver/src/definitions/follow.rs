//! The registry follows the store, on every server.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use weft_kinds::CUSTOM_RESOURCE_DEFINITION;

use crate::objects::Objects;
use crate::stored;

/// Pause before the store is asked again for a watch that it could not give.
const PAUSE: Duration = Duration::from_millis(20);

impl Objects {
    /// Serves what the definitions in this server's store say, until the token is cancelled.
    pub async fn follow_definitions(self, closing: CancellationToken) {
        let prefix = stored::prefix(&CUSTOM_RESOURCE_DEFINITION, None);
        loop {
            let snapshot = self.store().snapshot();
            self.show_definitions(&snapshot).await;
            let Ok(mut watch) = self.store().watch(prefix.clone(), snapshot.revision()) else {
                // The history moved past the snapshot.
                tokio::select! {
                    () = closing.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => continue,
                }
            };
            loop {
                let event = tokio::select! {
                    biased;
                    () = closing.cancelled() => return,
                    event = watch.next() => event,
                };
                match event {
                    Some(Ok(_)) => self.show_definitions(&self.store().snapshot()).await,
                    Some(Err(_)) => break,
                    None => return,
                }
            }
        }
    }
}
