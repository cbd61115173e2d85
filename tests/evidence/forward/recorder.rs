//! A sink that writes down what reaches it, and is as unreliable as its habit says.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

use super::super::ledger::Ledger;
use super::super::support::Chance;

#[path = "../../../benches/support/http_sink.rs"]
mod http_sink;

use http_sink::{HttpSink, Reply};

/// Findings of one kind that are listed one by one.
const LISTED_MAX: usize = 3;

/// A forgetful sink forgets one change in as many: by count and not by chance, so that no run of it is
/// without fault.
const FORGETS_ONE_IN: usize = 20;

/// What a sink does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Takes most of it; of the rest it says that it is busy, ends the connection before it has taken
    /// it, or after.
    Fickle,
    /// Says of every so many changes that it took them and never writes them down, however often they
    /// come: must be caught.
    Forgetful,
    /// Takes a later change of a notification as if it had come before the one it follows: must be
    /// caught.
    Hasty,
}

/// An event as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Event {
    id: String,
    subject: String,
    data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Data {
    status: Option<String>,
    completed_at: Option<String>,
    previous: Option<Previous>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Previous {
    status: String,
    completed_at: Option<String>,
}

/// A sink at work, and its record.
pub struct Recorder {
    sink: HttpSink,
    record: Arc<Mutex<Record>>,
    is_down: Arc<AtomicBool>,
}

#[derive(Default)]
struct Record {
    events: u64,
    repeats: u64,
    unreadable: u64,
    /// In the order of arrival, repeats left out.
    first: Vec<Event>,
    known: HashMap<String, Event>,
    /// Events whose id had been that of another.
    other_ids: u64,
}

/// What a record comes to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Judged {
    /// Everything that arrived.
    pub events: u64,
    /// Different changes.
    pub changes: u64,
    /// Events that had arrived before.
    pub repeats: u64,
    /// Changes that never arrived.
    pub missing: u64,
    /// Changes that arrived after one that follows them.
    pub inversions: u64,
    /// The same id of different changes, or different ids of the same one.
    pub other_ids: u64,
}

impl Judged {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        self.changes += other.changes;
        self.repeats += other.repeats;
        self.missing += other.missing;
        self.inversions += other.inversions;
        self.other_ids += other.other_ids;
    }
}

impl Recorder {
    /// Listens on a free port.
    pub fn start(habit: Habit, seed: u64) -> io::Result<Self> {
        let record: Arc<Mutex<Record>> = Arc::default();
        let is_down: Arc<AtomicBool> = Arc::default();
        let (written, down) = (Arc::clone(&record), Arc::clone(&is_down));
        let mut chance = Chance::of_seed(seed);
        let hear = move |body: &[u8]| {
            if down.load(Ordering::Relaxed) {
                return Reply::Busy;
            }
            lock(&written).hear(body, habit, chance.below(100))
        };
        let sink = HttpSink::start(SocketAddr::from(([127, 0, 0, 1], 0)), hear)?;
        Ok(Self { sink, record, is_down })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.sink.address()
    }

    /// Whether it takes nothing for now.
    pub fn be_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::Relaxed);
    }

    /// How many events it was sent while it was up.
    pub fn events(&self) -> u64 {
        lock(&self.record).events
    }

    /// Holds the record against the truth of every life, all of which were told whole; what is wrong,
    /// one line each, for some.
    pub fn judge(&self, ledger: &Ledger) -> (Judged, Vec<String>) {
        lock(&self.record).judge(ledger)
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    /// `chance`: of a hundred.
    fn hear(&mut self, body: &[u8], habit: Habit, chance: usize) -> Reply {
        self.events += 1;
        let reply = match (habit, chance) {
            (Habit::Fickle, 0..3) => return Reply::Busy,
            (Habit::Fickle, 3) => return Reply::HangUp,
            (Habit::Fickle, 4) => Reply::HangUp,
            _ => Reply::Taken,
        };
        match serde_json::from_slice::<Event>(body) {
            Ok(event) => self.write_down(event, habit),
            Err(_) => self.unreadable += 1,
        }
        reply
    }

    fn write_down(&mut self, event: Event, habit: Habit) {
        if let Some(known) = self.known.get(&event.id) {
            self.repeats += 1;
            self.other_ids += u64::from(*known != event);
            return;
        }
        self.known.insert(event.id.clone(), event.clone());
        if habit == Habit::Forgetful && self.known.len().is_multiple_of(FORGETS_ONE_IN) {
            return;
        }
        let follows = event.data.previous.is_some() && habit == Habit::Hasty;
        let before = self.first.iter().rposition(|first| follows && first.subject == event.subject);
        self.first.insert(before.unwrap_or(self.first.len()), event);
    }

    fn judge(&self, ledger: &Ledger) -> (Judged, Vec<String>) {
        let mut chains: HashMap<&str, Vec<&Event>> = HashMap::new();
        for event in &self.first {
            chains.entry(&event.subject).or_default().push(event);
        }
        let changes = self.first.len() as u64;
        let mut judged = Judged {
            events: self.events,
            changes,
            repeats: self.repeats,
            other_ids: self.other_ids,
            ..Judged::default()
        };
        let mut problems = Vec::new();
        if self.unreadable > 0 {
            problems.push(format!("{} events could not be read", self.unreadable));
        }
        ledger.each_life(|life, _| {
            let chain = chains.remove(life.id.as_str()).unwrap_or_default();
            let before = judged;
            // The receipts of a life are a second apart, and the last one is the truth.
            let moment = format!("10:00:{:02}", life.distinct);
            judged.chain(&chain, (life.status, &moment));
            let is_wrong = before.missing + before.inversions + before.other_ids
                < judged.missing + judged.inversions + judged.other_ids;
            if is_wrong && problems.len() < LISTED_MAX {
                let shown: Vec<_> = chain.iter().map(|event| &event.data).collect();
                problems.push(format!("{} came as {shown:?}; true is {}", life.id, life.status));
            }
        });
        if !chains.is_empty() {
            problems.push(format!("{} notifications arrived that nobody told of", chains.len()));
        }
        (judged, problems)
    }
}

impl Judged {
    /// The changes of one notification in the order of their first arrivals: each must follow the one
    /// before it, the first nothing, and the last is the truth.
    fn chain(&mut self, chain: &[&Event], truth: (&str, &str)) {
        let mut now = None;
        for event in chain {
            let follows = event.data.previous.as_ref().map(Previous::state);
            if follows != now {
                let is_there = |other: &&Event| other.data.state() == follows;
                let is_elsewhere = follows.is_none() || chain.iter().any(is_there);
                self.inversions += u64::from(is_elsewhere);
                self.missing += u64::from(!is_elsewhere);
            }
            now = event.data.state();
        }
        for (at, event) in chain.iter().enumerate() {
            let is_same = chain[..at].iter().any(|other| other.data == event.data);
            self.other_ids += u64::from(is_same);
        }
        let is_truth = |state: Option<(&str, &str)>| {
            state.is_some_and(|(status, at)| status == truth.0 && at.contains(truth.1))
        };
        let is_there = chain.iter().any(|event| is_truth(event.data.state()));
        self.missing += u64::from(!is_there);
        self.inversions += u64::from(is_there && !is_truth(now));
    }
}

impl Data {
    fn state(&self) -> Option<(&str, &str)> {
        let at = self.completed_at.as_deref().unwrap_or_default();
        self.status.as_deref().map(|status| (status, at))
    }
}

impl Previous {
    fn state(&self) -> (&str, &str) {
        (&self.status, self.completed_at.as_deref().unwrap_or_default())
    }
}
