//! What is asked for, read from the query, and every mistake in it.
//!
//! Mistakes are told in the platforms' words and in their order: by the keys they know, then those they
//! do not. Where a key may stand once, its first value counts, as it does there.

use std::time::Duration;

use form_urlencoded::Serializer;
use uuid::Uuid;

use super::fault::{Fault, Voice};
use super::words;
use crate::state::asked::Filter;

/// Keys of a list of notifications, in the order in which mistakes are told.
const NOTIFICATIONS: [&str; 5] =
    ["reference", "status", "template_type", "include_jobs", "older_than"];

/// Keys of a list of received text messages.
const MESSAGES: [&str; 1] = ["older_than"];

/// The longest that anybody may have an answer wait.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// Reads how long to wait, `5s` or `500ms`; `None` if it is neither, or more than [`WAIT_MAX`].
pub fn parse_wait(text: &str) -> Option<Duration> {
    let number = |digits: &str| {
        digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let wait = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(ms), _) => Duration::from_millis(number(ms)?),
        (None, Some(s)) => Duration::from_secs(number(s)?),
        (None, None) => return None,
    };
    (wait <= WAIT_MAX).then_some(wait)
}

/// A list that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    /// Which rows; empty for messages.
    pub(super) filter: Filter,
    /// The id behind which to begin.
    pub(super) older_than: Option<String>,
    /// The query, decoded, without what does not count.
    pairs: Vec<(String, String)>,
}

impl List {
    /// A list of notifications. That only jobs were to be left out makes no difference: nothing that is
    /// called back tells them apart.
    pub(super) fn of_notifications(query: Option<&str>, voice: Voice) -> Result<Self, Fault> {
        let pairs = read(query, &["status", "template_type"]);
        let mut mistakes = Vec::new();
        for (key, value) in in_order(&pairs, &NOTIFICATIONS) {
            mistakes.extend(match key {
                "status" if !words::is_status(value) => {
                    Some(not_one_of(key, value, &words::statuses(voice)))
                }
                "template_type" if !words::is_type(value) => {
                    Some(not_one_of(key, value, &words::TYPES))
                }
                "include_jobs" if !["true", "True"].contains(&value) => {
                    Some(not_one_of(key, value, &["true", "True"]))
                }
                _ => None,
            });
        }
        let values = |wanted: &str| {
            let found = pairs.iter().filter(move |(key, _)| key == wanted);
            found.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
        };
        let statuses = values("status").into_iter().flat_map(words::stands_for).collect();
        let filter = Filter {
            statuses: once(statuses),
            types: once(values("template_type")),
            reference: values("reference").first().map(|value| (*value).to_owned()),
        };
        Self { filter, older_than: None, pairs }.checked(mistakes, &NOTIFICATIONS)
    }

    /// A list of received text messages.
    pub(super) fn of_messages(query: Option<&str>) -> Result<Self, Fault> {
        let list = Self { pairs: read(query, &[]), ..Self::default() };
        list.checked(Vec::new(), &MESSAGES)
    }

    fn checked(mut self, mut mistakes: Vec<String>, known: &[&str]) -> Result<Self, Fault> {
        let older_than = self.pairs.iter().find(|(key, _)| key == "older_than");
        self.older_than = older_than.map(|(_, value)| value.clone());
        let unknown = unknown_keys(&self.pairs, known);
        // By itself it may yet be an id that is kept, whatever its form: see [`no_such_id`].
        let is_alone = mistakes.is_empty() && unknown.is_none();
        if let Some(id) = self.older_than.as_deref().filter(|_| !is_alone) {
            mistakes.extend(not_an_id("older_than", id));
        }
        mistakes.extend(unknown);
        if mistakes.is_empty() { Ok(self) } else { Err(Fault::Invalid(mistakes)) }
    }

    /// The query that was answered.
    pub(super) fn current(&self) -> String {
        Serializer::new(String::new()).extend_pairs(&self.pairs).finish()
    }

    /// The query of the page that begins behind `id`. That comes first, other than on the platforms: the
    /// official Python client takes the first UUID of the link, and a reference may be one.
    pub(super) fn next(&self, id: &str) -> String {
        let others = self.pairs.iter().filter(|(key, _)| key != "older_than");
        Serializer::new(String::new()).append_pair("older_than", id).extend_pairs(others).finish()
    }
}

/// The pairs of a query in its order; of keys that may not repeat, the first.
fn read(query: Option<&str>, repeating: &[&str]) -> Vec<(String, String)> {
    let mut kept: Vec<(String, String)> = Vec::new();
    for (key, value) in pairs(query) {
        let is_new = !kept.iter().any(|(known, _)| *known == key);
        if is_new || repeating.contains(&key.as_str()) {
            kept.push((key, value));
        }
    }
    kept
}

/// The pairs whose keys are known, in the order of the keys.
fn in_order<'p, 'k: 'p>(
    pairs: &'p [(String, String)],
    known: &'k [&'k str],
) -> impl Iterator<Item = (&'k str, &'p str)> {
    known.iter().flat_map(move |wanted| {
        let found = pairs.iter().filter(move |(key, _)| key == wanted);
        found.map(move |(_, value)| (*wanted, value.as_str()))
    })
}

fn not_one_of(key: &str, value: &str, known: &[&str]) -> String {
    format!("{key} {value} is not one of [{}]", known.join(", "))
}

fn unknown_keys(pairs: &[(String, String)], known: &[&str]) -> Option<String> {
    let unknown = pairs.iter().map(|(key, _)| key.as_str()).filter(|key| !known.contains(key));
    let unknown = once(unknown.collect());
    let verb = match unknown.len() {
        0 => return None,
        1 => "was",
        _ => "were",
    };
    let list = unknown.join(", ");
    Some(format!("Additional properties are not allowed ({list} {verb} unexpected)"))
}

/// The pairs of a query, in its order.
pub(super) fn pairs(query: Option<&str>) -> Vec<(String, String)> {
    form_urlencoded::parse(query.unwrap_or("").as_bytes()).into_owned().collect()
}

/// Each word once, in the order of their first.
fn once(words: Vec<&str>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for word in words {
        if !kept.iter().any(|known| known == word) {
            kept.push(word.to_owned());
        }
    }
    kept
}

/// The ids under which one may be kept: as it was asked for and, if it is a UUID in another form, in the
/// one in which platforms write them.
pub(super) fn forms_of(id: &str) -> impl Iterator<Item = String> {
    let usual = Uuid::try_parse(id).ok().map(|id| id.hyphenated().to_string());
    std::iter::once(id.to_owned()).chain(usual.filter(|usual| usual != id))
}

/// What is wrong with an id under which nothing is kept: that it is no UUID, if it is none.
pub(super) fn not_an_id(key: &str, id: &str) -> Option<String> {
    Uuid::try_parse(id).is_err().then(|| format!("{key} is not a valid UUID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_in_seconds_or_milliseconds_and_bounded() {
        assert_eq!(parse_wait("5s"), Some(Duration::from_secs(5)));
        assert_eq!(parse_wait("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_wait("0s"), Some(Duration::ZERO));
        for wrong in ["5", "", "s", "-1s", "+1s", "61s", "60001ms", "5m", "1e1s", "5 s"] {
            assert_eq!(parse_wait(wrong), None, "{wrong}");
        }
    }

    const ID: &str = "740e5834-3a29-46b4-9a6f-16142fde533a";

    fn list(query: &str) -> List {
        List::of_notifications(Some(query), Voice::Govuk).unwrap()
    }

    fn mistakes(query: &str) -> Vec<String> {
        match List::of_notifications(Some(query), Voice::Govuk) {
            Err(Fault::Invalid(mistakes)) => mistakes,
            other => panic!("{query}: {other:?}"),
        }
    }

    #[test]
    fn filters_are_read_and_repeat_where_they_may() {
        let found = list("status=sent&template_type=sms&status=delivered&status=sent");
        assert_eq!(found.filter.statuses, ["sent", "delivered", "received"]);
        assert_eq!(found.filter.types, ["sms"]);
        let found = list("reference=a+b%26c&reference=second&include_jobs=true");
        assert_eq!(found.filter.reference.as_deref(), Some("a b&c"));
        assert_eq!(list(""), List::of_notifications(None, Voice::Govuk).unwrap());
    }

    #[test]
    fn failed_expands_beside_others_without_a_word_twice() {
        let found = list("status=failed&status=permanent-failure&status=sent");
        assert_eq!(found.filter.statuses.len(), 11);
    }

    #[test]
    fn mistakes_are_told_all_at_once_in_the_platforms_order() {
        let query = "x=1&older_than=soon&status=elephant&y=2&template_type=fax&include_jobs=no";
        let told = mistakes(query);
        let all = "[cancelled, created, sending, sent, delivered, pending, failed, \
            technical-failure, temporary-failure, permanent-failure, pending-virus-check, \
            validation-failed, virus-scan-failed, returned-letter, accepted, received]";
        assert_eq!(
            told,
            [
                format!("status elephant is not one of {all}"),
                "template_type fax is not one of [sms, email, letter]".to_owned(),
                "include_jobs no is not one of [true, True]".to_owned(),
                "older_than is not a valid UUID".to_owned(),
                "Additional properties are not allowed (x, y were unexpected)".to_owned(),
            ]
        );
        assert_eq!(
            mistakes("page=2&page=3"),
            ["Additional properties are not allowed (page was unexpected)"]
        );
    }

    #[test]
    fn the_next_link_holds_every_filter_and_its_id_before_any_reference() {
        let found = list(&format!("reference={ID}&status=sent&status=failed&older_than={ID}"));
        assert_eq!(found.older_than.as_deref(), Some(ID));
        assert_eq!(
            found.current(),
            format!("reference={ID}&status=sent&status=failed&older_than={ID}")
        );
        let next = found.next("n/1");
        assert_eq!(next, format!("older_than=n%2F1&reference={ID}&status=sent&status=failed"));
    }

    #[test]
    fn an_id_is_looked_for_as_it_is_written_and_as_platforms_write_it() {
        let forms = |id: &str| forms_of(id).collect::<Vec<_>>();
        assert_eq!(forms(ID), [ID]);
        assert_eq!(forms(&ID.to_uppercase()), [ID.to_uppercase(), ID.to_owned()]);
        assert_eq!(forms(&ID.replace('-', "")), [ID.replace('-', ""), ID.to_owned()]);
        assert_eq!(forms("n-1"), ["n-1"]);
        assert_eq!(not_an_id("older_than", ID), None);
        assert!(not_an_id("older_than", "n-1").is_some());
    }
}
