//! Which page to ask for next, from the newest down to a point. Pure.
//!
//! Pages of `/v2` follow an id, and the platform takes that for the instant at which it was created:
//! it shows what is *strictly older*. Where several were created in one instant and a page ends between
//! them, whoever follows the last one, as the platform's own `next` does, never sees the rest. So a
//! scan follows the oldest one that is newer than the oldest instant of the page: the next page begins
//! with that instant, whole, and a few are shown twice. Only where one instant fills a page is there no
//! way on but past it.
//!
//! A list ends with a page that is empty, however short those before it are, or with one whose last two
//! are from before the point: a single date that cannot be ends no list. It is never taken for read because of anything else: a platform that shows a page again
//! in place of the next, or one that nothing can follow, is [`Astray`], and so is a list that does not
//! end within [`PAGES_MAX`]. What was asked for then is what is asked for when somebody goes on.

use std::collections::HashSet;

use crate::clock::Timestamp;

/// Pages of one list that are read one after the other: two and a half million notifications, where a
/// page has 250. The next round goes on behind them.
pub const PAGES_MAX: u32 = 10_000;

/// Why there is no telling what else is in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Astray {
    /// The place that was asked for was ignored.
    #[error("a page is shown again in place of the next")]
    ShownAgain,
    /// Nothing on a page has an id.
    #[error("nothing of a page has an id that the next could follow")]
    NoWayOn,
    /// There is always one more.
    #[error("a list has more than {PAGES_MAX} pages")]
    Endless,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the newest.
    Newest,
    /// Behind what was created with the one of this id.
    OlderThan(String),
    /// With that number, from 1.
    Page(u32),
}

/// One of a page, as far as it decides where the next begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its id.
    pub id: String,
    /// When it was created.
    pub created_at: Option<Timestamp>,
}

/// How far a list has been read.
#[derive(Clone, Debug)]
pub struct Scan {
    down_to: Timestamp,
    /// `None` once everything down to there was shown.
    next: Option<Place>,
    /// When what `next` follows was created, if it follows anything and that is known.
    follows: Option<Timestamp>,
    /// Ids of the page before.
    before: HashSet<String>,
    /// Set while it is gone on with and nothing was shown yet.
    is_resumed: bool,
    /// Pages since it was begun, or gone on with.
    pages: u32,
    /// The longest page so far.
    longest: usize,
    /// The oldest instant so far.
    reached: Option<Timestamp>,
    /// Instants that filled a page, so that some of them may not have been shown.
    pub cut_instants: usize,
}

impl Scan {
    /// From the page at `first` down to what was created before `down_to`.
    pub fn new(first: Place, down_to: Timestamp) -> Self {
        Self {
            down_to,
            next: Some(first),
            follows: None,
            before: HashSet::new(),
            is_resumed: false,
            pages: 0,
            longest: 0,
            reached: None,
            cut_instants: 0,
        }
    }

    /// The same, to go on with later from where it is, down to another point.
    #[must_use]
    pub fn as_deep_as(self, down_to: Timestamp) -> Self {
        Self { down_to, is_resumed: true, pages: 0, ..self }
    }

    /// The page to ask for; `None` once there is no more.
    pub fn next(&self) -> Option<&Place> {
        self.next.as_ref()
    }

    /// The oldest instant that was shown so far.
    pub fn reached(&self) -> Option<Timestamp> {
        self.reached
    }

    /// The page that was asked for shows these, in its order. `elements` counts those with it that have
    /// no id.
    ///
    /// # Errors
    /// If the list cannot be read any further.
    pub fn take(&mut self, shown: &[Shown], elements: usize) -> Result<(), Astray> {
        let Some(asked) = self.next.clone() else { return Ok(()) };
        if elements == 0 {
            self.end(&asked);
            return Ok(());
        }
        if self.is_shown_again(shown) {
            return Err(Astray::ShownAgain);
        }
        self.is_resumed = false;
        self.pages += 1;
        let last = last_instant(shown);
        self.reached = [self.reached, last].into_iter().flatten().min();
        if ends_below(shown, self.down_to) {
            self.next = None;
            return Ok(());
        }
        match asked {
            Place::Page(number) => self.next = Some(Place::Page(number + 1)),
            Place::Newest | Place::OlderThan(_) => self.follow(shown, elements)?,
        }
        self.longest = self.longest.max(elements);
        self.before = shown.iter().map(|shown| shown.id.clone()).collect();
        if self.pages >= PAGES_MAX { Err(Astray::Endless) } else { Ok(()) }
    }

    /// The page that was asked for is empty. Behind one that the platform has deleted since, it shows
    /// nothing either, so somebody who goes on begins anew then.
    fn end(&mut self, asked: &Place) {
        let is_deleted = self.is_resumed && matches!(asked, Place::OlderThan(_));
        let cut_instants = self.cut_instants;
        if is_deleted {
            *self = Self { cut_instants, ..Self::new(Place::Newest, self.down_to) };
        } else {
            self.next = None;
        }
    }

    /// Whether the page before showed that one too.
    pub fn was_shown(&self, id: &str) -> bool {
        self.before.contains(id)
    }

    /// Whether this is no page behind what was asked for. Pages may overlap by an instant, so that the
    /// last of a list can show nothing new; but then all of it is older than what it follows. Numbered
    /// pages move on while messages are sent: some of the page before may stand on the next, but a full
    /// one ends behind it, unless many were sent before it is gone on with. Messages that are sent
    /// meanwhile stand on a page that is shown again, too.
    fn is_shown_again(&self, shown: &[Shown]) -> bool {
        if shown.is_empty() || self.before.is_empty() {
            return false;
        }
        let is_none_new = shown.iter().all(|shown| self.before.contains(&shown.id));
        let Some(follows) = self.follows else {
            let ends_in_it = shown.last().is_some_and(|last| self.before.contains(&last.id));
            return ends_in_it
                && shown.len() >= self.before.len()
                && (is_none_new || !self.is_resumed);
        };
        let is_older = |shown: &Shown| shown.created_at.map(|at| at < follows);
        let are_all_older = shown.iter().all(|shown| is_older(shown) == Some(true));
        let is_none_older = shown.iter().all(|shown| is_older(shown) == Some(false));
        let is_again =
            |shown: &Shown| is_older(shown) == Some(false) && self.before.contains(&shown.id);
        is_none_older || shown.iter().any(is_again) || is_none_new && !are_all_older
    }

    fn follow(&mut self, shown: &[Shown], elements: usize) -> Result<(), Astray> {
        let oldest = last_instant(shown);
        let newer = shown.iter().filter(|shown| shown.created_at > oldest);
        let followed = newer.min_by_key(|shown| shown.created_at).or_else(|| {
            self.cut_instants += usize::from(shown.len() > 1 && elements >= self.longest);
            shown.iter().rev().find(|shown| shown.created_at == oldest)
        });
        let followed = followed.ok_or(Astray::NoWayOn)?;
        self.next = Some(Place::OlderThan(followed.id.clone()));
        self.follows = followed.created_at;
        Ok(())
    }
}

/// Whether a page reaches what was created before that, and not by a single date.
fn ends_below(shown: &[Shown], point: Timestamp) -> bool {
    let mut last_two = shown.iter().rev().filter_map(|shown| shown.created_at).take(2).peekable();
    last_two.peek().is_some() && last_two.all(|at| at < point)
}

/// The instant a page ends with. It is that of its end and not the oldest of all: one with a date that
/// cannot be must not end a list.
fn last_instant(shown: &[Shown]) -> Option<Timestamp> {
    shown.iter().rev().find_map(|shown| shown.created_at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(instant: i64) -> Timestamp {
        Timestamp::from_unix_micros(instant)
    }

    /// A platform's list: newest first, `older_than` by instant, in pages of that size.
    struct Listed {
        rows: Vec<Shown>,
        page: usize,
    }

    impl Listed {
        fn new(mut instants: Vec<i64>, page: usize) -> Self {
            instants.sort_by_key(|instant| std::cmp::Reverse(*instant));
            let rows = (0..).zip(instants);
            let row = |(id, instant): (usize, i64)| Shown {
                id: id.to_string(),
                created_at: Some(at(instant)),
            };
            Self { rows: rows.map(row).collect(), page }
        }

        fn show(&self, place: &Place) -> Vec<Shown> {
            let skipped = match place {
                Place::Newest => 0,
                Place::Page(number) => (*number as usize - 1) * self.page,
                Place::OlderThan(id) => {
                    let instant = self.rows.iter().find(|row| row.id == *id).unwrap().created_at;
                    self.rows.partition_point(|row| row.created_at >= instant)
                }
            };
            self.rows.iter().skip(skipped).take(self.page).cloned().collect()
        }

        /// The ids that a scan sees, how many pages that takes, and what it says was cut.
        fn scanned(&self, first: Place, down_to: i64) -> (Vec<String>, usize, usize) {
            let mut scan = Scan::new(first, at(down_to));
            let (mut seen, mut pages) = (Vec::new(), 0);
            while let Some(place) = scan.next() {
                let shown = self.show(place);
                pages += 1;
                assert!(pages < 1_000, "a scan does not end");
                scan.take(&shown, shown.len()).unwrap();
                seen.extend(shown.into_iter().map(|shown| shown.id));
            }
            seen.sort();
            seen.dedup();
            (seen, pages, scan.cut_instants)
        }

        fn since(&self, down_to: i64) -> Vec<String> {
            let rows = self.rows.iter().filter(|row| row.created_at >= Some(at(down_to)));
            let mut ids: Vec<_> = rows.map(|row| row.id.clone()).collect();
            ids.sort();
            ids
        }
    }

    proptest! {
        #[test]
        fn everything_down_to_the_point_is_shown_unless_one_instant_fills_a_page(
            instants in prop::collection::vec(0..40_i64, 0..60), page in 2..9_usize, point in 0..40_i64
        ) {
            let listed = Listed::new(instants, page);
            for first in [Place::Newest, Place::Page(1)] {
                let (seen, pages, cut) = listed.scanned(first.clone(), point);
                let missed = listed.since(point).iter().filter(|id| !seen.contains(id)).count();
                prop_assert!(missed == 0 || cut > 0, "missed {missed}");
                prop_assert!(first == Place::Newest || cut == 0);
                // One instant a page is shown twice at most.
                prop_assert!(pages <= 2 + 2 * listed.rows.len(), "{pages} pages");
            }
        }
    }

    #[test]
    fn an_instant_that_a_page_ends_in_is_shown_whole() {
        let listed = Listed::new(vec![9, 8, 7, 7, 7, 6, 5], 4);
        assert_eq!(listed.scanned(Place::Newest, 0), (listed.since(0), 5, 0));
    }

    #[test]
    fn an_instant_that_fills_a_page_is_passed_and_told_of() {
        let listed = Listed::new(vec![9, 7, 7, 7, 7, 5, 4], 3);
        let (seen, _, cut) = listed.scanned(Place::Newest, 0);
        assert_eq!((seen.len(), cut), (6, 1));
    }

    #[test]
    fn no_page_is_asked_for_behind_the_point() {
        let listed = Listed::new((0..100).collect(), 10);
        assert_eq!(listed.scanned(Place::Newest, 95).1, 1);
        assert_eq!(listed.scanned(Place::Newest, 89).1, 2);
        assert_eq!(listed.scanned(Place::Page(1), 90).1, 2, "nothing older was shown by the first");
    }

    fn show(id: &str, instant: i64) -> Shown {
        Shown { id: id.into(), created_at: Some(at(instant)) }
    }

    #[test]
    fn a_list_ends_with_an_empty_page_and_not_with_a_short_one() {
        for first in [Place::Newest, Place::Page(1)] {
            let mut scan = Scan::new(first, at(0));
            scan.take(&[show("a", 9), show("b", 8), show("c", 7)], 3).unwrap();
            scan.take(&[show("c", 7), show("d", 6)], 2).unwrap();
            scan.take(&[show("e", 5)], 1).unwrap();
            assert_ne!(scan.next(), None, "it is short");
            scan.take(&[], 0).unwrap();
            assert_eq!((scan.next(), scan.cut_instants), (None, 0));
        }
    }

    #[test]
    fn a_page_that_is_shown_again_is_no_end_and_is_asked_for_when_somebody_goes_on() {
        let page = [show("a", 9), show("b", 8), show("c", 7)];
        for first in [Place::Newest, Place::Page(1)] {
            let mut scan = Scan::new(first, at(0));
            scan.take(&page, 3).unwrap();
            let next = scan.next().cloned();
            for _ in 0..2 {
                assert_eq!(scan.take(&page, 3), Err(Astray::ShownAgain));
                scan = scan.as_deep_as(at(1));
                assert_eq!(scan.next().cloned(), next);
            }
            scan.take(&[show("d", 2)], 1).unwrap();
        }
        // A single one, too, and one that is shown under another id each time.
        for again in ["a", "b"] {
            let mut scan = Scan::new(Place::Newest, at(0));
            scan.take(&[show("a", 9)], 1).unwrap();
            assert_eq!(scan.take(&[show(again, 9)], 1), Err(Astray::ShownAgain));
        }
    }

    #[test]
    fn a_page_that_is_shown_again_is_known_by_what_it_shows_though_messages_are_sent_meanwhile() {
        for first in [Place::Newest, Place::Page(1)] {
            let mut scan = Scan::new(first, at(0));
            scan.take(&[show("a", 9), show("b", 8), show("c", 7), show("d", 7)], 4).unwrap();
            let again = [show("new", 10), show("a", 9), show("b", 8), show("c", 7)];
            assert_eq!(scan.take(&again, 4), Err(Astray::ShownAgain));
        }
    }

    #[test]
    fn one_with_a_date_that_cannot_be_ends_no_list() {
        let mut scan = Scan::new(Place::Newest, at(5));
        scan.take(&[show("a", 9), show("b", 1), show("c", 8), show("d", 7), show("e", 7)], 5)
            .unwrap();
        assert_eq!(scan.next(), Some(&Place::OlderThan("c".into())), "no instant is passed over");
        scan.take(&[show("f", 7), show("g", 4), show("h", 4)], 3).unwrap();
        assert_eq!(scan.next(), None);
        // At the end of a page it costs a page at most.
        for first in [Place::Newest, Place::Page(1)] {
            let mut scan = Scan::new(first, at(5));
            scan.take(&[show("a", 9), show("b", 8), show("c", 1)], 3).unwrap();
            assert_ne!(scan.next(), None, "one date says little");
            scan.take(&[show("d", 7), show("e", 6), show("f", 4)], 3).unwrap();
            scan.take(&[show("f", 4)], 1).unwrap();
            assert_eq!(scan.next(), None);
        }
    }

    #[test]
    fn what_moves_on_to_the_next_numbered_page_is_not_taken_for_the_same_page() {
        let mut scan = Scan::new(Place::Page(1), at(0));
        scan.take(&[show("a", 9), show("b", 8), show("c", 7)], 3).unwrap();
        scan.take(&[show("c", 7)], 1).unwrap();
        scan.take(&[], 0).unwrap();
        assert_eq!(scan.next(), None);
    }

    #[test]
    fn a_numbered_list_is_gone_on_with_however_many_were_sent_meanwhile() {
        let mut scan = Scan::new(Place::Page(1), at(0));
        scan.take(&[show("d", 9), show("c", 8), show("b", 7)], 3).unwrap();
        let mut scan = scan.as_deep_as(at(0));
        // Four more were sent: the second page has one of them.
        scan.take(&[show("e", 10), show("d", 9), show("c", 8)], 3).unwrap();
        assert_eq!(scan.next(), Some(&Place::Page(3)));
        let again = [show("e", 10), show("d", 9), show("c", 8)];
        assert_eq!(scan.take(&again, 3), Err(Astray::ShownAgain), "nothing was left alone since");
    }

    #[test]
    fn a_list_is_begun_anew_where_the_one_to_go_on_behind_is_deleted() {
        let mut scan = Scan::new(Place::Newest, at(0));
        scan.take(&[show("a", 9), show("b", 8), show("c", 7)], 3).unwrap();
        let mut scan = scan.as_deep_as(at(1));
        scan.take(&[], 0).unwrap();
        assert_eq!(scan.next(), Some(&Place::Newest));
        scan.take(&[show("a", 9), show("c", 7)], 2).unwrap();
        scan.take(&[], 0).unwrap();
        assert_eq!(scan.next(), None, "it ends like any other");
    }

    #[test]
    fn a_list_without_an_end_is_left_after_so_many_pages_and_gone_on_with() {
        let mut scan = Scan::new(Place::Page(1), at(0));
        let mut pages = 0;
        let astray = loop {
            pages += 1;
            assert!(pages <= PAGES_MAX, "a scan does not end");
            if let Err(astray) = scan.take(&[show(&pages.to_string(), 9)], 1) {
                break astray;
            }
        };
        assert_eq!((astray, pages), (Astray::Endless, PAGES_MAX));
        let mut scan = scan.as_deep_as(at(0));
        assert_eq!(scan.next(), Some(&Place::Page(PAGES_MAX + 1)));
        scan.take(&[show("b", 9)], 1).unwrap();
    }

    #[test]
    fn what_cannot_be_ordered_is_no_end_and_does_not_hang_a_scan() {
        let undated = |id: &str| Shown { id: id.into(), created_at: None };
        let mut scan = Scan::new(Place::Newest, at(0));
        scan.take(&[undated("a")], 1).unwrap();
        assert_eq!(scan.next(), Some(&Place::OlderThan("a".into())));
        assert_eq!(scan.take(&[undated("a")], 1), Err(Astray::ShownAgain));
        scan.take(&[undated("b")], 1).unwrap();
        let mut scan = Scan::new(Place::Newest, at(0));
        assert_eq!(scan.take(&[], 3), Err(Astray::NoWayOn));
        assert_eq!(scan.next(), Some(&Place::Newest), "it was not read");
        let mut scan = Scan::new(Place::Newest, at(0));
        scan.take(&[show("a", 3), undated("b"), show("c", 2)], 3).unwrap();
        assert_eq!(scan.next(), Some(&Place::OlderThan("a".into())));
    }
}
