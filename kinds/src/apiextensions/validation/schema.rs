//! What a schema of a definition may say: the rules of OpenAPI, then those of structural schemas, then its defaults, then its rules.

use serde_json::{Value, json};
use weft_api::status::Cause;

use super::Judge;
use super::open_api::{Around, OpenApi};
use crate::apiextensions::structural;
use crate::cel::rules;
use crate::decode::{findings, structural as schemas};
use crate::lens::{flag, text};
use crate::schema::{Node, Schema};

impl Judge {
    /// The schema at `path`, of the part of a definition at `above`.
    pub(super) fn schema(&mut self, schema: &Value, path: &str, above: &str, status: bool) {
        let before = self.causes.len();
        if status {
            self.root_of_status(schema, path);
        }
        if flag(schema, "/nullable") {
            let at = format!("{path}.nullable");
            self.forbidden(&at, "nullable cannot be true at the root");
        }
        let mut open_api = OpenApi::default();
        open_api.place(schema, path, true, Around::default());
        // What structural schemas do not have at all is told of by the rules of OpenAPI alone.
        let structural = match open_api.unsupported {
            true => Vec::new(),
            false => structural::faults(schema, path),
        };
        let node = match Node::parse(schema) {
            Ok(node) => Some(node),
            Err(error) => {
                if open_api.causes.is_empty() && structural.is_empty() {
                    self.invalid(above, "", &format!("error building validator: {error}"));
                }
                None
            }
        };
        let sound = structural.is_empty() && !open_api.unsupported;
        self.causes.extend(structural);
        let mut ready = false;
        if let Some(node) = node.as_ref().filter(|_| sound) {
            let faults = defaults(Schema::at(node), path);
            ready = faults.is_empty() && open_api.causes.is_empty();
            self.causes.extend(faults);
        }
        self.causes.extend(open_api.causes);
        if let Some(node) = node
            .as_ref()
            .filter(|_| ready && self.causes.len() == before)
        {
            self.causes
                .extend(rules::definition_faults(Schema::at(node), path));
        }
    }

    /// The status is judged by a part of the schema, so the root may say nothing that would be lost.
    fn root_of_status(&mut self, schema: &Value, path: &str) {
        const ALLOWED: &[(&str, &str)] = &[
            ("Description", "description"),
            ("Type", "type"),
            ("Format", "format"),
            ("Title", "title"),
            ("Maximum", "maximum"),
            ("ExclusiveMaximum", "exclusiveMaximum"),
            ("Minimum", "minimum"),
            ("ExclusiveMinimum", "exclusiveMinimum"),
            ("MaxLength", "maxLength"),
            ("MinLength", "minLength"),
            ("Pattern", "pattern"),
            ("MaxItems", "maxItems"),
            ("MinItems", "minItems"),
            ("UniqueItems", "uniqueItems"),
            ("MultipleOf", "multipleOf"),
            ("Required", "required"),
            ("Items", "items"),
            ("Properties", "properties"),
            ("ExternalDocs", "externalDocs"),
            ("Example", "example"),
            (
                "XPreserveUnknownFields",
                "x-kubernetes-preserve-unknown-fields",
            ),
            ("XValidations", "x-kubernetes-validations"),
        ];
        let kind = text(schema, "/type");
        if !kind.is_empty() && kind != "object" {
            let told = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
            self.invalid(&format!("{path}.type"), kind, told);
            return;
        }
        let allowed = |member: &String| ALLOWED.iter().any(|(_, known)| *known == member.as_str());
        let members = schema.as_object().into_iter().flatten();
        let mut others =
            members.filter(|(member, value)| !allowed(member) && **value != json!(false));
        if others.next().is_some() {
            let names: Vec<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
            let told = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                names.join(" ")
            );
            self.invalid(path, schema.clone(), &told);
        }
    }
}

/// Defaults that their own schema would refuse.
fn defaults(schema: Schema<'_>, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut budget = rules::OBJECT_COST_MAX;
    default_at(schema, path, true, &mut budget, &mut causes);
    causes
}

fn default_at(
    schema: Schema<'_>,
    path: &str,
    root: bool,
    budget: &mut u64,
    causes: &mut Vec<Cause>,
) {
    if let Some(default) = schema.default() {
        let at = format!("{path}.default");
        if !schemas::is_pruned(schema, default) {
            causes.push(Cause::invalid(&at, default, "must not have unknown fields"));
        }
        let mut found = findings::validate_part(schema, default, &at);
        for cause in &mut found {
            // What is wrong with it is said from where it begins.
            if let Some(below) = cause.field.strip_prefix(&at) {
                let named = format!("{} in body ", below.trim_start_matches('.'));
                let told = cause
                    .message
                    .replace(&format!("{} in body ", cause.field), &named);
                cause.message = told;
            }
        }
        let sound = found.is_empty();
        causes.extend(found);
        // As the value of an object that is new, and of one that stays as it is.
        for old in [Some(default), None] {
            if !sound || *budget == 0 {
                break;
            }
            let options = rules::Options {
                cost_max: *budget,
                root,
                ratchets: false,
            };
            let judgement = rules::judge(schema, default, old, options);
            let ended = !judgement.causes.is_empty();
            for mut cause in judgement.causes {
                cause.field = match cause.field.as_str() {
                    "<nil>" | "" => at.clone(),
                    below => format!("{at}.{below}"),
                };
                causes.push(cause);
            }
            *budget = budget.saturating_sub(judgement.cost.unwrap_or(*budget));
            if ended {
                break;
            }
        }
    }
    if let Some(item) = schema.items() {
        default_at(item, &format!("{path}.items"), false, budget, causes);
    }
    for (name, field) in schema.properties() {
        let at = format!("{path}.properties[{name}]");
        default_at(field, &at, false, budget, causes);
    }
}
