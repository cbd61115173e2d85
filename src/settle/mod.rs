//! Journal → provider → merge → state, from a cursor.
//!
//! One thread reads the journal after the cursor, in batches, and commits state, history and cursor
//! together. Settling is deterministic: the same journal gives the same state, however it is cut
//! into batches, so a crash anywhere only repeats work. Nothing here can fail, delay or alter an
//! answer to a caller: the callback is safe before this room hears of it.
//!
//! - A callback that cannot be understood is `unrecognised`, with its reason; so is one whose
//!   reading panics. Settling goes on with the next.
//! - An error of the state file is retried from the cursor; a damaged file is set aside and settled
//!   again from the journal. Receiving goes on meanwhile.
//! - [`alone`] says what one callback means by itself, where nothing is stored.
//! - [`Known`] says whether a callback for which there is no room repeats one that is kept.

mod batch;
mod expected;
mod news;
mod overdue;

pub mod alone;

#[cfg(test)]
mod files;
mod known;
mod open;
mod pace;
pub mod prune;
mod rebuild;
mod rows;
mod settler;
mod tally;
mod worker;

pub use crate::callback::Expected;
pub use batch::settle;
pub use expected::{EXPECTED_MAX, expect};
pub use known::Known;
pub use open::{Opened, copy_base, open_beside, open_state, set_aside, settle_afresh};
pub use overdue::say_overdue;
pub use rebuild::rebuild;
pub use settler::{Observer, OnThread, Options, Report, Settled, Settler, start};
pub use tally::Tally;
