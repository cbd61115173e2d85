//! JUnit XML, as CI systems read it: one suite, its cases, what failed.
//!
//! XML 1.0 has no control characters, not even escaped: they are shown as symbols, as in tables.

use std::io::{self, Write};

use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event};

use super::output::plain;

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, the same in every run.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// If it failed: a line, and everything there is to know.
    pub verdict: Result<(), (String, String)>,
}

/// Writes a whole document.
pub fn write(suite: &str, cases: &[Case], out: &mut dyn Write) -> io::Result<()> {
    let failures = cases.iter().filter(|case| case.verdict.is_err()).count().to_string();
    let tests = cases.len().to_string();
    let time = seconds(cases.iter().map(|case| case.seconds).sum());
    let suite = line(suite);
    let mut writer = Writer::new_with_indent(out, b' ', 2);
    writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
    writer
        .create_element("testsuite")
        .with_attributes([
            ("name", &*suite),
            ("tests", &*tests),
            ("failures", &*failures),
            ("errors", "0"),
            ("skipped", "0"),
            ("time", &*time),
        ])
        .write_inner_content(|writer| cases.iter().try_for_each(|one| case(&suite, one, writer)))?;
    writeln!(writer.get_mut())
}

fn case<W: Write>(suite: &str, case: &Case, writer: &mut Writer<W>) -> io::Result<()> {
    let (name, time) = (line(&case.name), seconds(case.seconds));
    let element = writer.create_element("testcase").with_attributes([
        ("classname", suite),
        ("name", &*name),
        ("time", &*time),
    ]);
    let Err((message, details)) = &case.verdict else { return element.write_empty().map(drop) };
    let message = line(message);
    let details: Vec<String> = details.lines().map(line).collect();
    element
        .write_inner_content(|writer| {
            let failure = writer.create_element("failure").with_attribute(("message", &*message));
            failure.write_text_content(BytesText::new(&details.join("\n"))).map(drop)
        })
        .map(drop)
}

/// What XML can hold of it.
fn line(text: &str) -> String {
    plain(text).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.3}")
}

#[cfg(test)]
mod tests {
    use quick_xml::Reader;

    use super::*;

    fn written(cases: &[Case]) -> String {
        let mut out = Vec::new();
        write("a \"suite\" & <more>", cases, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_suite_counts_its_cases_and_tells_what_failed() {
        let failed = Err(("500 < 600".to_owned(), "line one\nline \u{1b}[2J]]> & two".to_owned()));
        let xml = written(&[
            Case { name: "good".to_owned(), seconds: 0.25, verdict: Ok(()) },
            Case { name: "bad".to_owned(), seconds: 1.5, verdict: failed },
        ]);
        for expected in [
            r#"<?xml version="1.0" encoding="UTF-8"?>"#,
            r#"tests="2" failures="1" errors="0" skipped="0" time="1.750">"#,
            r#"name="a &quot;suite&quot; &amp; &lt;more&gt;""#,
            r#"name="good" time="0.250"/>"#,
            "<failure message=\"500 &lt; 600\">line one\nline ␛[2J]]&gt; &amp; two</failure>",
        ] {
            assert!(xml.contains(expected), "{expected}\n{xml}");
        }
    }

    #[test]
    fn whatever_is_said_the_document_is_well_formed() {
        let strange: String =
            (0..0x300_u32).chain([0xfffe, 0xffff]).filter_map(char::from_u32).collect();
        let case =
            Case { name: strange.clone(), seconds: 0.0, verdict: Err((strange.clone(), strange)) };
        let xml = written(&[case]);
        let is_allowed = |c: char| c == '\n' || (c >= ' ' && c != '\u{fffe}' && c != '\u{ffff}');
        assert!(xml.chars().all(is_allowed));
        let mut reader = Reader::from_str(&xml);
        while reader.read_event().unwrap() != Event::Eof {}
    }
}
