//! Lists what is embedded of the dashboard: the files of `dashboard/dist` as they lie there, each with what it was compressed to beforehand.
//!
//! Nothing is built here; the files are copied, so that those are embedded that were listed, whatever becomes of the folder meanwhile. Where there is no `index.html`, nothing is embedded, and the server says how that is made
//! (`src/http/dashboard/assets.rs`).

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const DIST: &str = "../dashboard/dist";
/// Where their copies lie, in the folder of what this program makes.
const COPIES: &str = "dashboard";
/// What a file is compressed to beforehand has its name and one of these.
const COMPRESSED: [&str; 2] = ["br", "gz"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    // The folder is in the repository, so that it is there whether it has anything in it or not.
    println!("cargo:rerun-if-changed={DIST}");
    let mut names = Vec::new();
    if Path::new(DIST).join("index.html").is_file() {
        list(Path::new(DIST), "", &mut names)?;
    }
    names.sort();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for name in &names {
        let copy = out.join(COPIES).join(name);
        fs::create_dir_all(copy.parent().ok_or("a file lies in a folder")?)?;
        fs::copy(Path::new(DIST).join(name), copy)?;
    }
    let mut code = String::from("&[\n");
    for name in &names {
        let is_plain = |name: &str| {
            COMPRESSED
                .iter()
                .all(|end| !name.ends_with(&format!(".{end}")))
        };
        if !is_plain(name) {
            continue;
        }
        let bytes = |name: &str| {
            format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{COPIES}/{name}\"))")
        };
        let compressed = |end: &str| {
            let name = format!("{name}.{end}");
            match names.contains(&name) {
                true => format!("Some({})", bytes(&name)),
                false => "None".to_owned(),
            }
        };
        writeln!(
            code,
            "File {{ name: {name:?}, plain: {}, brotli: {}, gzip: {} }},",
            bytes(name),
            compressed("br"),
            compressed("gz"),
        )?;
    }
    code.push_str("]\n");
    Ok(fs::write(out.join("dashboard.rs"), code)?)
}

/// The files of a folder and of those in it, by names that can stand in code and in a URL.
fn list(dir: &Path, above: &str, names: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_sound) {
            continue;
        }
        let name = format!("{above}{name}");
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), names)?;
        } else {
            names.push(name);
        }
    }
    Ok(())
}
