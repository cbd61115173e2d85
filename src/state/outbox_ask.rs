//! What an operator asks of the outbox, and does to it.
//!
//! Rows are looked at by sink and, within one, in the order in which they are sent: that is the order
//! of the table, so nothing is sorted, and a [`Place`] in it is where the next look goes on. Each look
//! and each change reads a bounded number of rows, whatever it is asked for.
//!
//! Nothing here holds what a change tells, but for [`owed`], which is asked for one row.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};
use serde::{Deserialize, Serialize};

use super::outbox::{Owed, Standing, remove};
use super::outbox_read::{OWED, read_owed};
use super::write::some_time;
use crate::clock::Timestamp;
use crate::sqlite::write_transaction;

/// Rows in one look, and in one transaction: a few milliseconds.
pub const LOOK_ROWS_MAX: usize = 500;

/// The fewest digits of a change's id that name it.
pub const ID_DIGITS_MIN: usize = 4;

/// Which rows. Whatever is not set matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Owed to this sink.
    pub sink: Option<String>,
    /// That stand so.
    pub standing: Option<Standing>,
    /// Whose cause arrived before this.
    pub before: Option<Timestamp>,
    /// Whose last error contains this text.
    pub error: Option<String>,
    /// About the notification or message with this id, or of a change whose id begins so.
    pub id: Option<String>,
}

impl Selection {
    fn matches(&self, row: &OutboxRow) -> bool {
        let names_change = |id: &str| {
            id.len() >= ID_DIGITS_MIN
                && row.id.get(..id.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(id))
        };
        self.before.is_none_or(|before| row.received_at < before)
            && self
                .error
                .as_deref()
                .is_none_or(|text| row.error.as_deref().is_some_and(|error| error.contains(text)))
            && self
                .id
                .as_deref()
                .is_none_or(|id| row.subject.as_deref() == Some(id) || names_change(id))
    }
}

/// A place in the list. Opaque: its text may change its form, but never while a list is being read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    sink: String,
    key: i64,
}

/// The first byte of a place's text. It also keeps the text from beginning with `-`.
const PLACE_FORM: u8 = 2;

impl Place {
    /// Before the first row.
    pub fn start() -> Self {
        Self { sink: String::new(), key: i64::MIN }
    }

    /// The same place among the rows of one sink.
    fn within(self, sink: &str) -> Self {
        let key = match self.sink.as_str().cmp(sink) {
            std::cmp::Ordering::Less => i64::MIN,
            std::cmp::Ordering::Equal => self.key,
            std::cmp::Ordering::Greater => i64::MAX,
        };
        Self { sink: sink.to_owned(), key }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![PLACE_FORM];
        bytes.extend(self.key.to_be_bytes());
        bytes.extend(self.sink.as_bytes());
        f.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

/// The text is no place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the cursor that an earlier page ended with")]
pub struct NotAPlace;

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| NotAPlace)?;
        let Some((&PLACE_FORM, rest)) = bytes.split_first() else { return Err(NotAPlace) };
        let (key, sink) = rest.split_first_chunk().ok_or(NotAPlace)?;
        let sink = std::str::from_utf8(sink).map_err(|_| NotAPlace)?;
        Ok(Self { sink: sink.to_owned(), key: i64::from_be_bytes(*key) })
    }
}

/// A change that is owed to a sink, without what it tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutboxRow {
    /// To whom.
    pub sink: String,
    /// The change's id: 32 hexadecimal digits.
    pub id: String,
    /// `status`, `message`, `complaint`, `returned-letter` or `unrecognised`.
    pub kind: String,
    /// The source whose callback brought it about.
    pub source: String,
    /// The platform's id of the notification or message.
    pub subject: Option<String>,
    /// The notification's status after it.
    pub status: Option<String>,
    /// How far it has got.
    pub standing: Standing,
    /// Attempts that failed since it was owed, or last retried.
    pub attempts: u32,
    /// When it is tried again.
    pub due_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// When its cause arrived.
    pub received_at: Timestamp,
    /// Its key.
    #[serde(skip)]
    key: i64,
}

impl OutboxRow {
    /// The names of the columns, in their order.
    pub const COLUMNS: [&str; 11] = [
        "sink",
        "id",
        "kind",
        "source",
        "subject",
        "status",
        "standing",
        "attempts",
        "due_at",
        "error",
        "received_at",
    ];

    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            sink: row.get(0)?,
            key: row.get(1)?,
            id: row.get(2)?,
            kind: row.get(3)?,
            source: row.get(4)?,
            subject: row.get(5)?,
            status: row.get(6)?,
            standing: Standing::from_number(row.get(7)?),
            attempts: row.get(8)?,
            due_at: row.get::<_, Option<i64>>(9)?.map(Timestamp::from_unix_micros),
            error: row.get(10)?,
            received_at: some_time(row, 11)?,
        })
    }

    /// One that stands so, for the tests of what prints it.
    #[cfg(test)]
    pub fn for_test(sink: &str, standing: Standing, error: &str) -> Self {
        Self {
            sink: sink.to_owned(),
            id: "3f9a0c12".repeat(4),
            kind: "status".to_owned(),
            source: "passport".to_owned(),
            subject: Some("740e5834-3a29-46b4-9a6f-16142fde533a".to_owned()),
            status: Some("permanent-failure".to_owned()),
            standing,
            attempts: 7,
            due_at: None,
            error: Some(error.to_owned()),
            received_at: "2026-11-22T10:00:00Z".parse().unwrap_or(Timestamp::from_unix_micros(0)),
            key: 0,
        }
    }

    fn place(&self) -> Place {
        Place { sink: self.sink.clone(), key: self.key }
    }
}

/// Looks at up to `rows_max` rows after `place`. Those that match, and where to go on; no place at the
/// end.
fn look(
    connection: &Connection,
    selection: &Selection,
    place: Place,
    rows_max: usize,
) -> rusqlite::Result<(Vec<OutboxRow>, Option<Place>)> {
    let (place, within) = match &selection.sink {
        Some(sink) => (place.within(sink), "sink = ?1 AND key > ?2"),
        None => (place, "(sink, key) > (?1, ?2)"),
    };
    // As a literal, so that the index of the parked is used.
    let standing = selection
        .standing
        .map_or_else(String::new, |standing| format!("AND standing = {}", standing.number()));
    let sql = format!(
        "SELECT o.sink, o.key, lower(hex(c.id)), c.what, c.source, c.subject_id, c.status,
            o.standing, o.attempts, o.due_at, o.error, c.received_at
         FROM (SELECT * FROM outbox_row WHERE {within} {standing} ORDER BY sink, key LIMIT ?3) AS o
         JOIN change_row AS c ON c.key = o.key ORDER BY o.sink, o.key"
    );
    let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let parameters: [&dyn ToSql; 3] = [&place.sink, &place.key, &limit];
    let mut rows: Vec<OutboxRow> = connection
        .prepare_cached(&sql)?
        .query_map(parameters, OutboxRow::read)?
        .collect::<rusqlite::Result<_>>()?;
    let next = (rows.len() == rows_max).then(|| rows.last().map(OutboxRow::place)).flatten();
    rows.retain(|row| selection.matches(row));
    Ok((rows, next))
}

/// A page of the rows that match, and where the next begins; no place if there is none. Many short
/// reads, so that nobody waits.
pub fn list(
    connection: &Connection,
    selection: &Selection,
    after: &Place,
    rows_max: usize,
) -> rusqlite::Result<(Vec<OutboxRow>, Option<Place>)> {
    let mut found = Vec::new();
    let mut place = Some(after.clone());
    // One row more than asked for tells whether there is another page.
    while found.len() <= rows_max
        && let Some(from) = place
    {
        let (rows, next) = look(connection, selection, from, LOOK_ROWS_MAX)?;
        found.extend(rows);
        place = next;
    }
    let has_more = found.len() > rows_max;
    found.truncate(rows_max);
    Ok((found.clone(), has_more.then(|| found.last().map(OutboxRow::place)).flatten()))
}

/// A row with the change itself; `None` if it is gone by now.
pub fn owed(connection: &Connection, row: &OutboxRow) -> rusqlite::Result<Option<Owed>> {
    connection
        .prepare_cached(&format!("{OWED} WHERE o.sink = ?1 AND o.key = ?2"))?
        .query_row(params![row.sink, row.key], read_owed)
        .optional()
}

/// What one sink is owed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SinkCount {
    /// To whom.
    pub sink: String,
    /// Changes that are sent or will be.
    pub owed: i64,
    /// Of those, ones of which the last attempt failed.
    pub waiting: i64,
    /// Changes that were given up.
    pub parked: i64,
    /// When the cause of the oldest arrived that is not parked.
    pub oldest_received_at: Option<Timestamp>,
}

impl SinkCount {
    /// The names of the columns, in their order.
    pub const COLUMNS: [&str; 5] = ["sink", "owed", "waiting", "parked", "oldest_received_at"];
}

/// What each sink that is owed anything is owed, by name. Reads every row.
pub fn sinks(connection: &Connection) -> rusqlite::Result<Vec<SinkCount>> {
    connection
        .prepare_cached(
            "SELECT o.sink, o.owed, o.waiting, o.parked, c.received_at FROM (
                SELECT sink, count(*) FILTER (WHERE standing != 3) AS owed,
                    count(*) FILTER (WHERE standing = 1) AS waiting,
                    count(*) FILTER (WHERE standing = 3) AS parked,
                    min(key) FILTER (WHERE standing != 3) AS first
                FROM outbox_row GROUP BY sink
             ) AS o LEFT JOIN change_row AS c ON c.key = o.first ORDER BY o.sink",
        )?
        .query_map([], |row| {
            Ok(SinkCount {
                sink: row.get(0)?,
                owed: row.get(1)?,
                waiting: row.get(2)?,
                parked: row.get(3)?,
                oldest_received_at: super::write::time(row, 4)?,
            })
        })?
        .collect()
}

/// The key of the first change that is owed to any sink and not parked.
pub fn first_not_parked(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT min(key) FROM outbox_row WHERE standing != 3")?
        .query_row([], |row| row.get(0))
}

/// What to do to rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Try those that wait or are parked again, at once and as if they had never been tried.
    Retry,
    /// Remove them.
    Discard,
}

/// What to do to which rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What to do.
    pub verb: Verb,
    /// To which.
    pub selection: Selection,
}

/// Rows that were changed, of one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Those that were parked.
    pub parked: i64,
    /// The others.
    pub others: i64,
}

/// Rows that were changed, by sink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    /// Each with at least one.
    pub sinks: BTreeMap<String, Count>,
}

impl Touched {
    /// How many there are.
    pub fn rows(&self) -> i64 {
        self.sinks.values().map(|count| count.parked + count.others).sum()
    }

    /// Counts one of these rows.
    pub fn count(&mut self, row: &OutboxRow) {
        let count = self.sinks.entry(row.sink.clone()).or_default();
        match row.standing {
            Standing::Parked => count.parked += 1,
            Standing::Fresh | Standing::Waiting | Standing::Held => count.others += 1,
        }
    }

    fn add(&mut self, other: Self) {
        for (sink, Count { parked, others }) in other.sinks {
            let count = self.sinks.entry(sink).or_default();
            count.parked += parked;
            count.others += others;
        }
    }
}

/// A short transaction on the state's writing connection: what it came to, and where the next begins.
pub type Step =
    Box<dyn FnOnce(&mut Connection) -> rusqlite::Result<(Touched, Option<Place>)> + Send>;

/// Does what is ordered, in steps that `on_state` runs on the state's writing connection. `now`: when
/// what is retried, and what was held up, is due.
///
/// # Errors
/// Of a step; what was done stays done.
pub fn carry_out<E>(
    order: &Order,
    now: Timestamp,
    mut on_state: impl FnMut(Step) -> Result<(Touched, Option<Place>), E>,
) -> Result<Touched, E> {
    let mut touched = Touched::default();
    let mut place = Some(Place::start());
    while let Some(from) = place {
        let order = order.clone();
        let (more, next) = on_state(Box::new(move |connection| {
            let transaction = write_transaction(connection)?;
            let done = step(&transaction, &order, from, now)?;
            transaction.commit().map(|()| done)
        }))?;
        touched.add(more);
        place = next;
    }
    Ok(touched)
}

fn step(
    connection: &Connection,
    order: &Order,
    from: Place,
    now: Timestamp,
) -> rusqlite::Result<(Touched, Option<Place>)> {
    let (rows, next) = look(connection, &order.selection, from, LOOK_ROWS_MAX)?;
    let mut touched = Touched::default();
    for row in rows.iter().filter(|row| order.verb.is_for(row)) {
        match order.verb {
            Verb::Retry => retry(connection, row, now)?,
            Verb::Discard => drop(remove(connection, &row.sink, row.key, now)?),
        }
        touched.count(row);
    }
    Ok((touched, next))
}

impl Verb {
    /// Whether there is anything to do to this row: one that was never tried is tried anyhow.
    pub fn is_for(self, row: &OutboxRow) -> bool {
        self == Self::Discard || matches!(row.standing, Standing::Waiting | Standing::Parked)
    }
}

/// Makes a row due, or lets it be held if an earlier one of its subject waits. Later ones of its
/// subject that wait are held behind it, so that it goes first.
fn retry(connection: &Connection, row: &OutboxRow, now: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE outbox_row AS o SET attempts = 0, due_at = ?3, standing = 1 + EXISTS (
                SELECT 1 FROM outbox_row AS b
                WHERE b.sink = ?1 AND b.subject = o.subject AND b.key < ?2 AND b.standing IN (1, 2)
             ) WHERE sink = ?1 AND key = ?2",
        )?
        .execute(params![row.sink, row.key, now.unix_micros()])?;
    connection
        .prepare_cached(
            "UPDATE outbox_row SET standing = 2 WHERE sink = ?1 AND key > ?2 AND standing = 1
                AND subject = (SELECT subject FROM outbox_row WHERE sink = ?1 AND key = ?2)",
        )?
        .execute(params![row.sink, row.key])?;
    Ok(())
}

/// How many parked rows there are of changes up to `through_key`.
///
/// # Errors
/// Of SQLite.
pub fn count_parked(connection: &Connection, through_key: i64) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT count(*) FROM outbox_row WHERE standing = 3 AND key <= ?1")?
        .query_row([through_key], |row| row.get(0))
}

/// Removes up to [`LOOK_ROWS_MAX`] parked rows of changes up to `through_key`. How many, by sink; none
/// once there are no more.
pub fn discard_parked(
    connection: &Connection,
    through_key: i64,
    now: Timestamp,
) -> rusqlite::Result<Touched> {
    let limit = i64::try_from(LOOK_ROWS_MAX).unwrap_or(i64::MAX);
    let rows: Vec<(String, i64)> = connection
        .prepare_cached(
            "SELECT sink, key FROM outbox_row WHERE standing = 3 AND key <= ?1 LIMIT ?2",
        )?
        .query_map([through_key, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut touched = Touched::default();
    for (sink, key) in rows {
        remove(connection, &sink, key, now)?;
        touched.sinks.entry(sink).or_default().parked += 1;
    }
    Ok(touched)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Change, ChangeId, Filter, OwedTo, What};
    use crate::sqlite::open_in_memory;
    use crate::state::outbox::{self, Outcome, due};
    use crate::state::tables::SCHEMA;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_micros(1_764_000_000_000_000).plus_seconds(second)
    }

    /// A change of subject `key % 10`, owed to each of these sinks.
    fn owe(connection: &Connection, key: i64, sinks: &[&str]) {
        let subject = key % 10;
        let to: Vec<OwedTo> = sinks
            .iter()
            .map(|sink| OwedTo {
                sink: (*sink).into(),
                since: 0,
                filter: Filter::default(),
                is_latest_only: false,
                wants_body: false,
            })
            .collect();
        let mut id = [0; 16];
        id[..8].copy_from_slice(&key.to_be_bytes());
        id.rotate_left(7);
        let change = Change {
            key,
            id: ChangeId(id),
            what: What::Status,
            source: "passport".into(),
            subject,
            subject_id: Some(format!("n{subject}")),
            status: Some("delivered".to_owned()),
            precedence: None,
            received_at: at(key),
            data: "{}".to_owned(),
        };
        outbox::owe(connection, &change, &to.iter().collect::<Vec<_>>(), None).unwrap();
    }

    fn fail(connection: &Connection, key: i64, error: &str, is_parked: bool) {
        let error = error.to_owned();
        let outcome = if is_parked {
            Outcome::Parked { error }
        } else {
            Outcome::Waits { due_at: at(9_000), error }
        };
        outbox::record(connection, "app", key, &outcome, at(0)).unwrap();
    }

    fn all(connection: &Connection, selection: &Selection) -> Vec<(String, i64)> {
        let (rows, next) = list(connection, selection, &Place::start(), 10_000).unwrap();
        assert_eq!(next, None);
        rows.into_iter().map(|row| (row.sink, row.key)).collect()
    }

    fn keys(connection: &Connection, selection: Selection) -> Vec<i64> {
        let selection = Selection { sink: Some("app".to_owned()), ..selection };
        all(connection, &selection).into_iter().map(|(_, key)| key).collect()
    }

    fn order(connection: &mut Connection, verb: Verb, selection: Selection) -> Touched {
        let order = Order { verb, selection };
        carry_out(&order, at(5_000), |step| step(connection)).unwrap()
    }

    fn standings(connection: &Connection) -> Vec<(i64, Standing)> {
        let (rows, _) = list(connection, &Selection::default(), &Place::start(), 100).unwrap();
        rows.into_iter().map(|row| (row.key, row.standing)).collect()
    }

    #[test]
    fn pages_neither_skip_nor_repeat_a_row_and_a_place_survives_being_text() {
        let connection = open_in_memory(&SCHEMA).unwrap();
        for key in 1..=1_200 {
            owe(&connection, key, &["app", "archive"]);
        }
        let whole = all(&connection, &Selection::default());
        assert_eq!(whole.len(), 2_400);
        let mut read = Vec::new();
        let mut place = Some(Place::start());
        while let Some(from) = place {
            let from = from.to_string().parse().unwrap();
            let (rows, next) = list(&connection, &Selection::default(), &from, 7).unwrap();
            read.extend(rows.into_iter().map(|row| (row.sink, row.key)));
            place = next;
        }
        assert_eq!(read, whole);
        assert!("-".parse::<Place>().is_err() && "".parse::<Place>().is_err());
    }

    #[test]
    fn a_selection_is_by_sink_standing_age_error_and_either_id() {
        let connection = open_in_memory(&SCHEMA).unwrap();
        (1..=25).for_each(|key| owe(&connection, key, &["app", "archive"]));
        fail(&connection, 3, "answered 404", true);
        fail(&connection, 4, "answered 503", false);
        let by = |selection| keys(&connection, selection);
        assert_eq!(by(Selection { standing: Some(Standing::Parked), ..Selection::default() }), [3]);
        assert_eq!(by(Selection { error: Some("503".into()), ..Selection::default() }), [4]);
        assert_eq!(by(Selection { before: Some(at(3)), ..Selection::default() }), [1, 2]);
        assert_eq!(by(Selection { id: Some("n5".into()), ..Selection::default() }), [5, 15, 25]);
        assert_eq!(by(Selection { id: Some("0B00".into()), ..Selection::default() }), [11]);
        assert_eq!(by(Selection { id: Some("0b0".into()), ..Selection::default() }), [0; 0]);
        let counted = sinks(&connection).unwrap();
        let counts: Vec<_> =
            counted.iter().map(|count| (count.owed, count.waiting, count.parked)).collect();
        assert_eq!(counts, [(24, 1, 1), (25, 0, 0)]);
        assert_eq!(counted[0].oldest_received_at, Some(at(1)));
    }

    #[test]
    fn what_is_retried_goes_before_what_waits_of_its_subject() {
        let mut connection = open_in_memory(&SCHEMA).unwrap();
        [1, 11, 21].into_iter().for_each(|key| owe(&connection, key, &["app"]));
        fail(&connection, 1, "answered 404", true);
        fail(&connection, 11, "answered 404", true);
        fail(&connection, 21, "answered 503", false);
        let parked = Selection { standing: Some(Standing::Parked), ..Selection::default() };
        let touched = order(&mut connection, Verb::Retry, parked);
        assert_eq!(touched.sinks["app"], Count { parked: 2, others: 0 });
        let held = Standing::Held;
        assert_eq!(standings(&connection), [(1, Standing::Waiting), (11, held), (21, held)]);
        let rows = due(&connection, "app", at(5_000), 10).unwrap();
        assert_eq!(
            rows.iter().map(|row| (row.change.key, row.attempts)).collect::<Vec<_>>(),
            [(1, 0)]
        );
        outbox::record(&connection, "app", 1, &Outcome::Delivered, at(5_001)).unwrap();
        assert_eq!(standings(&connection), [(11, Standing::Waiting), (21, held)]);
    }

    #[test]
    fn what_fails_behind_one_that_is_retried_is_held_behind_it() {
        let mut connection = open_in_memory(&SCHEMA).unwrap();
        (0..3).for_each(|n| owe(&connection, 10 * n + 1, &["app"]));
        fail(&connection, 1, "refused", true);
        order(&mut connection, Verb::Retry, Selection::default());
        fail(&connection, 11, "it was on its way", false);
        let expected = [(1, Standing::Waiting), (11, Standing::Held), (21, Standing::Fresh)];
        assert_eq!(standings(&connection), expected);
        outbox::record(&connection, "app", 1, &Outcome::Delivered, at(6_000)).unwrap();
        assert_eq!(standings(&connection)[0], (11, Standing::Waiting));
    }

    #[test]
    fn what_became_of_a_row_that_somebody_discarded_meanwhile_is_not_counted_again() {
        let mut connection = open_in_memory(&SCHEMA).unwrap();
        owe(&connection, 1, &["app"]);
        let touched = order(&mut connection, Verb::Discard, Selection::default());
        assert_eq!(touched.rows(), 1);
        let error = || "late".to_owned();
        for outcome in [
            Outcome::Delivered,
            Outcome::Overtaken,
            Outcome::Held,
            Outcome::Waits { due_at: at(1), error: error() },
            Outcome::Parked { error: error() },
        ] {
            assert!(!outbox::record(&connection, "app", 1, &outcome, at(0)).unwrap());
        }
    }

    #[test]
    fn what_is_discarded_lets_go_what_it_held_and_takes_its_change_with_it() {
        let mut connection = open_in_memory(&SCHEMA).unwrap();
        owe(&connection, 1, &["app", "archive"]);
        owe(&connection, 11, &["app"]);
        fail(&connection, 1, "answered 503", false);
        outbox::record(&connection, "app", 11, &Outcome::Held, at(0)).unwrap();
        let first = |sink: &str| Selection {
            sink: Some(sink.to_owned()),
            before: Some(at(2)),
            ..Selection::default()
        };
        let changes = |connection: &Connection| -> i64 {
            connection.query_row("SELECT count(*) FROM change_row", [], |row| row.get(0)).unwrap()
        };
        let touched = order(&mut connection, Verb::Discard, first("app"));
        assert_eq!(touched.sinks["app"], Count { parked: 0, others: 1 });
        assert_eq!(changes(&connection), 2, "another sink is owed it");
        assert_eq!(standings(&connection), [(11, Standing::Waiting), (1, Standing::Fresh)]);
        order(&mut connection, Verb::Discard, first("archive"));
        assert_eq!(changes(&connection), 1);
    }

    #[test]
    fn no_transaction_is_longer_than_a_step() {
        let mut connection = open_in_memory(&SCHEMA).unwrap();
        let rows = 2 * i64::try_from(LOOK_ROWS_MAX).unwrap() + 1;
        (1..=rows).for_each(|key| owe(&connection, key, &["app"]));
        let order = Order { verb: Verb::Discard, selection: Selection::default() };
        let mut steps = Vec::new();
        let touched = carry_out(&order, at(0), |step| {
            let done = step(&mut connection)?;
            steps.push(done.0.rows());
            Ok::<_, rusqlite::Error>(done)
        });
        assert_eq!(touched.unwrap().rows(), rows);
        assert_eq!(steps, [500, 500, 1]);
    }
}
