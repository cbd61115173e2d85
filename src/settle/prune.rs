//! Pruning: what is old is gone from the files, and no status becomes wrong by it.
//!
//! Callbacks leave the journal from its start only, and only once they are settled. What they came
//! to is settled a second time, into the tables of the state that stand in the journal file, in the
//! transaction that deletes them; so a state that is lost later is still the same after a rebuild.
//! Unless only bodies are to go, notifications and messages about which nothing arrived since are
//! removed from both files.
//!
//! A callback whose change is still owed to a sink stays, and so does all that came after it: a sink
//! is told before what it is told of is gone. What a sink was given up on, the parked changes, goes
//! with the callback that caused it: a change holds what its callback said.
//!
//! Before anything is removed, the journal notes before which time what was created is not to come back:
//! a platform that is asked still shows it. A crash, or a round of asking meanwhile, finds the note there.
//!
//! Each step is a short transaction on the one writing connection of its file ([`Hands`]), so
//! callers wait for a step at most. A crash between steps leaves something to prune the next time.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::open::have_one_past;
use crate::clock::Timestamp;
use crate::journal::reader::Reader;
use crate::journal::{count_between, forget, note_pruned_before, old_prefix};
use crate::sqlite::checkpoint::{self, Mode};
use crate::sqlite::{self, Access, OpenError};
use crate::state::expected::{self, old_expected};
use crate::state::forget::{
    Table, is_named_in, named_after, old_subjects, old_unrecognised, remove,
};
use crate::state::outbox_ask::{Touched, count_parked, discard_parked, first_not_parked};
use crate::state::tables::{self, key};

/// Rows in one transaction, at most.
const STEP_ROWS_MAX: usize = 500;

/// Bodies in one transaction, in bytes.
const STEP_BYTES_MAX: usize = 1 << 20;

/// How often a checkpoint that a reader holds up is tried.
const CHECKPOINT_TRIES: u32 = 50;

/// The pause between two tries.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(40);

/// So much may the clocks of the platforms be behind ours: they refuse who is further away than half of
/// it. What is cut by is our clock, when something arrived; what is told of it is theirs.
const CLOCKS_DIFFER_S: i64 = 60;

/// What to prune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What arrived before this.
    pub before: Timestamp,
    /// Leave the state as it is.
    pub bodies_only: bool,
    /// The time.
    pub now: Timestamp,
}

/// What was pruned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Pruned {
    /// Callbacks gone from the journal.
    pub callbacks: i64,
    /// Notifications and received messages gone from the state.
    pub subjects: i64,
    /// Changes that were parked, and are discarded with what they told of.
    #[serde(default)]
    pub parked_changes: i64,
    /// Callbacks that are old enough and stay, because a change of one of them, or of one before
    /// them, is still owed to a sink.
    #[serde(default)]
    pub held_back_by_sinks: i64,
    /// Whether the write-ahead logs could be emptied too; if not, somebody is reading.
    pub is_log_empty: bool,
}

/// Why it could not be done, or not wholly; what was done stays done.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// SQLite says why.
    #[error("failed to prune: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A file could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The state was settled from another journal, or is older than the last pruning.
    #[error("the state does not belong to the journal beside it, or is older than it")]
    NotItsState,
    /// The state was set aside meanwhile: what is to be pruned is judged by one that is no more.
    #[error("the state began anew meanwhile; prune again once it is settled")]
    BegunAnew,
    /// The receiver is stopping.
    #[error("the receiver stopped before everything was pruned")]
    Stopped,
}

/// Work on a file's writing connection; what it returns counts rows.
pub type Work = Box<dyn FnOnce(&mut Connection) -> rusqlite::Result<i64> + Send>;

/// The writing connections of both files: those of a running receiver, or ones of our own.
pub trait Hands {
    /// Runs work on the journal's.
    ///
    /// # Errors
    /// Of the work, or because the receiver stopped.
    fn on_journal(&mut self, work: Work) -> Result<i64, PruneError>;

    /// Runs work on the state's.
    ///
    /// # Errors
    /// Of the work, or because the receiver stopped.
    fn on_state(&mut self, work: Work) -> Result<i64, PruneError>;

    /// These rows of the outbox were discarded.
    fn discarded(&mut self, _: &Touched) {}
}

/// Prunes the files at `journal` and `state` through `hands`. `progress` is told how many callbacks
/// are done and how many there are to do.
///
/// # Errors
/// Of SQLite, or because the receiver stopped.
pub fn prune(
    order: Order,
    (journal, state): (&Path, &Path),
    hands: &mut dyn Hands,
    mut progress: impl FnMut(i64, i64),
) -> Result<Pruned, PruneError> {
    let mut reader = Reader::open(journal)?;
    let state_reader = sqlite::open(state, &tables::SCHEMA, Access::Read)?;
    let Reach { through, held_back_by_sinks } = reach(order.before, &reader, &state_reader)?;
    if !order.bodies_only {
        let gone = order.before.plus_seconds(CLOCKS_DIFFER_S).min(order.now);
        hands.on_journal(Box::new(move |journal| note_pruned_before(journal, gone).map(|()| 0)))?;
    }
    let mut pruned = Pruned { held_back_by_sinks, ..Pruned::default() };
    let from = reader.pruned_through()?;
    while let Some(last) = fold_step(&mut reader, through, hands)? {
        pruned.callbacks += last.1;
        progress(last.0 - from, through - from);
    }
    pruned.parked_changes = discard_all_parked(through, order.now, hands)?;
    if !order.bodies_only {
        pruned.subjects = prune_state(order.before, through, hands)?;
        prune_base(&reader, &state_reader, hands)?;
        let old = (through, order.before);
        prune_unrecognised(old, |work| hands.on_journal(work))?;
        prune_unrecognised(old, |work| hands.on_state(work))?;
    }
    drop((reader, state_reader));
    let beside = sqlite::open(journal, &crate::journal::SCHEMA, Access::Checkpoint)?;
    let is_journal_log_empty = empty_log(&beside, |work| hands.on_journal(work))?;
    let beside = sqlite::open(state, &tables::SCHEMA, Access::Checkpoint)?;
    let is_state_log_empty = empty_log(&beside, |work| hands.on_state(work))?;
    pruned.is_log_empty = is_journal_log_empty && is_state_log_empty;
    Ok(pruned)
}

/// Says what [`prune`] would do to callbacks, and to parked changes. Reads, and changes nothing; which
/// notifications and messages nothing was heard about since is not counted, for that takes the work of
/// pruning them.
///
/// # Errors
/// Of SQLite.
pub fn would_prune(before: Timestamp, journal: &Path, state: &Path) -> Result<Pruned, PruneError> {
    let reader = Reader::open(journal)?;
    let state = sqlite::open(state, &tables::SCHEMA, Access::Read)?;
    let Reach { through, held_back_by_sinks } = reach(before, &reader, &state)?;
    Ok(Pruned {
        callbacks: count_between(reader.connection(), i64::MIN, through)?,
        parked_changes: count_parked(&state, key(through + 1, 0) - 1)?,
        held_back_by_sinks,
        ..Pruned::default()
    })
}

/// How far pruning goes.
struct Reach {
    /// Callbacks up to and including this position are to go.
    through: i64,
    /// How many behind it are old enough, and stay.
    held_back_by_sinks: i64,
}

fn reach(
    before: Timestamp,
    reader: &Reader,
    state_reader: &Connection,
) -> Result<Reach, PruneError> {
    let (journal_id, settled) = tables::cursor(state_reader)?;
    // A state that is behind what was pruned lacks what only the journal's own tables still know;
    // to prune by it would delete that too.
    if journal_id != Some(reader.journal_id()?) || settled < reader.pruned_through()? {
        return Err(PruneError::NotItsState);
    }
    if !have_one_past(state_reader, reader.connection(), settled)? {
        return Err(PruneError::NotItsState);
    }
    let old = old_prefix(reader.connection(), before, settled)?;
    let owed = first_not_parked(state_reader)?;
    let through = owed.map_or(old, |key| old.min(tables::seq_of(key) - 1));
    let held_back_by_sinks = count_between(reader.connection(), through, old)?;
    Ok(Reach { through, held_back_by_sinks })
}

/// Discards the parked changes of callbacks up to `through`. How many there were.
fn discard_all_parked(
    through: i64,
    now: Timestamp,
    hands: &mut dyn Hands,
) -> Result<i64, PruneError> {
    let mut all = 0;
    loop {
        // What was discarded is told on the side, by sink.
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let rows = hands.on_state(Box::new(move |connection| {
            let transaction = sqlite::write_transaction(connection)?;
            let touched = discard_parked(&transaction, key(through + 1, 0) - 1, now)?;
            transaction.commit()?;
            let rows = touched.rows();
            let _ = tell.send(touched);
            Ok(rows)
        }))?;
        if rows == 0 {
            return Ok(all);
        }
        all += rows;
        hands.discarded(&told.recv().unwrap_or_default());
    }
}

fn prune_state(before: Timestamp, through: i64, hands: &mut dyn Hands) -> Result<i64, PruneError> {
    let end = key(through + 1, 0) - 1;
    let mut removed = 0;
    // What the app said goes first: without its notification it would be overdue.
    prune_expected(before, end, hands)?;
    for table in Table::ALL {
        let mut last = i64::MIN;
        while last < end {
            // The work says where it got to; what it removed is counted on the side.
            let (tell, told) = std::sync::mpsc::sync_channel(1);
            let from = last;
            last = hands.on_state(Box::new(move |connection| {
                let transaction = sqlite::write_transaction(connection)?;
                let window = old_subjects(
                    &transaction,
                    table,
                    (from, end),
                    (before, through),
                    STEP_ROWS_MAX,
                )?;
                transaction.commit()?;
                let _ = tell.send(window.map_or(0, |window| window.removed));
                Ok(window.map_or(end, |window| window.last_key))
            }))?;
            removed += told.recv().unwrap_or(0);
        }
    }
    Ok(removed)
}

/// Forgets what the app said it sent, so long ago, up to that key.
fn prune_expected(before: Timestamp, end: i64, hands: &mut dyn Hands) -> Result<(), PruneError> {
    let mut last = i64::MIN;
    while last < end {
        let from = last;
        last = hands.on_state(Box::new(move |connection| {
            let transaction = sqlite::write_transaction(connection)?;
            let window = old_expected(&transaction, (from, end), before, STEP_ROWS_MAX)?;
            transaction.commit()?;
            Ok(window.unwrap_or(end))
        }))?;
    }
    Ok(())
}

/// Settles the next callbacks into the journal's own tables and deletes them. The last position and
/// how many they were; `None` once there are no more.
fn fold_step(
    reader: &mut Reader,
    through: i64,
    hands: &mut dyn Hands,
) -> Result<Option<(i64, i64)>, PruneError> {
    let callbacks = reader.after(i64::MIN, through, STEP_ROWS_MAX, STEP_BYTES_MAX)?;
    let Some(last) = callbacks.last().map(|callback| callback.seq) else { return Ok(None) };
    // What a journal that was restored from an older copy has taken over from its state is settled
    // already.
    let known = reader.pruned_through()?;
    let news: Vec<_> = callbacks.into_iter().filter(|callback| callback.seq > known).collect();
    let dialects = reader.dialects()?;
    let fold: Work = Box::new(move |connection| {
        let transaction = sqlite::write_transaction(connection)?;
        super::settle(&transaction, &news, &dialects, &[])?;
        let deleted = forget(&transaction, last)?;
        transaction.commit()?;
        Ok(i64::try_from(deleted).unwrap_or(i64::MAX))
    });
    let deleted = hands.on_journal(fold)?;
    Ok(Some((last, deleted)))
}

/// Forgets the unrecognised callbacks up to `through` that arrived before `before`, of one file.
fn prune_unrecognised(
    (through, before): (i64, Timestamp),
    mut on_writer: impl FnMut(Work) -> Result<i64, PruneError>,
) -> Result<(), PruneError> {
    let mut last = i64::MIN;
    while last < through {
        let from = last;
        last = on_writer(Box::new(move |connection| {
            let transaction = sqlite::write_transaction(connection)?;
            let window = old_unrecognised(&transaction, (from, through), before, STEP_ROWS_MAX)?;
            transaction.commit()?;
            Ok(window.unwrap_or(through))
        }))?;
    }
    Ok(())
}

/// What is no longer in the state need not be kept for a rebuild of it. It is what a row is about that
/// counts: what was forgotten, kept here because the pruning broke off, and heard of since, has the key
/// of what came first here and of what came since there.
fn prune_base(
    reader: &Reader,
    state: &Connection,
    hands: &mut dyn Hands,
) -> Result<(), PruneError> {
    for (table, remove) in BASE {
        let mut last = i64::MIN;
        loop {
            let rows = named_after(reader.connection(), table, last, STEP_ROWS_MAX)?;
            let Some(end) = rows.last() else { break };
            last = end.key;
            let mut gone = Vec::new();
            for row in rows {
                if !is_named_in(state, table, &row)? {
                    gone.push(row.key);
                }
            }
            if gone.is_empty() {
                continue;
            }
            let forget: Work = Box::new(move |connection| {
                let transaction = sqlite::write_transaction(connection)?;
                gone.into_iter().try_for_each(|key| remove(&transaction, key))?;
                transaction.commit().map(|()| 0)
            });
            hands.on_journal(forget)?;
        }
    }
    Ok(())
}

/// Removes the row with that key.
type Remove = fn(&Connection, i64) -> rusqlite::Result<()>;

/// The journal's tables of what pruned callbacks came to, and how a row of each is removed.
const BASE: [(&str, Remove); 3] = [
    (Table::Notification.name(), |base, key| remove(base, Table::Notification, key)),
    (Table::Message.name(), |base, key| remove(base, Table::Message, key)),
    (expected::TABLE, expected::remove),
];

/// Moves a write-ahead log into its file and cuts it to nothing: deleted rows are overwritten in the
/// file, but older copies of their pages still stand in the log. Whether that worked.
///
/// Each try is a piece of work of its own and does not wait for readers, so that nobody waits for
/// them on the writing thread; the pause between tries is ours. Most of the log is moved on a
/// connection `beside` the writer's before, for which nobody waits.
fn empty_log(
    beside: &Connection,
    mut on_writer: impl FnMut(Work) -> Result<i64, PruneError>,
) -> Result<bool, PruneError> {
    for _ in 0..CHECKPOINT_TRIES {
        if let Err(error) = checkpoint::run_without_waiting(beside, Mode::Passive) {
            // To whoever holds the writing connection it is as if that had failed.
            return on_writer(Box::new(move |_| Err(error))).map(|_| false);
        }
        let truncate = |connection: &mut Connection| {
            checkpoint::run_without_waiting(connection, Mode::Truncate).map(i64::from)
        };
        if on_writer(Box::new(truncate))? == 1 {
            return Ok(true);
        }
        std::thread::sleep(CHECKPOINT_PAUSE);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::files::{Files, at, known};
    use super::*;
    use crate::change::{Filter, OwedTo};
    use crate::sqlite::Durability;
    use crate::state::outbox::{self, Outcome};

    /// Connections of our own, that notice pruning which does not end.
    struct OwnHands {
        journal: Connection,
        state: Connection,
        works: usize,
    }

    impl OwnHands {
        fn count(&mut self) {
            self.works += 1;
            assert!(self.works < 1000, "pruning a few callbacks does not end");
        }
    }

    impl Hands for OwnHands {
        fn on_journal(&mut self, work: Work) -> Result<i64, PruneError> {
            self.count();
            Ok(work(&mut self.journal)?)
        }

        fn on_state(&mut self, work: Work) -> Result<i64, PruneError> {
            self.count();
            Ok(work(&mut self.state)?)
        }
    }

    fn state_of(files: &Files) -> Connection {
        sqlite::open(&files.state, &tables::SCHEMA, Access::Write(Durability::Full)).unwrap()
    }

    /// Prunes what arrived before that second; the progress it told, too.
    fn prune_before(
        files: &Files,
        second: i64,
        bodies_only: bool,
    ) -> Result<(Pruned, Vec<(i64, i64)>), PruneError> {
        let mut hands =
            OwnHands { journal: files.journal_writer(), state: state_of(files), works: 0 };
        let order = Order { before: at(second), bodies_only, now: at(1000) };
        let mut told = Vec::new();
        let pruned = prune(order, (&files.journal, &files.state), &mut hands, |done, all| {
            told.push((done, all));
            assert!(told.len() < 1000, "pruning a few callbacks does not end");
        })?;
        Ok((pruned, told))
    }

    fn pruned(callbacks: i64, subjects: i64) -> Pruned {
        Pruned { callbacks, subjects, is_log_empty: true, ..Pruned::default() }
    }

    #[test]
    fn what_is_pruned_is_counted_and_told_of_what_there_is_to_prune() {
        let files = Files::settled(&["a", "b", "c", "d", "e"]);
        assert_eq!(prune_before(&files, 4, false).unwrap(), (pruned(3, 3), vec![(3, 3)]));
        assert_eq!(known(&state_of(&files)), ["d 1 0", "e 1 0"]);
        assert_eq!(prune_before(&files, 6, false).unwrap(), (pruned(2, 2), vec![(2, 2)]));
        assert_eq!(prune_before(&files, 6, false).unwrap(), (pruned(0, 0), vec![]));
        assert_eq!(known(&state_of(&files)), [""; 0]);
        assert_eq!(known(&files.journal_writer()), [""; 0]);
    }

    #[test]
    fn the_journal_notes_what_is_not_to_come_back_and_an_earlier_time_changes_nothing() {
        let files = Files::settled(&["a", "b", "c", "d", "e"]);
        let noted = || crate::journal::pruned_before(&files.journal_writer()).unwrap();
        prune_before(&files, 3, true).unwrap();
        assert_eq!(noted(), None, "of bodies alone nothing is forgotten");
        prune_before(&files, 3, false).unwrap();
        assert_eq!(noted(), Some(at(3 + CLOCKS_DIFFER_S)));
        prune_before(&files, 2, false).unwrap();
        assert_eq!(noted(), Some(at(3 + CLOCKS_DIFFER_S)));
        prune_before(&files, 2_000, false).unwrap();
        assert_eq!(noted(), Some(at(1_000)), "what is to come is not pruned yet");
    }

    #[test]
    fn what_was_heard_of_since_stays_in_both_files_and_the_rest_in_neither() {
        let files = Files::settled(&["a", "b", "a"]);
        assert_eq!(prune_before(&files, 3, false).unwrap().0, pruned(2, 1));
        assert_eq!(known(&state_of(&files)), ["a 1 1"]);
        assert_eq!(known(&files.journal_writer()), ["a 1 0"]);
        files.rebuild();
        assert_eq!(known(&state_of(&files)), ["a 1 1"]);
    }

    #[test]
    fn a_notification_stays_as_long_as_what_the_app_said_of_it_or_it_would_be_overdue() {
        let files = Files::settled(&["a", "b"]);
        let said = rusqlite::params![3, "gc", at(5).to_string(), br#"{"id": "a"}"#.as_slice()];
        let insert = "INSERT INTO callback VALUES (?1, ?2, ?3, ?4, 2)";
        files.journal_writer().execute(insert, said).unwrap();
        files.rebuild();
        assert_eq!(prune_before(&files, 4, false).unwrap().0, pruned(2, 1));
        assert_eq!(known(&state_of(&files)), ["a 1 0"]);
        files.rebuild();
        assert_eq!(known(&state_of(&files)), ["a 1 0"]);
        // Both go together.
        assert_eq!(prune_before(&files, 6, false).unwrap().0, pruned(1, 1));
        assert!(expected::is_empty(&state_of(&files)).unwrap());
    }

    /// Hands that let go once the state was pruned.
    struct Stopped(OwnHands, bool);

    impl Hands for Stopped {
        fn on_journal(&mut self, work: Work) -> Result<i64, PruneError> {
            if self.1 { Err(PruneError::Stopped) } else { self.0.on_journal(work) }
        }

        fn on_state(&mut self, work: Work) -> Result<i64, PruneError> {
            self.1 = true;
            self.0.on_state(work)
        }
    }

    #[test]
    fn what_is_heard_of_again_after_a_pruning_that_broke_off_is_not_forgotten_by_the_next() {
        let files = Files::settled(&["a", "b"]);
        let hands = OwnHands { journal: files.journal_writer(), state: state_of(&files), works: 0 };
        let order = Order { before: at(3), bodies_only: false, now: at(1000) };
        let paths = (&*files.journal, &*files.state);
        let stopped = prune(order, paths, &mut Stopped(hands, false), |_, _| {});
        assert!(matches!(stopped, Err(PruneError::Stopped)), "{stopped:?}");
        assert_eq!(known(&state_of(&files)), [""; 0]);
        assert_eq!(known(&files.journal_writer()), ["a 1 0", "b 1 0"]);
        // Both are heard of again, and of one again since what is pruned next.
        files.append(3, &["a", "b", "a"]);
        files.catch_up();
        assert_eq!(prune_before(&files, 5, false).unwrap().0, pruned(2, 1));
        assert_eq!(known(&state_of(&files)), ["a 1 1"]);
        let kept = known(&files.journal_writer());
        assert!(kept.len() == 1 && kept[0].starts_with("a "), "{kept:?}");
    }

    #[test]
    fn unrecognised_callbacks_are_forgotten_in_steps_up_to_what_is_pruned() {
        let files = Files::settled(&["a"]);
        let all = 2 * i64::try_from(STEP_ROWS_MAX).unwrap() + 7;
        let hands = OwnHands { journal: files.journal_writer(), state: state_of(&files), works: 0 };
        for file in [&hands.journal, &hands.state] {
            let row = |seq: i64| (seq, "gc", at(seq).to_string(), "why");
            let insert = "INSERT INTO unrecognised VALUES (?1, ?2, ?3, ?4)";
            file.execute_batch("BEGIN").unwrap();
            (1..=all + 3).for_each(|seq| _ = file.execute(insert, row(seq)).unwrap());
            file.execute_batch("COMMIT").unwrap();
        }
        let mut hands = Counting(hands);
        prune_unrecognised((all, at(all + 2)), |work| hands.on_journal(work)).unwrap();
        prune_unrecognised((all + 2, at(all + 2)), |work| hands.on_state(work)).unwrap();
        let left = |file: &Connection| -> Vec<i64> {
            let mut rows = file.prepare("SELECT seq FROM unrecognised ORDER BY seq").unwrap();
            rows.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(left(&hands.0.journal), [all + 1, all + 2, all + 3], "behind what is pruned");
        assert_eq!(left(&hands.0.state), [all + 2, all + 3], "it arrived too late");
    }

    /// Hands that look how many rows each step changes.
    struct Counting(OwnHands);

    impl Counting {
        fn changes(file: &Connection) -> u64 {
            file.total_changes()
        }
    }

    impl Hands for Counting {
        fn on_journal(&mut self, work: Work) -> Result<i64, PruneError> {
            let before = Self::changes(&self.0.journal);
            let done = self.0.on_journal(work)?;
            let rows = Self::changes(&self.0.journal) - before;
            assert!(rows <= STEP_ROWS_MAX as u64, "{rows} in one step");
            Ok(done)
        }

        fn on_state(&mut self, work: Work) -> Result<i64, PruneError> {
            let before = Self::changes(&self.0.state);
            let done = self.0.on_state(work)?;
            let rows = Self::changes(&self.0.state) - before;
            assert!(rows <= STEP_ROWS_MAX as u64, "{rows} in one step");
            Ok(done)
        }
    }

    /// Hands that look after each step whether anything said stands without its notification.
    struct Watching(OwnHands);

    impl Hands for Watching {
        fn on_journal(&mut self, work: Work) -> Result<i64, PruneError> {
            self.0.on_journal(work)
        }

        fn on_state(&mut self, work: Work) -> Result<i64, PruneError> {
            let done = self.0.on_state(work)?;
            let alone = "SELECT count(*) FROM expected_row AS e WHERE NOT EXISTS (
                SELECT 1 FROM notification_row AS n WHERE n.id = e.id AND n.source = e.source)";
            let alone: i64 = self.0.state.query_row(alone, [], |row| row.get(0))?;
            assert_eq!(alone, 0, "it would be overdue");
            Ok(done)
        }
    }

    #[test]
    fn between_the_steps_nothing_that_was_said_stands_without_its_notification() {
        let ids: Vec<String> = (0..STEP_ROWS_MAX + 9).map(|n| format!("n{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let files = Files::settled(&ids);
        let first = i64::try_from(ids.len()).unwrap() + 1;
        let writer = files.journal_writer();
        for (seq, id) in (first..).zip(&ids) {
            let said = format!(r#"{{"id": "{id}"}}"#);
            let row = rusqlite::params![seq, "gc", at(seq).to_string(), said.as_bytes()];
            writer.execute("INSERT INTO callback VALUES (?1, ?2, ?3, ?4, 2)", row).unwrap();
        }
        drop(writer);
        files.rebuild();
        let hands = OwnHands { journal: files.journal_writer(), state: state_of(&files), works: 0 };
        let order = Order { before: at(2 * first), bodies_only: false, now: at(2 * first) };
        let paths = (&*files.journal, &*files.state);
        let done = prune(order, paths, &mut Watching(hands), |_, _| {}).unwrap();
        assert_eq!(done, pruned(2 * (first - 1), first - 1));
        assert!(expected::is_empty(&state_of(&files)).unwrap());
    }

    #[test]
    fn a_state_of_another_journal_or_older_than_the_last_pruning_is_not_pruned_by() {
        let (files, other) = (Files::settled(&["a", "b"]), Files::settled(&["x", "y"]));
        let older = files.copy_of(&files.state);
        files.append(3, &["c"]);
        files.rebuild();
        assert_eq!(prune_before(&files, 4, true).unwrap().0, pruned(3, 0));
        for state in [&older, &other.state] {
            fs::copy(state, &files.state).unwrap();
            let refused = prune_before(&files, 100, false);
            assert!(matches!(refused, Err(PruneError::NotItsState)), "{refused:?}");
        }
        assert_eq!(known(&files.journal_writer()), ["a 1 0", "b 1 0", "c 1 0"]);
    }

    #[test]
    fn by_a_state_of_another_copy_of_the_journal_nothing_is_pruned() {
        let files = Files::settled(&["a", "b"]);
        let other = "UPDATE callback SET received_at = ?1 WHERE seq = 2";
        files.journal_writer().execute(other, [at(1).to_string()]).unwrap();
        let refused = prune_before(&files, 100, false);
        assert!(matches!(refused, Err(PruneError::NotItsState)), "{refused:?}");
    }

    #[test]
    fn callbacks_that_a_restored_journal_took_over_from_its_state_are_not_settled_again() {
        let files = Files::settled(&["a", "b"]);
        let older = files.copy_of(&files.journal);
        files.append(3, &["c"]);
        files.rebuild();
        fs::copy(older, &files.journal).unwrap();
        drop(files.open());
        assert_eq!(prune_before(&files, 100, true).unwrap().0, pruned(2, 0));
        assert_eq!(known(&files.journal_writer()), ["a 1 0", "b 1 0", "c 1 0"]);
    }

    #[test]
    fn more_than_a_step_holds_is_pruned_whole_from_both_files() {
        let ids: Vec<String> = (0..STEP_ROWS_MAX + 100).map(|n| format!("n{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let files = Files::settled(&ids);
        let all = i64::try_from(ids.len()).unwrap();
        let (done, told) = prune_before(&files, all + 1, false).unwrap();
        assert_eq!(done, pruned(all, all));
        assert!(told.len() > 1 && told.last() == Some(&(all, all)), "{told:?}");
        assert_eq!(known(&state_of(&files)), [""; 0]);
        assert_eq!(known(&files.journal_writer()), [""; 0]);
    }

    #[test]
    fn a_log_that_one_reader_holds_is_not_said_to_be_empty() {
        let files = Files::settled(&["a"]);
        let reader = Connection::open(&files.state).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM notification_row").unwrap();
        let (held, _) = prune_before(&files, 2, false).unwrap();
        assert_eq!(held, Pruned { is_log_empty: false, ..pruned(1, 1) });
        drop(reader);
        assert_eq!(prune_before(&files, 2, false).unwrap().0, pruned(0, 0));
    }

    /// What the callbacks of these files say is owed to a sink, and the callbacks at these positions
    /// were given up.
    fn owe(files: &Files, parked: &[i64]) {
        let to = OwedTo {
            sink: "app".into(),
            since: 0,
            filter: Filter::default(),
            is_latest_only: false,
            wants_body: true,
        };
        let mut state = state_of(files);
        let mut reader = Reader::open(&files.journal).unwrap();
        let callbacks = reader.after(0, i64::MAX, 100, usize::MAX).unwrap();
        let dialects = reader.dialects().unwrap();
        let transaction = state.transaction().unwrap();
        transaction.execute_batch("DELETE FROM notification_row; DELETE FROM history_row").unwrap();
        super::super::settle(&transaction, &callbacks, &dialects, &[to]).unwrap();
        for seq in parked {
            let outcome = Outcome::Parked { error: "answered 404".to_owned() };
            outbox::record(&transaction, "app", key(*seq, 0), &outcome, at(0)).unwrap();
        }
        transaction.commit().unwrap();
    }

    fn owed(files: &Files) -> Vec<i64> {
        let state = state_of(files);
        let mut keys = state.prepare("SELECT key FROM change_row ORDER BY key").unwrap();
        let keys = keys.query_map([], |row| row.get(0).map(tables::seq_of)).unwrap();
        keys.map(Result::unwrap).collect()
    }

    #[test]
    fn what_would_be_pruned_is_what_is_pruned() {
        for (second, callbacks, parked_changes, held_back_by_sinks) in [(3, 2, 2, 0), (5, 3, 3, 1)]
        {
            let files = Files::settled(&["a", "b", "c", "d"]);
            owe(&files, &[1, 2, 3]);
            let would = would_prune(at(second), &files.journal, &files.state).unwrap();
            let counts = Pruned { parked_changes, held_back_by_sinks, ..pruned(callbacks, 0) };
            assert_eq!(would, Pruned { is_log_empty: false, ..counts });
            assert_eq!(prune_before(&files, second, true).unwrap().0, counts);
        }
    }

    #[test]
    fn pruning_stops_before_what_is_owed_and_discards_what_was_given_up() {
        for bodies_only in [false, true] {
            let files = Files::settled(&["a", "b", "c", "d"]);
            owe(&files, &[1, 2, 4]);
            let first = Pruned {
                parked_changes: 2,
                held_back_by_sinks: 2,
                ..pruned(2, if bodies_only { 0 } else { 2 })
            };
            assert_eq!(prune_before(&files, 5, bodies_only).unwrap().0, first);
            assert_eq!(owed(&files), [3, 4]);
            let state = state_of(&files);
            outbox::record(&state, "app", key(3, 0), &Outcome::Delivered, at(0)).unwrap();
            drop(state);
            let rest = Pruned { parked_changes: 1, ..pruned(2, if bodies_only { 0 } else { 2 }) };
            assert_eq!(prune_before(&files, 5, bodies_only).unwrap().0, rest);
            assert_eq!(owed(&files), [0; 0]);
        }
    }
}
