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
//! What it costs goes by what is open, not by all that was ever sent: what has ended is left out from then
//! on ([`awaited`]). It reads through a connection of its own, on a thread for work that blocks, in short
//! questions that SQLite itself ends, so that the write-ahead log can be cut between them; and changes
//! nothing but what it looks through, on the thread that writes. A look that fails, or takes too long, is
//! counted, and takes away what the one before had told: no number is better than a wrong one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::time::timeout;

use crate::clock::{Clock, Timestamp};
use crate::ends::Ends;
use crate::journal::Journal;
use crate::journal::reader::Reader;
use crate::provider::ends;
use crate::settle::{OnThread, Settled, say_overdue};
use crate::sqlite::{self, Access};
use crate::state::awaited::{self, Look};
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

/// What may be open, of one question.
const WINDOW_ROWS_MAX: usize = 1_000;

/// How long one question may take: so long it may keep the write-ahead log from being cut.
const QUESTION_MS_MAX: Duration = Duration::from_millis(2_000);

/// How long one look may take.
const LOOK_MS_MAX: Duration = Duration::from_millis(20_000);

/// How long to wait until everything acknowledged is settled before anything is said to be overdue.
const SETTLED_MAX: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error + Send + Sync>;

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
            note(&self.metrics, looked.unwrap_or_else(|error| Err(error.into())));
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
            Ok(Err(error)) => return note(&self.metrics, Err(error)),
            Err(error) => return note(&self.metrics, Err(error.into())),
        };
        // What is refused is found again at the next look.
        if let Err(error) = say_overdue(&self.journal, self.clock.now(), &found).await {
            tracing::debug!(%error, "what is overdue could not be kept");
        }
    }

    fn newly_overdue(&self) -> Result<Vec<Overdue>, Failure> {
        let mut reading = Reading::open(&self.files[1], (QUESTION_MS_MAX, LOOK_MS_MAX))?;
        if !self.has_anything(&mut reading)? {
            return Ok(Vec::new());
        }
        let now = self.clock.now();
        let ends = ends_by(&Reader::open(&self.files[0])?)?;
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
            found.extend(expected::overdue(reading.ask()?, &question)?);
        }
        Ok(found)
    }

    /// Looks once. Of what was called back before `started` nothing is known.
    ///
    /// # Errors
    /// If a file cannot be read, or not in time.
    pub fn look(&self, started: Timestamp) -> Result<(), Failure> {
        let [journal, state] = &self.files;
        let mut reading = Reading::open(state, (QUESTION_MS_MAX, LOOK_MS_MAX))?;
        if !self.has_anything(&mut reading)? {
            return Ok(());
        }
        let journal = Reader::open(journal)?;
        let ends = ends_by(&journal)?;
        let now = self.clock.now();
        let stuck_since = now.plus_seconds(-STUCK_S);
        let overdue = count_overdue(&mut reading, &ends, now, |ended| {
            let ends = ends.clone();
            let left_out =
                self.on_thread.run(move |state| awaited::leave_out(state, &ends, &ended));
            left_out.unwrap_or(Ok(0)).map(drop)
        })?;
        let mut all = Vec::new();
        for source in journal.dialects()?.into_keys() {
            let last = self.metrics.last_callback(&source).unwrap_or(started).max(started);
            let expectation = Expectation {
                overdue: overdue.get(&*source).copied().unwrap_or(0),
                stuck: outstanding::count_stuck(reading.ask()?, &source, &ends, stuck_since)?,
                is_silent: is_expected_since(&mut reading, &source, &ends, (last, now))?,
            };
            all.push((source, expectation));
        }
        // All or nothing: half a look would leave numbers of different minutes.
        all.iter().for_each(|(source, expectation)| self.metrics.expects(source, expectation));
        Ok(())
    }

    /// Whether there is anything to look for. If so the writer has made sure that it is found without a
    /// scan.
    fn has_anything(&self, reading: &mut Reading) -> Result<bool, Failure> {
        let state = reading.ask()?;
        if expected::is_empty(state)? && !outstanding::has_index(state)? {
            return Ok(false);
        }
        let ends = ends_by(&Reader::open(&self.files[0])?)?;
        let made = self.on_thread.run(move |state| {
            outstanding::make_index(state, &ends::STATUSES)?;
            awaited::begin(state, &ends)
        });
        made.unwrap_or(Ok(false))?;
        Ok(true)
    }
}

/// Tells how a look ended.
fn note(metrics: &Metrics, looked: Result<(), Failure>) {
    if let Err(error) = looked {
        metrics.expects_unknown();
        tracing::warn!(
            %error,
            "what is overdue, stuck or silent could not be counted; it is tried again"
        );
    }
}

/// A connection that is read through in questions, each within a time, as all of them are.
struct Reading {
    state: Connection,
    question_ms_max: Duration,
    until: Instant,
}

impl Reading {
    fn open(state: &Path, (question, all): (Duration, Duration)) -> Result<Self, Failure> {
        let state = sqlite::open(state, &SCHEMA, Access::Read)?;
        Ok(Self { state, question_ms_max: question, until: Instant::now() + all })
    }

    /// To ask one question; the time for it begins now.
    fn ask(&mut self) -> Result<&Connection, Failure> {
        let now = Instant::now();
        if now >= self.until {
            return Err("there is no time left".into());
        }
        sqlite::end_at(&mut self.state, self.until.min(now + self.question_ms_max))?;
        Ok(&self.state)
    }
}

/// How many of each source are overdue. `leave_out` is handed those that have come to an end.
fn count_overdue(
    reading: &mut Reading,
    ends: &Ends,
    now: Timestamp,
    mut leave_out: impl FnMut(Vec<i64>) -> rusqlite::Result<()>,
) -> Result<BTreeMap<String, i64>, Failure> {
    let mut counts = BTreeMap::new();
    let mut look = Look {
        ends,
        now,
        said_before: now.plus_seconds(-STUCK_S),
        behind: i64::MIN,
        rows_max: WINDOW_ROWS_MAX,
    };
    loop {
        let rows = awaited::look(reading.ask()?, &look)?;
        let Some(last) = rows.last() else { return Ok(counts) };
        look.behind = last.key;
        let ended: Vec<i64> = rows.iter().filter(|row| row.has_ended).map(|row| row.key).collect();
        if !ended.is_empty() {
            leave_out(ended)?;
        }
        for row in rows.into_iter().filter(|row| row.is_overdue) {
            *counts.entry(row.source).or_default() += 1;
        }
    }
}

/// Whether something was sent through that source after it last called back, long enough ago, and has no
/// end.
fn is_expected_since(
    reading: &mut Reading,
    source: &str,
    ends: &Ends,
    (last, now): (Timestamp, Timestamp),
) -> Result<bool, Failure> {
    let before = now.plus_seconds(-SILENT_S);
    // The one heard of first; they come in that order.
    let heard = outstanding::outstanding(reading.ask()?, source, ends, (last, i64::MIN), 1)?;
    Ok(heard.iter().any(|row| row.first_received_at < before)
        || expected::is_any_open(reading.ask()?, source, ends, (last, before))?)
}

/// What is an end in each source, by whose platform the journal says it is.
///
/// # Errors
/// Of SQLite.
pub fn ends_by(journal: &Reader) -> rusqlite::Result<Ends> {
    let dialects = journal.dialects()?;
    Ok(ends::of(dialects.iter().map(|(source, dialect)| (&**source, dialect.provider))))
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

    fn reading(state: Connection) -> Reading {
        Reading { state, question_ms_max: QUESTION_MS_MAX, until: Instant::now() + LOOK_MS_MAX }
    }

    fn say(state: &Connection, key: i64, id: &str, deadline: Option<i64>) {
        let expected = Expected { id: id.into(), reference: None, deadline: deadline.map(at) };
        let row = ExpectedRow { key, source: "gc".into(), expected, received_at: at(1_000) };
        put_expected(state, &row).unwrap();
    }

    #[test]
    fn a_source_is_silent_if_something_was_sent_after_it_spoke_and_half_an_hour_has_passed() {
        let mut reading = reading(sqlite::open_in_memory(&SCHEMA).unwrap());
        let ends = ends::of([("gc", Provider::GcNotify)]);
        let is_silent = |reading: &mut Reading, last, now| {
            is_expected_since(reading, "gc", &ends, (at(last), at(now))).unwrap()
        };
        assert!(!is_silent(&mut reading, 0, 10_000), "nothing was sent");
        say(&reading.state, 1, "a", None);
        assert!(!is_silent(&mut reading, 900, 1_000 + SILENT_S), "there is time");
        assert!(is_silent(&mut reading, 900, 1_001 + SILENT_S));
        assert!(!is_silent(&mut reading, 1_100, 10_000), "it has spoken since");
        let heard = "INSERT INTO notification_row (key, id, source, status, receipts, duplicates,
                     first_received_at, last_received_at) VALUES (2, 'a', 'gc', ?1, 1, 0, ?2, ?2)";
        reading.state.execute(heard, ["delivered", &at(2_000).to_string()]).unwrap();
        assert!(!is_silent(&mut reading, 900, 10_000), "it has come to an end");
        reading.state.execute("UPDATE notification_row SET status = 'sending'", []).unwrap();
        assert!(
            is_silent(&mut reading, 1_500, 10_000),
            "what was heard of counts like what was said"
        );
    }

    #[test]
    fn however_many_are_open_each_is_counted_once_and_what_has_ended_is_handed_over() {
        let state = sqlite::open_in_memory(&SCHEMA).unwrap();
        let open = i64::try_from(WINDOW_ROWS_MAX).unwrap() * 2 + 10;
        (0..open).for_each(|key| say(&state, key, &format!("n{key}"), Some(2_000)));
        state
            .execute_batch(
                "INSERT INTO notification_row (key, id, source, status, receipts, duplicates,
                    first_received_at, last_received_at)
                 SELECT key, id, source, 'delivered', 1, 0, '', '' FROM expected_row
                 WHERE key % 10 = 0;",
            )
            .unwrap();
        let mut handed_over = Vec::new();
        let counts = count_overdue(&mut reading(state), &ends::of([]), at(3_000), |mut ended| {
            handed_over.append(&mut ended);
            Ok(())
        });
        let ended: Vec<i64> = (0..open).step_by(10).collect();
        let overdue = open - i64::try_from(ended.len()).unwrap();
        assert_eq!(counts.unwrap(), BTreeMap::from([("gc".to_owned(), overdue)]));
        assert_eq!(handed_over, ended);
    }

    #[test]
    fn a_look_that_takes_too_long_ends_and_takes_away_what_the_last_one_told() {
        let metrics = Metrics::new();
        let expectation = Expectation { overdue: 7, stuck: 8, is_silent: true };
        metrics.expects("gc", &expectation);
        let page = |metrics: &Metrics| metrics.page(&crate::telemetry::Snapshot::default());
        assert!(page(&metrics).contains("receiptd_expected_overdue{source=\"gc\"} 7"));
        let state = sqlite::open_in_memory(&SCHEMA).unwrap();
        (0..5_000).for_each(|key| say(&state, key, &format!("n{key}"), Some(2_000)));
        // A question that has no time, and a look that has none.
        let mut slow = Reading { question_ms_max: Duration::ZERO, ..reading(state) };
        let looked = count_overdue(&mut slow, &ends::of([]), at(3_000), |_| Ok(()));
        let error = looked.unwrap_err();
        let interrupted =
            error.downcast_ref::<rusqlite::Error>().is_some_and(sqlite::is_out_of_time);
        assert!(interrupted, "{error}");
        let mut late = Reading { until: Instant::now(), ..slow };
        let looked = count_overdue(&mut late, &ends::of([]), at(3_000), |_| Ok(())).map(drop);
        assert!(looked.is_err());
        note(&metrics, looked);
        let page = page(&metrics);
        for gone in ["expected_overdue{", "stuck{", "expected_silent{"] {
            assert!(!page.contains(&format!("receiptd_{gone}")), "{page}");
        }
        assert!(page.contains("receiptd_lookout_failures_total 1"), "{page}");
    }
}
