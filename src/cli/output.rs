//! How commands write rows: a table for people, JSON lines and CSV for programs.
//!
//! Everything goes through the writer a command is given, so that a test can read it. A reader that
//! goes away (`receiptd list | head`) has seen enough: that is no failure.
//!
//! Values come from callbacks and may hold anything. For people, characters that would steer a
//! terminal or reorder a line are shown as symbols ([`plain`]); for programs, values are as they
//! came, escaped only as JSON and CSV demand.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use comfy_table::{LineStyle, Table, TableStyle};
use serde::Serialize;

use super::Failure;
use crate::clock::Timestamp;

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns that fit the terminal; the most important ones where it is narrow
    Table,
    /// One JSON object a line (JSON Lines), with every column
    Json,
    /// Comma-separated values with a heading, every column, values as they came
    Csv,
}

/// What the output is looked at with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// How many characters fit a line; `None` if nothing bounds them.
    pub width: Option<usize>,
    /// Whether a person looks at it now.
    pub is_terminal: bool,
}

impl Screen {
    /// That of standard output.
    pub fn of_stdout() -> Self {
        let width = width_of_stdout().map(usize::from);
        Self { width, is_terminal: io::stdout().is_terminal() }
    }
}

/// How many characters fit a line of standard output; `None` if nothing bounds them. What goes through a
/// pipe is not cut to the terminal that the pipe began on: `grep` is to find what would not fit.
pub fn width_of_stdout() -> Option<u16> {
    terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0)
}

/// A column of a table for people.
pub struct Column<R> {
    /// Its heading.
    pub title: &'static str,
    /// 0: always shown, whole. Others: the least important (greatest) give way first.
    pub rank: u8,
    /// What stands in it; not yet [`plain`].
    pub text: fn(&R) -> String,
}

/// Longest text of a column that may give way, in characters: beside a time it fits 60 columns.
const TEXT_CHARS_MAX: usize = 38;

/// Between two columns.
const GAP: u16 = 2;

/// What a command that only prints comes to.
///
/// # Errors
/// If the output could not be written, unless because nobody reads it any more.
pub fn done(written: io::Result<()>) -> Result<ExitCode, Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Failure::IO, format!("failed to write the output: {error}")))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// So many of something whose plural ends with `s`.
pub fn counted(count: impl Display, noun: &str) -> String {
    let count = count.to_string();
    let s = if count == "1" { "" } else { "s" };
    format!("{count} {noun}{s}")
}

/// Writes each row as one JSON object on its own line.
pub fn json<R: Serialize>(rows: &[R], out: &mut dyn Write) -> io::Result<()> {
    rows.iter().try_for_each(|row| {
        serde_json::to_writer(&mut *out, row)?;
        out.write_all(b"\n")
    })
}

/// Writes rows as CSV, below `heading` if there is one.
pub fn csv<R: Serialize>(
    heading: Option<&[&str]>,
    rows: &[R],
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(out);
    if let Some(heading) = heading {
        writer.write_record(heading)?;
    }
    for row in rows {
        writer.serialize(row)?;
    }
    writer.flush()
}

/// Writes rows as a table of those columns that fit, or as a block a row where not even the
/// important ones do. Columns with nothing in them are left out.
pub fn table<R>(
    screen: Screen,
    columns: &[Column<R>],
    rows: &[R],
    out: &mut dyn Write,
) -> io::Result<()> {
    table_cut(screen, columns, &[], rows, out)
}

/// A column that is cut to what there is room for before it is left out.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The column's heading.
    pub title: &'static str,
    /// The fewest characters of it that still say something.
    pub chars_min: usize,
}

/// The same, where some columns may be cut. These have their room before all others that may give way.
pub fn table_cut<R>(
    screen: Screen,
    columns: &[Column<R>],
    cuts: &[Cut],
    rows: &[R],
    out: &mut dyn Write,
) -> io::Result<()> {
    let texts: Vec<Vec<String>> =
        rows.iter().map(|row| columns.iter().map(|column| cell(column, row)).collect()).collect();
    let widths = widths(columns, &texts);
    match choose(screen.width, columns, cuts, &texts, &widths) {
        Some(chosen) => draw(columns, &texts, &chosen, out),
        None => blocks(columns, rows, out),
    }
}

fn cell<R>(column: &Column<R>, row: &R) -> String {
    let text = (column.text)(row);
    let text = plain(&text);
    if column.rank > 0 { shorten(&text, TEXT_CHARS_MAX) } else { text.into_owned() }
}

fn widths<R>(columns: &[Column<R>], texts: &[Vec<String>]) -> Vec<usize> {
    let mut table = Table::new();
    table.set_header(columns.iter().map(|column| column.title));
    table.add_rows(texts);
    table.column_max_content_widths().into_iter().map(usize::from).collect()
}

/// A column that is shown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shown {
    index: usize,
    width: usize,
}

/// The columns to show, in order; `None` if not even the important ones fit.
fn choose<R>(
    width: Option<usize>,
    columns: &[Column<R>],
    cuts: &[Cut],
    texts: &[Vec<String>],
    widths: &[usize],
) -> Option<Vec<Shown>> {
    let cut = |index: usize| cuts.iter().find(|cut| cut.title == columns[index].title);
    let mut by_rank: Vec<usize> = (0..columns.len())
        .filter(|&index| columns[index].rank == 0 || texts.iter().any(|row| !row[index].is_empty()))
        .collect();
    by_rank.sort_by_key(|&index| columns[index].rank);
    let (first, rest): (Vec<usize>, Vec<usize>) =
        by_rank.into_iter().partition(|&index| columns[index].rank == 0 || cut(index).is_some());
    let mut left = width.unwrap_or(usize::MAX);
    let mut chosen: Vec<Shown> = Vec::new();
    for index in first {
        let width = cut(index).map_or(widths[index], |cut| widths[index].min(cut.chars_min));
        if !take(&mut left, &mut chosen, Shown { index, width }) && columns[index].rank == 0 {
            return None;
        }
    }
    widen(&mut chosen, &mut left, widths);
    for index in rest {
        // A wide one that does not fit leaves its room to a narrow one behind it.
        take(&mut left, &mut chosen, Shown { index, width: widths[index] });
    }
    chosen.sort_unstable();
    Some(chosen)
}

/// Shows the column if there is room for it.
fn take(left: &mut usize, chosen: &mut Vec<Shown>, column: Shown) -> bool {
    let gap = if chosen.is_empty() { 0 } else { usize::from(GAP) };
    let Some(rest) = left.checked_sub(column.width + gap) else { return false };
    *left = rest;
    chosen.push(column);
    true
}

/// Gives columns that were cut what is left: as many as can be are whole, the most important first, and
/// the rest, of which a piece more is worth most at the end, share what remains from behind.
fn widen(chosen: &mut [Shown], left: &mut usize, widths: &[usize]) {
    for column in chosen.iter_mut() {
        let lacks = widths[column.index] - column.width;
        if lacks <= *left {
            column.width += lacks;
            *left -= lacks;
        }
    }
    for column in chosen.iter_mut().rev() {
        let more = (widths[column.index] - column.width).min(*left);
        column.width += more;
        *left -= more;
    }
}

fn draw<R>(
    columns: &[Column<R>],
    texts: &[Vec<String>],
    chosen: &[Shown],
    out: &mut dyn Write,
) -> io::Result<()> {
    let rule = LineStyle::none().fill('─');
    let mut table = Table::new();
    table.load_style(TableStyle::new().header_separator(rule));
    table.set_header(chosen.iter().map(|column| columns[column.index].title));
    let text = |row: &[String], column: &Shown| shorten(&row[column.index], column.width);
    table.add_rows(texts.iter().map(|row| chosen.iter().map(|column| text(row, column))));
    let last = chosen.len().saturating_sub(1);
    for (position, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if position == last { 0 } else { GAP }));
    }
    writeln!(out, "{}", table.trim_fmt())
}

fn blocks<R>(columns: &[Column<R>], rows: &[R], out: &mut dyn Write) -> io::Result<()> {
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        block(columns, row, out)?;
    }
    Ok(())
}

/// Writes one row with a line for each column that has something in it, whole.
pub fn block<R>(columns: &[Column<R>], row: &R, out: &mut dyn Write) -> io::Result<()> {
    let width = columns.iter().map(|column| column.title.len()).max().unwrap_or(0);
    for column in columns {
        let text = (column.text)(row);
        if !text.is_empty() {
            writeln!(out, "{:width$}  {}", column.title, plain(&text))?;
        }
    }
    Ok(())
}

/// The text without anything that steers a terminal or reorders a line: control characters become
/// their pictures (`␛`), those of them that have none and the bidirectional ones their number.
pub fn plain(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match u32::from(character) {
            // U+2400 begins the pictures of the first 32 characters.
            code @ 0..0x20 => shown.extend(char::from_u32(0x2400 + code)),
            0x7f => shown.push('␡'),
            code if is_unsafe(character) => shown.push_str(&format!("<U+{code:04X}>")),
            _ => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// Controls, line and paragraph separators, marks and overrides of direction, invisible fillers,
/// tags. Letters of right-to-left scripts are what they are.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

fn shorten(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A text that may be missing.
pub fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}

/// An instant to the second, in UTC; empty if there is none.
pub fn second(time: Option<Timestamp>) -> String {
    time.map(|time| time.to_string()[..19].replace('T', " ")).unwrap_or_default()
}

/// An instant to the second, millisecond or microsecond, whichever it takes to tell it whole, in UTC.
pub fn moment(time: Timestamp) -> String {
    let text = time.to_string().replace('T', " ");
    let (whole, fraction) = text.trim_end_matches('Z').split_once('.').unwrap_or((&text, ""));
    let digits = fraction.trim_end_matches('0').len().next_multiple_of(3);
    match fraction.get(..digits).unwrap_or(fraction) {
        "" => whole.to_owned(),
        digits => format!("{whole}.{digits}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Message {
        id: String,
        status: String,
        reference: String,
    }

    const COLUMNS: [Column<Message>; 3] = [
        Column { title: "id", rank: 0, text: |row| row.id.clone() },
        Column { title: "reference", rank: 2, text: |row| row.reference.clone() },
        Column { title: "status", rank: 1, text: |row| row.status.clone() },
    ];

    fn message(id: &str, status: &str, reference: &str) -> Message {
        Message { id: id.into(), status: status.into(), reference: reference.into() }
    }

    fn tabled(width: usize, rows: &[Message]) -> String {
        let mut out = Vec::new();
        let screen = Screen { width: Some(width), is_terminal: true };
        table(screen, &COLUMNS, rows, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_of_a_thing_is_not_said_in_the_plural() {
        let said = ["0", "1", "2", "1,001"].map(|count| counted(count, "callback"));
        assert_eq!(said, ["0 callbacks", "1 callback", "2 callbacks", "1,001 callbacks"]);
    }

    #[test]
    fn the_least_important_columns_give_way_first() {
        let rows = [message("n-1", "delivered", "order 7"), message("n-2", "sent", "")];
        let rule = |width: usize| "─".repeat(width);
        let all = format!(
            "id   reference  status\n{}\nn-1  order 7    delivered\nn-2             sent\n",
            rule(25)
        );
        assert_eq!(tabled(25, &rows), all);
        let without_reference = format!("id   status\n{}\nn-1  delivered\nn-2  sent\n", rule(14));
        assert_eq!(tabled(24, &rows), without_reference);
        assert_eq!(tabled(3, &rows), format!("id\n{}\nn-1\nn-2\n", rule(3)));
    }

    #[test]
    fn where_not_even_the_important_columns_fit_rows_become_blocks() {
        let rows = [message("n-1", "sent", "7"), message("n-2", "", "")];
        assert_eq!(
            tabled(2, &rows),
            "id         n-1\nreference  7\nstatus     sent\n\nid         n-2\n"
        );
    }

    #[test]
    fn a_column_that_does_not_fit_leaves_its_room_to_a_narrower_one_behind_it() {
        let rows = [message("n-1", "temporary-failure", "7")];
        assert!(tabled(16, &rows).starts_with("id   reference\n"), "{}", tabled(16, &rows));
    }

    #[test]
    fn a_column_may_be_cut_to_the_room_there_is_before_it_is_left_out() {
        let rows = [message("n-1", "temporary-failure", "order 7")];
        let cuts = [Cut { title: "status", chars_min: 6 }];
        let tabled = |width: usize| {
            let mut out = Vec::new();
            let screen = Screen { width: Some(width), is_terminal: true };
            table_cut(screen, &COLUMNS, &cuts, &rows, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(tabled(33).ends_with("\nn-1  order 7    temporary-failure\n"), "{}", tabled(33));
        assert!(tabled(32).ends_with("\nn-1  temporary-failure\n"), "{}", tabled(32));
        assert!(tabled(15).ends_with("\nn-1  temporary…\n"), "{}", tabled(15));
        assert!(tabled(10).ends_with("\nn-1\n"), "{}", tabled(10));
    }

    #[test]
    fn a_column_with_nothing_in_it_is_left_out_and_a_long_text_is_cut() {
        let rows = [message("n-1", &"s".repeat(100), "")];
        let table = tabled(80, &rows);
        assert!(!table.contains("reference"), "{table}");
        assert!(table.ends_with(&format!("  {}…\n", "s".repeat(TEXT_CHARS_MAX - 1))), "{table}");
    }

    #[test]
    fn nothing_in_a_table_steers_the_terminal_or_reorders_a_line() {
        for (text, expected) in [
            ("\u{1b}[2Jgone\r\n", "␛[2Jgone␍␊"),
            ("a\0b\u{7f}", "a␀b␡"),
            ("\u{9b}31m", "<U+009B>31m"),
            ("exe.\u{202e}gpj", "exe.<U+202E>gpj"),
            ("\u{2067}x\u{2069}\u{feff}", "<U+2067>x<U+2069><U+FEFF>"),
            ("مرحبا café 👩\u{200d}💻", "مرحبا café 👩\u{200d}💻"),
        ] {
            assert_eq!(plain(text), expected);
            let table = tabled(80, &[message(text, text, text)]);
            let is_steering = |c: char| c != '\n' && is_unsafe(c);
            assert!(!table.contains(is_steering), "{table:?}");
        }
    }

    #[test]
    fn programs_get_every_value_as_it_came() {
        #[derive(Serialize)]
        struct Row {
            id: &'static str,
            status: Option<&'static str>,
            count: i64,
        }
        let rows = [
            Row { id: "=1+1,\"\u{1b}", status: None, count: 1 },
            Row { id: "b\nc", status: Some(""), count: 2 },
        ];
        let mut out = Vec::new();
        json(&rows, &mut out).unwrap();
        let expected = r#"{"id":"=1+1,\"\u001b","status":null,"count":1}
{"id":"b\nc","status":"","count":2}
"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        csv(Some(&["id", "status", "count"]), &rows, &mut out).unwrap();
        let expected = "id,status,count\n\"=1+1,\"\"\u{1b}\",,1\n\"b\nc\",,2\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn csv_has_its_heading_even_without_rows() {
        let mut out = Vec::new();
        csv::<()>(Some(&["id", "status"]), &[], &mut out).unwrap();
        assert_eq!(out, b"id,status\n");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is() {
        let written = |kind: io::ErrorKind| done(Err(kind.into()));
        assert!(written(io::ErrorKind::BrokenPipe).is_ok());
        assert_eq!(written(io::ErrorKind::StorageFull).unwrap_err().code, Failure::IO);
    }

    #[test]
    fn an_instant_is_shown_in_whole_groups_of_digits() {
        for (text, expected) in [
            ("2026-11-22T10:00:00Z", "2026-11-22 10:00:00"),
            ("2026-11-22T10:00:00.120Z", "2026-11-22 10:00:00.120"),
            ("2026-11-22T10:00:00.51141Z", "2026-11-22 10:00:00.511410"),
        ] {
            let time: Timestamp = text.parse().unwrap();
            assert_eq!(moment(time), expected);
            assert_eq!(second(Some(time)), "2026-11-22 10:00:00");
        }
    }
}
