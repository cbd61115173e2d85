//! The parts of a round that ask for notifications by their ids: those that are overdue, and those that
//! have not come to an end and that no page shows. They are asked for in turns, so that a few thousand
//! that never end do not keep the others waiting. One that the platform fails for ends its part for this
//! round, since it may fail for all; the next round begins behind it, so that it is in nobody's way. One
//! that cannot be read is passed over, unless many are so in a row.

use super::fault::Fault;
use super::keep::Keep;
use super::known::Unknown;
use super::round::{Ended, FAILURES_MAX, NAMED_MAX, Order, Round};
use super::upstream::{List, Question};
use crate::provider::polled::is_uuid;
use crate::state::expected::Overdue;
use crate::state::outstanding::Outstanding;

/// Notifications looked up at once, to be asked for by id.
const ROWS_AT_ONCE: usize = 256;

/// Which notifications are asked for by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// What the app said it sent and whose deadline has passed.
    Overdue,
    /// Those that have not come to an end and were created before the lists are read down to.
    NotReached,
    /// Those that have not come to an end and should have been on a page.
    NotShown,
}

/// One that may be asked for.
struct Candidate {
    key: i64,
    id: String,
    /// Whether it is one of those that are looked for.
    is_one: bool,
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
    /// Asks for those, as many as may be. Goes on behind what was asked for the last time: where the
    /// platform fails for one, the next round begins behind it.
    pub(super) async fn ask_by_id(
        &mut self,
        which: Which,
        order: Order,
        ids: &mut Ids,
    ) -> Result<(), Ended> {
        ids.wrong_in_a_row = 0;
        let begin = self.memory.asked_through[which as usize];
        for between in [(begin, i64::MAX), (0, begin)] {
            self.ask_between(which, order, between, ids).await?;
            if ids.left == 0 {
                return Ok(());
            }
        }
        self.memory.asked_through[which as usize] = 0;
        Ok(())
    }

    async fn ask_between(
        &mut self,
        which: Which,
        order: Order,
        (mut behind, through): (i64, i64),
        ids: &mut Ids,
    ) -> Result<(), Ended> {
        while ids.left > 0 {
            let rows = self.candidates(which, order, behind)?;
            // What the walk began behind may not be one any more: then no row has that key.
            let is_beyond = rows.last().is_some_and(|row| row.key > through);
            let is_last = is_beyond || rows.len() < ROWS_AT_ONCE;
            for row in rows.into_iter().take_while(|row| row.key <= through) {
                behind = row.key;
                // Ids of a test, or of an app's own making, are none that a platform has.
                let is_gone = self.memory.gone.contains(&row.key);
                if !row.is_one || is_gone || !is_uuid(&row.id) {
                    continue;
                }
                if ids.left == 0 {
                    return Ok(());
                }
                // Before it is asked for: one that cannot be must not be in the way for ever.
                self.memory.asked_through[which as usize] = row.key;
                let expected = (which == Which::Overdue).then_some(row.key);
                self.ask_for(&row.id, row.key, expected, ids).await?;
            }
            if is_last || behind >= through {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Those behind that key, in the order of theirs; fewer than [`ROWS_AT_ONCE`] only at the end.
    fn candidates(
        &self,
        which: Which,
        order: Order,
        behind: i64,
    ) -> Result<Vec<Candidate>, Unknown> {
        if which == Which::Overdue {
            let when = (order.now, order.horizon);
            let rows = self.known.overdue(&self.source, when, behind, ROWS_AT_ONCE)?;
            let candidate = |row: Overdue| Candidate { key: row.key, id: row.id, is_one: true };
            return Ok(rows.into_iter().map(candidate).collect());
        }
        let place = (order.horizon, behind);
        let rows = self.known.outstanding(&self.source, place, ROWS_AT_ONCE)?;
        let candidate = |row: Outstanding| {
            let is_in_time = row.created_at.is_none_or(|at| at >= order.horizon);
            let is_reached =
                row.created_at.is_some_and(|at| at >= order.down_to(List::Notifications));
            let is_told_of = self.seen.open.contains(&row.id);
            let is_one = is_in_time && !is_told_of && is_reached == (which == Which::NotShown);
            Candidate { key: row.key, id: row.id, is_one }
        };
        Ok(rows.into_iter().map(candidate).collect())
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
}
