//! Once a minute: what should have come and has not.
//!
//! Counts, by source, what the app said it sent and is overdue, and what has had no end for longer than
//! the platforms take; and says of which sources something is expected while they are silent: since the
//! source last called back something was sent, and half an hour has passed. Nothing is looked up where
//! nobody asked for it: it takes an upstream, or an app that says what it sends.
//!
//! Of the sources of which a sink wants to hear it, what is newly overdue goes into the journal, from where
//! it is settled into a change ([`say_overdue`]). Before that everything acknowledged is settled: what looks
//! overdue may have its end in the journal.
//!
//! It reads through a connection of its own, on a thread for work that blocks, and changes nothing but an
//! index that it has made on the thread that writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::timeout;

use crate::clock::{Clock, Timestamp};
use crate::ends::Ends;
use crate::journal::Journal;
use crate::journal::reader::Reader;
use crate::provider::ends;
use crate::settle::{OnThread, Settled, say_overdue};
use crate::sqlite::{self, Access};
use crate::state::expected::{Overdue, Question};
use crate::state::tables::SCHEMA;
use crate::state::{expected, outstanding};
use crate::telemetry::{Expectation, Metrics};

/// The platforms give up after 72 hours; what has no end by then, in seconds, is stuck.
pub const STUCK_S: i64 = 72 * 3_600;

/// A source is silent if so long after something was sent, in seconds, it has not called back.
const SILENT_S: i64 = 1_800;

/// How often to look.
const LOOK: Duration = Duration::from_secs(60);

/// What is said to be overdue at one look; the rest at the next.
const OVERDUE_MAX: usize = 10_000;

/// How long to wait until everything acknowledged is settled before anything is said to be overdue.
const SETTLED_MAX: Duration = Duration::from_secs(30);

/// What the lookout works with.
#[derive(Clone, Debug)]
pub struct Lookout {
    /// The journal's file and the state's.
    pub files: [PathBuf; 2],
    /// To say what is overdue.
    pub journal: Journal,
    /// How far it is settled.
    pub settled: Settled,
    /// Of which sources anybody wants to be told what is overdue; `None` is all of them.
    pub told_of: Option<Vec<String>>,
    /// To have an index made.
    pub on_thread: OnThread,
    /// The time.
    pub clock: Clock,
    /// Where it is told.
    pub metrics: Arc<Metrics>,
}

impl Lookout {
    /// Looks for ever; in a runtime.
    pub async fn run(self) {
        let started = self.clock.now();
        loop {
            if self.told_of.as_ref().is_none_or(|sources| !sources.is_empty()) {
                self.tell().await;
            }
            let lookout = self.clone();
            let looked = tokio::task::spawn_blocking(move || lookout.look(started)).await;
            if let Ok(Err(error)) = looked {
                tracing::debug!(%error, "what is overdue could not be counted");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Says what is newly overdue.
    async fn tell(&self) {
        let committed = self.journal.progress().committed();
        let settled = timeout(SETTLED_MAX, self.settled.reaches(committed)).await;
        if !matches!(settled, Ok(true)) {
            return;
        }
        let lookout = self.clone();
        let found = match tokio::task::spawn_blocking(move || lookout.newly_overdue()).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::debug!(%error, "what is overdue could not be read");
                return;
            }
            Err(_) => return,
        };
        // What is refused is found again at the next look.
        if let Err(error) = say_overdue(&self.journal, self.clock.now(), &found).await {
            tracing::debug!(%error, "what is overdue could not be kept");
        }
    }

    fn newly_overdue(&self) -> Result<Vec<Overdue>, Box<dyn std::error::Error + Send + Sync>> {
        let now = self.clock.now();
        let ends = ends_by(&Reader::open(&self.files[0])?)?;
        let state = open(&self.files[1])?;
        let sources: Vec<Option<&str>> = match &self.told_of {
            None => vec![None],
            Some(names) => names.iter().map(|name| Some(name.as_str())).collect(),
        };
        let mut found = Vec::new();
        for source in sources {
            let question = Question {
                source,
                ends: &ends,
                now,
                said_before: now.plus_seconds(-STUCK_S),
                said_since: None,
                behind: i64::MIN,
                rows_max: OVERDUE_MAX - found.len(),
                is_new: true,
            };
            found.extend(expected::overdue(&state, &question)?);
        }
        Ok(found)
    }

    /// Looks once. Of what was called back before `started` nothing is known.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn look(&self, started: Timestamp) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let [journal, state] = &self.files;
        let state = open(state)?;
        if expected::is_empty(&state)? && !outstanding::has_index(&state)? {
            return Ok(());
        }
        // Unless it is there already: without it, each look would be a scan.
        self.on_thread.run(|state| outstanding::make_index(state, &ends::STATUSES));
        let journal = Reader::open(journal)?;
        let ends = ends_by(&journal)?;
        let now = self.clock.now();
        let stuck_since = now.plus_seconds(-STUCK_S);
        let overdue = expected::count_overdue(&state, &ends, now, stuck_since)?;
        for source in journal.dialects()?.into_keys() {
            let of_source = overdue.iter().find(|(name, _)| **name == *source);
            let overdue = of_source.map_or(0, |(_, count)| *count);
            let stuck = outstanding::count_stuck(&state, &source, &ends, stuck_since)?;
            let last = self.metrics.last_callback(&source).unwrap_or(started).max(started);
            let is_silent = is_expected_since(&state, &source, &ends, (last, now))?;
            let expectation = Expectation { overdue, stuck, is_silent };
            self.metrics.expects(&source, &expectation);
        }
        Ok(())
    }
}

/// Whether something was sent through that source after it last called back, long enough ago, and has no
/// end.
fn is_expected_since(
    state: &Connection,
    source: &str,
    ends: &Ends,
    (last, now): (Timestamp, Timestamp),
) -> rusqlite::Result<bool> {
    let before = now.plus_seconds(-SILENT_S);
    // The one heard of first; they come in that order.
    let heard = outstanding::outstanding(state, source, ends, (last, i64::MIN), 1)?;
    Ok(heard.iter().any(|row| row.first_received_at < before)
        || expected::is_any_open(state, source, ends, (last, before))?)
}

/// What is an end in each source, by whose platform the journal says it is.
///
/// # Errors
/// Of SQLite.
pub fn ends_by(journal: &Reader) -> rusqlite::Result<Ends> {
    let dialects = journal.dialects()?;
    Ok(ends::of(dialects.iter().map(|(source, dialect)| (&**source, dialect.provider))))
}

fn open(state: &Path) -> Result<Connection, sqlite::OpenError> {
    sqlite::open(state, &SCHEMA, Access::Read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callback::Expected;
    use crate::provider::Provider;
    use crate::state::expected::{ExpectedRow, put_expected};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(0).plus_seconds(second)
    }

    #[test]
    fn a_source_is_silent_if_something_was_sent_after_it_spoke_and_half_an_hour_has_passed() {
        let state = sqlite::open_in_memory(&SCHEMA).unwrap();
        let ends = ends::of([("gc", Provider::GcNotify)]);
        let is_silent =
            |last, now| is_expected_since(&state, "gc", &ends, (at(last), at(now))).unwrap();
        assert!(!is_silent(0, 10_000), "nothing was sent");
        let (id, reference, deadline) = ("a".to_owned(), None, None);
        let expected = Expected { id, reference, deadline };
        let said = ExpectedRow { key: 1, source: "gc".into(), expected, received_at: at(1_000) };
        put_expected(&state, &said).unwrap();
        assert!(!is_silent(900, 1_000 + SILENT_S), "there is time");
        assert!(is_silent(900, 1_001 + SILENT_S));
        assert!(!is_silent(1_100, 10_000), "it has spoken since");
        let heard = "INSERT INTO notification_row (key, id, source, status, receipts, duplicates,
                     first_received_at, last_received_at) VALUES (2, 'a', 'gc', ?1, 1, 0, ?2, ?2)";
        state.execute(heard, ["delivered", &at(2_000).to_string()]).unwrap();
        assert!(!is_silent(900, 10_000), "it has come to an end");
        state.execute("UPDATE notification_row SET status = 'sending'", []).unwrap();
        assert!(is_silent(1_500, 10_000), "what was heard of counts like what was said");
    }
}
