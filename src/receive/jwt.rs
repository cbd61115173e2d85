//! JSON Web Tokens (RFC 7519) in `Authorization: Bearer`.
//!
//! The configuration decides how a token is verified, the token never does:
//!
//! - The algorithm is the source's. What the token says of itself has to agree; `none`, and a
//!   public key used as a shared secret, lead nowhere, because a key is parsed for one family.
//! - Keys come from the configuration only; `jwk`, `jku`, `x5c` and `x5u` in a token are not read.
//!   A token that marks anything as critical (`crit`) is refused: we understand no extension.
//! - Nothing of the payload is decoded before the signature agrees.
//! - Time is an argument, so the claims are checked here and not by the library, which reads the
//!   system's clock. `exp` is required.
//!
//! The library verifies signatures; splitting, base64 and JSON are ours and strict: three parts, no
//! padding, no key twice, no claim of another type than RFC 7519 gives it.

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::Algorithm;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer};

use crate::clock::Timestamp;
use crate::config::settings::{Jwt, JwtAlgorithm, JwtKey};
use crate::receive::refusal::Reason;

/// Longer tokens are not decoded. The head of a request is bounded at this size by default, so
/// only an operator who raised that bound ever meets this one.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The key that verified the token, or why it does not grant. A token that has not even the shape
/// of a JWT is simply [`Reason::Wrong`].
pub(super) fn verify<'a>(jwt: &'a Jwt, token: &[u8], now: Timestamp) -> Result<&'a JwtKey, Reason> {
    let parts = Parts::split(token).ok_or(Reason::Wrong)?;
    let head: Head = decode(parts.head).ok_or(Reason::JwtMalformed)?;
    if head.alg != name(jwt.algorithm) {
        return Err(Reason::JwtAlgorithm);
    }
    if head.crit.is_some() {
        return Err(Reason::JwtMalformed);
    }
    let key = verify_signature(jwt, head.kid.as_deref(), &parts)?;
    let claims: Claims = decode(parts.claims).ok_or(Reason::JwtClaims)?;
    claims.check(jwt, now)?;
    Ok(key)
}

/// The parts of a token, still encoded.
struct Parts<'t> {
    head: &'t str,
    claims: &'t str,
    signature: &'t str,
    /// What the signature covers: head and claims with the dot between them.
    signed: &'t str,
}

impl<'t> Parts<'t> {
    fn split(token: &'t [u8]) -> Option<Self> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let token = std::str::from_utf8(token).ok()?;
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        (!claims.contains('.')).then_some(Self { head, claims, signature, signed })
    }
}

/// What a token says of itself; everything else in its head is ignored.
#[derive(Deserialize)]
struct Head {
    alg: String,
    #[serde(default, deserialize_with = "present")]
    kid: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
}

/// The claims we check; everything else is ignored.
#[derive(Deserialize)]
struct Claims {
    /// Seconds since 1970-01-01T00:00:00Z, possibly with a fraction.
    exp: f64,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<f64>,
    #[serde(default, deserialize_with = "present")]
    iss: Option<String>,
    #[serde(default, deserialize_with = "present")]
    aud: Option<Audience>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Claims {
    fn check(&self, jwt: &Jwt, now: Timestamp) -> Result<(), Reason> {
        #[expect(clippy::cast_precision_loss, reason = "exact to the microsecond until 2255")]
        let (now_s, leeway_s) = (now.unix_micros() as f64 / 1e6, jwt.leeway_s as f64);
        // RFC 7519 section 4.1.4: a token is no longer accepted on its expiry.
        if now_s >= self.exp + leeway_s {
            return Err(Reason::JwtExpired);
        }
        if self.nbf.is_some_and(|nbf| now_s < nbf - leeway_s) {
            return Err(Reason::JwtEarly);
        }
        if jwt.issuer.is_some() && self.iss != jwt.issuer {
            return Err(Reason::JwtIssuer);
        }
        match &jwt.audience {
            Some(ours) if !self.aud.as_ref().is_some_and(|aud| aud.holds(ours)) => {
                Err(Reason::JwtAudience)
            }
            _ => Ok(()),
        }
    }
}

impl Audience {
    fn holds(&self, ours: &str) -> bool {
        match self {
            Self::One(one) => one == ours,
            Self::Several(several) => several.iter().any(|one| one == ours),
        }
    }
}

/// The first key that fits and made this signature.
///
/// A key with the id that the token names is the one meant. A key without an id (from a PEM or a
/// secret file) fits every token, and every key fits a token that names none. A key with another
/// id than the named one is not tried.
fn verify_signature<'a>(
    jwt: &'a Jwt,
    kid: Option<&str>,
    parts: &Parts<'_>,
) -> Result<&'a JwtKey, Reason> {
    let fits = |key: &JwtKey| match (kid, &key.kid) {
        (Some(named), Some(its)) => named == its,
        _ => true,
    };
    let mut reason = Reason::JwtKey;
    for key in jwt.keys.iter().filter(|key| fits(key)) {
        if agrees(key, jwt.algorithm, parts) {
            return Ok(key);
        }
        reason = Reason::JwtSignature;
    }
    Err(reason)
}

/// An error is a key of another family or a signature that is not base64: neither agrees.
fn agrees(key: &JwtKey, algorithm: JwtAlgorithm, parts: &Parts<'_>) -> bool {
    let algorithm = match algorithm {
        JwtAlgorithm::Hs256 => Algorithm::HS256,
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Es256 => Algorithm::ES256,
    };
    jsonwebtoken::crypto::verify(parts.signature, parts.signed.as_bytes(), &key.key, algorithm)
        .unwrap_or(false)
}

fn name(algorithm: JwtAlgorithm) -> &'static str {
    match algorithm {
        JwtAlgorithm::Hs256 => "HS256",
        JwtAlgorithm::Rs256 => "RS256",
        JwtAlgorithm::Es256 => "ES256",
    }
}

/// Decodes a part that must be a JSON object: serde would also read a struct from an array.
fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    let json = BASE64URL_NOPAD.decode(part.as_bytes()).ok()?;
    json.trim_ascii_start().starts_with(b"{").then_some(())?;
    serde_json::from_slice(&json).ok()
}

/// Reads an optional claim that, if it stands there, must have its type: null has not.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}
