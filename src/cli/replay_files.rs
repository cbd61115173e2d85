//! Replaying into the files of a database: the real journal, the real settling, the real clock.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::cli::{Failure, block_on, setup};
use crate::clock::Clock;
use crate::journal::{self, Entry, Journal, SourceRow};
use crate::lock::Lock;
use crate::provider::{Dialect, Provider};
use crate::replay::{Fixture, Outcome};
use crate::settle::{self, Settled};
use crate::sqlite::checkpoint::Hold;
use crate::sqlite::{self, Access, Durability};
use crate::state::export::{self, Span};
use crate::state::tables::SCHEMA;

/// Callbacks handed to the journal before their acknowledgements are awaited.
const IN_FLIGHT_MAX: usize = 256;

/// Callbacks in one transaction of settling.
const SETTLE_CALLBACKS_MAX: usize = 8_192;

/// How often to look whether settling fails while waiting for it.
const LOOK: Duration = Duration::from_secs(1);

/// How long settling may take to end once everything is settled.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Appends the callbacks in this order to the journal of the database whose state file is `db`,
/// settles them, and tells what is now known of the notifications they told of.
pub fn settle(
    db: &Path,
    source: &str,
    provider: Provider,
    fixtures: &[&Fixture],
) -> Result<Outcome, Failure> {
    let _lock = Lock::acquire(db)?;
    setup::check_journal_is_ahead(db, &journal::path_beside(db))?;
    let row = SourceRow { name: source.to_owned(), dialect: provider.into() };
    let (first, last) = block_on(append_and_settle(db, row, fixtures))??;
    let state = sqlite::open(db, &SCHEMA, Access::Read)?;
    let span = Span { after: first - 1, through: last, source: Some(source) };
    let place = |seq: i64| usize::try_from(seq - first).unwrap_or(usize::MAX);
    let unrecognised = export::unrecognised_in(&state, span)?;
    Ok(Outcome {
        notifications: export::notifications_told_of(&state, span)?,
        unrecognised: unrecognised.into_iter().map(|(seq, why)| (place(seq), why)).collect(),
    })
}

/// Returns the first and the last position the callbacks were given.
async fn append_and_settle(
    db: &Path,
    row: SourceRow,
    fixtures: &[&Fixture],
) -> Result<(i64, i64), Failure> {
    let clock = Clock::system();
    let path = journal::path_beside(db);
    let opened = settle::open_beside(db, &path, &clock)?;
    let (journal, writer, tell) = journal::start(&path, bounds(), Box::new(|_| {}))?;
    tokio::spawn(tell);
    let options = settle::Options {
        path: db.to_owned(),
        journal: path,
        callbacks_max: SETTLE_CALLBACKS_MAX,
        clock: clock.clone(),
        owed_to: Vec::new(),
        hold: Hold::default(),
    };
    let progress = Arc::clone(journal.progress());
    let (settler, settled) = settle::start(options, opened, progress, Box::new(|_| {}))?;
    let result = append(&journal, row, &clock, fixtures).await;
    let result = match result {
        Ok((first, last)) => reach(&settled, last).await.map(|()| (first, last)),
        Err(failure) => Err(failure),
    };
    settler.stop(Instant::now() + STOP_MAX);
    journal.close();
    writer.join();
    result
}

async fn append(
    journal: &Journal,
    row: SourceRow,
    clock: &Clock,
    fixtures: &[&Fixture],
) -> Result<(i64, i64), Failure> {
    let source: Arc<str> = Arc::from(&*row.name);
    remember(journal, row)?;
    let refused = |why| Failure::new(Failure::IO, format!("failed to keep a callback: {why}"));
    let mut seqs = Vec::with_capacity(fixtures.len());
    for some in fixtures.chunks(IN_FLIGHT_MAX) {
        let mut waiting = Vec::with_capacity(some.len());
        for fixture in some {
            let body = Bytes::copy_from_slice(&fixture.body);
            let entry = Entry::called_back(Arc::clone(&source), clock.now(), body);
            waiting.push(journal.append(entry).map_err(refused)?);
        }
        for told in waiting {
            let seq = told.await.unwrap_or(Err(journal::Refused::Closed)).map_err(refused)?;
            seqs.push(seq);
        }
    }
    match (seqs.first(), seqs.last()) {
        (Some(first), Some(last)) => Ok((*first, *last)),
        _ => Err(Failure::new(Failure::USAGE, "there is nothing to replay")),
    }
}

/// A source is read in one way: reading it in another from now on would change what a rebuild makes
/// of everything it has sent.
fn remember(journal: &Journal, row: SourceRow) -> Result<(), Failure> {
    let SourceRow { name, dialect } = row.clone();
    let known: Option<Dialect> = journal
        .on_writer(move |connection| {
            let known = SourceRow::all(connection)?.into_iter().find(|it| it.name == row.name);
            if known.is_none() {
                row.remember(connection)?;
            }
            Ok::<_, rusqlite::Error>(known.map(|known| known.dialect))
        })
        .map_err(|why| Failure::new(Failure::IO, format!("failed to keep the source: {why}")))??;
    match known {
        Some(known) if known.provider != dialect.provider => {
            let message = format!("{name} is a source of {} in this database", known.provider);
            Err(Failure::new(Failure::USAGE, message).hint("choose another name with --source"))
        }
        _ => Ok(()),
    }
}

async fn reach(settled: &Settled, last: i64) -> Result<(), Failure> {
    loop {
        match tokio::time::timeout(LOOK, settled.reaches(last)).await {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(Failure::new(Failure::IO, "settling ended before its time")),
            Err(_) if settled.is_failing() => {
                return Err(Failure::new(Failure::IO, "the state file cannot be written"));
            }
            Err(_) => {}
        }
    }
}

/// What bounds a receiver has against its callers is not needed against ourselves.
fn bounds() -> journal::Options {
    journal::Options {
        queue_callbacks_max: IN_FLIGHT_MAX,
        queue_bytes_max: usize::MAX,
        batch_callbacks_max: IN_FLIGHT_MAX,
        free_bytes_min: 0,
        reserve_bytes: 0,
        durability: Durability::Full,
    }
}
