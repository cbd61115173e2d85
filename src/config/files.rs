//! Files that settings name, read whole up to a bound.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Why a file could not be read. Never holds a word of what is in it.
#[derive(Debug)]
pub(super) enum Fault {
    /// The system's answer.
    Io(io::Error),
    /// A folder, or anything else that is not a file.
    NotAFile,
    /// More than the bound, in bytes.
    TooLarge(u64),
    /// A secret that every user of the machine may read or replace; the permissions.
    ForEveryone(u32),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => match error.kind() {
                io::ErrorKind::NotFound => f.write_str("no such file"),
                io::ErrorKind::PermissionDenied => f.write_str("no permission to read it"),
                _ => write!(f, "{error}"),
            },
            Self::NotAFile => f.write_str("not a file"),
            Self::TooLarge(bytes_max) => write!(f, "more than {bytes_max} bytes"),
            Self::ForEveryone(mode) => write!(f, "open to every user, its mode is {mode:04o}"),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The bytes of the file, if they are at most `bytes_max`. A pipe is read too (`<(…)` in a shell,
/// a secret handed over by a supervisor); a folder is not.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Fault> {
    read_open(File::open(path)?, bytes_max)
}

/// The same of a file that holds a secret, unless every user of the machine may read or replace it.
/// Its group may read it: that is how a service gets at what somebody else put there.
pub(super) fn read_secret(path: &Path, bytes_max: u64) -> Result<Vec<u8>, Fault> {
    /// What the permissions say of all others: to read and to write.
    const OTHERS: u32 = 0o006;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // The mode of a folder would lead the reader astray.
    if metadata.is_dir() {
        return Err(Fault::NotAFile);
    }
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS != 0 {
        return Err(Fault::ForEveryone(mode));
    }
    read_open(file, bytes_max)
}

fn read_open(file: File, bytes_max: u64) -> Result<Vec<u8>, Fault> {
    if file.metadata()?.is_dir() {
        return Err(Fault::NotAFile);
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len <= bytes_max) {
        Ok(bytes)
    } else {
        Err(Fault::TooLarge(bytes_max))
    }
}
