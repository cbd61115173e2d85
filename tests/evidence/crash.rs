//! Promise 2: an acknowledged callback survives a crash of the process.
//!
//! `kill -9` at every kind of moment, on one database again and again. Where chance alone rarely
//! hits, it is aimed: the moment a checkpoint begins is seen by the file it writes to, a pruning by
//! the position it has reached. Whether a checkpoint was really cut in two is read from the shared
//! memory file that the dead process leaves behind.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Promise;
use super::compare::{Kept, Round, pruned_through};
use super::control;
use super::ledger::Ledger;
use super::place::Place;
use super::report::{Control, Found};
use super::sender::{Load, wait_for};
use super::support::{Chance, Receiptd};

/// What `main` needs to know.
pub const PROMISE: Promise = Promise {
    name: "crash",
    number: 2,
    claim: "and a crash of the process",
    needs_root: false,
    needs: &[],
    rounds: (500, 24),
    run,
};

const CONNECTIONS: usize = 16;

/// Acknowledged in every round under load before the kill, at least.
const ACKNOWLEDGED_MIN: usize = 150;

/// Rounds on one database; then a new one, so that the comparison stays quick.
const ROUNDS_A_PLACE: u32 = 16;

/// How long a receiver may take for what a round needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the stand-in is killed, at most, until it has lost something.
const CONTROL_KILLS_MAX: u32 = 20;

/// What is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// A receiver under load.
    Load,
    /// A receiver whose journal is being checkpointed.
    Checkpoint,
    /// A receiver that starts on what a kill has left.
    StartUp,
    /// A receiver that starts in an empty folder and makes its tables: the migrations.
    FirstStart,
    /// A receiver that settles the journal from nothing.
    Settle,
    /// A receiver that prunes, under load.
    Prune,
    /// `receiptd prune` without a receiver.
    PruneAlone,
    /// `receiptd rebuild`.
    Rebuild,
}

const MOMENTS: [Moment; 8] = [
    Moment::Load,
    Moment::Checkpoint,
    Moment::StartUp,
    Moment::FirstStart,
    Moment::Settle,
    Moment::Prune,
    Moment::PruneAlone,
    Moment::Rebuild,
];

#[derive(Default)]
struct Tally {
    rounds: u64,
    kills: [u64; MOMENTS.len()],
    /// Of these, those that hit what they were aimed at.
    hits: [u64; MOMENTS.len()],
    acknowledged: u64,
    lost: u64,
    corrupt: u64,
    problems: Vec<String>,
}

fn run(rounds: u32, seed: u64) -> Found {
    let mut tally = Tally::default();
    let mut chance = Chance::of_seed(seed);
    let mut left = rounds;
    while left > 0 {
        let some = left.min(ROUNDS_A_PLACE);
        if let Err(why) = one_place(some, &mut chance, &mut tally) {
            tally.problems.push(why);
        }
        left -= some;
    }
    let control = control(seed)
        .unwrap_or_else(|why| Control { what: format!("not tried: {why}"), caught: false });
    found(tally, control)
}

fn found(tally: Tally, control: Control) -> Found {
    let Tally { rounds, acknowledged, lost, corrupt, .. } = tally;
    let mut counts = vec![
        ("kills".to_owned(), rounds),
        ("acknowledged".to_owned(), acknowledged),
        ("lost".to_owned(), lost),
        ("damaged files".to_owned(), corrupt),
    ];
    for (moment, (kills, hits)) in MOMENTS.iter().zip(tally.kills.into_iter().zip(tally.hits)) {
        counts.push((format!("{moment:?}: kills"), kills));
        counts.push((format!("{moment:?}: kills that cut it short"), hits));
    }
    Found {
        held: lost == 0 && corrupt == 0,
        figure: format!(
            "{lost} lost of {acknowledged} acknowledged, {corrupt} files damaged in {rounds} kills"
        ),
        counts,
        control,
        problems: tally.problems,
    }
}

fn one_place(rounds: u32, chance: &mut Chance, tally: &mut Tally) -> Result<(), String> {
    let place = Place::new();
    let ledger = Ledger::new(chance.next(), 0);
    for _ in 0..rounds {
        // Each in its turn: a few rounds try all of them.
        let which = usize::try_from(tally.rounds).unwrap_or(0) % MOMENTS.len();
        let moment = MOMENTS[which];
        let began = ledger.mark();
        let mut round = Round::default();
        let is_hit = if moment == Moment::FirstStart {
            first_start(chance, &mut round)?
        } else {
            let is_hit = Kill { place: &place, ledger: &ledger }.at(moment, chance)?;
            round.look(&place, &ledger);
            round.recover(&place, &ledger);
            is_hit
        };
        tally.rounds += 1;
        tally.kills[which] += 1;
        tally.hits[which] += u64::from(is_hit);
        tally.acknowledged += (ledger.mark() - began) as u64;
        tally.lost += round.lost;
        tally.corrupt += round.corrupt;
        let number = tally.rounds;
        let problems = round.problems.iter();
        tally.problems.extend(problems.map(|p| format!("kill {number}, {moment:?}: {p}")));
    }
    Ok(())
}

/// In a folder of its own; what was made halfway must do for a receiver.
fn first_start(chance: &mut Chance, round: &mut Round) -> Result<bool, String> {
    let took = {
        let began = Instant::now();
        Place::new().start().map(|_| began.elapsed())?
    };
    let place = Place::new();
    let mut starting = place.spawn(&["serve"]);
    pause(chance, took);
    starting.kill();
    let is_hit = place.journal().exists() || place.state().exists();
    let ledger = Ledger::new(chance.next(), 0);
    round.look(&place, &ledger);
    let receiver = place.start()?;
    let load = Load::start(&ledger, receiver.callbacks, 1);
    wait_for(&ledger, 10, PATIENCE);
    load.stop();
    round.recover_with(&place, &ledger, receiver);
    Ok(is_hit)
}

struct Kill<'a> {
    place: &'a Place,
    ledger: &'a Arc<Ledger>,
}

impl Kill<'_> {
    /// Kills at such a moment; whether that was hit.
    fn at(&self, moment: Moment, chance: &mut Chance) -> Result<bool, String> {
        let began = Instant::now();
        let receiver = self.place.start()?;
        let start = began.elapsed();
        let load = Load::start(self.ledger, receiver.callbacks, CONNECTIONS);
        let wanted = ACKNOWLEDGED_MIN + chance.below(3 * ACKNOWLEDGED_MIN);
        if !wait_for(self.ledger, wanted, PATIENCE) {
            load.stop();
            return Err(format!("{wanted} callbacks were not taken in {PATIENCE:?}"));
        }
        match moment {
            Moment::Load => {
                pause(chance, Duration::from_millis(20));
                end(receiver, Some(load));
                Ok(true)
            }
            Moment::Checkpoint => Ok(self.in_checkpoint(receiver, load, chance)),
            Moment::Prune => Ok(self.in_prune(receiver, load, chance)),
            Moment::StartUp | Moment::FirstStart => {
                end(receiver, Some(load));
                Ok(self.command(&["serve"], start, chance))
            }
            Moment::Settle => {
                end(receiver, Some(load));
                self.place.delete_state();
                Ok(self.command(&["serve"], start * 2, chance))
            }
            Moment::Rebuild => {
                end(receiver, Some(load));
                Ok(self.command(&["rebuild"], start * 2, chance))
            }
            Moment::PruneAlone => {
                end(receiver, Some(load));
                self.ledger.prune_ordered();
                std::thread::sleep(Duration::from_secs(1));
                let prune = ["prune", "--bodies-only", "--older-than", "1s"];
                Ok(self.command(&prune, start * 2, chance))
            }
        }
    }

    /// Kills a command somewhere in that time; whether it still ran.
    fn command(&self, arguments: &[&str], longest: Duration, chance: &mut Chance) -> bool {
        let mut running = self.place.spawn(arguments);
        pause(chance, longest);
        running.kill()
    }

    fn in_checkpoint(&self, receiver: Receiptd, load: Load, chance: &mut Chance) -> bool {
        let journal = self.place.journal();
        let written = || fs::metadata(&journal).and_then(|file| file.modified()).ok();
        let (before, deadline) = (written(), Instant::now() + Duration::from_secs(5));
        while written() == before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(50));
        }
        pause(chance, Duration::from_micros(800));
        end(receiver, Some(load));
        is_cut_in_two(&journal)
    }

    fn in_prune(&self, receiver: Receiptd, load: Load, chance: &mut Chance) -> bool {
        let began = self.ledger.wait_to_prune();
        let journal = self.place.journal();
        let before = pruned_through(&journal);
        let mut prune = self.place.spawn(&["prune", "--bodies-only", "--older-than", "1s"]);
        while prune.is_running() && pruned_through(&journal) == before {}
        pause(chance, Duration::from_millis(8));
        let was_pruning = prune.is_running();
        end(receiver, Some(load));
        self.ledger.prune_began_late(began);
        was_pruning && pruned_through(&journal) > before
    }
}

fn end(receiver: Receiptd, load: Option<Load>) {
    drop(receiver);
    if let Some(load) = load {
        load.stop();
    }
}

fn pause(chance: &mut Chance, longest: Duration) {
    let micros = usize::try_from(longest.as_micros()).unwrap_or(usize::MAX).max(1);
    std::thread::sleep(Duration::from_micros(chance.below(micros) as u64));
}

/// Whether a checkpoint had begun and not ended: SQLite's `nBackfillAttempted` is ahead of
/// `nBackfill` in the index of the log. Nobody has the database open any more.
fn is_cut_in_two(journal: &Path) -> bool {
    let mut path = journal.as_os_str().to_owned();
    path.push("-shm");
    let Ok(index) = fs::read(Path::new(&path)) else { return false };
    let number = |at: usize| {
        index.get(at..at + 4).map(|bytes| u32::from_ne_bytes(bytes.try_into().unwrap_or_default()))
    };
    number(128) > number(96)
}

/// The same kill of a receiver that answers before it keeps.
fn control(seed: u64) -> Result<Control, String> {
    for kill in 1..=CONTROL_KILLS_MAX {
        let place = Place::new();
        let ledger = Ledger::new(seed.wrapping_add(u64::from(kill)), 0);
        let receiver = place.start_as(control::command(&place.state()))?;
        let load = Load::start(&ledger, receiver.callbacks, CONNECTIONS);
        wait_for(&ledger, ACKNOWLEDGED_MIN, PATIENCE);
        end(receiver, Some(load));
        let kept = Kept::bodies(&place.journal()).unwrap_or_else(|_| Kept::nothing());
        let (mark, lost) = (ledger.mark(), kept.lost(&ledger, ledger.mark()));
        if lost > 0 {
            let what = format!(
                "a receiver that answers before it keeps: {lost} lost of {mark} at kill {kill}"
            );
            return Ok(Control { what, caught: true });
        }
    }
    let what =
        format!("a receiver that answers before it keeps: none lost in {CONTROL_KILLS_MAX} kills");
    Ok(Control { what, caught: false })
}
