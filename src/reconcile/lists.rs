//! The part of a round that reads lists: page by page, from the newest down to a point.
//!
//! A list that breaks off is gone on with in the next round, behind its newest pages. An element that
//! cannot be understood is told of, followed like any other, and remembered: the point must not pass it,
//! and not either because its page was read before the list broke off.

use super::fault::Fault;
use super::keep::Keep;
use super::round::{Ended, OVERLAP_S, Order, Round};
use super::scan::{Place, Scan, Shown};
use super::upstream::{List, Question};
use crate::clock::Timestamp;
use crate::provider::polled::{Broken, Page, Said};

/// A list that was not read to its end: how far, and when it was begun.
#[derive(Debug)]
pub(super) struct BrokenOff {
    list: List,
    scan: Scan,
    began_at: Timestamp,
    /// As in the report, of what was read of it.
    unreadable_since: Option<Timestamp>,
}

impl<K: Keep + Send> Round<'_, K> {
    /// Reads that list, if the platform has it. The report says whether it was.
    pub(super) async fn read_through(&mut self, list: List, order: Order) -> Result<(), Ended> {
        let read = match self.platform.first_page(list) {
            Some(first) => self.read_list(list, first, order).await,
            None => Ok(()),
        };
        self.report.is_read[list as usize] = read.is_ok();
        self.bear(read)
    }

    async fn read_list(&mut self, list: List, first: Place, order: Order) -> Result<(), Ended> {
        let place = self.memory.broken_off.iter().position(|broken| broken.list == list);
        let broken = place.map(|place| self.memory.broken_off.swap_remove(place));
        let begun = broken.as_ref().map(|broken| broken.began_at.plus_seconds(-OVERLAP_S));
        let down_to = begun.map_or(order.down_to(list), |begun| begun.max(order.down_to(list)));
        // If this one breaks off too, what was behind it is read from there.
        self.read(list, Scan::new(first, down_to), order).await?;
        let Some(BrokenOff { scan, unreadable_since, .. }) = broken else { return Ok(()) };
        if let Some(since) = unreadable_since {
            self.report.unreadable.must_go_back_to(list, since);
        }
        // As deep as this round: it may be a sweep, and the one that broke off none.
        self.read(list, scan.as_deep_as(order.down_to(list)), order).await
    }

    async fn read(&mut self, list: List, mut scan: Scan, order: Order) -> Result<(), Ended> {
        let whole = seconds(order.down_to(list), order.now);
        while let Some(place) = scan.next().cloned() {
            if let Err(ended) = self.read_page(list, &mut scan, place, order).await {
                self.break_off(list, scan, order);
                return Err(ended);
            }
            let reached = scan.reached().unwrap_or(order.now).max(order.down_to(list));
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
        let shown = shown(&page);
        page.broken.iter().for_each(|broken| self.count_broken(list, broken, order));
        let open = page.said.iter().filter(|said| self.known.is_open(&self.source, said));
        self.seen.open.extend(open.map(|said| said.event.id().to_owned()));
        let new = page.said.iter().filter(|said| !scan.was_shown(said.event.id()));
        self.report.seen += new.count() as u64;
        self.take(page, None).await?;
        // What the page shows is kept all the same.
        let read_on = scan.take(&shown, elements);
        read_on.map_err(|astray| Ended::Upstream(Fault::wrong(astray.to_string())))
    }

    /// It is told of, once a round, and the point does not move past it.
    fn count_broken(&mut self, list: List, broken: &Broken, order: Order) {
        // It stands on a page with what was asked for.
        let stands_at = broken.stands_at();
        if stands_at.is_some_and(|at| at < order.floor.min(order.down_to(list))) {
            return;
        }
        let since = stands_at.unwrap_or(order.lists[list as usize].point);
        self.report.unreadable.must_go_back_to(list, since);
        let Broken { place, why, flaw, .. } = broken;
        let which = match (&broken.id, list) {
            (Some(id), _) => id.clone(),
            (None, List::Notifications) => format!("element {place} of a page of notifications"),
            (None, List::Messages) => format!("element {place} of a page of received texts"),
        };
        let when = broken.created_at.map(|at| format!(", created {at}")).unwrap_or_default();
        // Two without an id are told apart by where they stand too, if they say nothing of themselves.
        let stands_at = stands_at.filter(|_| broken.id.is_none());
        self.count_unreadable(format!("{which}{when}: {why}"), stands_at, flaw);
    }

    fn break_off(&mut self, list: List, scan: Scan, order: Order) {
        let scan = scan.as_deep_as(order.down_to(list));
        let unreadable_since = self.report.unreadable.since[list as usize];
        self.memory.broken_off.push(BrokenOff {
            list,
            scan,
            began_at: order.now,
            unreadable_since,
        });
    }
}

/// All that has an id, in the order of the page. One that could not be understood can be followed all the
/// same.
fn shown(page: &Page) -> Vec<Shown> {
    let understood =
        |said: &Said| Some(Shown { id: said.event.id().to_owned(), created_at: said.created_at });
    let mut shown: Vec<Option<Shown>> = page.said.iter().map(understood).collect();
    // Their places are counted from 1, and rise.
    for broken in &page.broken {
        let (place, created_at) = (broken.place.saturating_sub(1), broken.stands_at());
        let shown_as = broken.id.clone().map(|id| Shown { id, created_at });
        shown.insert(place.min(shown.len()), shown_as);
    }
    shown.into_iter().flatten().collect()
}

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.unix_micros().saturating_sub(from.unix_micros()).max(0) / 1_000_000
}
