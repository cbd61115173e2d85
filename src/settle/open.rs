//! Finding, or making, the state that belongs to a journal.
//!
//! The journal is the truth, so a state that is missing, damaged or of another journal is set aside
//! (never deleted) and settled again. A journal that is missing, or behind its state because it was
//! restored from an older copy, cannot give back what the state knows: then the state is carried
//! over into the journal, as if the callbacks behind it had been pruned.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::change::OwedTo;
use crate::clock::Clock;
use crate::journal::{self, reader::Reader};
use crate::sqlite::{self, Access, Durability, OpenError};
use crate::state::epoch;
use crate::state::tables::{SCHEMA, arrival, cursor, newest_line, set_cursor};
use crate::state::write::carry_over;

/// A state, ready to be settled into.
#[derive(Debug)]
pub struct Opened {
    /// The file's one read-write connection.
    pub connection: Connection,
    /// The journal it belongs to, once it has settled anything.
    pub journal_id: Option<String>,
    /// Everything up to here is settled.
    pub seq: i64,
}

/// Opens the state at `path`; a damaged file is set aside, with a warning, for a new one.
///
/// # Errors
/// If the file belongs to something else or to a newer version, or cannot be opened or set aside.
pub fn open_state(path: &Path, clock: &Clock) -> Result<Opened, OpenError> {
    match try_open(path) {
        Err(error) if error.is_damage() => {
            let aside = set_aside(path, "damaged", clock).map_err(|cause| OpenError::Sqlite {
                path: path.to_owned(),
                error: rusqlite::Error::ToSqlConversionFailure(Box::new(cause)),
            })?;
            tracing::warn!(
                %error, set_aside = %aside.display(),
                "the state file is damaged; it is settled again from the journal"
            );
            try_open(path)
        }
        opened => opened,
    }
}

pub(super) fn try_open(path: &Path) -> Result<Opened, OpenError> {
    let wrap = |error| OpenError::Sqlite { path: path.to_owned(), error };
    let connection = sqlite::open(path, &SCHEMA, Access::Write(Durability::Normal))?;
    let (journal_id, seq) = cursor(&connection).map_err(wrap)?;
    begin_epoch(&connection).map_err(wrap)?;
    Ok(Opened { connection, journal_id, seq })
}

/// The one thing that is left to chance here: it is told to those who follow, and never settled.
fn begin_epoch(connection: &Connection) -> rusqlite::Result<()> {
    let mut key = epoch::Key::default();
    getrandom::fill(&mut key)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    epoch::begin(connection, key, env!("CARGO_PKG_VERSION"))
}

/// Opens the state at `path` and makes sure that it and the journal at `journal` belong together;
/// both files exist afterwards. Nothing else may have either open for writing.
///
/// # Errors
/// As [`open_state`], and of the journal's file.
pub fn open_beside(path: &Path, journal: &Path, clock: &Clock) -> Result<Opened, OpenError> {
    // Without a journal there is nothing to settle again, and a file that is no database may be
    // anybody's: it is left where it is.
    let opened = if journal.exists() { open_state(path, clock)? } else { try_open(path)? };
    let wrap = |error| OpenError::Sqlite { path: journal.to_owned(), error };
    let mut writer = sqlite::open(journal, &journal::SCHEMA, Access::Write(Durability::Full))?;
    let id = journal::journal_id(&writer).map_err(wrap)?;
    let last = journal::last_seq(&writer).map_err(wrap)?;
    let pruned = journal::pruned_through(&writer).map_err(wrap)?;
    let Some(known_id) = opened.journal_id.clone() else {
        tell_of_no_state(last);
        return Ok(opened);
    };
    // Behind what was pruned, only the journal's own tables know what those callbacks came to: an
    // older copy of the state, or one that a power cut took back, cannot catch up from callbacks.
    let is_behind = known_id == id && opened.seq < pruned;
    let is_of_its_past = known_id != id
        || have_one_past(&opened.connection, &writer, opened.seq.min(last)).map_err(wrap)?;
    if known_id == id && opened.seq <= last && !is_behind && is_of_its_past {
        return Ok(opened);
    }
    if is_behind || !is_of_its_past || (known_id != id && last > 0) {
        drop(opened);
        let why = if is_behind { "older-than-pruned" } else { "of-another-journal" };
        let aside = set_aside(path, why, clock)
            .map_err(|cause| wrap(rusqlite::Error::ToSqlConversionFailure(Box::new(cause))))?;
        tracing::warn!(
            set_aside = %aside.display(), why,
            "the state file does not fit its journal; it is settled again from the journal"
        );
        return open_state(path, clock);
    }
    tracing::warn!(
        journal = %journal.display(), state_seq = opened.seq, journal_seq = last,
        "the journal is missing callbacks that its state has settled; what the state knows is kept"
    );
    adopt_state(&mut writer, path, &known_id, opened.seq).map_err(wrap)?;
    Ok(opened)
}

/// At the very first start there is nothing to be told.
fn tell_of_no_state(last: i64) {
    if last > 0 {
        tracing::warn!(journal_seq = last, "there is no state yet; it is settled from the journal");
    }
}

/// Whether what the state knows of the newest callback up to `through` is of the callback that the journal
/// has there, or of what it keeps of that. Two copies of one journal that both went on have one identity,
/// and are not the same.
pub(super) fn have_one_past(
    state: &Connection,
    journal: &Connection,
    through: i64,
) -> rusqlite::Result<bool> {
    let Some((seq, received_at)) = newest_line(state, through)? else { return Ok(true) };
    let known = match journal::received_at(journal, seq)? {
        None if seq <= journal::pruned_through(journal)? => arrival(journal, seq)?,
        known => Some(known.unwrap_or_default()),
    };
    Ok(known.is_none_or(|known| known == received_at))
}

fn adopt_state(
    journal: &mut Connection,
    state: &Path,
    journal_id: &str,
    seq: i64,
) -> rusqlite::Result<()> {
    journal.execute("ATTACH DATABASE ?1 AS state", [state.to_string_lossy().as_ref()])?;
    let transaction = journal.transaction()?;
    journal::adopt(&transaction, "state", journal_id, seq)?;
    transaction.commit()
}

/// Renames the file at `path`, and its WAL, to a name that says why and when.
pub fn set_aside(path: &Path, why: &str, clock: &Clock) -> io::Result<PathBuf> {
    let stamp = clock.now().to_string().replace([':', '-', '.'], "");
    let suffixed = |path: &Path, suffix: &str| {
        let mut name: OsString = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = suffixed(path, &format!(".{why}-{stamp}"));
    std::fs::rename(path, &aside)?;
    for suffix in ["-wal", "-shm"] {
        match std::fs::rename(suffixed(path, suffix), suffixed(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// Starts a new state from what pruned callbacks came to, which the journal at `journal` keeps, and
/// sets its cursor behind them. One transaction.
pub fn copy_base(state: &mut Connection, journal: &Path) -> rusqlite::Result<i64> {
    let path = journal.to_string_lossy();
    state.execute("ATTACH DATABASE ?1 AS journal", [path.as_ref()])?;
    let copied = copy_attached(state);
    state.execute_batch("DETACH DATABASE journal")?;
    copied
}

fn copy_attached(state: &mut Connection) -> rusqlite::Result<i64> {
    let transaction = state.transaction()?;
    let (journal_id, seq): (String, i64) = transaction.query_row(
        "SELECT journal_id, pruned_through FROM journal.identity",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    carry_over(&transaction, "journal", "main")?;
    set_cursor(&transaction, &journal_id, seq)?;
    transaction.commit()?;
    Ok(seq)
}

/// Settles the journal, up to and including `through`, into a new state file at `path`, where there
/// is none. Returns the position reached, which is before `through` if the journal ends there, and
/// behind it if callbacks were pruned beyond it. `progress` is told as by [`super::rebuild`].
///
/// # Errors
/// Of SQLite only.
pub fn settle_afresh(
    path: &Path,
    journal: &Path,
    through: i64,
    callbacks_max: usize,
    progress: impl FnMut(i64, i64),
) -> Result<i64, OpenError> {
    let wrap = |error| OpenError::Sqlite { path: path.to_owned(), error };
    let mut opened = try_open(path)?;
    opened.seq = copy_base(&mut opened.connection, journal).map_err(wrap)?;
    catch_up(opened, path, journal, (through, callbacks_max, &[]), progress)
}

/// Settles the callbacks behind what `opened`, the state at `path`, has settled, up to and including
/// `through`, and closes it. `owed_to`: whom to owe what changes by them. Returns and tells the same.
pub(super) fn catch_up(
    mut opened: Opened,
    path: &Path,
    journal: &Path,
    (through, callbacks_max, owed_to): (i64, usize, &[OwedTo]),
    mut progress: impl FnMut(i64, i64),
) -> Result<i64, OpenError> {
    let wrap = |error| OpenError::Sqlite { path: path.to_owned(), error };
    let mut reader = Reader::open(journal)?;
    let mut seq = opened.seq;
    let journal_id = reader.journal_id().map_err(wrap)?;
    let dialects = reader.dialects().map_err(wrap)?;
    let last = reader.last_seq().map_err(wrap)?.min(through);
    while let Some(callbacks) =
        Some(reader.after(seq, last, callbacks_max, super::worker::BATCH_BYTES_MAX).map_err(wrap)?)
            .filter(|callbacks| !callbacks.is_empty())
    {
        seq = callbacks.last().map_or(seq, |callback| callback.seq);
        let transaction = opened.connection.transaction().map_err(wrap)?;
        super::settle(&transaction, &callbacks, &dialects, owed_to).map_err(wrap)?;
        set_cursor(&transaction, &journal_id, seq).map_err(wrap)?;
        transaction.commit().map_err(wrap)?;
        sqlite::checkpoint::run(&opened.connection, sqlite::checkpoint::Mode::Passive)
            .map_err(wrap)?;
        progress(seq, last);
    }
    opened.connection.close().map_err(|(_, error)| wrap(error))?;
    Ok(seq)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::files::{Files, at, clock, known};
    use super::*;
    use crate::state::epoch::Epoch;

    #[test]
    fn a_state_that_belongs_to_its_journal_is_opened_and_neither_is_changed() {
        let files = Files::settled(&["a", "b", "c"]);
        let (id, ..) = files.journal_says();
        for (last, ids) in [(3, &[][..]), (4, &["d"][..])] {
            files.append(4, ids);
            let opened = files.open();
            assert_eq!((opened.journal_id.as_ref(), opened.seq), (Some(&id), 3));
            assert_eq!(files.journal_says(), (id.clone(), last, 0));
            assert_eq!(files.aside(), [""; 0]);
        }
    }

    #[test]
    fn each_state_begins_with_a_key_of_its_own_and_keeps_it() {
        let files = Files::settled(&["a"]);
        let key = || *Epoch::of(&files.open().connection).unwrap().unwrap().key();
        let first = key();
        assert_eq!(key(), first);
        fs::remove_file(&files.state).unwrap();
        assert_ne!(key(), first);
    }

    #[test]
    fn a_state_of_another_copy_of_its_journal_that_went_on_is_set_aside() {
        // Up to the same position, behind the journal, and before it.
        for (state_has, journal_has) in [(3, 3), (3, 4), (4, 3)] {
            let files = Files::settled(&["a", "b"]);
            let copy = files.copy_of(&files.journal);
            files.append(3, &["c", "d"][..state_has - 2]);
            files.catch_up();
            fs::copy(copy, &files.journal).unwrap();
            files.append(3, &["x", "y"][..journal_has - 2]);
            let other = "UPDATE callback SET received_at = ?1 WHERE seq = 3";
            files.journal_writer().execute(other, [at(90).to_string()]).unwrap();
            let opened = files.open();
            assert_eq!((opened.journal_id, opened.seq), (None, 0), "{state_has} {journal_has}");
            drop(opened.connection);
            let aside = files.aside();
            assert!(aside.len() == 1 && aside[0].contains("of-another-journal"), "{aside:?}");
            assert_eq!(files.journal_says().1, journal_has as i64, "it took nothing over");
        }
    }

    #[test]
    fn a_state_that_knows_a_callback_that_its_journal_never_had_is_set_aside() {
        let files = Files::settled(&["a", "b"]);
        files.append(4, &["d"]);
        files.journal_writer().execute("DELETE FROM callback WHERE seq = 2", []).unwrap();
        assert_eq!(files.open().journal_id, None);
        assert_eq!(files.aside().len(), 1);
    }

    #[test]
    fn what_is_pruned_tells_the_copies_of_a_journal_apart_as_long_as_a_line_is_left() {
        let files = Files::settled(&["a", "b"]);
        let state = files.copy_of(&files.state);
        files.prune_bodies(2);
        assert_eq!(files.open().seq, 2);
        let other = "UPDATE history_row SET received_at = ?1 WHERE seq = 2";
        files.journal_writer().execute(other, [at(90).to_string()]).unwrap();
        assert_eq!(files.open().journal_id, None);
        fs::copy(state, &files.state).unwrap();
        files.journal_writer().execute("DELETE FROM history_row WHERE seq = 2", []).unwrap();
        assert_eq!(files.open().seq, 2, "there is no telling");
    }

    #[test]
    fn a_state_as_old_as_the_last_pruning_fits_and_an_older_one_is_set_aside() {
        let files = Files::settled(&["a", "b"]);
        let older = files.copy_of(&files.state);
        files.append(3, &["c"]);
        files.rebuild();
        files.prune_bodies(3);
        assert_eq!(files.open().seq, 3);
        assert_eq!(files.aside(), [""; 0]);
        fs::copy(older, &files.state).unwrap();
        let mut opened = files.open();
        assert_eq!((opened.journal_id, opened.seq), (None, 0));
        let aside = files.aside();
        assert!(aside.len() == 1 && aside[0].contains("older-than-pruned"), "{aside:?}");
        assert_eq!(copy_base(&mut opened.connection, &files.journal).unwrap(), 3);
        assert_eq!(known(&opened.connection), ["a 1 0", "b 1 0", "c 1 0"]);
    }

    #[test]
    fn the_state_of_another_journal_is_set_aside_and_the_journal_stays_itself() {
        let (files, other) = (Files::settled(&["a", "b"]), Files::settled(&["x"]));
        let before = files.journal_says();
        fs::copy(&other.state, &files.state).unwrap();
        let opened = files.open();
        assert_eq!((opened.journal_id, opened.seq), (None, 0));
        assert_eq!(files.journal_says(), before);
        let aside = files.aside();
        assert!(aside.len() == 1 && aside[0].contains("of-another-journal"), "{aside:?}");
    }

    #[test]
    fn a_journal_that_lacks_what_its_state_has_settled_takes_it_over() {
        let files = Files::settled(&["a", "b"]);
        let older = files.copy_of(&files.journal);
        files.append(3, &["c"]);
        files.rebuild();
        let (id, ..) = files.journal_says();
        for restore in [true, false] {
            if restore {
                fs::copy(&older, &files.journal).unwrap();
            } else {
                fs::remove_file(&files.journal).unwrap();
            }
            let opened = files.open();
            assert_eq!((opened.journal_id.as_ref(), opened.seq), (Some(&id), 3));
            assert_eq!(files.journal_says(), (id.clone(), 3, 3));
            assert_eq!(known(&files.journal_writer()), ["a 1 0", "b 1 0", "c 1 0"]);
            assert_eq!(files.aside(), [""; 0]);
        }
    }

    #[test]
    fn a_damaged_state_is_set_aside_and_one_of_a_newer_version_stays_where_it_is() {
        let files = Files::settled(&["a"]);
        let newer = Connection::open(&files.state).unwrap();
        newer.pragma_update(None, "user_version", 99).unwrap();
        drop(newer);
        assert!(open_state(&files.state, &clock()).is_err());
        assert!(files.state.exists());
        assert_eq!(files.aside(), [""; 0]);
        fs::write(&files.state, "not a database ".repeat(1000)).unwrap();
        assert_eq!(open_state(&files.state, &clock()).unwrap().seq, 0);
        assert_eq!(files.aside().len(), 1);
    }

    #[test]
    fn a_file_is_set_aside_with_its_log_if_it_has_one_and_a_log_that_stays_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("receiptd.db");
        let log = folder.path().join("receiptd.db-wal");
        fs::write(&path, "").unwrap();
        let aside = set_aside(&path, "damaged", &clock()).unwrap();
        assert!(aside.exists() && !path.exists());

        fs::write(&path, "").unwrap();
        fs::write(&log, "log").unwrap();
        assert_eq!(set_aside(&path, "damaged", &clock()).unwrap(), aside);
        let log_aside = PathBuf::from(format!("{}-wal", aside.display()));
        assert_eq!(fs::read_to_string(&log_aside).unwrap(), "log");
        assert!(!log.exists());

        fs::remove_file(&log_aside).unwrap();
        fs::create_dir(&log_aside).unwrap();
        fs::write(&path, "").unwrap();
        fs::write(&log, "log").unwrap();
        assert!(set_aside(&path, "damaged", &clock()).is_err());
    }

    #[test]
    fn settling_afresh_goes_as_far_as_it_is_told_and_tells_each_step() {
        let files = Files::settled(&["a", "b", "c", "d"]);
        let path = files.folder.path().join("afresh.db");
        let mut told = Vec::new();
        let reached =
            settle_afresh(&path, &files.journal, 3, 2, |seq, last| told.push((seq, last))).unwrap();
        assert_eq!((reached, told), (3, vec![(2, 3), (3, 3)]));
        let opened = open_state(&path, &clock()).unwrap();
        assert_eq!((opened.journal_id, opened.seq), (Some(files.journal_says().0), 3));
        assert_eq!(known(&opened.connection), ["a 1 0", "b 1 0", "c 1 0"]);
    }
}
