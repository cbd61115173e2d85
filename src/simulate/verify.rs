//! What a receiver came to, held against the truth.
//!
//! Only the keys that the truth names are compared. Values that may be of a person are never told:
//! a difference in one of those only says that there is one.

use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::state::compare::PERSONAL;

/// Differences told one by one, at most.
pub const TOLD_MAX: usize = 10;

/// What a comparison came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verification {
    /// Messages that should be there.
    pub compared: u64,
    /// Of those, how many are not there at all.
    pub missing: u64,
    /// Of those, how many are there and not as they should be.
    pub different: u64,
    /// The first [`TOLD_MAX`] that are missing or different.
    pub told: Vec<Difference>,
}

/// A message that is not as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which.
    pub id: String,
    /// Where it differs; nothing if it is missing.
    pub keys: Vec<KeyDifference>,
}

/// A key that has another value than it should.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyDifference {
    /// Its name.
    pub key: String,
    /// What it should be and what it is; nothing where that may be of a person.
    pub values: Option<(Value, Value)>,
}

impl Verification {
    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        self.missing == 0 && self.different == 0
    }

    /// Messages that are as they should be.
    pub fn as_expected(&self) -> u64 {
        self.compared - self.missing - self.different
    }

    /// Counts a message: what it should be, and what was found of it.
    pub fn add(&mut self, wanted: &Map<String, Value>, found: Option<&Map<String, Value>>) {
        self.compared += 1;
        let keys = match found {
            None => {
                self.missing += 1;
                Vec::new()
            }
            Some(found) => {
                let keys = differences(wanted, found);
                if keys.is_empty() {
                    return;
                }
                self.different += 1;
                keys
            }
        };
        if self.told.len() < TOLD_MAX {
            self.told.push(Difference { id: id(wanted).to_owned(), keys });
        }
    }
}

/// The id in a truth, which has one always.
pub fn id(wanted: &Map<String, Value>) -> &str {
    wanted.get("id").and_then(Value::as_str).unwrap_or("?")
}

/// The keys of `wanted` that have another value in `found`, or none.
pub fn differences(wanted: &Map<String, Value>, found: &Map<String, Value>) -> Vec<KeyDifference> {
    let differing = wanted.iter().filter_map(|(key, wanted)| {
        let found = found.get(key).unwrap_or(&Value::Null);
        (!is_same(key, wanted, found)).then(|| KeyDifference {
            key: key.clone(),
            values: (!PERSONAL.contains(&&**key)).then(|| (wanted.clone(), found.clone())),
        })
    });
    differing.collect()
}

/// Instants are the same in any form.
fn is_same(key: &str, wanted: &Value, found: &Value) -> bool {
    let instant = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let is_instant = key.ends_with("_at") || key == "date_received";
    wanted == found
        || (is_instant && instant(found).is_some_and(|found| instant(wanted) == Some(found)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other}"),
        }
    }

    fn compared(wanted: Value, found: Option<Value>) -> Verification {
        let mut verification = Verification::default();
        verification.add(&object(wanted), found.map(object).as_ref());
        verification
    }

    #[test]
    fn only_the_keys_of_the_truth_are_compared_and_instants_in_any_form() {
        let wanted = json!({"id": "1", "status": "sent", "sent_at": "2026-11-22T10:00:00.000000Z"});
        let found = json!({"id": "1", "status": "sent", "sent_at": "2026-11-22T11:00:00+01:00",
            "receipts": 3});
        let same = compared(wanted.clone(), Some(found));
        assert!(same.is_good() && same.as_expected() == 1, "{same:?}");
        for found in [
            json!({"id": "1", "status": "sent"}),
            json!({"id": "1", "status": "sent", "sent_at": "2026-11-22T10:00:01Z"}),
            json!({"id": "1", "status": null, "sent_at": "2026-11-22T10:00:00Z"}),
        ] {
            let different = compared(wanted.clone(), Some(found));
            assert_eq!((different.different, different.is_good()), (1, false), "{different:?}");
            assert_eq!(different.told[0].keys.len(), 1);
        }
    }

    #[test]
    fn what_is_missing_is_told_with_its_id() {
        let missing = compared(json!({"id": "1", "status": "sent"}), None);
        assert_eq!((missing.missing, missing.as_expected()), (1, 0));
        assert_eq!(missing.told, [Difference { id: "1".to_owned(), keys: vec![] }]);
    }

    #[test]
    fn nothing_of_a_person_is_told() {
        let different = compared(
            json!({"id": "1", "recipient": "canary", "message": "canary", "status": "sent"}),
            Some(json!({"id": "1", "recipient": "budgie", "message": null, "status": "failed"})),
        );
        let told = format!("{different:?}");
        assert!(!told.contains("canary") && !told.contains("budgie"), "{told}");
        assert!(told.contains("recipient") && told.contains("failed"), "{told}");
    }

    #[test]
    fn all_are_counted_and_few_told() {
        let mut verification = Verification::default();
        for id in 0..25 {
            verification.add(&object(json!({"id": id.to_string()})), None);
        }
        assert_eq!((verification.missing, verification.told.len()), (25, TOLD_MAX));
    }
}
