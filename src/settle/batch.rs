//! One batch: callbacks in, rows out. Works inside the caller's transaction and touches nothing
//! but the tables of the state, wherever these stand.
//!
//! All of it is understood before any of it is written: first what each body says, then, subject by
//! subject, what that comes to with what is stored ([`super::news`]). Only then is written
//! ([`super::rows`]). So what panics on the way has written nothing.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rusqlite::Connection;

use super::news::{place, settle_subject};
use super::rows::Rows;
use super::tally::Tally;
use crate::callback::{Callback, Event, News, Origin};
use crate::change::OwedTo;
use crate::provider::{self, Dialect, Provider, Reading};

/// Settles `callbacks`, which are in order, into the tables behind `connection`, and writes what
/// changes by it into the outbox of each sink it is owed to.
///
/// # Errors
/// Of SQLite only; then the caller's transaction must be rolled back.
///
/// A panic while callbacks are understood is a bug of ours that must not stop what comes behind it:
/// the batch is settled again one by one, and the callback that panics is unrecognised.
pub fn settle(
    connection: &Connection,
    callbacks: &[Callback],
    dialects: &HashMap<Arc<str>, Dialect>,
    owed_to: &[OwedTo],
) -> rusqlite::Result<Tally> {
    settle_guarded(connection, callbacks, (dialects, provider::read_entry), owed_to)
}

/// The reason of a callback that is unrecognised because reading it panicked.
pub(super) const PANICKED: &str = "settling it panicked: a bug in receiptd";

/// How a body is read; a test puts a reader that panics in its place.
pub(super) type Read = fn(&Dialect, Origin, &[u8]) -> Reading;

fn settle_guarded(
    connection: &Connection,
    callbacks: &[Callback],
    reading: (&HashMap<Arc<str>, Dialect>, Read),
    owed_to: &[OwedTo],
) -> rusqlite::Result<Tally> {
    // Nothing is written before all of it is understood, so a panic leaves nothing behind. A
    // savepoint would do that too, and copies each page it first touches: a sixth of the time.
    let understood =
        catch_unwind(AssertUnwindSafe(|| understand(connection, callbacks, reading, owed_to)));
    if let Ok(understood) = understood {
        let (rows, mut tally) = understood?;
        rows.write(connection, callbacks, &mut tally)?;
        return Ok(tally);
    }
    let [callback] = callbacks else {
        let mut tally = Tally::default();
        for callback in callbacks.chunks(1) {
            tally.add(settle_guarded(connection, callback, reading, owed_to)?);
        }
        return Ok(tally);
    };
    tracing::error!(seq = callback.seq, "settling a callback panicked; it is unrecognised");
    let reason = PANICKED.to_owned();
    let mut rows = Rows::new(owed_to);
    rows.add_unrecognised(callback, reason, 0);
    let unrecognised = BTreeMap::from([(Arc::clone(&callback.source), 1)]);
    let mut tally = Tally { panics: 1, unrecognised, ..Tally::default() };
    rows.write(connection, std::slice::from_ref(callback), &mut tally)?;
    Ok(tally)
}

/// What `callbacks` come to, together with what is stored; only reads.
fn understand<'o>(
    connection: &Connection,
    callbacks: &[Callback],
    (dialects, read): (&HashMap<Arc<str>, Dialect>, Read),
    owed_to: &'o [OwedTo],
) -> rusqlite::Result<(Rows<'o>, Tally)> {
    let (mut rows, mut tally) = (Rows::new(owed_to), Tally::default());
    let mut placed = Vec::with_capacity(callbacks.len());
    for callback in callbacks {
        if callback.origin == Origin::Expected {
            rows.add_expected(callback, &mut tally);
            continue;
        }
        if callback.origin == Origin::Overdue {
            rows.add_overdue(connection, callback, &mut tally)?;
            continue;
        }
        let dialect = dialects.get(&callback.source);
        let entry = (&callback.source, callback.origin, &*callback.body);
        let reading = read_one(entry, dialect, read, &mut tally);
        if let Some(reason) = reading.unrecognised {
            *tally.unrecognised.entry(Arc::clone(&callback.source)).or_default() += 1;
            rows.add_unrecognised(callback, reason.into_owned(), reading.events.len());
        }
        place(callback, reading.events, &mut placed);
    }
    // Stable: the news of each subject stays in the order of the journal.
    placed.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut placed = placed.into_iter().peekable();
    while let Some((subject, first)) = placed.next() {
        let mut news = vec![first];
        while let Some((_, next)) = placed.next_if(|(next, _)| *next == subject) {
            news.push(next);
        }
        settle_subject(connection, subject, news, &mut rows, &mut tally)?;
    }
    Ok((rows, tally))
}

/// Reads a body of that source and origin, and counts the words that nobody knows.
pub(super) fn read_one(
    (source, origin, body): (&Arc<str>, Origin, &[u8]),
    dialect: Option<&Dialect>,
    read: Read,
    tally: &mut Tally,
) -> Reading {
    let Some(dialect) = dialect else {
        return Reading::unrecognised("the journal does not say which provider this source is");
    };
    let reading = read(dialect, origin, body);
    if dialect.provider != Provider::Ajo {
        let unknown = reading.events.iter().filter(|event| has_unknown_status(event)).count();
        if unknown > 0 {
            *tally.unknown_statuses.entry(Arc::clone(source)).or_default() += unknown as u64;
        }
    }
    reading
}

fn has_unknown_status(event: &Event) -> bool {
    matches!(&event.news, News::Notification(report)
        if report.standing.as_ref().is_some_and(|s| !provider::notify::is_known_status(&s.status)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callback::Kind;
    use crate::clock::Timestamp;
    use crate::state::tables::SCHEMA;

    fn panics_on_boom(dialect: &Dialect, origin: Origin, body: &[u8]) -> Reading {
        assert!(!body.windows(4).any(|part| part == b"boom"), "boom");
        provider::read_entry(dialect, origin, body)
    }

    #[test]
    fn a_callback_that_panics_is_unrecognised_and_the_others_are_settled() {
        let connection = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let source: Arc<str> = Arc::from("passport");
        let callback = |seq: i64, id: &str| Callback {
            seq,
            source: Arc::clone(&source),
            received_at: Timestamp::from_unix_micros(seq),
            body: format!(r#"{{"id": "{id}", "status": "sent", "notification_type": "sms"}}"#)
                .into(),
            origin: Origin::CalledBack,
        };
        let callbacks = [callback(1, "a"), callback(2, "boom"), callback(3, "b")];
        let dialects = HashMap::from([(Arc::clone(&source), Dialect::from(Provider::GcNotify))]);
        let reading = (&dialects, panics_on_boom as Read);
        let tally = settle_guarded(&connection, &callbacks, reading, &[]).unwrap();
        assert_eq!((tally.panics, tally.events[&(source, Kind::Receipt)]), (1, 2));
        let count = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM notification"), 2);
        assert_eq!(count("SELECT seq FROM unrecognised"), 2);
    }

    /// A callback of a source that stands in `dialects`.
    fn callback(seq: i64, source: &Arc<str>, body: &str) -> Callback {
        let received_at = Timestamp::from_unix_micros(seq);
        let origin = Origin::CalledBack;
        Callback { seq, source: Arc::clone(source), received_at, body: body.into(), origin }
    }

    /// Two of everything that is counted, from two sources.
    fn two_of_everything(gc: &Arc<str>, ajo: &Arc<str>) -> Vec<Callback> {
        let bodies = [
            r#"{"id": "a", "status": "new-word", "notification_type": "sms"}"#,
            r#"{"id": "b", "status": "newer", "notification_type": "sms"}"#,
            r#"{"id": "c", "status": "sent", "notification_type": "sms"}"#,
            r#"{"id": "c", "status": "sent", "notification_type": "sms"}"#,
            r#"{"id": "c", "status": "sent", "notification_type": "sms"}"#,
            r#"{"id": "m", "source_number": "1"}"#,
            r#"{"id": "m", "source_number": "2"}"#,
            r#"{"notification_id": "a", "complaint_id": "1"}"#,
            r#"{"notification_id": "a", "complaint_id": "2"}"#,
            "[]",
            "nothing",
        ];
        let event = r#"{"messageExecution": {"messageProfileID": "p"},
            "messageDeliveryFeedback": {"feedbackStatus": "sent"}}"#;
        let mut callbacks: Vec<_> =
            (1..).zip(bodies).map(|(seq, body)| callback(seq, gc, body)).collect();
        callbacks.extend([20, 21].map(|seq| callback(seq, ajo, event)));
        callbacks
    }

    fn expected_tally(gc: &Arc<str>, ajo: &Arc<str>) -> Tally {
        let gc = || Arc::clone(gc);
        let ajo = || Arc::clone(ajo);
        Tally {
            events: BTreeMap::from([
                ((gc(), Kind::Receipt), 5),
                ((gc(), Kind::ReceivedMessage), 2),
                ((gc(), Kind::Complaint), 2),
                ((ajo(), Kind::Receipt), 2),
            ]),
            duplicates: BTreeMap::from([(gc(), 2), (ajo(), 1)]),
            unrecognised: BTreeMap::from([(gc(), 2)]),
            unknown_statuses: BTreeMap::from([(gc(), 2)]),
            owed: BTreeMap::new(),
            panics: 0,
        }
    }

    fn sources() -> (Arc<str>, Arc<str>, HashMap<Arc<str>, Dialect>) {
        let (gc, ajo): (Arc<str>, Arc<str>) = (Arc::from("gc"), Arc::from("ajo"));
        let dialects = HashMap::from([
            (Arc::clone(&gc), Dialect::from(Provider::GcNotify)),
            (Arc::clone(&ajo), Dialect::from(Provider::Ajo)),
        ]);
        (gc, ajo, dialects)
    }

    #[test]
    fn a_batch_counts_each_event_once_by_its_source() {
        let (gc, ajo, dialects) = sources();
        let connection = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let tally = settle(&connection, &two_of_everything(&gc, &ajo), &dialects, &[]).unwrap();
        assert_eq!(tally, expected_tally(&gc, &ajo));
    }

    #[test]
    fn a_batch_that_is_settled_one_by_one_counts_the_same_and_the_panics_beside() {
        let (gc, ajo, dialects) = sources();
        let connection = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let mut callbacks = two_of_everything(&gc, &ajo);
        callbacks.extend([30, 31].map(|seq| callback(seq, &gc, "boom")));
        let reading = (&dialects, panics_on_boom as Read);
        let tally = settle_guarded(&connection, &callbacks, reading, &[]).unwrap();
        let mut expected = expected_tally(&gc, &ajo);
        expected.panics = 2;
        expected.unrecognised.insert(gc, 4);
        assert_eq!(tally, expected);
    }

    #[test]
    fn a_source_whose_words_are_all_known_is_not_counted_among_those_with_unknown_ones() {
        let (gc, _, dialects) = sources();
        let connection = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let body = r#"{"id": "a", "status": "sent", "notification_type": "sms"}"#;
        let tally = settle(&connection, &[callback(1, &gc, body)], &dialects, &[]).unwrap();
        let events = BTreeMap::from([((gc, Kind::Receipt), 1)]);
        assert_eq!(tally, Tally { events, ..Tally::default() });
    }
}
