//! What is printed: the lives as they are played, the settled state as a table, and what to try.

use comfy_table::{
    CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width,
};

use super::demo_body::message_id;
use super::demo_scenario::{Fate, GC_NOTIFY, Life, Outcome, Says};
use super::demo_stage::Stage;
use super::demo_verdict::{self as verdict, Verdict};
use crate::config;

/// The widest text is still read with ease.
const WIDTH_MAX: usize = 80;

/// The narrowest terminal that is provided for.
const WIDTH_MIN: usize = 40;

/// The longest usual state, `delivered, complaint`, and two spaces.
const STATE_WIDTH: u16 = 22;

/// What is looked at with.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Characters in a line.
    pub width: usize,
    /// Whether marks are coloured and titles bold.
    pub is_coloured: bool,
}

impl Screen {
    /// That of standard output.
    pub fn of_stdout() -> Self {
        let width = super::output::width_of_stdout().map(usize::from);
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdout());
        Self {
            width: width.unwrap_or(WIDTH_MAX).clamp(WIDTH_MIN, WIDTH_MAX),
            is_coloured: is_terminal && !config::is_colour_unwelcome(),
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.is_coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Colours the marks in a text whose columns are already in place.
    fn marks(self, text: &str) -> String {
        text.replace('✓', &self.paint("32", "✓")).replace('✗', &self.paint("31", "✗"))
    }

    /// The words in lines that fit beside `indent` spaces.
    fn wrap(self, indent: usize, text: &str) -> String {
        let mut lines = String::new();
        let mut column = 0;
        for word in text.split_whitespace() {
            let chars = word.chars().count();
            if column > 0 && column + 1 + chars <= self.width {
                lines.push_str(&format!(" {word}"));
                column += 1 + chars;
            } else {
                let end = if column > 0 { "\n" } else { "" };
                lines.push_str(&format!("{end}{:indent$}{word}", ""));
                column = indent + chars;
            }
        }
        lines.push('\n');
        lines
    }
}

/// What is about to happen.
pub fn opening(screen: Screen, stage: &Stage) -> String {
    let address = stage.receiver.callbacks();
    let text = format!(
        "A receiver listens on {address} with a throw-away database. GC Notify, GOV.UK Notify and \
         Adobe Journey Optimizer are played to it over HTTP, with everything their receipts are \
         known for. 204 is said once a callback is on the disk."
    );
    screen.wrap(0, &text)
}

/// A life, and what each of its callbacks got.
pub fn life(screen: Screen, number: usize, life: &Life, fates: &[Fate]) -> String {
    let title = screen.bold(&format!("{number:>2}. {}", life.title));
    let mut text = format!("\n{title} · {}\n{}", life.sender.name, screen.wrap(4, life.why));
    for (post, fate) in life.callbacks.iter().zip(fates) {
        let token = if post.has_right_token { "" } else { ", wrong token" };
        let says = format!("{}{token}", says(post.says));
        let mark = if *fate == post.fate { "" } else { " ✗ not as expected" };
        text.push_str(&screen.marks(&format!("      {says:<35}{}{mark}\n", verdict::fate(*fate))));
    }
    text
}

fn says(says: Says) -> String {
    match says {
        Says::Receipt(status, at) => format!("{status} at {}", &at[..8]),
        Says::Event(event) => event.to_owned(),
        Says::LateBounce => "bounce (async, hard)".to_owned(),
        Says::Complaint => "complaint".to_owned(),
        Says::ReturnedLetter => "returned letter".to_owned(),
        Says::Text(_) => "received text message".to_owned(),
        Says::Probe => "health check".to_owned(),
        Says::HalfAReceipt => "half a receipt".to_owned(),
    }
}

/// The settled state, and whether it is as expected.
pub fn table(screen: Screen, verdicts: &[Verdict]) -> String {
    let mut table = Table::new();
    let rule = LineStyle::none().fill('─');
    table.load_style(TableStyle::new().header_separator(rule));
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(u16::try_from(screen.width).unwrap_or(u16::MAX));
    table.set_header(["", "message", "settled state", "receipts", "right?"]);
    for verdict in verdicts {
        let mark = if verdict.is_as_expected() { "✓ yes" } else { "✗ no" };
        let state = verdict::state(&verdict.outcome);
        table.add_row([
            format!("{}.", verdict.number),
            verdict.life.title.to_owned(),
            state,
            receipts(&verdict.outcome),
            mark.to_owned(),
        ]);
    }
    for (column, (left, right)) in
        table.column_iter_mut().zip([(0, 1), (0, 2), (0, 2), (0, 2), (0, 0)])
    {
        column.set_padding((left, right));
    }
    if let Some(column) = table.column_mut(0) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    // A status in two lines is hard to look for; titles may be broken.
    if let Some(column) = table.column_mut(2) {
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(STATE_WIDTH)));
    }
    let title = screen.bold("What is known, once everything is settled");
    let table = screen.marks(&table.trim_fmt());
    let legend = screen.wrap(0, "(+n): so many repetitions, counted and otherwise without effect.");
    format!("\n{title}\n\n{table}\n\n{legend}")
}

/// How often a message was told of: `2`, or with repetitions `1 (+2)`.
fn receipts(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Notification { receipts, duplicates: 0, .. } => receipts.to_string(),
        Outcome::Notification { receipts, duplicates, .. } => format!("{receipts} (+{duplicates})"),
        Outcome::Message { .. } | Outcome::Unrecognised | Outcome::Nothing => String::new(),
    }
}

/// One sentence on all of it, after what was not as expected.
pub fn conclusion(screen: Screen, verdicts: &[Verdict]) -> String {
    let mut text = String::from("\n");
    for verdict in verdicts {
        for difference in &verdict.differences {
            text.push_str(&screen.wrap(0, &format!("✗ {}. {difference}", verdict.number)));
        }
    }
    let wrong = verdicts.iter().filter(|verdict| !verdict.is_as_expected()).count();
    let all = verdicts.len();
    let sentence = match wrong {
        0 => format!("✓ All {all} as expected: every answer and every state."),
        _ => format!("✗ {wrong} of {all} not as expected."),
    };
    text.push_str(&screen.wrap(0, &sentence));
    screen.marks(&text)
}

/// What to do with a receiver that goes on.
pub fn invitation(screen: Screen, stage: &Stage) -> String {
    let url = stage.receiver.callback_url(GC_NOTIFY.source).unwrap_or_default();
    let token = stage.token(&GC_NOTIFY);
    let (admin, database) = (stage.receiver.admin(), stage.database());
    let database = database.display();
    let (program, first) = (config::program(), message_id(1));
    let title = screen.bold("Your turn");
    let send = screen.wrap(0, "The receiver goes on until Ctrl-C. Send it a receipt:");
    let look = screen.wrap(0, "See what became of it, and why message 1 is what it is:");
    format!(
        "\n{title}\n\n{send}\n\
         curl -i {url} \\\n  \
           -H 'Authorization: Bearer {token}' \\\n  \
           -d '{{\"id\": \"my-first\", \"status\": \"delivered\",\n       \
                \"notification_type\": \"sms\"}}'\n\n\
         {look}\n\
         {program} show my-first \\\n  --db {database}\n\
         {program} explain \\\n  {first} \\\n  --db {database}\n\n\
         health    http://{admin}/readyz\n\
         metrics   http://{admin}/metrics\n\
         settled   http://{admin}/settled?wait=5s\n\
         database  {database}\n"
    )
}
