//! The indexes that lists by creation are read from, and the expressions that they are made of.
//!
//! They are there only where somebody reads, for settling visits their pages at random. A statement that is
//! to use one holds its expressions word for word: that is how SQLite knows them again. So each of these
//! stands once, here.

use rusqlite::{Connection, OptionalExtension};

/// When a notification was created or, if nobody told that, first heard of.
pub(super) const CREATED: &str = "coalesce(created_at, first_received_at)";

/// Its status, as far as anything tells it; else empty. That a letter came back ranks above whatever else
/// is told of it.
pub(super) const STATUS: &str =
    "CASE WHEN returned_at IS NULL THEN coalesce(status, '') ELSE 'returned-letter' END";

/// Its type, as far as anything tells it; else empty.
pub(super) const TYPE: &str =
    "coalesce(notification_type, CASE WHEN complained_at IS NULL THEN '' ELSE 'email' END)";

/// When a message from the public was received.
pub(super) const RECEIVED: &str = "coalesce(date_received, received_at)";

/// An index that is there only where somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// Everything of a source, by creation.
    Creation,
    /// By status and type, then by creation.
    Status,
    /// By reference, status and type, then by creation.
    Reference,
    /// Messages from the public, by when they were received.
    Message,
}

impl Index {
    /// All of them, the most used first.
    pub const ALL: [Self; 4] = [Self::Creation, Self::Status, Self::Reference, Self::Message];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creation => "asked_by_creation",
            Self::Status => "asked_by_status",
            Self::Reference => "asked_by_reference",
            Self::Message => "asked_messages",
        }
    }

    fn on(self) -> String {
        match self {
            Self::Creation => format!("notification_row (source, {CREATED})"),
            Self::Status => format!("notification_row (source, {STATUS}, {TYPE}, {CREATED})"),
            Self::Reference => format!(
                "notification_row (source, reference, {STATUS}, {TYPE}, {CREATED})
                 WHERE reference IS NOT NULL"
            ),
            Self::Message => format!("message_row (source, {RECEIVED})"),
        }
    }
}

/// Makes an index, if it is not there; whether it was not. One of other words is replaced: by it a list would
/// read all of a source. For the one connection that writes.
pub fn make_index(connection: &Connection, index: Index) -> rusqlite::Result<bool> {
    let name = index.name();
    let wanted = format!("CREATE INDEX {name} ON {}", index.on());
    let found: Option<String> = connection
        .query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0))
        .optional()?;
    if found.as_ref() == Some(&wanted) {
        return Ok(false);
    }
    connection.execute_batch(&format!("DROP INDEX IF EXISTS {name}; {wanted}"))?;
    Ok(true)
}

/// Drops every index of these; whether there was one. For the one connection that writes.
pub fn drop_indexes(connection: &Connection) -> rusqlite::Result<bool> {
    let mut dropped = false;
    for index in Index::ALL {
        if has_index(connection, index)? {
            connection.execute_batch(&format!("DROP INDEX {}", index.name()))?;
            dropped = true;
        }
    }
    Ok(dropped)
}

fn has_index(connection: &Connection, index: Index) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?1")?
        .exists([index.name()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::asked_filled::{filled, filter};
    use crate::state::asked_range::{parts, ranges};
    use crate::state::plan;

    #[test]
    fn an_index_of_other_words_is_made_anew() {
        let connection = filled();
        connection
            .execute_batch(
                "DROP INDEX asked_by_status;
                 CREATE INDEX asked_by_status ON notification_row (source, coalesce(status, ''));",
            )
            .unwrap();
        let sent = filter(&["sent"], &["sms"], None);
        let is_sorted = || {
            let range = &ranges(&connection, "passport", &sent).unwrap()[0];
            let sql = &parts(CREATED, range.index(), &range.conditions(), false)[0];
            plan(&connection, sql).contains("TEMP B-TREE")
        };
        assert!(is_sorted(), "the whole source is read, and sorted");
        assert!(make_index(&connection, Index::Status).unwrap());
        assert!(!is_sorted());
        assert!(!make_index(&connection, Index::Status).unwrap());
    }
}
