//! Every order gives one state, or here is the one that does not.
//!
//! Callbacks of different notifications cannot influence each other, so it is enough to try, for
//! each notification, the orders of the callbacks that tell about it: all of them up to
//! [`CALLBACKS_MAX`], else [`ORDERS_RANDOM`] by chance. Each order is settled twice, as one batch
//! and callback by callback, because how callbacks are cut into batches must not matter either.

use super::order::{Chance, next_permutation};
use super::{Fixture, Offline, ReplayError, SettledNotification};
use crate::callback::Callback;
use crate::state::export::{self, Span};

/// Up to this many callbacks about one notification, every order is tried: 5,040 of them.
pub const CALLBACKS_MAX: usize = 7;

/// How many orders are tried of more.
pub const ORDERS_RANDOM: usize = 1_000;

/// What trying orders came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// One state.
    One {
        /// Notifications whose orders were tried.
        notifications: usize,
        /// Orders tried, over all of them.
        orders: usize,
    },
    /// Two states: a bug in receiptd.
    Two(Box<Conflict>),
}

/// Two orders of the same callbacks that give two states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The notification whose callbacks they are.
    pub id: String,
    /// The fixtures, by place, as they stand, and what they come to.
    pub one: (Vec<usize>, Vec<SettledNotification>),
    /// In another order, and what they come to then.
    pub other: (Vec<usize>, Vec<SettledNotification>),
    /// Whether the other was settled callback by callback.
    pub is_one_by_one: bool,
}

/// Tries the orders of the callbacks of each notification, up to the first that gives another
/// state. `seed` is where chance starts for those that are too many to try all.
///
/// # Errors
/// Of SQLite only.
pub fn permute<'f>(
    offline: &mut Offline,
    fixtures: impl IntoIterator<Item = &'f Fixture>,
    seed: u64,
) -> Result<Verdict, ReplayError> {
    let callbacks = offline.callbacks(fixtures);
    let groups =
        offline.in_fresh_state(vec![callbacks.clone()], export::callbacks_by_notification)?;
    let notifications = groups.len();
    let mut orders = 0;
    for (id, seqs) in groups {
        let mut group = Group { offline: &mut *offline, callbacks: &callbacks, tried: 0 };
        if let Some(conflict) = group.try_orders(&id, &places(&seqs), seed)? {
            return Ok(Verdict::Two(Box::new(conflict)));
        }
        orders += group.tried;
    }
    Ok(Verdict::One { notifications, orders })
}

fn places(seqs: &[i64]) -> Vec<usize> {
    seqs.iter().filter_map(|seq| usize::try_from(seq - 1).ok()).collect()
}

struct Group<'a> {
    offline: &'a mut Offline,
    callbacks: &'a [Callback],
    tried: usize,
}

impl Group<'_> {
    fn try_orders(
        &mut self,
        id: &str,
        as_is: &[usize],
        seed: u64,
    ) -> Result<Option<Conflict>, ReplayError> {
        let one = self.settle(as_is, false)?;
        let mut order = as_is.to_vec();
        let mut chance = Chance::new(seed);
        let are_few = as_is.len() <= CALLBACKS_MAX;
        loop {
            self.tried += 1;
            for is_one_by_one in [false, true] {
                let other = self.settle(&order, is_one_by_one)?;
                if other != one {
                    let (id, one) = (id.to_owned(), (as_is.to_vec(), one));
                    return Ok(Some(Conflict { id, one, other: (order, other), is_one_by_one }));
                }
            }
            let is_last = if are_few {
                !next_permutation(&mut order)
            } else {
                chance.shuffle(&mut order);
                self.tried == ORDERS_RANDOM
            };
            if is_last {
                return Ok(None);
            }
        }
    }

    /// What the callbacks at these places come to in this order.
    fn settle(
        &mut self,
        order: &[usize],
        is_one_by_one: bool,
    ) -> Result<Vec<SettledNotification>, ReplayError> {
        let callbacks = (1..).zip(order).map(|(seq, place)| {
            let callback = &self.callbacks[*place];
            Callback { seq, ..callback.clone() }
        });
        let batches = if is_one_by_one {
            callbacks.map(|callback| vec![callback]).collect()
        } else {
            vec![callbacks.collect()]
        };
        self.offline.in_fresh_state(batches, |connection| {
            export::notifications_told_of(connection, Span::ALL)
        })
    }
}
