//! Reading JSON no further than needed.
//!
//! [`document`] checks that a body is JSON; an [`Object`] maps its keys to raw, borrowed text; a
//! getter decodes one field when it is asked for. What nobody asks for is never decoded, so a lone
//! surrogate, `1e400` or 100,000 nested arrays in a field we do not read can do no harm: serde_json
//! passes over such text without recursion.
//!
//! Where JSON leaves room we do as the senders' own parser (Python's) does: of a repeated key the
//! last value counts. A [`Problem`] names keys and shapes, never values: it may be logged.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Reason;
use crate::clock::Timestamp;

/// Why a body, or a field that is needed, cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Some byte is no UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// Not one JSON value, or something follows it.
    #[error("the body is not JSON")]
    NotJson,
    /// JSON, but of another shape.
    #[error("not a JSON object")]
    NotAnObject,
    /// The key is missing, its value null or empty.
    #[error("{0} is missing or empty")]
    Missing(&'static str),
    /// A needed string is something else.
    #[error("{0} is not a string")]
    NotAString(&'static str),
    /// An id would not survive decoding.
    #[error("{0} is not valid Unicode")]
    NotUnicode(&'static str),
    /// The value cannot be read as an instant.
    #[error("{0} is not a timestamp")]
    NotATimestamp(&'static str),
}

impl From<Problem> for Reason {
    fn from(problem: Problem) -> Self {
        Self::Owned(problem.to_string())
    }
}

/// The one JSON value a body holds, checked but not decoded. One UTF-8 byte order mark before it is
/// passed over: some proxies add one.
pub fn document(body: &[u8]) -> Result<&RawValue, Problem> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|_| Problem::NotUtf8)?;
    serde_json::from_str(text).map_err(|_| Problem::NotJson)
}

/// The elements if the value is an array.
pub fn array(raw: &RawValue) -> Option<Vec<&RawValue>> {
    raw.get().starts_with('[').then(|| serde_json::from_str(raw.get()).ok()).flatten()
}

/// The text of a value that is not null: a string decoded, anything else as its JSON text, so that
/// a number where a word was promised is still told.
///
/// An escaped half of a surrogate pair has no place in a `String`; it becomes U+FFFD rather than
/// making the callback unrecognised: the status beside it matters more than one character of a
/// reference, and the bytes as they came stay in the journal. Ids are stricter, see
/// [`Object::word`].
pub fn text(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "null" => None,
        json => Some(string(json).map_or_else(|| json.to_owned(), |text| decoded(&text).0)),
    }
}

/// A JSON object: its keys decoded, its values raw.
#[derive(Debug, Default)]
pub struct Object<'a> {
    entries: Vec<(Cow<'a, str>, &'a RawValue)>,
    position: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Object<'a> {
    /// Reads the keys of an object; any other value is [`Problem::NotAnObject`].
    pub fn of(raw: &'a RawValue) -> Result<Self, Problem> {
        serde_json::from_str(raw.get()).map_err(|_| Problem::NotAnObject)
    }

    /// Keys and values in the order of the keys' first appearance, each key once.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.entries.iter().map(|(key, raw)| (&**key, *raw))
    }

    /// Whether the key is there, whatever its value.
    pub fn has(&self, key: &str) -> bool {
        self.position.contains_key(key)
    }

    /// The value of the key unless it is missing or null.
    pub fn value(&self, key: &str) -> Option<&'a RawValue> {
        let raw = self.entries[*self.position.get(key)?].1;
        (raw.get() != "null").then_some(raw)
    }

    /// The text of a field that need not be there; see [`text`].
    pub fn text(&self, key: &str) -> Option<String> {
        self.value(key).and_then(text)
    }

    /// A string that decides something: nothing but a string will do; missing, null and empty are
    /// the same. A lone surrogate is refused, because two ids that differ only there would become
    /// one id, and two notifications one.
    pub fn word(&self, key: &'static str) -> Result<Option<String>, Problem> {
        let Some(raw) = self.value(key) else { return Ok(None) };
        let bytes = string(raw.get()).ok_or(Problem::NotAString(key))?;
        match decoded(&bytes) {
            (_, false) => Err(Problem::NotUnicode(key)),
            (word, true) => Ok((!word.is_empty()).then_some(word)),
        }
    }

    /// A [`word`](Self::word) that must be there.
    pub fn required_word(&self, key: &'static str) -> Result<String, Problem> {
        self.word(key)?.ok_or(Problem::Missing(key))
    }

    /// A timestamp, or nothing if the field is missing or null. The caller decides whether a value
    /// that is no timestamp matters.
    pub fn timestamp(&self, key: &'static str) -> Result<Option<Timestamp>, Problem> {
        self.text(key).map(|t| t.parse().map_err(|_| Problem::NotATimestamp(key))).transpose()
    }

    /// A whole number, written as a number or as a string.
    pub fn integer(&self, key: &str) -> Option<i64> {
        self.text(key)?.parse().ok()
    }

    /// An object within this one; anything else is `None`.
    pub fn object(&self, key: &str) -> Option<Object<'a>> {
        Self::of(self.value(key)?).ok()
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object::default();
        while let Some((Wtf8(key), raw)) = map.next_entry::<Wtf8<'de>, &'de RawValue>()? {
            let key = match key {
                Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
                Cow::Owned(bytes) => Cow::Owned(decoded(&bytes).0),
            };
            if let Some(position) = object.position.get(&key) {
                object.entries[*position].1 = raw;
            } else {
                object.position.insert(key.clone(), object.entries.len());
                object.entries.push((key, raw));
            }
        }
        Ok(object)
    }
}

/// The bytes of a decoded JSON string. serde_json checks strings it hands out as bytes for
/// everything but halves of surrogate pairs, which come as three bytes of generalised UTF-8.
struct Wtf8<'a>(Cow<'a, [u8]>);

impl<'de> Deserialize<'de> for Wtf8<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Wtf8Visitor).map(Wtf8)
    }
}

struct Wtf8Visitor;

impl<'de> Visitor<'de> for Wtf8Visitor {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_vec()))
    }
}

/// The decoded bytes if this JSON text is a string. `deserialize_bytes` would also take an array.
fn string(json: &str) -> Option<Cow<'_, [u8]>> {
    json.starts_with('"').then(|| serde_json::from_str(json).ok().map(|Wtf8(b)| b)).flatten()
}

/// The text of these bytes and whether it is faithful. A lone surrogate, the only invalid sequence
/// that can stand here, starts with 0xED and is three bytes long: one U+FFFD for the three.
fn decoded(bytes: &[u8]) -> (String, bool) {
    let mut text = String::with_capacity(bytes.len());
    let mut faithful = true;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        faithful &= chunk.invalid().is_empty();
        if chunk.invalid().first() == Some(&0xED) {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    (text, faithful)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(json: &str, look: impl FnOnce(&Object<'_>) -> T) -> T {
        look(&Object::of(document(json.as_bytes()).unwrap()).unwrap())
    }

    #[test]
    fn one_byte_order_mark_is_passed_over_and_a_second_is_not() {
        assert!(document("\u{feff}{}".as_bytes()).is_ok());
        assert_eq!(document("\u{feff}\u{feff}{}".as_bytes()).unwrap_err(), Problem::NotJson);
    }

    #[test]
    fn what_is_not_one_json_value_is_refused() {
        for body in ["", " ", "{", "{}x", "{} {}", "nul", "{'a':1}", "{\"a\":01}", "[1,]"] {
            assert_eq!(document(body.as_bytes()).unwrap_err(), Problem::NotJson, "{body}");
        }
        assert_eq!(document(b"{\"a\":\"\xFF\"}").unwrap_err(), Problem::NotUtf8);
    }

    #[test]
    fn only_an_object_is_an_object() {
        for body in ["[]", "null", "1", "\"a\"", "true", "[{\"a\":1}]"] {
            let raw = document(body.as_bytes()).unwrap();
            assert_eq!(Object::of(raw).unwrap_err(), Problem::NotAnObject, "{body}");
        }
    }

    #[test]
    fn of_a_repeated_key_the_last_value_counts_at_the_first_position() {
        with(r#"{"a":1,"b":2,"\u0061":3}"#, |object| {
            assert_eq!(object.text("a").as_deref(), Some("3"));
            assert_eq!(object.entries().map(|(key, _)| key).collect::<Vec<_>>(), ["a", "b"]);
        });
    }

    #[test]
    fn what_is_not_read_does_no_harm() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let objects = format!("{}1{}", r#"{"k":"#.repeat(100_000), "}".repeat(100_000));
        let json = format!(
            r#"{{"x":"\ud800","\udfff":1e400,"y":{deep},"z":{objects},"n":-1e-999,"id":"kept"}}"#
        );
        with(&json, |object| assert_eq!(object.text("id").as_deref(), Some("kept")));
    }

    #[test]
    fn a_lone_surrogate_becomes_one_replacement_character_in_a_text_and_is_refused_in_a_word() {
        with(r#"{"a":"x\ud800y\udc00z","b":"\ud83d\ude00"}"#, |object| {
            assert_eq!(object.text("a").as_deref(), Some("x\u{fffd}y\u{fffd}z"));
            assert_eq!(object.word("a"), Err(Problem::NotUnicode("a")));
            assert_eq!(object.word("b").unwrap().as_deref(), Some("😀"));
        });
    }

    #[test]
    fn a_text_that_is_no_string_is_told_as_its_json() {
        with(r#"{"n":1e400,"t":true,"o":{"a": [1]},"l":[65,66],"z":null}"#, |object| {
            assert_eq!(object.text("n").as_deref(), Some("1e400"));
            assert_eq!(object.text("t").as_deref(), Some("true"));
            assert_eq!(object.text("o").as_deref(), Some(r#"{"a": [1]}"#));
            assert_eq!(object.text("l").as_deref(), Some("[65,66]"));
            assert_eq!(object.text("z"), None);
            assert_eq!(object.text("missing"), None);
        });
    }

    #[test]
    fn a_word_is_a_string_that_is_not_empty() {
        with(r#"{"s":"w","e":"","z":null,"n":1,"l":["w"]}"#, |object| {
            assert_eq!(object.word("s").unwrap().as_deref(), Some("w"));
            assert_eq!(object.required_word("e"), Err(Problem::Missing("e")));
            assert_eq!(object.required_word("z"), Err(Problem::Missing("z")));
            assert_eq!(object.required_word("m"), Err(Problem::Missing("m")));
            assert_eq!(object.word("n"), Err(Problem::NotAString("n")));
            assert_eq!(object.word("l"), Err(Problem::NotAString("l")));
            assert!(object.has("z") && !object.has("m"));
        });
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_string() {
        with(r#"{"a":7,"b":"7","c":7.5,"d":"x","e":99999999999999999999}"#, |object| {
            assert_eq!(object.integer("a"), Some(7));
            assert_eq!(object.integer("b"), Some(7));
            assert_eq!([object.integer("c"), object.integer("d"), object.integer("e")], [None; 3]);
        });
    }
}
