//! A TOML document whose every value knows where it came from, and how a later one is laid over.
//!
//! The `toml` crate keeps the position of every key and value; this turns positions into lines and
//! lets values of the environment and of flags stand in the same tree. Those are [`Kind::Raw`]:
//! text that is read as whatever type the key wants.

use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::files;
use super::problem::{Origin, Problem};
use super::report::{At, Report};

/// Bytes of a configuration file. A source takes about 300, so this is thousands of them; what is
/// larger was not meant to be a configuration.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The embedded defaults: the only home of defaults.
pub(super) const DEFAULTS: &str = include_str!("../../config/receiptd.toml");

/// A value and where it came from.
#[derive(Clone)]
pub(super) struct Value {
    pub(super) kind: Kind,
    pub(super) origin: Origin,
}

/// What TOML can hold, as far as any setting needs it.
#[derive(Clone)]
pub(super) enum Kind {
    /// A string.
    Text(String),
    /// Text of the environment or a flag.
    Raw(String),
    /// A whole number; none if it is too large for 64 bits.
    Integer(Option<i64>),
    /// No setting is a float.
    Float,
    /// true or false.
    Boolean(bool),
    /// A date, a time or both, as written.
    Datetime(String),
    /// An array, or an array of tables.
    List(Vec<Value>),
    /// A table.
    Table(Table),
}

impl Kind {
    /// The type in words, for what was found where another was expected; never the value.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Raw(_) => "text",
            Self::Integer(_) => "a whole number",
            Self::Float => "a number with a fraction",
            Self::Boolean(_) => "true or false",
            Self::Datetime(_) => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a section",
        }
    }
}

/// Keys and values in the order of the document.
#[derive(Clone, Default)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Where the key stands, which is on an earlier line than the value if that is a section.
    pub(super) key_origin: Origin,
    pub(super) value: Value,
}

impl Table {
    /// The value of `key`.
    pub(super) fn find(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The same, to change it.
    pub(super) fn find_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
    }

    /// Sets `key`, which replaces what it held.
    pub(super) fn set(&mut self, key: &str, kind: Kind, origin: Origin) {
        let value = Value { kind, origin: origin.clone() };
        match self.find_mut(key) {
            Some(held) => *held = value,
            None => self.entries.push(Entry { key: key.into(), key_origin: origin, value }),
        }
    }

    /// Sets the key at a dotted path of at most one section, which is made if need be.
    pub(super) fn set_path(&mut self, path: &str, kind: Kind, origin: Origin) {
        let Some((section, key)) = path.split_once('.') else {
            return self.set(path, kind, origin);
        };
        if self.find(section).is_none() {
            self.set(section, Kind::Table(Table::default()), origin.clone());
        }
        if let Some(Value { kind: Kind::Table(table), .. }) = self.find_mut(section) {
            table.set(key, kind, origin);
        }
    }

    /// Lays a later document over this one: sections merge key by key, all else is replaced. What
    /// is a section here must be one there too, or its other keys would be lost with it.
    pub(super) fn lay_over(&mut self, later: Table, prefix: &str, report: &mut Report) {
        for entry in later.entries {
            let key = format!("{prefix}{}", entry.key);
            match (self.find_mut(&entry.key), entry.value) {
                (None, value) => self.entries.push(Entry { value, ..entry }),
                (
                    Some(Value { kind: Kind::Table(here), .. }),
                    Value { kind: Kind::Table(there), .. },
                ) => here.lay_over(there, &format!("{key}."), report),
                (Some(Value { kind: Kind::Table(_), .. }), value) => {
                    let at = At { key, origin: value.origin };
                    let expected = format!("a section [{}]", at.key);
                    report.problem(&at, value.kind.type_name(), expected);
                }
                (Some(here), value) => *here = value,
            }
        }
    }

    /// The dotted path of every key of the defaults that holds a value.
    pub(super) fn paths(&self) -> Vec<String> {
        let inside = |entry: &Entry| match &entry.value.kind {
            Kind::Table(table) => {
                table.paths().into_iter().map(|path| format!("{}.{path}", entry.key)).collect()
            }
            _ => vec![entry.key.clone()],
        };
        self.entries.iter().flat_map(inside).collect()
    }
}

/// The embedded defaults as a tree.
pub(super) fn defaults() -> Table {
    let parsed = DeTable::parse(DEFAULTS).expect("the embedded defaults are TOML");
    table(parsed.into_inner(), &|_| Origin::Default)
}

/// Reads and parses a configuration file.
pub(super) fn read(path: &Path) -> Result<Table, Box<Problem>> {
    let named = Arc::new(path.to_owned());
    let origin = |line| Origin::File { path: Arc::clone(&named), line };
    let wrong = |line, found: String, expected: &str| {
        let (key, expected) = ("--config".into(), expected.into());
        Box::new(Problem { key, origin: origin(line), found, expected, hint: None })
    };
    let bytes = files::read(path, FILE_BYTES_MAX)
        .map_err(|fault| wrong(None, fault.to_string(), "a readable TOML file"))?;
    let text =
        String::from_utf8(bytes).map_err(|_| wrong(None, "not UTF-8".into(), "a TOML file"))?;
    let parsed = DeTable::parse(&text).map_err(|error| {
        // Only the parser's own words: its `Display` quotes the line, which may hold a secret.
        let start = error.span().map_or(0, |span| span.start);
        let (line, column) = position(&text, start);
        let found = format!("column {column}: {}", error.message());
        wrong(Some(line), found, "valid TOML")
    })?;
    let lines = Lines::of(&text);
    Ok(table(parsed.into_inner(), &|offset| origin(Some(lines.line(offset)))))
}

/// Where the lines of a text begin, so that a position is found without counting from the start.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at + 1).collect())
    }

    /// The line of a byte offset, counted from 1.
    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset) + 1
    }
}

/// Line and column of a byte offset, both counted from 1, the column in characters.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

fn table(parsed: DeTable<'_>, origin: &dyn Fn(usize) -> Origin) -> Table {
    let mut positioned: Vec<_> = parsed.into_iter().collect();
    positioned.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, held): (Spanned<_>, Spanned<DeValue<'_>>)| Entry {
        key_origin: origin(key.span().start),
        key: std::borrow::Cow::into_owned(key.into_inner()),
        value: value(held, origin),
    };
    Table { entries: positioned.into_iter().map(entry).collect() }
}

fn value(held: Spanned<DeValue<'_>>, origin: &dyn Fn(usize) -> Origin) -> Value {
    let at = origin(held.span().start);
    let kind = match held.into_inner() {
        DeValue::String(text) => Kind::Text(text.into_owned()),
        DeValue::Integer(number) => {
            Kind::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Float(_) => Kind::Float,
        DeValue::Boolean(truth) => Kind::Boolean(truth),
        DeValue::Datetime(when) => Kind::Datetime(when.to_string()),
        DeValue::Array(items) => {
            Kind::List(items.into_iter().map(|item| value(item, origin)).collect())
        }
        DeValue::Table(inner) => Kind::Table(table(inner, origin)),
    };
    Value { kind, origin: at }
}
