//! Whether a callback repeats one that is kept.
//!
//! Asked only when there is no room for another: senders repeat what they had no answer to, and a
//! repeat that is refused until its sender gives up can get all callbacks suspended, although
//! nothing is lost. What stands in the history was settled from the journal, so it is on the disk.
//! Whatever cannot be told, for a body that is not understood or a state that cannot be read, is not
//! known: the sender comes again.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rusqlite::Connection;

use crate::journal::reader::Reader;
use crate::provider;
use crate::sqlite::{self, Access};
use crate::state::tables::SCHEMA;
use crate::state::write::has_event;

/// Looks into both files, over read-only connections of its own that are opened when first needed.
#[derive(Debug)]
pub struct Known {
    journal: PathBuf,
    state: PathBuf,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    journal: Reader,
    state: Connection,
}

impl Known {
    /// Of these two files; opens neither.
    pub fn new(journal: PathBuf, state: PathBuf) -> Self {
        Self { journal, state, open: Mutex::new(None) }
    }

    /// Whether every event of this body, from this source, is in the history.
    pub fn has(&self, source: &str, body: &[u8]) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_none() {
            *open = self.open_both();
        }
        let Some(files) = open.as_ref() else { return false };
        // A file that was set aside meanwhile is opened anew next time.
        files.have(source, body).unwrap_or_else(|_| {
            *open = None;
            false
        })
    }

    fn open_both(&self) -> Option<Open> {
        let journal = Reader::open(&self.journal).ok()?;
        let state = sqlite::open(&self.state, &SCHEMA, Access::Read).ok()?;
        Some(Open { journal, state })
    }
}

impl Open {
    fn have(&self, source: &str, body: &[u8]) -> rusqlite::Result<bool> {
        let dialects = self.journal.dialects()?;
        let Some(dialect) = dialects.get(source) else { return Ok(false) };
        let reading = provider::read(dialect, body);
        if reading.unrecognised.is_some() || reading.events.is_empty() {
            return Ok(false);
        }
        for event in &reading.events {
            if !has_event(&self.state, event.kind(), source, event.id(), event.fingerprint)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
