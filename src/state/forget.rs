//! Removing what is to be pruned: a window of keys at a time, so that no transaction is long.

use rusqlite::{Connection, params};

use crate::clock::Timestamp;

/// What one window came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The last key looked at; where the next window begins.
    pub last_key: i64,
    /// Notifications and messages removed.
    pub removed: i64,
}

/// Looks at up to `rows_max` notifications, or messages, after `key` and not after `through_key`;
/// removes those about which nothing arrived since `before`, not even a duplicate, with their
/// history. `None` once there are no more.
///
/// A duplicate counts because its callback stays in the journal: without its subject a rebuild
/// would take it for news, and an old status for the last. So does what the app said of it, as long as
/// that stays ([`old_expected`](super::expected::old_expected)): without its notification it would be
/// overdue.
pub fn old_subjects(
    connection: &Connection,
    table: Table,
    (key, through_key): (i64, i64),
    (before, through): (Timestamp, i64),
    rows_max: usize,
) -> rusqlite::Result<Option<Window>> {
    let (name, last, history) = (table.name(), table.last_heard_of(), table.history());
    let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let not_expected = match table {
        Table::Message => "TRUE",
        Table::Notification => {
            "NOT EXISTS (
                SELECT 1 FROM expected_row AS e WHERE e.id = s.id AND e.source = s.source
                AND (e.last_received_at >= ?3 OR e.last_key > ?2 OR e.deadline >= ?3)
             )"
        }
    };
    let sql = format!(
        "SELECT key, {last} < ?3 AND NOT EXISTS (
            SELECT 1 FROM {history} AS h WHERE h.subject = s.key
            AND (h.received_at >= ?3 OR h.seq > ?5)
         ) AND {not_expected} FROM {name} AS s WHERE key > ?1 AND key <= ?2 ORDER BY key LIMIT ?4"
    );
    let looked_at: Vec<(i64, bool)> = connection
        .prepare_cached(&sql)?
        .query_map(params![key, through_key, before.to_string(), rows_max, through], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let Some(last_key) = looked_at.last().map(|(key, _)| *key) else { return Ok(None) };
    let mut removed = 0;
    for (key, _) in looked_at.into_iter().filter(|(_, is_old)| *is_old) {
        remove(connection, table, key)?;
        removed += 1;
    }
    Ok(Some(Window { last_key, removed }))
}

/// The two kinds of subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Notifications.
    Notification,
    /// Received messages.
    Message,
}

impl Table {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Notification, Self::Message];

    /// Its name in both files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Notification => "notification_row",
            Self::Message => "message_row",
        }
    }

    fn last_heard_of(self) -> &'static str {
        match self {
            Self::Notification => "last_received_at",
            Self::Message => "received_at",
        }
    }

    fn history(self) -> &'static str {
        match self {
            Self::Notification => "history_row",
            Self::Message => "message_history_row",
        }
    }
}

/// A row by what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its key in the file it stands in; another file may have another.
    pub key: i64,
    source: String,
    id: String,
}

/// Up to `rows_max` rows after `key` of that table, in order.
pub fn named_after(
    connection: &Connection,
    table: &str,
    key: i64,
    rows_max: usize,
) -> rusqlite::Result<Vec<Named>> {
    connection
        .prepare_cached(&format!(
            "SELECT key, source, id FROM {table} WHERE key > ?1 ORDER BY key LIMIT ?2"
        ))?
        .query_map([key, i64::try_from(rows_max).unwrap_or(i64::MAX)], |row| {
            Ok(Named { key: row.get(0)?, source: row.get(1)?, id: row.get(2)? })
        })?
        .collect()
}

/// Whether that table has a row about the same, under whatever key: what was forgotten and is heard of
/// again has another key where it was not forgotten yet.
pub fn is_named_in(connection: &Connection, table: &str, named: &Named) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(&format!("SELECT 1 FROM {table} WHERE id = ?1 AND source = ?2"))?
        .exists([&named.id, &named.source])
}

/// Removes one subject and its history.
pub fn remove(connection: &Connection, table: Table, key: i64) -> rusqlite::Result<()> {
    let name = table.name();
    connection.prepare_cached(&format!("DELETE FROM {name} WHERE key = ?1"))?.execute([key])?;
    let history = table.history();
    connection
        .prepare_cached(&format!("DELETE FROM {history} WHERE subject = ?1"))?
        .execute([key])?;
    Ok(())
}

/// Looks at up to `rows_max` unrecognised callbacks after `seq` and not after `through`, and removes those
/// that arrived before `before`. The last position looked at, where the next window begins; `None` once
/// there are no more.
pub fn old_unrecognised(
    connection: &Connection,
    (seq, through): (i64, i64),
    before: Timestamp,
    rows_max: usize,
) -> rusqlite::Result<Option<i64>> {
    let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let last: Option<i64> = connection
        .prepare_cached(
            "SELECT max(seq) FROM (SELECT seq FROM unrecognised WHERE seq > ?1 AND seq <= ?2
             ORDER BY seq LIMIT ?3)",
        )?
        .query_row([seq, through, rows_max], |row| row.get(0))?;
    if let Some(last) = last {
        connection
            .prepare_cached(
                "DELETE FROM unrecognised WHERE seq > ?1 AND seq <= ?2 AND received_at < ?3",
            )?
            .execute(params![seq, last, before.to_string()])?;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tables::SCHEMA;

    #[test]
    fn a_subject_is_removed_with_its_own_history_and_no_other() {
        let connection = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let count = |table: &str| -> i64 {
            let sql = format!("SELECT count(*) FROM {table}");
            connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        let line = "7, 'receipt', NULL, NULL, '2026-11-22T00:00:00.000000Z', 0, x'00'";
        for table in Table::ALL {
            let history = table.history();
            connection
                .execute(&format!("INSERT INTO {history} VALUES (1, 0, {line})"), [])
                .unwrap();
        }
        remove(&connection, Table::Message, 7).unwrap();
        assert_eq!([count("history_row"), count("message_history_row")], [1, 0]);
        remove(&connection, Table::Notification, 7).unwrap();
        assert_eq!(count("history_row"), 0);
    }
}
