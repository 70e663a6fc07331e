//! Compact JSON Web Signatures (RFC 7515): three parts in base64, the last of which proves who wrote the first two.
//!
//! Made and checked with what the TLS side computes with anyway. The algorithm is that of the key: a header that names another one, or
//! demands what is not understood (`crit`), is as bad as a wrong signature, so neither `none` nor a public key taken for a shared secret
//! gets anywhere.
//!
//! Invariants: claims that are believed come out of [`Parsed::verified`] and [`Parsed::verified_by`] only; the issuer says whose keys are to be
//! looked for, and nothing of what is unproven says more than what is wrong with it; nothing longer
//! than [`TOKEN_BYTES_MAX`] is looked at. Left to others: what claims mean, and which keys there are.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, EcdsaKeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest token that is looked at, as longest credential of all.
const TOKEN_BYTES_MAX: usize = 8 << 10;
/// What tokens are signed with: ECDSA over P-256 with SHA-256.
pub const ES256: &str = "ES256";

/// Whether anybody's keys sign so; what is not among these is not asked any key about.
#[must_use]
pub fn is_known_algorithm(name: &str) -> bool {
    const KNOWN: [&str; 9] = [
        ES256, "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    ];
    KNOWN.contains(&name)
}

/// What could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the claims are no JSON")]
    Claims(#[from] serde_json::Error),
    #[error("the key does not sign")]
    Key,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    kid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Issued {
    #[serde(default)]
    iss: String,
}

/// Claims in compact form, signed with a key of P-256 that is called `kid`.
pub fn sign(pair: &EcdsaKeyPair, kid: &str, claims: &impl Serialize) -> Result<String, SignError> {
    let header = Header {
        alg: ES256.to_owned(),
        kid: kid.to_owned(),
        crit: None,
    };
    let mut text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header)?);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(claims)?, &mut text);
    let signature = pair.sign(&SystemRandom::new(), text.as_bytes());
    let signature = signature.map_err(|_| SignError::Key)?;
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut text);
    Ok(text)
}

/// A token in its parts, of which nothing is proven yet.
pub struct Parsed<'a> {
    header: Header,
    issuer: String,
    payload: Vec<u8>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parsed<'a> {
    /// `None` for what is no such token.
    pub fn of(token: &'a str) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let payload = decode(payload)?;
        let issued: Issued = serde_json::from_slice(&payload).ok()?;
        Some(Self {
            header: serde_json::from_slice(&decode(header)?).ok()?,
            issuer: issued.iss,
            payload,
            signed,
            signature: decode(signature)?,
        })
    }

    /// Who says that he wrote it.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// How it says that it was signed.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        &self.header.alg
    }

    /// The key that it says it was signed with; empty where it says nothing.
    pub fn kid(&self) -> &str {
        &self.header.kid
    }

    /// What it says, of which nothing is proven: good for telling its sender what is wrong with it, and for nothing else.
    #[must_use]
    pub fn unproven<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.payload).ok()
    }

    /// The claims, if `point`, an uncompressed point of P-256, signed them.
    pub fn verified<T: DeserializeOwned>(&self, point: &[u8]) -> Option<T> {
        if self.header.alg != ES256 {
            return None;
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        self.proven(|signed, signature| key.verify(signed, signature).is_ok())
    }

    /// The same with another's key, of whatever kind that is.
    pub fn verified_by<T: DeserializeOwned>(&self, key: &PublicKey) -> Option<T> {
        self.proven(|signed, signature| key.verifies(&self.header.alg, signed, signature))
    }

    fn proven<T: DeserializeOwned>(&self, proves: impl Fn(&[u8], &[u8]) -> bool) -> Option<T> {
        if self.header.crit.is_some() || !proves(self.signed.as_bytes(), &self.signature) {
            return None;
        }
        serde_json::from_slice(&self.payload).ok()
    }
}

/// A key of somebody else's, as a JSON Web Key tells it (RFC 7517).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// A point of the curve that belongs to this algorithm.
    Curve {
        algorithm: &'static str,
        point: Vec<u8>,
    },
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

impl PublicKey {
    /// `None` for a key that signs nothing here.
    pub fn of(jwk: &serde_json::Value) -> Option<Self> {
        let text = |field: &str| jwk[field].as_str();
        let bytes = |field: &str| URL_SAFE_NO_PAD.decode(text(field)?).ok();
        if text("use").is_some_and(|for_what| for_what != "sig") {
            return None;
        }
        match text("kty")? {
            "RSA" => Some(Self::Rsa {
                modulus: bytes("n")?,
                exponent: bytes("e")?,
            }),
            "EC" => {
                let (algorithm, length) = match text("crv")? {
                    "P-256" => (ES256, 32),
                    "P-384" => ("ES384", 48),
                    "P-521" => ("ES512", 66),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != length || y.len() != length {
                    return None;
                }
                let point = [vec![4], x, y].concat();
                Some(Self::Curve { algorithm, point })
            }
            _ => None,
        }
    }

    fn verifies(&self, algorithm: &str, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Curve {
                algorithm: own,
                point,
            } => {
                let of = match *own {
                    ES256 => &ECDSA_P256_SHA256_FIXED,
                    "ES384" => &ECDSA_P384_SHA384_FIXED,
                    _ => &ECDSA_P521_SHA512_FIXED,
                };
                let key = UnparsedPublicKey::new(of, point);
                algorithm == *own && key.verify(signed, signature).is_ok()
            }
            Self::Rsa { modulus, exponent } => {
                let of = match algorithm {
                    "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &RSA_PSS_2048_8192_SHA256,
                    "PS384" => &RSA_PSS_2048_8192_SHA384,
                    "PS512" => &RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                let key = RsaPublicKeyComponents {
                    n: modulus.as_slice(),
                    e: exponent.as_slice(),
                };
                key.verify(of, signed, signature).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, KeyPair as _};
    use serde_json::{Value, json};

    use super::*;

    fn encoded(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    #[test]
    fn only_what_the_key_signed_as_it_stands_is_believed() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let claims = json!({"iss": "https://a.example", "sub": "x"});
        let token = sign(&pair, "k", &claims).unwrap();
        let read = |token: &str| Parsed::of(token)?.verified::<Value>(&point);
        assert_eq!(read(&token), Some(claims.clone()));
        let parsed = Parsed::of(&token).unwrap();
        assert_eq!((parsed.issuer(), parsed.kid()), ("https://a.example", "k"));

        let (head, signature) = token.rsplit_once('.').unwrap();
        let (header, payload) = head.split_once('.').unwrap();
        let stronger = encoded(&json!({"iss": "https://a.example", "sub": "root"}));
        let algorithm = |name: &str| encoded(&json!({"alg": name, "kid": "k"}));
        let critical = encoded(&json!({"alg": "ES256", "kid": "k", "crit": ["b64"]}));
        let signed = |header: &str| {
            let text = format!("{header}.{payload}");
            let signature = pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
        };
        for bad in [
            format!("{header}.{stronger}.{signature}"),
            format!("{}.{payload}.", algorithm("none")),
            format!("{}.{payload}.{signature}", algorithm("none")),
            signed(&algorithm("HS256")),
            signed(&algorithm("none")),
            signed(&critical),
            format!("{token}."),
            format!("{token}=="),
            head.to_owned(),
            String::new(),
            "a.b.c".to_owned(),
            format!("{{\"payload\":\"{payload}\"}}"),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
        let other = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let other = other.public_key().as_ref().to_vec();
        assert_eq!(parsed.verified::<Value>(&other), None);
        let long = format!("{header}.{}.{signature}", "A".repeat(1 << 20));
        assert!(Parsed::of(&long).is_none());
    }

    #[test]
    fn others_keys_are_of_many_kinds() {
        use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
        use aws_lc_rs::signature::RSA_PKCS1_SHA256;
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let of = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({
            "kty": "RSA", "use": "sig",
            "n": of(public.modulus().big_endian_without_leading_zero()),
            "e": of(public.exponent().big_endian_without_leading_zero()),
        });
        let key = PublicKey::of(&jwk).unwrap();
        let claims = json!({"iss": "https://a.example"});
        let signed = |algorithm: &str| {
            let header = json!({"alg": algorithm, "kid": "k"});
            let text = format!("{}.{}", encoded(&header), encoded(&claims));
            let mut signature = vec![0; pair.public_modulus_len()];
            let random = SystemRandom::new();
            pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature)
                .unwrap();
            format!("{text}.{}", of(&signature))
        };
        let token = signed("RS256");
        let parsed = Parsed::of(&token).unwrap();
        assert_eq!(parsed.verified_by::<Value>(&key), Some(claims.clone()));
        for other in ["ES256", "RS512", "PS256", "HS256", "none"] {
            let token = signed(other);
            let parsed = Parsed::of(&token).unwrap();
            assert_eq!(parsed.verified_by::<Value>(&key), None, "{other}");
        }
        for unfit in [
            json!({"kty": "oct", "k": "AAAA"}),
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
            json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}),
            json!({"kty": "RSA", "use": "enc", "n": "AA", "e": "AQAB"}),
            json!([]),
        ] {
            assert_eq!(PublicKey::of(&unfit), None, "{unfit}");
        }
    }
}
