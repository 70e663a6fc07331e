//! `test-service-account-issuer-discovery`: whether a token of the pod can be checked with what its issuer publishes.
//!
//! Issuer and keys are asked for within the cluster, trusting its authority alone; the signature is checked with the provider's own algorithms.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::{AlgorithmIdentifier, alg_id};
use serde_json::Value;

use crate::flags::{Flags, Known};
use crate::in_cluster::Cluster;
use crate::{Code, log, tls};

const FLAGS: [Known; 2] = [("token-path", None, ""), ("audience", None, "")];

pub(crate) async fn run(arguments: &[String]) -> Result<Code, String> {
    let flags = Flags::read(&FLAGS, arguments)?;
    let path = flags.text("token-path");
    let token = std::fs::read_to_string(path).map_err(|error| format!("open {path}: {error}"))?;
    log::print("OK: Got token");
    log::print("validating with in-cluster discovery");
    match validated(token.trim(), flags.text("audience")).await {
        Ok(()) => Ok(0),
        Err(why) => {
            log::print(format_args!(
                "failed to validate with in-cluster discovery: {why}"
            ));
            Ok(1)
        }
    }
}

async fn validated(token: &str, audience: &str) -> Result<(), String> {
    let parsed =
        Token::of(token).ok_or("square/go-jose: compact JWS format must have three parts")?;
    let issuer = parsed.claims["iss"].as_str().unwrap_or("");
    log::print(format_args!("OK: got issuer {issuer}"));
    log::print(format_args!(
        "Full, not-validated claims: \n{}",
        parsed.claims
    ));
    let cluster = Cluster::here()?;
    let json =
        |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).map_err(|error| error.to_string());
    let well_known = format!(
        "{}/.well-known/openid-configuration",
        issuer.trim_end_matches('/')
    );
    let provider = json(&cluster.get(&well_known).await?)?;
    if provider["issuer"] != issuer {
        return Err(format!(
            "oidc: issuer did not match the issuer returned by provider, expected {issuer:?} got {}",
            provider["issuer"]
        ));
    }
    log::print(format_args!(
        "OK: Constructed OIDC provider for issuer {issuer}"
    ));
    let keys = provider["jwks_uri"].as_str().unwrap_or("");
    let keys = json(&cluster.get(keys).await?)?;
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    parsed.check(&keys, audience, since.as_secs())?;
    log::print("OK: Validated signature on JWT");
    log::print("OK: Got valid claims from token!");
    log::print(format_args!("Full, validated claims: \n{}", parsed.claims));
    Ok(())
}

/// A JWT in its compact form.
struct Token<'t> {
    header: Value,
    claims: Value,
    signed: &'t str,
    signature: Vec<u8>,
}

impl<'t> Token<'t> {
    fn of(text: &'t str) -> Option<Token<'t>> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let json = |part: &str| serde_json::from_slice(&base64url(part)?).ok();
        Some(Token {
            header: json(header)?,
            claims: json(claims)?,
            signed,
            signature: base64url(signature)?,
        })
    }

    /// Whether one of the keys has signed it, for this audience, and it is in force.
    fn check(&self, keys: &Value, audience: &str, now: u64) -> Result<(), String> {
        let for_all = self.claims["aud"].as_array().cloned();
        let for_all = for_all.unwrap_or_else(|| vec![self.claims["aud"].clone()]);
        if !for_all.iter().any(|one| one == audience) {
            return Err(format!(
                "oidc: expected audience {audience:?} got {for_all:?}"
            ));
        }
        if self.claims["exp"].as_u64().is_none_or(|until| until <= now) {
            return Err("oidc: token is expired".to_owned());
        }
        let keys = keys["keys"].as_array().into_iter().flatten();
        let mut keys = keys.filter(|key| key["kid"] == self.header["kid"]);
        match keys.any(|key| self.is_signed_by(key)) {
            true => Ok(()),
            false => {
                Err("failed to verify signature: failed to verify id token signature".to_owned())
            }
        }
    }

    fn is_signed_by(&self, key: &Value) -> bool {
        let number = |name: &str| key[name].as_str().and_then(base64url);
        let (kinds, public, signature) = match self.header["alg"].as_str() {
            Some("RS256") => {
                let (Some(n), Some(e)) = (number("n"), number("e")) else {
                    return false;
                };
                let kinds = (alg_id::RSA_ENCRYPTION, alg_id::RSA_PKCS1_SHA256);
                (kinds, sequence(&[&n, &e]), self.signature.clone())
            }
            Some(curve @ ("ES256" | "ES384")) => {
                let (Some(x), Some(y)) = (number("x"), number("y")) else {
                    return false;
                };
                let kinds = match curve {
                    "ES256" => (alg_id::ECDSA_P256, alg_id::ECDSA_SHA256),
                    _ => (alg_id::ECDSA_P384, alg_id::ECDSA_SHA384),
                };
                let half = self.signature.len() / 2;
                let (r, s) = self.signature.split_at(half);
                (kinds, [&[4][..], &x, &y].concat(), sequence(&[r, s]))
            }
            _ => return false,
        };
        let (public_kind, signature_kind): (AlgorithmIdentifier, AlgorithmIdentifier) = kinds;
        let provider = tls::provider();
        let known = provider.signature_verification_algorithms.all.iter();
        let mut fitting = known.filter(|it| {
            it.public_key_alg_id() == public_kind && it.signature_alg_id() == signature_kind
        });
        fitting.any(|it| {
            it.verify_signature(&public, self.signed.as_bytes(), &signature)
                .is_ok()
        })
    }
}

/// `SEQUENCE` of unsigned `INTEGER`s, in DER. Source: ITU-T X.690, 8.3 and 8.9.
fn sequence(numbers: &[&[u8]]) -> Vec<u8> {
    let mut inside = Vec::new();
    for number in numbers {
        let first = number
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(number.len());
        let digits = number.get(first..).unwrap_or_default();
        let needs_zero = digits.first().is_none_or(|byte| byte & 0x80 != 0);
        let mut value = if needs_zero { vec![0] } else { Vec::new() };
        value.extend_from_slice(digits);
        inside.push(0x02);
        inside.extend(length(value.len()));
        inside.extend(value);
    }
    let mut all = vec![0x30];
    all.extend(length(inside.len()));
    all.extend(inside);
    all
}

fn length(of: usize) -> Vec<u8> {
    match of {
        0..0x80 => vec![of as u8],
        0x80..0x100 => vec![0x81, of as u8],
        _ => vec![0x82, (of >> 8) as u8, of as u8],
    }
}

/// Source: RFC 4648, 5.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Source: RFC 7515, A.3 (ES256).
    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    #[test]
    fn a_signature_is_checked_with_a_published_key() {
        let token = Token::of(TOKEN).expect("a token");
        assert_eq!(token.claims["iss"], "joe");
        let key = serde_json::json!({
            "kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        });
        assert!(token.is_signed_by(&key));
        let mut other = key;
        other["x"] = serde_json::json!("g83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
        assert!(!token.is_signed_by(&other));
        assert!(!token.is_signed_by(&serde_json::json!({})));
    }

    #[test]
    fn what_is_for_others_or_over_is_refused() {
        let claims = serde_json::json!({"aud": ["a"], "exp": 100});
        let token = Token {
            header: Value::Null,
            claims,
            signed: "",
            signature: Vec::new(),
        };
        for (audience, now, expected) in [
            ("b", 1, "oidc: expected audience"),
            ("a", 100, "oidc: token is expired"),
            ("a", 1, "failed to verify signature"),
        ] {
            let found = token.check(&Value::Null, audience, now).unwrap_err();
            assert!(found.starts_with(expected), "{found}");
        }
    }
}
