//! Two states, row by row: what `check-db` holds the state against what the journal says with.

use std::cmp::Ordering;
use std::fmt;

use rusqlite::types::Value;
use rusqlite::{Connection, Row};

use super::{expected_overdue, expected_table, state_tables};

/// Columns whose values may be an address, a number or a text of a person; a difference only says
/// that there is one.
pub const PERSONAL: [&str; 4] = ["recipient", "source_number", "destination_number", "message"];

/// A table that settling fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    columns: Vec<String>,
    /// Where the columns of the primary key stand, in the order of the key.
    key: Vec<usize>,
}

/// Where two states differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// The row: its key and, if it has one, its id.
    pub row: String,
    /// What is different about it.
    pub what: What,
}

/// What is different about a row.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The state at hand lacks it.
    Missing,
    /// The state at hand has it, and should not.
    Extra,
    /// A column has another value.
    Column {
        /// Its name.
        name: String,
        /// What it should be.
        expected: Value,
        /// What it is.
        found: Value,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.table, self.row)?;
        match &self.what {
            What::Missing => f.write_str("missing"),
            What::Extra => f.write_str("should not be there"),
            What::Column { name, .. } if PERSONAL.contains(&name.as_str()) => {
                write!(f, "{name} differs")
            }
            What::Column { name, expected, found } => {
                write!(f, "{name} is {}, should be {}", text(found), text(expected))
            }
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) => number.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Blob(bytes) => data_encoding::HEXLOWER.encode(bytes),
    }
}

/// The tables that settling fills, as this version makes them.
pub fn settled_tables() -> rusqlite::Result<Vec<Table>> {
    let connection = Connection::open_in_memory()?;
    connection.execute_batch(concat!(state_tables!(), expected_table!(), expected_overdue!()))?;
    let mut names =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid")?;
    let names = names.query_map([], |row| row.get(0))?;
    names.map(|name| describe(&connection, name?)).collect()
}

fn describe(connection: &Connection, name: String) -> rusqlite::Result<Table> {
    let mut info = connection.prepare("SELECT name, pk FROM pragma_table_info(?1) ORDER BY cid")?;
    let info: Vec<(String, i64)> =
        info.query_map([&name], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    let mut key: Vec<usize> = (0..info.len()).filter(|column| info[*column].1 > 0).collect();
    key.sort_by_key(|column| info[*column].1);
    Ok(Table { name, columns: info.into_iter().map(|(name, _)| name).collect(), key })
}

impl Table {
    /// Walks through both in the order of the key, side by side, and tells every difference between
    /// what `found` holds and what `expected` does. Returns how many rows `expected` has.
    pub fn compare(
        &self,
        expected: &Connection,
        found: &Connection,
        tell: &mut dyn FnMut(Difference),
    ) -> rusqlite::Result<u64> {
        let sql = self.select();
        let (mut expected, mut found) = (expected.prepare(&sql)?, found.prepare(&sql)?);
        let (mut expected, mut found) = (expected.query([])?, found.query([])?);
        let mut wanted = self.read(expected.next()?)?;
        let mut had = self.read(found.next()?)?;
        let mut rows = 0;
        while wanted.is_some() || had.is_some() {
            let order = self.order(wanted.as_deref(), had.as_deref());
            match (order, &wanted, &had) {
                (Ordering::Less, Some(wanted), _) => tell(self.differs(wanted, What::Missing)),
                (Ordering::Greater, _, Some(had)) => tell(self.differs(had, What::Extra)),
                (Ordering::Equal, Some(wanted), Some(had)) => self.compare_rows(wanted, had, tell),
                _ => {}
            }
            rows += u64::from(order != Ordering::Greater);
            if order != Ordering::Greater {
                wanted = self.read(expected.next()?)?;
            }
            if order != Ordering::Less {
                had = self.read(found.next()?)?;
            }
        }
        Ok(rows)
    }

    fn select(&self) -> String {
        let key: Vec<&str> = self.key.iter().map(|column| &*self.columns[*column]).collect();
        format!("SELECT {} FROM {} ORDER BY {}", self.columns.join(", "), self.name, key.join(", "))
    }

    fn read(&self, row: Option<&Row<'_>>) -> rusqlite::Result<Option<Vec<Value>>> {
        row.map(|row| (0..self.columns.len()).map(|column| row.get(column)).collect()).transpose()
    }

    /// Which of the two comes first; a row comes before no row.
    fn order(&self, wanted: Option<&[Value]>, had: Option<&[Value]>) -> Ordering {
        let key = |row: &[Value]| -> Vec<i64> {
            let number = |value: &Value| match value {
                Value::Integer(number) => *number,
                // Keys are positions in the journal, and the tables are STRICT.
                _ => unreachable!("a key of {} is no number", self.name),
            };
            self.key.iter().map(|column| number(&row[*column])).collect()
        };
        match (wanted, had) {
            (Some(wanted), Some(had)) => key(wanted).cmp(&key(had)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        }
    }

    fn compare_rows(&self, wanted: &[Value], had: &[Value], tell: &mut dyn FnMut(Difference)) {
        for (column, name) in self.columns.iter().enumerate() {
            if wanted[column] != had[column] {
                let (expected, found) = (wanted[column].clone(), had[column].clone());
                tell(self.differs(wanted, What::Column { name: name.clone(), expected, found }));
            }
        }
    }

    fn differs(&self, row: &[Value], what: What) -> Difference {
        let id = self.columns.iter().position(|name| name == "id");
        let named = self.key.iter().chain(&id);
        let parts: Vec<String> = named
            .map(|column| format!("{} {}", self.columns[*column], text(&row[*column])))
            .collect();
        Difference { table: self.name.clone(), row: parts.join(" "), what }
    }
}
