//! JSON Web Tokens made by hand, right ones and wrong ones.

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use receiptd::clock::Clock;
use serde_json::{Value, json};
use sha2::Sha256;

/// Seconds since 1970, now.
pub fn now_s() -> i64 {
    Clock::system().now().unix_micros() / 1_000_000
}

/// The token an official client makes for this service and secret.
pub fn token(service: &str, secret: &str) -> String {
    signed(&json!({"typ": "JWT", "alg": "HS256"}), &json!({"iss": service, "iat": now_s()}), secret)
}

/// A token of this head and these claims.
pub fn signed(head: &Value, claims: &Value, secret: &str) -> String {
    let encoded = |part: &Value| BASE64URL_NOPAD.encode(part.to_string().as_bytes());
    let signed = format!("{}.{}", encoded(head), encoded(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&mac.finalize().into_bytes()))
}
