//! Reading the journal, in short transactions that never hold up its writer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::callback::{Callback, Origin};
use crate::clock::Timestamp;
use crate::provider::Dialect;
use crate::sqlite::{self, Access, OpenError};

use super::schema::{self, SCHEMA, SourceRow};

/// A read-only connection to a journal.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    names: HashMap<String, Arc<str>>,
    /// What is selected of an entry.
    columns: &'static str,
}

/// In the order of [`read_row`].
const COLUMNS: &str = "seq, source, received_at, body, origin";

/// Of a journal that no writer of this version has opened yet: it holds callbacks alone.
const COLUMNS_BEFORE_ORIGIN: &str = "seq, source, received_at, body, 0";

/// The version of the file since which an entry says where it came from.
const ORIGIN_SINCE: i64 = 3;

impl Reader {
    /// Opens the journal at `path`, which must exist.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        sqlite::open(path, &SCHEMA, Access::Read).map(Self::over)
    }

    /// Reads through `connection`, which has the journal's tables.
    pub fn over(connection: Connection) -> Self {
        // If it cannot be told, the first question fails and says why.
        let version: rusqlite::Result<i64> =
            connection.pragma_query_value(None, "user_version", |row| row.get(0));
        let is_before = version.is_ok_and(|version| version < ORIGIN_SINCE);
        let columns = if is_before { COLUMNS_BEFORE_ORIGIN } else { COLUMNS };
        Self { connection, names: HashMap::new(), columns }
    }

    /// Up to `callbacks_max` callbacks after `seq`, and not after `through`, in order; fewer if
    /// their bodies come to more than `bytes_max`, but at least one if there is one.
    pub fn after(
        &mut self,
        seq: i64,
        through: i64,
        callbacks_max: usize,
        bytes_max: usize,
    ) -> rusqlite::Result<Vec<Callback>> {
        let columns = self.columns;
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {columns} FROM callback
             WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3"
        ))?;
        let limit = i64::try_from(callbacks_max).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![seq, through, limit])?;
        let mut callbacks = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let callback = read_row(row, &mut self.names)?;
            bytes += callback.body.len();
            callbacks.push(callback);
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(callbacks)
    }

    /// The callback at `seq`, unless it was pruned.
    pub fn at(&mut self, seq: i64) -> rusqlite::Result<Option<Callback>> {
        let columns = self.columns;
        let mut statement = self
            .connection
            .prepare_cached(&format!("SELECT {columns} FROM callback WHERE seq = ?1"))?;
        statement.query_row([seq], |row| read_row(row, &mut self.names)).optional()
    }

    /// When each of these sources last called back, as far as the newest `entries_max` entries tell, and of
    /// those what can be read within `took_max`. Of a source that is not among them nothing is said.
    /// The journal must be one that a writer of this version has opened.
    pub fn last_called_back(
        &self,
        sources: &[Arc<str>],
        entries_max: usize,
        took_max: Duration,
    ) -> rusqlite::Result<HashMap<Arc<str>, Timestamp>> {
        let until = Instant::now() + took_max;
        let newest = "SELECT source, received_at, origin FROM callback ORDER BY seq DESC LIMIT ?1";
        let mut statement = self.connection.prepare_cached(newest)?;
        let mut rows = statement.query([i64::try_from(entries_max).unwrap_or(i64::MAX)])?;
        let mut last = HashMap::new();
        while last.len() < sources.len() && Instant::now() < until {
            let Some(row) = rows.next()? else { break };
            let name = row.get_ref(0)?.as_str()?;
            let Some(source) = sources.iter().find(|source| ***source == *name) else { continue };
            if row.get::<_, i64>(2)? == Origin::CalledBack.number() && !last.contains_key(source) {
                last.insert(Arc::clone(source), received_at(row, 1)?);
            }
        }
        Ok(last)
    }

    /// How each source's callbacks are read.
    pub fn dialects(&self) -> rusqlite::Result<HashMap<Arc<str>, Dialect>> {
        let rows = SourceRow::all(&self.connection)?;
        Ok(rows.into_iter().map(|row| (Arc::from(row.name), row.dialect)).collect())
    }

    /// Which journal this is.
    pub fn journal_id(&self) -> rusqlite::Result<String> {
        schema::journal_id(&self.connection)
    }

    /// Callbacks up to and including this position were pruned.
    pub fn pruned_through(&self) -> rusqlite::Result<i64> {
        schema::pruned_through(&self.connection)
    }

    /// The highest position ever given.
    pub fn last_seq(&self) -> rusqlite::Result<i64> {
        schema::last_seq(&self.connection)
    }

    /// How many callbacks are in it, and the bytes of their bodies.
    pub fn totals(&self) -> rusqlite::Result<(i64, i64)> {
        self.connection.query_row(
            "SELECT count(*), coalesce(sum(length(body)), 0) FROM callback",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
    }

    /// The connection, for what pruned callbacks came to.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

fn read_row(row: &Row<'_>, names: &mut HashMap<String, Arc<str>>) -> rusqlite::Result<Callback> {
    let name = row.get_ref(1)?.as_str()?;
    let source = match names.get(name) {
        Some(known) => Arc::clone(known),
        None => {
            let new: Arc<str> = Arc::from(name);
            names.insert(name.to_owned(), Arc::clone(&new));
            new
        }
    };
    let received_at = received_at(row, 2)?;
    let origin = Origin::from_number(row.get(4)?);
    Ok(Callback { seq: row.get(0)?, source, received_at, body: row.get(3)?, origin })
}

fn received_at(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let text = rusqlite::types::Type::Text;
    row.get_ref(column)?
        .as_str()?
        .parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, text, Box::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{Durability, Schema};

    const NOW: &str = "2026-11-22T10:00:00.000000Z";

    #[test]
    fn a_journal_of_before_there_were_answers_holds_callbacks_and_goes_on_holding_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.callbacks.db");
        let write = Access::Write(Durability::Normal);
        let before = Schema { migrations: &SCHEMA.migrations[..2], ..SCHEMA };
        let writer = sqlite::open(&path, &before, write).unwrap();
        let row = (1, "gc", NOW, &b"{}"[..]);
        writer.execute("INSERT INTO callback VALUES (?1, ?2, ?3, ?4)", row).unwrap();
        drop(writer);
        let read = || Reader::open(&path).unwrap().after(0, i64::MAX, 10, 100).unwrap();
        let old = read();
        assert_eq!((old.len(), old[0].origin), (1, Origin::CalledBack));
        let writer = sqlite::open(&path, &SCHEMA, write).unwrap();
        let row = (2, "gc", NOW, &b"{}"[..], Origin::Polled.number());
        writer.execute("INSERT INTO callback VALUES (?1, ?2, ?3, ?4, ?5)", row).unwrap();
        let origins: Vec<_> = read().into_iter().map(|entry| entry.origin).collect();
        assert_eq!(origins, [Origin::CalledBack, Origin::Polled]);
        let at = Reader::open(&path).unwrap().at(2).unwrap().unwrap();
        assert_eq!(at.origin, Origin::Polled);
    }
    #[test]
    fn who_last_called_back_when_is_told_of_callbacks_alone_and_within_bounds() {
        let write = sqlite::open_in_memory(&SCHEMA).unwrap();
        let at = |second: i64| NOW.parse::<Timestamp>().unwrap().plus_seconds(second);
        for (seq, source, origin) in [
            (1, "rare", Origin::CalledBack),
            (2, "gc", Origin::CalledBack),
            (3, "gc", Origin::CalledBack),
            (4, "gc", Origin::Polled),
            (5, "said", Origin::Expected),
            (6, "gone", Origin::CalledBack),
        ] {
            let row = (seq, source, at(seq).to_string(), &b"{}"[..], origin.number());
            write.execute("INSERT INTO callback VALUES (?1, ?2, ?3, ?4, ?5)", row).unwrap();
        }
        let reader = Reader::over(write);
        let sources = ["rare", "gc", "said"].map(Arc::from);
        let long = Duration::from_secs(60);
        let told = |entries_max, took_max| {
            let last = reader.last_called_back(&sources, entries_max, took_max).unwrap();
            ["rare", "gc", "said", "gone"].map(|source| last.get(source).copied())
        };
        assert_eq!(told(6, long), [Some(at(1)), Some(at(3)), None, None]);
        assert_eq!(told(5, long), [None, Some(at(3)), None, None]);
        assert_eq!(told(6, Duration::ZERO), [None; 4]);
    }
}
