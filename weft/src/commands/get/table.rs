//! Tables that the server renders, laid out for a terminal.

use serde_json::Value;

use crate::commands::output::{lines, printable};

/// Which columns a table has besides the server's.
pub struct Columns {
    pub namespace: bool,
    /// Those of lower priority, too.
    pub wide: bool,
    /// All labels, in one last column.
    pub labels: bool,
    /// Labels that have a column each.
    pub label_columns: Vec<String>,
    pub headers: bool,
    /// What a watch says of each row.
    pub event: bool,
    /// `pod/` before each name, when several kinds are shown.
    pub prefix: Option<String>,
}

/// A table that may grow: the server's tables as one, columns three spaces apart.
pub struct Table {
    columns: Columns,
    headed: bool,
    widths: Vec<usize>,
}

impl Table {
    pub fn new(columns: Columns) -> Self {
        let headed = !columns.headers;
        Self {
            columns,
            headed,
            widths: Vec::new(),
        }
    }

    /// Whether nothing has been shown yet; from now on something has.
    pub fn is_first(&mut self) -> bool {
        !std::mem::replace(&mut self.headed, true)
    }

    /// The rows of `tables`, below the names of the columns the first time; empty when there are no rows.
    pub fn render(&mut self, tables: &[Value], event: &str) -> String {
        let mut rows = Vec::new();
        for table in tables {
            let definitions = list(&table["columnDefinitions"]);
            let shown: Vec<(usize, &Value)> = definitions
                .iter()
                .enumerate()
                .filter(|(_, column)| {
                    self.columns.wide || column["priority"].as_i64().unwrap_or(0) == 0
                })
                .collect();
            for row in list(&table["rows"]) {
                if !self.headed {
                    self.headed = true;
                    rows.push(self.header(&shown));
                }
                rows.push(self.row(&shown, row, event));
            }
        }
        lines(&rows, &mut self.widths)
    }

    fn header(&self, shown: &[(usize, &Value)]) -> Vec<String> {
        let columns = &self.columns;
        let mut header = Vec::new();
        header.extend(columns.event.then(|| "EVENT".to_owned()));
        header.extend(columns.namespace.then(|| "NAMESPACE".to_owned()));
        let names = shown
            .iter()
            .map(|(_, column)| text(column, "/name").to_uppercase());
        header.extend(names);
        // As kubectl: of a label's name what is behind its prefix.
        let labels = columns.label_columns.iter().map(|label| {
            let name = label
                .rsplit_once('/')
                .map_or(label.as_str(), |(_, name)| name);
            name.to_uppercase()
        });
        header.extend(labels);
        header.extend(columns.labels.then(|| "LABELS".to_owned()));
        header
    }

    fn row(&self, shown: &[(usize, &Value)], row: &Value, event: &str) -> Vec<String> {
        let columns = &self.columns;
        let cells = list(&row["cells"]);
        let metadata = &row["object"]["metadata"];
        let mut line: Vec<String> = shown
            .iter()
            .map(|(at, _)| match cells.get(*at) {
                Some(Value::String(text)) => printable(text),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            })
            .collect();
        if let (Some(prefix), Some(name)) = (&columns.prefix, line.first_mut()) {
            *name = format!("{prefix}/{name}");
        }
        if columns.namespace {
            line.insert(0, text(metadata, "/namespace").to_owned());
        }
        if columns.event {
            line.insert(0, event.to_owned());
        }
        let labels = columns.label_columns.iter();
        line.extend(labels.map(|label| {
            metadata["labels"][label]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        }));
        line.extend(columns.labels.then(|| all_labels(&metadata["labels"])));
        line
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default()
}

fn all_labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    match pairs.as_slice() {
        [] => "<none>".to_owned(),
        pairs => pairs.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn columns() -> Columns {
        Columns {
            namespace: false,
            wide: false,
            labels: false,
            label_columns: Vec::new(),
            headers: true,
            event: false,
            prefix: None,
        }
    }

    fn table(rows: Value) -> Value {
        json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "IP", "priority": 1}, {"name": "Restarts"}],
            "rows": rows,
        })
    }

    #[test]
    fn tables_align_and_hide_wide_columns() {
        let two = table(json!([
            {"cells": ["web", "10.0.0.1", 0], "object": {"metadata": {"namespace": "n", "labels": {"app": "web", "x.y/tier": "front"}}}},
            {"cells": ["a\u{1b}[31m", "10.0.0.2", 12], "object": {"metadata": {"namespace": "longer"}}},
        ]));
        let render =
            |columns: Columns| Table::new(columns).render(std::slice::from_ref(&two), "ADDED");
        let prefix = Some("pod".to_owned());
        assert_eq!(
            render(Columns {
                prefix,
                ..columns()
            }),
            "NAME         RESTARTS\npod/web      0\npod/a\u{fffd}[31m   12\n"
        );
        let everywhere = Columns {
            namespace: true,
            wide: true,
            ..columns()
        };
        assert!(render(everywhere).starts_with("NAMESPACE   NAME     IP         RESTARTS\n"));
        let labelled = Columns {
            labels: true,
            headers: false,
            ..columns()
        };
        assert_eq!(
            render(labelled),
            "web      0    app=web,x.y/tier=front\na\u{fffd}[31m   12   <none>\n"
        );
        let chosen = Columns {
            label_columns: vec!["x.y/tier".to_owned(), "app".to_owned()],
            event: true,
            ..columns()
        };
        assert_eq!(
            render(chosen),
            "EVENT   NAME     RESTARTS   TIER    APP\nADDED   web      0          front   web\nADDED   a\u{fffd}[31m   12\n"
        );
        assert_eq!(Table::new(columns()).render(&[table(json!([]))], ""), "");
    }

    #[test]
    fn a_watched_table_has_one_header_and_keeps_its_columns() {
        let mut growing = Table::new(columns());
        let row = |name: &str| table(json!([{"cells": [name, "", 0]}]));
        assert_eq!(growing.render(&[table(json!([]))], ""), "");
        assert_eq!(
            growing.render(&[row("voting-1")], ""),
            "NAME       RESTARTS\nvoting-1   0\n"
        );
        assert_eq!(growing.render(&[row("web-1")], ""), "web-1      0\n");
    }
}
