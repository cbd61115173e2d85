//! Promise 4: a full disk refuses early and recovers by itself.
//!
//! Small disks, in memory and ext4, are filled by callbacks and by others until the receiver answers
//! 503. In some rounds others go on until not a byte is left, in some the receiver is killed and
//! started on the full disk. Then somebody makes room, and without a word to the receiver it must
//! serve again, with everything acknowledged in place.
//!
//! 503 must come before the disk itself says no: then the journal never sees `SQLITE_FULL`, which
//! the log would tell. Repeats of settled callbacks are answered 2xx meanwhile.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Promise;
use super::compare::Round;
use super::ledger::Ledger;
use super::machine::{Disk, Need};
use super::place::{Place, ask};
use super::report::{Control, Found};
use super::sender::{Connection, Load};
use super::support::{Chance, Receiptd, holds_within};

/// What `main` needs to know.
pub const PROMISE: Promise = Promise {
    name: "full-disk",
    number: 4,
    claim: "a full disk refuses early and recovers by itself",
    needs_root: true,
    needs: &[Need::Program("mkfs.ext4", "e2fsprogs"), Need::Mounts],
    rounds: (60, 4),
    run,
};

const DISK_MEBIBYTES: u32 = 16;
const STORE: &str = "free_bytes_min = 3145728\nreserve_bytes = 1048576\n";

/// What others give back at least: the receiver comes back with the minimum and the reserve free.
const ROOM_MEBIBYTES: usize = 5;

/// The receiver makes room by itself, twice a second: only who is refused for longer finds it full.
const FULL_AFTER: Duration = Duration::from_millis(1_500);

/// Nothing is refused early, and nothing is kept back: the control.
const CARELESS: &str = "free_bytes_min = 0\nreserve_bytes = 0\n";

/// What the journal logs when the disk itself said no.
const DISK_SAID_NO: &str = "the disk is full";

const CONNECTIONS: usize = 8;

/// Added to each body, so that a disk fills in a second.
const PADDING_BYTES: usize = 8 << 10;

/// How long a disk may take to fill.
const FILL_MAX: Duration = Duration::from_secs(120);

/// How long the receiver may take to serve again once there is space: the promise.
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// How many stored callbacks are sent once more while the disk is full.
const DUPLICATES: usize = 50;

/// 503s in a row, without a single 2xx, that mean the disk counts as full.
const REFUSED_MIN: u64 = 40;

#[derive(Default)]
struct Tally {
    rounds: u64,
    tmpfs: u64,
    ext4: u64,
    brimful: u64,
    killed: u64,
    acknowledged: u64,
    lost: u64,
    corrupt: u64,
    disk_said_no: u64,
    duplicates_taken: u64,
    duplicates_refused: u64,
    unsettled: u64,
    again_max: Duration,
    problems: Vec<String>,
}

fn run(rounds: u32, seed: u64) -> Found {
    let mut tally = Tally::default();
    let mut chance = Chance::of_seed(seed);
    for number in 1..=rounds {
        let course = Course {
            is_ext4: number % 2 == 0,
            is_brimful: number % 4 >= 2,
            is_killed: number % 3 == 0,
        };
        let mut round = Round::default();
        if let Err(why) = one_round(course, &mut chance, &mut tally, &mut round) {
            round.problems.push(why);
        }
        tally.rounds += 1;
        tally.lost += round.lost;
        tally.corrupt += round.corrupt;
        tally
            .problems
            .extend(round.problems.iter().map(|p| format!("fill {number}, {course:?}: {p}")));
    }
    let control = control(seed)
        .unwrap_or_else(|why| Control { what: format!("not tried: {why}"), caught: false });
    found(tally, control)
}

fn found(tally: Tally, control: Control) -> Found {
    let Tally { rounds, acknowledged, lost, corrupt, disk_said_no, .. } = tally;
    let again_ms = u64::try_from(tally.again_max.as_millis()).unwrap_or(u64::MAX);
    Found {
        held: lost == 0 && corrupt == 0 && disk_said_no == 0,
        figure: format!(
            "{lost} lost of {acknowledged} acknowledged over {rounds} full disks; the disk itself \
             said no {disk_said_no} times; {} of {} repeats answered 2xx meanwhile; serving again \
             {again_ms} ms after space at most",
            tally.duplicates_taken,
            tally.duplicates_taken + tally.duplicates_refused
        ),
        counts: vec![
            ("full disks".to_owned(), rounds),
            ("in memory".to_owned(), tally.tmpfs),
            ("ext4".to_owned(), tally.ext4),
            ("filled by others to the last byte".to_owned(), tally.brimful),
            ("killed and started while full".to_owned(), tally.killed),
            ("acknowledged".to_owned(), acknowledged),
            ("lost".to_owned(), lost),
            ("damaged files".to_owned(), corrupt),
            ("commits that the disk refused".to_owned(), disk_said_no),
            ("too full to settle the rest".to_owned(), tally.unsettled),
            ("duplicates answered 2xx while full".to_owned(), tally.duplicates_taken),
            ("duplicates answered 503 while full".to_owned(), tally.duplicates_refused),
            ("slowest to serve again, ms".to_owned(), again_ms),
        ],
        control,
        problems: tally.problems,
    }
}

/// How one disk is filled.
#[derive(Clone, Copy, Debug)]
struct Course {
    is_ext4: bool,
    is_brimful: bool,
    is_killed: bool,
}

fn one_round(
    course: Course,
    chance: &mut Chance,
    tally: &mut Tally,
    round: &mut Round,
) -> Result<(), String> {
    let disk = disk(course)?;
    let place = Place::on(&disk.path(), STORE);
    let ledger = Ledger::new(chance.next(), PADDING_BYTES);
    ledger.let_repeats_go();
    let mut receiver = place.start()?;
    let mut others = vec![ballast(&disk, "others", (ROOM_MEBIBYTES + chance.below(3)) << 20)];
    fill(&ledger, &receiver)?;
    expect_not_ready(&receiver, round);
    if course.is_killed {
        receiver.kill();
        receiver = place.start()?;
        expect_not_ready(&receiver, round);
    }
    if course.is_brimful {
        others.push(ballast(&disk, "more", usize::try_from(DISK_MEBIBYTES).unwrap_or(0) << 20));
    }
    // A state that has no room left cannot settle what is still owed, so it cannot know it either.
    let is_settled = receiver.admin("/settled?wait=10s").status == 204;
    let (taken, refused) = send_again(&ledger, &receiver, chance);
    if refused > 0 && is_settled {
        round.problems.push(format!("{refused} repeats of what is settled were refused"));
    }
    tally.unsettled += u64::from(!is_settled);
    let said_no = place.log().matches(DISK_SAID_NO).count();
    for file in others {
        fs::remove_file(file).map_err(|error| error.to_string())?;
    }
    let again = serves_again(&ledger, &receiver);
    match again {
        Some(again) => tally.again_max = tally.again_max.max(again),
        None => {
            let free = rustix::fs::statvfs(disk.path()).map_or(0, |fs| fs.f_bavail * fs.f_frsize);
            let what = format!("not serving again within {AGAIN_MAX:?} with {free} bytes free");
            round.problems.push(what);
        }
    }
    round.recover_with(&place, &ledger, receiver);
    tally.tmpfs += u64::from(!course.is_ext4);
    tally.ext4 += u64::from(course.is_ext4);
    tally.brimful += u64::from(course.is_brimful);
    tally.killed += u64::from(course.is_killed);
    tally.acknowledged += ledger.mark() as u64;
    tally.disk_said_no += said_no as u64;
    tally.duplicates_taken += taken;
    tally.duplicates_refused += refused;
    let others = ledger.answers().into_keys().filter(|status| !matches!(status, 204 | 503));
    round.problems.extend(others.map(|status| format!("answered {status}")));
    Ok(())
}

fn disk(course: Course) -> Result<Disk, String> {
    if course.is_ext4 { Disk::ext4(DISK_MEBIBYTES.into()) } else { Disk::tmpfs(DISK_MEBIBYTES) }
}

/// A file of others, of that size or of all there is room for.
fn ballast(disk: &Disk, name: &str, bytes: usize) -> PathBuf {
    let path = disk.path().join(name);
    if let Ok(mut file) = File::create(&path) {
        let block = vec![0xAB; 64 << 10];
        let wrote_all = (0..bytes / block.len()).all(|_| file.write_all(&block).is_ok());
        if !wrote_all {
            // The last bytes go in smaller pieces.
            while file.write_all(&block[..512]).is_ok() {}
        }
        let _ = file.sync_all();
    }
    path
}

/// Sends until nothing is taken any more.
fn fill(ledger: &Arc<Ledger>, receiver: &Receiptd) -> Result<(), String> {
    let load = Load::start(ledger, receiver.callbacks, CONNECTIONS);
    let refused = || ledger.answers().get(&503).copied().unwrap_or(0);
    let (mut mark, mut since, mut taken) = (ledger.mark(), refused(), Instant::now());
    let is_full = holds_within(FILL_MAX, || {
        if ledger.mark() > mark {
            (mark, since, taken) = (ledger.mark(), refused(), Instant::now());
        }
        refused() - since >= REFUSED_MIN && taken.elapsed() >= FULL_AFTER
    });
    load.stop();
    if is_full { Ok(()) } else { Err(format!("the disk was not full in {FILL_MAX:?}")) }
}

fn expect_not_ready(receiver: &Receiptd, round: &mut Round) {
    let answer = ask(receiver.admin, "/readyz");
    if answer != Some(503) {
        round.problems.push(format!("/readyz answers {answer:?} on a full disk"));
    }
}

/// Sends some of what is stored once more; how many were answered 2xx, and how many not.
fn send_again(ledger: &Ledger, receiver: &Receiptd, chance: &mut Chance) -> (u64, u64) {
    let stored = ledger.acknowledged(0..ledger.mark());
    let mut connection = Connection::to(receiver.callbacks);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..DUPLICATES {
        let body = ledger.again(&stored[chance.below(stored.len())]);
        // Not written down as acknowledged once more: it is not kept a second time.
        match connection.post(&body) {
            Some(200..=299) => taken += 1,
            _ => refused += 1,
        }
    }
    (taken, refused)
}

/// How long it takes until the next callback is acknowledged.
fn serves_again(ledger: &Ledger, receiver: &Receiptd) -> Option<Duration> {
    let (before, began) = (ledger.mark(), Instant::now());
    let mut connection = Connection::to(receiver.callbacks);
    let is_served = holds_within(AGAIN_MAX, || {
        connection.deliver(ledger, ledger.next());
        ledger.mark() > before
    });
    is_served.then(|| began.elapsed())
}

/// The same load on a receiver that neither watches the space nor keeps any back: the disk itself
/// must say no, and the log must tell.
fn control(seed: u64) -> Result<Control, String> {
    let disk = Disk::tmpfs(DISK_MEBIBYTES)?;
    let place = Place::on(&disk.path(), CARELESS);
    let ledger = Ledger::new(seed, PADDING_BYTES);
    let receiver = place.start()?;
    fill(&ledger, &receiver)?;
    let times = place.log().matches(DISK_SAID_NO).count();
    let what =
        format!("no minimum of free space and no reserve: the disk itself refused {times} commits");
    Ok(Control { what, caught: times > 0 })
}
