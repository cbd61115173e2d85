//! What was sent and what was acknowledged: kept by the sender, held against the receiver.
//!
//! A callback is in one of three places: to be sent, on its way, or acknowledged. What is on its way
//! when the receiver dies goes back to be sent, as a platform tries again, so that in the end every
//! life is told whole and its truth must be in the state.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lives::{Life, life};
use super::support::Chance;

/// Lives whose callbacks are mixed with each other: a receipt can come before an older one.
const LIVES_AT_ONCE: u64 = 50;

/// What is older may be pruned.
const PRUNED_AFTER: Duration = Duration::from_secs(1);

/// How long `prune` may take from being started to reading the clock.
const PRUNE_START_MAX: Duration = Duration::from_millis(300);

/// The body of a callback.
pub type Body = Arc<[u8]>;

/// Everything sent to one database.
pub struct Ledger {
    seed: u64,
    padding_bytes: usize,
    book: Mutex<Book>,
}

struct Book {
    chance: Chance,
    lives: Vec<Life>,
    to_send: Vec<Body>,
    /// In the order in which the answers were read.
    acknowledged: Vec<Body>,
    attempts: HashMap<Body, u32>,
    /// Acknowledged before the last pruning was ordered: these may have left the journal.
    prunable: usize,
    /// Whether a repeat that is acknowledged is kept as one; on a full disk it is only recognised.
    repeats_count: bool,
    /// Answers by status.
    answers: HashMap<u16, u64>,
}

impl Ledger {
    /// An empty one, of lives of that seed.
    pub fn new(seed: u64, padding_bytes: usize) -> Arc<Self> {
        let book = Book {
            chance: Chance::of_seed(seed),
            lives: Vec::new(),
            to_send: Vec::new(),
            acknowledged: Vec::new(),
            attempts: HashMap::new(),
            prunable: 0,
            repeats_count: true,
            answers: HashMap::new(),
        };
        Arc::new(Self { seed, padding_bytes, book: Mutex::new(book) })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next callback to send; of a new life, if none is left.
    pub fn next(&self) -> Body {
        let mut book = self.book();
        while book.to_send.is_empty() {
            let first = u64::try_from(book.lives.len()).expect("memory is finite");
            for number in first..first + LIVES_AT_ONCE {
                let life = life(self.seed, number, self.padding_bytes);
                book.to_send.extend(life.bodies.iter().cloned());
                book.lives.push(life);
            }
            let Book { chance, to_send, .. } = &mut *book;
            chance.shuffle(to_send);
        }
        book.to_send.pop().map(|body| count_attempt(&mut book, body)).expect("just filled")
    }

    /// The next callback of lives that have begun; nothing if all are acknowledged or on their way.
    pub fn next_owed(&self) -> Option<Body> {
        let mut book = self.book();
        book.to_send.pop().map(|body| count_attempt(&mut book, body))
    }

    /// A callback that was acknowledged is sent once more.
    pub fn again(&self, body: &Body) -> Body {
        count_attempt(&mut self.book(), Arc::clone(body))
    }

    /// It was answered; with 2xx it is acknowledged, else it is owed again.
    pub fn answered(&self, body: Body, status: u16) {
        let mut book = self.book();
        *book.answers.entry(status).or_default() += 1;
        if (200..300).contains(&status) {
            book.acknowledged.push(body);
        } else {
            book.to_send.push(body);
        }
    }

    /// No answer was read: it is owed again.
    pub fn unanswered(&self, body: Body) {
        self.book().to_send.push(body);
    }

    /// From here on the first of several identical callbacks is enough.
    pub fn let_repeats_go(&self) {
        self.book().repeats_count = false;
    }

    /// How many were acknowledged so far: a moment to come back to.
    pub fn mark(&self) -> usize {
        self.book().acknowledged.len()
    }

    /// What was acknowledged after that moment is owed again, as if no answer had been read.
    pub fn forget_since(&self, mark: usize) {
        let mut book = self.book();
        let forgotten = book.acknowledged.split_off(mark);
        book.to_send.extend(forgotten);
    }

    /// Those acknowledged from one moment to another.
    pub fn acknowledged(&self, moments: std::ops::Range<usize>) -> Vec<Body> {
        self.book().acknowledged[moments].to_vec()
    }

    /// A pruning of all there is now is about to be ordered.
    pub fn prune_ordered(&self) {
        let mut book = self.book();
        book.prunable = book.acknowledged.len();
    }

    /// Waits until `prune --older-than 1s` may be ordered. The command counts its second from when
    /// it has started, so what arrives while it starts may be pruned too.
    pub fn wait_to_prune(&self) -> Instant {
        let began = Instant::now();
        std::thread::sleep(PRUNE_START_MAX);
        self.prune_ordered();
        std::thread::sleep(PRUNED_AFTER.saturating_sub(began.elapsed()));
        began
    }

    /// Afterwards: if the command could have started later still, nothing so far is looked for.
    pub fn prune_began_late(&self, began: Instant) {
        if began.elapsed() > PRUNED_AFTER + PRUNE_START_MAX {
            self.prune_ordered();
        }
    }

    /// Of the first `mark`, how often each was acknowledged and may not have been pruned since.
    pub fn due_in_journal(&self, mark: usize) -> HashMap<Body, u32> {
        let book = self.book();
        let mut due = HashMap::new();
        for body in book.acknowledged[..mark].iter().skip(book.prunable) {
            let times: &mut u32 = due.entry(Arc::clone(body)).or_default();
            *times = if book.repeats_count { *times + 1 } else { 1 };
        }
        due
    }

    /// How often each was sent.
    pub fn attempts(&self) -> HashMap<Body, u32> {
        self.book().attempts.clone()
    }

    /// Answers by status; 204 and 503 are what is expected.
    pub fn answers(&self) -> HashMap<u16, u64> {
        self.book().answers.clone()
    }

    /// Tells of every life that has begun, with how many callbacks about it were acknowledged.
    pub fn each_life(&self, mut tell: impl FnMut(&Life, u32)) {
        let book = self.book();
        let mut times: HashMap<&Body, u32> = HashMap::new();
        for body in &book.acknowledged {
            let times = times.entry(body).or_default();
            *times = if book.repeats_count { *times + 1 } else { 1 };
        }
        for life in &book.lives {
            // An identical copy is counted with its original.
            let distinct = &life.bodies[..usize::try_from(life.distinct).expect("a handful")];
            tell(life, distinct.iter().map(|body| times.get(body).copied().unwrap_or(0)).sum());
        }
    }
}

fn count_attempt(book: &mut Book, body: Body) -> Body {
    *book.attempts.entry(Arc::clone(&body)).or_default() += 1;
    body
}
