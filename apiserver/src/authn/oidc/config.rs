//! Who is believed beside this cluster, and what becomes of his claims: Kubernetes' AuthenticationConfiguration, from its file.
//!
//! Invariants: a configuration that cannot be read as a whole is refused, and so is an expression that does not give what it should. Source:
//! k8s.io/apiserver `pkg/apis/apiserver`, 1.37.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;
use weft_kinds::cel::{Decl, Program, Type};

/// As the file has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    pub(super) jwt: Vec<JwtAuthenticator>,
    pub(super) anonymous: Option<Anonymous>,
}

/// What becomes of those without a credential.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Anonymous {
    pub enabled: bool,
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Condition {
    pub path: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct JwtAuthenticator {
    pub issuer: Issuer,
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimRule>,
    pub claim_mappings: Mappings,
    #[serde(default)]
    pub user_validation_rules: Vec<UserRule>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Issuer {
    pub url: String,
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: String,
    #[serde(default)]
    pub certificate_authority: String,
    pub audiences: Vec<String>,
    #[serde(default)]
    pub audience_match_policy: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ClaimRule {
    #[serde(default)]
    pub claim: String,
    #[serde(default)]
    pub required_value: String,
    #[serde(default)]
    pub expression: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct UserRule {
    pub expression: String,
    #[serde(default)]
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Mappings {
    pub username: Source,
    #[serde(default)]
    pub groups: Source,
    #[serde(default)]
    pub uid: Source,
    #[serde(default)]
    pub extra: Vec<Extra>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Source {
    #[serde(default)]
    pub claim: String,
    pub prefix: Option<String>,
    #[serde(default)]
    pub expression: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Extra {
    pub key: String,
    pub value_expression: String,
}

/// Why a configuration cannot be used: where, and what is wrong there.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigurationError(String);

fn refused(at: &str, why: impl std::fmt::Display) -> ConfigurationError {
    ConfigurationError(format!("{at}: {why}"))
}

/// A value of a claim, or of an expression over all of them.
#[derive(Debug)]
pub(super) enum Mapped {
    Nothing,
    Claim { name: String, prefix: String },
    Expression { source: String, program: Program },
}

/// Rules, compiled.
#[derive(Debug)]
pub(super) enum Rule {
    Claim {
        name: String,
        value: String,
    },
    Expression {
        source: String,
        message: String,
        program: Program,
    },
}

/// What becomes of the claims of one issuer.
#[derive(Debug)]
pub(super) struct Compiled {
    pub issuer: Issuer,
    pub rules: Vec<Rule>,
    pub username: Mapped,
    pub groups: Mapped,
    pub uid: Mapped,
    pub extra: Vec<(String, String, Program)>,
    pub user_rules: Vec<Rule>,
}

/// The claims of a token, of which nothing is known before.
pub(super) fn claims_type() -> Arc<Decl> {
    Decl::map_of(Decl::any())
}

/// The user that they make.
pub(super) fn user_type() -> Arc<Decl> {
    let texts = || Decl::list_of(Decl::text());
    Decl::record(
        "kubernetes.UserInfo",
        &[
            ("username", Decl::text()),
            ("uid", Decl::text()),
            ("groups", texts()),
            ("extra", Decl::map_of(texts())),
        ],
    )
}

fn compile(
    at: &str,
    source: &str,
    variable: (&str, Arc<Decl>),
    fits: fn(&Type) -> bool,
) -> Result<Program, ConfigurationError> {
    let (name, decl) = variable;
    let program = Program::compile(source, &[(name, decl.cel_type())], None);
    let program = program.map_err(|why| refused(at, format!("compilation failed: {why}")))?;
    match fits(program.output()) {
        true => Ok(program),
        false => {
            let found = program.output();
            Err(refused(at, format!("it may not evaluate to {found}")))
        }
    }
}

fn is_text(of: &Type) -> bool {
    matches!(of, Type::String | Type::Dyn)
}

fn is_text_or_list(of: &Type) -> bool {
    is_text(of) || matches!(of, Type::List(item) if is_text(item))
}

fn is_bool(of: &Type) -> bool {
    matches!(of, Type::Bool)
}

fn mapped(
    at: &str,
    source: &Source,
    prefixed: bool,
    fits: fn(&Type) -> bool,
) -> Result<Mapped, ConfigurationError> {
    match (source.claim.as_str(), source.expression.as_str()) {
        ("", "") => Ok(Mapped::Nothing),
        (_, expression) if source.claim.is_empty() => {
            if source.prefix.is_some() {
                return Err(refused(at, "prefix can't be set when expression is set"));
            }
            let at = format!("{at}.expression");
            let program = compile(&at, expression, ("claims", claims_type()), fits)?;
            Ok(Mapped::Expression {
                source: expression.to_owned(),
                program,
            })
        }
        (claim, "") => match &source.prefix {
            None if prefixed => {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                Err(refused(at, why))
            }
            prefix => Ok(Mapped::Claim {
                name: claim.to_owned(),
                prefix: prefix.clone().unwrap_or_default(),
            }),
        },
        _ => Err(refused(at, "claim and expression can't both be set")),
    }
}

impl AuthenticationConfiguration {
    /// Reads a configuration, YAML or JSON.
    ///
    /// # Errors
    /// [`ConfigurationError`].
    pub fn parse(text: &str) -> Result<Self, ConfigurationError> {
        let read: Result<Self, _> = serde_saphyr::from_str(text);
        let read = read.map_err(|error| ConfigurationError(error.to_string()))?;
        let of_us = ["v1", "v1beta1", "v1alpha1"]
            .iter()
            .any(|version| read.api_version == format!("apiserver.config.k8s.io/{version}"));
        if !of_us || read.kind != "AuthenticationConfiguration" {
            return Err(ConfigurationError(format!(
                "it is a {} of {}, and not an AuthenticationConfiguration of apiserver.config.k8s.io/v1",
                read.kind, read.api_version
            )));
        }
        Ok(read)
    }

    /// The issuers, with everything compiled. `own` is whose tokens are nobody else's.
    pub(super) fn compiled(&self, own: &str) -> Result<Vec<Compiled>, ConfigurationError> {
        let mut seen = BTreeSet::new();
        let all = self.jwt.iter().enumerate().map(|(index, jwt)| {
            let at = format!("jwt[{index}]");
            let url = &jwt.issuer.url;
            if !url.starts_with("https://") {
                return Err(refused(
                    &format!("{at}.issuer.url"),
                    "URL scheme must be https",
                ));
            }
            if url == own || !seen.insert(url.clone()) {
                let why = format!("Duplicate value: {url:?}");
                return Err(refused(&format!("{at}.issuer.url"), why));
            }
            jwt.compiled(&at)
        });
        all.collect()
    }
}

impl JwtAuthenticator {
    fn compiled(&self, at: &str) -> Result<Compiled, ConfigurationError> {
        let audiences = &self.issuer.audiences;
        let place = format!("{at}.issuer");
        if audiences.is_empty() {
            return Err(refused(
                &place,
                "at least one jwt[*].issuer.audiences is required",
            ));
        }
        let policy = self.issuer.audience_match_policy.as_str();
        if audiences.len() > 1 && policy != "MatchAny" {
            let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
            return Err(refused(&place, why));
        }
        if !matches!(policy, "" | "MatchAny") {
            return Err(refused(
                &place,
                "audienceMatchPolicy must be empty or MatchAny",
            ));
        }
        let discovery = &self.issuer.discovery_url;
        if !discovery.is_empty() && !discovery.starts_with("https://") {
            return Err(refused(&place, "discoveryURL: URL scheme must be https"));
        }
        let mappings = &self.claim_mappings;
        let place = format!("{at}.claimMappings");
        let username = mapped(
            &format!("{place}.username"),
            &mappings.username,
            true,
            is_text,
        )?;
        if matches!(username, Mapped::Nothing) {
            let why = "claim or expression is required";
            return Err(refused(&format!("{place}.username"), why));
        }
        let groups = format!("{place}.groups");
        let groups = mapped(&groups, &mappings.groups, true, is_text_or_list)?;
        let uid = mapped(&format!("{place}.uid"), &mappings.uid, false, is_text)?;
        let mut keys = BTreeSet::new();
        let extra = mappings.extra.iter().enumerate().map(|(index, one)| {
            let place = format!("{place}.extra[{index}]");
            let sound = one.key.contains('/') && one.key.to_lowercase() == one.key;
            if !sound || !keys.insert(&one.key) {
                let why = "key must be a unique domain-prefixed path in lowercase";
                return Err(refused(&place, why));
            }
            let source = &one.value_expression;
            let program = compile(&place, source, ("claims", claims_type()), is_text_or_list)?;
            Ok((one.key.clone(), source.clone(), program))
        });
        let rules = self.claim_validation_rules.iter().enumerate();
        let rules = rules.map(|(index, rule)| {
            let place = format!("{at}.claimValidationRules[{index}]");
            match (rule.claim.as_str(), rule.expression.as_str()) {
                ("", "") => Err(refused(&place, "claim or expression is required")),
                (name, "") => Ok(Rule::Claim {
                    name: name.to_owned(),
                    value: rule.required_value.clone(),
                }),
                ("", source) => Ok(Rule::Expression {
                    source: source.to_owned(),
                    message: rule.message.clone(),
                    program: compile(&place, source, ("claims", claims_type()), is_bool)?,
                }),
                _ => Err(refused(&place, "claim and expression can't both be set")),
            }
        });
        let user_rules = self.user_validation_rules.iter().enumerate();
        let user_rules = user_rules.map(|(index, rule)| {
            let place = format!("{at}.userValidationRules[{index}]");
            Ok(Rule::Expression {
                source: rule.expression.clone(),
                message: rule.message.clone(),
                program: compile(&place, &rule.expression, ("user", user_type()), is_bool)?,
            })
        });
        Ok(Compiled {
            issuer: self.issuer.clone(),
            username,
            groups,
            uid,
            extra: extra.collect::<Result<_, _>>()?,
            rules: rules.collect::<Result<_, _>>()?,
            user_rules: user_rules.collect::<Result<_, _>>()?,
        })
    }
}
