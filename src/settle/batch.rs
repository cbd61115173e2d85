//! One batch: callbacks in, rows out. Works inside the caller's transaction and touches nothing
//! but the tables of the state, wherever these stand.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rusqlite::Connection;

use super::{expected, overdue};
use crate::callback::{Callback, Event, Fingerprint, Kind, News, Origin, Report};
use crate::change::{Cause, Change, OwedTo};
use crate::clock::Timestamp;
use crate::merge::Facts;
use crate::provider::{self, Dialect, Provider, Reading, Reason};
use crate::state::expected::{ExpectedRow, is_told, put_expected, tell};
use crate::state::outbox;
use crate::state::tables::key;
use crate::state::write::{
    HistoryRow, Message, Notification, UnrecognisedRow, add_history, add_unrecognised,
    find_message, find_notification, has_seen, put_message, put_notification,
};

/// What a batch came to, by source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events understood, by kind, duplicates among them.
    pub events: BTreeMap<(Arc<str>, Kind), u64>,
    /// Events that were identical to an earlier one.
    pub duplicates: BTreeMap<Arc<str>, u64>,
    /// Callbacks that were not, or not wholly, understood.
    pub unrecognised: BTreeMap<Arc<str>, u64>,
    /// Receipts whose status is no word we know; kept as sent.
    pub unknown_statuses: BTreeMap<Arc<str>, u64>,
    /// Changes owed, by sink.
    pub owed: BTreeMap<Arc<str>, u64>,
    /// Callbacks whose settling panicked; unrecognised too.
    pub panics: u64,
}

impl Tally {
    pub(super) fn count(&mut self, source: &Arc<str>, kind: Kind, duplicate: bool) {
        *self.events.entry((Arc::clone(source), kind)).or_default() += 1;
        if duplicate {
            *self.duplicates.entry(Arc::clone(source)).or_default() += 1;
        }
    }

    fn add(&mut self, other: Self) {
        for (key, count) in other.events {
            *self.events.entry(key).or_default() += count;
        }
        for (all, more) in [
            (&mut self.duplicates, other.duplicates),
            (&mut self.unrecognised, other.unrecognised),
            (&mut self.unknown_statuses, other.unknown_statuses),
            (&mut self.owed, other.owed),
        ] {
            for (source, count) in more {
                *all.entry(source).or_default() += count;
            }
        }
        self.panics += other.panics;
    }
}

/// An event with its place in the journal.
struct Placed {
    seq: i64,
    index: usize,
    received_at: Timestamp,
    event: Event,
}

/// Whom news is about. Ordered by id, as the index is, so that a batch visits each page once.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Subject {
    id: String,
    source: Arc<str>,
    is_message: bool,
}

/// Rows to be written.
struct Rows<'o> {
    notifications: Vec<(i64, Subject, Notification)>,
    messages: Vec<(i64, Subject, Message)>,
    history: Vec<HistoryRow>,
    unrecognised: Vec<UnrecognisedRow>,
    expected: Vec<ExpectedRow>,
    /// By source and id: when it was first found overdue.
    overdue: BTreeMap<(Arc<str>, String), Timestamp>,
    /// Each with the sinks it is owed to.
    changes: Vec<(Change, Vec<&'o OwedTo>)>,
    /// To whom changes are owed.
    owed_to: &'o [OwedTo],
}

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
        if subject.is_message {
            settle_message(connection, subject, news, &mut rows, &mut tally)?;
        } else {
            settle_notification(connection, subject, news, &mut rows, &mut tally)?;
        }
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

fn place(callback: &Callback, events: Vec<Event>, all: &mut Vec<(Subject, Placed)>) {
    for (index, event) in events.into_iter().enumerate() {
        let subject = Subject {
            id: event.id().to_owned(),
            source: Arc::clone(&callback.source),
            is_message: event.kind() == Kind::ReceivedMessage,
        };
        let placed = Placed { seq: callback.seq, index, received_at: callback.received_at, event };
        all.push((subject, placed));
    }
}

/// Which of a subject's events are repeats, of the history or of each other.
struct Seen<'c> {
    connection: &'c Connection,
    subject: i64,
    /// Of the first event: tells whether the subject is a message or a notification.
    kind: Kind,
    is_stored: bool,
    here: HashSet<Fingerprint>,
}

impl<'c> Seen<'c> {
    /// `stored` is the subject's key if it has rows already; else it gets that of its first event.
    fn new(connection: &'c Connection, stored: Option<i64>, news: &[Placed]) -> Self {
        let subject = stored.unwrap_or_else(|| key(news[0].seq, news[0].index));
        let kind = news[0].event.kind();
        Self { connection, subject, kind, is_stored: stored.is_some(), here: HashSet::new() }
    }

    fn is_repeat(&mut self, fingerprint: Fingerprint) -> rusqlite::Result<bool> {
        let is_new_here = self.here.insert(fingerprint);
        let is_stored =
            self.is_stored && has_seen(self.connection, self.kind, self.subject, fingerprint)?;
        Ok(!is_new_here || is_stored)
    }
}

fn settle_notification(
    connection: &Connection,
    subject: Subject,
    news: Vec<Placed>,
    rows: &mut Rows<'_>,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    let stored = find_notification(connection, &subject.source, &subject.id)?;
    let mut seen = Seen::new(connection, stored.as_ref().map(|(key, _)| *key), &news);
    let first_received_at = news[0].received_at;
    let mut notification = stored.map_or_else(
        || Notification {
            facts: Facts::default(),
            receipts: 0,
            duplicates: 0,
            first_received_at,
            last_received_at: first_received_at,
        },
        |(_, notification)| notification,
    );
    for Placed { seq, index, received_at, event } in news {
        let fingerprint = event.fingerprint;
        let News::Notification(report) = event.news else { continue };
        let duplicate = seen.is_repeat(fingerprint)?;
        tally.count(&subject.source, report.kind, duplicate);
        rows.history.push(HistoryRow {
            seq,
            event: index as i64,
            subject: seen.subject,
            kind: report.kind,
            status: report.standing.as_ref().map(|standing| standing.status.clone()),
            completed_at: report.standing.as_ref().and_then(|standing| standing.completed_at),
            received_at,
            duplicate,
            fingerprint,
        });
        let kind = report.kind;
        // Only where somebody is told of it is it worth a copy.
        let before = (!duplicate && !rows.owed_to.is_empty()).then(|| notification.facts.clone());
        learn(&mut notification, *report, received_at, duplicate);
        // A complaint or a returned letter is news even if an earlier one said when.
        if let Some(before) = before
            && (kind != Kind::Receipt || !before.is_same_but_for_bytes(&notification.facts))
        {
            let cause =
                Cause { key: key(seq, index), subject: seen.subject, received_at, fingerprint };
            let Notification { facts, first_received_at, last_received_at, .. } = &notification;
            rows.add_change(Change::of_notification(
                cause,
                kind,
                (&subject.source, &subject.id),
                (Some(&before), facts),
                (*first_received_at, *last_received_at),
            ));
        }
    }
    rows.notifications.push((seen.subject, subject, notification));
    Ok(())
}

fn learn(notification: &mut Notification, report: Report, received_at: Timestamp, duplicate: bool) {
    if duplicate {
        notification.duplicates += 1;
        return;
    }
    notification.receipts += i64::from(report.kind == Kind::Receipt);
    notification.first_received_at = notification.first_received_at.min(received_at);
    notification.last_received_at = notification.last_received_at.max(received_at);
    let known = std::mem::take(&mut notification.facts);
    notification.facts = known.join(Facts::of(report, received_at));
}

fn settle_message(
    connection: &Connection,
    subject: Subject,
    news: Vec<Placed>,
    rows: &mut Rows<'_>,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    let stored = find_message(connection, &subject.source, &subject.id)?;
    let mut seen = Seen::new(connection, stored.as_ref().map(|(key, _)| *key), &news);
    let mut known = stored.map(|(_, message)| message);
    for Placed { seq, index, received_at, event } in news {
        let fingerprint = event.fingerprint;
        let News::Message(message) = event.news else { continue };
        let duplicate = seen.is_repeat(fingerprint)?;
        tally.count(&subject.source, Kind::ReceivedMessage, duplicate);
        rows.history.push(HistoryRow {
            seq,
            event: index as i64,
            subject: seen.subject,
            kind: Kind::ReceivedMessage,
            status: None,
            completed_at: None,
            received_at,
            duplicate,
            fingerprint,
        });
        let first = known.as_ref().map_or(received_at, |known| known.received_at.min(received_at));
        if known.as_ref().is_none_or(|known| fingerprint > known.fingerprint) {
            // Asked for and called back, or called back in other words: nobody wants to hear it twice.
            let is_news = known.as_ref().is_none_or(|known| known.message != *message);
            let message = Message { message: *message, fingerprint, received_at: first };
            if is_news && !rows.owed_to.is_empty() {
                let cause =
                    Cause { key: key(seq, index), subject: seen.subject, received_at, fingerprint };
                let change = Change::of_message(cause, &subject.source, &message.message, first);
                rows.add_change(change);
            }
            known = Some(message);
        }
    }
    if let Some(message) = known {
        rows.messages.push((seen.subject, subject, message));
    }
    Ok(())
}

impl<'o> Rows<'o> {
    fn new(owed_to: &'o [OwedTo]) -> Self {
        let (notifications, messages, history) = (Vec::new(), Vec::new(), Vec::new());
        let (unrecognised, expected, changes) = (Vec::new(), Vec::new(), Vec::new());
        let overdue = BTreeMap::new();
        Self { notifications, messages, history, unrecognised, expected, overdue, changes, owed_to }
    }

    /// `events`: how many of the callback's were understood; what was not comes after them.
    fn add_unrecognised(&mut self, callback: &Callback, reason: String, events: usize) {
        let Callback { seq, source, received_at, body, .. } = callback;
        if !self.owed_to.is_empty() {
            let place = key(*seq, events);
            let change = Change::of_unrecognised(place, source, *received_at, body, &reason);
            self.add_change(change);
        }
        self.unrecognised.push(UnrecognisedRow {
            seq: *seq,
            source: source.to_string(),
            received_at: *received_at,
            reason,
        });
    }

    /// What an app said it sent; it changes no notification, so no sink is told.
    fn add_expected(&mut self, callback: &Callback, tally: &mut Tally) {
        let Callback { seq, source, received_at, body, .. } = callback;
        match expected::read(body) {
            Ok(expected) => self.expected.push(ExpectedRow {
                key: key(*seq, 0),
                source: source.to_string(),
                expected,
                received_at: *received_at,
            }),
            Err(reason) => self.add_unread(callback, reason, tally),
        }
    }

    /// That one is overdue: told unless it was before.
    fn add_overdue(
        &mut self,
        connection: &Connection,
        callback: &Callback,
        tally: &mut Tally,
    ) -> rusqlite::Result<()> {
        let Callback { source, received_at, body, .. } = callback;
        let found = match overdue::read(body) {
            Ok(found) => found,
            Err(reason) => {
                self.add_unread(callback, reason, tally);
                return Ok(());
            }
        };
        let subject = (Arc::clone(source), found.id.clone());
        if !self.overdue.contains_key(&subject) && !is_told(connection, source, &found.id)? {
            self.add_change(overdue::change(callback, &found));
            self.overdue.insert(subject, *received_at);
        }
        Ok(())
    }

    /// An entry of our own that cannot be read.
    fn add_unread(&mut self, callback: &Callback, reason: Reason, tally: &mut Tally) {
        *tally.unrecognised.entry(Arc::clone(&callback.source)).or_default() += 1;
        self.add_unrecognised(callback, reason.into_owned(), 0);
    }

    /// Keeps the change if anybody is owed it.
    fn add_change(&mut self, change: Change) {
        let is_owed =
            |to: &&OwedTo| change.key >= key(to.since + 1, 0) && to.filter.matches(&change);
        let to: Vec<&OwedTo> = self.owed_to.iter().filter(is_owed).collect();
        if !to.is_empty() {
            self.changes.push((change, to));
        }
    }

    /// In the order that lets each table grow at its end. `callbacks`: those of this batch, in order.
    fn write(
        mut self,
        connection: &Connection,
        callbacks: &[Callback],
        tally: &mut Tally,
    ) -> rusqlite::Result<()> {
        self.notifications.sort_unstable_by_key(|(key, ..)| *key);
        self.messages.sort_unstable_by_key(|(key, ..)| *key);
        self.history.sort_unstable_by_key(|row| (row.seq, row.event));
        for (key, subject, notification) in &self.notifications {
            put_notification(connection, *key, &subject.source, &subject.id, notification)?;
        }
        for (key, subject, message) in &self.messages {
            put_message(connection, *key, &subject.source, message)?;
        }
        self.history.iter().try_for_each(|row| add_history(connection, row))?;
        self.unrecognised.iter().try_for_each(|row| add_unrecognised(connection, row))?;
        self.expected.iter().try_for_each(|row| put_expected(connection, row))?;
        for ((source, id), at) in &self.overdue {
            tell(connection, source, id, *at)?;
        }
        self.changes.sort_unstable_by_key(|(change, _)| change.key);
        for (change, to) in &self.changes {
            let wants_body = to.iter().any(|to| to.wants_body);
            let body = wants_body.then(|| body_of(callbacks, change.key)).flatten();
            outbox::owe(connection, change, to, body)?;
            for to in to {
                *tally.owed.entry(Arc::clone(&to.sink)).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// The body of the callback that brought about the change with that key.
fn body_of(callbacks: &[Callback], change: i64) -> Option<&[u8]> {
    let after = callbacks.partition_point(|callback| key(callback.seq, 0) <= change);
    callbacks.get(after.checked_sub(1)?).map(|callback| &*callback.body)
}

#[cfg(test)]
mod tests {
    use super::*;
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

    /// How many changes are owed after settling these, one by one.
    fn owed_by(bodies: &[&str]) -> usize {
        let connection = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let source: Arc<str> = Arc::from("gc");
        let dialects = HashMap::from([(Arc::clone(&source), Dialect::from(Provider::GcNotify))]);
        let to = OwedTo {
            sink: Arc::from("app"),
            since: 0,
            filter: crate::change::Filter::default(),
            is_latest_only: false,
            wants_body: false,
        };
        for (seq, body) in (1..).zip(bodies) {
            let callbacks = [callback(seq, &source, body)];
            settle(&connection, &callbacks, &dialects, std::slice::from_ref(&to)).unwrap();
        }
        outbox::fresh(&connection, "app", i64::MIN, 10).unwrap().len()
    }

    #[test]
    fn what_is_said_again_in_other_words_is_no_change() {
        let receipt = r#"{"id": "a", "status": "sent", "notification_type": "sms"}"#;
        let in_other_words = r#"{"status": "sent", "id": "a", "notification_type": "sms"}"#;
        let text = r#"{"id": "m", "source_number": "1", "message": "x"}"#;
        let other_text = r#"{"source_number": "1", "id": "m", "message": "x"}"#;
        for (one, other) in [(receipt, in_other_words), (text, other_text)] {
            assert_eq!(owed_by(&[one, other]), 1, "{one}");
            assert_eq!(owed_by(&[other, one]), 1, "{other}");
        }
        let delivered = r#"{"id": "a", "status": "delivered", "notification_type": "sms"}"#;
        assert_eq!(owed_by(&[receipt, delivered]), 2);
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
    fn of_two_received_messages_with_one_id_the_larger_fingerprint_stays_first_received_when_heard()
    {
        let (gc, _, dialects) = sources();
        let bodies = [1, 2, 3].map(|n| format!(r#"{{"id": "m", "source_number": "{n}"}}"#));
        let largest = bodies.iter().max_by_key(|body| Fingerprint::of(body.as_bytes())).unwrap();
        let number = largest.split('"').nth(7).unwrap();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let connection = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
            let mut callbacks: Vec<_> =
                (5..).zip(order).map(|(seq, place)| callback(seq, &gc, &bodies[place])).collect();
            // A repeat changes nothing, not even if the clock was set back meanwhile.
            callbacks.push(Callback {
                received_at: Timestamp::from_unix_micros(1),
                ..callback(9, &gc, largest)
            });
            settle(&connection, &callbacks, &dialects, &[]).unwrap();
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let sql = "SELECT source_number, received_at FROM message_row";
            let kept: (String, String) = connection.query_row(sql, [], read).unwrap();
            assert_eq!(kept, (number.to_owned(), Timestamp::from_unix_micros(5).to_string()));
        }
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
