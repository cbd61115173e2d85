//! Promise 7: forwarding is at least once and in order per notification.
//!
//! A receiver with a sink that records is killed again and again: under load, while what the sink
//! could not take leaves, and while it starts. The sink takes some events and does not answer, and
//! refuses some. In the end each change says of itself which came before it, so the record alone tells
//! whether any is missing: for every notification it must be one chain from nothing to the truth, in
//! the order of the first arrivals, and every change must always have had the same id.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::Promise;
use super::compare::Round;
use super::ledger::Ledger;
use super::place::Place;
use super::report::{Control, Found};
use super::sender::{Load, finish, wait_for};
use super::support::{Chance, Receiptd, holds_within};

mod recorder;

use recorder::{Habit, Judged, Recorder};

/// What `main` needs to know.
pub const PROMISE: Promise = Promise {
    name: "forward",
    number: 7,
    claim: "Forwarding is at least once and in order per notification",
    needs_root: false,
    needs: &[],
    rounds: (100, 6),
    run,
};

const CONNECTIONS: usize = 16;

/// Acknowledged in every round before the kill, at least.
const ACKNOWLEDGED_MIN: usize = 150;

/// Kills on one database and one record; then a new one.
const ROUNDS_A_PLACE: u32 = 10;

const PATIENCE: Duration = Duration::from_secs(60);

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// A receiver under load, its sink taking what it is sent.
    Load,
    /// A receiver whose sink was down under load and is up again.
    Drain,
    /// A receiver that starts on what a kill has left.
    StartUp,
}

const MOMENTS: [Moment; 3] = [Moment::Load, Moment::Drain, Moment::StartUp];

#[derive(Default)]
struct Tally {
    kills: [u64; MOMENTS.len()],
    /// Of these, those that left changes owed.
    with_owed: u64,
    acknowledged: u64,
    judged: Judged,
    problems: Vec<String>,
}

fn run(rounds: u32, seed: u64) -> Found {
    let mut tally = Tally::default();
    let mut chance = Chance::of_seed(seed);
    let mut left = rounds;
    while left > 0 {
        let some = left.min(ROUNDS_A_PLACE);
        if let Err(why) = one_place(some, Habit::Fickle, &mut chance, &mut tally) {
            tally.problems.push(why);
        }
        left -= some;
    }
    let control = control(seed);
    found(tally, rounds, control)
}

fn found(tally: Tally, rounds: u32, control: Control) -> Found {
    let Judged { events, changes, repeats, missing, inversions, other_ids } = tally.judged;
    let mut counts = vec![
        ("kills".to_owned(), tally.kills.iter().sum()),
        ("kills that left changes owed".to_owned(), tally.with_owed),
        ("acknowledged".to_owned(), tally.acknowledged),
        ("events".to_owned(), events),
        ("changes".to_owned(), changes),
        ("repeats".to_owned(), repeats),
        ("missing".to_owned(), missing),
        ("out of order".to_owned(), inversions),
        ("ids that were not stable".to_owned(), other_ids),
    ];
    for (moment, kills) in MOMENTS.iter().zip(tally.kills) {
        counts.push((format!("{moment:?}: kills"), kills));
    }
    Found {
        held: missing + inversions + other_ids == 0 && changes > 0,
        figure: format!(
            "{missing} missing of {changes} changes, {inversions} out of order, {repeats} repeats, \
             over {rounds} kills"
        ),
        counts,
        control,
        problems: tally.problems,
    }
}

/// Kills on one database, and judges the record once all that is owed has left.
fn one_place(
    rounds: u32,
    habit: Habit,
    chance: &mut Chance,
    tally: &mut Tally,
) -> Result<(), String> {
    let recorder = Recorder::start(habit, chance.next()).map_err(|error| error.to_string())?;
    let place = Place::new().with(&sink(recorder.address()));
    let ledger = Ledger::new(chance.next(), 0);
    for _ in 0..rounds {
        let which = usize::try_from(tally.kills.iter().sum::<u64>()).unwrap_or(0) % MOMENTS.len();
        kill(&place, &ledger, &recorder, MOMENTS[which], chance)?;
        tally.kills[which] += 1;
        tally.with_owed += u64::from(owed(&place) > 0);
        let mut round = Round::default();
        round.look(&place, &ledger);
        tally.problems.extend(round.problems);
    }
    drain(&place, &ledger)?;
    let mut round = Round::default();
    round.recover(&place, &ledger);
    tally.problems.extend(round.problems);
    tally.acknowledged += ledger.mark() as u64;
    let (judged, problems) = recorder.judge(&ledger);
    tally.judged.add(judged);
    tally.problems.extend(problems);
    Ok(())
}

fn sink(address: SocketAddr) -> String {
    format!(
        "[[sink]]\nname = \"app\"\ntype = \"http\"\nurl = \"http://{address}/receipts\"\n\
         attempt_ms_max = 2000\nbackoff_ms_min = 5\nbackoff_ms_max = 50\n"
    )
}

fn kill(
    place: &Place,
    ledger: &Arc<Ledger>,
    recorder: &Recorder,
    moment: Moment,
    chance: &mut Chance,
) -> Result<(), String> {
    let began = Instant::now();
    recorder.be_down(moment == Moment::Drain);
    let receiver = place.start()?;
    let start = began.elapsed();
    let load = Load::start(ledger, receiver.callbacks, CONNECTIONS);
    let wanted = ACKNOWLEDGED_MIN + chance.below(3 * ACKNOWLEDGED_MIN);
    if !wait_for(ledger, wanted, PATIENCE) {
        load.stop();
        return Err(format!("{wanted} callbacks were not taken in {PATIENCE:?}"));
    }
    let arrived = recorder.events();
    recorder.be_down(false);
    if !holds_within(PATIENCE, || recorder.events() > arrived) {
        load.stop();
        return Err(format!("nothing arrived at the sink in {PATIENCE:?}"));
    }
    pause(chance, Duration::from_millis(20));
    drop(receiver);
    load.stop();
    if moment == Moment::StartUp {
        let mut starting = place.spawn(&["serve"]);
        pause(chance, start * 2);
        starting.kill();
    }
    Ok(())
}

fn pause(chance: &mut Chance, longest: Duration) {
    let micros = usize::try_from(longest.as_micros()).unwrap_or(usize::MAX).max(1);
    std::thread::sleep(Duration::from_micros(chance.below(micros) as u64));
}

/// Has everything delivered, settled and forwarded.
fn drain(place: &Place, ledger: &Arc<Ledger>) -> Result<(), String> {
    let receiver: Receiptd = place.start()?;
    finish(ledger, receiver.callbacks)?;
    let settled = super::place::ask(receiver.admin, "/settled?wait=15s");
    if settled != Some(204) {
        return Err(format!("/settled answers {settled:?}"));
    }
    if holds_within(PATIENCE, || owed(place) == 0) {
        return Ok(());
    }
    Err(format!("{} changes are still owed after {PATIENCE:?}", owed(place)))
}

/// How many changes the outbox holds; 0 if there is no state.
fn owed(place: &Place) -> i64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(place.state(), flags)
        .and_then(|state| state.query_row("SELECT count(*) FROM outbox_row", [], |row| row.get(0)))
        .unwrap_or(0)
}

/// The same kills with sinks that must be caught: one that forgets some of what it took, and one that
/// hears a later change before an earlier one.
fn control(seed: u64) -> Control {
    let mut said = Vec::new();
    let mut caught = true;
    for (habit, what) in [(Habit::Forgetful, "forgets"), (Habit::Hasty, "reorders")] {
        let mut tally = Tally::default();
        let mut chance = Chance::of_seed(seed);
        if let Err(why) = one_place(2, habit, &mut chance, &mut tally) {
            return Control { what: format!("not tried: {why}"), caught: false };
        }
        let Judged { missing, inversions, .. } = tally.judged;
        caught &= if habit == Habit::Forgetful { missing > 0 } else { inversions > 0 };
        said.push(format!("that {what}: {missing} missing, {inversions} out of order"));
    }
    Control { what: format!("a sink {}", said.join("; one ")), caught }
}
