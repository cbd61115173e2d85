//! What commands look at first: the settings of the receiver whose data they work on, whether it has
//! any, and whether its two files fit together.

use std::path::Path;

use super::Failure;
use super::flags::ConfigFlags;
use crate::clock::Clock;
use crate::config::settings::StoreKind;
use crate::config::{self, Settings};
use crate::journal::reader::Reader;
use crate::sqlite::{self, Access};
use crate::state::tables::{SCHEMA, cursor};

/// Reads them; `env` is [`config::environment`]. Warnings are for `serve` and `config check`.
///
/// # Errors
/// If anything at all is wrong with the configuration: a command that guessed where the data are
/// could work on the wrong ones.
pub fn settings(flags: &ConfigFlags, env: &[(String, String)]) -> Result<Settings, Failure> {
    match config::load(&flags.layers(env.to_vec()), Clock::system().now()) {
        Ok(loaded) => Ok(loaded.settings),
        Err(problems) => Err(Failure::new(Failure::CONFIG, problems.to_string())
            .hint("`receiptd config check` lists what is wrong")),
    }
}

/// The same, for a command that works on what is kept.
///
/// # Errors
/// As before, and if the configuration is that of a receiver that keeps nothing.
pub fn kept(flags: &ConfigFlags, env: &[(String, String)]) -> Result<Settings, Failure> {
    let settings = settings(flags, env)?;
    match settings.store.kind {
        StoreKind::Sqlite => Ok(settings),
        StoreKind::None => Err(Failure::new(
            Failure::CONFIG,
            "this receiver keeps nothing: store.kind is \"none\", and what callbacks said is with \
             its sinks",
        )
        .hint("to look at the database of another receiver, name its configuration with --config")),
    }
}

/// Makes sure that the journal can give back everything that the state knows. A state that is
/// missing, new or damaged knows nothing.
///
/// # Errors
/// If it cannot, or one of the files is not ours or was written by a newer version.
pub fn check_journal_is_ahead(state: &Path, journal: &Path) -> Result<(), Failure> {
    let Some((Some(journal_id), seq)) = known(state)? else { return Ok(()) };
    if journal.exists() {
        let reader = Reader::open(journal)?;
        if reader.journal_id()? == journal_id && reader.last_seq()? >= seq {
            return Ok(());
        }
    }
    let message = format!("{} knows more than the journal beside it", state.display());
    Err(Failure::new(Failure::NO, message).hint(
        "the journal is missing, another one or an older copy: put the right one back, or start \
         `receiptd serve`, which makes the two fit without throwing anything away",
    ))
}

/// How far the state has settled which journal; `None` if there is none, or none to be read.
fn known(state: &Path) -> Result<Option<(Option<String>, i64)>, Failure> {
    if !state.exists() {
        return Ok(None);
    }
    let connection = match sqlite::open(state, &SCHEMA, Access::Read) {
        Err(error) if error.is_damage() => return Ok(None),
        opened => opened?,
    };
    // A file without our tables yet, or with damage further in, knows nothing either.
    Ok(cursor(&connection).ok())
}
