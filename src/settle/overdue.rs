//! What has had no end by its deadline: into the journal, and out of it as a change.
//!
//! That time has passed is news which nobody calls back. Whoever looks at the clock says so through the
//! journal, like everything that sinks are told: so settling itself needs no clock, the change is told
//! once though the process ends in the middle, and a rebuild knows that it was. Only the first such entry
//! about a notification brings a change about.
//!
//! An entry says what was known when it was looked. An end that arrives in the moment between that and
//! the entry comes before it, and the change says nothing of it.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::expected::append_all;
use crate::callback::{Callback, Fingerprint, Origin};
use crate::change::{Change, ChangeId, OverdueData, What, to_json};
use crate::clock::Timestamp;
use crate::journal::{Entry, Journal, Refused};
use crate::provider::Reason;
use crate::state::expected::Overdue;
use crate::state::tables::key;

/// An entry of the journal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Found {
    /// The platform's id; never empty.
    pub id: String,
    reference: Option<String>,
    deadline: Option<Timestamp>,
    since: Timestamp,
    status: Option<String>,
    /// The key of the notification; that of what was said of it, if nothing was heard.
    subject: i64,
}

/// Keeps that these are overdue; once this returns it is durable.
///
/// # Errors
/// If the journal refuses some of it: then some may be kept, and saying it again does no harm.
pub async fn say_overdue(
    journal: &Journal,
    now: Timestamp,
    overdue: &[Overdue],
) -> Result<(), Refused> {
    let entry = |overdue: &Overdue| {
        let Overdue { source, id, reference, deadline, since, status, key, subject } = overdue;
        let found = Found {
            id: id.clone(),
            reference: reference.clone(),
            deadline: *deadline,
            since: *since,
            status: status.clone(),
            subject: subject.unwrap_or(*key),
        };
        let body = serde_json::to_vec(&found).expect("text and times are JSON");
        let (source, body, origin) = (Arc::from(&**source), Bytes::from(body), Origin::Overdue);
        Entry { source, received_at: now, body, origin }
    };
    append_all(journal, overdue, entry).await
}

/// Reads what was kept.
pub(super) fn read(body: &[u8]) -> Result<Found, Reason> {
    let found: Found = serde_json::from_slice(body).map_err(|_| "not what was found overdue")?;
    if found.id.is_empty() {
        return Err("what was found overdue has no id".into());
    }
    Ok(found)
}

/// What sinks are told of it. Its id is made from the source, the id and the deadline or, without one,
/// from when it was said to have been sent.
pub(super) fn change(callback: &Callback, found: &Found) -> Change {
    let Callback { seq, source, received_at, .. } = callback;
    let Found { id, reference, deadline, since, status, subject } = found;
    let until = deadline.map_or_else(|| format!("since {since}"), |deadline| deadline.to_string());
    let data = OverdueData {
        source,
        id,
        status: status.as_deref(),
        reference: reference.as_deref(),
        deadline: *deadline,
        since: *since,
    };
    Change {
        key: key(*seq, 0),
        id: ChangeId::of(What::Overdue, source, id, Fingerprint::of(until.as_bytes())),
        what: What::Overdue,
        source: Arc::clone(source),
        subject: *subject,
        subject_id: Some(id.clone()),
        status: status.clone(),
        precedence: None,
        received_at: *received_at,
        data: to_json(&data),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::settle;
    use super::*;
    use crate::callback::Expected;
    use crate::change::{Filter, OwedTo};
    use crate::state::expected::is_told;
    use crate::state::tables::SCHEMA;

    fn entry(seq: i64, origin: Origin, body: Vec<u8>) -> Callback {
        let received_at = Timestamp::from_unix_micros(seq);
        Callback { seq, source: Arc::from("gc"), received_at, body, origin }
    }

    fn expected(seq: i64, deadline: Option<Timestamp>) -> Callback {
        let expected = Expected { id: "n".into(), reference: None, deadline };
        entry(seq, Origin::Expected, serde_json::to_vec(&expected).unwrap())
    }

    fn overdue(seq: i64, deadline: Option<Timestamp>) -> Callback {
        let (reference, status, subject) = (None, None, key(1, 0));
        let since = Timestamp::from_unix_micros(1);
        let found = Found { id: "n".into(), reference, deadline, since, status, subject };
        entry(seq, Origin::Overdue, serde_json::to_vec(&found).unwrap())
    }

    /// What is owed after settling these in batches of that size: key and id.
    fn owed(entries: &[Callback], batch: usize) -> Vec<(i64, ChangeId)> {
        let state = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let (sink, filter) = (Arc::from("app"), Filter::default());
        let to = OwedTo { sink, since: 0, filter, is_latest_only: false, wants_body: false };
        for some in entries.chunks(batch) {
            settle(&state, some, &HashMap::new(), std::slice::from_ref(&to)).unwrap();
        }
        let rows = crate::state::outbox::fresh(&state, "app", i64::MIN, 10).unwrap();
        assert!(rows.iter().all(|row| row.change.what == What::Overdue));
        rows.iter().map(|row| (row.change.key, row.change.id)).collect()
    }

    #[test]
    fn of_all_that_says_one_is_overdue_the_first_is_told_however_it_is_cut_into_batches() {
        let deadline = Some(Timestamp::from_unix_micros(2));
        let entries = [
            expected(1, deadline),
            overdue(3, deadline),
            overdue(4, deadline),
            expected(5, None),
            overdue(6, deadline),
        ];
        let first = owed(&entries, 1);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].0, key(3, 0));
        for batch in 2..=entries.len() {
            assert_eq!(owed(&entries, batch), first, "{batch}");
        }
    }

    /// Pruning settles what it removes into the journal's own tables, which a rebuild begins with.
    #[test]
    fn that_one_was_told_is_kept_by_the_journal_when_the_entry_is_pruned() {
        let journal = crate::sqlite::open_in_memory(&crate::journal::SCHEMA).unwrap();
        let deadline = Some(Timestamp::from_unix_micros(2));
        settle(&journal, &[expected(1, deadline)], &HashMap::new(), &[]).unwrap();
        assert!(!is_told(&journal, "gc", "n").unwrap());
        settle(&journal, &[overdue(3, deadline)], &HashMap::new(), &[]).unwrap();
        assert!(is_told(&journal, "gc", "n").unwrap());
        assert!(!is_told(&journal, "another", "n").unwrap());
    }

    #[test]
    fn a_change_is_named_by_the_deadline_not_by_when_it_was_noticed() {
        let named = |seq, deadline| owed(&[overdue(seq, deadline)], 1)[0].1;
        let deadline = Timestamp::from_unix_micros(2);
        assert_eq!(named(3, Some(deadline)), named(9, Some(deadline)));
        assert_ne!(named(3, Some(deadline)), named(3, None));
        assert_ne!(named(3, Some(deadline)), named(3, Some(deadline.plus_seconds(1))));
    }

    #[test]
    fn what_is_no_such_entry_is_unrecognised() {
        for wrong in ["", "[]", "{}", r#"{"id": ""}"#] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
