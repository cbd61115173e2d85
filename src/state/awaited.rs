//! Which of what the app said it sent may still be open: what looking for it costs goes by that, not by
//! all that was ever said.
//!
//! A row stands here from the moment that it is said, and until whoever looks sees that its notification
//! has come to an end and has it left out ([`leave_out`]). Promises: whatever has no end stands here. So an
//! end that is taken back, and a notification that is removed, put it here again; the tables see to that by
//! triggers, whoever changes them. What stands here and has an end costs a look-up, and no more: every
//! question asks for the end itself.
//!
//! Which statuses are ends is an argument. What was left out by other words than today's is put back first
//! ([`begin`]).

use rusqlite::{Connection, OptionalExtension as _, params};

use super::write::some_time;
use crate::clock::Timestamp;
use crate::ends::Ends;

/// The table, in the state only: a new state has it from what it is given of `expected_row`.
///
/// No trigger is needed where a notification is heard of for the first time: that is when most are, and
/// nothing is left out of which nothing was heard. Nor for `returned_at`: a letter that came back never
/// becomes one that did not. No trigger says OR IGNORE: what is said is written by an upsert, whose way with
/// conflicts would take the place of it.
macro_rules! awaited_table {
    () => {
        "CREATE TABLE awaited_row (key INTEGER PRIMARY KEY) STRICT;
        CREATE TABLE awaited_ends (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            words TEXT NOT NULL
        ) STRICT;
        INSERT INTO awaited_row SELECT key FROM expected_row;
        CREATE TRIGGER awaited_once_said AFTER INSERT ON expected_row BEGIN
            INSERT INTO awaited_row SELECT new.key
            WHERE NOT EXISTS (SELECT 1 FROM awaited_row WHERE key = new.key);
        END;
        CREATE TRIGGER awaited_no_more AFTER DELETE ON expected_row BEGIN
            DELETE FROM awaited_row WHERE key = old.key;
        END;
        CREATE TRIGGER awaited_again AFTER UPDATE OF status, notification_type ON notification_row
        WHEN (old.status, old.notification_type) IS NOT (new.status, new.notification_type) BEGIN
            INSERT INTO awaited_row
            SELECT key FROM expected_row AS e WHERE id = new.id AND source = new.source
                AND NOT EXISTS (SELECT 1 FROM awaited_row AS a WHERE a.key = e.key);
        END;
        CREATE TRIGGER awaited_unheard_of AFTER DELETE ON notification_row BEGIN
            INSERT INTO awaited_row
            SELECT key FROM expected_row AS e WHERE id = old.id AND source = old.source
                AND NOT EXISTS (SELECT 1 FROM awaited_row AS a WHERE a.key = e.key);
        END;"
    };
}
pub(crate) use awaited_table;

/// From where a question begins: `a` is what may be open, `e` what was said, `n` what was heard, if
/// anything was. In that order, whatever SQLite believes of their sizes.
macro_rules! from_awaited {
    () => {
        " FROM awaited_row AS a CROSS JOIN expected_row AS e ON e.key = a.key
          LEFT JOIN notification_row AS n ON n.id = e.id AND n.source = e.source "
    };
}
pub(super) use from_awaited;

/// Whether what is known of `n` is no end, by the parameter that holds the ends ([`Ends::to_json`]). A letter
/// that came back has its end, whatever status was told of it.
macro_rules! has_no_end {
    ($ends:literal) => {
        concat!(
            "(n.returned_at IS NULL
                AND (n.status IS NULL OR n.status NOT IN (SELECT value FROM json_each(",
            $ends,
            ")) AND json_array(n.status, n.notification_type, n.source)
                NOT IN (SELECT value FROM json_each(",
            $ends,
            "))))"
        )
    };
}
pub(super) use has_no_end;

/// How many of them one question looks at: however many are awaited, none takes long.
pub const WINDOW_ROWS_MAX: usize = 1_000;

/// What was found of one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Looked {
    /// Its place.
    pub key: i64,
    /// The source it was sent through.
    pub source: String,
    /// When the app said that it was sent.
    pub since: Timestamp,
    /// What type of message it is, if anything was heard of it that says so.
    pub notification_type: Option<String>,
    /// It has come to an end: it can be left out.
    pub has_ended: bool,
    /// It should have come to an end and has not.
    pub is_overdue: bool,
}

/// Which of them to look at.
#[derive(Clone, Copy, Debug)]
pub struct Look<'q> {
    /// What is an end.
    pub ends: &'q Ends,
    /// Overdue is whose deadline was before this,
    pub now: Timestamp,
    /// and, without a deadline, what was said before this.
    pub said_before: Timestamp,
    /// Behind this key.
    pub behind: i64,
    /// At most so many.
    pub rows_max: usize,
}

const LOOK: &str = concat!(
    "SELECT e.key, e.source, NOT ",
    has_no_end!("?1"),
    ", coalesce(e.deadline < ?2, e.since < ?3), e.since, n.notification_type",
    from_awaited!(),
    "WHERE a.key > ?4 ORDER BY a.key LIMIT ?5"
);

/// What is known of those that may be open, in the order in which the app said it.
///
/// # Errors
/// Of SQLite.
pub fn look(connection: &Connection, look: &Look<'_>) -> rusqlite::Result<Vec<Looked>> {
    let Look { ends, now, said_before, behind, rows_max } = look;
    let rows_max = i64::try_from(*rows_max).unwrap_or(i64::MAX);
    connection
        .prepare_cached(LOOK)?
        .query_map(
            params![ends.to_json(), now.to_string(), said_before.to_string(), behind, rows_max],
            |row| {
                let (has_ended, is_late): (bool, bool) = (row.get(2)?, row.get(3)?);
                let (key, source, since) = (row.get(0)?, row.get(1)?, some_time(row, 4)?);
                let (is_overdue, notification_type) = (is_late && !has_ended, row.get(5)?);
                Ok(Looked { key, source, since, notification_type, has_ended, is_overdue })
            },
        )?
        .collect()
}

const WINDOW_END: &str =
    "SELECT key FROM awaited_row WHERE key > ?1 ORDER BY key LIMIT 1 OFFSET ?2";

/// The last key of the window behind that one; `None` if those behind it are fewer.
pub(super) fn window_end(connection: &Connection, behind: i64) -> rusqlite::Result<Option<i64>> {
    let offset = i64::try_from(WINDOW_ROWS_MAX - 1).unwrap_or(i64::MAX);
    connection.prepare_cached(WINDOW_END)?.query_row([behind, offset], |row| row.get(0)).optional()
}

/// How many one transaction puts back.
const PUT_BACK_ROWS_MAX: usize = 5_000;

/// Makes sure that what stands here fits these ends: if others were in force when something was left out,
/// all of it is put back, as many behind that key as one transaction takes; behind which key to go on,
/// `None` once it is done. On the connection that writes, which has other work in between. The words are
/// noted with the last, so whoever ends before that begins again; nothing is to be left out until then.
///
/// # Errors
/// Of SQLite.
pub fn begin(
    connection: &mut Connection,
    ends: &Ends,
    behind: i64,
) -> rusqlite::Result<Option<i64>> {
    let words = ends.to_json();
    let is_known = connection
        .prepare_cached("SELECT 1 FROM awaited_ends WHERE words = ?1")?
        .exists([&words])?;
    if is_known {
        return Ok(None);
    }
    let transaction = crate::sqlite::write_transaction(connection)?;
    let keys = super::expected::keys_after(&transaction, behind, PUT_BACK_ROWS_MAX)?;
    let last = keys.last().copied();
    transaction.execute(
        "INSERT OR IGNORE INTO awaited_row SELECT key FROM expected_row WHERE key > ?1 AND key <= ?2",
        [behind, last.unwrap_or(behind)],
    )?;
    let next = last.filter(|_| keys.len() >= PUT_BACK_ROWS_MAX);
    if next.is_none() {
        transaction.execute("INSERT OR REPLACE INTO awaited_ends VALUES (1, ?1)", [words])?;
    }
    transaction.commit()?;
    Ok(next)
}

/// Leaves out those of these that have come to an end: that is asked again, because the end may have been
/// taken back since it was seen. On the connection that writes. How many it were.
///
/// # Errors
/// Of SQLite.
pub fn leave_out(
    connection: &mut Connection,
    ends: &Ends,
    keys: &[i64],
) -> rusqlite::Result<usize> {
    let transaction = crate::sqlite::write_transaction(connection)?;
    let words = ends.to_json();
    let mut left_out = 0;
    {
        let mut leave = transaction.prepare_cached(concat!(
            "DELETE FROM awaited_row WHERE key = ?1 AND EXISTS (
                SELECT 1 FROM expected_row AS e
                JOIN notification_row AS n ON n.id = e.id AND n.source = e.source
                WHERE e.key = ?1 AND NOT ",
            has_no_end!("?2"),
            ")"
        ))?;
        for key in keys {
            left_out += leave.execute(params![key, words])?;
        }
    }
    transaction.commit()?;
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, LazyLock};

    use super::super::expected::{OVERDUE, Question, overdue, overdue_in_window, remove};
    use super::super::plan;
    use super::*;
    use crate::ends::Statuses;
    use crate::state::forget::{self, Table};
    use crate::state::tables::SCHEMA;

    const STATUSES: Statuses =
        Statuses { always: &["delivered", "a-failure"], sometimes: &[("sent", "sms")] };
    const FEWER: Statuses = Statuses { always: &["a-failure"], sometimes: &[("sent", "sms")] };

    static ENDS: LazyLock<Ends> =
        LazyLock::new(|| Ends::new(&STATUSES, [("gc".to_owned(), ())], |(), _| true));

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(0).plus_seconds(second)
    }

    /// So many of each were said to have been sent: `ended` that were delivered, `open` that are sending,
    /// all of them long overdue.
    fn state(ended: i64, open: i64) -> Connection {
        let state = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)";
        let said = "INSERT INTO expected_row SELECT
            i, 'gc', 'id-' || i, NULL, ?2, ?3, i, ?3, NULL FROM n";
        let heard = "INSERT INTO notification_row (key, id, source, status, receipts, duplicates,
            first_received_at, last_received_at)
            SELECT i, 'id-' || i, 'gc', iif(i <= ?2, 'delivered', 'sending'), 1, 0, ?3, ?3 FROM n";
        let (deadline, since) = (at(10).to_string(), at(1).to_string());
        state.execute(&format!("{rows} {said}"), params![ended + open, deadline, since]).unwrap();
        state.execute(&format!("{rows} {heard}"), params![ended + open, ended, since]).unwrap();
        state
    }

    fn look_at(state: &Connection) -> Vec<Looked> {
        let all = Look {
            ends: &ENDS,
            now: at(1_000),
            said_before: at(0),
            behind: i64::MIN,
            rows_max: 1_000_000,
        };
        look(state, &all).unwrap()
    }

    /// In how many steps everything is put back.
    fn begin_all(state: &mut Connection, ends: &Ends) -> usize {
        let (mut behind, mut steps) = (i64::MIN, 1);
        while let Some(next) = begin(state, ends, behind).unwrap() {
            (behind, steps) = (next, steps + 1);
        }
        steps
    }

    /// Leaves out what has ended, as the lookout does. The keys that stay.
    fn sweep(state: &mut Connection) -> Vec<i64> {
        begin_all(state, &ENDS);
        let ended: Vec<i64> =
            look_at(state).iter().filter(|row| row.has_ended).map(|row| row.key).collect();
        leave_out(state, &ENDS, &ended).unwrap();
        awaited(state)
    }

    fn awaited(state: &Connection) -> Vec<i64> {
        let mut all = state.prepare("SELECT key FROM awaited_row ORDER BY key").unwrap();
        all.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    fn question() -> Question<'static> {
        Question {
            source: None,
            ends: &ENDS,
            now: at(1_000),
            said_before: at(0),
            said_since: None,
            behind: i64::MIN,
            rows_max: 10_000,
            is_new: true,
        }
    }

    #[test]
    fn every_question_begins_with_what_may_be_open_and_scans_nothing_else() {
        let state = state(1, 1);
        for sql in [LOOK, OVERDUE] {
            let plan = plan(&state, sql);
            let steps: Vec<&str> = plan.lines().collect();
            let first = steps.iter().find(|step| step.starts_with("S")).unwrap();
            assert!(first.contains(" a ") || first.ends_with(" a"), "{plan}");
            for step in &steps {
                let is_scan = step.starts_with("SCAN");
                assert!(!is_scan || *step == "SCAN a" || step.contains("json_each"), "{plan}");
                assert!(!step.contains("TEMP B-TREE"), "{plan}");
            }
        }
    }

    /// Hundreds of SQLite's steps that this takes.
    fn work(state: &mut Connection, ask: impl FnOnce(&Connection)) -> u64 {
        let steps = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&steps);
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            false
        };
        state.progress_handler(100, Some(count)).unwrap();
        ask(state);
        state.progress_handler(100, None::<fn() -> bool>).unwrap();
        steps.load(Ordering::Relaxed)
    }

    #[test]
    fn of_a_hundred_thousand_that_ended_and_ten_that_did_not_ten_are_looked_at() {
        let mut state = state(100_000, 10);
        let count = |state: &Connection| {
            assert_eq!(look_at(state).iter().filter(|row| row.is_overdue).count(), 10);
        };
        let find = |state: &Connection| assert_eq!(overdue(state, &question()).unwrap().len(), 10);
        let before = [work(&mut state, count), work(&mut state, find)];
        assert!(before.iter().all(|hundreds| *hundreds > 1_000), "{before:?}");
        assert_eq!(sweep(&mut state).len(), 10);
        let after = [work(&mut state, count), work(&mut state, find)];
        assert!(after.iter().all(|hundreds| *hundreds < 30), "{after:?}");
    }

    #[test]
    fn however_many_are_open_and_told_of_no_question_looks_at_more_than_a_window() {
        let mut state = state(0, 20_000);
        let of_all_but_the_last = "UPDATE expected_row SET overdue_at = since WHERE key < 20000";
        state.execute(of_all_but_the_last, []).unwrap();
        let (mut asked, mut found, mut longest) = (question(), Vec::new(), 0);
        loop {
            let mut next = None;
            let hundreds = work(&mut state, |state| {
                let (rows, end) = overdue_in_window(state, &asked).unwrap();
                found.extend(rows.iter().map(|row| row.key));
                next = end;
            });
            longest = longest.max(hundreds);
            let Some(end) = next else { break };
            asked.behind = end;
        }
        assert_eq!(found, [20_000]);
        assert!(longest < 500, "{longest} hundred steps for a window");
        assert_eq!(overdue(&state, &question()).unwrap()[0].key, 20_000);
        let few = Question { rows_max: 3, is_new: false, ..question() };
        let (rows, next) = overdue_in_window(&state, &few).unwrap();
        assert_eq!((rows.len(), next), (3, Some(3)), "behind the last that there was room for");
    }

    #[test]
    fn an_end_that_is_taken_back_is_awaited_again() {
        let mut state = state(3, 1);
        assert_eq!(sweep(&mut state), [4]);
        // As settling writes it.
        let told = "INSERT INTO notification_row (key, id, source, status, receipts, duplicates,
                first_received_at, last_received_at)
            SELECT key, id, source, ?2, receipts, duplicates, first_received_at, last_received_at
            FROM notification_row WHERE id = ?1
            ON CONFLICT (key) DO UPDATE SET status = excluded.status";
        state.execute(told, ["id-2", "sending"]).unwrap();
        let open: Vec<i64> =
            overdue(&state, &question()).unwrap().iter().map(|row| row.key).collect();
        assert_eq!(open, [2, 4]);
        // From one end to another, and the same once more: left out again, and stays so.
        state.execute(told, ["id-2", "a-failure"]).unwrap();
        assert_eq!(sweep(&mut state), [4]);
        state.execute(told, ["id-2", "a-failure"]).unwrap();
        assert_eq!(awaited(&state), [4]);
        // One that is awaited already.
        state.execute(told, ["id-4", "pending"]).unwrap();
        assert_eq!(awaited(&state), [4]);
    }

    #[test]
    fn a_letter_that_came_back_has_its_end_whatever_was_told_of_it() {
        let mut state = state(1, 3);
        let came_back = "UPDATE notification_row SET returned_at = first_received_at, status = ?2
            WHERE key = ?1";
        state.execute(came_back, params![2, None::<&str>]).unwrap();
        state.execute(came_back, params![3, "pending"]).unwrap();
        let late = |state: &Connection| {
            let looked = look_at(state).into_iter().filter(|row| row.is_overdue);
            looked.map(|row| row.key).collect::<Vec<_>>()
        };
        let asked = overdue(&state, &question()).unwrap();
        assert_eq!(asked.iter().map(|row| row.key).collect::<Vec<_>>(), [4]);
        assert_eq!(late(&state), [4]);
        assert_eq!(sweep(&mut state), [4]);
        // What is told of it later puts it back, to be looked at once more.
        state.execute("UPDATE notification_row SET status = 'sending' WHERE key = 3", []).unwrap();
        assert_eq!((awaited(&state), late(&state)), (vec![3, 4], vec![4]));
        assert_eq!(sweep(&mut state), [4]);
    }

    #[test]
    fn what_is_heard_of_no_more_is_awaited_again_and_what_is_said_no_more_is_not() {
        let mut state = state(3, 0);
        assert_eq!(sweep(&mut state), [0; 0]);
        forget::remove(&state, Table::Notification, 2).unwrap();
        assert_eq!(awaited(&state), [2]);
        assert!(look_at(&state)[0].is_overdue);
        remove(&state, 2).unwrap();
        assert_eq!(awaited(&state), [0; 0]);
    }

    #[test]
    fn an_end_that_was_taken_back_since_it_was_seen_is_not_left_out() {
        let mut state = state(2, 0);
        state.execute("UPDATE notification_row SET status = 'sending' WHERE key = 2", []).unwrap();
        assert_eq!(leave_out(&mut state, &ENDS, &[1, 2]).unwrap(), 1);
        assert_eq!(awaited(&state), [2]);
    }

    #[test]
    fn what_was_left_out_by_other_words_is_put_back() {
        let mut state = state(2, 1);
        assert_eq!(sweep(&mut state), [3]);
        begin_all(&mut state, &ENDS);
        assert_eq!(awaited(&state), [3], "the same words");
        let fewer = Ends::new(&FEWER, [], |(), _| true);
        begin_all(&mut state, &fewer);
        assert_eq!(awaited(&state), [1, 2, 3]);
    }

    #[test]
    fn what_is_put_back_is_put_back_in_steps_and_one_that_ends_early_begins_again() {
        let all = PUT_BACK_ROWS_MAX * 2 + 1;
        let mut state = state(i64::try_from(all).unwrap(), 0);
        assert_eq!(sweep(&mut state), [0; 0]);
        let fewer = Ends::new(&FEWER, [], |(), _| true);
        let next = begin(&mut state, &fewer, i64::MIN).unwrap();
        assert_eq!(awaited(&state).len(), PUT_BACK_ROWS_MAX);
        assert_eq!(next, awaited(&state).last().copied());
        // It ended here; the next to begin knows nothing of it.
        assert_eq!(begin_all(&mut state, &fewer), 3);
        assert_eq!(awaited(&state).len(), all);
        assert_eq!(begin_all(&mut state, &fewer), 1, "it is noted");
    }

    #[test]
    fn a_state_that_is_begun_anew_or_was_there_before_awaits_all_that_was_said() {
        let mut old = state(2, 1);
        assert_eq!(sweep(&mut old), [3]);
        let new = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        new.execute("ATTACH DATABASE ':memory:' AS journal", []).unwrap();
        for table in ["notification_row", "message_row", "history_row", "message_history_row"] {
            let copy = format!("CREATE TABLE journal.{table} AS SELECT * FROM main.{table}");
            new.execute(&copy, []).unwrap();
        }
        new.execute_batch(
            "CREATE TABLE journal.unrecognised AS SELECT * FROM main.unrecognised;
             CREATE TABLE journal.expected_row AS SELECT * FROM main.expected_row;
             INSERT INTO journal.expected_row VALUES (7, 'gc', 'a', NULL, NULL, '', 7, '', NULL);",
        )
        .unwrap();
        super::super::write::carry_over(&new, "journal", "main").unwrap();
        assert_eq!(awaited(&new), [7]);
        // The step that makes the table finds what an earlier version kept.
        old.execute_batch(
            "DROP TABLE awaited_row; DROP TABLE awaited_ends; DROP TRIGGER awaited_once_said;
             DROP TRIGGER awaited_no_more; DROP TRIGGER awaited_again;
             DROP TRIGGER awaited_unheard_of;",
        )
        .unwrap();
        old.execute_batch(awaited_table!()).unwrap();
        assert_eq!(awaited(&old), [1, 2, 3]);
    }
}
