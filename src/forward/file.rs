//! JSON lines in a file: one event a line, as CloudEvents in structured mode.
//!
//! An event counts once its line is synced; many that come at once share one write and one sync. Any
//! program may read along, and every line it finds is whole: a write that fails is taken back, and
//! what a crash has left of a line is removed before the file is written again.
//!
//! Beyond `file_bytes_max` the file is renamed and a new one begun: `receipts.jsonl` becomes
//! `receipts.jsonl.000001`, the next `receipts.jsonl.000002`, so that the order of the numbers is the
//! order of time and no file is renamed twice. Of these the newest `files_max` stay. A line is in one
//! file alone.
//!
//! A file that begins with anything but an event is not touched: it is somebody's, and the sink says so.
//!
//! Whoever moves the file away, or cuts it to nothing, finds it made anew with the next event. The
//! file is locked while it is open: a second writer would take the lines of the first for half ones.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::event::Event;
use super::fault::Fault;
use super::lines::{Lines, Torn};
use crate::config::settings::FileSink;

/// How every line of ours begins; by it the rest of one is told from what somebody else left there.
const BEGINNING: &[u8] = br#"{"specversion":"1.0","#;

/// How a file of ours begins, whatever version of an event it holds. One that begins otherwise is not
/// appended to, renamed or removed: it is somebody's.
const OURS: &[u8] = br#"{"specversion""#;

/// How much is read at once in search of the end of the last whole line.
const LOOK_BACK_BYTES: usize = 64 << 10;

/// The sink.
#[derive(Debug)]
pub struct File {
    lines: Lines,
}

impl File {
    /// Prepares it. The file is opened with the first event: a folder that is not there yet, because
    /// a volume comes late, keeps nothing but this sink from working.
    ///
    /// # Errors
    /// If there can be no thread to write it.
    pub fn open(to: &FileSink) -> Result<Self, String> {
        let mut place = Place { to: to.clone(), current: None };
        Ok(Self { lines: Lines::start("file-sink", move |lines| place.write(lines))? })
    }

    /// Sends one event; returns once it is synced.
    ///
    /// # Errors
    /// Whatever kept it from being written; nothing of it stands in the file then.
    pub async fn send(&self, event: &Event) -> Result<(), Fault> {
        let mut line = event.structured();
        line.push(b'\n');
        self.lines.append(line).await
    }
}

/// What kept lines from being written: a sentence for the operator.
struct Failed(String);

/// Names what is tried.
fn doing(what: &'static str) -> impl Fn(io::Error) -> Failed {
    move |error| Failed(format!("failed to {what}: {}", error.kind()))
}

fn not_opened(error: io::Error) -> Failed {
    match error.kind() {
        io::ErrorKind::NotFound => {
            Failed("failed to open the file: its folder does not exist".to_owned())
        }
        _ => doing("open the file")(error),
    }
}

struct Place {
    to: FileSink,
    current: Option<Current>,
}

/// The file while it is open: as long as `bytes`, all of it whole lines.
struct Current {
    file: fs::File,
    bytes: u64,
}

impl Place {
    fn write(&mut self, lines: &[Vec<u8>]) -> Result<(), Torn> {
        let mut written = 0;
        while written < lines.len() {
            match self.write_some(&lines[written..]) {
                Ok(count) => written += count,
                Err(Failed(why)) => {
                    // Whatever is the matter with it, the next attempt looks at it anew.
                    self.current = None;
                    return Err((written, Fault::passing(why)));
                }
            }
        }
        Ok(())
    }

    /// Writes as many as there is room for in the file; none if it is full, which makes room.
    fn write_some(&mut self, lines: &[Vec<u8>]) -> Result<usize, Failed> {
        let bytes_max = self.to.file_bytes_max;
        let current = self.current()?;
        let mut piece = Vec::new();
        let mut count = 0;
        for line in lines {
            let size = current.bytes + (piece.len() + line.len()) as u64;
            // One that is longer than a file may be gets a file of its own.
            let is_first = current.bytes == 0 && count == 0;
            if size > bytes_max && !is_first {
                break;
            }
            piece.extend_from_slice(line);
            count += 1;
        }
        if count == 0 {
            self.rotate()?;
        } else {
            current.append(&piece)?;
        }
        Ok(count)
    }

    /// The file, opened if it is not, or is not the one of that name any more, or is of another
    /// length than we left it in.
    fn current(&mut self) -> Result<&mut Current, Failed> {
        let is_current = |current: &Current| {
            let (Ok(named), Ok(ours)) = (fs::metadata(&self.to.path), current.file.metadata())
            else {
                return false;
            };
            let place = |of: &fs::Metadata| (of.dev(), of.ino());
            place(&named) == place(&ours) && ours.len() == current.bytes
        };
        let current = match self.current.take().filter(is_current) {
            Some(current) => current,
            None => Current::open(&self.to.path)?,
        };
        Ok(self.current.insert(current))
    }

    /// Renames the file, begins a new one and removes what is too old.
    fn rotate(&mut self) -> Result<(), Failed> {
        let mut renamed = numbered(&self.to.path).map_err(doing("list the renamed files"))?;
        let number = renamed.iter().map(|(number, _)| number + 1).max().unwrap_or(1);
        let target = with_number(&self.to.path, number);
        fs::rename(&self.to.path, &target).map_err(doing("rename the full file"))?;
        renamed.push((number, target));
        self.current = None;
        self.current = Some(Current::open(&self.to.path)?);
        let Some(files_max) = self.to.files_max else { return Ok(()) };
        renamed.sort_unstable_by(|a, b| b.cmp(a));
        for (_, old) in renamed.iter().skip(usize::try_from(files_max).unwrap_or(usize::MAX)) {
            // It is tried again with the next; what has to be written does not wait for it.
            if let Err(error) = fs::remove_file(old) {
                tracing::warn!(file = %old.display(), %error, "an old file of a sink stays");
            }
        }
        Ok(())
    }
}

impl Current {
    /// Opens the file or makes it, ours alone; what a crash left of a line is gone from it, and its
    /// name is safe.
    fn open(path: &Path) -> Result<Self, Failed> {
        // To open a pipe would wait for its reader.
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(Failed("failed to open the file: it is a folder or a device".to_owned()));
        }
        // It holds personal data: nobody else reads it unless somebody allows it.
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
        let file = file.map_err(not_opened)?;
        if !is_ours(&file).map_err(doing("read the file"))? {
            return Err(Failed("the file holds something else than changes".to_owned()));
        }
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                Failed("the file is locked by another sink or receiver".to_owned())
            }
            TryLockError::Error(error) => doing("lock the file")(error),
        })?;
        let bytes = whole_lines(&file, path).map_err(doing("repair the file"))?;
        let folder = fs::File::open(folder_of(path));
        folder.and_then(|folder| folder.sync_all()).map_err(doing("sync the folder"))?;
        Ok(Self { file, bytes })
    }

    /// Adds a piece and syncs it; if that fails, nothing of it is left.
    ///
    /// Nothing may be: after a failed sync the kernel takes pages for written that are not, and only
    /// what is written again is synced again.
    fn append(&mut self, piece: &[u8]) -> Result<(), Failed> {
        let appended = self.file.write_all(piece).map_err(doing("write"));
        let synced = appended.and_then(|()| self.file.sync_data().map_err(doing("sync")));
        if synced.is_err() {
            // If that fails too, what is left is repaired when the file is opened next.
            let _ = self.file.set_len(self.bytes);
        } else {
            self.bytes += piece.len() as u64;
        }
        synced
    }
}

/// Whether the file is empty or begins as ours do, be it with half a line.
fn is_ours(file: &fs::File) -> io::Result<bool> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut start = vec![0; OURS.len().min(length)];
    file.read_exact_at(&mut start, 0)?;
    Ok(OURS.starts_with(&start))
}

/// Makes the file end with a whole line; its length then.
///
/// The rest of one of ours is removed: its change was never counted as sent and comes again. Anything
/// else is not ours to remove, and gets an end.
fn whole_lines(file: &fs::File, path: &Path) -> io::Result<u64> {
    let name = path.display();
    let length = file.metadata()?.len();
    let end = end_of_lines(file, length)?;
    if end == length {
        return Ok(length);
    }
    let mut start = vec![0; BEGINNING.len()];
    let count = usize::try_from(length - end).unwrap_or(usize::MAX).min(start.len());
    file.read_exact_at(&mut start[..count], end)?;
    if start[..count] == BEGINNING[..count] {
        tracing::warn!(file = %name, bytes = length - end, "half a line at the end of a sink's file is removed");
        file.set_len(end)?;
        return Ok(end);
    }
    tracing::warn!(file = %name, "the last line of a sink's file is none of ours and had no end");
    let mut file = file;
    file.write_all(b"\n")?;
    Ok(length + 1)
}

/// Behind the last end of a line.
fn end_of_lines(file: &fs::File, length: u64) -> io::Result<u64> {
    let mut block = vec![0; LOOK_BACK_BYTES];
    let mut after = length;
    while after > 0 {
        let start = after.saturating_sub(LOOK_BACK_BYTES as u64);
        let block = &mut block[..usize::try_from(after - start).unwrap_or(LOOK_BACK_BYTES)];
        file.read_exact_at(block, start)?;
        if let Some(place) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + place as u64 + 1);
        }
        after = start;
    }
    Ok(0)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn with_number(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number:06}"));
    name.into()
}

/// The renamed files of that one, with their numbers.
fn numbered(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let name = path.file_name().unwrap_or_default();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder_of(path))? {
        let entry = entry?;
        let other = entry.file_name();
        let rest = other.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
        let number = rest
            .and_then(|rest| std::str::from_utf8(rest.strip_prefix(b".")?).ok())
            .filter(|digits| digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    Ok(found)
}
