//! Whatever names a position or a moment in text.
//!
//! Covered are the cursor that `receiptd list --cursor` takes and the pages behind it (those of the read
//! API are sealed: see `seal`), the moments of `--since` and `--until`, the timestamps of every body, the cursor row of the state, and the positions and receive times
//! that the journal's reader reads back.
//!
//! The input is lines of text, each tried as all of these. Whatever it is:
//! - a cursor that is accepted is written back as the same text, and its page is exactly what
//!   stands behind that position, filtered by the moments of the other lines;
//! - an RFC 3339 timestamp in range is accepted, and is the instant that the calendar says;
//! - instants are written in 27 characters, read back as themselves, and sorted by their text;
//! - a moment is an instant, never an overflow, and one that is so long ago is not after now;
//! - a position is kept as it was given; a receive time that is none is an error.

use data_encoding::BASE64URL_NOPAD;
use receiptd::callback::{Callback, Origin};
use receiptd::cli::pages::Moment;
use receiptd::clock::Timestamp;
use receiptd::journal::{self, reader};
use receiptd::provider::{Dialect, Provider};
use receiptd::settle::settle;
use receiptd::sqlite;
use receiptd::state::read::{Cursor, Filter, NotificationRow, Reader, Window};
use receiptd::state::tables::{self, cursor, set_cursor};
use rusqlite::Connection;

use super::oracle::{assert_instant, now};

/// Notifications in the list that pages are read from.
const ROWS: i64 = 12;

/// Rows in a page.
const PAGE: usize = 5;

/// Lines that are looked at.
const LINES_MAX: usize = 8;

/// The lists and tables that positions point into; as good as new after each input.
struct Places {
    list: Reader,
    /// Every row with its position, newest first.
    rows: Vec<(i64, NotificationRow)>,
    state: Connection,
    journal: reader::Reader,
}

thread_local! {
    static PLACES: std::cell::RefCell<Places> = std::cell::RefCell::new(Places::new());
}

/// Checks lines of text.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.split('\n').take(LINES_MAX).collect();
    let instants: Vec<Timestamp> = lines.iter().filter_map(|line| check_timestamp(line)).collect();
    for two in instants.windows(2) {
        let (a, b) = (two[0], two[1]);
        assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()), "{a} {b}");
    }
    let moments: Vec<Timestamp> = lines.iter().filter_map(|line| check_moment(line)).collect();
    let cursors: Vec<(i64, Cursor)> = lines.iter().filter_map(|line| check_cursor(line)).collect();
    PLACES.with_borrow_mut(|places| {
        let position = cursors.first().copied();
        places.check_page(position, moments.first().copied(), moments.get(1).copied());
        for (line, (seq, _)) in lines.iter().zip(&cursors) {
            places.check_rows(line, *seq);
        }
        if cursors.is_empty() {
            places.check_rows(lines[0], 1);
        }
    });
}

fn check_timestamp(text: &str) -> Option<Timestamp> {
    let read = text.parse::<Timestamp>().ok();
    if let Some(micros) = rfc3339(text) {
        assert_eq!(read.map(Timestamp::unix_micros), Some(micros), "{text}");
    }
    read.into_iter().for_each(assert_instant);
    read
}

/// Microseconds by the calendar, for what RFC 3339 calls a date-time of the years 1000 to 9998,
/// without leap seconds and in the letters T and Z.
fn rfc3339(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to).filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<i64>().ok()
    };
    let is = |at: usize, byte: u8| text.as_bytes().get(at) == Some(&byte);
    let separated = is(4, b'-') && is(7, b'-') && is(10, b'T') && is(13, b':') && is(16, b':');
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let rest = text.get(19..).filter(|_| separated && text.len() <= 64)?;
    let zone_at = rest.find(['Z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(zone_at);
    let micros = match fraction.strip_prefix('.') {
        Some(digits) if (1..=9).contains(&digits.len()) => {
            digits.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
            format!("{digits:0<6}")[..6].parse::<i64>().ok()?
        }
        None if fraction.is_empty() => 0,
        _ => return None,
    };
    let offset_minutes = if zone == "Z" {
        0
    } else if zone.starts_with('Z') {
        return None;
    } else {
        let at = 19 + zone_at;
        let (hours, minutes) = (number(at + 1, at + 3)?, number(at + 4, at + 6)?);
        (is(at + 3, b':') && text.len() == at + 6 && hours < 24 && minutes < 60).then_some(())?;
        (hours * 60 + minutes) * if is(at, b'-') { -1 } else { 1 }
    };
    let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let months = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let days_max = *months.get(usize::try_from(month - 1).ok()?)?;
    let in_range = (1..=days_max).contains(&day) && hour < 24 && minute < 60 && second < 60;
    (in_range && (1000..=9998).contains(&year)).then_some(())?;
    // Days from 0000-03-01, a year that begins in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + (minute - offset_minutes) * 60 + second;
    Some(seconds * 1_000_000 + micros)
}

fn check_moment(text: &str) -> Option<Timestamp> {
    let moment = text.parse::<Moment>().ok()?;
    let instant = moment.at(now());
    assert_instant(instant);
    match moment {
        Moment::At(at) => assert_eq!(at, instant),
        Moment::Ago(seconds) => assert!(seconds >= 0 && instant <= now(), "{text}"),
    }
    Some(instant)
}

fn check_cursor(text: &str) -> Option<(i64, Cursor)> {
    let cursor = text.parse::<Cursor>().ok()?;
    assert_eq!(cursor.to_string(), text);
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    Some((i64::from_be_bytes(bytes[1..].try_into().unwrap()), cursor))
}

impl Places {
    fn new() -> Self {
        let connection = sqlite::open_in_memory(&tables::SCHEMA).unwrap();
        settle(&connection, &callbacks(), &std::iter::once(dialect()).collect(), &[]).unwrap();
        let list = Reader::over(connection);
        let mut rows = Vec::new();
        let mut window = window(None, None, None, 1);
        loop {
            let page = list.list(&filter(window.clone())).unwrap();
            rows.extend(page.rows);
            window.cursor = page.next;
            if page.next.is_none() {
                break;
            }
        }
        let seqs = (1..=ROWS).rev().map(|seq| tables::key(seq, 0));
        let rows = seqs.zip(rows).collect::<Vec<_>>();
        assert_eq!(rows.len(), usize::try_from(ROWS).unwrap());
        let journal = sqlite::open_in_memory(&journal::SCHEMA).unwrap();
        let state = sqlite::open_in_memory(&tables::SCHEMA).unwrap();
        Self { list, rows, state, journal: reader::Reader::over(journal) }
    }

    /// The page at a position is what a filter over every row gives.
    fn check_page(
        &self,
        position: Option<(i64, Cursor)>,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) {
        let cursor = position.map(|(_, cursor)| cursor);
        let limit = u32::try_from(PAGE).unwrap();
        let page = self.list.list(&filter(window(cursor, since, until, limit))).unwrap();
        let arrived = |row: &NotificationRow| row.first_received_at;
        let mut expected = self.rows.iter().filter(|(key, row)| {
            position.is_none_or(|(before, _)| *key < before)
                && since.is_none_or(|since| arrived(row) >= since)
                && until.is_none_or(|until| arrived(row) < until)
        });
        let rows: Vec<_> = expected.by_ref().take(PAGE).collect();
        let is_last = expected.next().is_none();
        assert_eq!(page.rows, rows.iter().map(|(_, row)| row.clone()).collect::<Vec<_>>());
        assert_eq!(page.next.is_none(), is_last);
        if let Some(next) = page.next {
            let (key, _) = check_cursor(&next.to_string()).expect("the list's own cursor");
            assert_eq!(Some(key), rows.last().map(|(key, _)| *key));
        }
    }

    /// A state's cursor is kept; a journal's callback is found at its position, if its receive time
    /// is one.
    fn check_rows(&mut self, text: &str, seq: i64) {
        set_cursor(&self.state, text, seq).unwrap();
        assert_eq!(cursor(&self.state).unwrap(), (Some(text.to_owned()), seq));
        let insert = "INSERT INTO callback VALUES (?1, 'one', ?2, x'00', 0)";
        self.journal.connection().execute(insert, (seq, text)).unwrap();
        assert_found(&mut self.journal, text, seq);
        self.journal.connection().execute_batch("DELETE FROM callback").unwrap();
    }
}

fn assert_found(journal: &mut reader::Reader, text: &str, seq: i64) {
    let received_at = text.parse::<Timestamp>().ok();
    match (journal.at(seq), received_at) {
        (Ok(Some(callback)), Some(at)) => {
            assert_eq!((callback.seq, callback.received_at), (seq, at));
            let after = journal.after(seq.saturating_sub(1), i64::MAX, 1, 1).unwrap();
            assert_eq!(after.is_empty(), seq == i64::MIN);
            assert_eq!(journal.after(seq, i64::MAX, 1, 1).unwrap(), []);
        }
        (Err(_), None) => {}
        (found, at) => panic!("{text}: {found:?} {at:?}"),
    }
}

fn dialect() -> (std::sync::Arc<str>, Dialect) {
    ("one".into(), Provider::GcNotify.into())
}

/// An hour apart, the last of them now.
fn callbacks() -> Vec<Callback> {
    let callback = |seq| Callback {
        seq,
        source: "one".into(),
        received_at: now().plus_seconds((seq - ROWS) * 3_600),
        body: format!(r#"{{"id":"n{seq}","status":"sent","notification_type":"sms"}}"#).into(),
        origin: Origin::CalledBack,
    };
    (1..=ROWS).map(callback).collect()
}

fn window(
    cursor: Option<Cursor>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: u32,
) -> Window {
    Window { source: None, since, until, limit, cursor }
}

fn filter(window: Window) -> Filter {
    Filter { window, statuses: vec![], reference: None, notification_type: None, stuck: None }
}
