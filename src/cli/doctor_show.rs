//! What the doctor found, for people, for programs and for CI.

use std::io::{self, Write};

use serde::Serialize;

use super::doctor::Subject;
use super::junit;
use super::output::{self, Column, Screen, plain};
use crate::doctor::findings::{Finding, Report, Severity, Written};

/// The widest text is still read with ease.
const WIDTH_MAX: usize = 80;

/// The narrowest terminal that is provided for.
const WIDTH_MIN: usize = 40;

/// Between a label of a paragraph and its text.
const INDENT: usize = 14;

const COLUMNS: [Column<Finding>; 3] = [
    Column { title: "check", rank: 0, text: |finding| finding.check.name.to_owned() },
    Column { title: "verdict", rank: 0, text: |finding| finding.severity.as_str().to_owned() },
    Column { title: "what came back", rank: 1, text: |finding| finding.came_back.clone() },
];

const WRITTEN: [Column<Written>; 3] = [
    Column { title: "id", rank: 0, text: |written| written.id.clone() },
    Column { title: "a right receiver holds", rank: 1, text: |written| written.expected.clone() },
    Column { title: "check", rank: 2, text: |written| written.check.to_owned() },
];

/// Characters in a line.
pub fn width() -> usize {
    Screen::of_stdout().width.unwrap_or(WIDTH_MAX).clamp(WIDTH_MIN, WIDTH_MAX)
}

/// What is about to happen.
pub fn opening(width: usize, subject: &Subject) -> String {
    let Subject { url, platform, seed } = subject;
    let text = format!("Examining {} as {platform}, seed {seed}.", plain(url));
    format!("{}\n", wrap(width, 0, &text))
}

/// A table of all, a paragraph on each that is not ok, the ids, and one sentence on all of it.
pub fn table(subject: &Subject, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let (screen, width) = (Screen::of_stdout(), width());
    let screen = Screen { width: screen.width.map(|width| width.max(WIDTH_MIN)), ..screen };
    output::table(screen, &COLUMNS, &report.findings, out)?;
    for finding in &report.findings {
        if !matches!(finding.severity, Severity::Ok | Severity::Skipped) {
            out.write_all(paragraph(width, finding).as_bytes())?;
        }
    }
    if !report.written.is_empty() {
        let text = "\nSent about these ids. Look them up: a right receiver holds each once, with \
                    this status. Then remove them.";
        writeln!(out, "\n{}", wrap(width, 0, text))?;
        output::table(screen, &WRITTEN, &report.written, out)?;
    }
    writeln!(out, "\n{}", wrap(width, 0, &conclusion(subject, report)).trim_end())
}

fn paragraph(width: usize, finding: &Finding) -> String {
    let severity = finding.severity.as_str();
    let mut text = format!("\n{}: {severity}\n", finding.check.name);
    let because = finding.because_of.map(|name| format!("the same as {name}: mend that first"));
    for (label, said) in [
        ("sent", finding.sent),
        ("came back", &*finding.came_back),
        ("sender would", &*finding.sender_would),
        ("why", because.as_deref().unwrap_or(finding.why)),
        ("mend", if because.is_some() { "" } else { finding.mend }),
    ] {
        if !said.is_empty() {
            let said = wrap(width, INDENT, &plain(said));
            text.push_str(&format!("{label:<INDENT$}{}", said.trim_start()));
        }
    }
    text
}

fn conclusion(subject: &Subject, report: &Report) -> String {
    let count = |severity| report.count(severity);
    let (lost, let_in) = (count(Severity::Lost), count(Severity::Unsafe));
    let (warned, skipped) = (count(Severity::Warn), count(Severity::Skipped));
    let beside = match (warned, skipped) {
        (0, 0) => String::new(),
        (_, 0) => format!(" Warnings: {warned}."),
        (0, _) => format!(" Skipped: {skipped}."),
        _ => format!(" Warnings: {warned}. Skipped: {skipped}."),
    };
    let platform = subject.platform;
    if report.is_safe() {
        return format!("Safe: {platform} would lose nothing here by what was tried.{beside}");
    }
    format!("Not safe for {platform}. Lost: {lost}. Unsafe: {let_in}.{beside}")
}

/// The words in lines that fit beside `indent` spaces, each ended.
fn wrap(width: usize, indent: usize, text: &str) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let chars = word.chars().count();
        if column > 0 && column + 1 + chars <= width {
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

/// What programs are told.
#[derive(Serialize)]
struct Document<'a> {
    url: &'a str,
    provider: &'a str,
    seed: u32,
    safe: bool,
    findings: &'a [Finding],
    written: &'a [Written],
}

/// All of it as one JSON object on a line.
pub fn json(subject: &Subject, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let document = Document {
        url: &subject.url,
        provider: subject.platform.as_str(),
        seed: subject.seed,
        safe: report.is_safe(),
        findings: &report.findings,
        written: &report.written,
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

/// One test case for each check that was made; a warning is no failure.
pub fn junit(subject: &Subject, report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let made = report.findings.iter().filter(|finding| finding.severity != Severity::Skipped);
    let cases: Vec<junit::Case> = made.map(case).collect();
    let suite = format!("receiptd doctor {} {}", subject.platform, subject.url);
    junit::write(&suite, &cases, out)
}

fn case(finding: &Finding) -> junit::Case {
    let result = if finding.is_failure() {
        let message = format!("{}: {}", finding.severity.as_str(), finding.came_back);
        Err(junit::Failed { message, details: paragraph(WIDTH_MAX, finding) })
    } else {
        Ok(())
    };
    junit::Case { name: finding.check.name.to_owned(), took: finding.took, result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CHECKS;

    #[test]
    fn a_paragraph_fits_the_terminal_and_says_all_four_things() {
        for check in CHECKS {
            let finding = Finding::new(check, Severity::Lost, "500 in 3 ms", "lose it");
            let text = paragraph(WIDTH_MIN, &finding);
            for line in text.lines() {
                let is_one_word = line.trim().split(' ').count() == 1;
                assert!(line.chars().count() <= WIDTH_MIN || is_one_word, "{line}");
            }
            for label in ["sent ", "came back ", "sender would ", "why ", "mend "] {
                assert!(text.contains(&format!("\n{label}")), "{label}\n{text}");
            }
        }
    }

    #[test]
    fn what_another_finding_explains_is_not_explained_again() {
        let mut finding = Finding::new(CHECKS[0], Severity::Lost, "404 in 3 ms", "lose it");
        finding.because_of = Some("unknown-id");
        let text = paragraph(WIDTH_MAX, &finding);
        assert!(text.contains("the same as unknown-id") && !text.contains("\nmend"), "{text}");
    }
}
