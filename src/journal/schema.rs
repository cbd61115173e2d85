//! The journal's tables.

use rusqlite::{Connection, OptionalExtension, params};

use crate::provider::{Dialect, Provider};
use crate::sqlite::Schema;
use crate::state;

/// The journal file. `callback` is public and stable; the rest is ours:
///
/// - `identity`: which journal this is, and up to where callbacks were pruned;
/// - `source`: how the callbacks of each source were last configured to be read, so that the
///   journal can be settled without the configuration;
/// - `credential`: the digest of a token made at the first start without a configuration;
/// - the tables of the state, holding what pruned callbacks came to.
pub const SCHEMA: Schema = Schema {
    what: "journal",
    application_id: 0x7263_706a, // "rcpj"
    migrations: &[concat!(
        "CREATE TABLE callback (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            source TEXT NOT NULL,
            received_at TEXT NOT NULL,
            body BLOB NOT NULL
        ) STRICT;
        CREATE TABLE identity (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            journal_id TEXT NOT NULL,
            pruned_through INTEGER NOT NULL
        ) STRICT;
        INSERT INTO identity VALUES (1, lower(hex(randomblob(16))), 0);
        CREATE TABLE source (
            name TEXT PRIMARY KEY,
            provider TEXT NOT NULL,
            ims_org TEXT,
            sandbox TEXT
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE credential (
            source TEXT NOT NULL,
            label TEXT NOT NULL,
            sha256 BLOB NOT NULL,
            created_at TEXT NOT NULL,
            PRIMARY KEY (source, label)
        ) STRICT, WITHOUT ROWID;",
        state::state_tables!()
    )],
};

/// How a source's callbacks are read, as the journal remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// The label in the database.
    pub name: String,
    /// How its callbacks are read.
    pub dialect: Dialect,
}

impl SourceRow {
    /// All that the journal remembers, by name.
    pub fn all(connection: &Connection) -> rusqlite::Result<Vec<Self>> {
        connection
            .prepare_cached("SELECT name, provider, ims_org, sandbox FROM source ORDER BY name")?
            .query_map([], |row| {
                let provider: String = row.get(1)?;
                let dialect = Dialect {
                    // A name this version does not know is read as the family, never refused.
                    provider: provider.parse().unwrap_or(Provider::Notify),
                    ims_org: row.get(2)?,
                    sandbox: row.get(3)?,
                };
                Ok(Self { name: row.get(0)?, dialect })
            })?
            .collect()
    }

    /// Remembers this source as it is configured now.
    pub fn remember(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Dialect { provider, ims_org, sandbox } = &self.dialect;
        connection.execute(
            "INSERT INTO source VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET
                provider = excluded.provider, ims_org = excluded.ims_org, sandbox = excluded.sandbox
             WHERE (provider, ims_org, sandbox)
                IS NOT (excluded.provider, excluded.ims_org, excluded.sandbox)",
            params![self.name, provider.as_str(), ims_org, sandbox],
        )?;
        Ok(())
    }
}

/// Sources that have callbacks in the journal but are not remembered in it; there should be none.
pub fn lost_sources(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare(
            "SELECT DISTINCT source FROM callback WHERE source NOT IN (SELECT name FROM source)",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Which journal this is.
pub(super) fn journal_id(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("SELECT journal_id FROM identity", [], |row| row.get(0))
}

/// Callbacks up to and including this position were pruned.
pub(super) fn pruned_through(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT pruned_through FROM identity", [], |row| row.get(0))
}

/// The highest position ever given, whether its callback is still there or not.
pub(super) fn last_seq(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'callback'", [], |row| row.get(0))
        .optional()
        .map(|seq| seq.unwrap_or(0))
}
