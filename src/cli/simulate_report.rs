//! The report of a simulation: for people, as JSON, as checks for a build server.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::junit::{Case, Failed};
use super::output::{Screen, counted, plain};
use super::simulate::Outcome;
use crate::callback::Kind;
use crate::sender::Loss;
use crate::simulate::report::{IDS_MAX, Report};
use crate::simulate::verify::{Difference, Verification};

/// Percentiles of the latency: the key in JSON, the word for people, the share in percent.
const PERCENTILES: [(&str, &str, f64); 5] = [
    ("p50", "p50", 50.0),
    ("p90", "p90", 90.0),
    ("p99", "p99", 99.0),
    ("p99_9", "p99.9", 99.9),
    ("p99_99", "p99.99", 99.99),
];

/// Columns of the words at the beginning of lines.
const LABEL: usize = 12;

/// Columns where nothing says how many there are.
const WIDTH: usize = 80;

/// Prints the report for people.
///
/// # Errors
/// If it cannot be written.
pub fn print(outcome: &Outcome, screen: Screen, out: &mut dyn Write) -> io::Result<()> {
    let mut lines = Lines { width: screen.width.unwrap_or(WIDTH), out };
    let report = &outcome.report;
    if let Some(took) = outcome.probe {
        lines.row("probe", &[format!("answered in {}", time(took))])?;
    }
    lines.row(
        "sent",
        &[
            counted(grouped(report.callbacks), "callback"),
            format!("about {},", counted(grouped(report.messages), "message")),
            format!("{},", counted(grouped(report.attempts), "request")),
            format!("{} of them retries", grouped(report.retries)),
        ],
    )?;
    let mut rate = vec![format!("{:.0} answers/s", report.answers_per_second())];
    rate.extend(outcome.asked.rate.map(|rate| format!("({rate} messages/s asked)")));
    rate.push(format!("in {};", time(report.elapsed)));
    rate.push(format!("{} of {}'s time", time(report.platform_elapsed), report.platform));
    lines.row("rate", &rate)?;
    lines.row("answers", &counts(&report.answers))?;
    lines.row("no answer", &counts(&report.no_answers))?;
    lines.row("latency", &latency(report))?;
    if let Some(asked) = report.platform.rules(Kind::Receipt).answer_asked {
        let count = grouped(report.slower_than_asked);
        lines.row(
            "slow",
            &[format!("{count} answers took longer than the {} asked for", time(asked))],
        )?;
    }
    print_losses(report, &mut lines)?;
    if let Some((verification, _)) = &outcome.verification {
        print_verification(verification, &mut lines)?;
    }
    Ok(())
}

fn print_losses(report: &Report, lines: &mut Lines<'_>) -> io::Result<()> {
    let lost = report.lost_callbacks();
    lines.row("lost", &[counted(grouped(lost), "callback")])?;
    for (loss, lost) in &report.lost {
        lines.below(&format!("{}: {loss}", grouped(lost.callbacks)))?;
        for id in &lost.ids {
            lines.below(&format!("  {id}"))?;
        }
        if lost.ids.len() == IDS_MAX && lost.callbacks > IDS_MAX as u64 {
            lines.below("  and others")?;
        }
    }
    if report.is_token_refused() {
        lines.below("the receiver refuses the token: is it the one it expects?")?;
    }
    let suspended = match report.suspended_after {
        Some(after) => format!("yes, after {}: only the platform's staff lifts that", time(after)),
        None => "no".to_owned(),
    };
    lines.row("suspended", &[suspended])
}

fn print_verification(verification: &Verification, lines: &mut Lines<'_>) -> io::Result<()> {
    let mut words = vec![
        format!("{} compared,", grouped(verification.compared)),
        format!("{} as expected,", grouped(verification.as_expected())),
    ];
    words.push(format!("{} different,", grouped(verification.different)));
    words.push(format!("{} missing", grouped(verification.missing)));
    lines.row("verified", &words)?;
    for line in verification.told.iter().flat_map(describe) {
        lines.below(&line)?;
    }
    let bad = verification.missing + verification.different;
    match bad.saturating_sub(verification.told.len() as u64) {
        0 => Ok(()),
        untold => lines.below(&format!("and {} more", grouped(untold))),
    }
}

/// A difference in lines: the id, and each key.
fn describe(difference: &Difference) -> Vec<String> {
    let Difference { id, keys } = difference;
    if keys.is_empty() {
        return vec![format!("{id}: missing")];
    }
    let keys = keys.iter().map(|key| match &key.values {
        Some((expected, found)) => format!("  {} is {found}, should be {expected}", key.key),
        None => format!("  {} differs", key.key),
    });
    std::iter::once(format!("{id}:")).chain(keys).collect()
}

/// Lines with a word before them, broken where the screen ends.
struct Lines<'o> {
    width: usize,
    out: &'o mut dyn Write,
}

impl Lines<'_> {
    /// One line of these, or as many as it takes; "none" if there is nothing.
    fn row(&mut self, label: &str, words: &[String]) -> io::Result<()> {
        let mut line = format!("{label:LABEL$}");
        let mut is_empty = true;
        for word in words {
            let word = plain(word);
            if !is_empty && line.chars().count() + 1 + word.chars().count() > self.width {
                writeln!(self.out, "{}", line.trim_end())?;
                line = " ".repeat(LABEL);
                is_empty = true;
            }
            line.push_str(if is_empty { "" } else { " " });
            line.push_str(&word);
            is_empty = false;
        }
        line.push_str(if words.is_empty() { "none" } else { "" });
        writeln!(self.out, "{}", line.trim_end())
    }

    /// A line that belongs to the one before; never broken, because ids are to be copied.
    fn below(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{:LABEL$}{}", "", plain(text))
    }
}

fn counts<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> Vec<String> {
    counts.iter().map(|(key, count)| format!("{key}: {} ", grouped(*count))).collect()
}

fn latency(report: &Report) -> Vec<String> {
    let shares = PERCENTILES.iter().map(|(_, word, percent)| (*word, report.latency(*percent)));
    let all = shares.chain([("max", report.latency_max())]);
    all.filter_map(|(word, value)| value.map(|value| format!("{word} {} ", time(value)))).collect()
}

/// A time with two or three figures, for people.
fn time(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        ..10.0 => format!("{ms:.2} ms"),
        ..1_000.0 => format!("{ms:.0} ms"),
        ..120_000.0 => format!("{:.1} s", ms / 1e3),
        ..7_200_000.0 => format!("{:.0} min", ms / 60e3),
        ..172_800_000.0 => format!("{:.1} h", ms / 3_600e3),
        _ => format!("{:.1} days", ms / 86_400e3),
    }
}

/// A number with a comma after every third figure.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The report as one JSON object. Its keys are stable; more may be added.
#[derive(Serialize)]
struct Json<'r> {
    /// The word of `--provider`.
    provider: &'static str,
    seed: u64,
    /// Whether nothing was lost and everything compared is as it should be.
    ok: bool,
    messages: u64,
    callbacks: u64,
    requests: u64,
    retries: u64,
    /// By our time.
    seconds: f64,
    /// By the platform's.
    platform_seconds: f64,
    /// Asked for; null in a closed loop.
    messages_per_second: Option<f64>,
    answers_per_second: f64,
    /// From sending the probe; null if none was sent.
    probe_ms: Option<f64>,
    /// By status code.
    answers: BTreeMap<String, u64>,
    /// By cause: refused, tls, timed-out, reset, closed, unreadable.
    no_answers: BTreeMap<&'static str, u64>,
    /// `p50`, `p90`, `p99`, `p99_9`, `p99_99`, `max`; null without an answer.
    latency_ms: Option<BTreeMap<&'static str, f64>>,
    /// What the platform asks for; null if nothing.
    answer_asked_ms: Option<f64>,
    slower_than_asked: u64,
    lost: Vec<LostJson<'r>>,
    /// Seconds after the start, by our time; null if the platform did not suspend.
    suspended_after_seconds: Option<f64>,
    /// Null if nothing was compared.
    verification: Option<Value>,
}

#[derive(Serialize)]
struct LostJson<'r> {
    /// `refused`, `redirected`, `retries-exhausted`, `suspended`.
    reason: &'static str,
    /// The status code; null where none was decisive.
    code: Option<u16>,
    callbacks: u64,
    /// Of the first few.
    ids: &'r [String],
}

/// Prints the report as one line of JSON.
///
/// # Errors
/// If it cannot be written.
pub fn print_json(outcome: &Outcome, out: &mut dyn Write) -> io::Result<()> {
    let report = &outcome.report;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let shares = PERCENTILES.iter().map(|(key, _, percent)| (*key, report.latency(*percent)));
    let latency = shares.chain([("max", report.latency_max())]);
    let json = Json {
        provider: report.platform.as_str(),
        seed: outcome.seed,
        ok: outcome.is_good(),
        messages: report.messages,
        callbacks: report.callbacks,
        requests: report.attempts,
        retries: report.retries,
        seconds: report.elapsed.as_secs_f64(),
        platform_seconds: report.platform_elapsed.as_secs_f64(),
        messages_per_second: outcome.asked.rate,
        answers_per_second: report.answers_per_second(),
        probe_ms: outcome.probe.map(ms),
        answers: report.answers.iter().map(|(code, count)| (code.to_string(), *count)).collect(),
        no_answers: report.no_answers.iter().map(|(it, count)| (it.as_str(), *count)).collect(),
        latency_ms: latency.map(|(key, value)| Some((key, ms(value?)))).collect(),
        answer_asked_ms: report.platform.rules(Kind::Receipt).answer_asked.map(ms),
        slower_than_asked: report.slower_than_asked,
        lost: report
            .lost
            .iter()
            .map(|(loss, lost)| {
                let (reason, code) = reason(*loss);
                LostJson { reason, code, callbacks: lost.callbacks, ids: &lost.ids }
            })
            .collect(),
        suspended_after_seconds: report.suspended_after.map(|after| after.as_secs_f64()),
        verification: outcome.verification.as_ref().map(|(found, _)| verification(found)),
    };
    serde_json::to_writer(&mut *out, &json)?;
    out.write_all(b"\n")
}

fn reason(loss: Loss) -> (&'static str, Option<u16>) {
    match loss {
        Loss::Refused(code) => ("refused", Some(code)),
        Loss::Redirected(code) => ("redirected", Some(code)),
        Loss::RetriesExhausted => ("retries-exhausted", None),
        Loss::Suspended => ("suspended", None),
    }
}

fn verification(verification: &Verification) -> Value {
    let key = |key: &crate::simulate::verify::KeyDifference| match &key.values {
        Some((expected, found)) => json!({"key": key.key, "expected": expected, "found": found}),
        None => json!({"key": key.key}),
    };
    let told = verification.told.iter().map(|difference| {
        let keys: Vec<Value> = difference.keys.iter().map(key).collect();
        json!({"id": difference.id, "missing": keys.is_empty(), "keys": keys})
    });
    json!({
        "compared": verification.compared,
        "as_expected": verification.as_expected(),
        "different": verification.different,
        "missing": verification.missing,
        "differences": told.collect::<Vec<_>>(),
    })
}

/// The checks of a simulation. That answers were slower than asked fails a check here, and does not
/// change the exit code: the platform takes them.
pub fn cases(outcome: &Outcome) -> Vec<Case> {
    let report = &outcome.report;
    let case = |name: &str, took, result| Case { name: name.to_owned(), took, result };
    let lost = |is_of: fn(Loss) -> bool| lost_for(report, is_of);
    let is_answer = |loss| matches!(loss, Loss::Refused(_) | Loss::Redirected(_));
    let mut cases = vec![
        case("no answer loses a callback", report.elapsed, lost(is_answer)),
        case("every callback is answered within its retries", Duration::ZERO, {
            lost(|loss| loss == Loss::RetriesExhausted)
        }),
        case("the platform does not suspend", Duration::ZERO, lost(|loss| loss == Loss::Suspended)),
    ];
    if report.suspended_after.is_some() {
        cases[2].result = cases[2].result.clone().and_then(|()| failed("suspended", String::new()));
    }
    if let Some(asked) = report.platform.rules(Kind::Receipt).answer_asked {
        let slow = report.slower_than_asked;
        let result = if slow == 0 {
            Ok(())
        } else {
            failed(&format!("{slow} answers took longer than {}", time(asked)), String::new())
        };
        cases.push(case("answers come as fast as the platform asks", Duration::ZERO, result));
    }
    if let Some((found, took)) = &outcome.verification {
        let result = if found.is_good() {
            Ok(())
        } else {
            let message = format!("{} missing, {} different", found.missing, found.different);
            failed(&message, found.told.iter().flat_map(describe).collect::<Vec<_>>().join("\n"))
        };
        cases.push(case("every final state is as it should be", *took, result));
    }
    cases
}

fn failed(message: &str, details: String) -> Result<(), Failed> {
    Err(Failed { message: message.to_owned(), details })
}

fn lost_for(report: &Report, is_of: fn(Loss) -> bool) -> Result<(), Failed> {
    let lost: Vec<_> = report.lost.iter().filter(|(loss, _)| is_of(**loss)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let callbacks: u64 = lost.iter().map(|(_, lost)| lost.callbacks).sum();
    let details = lost
        .iter()
        .map(|(loss, lost)| format!("{}: {loss}\n{}", lost.callbacks, lost.ids.join("\n")));
    failed(
        &format!("{} lost", counted(callbacks, "callback")),
        details.collect::<Vec<_>>().join("\n"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_are_short() {
        for (ms, text) in [
            (0.4, "0.40 ms"),
            (12.3, "12 ms"),
            (1_500.0, "1.5 s"),
            (150_000.0, "2 min"),
            (15_000_000.0, "4.2 h"),
            (604_800_000.0, "7.0 days"),
        ] {
            assert_eq!(time(Duration::from_secs_f64(ms / 1e3)), text);
        }
        let numbers = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn lines_break_between_words() {
        let mut out = Vec::new();
        let mut lines = Lines { width: 24, out: &mut out };
        lines
            .row("label", &["one ".to_owned(), "two three".to_owned(), "four".to_owned()])
            .unwrap();
        lines.row("empty", &[]).unwrap();
        let text = "label       one\n            two three\n            four\nempty       none\n";
        assert_eq!(String::from_utf8(out).unwrap(), text);
    }
}
