//! VA Notify's `x-enp-signature` over the body.
//!
//! The input is the header's value on the first line, and a body after it. Whatever it is:
//! - what agrees has 64 hex digits, in any letter case;
//! - for an object of texts, whole numbers, truth values and nulls, exactly the HMAC of Python's
//!   `urlencode` of it, computed here, agrees; no other secret's, and with no digit another;
//! - a body that is no JSON object agrees with nothing.

use std::fmt::Write as _;

use data_encoding::{HEXLOWER, HEXUPPER};
use hmac::{Hmac, KeyInit, Mac};
use receiptd::provider::notify::signature_agrees;
use serde_json::Value;
use sha2::Sha256;

use super::oracle::{self, Members};

const SECRET: &[u8] = b"test_generate_callback_signature";

/// Checks one header's value and one body.
pub fn check(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (shown, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    let agrees = signature_agrees(SECRET, body, shown);
    assert_eq!(agrees, signature_agrees(SECRET, body, shown));
    assert!(!agrees || (shown.len() == 64 && shown.iter().all(u8::is_ascii_hexdigit)));
    if oracle::tree(body).is_some_and(|tree| !tree.is_object()) {
        assert!(!agrees);
    }
    let Some(message) = message(body) else { return };
    let mac = mac(&message);
    let right = HEXLOWER.encode(&mac);
    assert!(signature_agrees(SECRET, body, right.as_bytes()), "{message}");
    assert!(signature_agrees(SECRET, body, HEXUPPER.encode(&mac).as_bytes()));
    assert!(!signature_agrees(b"another", body, right.as_bytes()));
    assert_eq!(agrees, shown.eq_ignore_ascii_case(right.as_bytes()), "{message}");
    let last = if right.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{last}", &right[..63]);
    assert!(!signature_agrees(SECRET, body, wrong.as_bytes()));
}

fn mac(message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET).unwrap();
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// What the sender signs, if nothing in it is nested or a fraction.
fn message(body: &[u8]) -> Option<String> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let Members(members) = serde_json::from_slice(body).ok()?;
    let mut pairs = Vec::new();
    for (key, value) in members {
        let value = match value {
            Value::Null => "None".to_owned(),
            Value::Bool(true) => "True".to_owned(),
            Value::Bool(false) => "False".to_owned(),
            Value::String(text) => text,
            Value::Number(number) if !number.is_f64() => number.to_string(),
            _ => return None,
        };
        pairs.push(format!("{}={}", quote_plus(&key), quote_plus(&value)));
    }
    Some(pairs.join("&"))
}

/// Python's `urllib.parse.quote_plus`.
fn quote_plus(text: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte) {
            quoted.push(char::from(byte));
        } else if byte == b' ' {
            quoted.push('+');
        } else {
            write!(quoted, "%{byte:02X}").unwrap();
        }
    }
    quoted
}
