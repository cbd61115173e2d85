//! The journal's tables.

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::provider::{Dialect, Provider};
use crate::sqlite::Schema;
use crate::state;

/// The journal file. `callback` is public and stable; the rest is ours:
///
/// - `identity`: which journal this is, up to where callbacks were pruned, and what was created before
///   which time is not to come back;
/// - `upstream`: down to which point each source's platform was last asked for all notifications;
/// - `upstream_round`: the same of text messages, and how the last rounds of asking it went;
/// - `source`: how the callbacks of each source were last configured to be read, so that the
///   journal can be settled without the configuration;
/// - `sink`: up to where each sink is owed nothing, because it was not configured then or has had it;
/// - `credential`: the digest of a token made at the first start without a configuration;
/// - the tables of the state, holding what pruned callbacks came to.
pub const SCHEMA: Schema = Schema {
    what: "journal",
    application_id: 0x7263_706a, // "rcpj"
    migrations: &[
        concat!(
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
        ),
        "CREATE TABLE sink (
            name TEXT PRIMARY KEY,
            since INTEGER NOT NULL
        ) STRICT, WITHOUT ROWID;",
        // A column at the end with a constant default costs one row of the schema, however large the
        // table is; a CHECK would read all of it.
        "ALTER TABLE callback ADD COLUMN origin INTEGER NOT NULL DEFAULT 0;
        CREATE TABLE upstream (
            source TEXT PRIMARY KEY,
            point TEXT NOT NULL,
            swept_at TEXT NOT NULL
        ) STRICT, WITHOUT ROWID;",
        state::expected_table!(),
        state::expected_overdue!(),
        "ALTER TABLE identity ADD COLUMN pruned_before TEXT;",
        "CREATE TABLE upstream_round (
            source TEXT PRIMARY KEY,
            began_at TEXT,
            succeeded_at TEXT,
            rests_until TEXT,
            messages_point TEXT,
            messages_swept_at TEXT
        ) STRICT, WITHOUT ROWID;",
    ],
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

/// From which position on, not including it, changes are owed to this sink: from now on, if it was
/// never heard of. And whether it was not.
pub fn remember_sink(connection: &Connection, name: &str) -> rusqlite::Result<(i64, bool)> {
    let last = last_seq(connection)?;
    let added =
        connection.execute("INSERT OR IGNORE INTO sink VALUES (?1, ?2)", params![name, last])?;
    let sql = "SELECT since FROM sink WHERE name = ?1";
    connection.query_row(sql, [name], |row| Ok((row.get(0)?, added > 0)))
}

/// Forgets every sink but these: one of them that comes back is a new one.
pub fn forget_sinks_but(connection: &Connection, names: &[String]) -> rusqlite::Result<()> {
    let known: Vec<String> = connection
        .prepare("SELECT name FROM sink")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for name in known.iter().filter(|name| !names.contains(name)) {
        connection.execute("DELETE FROM sink WHERE name = ?1", [name])?;
    }
    Ok(())
}

/// The same; `None` if it was never heard of.
pub fn sink_since(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .query_row("SELECT since FROM sink WHERE name = ?1", [name], |row| row.get(0))
        .optional()
}

/// This sink has had every change up to and including this position.
pub fn sink_had(connection: &Connection, name: &str, through: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE sink SET since = ?2 WHERE name = ?1 AND since < ?2")?
        .execute(params![name, through])
        .map(drop)
}

/// The digest of the token that was made for `source`; `sha256` becomes it if there was none.
pub fn keep_credential(
    connection: &Connection,
    source: &str,
    sha256: [u8; 32],
    now: Timestamp,
) -> rusqlite::Result<[u8; 32]> {
    connection.execute(
        "INSERT OR IGNORE INTO credential VALUES (?1, 'generated', ?2, ?3)",
        params![source, sha256, now.to_string()],
    )?;
    connection.query_row(
        "SELECT sha256 FROM credential WHERE source = ?1 AND label = 'generated'",
        [source],
        |row| row.get(0),
    )
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
pub fn journal_id(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("SELECT journal_id FROM identity", [], |row| row.get(0))
}

/// When the callback at that position arrived, as it stands there; `None` if there is none.
pub fn received_at(connection: &Connection, seq: i64) -> rusqlite::Result<Option<String>> {
    connection
        .query_row("SELECT received_at FROM callback WHERE seq = ?1", [seq], |row| row.get(0))
        .optional()
}

/// Callbacks up to and including this position were pruned.
pub fn pruned_through(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT pruned_through FROM identity", [], |row| row.get(0))
}

/// What was created before this was pruned and is not to be fetched again; `None` if nothing was, and
/// in a journal that no writer of this version has opened yet.
pub fn pruned_before(connection: &Connection) -> rusqlite::Result<Option<Timestamp>> {
    let sql = "SELECT 1 FROM pragma_table_info('identity') WHERE name = 'pruned_before'";
    if !connection.prepare_cached(sql)?.exists([])? {
        return Ok(None);
    }
    let text: Option<String> =
        connection.query_row("SELECT pruned_before FROM identity", [], |row| row.get(0))?;
    text.map(|text| text.parse().map_err(unreadable)).transpose()
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
}

/// Notes that what was created before this is not to be fetched again; an earlier time changes nothing.
pub fn note_pruned_before(connection: &Connection, before: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE identity SET pruned_before = max(coalesce(pruned_before, ''), ?1)")?
        .execute([before.to_string()])
        .map(drop)
}

/// The highest position ever given, whether its callback is still there or not.
pub fn last_seq(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'callback'", [], |row| row.get(0))
        .optional()
        .map(|seq| seq.unwrap_or(0))
}

/// The last position of the longest run from the start in which every callback arrived before
/// `before`; at most `through`.
pub fn old_prefix(
    connection: &Connection,
    before: Timestamp,
    through: i64,
) -> rusqlite::Result<i64> {
    let first_kept: Option<i64> = connection
        .query_row(
            "SELECT seq FROM callback WHERE received_at >= ?1 ORDER BY seq LIMIT 1",
            [before.to_string()],
            |row| row.get(0),
        )
        .optional()?;
    Ok(first_kept.map_or(through, |seq| through.min(seq - 1)))
}

/// How many callbacks there are after position `after`, up to and including `through`.
pub fn count_between(connection: &Connection, after: i64, through: i64) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT count(*) FROM callback WHERE seq > ?1 AND seq <= ?2")?
        .query_row([after, through], |row| row.get(0))
}

/// Deletes the callbacks up to and including `through`, of which the tables of the state in this
/// file now hold what they came to. Within the caller's transaction.
pub fn forget(connection: &Connection, through: i64) -> rusqlite::Result<usize> {
    let deleted =
        connection.prepare_cached("DELETE FROM callback WHERE seq <= ?1")?.execute([through])?;
    connection
        .prepare_cached("UPDATE identity SET pruned_through = max(pruned_through, ?1)")?
        .execute([through])?;
    Ok(deleted)
}

/// Makes this journal the one that `state` (the schema name of an attached database) was settled
/// from, up to `seq`: what that state knows is carried over, as if the callbacks behind it had been
/// pruned, and no position up to `seq` is given again. Within the caller's transaction.
pub fn adopt(
    connection: &Connection,
    state: &str,
    journal_id: &str,
    seq: i64,
) -> rusqlite::Result<()> {
    state::write::carry_over(connection, state, "main")?;
    connection.execute(
        "UPDATE identity SET journal_id = ?1, pruned_through = ?2",
        params![journal_id, seq],
    )?;
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'callback'", [])?;
    connection.execute("INSERT INTO sqlite_sequence VALUES ('callback', ?1)", [seq])?;
    Ok(())
}
