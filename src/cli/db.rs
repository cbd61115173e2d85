//! The two files a reading command looks into: found, opened, and what to say if they are not.

use std::path::{Path, PathBuf};

use super::Failure;
use super::flags::ConfigFlags;
use super::setup;
use crate::config;
use crate::journal;
use crate::sqlite::OpenError;
use crate::state::read::Reader;

/// The state, to be read.
///
/// # Errors
/// If the configuration is wrong, there is no state, or it cannot be opened: with what to do.
pub fn state(flags: &ConfigFlags) -> Result<Reader, Failure> {
    let path = path(flags)?;
    must_exist(&path)?;
    Reader::open(&path).map_err(not_opened)
}

/// The journal beside it, to be read.
///
/// # Errors
/// As for the state.
pub fn journal(flags: &ConfigFlags) -> Result<journal::reader::Reader, Failure> {
    let path = journal::path_beside(&path(flags)?);
    must_exist(&path)?;
    journal::reader::Reader::open(&path).map_err(not_opened)
}

fn path(flags: &ConfigFlags) -> Result<PathBuf, Failure> {
    setup::kept(flags, &config::environment()).map(|settings| settings.store.path)
}

pub(super) fn must_exist(path: &Path) -> Result<(), Failure> {
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::new(Failure::IO, format!("there is no database at {}", path.display()))
                .hint("`receiptd serve` makes it; is --db (or store.path) the one it uses?"))
        }
        Err(error) => {
            Err(Failure::new(Failure::IO, format!("failed to look at {}: {error}", path.display())))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
pub(super) fn not_opened(error: OpenError) -> Failure {
    let failure = Failure::new(Failure::IO, error.to_string());
    match &error {
        OpenError::Foreign { .. } => {
            failure.hint("is --db (or store.path) the state file that `receiptd serve` uses?")
        }
        error if error.is_damage() => failure
            .hint("`receiptd check-db` says how far; `receiptd rebuild` makes the state anew"),
        _ => failure,
    }
}

/// A question that SQLite could not answer.
#[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
pub fn unreadable(error: rusqlite::Error) -> Failure {
    let failure = Failure::new(Failure::IO, format!("failed to read the database: {error}"));
    let text = error.to_string();
    if text.contains("no such table") || text.contains("no such column") {
        return failure.hint(
            "the file is of an older version: `receiptd serve` of this version brings it up to \
             date, and `receiptd rebuild` makes the state anew",
        );
    }
    failure
}
