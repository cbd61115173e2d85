//! Promise 1: an acknowledged callback survives a power cut.
//!
//! The database stands on an ext4 image of its own. While callbacks pour in, the file system is shut
//! down without a flush of its log: what was not synced is gone, as when the power goes. The receiver
//! is killed, the image mounted again, and everything acknowledged before the cut must be there.
//!
//! Only what the harness had read before it began to cut is held. An answer that it reads later is
//! none: after a real cut nobody reads anything. It is not merely late, either: a sync on its way
//! while the file system is shut down can wait for a transaction of the file system that was thrown
//! away meanwhile, and come back as a success. How many such answers had nothing behind them is
//! counted.
//!
//! Some cuts hit a start, some a state that is being settled from nothing, some a pruning. The state
//! is not synced at each commit; how often a cut took it back is counted.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::Promise;
use super::compare::{self, Kept, Round};
use super::ledger::Ledger;
use super::machine::{Cutter, Disk, Need, lying_disk};
use super::place::{Place, Running};
use super::report::{Control, Found};
use super::sender::{Load, wait_for};
use super::support::{Chance, Receiptd};

/// What `main` needs to know.
pub const PROMISE: Promise = Promise {
    name: "power-cut",
    number: 1,
    claim: "an acknowledged callback survives a power cut",
    needs_root: true,
    needs: &[Need::Program("mkfs.ext4", "e2fsprogs"), Need::Program("cc", "gcc"), Need::Mounts],
    rounds: (100, 5),
    run,
};

const CONNECTIONS: usize = 32;

/// Acknowledged in every round before it is cut, at least.
const ACKNOWLEDGED_MIN: usize = 1_000;

/// Rounds on one database; then a new one, so that the comparison stays quick.
const ROUNDS_A_DISK: u32 = 8;

const DISK_MEBIBYTES: u64 = 256;

/// How long a receiver may take for what a round needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// No space is watched: the image is large enough, and a quarter of the default minimum.
const STORE: &str = "free_bytes_min = 0\nreserve_bytes = 1048576\n";

/// When the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Load,
    StartUp,
    Settle,
    Prune,
}

impl Moment {
    fn by(chance: &mut Chance) -> Self {
        match chance.below(10) {
            0 | 1 => Self::StartUp,
            2 => Self::Settle,
            3 => Self::Prune,
            _ => Self::Load,
        }
    }
}

#[derive(Default)]
struct Tally {
    cuts: u64,
    acknowledged: u64,
    read_after: u64,
    empty_after: u64,
    lost: u64,
    corrupt: u64,
    taken_back: u64,
    moments: [u64; 4],
    in_prune: u64,
    problems: Vec<String>,
}

fn run(rounds: u32, seed: u64) -> Found {
    let mut tally = Tally::default();
    let mut chance = Chance::of_seed(seed);
    let attempt = Cutter::new().and_then(|cutter| {
        let mut left = rounds;
        while left > 0 {
            let some = left.min(ROUNDS_A_DISK);
            one_disk(&cutter, some, &mut chance, &mut tally)?;
            left -= some;
        }
        Ok(cutter)
    });
    let control = attempt.and_then(|cutter| control(&cutter, seed)).unwrap_or_else(|why| {
        tally.problems.push(why);
        Control { what: "not tried".to_owned(), caught: false }
    });
    found(tally, control)
}

fn found(tally: Tally, control: Control) -> Found {
    let Tally { cuts, acknowledged, lost, corrupt, taken_back, .. } = tally;
    let [load, start_up, settle, prune] = tally.moments;
    Found {
        held: lost == 0 && corrupt == 0,
        figure: format!("{lost} lost of {acknowledged} acknowledged over {cuts} cuts"),
        counts: vec![
            ("cuts".to_owned(), cuts),
            ("cuts under load".to_owned(), load),
            ("cuts during a start".to_owned(), start_up),
            ("cuts while settling from nothing".to_owned(), settle),
            ("cuts after a pruning was ordered".to_owned(), prune),
            ("of these, while it ran".to_owned(), tally.in_prune),
            ("acknowledged before the cut".to_owned(), acknowledged),
            ("lost of these".to_owned(), lost),
            ("2xx read after the cut began, not held".to_owned(), tally.read_after),
            ("of these, with nothing behind them".to_owned(), tally.empty_after),
            ("damaged files".to_owned(), corrupt),
            ("cuts that took the state's cursor back".to_owned(), taken_back),
        ],
        control,
        problems: tally.problems,
    }
}

fn one_disk(
    cutter: &Cutter,
    rounds: u32,
    chance: &mut Chance,
    tally: &mut Tally,
) -> Result<(), String> {
    let disk = Disk::ext4(DISK_MEBIBYTES)?;
    let place = Place::on(&disk.path(), STORE);
    let ledger = Ledger::new(chance.next(), 0);
    for _ in 0..rounds {
        let moment = Moment::by(chance);
        let began = ledger.mark();
        let cut = Cut { cutter, disk: &disk, place: &place, ledger: &ledger };
        let outcome = cut.at(moment, chance)?;
        let after = ledger.acknowledged(outcome.mark..ledger.mark());
        let there = Kept::read(&place.journal()).unwrap_or_else(|_| Kept::nothing());
        tally.empty_after += after.iter().filter(|body| !there.has(body)).count() as u64;
        ledger.forget_since(outcome.mark);
        let mut round = Round::default();
        round.look(&place, &ledger);
        let cursor_after = compare::cursor(&place.state());
        round.recover(&place, &ledger);
        tally.cuts += 1;
        tally.moments[moment as usize] += 1;
        tally.acknowledged += (outcome.mark - began) as u64;
        tally.read_after += outcome.read_after;
        tally.lost += round.lost;
        tally.corrupt += round.corrupt;
        tally.taken_back += u64::from(cursor_after < outcome.cursor);
        tally.in_prune += u64::from(outcome.in_prune);
        let number = tally.cuts;
        tally
            .problems
            .extend(round.problems.iter().map(|p| format!("cut {number}, {moment:?}: {p}")));
    }
    Ok(())
}

/// What was so when the power went.
struct Outcome {
    /// What had been acknowledged by then.
    mark: usize,
    /// How many 2xx were read after.
    read_after: u64,
    /// How far the state had settled.
    cursor: i64,
    in_prune: bool,
}

struct Cut<'a> {
    cutter: &'a Cutter,
    disk: &'a Disk,
    place: &'a Place,
    ledger: &'a Arc<Ledger>,
}

impl Cut<'_> {
    fn at(&self, moment: Moment, chance: &mut Chance) -> Result<Outcome, String> {
        let receiver = self.place.start()?;
        let load = Load::start(self.ledger, receiver.callbacks, CONNECTIONS);
        let wanted = ACKNOWLEDGED_MIN + chance.below(ACKNOWLEDGED_MIN / 2);
        if !wait_for(self.ledger, wanted, PATIENCE) {
            load.stop();
            return Err(format!("{wanted} callbacks were not taken in {PATIENCE:?}"));
        }
        match moment {
            Moment::Load => {
                pause(chance, 30_000);
                self.now(receiver.into(), Some(load), None)
            }
            Moment::Prune => self.in_prune(receiver, load, chance),
            Moment::StartUp | Moment::Settle => {
                load.stop();
                drop(receiver);
                let longest = if moment == Moment::Settle {
                    self.place.delete_state();
                    200_000
                } else {
                    40_000
                };
                let starting = self.place.spawn(&["serve"]);
                pause(chance, longest);
                self.now(starting.into(), None, None)
            }
        }
    }

    fn in_prune(
        &self,
        receiver: Receiptd,
        load: Load,
        chance: &mut Chance,
    ) -> Result<Outcome, String> {
        let began = self.ledger.wait_to_prune();
        let prune = self.place.spawn(&["prune", "--bodies-only", "--older-than", "1s"]);
        pause(chance, 150_000);
        let outcome = self.now(receiver.into(), Some(load), Some(prune));
        self.ledger.prune_began_late(began);
        outcome
    }

    /// Takes the count, then cuts.
    fn now(
        &self,
        receiver: Process,
        load: Option<Load>,
        prune: Option<Running>,
    ) -> Result<Outcome, String> {
        let cursor = compare::cursor(&self.place.state());
        let mark = self.ledger.mark();
        let cut = self.cutter.cut(self.disk);
        let in_prune = prune.is_some_and(|mut prune| prune.kill());
        drop(receiver);
        if let Some(load) = load {
            load.stop();
        }
        cut?;
        self.disk.mount_again()?;
        let read_after = (self.ledger.mark() - mark) as u64;
        Ok(Outcome { mark, read_after, cursor, in_prune })
    }
}

/// A receiver, however it was started; killed when dropped.
#[expect(dead_code, reason = "held to be dropped")]
enum Process {
    Listening(Receiptd),
    Starting(Running),
}

impl From<Receiptd> for Process {
    fn from(receiver: Receiptd) -> Self {
        Self::Listening(receiver)
    }
}

impl From<Running> for Process {
    fn from(receiver: Running) -> Self {
        Self::Starting(receiver)
    }
}

fn pause(chance: &mut Chance, micros_max: usize) {
    std::thread::sleep(Duration::from_micros(chance.below(micros_max) as u64));
}

/// The same cut of the same binary on a disk that claims to have synced: it must lose callbacks, and
/// the comparison must see it.
fn control(cutter: &Cutter, seed: u64) -> Result<Control, String> {
    let disk = Disk::ext4(DISK_MEBIBYTES)?;
    let place = Place::on(&disk.path(), STORE);
    let ledger = Ledger::new(seed, 0);
    let lie = lying_disk()?;
    let mut serve: Command = place.receiptd(&["serve"]);
    serve.env("LD_PRELOAD", lie);
    let receiver = place.start_as(serve)?;
    let load = Load::start(&ledger, receiver.callbacks, CONNECTIONS);
    wait_for(&ledger, ACKNOWLEDGED_MIN, PATIENCE);
    let cut = Cut { cutter, disk: &disk, place: &place, ledger: &ledger };
    let Outcome { mark, .. } = cut.now(receiver.into(), Some(load), None)?;
    let kept = Kept::read(&place.journal()).unwrap_or_else(|_| Kept::nothing());
    let lost = kept.lost(&ledger, mark);
    let what = format!("fsync and fdatasync made to do nothing: {lost} lost of {mark} in one cut");
    Ok(Control { what, caught: lost > 0 })
}
