//! The two halves, receive's journal and settle's state, started and stopped together; and what the
//! journal remembers of the sources.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::api::control::Control;
use crate::ask;
use crate::change::{Filter, OwedTo, What};
use crate::clock::Clock;
use crate::config::settings::{Credentials, Deliver, Settings, Sink, Source, Token};
use crate::forward::forwarder::{self, Forwarder};
use crate::journal::{self, Journal, SourceRow};
use crate::lock::Lock;
use crate::lookout::Lookout;
use crate::provider::Provider;
use crate::receiver::StartError;
use crate::reconcile::reconciler;
use crate::settle::{self, Settled, Settler};
use crate::sqlite::checkpoint::{Checkpointer, Hold};
use crate::sqlite::{self, Access, Durability, OpenError};
use crate::state;
use crate::telemetry::Metrics;

/// What is under way to sinks when stopping begins has so long to be finished.
const FORWARD_MAX: Duration = Duration::from_secs(2);

/// Entries of the journal that are looked through at a start for when each source last called back, and
/// what that may take: callers wait meanwhile.
const RECALLED_ENTRIES_MAX: usize = 10_000;
const RECALL_MS_MAX: Duration = Duration::from_millis(50);

/// The name of the source that exists when nothing is configured.
pub const DEFAULT_SOURCE: &str = "default";

/// Both files, with the threads that write and checkpoint them. Dropped, the threads end by
/// themselves; everything acknowledged is on the disk either way.
#[derive(Debug)]
pub struct Halves {
    /// The journal's file and the state's.
    pub files: [PathBuf; 2],
    /// Where callbacks go.
    pub journal: Journal,
    /// How far they are settled.
    pub settled: Settled,
    writer: journal::Writer,
    settler: Settler,
    /// `None` without sinks.
    forwarder: Option<Forwarder>,
    checkpointers: [Checkpointer; 2],
}

impl Halves {
    /// Opens both files, makes sure that they belong together, and starts the threads.
    ///
    /// # Errors
    /// If a file cannot be opened, is not ours, or was written by a newer version; or if a sink cannot
    /// be prepared.
    pub fn start(
        settings: &Settings,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        lock: &Arc<Lock>,
    ) -> Result<Self, StartError> {
        let mut halves = Self::start_without_forwarding(settings, clock, metrics, lock)?;
        let Self { files, journal, settled, settler, .. } = &halves;
        see_to_others(&settings.sinks, &files[1], journal, metrics)?;
        halves.forwarder =
            start_forwarding(settings, &files[1], journal, settled, settler, (clock, metrics))?;
        Ok(halves)
    }

    /// The same, for a command that changes the files for a while: what sinks are owed stays owed.
    ///
    /// # Errors
    /// As [`Halves::start`].
    pub fn start_without_forwarding(
        settings: &Settings,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        lock: &Arc<Lock>,
    ) -> Result<Self, StartError> {
        let files = [settings.store.journal_path(), settings.store.path.clone()];
        let opened = settle::open_beside(&files[1], &files[0], clock)?;
        let (journal, writer, tell_callers) = start_journal(settings, &files[0], metrics, lock)?;
        // It ends with the writer.
        tokio::spawn(tell_callers);
        let checkpointers = [
            Checkpointer::start(&files[0], &journal::SCHEMA, {
                let progress = Arc::clone(journal.progress());
                Box::new(move || progress.fail())
            })?,
            // Whatever is lost of the state is settled again.
            Checkpointer::start(&files[1], &state::tables::SCHEMA, Box::new(|| {}))?,
        ];
        let hold = checkpointers[1].hold();
        let owed_to = owed_to(&settings.sinks, &journal)?;
        count_owed(&settings.sinks, &opened, metrics)?;
        let (settler, settled) = start_settling(
            settings,
            &files,
            opened,
            (&journal, owed_to, hold),
            clock,
            (metrics, lock),
        )?;
        Ok(Self { files, journal, settled, writer, settler, forwarder: None, checkpointers })
    }

    /// Tells the metrics when these sources last called back before this start.
    pub fn recall(&self, sources: &[Source], metrics: &Metrics) {
        let names: Vec<_> = sources.iter().map(|source| Arc::clone(&source.name)).collect();
        let last = journal::reader::Reader::open(&self.files[0])
            .map_err(StartError::from)
            .and_then(|reader| {
                Ok(reader.last_called_back(&names, RECALLED_ENTRIES_MAX, RECALL_MS_MAX)?)
            });
        match last {
            Ok(last) => last.iter().for_each(|(name, at)| metrics.called_back_before(name, *at)),
            // No reason not to receive.
            Err(error) => tracing::warn!(
                %error,
                "when sources last called back could not be read; the metrics do not say it until \
                 they call back again"
            ),
        }
    }

    /// What someone who shows `key` may ask for.
    pub fn control(&self, key: &str, metrics: &Arc<Metrics>) -> Control {
        Control {
            key: key.to_owned(),
            journal: self.journal.clone(),
            state: self.settler.on_thread(),
            files: self.files.clone(),
            metrics: Arc::clone(metrics),
            pruning: Arc::default(),
        }
    }

    /// What readers ask from.
    pub fn read_by(&self, clock: &Clock, metrics: &Arc<Metrics>) -> ask::Parts {
        ask::Parts {
            state: self.files[1].clone(),
            journal: self.journal.clone(),
            settled: self.settled.clone(),
            on_thread: self.settler.on_thread(),
            emptier: self.checkpointers[1].emptier(),
            clock: clock.clone(),
            metrics: Arc::clone(metrics),
        }
    }

    /// What platforms are asked with.
    pub fn asking(&self, clock: &Clock) -> reconciler::Parts {
        reconciler::Parts {
            files: self.files.clone(),
            journal: self.journal.clone(),
            settled: self.settled.clone(),
            on_thread: self.settler.on_thread(),
            clock: clock.clone(),
        }
    }

    /// What looks out for what should have come.
    pub fn lookout(&self, settings: &Settings, clock: &Clock, metrics: &Arc<Metrics>) -> Lookout {
        let filters = settings.sinks.iter().map(|sink| &sink.filter);
        let told_of = Filter::sources_heard(filters, What::Overdue);
        Lookout {
            files: self.files.clone(),
            journal: self.journal.clone(),
            settled: self.settled.clone(),
            told_of,
            on_thread: self.settler.on_thread(),
            clock: clock.clone(),
            metrics: Arc::clone(metrics),
        }
    }

    /// Commits what waits, settles it if that is done by `deadline`, and ends the threads. Blocks.
    pub fn stop(self, deadline: Instant) {
        self.journal.close();
        self.writer.join();
        // Before settling ends, which writes down what became of changes.
        if let Some(forwarder) = self.forwarder {
            forwarder.stop(deadline.min(Instant::now() + FORWARD_MAX));
        }
        self.settler.stop(deadline);
        drop(self.checkpointers);
    }
}

fn start_journal(
    settings: &Settings,
    path: &Path,
    metrics: &Arc<Metrics>,
    lock: &Arc<Lock>,
) -> Result<(Journal, journal::Writer, impl Future<Output = ()> + Send + use<>), OpenError> {
    let (limits, store) = (&settings.limits, &settings.store);
    let options = journal::Options {
        queue_callbacks_max: limits.queue_callbacks_max,
        queue_bytes_max: limits.queue_bytes_max,
        batch_callbacks_max: limits.batch_callbacks_max,
        free_bytes_min: store.free_bytes_min,
        reserve_bytes: store.reserve_bytes,
        durability: Durability::Full,
    };
    // The thread holds the lock as long as it lives, whoever has let go of it.
    let (metrics, lock) = (Arc::clone(metrics), Arc::clone(lock));
    let observer = move |report| {
        let _held = &lock;
        metrics.committed(report);
    };
    journal::start(path, options, Box::new(observer))
}

fn start_settling(
    settings: &Settings,
    [journal_path, state_path]: &[PathBuf; 2],
    opened: settle::Opened,
    (journal, owed_to, hold): (&Journal, Vec<OwedTo>, Hold),
    clock: &Clock,
    (metrics, lock): (&Arc<Metrics>, &Arc<Lock>),
) -> Result<(Settler, Settled), OpenError> {
    let options = settle::Options {
        path: state_path.clone(),
        journal: journal_path.clone(),
        callbacks_max: settings.limits.settle_callbacks_max,
        clock: clock.clone(),
        owed_to,
        hold,
    };
    let (metrics, lock) = (Arc::clone(metrics), Arc::clone(lock));
    let observer = Box::new(move |report: &settle::Report| {
        let _held = &lock;
        metrics.settled(report);
    });
    settle::start(options, opened, Arc::clone(journal.progress()), observer)
}

/// What settling owes to whom. A sink that the journal has never heard of is owed what comes from now
/// on.
fn owed_to(sinks: &[Sink], journal: &Journal) -> Result<Vec<OwedTo>, StartError> {
    let mut all = Vec::new();
    for sink in sinks {
        let name = Arc::clone(&sink.name);
        let (since, is_new) =
            journal.on_writer(move |journal| journal::remember_sink(journal, &name))??;
        if is_new {
            tracing::info!(
                sink = &*sink.name,
                "the sink is new, or was away: it is told of what arrives from now on"
            );
        }
        all.push(owed_since(sink, since));
    }
    Ok(all)
}

/// The same for the sinks that the journal has heard of; changes nothing.
///
/// # Errors
/// If the journal cannot be read.
pub fn known_owed_to(
    sinks: &[Sink],
    journal: &rusqlite::Connection,
) -> rusqlite::Result<Vec<OwedTo>> {
    let mut all = Vec::new();
    for sink in sinks {
        let since = journal::sink_since(journal, &sink.name)?;
        all.extend(since.map(|since| owed_since(sink, since)));
    }
    Ok(all)
}

fn owed_since(sink: &Sink, since: i64) -> OwedTo {
    OwedTo {
        sink: Arc::clone(&sink.name),
        since,
        filter: sink.filter.clone(),
        is_latest_only: sink.deliver == Deliver::Latest,
        wants_body: sink.wants_body(),
    }
}

/// Before anything more can be owed, which is counted on top of this.
fn count_owed(sinks: &[Sink], opened: &settle::Opened, metrics: &Metrics) -> rusqlite::Result<()> {
    for sink in sinks {
        let (rows, parked) = state::outbox::count(&opened.connection, &sink.name)?;
        metrics.sink(&sink.name).found(rows, parked);
    }
    Ok(())
}

/// What is owed to a sink that is not configured any more stays, is counted, and is told: somebody may
/// have misspelt it. One that is owed nothing is forgotten: put back, it is a new one.
fn see_to_others(
    sinks: &[Sink],
    state: &Path,
    journal: &Journal,
    metrics: &Metrics,
) -> Result<(), StartError> {
    let reader = sqlite::open(state, &state::tables::SCHEMA, Access::Read)?;
    let mut names: Vec<String> = sinks.iter().map(|sink| sink.name.to_string()).collect();
    for name in state::outbox::sinks(&reader)? {
        if names.contains(&name) {
            continue;
        }
        let (rows, parked) = state::outbox::count(&reader, &name)?;
        metrics.other_sink(&name).found(rows, parked);
        tracing::warn!(
            sink = name,
            changes = rows,
            "changes are owed to a sink that is not configured; put it back, or \
             `receiptd outbox discard --sink {name} --standing any`"
        );
        names.push(name);
    }
    journal.on_writer(move |journal| journal::forget_sinks_but(journal, &names))??;
    Ok(())
}

fn start_forwarding(
    settings: &Settings,
    state: &Path,
    journal: &Journal,
    settled: &Settled,
    settler: &Settler,
    (clock, metrics): (&Clock, &Metrics),
) -> Result<Option<Forwarder>, StartError> {
    if settings.sinks.is_empty() {
        return Ok(None);
    }
    let parts = forwarder::Parts {
        state: state.to_owned(),
        on_thread: settler.on_thread(),
        settled: settled.clone(),
        journal: journal.clone(),
        clock: clock.clone(),
    };
    Forwarder::start(&settings.sinks, parts, |sink| metrics.sink(sink))
        .map(Some)
        .map_err(StartError::Sink)
}

/// The configured sources; without any, the source `default` with the token the journal knows, or a
/// new one, which is returned to be shown once.
///
/// # Errors
/// If the journal cannot remember them, or there is no randomness.
pub fn prepare_sources(
    configured: &[Source],
    journal: &Journal,
    clock: &Clock,
) -> Result<(Vec<Source>, Option<String>), StartError> {
    if !configured.is_empty() {
        remember(configured, journal)?;
        return Ok((configured.to_vec(), None));
    }
    let fresh = random_bearer()?;
    let sha256: [u8; 32] = Sha256::digest(fresh.as_bytes()).into();
    let now = clock.now();
    let known: [u8; 32] = journal.on_writer(move |connection| {
        journal::keep_credential(connection, DEFAULT_SOURCE, sha256, now)
    })??;
    let token = Token { label: "generated".to_owned(), sha256: known, not_after: None };
    let sources = vec![Source {
        name: Arc::from(DEFAULT_SOURCE),
        dialect: Provider::Notify.into(),
        path: format!("/callbacks/{DEFAULT_SOURCE}"),
        credentials: Credentials { tokens: vec![token], ..Credentials::default() },
        upstream: None,
        readers: Vec::new(),
    }];
    remember(&sources, journal)?;
    Ok((sources, (known == sha256).then_some(fresh)))
}

/// Writes into the journal how these sources' callbacks are read, so that it can be settled by
/// itself.
///
/// # Errors
/// If the journal cannot be written.
pub fn remember(sources: &[Source], journal: &Journal) -> Result<(), StartError> {
    let rows: Vec<SourceRow> = sources
        .iter()
        .map(|source| SourceRow { name: source.name.to_string(), dialect: source.dialect.clone() })
        .collect();
    journal.on_writer(move |connection| {
        // All or none: those of a reload that fails must not be read in another way from now on.
        let transaction = sqlite::write_transaction(connection)?;
        rows.iter().try_for_each(|row| row.remember(&transaction))?;
        transaction.commit()
    })??;
    Ok(())
}

/// The same, in a runtime that goes on meanwhile: the writer may be held up by its disk.
///
/// # Errors
/// As [`remember`].
pub async fn remember_meanwhile(sources: &[Source], journal: &Journal) -> Result<(), StartError> {
    let (sources, journal) = (sources.to_vec(), journal.clone());
    let remembering = tokio::task::spawn_blocking(move || remember(&sources, &journal));
    remembering.await.map_err(io::Error::from)?
}

/// 32 random bytes as base64url without padding: 43 characters that every form field takes.
///
/// # Errors
/// If there is no randomness.
pub fn random_bearer() -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::from)?;
    Ok(data_encoding::BASE64URL_NOPAD.encode(&bytes))
}
