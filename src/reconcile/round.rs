//! One round: everything a source's platform is asked at one time.
//!
//! First notifications that have not come to an end, by id; then the pages of notifications, then those
//! of text messages, from the newest down to a point. What an answer adds is kept before the next is
//! asked for, so a round that is broken off loses nothing but its place. And not even that: the next one
//! reads the newest pages down to where the broken one began, and then goes on where it stopped. A page
//! that the platform cannot show thus keeps nobody from the newest.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::budget::Budget;
use super::by_id::{Ids, Which};
use super::fault::Fault;
use super::keep::{Keep, Piece};
use super::known::{Heals, Known, Unknown};
use super::scan::{Place, Scan, Shown};
use super::upstream::{List, Platform, Question};
use crate::callback::Fingerprint;
use crate::clock::{Clock, Timestamp};
use crate::forward::backoff::{Backoff, Chance};
use crate::journal::Refused;
use crate::provider::polled::{Broken, Page, Said};
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

/// Notifications that the platform does not know and that are remembered; beyond it all are forgotten,
/// and asked for again.
const GONE_MAX: usize = 100_000;

/// What could not be understood and is named; the rest is counted.
pub const NAMED_MAX: usize = 100;

/// Why a round did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The platform does not answer, or not so that it helps.
    #[error("the platform cannot be asked: {0}")]
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
    /// Lists are read down to what was created before this.
    pub down_to: Timestamp,
    /// What was created before this is not asked for by id either.
    pub horizon: Timestamp,
    /// No list is read further down, not to end what was begun earlier either: the horizon, or the time
    /// before which everything was pruned. By its id, what is still known is asked for all the same.
    pub floor: Timestamp,
    /// Notifications asked for by id; the rest have their turn in the next round.
    pub ids_max: usize,
}

/// What a round came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Requests sent.
    pub requests: u64,
    /// Notifications and messages that were told of; one that was shown twice counts twice.
    pub seen: u64,
    /// Notifications that the platform does not know, or no longer.
    pub not_found: u64,
    /// What could not be understood.
    pub unreadable: Unreadable,
    /// What was news, in the order of [`Heals::ALL`].
    pub healed: [u64; Heals::ALL.len()],
    /// Whether every list was read down to the point.
    pub are_lists_read: bool,
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
    pub since: Option<Timestamp>,
}

impl Unreadable {
    fn must_go_back_to(&mut self, since: Timestamp) {
        self.since = Some(self.since.map_or(since, |known| known.min(since)));
    }

    /// How many there were, if there were any: in what was read before a list was broken off, at least one.
    fn any(&self) -> Option<u64> {
        (self.count > 0 || self.since.is_some()).then_some(self.count.max(1))
    }
}

impl Report {
    /// How many of what was healed.
    pub fn healed(&self) -> impl Iterator<Item = (Heals, u64)> {
        Heals::ALL.into_iter().zip(self.healed)
    }
}

/// A list that was not read to its end: how far, and when it was begun.
#[derive(Debug)]
struct BrokenOff {
    list: List,
    scan: Scan,
    began_at: Timestamp,
    /// As [`Unreadable::since`], in what was read of it.
    unreadable_since: Option<Timestamp>,
}

/// What is remembered from round to round, in memory: losing it costs requests.
#[derive(Debug, Default)]
pub struct Memory {
    broken_off: Vec<BrokenOff>,
    /// Ids were asked for up to this key.
    pub(super) asked_through: i64,
    /// Of what is overdue, ids were asked for up to this key.
    pub(super) overdue_through: i64,
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
    pub budget: &'r mut Budget,
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
        let mut ids = Ids { left: order.ids_max, not_found: Vec::new(), wrong_in_a_row: 0 };
        let by_ids = self.ask_by_ids(order, &mut ids).await;
        // Where it fails for one notification, the pages may be shown all the same.
        if !matches!(by_ids, Ok(()) | Err(Ended::Upstream(Fault::Passing { .. }))) {
            return by_ids;
        }
        self.read_lists(order).await?;
        self.report.are_lists_read = true;
        by_ids?;
        // A list shows what was sent with keys of one kind; by its id, all is known.
        self.ask_between(order, Which::NotShown, (0, i64::MAX), &mut ids).await?;
        // Only now: where lists are not shown either, it says nothing that one of them is not known.
        if self.memory.gone.len() + ids.not_found.len() > GONE_MAX {
            self.memory.gone.clear();
        }
        self.memory.gone.extend(ids.not_found);
        self.report.unreadable.any().map_or(Ok(()), |count| Err(Ended::Partial(count)))
    }

    async fn read_lists(&mut self, order: Order) -> Result<(), Ended> {
        for list in [List::Notifications, List::Messages] {
            let Some(first) = self.platform.first_page(list) else { continue };
            let place = self.memory.broken_off.iter().position(|broken| broken.list == list);
            let broken = place.map(|place| self.memory.broken_off.swap_remove(place));
            let begun = broken.as_ref().map(|broken| broken.began_at.plus_seconds(-OVERLAP_S));
            let down_to = begun.map_or(order.down_to, |begun| begun.max(order.down_to));
            let scan = Scan::new(first, down_to);
            // If this one breaks off too, what was behind it is read from there.
            self.read(list, scan, order).await?;
            if let Some(BrokenOff { scan, unreadable_since, .. }) = broken {
                if let Some(since) = unreadable_since {
                    self.report.unreadable.must_go_back_to(since);
                }
                self.read(list, scan.no_deeper_than(order.floor), order).await?;
            }
        }
        Ok(())
    }

    async fn read(&mut self, list: List, mut scan: Scan, order: Order) -> Result<(), Ended> {
        let whole = seconds(order.down_to, order.now);
        while let Some(place) = scan.next().cloned() {
            if let Err(ended) = self.read_page(list, &mut scan, place, order).await {
                self.break_off(list, scan, order);
                return Err(ended);
            }
            let reached = scan.reached().unwrap_or(order.now).max(order.down_to);
            (self.progress)(seconds(reached, order.now), whole);
        }
        self.report.cut_instants += scan.cut_instants;
        Ok(())
    }

    async fn read_page(
        &mut self,
        list: List,
        scan: &mut Scan,
        place: Place,
        order: Order,
    ) -> Result<(), Ended> {
        let page = self.ask(Question::Page(list, &place)).await.map_err(Ended::Upstream)?;
        let elements = page.said.len() + page.broken.len();
        let shown: Vec<Shown> = page
            .said
            .iter()
            .map(shown)
            .chain(page.broken.iter().filter_map(shown_broken))
            .collect();
        page.broken.iter().for_each(|broken| self.count_broken(list, broken, order));
        let open = page.said.iter().filter(|said| self.known.is_open(&self.source, said));
        self.seen.open.extend(open.map(|said| said.event.id().to_owned()));
        self.take(page, None).await?;
        // What the page shows is kept all the same.
        let read_on = scan.take(&shown, elements);
        read_on.map_err(|astray| Ended::Upstream(Fault::wrong(astray.to_string())))
    }

    /// It is told of, once a round, and the point does not move past it.
    fn count_broken(&mut self, list: List, broken: &Broken, order: Order) {
        // It stands on a page with what was asked for.
        if broken.created_at.is_some_and(|at| at < order.floor.min(order.down_to)) {
            return;
        }
        let since = broken.created_at.unwrap_or(order.down_to);
        self.report.unreadable.must_go_back_to(since);
        let Broken { place, why, .. } = broken;
        let which = match (&broken.id, list) {
            (Some(id), _) => id.clone(),
            (None, List::Notifications) => format!("element {place} of a page of notifications"),
            (None, List::Messages) => format!("element {place} of a page of received texts"),
        };
        let when = broken.created_at.map(|at| format!(", created {at}")).unwrap_or_default();
        self.count_unreadable(format!("{which}{when}: {why}"), broken.flaw);
    }

    /// Pages overlap: what is shown twice counts once.
    pub(super) fn count_unreadable(&mut self, named: String, flaw: &str) {
        let unreadable = &mut self.report.unreadable;
        if unreadable.named.contains(&named) {
            return;
        }
        unreadable.count += 1;
        if unreadable.named.len() < NAMED_MAX {
            unreadable.named.push(named);
        }
        self.metrics.unreadable(flaw);
    }

    fn break_off(&mut self, list: List, scan: Scan, order: Order) {
        let scan = scan.as_deep_as(order.down_to);
        let unreadable_since = self.report.unreadable.since;
        self.memory.broken_off.push(BrokenOff {
            list,
            scan,
            began_at: order.now,
            unreadable_since,
        });
    }

    /// Asks, again and again if that may help, when there is a request left to be spent.
    pub(super) async fn ask(&mut self, question: Question<'_>) -> Result<Page, Fault> {
        let mut failures = 0;
        loop {
            while let Err(wait) = self.budget.spend(Instant::now()) {
                sleep(wait).await;
            }
            self.report.requests += 1;
            let asked = self.platform.ask(question).await;
            self.metrics.asked(outcome(&asked));
            let fault = match asked {
                Ok(page) => return Ok(page),
                Err(fault) => fault,
            };
            let may_pass = fault.may_pass().filter(|asked_for| *asked_for <= RETRY_AFTER_MAX);
            let Some(asked_for) = may_pass.filter(|_| failures + 1 < FAILURES_MAX) else {
                return Err(fault);
            };
            sleep(asked_for.max(BACKOFF.pause(failures, self.chance))).await;
            failures += 1;
        }
    }

    /// Has what is news kept. `expected`: as of [`Known::look`].
    pub(super) async fn take(&mut self, page: Page, expected: Option<i64>) -> Result<(), Ended> {
        self.report.seen += page.said.len() as u64;
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

fn shown(said: &Said) -> Shown {
    Shown { id: said.event.id().to_owned(), created_at: said.created_at }
}

/// One that could not be understood can be followed all the same.
fn shown_broken(broken: &Broken) -> Option<Shown> {
    Some(Shown { id: broken.id.clone()?, created_at: broken.created_at })
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

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.unix_micros().saturating_sub(from.unix_micros()).max(0) / 1_000_000
}
