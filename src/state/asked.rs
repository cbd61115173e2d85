//! What apps ask for: lists by creation, newest first, through indexes of their own.
//!
//! The other lists of the state are in order of arrival, which costs nothing: every table grows at its
//! end. An app lists by creation and by status, type and reference, and each of these orders is an
//! index whose pages settling visits at random. So they are made only where somebody reads
//! ([`make_index`]), and dropped at the next start where nobody does any more ([`drop_indexes`]).
//!
//! - No question reads more than a page of each range. A list over several statuses and types is as
//!   many ranges of one index, each in order, of which the newest are taken; a range is left at the
//!   first row that is too old. Every statement names its index, so that it fails without it rather
//!   than read the table.
//! - Rows of one instant are in the order of arrival too, so that pages read one after another neither
//!   skip nor repeat a row, however many were created at once. A row moves only when more is learnt of
//!   when it was created.
//! - A letter that came back has that status, whatever else is told of it: nothing ranks higher. What a
//!   notification is known by alone stands in for what nobody told: a complaint is about an e-mail, because
//!   no platform is told of others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rusqlite::{Connection, OptionalExtension, Row, ToSql};

use super::asked_index::{CREATED, RECEIVED, STATUS, TYPE};
pub use super::asked_index::{Index, drop_indexes, make_index};
pub use super::asked_range::{Filter, ListError, Place};
use super::asked_range::{Range, behind, parts, ranges};
use super::rows::{MessageRow, NotificationRow};
use super::write::some_time;
use crate::callback::{Fingerprint, Origin};
use crate::clock::Timestamp;

/// How much of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Rows at most.
    pub rows_max: usize,
    /// Texts, in bytes, after which no further row is begun; the first always is.
    pub bytes_max: usize,
}

/// A notification, with what stands in for what nobody told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What is known.
    pub row: NotificationRow,
    /// The status by which it is listed; `None` if nothing tells one.
    pub status: Option<String>,
    /// The type by which it is listed; `None` if nothing tells one.
    pub notification_type: Option<String>,
    /// When it was created, or first heard of.
    pub created_at: Timestamp,
    /// Whether its status was told when its platform was asked, not called back.
    pub is_polled: bool,
}

/// The notification of that source and id.
pub fn notification(
    connection: &Connection,
    source: &str,
    id: &str,
) -> rusqlite::Result<Option<Asked>> {
    let columns = NotificationRow::COLUMNS.join(", ");
    connection
        .prepare_cached(&format!(
            "SELECT {columns}, {STATUS}, {TYPE}, {CREATED}, fingerprint FROM notification_row
             WHERE id = ?1 AND source = ?2"
        ))?
        .query_row([id, source], read_asked)
        .optional()
}

/// Where the notification of that source and id stands.
pub fn notification_place(
    connection: &Connection,
    source: &str,
    id: &str,
) -> rusqlite::Result<Option<Place>> {
    let sql = format!("SELECT {CREATED}, key FROM notification_row WHERE id = ?1 AND source = ?2");
    connection.prepare_cached(&sql)?.query_row([id, source], read_place).optional()
}

/// Notifications of a source, newest first, those behind `after`.
///
/// # Errors
/// Of SQLite, also if the indexes are not there; or if there is too much to look through.
pub fn notifications(
    connection: &Connection,
    source: &str,
    filter: &Filter,
    after: Option<&Place>,
    bounds: Bounds,
) -> Result<Vec<Asked>, ListError> {
    let mut newest = Newest::new(bounds.rows_max);
    for range in ranges(connection, source, filter)? {
        for sql in parts(CREATED, range.index(), &range.conditions(), after.is_some()) {
            let parameters = [range.parameters(&source), behind(after)].concat();
            take_newest(connection, &sql, &parameters, &mut newest)?;
        }
    }
    let columns = NotificationRow::COLUMNS.join(", ");
    let sql = format!(
        "SELECT {columns}, {STATUS}, {TYPE}, {CREATED}, fingerprint FROM notification_row
         WHERE key = ?1"
    );
    Ok(fetch(connection, &sql, newest, bounds.bytes_max, read_asked, |asked| {
        asked.row.text_bytes()
    })?)
}

/// Where the message of that source and id stands.
pub fn message_place(
    connection: &Connection,
    source: &str,
    id: &str,
) -> rusqlite::Result<Option<Place>> {
    let sql = format!("SELECT {RECEIVED}, key FROM message_row WHERE id = ?1 AND source = ?2");
    connection.prepare_cached(&sql)?.query_row([id, source], read_place).optional()
}

/// Messages from the public to a source, newest first, those behind `after`.
///
/// # Errors
/// Of SQLite, also if the index is not there.
pub fn messages(
    connection: &Connection,
    source: &str,
    after: Option<&Place>,
    bounds: Bounds,
) -> rusqlite::Result<Vec<MessageRow>> {
    let mut newest = Newest::new(bounds.rows_max);
    for sql in parts(RECEIVED, Index::Message, "", after.is_some()) {
        let parameters = [Range::All.parameters(&source), behind(after)].concat();
        take_newest(connection, &sql, &parameters, &mut newest)?;
    }
    let columns = MessageRow::COLUMNS.join(", ");
    let sql = format!("SELECT {columns} FROM message_row WHERE key = ?1");
    fetch(connection, &sql, newest, bounds.bytes_max, MessageRow::read, MessageRow::text_bytes)
}

/// The newest of the places seen so far.
struct Newest {
    rows_max: usize,
    /// The oldest of them on top.
    places: BinaryHeap<Reverse<Place>>,
}

impl Newest {
    fn new(rows_max: usize) -> Self {
        Self { rows_max, places: BinaryHeap::with_capacity(rows_max + 1) }
    }

    /// Whether the place is among the newest.
    fn take(&mut self, place: Place) -> bool {
        let is_full = self.places.len() >= self.rows_max;
        if is_full && self.places.peek().is_none_or(|Reverse(oldest)| place < *oldest) {
            return false;
        }
        self.places.push(Reverse(place));
        if is_full {
            self.places.pop();
        }
        true
    }
}

/// Reads one range until what comes is too old.
fn take_newest(
    connection: &Connection,
    sql: &str,
    parameters: &[(&str, &dyn ToSql)],
    newest: &mut Newest,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(parameters)?;
    while let Some(row) = rows.next()? {
        if !newest.take(read_place(row)?) {
            break;
        }
    }
    Ok(())
}

/// The rows at these places, newest first, until their texts are `bytes_max` long.
fn fetch<R>(
    connection: &Connection,
    sql: &str,
    newest: Newest,
    bytes_max: usize,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<R>,
    weight: impl Fn(&R) -> usize,
) -> rusqlite::Result<Vec<R>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = Vec::with_capacity(newest.places.len());
    let mut bytes = 0_usize;
    // Ascending by `Reverse`: the newest first.
    for Reverse(place) in newest.places.into_sorted_vec() {
        if bytes >= bytes_max && !rows.is_empty() {
            break;
        }
        let row = statement.query_row([place.key], &read)?;
        bytes = bytes.saturating_add(weight(&row));
        rows.push(row);
    }
    Ok(rows)
}

fn read_place(row: &Row<'_>) -> rusqlite::Result<Place> {
    Ok(Place { created: row.get(0)?, key: row.get(1)? })
}

fn read_asked(row: &Row<'_>) -> rusqlite::Result<Asked> {
    let more = NotificationRow::COLUMNS.len();
    let word = |column| row.get(column).map(|word: String| Some(word).filter(|w| !w.is_empty()));
    let fingerprint: Option<[u8; 16]> = row.get(more + 3)?;
    let origin = fingerprint.map(|bytes| Fingerprint(bytes).origin());
    Ok(Asked {
        is_polled: origin == Some(Origin::Polled),
        status: word(more)?,
        notification_type: word(more + 1)?,
        created_at: some_time(row, more + 2)?,
        row: NotificationRow::read(row)?,
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::*;
    use crate::sqlite;
    use crate::state::asked_filled::{filled, filter, filters, put, state};
    use crate::state::plan;
    use crate::state::tables::SCHEMA;

    const BOUNDS: Bounds = Bounds { rows_max: 4, bytes_max: usize::MAX };

    /// The ids that the filter lets pass, by a query that reads and sorts everything.
    fn expected(connection: &Connection, filter: &Filter) -> Vec<String> {
        let list = |words: &[String]| serde_json::json!(words).to_string();
        connection
            .prepare(
                "SELECT id FROM notification_row WHERE source = 'passport'
                    AND (?1 = '[]' OR status IN (SELECT value FROM json_each(?1)))
                    AND (?2 = '[]' OR notification_type IN (SELECT value FROM json_each(?2)))
                    AND (?3 IS NULL OR reference = ?3)
                 ORDER BY created_at DESC, key DESC",
            )
            .unwrap()
            .query_map(
                params![list(&filter.statuses), list(&filter.types), filter.reference],
                |row| row.get(0),
            )
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    #[test]
    fn pages_of_every_filter_hold_each_row_once_in_order() {
        let connection = filled();
        for filter in filters() {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let page = notifications(&connection, "passport", &filter, after.as_ref(), BOUNDS)
                    .unwrap();
                assert!(page.len() <= BOUNDS.rows_max);
                let Some(last) = page.last() else { break };
                after = notification_place(&connection, "passport", &last.row.id).unwrap();
                seen.extend(page.into_iter().map(|asked| asked.row.id));
            }
            assert_eq!(seen, expected(&connection, &filter), "{filter:?}");
        }
    }

    #[test]
    fn a_look_up_by_id_uses_the_index_that_is_always_there() {
        let connection = sqlite::open_in_memory(&SCHEMA).unwrap();
        assert_eq!(notification(&connection, "passport", "n1").unwrap(), None);
        assert_eq!(notification_place(&connection, "passport", "n1").unwrap(), None);
        for table in ["notification_row", "message_row"] {
            let sql = format!("SELECT key FROM {table} WHERE id = ?1 AND source = ?2");
            let plan = plan(&connection, &sql);
            assert!(plan.contains("SEARCH") && plan.contains("id=? AND source=?"), "{plan}");
        }
    }

    #[test]
    fn without_its_index_a_list_fails_rather_than_read_the_table() {
        let connection = filled();
        assert!(drop_indexes(&connection).unwrap());
        assert!(!drop_indexes(&connection).unwrap(), "they are gone");
        for filter in filters() {
            let list = notifications(&connection, "passport", &filter, None, BOUNDS);
            let Err(ListError::Sqlite(error)) = list else { panic!("{filter:?}: {list:?}") };
            assert!(error.to_string().contains("no such index"), "{error}");
        }
        assert!(messages(&connection, "passport", None, BOUNDS).is_err());
    }

    #[test]
    fn what_is_known_only_by_a_complaint_or_a_returned_letter_is_listed_as_that() {
        let connection = state();
        for (key, complained_at, returned_at) in [
            (1, Some("2026-11-22T00:00:00.000000Z"), None),
            (2, None, Some("2026-11-22")),
            (3, None, None),
        ] {
            connection
                .execute(
                    "INSERT INTO notification_row (key, source, id, complained_at, returned_at,
                        receipts, duplicates, first_received_at, last_received_at)
                     VALUES (?1, 'passport', ?2, ?3, ?4, 0, 0, '2026-11-22T10:00:00.000000Z', '')",
                    params![
                        key,
                        format!("n{key}"),
                        complained_at,
                        returned_at.map(|_| "2026-11-22T09:00:00.000000Z")
                    ],
                )
                .unwrap();
            connection
                .execute("UPDATE notification_row SET last_received_at = first_received_at", [])
                .unwrap();
        }
        let listed = |statuses: &[&str], types: &[&str]| -> Vec<String> {
            let filter = filter(statuses, types, None);
            let found = notifications(&connection, "passport", &filter, None, BOUNDS).unwrap();
            found.into_iter().map(|asked| asked.row.id).collect()
        };
        assert_eq!(listed(&["returned-letter"], &[]), ["n2"]);
        connection.execute("UPDATE notification_row SET status = 'received'", []).unwrap();
        assert_eq!(listed(&["received"], &[]), ["n3", "n1"]);
        assert_eq!(listed(&["returned-letter"], &[]), ["n2"], "whatever else is told of it");
        connection.execute("UPDATE notification_row SET status = NULL", []).unwrap();
        assert_eq!(listed(&[""], &[]), ["n3", "n1"]);
        assert_eq!(listed(&[], &["email"]), ["n1"]);
        let asked = notification(&connection, "passport", "n1").unwrap().unwrap();
        assert_eq!((asked.status, asked.notification_type.as_deref()), (None, Some("email")));
        assert_eq!(asked.created_at, asked.row.first_received_at);
    }

    #[test]
    fn it_is_told_whether_a_status_was_asked_for() {
        let connection = filled();
        for (id, fingerprint) in [
            ("n1", Some(Fingerprint::of(b"x"))),
            ("n2", Some(Fingerprint::of_polled(b"x"))),
            ("n3", None),
        ] {
            let sql = "UPDATE notification_row SET fingerprint = ?2 WHERE id = ?1";
            connection.execute(sql, params![id, fingerprint.map(|bytes| bytes.0)]).unwrap();
        }
        let is_polled = |id| notification(&connection, "passport", id).unwrap().unwrap().is_polled;
        assert_eq!(["n1", "n2", "n3"].map(is_polled), [false, true, false]);
        let all = Bounds { rows_max: 60, ..BOUNDS };
        let rows = notifications(&connection, "passport", &Filter::default(), None, all).unwrap();
        let polled: Vec<&str> =
            rows.iter().filter(|row| row.is_polled).map(|row| row.row.id.as_str()).collect();
        assert_eq!(polled, ["n2"]);
    }

    #[test]
    fn words_that_somebody_makes_up_are_looked_through_up_to_a_bound() {
        let connection = state();
        for key in 0..600 {
            put(&connection, 7 * key + 1, (&format!("status-{key}"), "sms"), 0);
        }
        let list = |filter: &Filter| notifications(&connection, "passport", filter, None, BOUNDS);
        let by_type = list(&filter(&[], &["sms"], None));
        assert!(matches!(by_type, Err(ListError::TooManyRanges)), "{by_type:?}");
        assert_eq!(list(&filter(&["status-7"], &[], None)).unwrap().len(), 1);
        assert_eq!(list(&Filter::default()).unwrap().len(), 4);
    }

    #[test]
    fn long_texts_make_a_page_short_but_never_empty() {
        let connection = filled();
        let long = "x".repeat(1_000);
        connection.execute("UPDATE notification_row SET recipient = ?1", [&long]).unwrap();
        for (bytes_max, rows) in [(0, 1), (1_000, 1), (2_500, 3), (1_000_000, 4)] {
            let bounds = Bounds { bytes_max, ..BOUNDS };
            let page =
                notifications(&connection, "passport", &Filter::default(), None, bounds).unwrap();
            assert_eq!(page.len(), rows, "{bytes_max}");
        }
    }

    #[test]
    fn messages_are_listed_by_when_they_were_received() {
        let connection = state();
        for (key, received) in
            [(1, Some("10:02")), (2, None), (3, Some("10:01")), (4, Some("10:01"))]
        {
            let date = received.map(|time| format!("2026-11-22T{time}:00.000000Z"));
            connection
                .execute(
                    "INSERT INTO message_row VALUES (?1, 'passport', ?2, NULL, NULL, 'hello', ?3,
                        '2026-11-22T10:03:00.000000Z', x'00')",
                    params![key, format!("m{key}"), date],
                )
                .unwrap();
        }
        let ids = |after: Option<&str>| -> Vec<String> {
            let place =
                after.map(|id| message_place(&connection, "passport", id).unwrap().unwrap());
            let found = messages(&connection, "passport", place.as_ref(), BOUNDS).unwrap();
            found.into_iter().map(|row| row.id).collect()
        };
        assert_eq!(ids(None), ["m2", "m1", "m4", "m3"]);
        assert_eq!(ids(Some("m1")), ["m4", "m3"]);
        assert_eq!(ids(Some("m4")), ["m3"]);
        assert_eq!(ids(Some("m3")), [""; 0]);
        assert_eq!(message_place(&connection, "visa", "m1").unwrap(), None);
    }
}
