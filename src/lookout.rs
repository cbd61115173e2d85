//! Once a minute: what should have come and has not.
//!
//! Counts, by source, what the app said it sent and is overdue, and what has had no end for longer than
//! the platforms take; and says of which sources something is expected while they are silent: since the
//! source last called back, also before a restart, something was sent that platforms call back about, and
//! half an hour has passed. Nothing is looked up where nobody asked for it: it takes an upstream, or an app
//! that says what it sends.
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
use crate::state::awaited::{self, Look, Looked, WINDOW_ROWS_MAX};
use crate::state::expected::{Overdue, Question, overdue_in_window};
use crate::state::outstanding::{Counted, Counting, Place};
use crate::state::tables::SCHEMA;
use crate::state::{expected, outstanding};
use crate::telemetry::{Expectation, Metrics};

/// The platforms give up after 72 hours; what has no end by then, in seconds, is stuck.
pub const STUCK_S: i64 = 72 * 3_600;

/// A source is silent if so long after something was sent, in seconds, it has not called back.
const SILENT_S: i64 = 1_800;

/// So long after a start, in seconds, no source is called silent: whoever found nobody here comes again
/// within five minutes, on every platform.
const COME_AGAIN_S: i64 = 600;

/// How often to look.
const LOOK: Duration = Duration::from_secs(60);

/// What is said to be overdue at one look, give or take a window; the rest at the next.
const OVERDUE_MAX: usize = 10_000;

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
        let mut behind = i64::MIN;
        loop {
            if self.told_of.as_ref().is_none_or(|sources| !sources.is_empty()) {
                behind = self.tell(behind).await;
            }
            let lookout = self.clone();
            let looked = tokio::task::spawn_blocking(move || lookout.look(started)).await;
            note(&self.metrics, looked.unwrap_or_else(|error| Err(error.into())));
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Says what is newly overdue of what the app said behind that key; and behind which the next look goes
    /// on.
    async fn tell(&self, behind: i64) -> i64 {
        let committed = self.journal.progress().committed();
        let settled = timeout(SETTLED_MAX, self.settled.reaches(committed)).await;
        if !matches!(settled, Ok(true)) {
            return behind;
        }
        let lookout = self.clone();
        let looked = tokio::task::spawn_blocking(move || lookout.newly_overdue(behind)).await;
        let (found, next) = match looked.unwrap_or_else(|error| Err(error.into())) {
            Ok(found) => found,
            Err(error) => {
                note(&self.metrics, Err(error));
                return i64::MIN;
            }
        };
        // What is refused is found again at the next look.
        if let Err(error) = say_overdue(&self.journal, self.clock.now(), &found).await {
            tracing::debug!(%error, "what is overdue could not be kept");
            return behind;
        }
        next
    }

    fn newly_overdue(&self, behind: i64) -> Result<(Vec<Overdue>, i64), Failure> {
        let mut reading = Reading::open(&self.files[1], (QUESTION_MS_MAX, LOOK_MS_MAX))?;
        if !self.has_anything(&mut reading)? {
            return Ok((Vec::new(), i64::MIN));
        }
        let now = self.clock.now();
        let ends = ends_by(&Reader::open(&self.files[0])?)?;
        let question = Question {
            source: None,
            ends: &ends,
            now,
            said_before: now.plus_seconds(-STUCK_S),
            said_since: None,
            behind,
            rows_max: WINDOW_ROWS_MAX,
            is_new: true,
        };
        find_overdue(&mut reading, question, |source| {
            self.told_of.as_ref().is_none_or(|sources| sources.iter().any(|name| name == source))
        })
    }

    /// Looks once, in a process that began at `started`.
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
        let stuck_before = now.plus_seconds(-STUCK_S);
        let silences: Silences = journal
            .dialects()?
            .into_iter()
            .map(|(source, dialect)| {
                // Who is not configured any more is expected to be silent.
                let is_there = self.metrics.is_configured(&source);
                let last = self.metrics.last_callback(&source);
                let between = is_there.then(|| silence(last, started, now)).flatten();
                let but_of = ends::never_called_back(dialect.provider);
                (source, Silence { between, but_of })
            })
            .collect();
        let mut said = count_awaited(&mut reading, &ends, (now, &silences), |ended| {
            let ends = ends.clone();
            let left_out =
                self.on_thread.run(move |state| awaited::leave_out(state, &ends, &ended));
            left_out.unwrap_or(Ok(0)).map(drop)
        })?;
        let mut all = Vec::new();
        for (source, silence) in silences {
            let said = said.remove(&*source).unwrap_or_default();
            let Silence { between, but_of: heard_but_of } = silence;
            // Between now and now there is nothing.
            let heard = between.unwrap_or((now, now));
            let counting =
                Counting { source: &source, ends: &ends, stuck_before, heard, heard_but_of };
            let heard = count_outstanding(&mut reading, &counting)?;
            let is_silent = said.is_any_unheard || heard.is_any_heard;
            let expectation = Expectation { overdue: said.overdue, stuck: heard.stuck, is_silent };
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
        let index = |state: &mut Connection| outstanding::make_index(state, &ends::STATUSES);
        self.on_thread.run(index).unwrap_or(Ok(false))?;
        // Step by step, so that what is called back is settled in between.
        let mut behind = Some(i64::MIN);
        while let Some(key) = behind {
            let ends = ends.clone();
            let step = self.on_thread.run(move |state| awaited::begin(state, &ends, key));
            behind = step.unwrap_or(Ok(None))?;
        }
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

/// What is overdue of the sources that `is_told`, window by window, and behind which key the next look goes
/// on: from the beginning once all was looked at. What was found when the time is over is not lost.
fn find_overdue(
    reading: &mut Reading,
    mut question: Question<'_>,
    is_told: impl Fn(&str) -> bool,
) -> Result<(Vec<Overdue>, i64), Failure> {
    let (began, mut found) = (question.behind, Vec::new());
    while found.len() < OVERDUE_MAX {
        let asked = reading.ask().and_then(|state| Ok(overdue_in_window(state, &question)?));
        let (rows, next) = match asked {
            Ok(window) => window,
            Err(_) if question.behind > began => break,
            Err(error) => return Err(error),
        };
        found.extend(rows.into_iter().filter(|row| is_told(&row.source)));
        let Some(next) = next else { return Ok((found, i64::MIN)) };
        question.behind = next;
    }
    Ok((found, question.behind))
}

/// Of what a source was silent.
#[derive(Clone, Copy, Debug)]
struct Silence {
    /// Of what was sent between these two times; of nothing if it may still speak.
    between: Option<(Timestamp, Timestamp)>,
    /// But of this type it never speaks.
    but_of: Option<&'static str>,
}

impl Silence {
    /// Whether that should have been called back about and was not.
    fn covers(&self, row: &Looked) -> bool {
        let is_type =
            self.but_of.is_none_or(|but_of| row.notification_type.as_deref() != Some(but_of));
        is_type
            && self.between.is_some_and(|(after, before)| row.since > after && row.since < before)
    }
}

type Silences = BTreeMap<Arc<str>, Silence>;

/// Between which times a source was silent that last called back then, and for what was sent after which
/// there is no time any more. `None` while it may still come again because nobody was here.
fn silence(
    last: Option<Timestamp>,
    started: Timestamp,
    now: Timestamp,
) -> Option<(Timestamp, Timestamp)> {
    // When it last called back before this start is not always known; then it counts from the start on.
    let silent = (last.unwrap_or(started), now.plus_seconds(-SILENT_S));
    (now >= started.plus_seconds(COME_AGAIN_S)).then_some(silent)
}

/// What there is of one source among what the app said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    overdue: i64,
    /// Something open was said while the source was silent.
    is_any_unheard: bool,
}

/// How many of each source are overdue, and whether it was silent about any.
/// `leave_out` is handed those that have come to an end.
fn count_awaited(
    reading: &mut Reading,
    ends: &Ends,
    (now, silences): (Timestamp, &Silences),
    mut leave_out: impl FnMut(Vec<i64>) -> rusqlite::Result<()>,
) -> Result<BTreeMap<String, Said>, Failure> {
    let mut counts: BTreeMap<String, Said> = BTreeMap::new();
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
        for row in rows.into_iter().filter(|row| !row.has_ended) {
            let is_unheard = silences.get(&*row.source).is_some_and(|silence| silence.covers(&row));
            let said = counts.entry(row.source).or_default();
            said.overdue += i64::from(row.is_overdue);
            said.is_any_unheard |= is_unheard;
        }
    }
}

/// What of one source was heard of and has no end, window by window.
fn count_outstanding(reading: &mut Reading, counting: &Counting<'_>) -> Result<Counted, Failure> {
    let (mut counted, mut place) = (Counted::default(), Some(Place::FIRST));
    while let Some(at) = place {
        place = outstanding::count_in_window(reading.ask()?, counting, at, &mut counted)?;
    }
    Ok(counted)
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
            let heard = (at(last), at(now - SILENT_S));
            let silence = Silence { between: Some(heard), but_of: Some("letter") };
            let silences = BTreeMap::from([("gc".into(), silence)]);
            let said = count_awaited(reading, &ends, (at(now), &silences), |_| Ok(())).unwrap();
            let heard_but_of = Some("letter");
            let counting =
                Counting { source: "gc", ends: &ends, stuck_before: at(0), heard, heard_but_of };
            said.get("gc").is_some_and(|said| said.is_any_unheard)
                || count_outstanding(reading, &counting).unwrap().is_any_heard
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
        reading
            .state
            .execute("UPDATE notification_row SET notification_type = 'letter'", [])
            .unwrap();
        assert!(!is_silent(&mut reading, 900, 10_000), "nobody calls back about a letter");
    }

    #[test]
    fn a_restart_hides_no_silence_and_is_none_while_senders_still_come_again() {
        let started = 100_000;
        let of = |last: Option<i64>, now| silence(last.map(at), at(started), at(now));
        assert_eq!(of(Some(5), started), None);
        assert_eq!(of(Some(5), started + COME_AGAIN_S - 1), None);
        let now = started + COME_AGAIN_S;
        assert_eq!(of(Some(5), now), Some((at(5), at(now - SILENT_S))));
        // What was not called back about before a start is not known to have been.
        assert_eq!(of(None, now), Some((at(started), at(now - SILENT_S))));
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
        let of_none = (at(3_000), &BTreeMap::new());
        let counts = count_awaited(&mut reading(state), &ends::of([]), of_none, |mut ended| {
            handed_over.append(&mut ended);
            Ok(())
        });
        let ended: Vec<i64> = (0..open).step_by(10).collect();
        let overdue = open - i64::try_from(ended.len()).unwrap();
        let said = Said { overdue, is_any_unheard: false };
        assert_eq!(counts.unwrap(), BTreeMap::from([("gc".to_owned(), said)]));
        assert_eq!(handed_over, ended);
    }

    #[test]
    fn what_one_look_has_no_room_for_the_next_goes_on_with_and_others_are_passed_over() {
        let state = sqlite::open_in_memory(&SCHEMA).unwrap();
        let all = i64::try_from(OVERDUE_MAX + 2 * WINDOW_ROWS_MAX).unwrap();
        let sql = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
            INSERT INTO expected_row SELECT
                i, iif(i % 100, 'gc', 'va'), 'id-' || i, NULL, ?2, ?2, i, ?2, NULL FROM n";
        state.execute(sql, rusqlite::params![all, at(10).to_string()]).unwrap();
        let (mut reading, ends) = (reading(state), ends::of([]));
        let mut question = Question {
            source: None,
            ends: &ends,
            now: at(20),
            said_before: at(0),
            said_since: None,
            behind: i64::MIN,
            rows_max: WINDOW_ROWS_MAX,
            is_new: true,
        };
        let mut keys = Vec::new();
        for is_last in [false, true] {
            let looked = find_overdue(&mut reading, question, |source| source == "gc");
            let (found, next) = looked.unwrap();
            assert!(found.len() < OVERDUE_MAX + WINDOW_ROWS_MAX);
            assert_eq!(next == i64::MIN, is_last);
            keys.extend(found.into_iter().map(|row| row.key));
            question.behind = next;
        }
        assert_eq!(keys, (1..=all).filter(|key| key % 100 != 0).collect::<Vec<_>>());
        // With no time left for even one window the look says so.
        reading.until = Instant::now();
        assert!(find_overdue(&mut reading, question, |_| true).is_err());
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
        let of_none = (at(3_000), &BTreeMap::new());
        let looked = count_awaited(&mut slow, &ends::of([]), of_none, |_| Ok(()));
        let error = looked.unwrap_err();
        let interrupted =
            error.downcast_ref::<rusqlite::Error>().is_some_and(sqlite::is_out_of_time);
        assert!(interrupted, "{error}");
        let mut late = Reading { until: Instant::now(), ..slow };
        let looked = count_awaited(&mut late, &ends::of([]), of_none, |_| Ok(())).map(drop);
        assert!(looked.is_err());
        note(&metrics, looked);
        let page = page(&metrics);
        for gone in ["expected_overdue{", "stuck{", "expected_silent{"] {
            assert!(!page.contains(&format!("receiptd_{gone}")), "{page}");
        }
        assert!(page.contains("receiptd_lookout_failures_total 1"), "{page}");
    }
}
