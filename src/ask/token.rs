//! What a caller shows in `Authorization`: a JSON Web Token, as the official clients make one for each
//! request, or GC Notify's `ApiKey-v1`.
//!
//! Nothing here knows a reader: [`Shown::of`] takes apart what is shown, and whoever has a key asks
//! whether it made it. The algorithm is HS256 whatever a token says of itself; no key is read from a
//! token, and one that marks anything as critical is refused.

use data_encoding::BASE64URL_NOPAD;
use hyper::header::{AUTHORIZATION, HeaderMap};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::fault::{Fault, Voice};
use crate::clock::Timestamp;
use crate::config::settings::Secret;

/// Longer ones are not decoded; those of the official clients have some 200 bytes.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// How far the clocks may differ, in seconds, as the platforms say.
const CLOCK_S_MAX: f64 = 30.0;

/// Characters of the secret at the end of an API key, and of the service before it.
const UUID_CHARS: usize = 36;

/// What is shown.
pub(super) enum Shown<'h> {
    /// A signed token.
    Jwt(Jwt<'h>),
    /// An API key, or the secret of one.
    ApiKey {
        /// The service it names, if it is a whole key.
        service: Option<Uuid>,
        /// Its last characters.
        secret: &'h [u8],
    },
}

/// A signed token, taken apart and not yet believed.
pub(super) struct Jwt<'h> {
    /// The service it says that it is of.
    pub(super) service: Option<Uuid>,
    claims: Claims,
    signed: &'h [u8],
    signature: &'h str,
}

/// What a token says of itself; everything else in its head is ignored.
#[derive(Deserialize)]
struct Head {
    alg: String,
    crit: Option<IgnoredAny>,
}

/// The claims that count; everything else is ignored. Seconds since 1970.
#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    iat: Option<f64>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl<'h> Shown<'h> {
    /// Takes apart what stands in the head.
    pub(super) fn of(headers: &'h HeaderMap) -> Result<Self, Fault> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Err(Fault::NoToken),
            (Some(value), None) => value.as_bytes().trim_ascii(),
            // Proxies and servers disagree on which of two counts.
            (Some(_), Some(_)) => return Err(Fault::Malformed),
        };
        if value.is_empty() {
            return Err(Fault::NoToken);
        }
        let end = value.iter().position(|byte| *byte == b' ').unwrap_or(value.len());
        let (scheme, rest) = value.split_at(end);
        let rest = rest.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            Jwt::of(rest).map(Self::Jwt)
        } else if scheme.eq_ignore_ascii_case(b"apikey-v1") {
            api_key(rest)
        } else {
            Err(Fault::OtherScheme)
        }
    }
}

/// Whose sentences to use for whoever shows that and is not known: GC Notify's for the scheme that it alone
/// has. To go by the service that is claimed, or by who may ask, would tell what is configured.
pub(super) fn voice(headers: &HeaderMap) -> Voice {
    match Shown::of(headers) {
        Ok(Shown::ApiKey { .. }) | Err(Fault::UnknownKey) => Voice::Gc,
        Ok(Shown::Jwt(_)) | Err(_) => Voice::Govuk,
    }
}

/// The whole key or, as GC Notify takes it too, its secret alone.
fn api_key(key: &[u8]) -> Result<Shown<'_>, Fault> {
    let at = key.len().checked_sub(UUID_CHARS).ok_or(Fault::UnknownKey)?;
    let (before, secret) = key.split_at(at);
    if before.is_empty() {
        return Ok(Shown::ApiKey { service: None, secret });
    }
    let service = before.strip_suffix(b"-").and_then(|before| before.last_chunk::<UUID_CHARS>());
    let service = service.and_then(|service| Uuid::try_parse_ascii(service).ok());
    service.map(|id| Shown::ApiKey { service: Some(id), secret }).ok_or(Fault::UnknownKey)
}

/// Whether that is the secret, without telling by the time taken how far it agrees.
pub(super) fn is_secret(shown: &[u8], secret: &Secret) -> bool {
    shown.ct_eq(secret.0.as_slice()).into()
}

impl<'h> Jwt<'h> {
    fn of(token: &'h [u8]) -> Result<Self, Fault> {
        let token = std::str::from_utf8(token).ok().filter(|token| token.len() <= TOKEN_BYTES_MAX);
        let (signed, signature) =
            token.and_then(|token| token.rsplit_once('.')).ok_or(Fault::Malformed)?;
        let (head, claims) = signed.split_once('.').ok_or(Fault::Malformed)?;
        let head: Head = decode(head)?;
        let claims: Claims = decode(claims)?;
        if head.alg != "HS256" {
            return Err(Fault::Algorithm);
        }
        if head.crit.is_some() {
            return Err(Fault::Malformed);
        }
        let service = claims.iss.as_ref().ok_or(Fault::NoIssuer)?;
        let service = Uuid::try_parse(service).ok();
        Ok(Self { service, claims, signed: signed.as_bytes(), signature })
    }

    /// Whether it was signed with that key. The comparison takes the same time wherever they differ.
    pub(super) fn is_signed_with(&self, key: &DecodingKey) -> bool {
        jsonwebtoken::crypto::verify(self.signature, self.signed, key, Algorithm::HS256)
            .unwrap_or(false)
    }

    /// Whether it is of this moment. To be asked of a token that is signed.
    pub(super) fn is_of(&self, now: Timestamp) -> Result<(), Fault> {
        // Whole seconds, as the platforms count.
        #[expect(clippy::cast_precision_loss, reason = "exact to the second for ages")]
        let now_s = now.unix_micros().div_euclid(1_000_000) as f64;
        let Claims { iat, exp, nbf, .. } = &self.claims;
        // The platforms take a token without it for one that no key has made.
        let iat = iat.ok_or(Fault::UnknownKey)?.trunc();
        let is_early = nbf.is_some_and(|nbf| now_s + CLOCK_S_MAX < nbf);
        if now_s > iat + CLOCK_S_MAX || iat > now_s + CLOCK_S_MAX || is_early {
            return Err(Fault::OldClock);
        }
        match exp {
            Some(exp) if now_s >= exp + CLOCK_S_MAX => Err(Fault::Malformed),
            _ => Ok(()),
        }
    }
}

/// Decodes a part that must be a JSON object: serde would also read a struct from an array.
fn decode<T: DeserializeOwned>(part: &str) -> Result<T, Fault> {
    let json = BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Fault::Malformed)?;
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(Fault::Malformed);
    }
    serde_json::from_slice(&json).map_err(|_| Fault::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token of these claims, whatever its signature.
    fn jwt(claims: &str) -> Result<(), Fault> {
        let encoded = |part: &str| BASE64URL_NOPAD.encode(part.as_bytes());
        let token = format!("{}.{}.c2ln", encoded(r#"{"alg":"HS256"}"#), encoded(claims));
        let now: Timestamp = "2026-11-22T10:00:00.999999Z".parse().unwrap();
        Jwt::of(token.as_bytes()).and_then(|jwt| jwt.is_of(now))
    }

    /// 2026-11-22T10:00:00Z.
    const NOW_S: i64 = 1_795_341_600;

    fn issued(seconds: i64) -> Result<(), Fault> {
        jwt(&format!(r#"{{"iss":"s","iat":{}}}"#, NOW_S + seconds))
    }

    #[test]
    fn thirty_seconds_are_allowed_either_way_and_not_one_more() {
        assert_eq!([issued(-30), issued(0), issued(30)], [Ok(()), Ok(()), Ok(())]);
        assert_eq!([issued(-31), issued(31)], [Err(Fault::OldClock), Err(Fault::OldClock)]);
        assert_eq!(jwt(&format!(r#"{{"iss":"s","iat":{NOW_S}.75}}"#)), Ok(()));
    }

    #[test]
    fn a_claim_of_the_wrong_type_is_no_claim() {
        for claims in [
            r#"{"iss":"s","iat":"1795341600"}"#,
            r#"{"iss":7,"iat":1795341600}"#,
            r#"{"iss":"s","iat":true}"#,
            r#"["s",1795341600,null,null]"#,
            "{",
            "",
        ] {
            assert_eq!(jwt(claims), Err(Fault::Malformed), "{claims}");
        }
        assert_eq!(jwt(r#"{"iat":1795341600}"#), Err(Fault::NoIssuer));
        assert_eq!(jwt(r#"{"iss":"s"}"#), Err(Fault::UnknownKey));
    }

    #[test]
    fn a_key_is_taken_apart_from_its_end() {
        const SERVICE: &str = "26785a09-ab16-4eb0-8407-a37497a57506";
        const SECRET: &str = "3d844edf-8d35-48ac-975b-e847b4f122b0";
        let taken = |key: &str| match api_key(key.as_bytes()) {
            Ok(Shown::ApiKey { service, secret }) => Some((service, secret.to_vec())),
            _ => None,
        };
        let service = Uuid::try_parse(SERVICE).ok();
        let secret = SECRET.as_bytes().to_vec();
        assert_eq!(taken(SECRET), Some((None, secret.clone())));
        for name in ["", "a", "my-app-2026"] {
            let key = format!("{name}-{SERVICE}-{SECRET}");
            assert_eq!(taken(&key), Some((service, secret.clone())), "{key}");
        }
        for key in ["short", &format!("x{SECRET}"), &format!("not-a-service-{SECRET}")] {
            assert_eq!(taken(key), None, "{key}");
        }
    }
}
