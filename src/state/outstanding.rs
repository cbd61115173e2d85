//! Notifications that have not come to an end, by source. Which statuses are ends is an argument.
//!
//! They are few among many, so they have an index of their own that holds no others. A receipt that is
//! an end at once, as most are, does not touch it. It is made only where somebody asks for them
//! regularly, on the connection that writes; without it the answer is the same and takes a scan.
//!
//! Some statuses are an end in one source and none in another. The index holds these too, each under a
//! number of its own behind the source, so that where one is an end none of them is read.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::awaited::WINDOW_ROWS_MAX;
use super::write::{some_time, time};
use crate::clock::Timestamp;
use crate::ends::{Ends, Statuses};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// Its key, which grows with the time at which it was first heard of.
    pub key: i64,
    /// The platform's id.
    pub id: String,
    /// When it was created at the platform, if that is known.
    pub created_at: Option<Timestamp>,
    /// When we first heard of it.
    pub first_received_at: Timestamp,
}

const INDEX: &str = "notification_open";

/// The index of earlier versions, which left out what is no end everywhere.
const FORMER: &str = "notification_outstanding";

/// Makes the index, unless it is there; whether it was made. One of other words is replaced.
///
/// # Errors
/// Of SQLite.
pub fn make_index(connection: &Connection, statuses: &Statuses) -> rusqlite::Result<bool> {
    let wanted = format!(
        "CREATE INDEX {INDEX} ON notification_row (source, {}) WHERE {}",
        number(statuses),
        may_be_open(statuses)
    );
    let found: Option<String> = connection
        .query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [INDEX], |row| row.get(0))
        .optional()?;
    if found.as_ref() == Some(&wanted) && !is_there(connection, FORMER)? {
        return Ok(false);
    }
    connection.execute_batch(&format!(
        "DROP INDEX IF EXISTS {FORMER}; DROP INDEX IF EXISTS {INDEX}; {wanted}"
    ))?;
    Ok(true)
}

/// Whether the index is there, or one that it replaces.
///
/// # Errors
/// Of SQLite.
pub fn has_index(connection: &Connection) -> rusqlite::Result<bool> {
    Ok(is_there(connection, INDEX)? || is_there(connection, FORMER)?)
}

fn is_there(connection: &Connection, index: &str) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE name = ?1 AND type = 'index'")?
        .exists([index])
}

/// What to count of those of a source.
#[derive(Clone, Copy, Debug)]
pub struct Counting<'q> {
    /// The source.
    pub source: &'q str,
    /// What is an end.
    pub ends: &'q Ends,
    /// Stuck is what was created, or first heard of, before this.
    pub stuck_before: Timestamp,
    /// Whether any was first heard of after the one and before the other,
    pub heard: (Timestamp, Timestamp),
    /// and is not of this type.
    pub heard_but_of: Option<&'q str>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// How many are stuck.
    pub stuck: i64,
    /// Whether any was first heard of between the two times.
    pub is_any_heard: bool,
}

/// How far the counting has got: under which of the source's numbers, and behind which key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    number: usize,
    key: i64,
}

impl Place {
    /// Before the first.
    pub const FIRST: Self = Self { number: 0, key: i64::MIN };
}

/// Adds what the window of at most [`WINDOW_ROWS_MAX`] behind `place` holds, and says where the next one
/// begins; `None` behind the last.
///
/// # Errors
/// Of SQLite.
pub fn count_in_window(
    connection: &Connection,
    counting: &Counting<'_>,
    place: Place,
    counted: &mut Counted,
) -> rusqlite::Result<Option<Place>> {
    let Counting { source, ends, stuck_before, heard: (since, before), heard_but_of } = counting;
    let Some(number) = numbers(ends, source).nth(place.number) else { return Ok(None) };
    let rows_max = i64::try_from(WINDOW_ROWS_MAX).unwrap_or(i64::MAX);
    let [stuck_before, since, before] = [stuck_before, since, before].map(ToString::to_string);
    let (rows, last, stuck, is_any_heard): (i64, Option<i64>, i64, bool) =
        connection.prepare_cached(&count(ends.statuses))?.query_row(
            params![source, number, place.key, stuck_before, since, before, rows_max, heard_but_of],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )?;
    counted.stuck += stuck;
    counted.is_any_heard |= is_any_heard;
    Ok(Some(match last.filter(|_| rows >= rows_max) {
        Some(key) => Place { key, ..place },
        None => Place { number: place.number + 1, ..Place::FIRST },
    }))
}

/// Those of `source` behind `key`, in the order of their keys, first heard of at or after `since`; at
/// most `rows_max`.
///
/// # Errors
/// Of SQLite.
pub fn outstanding(
    connection: &Connection,
    source: &str,
    ends: &Ends,
    (since, key): (Timestamp, i64),
    rows_max: usize,
) -> rusqlite::Result<Vec<Outstanding>> {
    let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(&select(ends.statuses))?;
    let mut all = Vec::new();
    for number in numbers(ends, source) {
        let rows =
            statement.query_map(params![source, number, key, since.to_string(), limit], |row| {
                Ok(Outstanding {
                    key: row.get(0)?,
                    id: row.get(1)?,
                    created_at: time(row, 2)?,
                    first_received_at: some_time(row, 3)?,
                })
            })?;
        for row in rows {
            all.push(row?);
        }
    }
    // Each number has told its first, so the first of all are right.
    all.sort_unstable_by_key(|row| row.key);
    all.truncate(rows_max);
    Ok(all)
}

fn select(statuses: &Statuses) -> String {
    format!(
        "SELECT key, id, created_at, first_received_at FROM notification_row
         WHERE source = ?1 AND {} = ?2 AND {} AND key > ?3 AND first_received_at >= ?4
         ORDER BY key LIMIT ?5",
        number(statuses),
        may_be_open(statuses)
    )
}

fn count(statuses: &Statuses) -> String {
    format!(
        "SELECT count(*), max(key), coalesce(sum(is_stuck), 0), coalesce(max(is_heard), 0) FROM (
            SELECT key, coalesce(created_at, first_received_at) < ?4 AS is_stuck,
                first_received_at > ?5 AND first_received_at < ?6
                    AND (?8 IS NULL OR notification_type IS NOT ?8) AS is_heard
            FROM notification_row
            WHERE source = ?1 AND {} = ?2 AND {} AND key > ?3 ORDER BY key LIMIT ?7
         )",
        number(statuses),
        may_be_open(statuses)
    )
}

/// Numbers under which the index holds what has not come to an end in that source.
fn numbers(ends: &Ends, source: &str) -> impl Iterator<Item = i64> {
    let of_some = ends.no_ends_in(source).map(|place| place as i64 + 1);
    std::iter::once(0).chain(of_some)
}

/// Nought of what has come to an end nowhere, and a number for each of what is an end in some sources.
/// The same text in index and question, or the one would not serve the other; so is [`may_be_open`].
fn number(statuses: &Statuses) -> String {
    let mut text = String::from("CASE");
    for (place, (status, kind)) in statuses.sometimes.iter().enumerate() {
        let number = place + 1;
        let (status, kind) = (plain(status), plain(kind));
        text +=
            &format!(" WHEN status = '{status}' AND notification_type = '{kind}' THEN {number}");
    }
    if statuses.sometimes.is_empty() { "0".to_owned() } else { text + " ELSE 0 END" }
}

/// Whether a notification has not come to an end in some source. A letter that came back has, whatever
/// status was told of it.
fn may_be_open(statuses: &Statuses) -> String {
    let words: Vec<&str> = statuses.always.iter().map(|word| plain(word)).collect();
    let is_no_end = format!("(status IS NULL OR status NOT IN ('{}'))", words.join("', '"));
    format!("returned_at IS NULL AND {is_no_end}")
}

fn plain(word: &'static str) -> &'static str {
    let is_plain = word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    assert!(is_plain, "a status or type that is an end is a plain word");
    word
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::plan;
    use crate::state::tables::SCHEMA;

    const STATUSES: Statuses =
        Statuses { always: &["delivered", "a-failure"], sometimes: &[("sent", "sms")] };

    /// In `gc` a text that is sent is at its end, in `va` it is not.
    fn ends() -> Ends {
        let sources = [("gc".to_owned(), true), ("va".to_owned(), false)];
        Ends::new(&STATUSES, sources, |is_end, _| is_end)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(0).plus_seconds(second)
    }

    fn put(state: &Connection, key: i64, source: &str, status: Option<&str>, kind: Option<&str>) {
        let sql =
            "INSERT INTO notification_row (key, id, source, status, notification_type, receipts,
                   duplicates, first_received_at, last_received_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, 1, 0, ?6, ?6)";
        let id = char::from(b'a' + u8::try_from(key).unwrap() - 1).to_string();
        state.execute(sql, params![key, id, source, status, kind, at(key).to_string()]).unwrap();
    }

    fn state() -> Connection {
        let state = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        for (key, status, kind) in [
            (1, Some("delivered"), "sms"),
            (2, Some("sending"), "sms"),
            (4, Some("sent"), "sms"),
            (5, Some("a-new-word"), "sms"),
            (6, Some("a-failure"), "sms"),
            (7, Some("sent"), "email"),
        ] {
            put(&state, key, "gc", status, Some(kind));
        }
        put(&state, 3, "gc", None, None);
        put(&state, 8, "va", Some("created"), Some("sms"));
        put(&state, 9, "va", Some("sent"), Some("sms"));
        put(&state, 10, "va", Some("pending"), Some("sms"));
        put(&state, 11, "va", Some("sent"), None);
        state
    }

    fn ids(state: &Connection, source: &str, since: i64, key: i64, rows_max: usize) -> String {
        let found = outstanding(state, source, &ends(), (at(since), key), rows_max).unwrap();
        found.into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn what_has_no_end_is_found_in_order_with_the_index_and_without() {
        let state = state();
        for is_made in [false, true] {
            assert_eq!(is_made, is_made && make_index(&state, &STATUSES).unwrap());
            assert_eq!(ids(&state, "gc", 0, 0, 9), "bceg");
            assert_eq!(ids(&state, "gc", 0, 2, 9), "ceg");
            assert_eq!(ids(&state, "gc", 3, 0, 9), "ceg");
            assert_eq!(ids(&state, "gc", 0, 0, 2), "bc");
            assert_eq!(ids(&state, "va", 0, 0, 9), "hijk");
            assert_eq!(ids(&state, "va", 0, 0, 2), "hi");
            assert_eq!(ids(&state, "va", 0, 8, 2), "ij");
        }
        assert!(!make_index(&state, &STATUSES).unwrap(), "it is there");
        let others = Statuses { always: &["sending"], sometimes: &[] };
        assert!(make_index(&state, &others).unwrap(), "of other words");
        assert_eq!(ids(&state, "gc", 0, 0, 9), "bceg");
    }

    #[test]
    fn a_letter_that_came_back_is_not_outstanding_whatever_was_told_of_it() {
        let state = state();
        let came_back =
            "UPDATE notification_row SET returned_at = first_received_at WHERE key = ?1";
        for is_made in [false, true] {
            assert_eq!(is_made, is_made && make_index(&state, &STATUSES).unwrap());
            // One of which a status was told, and one of which none was.
            for key in [2, 3] {
                state.execute(came_back, [key]).unwrap();
            }
            assert_eq!(ids(&state, "gc", 0, 0, 9), "eg");
            assert_eq!(
                counted(&state, "gc", 100, (2, 4)),
                Counted { stuck: 2, is_any_heard: false }
            );
        }
    }

    #[test]
    fn what_is_stuck_is_counted_by_what_is_an_end_in_its_source() {
        let state = state();
        for is_made in [false, true] {
            assert_eq!(is_made, is_made && make_index(&state, &STATUSES).unwrap());
            let count = |source, since| counted(&state, source, since, (0, 0)).stuck;
            assert_eq!((count("gc", 100), count("gc", 5), count("gc", 2)), (4, 2, 0));
            assert_eq!((count("va", 100), count("va", 9), count("nobody", 100)), (4, 1, 0));
        }
    }

    /// Window by window.
    fn counted(state: &Connection, source: &str, since: i64, heard: (i64, i64)) -> Counted {
        let (stuck_before, heard) = (at(since), (at(heard.0), at(heard.1)));
        counted_but(state, (source, None), stuck_before, heard)
    }

    fn counted_but(
        state: &Connection,
        (source, heard_but_of): (&str, Option<&str>),
        stuck_before: Timestamp,
        heard: (Timestamp, Timestamp),
    ) -> Counted {
        let counting = Counting { source, ends: &ends(), stuck_before, heard, heard_but_of };
        let (mut counted, mut place) = (Counted::default(), Some(Place::FIRST));
        while let Some(at) = place {
            place = count_in_window(state, &counting, at, &mut counted).unwrap();
        }
        counted
    }

    #[test]
    fn what_was_heard_of_between_two_times_is_seen_unless_it_has_its_end() {
        let state = state();
        make_index(&state, &STATUSES).unwrap();
        let is_heard = |source, times| counted(&state, source, 0, times).is_any_heard;
        assert!(is_heard("gc", (4, 6)) && !is_heard("gc", (5, 7)), "the sixth has its end");
        assert!(!is_heard("gc", (3, 5)) && is_heard("va", (8, 10)), "sent is an end in gc alone");
        assert!(!is_heard("gc", (5, 6)), "what came at that very time is not after it");
        let of = |heard_but_of| {
            counted_but(&state, ("gc", heard_but_of), at(0), (at(4), at(6))).is_any_heard
        };
        assert!(of(Some("letter")) && !of(Some("sms")), "the fifth is a text");
        let untyped = |heard_but_of| {
            counted_but(&state, ("gc", heard_but_of), at(0), (at(2), at(4))).is_any_heard
        };
        assert!(untyped(Some("sms")), "of what has no type it is not known");
    }

    #[test]
    fn however_many_are_open_each_is_counted_once_and_no_question_counts_more_than_a_window() {
        let state = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
        make_index(&state, &STATUSES).unwrap();
        let windows = i64::try_from(WINDOW_ROWS_MAX).unwrap();
        let sql = "WITH RECURSIVE n (key) AS (SELECT 1 UNION ALL SELECT key + 1 FROM n WHERE key < ?1)
            INSERT INTO notification_row (key, id, source, status, notification_type, receipts,
                duplicates, first_received_at, last_received_at)
            SELECT key, 'n' || key, 'va', iif(key % 2, 'sent', 'sending'), 'sms', 1, 0, ?2, ?2 FROM n";
        state.execute(sql, params![windows * 6, at(2).to_string()]).unwrap();
        let (ends, heard) = (ends(), (at(0), at(0)));
        let counting =
            Counting { source: "va", ends: &ends, stuck_before: at(3), heard, heard_but_of: None };
        let (mut all, mut place) = (0, Some(Place::FIRST));
        while let Some(at) = place {
            let mut window = Counted::default();
            place = count_in_window(&state, &counting, at, &mut window).unwrap();
            assert!(window.stuck <= windows, "{window:?}");
            all += window.stuck;
        }
        assert_eq!(all, windows * 6);
    }

    #[test]
    fn the_index_of_an_earlier_version_is_dropped_for_the_one_of_this() {
        let state = state();
        let former = "CREATE INDEX notification_outstanding ON notification_row (source)
            WHERE (status IS NULL OR status NOT IN ('sent', 'delivered', 'a-failure'))";
        assert!(!has_index(&state).unwrap());
        state.execute_batch(former).unwrap();
        assert!(has_index(&state).unwrap(), "somebody asked before: it is to be replaced");
        // Also where the one of this version is there already.
        for _ in 0..2 {
            assert!(make_index(&state, &STATUSES).unwrap());
            assert!(!is_there(&state, FORMER).unwrap() && is_there(&state, INDEX).unwrap());
            assert!(!make_index(&state, &STATUSES).unwrap());
            assert_eq!(ids(&state, "gc", 0, 0, 9), "bceg");
            state.execute_batch(former).unwrap();
        }
    }

    #[test]
    fn with_the_index_nothing_is_scanned_and_nothing_sorted() {
        let state = state();
        make_index(&state, &STATUSES).unwrap();
        for (sql, bounds) in [
            (select(&STATUSES), "source=? AND <expr>=? AND rowid>?"),
            (count(&STATUSES), "source=? AND <expr>=? AND rowid>?"),
        ] {
            let plan = plan(&state, &sql);
            assert!(plan.contains(INDEX) && plan.contains(bounds), "{plan}");
            // What a question reads of its own inner one is a window.
            let is_scan = |step: &str| step.contains("SCAN") && !step.contains("subquery");
            assert!(!plan.lines().any(is_scan) && !plan.contains("TEMP B-TREE"), "{plan}");
        }
    }

    #[test]
    fn what_is_an_end_there_is_not_even_looked_at_however_much_there_is() {
        let steps = |texts: i64| {
            let state = crate::sqlite::open_in_memory(&SCHEMA).unwrap();
            make_index(&state, &STATUSES).unwrap();
            put(&state, 1, "gc", Some("sending"), Some("sms"));
            let sql = "WITH RECURSIVE n (key) AS (SELECT 2 UNION ALL SELECT key + 1 FROM n WHERE key < ?1)
                INSERT INTO notification_row (key, id, source, status, notification_type, receipts,
                    duplicates, first_received_at, last_received_at)
                SELECT key, 'n' || key, 'gc', 'sent', 'sms', 1, 0, ?2, ?2 FROM n";
            state.execute(sql, params![texts + 1, at(2).to_string()]).unwrap();
            let mut statement = state.prepare(&select(&STATUSES)).unwrap();
            for number in numbers(&ends(), "gc") {
                let mut rows =
                    statement.query(params!["gc", number, 0, at(0).to_string(), 10]).unwrap();
                while rows.next().unwrap().is_some() {}
            }
            statement.get_status(rusqlite::StatementStatus::VmStep)
        };
        assert_eq!(steps(10), steps(2_000));
    }
}
