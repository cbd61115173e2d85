//! The thread on which all dispatchers run: started, and stopped within a time.
//!
//! Beside them it notes in the journal, now and then, how far each sink has had everything: should
//! the state be lost and settled again from the journal, no more than what came after that is owed
//! once more.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::backoff::Chance;
use super::dispatcher::{Dispatcher, open_reader};
use super::sink::Sink;
use crate::background::step_back;
use crate::clock::Clock;
use crate::config::settings;
use crate::journal::{self, Journal};
use crate::settle::{OnThread, Settled};
use crate::state::{outbox, tables};
use crate::telemetry::SinkMetrics;

/// How often it is noted how far a sink has had everything.
const NOTE: Duration = Duration::from_secs(10);

/// What a forwarder works with.
pub struct Parts {
    /// The state file.
    pub state: PathBuf,
    /// To change it.
    pub on_thread: OnThread,
    /// How far it is settled.
    pub settled: Settled,
    /// Where it is noted how far each sink has got.
    pub journal: Journal,
    /// The time.
    pub clock: Clock,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("state", &self.state).finish_non_exhaustive()
    }
}

/// The forwarding thread; stop it with [`Forwarder::stop`]. Dropped, it ends by itself.
#[derive(Debug)]
pub struct Forwarder {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Starts a dispatcher for each sink. `metrics` gives the handles of one.
    ///
    /// # Errors
    /// If a sink's files cannot be used, or the state not be read; a sentence for the operator.
    pub fn start(
        sinks: &[settings::Sink],
        parts: Parts,
        metrics: impl Fn(&str) -> SinkMetrics,
    ) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("failed to start forwarding: {error}"))?;
        let (stop, stopped) = watch::channel(false);
        let mut dispatchers = Vec::new();
        {
            let _inside = runtime.enter();
            for settings in sinks {
                dispatchers.push(dispatcher(settings, &parts, &metrics, &stopped)?);
            }
        }
        let names: Vec<Arc<str>> = sinks.iter().map(|sink| Arc::clone(&sink.name)).collect();
        let thread = std::thread::Builder::new()
            .name("forward".to_owned())
            .spawn(move || {
                step_back();
                runtime.block_on(run(dispatchers, parts, names));
            })
            .map_err(|error| format!("failed to start forwarding: {error}"))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Sends nothing more, finishes what is under way if that is done by `deadline`, and has it
    /// recorded. What is not is sent again at the next start. Blocks.
    pub fn stop(mut self, deadline: Instant) {
        let _ = self.stop.send(true);
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}

fn dispatcher(
    settings: &settings::Sink,
    parts: &Parts,
    metrics: &impl Fn(&str) -> SinkMetrics,
    stop: &watch::Receiver<bool>,
) -> Result<Dispatcher, String> {
    let name = &settings.name;
    let failed = |error: &dyn std::fmt::Display| format!("failed to open the sink {name}: {error}");
    let sink = Sink::open(settings).map_err(|error| failed(&error))?;
    let reader = open_reader(&parts.state).map_err(|error| failed(&error))?;
    Ok(Dispatcher {
        settings: settings.clone(),
        sink: Arc::new(sink),
        reader,
        on_thread: parts.on_thread.clone(),
        settled: parts.settled.clone(),
        journal: parts.journal.clone(),
        clock: parts.clock.clone(),
        chance: Chance::new().map_err(|error| failed(&error))?,
        metrics: metrics(name),
        stop: stop.clone(),
    })
}

async fn run(dispatchers: Vec<Dispatcher>, parts: Parts, names: Vec<Arc<str>>) {
    let mut all = JoinSet::new();
    for dispatcher in dispatchers {
        all.spawn(dispatcher.run());
    }
    let notes = tokio::spawn(note_for_ever(parts, names));
    while let Some(ended) = all.join_next().await {
        // A sink that panics is a bug of ours; the process goes on receiving.
        if let Err(error) = ended {
            tracing::error!(%error, "a dispatcher ended; its sink gets nothing until the next start");
        }
    }
    notes.abort();
}

async fn note_for_ever(parts: Parts, names: Vec<Arc<str>>) {
    let mut noted = vec![0; names.len()];
    loop {
        tokio::time::sleep(NOTE).await;
        let Ok(reader) = open_reader(&parts.state) else { continue };
        for (name, noted) in names.iter().zip(&mut noted) {
            let Ok(through) = had_through(&reader, name) else { continue };
            if through <= *noted {
                continue;
            }
            let (journal, sink) = (parts.journal.clone(), Arc::clone(name));
            let note = move || {
                journal.on_writer(move |connection| journal::sink_had(connection, &sink, through))
            };
            if let Ok(Ok(Ok(()))) = tokio::task::spawn_blocking(note).await {
                *noted = through;
            }
        }
    }
}

/// The last position of the journal up to which a sink has had every change.
fn had_through(reader: &Connection, sink: &str) -> rusqlite::Result<i64> {
    // Both from one moment: what is settled in between is owed.
    let reader = reader.unchecked_transaction()?;
    let (_, settled) = tables::cursor(&reader)?;
    let first = outbox::first_owed(&reader, sink)?;
    Ok(first.map_or(settled, |key| tables::seq_of(key) - 1))
}
