//! Which page to ask for next, from the newest down to a point. Pure.
//!
//! Pages of `/v2` follow an id, and the platform takes that for the instant at which it was created:
//! it shows what is *strictly older*. Where several were created in one instant and a page ends between
//! them, whoever follows the last one, as the platform's own `next` does, never sees the rest. So a
//! scan follows the last one that is newer than the oldest instant of the page: the next page begins
//! with that instant, whole, and a few are shown twice. Only where one instant fills a page is there no
//! way on but past it.
//!
//! A page that is shorter than an earlier one of the same scan is the last.

use crate::clock::Timestamp;

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
        Self { down_to, next: Some(first), longest: 0, reached: None, cut_instants: 0 }
    }

    /// The same, down to another point from where it is.
    #[must_use]
    pub fn as_deep_as(self, down_to: Timestamp) -> Self {
        Self { down_to, ..self }
    }

    /// The same, but not further down than that.
    #[must_use]
    pub fn no_deeper_than(self, floor: Timestamp) -> Self {
        Self { down_to: self.down_to.max(floor), ..self }
    }

    /// The page to ask for; `None` once there is no more.
    pub fn next(&self) -> Option<&Place> {
        self.next.as_ref()
    }

    /// The oldest instant that was shown so far.
    pub fn reached(&self) -> Option<Timestamp> {
        self.reached
    }

    /// The page that was asked for shows these, in this order. `elements` counts those with it that
    /// could not be understood.
    pub fn take(&mut self, shown: &[Shown], elements: usize) {
        let Some(asked) = self.next.take() else { return };
        let oldest = shown.iter().filter_map(|shown| shown.created_at).min();
        self.reached = [self.reached, oldest].into_iter().flatten().min();
        let is_last = elements == 0 || elements < self.longest;
        self.longest = self.longest.max(elements);
        if is_last || oldest.is_some_and(|oldest| oldest < self.down_to) {
            return;
        }
        self.next = match &asked {
            Place::Page(number) => Some(Place::Page(number + 1)),
            Place::Newest | Place::OlderThan(_) => self.behind(shown, oldest),
        };
        // A page that leads to itself would be asked for for ever.
        self.next.take_if(|next| *next == asked);
    }

    fn behind(&mut self, shown: &[Shown], oldest: Option<Timestamp>) -> Option<Place> {
        let is_newer = |shown: &&Shown| shown.created_at > oldest;
        let follow = shown.iter().rev().find(is_newer).or_else(|| {
            self.cut_instants += usize::from(shown.len() > 1);
            shown.last()
        });
        follow.map(|shown| Place::OlderThan(shown.id.clone()))
    }
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
                scan.take(&shown, shown.len());
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
        assert_eq!(listed.scanned(Place::Newest, 0), (listed.since(0), 3, 0));
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

    #[test]
    fn what_cannot_be_ordered_ends_a_scan_and_does_not_hang_it() {
        let mut scan = Scan::new(Place::Newest, at(0));
        let shown = [Shown { id: "a".into(), created_at: None }];
        scan.take(&shown, 1);
        assert_eq!(scan.next(), Some(&Place::OlderThan("a".into())));
        scan.take(&shown, 1);
        assert_eq!(scan.next(), None);
        let mut scan = Scan::new(Place::Newest, at(0));
        scan.take(&[], 3);
        assert_eq!(scan.next(), None, "nothing of the page could be understood");
        let mut scan = Scan::new(Place::Newest, at(0));
        let show = |id: &str, instant| Shown { id: id.into(), created_at: Some(at(instant)) };
        scan.take(&[show("a", 3), show("b", 2)], 2);
        scan.take(&[show("c", 1)], 2);
        assert_ne!(scan.next(), None, "a page that is partly understood is not shorter");
    }
}
