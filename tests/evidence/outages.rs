//! Promise 5: an outage shorter than the sender's retry window loses nothing.
//!
//! The sender is [`receiptd::sender`]: its exact rules, on a clock wound by hand. The receiver is
//! the whole of ours, over loopback sockets, with real files that are really closed and opened
//! again. Nobody waits: an outage of twenty-five minutes passes as fast as the answers come.
//!
//! What this cannot show is a torn file: a kill here drops the receiver inside this process. The
//! promises `crash` and `power` are for that.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};
use receiptd::callback::Kind;
use receiptd::sender::{Loss, Next, Outcome, Platform};

use super::Promise;
use super::report::{Control, Found};

mod news;
mod place;

use news::{Queued, Truth, instant, message};
use place::{Place, SOURCE};

/// What is promised.
pub const PROMISE: Promise = Promise {
    name: "outages",
    number: 5,
    claim: "An outage shorter than the sender's retry window loses nothing",
    needs_root: false,
    needs: &[],
    rounds: (10_000, 200),
    run,
};

/// Platforms that try again. Adobe does not say that it does, so no outage is short enough there;
/// VA Notify's signed callbacks are retried as its others are.
const PLATFORMS: [Platform; 6] = [
    Platform::GcNotify,
    Platform::GcNotifyBefore202608,
    Platform::GovukNotify,
    Platform::UsNotify,
    Platform::VaNotify,
    Platform::NotifyNl,
];

/// VA Notify waits at random, from nothing at all: by chance sixty retries could be over at once.
/// On average they take two hours; that they take less than this is a chance of one in 10^20.
const VA_WINDOW: Duration = Duration::from_secs(1_800);

/// Outages that one folder lives through.
const OUTAGES_A_LIFE: u32 = 25;

/// Lives at the same time: a receiver that is stopped in order lingers for half a second, and
/// others can use it.
const LIVES_AT_ONCE: u32 = 16;

/// Steps of the receiver's runtime before it dies under a burst. A burst of four is answered after
/// a few hundred, so that a kill finds every stage of it.
const STEPS_MAX: u32 = 600;

/// What was seen, summed over lives.
#[derive(Default)]
struct Seen {
    outages: [u64; 4],
    callbacks: u64,
    attempts: u64,
    unanswered: u64,
    unavailable: u64,
    committed_unanswered: u64,
    lost: u64,
    suspended: u64,
    missing: u64,
    wrong: u64,
    problems: Vec<String>,
}

/// What kind of outage it is.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill = 0,
    /// Killed, started, killed again.
    CrashLoop = 1,
    FullDisk = 2,
    /// Stopped in order, and back without its state.
    Upgrade = 3,
}

const FAULTS: [Fault; 4] = [Fault::Kill, Fault::CrashLoop, Fault::FullDisk, Fault::Upgrade];

/// What happens to the receiver at one instant.
#[derive(Clone, Copy)]
enum Step {
    Kill,
    Stop,
    ForgetState,
    Start,
    StartFull,
}

fn run(rounds: u32, seed: u64) -> Found {
    let seen = Mutex::new(Seen::default());
    let next = AtomicU32::new(0);
    let lives = rounds.div_ceil(OUTAGES_A_LIFE);
    std::thread::scope(|scope| {
        for _ in 0..LIVES_AT_ONCE.min(lives) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= lives {
                        return;
                    }
                    let outages = OUTAGES_A_LIFE.min(rounds - number * OUTAGES_A_LIFE);
                    let life = live(seed, number, outages, Length::WithinWindow);
                    seen.lock().expect("no panic under this lock").add(life);
                }
            });
        }
    });
    let seen = seen.into_inner().expect("no panic under this lock");
    let control = control(seed);
    seen.found(rounds, control)
}

/// Outages longer than the longest window: every platform must lose something, and GC Notify must
/// suspend.
fn control(seed: u64) -> Control {
    let (mut losing, mut suspending) = (0, 0);
    let (mut lost, mut missing, mut wrong) = (0, 0, 0);
    for number in 0..PLATFORMS.len() {
        let number = u32::try_from(number).expect("a handful");
        let seen = live(seed, number, 1, Length::BeyondWindow);
        // What the sender gave up is what the journal lacks, but for what is there from its twin.
        losing += u32::from(seen.lost > 0 && seen.missing > 0 && seen.missing <= seen.lost);
        suspending += u32::from(seen.suspended > 0);
        lost += seen.lost;
        missing += seen.missing;
        wrong += seen.wrong;
    }
    let all = u32::try_from(PLATFORMS.len()).expect("a handful");
    Control {
        what: format!(
            "{all} outages longer than the window: {lost} callbacks lost, {missing} missing in the journal, {wrong} wrong states, seen on {losing} of {all} platforms; {suspending} suspended"
        ),
        caught: losing == all && wrong > 0 && suspending == 1,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Length {
    WithinWindow,
    BeyondWindow,
}

/// One folder, one platform, several outages.
fn live(seed: u64, number: u32, outages: u32, length: Length) -> Seen {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    chance.set_stream(u64::from(number) * 2 + u64::from(length == Length::BeyondWindow));
    let platform = PLATFORMS[number as usize % PLATFORMS.len()];
    let mut place = Place::new(platform.provider());
    place.start(instant(Duration::ZERO), false);
    let mut sender = Sender {
        platform,
        place,
        chance,
        now: Duration::ZERO,
        queued: Vec::new(),
        due: BinaryHeap::new(),
        truths: Vec::new(),
        is_suspended: false,
        // The control must not be saved by a receiver that dies slowly.
        steps_max: if length == Length::WithinWindow { STEPS_MAX } else { 0 },
        unanswered: HashSet::new(),
        seen: Seen::default(),
    };
    for outage in 0..outages {
        sender.outage(outage, length);
    }
    sender.look_into_journal();
    let label = format!("{platform}, life {number}: ");
    sender.seen.problems.iter_mut().for_each(|problem| problem.insert_str(0, &label));
    sender.seen
}

/// The platform, and the receiver it calls.
struct Sender {
    platform: Platform,
    place: Place,
    chance: ChaCha8Rng,
    now: Duration,
    queued: Vec<Queued>,
    /// When, which callback, which attempt.
    due: BinaryHeap<Reverse<(Duration, usize, u32)>>,
    truths: Vec<Truth>,
    is_suspended: bool,
    steps_max: u32,
    /// Callbacks with an attempt that was posted and never heard of.
    unanswered: HashSet<usize>,
    seen: Seen,
}

impl Sender {
    /// Messages that meet an outage, until the last callback about them is done with.
    fn outage(&mut self, outage: u32, length: Length) {
        let (min, max) = window(self.platform);
        let lasts = match length {
            // Long ones are the dangerous ones; never the whole window.
            Length::WithinWindow => {
                let less: f64 = self.chance.random();
                min.mul_f64(1.0 - less * less * 0.98) - Duration::from_millis(1)
            }
            Length::BeyondWindow => max.mul_f64(1.05) + Duration::from_secs(1),
        };
        let begin = self.now + min * 2;
        let fault = match length {
            Length::WithinWindow => FAULTS[self.chance.random_range(0..FAULTS.len())],
            // Away the whole time, or there and full.
            Length::BeyondWindow if self.chance.random() => Fault::Kill,
            Length::BeyondWindow => Fault::FullDisk,
        };
        self.seen.outages[fault as usize] += 1;
        self.queue_news(outage, begin, lasts, min);
        let mut steps = steps(fault, begin, lasts, &mut self.chance);
        let checked_from = self.truths.len() - self.truths.len().min(16);
        loop {
            let next = self.due.peek().map(|Reverse((at, ..))| *at);
            match (steps.first(), next) {
                (Some((at, _)), due) if due.is_none_or(|due| *at <= due) => {
                    let (at, step) = steps.remove(0);
                    self.happens(at, step);
                }
                (_, Some(due)) => self.attempt(due),
                (_, None) => break,
            }
        }
        self.compare(checked_from);
    }

    /// A burst at the very instant at which the outage begins, and other news around it.
    fn queue_news(&mut self, outage: u32, begin: Duration, lasts: Duration, window: Duration) {
        let burst = self.chance.random_range(1..=4);
        let others = self.chance.random_range(2..=6);
        for number in 0..burst + others {
            let first = if number < burst {
                begin
            } else {
                begin - window + (window + lasts).mul_f64(self.chance.random())
            };
            let first = Duration::from_millis(u64::try_from(first.as_millis()).unwrap_or(0));
            let id = format!("o{outage}-n{number}");
            let (queued, truth) = message(id, first, window, &mut self.chance);
            for callback in queued {
                self.due.push(Reverse((callback.at, self.queued.len(), 1)));
                self.queued.push(callback);
                self.seen.callbacks += 1;
            }
            self.truths.push(truth);
        }
    }

    fn happens(&mut self, at: Duration, step: Step) {
        self.now = at;
        self.place.wind(instant(at));
        match step {
            Step::Kill | Step::Stop if self.place.is_up() => {
                let (group, bodies) = self.take_due(at);
                let steps = self.chance.random_range(0..=self.steps_max);
                let outcomes = match step {
                    Step::Kill => self.place.kill_while_posting(&bodies, steps),
                    _ => self.place.stop_while_posting(&bodies, steps),
                };
                self.hear(at, &group, &outcomes);
                let unheard = group.iter().zip(&outcomes).filter(|(_, o)| **o == Outcome::NoAnswer);
                self.unanswered.extend(unheard.map(|((index, _), _)| *index));
            }
            Step::Kill | Step::Stop => {}
            Step::ForgetState => self.place.forget_state(),
            Step::Start => self.place.start(instant(at), false),
            Step::StartFull => self.place.start(instant(at), true),
        }
    }

    /// Everything due at that instant, sent at once.
    fn attempt(&mut self, at: Duration) {
        self.now = at;
        self.place.wind(instant(at));
        let (group, bodies) = self.take_due(at);
        let outcomes = self.place.post(&bodies);
        self.hear(at, &group, &outcomes);
    }

    fn take_due(&mut self, at: Duration) -> (Vec<(usize, u32)>, Vec<Bytes>) {
        let mut group = Vec::new();
        while let Some(Reverse((due, index, attempt))) = self.due.peek().copied() {
            if due != at {
                break;
            }
            self.due.pop();
            if self.is_suspended {
                self.seen.lost += 1;
                self.seen.suspended += 1;
            } else {
                group.push((index, attempt));
            }
        }
        let bodies = group.iter().map(|(index, _)| self.queued[*index].body.clone()).collect();
        (group, bodies)
    }

    /// Does with each answer what the platform does.
    fn hear(&mut self, at: Duration, group: &[(usize, u32)], outcomes: &[Outcome]) {
        for ((index, attempt), outcome) in group.iter().zip(outcomes) {
            self.seen.attempts += 1;
            match outcome {
                Outcome::NoAnswer => self.seen.unanswered += 1,
                Outcome::Answered(503) => self.seen.unavailable += 1,
                Outcome::Answered(204) => {}
                Outcome::Answered(code) => self.problem(format!("answered {code}")),
            }
            let rules = self.platform.rules(self.queued[*index].kind);
            match rules.next(*attempt, *outcome, &mut self.chance) {
                Next::Done => {}
                Next::Again(wait) => self.due.push(Reverse((at + wait, *index, attempt + 1))),
                Next::Lost(loss) => {
                    self.seen.lost += 1;
                    self.is_suspended |= rules.suspends && loss == Loss::RetriesExhausted;
                    self.problem(format!("callback {index} lost: {loss}"));
                }
            }
        }
    }

    /// The settled state of the messages from that one on, against what they truly came to.
    fn compare(&mut self, from: usize) {
        let reader = self.place.settled();
        let mut wrong = Vec::new();
        for truth in &self.truths[from..] {
            let is_right = match truth.last {
                None => reader.message(Some(SOURCE), &truth.id).is_ok_and(|rows| rows.len() == 1),
                Some((status, reached)) => {
                    let rows = reader.notification(Some(SOURCE), &truth.id).unwrap_or_default();
                    rows.len() == 1
                        && rows[0].status.as_deref() == Some(status)
                        && rows[0].completed_at == Some(reached)
                }
            };
            if !is_right {
                wrong.push(format!("{} is not what it came to", truth.id));
            }
        }
        self.seen.wrong += wrong.len() as u64;
        wrong.into_iter().for_each(|problem| self.problem(problem));
    }

    /// Every callback must stand in the journal, byte for byte; and all messages once more.
    fn look_into_journal(&mut self) {
        self.compare(0);
        let kept = self.place.kept();
        let bodies: HashSet<&[u8]> = kept.iter().map(Vec::as_slice).collect();
        let missing = self.queued.iter().filter(|queued| !bodies.contains(&*queued.body)).count();
        if missing > 0 {
            self.problem(format!("{missing} callbacks are not in the journal"));
        }
        self.seen.missing += missing as u64;
        let mut times = std::collections::HashMap::new();
        kept.iter().for_each(|body| *times.entry(body.as_slice()).or_insert(0_u32) += 1);
        let twice = |index: &&usize| times.get(&*self.queued[**index].body) > Some(&1);
        self.seen.committed_unanswered += self.unanswered.iter().filter(twice).count() as u64;
    }

    fn problem(&mut self, problem: String) {
        if self.seen.problems.len() < 5 {
            self.seen.problems.push(problem);
        }
    }
}

/// The shortest and the longest time over which a callback that always fails is tried.
fn window(platform: Platform) -> (Duration, Duration) {
    let rules = platform.rules(Kind::Receipt);
    let min = if platform == Platform::VaNotify { VA_WINDOW } else { rules.window_min() };
    let max = (1..=rules.retries.max).map(|retry| rules.retries.wait.bounds(retry).1).sum();
    (min, max)
}

fn steps(
    fault: Fault,
    begin: Duration,
    lasts: Duration,
    chance: &mut ChaCha8Rng,
) -> Vec<(Duration, Step)> {
    let end = begin + lasts;
    match fault {
        Fault::Kill => vec![(begin, Step::Kill), (end, Step::Start)],
        Fault::CrashLoop => {
            let mut steps = vec![(begin, Step::Kill)];
            let mut times: Vec<f64> = (0..4).map(|_| chance.random()).collect();
            times.sort_by(f64::total_cmp);
            for (number, time) in times.into_iter().enumerate() {
                let step = if number % 2 == 0 { Step::Start } else { Step::Kill };
                steps.push((begin + lasts.mul_f64(time), step));
            }
            steps.push((end, Step::Start));
            steps
        }
        Fault::FullDisk => vec![
            (begin, Step::Kill),
            (begin, Step::StartFull),
            (end, Step::Kill),
            (end, Step::Start),
        ],
        Fault::Upgrade => {
            vec![(begin, Step::Stop), (end, Step::ForgetState), (end, Step::Start)]
        }
    }
}

impl Seen {
    fn add(&mut self, other: Self) {
        for (sum, more) in self.outages.iter_mut().zip(other.outages) {
            *sum += more;
        }
        self.callbacks += other.callbacks;
        self.attempts += other.attempts;
        self.unanswered += other.unanswered;
        self.unavailable += other.unavailable;
        self.committed_unanswered += other.committed_unanswered;
        self.lost += other.lost;
        self.suspended += other.suspended;
        self.missing += other.missing;
        self.wrong += other.wrong;
        self.problems.extend(other.problems);
    }

    fn found(self, rounds: u32, control: Control) -> Found {
        let bad = self.lost + self.missing + self.wrong;
        let counts = [
            ("kills", self.outages[Fault::Kill as usize]),
            ("crash loops", self.outages[Fault::CrashLoop as usize]),
            ("full disks", self.outages[Fault::FullDisk as usize]),
            ("upgrades with the state rebuilt", self.outages[Fault::Upgrade as usize]),
            ("callbacks", self.callbacks),
            ("attempts", self.attempts),
            ("attempts without an answer", self.unanswered),
            ("attempts answered 503", self.unavailable),
            ("callbacks committed although nobody heard so", self.committed_unanswered),
            ("callbacks lost by the sender", self.lost),
            ("callbacks missing in the journal", self.missing),
            ("wrong final states", self.wrong),
        ];
        let counts = counts.map(|(name, count)| (name.to_owned(), count)).to_vec();
        let figure =
            format!("{bad} lost in {rounds} simulated outages, {} callbacks", self.callbacks);
        Found { held: bad == 0, figure, counts, control, problems: self.problems }
    }
}
