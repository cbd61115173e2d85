//! The table of `compare` as a picture: bars for the rate, numbers for the rest.
//!
//! Plain SVG with its own small style sheet, for a light and a dark page alike, drawn to be read at
//! 700 pixels.

use std::fmt::Write as _;
use std::time::Duration;

use super::compare::{Figures, Kind, Row};
use super::report::ms;

const WIDTH: f64 = 700.0;
const TOP: f64 = 54.0;
const ROW: f64 = 30.0;
const FOOT: f64 = 30.0;
/// Where bars begin, and the length of the longest.
const BAR_X: f64 = 210.0;
const BAR_MAX: f64 = 190.0;
/// Right edges of the columns of numbers.
const P99_X: f64 = 535.0;
const MEMORY_X: f64 = 610.0;
const START_X: f64 = 690.0;

const STYLE: &str = "\
text { font: 13px -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328; }
.head { font-size: 12px; fill: #59636e; }
.foot { font-size: 11px; fill: #59636e; }
.ours { font-weight: 600; }
.number { text-anchor: end; font-variant-numeric: tabular-nums; }
.bar-yardstick { fill: #afb8c1; }
.bar-ours { fill: #1a7f37; }
.bar-other { fill: #bf8700; }
.line { stroke: #d1d9e0; }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc; }
.head, .foot { fill: #9198a1; }
.bar-yardstick { fill: #656c76; }
.bar-ours { fill: #3fb950; }
.bar-other { fill: #d29922; }
.line { stroke: #3d444d; }
}";

/// Draws it; `how` says below how it was measured.
pub fn draw(rows: &[Row], how: &str) -> String {
    let height = TOP + ROW * rows.len() as f64 + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>Durable answers a second, latency, memory and start time, side by side</title>\n\
         <style>{STYLE}</style>\n"
    );
    head(&mut svg);
    let most = rows.iter().filter_map(|row| row.figures.as_ref().ok());
    let most = most.map(|figures| figures.per_second).fold(1.0, f64::max);
    for (n, row) in rows.iter().enumerate() {
        draw_row(&mut svg, row, TOP + ROW * n as f64, most);
    }
    text(&mut svg, "foot", 10.0, height - 10.0, how);
    svg.push_str("</svg>\n");
    svg
}

fn head(svg: &mut String) {
    let columns = [(P99_X, "p99 ms"), (MEMORY_X, "MiB"), (START_X, "start ms")];
    text(
        svg,
        "head",
        10.0,
        24.0,
        "Callbacks answered a second, each after it was committed with fsync",
    );
    text(svg, "head", 10.0, 42.0, "(but for bare hyper, which keeps nothing)");
    for (x, name) in columns {
        text(svg, "head number", x, 42.0, name);
    }
}

fn draw_row(svg: &mut String, row: &Row, top: f64, most: f64) {
    let baseline = top + ROW / 2.0 + 5.0;
    let (bar, name) = match row.kind {
        Kind::Yardstick => ("bar-yardstick", ""),
        Kind::Ours => ("bar-ours", "ours"),
        Kind::Other => ("bar-other", ""),
    };
    let _ = writeln!(svg, "<path class=\"line\" d=\"M10 {top}H{}\"/>", WIDTH - 10.0);
    text(svg, name, 10.0, baseline, &row.name);
    match &row.figures {
        Ok(figures) => draw_figures(svg, figures, (bar, name), top, most),
        Err(_) => text(svg, "head", BAR_X, baseline, "not measured"),
    }
}

fn draw_figures(
    svg: &mut String,
    figures: &Figures,
    (bar, name): (&str, &str),
    top: f64,
    most: f64,
) {
    let baseline = top + ROW / 2.0 + 5.0;
    // Never so short that it cannot be seen.
    let length = (figures.per_second / most * BAR_MAX).max(1.5);
    let _ = writeln!(
        svg,
        "<rect class=\"{bar}\" x=\"{BAR_X}\" y=\"{}\" width=\"{length:.1}\" height=\"{}\" rx=\"2\"/>",
        top + 6.0,
        ROW - 12.0
    );
    let mut rate = thousands(figures.per_second);
    // A server that lost what it had acknowledged is not to look like one that kept it.
    if let Some((there, acknowledged)) = figures.kept.filter(|(there, of)| there < of) {
        let lost = thousands((acknowledged - there) as f64);
        let _ = write!(rate, ", lost {lost}");
    }
    text(svg, name, BAR_X + length + 6.0, baseline, &rate);
    let columns = [
        (P99_X, short(figures.latencies[1])),
        (MEMORY_X, format!("{:.0}", figures.mebibytes)),
        (START_X, short(figures.start)),
    ];
    for (x, number) in columns {
        text(svg, "number", x, baseline, &number);
    }
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y}\">{text}</text>");
}

/// Milliseconds, without the digits that nobody compares in a picture.
fn short(duration: Duration) -> String {
    let value = duration.as_secs_f64() * 1000.0;
    if duration == Duration::MAX {
        ms(duration)
    } else if value < 10.0 {
        format!("{value:.1}")
    } else {
        thousands(value)
    }
}

/// `12,345`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
