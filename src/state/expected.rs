//! What the app said it sent, and which of it has not been heard of since.
//!
//! A row is joined from all that was said of one notification, in any order: a reference beats none,
//! then the greater; the earliest deadline; the first time it was said. Whether it was heard of is not
//! kept here: it is asked of the notifications each time, so it does not matter which of the two came
//! first. Only those are asked about that may still be open ([`super::awaited`]). Which statuses are ends
//! is an argument.

use rusqlite::{Connection, params};
use serde::Serialize;

use super::awaited::{self, from_awaited, has_no_end};
use super::write::{some_time, text, time};
use crate::callback::Expected;
use crate::clock::Timestamp;
use crate::ends::Ends;

/// The table, which stands in the journal too, and holds there what was pruned.
macro_rules! expected_table {
    () => {
        "CREATE TABLE expected_row (
            key INTEGER PRIMARY KEY,
            source TEXT NOT NULL,
            id TEXT NOT NULL,
            reference TEXT,
            deadline TEXT,
            since TEXT NOT NULL,
            last_key INTEGER NOT NULL,
            last_received_at TEXT NOT NULL,
            UNIQUE (id, source)
        ) STRICT;"
    };
}
pub(crate) use expected_table;

/// The name of the table.
pub const TABLE: &str = "expected_row";

/// When it was first found overdue, and sinks told of it; null until then.
macro_rules! expected_overdue {
    () => {
        "ALTER TABLE expected_row ADD COLUMN overdue_at TEXT;"
    };
}
pub(crate) use expected_overdue;

/// Something that was said to have been sent, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedRow {
    /// Of its place in the journal.
    pub key: i64,
    /// The source it was sent through.
    pub source: String,
    /// What was said.
    pub expected: Expected,
    /// When.
    pub received_at: Timestamp,
}

/// Joins it to what was said before.
///
/// # Errors
/// Of SQLite.
pub fn put_expected(connection: &Connection, row: &ExpectedRow) -> rusqlite::Result<()> {
    let ExpectedRow { key, source, expected, received_at } = row;
    connection
        .prepare_cached(
            "INSERT INTO expected_row (key, source, id, reference, deadline, since, last_key,
                last_received_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?1, ?6)
             ON CONFLICT (id, source) DO UPDATE SET
                reference = max(coalesce(reference, excluded.reference),
                                coalesce(excluded.reference, reference)),
                deadline = min(coalesce(deadline, excluded.deadline),
                               coalesce(excluded.deadline, deadline)),
                since = min(since, excluded.since),
                last_key = max(last_key, excluded.last_key),
                last_received_at = max(last_received_at, excluded.last_received_at)",
        )?
        .execute(params![
            key,
            source,
            expected.id,
            expected.reference,
            text(expected.deadline),
            received_at.to_string(),
        ])
        .map(drop)
}

/// One that should have come to an end and has not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Overdue {
    /// The source it was sent through.
    pub source: String,
    /// The platform's id.
    pub id: String,
    /// The app's own reference.
    pub reference: Option<String>,
    /// Until when the app wanted to hear of its end.
    pub deadline: Option<Timestamp>,
    /// When the app said that it was sent.
    pub since: Timestamp,
    /// Its status now; `None` if nothing was heard of it.
    pub status: Option<String>,
    /// Its place.
    #[serde(skip)]
    pub key: i64,
    /// The key of its notification, if anything was heard of it.
    #[serde(skip)]
    pub subject: Option<i64>,
}

impl Overdue {
    /// Its columns, in order.
    pub const COLUMNS: [&str; 6] = ["source", "id", "reference", "deadline", "since", "status"];
}

/// What is overdue.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// Of this source; of any.
    pub source: Option<&'q str>,
    /// What is an end.
    pub ends: &'q Ends,
    /// Whose deadline was before this.
    pub now: Timestamp,
    /// Without a deadline: what was said before this.
    pub said_before: Timestamp,
    /// What was said at or after this; at any time.
    pub said_since: Option<Timestamp>,
    /// Behind this key.
    pub behind: i64,
    /// At most so many.
    pub rows_max: usize,
    /// Only what was not found overdue before.
    pub is_new: bool,
}

pub(super) const OVERDUE: &str = concat!(
    "SELECT e.source, e.id, coalesce(e.reference, n.reference), e.deadline, e.since,
            n.status, e.key, n.key",
    from_awaited!(),
    "WHERE a.key > ?5 AND a.key <= ?9 AND (?1 IS NULL OR e.source = ?1) AND (?7 IS NULL OR e.since >= ?7)
        AND (NOT ?8 OR e.overdue_at IS NULL)
        AND (e.deadline < ?2 OR e.deadline IS NULL AND e.since < ?3)
        AND ",
    has_no_end!("?4"),
    " ORDER BY a.key LIMIT ?6"
);

/// What should have come to an end by now and has not, in the order in which the app said it. It is asked
/// window by window, so that however much is awaited no question of SQLite's is long.
///
/// # Errors
/// Of SQLite.
pub fn overdue(connection: &Connection, question: &Question<'_>) -> rusqlite::Result<Vec<Overdue>> {
    let (mut question, mut found) = (*question, Vec::new());
    while question.rows_max > 0 {
        let (rows, next) = overdue_in_window(connection, &question)?;
        question.rows_max -= rows.len();
        found.extend(rows);
        let Some(next) = next else { break };
        question.behind = next;
    }
    Ok(found)
}

/// The same of one window of what may be open, and behind which key the next one begins; `None` if there
/// is no more.
///
/// # Errors
/// Of SQLite.
pub fn overdue_in_window(
    connection: &Connection,
    question: &Question<'_>,
) -> rusqlite::Result<(Vec<Overdue>, Option<i64>)> {
    let through = awaited::window_end(connection, question.behind)?;
    let rows = overdue_through(connection, question, through.unwrap_or(i64::MAX))?;
    let is_cut = rows.len() >= question.rows_max;
    let last = rows.last().filter(|_| is_cut).map(|row| row.key);
    Ok((rows, last.or(through)))
}

fn overdue_through(
    connection: &Connection,
    question: &Question<'_>,
    through: i64,
) -> rusqlite::Result<Vec<Overdue>> {
    let Question { source, ends, now, said_before, said_since, behind, rows_max, is_new } =
        question;
    let rows_max = i64::try_from(*rows_max).unwrap_or(i64::MAX);
    connection
        .prepare_cached(OVERDUE)?
        .query_map(
            params![
                source,
                now.to_string(),
                said_before.to_string(),
                ends.to_json(),
                behind,
                rows_max,
                text(*said_since),
                is_new,
                through,
            ],
            |row| {
                Ok(Overdue {
                    source: row.get(0)?,
                    id: row.get(1)?,
                    reference: row.get(2)?,
                    deadline: time(row, 3)?,
                    since: some_time(row, 4)?,
                    status: row.get(5)?,
                    key: row.get(6)?,
                    subject: row.get(7)?,
                })
            },
        )?
        .collect()
}

/// Whether it was found overdue before.
///
/// # Errors
/// Of SQLite.
pub fn is_told(connection: &Connection, source: &str, id: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM expected_row
             WHERE id = ?1 AND source = ?2 AND overdue_at IS NOT NULL",
        )?
        .exists([id, source])
}

/// Notes that it was found overdue at `at`, unless it was before.
///
/// # Errors
/// Of SQLite.
pub fn tell(
    connection: &Connection,
    source: &str,
    id: &str,
    at: Timestamp,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE expected_row SET overdue_at = ?3
             WHERE id = ?1 AND source = ?2 AND overdue_at IS NULL",
        )?
        .execute(params![id, source, at.to_string()])
        .map(drop)
}

/// Whether no app has said what it sent.
///
/// # Errors
/// Of SQLite.
pub fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM expected_row LIMIT 1")?.exists([]).map(|any| !any)
}

/// Looks at up to `rows_max` rows behind `key`, and removes what of them was last said before `before`, by
/// an entry not behind `through_key`, and has no deadline since. The last key looked at; `None` if there was
/// none.
///
/// # Errors
/// Of SQLite.
pub fn old_expected(
    connection: &Connection,
    (key, through_key): (i64, i64),
    before: Timestamp,
    rows_max: usize,
) -> rusqlite::Result<Option<i64>> {
    let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let looked_at: Vec<(i64, bool)> = connection
        .prepare_cached(
            "SELECT key, last_key <= ?2 AND last_received_at < ?3
                    AND (deadline IS NULL OR deadline < ?3) FROM expected_row
             WHERE key > ?1 AND key <= ?2 ORDER BY key LIMIT ?4",
        )?
        .query_map(params![key, through_key, before.to_string(), rows_max], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (key, _) in looked_at.iter().filter(|(_, is_old)| *is_old) {
        remove(connection, *key)?;
    }
    Ok(looked_at.last().map(|(key, _)| *key))
}

/// Up to `rows_max` keys after `key`, in order.
///
/// # Errors
/// Of SQLite.
pub fn keys_after(
    connection: &Connection,
    key: i64,
    rows_max: usize,
) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare_cached("SELECT key FROM expected_row WHERE key > ?1 ORDER BY key LIMIT ?2")?
        .query_map([key, i64::try_from(rows_max).unwrap_or(i64::MAX)], |row| row.get(0))?
        .collect()
}

/// Whether there is a row with that key.
///
/// # Errors
/// Of SQLite.
pub fn has(connection: &Connection, key: i64) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM expected_row WHERE key = ?1")?.exists([key])
}

/// Removes the row with that key.
///
/// # Errors
/// Of SQLite.
pub fn remove(connection: &Connection, key: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM expected_row WHERE key = ?1")?.execute([key]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::awaited::Look;
    use super::*;
    use crate::ends::Statuses;
    use crate::state::tables::SCHEMA;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(0).plus_seconds(second)
    }

    fn said(key: i64, id: &str, reference: Option<&str>, deadline: Option<i64>) -> ExpectedRow {
        let (id, reference) = (id.to_owned(), reference.map(str::to_owned));
        let expected = Expected { id, reference, deadline: deadline.map(at) };
        ExpectedRow { key, source: "gc".into(), expected, received_at: at(key) }
    }

    fn heard(state: &Connection, key: i64, id: &str, status: &str) {
        let sql = "INSERT INTO notification_row (key, id, source, status, receipts, duplicates,
                   first_received_at, last_received_at) VALUES (?1, ?2, 'gc', ?3, 1, 0, '', '')";
        state.execute(sql, params![key, id, status]).unwrap();
    }

    /// `sent` is the end of a text at `gc`.
    fn ends() -> Ends {
        const STATUSES: Statuses =
            Statuses { always: &["delivered"], sometimes: &[("sent", "sms"), ("sent", "email")] };
        Ends::new(&STATUSES, [("gc".to_owned(), ())], |(), (_, kind)| kind == "sms")
    }

    fn overdue_at(state: &Connection, second: i64) -> Vec<Overdue> {
        let question = Question {
            source: None,
            ends: &ends(),
            now: at(second),
            said_before: at(second - 100),
            said_since: None,
            behind: i64::MIN,
            rows_max: 10,
            is_new: false,
        };
        overdue(state, &question).unwrap()
    }

    #[test]
    fn what_was_said_of_one_notification_is_joined_in_any_order() {
        let says = [
            said(1, "a", None, Some(90)),
            said(2, "a", Some("x"), None),
            said(3, "a", Some("y"), Some(80)),
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let state = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
            order.iter().for_each(|place| put_expected(&state, &says[*place]).unwrap());
            let found = overdue_at(&state, 85);
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].reference.as_deref(), found[0].since), (Some("y"), at(1)));
            assert_eq!(found[0].deadline, Some(at(80)));
        }
    }

    #[test]
    fn overdue_is_what_has_no_end_behind_its_deadline_or_for_long() {
        let state = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        for row in [
            said(1, "ended", None, Some(10)),
            said(2, "silent", None, Some(10)),
            said(3, "open", None, Some(10)),
            said(4, "later", None, Some(500)),
            said(5, "for-long", None, None),
        ] {
            put_expected(&state, &row).unwrap();
        }
        heard(&state, 11, "ended", "delivered");
        heard(&state, 12, "open", "sending");
        let ids = |second| -> Vec<String> {
            overdue_at(&state, second).into_iter().map(|row| row.id).collect()
        };
        assert_eq!(ids(20), ["silent", "open"]);
        assert_eq!(ids(200), ["silent", "open", "for-long"]);
        assert_eq!(ids(501), ["silent", "open", "later", "for-long"]);
        assert_eq!(overdue_at(&state, 20)[1].status.as_deref(), Some("sending"));
    }

    #[test]
    fn what_is_an_end_of_its_type_in_its_source_is_not_overdue_and_of_others_it_is() {
        let state = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        for (key, source, kind) in [
            (1, "gc", Some("sms")),
            (2, "gc", Some("email")),
            (3, "va", Some("sms")),
            (4, "gc", None),
        ] {
            let id = format!("n{key}");
            let row = ExpectedRow { source: source.into(), ..said(key, &id, None, Some(10)) };
            put_expected(&state, &row).unwrap();
            heard(&state, 10 + key, &id, "sent");
            let sql =
                "UPDATE notification_row SET notification_type = ?1, source = ?2 WHERE id = ?3";
            state.execute(sql, params![kind, source, id]).unwrap();
        }
        let ids: Vec<String> = overdue_at(&state, 20).into_iter().map(|row| row.id).collect();
        assert_eq!(ids, ["n2", "n3", "n4"]);
        let (ends, rows_max) = (&ends(), 9);
        let all = Look { ends, now: at(20), said_before: at(0), behind: i64::MIN, rows_max };
        let looked = awaited::look(&state, &all).unwrap();
        let overdue: Vec<i64> =
            looked.iter().filter(|row| row.is_overdue).map(|row| row.key).collect();
        assert_eq!(overdue, [2, 3, 4]);
    }

    #[test]
    fn the_reference_is_the_one_that_the_app_said() {
        let state = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        for row in [said(1, "a", Some("the app's"), Some(10)), said(2, "b", None, Some(10))] {
            put_expected(&state, &row).unwrap();
        }
        for (key, id) in [(11, "a"), (12, "b")] {
            heard(&state, key, id, "sending");
        }
        state.execute("UPDATE notification_row SET reference = 'the platform''s'", []).unwrap();
        let found: Vec<_> = overdue_at(&state, 20).into_iter().map(|row| row.reference).collect();
        assert_eq!(found, [Some("the app's".to_owned()), Some("the platform's".to_owned())]);
    }

    #[test]
    fn what_was_said_again_since_stays_and_so_does_what_has_time() {
        let state = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        for row in [
            said(1, "a", None, None),
            said(2, "b", None, None),
            said(3, "c", None, Some(20)),
            said(9, "a", None, None),
        ] {
            put_expected(&state, &row).unwrap();
        }
        let stay = |through, second| {
            let mut last = 0;
            // One by one, so that a window ends before what stays and behind it.
            while let Some(key) = old_expected(&state, (last, through), at(second), 1).unwrap() {
                last = key;
            }
            keys_after(&state, 0, 9).unwrap()
        };
        assert_eq!(stay(5, 5), [1, 3]);
        assert_eq!(stay(9, 9), [1, 3]);
        assert_eq!(stay(9, 20), [3]);
        assert_eq!(stay(9, 21), [0; 0]);
    }
}
