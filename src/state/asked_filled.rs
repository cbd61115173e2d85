//! States with the indexes of lists, and filters to ask them by, for the tests of these.

use rusqlite::{Connection, params};

use super::asked_index::{Index, make_index};
use super::asked_range::Filter;
use super::tables::SCHEMA;
use crate::clock::Timestamp;
use crate::sqlite;

/// A state with every index and nothing in it.
pub(super) fn state() -> Connection {
    let connection = sqlite::open_in_memory(&SCHEMA).unwrap();
    for index in Index::ALL {
        assert!(make_index(&connection, index).unwrap());
        assert!(!make_index(&connection, index).unwrap(), "it is there already");
    }
    connection
}

/// A notification of that status, type, reference and minute.
pub(super) fn put(connection: &Connection, key: i64, (status, kind): (&str, &str), minute: i64) {
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

pub(super) const STATUSES: [&str; 4] = ["delivered", "sending", "permanent-failure", "sent"];
const TYPES: [&str; 3] = ["email", "letter", "sms"];

/// Sixty notifications, five created in each minute.
pub(super) fn filled() -> Connection {
    let connection = state();
    for key in 0..60 {
        let at = usize::try_from(key).unwrap();
        put(&connection, key, (STATUSES[at % 4], TYPES[at / 4 % 3]), (key * 17 % 60) / 5);
    }
    connection
}

pub(super) fn filter(statuses: &[&str], types: &[&str], reference: Option<&str>) -> Filter {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    Filter {
        statuses: owned(statuses),
        types: owned(types),
        reference: reference.map(str::to_owned),
    }
}

/// Every combination of nothing, one and several.
pub(super) fn filters() -> Vec<Filter> {
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
