//! A filter as ranges of indexes, each in order by creation, and the statements that read one.
//!
//! What several statuses and types let pass is a range for each pair of them: no row stands in two, and
//! none is read that the filter does not let pass. Where the filter leaves one of the two open, the words
//! that there are come from the index, one look for each. Nothing is sorted, whatever is asked for.

use rusqlite::{Connection, OptionalExtension, ToSql};

use super::asked_index::{Index, STATUS, TYPE};

/// Ranges that one list may be made of: every status of every type. The platforms know under twenty
/// statuses and five types; beyond this somebody makes words up.
const RANGES_MAX: usize = 512;

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

/// Where a row stands in a list by creation. Greater is newer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When it was created.
    pub(super) created: String,
    /// When it was first heard of, among those created at once.
    pub(super) key: i64,
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

/// Rows of one index that are in order by creation.
pub(super) enum Range {
    /// Everything of the source.
    All,
    /// What has this status and this type.
    Of { status: String, notification_type: String, reference: Option<String> },
}

impl Range {
    pub(super) fn index(&self) -> Index {
        match self {
            Self::All => Index::Creation,
            Self::Of { reference: None, .. } => Index::Status,
            Self::Of { reference: Some(_), .. } => Index::Reference,
        }
    }

    /// With the expressions of the index, word for word: that is how SQLite knows them again.
    pub(super) fn conditions(&self) -> String {
        let both = format!("AND {STATUS} = :status AND {TYPE} = :type");
        match self.index() {
            Index::Creation | Index::Message => String::new(),
            Index::Status => both,
            Index::Reference => format!("AND reference = :reference {both}"),
        }
    }

    pub(super) fn parameters<'a>(&'a self, source: &'a &str) -> Vec<(&'static str, &'a dyn ToSql)> {
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
pub(super) fn ranges(
    connection: &Connection,
    source: &str,
    filter: &Filter,
) -> Result<Vec<Range>, ListError> {
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
pub(super) fn parts(created: &str, index: Index, conditions: &str, is_behind: bool) -> Vec<String> {
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

/// What [`parts`] ask by, behind a place.
pub(super) fn behind(after: Option<&Place>) -> Vec<(&'static str, &dyn ToSql)> {
    after.map_or(Vec::new(), |place| vec![(":created", &place.created), (":key", &place.key)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::asked_filled::{STATUSES, filled, filters, put, state};
    use crate::state::asked_index::{CREATED, RECEIVED};
    use crate::state::plan;

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
}
