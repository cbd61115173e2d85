//! Signed tokens, at three doors: one that pins HS256, one ES256, one RS256.
//!
//! The input is a token; or, if it holds a line end, the head and the claims of one, in JSON, which
//! the check signs itself: a fuzzer cannot forge a signature, and would otherwise never see what
//! stands behind it. Whatever it is:
//! - a token that none of our keys signed is never granted, nor one without a signature;
//! - one that we signed is granted exactly if its head names the pinned algorithm and nothing
//!   critical, and its claims are of the right types, in time, from our issuer, for our audience;
//! - what a public key "signed" as a shared secret is never granted.

use std::sync::LazyLock;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};
use jsonwebtoken::DecodingKey;
use receiptd::config::settings::{Credentials, Jwt, JwtAlgorithm, JwtKey};
use receiptd::provider::Provider;
use receiptd::receive::authenticate::{Doorkeeper, Verdict};
use serde_json::Value;
use sha2::Sha256;

use super::oracle::{NOW_S, now};

const SECRET: &[u8] = b"a secret that both of us know";
const OTHER_SECRET: &[u8] = b"a secret that only one knows.";
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "receiptd";
const LEEWAY_S: u64 = 60;

/// Longer tokens are none.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Two public keys whose private halves signed one text each and are gone.
const ES256_KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE++Pyu/Nrf2IT9JkG05+K9dbndJGi
lTeewGWxkqfiA+3AaUrp/ALdA5Fcai7NuiaJQN1+fd+DzKX5aLdUGBi/ZQ==
-----END PUBLIC KEY-----
";
const RS256_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAtfRMq7jbwkZi4YqP5a5E
uwoctTx9hGLLQ7rYS3io6e5t4WdWVBpt8ClI7eZF17rr8jmzvIc9cAtrpR98EUOs
WjYN6TTs5L3XsK7n/GSQpQmaMwPfHksE+diOi/q0nh/ANHQw6B0yT2Ib8of3Ck/h
ZxfoWfgICArTE74q5N6rWM3KsA9B2s5lcg/Bj9MUsq/YIqHcgQVWDJPlEy1q9beS
stkJQ+Amk+qWwVY1+hMY+OOHvak6tjKdJDFdcdP1afMuQKUo4M5t0HFlTC4HTwEw
hvN3kQ5Bk0bqFSQKnSyoQ638NhPazMXiUkGvR2dYWFLRrVwI+UcMKjHeFEdFbR0F
gQIDAQAB
-----END PUBLIC KEY-----
";

/// What they signed: `{"alg":"ES256"}` or `{"alg":"RS256"}`, and claims that are right.
const ES256_SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjE3OTUzNDUyMDAsImlzcyI6Imh0dHBzOi8vaXNzdWVyLmV4YW1wbGUiLCJhdWQiOlsicmVjZWlwdGQiXX0";
const RS256_SIGNED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjE3OTUzNDUyMDAsImlzcyI6Imh0dHBzOi8vaXNzdWVyLmV4YW1wbGUiLCJhdWQiOlsicmVjZWlwdGQiXX0";

struct Doors {
    hs256: Doorkeeper,
    es256: Doorkeeper,
    rs256: Doorkeeper,
}

static DOORS: LazyLock<Doors> = LazyLock::new(|| Doors {
    hs256: door(JwtAlgorithm::Hs256, DecodingKey::from_secret(SECRET)),
    es256: door(JwtAlgorithm::Es256, DecodingKey::from_ec_pem(ES256_KEY.as_bytes()).unwrap()),
    rs256: door(JwtAlgorithm::Rs256, DecodingKey::from_rsa_pem(RS256_KEY.as_bytes()).unwrap()),
});

fn door(algorithm: JwtAlgorithm, key: DecodingKey) -> Doorkeeper {
    let jwt = Jwt {
        algorithm,
        keys: vec![JwtKey { kid: None, key }],
        issuer: Some(ISSUER.to_owned()),
        audience: Some(AUDIENCE.to_owned()),
        leeway_s: LEEWAY_S,
    };
    let credentials = Credentials { jwt: Some(jwt), ..Credentials::default() };
    Doorkeeper::new(&credentials, Provider::Ajo)
}

/// Checks one token, or one pair of head and claims.
pub fn check(data: &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => check_parts(&data[..end], &data[end + 1..]),
        None => check_token(data),
    }
}

fn is_granted(door: &Doorkeeper, token: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(&[b"Bearer ", token].concat()) else { return false };
    let head = HeaderMap::from_iter([(AUTHORIZATION, value)]);
    matches!(door.check(&head, now()), Verdict::Granted(_))
}

fn check_token(token: &[u8]) {
    let trimmed = token.trim_ascii();
    if is_granted(&DOORS.hs256, token) {
        assert!(is_ours(trimmed), "granted, but not ours");
    }
    for (door, signed) in [(&DOORS.es256, ES256_SIGNED), (&DOORS.rs256, RS256_SIGNED)] {
        if is_granted(door, token) {
            let dot = trimmed.iter().rposition(|byte| *byte == b'.');
            assert_eq!(dot.map(|dot| &trimmed[..dot]), Some(signed.as_bytes()));
        }
    }
}

/// Whether the token is one that the check itself would call right, signature and all.
fn is_ours(token: &[u8]) -> bool {
    let mut parts = token.split(|byte| *byte == b'.');
    let (Some(head), Some(claims), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let decode = |part: &[u8]| BASE64URL_NOPAD.decode(part).ok();
    // Text that is not read may hold anything, bytes that are no Unicode too.
    let tree = |part| {
        let json = decode(part)?;
        serde_json::from_str::<Value>(&String::from_utf8_lossy(&json)).ok()
    };
    let (Some(head), Some(claims), Some(signature)) = (tree(head), tree(claims), decode(signature))
    else {
        return false;
    };
    let dot = token.iter().rposition(|byte| *byte == b'.').unwrap_or(0);
    mac(SECRET, &token[..dot]) == signature && head_is_right(&head) && claims_are_right(&claims)
}

fn mac(secret: &[u8], signed: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    mac.update(signed);
    mac.finalize().into_bytes().to_vec()
}

fn token(secret: &[u8], head: &[u8], claims: &[u8]) -> String {
    let signed = format!("{}.{}", BASE64URL_NOPAD.encode(head), BASE64URL_NOPAD.encode(claims));
    let signature = BASE64URL_NOPAD.encode(&mac(secret, signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn check_parts(head: &[u8], claims: &[u8]) {
    let genuine = token(SECRET, head, claims);
    if is_granted(&DOORS.hs256, genuine.as_bytes()) {
        assert!(is_ours(genuine.as_bytes()), "granted against head or claims");
    }
    let unsigned = &genuine[..=genuine.rfind('.').unwrap_or(0)];
    let forged = token(OTHER_SECRET, head, claims);
    let hs256 = br#"{"alg":"HS256"}"#;
    let confused = [ES256_KEY, RS256_KEY].map(|key| token(key.as_bytes(), hs256, claims));
    for door in [&DOORS.hs256, &DOORS.es256, &DOORS.rs256] {
        assert!(!is_granted(door, unsigned.as_bytes()), "no signature");
        assert!(!is_granted(door, forged.as_bytes()), "another's signature");
        for confused in &confused {
            assert!(!is_granted(door, confused.as_bytes()), "a public key as a secret");
        }
    }
    for door in [&DOORS.es256, &DOORS.rs256] {
        assert!(!is_granted(door, genuine.as_bytes()), "another algorithm");
    }
    check_exactly(head, claims);
}

/// Of what the tree can hold, exactly the right ones are granted. Written again from the tree, so
/// that no key stands twice.
fn check_exactly(head: &[u8], claims: &[u8]) {
    let again = |json: &[u8]| {
        let tree: Value = serde_json::from_slice(json).ok()?;
        let text = tree.to_string();
        let tree: Value = serde_json::from_str(&text).ok()?;
        Some((tree, text))
    };
    let (Some((head, head_text)), Some((claims, claims_text))) = (again(head), again(claims))
    else {
        return;
    };
    let token = token(SECRET, head_text.as_bytes(), claims_text.as_bytes());
    if token.len() <= TOKEN_BYTES_MAX {
        let is_right = head_is_right(&head) && claims_are_right(&claims);
        assert_eq!(is_granted(&DOORS.hs256, token.as_bytes()), is_right, "{head} {claims}");
    }
}

fn head_is_right(head: &Value) -> bool {
    head["alg"] == "HS256"
        && head.get("crit").is_none()
        && head.get("kid").is_none_or(Value::is_string)
}

fn claims_are_right(claims: &Value) -> bool {
    let (now, leeway) = (NOW_S as f64, LEEWAY_S as f64);
    let is_early = |nbf: f64| now < nbf - leeway;
    claims["exp"].as_f64().is_some_and(|exp| now < exp + leeway)
        && claims.get("nbf").is_none_or(|nbf| nbf.as_f64().is_some_and(|nbf| !is_early(nbf)))
        && claims["iss"] == ISSUER
        && match &claims["aud"] {
            Value::String(one) => one == AUDIENCE,
            Value::Array(all) => {
                all.iter().all(Value::is_string) && all.iter().any(|one| one == AUDIENCE)
            }
            _ => false,
        }
}
