//! `which`, `clear` and `sync`.

use crate::applet;

use super::call::{Call, Ended, Stop};
use super::filesystem::{self, Kind};

/// `which [-a] COMMAND...`: an applet has the path that images have it under.
pub async fn which(call: &mut Call) -> Ended {
    let names: Vec<String> = call
        .args
        .iter()
        .filter(|arg| *arg != "-a")
        .cloned()
        .collect();
    if names.is_empty() {
        return Err(Stop::Said(1, "Usage: which [-a] COMMAND...\n".into()));
    }
    let path = call
        .variable("PATH")
        .unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .to_owned();
    for name in names {
        let file = |path: &str| {
            filesystem::about(&call.path(path), true).is_ok_and(|about| about.kind == Kind::File)
        };
        let found = match name.contains('/') {
            true => (file(&name) || applet::find(&name).is_some()).then(|| name.clone()),
            false => path
                .split(':')
                .map(|directory| format!("{}/{name}", directory.trim_end_matches('/')))
                .find(|path| file(path))
                .or_else(|| applet::find(&name).map(|_| format!("/bin/{name}"))),
        };
        match found {
            Some(found) => call.out(format!("{found}\n")).await?,
            None => call.code = 1,
        }
    }
    Ok(call.code)
}

/// `clear`
pub async fn clear(call: &mut Call) -> Ended {
    call.out("\x1b[H\x1b[J").await?;
    Ok(0)
}

/// `sync`: what was written is with the host already.
pub async fn sync(_call: &mut Call) -> Ended {
    Ok(0)
}
