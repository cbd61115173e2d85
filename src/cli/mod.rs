//! One file a command. The only room that prints.
//!
//! Every command is `run(args) -> Result<ExitCode, Failure>`: what it has to say goes to standard
//! output, what went wrong comes back as a [`Failure`] and is printed once, by `main`, on standard
//! error. Exit codes: 0 done; 1 the answer is no (a difference, a damaged file, not found);
//! 2 wrong usage; 69 the receiver cannot be reached; 74 a file could not be read or written;
//! 78 the configuration is wrong.

use std::fmt;

pub mod config;

pub mod flags;

/// Why a command failed, in words for the person at the terminal.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong: a sentence fragment, lower case, without a full stop.
    pub message: String,
    /// What to do about it, if we know.
    pub hint: Option<String>,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// The answer is no.
    pub const NO: u8 = 1;
    /// Wrong usage.
    pub const USAGE: u8 = 2;
    /// The receiver cannot be reached.
    pub const UNAVAILABLE: u8 = 69;
    /// A file could not be read or written.
    pub const IO: u8 = 74;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 78;

    /// A failure with that exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}
