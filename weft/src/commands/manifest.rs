//! Manifests on disk: files, folders or stdin, YAML or JSON, several objects each.
//!
//! All manifests are read and parsed before the first one is sent, so a typing error changes nothing. A file may have any
//! number of documents; each of them is parsed within the bounds of the YAML reader, which aliases cannot exceed.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use kube::core::{DynamicObject, GroupVersionKind, TypeMeta};
use kube::discovery::{ApiCapabilities, ApiResource, Scope};
use serde_json::Value;
use weft_api::Object;

use crate::exit::Failure;
use crate::kubeconfig::api_failure;

/// Largest file that is read: what the API takes in one request, times a hundred objects.
const MANIFEST_BYTES_MAX: u64 = 300 << 20;

/// Reads every object in `files`; `-` is stdin, a folder means its `.yaml`, `.yml` and `.json` files, and with `recursive` those of the
/// folders in it.
///
/// # Errors
/// A [`Failure`] naming the file and what is wrong with it.
pub fn read(files: &[PathBuf], recursive: bool) -> Result<Vec<Object>, Failure> {
    let mut objects = Vec::new();
    for file in files {
        for path in expand(file, recursive)? {
            let text = load(&path)?;
            parse(&text, &mut objects).map_err(|why| {
                let what = format!("cannot use the manifest {}", name(&path));
                Failure::new(
                    what,
                    why,
                    "nothing was changed; correct the file and run the command again",
                )
                .usage()
            })?;
        }
    }
    Ok(objects)
}

/// A folder's manifests, in the order of their names. Links to folders are not followed: one may lead back to itself.
fn expand(file: &Path, recursive: bool) -> Result<Vec<PathBuf>, Failure> {
    if !file.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let is_manifest = |path: &PathBuf| {
        path.extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| matches!(e, "yaml" | "yml" | "json"))
    };
    let entries = std::fs::read_dir(file).map_err(|error| unreadable(file, &error))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    paths.sort();
    let mut manifests = Vec::new();
    for path in paths {
        let is_folder = path.symlink_metadata().is_ok_and(|found| found.is_dir());
        if is_folder && recursive {
            manifests.extend(expand(&path, recursive)?);
        } else if is_manifest(&path) && path.is_file() {
            manifests.push(path);
        }
    }
    Ok(manifests)
}

fn name(path: &Path) -> String {
    if path == Path::new("-") {
        return "on stdin".to_owned();
    }
    path.display().to_string()
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let what = format!("cannot read the manifest {}", name(path));
    Failure::new(what, error, "name a file, a folder, or - for stdin with -f").usage()
}

fn load(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let result = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MANIFEST_BYTES_MAX)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text))
    };
    result.map_err(|error| unreadable(path, &error))?;
    Ok(text)
}

/// Reads every object in a text.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn parse(text: &str, objects: &mut Vec<Object>) -> Result<(), String> {
    // What programs write is JSON, and may be larger than anybody's YAML.
    if text.trim_start().starts_with('{')
        && let Ok(document) = serde_json::from_str(text)
    {
        return collect(document, objects);
    }
    for part in documents(text) {
        let read = read_documents(part).map_err(|error| error.to_string())?;
        for document in read {
            collect(document, objects)?;
        }
    }
    Ok(())
}

/// Lines that are moved in one text.
const MOVED_MAX: usize = 200;

/// The documents of one part. kubectl's reader takes quoted texts whose further lines are no deeper than their key, as some definitions have
/// them; ours says where it finds one, and takes it once it is deeper. Blanks at the beginning of such a line are none of the text.
fn read_documents(part: &str) -> Result<Vec<Value>, serde_saphyr::Error> {
    let mut read = serde_saphyr::from_multiple(part);
    let mut lines: Vec<String> = Vec::new();
    for _ in 0..MOVED_MAX {
        let Some(line) = read.as_ref().err().and_then(too_shallow) else {
            break;
        };
        if lines.is_empty() {
            lines = part.split_inclusive('\n').map(str::to_owned).collect();
        }
        let Some(line) = lines.get_mut(line) else {
            break;
        };
        line.insert_str(0, "  ");
        read = serde_saphyr::from_multiple(&lines.concat());
    }
    read
}

/// The line, counted from 0, of a quoted text that goes on too far to the left, if it is that what is wrong.
fn too_shallow(error: &serde_saphyr::Error) -> Option<usize> {
    const WHAT: &str = "invalid indentation in multiline quoted scalar";
    let line = error.location()?.line();
    let line = usize::try_from(line).ok()?.checked_sub(1)?;
    error.to_string().contains(WHAT).then_some(line)
}

/// The text between lines of `---`, as kubectl separates documents: before it looks at what is in them.
fn documents(text: &str) -> impl Iterator<Item = &str> {
    let is_separator = |line: &str| {
        let after = line.strip_prefix("---").map(str::trim_start);
        after.is_some_and(|after| after.is_empty() || after.starts_with('#'))
    };
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if is_separator(line) {
                rest = Some(&text[at + line.len()..]);
                break;
            }
            at += line.len();
        }
        Some(&text[..at])
    })
}

fn collect(document: Value, objects: &mut Vec<Object>) -> Result<(), String> {
    if document.is_null() {
        return Ok(());
    }
    let object = Object::from_value(document).map_err(|error| error.to_string())?;
    if object.kind() == "List" {
        let items = object.as_value()["items"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        return items
            .into_iter()
            .try_for_each(|item| collect(item, objects));
    }
    for (field, value) in [
        ("apiVersion", object.api_version()),
        ("kind", object.kind()),
    ] {
        if value.is_empty() {
            return Err(format!("an object has no {field}"));
        }
    }
    if object.name().is_empty() {
        let generated = !object.as_value()["metadata"]["generateName"].is_null();
        let why = if generated {
            "; with metadata.generateName every apply would create another one"
        } else {
            ""
        };
        return Err(format!("a {} has no metadata.name{why}", object.kind()));
    }
    objects.push(object);
    Ok(())
}

/// Where an object goes: its resource and scope, asked of the server once a kind.
#[derive(Default)]
pub struct Resources {
    known: Vec<(GroupVersionKind, ApiResource, ApiCapabilities)>,
}

impl Resources {
    /// # Errors
    /// A [`Failure`] when the cluster serves no such kind or does not answer.
    pub async fn resolve(
        &mut self,
        client: &kube::Client,
        object: &Object,
    ) -> Result<(ApiResource, ApiCapabilities), Failure> {
        let types = TypeMeta {
            api_version: object.api_version().into(),
            kind: object.kind().into(),
        };
        let what = || {
            format!(
                "cannot find the kind {} of {}",
                object.kind(),
                object.api_version()
            )
        };
        let gvk = GroupVersionKind::try_from(&types)
            .map_err(|error| Failure::new(what(), error, "correct apiVersion and kind").usage())?;
        if let Some((_, resource, capabilities)) =
            self.known.iter().find(|(known, ..)| *known == gvk)
        {
            return Ok((resource.clone(), capabilities.clone()));
        }
        let (resource, capabilities) =
            kube::discovery::pinned_kind(client, &gvk)
                .await
                .map_err(|error| match error {
                    kube::Error::Discovery(_) => unknown(what()),
                    kube::Error::Api(status) if status.code == 404 => unknown(what()),
                    error => api_failure(what(), &error),
                })?;
        self.known
            .push((gvk, resource.clone(), capabilities.clone()));
        Ok((resource, capabilities))
    }
}

fn unknown(what: String) -> Failure {
    Failure::new(
        what,
        "the cluster serves no such kind",
        "correct apiVersion and kind; `weft get --raw /apis` lists the groups and versions",
    )
}

/// The API of one resource in the namespace that the object, or else the command line, names.
pub fn api(
    client: &kube::Client,
    resource: &ApiResource,
    scope: &Scope,
    namespace: Option<&str>,
) -> kube::Api<DynamicObject> {
    match scope {
        Scope::Cluster => kube::Api::all_with(client.clone(), resource),
        Scope::Namespaced => match namespace {
            Some(namespace) => kube::Api::namespaced_with(client.clone(), namespace, resource),
            None => kube::Api::default_namespaced_with(client.clone(), resource),
        },
    }
}

/// `deployment.apps/web`, as kubectl names what it changed.
pub fn display_name(resource: &ApiResource, name: &str) -> String {
    let kind = resource.kind.to_lowercase();
    match resource.group.as_str() {
        "" => format!("{kind}/{name}"),
        group => format!("{kind}.{group}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    fn parsed(text: &str) -> Result<Vec<String>, String> {
        let mut objects = Vec::new();
        parse(text, &mut objects)?;
        Ok(objects
            .iter()
            .map(|o| format!("{}/{}", o.kind(), o.name()))
            .collect())
    }

    #[test]
    fn quoted_texts_may_go_on_where_kubectl_lets_them() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  one: 'it''s\n  two\n  lines'\n  two: |\n    'tis\n  three: \"a\n  b\"\n";
        let mut objects = Vec::new();
        parse(text, &mut objects).unwrap();
        assert_eq!(
            objects[0].as_value()["data"],
            serde_json::json!({"one": "it's two lines", "two": "'tis\n", "three": "a b"})
        );
        // What is wrong otherwise is told as it was written.
        let error = parse("a: 'b\nc'\nd: [\n", &mut objects).unwrap_err();
        assert!(error.contains("line"), "{error}");
    }

    #[test]
    fn documents_and_lists_are_flattened() {
        let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n---\napiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n";
        assert_eq!(parsed(text).unwrap(), ["Namespace/a", "Pod/b"]);
    }

    #[test]
    fn as_many_objects_as_somebody_has_and_no_more_than_he_wrote() {
        let one = |number: usize| {
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m{number}}}\n")
        };
        let many: Vec<String> = (0..5_000).map(one).collect();
        let read = parsed(&many.join("---  # next\n")).unwrap();
        assert_eq!(
            (read.len(), read[4_999].as_str()),
            (5_000, "ConfigMap/m4999")
        );
        let items: Vec<Value> = (0..20_000)
            .map(|number| serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{number}"), "labels": {"a": "b", "c": "d"}}, "data": {"e": "f"}}))
            .collect();
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items});
        assert_eq!(parsed(&list.to_string()).unwrap().len(), 20_000);
        // Ten levels of ten aliases each: ten thousand million, of half a kilobyte.
        let mut bomb = "a0: &a0 [x, x]\n".to_owned();
        for level in 1..11 {
            let below = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(parsed(&bomb).is_err());
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(parsed(&deep).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_objects_or_a_sentence(
            text in prop_oneof![
                any::<String>(),
                "((apiVersion: v1|kind: (Pod|List|~)|metadata: \\{name: [a~]\\}|items:|- a|---( #x)?|- \\{kind: Pod\\}|&a \\*a|[{\\[]|\t| )\n?){0,10}",
            ]
        ) {
            let mut objects = Vec::new();
            match parse(&text, &mut objects) {
                Ok(()) => prop_assert!(objects.iter().all(|object| !object.name().is_empty() && !object.kind().is_empty())),
                Err(told) => prop_assert!(!told.is_empty()),
            }
            // Nothing is lost between documents but the lines that separate them.
            let kept: usize = documents(&text).map(str::len).sum();
            prop_assert!(kept <= text.len());
            if !text.contains("---") {
                prop_assert_eq!(kept, text.len());
            }
        }
    }

    #[test]
    fn folders_are_read_in_order_and_to_their_depth() {
        let top = tempfile::tempdir().unwrap();
        let below = top.path().join("below");
        std::fs::create_dir(&below).unwrap();
        std::os::unix::fs::symlink(top.path(), below.join("loop")).unwrap();
        for path in ["b.yaml", "a.json", "notes.txt", "below/c.yml"] {
            let name = path.split('.').next().unwrap().replace('/', "-");
            let text = format!(
                "{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": \"{name}\"}}}}"
            );
            std::fs::write(top.path().join(path), text).unwrap();
        }
        for (recursive, expected) in [(false, "a b"), (true, "a b below-c")] {
            let read = read(&[top.path().to_owned()], recursive).unwrap();
            let names: Vec<&str> = read.iter().map(Object::name).collect();
            assert_eq!(names.join(" "), expected);
        }
    }

    #[test]
    fn what_is_not_an_object_is_named() {
        for (text, why) in [
            ("- a", "expected a JSON object, found a list"),
            (
                "kind: Pod\nmetadata: {name: a}",
                "an object has no apiVersion",
            ),
            ("apiVersion: v1\nkind: Pod", "a Pod has no metadata.name"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}",
                "a Pod has no metadata.name; with metadata.generateName every apply would create another one",
            ),
        ] {
            assert_eq!(parsed(text).unwrap_err(), why);
        }
        assert!(parsed("a: [").is_err());
    }
}
