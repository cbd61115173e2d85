//! Checkpoints away from the commit.
//!
//! A thread with a connection of its own looks ten times a second whether the WAL was written, and if
//! so moves it into the database; PASSIVE, so that neither the writer nor a reader waits. Only when
//! the WAL file has grown past `WAL_BYTES_LARGE` does it RESTART, which holds the writer up for
//! the little that PASSIVE left over; the file keeps its size, because writing over it is cheaper
//! than making it grow; past `WAL_BYTES_HUGE`, which takes a reader that held it up for long, or a burst that
//! it gave way to, the file is cut. Who reads in turns, so that there is always somebody reading, can leave a gap and have the log
//! emptied in it ([`Emptier`]), and a writer that gives way to others can have this thread give way too
//! ([`Hold`]). A checkpoint that somebody holds up is tried again: it moves bytes that are
//! already durable in the WAL. One that fails for the disk's sake is not: whoever started it is told,
//! because a later success would prove nothing.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::{Access, BUSY_MS_MAX, Fault, OpenError, Schema, open};

/// Seldom is worse: the more a checkpoint writes at once, the longer its sync holds up the syncs of
/// commits on the same disk. At half a second the slowest hundredth of answers under a steady load
/// took twice as long.
const LOOK: Duration = Duration::from_millis(100);
const WAL_BYTES_LARGE: u64 = 16 << 20;
const WAL_BYTES_HUGE: u64 = 64 << 20;

/// How long a checkpoint that holds others up waits for those who hold it up.
const PATIENCE: Duration = Duration::from_millis(200);

/// How much a checkpoint may hold others up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Passive,
    /// Until all of the WAL is moved, so that its file is written again from the start.
    Restart,
    /// The same, and the file is cut to nothing.
    Truncate,
}

/// The bytes in the WAL file beside `path`, whether moved already or not.
pub fn wal_bytes(path: &Path) -> u64 {
    std::fs::metadata(wal_path(path)).map_or(0, |metadata| metadata.len())
}

/// The WAL file beside `path`.
pub fn wal_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Runs one checkpoint; `Ok(false)` means that somebody held it up and some of the log is left.
pub fn run(connection: &Connection, mode: Mode) -> rusqlite::Result<bool> {
    let sql = match mode {
        Mode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
        Mode::Restart => "PRAGMA wal_checkpoint(RESTART)",
        Mode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    connection.query_row(sql, [], |row| {
        let (busy, log, moved): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && log == moved)
    })
}

/// The same, but gives up at once if a reader or another checkpoint stands in the way.
pub fn run_without_waiting(connection: &Connection, mode: Mode) -> rusqlite::Result<bool> {
    connection.busy_timeout(Duration::ZERO)?;
    let result = match run(connection, mode) {
        Err(error) if Fault::of(&error) == Fault::Busy => Ok(false),
        result => result,
    };
    connection.busy_timeout(BUSY_MS_MAX)?;
    result
}

/// Told that a checkpoint failed for good, on the checkpointing thread.
pub type Failed = Box<dyn Fn() + Send>;

/// The thread that checkpoints one file; stops, after a last checkpoint, when dropped.
#[derive(Debug)]
pub struct Checkpointer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    asked: Mutex<Asked>,
    wake: Condvar,
    hold: Hold,
}

/// What the thread is asked for.
#[derive(Default)]
struct Asked {
    stop: bool,
    empty: Vec<Tell>,
}

type Tell = Box<dyn FnOnce(bool) + Send>;

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked").field("stop", &self.stop).finish_non_exhaustive()
    }
}

/// What the writer of a file and its checkpointer tell one another. By default of nobody's file.
#[derive(Clone, Debug, Default)]
pub struct Hold(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    is_held: AtomicBool,
    is_busy: AtomicBool,
}

impl Hold {
    /// Whether checkpoints are put off. One under way goes on, and the log never grows past
    /// `WAL_BYTES_HUGE` for it.
    pub fn set(&self, is_held: bool) {
        self.0.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Whether a checkpoint is under way.
    pub fn is_busy(&self) -> bool {
        self.0.is_busy.load(Ordering::Relaxed)
    }

    fn holds(&self, wal_bytes: u64) -> bool {
        self.0.is_held.load(Ordering::Relaxed) && wal_bytes <= WAL_BYTES_HUGE
    }

    fn busy<T>(&self, checkpoint: impl FnOnce() -> T) -> T {
        self.0.is_busy.store(true, Ordering::Relaxed);
        let result = checkpoint();
        self.0.is_busy.store(false, Ordering::Relaxed);
        result
    }
}

/// Has the log emptied at once.
#[derive(Clone, Debug)]
pub struct Emptier(Arc<Shared>);

impl Emptier {
    /// Has all of the log moved and its file cut to nothing, for whoever has seen to it that nobody reads.
    /// `tell` hears, on the checkpointing thread, whether that worked; it is dropped if that thread ends.
    pub fn empty(&self, tell: impl FnOnce(bool) + Send + 'static) {
        let mut asked = self.0.lock();
        if !asked.stop {
            asked.empty.push(Box::new(tell));
            self.0.wake.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for so long, or until something is asked for. Whether to stop, and who wants it empty.
    fn wait(&self, time: Duration) -> (bool, Vec<Tell>) {
        let is_idle = |asked: &mut Asked| !asked.stop && asked.empty.is_empty();
        let waited = self.wake.wait_timeout_while(self.lock(), time, is_idle);
        let (mut asked, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (asked.stop, std::mem::take(&mut asked.empty))
    }
}

impl Checkpointer {
    /// Starts checkpointing `path`, which its writer has already created. `failed` is told of an I/O
    /// error or damage: what the log held may not be in the file, and a later success proves nothing.
    pub fn start(path: &Path, schema: &'static Schema, failed: Failed) -> Result<Self, OpenError> {
        let opened = (open(path, schema, Access::Checkpoint)?, inode(path));
        let shared = Arc::<Shared>::default();
        let thread = std::thread::Builder::new()
            .name(format!("{}-checkpoint", schema.what))
            .spawn({
                let (shared, path) = (Arc::clone(&shared), path.to_owned());
                move || work(opened, (&path, schema), &shared, &failed)
            })
            .map_err(|error| OpenError::Sqlite {
                path: path.to_owned(),
                error: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
            })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// To have this thread give way, and to see whether it works.
    pub fn hold(&self) -> Hold {
        self.shared.hold.clone()
    }

    /// A handle to have the log emptied with.
    pub fn emptier(&self) -> Emptier {
        Emptier(Arc::clone(&self.shared))
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work(
    (mut connection, mut file): (Connection, Option<Inode>),
    (path, schema): (&Path, &Schema),
    shared: &Shared,
    failed: &Failed,
) {
    // Holding up the writer is bounded; what could not be moved now is moved next time.
    let _ = connection.busy_timeout(PATIENCE);
    let mut last = None;
    let mut stopping = false;
    while !stopping {
        let (stop, asked) = shared.wait(LOOK);
        stopping = stop;
        let wal = std::fs::metadata(wal_path(path)).ok();
        // The size alone does not tell: a WAL that was moved whole is written again from its start.
        let written = wal.map(|wal| (wal.len(), wal.modified().ok()));
        let is_written = written.is_some_and(|(bytes, _)| bytes > 0) && last != written;
        let is_held = !stopping && written.is_some_and(|(bytes, _)| shared.hold.holds(bytes));
        if asked.is_empty() && (!is_written || is_held) {
            continue;
        }
        // A file that was set aside has another in its place, with a log of its own.
        if inode(path) != file
            && let Some((other, its_file)) = open_anew(path, schema)
        {
            // The old one is closed by this. SQLite sees that its file was moved, and leaves the log alone
            // that stands under its name now.
            (connection, file) = (other, its_file);
        }
        let mode = match written {
            _ if !asked.is_empty() => Some(Mode::Truncate),
            Some((bytes, _)) => mode_for(bytes),
            None => None,
        };
        let is_moved = shared.hold.busy(|| checkpoint(&connection, mode, failed));
        let is_done = is_moved && inode(path) == file;
        asked.into_iter().for_each(|tell| tell(is_done));
        if inode(path) == file {
            // As it was before: what is written while a checkpoint ends is for the next.
            last = written;
        }
    }
}

/// The file that stands there now, once its writer has made a log of it: a connection that has seen it
/// before that would checkpoint nothing and say that it is done.
fn open_anew(path: &Path, schema: &Schema) -> Option<(Connection, Option<Inode>)> {
    let file = inode(path);
    let connection = open(path, schema, Access::Checkpoint).ok()?;
    let mode = connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0));
    if mode.ok()? != "wal" || inode(path) != file {
        return None;
    }
    let _ = connection.busy_timeout(PATIENCE);
    Some((connection, file))
}

/// Which file stands under a name: its device and its number there.
type Inode = (u64, u64);

fn inode(path: &Path) -> Option<Inode> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

/// What follows PASSIVE where a log has grown to so many bytes.
fn mode_for(wal_bytes: u64) -> Option<Mode> {
    if wal_bytes > WAL_BYTES_HUGE {
        Some(Mode::Truncate)
    } else {
        (wal_bytes > WAL_BYTES_LARGE).then_some(Mode::Restart)
    }
}

/// Moves what nobody holds up, and then, if that was all, goes on to `then`. Whether all of it is done.
fn checkpoint(connection: &Connection, then: Option<Mode>, failed: &Failed) -> bool {
    let mut result = run(connection, Mode::Passive);
    // While a reader holds up PASSIVE, RESTART would only hold up the writer as well.
    if let (Ok(true), Some(mode)) = (&result, then) {
        result = run(connection, mode);
    }
    match result {
        Err(error) if matches!(Fault::of(&error), Fault::Io | Fault::Damaged) => {
            tracing::error!(%error, "a checkpoint failed");
            failed();
            false
        }
        Err(error) => {
            tracing::warn!(%error, "a checkpoint failed; it will be tried again");
            false
        }
        Ok(is_done) => is_done,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::Durability;
    use super::*;

    const SCHEMA: Schema = Schema {
        what: "test",
        application_id: 7,
        migrations: &["CREATE TABLE a (x BLOB NOT NULL) STRICT;"],
    };

    fn writer(path: &Path) -> Connection {
        open(path, &SCHEMA, Access::Write(Durability::Normal)).unwrap()
    }

    fn write(connection: &Connection, bytes: i64) {
        connection.execute("INSERT INTO a VALUES (zeroblob(?1))", [bytes]).unwrap();
    }

    fn empty(checkpointer: &Checkpointer) -> bool {
        let (tell, told) = channel();
        checkpointer.emptier().empty(move |is_empty| tell.send(is_empty).unwrap());
        told.recv().unwrap()
    }

    #[test]
    fn a_log_is_emptied_unless_somebody_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let writer = writer(&path);
        let checkpointer = Checkpointer::start(&path, &SCHEMA, Box::new(|| {})).unwrap();
        write(&writer, 1 << 20);
        assert!(empty(&checkpointer));
        assert_eq!(wal_bytes(&path), 0);
        let mut reader = open(&path, &SCHEMA, Access::Read).unwrap();
        let reading = reader.transaction().unwrap();
        let count = |connection: &Connection| -> i64 {
            connection.query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(count(&reading), 1);
        write(&writer, 1 << 20);
        assert!(!empty(&checkpointer));
        drop(reading);
        assert!(empty(&checkpointer));
        assert_eq!((wal_bytes(&path), count(&writer)), (0, 2));
    }

    #[track_caller]
    fn eventually(mut is_so: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !is_so() {
            assert!(began.elapsed() < Duration::from_secs(15), "it never was so");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn while_it_is_held_nothing_is_moved_until_the_log_is_huge() {
        let folder = tempfile::tempdir().unwrap();
        let [held, other] = ["held.db", "other.db"].map(|name| folder.path().join(name));
        let [writes, writes_other] = [&held, &other].map(|path| writer(path));
        let start = |path| Checkpointer::start(path, &SCHEMA, Box::new(|| {})).unwrap();
        let [checkpointer, _other] = [&held, &other].map(|path| start(path));
        let bytes = |path: &Path| std::fs::metadata(path).unwrap().len();
        // What opening wrote is moved.
        eventually(|| bytes(&held) > 4_096 && !checkpointer.hold().is_busy());
        checkpointer.hold().set(true);
        let before = bytes(&held);
        write(&writes, 1 << 20);
        // Whose checkpointer looks as often.
        for looks in 1..=3 {
            write(&writes_other, 1 << 20);
            eventually(|| bytes(&other) > looks << 20);
        }
        assert_eq!(bytes(&held), before);
        checkpointer.hold().set(false);
        eventually(|| bytes(&held) > 1 << 20);
        checkpointer.hold().set(true);
        write(&writes, 64 << 20);
        eventually(|| bytes(&held) > WAL_BYTES_HUGE);
    }

    #[test]
    fn the_file_in_the_place_of_one_that_was_set_aside_is_checkpointed() {
        let folder = tempfile::tempdir().unwrap();
        let [path, aside] = ["x.db", "aside.db"].map(|name| folder.path().join(name));
        let old = writer(&path);
        let checkpointer = Checkpointer::start(&path, &SCHEMA, Box::new(|| {})).unwrap();
        write(&old, 1 << 20);
        drop(old);
        std::fs::rename(&path, &aside).unwrap();
        for suffix in ["-wal", "-shm"] {
            let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            let _ = std::fs::rename(with(&path), with(&aside));
        }
        let new = writer(&path);
        write(&new, 1 << 20);
        assert!(empty(&checkpointer));
        assert_eq!(std::fs::metadata(wal_path(&path)).unwrap().len(), 0, "it is there, and cut");
        write(&new, 1 << 20);
        let count = |path: &Path| -> i64 {
            let reader = open(path, &SCHEMA, Access::Read).unwrap();
            reader.query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap()
        };
        assert_eq!(count(&path), 2, "what is in its log is read by others");
        assert_eq!(count(&aside), 1);
    }

    #[test]
    fn a_thread_that_ends_leaves_the_log_of_another_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        drop(writer(&path));
        let checkpointer = Checkpointer::start(&path, &SCHEMA, Box::new(|| {})).unwrap();
        // Another in its place, which the thread cannot open: it is of something else.
        std::fs::rename(&path, folder.path().join("aside.db")).unwrap();
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
        }
        let other = Schema { application_id: 8, ..SCHEMA };
        let new = open(&path, &other, Access::Write(Durability::Normal)).unwrap();
        write(&new, 1 << 20);
        drop(checkpointer);
        assert!(wal_bytes(&path) > 0);
    }

    #[test]
    fn nobody_waits_for_a_thread_that_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let _writer = writer(&path);
        let checkpointer = Checkpointer::start(&path, &SCHEMA, Box::new(|| {})).unwrap();
        let emptier = checkpointer.emptier();
        drop(checkpointer);
        let (tell, told) = channel::<bool>();
        emptier.empty(move |is_empty| tell.send(is_empty).unwrap());
        assert!(told.recv().is_err());
    }
}
