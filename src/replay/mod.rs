//! Fixtures → settled notifications: what any callbacks come to, without a server or a file.
//!
//! The same reading, joining and storing as in the receiver, into a database in memory, with a
//! clock that stands still ([`received_at`]). So the result depends on nothing but the bodies, how
//! they are read, and their order; and the promise is that the order does not matter either
//! ([`permute`] tries it). It is meant for the tests of apps as much as for ours:
//!
//! ```
//! use receiptd::provider::Provider;
//! use receiptd::replay::{Fixture, Offline};
//!
//! let delivered = r#"{"id": "740e5834-3a29-46b4-9a6f-16142fde533a", "reference": null,
//!     "to": "hello@example.gc.ca", "status": "delivered", "notification_type": "email",
//!     "created_at": "2026-11-22T10:00:00.000000Z", "sent_at": "2026-11-22T10:00:01.000000Z",
//!     "completed_at": "2026-11-22T10:00:02.000000Z"}"#;
//! let fixtures = [Fixture::new("delivered", delivered)];
//! let outcome = Offline::new("passport", Provider::GcNotify)?.settle(&fixtures)?;
//! assert_eq!(outcome.notifications[0].status.as_deref(), Some("delivered"));
//! # Ok::<(), receiptd::replay::ReplayError>(())
//! ```
//!
//! [`fixtures::load`] reads bodies from files and folders, [`order`] arranges them, [`expect`]
//! compares the outcome with lines written by hand.
//!
//! What only the receive time tells (when a letter came back; a complaint without a date) is
//! [`received_at`] here, `2000-01-01T00:00:00.000000Z` in every outcome.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;

use crate::callback::{Callback, Origin};
use crate::clock::Timestamp;
use crate::provider::Dialect;
use crate::sqlite::{self, OpenError};
use crate::state::export::{self, Span};
use crate::state::tables::SCHEMA;

pub mod fixtures;

pub mod order;

pub mod permute;

pub mod expect;

pub use crate::state::export::SettledNotification;
pub use fixtures::Fixture;

/// When every callback of an offline replay arrives, in microseconds of Unix time:
/// 2000-01-01T00:00:00Z.
const RECEIVED_AT_MICROS: i64 = 946_684_800_000_000;

/// When every callback of an offline replay arrives: 2000-01-01T00:00:00Z.
pub fn received_at() -> Timestamp {
    Timestamp::from_unix_micros(RECEIVED_AT_MICROS)
}

/// What callbacks came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By id.
    pub notifications: Vec<SettledNotification>,
    /// What was not, or not wholly, understood: its place among the fixtures, and why.
    pub unrecognised: Vec<(usize, String)>,
}

/// Why a replay could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The database in memory could not be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// SQLite failed.
    #[error("failed to settle: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// A database in memory that every settling starts from empty.
#[derive(Debug)]
pub struct Offline {
    connection: Connection,
    source: Arc<str>,
    dialects: HashMap<Arc<str>, Dialect>,
}

impl Offline {
    /// For callbacks of a source with that name, read that way: a `Provider`, or a [`Dialect`]
    /// where the tenant matters.
    ///
    /// # Errors
    /// If the database cannot be made.
    pub fn new(source: &str, dialect: impl Into<Dialect>) -> Result<Self, ReplayError> {
        let source: Arc<str> = Arc::from(source);
        let dialects = HashMap::from([(Arc::clone(&source), dialect.into())]);
        Ok(Self { connection: sqlite::open_in_memory(&SCHEMA)?, source, dialects })
    }

    /// What these callbacks, and no others, come to if they arrive in this order.
    ///
    /// # Errors
    /// Of SQLite only: any bytes are settled, if only as unrecognised.
    pub fn settle<'f>(
        &mut self,
        fixtures: impl IntoIterator<Item = &'f Fixture>,
    ) -> Result<Outcome, ReplayError> {
        let callbacks = self.callbacks(fixtures);
        self.in_fresh_state(vec![callbacks], |connection| {
            let unrecognised = export::unrecognised_in(connection, Span::ALL)?;
            let place = |seq: i64| usize::try_from(seq - 1).unwrap_or(usize::MAX);
            Ok(Outcome {
                notifications: export::notifications_told_of(connection, Span::ALL)?,
                unrecognised: unrecognised
                    .into_iter()
                    .map(|(seq, why)| (place(seq), why))
                    .collect(),
            })
        })
    }

    /// The callbacks as the journal would hold them.
    fn callbacks<'f>(&self, fixtures: impl IntoIterator<Item = &'f Fixture>) -> Vec<Callback> {
        let received_at = received_at();
        (1..)
            .zip(fixtures)
            .map(|(seq, fixture)| Callback {
                seq,
                source: Arc::clone(&self.source),
                received_at,
                body: fixture.body.clone(),
                origin: Origin::CalledBack,
            })
            .collect()
    }

    /// Settles the batches into the empty state, asks `question` and forgets everything again:
    /// many times faster than a new database for each of thousands of orders.
    fn in_fresh_state<T>(
        &mut self,
        batches: Vec<Vec<Callback>>,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReplayError> {
        let transaction = self.connection.transaction()?;
        for batch in batches {
            crate::settle::settle(&transaction, &batch, &self.dialects, &[])?;
        }
        let answer = question(&transaction)?;
        transaction.rollback()?;
        Ok(answer)
    }
}
