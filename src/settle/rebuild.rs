//! A new state from the journal, in the place of the old one, and what sinks are owed by it.
//!
//! After an upgrade that understands more, settling from the start gives another state. Sinks are owed
//! that difference and no more: what they were owed before is carried over, and a change is added for
//! each notification and message that is not what it was. Its key is behind the newest event of its
//! subject, so it comes after everything that the sink was told of it so far.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::open::{Opened, catch_up, copy_base, try_open};
use crate::change::{Change, ChangeId, MessageData, NotificationData, OwedTo, What, to_json};
use crate::journal::reader::Reader;
use crate::merge::Facts;
use crate::sqlite::checkpoint::{self, Mode};
use crate::sqlite::{self, OpenError};
use crate::state::outbox;
use crate::state::rebuilt::{Differing, carry_outbox_over, differing, last_change_key, old_facts};
use crate::state::write::{find_message, find_notification};

/// Settles the whole journal into a new state file beside `path` and puts it in the place of the
/// old one, which stays untouched until then but for catching up with the journal. `progress` is told
/// the position reached after each batch, and the last position there is. Nothing else may have the
/// state open for writing. `owed_to`: the sinks that are owed what is different afterwards.
///
/// A crash anywhere leaves the old state, or none: then the next start settles the journal again.
///
/// # Errors
/// Of SQLite or of the file system, in one sentence.
pub fn rebuild(
    path: &Path,
    journal: &Path,
    callbacks_max: usize,
    owed_to: &[OwedTo],
    progress: impl FnMut(i64, i64),
) -> Result<i64, OpenError> {
    let building = path.with_extension("db-rebuilding");
    remove_database(&building);
    let mut opened = try_open(&building)?;
    let wrap = |error| OpenError::Sqlite { path: building.clone(), error };
    opened.seq = copy_base(&mut opened.connection, journal).map_err(wrap)?;
    // Without an old state that knows its journal there is no telling what is different.
    let has_old = !owed_to.is_empty() && brought_up(path, journal, callbacks_max, owed_to)?;
    let owed_at_once = if has_old { &[][..] } else { owed_to };
    let bounds = (i64::MAX, callbacks_max, owed_at_once);
    let seq = catch_up(opened, &building, journal, bounds, progress)?;
    if has_old {
        owe_differences(&building, path, owed_to)?;
    }
    make_whole(&building)?;
    keep_owner(path, &building)?;
    // The old file goes before its WAL: without the WAL it might be half of itself and still look
    // whole, and with the WAL of the old one the new file would be damaged.
    remove_database(path);
    let moved = std::fs::rename(&building, path).and_then(|()| sync_folder(path));
    moved.map_err(|error| OpenError::Sqlite {
        path: path.to_owned(),
        error: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
    })?;
    Ok(seq)
}

/// Moves all of the new file's write-ahead log into it. Closing it does so too, but tells nobody if a full
/// disk keeps it from that; and without its log it takes the place of the old one.
fn make_whole(building: &Path) -> Result<(), OpenError> {
    let wrap = |error| OpenError::Sqlite { path: building.to_owned(), error };
    let state = try_open(building)?.connection;
    if !checkpoint::run(&state, Mode::Truncate).map_err(wrap)? {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(wrap(rusqlite::Error::SqliteFailure(busy, None)));
    }
    state.close().map_err(|(_, error)| wrap(error))
}

/// Settles into the old state what it has not settled yet, so that the two can be compared. Whether
/// there is an old state of this journal at all.
fn brought_up(
    path: &Path,
    journal: &Path,
    callbacks_max: usize,
    owed_to: &[OwedTo],
) -> Result<bool, OpenError> {
    if !path.exists() {
        return Ok(false);
    }
    let opened = match try_open(path) {
        Err(error) if error.is_damage() => return Ok(false),
        opened => opened?,
    };
    let reader = Reader::open(journal)?;
    let wrap = |error| OpenError::Sqlite { path: path.to_owned(), error };
    let id = reader.journal_id().map_err(wrap)?;
    let pruned = reader.pruned_through().map_err(wrap)?;
    let Opened { journal_id, seq, .. } = &opened;
    if journal_id.as_ref() != Some(&id) || *seq < pruned {
        return Ok(false);
    }
    catch_up(opened, path, journal, (i64::MAX, callbacks_max, owed_to), |_, _| {})?;
    Ok(true)
}

fn owe_differences(building: &Path, old: &Path, owed_to: &[OwedTo]) -> Result<(), OpenError> {
    let wrap = |error| OpenError::Sqlite { path: building.to_owned(), error };
    let mut state = try_open(building)?.connection;
    state.execute("ATTACH DATABASE ?1 AS old", [old.to_string_lossy().as_ref()]).map_err(wrap)?;
    let owed = owe_attached(&mut state, owed_to);
    state.execute_batch("DETACH DATABASE old").map_err(wrap)?;
    owed.map_err(wrap)?;
    state.close().map_err(|(_, error)| wrap(error))
}

fn owe_attached(state: &mut Connection, owed_to: &[OwedTo]) -> rusqlite::Result<()> {
    let transaction = sqlite::write_transaction(state)?;
    carry_outbox_over(&transaction)?;
    let sinks = outbox::sinks(&transaction)?;
    for differing in differing(&transaction)? {
        let Some(change) = change_of(&transaction, &differing)? else { continue };
        let to: Vec<&OwedTo> = owed_to.iter().filter(|to| to.filter.matches(&change)).collect();
        if !to.is_empty() {
            outbox::owe_instead(&transaction, &change, &to, &sinks)?;
        }
    }
    transaction.commit()
}

/// The change that makes of the old state of this subject the new.
fn change_of(state: &Connection, differing: &Differing) -> rusqlite::Result<Option<Change>> {
    let Differing { source, id, is_message } = differing;
    if *is_message {
        let Some((subject, message)) = find_message(state, source, id)? else { return Ok(None) };
        let data = to_json(&MessageData::new(source, &message.message, message.received_at));
        return Ok(Some(Change {
            key: last_change_key(state, subject, true)?,
            id: ChangeId::of_rebuilt(What::Message, source, id, &data),
            what: What::Message,
            source: source.as_str().into(),
            subject,
            subject_id: Some(id.clone()),
            status: None,
            precedence: None,
            received_at: message.received_at,
            data,
        }));
    }
    let Some((subject, now)) = find_notification(state, source, id)? else { return Ok(None) };
    let before: Option<Facts> = old_facts(state, source, id)?;
    let received = (now.first_received_at, now.last_received_at);
    let data = NotificationData::new(source, id, &now.facts, before.as_ref(), received);
    let data = to_json(&data);
    Ok(Some(Change {
        key: last_change_key(state, subject, false)?,
        id: ChangeId::of_rebuilt(What::Status, source, id, &data),
        what: What::Status,
        source: source.as_str().into(),
        subject,
        subject_id: Some(id.clone()),
        status: now.facts.standing.as_ref().map(|standing| standing.status.clone()),
        precedence: now.facts.standing.as_ref().map(|standing| standing.precedence),
        received_at: now.last_received_at,
        data,
    }))
}

/// Gives the new file the owner and mode of the old: a rebuild by root must not lock the receiver's
/// own user out, nor show to everybody what was for a few.
fn keep_owner(old: &Path, new: &Path) -> Result<(), OpenError> {
    use std::os::unix::fs::{MetadataExt as _, chown};
    let Ok(metadata) = std::fs::metadata(old) else { return Ok(()) };
    std::fs::set_permissions(new, metadata.permissions())
        .and_then(|()| chown(new, Some(metadata.uid()), Some(metadata.gid())))
        .map_err(|error| OpenError::Sqlite {
            path: new.to_owned(),
            error: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
        })
}

/// Makes what was renamed in the folder of `path` survive a power cut.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn remove_database(path: &Path) {
    let _ = std::fs::remove_file(path);
    remove_wal(path);
}

fn remove_wal(path: &Path) {
    for suffix in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let _ = std::fs::remove_file(PathBuf::from(name));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use super::super::files::{Files, known};
    use super::*;
    use crate::change::Filter;
    use crate::state::outbox::Outcome;

    #[test]
    fn a_rebuilt_state_is_in_the_place_and_of_the_mode_of_the_old_without_its_log() {
        let files = Files::settled(&["a", "b", "c"]);
        fs::set_permissions(&files.state, fs::Permissions::from_mode(0o604)).unwrap();
        let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", files.state.display()));
        fs::write(beside("-wal"), "the log of the old one").unwrap();
        fs::write(beside("-rebuilding"), "left behind").unwrap();
        assert_eq!(files.rebuild(), 3);
        assert!(!beside("-wal").exists() && !beside("-rebuilding").exists());
        assert_eq!(fs::metadata(&files.state).unwrap().permissions().mode() & 0o777, 0o604);
        assert_eq!(known(&files.open().connection), ["a 1 0", "b 1 0", "c 1 0"]);
    }

    #[test]
    fn a_new_state_that_is_not_whole_without_its_log_takes_nobodys_place() {
        let files = Files::settled(&["a", "b", "c"]);
        let old = fs::read(&files.state).unwrap();
        let mut held = None;
        let rebuilt = rebuild(&files.state, &files.journal, 2, &[], |_, _| {
            held.get_or_insert_with(|| {
                let reader = Connection::open(files.state.with_extension("db-rebuilding")).unwrap();
                reader.execute_batch("BEGIN; SELECT count(*) FROM notification_row").unwrap();
                reader
            });
        });
        assert!(rebuilt.is_err(), "{rebuilt:?}");
        assert_eq!(fs::read(&files.state).unwrap(), old);
        drop(held);
        assert_eq!(files.rebuild(), 3);
    }

    #[test]
    fn the_folder_that_is_synced_is_that_of_the_file_and_without_one_the_current() {
        sync_folder(Path::new("receiptd.db")).unwrap();
        assert!(sync_folder(Path::new("no-such-folder/receiptd.db")).is_err());
    }

    fn app() -> [OwedTo; 1] {
        [OwedTo {
            sink: Arc::from("app"),
            since: 0,
            filter: Filter::default(),
            is_latest_only: false,
            wants_body: false,
        }]
    }

    /// What is owed, in order: what became of whom.
    fn owed(files: &Files) -> Vec<String> {
        let state = files.open().connection;
        let rows = outbox::fresh(&state, "app", i64::MIN, 100).unwrap();
        let line = |change: &Change| {
            let id = change.subject_id.as_deref().unwrap_or("-");
            format!("{id} {}", change.status.as_deref().unwrap_or("-"))
        };
        rows.iter().map(|owed| line(&owed.change)).collect()
    }

    fn rebuild_for_app(files: &Files) {
        rebuild(&files.state, &files.journal, 2, &app(), |_, _| {}).unwrap();
    }

    #[test]
    fn a_rebuild_owes_nothing_if_nothing_is_different_and_what_is_different_if_something_is() {
        let files = Files::settled(&["a", "b", "c"]);
        rebuild_for_app(&files);
        assert_eq!(owed(&files), [""; 0]);
        // As if an earlier version had understood "b" otherwise, and "c" not at all.
        let state = files.open().connection;
        state
            .execute_batch(
                "UPDATE notification_row SET status = 'pending' WHERE id = 'b';
                 DELETE FROM history_row
                    WHERE subject = (SELECT key FROM notification_row WHERE id = 'c');
                 DELETE FROM notification_row WHERE id = 'c';",
            )
            .unwrap();
        drop(state);
        rebuild_for_app(&files);
        assert_eq!(owed(&files), ["b sent", "c sent"]);
        rebuild_for_app(&files);
        assert_eq!(owed(&files), ["b sent", "c sent"], "and what is owed stays owed, once");
    }

    #[test]
    fn what_a_replaced_change_held_up_is_let_go() {
        let files = Files::settled(&["a"]);
        let state = files.open().connection;
        state.execute("UPDATE notification_row SET status = 'pending'", []).unwrap();
        drop(state);
        rebuild_for_app(&files);
        // It failed, and what came since is held behind it.
        let state = files.open().connection;
        let rows = outbox::fresh(&state, "app", i64::MIN, 10).unwrap();
        let [first] = rows.as_slice() else { panic!("{rows:?}") };
        let (key, at) = (first.change.key, first.change.received_at);
        let mut later = Change::clone(&first.change);
        (later.key, later.id) = (key + 1, ChangeId([7; 16]));
        outbox::owe(&state, &later, &[&app()[0]], None).unwrap();
        let waits = Outcome::Waits { due_at: at.plus_seconds(600), error: "down".to_owned() };
        outbox::record(&state, "app", key, &waits, at).unwrap();
        outbox::record(&state, "app", key + 1, &Outcome::Held, at).unwrap();
        state.execute("UPDATE notification_row SET status = 'created'", []).unwrap();
        drop(state);
        rebuild_for_app(&files);
        assert_eq!(owed(&files), ["a sent"]);
        let state = files.open().connection;
        let due = outbox::due(&state, "app", at, 10).unwrap();
        assert_eq!(due.iter().map(|owed| owed.change.key).collect::<Vec<_>>(), [key + 1]);
    }

    #[test]
    fn a_rebuild_carries_over_what_is_owed_and_owes_what_was_not_settled_yet() {
        let files = Files::settled(&["a"]);
        files.append(2, &["b", "b"]);
        rebuild_for_app(&files);
        assert_eq!(owed(&files), ["b sent"], "of three callbacks one was new");
        files.append(4, &["c"]);
        rebuild_for_app(&files);
        assert_eq!(owed(&files), ["b sent", "c sent"]);
    }

    #[test]
    fn without_an_old_state_everything_since_the_sink_was_configured_is_owed() {
        let files = Files::settled(&["a", "b"]);
        fs::remove_file(&files.state).unwrap();
        let mut app = app();
        app[0].since = 1;
        rebuild(&files.state, &files.journal, 2, &app, |_, _| {}).unwrap();
        assert_eq!(owed(&files), ["b sent"]);
    }

    #[test]
    fn a_state_as_old_as_the_last_pruning_is_compared_and_an_older_one_is_not() {
        let files = Files::settled(&["a", "b"]);
        let older = files.copy_of(&files.state);
        files.prune_bodies(2);
        let state = files.open().connection;
        state.execute("UPDATE notification_row SET status = 'pending' WHERE id = 'b'", []).unwrap();
        drop(state);
        rebuild_for_app(&files);
        assert_eq!(owed(&files), ["b sent"]);
        files.append(3, &["c"]);
        files.catch_up();
        files.prune_bodies(3);
        fs::copy(older, &files.state).unwrap();
        rebuild_for_app(&files);
        assert_eq!(owed(&files), [""; 0], "there is no telling what is different");
        assert_eq!(known(&files.open().connection), ["a 1 0", "b 1 0", "c 1 0"]);
    }

    #[test]
    fn a_damaged_old_state_is_none_and_one_of_a_later_version_is_left_alone() {
        let files = Files::settled(&["a", "b"]);
        fs::write(&files.state, "not a database ".repeat(1000)).unwrap();
        rebuild_for_app(&files);
        assert_eq!(owed(&files), ["a sent", "b sent"]);
        let state = files.open().connection;
        state.pragma_update(None, "user_version", 999).unwrap();
        drop(state);
        let later = fs::read(&files.state).unwrap();
        assert!(rebuild(&files.state, &files.journal, 2, &app(), |_, _| {}).is_err());
        assert_eq!(fs::read(&files.state).unwrap(), later);
    }
}
