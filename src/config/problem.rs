//! What is wrong with a configuration, in words for the person who wrote it.
//!
//! A [`Problem`] names the key, where its value came from, what was found, what was expected and,
//! where we know, what to do. What was found never holds a secret: whoever reads a key that may
//! hold one describes the value instead of quoting it. [`Problems`] is never empty and prints all
//! of them at once, numbered, for a terminal of 80 columns.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Columns of the narrowest terminal a list of problems must be readable on.
const COLUMNS: usize = 80;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The embedded `config/receiptd.toml`.
    Default,
    /// The configuration file.
    File {
        /// As it was named.
        path: Arc<PathBuf>,
        /// Counted from 1; none when it is about the file as a whole.
        line: Option<usize>,
    },
    /// An environment variable, by name.
    Environment(String),
    /// A flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as a dotted path. A source or token stands there by its name if it has a
    /// usable one (`source.passport.path`), otherwise by its number from 1 (`source[2].name`).
    pub key: String,
    /// Where the value came from, or, if it is missing, where it should stand.
    pub origin: Origin,
    /// What was found; described rather than quoted where it may be a secret.
    pub found: String,
    /// What would be right.
    pub expected: String,
    /// What to do about it, if we know.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines("", ""))
    }
}

impl Problem {
    /// The problem as wrapped lines, the first after `first`, the others after `rest`.
    fn lines(&self, first: &str, rest: &str) -> String {
        let mut text = String::new();
        wrap(&mut text, &format!("{} ({})", self.key, self.origin), first, rest);
        let parts = [("found:", Some(&self.found)), ("expected:", Some(&self.expected))];
        for (name, part) in parts.into_iter().chain([("hint:", self.hint.as_ref())]) {
            if let Some(part) = part {
                text.push('\n');
                let head = format!("{rest}{name:<10}");
                wrap(&mut text, part, &head, &" ".repeat(head.len()));
            }
        }
        text
    }
}

/// Everything that is wrong with one configuration; never empty. What only deserves a look is told with
/// it, so that nobody hears of that one run later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl Problems {
    /// All of them, those of the file first and in its order; `None` if there is none.
    pub(super) fn new(mut problems: Vec<Problem>, warnings: &[Warning]) -> Option<Self> {
        problems.sort_by_key(|problem| match &problem.origin {
            Origin::File { line, .. } => (0, line.unwrap_or(0)),
            Origin::Environment(_) => (1, 0),
            Origin::Flag(_) => (2, 0),
            Origin::Default => (3, 0),
        });
        let warnings = warnings.to_vec();
        (!problems.is_empty()).then_some(Self { problems, warnings })
    }

    /// The only one.
    pub(super) fn only(problem: Problem) -> Self {
        Self { problems: vec![problem], warnings: Vec::new() }
    }

    /// Each of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.problems.iter()
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => f.write_str("the configuration has 1 problem:")?,
            count => write!(f, "the configuration has {count} problems:")?,
        }
        for (index, problem) in self.problems.iter().enumerate() {
            let number = format!("{:>3}. ", index + 1);
            write!(f, "\n\n{}", problem.lines(&number, "     "))?;
        }
        for warning in &self.warnings {
            let mut text = String::new();
            wrap(&mut text, &warning.to_string(), "warning: ", "         ");
            write!(f, "\n\n{text}")?;
        }
        Ok(())
    }
}

/// Something that works today but deserves a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The setting, as in [`Problem::key`].
    pub key: String,
    /// Where its value came from.
    pub origin: Origin,
    /// A sentence fragment, lower case, without a full stop; never holds a secret.
    pub message: String,
}

impl Warning {
    /// Of what keeps something from working, but not a receiver from starting.
    pub(super) fn of_problem(problem: &Problem) -> Self {
        let Problem { key, origin, found, .. } = problem;
        Self { key: key.clone(), origin: origin.clone(), message: found.clone() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.origin, self.message)
    }
}

/// Appends `text` broken at spaces so that no line is wider than [`COLUMNS`], unless one word is.
fn wrap(out: &mut String, text: &str, first: &str, rest: &str) {
    out.push_str(first);
    let mut width = first.chars().count();
    let mut line_is_empty = true;
    for word in text.split_whitespace() {
        let word_width = word.chars().count();
        if !line_is_empty && width + 1 + word_width > COLUMNS {
            out.push('\n');
            out.push_str(rest);
            width = rest.chars().count();
            line_is_empty = true;
        }
        if !line_is_empty {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += word_width;
        line_is_empty = false;
    }
}
