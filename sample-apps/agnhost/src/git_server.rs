//! `fake-gitserver`: says that it is there, on 8000; nothing is fetched from it by tests of conformance.

use crate::server::text;
use crate::{Code, server};

const PORT: u16 = 8000;

pub(crate) async fn run() -> Result<Code, String> {
    let listener = server::listen(PORT)
        .await
        .map_err(|error| error.to_string())?;
    let handler = server::handler(|_| async { text("I am a fake git server") });
    server::serve(listener, None, handler).await;
    Ok(0)
}
