//! The state file: what people read. Public tables, migrations, every SELECT.
//!
//! The names and columns of `notification`, `received_message`, `history`, `expected` and `unrecognised` are
//! a public interface, documented in the README and stable; all but the last are views over tables of ours
//! (`…_row`), so that ours can change. A look-up by id or reference through them uses an index.
//!
//! [`mod@write`] turns what settling found into rows, [`outbox`] keeps what sinks are owed, [`outbox_ask`] is what an
//! operator asks and does of that, [`forget`] removes what is to be pruned, [`expected`],
//! [`awaited`] and [`outstanding`] find what has not come to an end, [`read`] answers the operator's
//! questions, [`asked`] those of apps, [`feed`] those of who follows what changes; [`epoch`] says for how
//! long a position there means the same. None of them knows a provider or
//! what a status means. The same tables
//! stand in the journal file, where they hold what pruned callbacks came to.

pub mod tables;

pub mod write;

pub mod outbox;
pub mod outbox_ask;
mod outbox_read;

pub mod rebuilt;

pub mod forget;

pub mod awaited;

pub mod expected;

pub mod outstanding;

mod rows;

pub mod read;

pub mod asked;
#[cfg(test)]
mod asked_filled;
mod asked_index;
mod asked_range;

pub mod epoch;

mod point;

pub mod feed;

pub mod time_line;

pub mod export;

pub mod compare;

pub(crate) use expected::{expected_overdue, expected_table};
pub(crate) use tables::state_tables;

/// SQLite's plan for `sql`, a step a line.
#[cfg(test)]
fn plan(connection: &rusqlite::Connection, sql: &str) -> String {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let unbound = vec![rusqlite::types::Value::Null; statement.parameter_count()];
    let steps: Vec<String> = statement
        .query_map(rusqlite::params_from_iter(unbound), |row| row.get(3))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    steps.join("\n")
}
