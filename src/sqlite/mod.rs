//! What both files have in common: opening, migrating, checkpointing, and what an error means.
//!
//! The database files are never opened outside SQLite, never memory-mapped, and always in WAL mode
//! with a checkpointer of their own ([`checkpoint`]): no commit ends in a checkpoint. The writer itself
//! empties its log only where there is no other way, to make room on a full disk and after pruning. A
//! library older than 3.51.3 is refused, because its WAL can silently lose commits when a second
//! connection checkpoints.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

pub mod checkpoint;

pub mod copy;

/// 3.51.3, the first version without the WAL-reset bug.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Longest wait for another connection's lock. Below the default of `ack_wait_ms_max`, so that a
/// caller is answered either way.
const BUSY_MS_MAX: Duration = Duration::from_millis(2_000);

/// How a commit reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `synchronous=FULL`: once committed it survives a power cut.
    Full,
    /// `synchronous=NORMAL`: a power cut may take back the last commits, but never half of one.
    Normal,
}

/// What may be done through a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The file's one writer; creates it if need be.
    Write(Durability),
    /// Checkpoints only: never changes a row.
    Checkpoint,
    /// Reads only.
    Read,
}

/// What a SQLite error means for whoever hit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full: try again once there is space.
    Full,
    /// Another connection holds the lock: try again.
    Busy,
    /// The file is no database, or damaged.
    Damaged,
    /// The disk or the operating system failed: what was written is unknown, and a later success
    /// proves nothing. Latch.
    Io,
    /// A mistake of ours.
    Other,
}

impl Fault {
    /// The class of this error.
    pub fn of(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged,
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly,
            ) => Self::Io,
            _ => Self::Other,
        }
    }
}

/// Why a file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite says why.
    #[error("failed to open {path}: {error}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's own words.
        #[source]
        error: rusqlite::Error,
    },
    /// It is not ours.
    #[error("{path} is not a receiptd {what} file: application_id is {found:#x}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Journal or state.
        what: &'static str,
        /// What stands in its header.
        found: i32,
    },
    /// A newer receiptd wrote it; it is left untouched.
    #[error(
        "{path} was written by a newer receiptd (schema {found}, this one knows {known}): \
         start that version again; the file was not touched"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: usize,
        /// The newest version this program knows.
        known: usize,
    },
    /// An older receiptd wrote it, and what is to be done needs the tables of today.
    #[error(
        "{path} was written by an older receiptd (schema {found}, this one has {known}): start \
         `receiptd serve` of this version once, which brings it up to date, or run `receiptd rebuild`"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: usize,
        /// The version of this program.
        known: usize,
    },
    /// The SQLite library is too old to be trusted with a WAL.
    #[error("SQLite {0} can lose commits; 3.51.3 or newer is needed")]
    OldLibrary(&'static str),
}

impl OpenError {
    /// Whether the file itself is damaged, so that making it anew could help.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite { error, .. } => Fault::of(error) == Fault::Damaged,
            Self::Foreign { .. }
            | Self::Newer { .. }
            | Self::Older { .. }
            | Self::OldLibrary(_) => false,
        }
    }
}

/// A file's format: the number that marks it as ours, and every step from nothing to today.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// `journal` or `state`, for messages.
    pub what: &'static str,
    /// SQLite's `application_id`.
    pub application_id: i32,
    /// Append-only: step N takes a file from `user_version` N to N + 1. A step that has been
    /// released is never edited.
    pub migrations: &'static [&'static str],
}

/// Opens `path`. A writer also creates and migrates it, one transaction a step.
pub fn open(path: &Path, schema: &Schema, access: Access) -> Result<Connection, OpenError> {
    if rusqlite::version_number() < SQLITE_VERSION_MIN {
        return Err(OpenError::OldLibrary(rusqlite::version()));
    }
    let wrap = |error| OpenError::Sqlite { path: path.to_owned(), error };
    let mut connection = connect(path, access).map_err(wrap)?;
    check_header(&connection, path, schema)?;
    if let Access::Write(durability) = access {
        set_up_writer(&connection, durability).map_err(wrap)?;
        migrate(&mut connection, schema).map_err(wrap)?;
    }
    Ok(connection)
}

/// Makes sure that the file at `path`, open as `connection`, has every table of `schema`: one who reads
/// migrates nothing.
///
/// # Errors
/// [`OpenError::Older`] if a writer of this version has not opened it yet.
pub fn check_is_current(
    connection: &Connection,
    path: &Path,
    schema: &Schema,
) -> Result<(), OpenError> {
    let wrap = |error| OpenError::Sqlite { path: path.to_owned(), error };
    let (found, known) = (user_version(connection).map_err(wrap)?, schema.migrations.len());
    if found < known {
        return Err(OpenError::Older { path: path.to_owned(), found, known });
    }
    Ok(())
}

/// Begins a transaction that will write. It takes the write lock at once: one that has read first
/// cannot wait for it, and fails with BUSY as soon as a checkpoint holds it.
pub fn write_transaction(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Steps of SQLite's machine between two looks at the clock: some tens of microseconds.
const STEPS: std::ffi::c_int = 4_000;

/// Ends whatever this connection is asked, from now on, at `deadline`: with an error for which
/// [`is_out_of_time`].
///
/// # Errors
/// Of SQLite.
pub fn end_at(connection: &mut Connection, deadline: Instant) -> rusqlite::Result<()> {
    connection.progress_handler(STEPS, Some(move || Instant::now() >= deadline))
}

/// Whether this is because of [`end_at`].
pub fn is_out_of_time(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}

/// A database of this schema that lives in memory, for offline replay and tests.
pub fn open_in_memory(schema: &Schema) -> Result<Connection, OpenError> {
    let wrap = |error| OpenError::Sqlite { path: PathBuf::from(":memory:"), error };
    let mut connection = Connection::open_in_memory().map_err(wrap)?;
    migrate(&mut connection, schema).map_err(wrap)?;
    Ok(connection)
}

/// Pages that the writer of the state keeps: a batch visits the random pages of two indexes, and
/// SQLite's own 2 MiB do not hold those of one batch.
const STATE_CACHE_KIB: i64 = 16 << 10;

fn connect(path: &Path, access: Access) -> rusqlite::Result<Connection> {
    let flags = match access {
        Access::Write(_) => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Access::Checkpoint => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_MS_MAX)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

fn check_header(connection: &Connection, path: &Path, schema: &Schema) -> Result<(), OpenError> {
    let wrap = |error| OpenError::Sqlite { path: path.to_owned(), error };
    let found: i32 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(wrap)?;
    let version = user_version(connection).map_err(wrap)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(wrap)?;
    let is_empty = found == 0 && version == 0 && tables == 0;
    if !is_empty && found != schema.application_id {
        return Err(OpenError::Foreign { path: path.to_owned(), what: schema.what, found });
    }
    if version > schema.migrations.len() {
        let known = schema.migrations.len();
        return Err(OpenError::Newer { path: path.to_owned(), found: version, known });
    }
    Ok(())
}

fn user_version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

fn set_up_writer(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    let mode: String =
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        // A file system without shared memory: WAL is what every promise here rests on.
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
            Some("this file system does not support WAL".to_owned()),
        ));
    }
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    if durability == Durability::Normal {
        connection.pragma_update(None, "cache_size", -STATE_CACHE_KIB)?;
    }
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    // What is pruned must be gone from the file, not only unlinked in it.
    connection.pragma_update(None, "secure_delete", true)
}

fn migrate(connection: &mut Connection, schema: &Schema) -> rusqlite::Result<()> {
    let from = user_version(connection)?;
    for (version, step) in schema.migrations.iter().enumerate().skip(from) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", schema.application_id)?;
        let reached = i64::try_from(version + 1).unwrap_or(i64::MAX);
        transaction.pragma_update(None, "user_version", reached)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema = Schema {
        what: "test",
        application_id: 7,
        migrations: &["CREATE TABLE a (x) STRICT;", "CREATE TABLE b (x INTEGER) STRICT;"],
    };
    const ONE_STEP: Schema =
        Schema { migrations: &["CREATE TABLE a (x INTEGER) STRICT;"], ..SCHEMA };
    const TWO_STEPS: Schema = Schema {
        migrations: &["CREATE TABLE a (x INTEGER) STRICT;", "CREATE TABLE b (x INTEGER) STRICT;"],
        ..SCHEMA
    };

    fn write(path: &Path, schema: &Schema) -> Result<Connection, OpenError> {
        open(path, schema, Access::Write(Durability::Full))
    }

    #[test]
    fn an_older_file_is_migrated_and_a_newer_one_is_refused_untouched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        drop(write(&path, &ONE_STEP).unwrap());
        drop(write(&path, &TWO_STEPS).unwrap());
        let before = std::fs::read(&path).unwrap();
        let refused = write(&path, &ONE_STEP).unwrap_err();
        assert!(matches!(refused, OpenError::Newer { found: 2, known: 1, .. }), "{refused}");
        assert_eq!(before, std::fs::read(&path).unwrap());
    }

    #[test]
    fn a_failing_step_leaves_the_version_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        assert!(write(&path, &SCHEMA).is_err(), "STRICT wants a type");
        let connection = Connection::open(&path).unwrap();
        assert_eq!(user_version(&connection).unwrap(), 0);
    }

    #[test]
    fn somebody_elses_database_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
        assert!(matches!(write(&path, &ONE_STEP), Err(OpenError::Foreign { found: 0, .. })));
    }

    #[test]
    fn a_file_that_is_no_database_is_damage() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        std::fs::write(&path, vec![b'x'; 8192]).unwrap();
        assert!(write(&path, &ONE_STEP).unwrap_err().is_damage());
    }

    #[test]
    fn a_writer_is_durable_as_asked_and_never_checkpoints_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        for (durability, expected) in [(Durability::Full, 2), (Durability::Normal, 1)] {
            let connection = open(&path, &ONE_STEP, Access::Write(durability)).unwrap();
            let pragma = |name: &str| -> i64 {
                connection.pragma_query_value(None, name, |row| row.get(0)).unwrap()
            };
            assert_eq!(pragma("synchronous"), expected);
            assert_eq!(pragma("wal_autocheckpoint"), 0);
            assert_eq!(pragma("secure_delete"), 1);
        }
    }
}
