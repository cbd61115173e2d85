//! The outbox and the rules of dispatching, as a state machine: whatever a consumer does and wherever
//! the process dies, every change reaches it, in order for each notification, and one that it will
//! never take blocks nothing but its own.
//!
//! What is tried is [`outbox`] on a real database, [`Window`], [`Breaker`] and [`fate`], with the
//! little that a dispatcher does between them and its sockets. Every sequence of steps is tried once
//! for each of its prefixes, with a crash behind it: so there is a crash between every two steps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use receiptd::callback::Fingerprint;
use receiptd::change::{Change, ChangeId, Filter, OwedTo, What};
use receiptd::clock::Timestamp;
use receiptd::config::settings::{self, Deliver, To};
use receiptd::forward::backoff::{Backoff, Chance};
use receiptd::forward::breaker::{Breaker, Passage};
use receiptd::forward::fate::fate;
use receiptd::forward::fault::Fault;
use receiptd::forward::window::{Record, Window};
use receiptd::sqlite;
use receiptd::state::outbox::{self, Outcome, Owed};
use receiptd::state::tables::SCHEMA;
use rusqlite::Connection;
use rusqlite::backup::Backup;

const SOURCE: &str = "passport";
/// Few enough that changes of one subject meet, and places enough that those of others go past.
const SUBJECTS: i64 = 4;
const IN_FLIGHT_MAX: usize = 3;
const ROWS_MAX: usize = 6;
/// Each change is of two bytes, so this is what binds.
const BYTES_MAX: usize = 10;
/// Far more than all ticks together: a change that can be taken is never given up for its age.
const AGE_MAX: Duration = Duration::from_secs(36_000);
const BACKOFF: Backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(60) };
/// Rounds of a minute in which everything that can arrive must have arrived.
const MINUTES_SOON: usize = 60;

/// What a consumer will ever make of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Good,
    /// Refused each time.
    Poison,
    /// Fails each time, as if it might pass.
    Hopeless,
}

/// What a consumer makes of one attempt.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Accepts,
    Fails {
        retry_after_s: Option<u64>,
    },
    /// It has it, and we do not hear of that.
    AcceptsAndIsNotHeard,
    Resets,
    /// It is given up, and reaches the consumer later.
    IsGivenUpAndArrivesLater,
    /// It has it, and takes its time to say so.
    AcceptsAndIsSlow,
}

#[derive(Clone, Debug)]
enum Step {
    Settle {
        subject: i64,
        nature: Nature,
    },
    Fill(usize),
    Answer {
        lane: usize,
        which: usize,
        answer: Answer,
    },
    /// What an attempt was given up for arrives after all.
    ArriveLate {
        lane: usize,
        which: usize,
    },
    HandOver(usize),
    Commit(usize),
    CommitFails(usize),
    HearOfCommit(usize),
    Tick {
        milliseconds: i64,
    },
    /// What is on the disk now is what a power cut leaves.
    Sync,
    PowerCut,
    Crash,
}

/// A dispatcher without its sockets; all of it goes with the process.
struct Lane {
    window: Window,
    breaker: Breaker,
    chance: Chance,
    scanned: i64,
    under_way: Vec<UnderWay>,
    recording: Option<(Record, bool)>,
    /// Nothing is sent before so many changes are settled.
    sends_from: usize,
}

#[derive(Clone)]
struct UnderWay {
    owed: Owed,
    is_probe: bool,
    has_arrived: bool,
}

/// One consumer, as it is configured and what it has.
struct Consumer {
    settings: settings::Sink,
    /// Keys in the order of arrival, repeats included.
    arrived: Vec<i64>,
    ids: BTreeMap<i64, ChangeId>,
    late: Vec<Owed>,
}

struct World {
    start: Instant,
    now: Timestamp,
    state: Connection,
    /// Everything that was ever settled: the journal, that is.
    journal: Vec<(Change, Nature)>,
    /// How much of it the state has.
    settled: usize,
    synced: (Connection, usize),
    lanes: Vec<Lane>,
    consumers: Vec<Consumer>,
}

/// `sends_from`: see [`Lane`].
fn lane(sends_from: usize) -> Lane {
    Lane {
        window: Window::new(ROWS_MAX, BYTES_MAX),
        breaker: Breaker::new(BACKOFF),
        chance: Chance::seeded(1),
        scanned: i64::MIN,
        under_way: Vec::new(),
        recording: None,
        sends_from,
    }
}

fn consumer(name: &str, deliver: Deliver) -> Consumer {
    let settings = settings::Sink {
        name: Arc::from(name),
        filter: Filter::default(),
        deliver,
        include_raw: false,
        attempt_ms_max: Duration::from_secs(1),
        attempts_max: None,
        age_s_max: AGE_MAX,
        backoff_ms_min: BACKOFF.min,
        backoff_ms_max: BACKOFF.max,
        in_flight_max: IN_FLIGHT_MAX,
        to: To::Stdout,
    };
    Consumer { settings, arrived: Vec::new(), ids: BTreeMap::new(), late: Vec::new() }
}

fn copy(from: &Connection) -> Connection {
    let mut to = Connection::open_in_memory().unwrap();
    Backup::new(from, &mut to).unwrap().run_to_completion(1_000, Duration::ZERO, None).unwrap();
    to
}

fn epoch() -> Timestamp {
    "2026-11-22T10:00:00.000000Z".parse().unwrap()
}

impl World {
    fn new() -> Self {
        let state = sqlite::open_in_memory(&SCHEMA).unwrap();
        Self {
            start: Instant::now(),
            now: epoch(),
            synced: (copy(&state), 0),
            state,
            journal: Vec::new(),
            settled: 0,
            lanes: vec![lane(0), lane(0)],
            consumers: vec![
                consumer("every", Deliver::EveryChange),
                consumer("latest", Deliver::Latest),
            ],
        }
    }

    fn instant(&self) -> Instant {
        let micros = self.now.unix_micros() - epoch().unix_micros();
        self.start + Duration::from_micros(micros.unsigned_abs())
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Settle { subject, nature } => {
                if self.settled == self.journal.len() {
                    self.receive(subject, nature);
                }
                self.settle();
            }
            Step::Fill(lane) => self.fill(lane),
            Step::Answer { lane, which, answer } => self.answer(lane, which, answer),
            Step::ArriveLate { lane, which } => {
                let late = &mut self.consumers[lane].late;
                if !late.is_empty() {
                    let owed = late.swap_remove(which % late.len());
                    self.arrive(lane, &owed);
                }
            }
            Step::HandOver(lane) => {
                let lane = &mut self.lanes[lane];
                if let Some(record) = lane.window.to_record() {
                    assert!(lane.recording.is_none(), "one hand-over at a time");
                    lane.recording = Some((record, false));
                }
            }
            Step::Commit(lane) => self.commit(lane),
            Step::CommitFails(lane) => {
                let lane = &mut self.lanes[lane];
                if let Some((record, false)) = lane.recording.take_if(|recording| !recording.1) {
                    lane.window.not_recorded(record);
                }
            }
            Step::HearOfCommit(lane) => {
                let lane = &mut self.lanes[lane];
                if lane.recording.take_if(|recording| recording.1).is_some() {
                    lane.window.recorded();
                }
            }
            Step::Tick { milliseconds } => {
                let micros = self.now.unix_micros() + milliseconds * 1_000;
                self.now = Timestamp::from_unix_micros(micros);
            }
            Step::Sync => self.synced = (copy(&self.state), self.settled),
            Step::PowerCut => {
                (self.state, self.settled) = (copy(&self.synced.0), self.synced.1);
                self.crash();
            }
            Step::Crash => self.crash(),
        }
    }

    fn receive(&mut self, subject: i64, nature: Nature) {
        let key = i64::try_from(self.journal.len()).unwrap() + 1;
        let mut cause = [0; 16];
        cause[..8].copy_from_slice(&key.to_be_bytes());
        let id = format!("n{subject}");
        let change = Change {
            key,
            id: ChangeId::of(What::Status, SOURCE, &id, Fingerprint(cause)),
            what: What::Status,
            source: SOURCE.into(),
            subject,
            subject_id: Some(id),
            status: Some("delivered".to_owned()),
            precedence: None,
            received_at: self.now,
            data: "{}".to_owned(),
        };
        self.journal.push((change, nature));
    }

    /// The next change of the journal, in a transaction of its own.
    fn settle(&mut self) {
        let (change, _) = &self.journal[self.settled];
        let owed_to: Vec<OwedTo> = self.consumers.iter().map(owed_to).collect();
        let transaction = sqlite::write_transaction(&mut self.state).unwrap();
        outbox::owe(&transaction, change, &owed_to.iter().collect::<Vec<_>>(), None).unwrap();
        transaction.commit().unwrap();
        self.settled += 1;
    }

    /// All that is in memory is gone; what is on its way may or may not arrive.
    fn crash(&mut self) {
        for (at, old) in self.lanes.iter_mut().enumerate() {
            let consumer = &mut self.consumers[at];
            let sends_from = match consumer.settings.deliver {
                Deliver::EveryChange => 0,
                Deliver::Latest => self.journal.len(),
            };
            let gone = std::mem::replace(old, lane(sends_from));
            let on_their_way = gone.under_way.into_iter().filter(|attempt| !attempt.has_arrived);
            let late = on_their_way.map(|attempt| attempt.owed);
            if consumer.settings.deliver == Deliver::EveryChange {
                consumer.late.extend(late);
            }
        }
    }

    fn commit(&mut self, at: usize) {
        let sink = Arc::clone(&self.consumers[at].settings.name);
        let Some((record, is_committed)) = &mut self.lanes[at].recording else { return };
        if std::mem::replace(is_committed, true) {
            return;
        }
        let transaction = sqlite::write_transaction(&mut self.state).unwrap();
        for (key, outcome) in record.iter() {
            outbox::record(&transaction, &sink, *key, outcome, self.now).unwrap();
        }
        transaction.commit().unwrap();
    }

    fn fill(&mut self, at: usize) {
        if self.settled < self.lanes[at].sends_from {
            return;
        }
        match self.lanes[at].breaker.passage(self.instant()) {
            Passage::Barred => {}
            Passage::Probe if self.lanes[at].breaker.prefers_fresh() => {
                let _ = self.take_fresh(at, true) || self.take_due(at, true);
            }
            Passage::Probe => {
                let _ = self.take_due(at, true) || self.take_fresh(at, true);
            }
            Passage::Free => {
                self.take_due(at, false);
                self.take_fresh(at, false);
            }
        }
    }

    fn places(&self, at: usize, is_probe: bool) -> usize {
        let free = IN_FLIGHT_MAX.saturating_sub(self.lanes[at].window.under_way());
        if is_probe { free.min(1) } else { free }
    }

    fn take_due(&mut self, at: usize, is_probe: bool) -> bool {
        let window = &self.lanes[at].window;
        let places = self.places(at, is_probe).min(window.room());
        let sink = Arc::clone(&self.consumers[at].settings.name);
        let rows = outbox::due(&self.state, &sink, self.now, places + window.rows()).unwrap();
        let rows = rows.into_iter().filter(|owed| !window.has(owed.change.key)).take(places);
        let mut has_sent = false;
        for owed in rows.collect::<Vec<_>>() {
            if let Some(owed) = self.lanes[at].window.take_due(owed) {
                has_sent |= self.send(at, owed, is_probe);
            }
        }
        has_sent
    }

    fn take_fresh(&mut self, at: usize, is_probe: bool) -> bool {
        let sink = Arc::clone(&self.consumers[at].settings.name);
        let mut has_sent = false;
        loop {
            let is_full = self.lanes[at].window.room() == 0 || self.places(at, is_probe) == 0;
            if is_full || (is_probe && has_sent) {
                return has_sent;
            }
            let rows = outbox::fresh(&self.state, &sink, self.lanes[at].scanned, 1).unwrap();
            let Some(owed) = rows.into_iter().next() else { return has_sent };
            let (subject, key) = (owed.change.subject, owed.change.key);
            let is_blocked = outbox::is_blocked(&self.state, &sink, subject, key).unwrap();
            self.lanes[at].scanned = key;
            if let Some(owed) = self.lanes[at].window.take_fresh(owed, is_blocked) {
                has_sent |= self.send(at, owed, is_probe);
            }
        }
    }

    fn send(&mut self, at: usize, owed: Owed, is_probe: bool) -> bool {
        let sink = &self.consumers[at].settings.name;
        let lane = &mut self.lanes[at];
        let mut next = Some(owed);
        while let Some(owed) = next {
            if owed.is_latest_only && outbox::is_overtaken(&self.state, sink, &owed.change).unwrap()
            {
                next = lane.window.done(owed.change.subject, Outcome::Overtaken);
                continue;
            }
            if is_probe {
                lane.breaker.probe();
            }
            lane.under_way.push(UnderWay { owed, is_probe, has_arrived: false });
            assert!(lane.under_way.len() <= IN_FLIGHT_MAX, "no more than may be under way");
            return true;
        }
        false
    }

    fn nature(&self, owed: &Owed) -> Nature {
        self.journal[usize::try_from(owed.change.key).unwrap() - 1].1
    }

    fn arrive(&mut self, at: usize, owed: &Owed) {
        if self.nature(owed) != Nature::Good {
            return;
        }
        let consumer = &mut self.consumers[at];
        consumer.arrived.push(owed.change.key);
        let id = *consumer.ids.entry(owed.change.key).or_insert(owed.change.id);
        assert_eq!(id, owed.change.id, "the same change always has the same id");
    }

    fn answer(&mut self, at: usize, which: usize, answer: Answer) {
        let under_way = self.lanes[at].under_way.len();
        if under_way == 0 {
            return;
        }
        let which = which % under_way;
        let UnderWay { owed, is_probe, has_arrived } = self.lanes[at].under_way[which].clone();
        let arrives = matches!(
            answer,
            Answer::Accepts | Answer::AcceptsAndIsNotHeard | Answer::AcceptsAndIsSlow
        );
        if arrives && !has_arrived {
            self.arrive(at, &owed);
        }
        if matches!(answer, Answer::AcceptsAndIsSlow) {
            self.lanes[at].under_way[which].has_arrived = true;
            return;
        }
        // What is given up for a sink that wants only the latest could come after a later one; it is
        // to tell by the version of the state, as its documentation says.
        let is_every = self.consumers[at].settings.deliver == Deliver::EveryChange;
        if matches!(answer, Answer::IsGivenUpAndArrivesLater) && is_every && !has_arrived {
            self.consumers[at].late.push(owed.clone());
        }
        let passing =
            |retry_after| Err(Fault::Passing { why: "it failed".to_owned(), retry_after });
        let result = match (self.nature(&owed), answer) {
            (Nature::Poison, _) => Err(Fault::refused("never")),
            (Nature::Good, Answer::Accepts) => Ok(()),
            (_, Answer::Fails { retry_after_s }) => passing(retry_after_s.map(Duration::from_secs)),
            _ => passing(None),
        };
        self.lanes[at].under_way.swap_remove(which);
        self.ended(at, &owed, is_probe, &result);
    }

    fn ended(&mut self, at: usize, owed: &Owed, is_probe: bool, result: &Result<(), Fault>) {
        let now = self.instant();
        let lane = &mut self.lanes[at];
        let outcome = match result {
            Ok(()) => {
                lane.breaker.succeeded();
                Outcome::Delivered
            }
            Err(fault) => {
                match fault {
                    Fault::Passing { retry_after, .. } => {
                        lane.breaker.failed(now, is_probe, *retry_after, &mut lane.chance);
                    }
                    Fault::Refused { .. } | Fault::Gone { .. } => lane.breaker.succeeded(),
                }
                fate(owed, fault, &self.consumers[at].settings, self.now, &mut lane.chance)
            }
        };
        if let Some(next) = lane.window.done(owed.change.subject, outcome) {
            self.send(at, next, false);
        }
    }

    /// Everything goes well from here on, for so many minutes or until nothing is left to do.
    fn go_on(&mut self, minutes: usize) {
        for _ in 0..minutes {
            while self.settled < self.journal.len() {
                self.settle();
            }
            for at in 0..self.lanes.len() {
                self.run_dry(at);
            }
            if self.waiting() == 0 {
                return;
            }
            self.take(&Step::Tick { milliseconds: 60_000 });
        }
    }

    /// Until nothing more can be done at this moment.
    fn run_dry(&mut self, at: usize) {
        loop {
            self.fill(at);
            let is_idle = self.lanes[at].under_way.is_empty();
            while !self.lanes[at].under_way.is_empty() {
                self.answer(at, 0, Answer::Accepts);
            }
            let has_recorded = !self.lanes[at].window.is_recorded();
            for step in [Step::HandOver(at), Step::Commit(at), Step::HearOfCommit(at)] {
                self.take(&step);
            }
            if is_idle && !has_recorded {
                return;
            }
        }
    }

    /// Rows that are neither out nor given up.
    fn waiting(&self) -> i64 {
        let sql = "SELECT count(*) FROM outbox_row WHERE standing != 3";
        self.state.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    fn of_nature(&self, nature: Nature) -> impl Iterator<Item = &Change> {
        self.journal.iter().filter(move |(_, other)| *other == nature).map(|(change, _)| change)
    }
}

fn owed_to(consumer: &Consumer) -> OwedTo {
    OwedTo {
        sink: Arc::clone(&consumer.settings.name),
        since: 0,
        filter: Filter::default(),
        is_latest_only: consumer.settings.deliver == Deliver::Latest,
        wants_body: false,
    }
}

/// First arrivals, and that those of each subject come in the order of commit.
fn first_arrivals(world: &World, at: usize) -> BTreeSet<i64> {
    let mut seen = BTreeSet::new();
    let mut newest: BTreeMap<i64, i64> = BTreeMap::new();
    for key in &world.consumers[at].arrived {
        if !seen.insert(*key) {
            continue;
        }
        let subject = world.journal[usize::try_from(*key).unwrap() - 1].0.subject;
        let before = newest.insert(subject, *key);
        assert!(before < Some(*key), "{key} came after {before:?} of the same notification");
    }
    seen
}

/// Of each subject nothing arrives behind a newer change, not even once more: whoever is told only the
/// latest takes the last word for the truth.
fn judge_last_words(world: &World, at: usize) {
    let mut newest: BTreeMap<i64, i64> = BTreeMap::new();
    for key in &world.consumers[at].arrived {
        let subject = world.journal[usize::try_from(*key).unwrap() - 1].0.subject;
        let before = newest.insert(subject, *key);
        assert!(before <= Some(*key), "{key} came after {before:?}, which is newer");
    }
}

/// Runs these steps, crashes, goes on, and judges.
fn judge(steps: &[Step]) {
    let mut world = World::new();
    steps.iter().for_each(|step| world.take(step));
    world.crash();
    world.go_on(MINUTES_SOON);
    let blocked: BTreeSet<i64> =
        world.of_nature(Nature::Hopeless).map(|change| change.subject).collect();
    let every = first_arrivals(&world, 0);
    for change in world.of_nature(Nature::Good) {
        let is_free = !blocked.contains(&change.subject);
        assert!(!is_free || every.contains(&change.key), "{} has not arrived", change.key);
    }
    let age_minutes = usize::try_from(AGE_MAX.as_secs() / 60).unwrap();
    // Each hopeless change is given up for its age, and one attempt more may be a minute away.
    world.go_on(age_minutes + 20);
    assert_eq!(world.waiting(), 0, "everything is out or parked");
    while !world.consumers[0].late.is_empty() {
        world.take(&Step::ArriveLate { lane: 0, which: 0 });
    }
    judge_last_words(&world, 1);
    let (every, latest) = (first_arrivals(&world, 0), first_arrivals(&world, 1));
    let good: BTreeSet<i64> = world.of_nature(Nature::Good).map(|change| change.key).collect();
    assert_eq!(every, good, "all that can be taken has arrived, and nothing else");
    let newest: BTreeMap<i64, (i64, Nature)> = world
        .journal
        .iter()
        .map(|(change, nature)| (change.subject, (change.key, *nature)))
        .collect();
    for (key, nature) in newest.values() {
        assert!(*nature != Nature::Good || latest.contains(key), "the latest, {key}, has arrived");
    }
    judge_what_is_left(&world);
}

/// What is given up is parked for each sink that it was sent to, and no change is kept for nobody.
fn judge_what_is_left(world: &World) {
    let bad: Vec<i64> =
        world.journal.iter().filter(|(_, n)| *n != Nature::Good).map(|(c, _)| c.key).collect();
    let keys = |sql: &str| -> Vec<i64> {
        let mut statement = world.state.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let parked = keys("SELECT key FROM outbox_row WHERE sink = 'every' ORDER BY key");
    assert_eq!(parked, bad, "exactly what cannot be taken is parked");
    assert_eq!(keys("SELECT key FROM change_row ORDER BY key"), bad);
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![8 => Just(Nature::Good), 1 => Just(Nature::Poison), 1 => Just(Nature::Hopeless)]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        4 => Just(Answer::Accepts),
        2 => prop::option::of(1..40_u64).prop_map(|retry_after_s| Answer::Fails { retry_after_s }),
        2 => Just(Answer::AcceptsAndIsNotHeard),
        1 => Just(Answer::Resets),
        1 => Just(Answer::IsGivenUpAndArrivesLater),
        1 => Just(Answer::AcceptsAndIsSlow),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let lane = || 0..2_usize;
    prop_oneof![
        8 => (1..=SUBJECTS, nature()).prop_map(|(subject, nature)| Step::Settle { subject, nature }),
        6 => lane().prop_map(Step::Fill),
        10 => (lane(), 0..IN_FLIGHT_MAX, answer())
            .prop_map(|(lane, which, answer)| Step::Answer { lane, which, answer }),
        1 => (lane(), 0..4_usize).prop_map(|(lane, which)| Step::ArriveLate { lane, which }),
        5 => lane().prop_map(Step::HandOver),
        5 => lane().prop_map(Step::Commit),
        1 => lane().prop_map(Step::CommitFails),
        5 => lane().prop_map(Step::HearOfCommit),
        3 => (1..20_000_i64).prop_map(|milliseconds| Step::Tick { milliseconds }),
        1 => Just(Step::Sync),
        1 => Just(Step::PowerCut),
        1 => Just(Step::Crash),
    ]
}

/// Each case is as many runs as it has steps, so a failure is made smaller only for a while.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 40,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_change_arrives_in_order_wherever_the_process_dies(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        for end in 0..=steps.len() {
            judge(&steps[..end]);
        }
    }
}

#[test]
fn a_change_that_is_never_taken_is_parked_and_the_next_of_its_notification_goes_on() {
    let settle = |subject, nature| Step::Settle { subject, nature };
    judge(&[settle(1, Nature::Poison), settle(1, Nature::Good), settle(2, Nature::Good)]);
}

#[test]
fn a_change_that_fails_for_hours_holds_up_its_own_notification_and_no_other() {
    let mut world = World::new();
    world.take(&Step::Settle { subject: 1, nature: Nature::Hopeless });
    for subject in [1, 2, 3, 2, 1, 4] {
        world.take(&Step::Settle { subject, nature: Nature::Good });
    }
    world.go_on(MINUTES_SOON);
    let arrived = first_arrivals(&world, 0);
    assert_eq!(arrived.into_iter().collect::<Vec<_>>(), [3, 4, 5, 7]);
    assert!(world.waiting() > 0, "the others wait behind it");
}

#[test]
fn large_changes_of_one_notification_do_not_all_stand_in_memory() {
    let mut world = World::new();
    for _ in 0..20 {
        world.take(&Step::Settle { subject: 1, nature: Nature::Good });
    }
    let mut window = Window::new(100, 10);
    let rows = outbox::fresh(&world.state, "every", 0, 100).unwrap();
    assert_eq!((rows.len(), rows[0].bytes()), (20, 2));
    let mut rows = rows.into_iter();
    let sent: Vec<_> =
        rows.by_ref().take(5).filter_map(|row| window.take_fresh(row, false)).collect();
    assert_eq!((sent.len(), window.room()), (1, 0), "ten bytes are in hand");
    assert!(window.done(1, Outcome::Delivered).is_some());
    assert_eq!(window.room(), 95, "eight bytes, and one row whose end is not recorded");
    let waits = Outcome::Waits { due_at: epoch(), error: String::new() };
    assert!(window.done(1, waits).is_none());
    for row in rows {
        assert!(window.room() > 0, "held rows stay in the file");
        assert!(window.take_fresh(row, false).is_none());
    }
}

#[test]
fn a_sink_that_wants_only_the_latest_is_told_nothing_older_after_a_power_cut() {
    let settle = || Step::Settle { subject: 1, nature: Nature::Good };
    let send = || {
        let answer = Step::Answer { lane: 1, which: 0, answer: Answer::Accepts };
        [Step::Fill(1), answer, Step::HandOver(1), Step::Commit(1), Step::HearOfCommit(1)]
    };
    let mut steps = vec![settle(), settle()];
    steps.extend(send());
    steps.extend([Step::PowerCut, settle()]);
    steps.extend(send());
    judge(&steps);
}
