//! JUnit XML: how a check reports to a build server.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::output;

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name, unique in the suite.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// What is wrong, if anything is.
    pub result: Result<(), Failed>,
}

/// Why a check failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// In a line.
    pub message: String,
    /// In as many as it needs.
    pub details: String,
}

/// Writes a suite of these checks. Characters that XML cannot hold are shown as symbols.
///
/// # Errors
/// If it cannot be written.
pub fn write(suite: &str, cases: &[Case], out: &mut dyn Write) -> io::Result<()> {
    let mut xml = Writer::new_with_indent(out, b' ', 2);
    xml.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    let failures = cases.iter().filter(|case| case.result.is_err()).count().to_string();
    let tests = cases.len().to_string();
    let took = seconds(cases.iter().map(|case| case.took).sum());
    xml.create_element("testsuite")
        .with_attribute(("name", &*plain(suite)))
        .with_attribute(("tests", &*tests))
        .with_attribute(("failures", &*failures))
        .with_attribute(("errors", "0"))
        .with_attribute(("time", &*took))
        .write_inner_content(|xml| {
            cases.iter().try_for_each(|case| write_case(suite, case, xml))
        })?;
    xml.into_inner().write_all(b"\n")
}

fn write_case(suite: &str, case: &Case, xml: &mut Writer<&mut dyn Write>) -> io::Result<()> {
    let took = seconds(case.took);
    let element = xml
        .create_element("testcase")
        .with_attribute(("classname", &*plain(suite)))
        .with_attribute(("name", &*plain(&case.name)))
        .with_attribute(("time", &*took));
    match &case.result {
        Ok(()) => element.write_empty()?,
        Err(Failed { message, details }) => element.write_inner_content(|xml| {
            let lines: Vec<_> = details.lines().map(plain).collect();
            xml.create_element("failure")
                .with_attribute(("message", &*plain(message)))
                .write_text_content(BytesText::new(&lines.join("\n")))?;
            Ok(())
        })?,
    };
    Ok(())
}

/// What XML can hold: no controls, and neither of the two that are no characters.
fn plain(text: &str) -> Cow<'_, str> {
    let is_character = |c: char| !matches!(c, '\u{fffe}' | '\u{ffff}');
    let text = output::plain(text);
    if text.chars().all(is_character) {
        return text;
    }
    Cow::Owned(text.chars().map(|c| if is_character(c) { c } else { '\u{fffd}' }).collect())
}

fn seconds(took: Duration) -> String {
    format!("{:.3}", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_counts_its_failures_and_escapes_what_they_say() {
        let case = |name: &str, result| Case {
            name: name.to_owned(),
            took: Duration::from_millis(1_500),
            result,
        };
        let failed = Failed {
            message: "2 < 3 & \"so\" on\u{1b}\u{fffe}".to_owned(),
            details: "one\n<two>\u{0}\u{ffff}\n".to_owned(),
        };
        let cases = [case("good", Ok(())), case("bad", Err(failed))];
        let mut out = Vec::new();
        write("a suite", &cases, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="a suite" tests="2" failures="1" errors="0" time="3.000">
  <testcase classname="a suite" name="good" time="1.500"/>
  <testcase classname="a suite" name="bad" time="1.500">
    <failure message="2 &lt; 3 &amp; &quot;so&quot; on␛�">one
&lt;two&gt;␀�</failure>
  </testcase>
</testsuite>
"#
        );
    }
}
