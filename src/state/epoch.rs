//! What makes a position in this state mean one change and no other.
//!
//! A position is a place in the journal. Yet the same number can come to mean something else: a state
//! that is made anew is settled by the version that makes it, which may find news where the last one
//! found none; and a journal that was put back from an older copy gives the places behind that copy
//! again. Whoever went on from such a number would skip, without a word, what they never saw. So a
//! position leaves the program only with what ties it down:
//!
//! - The epoch of the file: a key made by chance when the file is. A state that was begun anew, by a
//!   rebuild or because the old one was lost, damaged or of another journal, has another. Whoever tells
//!   positions seals them with it.
//! - A mark of what stands there ([`super::feed::Point`]), for what can happen to one and the same file:
//!   that it, or both files, are put back from a copy, whose epoch is that of the original. Behind the
//!   copy other callbacks come to stand, and have other marks; up to it nothing is different.
//! - The version that settled it, which is in the mark: a copy of the state alone settles again what is
//!   behind it, perhaps by a newer version than the original did. [`begin`] notes where each began.
//!
//! What changes nothing keeps both: a restart, a crash, a power cut (the same callbacks are settled
//! again, by the same version, to the same lines), an upgrade (what is settled stays), a journal that
//! takes over what its state knows. Pruning takes lines away, and with them what they were marked by.
//!
//! A power cut just after an upgrade need not keep them: what is noted here is not synced at once, so the
//! note of where the newer version began may be lost together with the last lines before it. Settled
//! again, these and what stands behind them have other marks, and a position there is refused: whoever
//! holds it begins again and misses nothing.
//!
//! Nothing here is settled: the journal cannot give it back, nor needs to.

use std::fmt;

use rusqlite::{Connection, OptionalExtension};

use super::tables::cursor;

/// The tables.
macro_rules! epoch_tables {
    () => {
        "CREATE TABLE epoch (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            key BLOB NOT NULL
        ) STRICT;
        CREATE TABLE settled_by (
            since INTEGER PRIMARY KEY,
            version TEXT NOT NULL
        ) STRICT;"
    };
}
pub(crate) use epoch_tables;

/// The epoch's secret.
pub type Key = [u8; 32];

/// The epoch of a state file.
#[derive(Clone, PartialEq, Eq)]
pub struct Epoch {
    key: Key,
    /// Which version settled from which position on, in their order.
    settled_by: Vec<(i64, String)>,
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Epoch").field("settled_by", &self.settled_by).finish_non_exhaustive()
    }
}

impl Epoch {
    /// That of this state; `None` if it was only just made, and nobody is settling into it yet.
    ///
    /// # Errors
    /// Of SQLite only.
    pub fn of(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let key: Option<Key> = connection
            .prepare_cached("SELECT key FROM epoch")?
            .query_row([], |row| row.get(0))
            .optional()?;
        let Some(key) = key else { return Ok(None) };
        let settled_by = connection
            .prepare_cached("SELECT since, version FROM settled_by ORDER BY since")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Some(Self { key, settled_by }))
    }

    /// To seal with.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Which version settled the callback at that position, and since which; nought and nothing for
    /// what was settled before that was noted.
    pub fn settled_by(&self, seq: i64) -> (i64, &str) {
        let behind = self.settled_by.partition_point(|(since, _)| *since <= seq);
        let by = behind.checked_sub(1).and_then(|last| self.settled_by.get(last));
        by.map_or((0, ""), |(since, version)| (*since, version))
    }
}

/// Begins the epoch of a state that has none, with that key, and notes which version settles what comes
/// from now on. For the one connection that writes, before it settles anything.
///
/// # Errors
/// Of SQLite only.
pub fn begin(connection: &Connection, key: Key, version: &str) -> rusqlite::Result<()> {
    if !connection.prepare("SELECT 1 FROM epoch")?.exists([])? {
        connection.execute("INSERT INTO epoch VALUES (1, ?1)", [key])?;
    }
    let last: Option<String> = connection
        .query_row("SELECT version FROM settled_by ORDER BY since DESC LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()?;
    if last.as_deref() != Some(version) {
        let (_, seq) = cursor(connection)?;
        // A version that settled nothing leaves no trace.
        connection
            .execute("INSERT OR REPLACE INTO settled_by VALUES (?1, ?2)", (seq + 1, version))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite;
    use crate::state::tables::{SCHEMA, set_cursor};

    fn state() -> Connection {
        sqlite::open_in_memory(&SCHEMA).unwrap()
    }

    #[test]
    fn a_key_is_made_once_and_kept() {
        let state = state();
        assert_eq!(Epoch::of(&state).unwrap(), None);
        begin(&state, [1; 32], "1.0.0").unwrap();
        begin(&state, [2; 32], "1.0.0").unwrap();
        let epoch = Epoch::of(&state).unwrap().unwrap();
        assert_eq!(epoch.key(), &[1; 32]);
        assert!(!format!("{epoch:?}").contains("1, 1"), "{epoch:?}");
    }

    #[test]
    fn each_position_is_of_the_version_that_settled_it() {
        let state = state();
        // As if an older version had settled the first ten, without a note.
        for (seq, version) in [(10, "1.0.0"), (10, "1.1.0"), (20, "1.1.0"), (30, "1.2.0")] {
            set_cursor(&state, "journal", seq).unwrap();
            begin(&state, [1; 32], version).unwrap();
        }
        let epoch = Epoch::of(&state).unwrap().unwrap();
        let by = [1, 10, 11, 30, 31, 99].map(|seq| epoch.settled_by(seq));
        let (second, third) = ((11, "1.1.0"), (31, "1.2.0"));
        assert_eq!(by, [(0, ""), (0, ""), second, second, third, third]);
    }
}
