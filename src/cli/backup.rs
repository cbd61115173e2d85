//! `receiptd backup`: both files, while the receiver goes on.
//!
//! The state is copied first and the journal second, so that the copy of the journal is never
//! behind: whatever the state's copy has settled, the journal's copy holds, and what came meanwhile
//! is settled after restoring.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rusqlite::Connection;

use super::Failure;
use super::flags::ConfigFlags;
use super::progress;
use super::setup::kept;
use crate::journal::reader::Reader;
use crate::journal::{self, SCHEMA as JOURNAL};
use crate::lock::{Lock, lock_path};
use crate::sqlite::copy::{Check, damage};
use crate::sqlite::{self, Access, Schema};
use crate::state::tables::{SCHEMA as STATE, cursor};

/// How often to copy again if callbacks were pruned between the copies of the two files.
const TRIES_MAX: usize = 3;

/// Copy state and journal to another place, while the receiver goes on
///
/// FILE gets the state, and the file beside it, with .db replaced by .callbacks.db, the journal.
/// Both are checked and safely on the disk when the command ends; until then, nothing stands under
/// their names. They hold personal data and can be read by their owner only.
///
/// To restore, stop the receiver and put both files back, under the names they had. What the
/// receiver was sent after the backup is not in it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Example:
  receiptd backup --db /data/receiptd.db /backup/receiptd-2026-11-22.db")]
pub struct Args {
    /// Where the state goes; its name ends in .db
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Replace an older backup of that name
    #[arg(long)]
    pub force: bool,

    /// The configuration file and the state file.
    #[command(flatten)]
    pub config: ConfigFlags,
}

/// Copies both files, and says what the copies hold.
///
/// # Errors
/// If a file cannot be read or written, or something stands where the backup should go.
pub fn run(
    args: &Args,
    env: &[(String, String)],
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let state = kept(&args.config, env)?.store.path;
    let _lock = check_target(args, &state)?;
    let (from, to) = (Pair::of(&state), Pair::of(&args.file));
    let parts = Pair { state: part_of(&to.state), journal: part_of(&to.journal) };
    let result = copy_consistently(&from, &parts).and_then(|held| {
        put_in_place(&parts, &to).map_err(|error| cannot_write(&to.state, &error))?;
        Ok(held)
    });
    if result.is_err() {
        remove(&parts.state);
        remove(&parts.journal);
    }
    let Held { settled, last } = result?;
    writeln!(out, "{}: the state, settled up to callback {settled}", to.state.display())
        .and_then(|()| writeln!(out, "{}: the journal, up to {last}", to.journal.display()))
        .map_err(Failure::output)?;
    Ok(ExitCode::SUCCESS)
}

/// The two files of one database.
struct Pair {
    state: PathBuf,
    journal: PathBuf,
}

impl Pair {
    fn of(state: &Path) -> Self {
        Self { state: state.to_owned(), journal: journal::path_beside(state) }
    }
}

/// How far the copies have got.
struct Held {
    settled: i64,
    last: i64,
}

/// Refuses to overwrite what must not be. If a receiver could be running on the target, its lock is
/// held until the copies are in place.
fn check_target(args: &Args, state: &Path) -> Result<Option<Lock>, Failure> {
    let file = &args.file;
    if file.extension().is_none_or(|extension| extension != "db") {
        let message = format!("{} does not end in .db", file.display());
        return Err(Failure::new(Failure::USAGE, message)
            .hint("the journal's name is made from it: receiptd-2026-11-22.db, for example"));
    }
    let (to, from) = (Pair::of(file), Pair::of(state));
    let is_same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    if is_same(&to.state, &from.state) || is_same(&to.journal, &from.journal) {
        return Err(Failure::new(Failure::USAGE, "that is the database itself"));
    }
    let taken = [&to.state, &to.journal].into_iter().find(|path| path.exists());
    if let Some(path) = taken.filter(|_| !args.force) {
        return Err(Failure::new(Failure::NO, format!("{} exists", path.display()))
            .hint("choose another name, or replace it with --force"));
    }
    Ok(lock_path(file).exists().then(|| Lock::acquire(file)).transpose()?)
}

/// Copies both files to `parts`, again if callbacks that the state's copy has not settled were
/// pruned before the journal was copied.
fn copy_consistently(from: &Pair, parts: &Pair) -> Result<Held, Failure> {
    for _ in 0..TRIES_MAX {
        copy(&from.state, &STATE, &parts.state)?;
        copy(&from.journal, &JOURNAL, &parts.journal)?;
        if let Some(held) = check(parts)? {
            return Ok(held);
        }
    }
    Err(Failure::new(Failure::NO, "callbacks were pruned while they were copied")
        .hint("run it again once pruning has ended"))
}

fn copy(from: &Path, schema: &Schema, to: &Path) -> Result<(), Failure> {
    let source = sqlite::open(from, schema, Access::Read)?;
    create(to).map_err(|error| cannot_write(to, &error))?;
    let bar = progress::bar(schema.what);
    let copied = sqlite::copy::copy(&source, to, |done, all| progress::show(&bar, done, all));
    bar.finish_and_clear();
    Ok(copied?)
}

/// An empty file that only its owner can read; SQLite takes it for an empty database.
fn create(path: &Path) -> io::Result<()> {
    remove(path);
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

/// Opens the copies as what they are, reads through them, and tells how far they have got; `None`
/// if they do not fit together.
fn check(parts: &Pair) -> Result<Option<Held>, Failure> {
    let state = open_checked(&parts.state, &STATE)?;
    let journal = Reader::over(open_checked(&parts.journal, &JOURNAL)?);
    let (journal_id, settled) = cursor(&state)?;
    let last = journal.last_seq()?;
    let is_known = journal_id.is_some();
    if journal_id.is_some_and(|id| Ok(id) != journal.journal_id()) || settled > last {
        return Err(Failure::new(
            Failure::NO,
            "the state does not belong to the journal beside it",
        )
        .hint("`receiptd check-db` says more"));
    }
    let fits = !is_known || journal.pruned_through()? <= settled;
    Ok(fits.then_some(Held { settled, last }))
}

/// Not read-only, so that closing it leaves no WAL beside it.
fn open_checked(path: &Path, schema: &Schema) -> Result<Connection, Failure> {
    let connection = sqlite::open(path, schema, Access::Checkpoint)?;
    match damage(&connection, Check::Quick, 1)?.pop() {
        None => Ok(connection),
        Some(found) => {
            let message = format!("the copy of the {} is damaged: {found}", schema.what);
            Err(Failure::new(Failure::NO, message)
                .hint("`receiptd check-db` says whether the file itself is"))
        }
    }
}

/// Makes the copies durable and gives them their names: the journal first, because an older state
/// beside a newer journal is settled on, while a newer state would be ahead of its journal.
fn put_in_place(parts: &Pair, to: &Pair) -> io::Result<()> {
    for (part, to) in [(&parts.journal, &to.journal), (&parts.state, &to.state)] {
        File::open(part)?.sync_all()?;
        // A WAL left beside an older backup would be taken for the new one's.
        remove_companions(to);
        fs::rename(part, to)?;
    }
    let folder = to.state.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn part_of(path: &Path) -> PathBuf {
    with_suffix(path, ".part")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Removes a database with all that belongs to it, if it is there.
fn remove(path: &Path) {
    let _ = fs::remove_file(path);
    remove_companions(path);
}

fn remove_companions(path: &Path) {
    for suffix in ["-wal", "-shm", "-journal"] {
        let _ = fs::remove_file(with_suffix(path, suffix));
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Failure::IO, format!("failed to write {}: {error}", path.display()))
}
