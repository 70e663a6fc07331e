//! `hostPath` volumes: folders and files of the node that its owner lends, or below those (`--allow-host-path`).
//!
//! A path is walked from the allowed folder on, over links that stay in it, so that neither a pod nor who writes into the folder
//! leads a mount elsewhere. What is there keeps the modes and owners that it has on the node. Blocks.
//!
//! Source: kubernetes `pkg/volume/hostpath`, 1.37.

use k8s_openapi::api::core::v1::HostPathVolumeSource;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use weft_runtime::{Below, Ownership, Told, Volume, VolumeLimits};

/// What `source` names.
///
/// # Errors
/// A sentence: it is not allowed, is not there, or is something else.
pub(super) fn open(source: &HostPathVolumeSource, allowed: &[PathBuf]) -> Result<Below, String> {
    let path = Path::new(&source.path);
    let holding = allowed.iter().filter_map(|prefix| {
        let rest = path.strip_prefix(prefix).ok()?;
        Some((prefix, rest.to_str()?))
    });
    let Some((prefix, rest)) = holding.max_by_key(|(prefix, _)| prefix.as_os_str().len()) else {
        return Err(format!(
            "hostPath \"{}\" is not below a folder that this node lends; its owner says which with --allow-host-path",
            source.path
        ));
    };
    // A file that is lent by itself is one of its folder.
    let (prefix, rest) = match (prefix.parent(), prefix.file_name()) {
        (Some(folder), Some(name)) if rest.is_empty() && prefix.is_file() => {
            (folder, name.to_str().unwrap_or_default())
        }
        _ => (prefix.as_path(), rest),
    };
    let wanted = source.type_.as_deref().unwrap_or_default();
    let told = Told {
        ownership: Ownership::Host,
        ..Told::default()
    };
    let volume = Volume::open_as(prefix, VolumeLimits::default(), told);
    let volume = volume.map_err(|error| format!("{error}: {}", error.source))?;
    let is_not = |what| format!("hostPath type check failed: {} is not {what}", source.path);
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => match wanted {
            "File" => is_not("a file"),
            _ => is_not("a directory"),
        },
        ErrorKind::InvalidInput => match wanted {
            "File" | "FileOrCreate" => is_not("a file"),
            "Directory" | "DirectoryOrCreate" => is_not("a directory"),
            _ => format!(
                "hostPath \"{}\" is neither a file nor a folder, and a component opens nothing else",
                source.path
            ),
        },
        _ => format!("hostPath \"{}\": {error}", source.path),
    };
    let found = match (volume.below(rest, false), wanted) {
        (Err(error), "" | "DirectoryOrCreate") if error.kind() == ErrorKind::NotFound => {
            volume.below(rest, true)
        }
        (Err(error), "FileOrCreate") if error.kind() == ErrorKind::NotFound => {
            let made = volume.make_file(rest);
            made.and_then(|()| volume.below(rest, false))
        }
        (found, _) => found,
    };
    match (found.map_err(failed)?, wanted) {
        (Below::Folder(_), "File" | "FileOrCreate") => Err(is_not("a file")),
        (Below::File(_), "Directory" | "DirectoryOrCreate") => Err(is_not("a directory")),
        (_, "Socket" | "CharDevice" | "BlockDevice") => Err(format!(
            "hostPath.type {wanted} is not supported: a component opens files and folders, and no {wanted}"
        )),
        (found, _) => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_there_is_checked_and_nothing_leads_out() {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("lent");
        std::fs::create_dir_all(root.join("folder")).expect("made");
        std::fs::write(root.join("file"), "x").expect("written");
        std::fs::create_dir(dir.path().join("secret")).expect("made");
        symlink("../secret", root.join("up")).expect("a link");
        symlink(dir.path().join("secret"), root.join("away")).expect("a link");
        symlink("folder", root.join("within")).expect("a link");
        let allowed = [root.clone()];
        let named = |path: &str, wanted: &str| {
            let source = HostPathVolumeSource {
                path: root.join(path).display().to_string(),
                type_: Some(wanted.to_owned()),
            };
            match open(&source, &allowed) {
                Ok(Below::Folder(_)) => "a folder".to_owned(),
                Ok(Below::File(_)) => "a file".to_owned(),
                Err(why) => why.replace(&*root.display().to_string(), "ROOT"),
            }
        };
        let check = |what: &str| format!("hostPath type check failed: ROOT/{what}");
        for (path, wanted, expected) in [
            ("folder", "", "a folder".to_owned()),
            ("folder", "Directory", "a folder".to_owned()),
            ("within", "Directory", "a folder".to_owned()),
            ("file", "File", "a file".to_owned()),
            ("file", "Directory", check("file is not a directory")),
            ("folder", "File", check("folder is not a file")),
            ("none", "Directory", check("none is not a directory")),
            ("none", "File", check("none is not a file")),
            ("made/deep", "DirectoryOrCreate", "a folder".to_owned()),
            ("written", "FileOrCreate", "a file".to_owned()),
            ("new", "", "a folder".to_owned()),
        ] {
            assert_eq!(named(path, wanted), expected, "{path} as {wanted}");
        }
        for path in ["up", "away"] {
            let told = named(path, "Directory");
            assert!(told.contains("not permitted"), "{path}: {told}");
        }
        let alone = HostPathVolumeSource {
            path: root.join("file").display().to_string(),
            type_: Some("FileOrCreate".to_owned()),
        };
        let lent = open(&alone, &[root.join("file")]);
        assert!(
            matches!(lent, Ok(Below::File(_))),
            "a file by itself: {lent:?}"
        );
        let source = HostPathVolumeSource {
            path: dir.path().join("secret").display().to_string(),
            type_: None,
        };
        let told = open(&source, &allowed).expect_err("not allowed");
        assert!(
            told.ends_with("says which with --allow-host-path"),
            "{told}"
        );
    }
}
