//! The comparison at the end of every round: what was acknowledged against what is there.
//!
//! Before anything is started again: both files are sound, and every acknowledged callback is in the
//! journal with exactly its bytes, as often as it was acknowledged. Then, on a healthy receiver:
//! everything owed is delivered and settled, the state is the truth of every life, and `check-db`
//! says that settling the journal from nothing gives the same rows.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::ledger::Ledger;
use super::place::{Place, ask, exit_code};
use super::sender;
use super::support::Receiptd;

/// Findings of one kind that are listed one by one.
const LISTED_MAX: usize = 3;

/// A journal as it is.
pub struct Kept {
    rows: HashMap<Vec<u8>, u32>,
    /// The positions that should be there: after the last one pruned, up to the last one given.
    positions: i64,
}

/// Opens a database to read it, as anybody could; an error is a finding.
fn open(path: &Path) -> Result<Connection, String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| said(path, &error))?;
    connection.busy_timeout(Duration::from_secs(10)).map_err(|error| said(path, &error))?;
    Ok(connection)
}

fn said(path: &Path, error: &rusqlite::Error) -> String {
    format!("{}: {error}", path.file_name().unwrap_or_default().display())
}

impl Kept {
    /// Reads the journal.
    pub fn read(journal: &Path) -> Result<Self, String> {
        Self::query(&open(journal)?).map_err(|error| said(journal, &error))
    }

    fn query(connection: &Connection) -> rusqlite::Result<Self> {
        let snapshot = connection.unchecked_transaction()?;
        let positions = snapshot.query_row(
            "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'callback'), 0)
                - pruned_through FROM identity",
            [],
            |row| row.get(0),
        )?;
        Ok(Self { rows: rows(&snapshot)?, positions })
    }

    /// The bodies in the table of that name, of a file that may be another receiver's.
    pub fn bodies(journal: &Path) -> Result<Self, String> {
        let connection = open(journal)?;
        let rows = rows(&connection).map_err(|error| said(journal, &error))?;
        Ok(Self { rows, positions: 0 })
    }

    /// Nothing at all: a journal that is not there, or cannot be read.
    pub fn nothing() -> Self {
        Self { rows: HashMap::new(), positions: 0 }
    }

    /// Whether it is there at all.
    pub fn has(&self, body: &[u8]) -> bool {
        self.rows.contains_key(body)
    }

    /// How many of the first `mark` acknowledged are not there.
    pub fn lost(&self, ledger: &Ledger, mark: usize) -> u64 {
        let due = ledger.due_in_journal(mark);
        let missing = |body: &[u8], times: u32| {
            times.saturating_sub(self.rows.get(body).copied().unwrap_or(0))
        };
        due.iter().map(|(body, times)| u64::from(missing(body, *times))).sum()
    }

    /// What is there though it was never sent, or more often than it was sent; and gaps.
    fn problems(&self, ledger: &Ledger) -> Vec<String> {
        let attempts = ledger.attempts();
        let sent = |body: &[u8]| attempts.get(body).copied().unwrap_or(0);
        let invented = self.rows.iter().filter(|(body, times)| **times > sent(body)).count();
        let rows: i64 = self.rows.values().map(|times| i64::from(*times)).sum();
        let mut problems = Vec::new();
        if invented > 0 {
            problems.push(format!("{invented} rows of the journal were never sent like that"));
        }
        if rows != self.positions {
            problems.push(format!("{rows} rows in the journal on {} positions", self.positions));
        }
        problems
    }
}

fn rows(connection: &Connection) -> rusqlite::Result<HashMap<Vec<u8>, u32>> {
    let mut rows = HashMap::new();
    let mut bodies = connection.prepare("SELECT body FROM callback")?;
    for body in bodies.query_map([], |row| row.get::<_, Vec<u8>>(0))? {
        *rows.entry(body?).or_default() += 1;
    }
    Ok(rows)
}

/// What SQLite finds wrong with a file; a file that is not there is not damaged. Nor is one that was
/// killed while it was made: SQLite rolls that back, but only for somebody who may write, so it is
/// judged by `check-db` after the next start.
pub fn integrity(path: &Path) -> Vec<String> {
    let look = || -> rusqlite::Result<Vec<String>> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let mut check = connection.prepare("PRAGMA integrity_check(3)")?;
        check.query_map([], |row| row.get(0))?.collect()
    };
    if !path.exists() {
        return Vec::new();
    }
    let found = look().unwrap_or_else(|error| match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly) => Vec::new(),
        _ => vec![error.to_string()],
    });
    let found = found.into_iter().filter(|sentence| sentence != "ok");
    found.map(|sentence| format!("damaged: {}: {sentence}", path.display())).collect()
}

/// How far a state has settled; 0 if it is not there.
pub fn cursor(state: &Path) -> i64 {
    number(state, "SELECT seq FROM cursor")
}

/// Up to where a journal was pruned; 0 if it is not there.
pub fn pruned_through(journal: &Path) -> i64 {
    number(journal, "SELECT pruned_through FROM identity")
}

fn number(path: &Path, sql: &str) -> i64 {
    let query = |connection: Connection| connection.query_row(sql, [], |row| row.get(0)).ok();
    open(path).ok().and_then(query).unwrap_or(0)
}

/// What one round found.
#[derive(Default)]
pub struct Round {
    /// Acknowledged callbacks that are not there.
    pub lost: u64,
    /// Files that are damaged.
    pub corrupt: u64,
    /// Everything that is not as promised, these two included.
    pub problems: Vec<String>,
}

impl Round {
    /// The files as the attack left them, before anything opens them for writing.
    pub fn look(&mut self, place: &Place, ledger: &Ledger) {
        let damage: Vec<String> =
            [place.journal(), place.state()].iter().flat_map(|file| integrity(file)).collect();
        self.corrupt += damage.len() as u64;
        self.problems.extend(damage);
        self.compare(place, ledger, "after the attack");
    }

    /// The journal against what was acknowledged until now.
    fn compare(&mut self, place: &Place, ledger: &Ledger, when: &str) {
        let mark = ledger.mark();
        let kept = Kept::read(&place.journal()).unwrap_or_else(|why| {
            // Before the first acknowledgement there may be no journal yet.
            if mark > 0 {
                self.problems.push(why);
            }
            Kept::nothing()
        });
        let lost = kept.lost(ledger, mark);
        if lost > 0 {
            self.problems.push(format!("{lost} acknowledged callbacks are not there {when}"));
        }
        self.lost = self.lost.max(lost);
        self.problems.extend(kept.problems(ledger));
    }

    /// Starts a healthy receiver, has everything owed delivered and settled, and holds the result
    /// against the truth. Stops it again.
    pub fn recover(&mut self, place: &Place, ledger: &Arc<Ledger>) {
        match place.start() {
            Ok(receiver) => self.recover_with(place, ledger, receiver),
            Err(why) => self.problems.push(why),
        }
    }

    /// The same with a receiver that runs already.
    pub fn recover_with(&mut self, place: &Place, ledger: &Arc<Ledger>, mut receiver: Receiptd) {
        if let Err(why) = sender::finish(ledger, receiver.callbacks) {
            self.problems.push(why);
        }
        let settled = ask(receiver.admin, "/settled?wait=15s");
        if settled != Some(204) {
            self.problems.push(format!("/settled answers {settled:?} on a healthy receiver"));
        }
        self.compare(place, ledger, "after the restart");
        self.problems.extend(wrong_states(&place.state(), ledger));
        receiver.signal(rustix::process::Signal::TERM);
        match exit_code(&mut receiver) {
            Ok(Some(0)) => {}
            Ok(code) => self.problems.push(format!("a healthy receiver ended with {code:?}")),
            Err(why) => self.problems.push(why),
        }
        drop(receiver);
        if let Err(why) = place.check_db() {
            self.corrupt += u64::from(why.contains("damaged"));
            self.problems.push(why);
        }
    }
}

/// The state against the truth of every life, all of which were told whole.
pub fn wrong_states(state: &Path, ledger: &Ledger) -> Vec<String> {
    let found =
        open(state).and_then(|connection| states(&connection).map_err(|error| said(state, &error)));
    let found = match found {
        Ok(found) => found,
        Err(why) => return vec![why],
    };
    let (mut wrong, mut lives) = (Vec::new(), 0);
    ledger.each_life(|life, acknowledged| {
        lives += 1;
        match found.get(&life.id) {
            None => wrong.push(format!("{} is not in the state", life.id)),
            Some((status, receipts, duplicates)) => {
                let is_true = status.as_deref() == Some(life.status) && *receipts == life.distinct;
                // More than was acknowledged may be there: an answer can be lost on its way.
                if !is_true || receipts + duplicates < acknowledged {
                    wrong.push(format!(
                        "{} is {status:?} by {receipts} receipts and {duplicates} duplicates; \
                         true is {:?} by {}, acknowledged {acknowledged}",
                        life.id, life.status, life.distinct
                    ));
                }
            }
        }
    });
    if found.len() != lives {
        wrong.push(format!("{} notifications in the state of {lives} lives", found.len()));
    }
    let count = wrong.len();
    wrong.truncate(LISTED_MAX);
    if count > LISTED_MAX {
        wrong.push(format!("… and {} more", count - LISTED_MAX));
    }
    wrong
}

type State = (Option<String>, u32, u32);

fn states(connection: &Connection) -> rusqlite::Result<HashMap<String, State>> {
    let mut rows =
        connection.prepare("SELECT id, status, receipts, duplicates FROM notification")?;
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)));
    rows.query_map([], row)?.collect()
}
