//! The rows that a batch comes to, gathered while it is understood and written when all of it is.
//!
//! Nothing here reads a body of a sender: what an app or we ourselves have appended is read here, because
//! it needs nothing but the entry. [`Rows::write`] is the one place that writes. It goes through the tables
//! one after another, each in the order in which it grows.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;

use super::tally::Tally;
use super::{expected, overdue};
use crate::callback::Callback;
use crate::change::{Change, OwedTo};
use crate::clock::Timestamp;
use crate::provider::Reason;
use crate::state::expected::{ExpectedRow, is_told, put_expected, tell};
use crate::state::outbox;
use crate::state::tables::key;
use crate::state::write::{
    HistoryRow, Message, Notification, UnrecognisedRow, add_history, add_unrecognised, put_message,
    put_notification,
};

/// Whom news is about. Ordered by id, as the index is, so that a batch visits each page once.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    pub(super) id: String,
    pub(super) source: Arc<str>,
    pub(super) is_message: bool,
}

/// Rows to be written.
pub(super) struct Rows<'o> {
    /// By their keys, and whether they are stored already.
    pub(super) notifications: Vec<((i64, bool), Subject, Notification)>,
    pub(super) messages: Vec<(i64, Subject, Message)>,
    pub(super) history: Vec<HistoryRow>,
    unrecognised: Vec<UnrecognisedRow>,
    expected: Vec<ExpectedRow>,
    /// By source and id: when it was first found overdue.
    overdue: BTreeMap<(Arc<str>, String), Timestamp>,
    /// Each with the sinks it is owed to.
    changes: Vec<(Change, Vec<&'o OwedTo>)>,
    /// To whom changes are owed.
    pub(super) owed_to: &'o [OwedTo],
}

impl<'o> Rows<'o> {
    pub(super) fn new(owed_to: &'o [OwedTo]) -> Self {
        let (notifications, messages, history) = (Vec::new(), Vec::new(), Vec::new());
        let (unrecognised, expected, changes) = (Vec::new(), Vec::new(), Vec::new());
        let overdue = BTreeMap::new();
        Self { notifications, messages, history, unrecognised, expected, overdue, changes, owed_to }
    }

    /// `events`: how many of the callback's were understood; what was not comes after them.
    pub(super) fn add_unrecognised(&mut self, callback: &Callback, reason: String, events: usize) {
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
    pub(super) fn add_expected(&mut self, callback: &Callback, tally: &mut Tally) {
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
    pub(super) fn add_overdue(
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
    pub(super) fn add_change(&mut self, change: Change) {
        let is_owed =
            |to: &&OwedTo| change.key >= key(to.since + 1, 0) && to.filter.matches(&change);
        let to: Vec<&OwedTo> = self.owed_to.iter().filter(is_owed).collect();
        if !to.is_empty() {
            self.changes.push((change, to));
        }
    }

    /// In the order that lets each table grow at its end. `callbacks`: those of this batch, in order.
    pub(super) fn write(
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
    use super::super::files::{callback, dialects, owed_to_app};
    use super::*;
    use crate::callback::Origin;
    use crate::settle::settle;
    use crate::state::tables::SCHEMA;

    #[test]
    fn an_entry_of_our_own_that_cannot_be_read_is_listed_and_counted() {
        let connection = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let of = |seq, origin| Callback { origin, ..callback(seq, "no JSON") };
        let callbacks = [of(1, Origin::Expected), of(2, Origin::Overdue), of(3, Origin::Overdue)];
        let tally = settle(&connection, &callbacks, &dialects(), &[]).unwrap();
        assert_eq!(tally.unrecognised, BTreeMap::from([(Arc::from("gc"), 3)]));
        let sql = "SELECT count(*) FROM unrecognised WHERE seq <= 3 AND reason <> ''";
        let listed = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        assert_eq!(listed.unwrap(), 3);
    }

    #[test]
    fn what_is_owed_is_counted_by_sink() {
        let connection = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let callbacks = [1, 2, 3].map(|seq| {
            callback(seq, &format!(r#"{{"id": "{seq}", "status": "sent", "to": "x"}}"#))
        });
        let tally = settle(&connection, &callbacks, &dialects(), &[owed_to_app()]).unwrap();
        assert_eq!(tally.owed, BTreeMap::from([(Arc::from("app"), 3)]));
    }
}
