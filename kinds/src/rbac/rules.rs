//! What a rule of a role allows, and whether some rules allow all that others do.
//!
//! Invariants: pure; what is not said is not allowed; a rule covers a smaller one exactly if whatever that one allows, it allows, too, as far as
//! one rule alone tells. Source: kubernetes `plugin/pkg/auth/authorizer/rbac`, `pkg/registry/rbac` and component-helpers
//! `auth/rbac/validation`, 1.37.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::lens::items;

/// Stands for every verb, group, resource and path.
const ALL: &str = "*";

/// One rule of a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub paths: Vec<String>,
}

/// What is asked of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// Empty for all objects.
    pub name: &'a str,
}

fn has(list: &[String], one: &str) -> bool {
    list.iter().any(|each| each == one)
}

fn has_or_all(list: &[String], one: &str) -> bool {
    list.iter().any(|each| each == one || each == ALL)
}

impl Rule {
    /// A rule as it stands in a role.
    pub fn of(rule: &Value) -> Self {
        let list = |field: &str| {
            let texts = items(rule, field).iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        };
        Self {
            verbs: list("/verbs"),
            groups: list("/apiGroups"),
            resources: list("/resources"),
            names: list("/resourceNames"),
            paths: list("/nonResourceURLs"),
        }
    }

    /// The rules of a role.
    pub fn all_of(role: &Value) -> Vec<Self> {
        items(role, "/rules").iter().map(Self::of).collect()
    }

    /// The same as it stands in a role, without what it does not say.
    pub fn to_value(&self) -> Value {
        let mut value = json!({"verbs": self.verbs});
        for (field, list) in [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.paths),
        ] {
            if !list.is_empty() {
                value[field] = json!(list);
            }
        }
        value
    }

    pub fn allows(&self, asked: &Asked<'_>) -> bool {
        has_or_all(&self.verbs, asked.verb)
            && has_or_all(&self.groups, asked.group)
            && self.is_about(asked)
            && (self.names.is_empty() || has(&self.names, asked.name))
    }

    fn is_about(&self, asked: &Asked<'_>) -> bool {
        let Asked {
            resource,
            subresource,
            ..
        } = *asked;
        self.resources.iter().any(|own| {
            own == ALL
                || match subresource {
                    "" => own == resource,
                    sub => own
                        .split_once('/')
                        .is_some_and(|(of, below)| below == sub && (of == ALL || of == resource)),
                }
        })
    }

    /// Whether it allows something with a path that is no resource.
    pub fn allows_path(&self, verb: &str, path: &str) -> bool {
        let about = |own: &String| match own.strip_suffix(ALL) {
            Some(_) => path.starts_with(own.trim_end_matches(ALL)),
            None => own == path,
        };
        has_or_all(&self.verbs, verb) && self.paths.iter().any(about)
    }

    /// Rules with one verb, one resource and one name or path each, that allow the same together.
    fn parts(&self) -> Vec<Self> {
        let one = |text: &str| vec![text.to_owned()];
        let mut parts = Vec::new();
        for group in &self.groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let part = Self {
                        verbs: one(verb),
                        groups: one(group),
                        resources: one(resource),
                        ..Self::default()
                    };
                    if self.names.is_empty() {
                        parts.push(part);
                        continue;
                    }
                    parts.extend(self.names.iter().map(|name| Self {
                        names: one(name),
                        ..part.clone()
                    }));
                }
            }
        }
        for path in &self.paths {
            parts.extend(self.verbs.iter().map(|verb| Self {
                verbs: one(verb),
                paths: one(path),
                ..Self::default()
            }));
        }
        parts
    }

    /// Whether it allows whatever `part` does, which says one thing.
    fn covers(&self, part: &Self) -> bool {
        let all = |own: &[String], others: &[String]| {
            has(own, ALL) || others.iter().all(|other| has(own, other))
        };
        let resource = |other: &String| {
            let below = other.split_once('/').map(|(_, below)| below);
            has(&self.resources, other)
                || below.is_some_and(|below| has(&self.resources, &format!("*/{below}")))
        };
        let path = |other: &String| {
            self.paths.iter().any(|own| {
                own == other || (own.ends_with(ALL) && other.starts_with(own.trim_end_matches(ALL)))
            })
        };
        all(&self.verbs, &part.verbs)
            && all(&self.groups, &part.groups)
            && (has(&self.resources, ALL) || part.resources.iter().all(resource))
            && part.paths.iter().all(path)
            && (self.names.is_empty()
                || (!part.names.is_empty() && part.names.iter().all(|name| has(&self.names, name))))
    }

    /// As Go prints it, on one line.
    fn shown(&self) -> String {
        let lists = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.paths),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ];
        let shown = lists.into_iter().filter(|(_, list)| !list.is_empty());
        let shown = shown.map(|(name, list)| format!("{name}:{}", quoted(list)));
        format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
    }
}

/// A list as Go prints one of texts.
pub fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// What `wanted` allows and `held` does not, as lines for people; none if all of it is held.
pub fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<String> {
    let parts = wanted.iter().flat_map(Rule::parts);
    let uncovered = parts.filter(|part| !held.iter().any(|rule| rule.covers(part)));
    let mut lines = BTreeSet::new();
    // What differs in the verb alone is told together.
    let mut of_resources: BTreeMap<[Vec<String>; 3], Rule> = BTreeMap::new();
    for part in uncovered {
        if !part.paths.is_empty() {
            lines.insert(part.shown());
            continue;
        }
        let at = [&part.groups, &part.resources, &part.names].map(Clone::clone);
        match of_resources.get_mut(&at) {
            Some(known) => known.verbs.extend(part.verbs),
            None => {
                of_resources.insert(at, part);
            }
        }
    }
    lines.extend(of_resources.values().map(Rule::shown));
    lines.into_iter().collect()
}

/// Rules that allow everything.
pub fn full_authority() -> [Rule; 2] {
    let all = || vec![ALL.to_owned()];
    [
        Rule {
            verbs: all(),
            groups: all(),
            resources: all(),
            ..Rule::default()
        },
        Rule {
            verbs: all(),
            paths: all(),
            ..Rule::default()
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `verbs groups resources names`, lists with commas; `core` is the group without a name.
    fn rule(text: &str) -> Rule {
        let mut parts = text.split(' ').map(|part| {
            let list = part.split(',').filter(|one| !one.is_empty());
            let list = list.map(|one| if one == "core" { "" } else { one }.to_owned());
            list.collect::<Vec<_>>()
        });
        let mut next = || parts.next().unwrap_or_default();
        Rule {
            verbs: next(),
            groups: next(),
            resources: next(),
            names: next(),
            paths: Vec::new(),
        }
    }

    #[test]
    fn a_rule_allows_what_it_says_and_nothing_else() {
        for (said, asked, allowed) in [
            ("get core pods", "get  pods", true),
            ("get core pods", "list  pods", false),
            ("get core pods", "get apps pods", false),
            ("get core pods", "get  pods/log", false),
            ("get core pods/log", "get  pods/log", true),
            ("get core pods/log", "get  pods", false),
            ("get core */log", "get  pods/log", true),
            ("get core */log", "get  pods/status", false),
            ("get core pods/*", "get  pods/log", false),
            ("* * *", "get apps deployments/scale x", true),
            ("get core pods a,b", "get  pods a", true),
            ("get core pods a,b", "get  pods c", false),
            // A list names none.
            ("list core pods a", "list  pods", false),
            ("list core pods a", "list  pods a", true),
        ] {
            let parts: Vec<&str> = asked.split(' ').collect();
            let (resource, subresource) = parts[2].split_once('/').unwrap_or((parts[2], ""));
            let question = Asked {
                verb: parts[0],
                group: parts[1],
                resource,
                subresource,
                name: parts.get(3).copied().unwrap_or(""),
            };
            assert_eq!(rule(said).allows(&question), allowed, "{said}: {asked}");
        }
        for (path, asked, allowed) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/healthz/*", "/healthz/ping", true),
            ("/healthz/*", "/healthz", false),
            ("/api*", "/apis/apps", true),
            ("*", "/anything", true),
        ] {
            let rule = Rule {
                verbs: vec!["get".to_owned()],
                paths: vec![path.to_owned()],
                ..Rule::default()
            };
            assert_eq!(rule.allows_path("get", asked), allowed, "{path}: {asked}");
            assert!(!rule.allows_path("post", asked));
        }
    }

    #[test]
    fn what_is_not_held_is_told() {
        let held = [
            rule("get,list core pods"),
            rule("* apps *"),
            rule("get core secrets a"),
            rule("update core */status"),
        ];
        for (wanted, expected) in [
            ("get core pods", ""),
            ("get core pods x", ""),
            ("delete apps deployments", ""),
            ("update core nodes/status", ""),
            ("get core secrets a", ""),
            (
                "get core secrets",
                r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#,
            ),
            (
                "get,watch,delete core pods",
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["watch" "delete"]}"#,
            ),
            (
                "get core secrets a,b",
                r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["b"], Verbs:["get"]}"#,
            ),
            (
                "get * *",
                r#"{APIGroups:["*"], Resources:["*"], Verbs:["get"]}"#,
            ),
        ] {
            let told = missing(&held, &[rule(wanted)]).join("\n");
            assert_eq!(told, expected, "{wanted}");
        }
        assert!(missing(&full_authority(), &full_authority()).is_empty());
        let path = Rule {
            verbs: vec!["get".to_owned()],
            paths: vec!["/x".to_owned()],
            ..Rule::default()
        };
        assert_eq!(
            missing(&held, &[path]),
            [r#"{NonResourceURLs:["/x"], Verbs:["get"]}"#]
        );
    }
}
