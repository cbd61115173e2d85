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

#[cfg(test)]
mod tests {
    use super::super::files::Files;
    use super::*;
    use crate::journal::SourceRow;
    use crate::provider::Provider;

    fn receipt(id: &str, status: &str) -> String {
        format!(r#"{{"id": "{id}", "status": "{status}", "notification_type": "sms"}}"#)
    }

    #[test]
    fn only_what_stands_in_the_history_of_its_source_is_known() {
        let files = Files::settled(&["a"]);
        let known = Known::new(files.journal.clone(), files.state.clone());
        assert!(known.has("gc", receipt("a", "sent").as_bytes()));
        for (source, body) in [
            ("gc", receipt("b", "sent")),
            ("gc", receipt("a", "delivered")),
            ("another", receipt("a", "sent")),
            ("gc", "nothing that is understood".to_owned()),
        ] {
            assert!(!known.has(source, body.as_bytes()), "{source} {body}");
        }
    }

    #[test]
    fn a_body_of_which_a_part_is_not_understood_is_not_known() {
        let files = Files::settled(&[]);
        let writer = files.journal_writer();
        SourceRow { name: "ajo".to_owned(), dialect: Provider::Ajo.into() }
            .remember(&writer)
            .unwrap();
        let event = r#"{"messageExecution": {"messageProfileID": "p"},
            "messageDeliveryFeedback": {"feedbackStatus": "sent"}}"#;
        let insert = "INSERT INTO callback VALUES (1, 'ajo', '2026-11-22T10:00:00.000000Z', ?1, 0)";
        writer.execute(insert, [event.as_bytes()]).unwrap();
        drop(writer);
        files.rebuild();
        let known = Known::new(files.journal.clone(), files.state.clone());
        assert!(known.has("ajo", event.as_bytes()));
        assert!(!known.has("ajo", format!("[{event}, {{}}]").as_bytes()));
    }

    #[test]
    fn nothing_is_known_while_a_file_cannot_be_read_and_again_once_it_can() {
        let files = Files::settled(&["a"]);
        let away = files.state.with_extension("away");
        std::fs::rename(&files.state, &away).unwrap();
        let known = Known::new(files.journal.clone(), files.state.clone());
        assert!(!known.has("gc", receipt("a", "sent").as_bytes()));
        std::fs::rename(&away, &files.state).unwrap();
        assert!(known.has("gc", receipt("a", "sent").as_bytes()));
    }
}
