//! The signature VA Notify puts on callbacks asked for with a single notification.
//!
//! The sender does not sign the bytes it sends: it signs Python's `urlencode` of the object that
//! becomes the body, and writes the object as JSON. So the object is read back here and encoded the
//! way Python would have: `str` of every value, `repr` of what is nested in one. A number's JSON
//! text *is* Python's `str` of it, because `json.dumps` writes numbers that way.
//!
//! This runs before the sender is known, so it never panics and its work is bounded by the size of
//! the body times [`NESTED_LEVELS_MAX`].

use std::fmt::Write as _;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::value::RawValue;
use sha2::Sha256;

use super::json::{self, Object};

/// Objects and lists nested deeper than this in a value make the signature disagree. Each level
/// reads the text below it once more; the provider payloads the sender relays have two or three.
const NESTED_LEVELS_MAX: usize = 16;

/// Whether `signature_hex`, in any letter case, is the signature under `secret` of the object in
/// `body`. A body that is no JSON object agrees with nothing. The comparison takes the same time
/// wherever the signatures differ.
pub fn signature_agrees(secret: &[u8], body: &[u8], signature_hex: &[u8]) -> bool {
    let Ok(signature) = HEXLOWER_PERMISSIVE.decode(signature_hex) else { return false };
    let Some(message) = signed_message(body) else { return false };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
    mac.update(message.as_bytes());
    mac.verify_slice(&signature).is_ok()
}

/// The signature of the object in `body` under `secret`, in lower-case hexadecimal, as the sender
/// would make it; `None` if the body is no JSON object. For simulations of the sender.
pub fn sign(secret: &[u8], body: &[u8]) -> Option<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(signed_message(body)?.as_bytes());
    Some(HEXLOWER.encode(&mac.finalize().into_bytes()))
}

/// Python's `urllib.parse.urlencode` of the object.
fn signed_message(body: &[u8]) -> Option<String> {
    let object = json::document(body).and_then(Object::of).ok()?;
    let mut message = String::with_capacity(body.len() * 2);
    for (key, raw) in object.entries() {
        if !message.is_empty() {
            message.push('&');
        }
        quote_plus(&mut message, key);
        message.push('=');
        quote_plus(&mut message, &python_str(raw)?);
    }
    Some(message)
}

/// Python's `quote_plus`: UTF-8, a space is a plus, letters, digits and `_.-~` stay.
fn quote_plus(message: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b' ' => message.push('+'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                message.push(char::from(byte));
            }
            _ => write!(message, "%{byte:02X}").unwrap_or_default(),
        }
    }
}

/// Python's `str` of the value: of a string the string itself, of anything else its `repr`.
fn python_str(raw: &RawValue) -> Option<String> {
    if raw.get().starts_with('"') {
        return json::text(raw);
    }
    let mut written = String::new();
    repr(&mut written, raw, NESTED_LEVELS_MAX)?;
    Some(written)
}

fn repr(out: &mut String, raw: &RawValue, levels: usize) -> Option<()> {
    match raw.get() {
        "null" => out.push_str("None"),
        "true" => out.push_str("True"),
        "false" => out.push_str("False"),
        json if json.starts_with('"') => repr_str(out, &json::text(raw)?),
        json if json.starts_with(['[', '{']) => repr_nested(out, raw, levels.checked_sub(1)?)?,
        number => out.push_str(number),
    }
    Some(())
}

fn repr_nested(out: &mut String, raw: &RawValue, levels: usize) -> Option<()> {
    if let Some(elements) = json::array(raw) {
        out.push('[');
        for (position, element) in elements.into_iter().enumerate() {
            out.push_str(if position > 0 { ", " } else { "" });
            repr(out, element, levels)?;
        }
        out.push(']');
        return Some(());
    }
    out.push('{');
    for (position, (key, value)) in Object::of(raw).ok()?.entries().enumerate() {
        out.push_str(if position > 0 { ", " } else { "" });
        repr_str(out, key);
        out.push_str(": ");
        repr(out, value, levels)?;
    }
    out.push('}');
    Some(())
}

/// Python's `repr` of a string: single quotes, unless it holds single quotes and no double ones.
fn repr_str(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if c == quote => out.extend(['\\', c]),
            _ if is_printable(c) => out.push(c),
            _ => push_escape(out, u32::from(c)),
        }
    }
    out.push(quote);
}

fn push_escape(out: &mut String, code: u32) {
    let written = match code {
        0..=0xFF => write!(out, "\\x{code:02x}"),
        0x100..=0xFFFF => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
    // Writing to a `String` cannot fail.
    written.unwrap_or_default();
}

/// Python's `str.isprintable`. Rust's `escape_debug` escapes the same categories of characters, but
/// for marks that extend a letter, which it escapes only where there is no letter before them. The
/// two may disagree on characters younger than the sender's Python.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    let after_a_letter = ['a', c].iter().collect::<String>();
    !after_a_letter.escape_debug().any(|c| c == '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"test_generate_callback_signature";
    const SIGNATURE: &str = "18689cf9fb9c6a9dc1e0840245d48c666d97499d3894deb0e4cf3a5ba82f3d6e";
    const BODY: &str = r#"{"notification_id": "342d2432-6a79-4e18-afef-8c254751969b",
        "reference": "some client reference", "to": "+16502532222", "status": "created",
        "created_at": "2024-10-01T00:00:00.000000Z", "updated_at": null, "sent_at": null,
        "notification_type": "sms", "provider": "pinpoint", "status_reason": null,
        "provider_payload": null}"#;

    fn message(body: &str) -> String {
        signed_message(body.as_bytes()).unwrap()
    }

    #[test]
    fn the_senders_own_test_vector_agrees_in_any_letter_case() {
        assert!(signature_agrees(SECRET, BODY.as_bytes(), SIGNATURE.as_bytes()));
        let upper = SIGNATURE.to_uppercase();
        assert!(signature_agrees(SECRET, BODY.as_bytes(), upper.as_bytes()));
    }

    #[test]
    fn signing_gives_the_senders_own_test_vector() {
        assert_eq!(sign(SECRET, BODY.as_bytes()).as_deref(), Some(SIGNATURE));
        for body in [&b""[..], b"[]", b"{", b"\xFF", b"null"] {
            assert_eq!(sign(SECRET, body), None);
        }
    }

    #[test]
    fn any_other_secret_body_or_signature_disagrees() {
        let body = BODY.as_bytes();
        assert!(!signature_agrees(b"other", body, SIGNATURE.as_bytes()));
        assert!(!signature_agrees(b"", body, SIGNATURE.as_bytes()));
        let changed = BODY.replace("created\"", "delivered\"");
        assert!(!signature_agrees(SECRET, changed.as_bytes(), SIGNATURE.as_bytes()));
        let reordered = r#"{"b": 1, "a": 2}"#;
        assert_ne!(message(reordered), message(r#"{"a": 2, "b": 1}"#));
        for signature in
            ["", "1", "zz", "é", &SIGNATURE[..32], &SIGNATURE[1..], &SIGNATURE.repeat(2)]
        {
            assert!(!signature_agrees(SECRET, body, signature.as_bytes()), "{signature}");
        }
        for body in [&b""[..], b"[]", b"{", b"\xFF", b"null"] {
            assert!(!signature_agrees(SECRET, body, SIGNATURE.as_bytes()));
        }
    }

    /// The expected messages were written by CPython's `urlencode`.
    #[test]
    fn values_are_encoded_as_python_does() {
        for (body, expected) in [
            (r#"{"a": "~_.-/:+ é%"}"#, "a=~_.-%2F%3A%2B+%C3%A9%25"),
            (r#"{"a": true, "b": false, "c": null}"#, "a=True&b=False&c=None"),
            (r#"{"a": 1, "b": -2.5, "c": 1e+16}"#, "a=1&b=-2.5&c=1e%2B16"),
            (r#"{"a b": []}"#, "a+b=%5B%5D"),
            (r#"{"a": {"key": "value"}}"#, "a=%7B%27key%27%3A+%27value%27%7D"),
            (
                r#"{"a": {"k": [1, true, null, "x"], "e": {}}}"#,
                "a=%7B%27k%27%3A+%5B1%2C+True%2C+None%2C+%27x%27%5D%2C+%27e%27%3A+%7B%7D%7D",
            ),
        ] {
            assert_eq!(message(body), expected, "{body}");
        }
    }

    /// The expected texts were written by CPython's `repr`.
    #[test]
    fn nested_strings_are_written_as_python_does() {
        for (text, expected) in [
            ("it's", r#""it's""#),
            (r#"it's "it""#, r#"'it\'s "it"'"#),
            (r#"say "it""#, r#"'say "it"'"#),
            ("a\\b\n\r\t\0\x7f", r"'a\\b\n\r\t\x00\x7f'"),
            ("é😀\u{a0}\u{200b}\u{e0001}\u{301}", "'é😀\\xa0\\u200b\\U000e0001\u{301}'"),
        ] {
            let mut written = String::new();
            repr_str(&mut written, text);
            assert_eq!(written, expected);
        }
    }

    #[test]
    fn nesting_is_bounded_and_never_overflows_the_stack() {
        let nested = |levels| format!(r#"{{"a": {}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        assert!(signed_message(nested(NESTED_LEVELS_MAX).as_bytes()).is_some());
        assert!(signed_message(nested(NESTED_LEVELS_MAX + 1).as_bytes()).is_none());
        assert!(signed_message(nested(100_000).as_bytes()).is_none());
    }
}
