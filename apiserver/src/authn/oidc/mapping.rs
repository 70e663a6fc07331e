//! From the claims of a token that an issuer signed to the user that they make.
//!
//! Invariants: pure; nobody without a name; what a rule refuses is told in its words. Source: k8s.io/apiserver
//! `plugin/pkg/authenticator/token/oidc`, 1.37.

use serde_json::{Value, json};
use weft_kinds::cel::{Meter, Program, Value as Given};

use super::config::{Compiled, Mapped, Rule, claims_type, user_type};
use crate::caller::{Caller, Extra};

/// What an expression gives over `value`, which it knows as `variable`.
fn evaluated(program: &Program, variable: &str, value: &Value) -> Result<Value, String> {
    let decl = match variable {
        "user" => user_type(),
        _ => claims_type(),
    };
    let given = Given::of(value, &decl).map_err(|error| error.message)?;
    let mut meter = Meter::per_call();
    let found = program.eval(&[(variable, given)], &mut meter);
    let found = found.map_err(|error| error.message)?;
    found.to_json().map_err(|error| error.message)
}

/// The audiences of a token.
fn audiences(claims: &Value) -> Vec<&str> {
    match &claims["aud"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// One text, or several.
fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(one) if one.is_empty() => Some(Vec::new()),
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) => many
            .iter()
            .map(|one| one.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    }
}

impl Compiled {
    /// The user of a token whose signature was checked, at `now` in seconds.
    ///
    /// # Errors
    /// What keeps him from being one.
    pub(super) fn user(&self, claims: &Value, now: i64) -> Result<Caller, String> {
        let verify = |why: String| Err(format!("oidc: verify token: {why}"));
        let accepted = &self.issuer.audiences;
        let shown = audiences(claims);
        if !shown
            .iter()
            .any(|one| accepted.iter().any(|own| own == one))
        {
            let list = |all: &[&str]| {
                let all: Vec<String> = all.iter().map(|one| format!("{one:?}")).collect();
                format!("[{}]", all.join(" "))
            };
            let accepted: Vec<&str> = accepted.iter().map(String::as_str).collect();
            return verify(format!(
                "oidc: expected audience in {} got {}",
                list(&accepted),
                list(&shown)
            ));
        }
        let seconds = |claim: &str| claims[claim].as_f64().map(|at| at as i64);
        match seconds("exp") {
            Some(end) if now <= end => {}
            _ => return verify("oidc: token is expired".to_owned()),
        }
        if seconds("nbf").is_some_and(|from| now < from) {
            return verify("oidc: current time is before the nbf (not before) time".to_owned());
        }
        self.check_claims(claims)?;
        let username = self.username(claims)?;
        let groups = self.groups(claims)?;
        let uid = match &self.uid {
            Mapped::Nothing => String::new(),
            Mapped::Claim { name, .. } => {
                let found = claims[name.as_str()].as_str();
                found
                    .ok_or_else(|| format!("oidc: parse uid claim {name:?}: claim not present"))?
                    .to_owned()
            }
            Mapped::Expression { program, .. } => {
                let found = evaluated(program, "claims", claims)
                    .map_err(|why| format!("oidc: error evaluating uid claim expression: {why}"))?;
                let text = found.as_str().map(str::to_owned);
                text.ok_or("oidc: error evaluating uid claim expression: uid claim expression must return a string")?
            }
        };
        let mut extra = Extra::new();
        for (key, source, program) in &self.extra {
            let failed = |why: String| {
                format!("oidc: error evaluating extra claim expression: {source}: {why}")
            };
            let found = evaluated(program, "claims", claims).map_err(failed)?;
            let unfit =
                || failed("expression must return a string or a list of strings".to_owned());
            let values = texts(&found).ok_or_else(unfit)?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        let user = json!({"username": username, "uid": uid, "groups": groups, "extra": extra});
        for rule in &self.user_rules {
            check(rule, "user", &user).map_err(|why| {
                format!("oidc: error evaluating user info validation rule: {why}")
            })?;
        }
        let uid = (!uid.is_empty()).then_some(uid);
        Ok(Caller::static_token(username, uid, groups).with_extra(extra))
    }

    fn check_claims(&self, claims: &Value) -> Result<(), String> {
        for rule in &self.rules {
            let Rule::Claim { name, value } = rule else {
                check(rule, "claims", claims).map_err(|why| {
                    format!("oidc: error evaluating claim validation expression: {why}")
                })?;
                continue;
            };
            match claims.get(name) {
                None => {
                    return Err(format!(
                        "oidc: required claim {name} not present in ID token"
                    ));
                }
                Some(Value::String(found)) if found == value => {}
                Some(Value::String(found)) => {
                    return Err(format!(
                        "oidc: required claim {name} value does not match. Got = {found}, want = {value}"
                    ));
                }
                Some(_) => return Err(format!("oidc: parse claim {name}: it is no text")),
            }
        }
        Ok(())
    }

    fn username(&self, claims: &Value) -> Result<String, String> {
        let name = match &self.username {
            Mapped::Nothing => String::new(),
            Mapped::Expression { program, .. } => {
                let failed = |why: String| {
                    format!("oidc: error evaluating username claim expression: {why}")
                };
                let found = evaluated(program, "claims", claims).map_err(failed)?;
                let text = found.as_str().map(str::to_owned);
                text.ok_or_else(|| {
                    failed("username claim expression must return a string".to_owned())
                })?
            }
            Mapped::Claim { name, prefix } => {
                let found = claims[name.as_str()].as_str().ok_or_else(|| {
                    format!("oidc: parse username claims {name:?}: claim not present")
                })?;
                // An address that nobody has seen to be his is anybody's.
                if name == "email" && claims.get("email_verified").is_some_and(|is| is != true) {
                    return Err("oidc: email not verified".to_owned());
                }
                return match found.is_empty() {
                    true => Err("oidc: empty username is not allowed".to_owned()),
                    false => Ok(format!("{prefix}{found}")),
                };
            }
        };
        match name.is_empty() {
            true => Err("oidc: empty username via CEL expression is not allowed".to_owned()),
            false => Ok(name),
        }
    }

    fn groups(&self, claims: &Value) -> Result<Vec<String>, String> {
        match &self.groups {
            Mapped::Nothing => Ok(Vec::new()),
            Mapped::Claim { name, prefix } => {
                let found = texts(&claims[name.as_str()]).ok_or_else(|| {
                    format!("oidc: parse groups claim {name:?}: it is neither a text nor a list of texts")
                })?;
                Ok(found
                    .iter()
                    .map(|group| format!("{prefix}{group}"))
                    .collect())
            }
            Mapped::Expression { program, source } => {
                let failed = |why: String| {
                    format!("oidc: error evaluating group claim expression: {source}: {why}")
                };
                let found = evaluated(program, "claims", claims).map_err(failed)?;
                texts(&found).ok_or_else(|| {
                    failed("expression must return a string or a list of strings".to_owned())
                })
            }
        }
    }
}

fn check(rule: &Rule, variable: &str, value: &Value) -> Result<(), String> {
    let Rule::Expression {
        source,
        message,
        program,
    } = rule
    else {
        return Ok(());
    };
    match evaluated(program, variable, value)? {
        Value::Bool(true) => Ok(()),
        Value::Bool(false) => Err(format!(
            "validation expression '{source}' failed: {message}"
        )),
        _ => Err("validation expression must return a boolean".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::AuthenticationConfiguration;
    use super::*;

    fn compiled(jwt: &str) -> Result<Compiled, String> {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n{jwt}"
        );
        let read = AuthenticationConfiguration::parse(&text).map_err(|error| error.to_string())?;
        let mut all = read
            .compiled("https://own")
            .map_err(|error| error.to_string())?;
        Ok(all.remove(0))
    }

    const PLAIN: &str = r#"
- issuer: {url: "https://a.example", audiences: [weft]}
  claimMappings:
    username: {claim: sub, prefix: "a:"}
    groups: {claim: groups, prefix: ""}
  claimValidationRules:
  - {claim: hd, requiredValue: a.example}
"#;
    const EXPRESSIONS: &str = r#"
- issuer: {url: "https://a.example", audiences: [weft, other], audienceMatchPolicy: MatchAny}
  claimMappings:
    username: {expression: "claims.email.split('@')[0]"}
    groups: {expression: "claims.roles.split(',')"}
    uid: {expression: "claims.sub"}
    extra: [{key: "a.example/team", valueExpression: "claims.team"}]
  claimValidationRules:
  - {expression: "claims.level > 2", message: "too low"}
  userValidationRules:
  - {expression: "!user.username.startsWith('system:')", message: "reserved"}
"#;

    fn user(jwt: &str, more: Value) -> String {
        let mut claims = json!({"aud": "weft", "exp": 100, "sub": "7", "hd": "a.example"});
        for (key, value) in more.as_object().unwrap() {
            claims[key] = value.clone();
        }
        match compiled(jwt).unwrap().user(&claims, 50) {
            Ok(user) => format!(
                "{} {:?} {} {:?}",
                user.user(),
                user.uid(),
                user.groups().join("+"),
                user.extra()
            ),
            Err(why) => why,
        }
    }

    #[test]
    fn claims_make_a_user_or_are_refused_by_a_rule() {
        let good = json!({"email": "jo@a.example", "roles": "dev,ops", "team": ["x"], "level": 3});
        let with = |field: &str, value: Value| {
            let mut claims = good.clone();
            claims[field] = value;
            claims
        };
        for (jwt, more, expected) in [
            (
                PLAIN,
                json!({"groups": ["dev", "ops"]}),
                "a:7 None dev+ops+system:authenticated {}",
            ),
            (
                PLAIN,
                json!({"groups": "dev"}),
                "a:7 None dev+system:authenticated {}",
            ),
            (
                PLAIN,
                json!({"hd": "b.example"}),
                "oidc: required claim hd value does not match. Got = b.example, want = a.example",
            ),
            (
                PLAIN,
                json!({"aud": ["x"]}),
                "oidc: verify token: oidc: expected audience in [\"weft\"] got [\"x\"]",
            ),
            (
                PLAIN,
                json!({"exp": 49}),
                "oidc: verify token: oidc: token is expired",
            ),
            (
                PLAIN,
                json!({"sub": ""}),
                "oidc: empty username is not allowed",
            ),
            (
                EXPRESSIONS,
                good.clone(),
                "jo Some(\"7\") dev+ops+system:authenticated {\"a.example/team\": [\"x\"]}",
            ),
            (
                EXPRESSIONS,
                with("level", json!(2)),
                "oidc: error evaluating claim validation expression: validation expression 'claims.level > 2' failed: too low",
            ),
            (
                EXPRESSIONS,
                with("email", json!("system:root@a.example")),
                "oidc: error evaluating user info validation rule: validation expression '!user.username.startsWith('system:')' failed: reserved",
            ),
            (
                EXPRESSIONS,
                with("email", json!("@a.example")),
                "oidc: empty username via CEL expression is not allowed",
            ),
        ] {
            assert_eq!(user(jwt, more), expected);
        }
        let mail = PLAIN.replace("claim: sub", "claim: email");
        let unverified = json!({"email": "jo@a.example", "email_verified": false});
        assert_eq!(user(&mail, unverified), "oidc: email not verified");
    }

    #[test]
    fn what_cannot_work_is_refused_at_the_start() {
        for (change, told) in [
            (
                ("https://a.example", "http://a.example"),
                "jwt[0].issuer.url: URL scheme must be https",
            ),
            (
                ("https://a.example", "https://own"),
                "jwt[0].issuer.url: Duplicate value",
            ),
            (("[weft]", "[]"), "audiences is required"),
            (
                ("[weft]", "[weft, x]"),
                "audienceMatchPolicy must be MatchAny",
            ),
            (
                ("claim: sub, prefix: \"a:\"", "claim: sub"),
                "prefix is required when claim is set",
            ),
            (
                ("claim: sub, prefix: \"a:\"", "expression: \"1 + 1\""),
                "it may not evaluate to int",
            ),
            (
                ("claim: sub, prefix: \"a:\"", "expression: \"claims.(\""),
                "compilation failed",
            ),
            (("claim: hd", "nothing: hd"), "nothing"),
        ] {
            let told_of = compiled(&PLAIN.replace(change.0, change.1)).unwrap_err();
            assert!(told_of.contains(told), "{told_of}");
        }
    }
}
