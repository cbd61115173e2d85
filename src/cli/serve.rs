//! `receiptd serve`: the receiver, until a signal ends it.

use std::io::{IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;

use super::Failure;
use super::flags::ServeFlags;
use crate::clock::Clock;
use crate::config::settings::StoreKind;
use crate::config::{self, Layers, Loaded};
use crate::halves::DEFAULT_SOURCE;
use crate::journal::reader::Reader;
use crate::lock::LockError;
use crate::receiver::{Ended, Receiver, StartError};
use crate::shutdown::{Asked, Signals};
use crate::sqlite::{Fault, OpenError};
use crate::telemetry::start_logging;

/// Receive callbacks, settle them, keep them
///
/// Listens for callbacks, writes each into the journal before it answers, and settles the state of
/// every notification behind that. Without any configuration it listens on 127.0.0.1:8080, keeps
/// receiptd.db in this folder, and makes one source, `default`, whose token it prints once, to a
/// terminal only.
///
/// SIGHUP reads sources, tokens, readers and upstreams again; SIGTERM or Ctrl-C finishes what is in flight and ends.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  receiptd serve
  receiptd serve --config receiptd.toml
  receiptd serve --source passport=gc-notify --token-sha256 2026-11=<64 hex digits>

Exit codes: 0 stopped as asked; 69 an address is taken, or another process has the database;
74 a disk failed; 78 the configuration is wrong.")]
pub struct Args {
    #[command(flatten)]
    flags: ServeFlags,

    /// Print the generated token even though standard output is no terminal
    ///
    /// Only without any configuration, and only at the first start, is there such a token. Where
    /// standard output is kept, by systemd or a container's runtime, so is the token: without the
    /// flag `serve` does not make one there.
    #[arg(long)]
    print_token: bool,
}

/// Runs until a signal, or a disk that failed.
///
/// # Errors
/// If the configuration is wrong or the receiver cannot start.
pub fn run(
    args: &Args,
    env: Vec<(String, String)>,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let layers = args.flags.layers(env);
    let loaded = load(&layers)?;
    start_logging(loaded.settings.log);
    log_warnings(&loaded);
    let may_print_token = args.print_token || std::io::stdout().is_terminal();
    if loaded.settings.sources.is_empty()
        && loaded.settings.store.kind == StoreKind::Sqlite
        && !may_print_token
        && needs_token(&loaded.settings.store.journal_path())
    {
        return Err(no_place_for_token());
    }
    raise_file_limit(loaded.settings.limits.connections_max);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Failure::IO, format!("failed to start: {error}")))?;
    let ended = runtime.block_on(serve(loaded, &layers, out));
    // What blocks on a disk that hangs must not keep the process from ending.
    runtime.shutdown_background();
    ended
}

async fn serve(loaded: Loaded, layers: &Layers, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen()
        .map_err(|error| Failure::new(Failure::IO, format!("failed to start: {error}")))?;
    let receiver = Receiver::start(loaded.settings, Clock::system()).await.map_err(explain)?;
    announce(&receiver, out);
    let asked_to_stop = async {
        while signals.next().await == Asked::Reload {
            tokio::select! {
                () = reload(&receiver, layers) => {}
                // A slow disk may take its time to remember sources; whoever stops does not wait for it.
                () = signals.stop() => break,
            }
        }
    };
    tokio::select! {
        () = asked_to_stop => tracing::info!("stopping: finishing what is in flight"),
        () = receiver.failed() => tracing::error!("stopping: the journal cannot be written"),
    }
    match receiver.stop().await {
        Ended::Stopped => Ok(ExitCode::SUCCESS),
        Ended::Failed => Err(Failure::new(Failure::IO, "an I/O error stopped the journal")
            .hint("everything acknowledged before it is kept; look at the disk, then start again")),
    }
}

/// Whether a start without sources would make a token. A journal that cannot be read says what is
/// wrong with it when it is opened.
fn needs_token(journal: &Path) -> bool {
    const KNOWN: &str = "SELECT count(*) FROM credential WHERE source = ?1";
    if !journal.exists() {
        return true;
    }
    let Ok(reader) = Reader::open(journal) else { return false };
    match reader.connection().query_row(KNOWN, [DEFAULT_SOURCE], |row| row.get::<_, i64>(0)) {
        Ok(count) => count == 0,
        Err(error) => error.to_string().contains("no such table"),
    }
}

fn no_place_for_token() -> Failure {
    let message = "nothing is configured, so a token would have to be made and shown once, but \
                   standard output is no terminal: it would stay in whatever keeps the output";
    Failure::new(Failure::CONFIG, message).hint(
        "name the source: make a token with `receiptd token new`, then give --source and \
         --token-sha256, or a file with --config; or start once in a terminal, or with \
         --print-token",
    )
}

fn load(layers: &Layers) -> Result<Loaded, Failure> {
    config::load(layers, Clock::system().now())
        .map_err(|problems| Failure::new(Failure::CONFIG, problems.to_string()))
}

fn log_warnings(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
}

/// Reads the configuration again; a bad one keeps what is in force.
async fn reload(receiver: &Receiver, layers: &Layers) {
    let result = match config::load(layers, Clock::system().now()) {
        Ok(loaded) if loaded.settings.sources.is_empty() => {
            tracing::warn!("the configuration names no source any more; the old ones stay");
            return;
        }
        Ok(loaded) => {
            log_warnings(&loaded);
            if receiver.needs_restart_for(&loaded.settings) {
                tracing::warn!(
                    "only sources, tokens, readers, upstreams and TLS files are read again; the rest \
                     needs a restart"
                );
            }
            let sources = loaded.settings.sources;
            receiver.reload(&sources).await.map(|()| sources).map_err(|error| error.to_string())
        }
        Err(problems) => Err(problems.to_string()),
    };
    match result {
        Ok(sources) => tracing::info!(
            sources = sources.len(),
            readers = sources.iter().map(|source| source.readers.len()).sum::<usize>(),
            upstreams = sources.iter().filter(|source| source.upstream.is_some()).count(),
            "sources with their tokens, readers and upstreams were read again and are in force"
        ),
        Err(problem) => tracing::error!(problem, "not reloaded; the old settings stay in force"),
    }
}

fn announce(receiver: &Receiver, out: &mut dyn Write) {
    let (callbacks, admin) = (receiver.callbacks(), receiver.admin());
    let scheme = receiver.scheme();
    let mut text = String::new();
    if let Some(token) = receiver.new_token() {
        text.push_str(&format!(
            "Nothing is configured yet, so there is one source, `{DEFAULT_SOURCE}`.\n\
             Its token is shown this once; only its hash is kept:\n\n    {token}\n\n\
             Callback URL: {scheme}://{callbacks}/callbacks/{DEFAULT_SOURCE}\n\n"
        ));
    }
    if receiver.new_token().is_none() && receiver.is_unconfigured() {
        text.push_str(&format!(
            "Nothing is configured, so there is one source, `{DEFAULT_SOURCE}`, at \
             {scheme}://{callbacks}/callbacks/{DEFAULT_SOURCE}\n\
             Its token was shown at the first start. If it is lost, make one with `receiptd token \
             new` and configure a source.\n\n"
        ));
    }
    text.push_str(&format!("listening callbacks={scheme}://{callbacks} admin=http://{admin}\n"));
    // Where changes go to standard output nothing else does: the log says the same.
    if !receiver.writes_to_stdout() {
        // Standard output may be closed; the receiver works all the same.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
    tracing::info!(%callbacks, %admin, "ready");
}

fn explain(error: StartError) -> Failure {
    let message = error.to_string();
    match error {
        StartError::Lock(LockError::Held { .. }) => Failure::new(Failure::UNAVAILABLE, message),
        StartError::Lock(error) => error.into(),
        StartError::Listen { .. } => Failure::new(Failure::UNAVAILABLE, message).hint(
            "is another process listening there? choose another with --listen, --admin-listen",
        ),
        StartError::Tls(_) | StartError::Sink(_) | StartError::Relay(_) => {
            Failure::new(Failure::CONFIG, message)
        }
        StartError::Open(error) => explain_open(&error, message),
        StartError::Sqlite(error) => with_hint_for(&error, message),
        StartError::Journal(_) => Failure::new(Failure::IO, message).hint("the log says why"),
        StartError::Io(_) => Failure::new(Failure::IO, message).hint(Failure::LOOK_AT_FOLDER),
    }
}

fn explain_open(error: &OpenError, message: String) -> Failure {
    let failure = Failure::new(Failure::IO, message.clone());
    match error {
        error if error.is_damage() => failure.hint(
            "the journal is damaged, and the newest callbacks may stand in the -wal beside it: with \
             the receiver stopped, copy both files and their -wal elsewhere first; run `receiptd \
             check-db`; restore a backup if there is one; only if not, move the journal with its \
             -wal and -shm away and start: what the state knows is kept",
        ),
        OpenError::Sqlite { error, .. } => with_hint_for(error, message),
        OpenError::Foreign { .. } => failure.hint("is --db (or store.path) the file it should be?"),
        // The message says all there is to say.
        OpenError::Newer { .. } | OpenError::Older { .. } | OpenError::OldLibrary(_) => failure,
    }
}

fn with_hint_for(error: &rusqlite::Error, message: String) -> Failure {
    let failure = Failure::new(Failure::IO, message);
    match Fault::of(error) {
        Fault::Full => failure.hint("the disk is full: make room there, then start again"),
        Fault::Busy => failure.hint("another program has the file locked: end that one first"),
        Fault::Io => failure.hint(Failure::LOOK_AT_FOLDER),
        Fault::Damaged | Fault::Other => failure,
    }
}

/// Connections are files: asks the system for as many as are allowed, plus our own.
fn raise_file_limit(connections_max: usize) {
    /// Connections on the admin listener and to sinks, database files, signals.
    const OTHERS: u64 = 512;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = u64::try_from(connections_max).unwrap_or(u64::MAX).saturating_add(OTHERS);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum });
    if raised < wanted {
        tracing::warn!(
            limit = raised,
            wanted,
            "the limit on open files is below limits.connections_max; raise it (ulimit -n)"
        );
    }
}
