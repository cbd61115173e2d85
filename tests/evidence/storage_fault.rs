//! Promise 3: a fault of the storage never gives a false 2xx.
//!
//! strace makes one system call on one of the files fail with EIO, once, and lets every later one
//! succeed: the fault that SQLite itself forgets. Each call of each thread is such a point: the Nth
//! is failed, N moving by one until a run meets none. The threads are traced one at a time, so that
//! an early failure of one does not hide the points of another; the first thread is traced from its
//! very beginning, the others once it listens.
//!
//! At every point: what was acknowledged is there on the healthy disk afterwards. If a writing call
//! on the journal failed while callbacks were taken, readiness is gone within a second and the exit
//! code is 74. If it was the state, receiving does not notice, and settling catches up by itself.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use super::Promise;
use super::compare::{Kept, Round};
use super::control;
use super::ledger::Ledger;
use super::machine::Need;
use super::place::{Place, ask, exit_code};
use super::report::{Control, Found};
use super::sender::Connection;
use super::support::{Receiptd, holds_within};
use super::trace;

/// What `main` needs to know.
pub const PROMISE: Promise = Promise {
    name: "storage-fault",
    number: 3,
    claim: "a storage fault never gives a false 2xx",
    needs_root: false,
    needs: &[Need::Program("strace", "strace"), Need::Traces],
    rounds: (2_000, 26),
    run,
};

/// The exit code of a receiver whose disk failed.
const DISK_FAILED: i32 = 74;

/// How long readiness may outlive a fault of the journal.
const READY_MAX: Duration = Duration::from_secs(1);

/// Callbacks posted one after the other, so that each is a commit, before a checkpoint and after.
const POSTS: [usize; 2] = [6, 4];

/// Longer than the checkpointing threads wait before they look.
const CHECKPOINT: Duration = Duration::from_millis(650);

const PATIENCE: Duration = Duration::from_secs(20);

/// A thread of the receiver, by the name the kernel has, cut to fifteen letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    /// The first one, which opens the files; from its beginning.
    First,
    Named(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum File {
    Journal,
    State,
}

/// Points that are tried one after the other.
#[derive(Clone, Copy, Debug)]
struct Series {
    thread: Thread,
    file: File,
    call: &'static str,
}

const CALLS: [&str; 4] = ["fsync,fdatasync", "pwrite64", "ftruncate", "openat"];

const THREADS: [(Thread, File); 6] = [
    (Thread::First, File::Journal),
    (Thread::First, File::State),
    (Thread::Named("journal"), File::Journal),
    (Thread::Named("journal-checkpo"), File::Journal),
    (Thread::Named("settle"), File::State),
    (Thread::Named("state-checkpoin"), File::State),
];

#[derive(Default)]
struct Tally {
    points: u64,
    in_start: u64,
    journal: u64,
    state: u64,
    clean: u64,
    ended_74: u64,
    acknowledged: u64,
    lost: u64,
    corrupt: u64,
    ready_max: Duration,
    problems: Vec<String>,
}

fn run(rounds: u32, seed: u64) -> Found {
    let mut tally = Tally::default();
    let series = THREADS.iter().flat_map(|(thread, file)| {
        CALLS.iter().map(|call| Series { thread: *thread, file: *file, call })
    });
    let mut open: Vec<Series> = series.collect();
    let (mut tried, mut when) = (0, 1);
    // The first point of every series, then the second of those that have one: few rounds see a
    // little of each.
    while !open.is_empty() && tried < rounds {
        open.retain(|series| {
            tried += 1;
            tried > rounds || try_point(*series, when, seed, &mut tally)
        });
        when += 1;
    }
    let control = control(seed)
        .unwrap_or_else(|why| Control { what: format!("not tried: {why}"), caught: false });
    found(tally, open.is_empty(), control)
}

fn found(tally: Tally, is_complete: bool, control: Control) -> Found {
    let Tally { points, acknowledged, lost, corrupt, .. } = tally;
    let ready_ms = u64::try_from(tally.ready_max.as_millis()).unwrap_or(u64::MAX);
    let extent = if is_complete { "every point" } else { "a part" };
    Found {
        held: lost == 0 && corrupt == 0 && points > 0,
        figure: format!(
            "{lost} acknowledged but absent of {acknowledged}, at {points} points of failure \
             ({extent}); readiness gone within {ready_ms} ms"
        ),
        counts: vec![
            ("points of failure".to_owned(), points),
            ("of these, in the start".to_owned(), tally.in_start),
            ("of these, the journal in operation".to_owned(), tally.journal),
            ("of these, the state in operation".to_owned(), tally.state),
            ("runs that met none".to_owned(), tally.clean),
            ("ended with 74".to_owned(), tally.ended_74),
            ("acknowledged".to_owned(), acknowledged),
            ("acknowledged but absent".to_owned(), lost),
            ("damaged files".to_owned(), corrupt),
            ("slowest readiness to go, ms".to_owned(), ready_ms),
        ],
        control,
        problems: tally.problems,
    }
}

/// Fails the call of that number; whether there was one.
fn try_point(series: Series, when: u32, seed: u64, tally: &mut Tally) -> bool {
    let mut round = Round::default();
    let mut hit = false;
    match Point::run(series, when, seed, &mut round) {
        Err(why) => round.problems.push(why),
        Ok(seen) if seen.fault.is_none() => tally.clean += 1,
        Ok(seen) => {
            hit = true;
            tally.points += 1;
            match series {
                Series { thread: Thread::First, .. } => tally.in_start += 1,
                Series { file: File::Journal, .. } => tally.journal += 1,
                Series { file: File::State, .. } => tally.state += 1,
            }
            tally.ended_74 += u64::from(seen.code == Some(DISK_FAILED));
            tally.acknowledged += seen.acknowledged;
            if series.file == File::Journal && seen.in_operation {
                tally.ready_max = tally.ready_max.max(seen.ready_after);
            }
            round.problems.extend(seen.problems(series));
        }
    }
    tally.lost += round.lost;
    tally.corrupt += round.corrupt;
    let problems = round.problems.iter().map(|p| format!("{series:?} number {when}: {p}"));
    tally.problems.extend(problems);
    hit
}

/// What came of one point.
struct Seen {
    /// When the call was failed, if it was.
    fault: Option<SystemTime>,
    /// When it was asked to stop.
    asked: SystemTime,
    /// Whether the fault was before that.
    in_operation: bool,
    started: bool,
    code: Option<i32>,
    /// From the fault to the first answer of `/readyz` that was not yes; 0 if that never was asked.
    ready_after: Duration,
    /// Whether `/readyz` said no after the fault, or nobody was there to answer.
    was_unready: bool,
    /// Whether it said no before it was asked to stop.
    was_unready_in_operation: bool,
    acknowledged: u64,
    refused: u64,
    settled: bool,
}

impl Seen {
    /// What is not as promised, beyond the comparison of the files.
    fn problems(&self, series: Series) -> Vec<String> {
        let mut problems = Vec::new();
        let mut expect = |is_so: bool, what: &str| {
            if !is_so {
                problems.push(format!(
                    "{what} (exit {:?}, started {}, acknowledged {}, refused {}, settled {})",
                    self.code, self.started, self.acknowledged, self.refused, self.settled
                ));
            }
        };
        match series.file {
            _ if series.thread == Thread::First => {
                let is_fine =
                    self.code == Some(DISK_FAILED) || (self.started && self.code == Some(0));
                expect(is_fine, "a start on a failing disk neither worked nor ended with 74");
            }
            File::Journal if self.in_operation => {
                expect(
                    self.code == Some(DISK_FAILED),
                    "the journal failed, the exit code is not 74",
                );
                expect(self.was_unready, "the journal failed, and it was ready to the end");
                expect(
                    self.ready_after <= READY_MAX,
                    "ready for more than a second after the fault",
                );
            }
            File::Journal => {
                let is_fine = matches!(self.code, Some(0 | DISK_FAILED));
                expect(is_fine, "a fault while stopping ended otherwise than with 0 or 74");
            }
            File::State => {
                expect(self.code == Some(0), "the state failed, and the receiver did not end well");
                expect(self.refused == 0, "the state failed, and callbacks were refused");
                expect(!self.was_unready_in_operation, "the state failed, and readiness went");
                expect(self.settled || !self.in_operation, "settling did not catch up");
            }
        }
        problems
    }
}

struct Point {
    place: Place,
    ledger: Arc<Ledger>,
    trace: PathBuf,
}

impl Point {
    fn run(series: Series, when: u32, seed: u64, round: &mut Round) -> Result<Seen, String> {
        let place = Place::new();
        let trace = place.folder().join("trace");
        let ledger = Ledger::new(seed.wrapping_add(u64::from(when)), 0);
        let point = Self { place, ledger, trace };
        let options = point.options(series, &format!("error=EIO:when={when}"));
        let seen = match series.thread {
            Thread::First => point.at_start(&options),
            Thread::Named(name) => point.in_operation(name, &options),
        }?;
        round.look(&point.place, &point.ledger);
        round.recover(&point.place, &point.ledger);
        Ok(seen)
    }

    /// For strace: which calls, on which files, and what becomes of them.
    fn options(&self, series: Series, fault: &str) -> Vec<String> {
        let file = match series.file {
            File::Journal => self.place.journal(),
            File::State => self.place.state(),
        };
        trace::options(&self.trace, &file, series.call, fault)
    }

    fn at_start(&self, options: &[String]) -> Result<Seen, String> {
        let plain = self.place.receiptd(&["serve"]);
        let started = self.place.start_as(trace::traced(options, &plain));
        let (mut receiver, mut seen) = match started {
            Err(_) => (None, Seen::never_started()),
            Ok(receiver) => {
                let seen = self.exercise(&receiver);
                (Some(receiver), seen)
            }
        };
        if let Some(receiver) = &mut receiver {
            seen.code = exit_code(receiver)?;
        }
        // strace tells how it ended even if nobody was there to ask.
        let text = self.whole_trace()?;
        seen.code = seen.code.or_else(|| trace::exit_code(&text));
        seen.fault = trace::injected_at(&text);
        Ok(seen)
    }

    fn in_operation(&self, thread: &str, options: &[String]) -> Result<Seen, String> {
        let mut receiver = self.place.start()?;
        let mut tracer = trace::attach(&receiver, thread, options)?;
        let watch = Watch::start(receiver.admin);
        let mut seen = self.exercise(&receiver);
        seen.code = exit_code(&mut receiver)?;
        let samples = watch.stop();
        holds_within(PATIENCE, || !tracer.is_running());
        let text = fs::read_to_string(&self.trace).unwrap_or_default();
        seen.fault = trace::injected_at(&text);
        seen.in_operation = seen.fault.is_some_and(|at| at < seen.asked);
        seen.look_at(&samples);
        Ok(seen)
    }

    /// Posts, waits for a checkpoint, posts, empties the logs, settles, and asks it to stop.
    fn exercise(&self, receiver: &Receiptd) -> Seen {
        let mut connection = Connection::to(receiver.callbacks);
        let [before, after] = POSTS;
        (0..before).for_each(|_| connection.deliver(&self.ledger, self.ledger.next()));
        std::thread::sleep(CHECKPOINT);
        (0..after).for_each(|_| connection.deliver(&self.ledger, self.ledger.next()));
        // Nothing is that old: it only moves both logs into their files and cuts them.
        let mut prune = self.place.spawn(&["prune", "--bodies-only", "--older-than", "30d"]);
        holds_within(PATIENCE, || !prune.is_running());
        let settled = ask(receiver.admin, "/settled?wait=15s") == Some(204);
        let asked = SystemTime::now();
        let _ = rustix::process::kill_process(receiver.pid(), Signal::TERM);
        let answers = self.ledger.answers();
        Seen {
            asked,
            started: true,
            settled,
            acknowledged: self.ledger.mark() as u64,
            refused: answers.get(&503).copied().unwrap_or(0),
            ..Seen::never_started()
        }
    }

    /// The trace, once strace has written its last line.
    fn whole_trace(&self) -> Result<String, String> {
        let read = || fs::read_to_string(&self.trace).unwrap_or_default();
        let is_whole = holds_within(PATIENCE, || read().contains("+++ "));
        if is_whole { Ok(read()) } else { Err(format!("strace did not end: {}", read())) }
    }
}

impl Seen {
    fn never_started() -> Self {
        Self {
            fault: None,
            asked: SystemTime::UNIX_EPOCH,
            in_operation: false,
            started: false,
            code: None,
            ready_after: Duration::ZERO,
            was_unready: false,
            was_unready_in_operation: false,
            acknowledged: 0,
            refused: 0,
            settled: false,
        }
    }

    fn look_at(&mut self, samples: &[Sample]) {
        let Some(fault) = self.fault else { return };
        let asked = self.asked;
        // What was asked before the order to stop may be answered after it.
        self.was_unready_in_operation =
            samples.iter().any(|sample| !sample.is_ready && sample.answered < asked);
        self.was_unready = samples.iter().any(|sample| !sample.is_ready && sample.asked >= fault);
        let yes = samples.iter().filter(|sample| sample.is_ready && sample.asked >= fault);
        let last_yes = yes.map(|sample| sample.asked).max();
        if self.was_unready {
            self.ready_after =
                last_yes.and_then(|at| at.duration_since(fault).ok()).unwrap_or_default();
        }
    }
}

/// One answer of `/readyz`.
struct Sample {
    asked: SystemTime,
    answered: SystemTime,
    is_ready: bool,
}

/// Asks `/readyz` again and again.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Watch {
    fn start(admin: std::net::SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut samples = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let asked = SystemTime::now();
                    let is_ready = ask(admin, "/readyz") == Some(200);
                    samples.push(Sample { asked, answered: SystemTime::now(), is_ready });
                    std::thread::sleep(Duration::from_millis(10));
                }
                samples
            }
        });
        Self { stop, thread }
    }

    fn stop(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// The same fault in a receiver that answers before it keeps: its false 2xx must be seen.
fn control(seed: u64) -> Result<Control, String> {
    let place = Place::new();
    let ledger = Ledger::new(seed, 0);
    let trace = place.folder().join("trace");
    let mut options = trace::options(&trace, &place.journal(), "pwrite64", "error=EIO:when=20+");
    options.push("-f".to_owned());
    let receiver = place.start_as(trace::traced(&options, &control::command(&place.state())))?;
    let mut connection = Connection::to(receiver.callbacks);
    for _ in 0..100 {
        connection.deliver(&ledger, ledger.next());
    }
    drop(receiver);
    let kept = Kept::bodies(&place.journal()).unwrap_or_else(|_| Kept::nothing());
    let (mark, lost) = (ledger.mark(), kept.lost(&ledger, ledger.mark()));
    let what = format!(
        "EIO in a receiver that answers before it keeps: {lost} of {mark} acknowledged but absent"
    );
    Ok(Control { what, caught: lost > 0 })
}
