//! The one table of the alternatives with many notifications in it already, made once and copied for
//! each run.
//!
//! The rows are what their receivers would have made of as many receipts: in the order in which
//! random ids come, so that the index has grown as theirs would, and checkpointed and synced. Only
//! the time it takes is saved, by writing them without a log and with the table in memory.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, params};
use serde::Deserialize;
use tempfile::TempDir;

use super::options::Options;
use super::preload::{IDS, PREFIX};
use super::receipt::{Ids, Request};
use super::server::{Bench, ROWS_FILE};

/// What `webhook` makes its table with, as the others do in their source.
const SCHEMA: &str = include_str!("../alternatives/webhook/schema.sql");
/// Faster than safe, for a file that is thrown away if its making does not end.
const IN_MEMORY: &str =
    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -3000000;";

/// A table with a known number of notifications, at rest.
pub struct Base {
    folder: PathBuf,
}

impl Base {
    /// The one that is there, if it is of this shape; otherwise a new one.
    pub fn find_or_make(options: &Options, count: u64) -> Result<Self, Box<dyn Error>> {
        let folder = options.common.dir.join(format!("{PREFIX}rows-{count}"));
        let base = Self { folder };
        let stamp = format!("{:?}\n{SCHEMA}", options.common.reference);
        if fs::read_to_string(base.stamp_file()).is_ok_and(|made| made == stamp) {
            return Ok(base);
        }
        eprintln!("writing {count} rows into the table of the alternatives");
        let _ = fs::remove_dir_all(&base.folder);
        fs::create_dir_all(&base.folder)?;
        base.fill(options, count)?;
        fs::write(base.stamp_file(), stamp)?;
        Ok(base)
    }

    /// A copy to measure on, on the disk before anything is timed.
    pub fn copy(&self, bench: &Bench) -> io::Result<Arc<TempDir>> {
        let files = bench.files()?;
        let copy = files.path().join(ROWS_FILE);
        fs::copy(self.file(), &copy)?;
        File::options().write(true).open(&copy)?.sync_all()?;
        Ok(files)
    }

    fn fill(&self, options: &Options, count: u64) -> Result<(), Box<dyn Error>> {
        let mut rows = Connection::open(self.file())?;
        rows.execute_batch(IN_MEMORY)?;
        rows.execute_batch(&SCHEMA.replace("PRAGMA journal_mode = WAL;", ""))?;
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut request = Request::new(nowhere, options.common.reference);
        let mut ids = Ids::new(options.common.seed ^ IDS);
        let all = rows.transaction()?;
        {
            let mut row = all.prepare("INSERT INTO notification VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for _ in 0..count {
                request.renew(&mut ids);
                let body = std::str::from_utf8(request.body())?;
                let of: Receipt<'_> = serde_json::from_str(body)?;
                row.execute(params![of.id, of.reference, of.status, of.completed_at, body])?;
            }
        }
        all.commit()?;
        // Each alternative sets the write-ahead log when it starts; that `webhook` never does.
        rows.pragma_update(None, "journal_mode", "WAL")?;
        rows.close().map_err(|(_, error)| error)?;
        File::open(self.file())?.sync_all()?;
        Ok(())
    }

    fn file(&self) -> PathBuf {
        self.folder.join(ROWS_FILE)
    }

    fn stamp_file(&self) -> PathBuf {
        self.folder.join("made-by")
    }
}

/// The columns.
#[derive(Deserialize)]
struct Receipt<'a> {
    id: &'a str,
    reference: Option<&'a str>,
    status: &'a str,
    completed_at: Option<&'a str>,
}
