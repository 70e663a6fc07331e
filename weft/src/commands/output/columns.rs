//! Columns that the user names: `-o custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[*].image`.
//!
//! A row an object; several values of one path are separated by a comma; what is not there is `<none>`.

use std::str::FromStr;

use serde_json::Value;
use weft_kinds::apiextensions::json_path::JsonPath;

use super::template::shown;
use super::{lines, printable};

/// A header and a path for each column.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomColumns(Vec<(String, JsonPath)>);

impl FromStr for CustomColumns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let columns = text.split(',').map(|column| {
            let (header, path) = column
                .split_once(':')
                .filter(|(header, path)| !header.is_empty() && !path.is_empty())
                .ok_or_else(|| format!("{column:?} is no HEADER:PATH"))?;
            // With or without braces and a leading point.
            let bare = path
                .strip_prefix('{')
                .and_then(|path| path.strip_suffix('}'));
            let bare = bare.unwrap_or(path);
            let dotted = match bare.starts_with(['.', '[', '$', '@']) {
                true => bare.to_owned(),
                false => format!(".{bare}"),
            };
            let path = JsonPath::parse(&dotted).ok_or_else(|| format!("{path:?} is no path"))?;
            Ok((header.to_owned(), path))
        });
        columns.collect::<Result<_, String>>().map(Self)
    }
}

impl CustomColumns {
    /// The rows of `objects`, below the headers if they are wanted.
    pub fn render(&self, objects: &[Value], headers: bool) -> String {
        let header = headers.then(|| self.0.iter().map(|(header, _)| header.clone()).collect());
        let rows = objects.iter().map(|object| {
            let cells = self.0.iter().map(|(_, path)| {
                let found = path.find(object).unwrap_or_default();
                match found.as_slice() {
                    [] => "<none>".to_owned(),
                    found => printable(
                        &found
                            .iter()
                            .map(|value| shown(value))
                            .collect::<Vec<_>>()
                            .join(","),
                    ),
                }
            });
            cells.collect()
        });
        let rows: Vec<Vec<String>> = header.into_iter().chain(rows).collect();
        lines(&rows, &mut Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_laid_out_below_their_headers() {
        let objects = [
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{"image": "x"}, {"image": "y\u{1b}[2J"}]}}),
            json!({"metadata": {"name": "longer"}}),
        ];
        let columns: CustomColumns = "NAME:.metadata.name,IMAGE:{spec.containers[*].image}"
            .parse()
            .unwrap();
        assert_eq!(
            columns.render(&objects, true),
            "NAME     IMAGE\na        x,y\u{fffd}[2J\nlonger   <none>\n"
        );
        assert_eq!(columns.render(&objects[1..], false), "longer   <none>\n");
        for text in ["", "NAME", "NAME:", ":.a", "A:.a[,B:.b"] {
            assert!(text.parse::<CustomColumns>().is_err(), "{text}");
        }
    }
}
