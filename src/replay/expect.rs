//! What notifications should have come to, and where they did not.
//!
//! An expectation is a line of JSON like those `replay` prints. It needs an `id`; of the other keys
//! only those it names are compared, so that one written by hand can be as short as
//! `{"id": "…", "status": "delivered"}`. Instants are compared as instants, whatever their form.
//! Every notification must be expected, and every expected one must be there.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde_json::{Map, Value};

use super::SettledNotification;
use crate::clock::Timestamp;
use crate::state::export::KEYS;

/// What one notification should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    id: String,
    keys: Map<String, Value>,
}

impl Expected {
    /// That it is just like this one.
    pub fn exactly(notification: &SettledNotification) -> Self {
        Self { id: notification.id.clone(), keys: keys(notification) }
    }
}

fn keys(notification: &SettledNotification) -> Map<String, Value> {
    match serde_json::to_value(notification) {
        Ok(Value::Object(keys)) => keys,
        // A struct of texts and numbers always has a form as a JSON object.
        other => unreachable!("a notification became {other:?}"),
    }
}

/// A line that is no expectation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct NotExpected {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// Where an outcome is not as expected.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// It is expected, but no callback told of it.
    Missing {
        /// Whose.
        id: String,
    },
    /// A callback told of it, but it is not expected.
    Unexpected {
        /// Whose.
        id: String,
    },
    /// A key has another value.
    Key {
        /// Whose.
        id: String,
        /// Which key.
        key: &'static str,
        /// What it should be.
        expected: Value,
        /// What it is.
        got: Value,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { id } => write!(f, "{id}: expected, but nothing told of it"),
            Self::Unexpected { id } => write!(f, "{id}: not expected, but it was told of"),
            Self::Key { id, key, expected, got } => {
                write!(f, "{id}: {key}\n  expected {expected}\n  got      {got}")
            }
        }
    }
}

/// Reads expectations, one a line; blank lines are skipped.
///
/// # Errors
/// The first line that is not a JSON object with an `id` of its own and keys we know: a misspelt
/// key would be an expectation that always holds.
pub fn parse(text: &str) -> Result<Vec<Expected>, NotExpected> {
    let mut all = Vec::new();
    let mut ids = HashSet::new();
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty()) {
        let wrong = |problem: String| NotExpected { line, problem };
        let expected = parse_line(text).map_err(wrong)?;
        if !ids.insert(expected.id.clone()) {
            return Err(wrong(format!("{} is expected twice", expected.id)));
        }
        all.push(expected);
    }
    Ok(all)
}

fn parse_line(text: &str) -> Result<Expected, String> {
    let keys: Map<String, Value> =
        serde_json::from_str(text).map_err(|error| format!("expected a JSON object: {error}"))?;
    if let Some(unknown) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("unknown key \"{unknown}\"; known are {}", KEYS.join(", ")));
    }
    match keys.get("id") {
        Some(Value::String(id)) => Ok(Expected { id: id.clone(), keys }),
        _ => Err("expected an \"id\" that is a text".to_owned()),
    }
}

/// Every difference: by notification as settled, then what is missing. Of two sources that share an
/// id, which no provider's ids do, only one can be as expected.
pub fn differences(expected: &[Expected], settled: &[SettledNotification]) -> Vec<Difference> {
    let mut missing: HashMap<&str, &Expected> =
        expected.iter().map(|expected| (&*expected.id, expected)).collect();
    let mut differences = Vec::new();
    for notification in settled {
        match missing.remove(&*notification.id) {
            Some(expected) => compare(expected, notification, &mut differences),
            None => differences.push(Difference::Unexpected { id: notification.id.clone() }),
        }
    }
    let missing = expected.iter().filter(|expected| missing.contains_key(&*expected.id));
    differences.extend(missing.map(|expected| Difference::Missing { id: expected.id.clone() }));
    differences
}

fn compare(
    expected: &Expected,
    notification: &SettledNotification,
    differences: &mut Vec<Difference>,
) {
    let got = keys(notification);
    for key in KEYS {
        let Some(wanted) = expected.keys.get(key) else { continue };
        let got = got.get(key).unwrap_or(&Value::Null);
        if !is_same(key, wanted, got) {
            differences.push(Difference::Key {
                id: notification.id.clone(),
                key,
                expected: wanted.clone(),
                got: got.clone(),
            });
        }
    }
}

fn is_same(key: &str, wanted: &Value, got: &Value) -> bool {
    let instant = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    wanted == got
        || (key.ends_with("_at") && instant(got).is_some_and(|it| instant(wanted) == Some(it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(id: &str) -> SettledNotification {
        SettledNotification {
            id: id.to_owned(),
            status: Some("delivered".to_owned()),
            status_description: None,
            provider_response: None,
            reference: None,
            recipient: None,
            notification_type: None,
            template_id: None,
            template_version: Some(3),
            created_at: None,
            sent_at: None,
            completed_at: Some("2026-11-22T10:00:02.000000Z".to_owned()),
            complained_at: None,
            returned_at: None,
            receipts: 1,
            duplicates: 0,
        }
    }

    fn differences_from(text: &str) -> Vec<Difference> {
        differences(&parse(text).unwrap(), &[settled("a")])
    }

    #[test]
    fn a_line_as_printed_holds_every_key_in_order_and_is_its_own_expectation() {
        let line = serde_json::to_string(&settled("a")).unwrap();
        let places: Vec<_> = KEYS.iter().map(|key| line.find(&format!("\"{key}\":"))).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{line}");
        assert_eq!(line.matches("\":").count(), KEYS.len(), "{line}");
        assert_eq!(differences_from(&line), []);
    }

    #[test]
    fn only_the_keys_named_are_compared() {
        assert_eq!(differences_from(r#"{"id": "a"}"#), []);
        assert_eq!(differences_from(r#"{"id": "a", "template_version": 3}"#), []);
        let differences = differences_from(r#"{"id": "a", "status": null, "receipts": 2}"#);
        let text: Vec<_> = differences.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "a: status\n  expected null\n  got      \"delivered\"",
                "a: receipts\n  expected 2\n  got      1"
            ]
        );
    }

    #[test]
    fn an_instant_may_be_written_in_any_form() {
        for same in ["2026-11-22T10:00:02Z", "2026-11-22T12:00:02+02:00"] {
            let line = format!(r#"{{"id": "a", "completed_at": "{same}"}}"#);
            assert_eq!(differences_from(&line), [], "{same}");
        }
        for other in [r#""2026-11-22T10:00:03Z""#, r#""""#, "null"] {
            let line = format!(r#"{{"id": "a", "completed_at": {other}}}"#);
            assert_eq!(differences_from(&line).len(), 1, "{other}");
        }
        assert_eq!(differences_from(r#"{"id": "a", "sent_at": "2026-11-22T10:00:03Z"}"#).len(), 1);
    }

    #[test]
    fn what_is_missing_and_what_is_unexpected_are_differences() {
        let id = |id: &str| id.to_owned();
        assert_eq!(differences_from(""), [Difference::Unexpected { id: id("a") }]);
        let both = "{\"id\": \"a\"}\n\n{\"id\": \"b\"}\n";
        assert_eq!(differences_from(both), [Difference::Missing { id: id("b") }]);
    }

    #[test]
    fn a_line_that_is_no_expectation_is_refused_with_its_number() {
        for (text, line, said) in [
            ("{\"id\": \"a\"}\n{\"id\": \"a\"}", 2, "a is expected twice"),
            ("\n{\"id\": \"a\", \"sttus\": null}", 2, "unknown key \"sttus\""),
            ("{\"status\": null}", 1, "expected an \"id\""),
            ("[]", 1, "expected a JSON object"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line, line, "{text}");
            assert!(error.problem.starts_with(said), "{error}");
        }
    }
}
