//! A journal and its state for the tests of this room: small, written by hand, settled by
//! [`rebuild`], so that every way in which the two can fail to fit or be damaged is a few lines away; and what
//! settling is handed where there are no files.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::open::{Opened, catch_up, open_beside};
use super::rebuild::rebuild;
use crate::callback::{Callback, Origin};
use crate::change::{Filter, OwedTo};
use crate::clock::{Clock, Timestamp};
use crate::journal::reader::Reader;
use crate::journal::{self, SourceRow};
use crate::provider::{Dialect, Provider};
use crate::sqlite::{self, Access, Durability};

/// A journal and its state, in a folder of their own.
pub struct Files {
    pub folder: TempDir,
    pub state: PathBuf,
    pub journal: PathBuf,
}

/// That second of a test's time.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_unix_micros(1_764_000_000_000_000).plus_seconds(second)
}

/// A clock that stands still at the first of them.
pub fn clock() -> Clock {
    Clock::by_hand(at(0))
}

impl Files {
    /// A journal of receipts for these ids, at positions from 1, one a second; settled.
    pub fn settled(ids: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("receiptd.db");
        let files = Self { journal: journal::path_beside(&state), state, folder };
        files.append(1, ids);
        files.rebuild();
        files
    }

    pub fn append(&self, first: i64, ids: &[&str]) {
        let writer = self.journal_writer();
        let gc = SourceRow { name: "gc".to_owned(), dialect: Provider::GcNotify.into() };
        gc.remember(&writer).unwrap();
        for (seq, id) in (first..).zip(ids) {
            let body = format!(r#"{{"id": "{id}", "status": "sent", "notification_type": "sms"}}"#);
            let row = params![seq, "gc", at(seq).to_string(), body.as_bytes()];
            writer.execute("INSERT INTO callback VALUES (?1, ?2, ?3, ?4, 0)", row).unwrap();
        }
    }

    pub fn rebuild(&self) -> i64 {
        rebuild(&self.state, &self.journal, 2, &[], |_, _| {}).unwrap()
    }

    /// Settles what came since, as a receiver does.
    pub fn catch_up(&self) {
        let bounds = (i64::MAX, 2, &[][..]);
        catch_up(self.open(), &self.state, &self.journal, bounds, |_, _| {}).unwrap();
    }

    pub fn journal_writer(&self) -> Connection {
        let access = Access::Write(Durability::Full);
        sqlite::open(&self.journal, &journal::SCHEMA, access).unwrap()
    }

    pub fn open(&self) -> Opened {
        open_beside(&self.state, &self.journal, &clock()).unwrap()
    }

    /// Settles the callbacks up to `through` into the journal's own tables and deletes them.
    pub fn prune_bodies(&self, through: i64) {
        let mut reader = Reader::open(&self.journal).unwrap();
        let callbacks = reader.after(0, through, 100, usize::MAX).unwrap();
        let dialects = reader.dialects().unwrap();
        let mut writer = self.journal_writer();
        let transaction = writer.transaction().unwrap();
        super::settle(&transaction, &callbacks, &dialects, &[]).unwrap();
        journal::forget(&transaction, through).unwrap();
        transaction.commit().unwrap();
    }

    /// A copy of that file, as a backup has it.
    pub fn copy_of(&self, path: &Path) -> PathBuf {
        let copy = self.folder.path().join("a-copy");
        fs::copy(path, &copy).unwrap();
        copy
    }

    /// Makes one leaf of that table unreadable in the file at `path`, counted from the first. Nobody
    /// may have it open.
    pub fn damage(&self, path: &Path, table: &str, leaf: u32) {
        let connection = Connection::open(path).unwrap();
        sqlite::checkpoint::run(&connection, sqlite::checkpoint::Mode::Truncate).unwrap();
        let (page, bytes): (u32, u32) = connection
            .query_row(
                "SELECT pageno, pgsize FROM dbstat WHERE name = ?1 AND pagetype = 'leaf'
                 ORDER BY path LIMIT 1 OFFSET ?2",
                params![table, leaf],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        drop(connection);
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&[0xff; 64], u64::from(page - 1) * u64::from(bytes)).unwrap();
    }

    /// The files that were set aside.
    pub fn aside(&self) -> Vec<String> {
        let files = fs::read_dir(self.folder.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("receiptd.db.")).collect()
    }

    /// Identity, last position and what was pruned.
    pub fn journal_says(&self) -> (String, i64, i64) {
        let reader = Reader::open(&self.journal).unwrap();
        let (last, pruned) = (reader.last_seq().unwrap(), reader.pruned_through().unwrap());
        (reader.journal_id().unwrap(), last, pruned)
    }
}

/// A callback of the source `gc`, received at that microsecond.
pub fn callback(seq: i64, body: &str) -> Callback {
    let (source, received_at) = (Arc::from("gc"), Timestamp::from_unix_micros(seq));
    Callback { seq, source, received_at, body: body.into(), origin: Origin::CalledBack }
}

/// How that source speaks.
pub fn dialects() -> HashMap<Arc<str>, Dialect> {
    HashMap::from([(Arc::from("gc"), Dialect::from(Provider::GcNotify))])
}

/// A sink that wants every change.
pub fn owed_to_app() -> OwedTo {
    OwedTo {
        sink: Arc::from("app"),
        since: 0,
        filter: Filter::default(),
        is_latest_only: false,
        wants_body: false,
    }
}

/// Each notification of these tables with its receipts and duplicates.
pub fn known(connection: &Connection) -> Vec<String> {
    connection
        .prepare("SELECT id, receipts, duplicates FROM notification_row ORDER BY id")
        .unwrap()
        .query_map([], |row| {
            let (id, receipts, duplicates): (String, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(format!("{id} {receipts} {duplicates}"))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect()
}
