//! Who we are to a platform: the value of `Authorization`.
//!
//! GC Notify takes the whole key and recommends that. The others take a token of their own kind, made
//! anew for each request: signed with the secret part of the key, saying whose it is and when it was
//! made. They refuse one that is more than half a minute from their clock. The value does not print.

use hyper::header::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use crate::clock::Timestamp;
use crate::config::settings::{ApiKey, Secret};
use crate::provider::Provider;

/// The claims of a token.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: i64,
}

/// How a platform is shown that it is us.
pub struct Credential {
    key: ApiKey,
    is_whole: bool,
}

impl Credential {
    /// The one that this provider wants.
    pub fn new(key: ApiKey, provider: Provider) -> Self {
        Self { key, is_whole: provider == Provider::GcNotify }
    }

    /// For a request that is sent at `now`. `None` only if the library cannot sign, or a header not
    /// hold the key.
    pub fn authorization(&self, now: Timestamp) -> Option<HeaderValue> {
        let ApiKey { whole: Secret(whole), service_id, secret: Secret(secret) } = &self.key;
        let mut value = if self.is_whole {
            HeaderValue::from_bytes(&[b"ApiKey-v1 ", &**whole].concat()).ok()?
        } else {
            let iat = now.unix_micros().div_euclid(1_000_000);
            let claims = Claims { iss: service_id, iat };
            let key = EncodingKey::from_secret(secret);
            let token = encode(&Header::new(Algorithm::HS256), &claims, &key).ok()?;
            HeaderValue::from_str(&format!("Bearer {token}")).ok()?
        };
        value.set_sensitive(true);
        Some(value)
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("service_id", &self.key.service_id).finish()
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    use sha2::Sha256;

    use super::*;

    const SECRET: &str = "3d844edf-8d35-48ac-975b-e847b4f122b0";
    const SERVICE: &str = "26785a09-ab16-4eb0-8407-a37497a57506";

    fn of(provider: Provider) -> String {
        let key = ApiKey {
            whole: Secret(format!("live-{SERVICE}-{SECRET}").into()),
            service_id: SERVICE.to_owned(),
            secret: Secret(SECRET.into()),
        };
        let now = "2026-11-22T10:00:00.9Z".parse().unwrap();
        let value = Credential::new(key, provider).authorization(now).unwrap();
        assert!(value.is_sensitive());
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn gc_notify_is_shown_the_whole_key() {
        assert_eq!(of(Provider::GcNotify), format!("ApiKey-v1 live-{SERVICE}-{SECRET}"));
    }

    #[test]
    fn the_others_are_shown_a_token_that_the_secret_signs() {
        for provider in [Provider::GovukNotify, Provider::UsNotify, Provider::NotifyNl] {
            let value = of(provider);
            let (signed, signature) =
                value.strip_prefix("Bearer ").unwrap().rsplit_once('.').unwrap();
            let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
            mac.update(signed.as_bytes());
            let expected = BASE64URL_NOPAD.encode(&mac.finalize().into_bytes());
            assert_eq!(signature, expected);
            let parts: Vec<serde_json::Value> = signed
                .split('.')
                .map(|part| BASE64URL_NOPAD.decode(part.as_bytes()).unwrap())
                .map(|json| serde_json::from_slice(&json).unwrap())
                .collect();
            assert_eq!(parts[0], serde_json::json!({"typ": "JWT", "alg": "HS256"}));
            assert_eq!(parts[1], serde_json::json!({"iss": SERVICE, "iat": 1_795_341_600}));
        }
    }
}
