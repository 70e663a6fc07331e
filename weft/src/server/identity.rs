//! Which server a data folder belongs to: number, cluster and ports, in `server.json`.
//!
//! Written before the store is made. A server whose store is gone although it was there once must not come back under its
//! number: it would deny votes and entries that it acknowledged. That is noticed here.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use weft_store::{ServerId, Start};

use crate::data_dir;
use crate::exit::{CODE_REMOVED, Failure};

const FORMAT: u32 = 1;

/// The name that clusters had before they had names.
const UNNAMED: &str = "weft";

/// What a server remembers of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    pub format: u32,
    pub cluster_id: String,
    pub server_id: ServerId,
    /// It came to a cluster that was there before.
    pub joined: bool,
    /// Its store was made.
    pub opened: bool,
    /// The cluster removed it, for ever.
    #[serde(default)]
    pub removed: bool,
    /// The ports it had, for those who let it pick them: the others know it by them.
    #[serde(default)]
    pub api_port: u16,
    #[serde(default)]
    pub peer_port: u16,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("server.json")
}

pub(crate) fn store_dir(dir: &Path) -> PathBuf {
    dir.join("store")
}

/// A name that no other cluster has.
pub(crate) fn new_cluster_id() -> String {
    format!("weft-{:032x}", rand::random::<u128>())
}

impl Identity {
    pub fn new(cluster_id: String, server_id: ServerId, joined: bool) -> Self {
        Self {
            format: FORMAT,
            cluster_id,
            server_id,
            joined,
            opened: false,
            removed: false,
            api_port: 0,
            peer_port: 0,
        }
    }

    /// A cluster that begins here, or the one of a folder from before clusters had names.
    pub fn first(dir: &Path) -> Self {
        match has_store(dir) {
            true => Self::new(UNNAMED.to_owned(), 1, false),
            false => Self::new(new_cluster_id(), 1, false),
        }
    }

    /// What the folder says, if it says anything.
    ///
    /// # Errors
    /// A [`Failure`] for a file that cannot be read or is from a newer weft, for a store that is gone, and for a server that
    /// was removed.
    pub fn load(dir: &Path) -> Result<Option<Self>, Failure> {
        let path = path(dir);
        let cannot = |why: &dyn std::fmt::Display, next: &str| {
            Failure::new(format!("cannot use {}", path.display()), why, next)
        };
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot(&error, "check its permissions")),
        };
        let identity: Self = serde_json::from_slice(&text).map_err(|error| {
            cannot(
                &error,
                "restore the folder from a backup, or use an empty one",
            )
        })?;
        if identity.format > FORMAT {
            let why = format!(
                "it has format {}, and this weft knows formats up to {FORMAT}",
                identity.format
            );
            return Err(cannot(&why, "use a newer weft"));
        }
        if identity.removed {
            return Err(identity.removed(dir));
        }
        if identity.opened && !has_store(dir) {
            return Err(identity.lost(dir));
        }
        Ok(Some(identity))
    }

    /// What a server says that was removed from its cluster.
    pub fn removed(&self, dir: &Path) -> Failure {
        let failure = Failure::new(
            format!("server {} was removed from its cluster", self.server_id),
            "a removed server never returns under its number: the others go on as if it had never answered",
            format!(
                "delete {}; to bring this machine back, start a server in an empty folder with --join",
                dir.display()
            ),
        );
        Failure {
            code: CODE_REMOVED,
            ..failure
        }
    }

    fn lost(&self, dir: &Path) -> Failure {
        let id = self.server_id;
        let next = format!(
            "if other servers are left, `weft server remove {id}` there and start this one in an empty folder with \
             --join; if none is, `weft server restore` makes a cluster from a backup"
        );
        Failure::new(
            format!("the store of server {id} in {} is gone", dir.display()),
            "a server that lost what it acknowledged must not come back under its number",
            next,
        )
    }

    /// # Errors
    /// A [`Failure`] when it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), Failure> {
        let path = path(dir);
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(
                format!("cannot write {}", path.display()),
                error,
                "make room, or name another folder with --data-dir",
            )
        };
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| failed(&error))?;
        text.push(b'\n');
        data_dir::write_private(&path, &text).map_err(|error| failed(&error))
    }

    pub fn start(&self) -> Start {
        match self.joined {
            true => Start::Joining,
            false => Start::Alone,
        }
    }
}

fn has_store(dir: &Path) -> bool {
    store_dir(dir).join("log.redb").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_store_is_gone_does_not_come_back_under_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(Identity::load(dir).unwrap(), None);
        let mut identity = Identity::new("c".to_owned(), 2, true);
        identity.save(dir).unwrap();
        // Told its number, and died before the store was made: it may try again.
        assert_eq!(Identity::load(dir).unwrap(), Some(identity.clone()));
        identity.opened = true;
        identity.save(dir).unwrap();
        let failure = Identity::load(dir).unwrap_err();
        assert!(
            failure.next.contains("weft server remove 2"),
            "{}",
            failure.next
        );
        std::fs::create_dir(store_dir(dir)).unwrap();
        std::fs::write(store_dir(dir).join("log.redb"), "").unwrap();
        assert_eq!(Identity::load(dir).unwrap(), Some(identity));
    }

    #[test]
    fn a_removed_server_does_not_start_again() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity {
            removed: true,
            ..Identity::new("c".to_owned(), 2, true)
        };
        identity.save(dir.path()).unwrap();
        let failure = Identity::load(dir.path()).unwrap_err();
        assert_eq!(failure.code, CODE_REMOVED);
        assert_eq!(failure.what, "server 2 was removed from its cluster");
    }

    #[test]
    fn folders_from_before_have_the_old_name_and_new_clusters_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (Identity::first(dir.path()), Identity::first(dir.path()));
        assert_ne!(one.cluster_id, two.cluster_id);
        std::fs::create_dir(store_dir(dir.path())).unwrap();
        std::fs::write(store_dir(dir.path()).join("log.redb"), "").unwrap();
        assert_eq!(Identity::first(dir.path()).cluster_id, UNNAMED);
    }

    #[test]
    fn a_newer_file_is_refused_in_a_sentence() {
        let dir = tempfile::tempdir().unwrap();
        let mut identity = Identity::new("c".to_owned(), 1, false);
        identity.format = FORMAT + 1;
        identity.save(dir.path()).unwrap();
        let failure = Identity::load(dir.path()).unwrap_err();
        assert!(failure.why.contains("format 2"), "{}", failure.why);
        std::fs::write(path(dir.path()), "{").unwrap();
        assert!(Identity::load(dir.path()).is_err());
    }
}
