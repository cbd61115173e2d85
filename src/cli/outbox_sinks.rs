//! The sinks that the outbox commands know of, so that one that nobody meant is told from one that
//! nothing is owed to.
//!
//! Which are configured is known only from a configuration: without one (`--db` alone) none is said to
//! be missing.

use super::Failure;
use super::db::unreadable;
use super::flags::ConfigFlags;
use super::output::plain;
use crate::config::settings::Sink;
use crate::config::{Settings, did_you_mean};
use crate::state::outbox_ask::{Place, Selection};
use crate::state::read::Reader;

/// The names of the configured ones; `None` if nothing says which are.
pub(super) struct Sinks {
    configured: Option<Vec<String>>,
}

impl Sinks {
    /// Those of these settings, which were read with these flags; `env` is
    /// [`crate::config::environment`].
    pub(super) fn of(settings: &Settings, flags: &ConfigFlags, env: &[(String, String)]) -> Self {
        let names = |sinks: &[Sink]| sinks.iter().map(|sink| sink.name.to_string()).collect();
        let has_file = flags.layers(env.to_vec()).file.is_some();
        Self { configured: has_file.then(|| names(&settings.sinks)) }
    }

    /// Whether the configuration lacks this one.
    pub(super) fn lack(&self, sink: &str) -> bool {
        self.configured.as_ref().is_some_and(|names| names.iter().all(|name| name != sink))
    }

    /// Makes sure that a sink somebody named is configured, or is owed something.
    ///
    /// # Errors
    /// If it is neither, with the one that was probably meant; or if the database cannot be read.
    pub(super) fn must_know(&self, sink: Option<&String>, reader: &Reader) -> Result<(), Failure> {
        let Some(sink) = sink.filter(|sink| self.lack(sink)) else { return Ok(()) };
        let selection = Selection { sink: Some(sink.clone()), ..Selection::default() };
        let (owed, _) = reader.outbox(&selection, &Place::start(), 1).map_err(unreadable)?;
        if !owed.is_empty() {
            return Ok(());
        }
        let owed = reader.sinks().map_err(unreadable)?;
        let names = self.configured.iter().flatten().map(String::as_str);
        let names: Vec<&str> = names.chain(owed.iter().map(|count| &*count.sink)).collect();
        let shown = plain(sink);
        let message = format!("no sink {shown} is configured, and nothing is owed to it");
        let failure = Failure::new(Failure::NO, message);
        Err(match did_you_mean(sink, names) {
            Some(hint) => failure.hint(hint),
            None => failure,
        })
    }
}
