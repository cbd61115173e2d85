//! Notifications that have not come to an end, by source. Which statuses are ends is an argument.
//!
//! They are few among many, so they have an index of their own that holds no others. A receipt that is
//! an end at once, as most are, does not touch it. It is made only where somebody asks for them
//! regularly, on the connection that writes; without it the answer is the same and takes a scan.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::write::{some_time, time};
use crate::clock::Timestamp;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// Its key, which grows with the time at which it was first heard of.
    pub key: i64,
    /// The platform's id.
    pub id: String,
    /// When it was created at the platform, if that is known.
    pub created_at: Option<Timestamp>,
    /// When we first heard of it.
    pub first_received_at: Timestamp,
}

const INDEX: &str = "notification_outstanding";

/// Makes the index, unless it is there; whether it was made. One of other words is replaced.
///
/// # Errors
/// Of SQLite.
pub fn make_index(connection: &Connection, ends: &[&str]) -> rusqlite::Result<bool> {
    let wanted =
        format!("CREATE INDEX {INDEX} ON notification_row (source) WHERE {}", is_outstanding(ends));
    let found: Option<String> = connection
        .query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [INDEX], |row| row.get(0))
        .optional()?;
    if found.as_ref() == Some(&wanted) {
        return Ok(false);
    }
    connection.execute_batch(&format!("DROP INDEX IF EXISTS {INDEX}; {wanted}"))?;
    Ok(true)
}

/// Whether the index is there.
///
/// # Errors
/// Of SQLite.
pub fn has_index(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = ?1 AND type = 'index'")?
        .exists([INDEX])
}

/// How many of each source were created, or first heard of, before `since`.
///
/// # Errors
/// Of SQLite.
pub fn count_stuck(
    connection: &Connection,
    ends: &[&str],
    since: Timestamp,
) -> rusqlite::Result<Vec<(String, i64)>> {
    connection
        .prepare_cached(&format!(
            "SELECT source, count(*) FROM notification_row
             WHERE {} AND coalesce(created_at, first_received_at) < ?1 GROUP BY source",
            is_outstanding(ends)
        ))?
        .query_map([since.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Those of `source` behind `key`, in the order of their keys, first heard of at or after `since`; at
/// most `rows_max`.
///
/// # Errors
/// Of SQLite.
pub fn outstanding(
    connection: &Connection,
    source: &str,
    ends: &[&str],
    (since, key): (Timestamp, i64),
    rows_max: usize,
) -> rusqlite::Result<Vec<Outstanding>> {
    let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&select(ends))?
        .query_map(params![source, key, since.to_string(), rows_max], |row| {
            Ok(Outstanding {
                key: row.get(0)?,
                id: row.get(1)?,
                created_at: time(row, 2)?,
                first_received_at: some_time(row, 3)?,
            })
        })?
        .collect()
}

fn select(ends: &[&str]) -> String {
    format!(
        "SELECT key, id, created_at, first_received_at FROM notification_row
         WHERE source = ?1 AND {} AND key > ?2 AND first_received_at >= ?3
         ORDER BY key LIMIT ?4",
        is_outstanding(ends)
    )
}

/// The same text in index and question, or the one would not serve the other.
fn is_outstanding(ends: &[&str]) -> String {
    let plain = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    assert!(ends.iter().all(plain), "an end is a plain word");
    format!("(status IS NULL OR status NOT IN ('{}'))", ends.join("', '"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tables::SCHEMA;

    const ENDS: [&str; 2] = ["delivered", "a-failure"];

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(0).plus_seconds(second)
    }

    fn state() -> Connection {
        let state = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let rows = [
            (1, "a", "gc", Some("delivered")),
            (2, "b", "gc", Some("sending")),
            (3, "c", "gc", None),
            (4, "d", "uk", Some("created")),
            (5, "e", "gc", Some("a-new-word")),
            (6, "f", "gc", Some("a-failure")),
        ];
        for (key, id, source, status) in rows {
            let heard = at(key).to_string();
            let sql = "INSERT INTO notification_row (key, id, source, status, receipts, duplicates,
                       first_received_at, last_received_at) VALUES (?1, ?2, ?3, ?4, 1, 0, ?5, ?5)";
            state.execute(sql, params![key, id, source, status, heard]).unwrap();
        }
        state
    }

    fn ids(state: &Connection, since: i64, key: i64, rows_max: usize) -> String {
        let found = outstanding(state, "gc", &ENDS, (at(since), key), rows_max).unwrap();
        found.into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn what_has_no_end_is_found_in_order_with_the_index_and_without() {
        let state = state();
        for is_made in [false, true] {
            assert_eq!(is_made, is_made && make_index(&state, &ENDS).unwrap());
            assert_eq!(ids(&state, 0, 0, 9), "bce");
            assert_eq!(ids(&state, 0, 2, 9), "ce");
            assert_eq!(ids(&state, 3, 0, 9), "ce");
            assert_eq!(ids(&state, 0, 0, 2), "bc");
        }
        assert!(!make_index(&state, &ENDS).unwrap(), "it is there");
        assert!(make_index(&state, &["sending"]).unwrap(), "of other words");
        assert_eq!(ids(&state, 0, 0, 9), "bce");
    }

    #[test]
    fn with_the_index_nothing_is_scanned_and_nothing_sorted() {
        let state = state();
        make_index(&state, &ENDS).unwrap();
        let explain = format!("EXPLAIN QUERY PLAN {}", select(&ENDS));
        let mut statement = state.prepare(&explain).unwrap();
        let plan: Vec<String> = statement
            .query_map(params!["gc", 0, "", 1], |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let plan = plan.join("; ");
        assert!(plan.contains(INDEX), "{plan}");
        assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{plan}");
    }
}
