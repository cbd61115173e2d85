//! Reading the journal, in short transactions that never hold up its writer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::callback::Callback;
use crate::provider::Dialect;
use crate::sqlite::{self, Access, OpenError};

use super::schema::{self, SCHEMA, SourceRow};

/// A read-only connection to a journal.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    names: HashMap<String, Arc<str>>,
}

impl Reader {
    /// Opens the journal at `path`, which must exist.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        sqlite::open(path, &SCHEMA, Access::Read).map(Self::over)
    }

    /// Reads through `connection`, which has the journal's tables.
    pub fn over(connection: Connection) -> Self {
        Self { connection, names: HashMap::new() }
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
        let mut statement = self.connection.prepare_cached(
            "SELECT seq, source, received_at, body FROM callback
             WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3",
        )?;
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
        let mut statement = self
            .connection
            .prepare_cached("SELECT seq, source, received_at, body FROM callback WHERE seq = ?1")?;
        statement.query_row([seq], |row| read_row(row, &mut self.names)).optional()
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
    let received_at = row.get_ref(2)?.as_str()?.parse().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(Callback { seq: row.get(0)?, source, received_at, body: row.get(3)? })
}
