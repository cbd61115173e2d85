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

use super::rows::{MessageRow, NotificationRow};
use super::write::some_time;
use crate::callback::{Fingerprint, Origin};
use crate::clock::Timestamp;

/// When a notification was created or, if nobody told that, first heard of.
const CREATED: &str = "coalesce(created_at, first_received_at)";

/// Its status, as far as anything tells it; else empty. That a letter came back ranks above whatever else
/// is told of it.
const STATUS: &str =
    "CASE WHEN returned_at IS NULL THEN coalesce(status, '') ELSE 'returned-letter' END";

/// Its type, as far as anything tells it; else empty.
const TYPE: &str =
    "coalesce(notification_type, CASE WHEN complained_at IS NULL THEN '' ELSE 'email' END)";

/// When a message from the public was received.
const RECEIVED: &str = "coalesce(date_received, received_at)";

/// Ranges that one list may be made of: every status of every type. The platforms know under twenty
/// statuses and five types; beyond this somebody makes words up.
const RANGES_MAX: usize = 512;

/// An index that is there only where somebody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Index {
    /// Everything of a source, by creation.
    Creation,
    /// By status and type, then by creation.
    Status,
    /// By reference, status and type, then by creation.
    Reference,
    /// Messages from the public, by when they were received.
    Message,
}

impl Index {
    /// All of them, the most used first.
    pub const ALL: [Self; 4] = [Self::Creation, Self::Status, Self::Reference, Self::Message];

    /// Its name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creation => "asked_by_creation",
            Self::Status => "asked_by_status",
            Self::Reference => "asked_by_reference",
            Self::Message => "asked_messages",
        }
    }

    fn on(self) -> String {
        match self {
            Self::Creation => format!("notification_row (source, {CREATED})"),
            Self::Status => format!("notification_row (source, {STATUS}, {TYPE}, {CREATED})"),
            Self::Reference => format!(
                "notification_row (source, reference, {STATUS}, {TYPE}, {CREATED})
                 WHERE reference IS NOT NULL"
            ),
            Self::Message => format!("message_row (source, {RECEIVED})"),
        }
    }
}

/// Makes an index, if it is not there; whether it was not. One of other words is replaced: by it a list would
/// read all of a source. For the one connection that writes.
pub fn make_index(connection: &Connection, index: Index) -> rusqlite::Result<bool> {
    let name = index.name();
    let wanted = format!("CREATE INDEX {name} ON {}", index.on());
    let found: Option<String> = connection
        .query_row("SELECT sql FROM sqlite_schema WHERE name = ?1", [name], |row| row.get(0))
        .optional()?;
    if found.as_ref() == Some(&wanted) {
        return Ok(false);
    }
    connection.execute_batch(&format!("DROP INDEX IF EXISTS {name}; {wanted}"))?;
    Ok(true)
}

/// Drops every index of these; whether there was one. For the one connection that writes.
pub fn drop_indexes(connection: &Connection) -> rusqlite::Result<bool> {
    let mut dropped = false;
    for index in Index::ALL {
        if has_index(connection, index)? {
            connection.execute_batch(&format!("DROP INDEX {}", index.name()))?;
            dropped = true;
        }
    }
    Ok(dropped)
}

fn has_index(connection: &Connection, index: Index) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?1")?
        .exists([index.name()])
}

/// Which notifications to list; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// With one of these statuses, none named twice; empty for any.
    pub statuses: Vec<String>,
    /// Of one of these types, none named twice; empty for any.
    pub types: Vec<String>,
    /// With this reference.
    pub reference: Option<String>,
}

/// How much of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Rows at most.
    pub rows_max: usize,
    /// Texts, in bytes, after which no further row is begun; the first always is.
    pub bytes_max: usize,
}

/// Where a row stands in a list by creation. Greater is newer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it was created.
    created: String,
    /// When it was first heard of, among those created at once.
    key: i64,
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

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// SQLite, or a missing index.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// The source has more kinds of status and type than any platform.
    #[error("more than {RANGES_MAX} kinds of status and type to look through")]
    TooManyRanges,
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

/// Rows of one index that are in order by creation.
enum Range {
    /// Everything of the source.
    All,
    /// What has this status and this type.
    Of { status: String, notification_type: String, reference: Option<String> },
}

impl Range {
    fn index(&self) -> Index {
        match self {
            Self::All => Index::Creation,
            Self::Of { reference: None, .. } => Index::Status,
            Self::Of { reference: Some(_), .. } => Index::Reference,
        }
    }

    /// With the expressions of the index, word for word: that is how SQLite knows them again.
    fn conditions(&self) -> String {
        let both = format!("AND {STATUS} = :status AND {TYPE} = :type");
        match self.index() {
            Index::Creation | Index::Message => String::new(),
            Index::Status => both,
            Index::Reference => format!("AND reference = :reference {both}"),
        }
    }

    fn parameters<'a>(&'a self, source: &'a &str) -> Vec<(&'static str, &'a dyn ToSql)> {
        let mut all: Vec<(&str, &dyn ToSql)> = vec![(":source", source)];
        if let Self::Of { status, notification_type, reference } = self {
            all.push((":status", status));
            all.push((":type", notification_type));
            if let Some(reference) = reference {
                all.push((":reference", reference));
            }
        }
        all
    }
}

/// The ranges that together hold what the filter lets pass, and nothing else.
fn ranges(connection: &Connection, source: &str, filter: &Filter) -> Result<Vec<Range>, ListError> {
    let Filter { statuses, types, reference } = filter;
    if statuses.is_empty() && types.is_empty() && reference.is_none() {
        return Ok(vec![Range::All]);
    }
    let statuses = if statuses.is_empty() {
        words(connection, &statuses_there(reference.is_some()), source, reference, None)?
    } else {
        statuses.clone()
    };
    let mut all = Vec::new();
    for status in statuses {
        let types = if types.is_empty() {
            let sql = types_there(reference.is_some());
            words(connection, &sql, source, reference, Some(&status))?
        } else {
            types.clone()
        };
        for notification_type in types {
            let (status, reference) = (status.clone(), reference.clone());
            all.push(Range::Of { status, notification_type, reference });
        }
        if all.len() > RANGES_MAX {
            return Err(ListError::TooManyRanges);
        }
    }
    Ok(all)
}

/// The first status from `:from` on that anything of the source, or with the reference, has.
fn statuses_there(with_reference: bool) -> String {
    first_there(STATUS, "", with_reference)
}

/// The first type from `:from` on that anything with that status has.
fn types_there(with_reference: bool) -> String {
    first_there(TYPE, &format!("AND {STATUS} = :status"), with_reference)
}

fn first_there(word: &str, conditions: &str, with_reference: bool) -> String {
    let (index, reference) = match with_reference {
        false => (Index::Status, ""),
        true => (Index::Reference, "AND reference = :reference"),
    };
    format!(
        "SELECT {word} FROM notification_row INDEXED BY {}
         WHERE source = :source {reference} {conditions} AND {word} >= :from
         ORDER BY {word} LIMIT 1",
        index.name()
    )
}

/// Every word that `sql` finds, one look into the index for each.
fn words(
    connection: &Connection,
    sql: &str,
    source: &str,
    reference: &Option<String>,
    status: Option<&str>,
) -> Result<Vec<String>, ListError> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut found: Vec<String> = Vec::new();
    loop {
        // No text stands between one and the same with a NUL behind it.
        let from = found.last().map_or(String::new(), |last| format!("{last}\0"));
        let mut parameters: Vec<(&str, &dyn ToSql)> = vec![(":source", &source), (":from", &from)];
        if reference.is_some() {
            parameters.push((":reference", reference));
        }
        if status.is_some() {
            parameters.push((":status", &status));
        }
        match statement.query_row(parameters.as_slice(), |row| row.get(0)).optional()? {
            None => return Ok(found),
            Some(_) if found.len() == RANGES_MAX => return Err(ListError::TooManyRanges),
            Some(word) => found.push(word),
        }
    }
}

/// The statements that read one range in order: all of it or, behind a place, first what was created
/// at the same instant and then what was before. As one condition the two would not be a range.
fn parts(created: &str, index: Index, conditions: &str, is_behind: bool) -> Vec<String> {
    let of = |more: &str, order: &str| {
        let table = if index == Index::Message { "message_row" } else { "notification_row" };
        format!(
            "SELECT {created}, key FROM {table} INDEXED BY {}
             WHERE source = :source {conditions} {more} ORDER BY {order}",
            index.name()
        )
    };
    let newest_first = format!("{created} DESC, key DESC");
    if !is_behind {
        return vec![of("", &newest_first)];
    }
    vec![
        // SQLite has no use for `:key` in the second; named alike, both take the same parameters.
        of(&format!("AND {created} = :created AND key < :key"), "key DESC"),
        of(&format!("AND {created} < :created AND :key IS NOT NULL"), &newest_first),
    ]
}

fn behind(after: Option<&Place>) -> Vec<(&'static str, &dyn ToSql)> {
    after.map_or(Vec::new(), |place| vec![(":created", &place.created), (":key", &place.key)])
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
    use crate::state::plan;
    use crate::state::tables::SCHEMA;

    const BOUNDS: Bounds = Bounds { rows_max: 4, bytes_max: usize::MAX };

    /// A state with every index and nothing in it.
    fn state() -> Connection {
        let connection = sqlite::open_in_memory(&SCHEMA).unwrap();
        for index in Index::ALL {
            assert!(make_index(&connection, index).unwrap());
            assert!(!make_index(&connection, index).unwrap(), "it is there already");
        }
        connection
    }

    /// A notification of that status, type, reference and minute.
    fn put(connection: &Connection, key: i64, (status, kind): (&str, &str), minute: i64) {
        let at = "2026-11-22T00:00:00Z".parse::<Timestamp>().unwrap().plus_seconds(60 * minute);
        let source = if key % 7 == 0 { "visa" } else { "passport" };
        connection
            .execute(
                "INSERT INTO notification_row (key, source, id, status, notification_type,
                    reference, created_at, receipts, duplicates, first_received_at, last_received_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, 0, ?7, ?7)",
                params![
                    key,
                    source,
                    format!("n{key}"),
                    status,
                    kind,
                    format!("reference-{}", key % 3),
                    at.to_string()
                ],
            )
            .unwrap();
    }

    const STATUSES: [&str; 4] = ["delivered", "sending", "permanent-failure", "sent"];
    const TYPES: [&str; 3] = ["email", "letter", "sms"];

    /// Sixty notifications, five created in each minute.
    fn filled() -> Connection {
        let connection = state();
        for key in 0..60 {
            let at = usize::try_from(key).unwrap();
            put(&connection, key, (STATUSES[at % 4], TYPES[at / 4 % 3]), (key * 17 % 60) / 5);
        }
        connection
    }

    fn filter(statuses: &[&str], types: &[&str], reference: Option<&str>) -> Filter {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Filter {
            statuses: owned(statuses),
            types: owned(types),
            reference: reference.map(str::to_owned),
        }
    }

    /// Every combination of nothing, one and several.
    fn filters() -> Vec<Filter> {
        let mut all = Vec::new();
        for statuses in [&[][..], &["sent"], &["delivered", "permanent-failure", "elephant"]] {
            for types in [&[][..], &["sms"], &["email", "letter", "push"]] {
                for reference in [None, Some("reference-1"), Some("nobody's")] {
                    all.push(filter(statuses, types, reference));
                }
            }
        }
        all
    }

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
    fn every_filter_is_answered_from_an_index_without_a_scan_or_a_sort() {
        let connection = filled();
        let mut statements = Vec::new();
        for filter in filters() {
            for range in ranges(&connection, "passport", &filter).unwrap() {
                for is_behind in [false, true] {
                    let conditions = range.conditions();
                    statements.extend(parts(CREATED, range.index(), &conditions, is_behind));
                }
            }
        }
        for is_behind in [false, true] {
            statements.extend(parts(RECEIVED, Index::Message, "", is_behind));
            statements.extend([statuses_there(is_behind), types_there(is_behind)]);
        }
        statements.sort();
        statements.dedup();
        assert_eq!(statements.len(), 3 * 3 + 3 + 4, "{statements:#?}");
        for sql in statements {
            let plan = plan(&connection, &sql);
            let bounded = plan.matches("<expr>").count() + plan.matches("reference=?").count();
            let asked = sql.matches("= :").count() + sql.matches("< :").count() - 1;
            assert_eq!(plan.lines().count(), 1, "{sql}\n{plan}");
            assert!(plan.starts_with("SEARCH") && plan.contains("INDEX asked_"), "{sql}\n{plan}");
            let by_key = plan.matches("rowid<?").count();
            assert_eq!(bounded + by_key, asked, "every condition bounds the range: {sql}\n{plan}");
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
    fn an_index_of_other_words_is_made_anew() {
        let connection = filled();
        connection
            .execute_batch(
                "DROP INDEX asked_by_status;
                 CREATE INDEX asked_by_status ON notification_row (source, coalesce(status, ''));",
            )
            .unwrap();
        let sent = filter(&["sent"], &["sms"], None);
        let is_sorted = || {
            let range = &ranges(&connection, "passport", &sent).unwrap()[0];
            let sql = &parts(CREATED, range.index(), &range.conditions(), false)[0];
            plan(&connection, sql).contains("TEMP B-TREE")
        };
        assert!(is_sorted(), "the whole source is read, and sorted");
        assert!(make_index(&connection, Index::Status).unwrap());
        assert!(!is_sorted());
        assert!(!make_index(&connection, Index::Status).unwrap());
    }

    #[test]
    fn a_page_reads_no_more_rows_than_it_holds_however_many_there_are() {
        let steps = |rows: i64| {
            let connection = state();
            for key in 0..rows {
                // All of one reference and of one instant: the worst there is.
                put(&connection, 3 * key, (STATUSES[usize::try_from(key % 3).unwrap()], "sms"), 0);
            }
            let mut most = 0;
            for filter in filters() {
                for range in ranges(&connection, "passport", &filter).unwrap() {
                    for sql in parts(CREATED, range.index(), &range.conditions(), true) {
                        let after = Place { created: "2027".to_owned(), key: i64::MAX };
                        let source = "passport";
                        let parameters = [range.parameters(&source), behind(Some(&after))].concat();
                        let mut statement = connection.prepare(&sql).unwrap();
                        let mut found = statement.query(parameters.as_slice()).unwrap();
                        for _ in 0..5 {
                            let _ = found.next().unwrap();
                        }
                        drop(found);
                        most = most.max(statement.get_status(rusqlite::StatementStatus::VmStep));
                    }
                }
            }
            most
        };
        assert_eq!(steps(40), steps(2_000));
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
