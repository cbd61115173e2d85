//! One round: everything a source's platform is asked at one time.
//!
//! First, by their ids, notifications that are overdue and those that have not come to an end and are too
//! old for the pages; then the pages of notifications, and by id those that should have been on one; then
//! the pages of text messages. Pages are read from the newest down to a point. Each of these parts has its
//! turn, whatever became of the one before. Only where the platform does not let us in, wants to be left
//! alone for long, or does not answer at all, and where nothing can be kept, is the rest left for the next
//! round.
//!
//! What an answer adds is kept before the next is asked for, so a round that is broken off loses nothing
//! but its place. And not even that: the next one reads the newest pages down to where the broken one
//! began, and then goes on where it stopped. A page that the platform cannot show thus keeps nobody from
//! the newest.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::budget::Budget;
use super::by_id::{Ids, Which};
use super::fault::Fault;
use super::keep::{Keep, Piece};
use super::known::{Heals, Known, Unknown};
use super::lists::BrokenOff;
use super::upstream::{List, Platform, Question};
use crate::callback::Fingerprint;
use crate::clock::{Clock, Timestamp};
use crate::forward::backoff::{Backoff, Chance};
use crate::forward::breaker;
use crate::journal::{PerList, Refused};
use crate::provider::polled::{Page, Said};
use crate::telemetry::{Asked, UpstreamMetrics};

/// What was created so long before a point is asked for again: clocks differ, and a platform can show a
/// notification later than it created it.
pub const OVERLAP_S: i64 = 600;

/// Failures in a row after which a round is given up.
pub(super) const FAILURES_MAX: u32 = 5;

/// Pauses between them.
const BACKOFF: Backoff = Backoff { min: Duration::from_millis(500), max: Duration::from_secs(60) };

/// The longest pause that a platform can ask for within a round: beyond it the next round will do.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Notifications asked for by id in a round where their list could not be read: most it would have shown.
/// The others have their turn in the next.
const IDS_NOT_SHOWN_MAX: usize = 100;

/// Notifications that the platform does not know and that are remembered; beyond it all are forgotten,
/// and asked for again.
const GONE_MAX: usize = 100_000;

/// What is named of what could not be understood, and of what the platform does not know; the rest is
/// counted.
pub const NAMED_MAX: usize = 100;

/// Why a round did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The platform does not answer, or not so that it helps.
    #[error("the platform did not tell all: {0}")]
    Upstream(Fault),
    /// The journal does not take more.
    #[error("the journal refused what was news: {0}")]
    Refused(Refused),
    /// The state is so far behind the journal that it cannot be told what is news.
    #[error("the state is behind the journal")]
    Behind,
    /// It cannot be read.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// Whoever keeps what is news does not.
    #[error("{0}")]
    NotKept(String),
    /// The receiver is stopping.
    #[error("the receiver is stopping")]
    Stopped,
    /// Everything was asked for and kept, but for so many that could not be understood.
    #[error("not all could be understood: {0} not")]
    Partial(u64),
}

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The time.
    pub now: Timestamp,
    /// How far down each list is read.
    pub lists: PerList<Depth>,
    /// What was created before this is not asked for by id either.
    pub horizon: Timestamp,
    /// No list is read further down, not to end what was begun earlier either: the horizon, or the time
    /// before which everything was pruned. By its id, what is still known is asked for all the same.
    pub floor: Timestamp,
    /// Notifications asked for by id; the rest have their turn in the next round.
    pub ids_max: usize,
}

/// How far down a list is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Down to what was created before this.
    pub down_to: Timestamp,
    /// The last point known, or the same if none is: what has no date leaves it where it is.
    pub point: Timestamp,
}

impl Order {
    /// Down to where that list is read.
    pub fn down_to(&self, list: List) -> Timestamp {
        self.lists[list as usize].down_to
    }
}

/// What a round came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests sent.
    pub requests: u64,
    /// Those that were answered, if only with a refusal.
    pub answered: u64,
    /// Notifications and messages that were told of. One on two pages that overlap counts once, one that
    /// was asked for by its id too counts once more.
    pub seen: u64,
    /// Notifications that the platform does not know, or no longer.
    pub not_found: u64,
    /// The ids of the first [`NAMED_MAX`] of them.
    pub not_found_named: Vec<String>,
    /// What could not be understood.
    pub unreadable: Unreadable,
    /// What was news, in the order of [`Heals::ALL`].
    pub healed: [u64; Heals::ALL.len()],
    /// Which lists were read down to the point.
    pub is_read: PerList<bool>,
    /// Instants at which more were created than a page shows: some may not have been seen.
    pub cut_instants: usize,
}

/// What could not be understood in a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// How many.
    pub count: u64,
    /// Which, and why, for people: the first [`NAMED_MAX`].
    pub named: Vec<String>,
    /// The oldest of a list was created then, or later; what was created since must be asked for again.
    pub since: PerList<Option<Timestamp>>,
}

impl Unreadable {
    pub(super) fn must_go_back_to(&mut self, list: List, since: Timestamp) {
        let known = &mut self.since[list as usize];
        *known = Some(known.map_or(since, |known| known.min(since)));
    }

    /// How many there were, if there were any: in what was read before a list was broken off, at least one.
    fn any(&self) -> Option<u64> {
        (self.count > 0 || self.since.iter().any(Option::is_some)).then_some(self.count.max(1))
    }
}

impl Report {
    /// How many of what was healed.
    pub fn healed(&self) -> impl Iterator<Item = (Heals, u64)> {
        Heals::ALL.into_iter().zip(self.healed)
    }
}

/// What is remembered from round to round, in memory: losing it costs requests.
#[derive(Debug, Default)]
pub struct Memory {
    pub(super) broken_off: Vec<BrokenOff>,
    /// Of each [`Which`], ids were asked for up to this key.
    pub(super) asked_through: [i64; 3],
    /// Keys of notifications that the platform does not know.
    pub(super) gone: HashSet<i64>,
}

/// Told how far the lists are read, in seconds of the time they cover, and how many there are.
pub type Progress<'p> = dyn FnMut(i64, i64) + Send + 'p;

/// A source that is asked.
pub struct Round<'r, K> {
    /// Its name.
    pub source: Arc<str>,
    /// Whom to ask.
    pub platform: &'r Platform,
    /// What is known.
    pub known: &'r Known,
    /// Who keeps what is news.
    pub keep: K,
    /// When to ask.
    pub budget: &'r Mutex<Budget>,
    /// What is remembered.
    pub memory: &'r mut Memory,
    /// For pauses.
    pub chance: &'r mut Chance,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: UpstreamMetrics,
    /// Told how far it is.
    pub progress: &'r mut Progress<'r>,
    /// What it comes to.
    pub report: Report,
    /// What it has seen.
    pub seen: Seen,
}

/// What a round has seen so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Ids of what a page showed and that has not come to an end, and of what was asked for by id.
    pub(super) open: HashSet<String>,
    /// What was kept.
    kept: HashSet<Fingerprint>,
    /// What could not be understood, as it is named: more than the report has names.
    unreadable: HashSet<Fingerprint>,
    /// What the first part that came to no good end met.
    trouble: Option<Ended>,
}

impl<K> std::fmt::Debug for Round<'_, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Round").field("source", &self.source).finish_non_exhaustive()
    }
}

impl<K: Keep + Send> Round<'_, K> {
    /// Asks for everything. What was found by then is in [`Round::report`] however it ends.
    ///
    /// # Errors
    /// Why it could not be asked for to the end.
    pub async fn run(&mut self, order: Order) -> Result<(), Ended> {
        self.keep.ready().await?;
        // What never ends though it is overdue must leave something for the others.
        let mut ids = Ids::new(order.ids_max.div_ceil(2));
        let overdue = self.ask_by_id(Which::Overdue, order, &mut ids).await;
        self.bear(overdue)?;
        ids.left += order.ids_max / 2;
        // Whether the platform is down, or fails for one notification, the lists will show.
        let is_put_off = self.is_unanswered();
        if !is_put_off {
            let not_reached = self.ask_by_id(Which::NotReached, order, &mut ids).await;
            self.bear(not_reached)?;
        }
        self.read_through(List::Notifications, order).await?;
        if is_put_off && !self.is_unanswered() {
            let not_reached = self.ask_by_id(Which::NotReached, order, &mut ids).await;
            self.bear(not_reached)?;
        }
        let is_read = self.report.is_read[List::Notifications as usize];
        if !self.is_unanswered() {
            // A list shows what was sent with keys of one kind; by its id, all is known. And what stands
            // behind a page that the platform cannot show.
            ids.left = if is_read { ids.left } else { ids.left.min(IDS_NOT_SHOWN_MAX) };
            let not_shown = self.ask_by_id(Which::NotShown, order, &mut ids).await;
            self.bear(not_shown)?;
        }
        if is_read {
            // Only now: where the list is not shown, it says nothing that one of them is not known.
            self.remember_gone(ids.not_found);
        }
        // At the end: with keys that may not see it, it is all that is denied.
        if !self.is_unanswered() {
            self.read_through(List::Messages, order).await?;
        }
        if let Some(trouble) = self.seen.trouble.take() {
            return Err(trouble);
        }
        self.report.unreadable.any().map_or(Ok(()), |count| Err(Ended::Partial(count)))
    }

    /// A part that came to no good end is remembered, if the others can have their turn all the same.
    pub(super) fn bear(&mut self, part: Result<(), Ended>) -> Result<(), Ended> {
        match part {
            Err(Ended::Upstream(fault))
                if !matches!(fault, Fault::Denied { .. }) && !self.is_left_alone() =>
            {
                self.seen.trouble.get_or_insert(Ended::Upstream(fault));
                Ok(())
            }
            part => part,
        }
    }

    /// Whether the platform was asked in vain, and nothing else.
    pub(super) fn is_unanswered(&self) -> bool {
        self.seen.trouble.is_some() && self.report.answered == 0
    }

    /// Whether the platform wants to be left alone for longer than a round waits.
    fn is_left_alone(&self) -> bool {
        self.budget().rests_for(Instant::now()) > RETRY_AFTER_MAX
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember_gone(&mut self, keys: Vec<i64>) {
        if self.memory.gone.len() + keys.len() > GONE_MAX {
            self.memory.gone.clear();
        }
        self.memory.gone.extend(keys);
    }

    /// Pages overlap: what is shown twice counts once. What has one name and stands elsewhere is another.
    pub(super) fn count_unreadable(
        &mut self,
        named: String,
        stands_at: Option<Timestamp>,
        flaw: &str,
    ) {
        let key = format!("{named} {stands_at:?}");
        if !self.seen.unreadable.insert(Fingerprint::of(key.as_bytes())) {
            return;
        }
        let unreadable = &mut self.report.unreadable;
        unreadable.count += 1;
        if unreadable.named.len() < NAMED_MAX {
            unreadable.named.push(named);
        }
        self.metrics.unreadable(flaw);
    }

    /// Asks, again and again if that may help, when there is a request left to be spent.
    pub(super) async fn ask(&mut self, question: Question<'_>) -> Result<Page, Fault> {
        let mut failures = 0;
        loop {
            self.wait_for_a_request().await?;
            self.report.requests += 1;
            let asked = self.platform.ask(question).await;
            self.metrics.asked(outcome(&asked));
            let fault = match asked {
                Ok(page) => {
                    self.report.answered += 1;
                    return Ok(page);
                }
                Err(fault) => fault,
            };
            let Some(asked_for) = fault.may_pass() else {
                self.report.answered += 1;
                return Err(fault);
            };
            // Whoever asks next waits for that too, be it another part, or another round.
            self.rest(asked_for);
            failures += 1;
            if failures == FAILURES_MAX || self.is_left_alone() {
                return Err(fault);
            }
            sleep(BACKOFF.pause(failures - 1, self.chance)).await;
        }
    }

    /// Leaves the platform alone as it asked.
    fn rest(&self, asked_for: Duration) {
        let asked_for = asked_for.min(breaker::RETRY_AFTER_MAX);
        if asked_for > Duration::ZERO {
            self.budget().rest(Instant::now() + asked_for);
        }
    }

    async fn wait_for_a_request(&mut self) -> Result<(), Fault> {
        loop {
            let spent = self.budget().spend(Instant::now());
            let Err(wait) = spent else { return Ok(()) };
            if self.is_left_alone() {
                let why = format!("it asked to be left alone for {} s more", wait.as_secs());
                return Err(Fault::Passing { why, retry_after: Some(wait) });
            }
            sleep(wait).await;
        }
    }

    /// Has what is news kept. `expected`: as of [`Known::look`].
    pub(super) async fn take(&mut self, page: Page, expected: Option<i64>) -> Result<(), Ended> {
        // Without knowing what is acknowledged and not settled yet, it would be taken for news.
        self.keep.ready().await?;
        let heals = self.known.look(&self.source, &page.said, expected)?;
        let at = self.clock.now();
        let news = page.said.into_iter().zip(heals);
        let pieces: Vec<Piece> = news
            .filter_map(|(Said { body, .. }, heals)| Some(Piece { heals: heals?, body, at }))
            // Pages overlap, and whoever keeps it may only pretend to.
            .filter(|piece| self.seen.kept.insert(Fingerprint::of(&piece.body)))
            .collect();
        if pieces.is_empty() {
            return Ok(());
        }
        let healed: Vec<Heals> = pieces.iter().map(|piece| piece.heals).collect();
        self.keep.keep(&self.source, pieces).await?;
        for heals in healed {
            self.report.healed[heals as usize] += 1;
            self.metrics.healed(heals as usize);
        }
        Ok(())
    }
}

fn outcome(asked: &Result<Page, Fault>) -> Asked {
    match asked {
        Ok(_) => Asked::Answered,
        Err(Fault::NotFound) => Asked::NotFound,
        Err(Fault::Passing { .. }) => Asked::Failed,
        Err(Fault::Limited { .. }) => Asked::Limited,
        Err(Fault::Denied { .. }) => Asked::Denied,
        Err(Fault::Wrong { .. }) => Asked::Wrong,
    }
}
