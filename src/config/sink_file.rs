//! The file sink: in a place where there can be one, and in a file that is nobody else's.
//!
//! The file is appended to, renamed when it is full and removed when it is old. What it would do to the
//! journal, or to another sink's file, nobody could mend; so a path that something else uses is refused,
//! however it is spelt: paths are compared as the system takes them, through `..` and links, and files
//! that are there by themselves.
//!
//! A folder that is missing is told, but does not keep the receiver from starting: its volume may come
//! late, and no sink is worth a receipt.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::document::{Kind, Table};
use super::problem::Origin;
use super::report::{At, Checked, Found, Report};
use super::section::{Section, quoted};
use super::settings::{FileSink, Sink, To};
use super::sink_to::number_or;
use crate::journal;

/// Bytes of the file when it does not say; the embedded file documents it.
const FILE_BYTES_MAX_DEFAULT: u64 = 100 << 20;

/// What a file gets at least behind its name when it is renamed: `.` and so many digits.
const NUMBER_DIGITS_MIN: usize = 6;

/// Links that are followed to what is not there yet; what leads further leads in a circle.
const LINKS_MAX: usize = 32;

const EXPECTED: &str = "the path of a file, such as \"/var/lib/receiptd/changes.jsonl\"";

/// Reads a file sink.
pub(super) fn read(section: &mut Section<'_>, report: &mut Report) -> Checked<FileSink> {
    let path = section
        .required_text("path", EXPECTED, report)
        .and_then(|path| possible(&path, report).map(|()| PathBuf::from(path.value)));
    let file_bytes_max =
        number_or(section, ("file_bytes_max", (4_096, 1 << 40)), FILE_BYTES_MAX_DEFAULT, report);
    let files_max = number_or(section, ("files_max", (0, 1_000_000)), 0, report);
    Ok(FileSink {
        path: path?,
        file_bytes_max: file_bytes_max?,
        files_max: u32::try_from(files_max?).ok().filter(|count| *count > 0),
    })
}

/// Refuses a path where there can never be a file.
fn possible(path: &Found<String>, report: &mut Report) -> Checked<()> {
    let text = quoted(&path.value);
    if path.value.ends_with('/') {
        return Err(report.problem(&path.at, text, EXPECTED));
    }
    let file = Path::new(&path.value);
    match fs::metadata(file) {
        Ok(found) if found.is_file() => return Ok(()),
        Ok(found) if found.is_dir() => {
            return Err(report.problem(&path.at, format!("{text}: it is a folder"), EXPECTED));
        }
        Ok(_) => {
            let found = format!("{text}: it is a device or a pipe");
            return Err(report.problem(&path.at, found, EXPECTED));
        }
        Err(_) => {}
    }
    let folder = folder_of(file);
    match fs::metadata(folder) {
        Ok(found) if !found.is_dir() => {
            let found = format!("{text}: {} is no folder", folder.display());
            return Err(report.problem(&path.at, found, EXPECTED));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let found = format!("{text}: there is no folder {}", folder.display());
            report.not_yet(&path.at, found, EXPECTED);
        }
        _ => {}
    }
    Ok(())
}

/// The folder that a file at that path stands in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The files that the rest of a document names.
pub(super) struct Taken {
    state: Option<Place>,
    journal: Option<Place>,
    /// Each with the key that names it.
    named: Vec<(String, Place)>,
}

impl Taken {
    /// Looks them up without judging them.
    pub(super) fn of(document: &Table) -> Self {
        let store = match document.find("store").map(|value| &value.kind) {
            Some(Kind::Table(store)) => store.find("path").map(|value| &value.kind),
            _ => None,
        };
        let state = match store {
            Some(Kind::Text(path) | Kind::Raw(path)) => Some(PathBuf::from(path)),
            _ => None,
        };
        let mut named = Vec::new();
        named_files(document, "", &mut named);
        Self {
            journal: state.as_deref().map(|state| Place::of(&journal::path_beside(state))),
            state: state.as_deref().map(Place::of),
            named,
        }
    }

    /// Who else uses that place, if anybody does. `sink`: where the sink stands.
    fn by(&self, place: &Place, sink: &Origin) -> Option<String> {
        let meets = |other: &Option<Place>| other.as_ref().is_some_and(|o| place.meets(o));
        if meets(&self.journal) {
            return Some("the journal of this receiver".to_owned());
        }
        if meets(&self.state) {
            return Some("the state of this receiver".to_owned());
        }
        // With -wal, -shm, -reserve, .lock, .control and what is set aside.
        let beside = |other: &Option<Place>| other.as_ref().is_some_and(|o| place.is_beside(o));
        if beside(&self.journal) || beside(&self.state) {
            return Some("the name of a file of this receiver's database".to_owned());
        }
        if let Origin::File { path, .. } = sink
            && place.meets(&Place::of(path))
        {
            return Some("the configuration".to_owned());
        }
        let named = self.named.iter().find(|(_, other)| place.meets(other));
        named.map(|(key, _)| format!("the file that {key} names"))
    }
}

/// Every file that a key of this table names, by the name of the key: `…_file`, `…_files`, `file`.
fn named_files(table: &Table, prefix: &str, into: &mut Vec<(String, Place)>) {
    for entry in &table.entries {
        let key = format!("{prefix}{}", entry.key);
        let is_one = entry.key == "file" || entry.key.ends_with("_file");
        match &entry.value.kind {
            Kind::Table(table) => named_files(table, &format!("{key}."), into),
            Kind::Text(path) | Kind::Raw(path) if is_one => {
                into.push((key, Place::of(Path::new(path))));
            }
            Kind::List(items) => {
                for item in items {
                    match &item.kind {
                        Kind::Table(table) => named_files(table, &format!("{key}."), into),
                        Kind::Text(path) if entry.key.ends_with("_files") => {
                            into.push((key.clone(), Place::of(Path::new(path))));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// A file as the system knows it, be it there or not.
#[derive(Clone)]
struct Place {
    path: PathBuf,
    /// Device and number, if it is there: two names may be links to one file.
    file: Option<(u64, u64)>,
}

impl Place {
    fn of(path: &Path) -> Self {
        let path = real(path);
        let file = fs::metadata(&path).ok().map(|found| (found.dev(), found.ino()));
        Self { path, file }
    }

    fn is(&self, other: &Self) -> bool {
        self.path == other.path || (self.file.is_some() && self.file == other.file)
    }

    /// Whether a sink at this place would write, rename over or remove the other.
    fn meets(&self, other: &Self) -> bool {
        self.is(other) || self.renames_to(other)
    }

    /// Whether the other has a name that this file gets when it is full.
    fn renames_to(&self, other: &Self) -> bool {
        self.rest_of(other).and_then(|rest| rest.strip_prefix(b".")).is_some_and(|digits| {
            digits.len() >= NUMBER_DIGITS_MIN && digits.iter().all(u8::is_ascii_digit)
        })
    }

    /// Whether the name of this one begins with the other's.
    fn is_beside(&self, other: &Self) -> bool {
        other.rest_of(self).is_some()
    }

    /// What follows this name in that of another in the same folder.
    fn rest_of<'a>(&self, other: &'a Self) -> Option<&'a [u8]> {
        let (name, others) = (self.path.file_name()?, other.path.file_name()?);
        let is_near = self.path.parent() == other.path.parent();
        others.as_encoded_bytes().strip_prefix(name.as_encoded_bytes()).filter(|_| is_near)
    }
}

/// The path through `..` and links, of which the last may lead to what is not there yet: a file would
/// be made where it leads.
fn real(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        if let Ok(real) = path.canonicalize() {
            return real;
        }
        let Ok(folder) = folder_of(&path).canonicalize() else { break };
        let named = folder.join(path.file_name().unwrap_or_default());
        match fs::read_link(&named) {
            Ok(target) => path = folder.join(target),
            Err(_) => return named,
        }
    }
    std::path::absolute(&path).unwrap_or(path)
}

/// Refuses a file that something else uses, and a second sink on what only one can write.
pub(super) fn alone(sinks: &[Found<Sink>], taken: &Taken, report: &mut Report) {
    let mut before: Vec<(Place, &Found<Sink>)> = Vec::new();
    for sink in sinks {
        let To::File(file) = &sink.value.to else { continue };
        let place = Place::of(&file.path);
        let at = At { key: format!("{}.path", sink.at.key), origin: sink.at.origin.clone() };
        let path = quoted(&file.path.to_string_lossy());
        if let Some(what) = taken.by(&place, &sink.at.origin) {
            report.problem(&at, format!("{path}: {what}"), "a file that nothing else uses");
        } else if let Some((other, first)) =
            before.iter().find(|(other, _)| place.meets(other) || other.renames_to(&place))
        {
            let (key, first) = (&first.at.key, &first.at.origin);
            let found = match place.is(other) {
                true => format!("{path}: the file of {key}"),
                false => format!("{path}: {key} and this one would rename files to one name"),
            };
            let hint = Some(format!("first used at {first}"));
            report.problem_hinted(&at, found, "a path no other sink has", hint);
        }
        before.push((place, sink));
    }
    one_standard_output(sinks, report);
}

/// Two would write into each other's lines.
fn one_standard_output(sinks: &[Found<Sink>], report: &mut Report) {
    let mut all = sinks.iter().filter(|sink| matches!(sink.value.to, To::Stdout));
    let Some(first) = all.next() else { return };
    for other in all {
        let at = At { key: format!("{}.type", other.at.key), origin: other.at.origin.clone() };
        let found = format!("\"stdout\", as is {}", first.at.key);
        let hint = Some(format!("first used at {}", first.at.origin));
        report.problem_hinted(&at, found, "one sink of type stdout", hint);
    }
}
