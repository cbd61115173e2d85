//! Lists that come in pages: their flags, and how the pages are written.

use std::io::{self, Write};
use std::process::ExitCode;
use std::str::FromStr;

use serde::Serialize;

use super::Failure;
use super::db::unreadable;
use super::output::{self, Column, Format, Screen};
use crate::clock::{Clock, Timestamp};
use crate::state::read::{Cursor, Page, Window};

/// Rows of a table unless `--limit` says otherwise.
const TABLE_ROWS: u64 = 50;

/// Rows read at once: bounds both the memory and the time the database is held.
const PAGE_ROWS: u32 = 1_000;

/// Which part of a list, and how it is printed.
#[derive(Clone, Debug, clap::Args)]
pub struct PageFlags {
    /// Only of this source
    #[arg(long, value_name = "NAME")]
    pub source: Option<String>,

    /// Only what first arrived then or later
    ///
    /// A timestamp (2026-11-22T10:00:00Z), a day (2026-11-22, its beginning in UTC) or how long
    /// ago (90s, 15m, 2h, 7d).
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,

    /// Only what first arrived before; in the same forms as --since
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,

    /// At most this many rows [default: 50 in a table, otherwise all]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,

    /// Go on where an earlier table ended: it prints the cursor below its last row
    ///
    /// Pages read one after another neither skip nor repeat a row, whatever arrives meanwhile.
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<Cursor>,

    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// A point in time as it can be given on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// This very instant.
    At(Timestamp),
    /// So many seconds ago.
    Ago(i64),
}

impl Moment {
    /// The instant it names, if it is `now`.
    pub fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(seconds) => now.plus_seconds(-seconds),
        }
    }
}

/// The text is no point in time in any form we accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a timestamp (2026-11-22T10:00:00Z), a day (2026-11-22) or how long ago (2h, 7d)")]
pub struct NotAMoment;

impl FromStr for Moment {
    type Err = NotAMoment;

    fn from_str(text: &str) -> Result<Self, NotAMoment> {
        let day = || format!("{text}T00:00:00Z").parse();
        if let Ok(time) = text.parse().or_else(|_| day()) {
            return Ok(Self::At(time));
        }
        let ago = || {
            let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
            let seconds = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 60 * 60,
                "d" => 24 * 60 * 60,
                _ => return None,
            };
            number.parse::<u32>().ok().map(|number| Self::Ago(i64::from(number) * seconds))
        };
        ago().ok_or(NotAMoment)
    }
}

impl PageFlags {
    /// The part of the list they ask for.
    pub fn window(&self) -> Window {
        let now = Clock::system().now();
        Window {
            source: self.source.clone(),
            since: self.since.map(|moment| moment.at(now)),
            until: self.until.map(|moment| moment.at(now)),
            limit: PAGE_ROWS,
            cursor: self.cursor,
        }
    }

    /// Rows that are wanted, at most.
    fn rows(&self) -> u64 {
        let default = if self.format == Format::Table { TABLE_ROWS } else { u64::MAX };
        self.limit.unwrap_or(default)
    }

    /// The same, for who reads them at once.
    pub fn rows_max(&self) -> usize {
        usize::try_from(self.rows()).unwrap_or(usize::MAX)
    }

    /// Writes what `read` finds, page by page, until the limit or the end of the list.
    ///
    /// # Errors
    /// If the database cannot be read or the output not be written.
    pub fn write<R: Serialize>(
        &self,
        names: &[&str],
        columns: &[Column<R>],
        mut read: impl FnMut(&Window) -> rusqlite::Result<Page<R>>,
        out: &mut dyn Write,
    ) -> Result<ExitCode, Failure> {
        let mut left = self.rows();
        let mut window = self.window();
        let mut tabled = Vec::new();
        let mut heading = Some(names);
        loop {
            window.limit = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_ROWS);
            let page = read(&window).map_err(unreadable)?;
            left -= page.rows.len() as u64;
            window.cursor = page.next;
            let written = match self.format {
                Format::Json => output::json(&page.rows, out),
                Format::Csv => output::csv(heading.take(), &page.rows, out),
                Format::Table => {
                    tabled.extend(page.rows);
                    Ok(())
                }
            };
            if written.is_err() || page.next.is_none() || left == 0 {
                let more = page.next.map(|next| format!("add --cursor {next}"));
                let written = written.and_then(|()| match self.format {
                    Format::Table => write_table(columns, &tabled, more, out),
                    Format::Json | Format::Csv => out.flush(),
                });
                return output::done(written);
            }
        }
    }

    /// Writes those of a list that has no pages, up to the limit.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn write_all<R: Serialize>(
        &self,
        names: &[&str],
        columns: &[Column<R>],
        mut rows: Vec<R>,
        out: &mut dyn Write,
    ) -> Result<ExitCode, Failure> {
        let limit = self.rows_max();
        let more = (rows.len() > limit).then(|| format!("add --limit, more than {limit}"));
        rows.truncate(limit);
        let written = match self.format {
            Format::Json => output::json(&rows, out),
            Format::Csv => output::csv(Some(names), &rows, out),
            Format::Table => write_table(columns, &rows, more, out),
        };
        output::done(written.and_then(|()| out.flush()))
    }
}

fn write_table<R>(
    columns: &[Column<R>],
    rows: &[R],
    more: Option<String>,
    out: &mut dyn Write,
) -> io::Result<()> {
    if rows.is_empty() {
        writeln!(out, "nothing matches")?;
        return out.flush();
    }
    output::table(Screen::of_stdout(), columns, rows, out)?;
    if let Some(how) = more {
        writeln!(out, "\nthere is more: {how}")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_be_an_instant_a_day_or_how_long_ago() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-21T09:30:00Z", "2026-11-21T09:30:00.000000Z"),
            ("2026-11-21 09:30:00+02:00", "2026-11-21T07:30:00.000000Z"),
            ("2026-11-21", "2026-11-21T00:00:00.000000Z"),
            ("90s", "2026-11-22T09:58:30.000000Z"),
            ("15m", "2026-11-22T09:45:00.000000Z"),
            ("2h", "2026-11-22T08:00:00.000000Z"),
            ("7d", "2026-11-15T10:00:00.000000Z"),
        ] {
            assert_eq!(text.parse::<Moment>().unwrap().at(now).to_string(), expected, "{text}");
        }
        for text in ["", "h", "yesterday", "2026-11", "-2h", "2 h", "7é", "99999999999d"] {
            assert!(text.parse::<Moment>().is_err(), "{text}");
        }
    }
}
