//! A bar for long work, on a terminal only.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on standard error; shows nothing if that is no terminal, so that logs stay clean.
pub fn bar(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{wide_bar}] {percent}% {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::new(0).with_style(style).with_message(what)
}

/// Shows that `done` of `all` are done.
pub fn show(bar: &ProgressBar, done: i64, all: i64) {
    bar.set_length(u64::try_from(all).unwrap_or(0));
    bar.set_position(u64::try_from(done).unwrap_or(0));
}
