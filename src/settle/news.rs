//! What the news of one subject, a notification or a message from the public, comes to.
//!
//! It is joined to what is stored, event by event: a repeat is counted and changes nothing; whatever else
//! changes what is known is a change, for whoever wants to hear of it. Only reads, and adds to [`Rows`].

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::Connection;

use super::rows::{Rows, Subject};
use super::tally::Tally;
use crate::callback::{Callback, Event, Fingerprint, Kind, News, Report};
use crate::change::{Cause, Change};
use crate::clock::Timestamp;
use crate::merge::Facts;
use crate::state::tables::key;
use crate::state::write::{
    HistoryRow, Message, Notification, find_message, find_notification, has_seen,
};

/// An event with its place in the journal.
pub(super) struct Placed {
    seq: i64,
    index: usize,
    received_at: Timestamp,
    event: Event,
}

/// Adds each event of a callback, with whom it is about.
pub(super) fn place(callback: &Callback, events: Vec<Event>, all: &mut Vec<(Subject, Placed)>) {
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

/// What `news`, in the order of the journal, comes to with what is stored of their subject.
pub(super) fn settle_subject(
    connection: &Connection,
    subject: Subject,
    news: Vec<Placed>,
    rows: &mut Rows<'_>,
    tally: &mut Tally,
) -> rusqlite::Result<()> {
    if subject.is_message {
        settle_message(connection, subject, news, rows, tally)
    } else {
        settle_notification(connection, subject, news, rows, tally)
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
    let is_stored = stored.is_some();
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
    rows.notifications.push(((seen.subject, is_stored), subject, notification));
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

#[cfg(test)]
mod tests {
    use super::super::files::{callback, dialects, owed_to_app};
    use super::*;
    use crate::settle::settle;
    use crate::state::outbox;
    use crate::state::tables::SCHEMA;

    /// How many changes are owed after settling these, one by one.
    fn owed_by(bodies: &[&str]) -> usize {
        let connection = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        for (seq, body) in (1..).zip(bodies) {
            settle(&connection, &[callback(seq, body)], &dialects(), &[owed_to_app()]).unwrap();
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

    #[test]
    fn another_complaint_is_news_and_the_same_one_again_is_not() {
        let complaint = |n| format!(r#"{{"notification_id": "a", "complaint_id": "{n}"}}"#);
        let [one, other] = [1, 2].map(complaint);
        assert_eq!(owed_by(&[&one, &one]), 1);
        assert_eq!(owed_by(&[&one, &other, &one]), 2);
    }

    #[test]
    fn of_two_received_messages_with_one_id_the_larger_fingerprint_stays_first_received_when_heard()
    {
        let bodies = [1, 2, 3].map(|n| format!(r#"{{"id": "m", "source_number": "{n}"}}"#));
        let largest = bodies.iter().max_by_key(|body| Fingerprint::of(body.as_bytes())).unwrap();
        let number = largest.split('"').nth(7).unwrap();
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let connection = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
            let mut callbacks: Vec<_> =
                (5..).zip(order).map(|(seq, place)| callback(seq, &bodies[place])).collect();
            // A repeat changes nothing, not even if the clock was set back meanwhile.
            callbacks.push(Callback {
                received_at: Timestamp::from_unix_micros(1),
                ..callback(9, largest)
            });
            settle(&connection, &callbacks, &dialects(), &[]).unwrap();
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let sql = "SELECT source_number, received_at FROM message_row";
            let kept: (String, String) = connection.query_row(sql, [], read).unwrap();
            assert_eq!(kept, (number.to_owned(), Timestamp::from_unix_micros(5).to_string()));
        }
    }
}
