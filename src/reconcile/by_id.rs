//! The parts of a round that ask for notifications by their ids: those that are overdue, and those that
//! have not come to an end and that no page shows. They are asked for in turns, so that a few thousand
//! that never end do not keep the others waiting. One that the platform fails for ends its part for this
//! round, since it may fail for all; the next round begins behind it, so that it is in nobody's way. One
//! that cannot be read is passed over, unless many are so in a row.

use super::fault::Fault;
use super::keep::Keep;
use super::round::{Ended, FAILURES_MAX, NAMED_MAX, Order, Round};
use super::upstream::{List, Question};
use crate::provider::polled::is_uuid;
use crate::state::outstanding::Outstanding;

/// Notifications looked up at once, to be asked for by id.
const ROWS_AT_ONCE: usize = 256;

/// Which of the notifications that have not come to an end are asked for by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// Those that were created before the lists are read down to.
    NotReached,
    /// Those that should have been on a page and were not.
    NotShown,
}

/// What is asked for by id.
#[derive(Debug)]
pub(super) struct Ids {
    /// How many more may be.
    pub left: usize,
    /// Keys of what the platform does not know.
    pub not_found: Vec<i64>,
    /// How many could not be read, one after the other.
    pub wrong_in_a_row: u32,
}

impl Ids {
    /// So many may be.
    pub(super) fn new(ids_max: usize) -> Self {
        Self { left: ids_max, not_found: Vec::new(), wrong_in_a_row: 0 }
    }
}

impl<K: Keep + Send> Round<'_, K> {
    /// Asks for what is overdue: what the app said it sent and whose deadline has passed. Goes on behind
    /// what was asked for the last time: where the platform fails for one, the next round begins behind
    /// it.
    pub(super) async fn ask_for_what_is_overdue(
        &mut self,
        order: Order,
        ids: &mut Ids,
    ) -> Result<(), Ended> {
        ids.wrong_in_a_row = 0;
        let begin = self.memory.overdue_through;
        for between in [(begin, i64::MAX), (0, begin)] {
            self.ask_for_overdue_between(order, between, ids).await?;
            if ids.left == 0 {
                return Ok(());
            }
        }
        self.memory.overdue_through = 0;
        Ok(())
    }

    async fn ask_for_overdue_between(
        &mut self,
        order: Order,
        (mut behind, through): (i64, i64),
        ids: &mut Ids,
    ) -> Result<(), Ended> {
        loop {
            let when = (order.now, order.horizon);
            let rows = self.known.overdue(&self.source, when, behind, ROWS_AT_ONCE)?;
            let is_last = rows.len() < ROWS_AT_ONCE;
            for row in rows.into_iter().take_while(|row| row.key <= through) {
                behind = row.key;
                if ids.left > 0 && is_uuid(&row.id) && !self.memory.gone.contains(&row.key) {
                    // Before it is asked for, as below.
                    self.memory.overdue_through = row.key;
                    self.ask_for(&row.id, row.key, Some(row.key), ids).await?;
                }
            }
            if is_last || ids.left == 0 || behind >= through {
                return Ok(());
            }
        }
    }

    /// Asks for what has not come to an end and was created before the lists are read down to. Goes on
    /// behind what was asked for the last time.
    pub(super) async fn ask_for_what_pages_do_not_reach(
        &mut self,
        order: Order,
        ids: &mut Ids,
    ) -> Result<(), Ended> {
        ids.wrong_in_a_row = 0;
        let begin = self.memory.asked_through;
        for between in [(begin, i64::MAX), (0, begin)] {
            self.ask_between(order, Which::NotReached, between, ids).await?;
            if ids.left == 0 {
                return Ok(());
            }
        }
        self.memory.asked_through = 0;
        Ok(())
    }

    /// Asks for what has not come to an end and should have been on a page. Goes on as the others do.
    pub(super) async fn ask_for_what_no_page_shows(
        &mut self,
        order: Order,
        ids: &mut Ids,
    ) -> Result<(), Ended> {
        ids.wrong_in_a_row = 0;
        let begin = self.memory.not_shown_through;
        for between in [(begin, i64::MAX), (0, begin)] {
            self.ask_between(order, Which::NotShown, between, ids).await?;
            if ids.left == 0 {
                return Ok(());
            }
        }
        self.memory.not_shown_through = 0;
        Ok(())
    }

    async fn ask_between(
        &mut self,
        order: Order,
        which: Which,
        (mut behind, through): (i64, i64),
        ids: &mut Ids,
    ) -> Result<(), Ended> {
        loop {
            let place = (order.horizon, behind);
            let rows = self.known.outstanding(&self.source, place, ROWS_AT_ONCE)?;
            let is_last = rows.len() < ROWS_AT_ONCE;
            for row in rows.into_iter().take_while(|row| row.key <= through) {
                behind = row.key;
                if !self.is_to_be_asked_for(&row, which, order) {
                    continue;
                }
                if ids.left == 0 {
                    return Ok(());
                }
                // Before it is asked for: one that cannot be must not be in the way for ever.
                match which {
                    Which::NotReached => self.memory.asked_through = row.key,
                    Which::NotShown => self.memory.not_shown_through = row.key,
                }
                self.ask_for(&row.id, row.key, None, ids).await?;
            }
            if is_last || behind >= through {
                return Ok(());
            }
        }
    }

    /// Asks for one, and has it kept if it is news. That the platform does not know it, or shows what
    /// cannot be read, is no reason to stop, unless it is so for many in a row.
    async fn ask_for(
        &mut self,
        id: &str,
        key: i64,
        expected: Option<i64>,
        ids: &mut Ids,
    ) -> Result<(), Ended> {
        ids.left -= 1;
        self.seen.open.insert(id.to_owned());
        match self.ask(Question::Notification(id)).await {
            Ok(page) => {
                ids.wrong_in_a_row = 0;
                self.report.seen += 1;
                self.take(page, expected).await
            }
            Err(Fault::NotFound) => {
                self.report.not_found += 1;
                if self.report.not_found_named.len() < NAMED_MAX {
                    self.report.not_found_named.push(id.to_owned());
                }
                ids.not_found.push(key);
                Ok(())
            }
            Err(Fault::Wrong { why }) if ids.wrong_in_a_row < FAILURES_MAX => {
                ids.wrong_in_a_row += 1;
                self.count_unreadable(format!("{id}: {why}"), None, "answer");
                Ok(())
            }
            Err(fault) => Err(Ended::Upstream(fault)),
        }
    }

    fn is_to_be_asked_for(&self, row: &Outstanding, which: Which, order: Order) -> bool {
        let is_in_time = row.created_at.is_none_or(|at| at >= order.horizon);
        let is_reached = row.created_at.is_some_and(|at| at >= order.down_to(List::Notifications));
        let is_one_of_them = is_reached == (which == Which::NotShown);
        let is_told_of = self.seen.open.contains(&row.id) || self.memory.gone.contains(&row.key);
        is_in_time && is_one_of_them && !is_told_of && is_uuid(&row.id)
    }
}
