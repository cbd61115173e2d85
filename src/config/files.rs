//! Files that settings name, read whole up to a bound.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
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
    let file = File::open(path)?;
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
