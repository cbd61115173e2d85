//! What is required, whether it is reached, and how figures are written.

use std::time::Duration;

/// Everything that was judged, in the order of judging.
#[derive(Default)]
pub struct Report {
    verdicts: Vec<Verdict>,
}

struct Verdict {
    text: String,
    reached: bool,
    required: bool,
}

impl Report {
    /// The first release must reach it.
    pub fn require(&mut self, text: impl Into<String>, reached: bool) {
        self.verdicts.push(Verdict { text: text.into(), reached, required: true });
    }

    /// The design aims at it; missing it fails nothing.
    pub fn aim(&mut self, text: impl Into<String>, reached: bool) {
        self.verdicts.push(Verdict { text: text.into(), reached, required: false });
    }

    /// One line for each, the required ones first.
    pub fn print(&self) {
        for (heading, required) in [("required", true), ("aimed at", false)] {
            let mut chosen = self.verdicts.iter().filter(|one| one.required == required).peekable();
            if chosen.peek().is_some() {
                println!("\n{heading}");
            }
            for verdict in chosen {
                let word = match (verdict.reached, required) {
                    (true, _) => "ok",
                    (false, true) => "NOT REACHED",
                    (false, false) => "not yet",
                };
                println!("  {}: {word}", verdict.text);
            }
        }
    }

    /// Whether everything required is reached.
    pub fn is_good(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.reached || !verdict.required)
    }
}

/// Milliseconds with what precision makes sense; `none` for [`Duration::MAX`].
pub fn ms(duration: Duration) -> String {
    if duration == Duration::MAX {
        return "none".to_owned();
    }
    let value = duration.as_secs_f64() * 1000.0;
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

/// The median; the lower of the middle two when there is no middle.
pub fn median<T: Copy + PartialOrd>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut sorted: Vec<T> = values.into_iter().collect();
    sorted.sort_by(|a, b| a.partial_cmp(b).expect("no figure is NaN"));
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}
