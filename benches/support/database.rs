//! What the servers kept, read from their files as any app beside them may.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::load::Outcome;
use super::receipt::{Id, SOURCE};
use super::report::Report;
use super::server::Server;

/// What was acknowledged and what is there after settling.
#[derive(Clone, Copy)]
pub struct Kept {
    /// Answered 204.
    pub acknowledged: u64,
    uncertain: u64,
    /// In the journal, if there is one that nobody prunes.
    callbacks: Option<u64>,
    /// In the state; of a server with one table, in that.
    pub notifications: u64,
}

impl Kept {
    /// Counts both files of a server that has settled.
    pub fn count(server: &Server, outcome: &Outcome) -> rusqlite::Result<Self> {
        Ok(Self {
            acknowledged: outcome.acknowledged,
            uncertain: outcome.uncertain(),
            callbacks: Some(count(&server.journal_file(), "callback")?),
            notifications: notifications(server)?,
        })
    }

    /// Counts the one table of a server that is not receiptd.
    pub fn count_rows(file: &Path, outcome: &Outcome) -> rusqlite::Result<Self> {
        let rows = count(file, "notification")?;
        let (acknowledged, uncertain) = (outcome.acknowledged, outcome.uncertain());
        Ok(Self { acknowledged, uncertain, callbacks: None, notifications: rows })
    }

    /// The same without those that were there before.
    pub fn beside(self, before: u64) -> Self {
        Self {
            callbacks: self.callbacks.map(|count| count.saturating_sub(before)),
            notifications: self.notifications.saturating_sub(before),
            ..self
        }
    }

    /// The same, the journal left out: it is being pruned.
    pub fn in_state_only(self) -> Self {
        Self { callbacks: None, ..self }
    }

    /// Whether every acknowledged callback is in the journal and, since all ids differ, a
    /// notification in the state; and none is there that was not sent.
    pub fn all(&self) -> bool {
        let sent = self.acknowledged + self.uncertain;
        let possible = self.acknowledged..=sent;
        self.callbacks.is_none_or(|count| possible.contains(&count))
            && possible.contains(&self.notifications)
    }

    /// Judges it, together with whether all was answered as it must be.
    pub fn require(&self, when: &str, report: &mut Report) {
        let uncertain = self.uncertain;
        report.require(format!("not answered 204 {when}: {uncertain} (0)"), uncertain == 0);
        let all = if self.all() { "yes" } else { "no" };
        report.require(format!("all kept {when}: {all} (yes)"), self.all());
    }
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { acknowledged, uncertain, callbacks, notifications } = self;
        write!(f, "{acknowledged} acknowledged (and {uncertain} uncertain), ")?;
        if let Some(callbacks) = callbacks {
            write!(f, "{callbacks} in the journal, ")?;
        }
        write!(f, "{notifications} in the state")
    }
}

/// How many notifications are settled at this moment.
pub fn notifications(server: &Server) -> rusqlite::Result<u64> {
    count(&server.state_file(), "notification")
}

/// The state file, for looking up single notifications.
pub struct State(Connection);

impl State {
    /// Opens it for reading.
    pub fn open(file: &Path) -> rusqlite::Result<Self> {
        open(file).map(Self)
    }

    /// Whether a notification of the bench's source is settled.
    pub fn shows(&self, id: Id) -> rusqlite::Result<bool> {
        let mut query =
            self.0.prepare_cached("SELECT 1 FROM notification WHERE id = ?1 AND source = ?2")?;
        let row = query.query_row((id.as_str(), SOURCE), |_| Ok(())).optional()?;
        Ok(row.is_some())
    }

    /// How many of each status there are: reads the whole table.
    pub fn count_by_status(&self) -> rusqlite::Result<Vec<(Option<String>, i64)>> {
        self.0
            .prepare_cached("SELECT status, count(*) FROM notification GROUP BY status")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    }

    /// Reads the next hundred entries of the history; the position of the last, if there are any.
    pub fn page_of_history(&self, after: i64) -> rusqlite::Result<Option<i64>> {
        let mut query = self.0.prepare_cached(
            "SELECT seq, id, status FROM history WHERE seq > ?1 ORDER BY seq LIMIT 100",
        )?;
        let mut rows = query.query([after])?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            last = Some(row.get(0)?);
        }
        Ok(last)
    }
}

/// Opens a database for reading, as any app may.
pub fn open(file: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(file, flags)
}

fn count(file: &Path, table: &str) -> rusqlite::Result<u64> {
    let count: i64 =
        open(file)?.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}
