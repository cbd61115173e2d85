//! Where logs go, and which of them are written at all.

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::settings::{Log, LogFormat};

/// Writes logs to standard error, as configured; of the libraries we use, warnings at most: what they
/// say below that may hold what was sent. Does nothing if a subscriber is set already.
pub fn start_logging(log: Log) {
    let libraries = LevelFilter::from_level(log.level).min(LevelFilter::WARN);
    let levels = Targets::new().with_default(libraries).with_target("receiptd", log.level);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let registry = tracing_subscriber::registry();
    let result = match log.format {
        LogFormat::Text => {
            let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
            registry.with(layer.with_ansi(is_terminal).with_filter(levels)).try_init()
        }
        LogFormat::Json => {
            registry.with(layer.json().flatten_event(true).with_filter(levels)).try_init()
        }
    };
    // A test or an embedding program may have set one already: theirs stays.
    drop(result);
}
