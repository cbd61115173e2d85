//! What one callback says by itself, without a journal before it and a state behind it.
//!
//! A receiver that keeps nothing tells its sinks the changes that a callback would bring about if
//! nothing were known before: each is the state according to that event alone, with nothing as the
//! status before. Their ids are made from the event, so they are the ones that settling gives it:
//! whoever hears of an event twice, from two receivers or from the sender's own repetition, can tell.
//! What they do not hold is what other callbacks said; to join them is up to whoever listens.
//!
//! Pure but for the log, and total: it never panics.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::batch::{PANICKED, Read, read_one};
use super::tally::Tally;
use crate::callback::{Event, News, Origin};
use crate::change::{Cause, Change};
use crate::clock::Timestamp;
use crate::merge::Facts;
use crate::provider::{self, Dialect, Reading};

/// What one callback says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alone {
    /// In the order of the body, none twice; never empty. The keys count them from 0, and those
    /// about one notification or message share a subject.
    pub changes: Vec<Change>,
    /// How many of what.
    pub tally: Tally,
}

/// What the body of an authentic callback of that source says by itself.
pub fn alone(source: &Arc<str>, dialect: &Dialect, at: Timestamp, body: &[u8]) -> Alone {
    alone_by(source, (dialect, provider::read_entry), at, body)
}

fn alone_by(
    source: &Arc<str>,
    (dialect, read): (&Dialect, Read),
    at: Timestamp,
    body: &[u8],
) -> Alone {
    let understood = catch_unwind(AssertUnwindSafe(|| {
        let mut tally = Tally::default();
        let reading = read_one((source, Origin::CalledBack, body), Some(dialect), read, &mut tally);
        changes(source, at, body, reading, tally)
    }));
    understood.unwrap_or_else(|_| {
        tracing::error!(source = &**source, "reading a callback panicked; it is unrecognised");
        let change = Change::of_unrecognised(0, source, at, body, PANICKED);
        let unrecognised = BTreeMap::from([(Arc::clone(source), 1)]);
        Alone {
            changes: vec![change],
            tally: Tally { panics: 1, unrecognised, ..Tally::default() },
        }
    })
}

fn changes(
    source: &Arc<str>,
    at: Timestamp,
    body: &[u8],
    reading: Reading,
    mut tally: Tally,
) -> Alone {
    let Reading { events, mut unrecognised } = reading;
    if events.is_empty() && unrecognised.is_none() {
        // Nothing else would keep it.
        unrecognised = Some("it says nothing".into());
    }
    let is_single = events.len() == 1;
    let mut changes = Vec::with_capacity(events.len() + 1);
    let (mut seen, mut subjects) = (HashSet::new(), HashMap::new());
    for (key, event) in (0..).zip(events) {
        let kind = event.kind();
        // The usual callback holds one event, which repeats nothing.
        let subject = if is_single {
            key
        } else {
            let is_message = matches!(event.news, News::Message(_));
            *subjects.entry((is_message, event.id().to_owned())).or_insert(key)
        };
        let change = change_of(source, at, (key, subject), event);
        let is_repeat = !is_single && !seen.insert(change.id);
        tally.count(source, kind, is_repeat);
        if !is_repeat {
            changes.push(change);
        }
    }
    if let Some(reason) = unrecognised {
        *tally.unrecognised.entry(Arc::clone(source)).or_default() += 1;
        let key = changes.last().map_or(0, |change: &Change| change.key + 1);
        changes.push(Change::of_unrecognised(key, source, at, body, &reason));
    }
    Alone { changes, tally }
}

fn change_of(
    source: &Arc<str>,
    received_at: Timestamp,
    (key, subject): (i64, i64),
    event: Event,
) -> Change {
    let cause = Cause { key, subject, received_at, fingerprint: event.fingerprint };
    match event.news {
        News::Message(message) => Change::of_message(cause, source, &message, received_at),
        News::Notification(report) => {
            let (kind, id) = (report.kind, report.id.clone());
            let facts = Facts::of(*report, received_at);
            let received = (received_at, received_at);
            Change::of_notification(cause, kind, (source, &id), (None, &facts), received)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::What;
    use crate::provider::Provider;

    fn at() -> Timestamp {
        Timestamp::from_unix_micros(1_795_341_600_000_000)
    }

    fn of(provider: Provider, body: &str) -> Alone {
        alone(&Arc::from("s"), &provider.into(), at(), body.as_bytes())
    }

    fn ajo_event(profile: &str, word: &str) -> String {
        format!(
            r#"{{"messageExecution":{{"messageProfileID":"{profile}"}},
            "messageDeliveryFeedback":{{"feedbackStatus":"{word}"}}}}"#
        )
    }

    #[test]
    fn a_receipt_is_one_change_with_nothing_before() {
        let body = r#"{"id": "a", "status": "delivered", "notification_type": "sms"}"#;
        let Alone { changes, tally } = of(Provider::GcNotify, body);
        let [change] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((change.what, change.subject_id.as_deref()), (What::Status, Some("a")));
        assert_eq!(change.status.as_deref(), Some("delivered"));
        assert!(change.data.contains(r#""previous":null"#), "{}", change.data);
        assert_eq!(tally.events.values().sum::<u64>(), 1);
        assert_eq!(of(Provider::GcNotify, body).changes, changes);
    }

    #[test]
    fn what_is_not_understood_is_a_change_of_its_own_and_comes_last() {
        let body = format!("[{}, {{}}]", ajo_event("p", "sent"));
        let Alone { changes, tally } = of(Provider::Ajo, &body);
        let kinds: Vec<_> = changes.iter().map(|change| change.what).collect();
        assert_eq!(kinds, [What::Status, What::Unrecognised]);
        let keys: Vec<_> = changes.iter().map(|change| change.key).collect();
        assert_eq!(keys, [0, 1], "no two of one callback have one key");
        assert_eq!(tally.unrecognised.values().sum::<u64>(), 1);
        for body in ["", "[]", "nothing", "{}"] {
            let changes = of(Provider::Notify, body).changes;
            assert_eq!(changes.len(), 1, "{body}");
            assert_eq!(changes[0].what, What::Unrecognised);
        }
    }

    #[test]
    fn of_several_events_none_comes_twice_and_those_of_one_message_share_a_subject() {
        let [a, b, again] = [("p", "sent"), ("q", "sent"), ("p", "delivered")]
            .map(|(profile, word)| ajo_event(profile, word));
        let Alone { changes, tally } = of(Provider::Ajo, &format!("[{a},{b},{again},{a}]"));
        let subjects: Vec<_> = changes.iter().map(|change| change.subject).collect();
        assert_eq!(subjects, [0, 1, 0]);
        assert_eq!(tally.duplicates.values().sum::<u64>(), 1);
        assert_eq!(tally.events.values().sum::<u64>(), 4);
    }

    #[test]
    fn a_callback_whose_reading_panics_is_unrecognised() {
        let panics: Read = |_, _, _| panic!("boom");
        let dialect = Provider::Notify.into();
        let Alone { changes, tally } = alone_by(&Arc::from("s"), (&dialect, panics), at(), b"x");
        assert_eq!((changes.len(), tally.panics), (1, 1));
        assert_eq!(tally.unrecognised, BTreeMap::from([(Arc::from("s"), 1)]));
        assert_eq!(changes[0].what, What::Unrecognised);
        assert_eq!(changes[0].id, of(Provider::Notify, "x").changes[0].id);
    }
}
