//! The suite's images: components of this repository, in the cluster's own registry under the names and tags that the suite has for them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cluster::Cluster;
use crate::{guests, target};

/// The suite's images and tags, and the components that stand for them. `toolbox` is a busybox and what tests of DNS call.
const IMAGES: [(&str, &str); 11] = [
    ("agnhost:2.66.1", "agnhost"),
    ("agnhost:2.55", "agnhost"),
    ("busybox:1.37.0-2", "toolbox"),
    ("glibc-dns-testing:2.1.1", "toolbox"),
    ("pause:3.10.2", "pause"),
    ("nginx:1.27.0-2", "nautilus"),
    ("nginx:1.28.0-2", "nautilus"),
    ("nautilus:1.8", "nautilus"),
    ("kitten:1.8", "nautilus"),
    ("nonewprivs:1.4", "nonewprivs"),
    ("perl:5.26", "toolbox"),
];
/// The one that is mounted, and what the suite's own has of files that are read.
const MOUNTED: &str = "kitten:1.8";
const FILES: [(&str, &str); 2] = [
    ("data.json", "{\"image\": \"kitten.jpg\"}\n"),
    (
        "etc/os-release",
        "NAME=\"Alpine Linux\"\nID=alpine\nPRETTY_NAME=\"Alpine Linux, as the image that this one stands for\"\n",
    ),
];
/// The folder of the cluster's own registry that they are in: a name without a host.
const FOLDER: &str = "e2e-test-images";
/// The suite's registries that are that folder. The others are for images that must not be had.
const REGISTRIES: [&str; 4] = [
    "promoterE2eRegistry",
    "buildImageRegistry",
    "gcRegistry",
    "dockerLibraryRegistry",
];

/// Builds the components that stand for the suite's images.
pub(super) fn build() -> Result<()> {
    guests::build_suite()?;
    guests::build_only(&["toolbox"])
}

/// Puts them where the suite looks for its images.
pub(super) fn push(cluster: &Cluster) -> Result<()> {
    let files = target().join("conformance").join("files");
    for (path, text) in FILES {
        let path = files.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&files))?;
        fs::write(path, text)?;
    }
    IMAGES.iter().try_for_each(|(image, component)| {
        let (component, name) = (guests::path(component), format!("{FOLDER}/{image}"));
        match *image == MOUNTED {
            true => cluster.push_with_files(&component, &files, &name),
            false => cluster.push(&component, &name),
        }
    })
}

/// The file for `KUBE_TEST_REPO_LIST`.
pub(super) fn repositories(folder: &Path) -> Result<PathBuf> {
    let file = std::path::absolute(folder.join("repositories.yaml"))?;
    let lines = REGISTRIES.map(|registry| format!("{registry}: {FOLDER}\n"));
    fs::write(&file, lines.concat()).with_context(|| format!("writing {}", file.display()))?;
    Ok(file)
}
