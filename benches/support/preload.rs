//! Databases that hold many notifications already, made once and copied for each run.
//!
//! The callbacks are appended through the library's journal, in large batches and without the wait
//! for the disk, which only the finished file needs; the real binary then settles them like any
//! backlog. The first half arrived long ago, so that there is something to prune.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use receiptd::Provider;
use receiptd::clock::{Clock, Timestamp};
use receiptd::journal::{self, Entry, Journal, SourceRow};
use receiptd::sqlite::Durability;
use receiptd::sqlite::checkpoint::{self, Mode};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::database::Kept;
use super::load::Outcome;
use super::options::Options;
use super::receipt::{Ids, Request, SOURCE};
use super::server::{Bench, JOURNAL_FILE, STATE_FILE};

/// Callbacks in one commit.
const BATCH: usize = 8192;
/// Batches between two checkpoints, so that the write-ahead log stays small.
const CHECKPOINT_BATCHES: usize = 16;
/// Age of the first half, in seconds: forty days.
const OLD_SECONDS: i64 = 40 * 86_400;
/// Another sequence of ids than any seed that is likely to be given.
pub const IDS: u64 = 0x5eed_0f57_07ed_0000;
/// Slower than this is not settling.
const SETTLE_PER_SECOND_MIN: u64 = 2_000;

/// A settled database with a known number of notifications, at rest.
pub struct Base {
    folder: PathBuf,
}

/// How a server settled what waited for it.
pub struct Backlog {
    /// From the start of the process to the last callback in the state.
    pub took: Duration,
    /// What is there afterwards: as much as was put there.
    pub kept: Kept,
}

impl Base {
    /// The one that is there, if this very binary made it; otherwise a new one.
    pub fn find_or_make(
        options: &Options,
        bench: &Bench,
        count: u64,
    ) -> Result<Self, Box<dyn Error>> {
        let base = Self { folder: folder(options, count) };
        if fs::read_to_string(base.stamp_file()).ok() == Some(stamp(options, bench)?) {
            return Ok(base);
        }
        Self::make(options, bench, count).map(|(base, _)| base)
    }

    /// Makes it, in the place of one that is there, and says how the backlog was settled.
    pub fn make(
        options: &Options,
        bench: &Bench,
        count: u64,
    ) -> Result<(Self, Backlog), Box<dyn Error>> {
        let base = Self { folder: folder(options, count) };
        let _ = fs::remove_dir_all(&base.folder);
        let files = bench.files()?;
        eprintln!("writing {count} callbacks into a journal");
        write_journal(&files.path().join(JOURNAL_FILE), options, count)?;
        eprintln!("settling them");
        let backlog = settle(bench, &files, count)?;
        fs::create_dir_all(&base.folder)?;
        for name in [JOURNAL_FILE, STATE_FILE] {
            fs::rename(files.path().join(name), base.folder.join(name))?;
        }
        fs::write(base.stamp_file(), stamp(options, bench)?)?;
        Ok((base, backlog))
    }

    /// A copy to measure on, on the disk before anything is timed.
    pub fn copy(&self, bench: &Bench) -> io::Result<Arc<TempDir>> {
        let files = bench.files()?;
        for name in [JOURNAL_FILE, STATE_FILE] {
            let copy = files.path().join(name);
            // Shares the blocks where the file system can.
            fs::copy(self.folder.join(name), &copy)?;
            File::options().write(true).open(&copy)?.sync_all()?;
        }
        Ok(files)
    }

    fn stamp_file(&self) -> PathBuf {
        self.folder.join("made-by")
    }
}

/// Removes all of them.
pub fn clean(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// The folders of databases made beforehand begin so.
pub const PREFIX: &str = "stored-";

fn folder(options: &Options, count: u64) -> PathBuf {
    options.common.dir.join(format!("{PREFIX}{count}"))
}

/// What decides how such a database looks.
fn stamp(options: &Options, bench: &Bench) -> io::Result<String> {
    let binary = data_encoding::HEXLOWER.encode(&Sha256::digest(fs::read(bench.binary())?));
    Ok(format!("{binary} {:?}\n", options.common.reference))
}

fn write_journal(file: &Path, options: &Options, count: u64) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let (journal, writer, tell_callers) =
            journal::start(file, journal_options(), Box::new(|_| {}))?;
        let telling = tokio::spawn(tell_callers);
        remember_source(&journal)?;
        append_all(&journal, options, count).await?;
        checkpoint(&journal)?;
        journal.close();
        writer.join();
        telling.await?;
        File::open(file)?.sync_all()?;
        Ok(())
    })
}

fn journal_options() -> journal::Options {
    journal::Options {
        queue_callbacks_max: BATCH,
        queue_bytes_max: usize::MAX,
        batch_callbacks_max: BATCH,
        free_bytes_min: 1 << 30,
        reserve_bytes: 0,
        durability: Durability::Normal,
    }
}

fn remember_source(journal: &Journal) -> Result<(), Box<dyn Error>> {
    let source = SourceRow { name: SOURCE.to_owned(), dialect: Provider::GcNotify.into() };
    Ok(journal.on_writer(move |connection| source.remember(connection))??)
}

async fn append_all(
    journal: &Journal,
    options: &Options,
    count: u64,
) -> Result<(), Box<dyn Error>> {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut request = Request::new(nowhere, options.common.reference);
    let mut ids = Ids::new(options.common.seed ^ IDS);
    let source: Arc<str> = SOURCE.into();
    let now = Clock::system().now();
    let old = now.plus_seconds(-OLD_SECONDS);
    let mut next_entry = |n: u64| {
        request.renew(&mut ids);
        let received_at: Timestamp = if n < count / 2 { old } else { now };
        let body = Bytes::copy_from_slice(request.body());
        Entry::called_back(Arc::clone(&source), received_at, body)
    };
    let mut written = 0;
    let mut batches = 0;
    while written < count {
        let end = count.min(written + BATCH as u64);
        let waiting = (written..end).map(|n| journal.append(next_entry(n)));
        for told in waiting.collect::<Result<Vec<_>, _>>()? {
            told.await??;
        }
        written = end;
        batches += 1;
        if batches % CHECKPOINT_BATCHES == 0 {
            checkpoint(journal)?;
        }
    }
    Ok(())
}

fn checkpoint(journal: &Journal) -> Result<(), Box<dyn Error>> {
    journal
        .on_writer(|connection| checkpoint::run_without_waiting(connection, Mode::Truncate))??;
    Ok(())
}

/// Starts a server on a journal without a state and waits until it has caught up.
fn settle(bench: &Bench, files: &Arc<TempDir>, count: u64) -> Result<Backlog, Box<dyn Error>> {
    let server = bench.receiptd_on(files, Duration::ZERO)?;
    let patience = Duration::from_secs(60 + count / SETTLE_PER_SECOND_MIN);
    server.wait_until_settled_within(patience)?;
    let took = server.spawned.elapsed();
    let put = Outcome { acknowledged: count, ..Outcome::new(Instant::now()) };
    let kept = Kept::count(&server, &put)?;
    server.stop()?;
    if !kept.all() {
        return Err(format!("the backlog did not settle to what it holds: {kept}").into());
    }
    Ok(Backlog { took, kept })
}
