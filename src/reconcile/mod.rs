//! Asking platforms for what they never called back about.
//!
//! Some outcomes are never called back, receipts are dropped after an answer that a sender takes for
//! final, and a service can be suspended altogether; but for a few days the platform still knows. So
//! each source with an upstream is asked in rounds, over the read API that the official clients use.
//! What is news goes into the journal as an entry of its own origin and is settled like any other.
//! Promises:
//!
//! - only what says something new of a status is appended: an answer is joined to what the state knows,
//!   by the same [`merge`](crate::merge) that will settle it, and is dropped if that comes to nothing.
//!   Asking a hundred times about what has not changed appends nothing. While the state is behind, so that
//!   what is known cannot be told, nothing is appended either;
//! - requests are spent where they matter: first, and at most half of those for single ones, on what is
//!   overdue; then on notifications that have not come to an end and that the pages of this round will
//!   not show, by their ids, those heard of longest ago first; then on the newest pages, down to the last point known; once a day down to the horizon, because a
//!   status can change after it looked final;
//! - what was pruned does not come back: nothing is asked for, and nothing appended, that was created
//!   before what was thrown away, but for what is still known or expected;
//! - a source sends its platform's host no more requests in any minute than configured, and the pause after
//!   a failure grows;
//! - a list counts as read once the platform has shown its end, and for no other reason: one that shows
//!   a page again, or no end, is told of, and the point does not move;
//! - what cannot be understood is counted and named, is in nobody's way, and is asked for again: a round
//!   that met some is none that succeeded, and the point does not move past them;
//! - only the configured host is talked to, an answer has a bound in bytes and in time, and none of
//!   its words, and no key, gets into a log;
//! - an upstream that is down, slow, wrong or limiting costs a round and nothing else. It runs on a
//!   thread of its own, reads the state through a connection of its own, and appends only while the
//!   journal's queue is short: callbacks go first;
//! - the point down to which everything was asked for is written behind what was found, into the
//!   journal itself. A journal restored from an older copy knows the older point. Without a point all
//!   is asked for again, which appends nothing twice.
//!
//! It knows no caller and no sink, and decides nothing about a status. In reading order:
//! [`credential`] is who we are, [`fault`] why there is no answer, [`upstream`] asks once; [`budget`]
//! and [`scan`] decide, without I/O, when and for which page to ask next; [`known`] tells what is
//! news, [`keep`] has it appended; [`round`] is one round, `by_id` and `lists` its parts; [`order`] decides,
//! again without I/O, what a round asks for; `told` is what the log says of rounds, [`reconciler`] the
//! thread of all of them.

pub mod credential;

pub mod fault;

pub mod upstream;

pub mod budget;

pub mod scan;

pub mod known;

pub mod keep;

pub mod round;

mod by_id;

mod lists;

pub mod order;

mod told;

pub mod reconciler;
