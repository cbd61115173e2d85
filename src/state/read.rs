//! Questions asked of the state, in short reads that never hold up its writer.
//!
//! A [`Reader`] sees what was committed when each question is asked; between two questions settling
//! may go on. Rows have the columns of the public views, in their order.
//!
//! Lists come newest first, in pages. A [`Cursor`] stands for a position in the journal, where the
//! last row of a page was first heard of. That never changes and whatever is new stands before it,
//! so pages read one after another neither skip nor repeat a row while writes go on.
//!
//! `since` stops early instead of reading the whole table: the order of keys is the order of
//! arrival, which is that of `first_received_at` but for a wait in the queue or a clock that was
//! set. Reading stops at the first row more than [`CLOCK_ERROR_S_MAX`] before `since`; only a clock
//! that was further behind than that can hide rows older than its mistake.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, named_params};

use crate::clock::Timestamp;
use crate::ends::Ends;
use crate::sqlite::{self, Access, OpenError};

use super::expected::{Overdue, Question, overdue};
use super::outbox::Owed;
use super::outbox_ask;
use super::tables::SCHEMA;

pub use super::rows::{
    ExpectationRow, HistoryLine, MessageRow, NotificationRow, SourceCount, StatusCount,
};
pub use super::write::UnrecognisedRow;

/// Rows in one page, at most: bounds the memory of an answer.
pub const PAGE_ROWS_MAX: u32 = 10_000;

/// How far behind a machine's clock may have been for `since` still to find every row: a day, so
/// that a clock kept in local time is covered.
pub const CLOCK_ERROR_S_MAX: i64 = 24 * 60 * 60;

/// A place in a list. Opaque: its text may change its form, but never while a list is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(i64);

/// The first byte of a cursor's text. It also keeps the text from beginning with `-`.
const CURSOR_FORM: u8 = 1;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![CURSOR_FORM];
        bytes.extend(self.0.to_be_bytes());
        f.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

/// The text is no cursor of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the cursor that an earlier page ended with")]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| NotACursor)?;
        match bytes.split_first() {
            Some((&CURSOR_FORM, key)) => {
                key.try_into().map(|key| Self(i64::from_be_bytes(key))).map_err(|_| NotACursor)
            }
            _ => Err(NotACursor),
        }
    }
}

/// Which part of a list to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Only of this source.
    pub source: Option<String>,
    /// Only what first arrived at this instant or later.
    pub since: Option<Timestamp>,
    /// Only what first arrived before this instant.
    pub until: Option<Timestamp>,
    /// Rows in the page, up to [`PAGE_ROWS_MAX`].
    pub limit: u32,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

/// Which notifications to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Which part of the list.
    pub window: Window,
    /// Only with one of these statuses; empty for any.
    pub statuses: Vec<String>,
    /// Only with this reference.
    pub reference: Option<String>,
    /// Only of this type.
    pub notification_type: Option<String>,
    /// Only those that should have come to an end.
    pub stuck: Option<Stuck>,
}

/// Notifications that should have come to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// What is an end.
    pub ends: Ends,
    /// They were created, or heard of, before this.
    pub since: Timestamp,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<R> {
    /// Newest first.
    pub rows: Vec<R>,
    /// Where to go on, if there is more.
    pub next: Option<Cursor>,
}

/// A read-only connection to a state.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

/// A table that is read in pages.
struct List<R> {
    from: &'static str,
    columns: &'static [&'static str],
    /// The integer key it is ordered by.
    key: &'static str,
    /// When a row first arrived.
    arrived: &'static str,
    /// Further conditions, on parameters of the caller's.
    matches: &'static str,
    read: fn(&Row<'_>) -> rusqlite::Result<R>,
}

const NOTIFICATIONS: List<NotificationRow> = List {
    from: "notification_row",
    columns: &NotificationRow::COLUMNS,
    key: "key",
    arrived: "first_received_at",
    matches: "(:type IS NULL OR notification_type = :type)
        AND (:statuses IS NULL OR status IN (SELECT value FROM json_each(:statuses)))
        AND (:open_before IS NULL OR coalesce(created_at, first_received_at) < :open_before
            AND returned_at IS NULL
            AND (status IS NULL OR NOT status IN (SELECT value FROM json_each(:ends))
                AND NOT json_array(status, notification_type, source)
                    IN (SELECT value FROM json_each(:ends))))",
    read: NotificationRow::read,
};

const MESSAGES: List<MessageRow> = List {
    from: "message_row",
    columns: &MessageRow::COLUMNS,
    key: "key",
    arrived: "received_at",
    matches: "TRUE",
    read: MessageRow::read,
};

const UNRECOGNISED: List<UnrecognisedRow> = List {
    from: "unrecognised",
    columns: &UnrecognisedRow::COLUMNS,
    key: "seq",
    arrived: "received_at",
    matches: "TRUE",
    read: UnrecognisedRow::read,
};

impl Reader {
    /// Opens the state at `path`, which must exist.
    ///
    /// # Errors
    /// If it cannot be opened, is no state of ours or of a newer version.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        sqlite::open(path, &SCHEMA, Access::Read).map(Self::over)
    }

    /// Reads through `connection`, which has the state's tables.
    pub fn over(connection: Connection) -> Self {
        Self { connection }
    }

    /// The notification with this id, of one source or of each that has one, by source.
    pub fn notification(
        &self,
        source: Option<&str>,
        id: &str,
    ) -> rusqlite::Result<Vec<NotificationRow>> {
        self.by_id(&NOTIFICATIONS, source, id)
    }

    /// The received message with this id, of one source or of each that has one, by source.
    pub fn message(&self, source: Option<&str>, id: &str) -> rusqlite::Result<Vec<MessageRow>> {
        self.by_id(&MESSAGES, source, id)
    }

    /// What an app said of this notification, through one source or through each where one did, by
    /// source; whether anything was heard of it or not.
    pub fn expectation(
        &self,
        source: Option<&str>,
        id: &str,
    ) -> rusqlite::Result<Vec<ExpectationRow>> {
        let columns = ExpectationRow::COLUMNS.join(", ");
        let sql = format!(
            "SELECT {columns} FROM expected WHERE id = ?1 AND (?2 IS NULL OR source = ?2)
             ORDER BY source"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        statement.query_map((id, source), ExpectationRow::read)?.collect()
    }

    fn by_id<R>(&self, list: &List<R>, source: Option<&str>, id: &str) -> rusqlite::Result<Vec<R>> {
        let sql = format!(
            "SELECT {} FROM {} WHERE id = :id AND (:source IS NULL OR source = :source)
             ORDER BY source",
            list.columns.join(", "),
            list.from
        );
        self.connection
            .prepare_cached(&sql)?
            .query_map(named_params! { ":id": id, ":source": source }, list.read)?
            .collect()
    }

    /// Every callback about this notification or message, in the order of the journal.
    pub fn history(&self, source: &str, id: &str) -> rusqlite::Result<Vec<HistoryLine>> {
        let columns = HistoryLine::COLUMNS.join(", ");
        self.connection
            .prepare_cached(&format!(
                "SELECT {columns} FROM history WHERE source = ?1 AND id = ?2 ORDER BY seq"
            ))?
            .query_map([source, id], HistoryLine::read)?
            .collect()
    }

    /// Notifications, newest first. With a reference, through its index.
    pub fn list(&self, filter: &Filter) -> rusqlite::Result<Page<NotificationRow>> {
        let Filter { window, statuses, reference, notification_type, stuck } = filter;
        let statuses = (!statuses.is_empty()).then(|| serde_json::json!(statuses).to_string());
        let mut more: Vec<(&str, &dyn ToSql)> =
            vec![(":type", notification_type), (":statuses", &statuses)];
        let (ends, open_before) = match stuck {
            Some(Stuck { ends, since }) => (Some(ends.to_json()), Some(since.to_string())),
            None => (None, None),
        };
        more.extend([(":ends", &ends as &dyn ToSql), (":open_before", &open_before)]);
        let mut within = "TRUE";
        if reference.is_some() {
            within = "reference = :reference";
            more.push((":reference", reference));
        }
        self.page(&NOTIFICATIONS, window, within, &more)
    }

    /// Received messages, newest first.
    pub fn messages(&self, window: &Window) -> rusqlite::Result<Page<MessageRow>> {
        self.page(&MESSAGES, window, "TRUE", &[])
    }

    /// Callbacks that were not, or not wholly, understood, newest first.
    pub fn unrecognised(&self, window: &Window) -> rusqlite::Result<Page<UnrecognisedRow>> {
        self.page(&UNRECOGNISED, window, "TRUE", &[])
    }

    /// Why the callback at `seq` was not understood; `None` if it was, or there is none.
    pub fn unrecognised_at(&self, seq: i64) -> rusqlite::Result<Option<UnrecognisedRow>> {
        let columns = UnrecognisedRow::COLUMNS.join(", ");
        self.connection
            .prepare_cached(&format!("SELECT {columns} FROM unrecognised WHERE seq = ?1"))?
            .query_row([seq], UnrecognisedRow::read)
            .optional()
    }

    /// `within` bounds what is read, so it must be something an index answers; everything else is
    /// asked of each row. A row from long before `since` is let through to end the reading.
    fn page<R>(
        &self,
        list: &List<R>,
        window: &Window,
        within: &str,
        more: &[(&str, &dyn ToSql)],
    ) -> rusqlite::Result<Page<R>> {
        let List { from, columns, key, arrived, matches, read } = list;
        let sql = format!(
            "SELECT {columns}, {key}, {arrived} FROM {from}
             WHERE {key} < :before AND {within} AND (
                (:source IS NULL OR source = :source)
                AND (:since IS NULL OR {arrived} >= :since)
                AND (:until IS NULL OR {arrived} < :until)
                AND {matches}
                OR {arrived} < :stop)
             ORDER BY {key} DESC LIMIT :rows",
            columns = columns.join(", "),
        );
        let limit = window.limit.min(PAGE_ROWS_MAX);
        let before = window.cursor.map_or(i64::MAX, |cursor| cursor.0);
        let since = window.since.map(|since| since.to_string());
        let until = window.until.map(|until| until.to_string());
        let stop = window.since.map(|since| since.plus_seconds(-CLOCK_ERROR_S_MAX).to_string());
        // One row more than asked for tells whether there is another page.
        let rows_max = i64::from(limit) + 1;
        let mut parameters: Vec<(&str, &dyn ToSql)> = vec![
            (":before", &before),
            (":source", &window.source),
            (":since", &since),
            (":until", &until),
            (":stop", &stop),
            (":rows", &rows_max),
        ];
        parameters.extend_from_slice(more);
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut found = statement.query(parameters.as_slice())?;
        let mut page = Page { rows: Vec::new(), next: None };
        let mut last = None;
        while let Some(row) = found.next()? {
            let arrived: String = row.get(columns.len() + 1)?;
            if stop.as_ref().is_some_and(|stop| arrived < *stop) {
                break;
            }
            if page.rows.len() == limit as usize {
                page.next = last;
                break;
            }
            page.rows.push(read(row)?);
            last = Some(Cursor(row.get(columns.len())?));
        }
        Ok(page)
    }

    /// How many notifications each source has in each status: the most frequent first. Reads every
    /// notification.
    pub fn stats(&self) -> rusqlite::Result<Vec<StatusCount>> {
        self.connection
            .prepare_cached(
                "SELECT source, status, count(*), sum(receipts), sum(duplicates)
                 FROM notification_row GROUP BY source, status
                 ORDER BY source, count(*) DESC, status",
            )?
            .query_map([], StatusCount::read)?
            .collect()
    }

    /// What is owed to sinks: see [`outbox_ask::list`].
    pub fn outbox(
        &self,
        selection: &outbox_ask::Selection,
        after: &outbox_ask::Place,
        rows_max: usize,
    ) -> rusqlite::Result<(Vec<outbox_ask::OutboxRow>, Option<outbox_ask::Place>)> {
        outbox_ask::list(&self.connection, selection, after, rows_max)
    }

    /// A row of the outbox with the change itself; `None` if it is gone by now.
    pub fn owed(&self, row: &outbox_ask::OutboxRow) -> rusqlite::Result<Option<Owed>> {
        outbox_ask::owed(&self.connection, row)
    }

    /// What each sink that is owed anything is owed, by name. Reads the whole outbox.
    pub fn sinks(&self) -> rusqlite::Result<Vec<outbox_ask::SinkCount>> {
        outbox_ask::sinks(&self.connection)
    }

    /// What an app said it sent and has not come to an end in time.
    pub fn overdue(&self, question: &Question<'_>) -> rusqlite::Result<Vec<Overdue>> {
        overdue(&self.connection, question)
    }

    /// What each source has sent, by source. Reads every row.
    pub fn sources(&self) -> rusqlite::Result<Vec<SourceCount>> {
        self.connection
            .prepare_cached(
                "SELECT source, sum(notifications), sum(receipts), sum(duplicates),
                        sum(messages), sum(unrecognised), max(last)
                 FROM (
                    SELECT source, count(*) AS notifications, sum(receipts) AS receipts,
                           sum(duplicates) AS duplicates, 0 AS messages, 0 AS unrecognised,
                           max(last_received_at) AS last
                    FROM notification_row GROUP BY source
                    UNION ALL
                    SELECT source, 0, 0, 0, count(*), 0, max(received_at)
                    FROM message_row GROUP BY source
                    UNION ALL
                    SELECT source, 0, 0, 0, 0, count(*), max(received_at)
                    FROM unrecognised GROUP BY source
                 ) GROUP BY source ORDER BY source",
            )?
            .query_map([], SourceCount::read)?
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::callback::{
        Fingerprint, Identity, Kind, Origin, Precedence, ReceivedMessage, Standing as Told,
    };
    use crate::merge::Facts;
    use crate::state::plan;
    use crate::state::tables::key;
    use crate::state::write::{
        HistoryRow, Message, Notification, add_history, add_unrecognised, put_message,
        put_notification,
    };

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Minute `minute` of a long day.
    fn minute(minute: i64) -> Timestamp {
        at("2026-11-22T00:00:00Z").plus_seconds(60 * minute)
    }

    fn state() -> Reader {
        Reader::over(sqlite::open_in_memory(&SCHEMA).unwrap())
    }

    fn window() -> Window {
        Window { source: None, since: None, until: None, limit: 100, cursor: None }
    }

    fn filter() -> Filter {
        Filter {
            window: window(),
            statuses: vec![],
            reference: None,
            notification_type: None,
            stuck: None,
        }
    }

    /// A notification first heard of at `seq`, with one line of history.
    fn put(reader: &Reader, seq: i64, source: &str, id: &str, status: &str, arrived: Timestamp) {
        let fingerprint = Fingerprint::of(&seq.to_be_bytes());
        let precedence = Precedence { version: Some(arrived), rank: 1, fingerprint };
        let notification = Notification {
            facts: Facts {
                standing: Some(Told {
                    precedence,
                    status: status.to_owned(),
                    status_description: None,
                    provider_response: None,
                    completed_at: Some(arrived),
                    sent_at: None,
                }),
                identity: Identity {
                    reference: Some(format!("reference-{}", seq % 10)),
                    notification_type: Some("sms".to_owned()),
                    ..Identity::default()
                },
                ..Facts::default()
            },
            receipts: 1,
            duplicates: 2,
            first_received_at: arrived,
            last_received_at: arrived,
        };
        put_notification(&reader.connection, (key(seq, 0), false), source, id, &notification)
            .unwrap();
        add_line(reader, seq, key(seq, 0), Kind::Receipt, arrived);
    }

    fn add_line(reader: &Reader, seq: i64, subject: i64, kind: Kind, received_at: Timestamp) {
        let row = HistoryRow {
            seq,
            event: 0,
            subject,
            kind,
            status: (kind == Kind::Receipt).then(|| "delivered".to_owned()),
            completed_at: None,
            received_at,
            duplicate: false,
            fingerprint: Fingerprint::of(&seq.to_be_bytes()),
        };
        add_history(&reader.connection, &row).unwrap();
    }

    fn put_text(reader: &Reader, seq: i64, id: &str, received_at: Timestamp) {
        let message = ReceivedMessage {
            id: id.to_owned(),
            source_number: Some("447700900111".to_owned()),
            destination_number: None,
            message: Some("hello".to_owned()),
            date_received: None,
        };
        let message =
            Message { message, fingerprint: Fingerprint::of(&seq.to_be_bytes()), received_at };
        put_message(&reader.connection, key(seq, 0), "passport", &message).unwrap();
        add_line(reader, seq, key(seq, 0), Kind::ReceivedMessage, received_at);
    }

    fn ids(page: &Page<NotificationRow>) -> Vec<&str> {
        page.rows.iter().map(|row| row.id.as_str()).collect()
    }

    #[test]
    fn a_look_up_through_a_public_view_never_scans_a_table() {
        let reader = state();
        for sql in [
            "SELECT * FROM notification WHERE id = ?",
            "SELECT * FROM notification WHERE source = ? AND id = ?",
            "SELECT * FROM notification WHERE reference = ?",
            "SELECT * FROM notification WHERE reference = ? AND source = ? ORDER BY created_at",
            "SELECT status FROM notification WHERE id IN (?, ?, ?)",
            "SELECT * FROM received_message WHERE id = ?",
            "SELECT * FROM received_message WHERE source = ? AND id = ?",
            "SELECT * FROM history WHERE id = ?",
            "SELECT * FROM history WHERE source = ? AND id = ?",
            "SELECT * FROM history WHERE source = ? AND id = ? ORDER BY seq",
            "SELECT * FROM history WHERE id = ? AND status = 'delivered' ORDER BY seq DESC LIMIT 1",
            "SELECT * FROM unrecognised WHERE seq = ?",
            "SELECT * FROM unrecognised WHERE seq > ? ORDER BY seq LIMIT 100",
        ] {
            let plan = plan(&reader.connection, sql);
            assert!(plan.contains("SEARCH") && !plan.contains("SCAN"), "{sql}\n{plan}");
        }
    }

    #[test]
    fn following_the_history_view_neither_scans_nor_sorts() {
        let reader = state();
        for sql in [
            "SELECT * FROM history WHERE seq > ? ORDER BY seq LIMIT 100",
            "SELECT * FROM history WHERE seq > ? AND seq <= ? ORDER BY seq",
            "SELECT * FROM history WHERE seq = ?",
            "SELECT * FROM history WHERE seq < ? ORDER BY seq DESC LIMIT 10",
        ] {
            let plan = plan(&reader.connection, sql);
            assert!(plan.contains("SEARCH") && !plan.contains("SCAN"), "{sql}\n{plan}");
            assert!(!plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
        }
    }

    #[test]
    fn a_page_of_history_costs_the_same_however_much_there_is() {
        let steps = |rows: i64| -> [i32; 2] {
            let reader = state();
            for seq in 1..=rows {
                put(&reader, seq, "passport", &format!("n{seq}"), "sent", minute(seq));
            }
            [
                "SELECT * FROM history WHERE seq > 3 ORDER BY seq LIMIT 5",
                "SELECT * FROM history WHERE source = 'passport' AND id = 'n3' ORDER BY seq",
            ]
            .map(|sql| {
                let mut statement = reader.connection.prepare(sql).unwrap();
                let mut found = statement.query([]).unwrap();
                while found.next().unwrap().is_some() {}
                drop(found);
                statement.get_status(StatementStatus::VmStep)
            })
        };
        assert_eq!(steps(20), steps(2_000));
    }

    #[test]
    fn rows_have_the_columns_of_the_public_views() {
        let reader = state();
        let columns = |view: &str| {
            let statement = reader.connection.prepare(&format!("SELECT * FROM {view}")).unwrap();
            statement.column_names().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(columns("notification"), NotificationRow::COLUMNS);
        assert_eq!(columns("received_message"), MessageRow::COLUMNS);
        assert_eq!(columns("history"), HistoryLine::COLUMNS);
        assert_eq!(columns("expected"), ExpectationRow::COLUMNS);
        assert_eq!(columns("unrecognised"), UnrecognisedRow::COLUMNS);
    }

    #[test]
    fn pages_neither_skip_nor_repeat_while_rows_are_added_and_changed() {
        let reader = state();
        for seq in 1..=7 {
            put(&reader, seq, "passport", &format!("n{seq}"), "sent", minute(seq));
        }
        let mut filter = filter();
        filter.window.limit = 3;
        let mut seen = Vec::new();
        for round in 0.. {
            let page = reader.list(&filter).unwrap();
            seen.extend(page.rows.into_iter().map(|row| row.id));
            let Some(next) = page.next else { break };
            filter.window.cursor = Some(next.to_string().parse().unwrap());
            put(&reader, 100 + round, "passport", &format!("new{round}"), "sent", minute(100));
            let change =
                "UPDATE notification_row SET receipts = 2, last_received_at = first_received_at
                          WHERE id IN ('n1', 'n4', 'n7')";
            reader.connection.execute(change, []).unwrap();
        }
        assert_eq!(seen, ["n7", "n6", "n5", "n4", "n3", "n2", "n1"]);
    }

    #[test]
    fn a_full_last_page_says_that_it_is_the_last() {
        let reader = state();
        for seq in 1..=4 {
            put(&reader, seq, "passport", &format!("n{seq}"), "sent", minute(seq));
        }
        let mut filter = filter();
        filter.window.limit = 2;
        filter.window.cursor = reader.list(&filter).unwrap().next;
        let page = reader.list(&filter).unwrap();
        assert_eq!((ids(&page), page.next), (vec!["n2", "n1"], None));
    }

    #[test]
    fn each_filter_holds_and_all_hold_together() {
        let reader = state();
        put(&reader, 11, "passport", "a", "delivered", minute(1));
        put(&reader, 12, "passport", "b", "permanent-failure", minute(2));
        put(&reader, 13, "visa", "c", "temporary-failure", minute(3));
        put(&reader, 14, "visa", "d", "delivered", minute(4));
        let listed = |change: &dyn Fn(&mut Filter)| {
            let mut filter = filter();
            change(&mut filter);
            ids(&reader.list(&filter).unwrap()).concat()
        };
        assert_eq!(listed(&|_| {}), "dcba");
        assert_eq!(listed(&|f| f.window.source = Some("visa".into())), "dc");
        assert_eq!(listed(&|f| f.statuses = vec!["delivered".into()]), "da");
        let failures = ["permanent-failure", "temporary-failure"].map(str::to_owned);
        assert_eq!(listed(&|f| f.statuses = failures.to_vec()), "cb");
        assert_eq!(listed(&|f| f.reference = Some("reference-2".into())), "b");
        assert_eq!(listed(&|f| f.notification_type = Some("email".into())), "");
        assert_eq!(listed(&|f| f.window.since = Some(minute(2))), "dcb", "since is inclusive");
        assert_eq!(listed(&|f| f.window.until = Some(minute(2))), "a", "until is exclusive");
        let all = listed(&|f| {
            f.window.since = Some(minute(2));
            f.window.source = Some("visa".into());
            f.statuses = vec!["delivered".into()];
        });
        assert_eq!(all, "d");
    }

    #[test]
    fn a_status_is_a_value_and_never_a_part_of_the_question() {
        let reader = state();
        put(&reader, 1, "passport", "a", "it's \"odd\"]", minute(1));
        let statuses = vec!["it's \"odd\"]".to_owned()];
        assert_eq!(ids(&reader.list(&Filter { statuses, ..filter() }).unwrap()), ["a"]);
    }

    #[test]
    fn since_finds_what_a_clock_hours_behind_had_covered_and_stops_before_older_days() {
        let reader = state();
        put(&reader, 1, "passport", "days-before", "sent", minute(-3 * 24 * 60));
        put(&reader, 2, "passport", "in-time", "sent", minute(60));
        put(&reader, 3, "passport", "clock-behind", "sent", minute(-12 * 60));
        put(&reader, 4, "passport", "newest", "sent", minute(61));
        let mut filter = filter();
        filter.window.since = Some(minute(0));
        assert_eq!(ids(&reader.list(&filter).unwrap()), ["newest", "in-time"]);

        // Damage an old row: reading it would fail, so it is the proof that nobody does.
        put(&reader, 0, "passport", "never-read", "sent", minute(0));
        reader
            .connection
            .execute("UPDATE notification_row SET created_at = 'x' WHERE id = 'never-read'", [])
            .unwrap();
        assert_eq!(ids(&reader.list(&filter).unwrap()), ["newest", "in-time"]);
    }

    #[test]
    fn a_reference_is_listed_through_its_index() {
        let plan = plan(
            &state().connection,
            "SELECT * FROM notification_row WHERE key < :before AND reference = :reference
             AND (source = :source OR first_received_at < :stop) ORDER BY key DESC LIMIT 5",
        );
        assert!(plan.contains("notification_by_reference (reference=? AND rowid<?)"), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }

    #[test]
    fn what_an_app_said_is_found_by_its_id_through_an_index() {
        let reader = state();
        let sql = "INSERT INTO expected_row VALUES (1, 'visa', 'n', 'r', NULL, ?1, 1, ?1, NULL),
                   (2, 'passport', 'n', NULL, ?1, ?1, 2, ?1, NULL)";
        reader.connection.execute(sql, [minute(1).to_string()]).unwrap();
        let sources = |source, id| {
            let found = reader.expectation(source, id).unwrap();
            found.into_iter().map(|row| row.source).collect::<Vec<_>>()
        };
        assert_eq!(sources(None, "n"), ["passport", "visa"]);
        assert_eq!(sources(Some("visa"), "n"), ["visa"]);
        assert_eq!((sources(Some("other"), "n"), sources(None, "m")), (vec![], vec![]));
        let row = &reader.expectation(Some("visa"), "n").unwrap()[0];
        assert_eq!((row.reference.as_deref(), row.deadline), (Some("r"), None));
        let plan = plan(&reader.connection, "SELECT since FROM expected WHERE id = ?1");
        assert!(plan.starts_with("SEARCH") && plan.contains("(id=?)"), "{plan}");
    }

    #[test]
    fn one_id_may_be_known_to_several_sources() {
        let reader = state();
        put(&reader, 1, "visa", "same", "sent", minute(1));
        put(&reader, 2, "passport", "same", "delivered", minute(2));
        let sources = |source| {
            let found = reader.notification(source, "same").unwrap();
            found.into_iter().map(|row| row.source).collect::<Vec<_>>()
        };
        assert_eq!(sources(None), ["passport", "visa"]);
        assert_eq!(sources(Some("visa")), ["visa"]);
        assert!(sources(Some("other")).is_empty());
        assert_eq!(reader.history("visa", "same").unwrap().len(), 1);
    }

    #[test]
    fn messages_have_a_history_too() {
        let reader = state();
        put_text(&reader, 1, "text", minute(1));
        put(&reader, 2, "passport", "n", "sent", minute(2));
        let kinds = |id| {
            let found = reader.history("passport", id).unwrap();
            found.into_iter().map(|line| line.kind).collect::<Vec<_>>()
        };
        assert_eq!(kinds("text"), ["received-message"]);
        assert_eq!(kinds("n"), ["receipt"]);
        assert_eq!(reader.message(None, "text").unwrap().len(), 1);
        assert_eq!(reader.messages(&window()).unwrap().rows[0].message.as_deref(), Some("hello"));
    }

    #[test]
    fn history_tells_how_each_came_also_what_an_earlier_version_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let write = Access::Write(sqlite::Durability::Normal);
        let before = sqlite::Schema { migrations: &SCHEMA.migrations[..4], ..SCHEMA };
        let reader = Reader::over(sqlite::open(&path, &before, write).unwrap());
        for seq in 1..=2 {
            put(&reader, seq, "passport", &format!("n-{seq}"), "sent", minute(seq));
            put_text(&reader, seq + 2, &format!("text-{seq}"), minute(seq));
        }
        for table in ["history_row", "message_history_row"] {
            let sql = format!("UPDATE {table} SET fingerprint = ?1 WHERE seq % 2 = 0");
            let polled = Fingerprint::of_polled(b"asked for").0;
            reader.connection.execute(&sql, [polled]).unwrap();
        }
        drop(reader);
        let reader = Reader::over(sqlite::open(&path, &SCHEMA, write).unwrap());
        let origins = |id: &str| -> Vec<String> {
            let lines = reader.history("passport", id).unwrap();
            lines.into_iter().map(|line| line.origin).collect()
        };
        let words = [Origin::CalledBack, Origin::Polled].map(Origin::as_str);
        for kind in ["n", "text"] {
            assert_eq!([1, 2].map(|number| origins(&format!("{kind}-{number}"))).concat(), words);
        }
    }

    #[test]
    fn every_source_is_counted_even_one_that_was_never_understood() {
        let reader = state();
        put(&reader, 1, "passport", "a", "sent", minute(1));
        put(&reader, 2, "passport", "b", "delivered", minute(2));
        put(&reader, 3, "passport", "c", "delivered", minute(3));
        put_text(&reader, 4, "text", minute(4));
        let row = UnrecognisedRow {
            seq: 5,
            source: "visa".to_owned(),
            received_at: minute(5),
            reason: "not JSON".to_owned(),
        };
        add_unrecognised(&reader.connection, &row).unwrap();
        let stats = reader.stats().unwrap();
        let told = stats.iter().map(|s| (s.status.as_deref(), s.notifications, s.receipts));
        assert_eq!(told.collect::<Vec<_>>(), [(Some("delivered"), 2, 2), (Some("sent"), 1, 1)]);
        let sources = reader.sources().unwrap();
        let told = sources
            .iter()
            .map(|s| (s.source.as_str(), [s.notifications, s.receipts, s.duplicates, s.messages]));
        assert_eq!(told.collect::<Vec<_>>(), [("passport", [3, 3, 6, 1]), ("visa", [0; 4])]);
        assert_eq!(sources[1].unrecognised, 1);
        assert_eq!(sources[0].last_received_at, Some(minute(4)));
        assert_eq!(reader.unrecognised(&window()).unwrap().rows, std::slice::from_ref(&row));
        assert_eq!(reader.unrecognised_at(5).unwrap(), Some(row));
        assert_eq!(reader.unrecognised_at(1).unwrap(), None);
    }

    #[test]
    fn a_cursor_is_what_it_was_and_anything_else_is_refused() {
        let cursor = Cursor(key(1_234_567, 3));
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        assert!(!Cursor(i64::MAX).to_string().starts_with('-'));
        for text in ["", "1", "AQ", "-----------", &cursor.to_string()[1..], "not a cursor"] {
            assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
        }
    }
}
