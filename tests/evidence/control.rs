//! The receiver that must be caught: it answers before it keeps. The same program as the stand-in of
//! the benchmark, run by this one as a process of its own, so that it can be killed and traced.

use std::path::Path;
use std::process::{Command, ExitCode};

mod receipt {
    pub use crate::support::SOURCE;
}

#[path = "../../benches/support/stand_in.rs"]
mod stand_in;

const NAME: &str = "answer-before-keeping";

/// Whether this process was started to be the stand-in; if so, is it until killed.
pub fn was_asked() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_none_or(|first| first != NAME) {
        return None;
    }
    Some(stand_in::run(&arguments).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS))
}

/// What starts it, with its database there.
pub fn command(state: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg(NAME).arg("--db").arg(state);
    command
}
