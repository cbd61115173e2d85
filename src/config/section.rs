//! Reading one section: each key is asked for once, by name and type.
//!
//! What is asked for is what is known, so the list of known keys cannot drift from the code that
//! reads them: [`Section::finish`] refuses whatever nobody asked for. A key that may hold a secret
//! is read with [`Section::quiet_text`], which never quotes it.

use super::document::{Kind, Table, Value};
use super::problem::Origin;
use super::report::{At, Checked, Found, Report, did_you_mean};

/// A section that is being read.
pub(super) struct Section<'a> {
    /// Before the name of a key: empty or ending in a dot.
    prefix: String,
    /// Where the section itself stands.
    origin: Origin,
    table: &'a Table,
    asked: Vec<&'static str>,
    /// Every path of the defaults, for keys that were put into the wrong section.
    elsewhere: &'a [String],
}

impl<'a> Section<'a> {
    /// The whole document.
    pub(super) fn root(table: &'a Table, elsewhere: &'a [String]) -> Self {
        Self { prefix: String::new(), origin: Origin::Default, table, asked: vec![], elsewhere }
    }

    /// A section found at `at`.
    pub(super) fn at(at: &At, table: &'a Table) -> Self {
        let (prefix, origin) = (format!("{}.", at.key), at.origin.clone());
        Self { prefix, origin, table, asked: vec![], elsewhere: &[] }
    }

    /// Where a key stands, or should.
    pub(super) fn at_key(&self, name: &str) -> At {
        let origin = self.table.find(name).map_or(&self.origin, |value| &value.origin);
        At { key: format!("{}{name}", self.prefix), origin: origin.clone() }
    }

    /// The value of a key, if it is there.
    pub(super) fn take(&mut self, name: &'static str) -> Option<&'a Value> {
        if !self.asked.contains(&name) {
            self.asked.push(name);
        }
        self.table.find(name)
    }

    /// A section within this one.
    pub(super) fn section(
        &mut self,
        name: &'static str,
        report: &mut Report,
    ) -> Checked<Option<Section<'a>>> {
        let at = self.at_key(name);
        match self.take(name).map(|value| &value.kind) {
            None => Ok(None),
            Some(Kind::Table(table)) => {
                Ok(Some(Section { elsewhere: self.elsewhere, ..Section::at(&at, table) }))
            }
            Some(other) => Err(report.problem(&at, other.type_name(), "a section")),
        }
    }

    /// The sections of an array of tables; `[name]` for `[[name]]` is a common slip.
    pub(super) fn list(&mut self, name: &'static str, report: &mut Report) -> Checked<&'a [Value]> {
        let at = self.at_key(name);
        match self.take(name).map(|value| &value.kind) {
            None => Ok(&[]),
            Some(Kind::List(items)) => Ok(items),
            Some(other) => {
                let hint = match other {
                    Kind::Table(_) => Some("write it with two brackets on either side".into()),
                    _ => None,
                };
                let heading = format!("sections [[{}]]", brackets(&at.key));
                Err(report.problem_hinted(&at, other.type_name(), heading, hint))
            }
        }
    }

    /// Text, if the key is there; empty text is refused.
    pub(super) fn text(
        &mut self,
        name: &'static str,
        report: &mut Report,
    ) -> Checked<Option<Found<String>>> {
        let found = self.quiet_text(name, report)?;
        if let Some(found) = &found {
            report.effective(&found.at, found.value.as_str());
        }
        Ok(found)
    }

    /// Text that may hold a secret: neither quoted in a problem nor listed among the values.
    pub(super) fn quiet_text(
        &mut self,
        name: &'static str,
        report: &mut Report,
    ) -> Checked<Option<Found<String>>> {
        self.quiet_text_like(name, "text", report)
    }

    /// The same, where empty text is told what was expected.
    pub(super) fn quiet_text_like(
        &mut self,
        name: &'static str,
        expected: &str,
        report: &mut Report,
    ) -> Checked<Option<Found<String>>> {
        let at = self.at_key(name);
        match self.take(name).map(|value| &value.kind) {
            None => Ok(None),
            Some(Kind::Text(text) | Kind::Raw(text)) if text.is_empty() => {
                Err(report.problem(&at, "empty text", expected))
            }
            Some(Kind::Text(text) | Kind::Raw(text)) => Ok(Some(Found { value: text.clone(), at })),
            Some(other) => Err(report.problem(&at, other.type_name(), "text, in quotes")),
        }
    }

    /// Text that must be there.
    pub(super) fn required_text(
        &mut self,
        name: &'static str,
        expected: &str,
        report: &mut Report,
    ) -> Checked<Found<String>> {
        let at = self.at_key(name);
        self.text(name, report)?.ok_or_else(|| report.problem(&at, "nothing", expected))
    }

    /// A whole number from `least` to `most`, if the key is there.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        (least, most): (u64, u64),
        report: &mut Report,
    ) -> Checked<Option<Found<u64>>> {
        let at = self.at_key(name);
        let Some(value) = self.take(name) else { return Ok(None) };
        let (number, found) = match &value.kind {
            Kind::Integer(Some(number)) => (u64::try_from(*number).ok(), number.to_string()),
            Kind::Integer(None) => (None, "a number beyond 64 bits".into()),
            Kind::Raw(text) => (text.trim().parse().ok(), quoted(text)),
            Kind::Text(text) => (None, format!("the text {}", quoted(text))),
            other => (None, other.type_name().into()),
        };
        match number {
            Some(number) if (least..=most).contains(&number) => {
                report.effective(&at, number);
                Ok(Some(Found { value: number, at }))
            }
            _ => {
                let expected = format!("a whole number from {least} to {most}");
                let unquoted =
                    matches!(&value.kind, Kind::Text(text) if text.parse::<u64>().is_ok());
                let hint = unquoted.then(|| "write the number without quotes".into());
                Err(report.problem_hinted(&at, found, expected, hint))
            }
        }
    }

    /// true or false; a key of the defaults, so it is always there.
    pub(super) fn truth(&mut self, name: &'static str, report: &mut Report) -> Checked<bool> {
        let at = self.at_key(name);
        self.optional_truth(name, report)?
            .ok_or_else(|| report.problem(&at, "nothing", "true or false"))
    }

    /// true or false, if the key is there.
    pub(super) fn optional_truth(
        &mut self,
        name: &'static str,
        report: &mut Report,
    ) -> Checked<Option<bool>> {
        let at = self.at_key(name);
        let Some(value) = self.take(name) else { return Ok(None) };
        let (truth, found) = match &value.kind {
            Kind::Boolean(truth) => (Some(*truth), String::new()),
            Kind::Raw(text) => (text.trim().parse().ok(), quoted(text)),
            other => (None, other.type_name().into()),
        };
        match truth {
            Some(truth) => {
                report.effective(&at, truth);
                Ok(Some(truth))
            }
            None => Err(report.problem(&at, found, "true or false")),
        }
    }

    /// A list of texts, if the key is there, each with its own place; an empty list is refused.
    /// Like [`Section::quiet_text`] it neither quotes nor lists what it finds.
    pub(super) fn quiet_texts(
        &mut self,
        name: &'static str,
        report: &mut Report,
    ) -> Checked<Option<Vec<Found<String>>>> {
        const EXPECTED: &str = "a list of texts, each in quotes";
        let at = self.at_key(name);
        let items = match self.take(name).map(|value| &value.kind) {
            None => return Ok(None),
            Some(Kind::List(items)) => items,
            Some(other) => {
                let hint = "write it in brackets, even if it is only one";
                return Err(report.problem_hinted(
                    &at,
                    other.type_name(),
                    EXPECTED,
                    Some(hint.into()),
                ));
            }
        };
        if items.is_empty() {
            let hint = Some(format!("leave `{name}` out if there is nothing to say"));
            return Err(report.problem_hinted(&at, "an empty list", EXPECTED, hint));
        }
        let read: Vec<Checked<Found<String>>> = items
            .iter()
            .map(|item| {
                let at = At { origin: item.origin.clone(), ..at.clone() };
                match &item.kind {
                    Kind::Text(text) if !text.is_empty() => Ok(Found { value: text.clone(), at }),
                    Kind::Text(_) => Err(report.problem(&at, "empty text in the list", EXPECTED)),
                    other => {
                        let found = format!("{} in the list", other.type_name());
                        Err(report.problem(&at, found, EXPECTED))
                    }
                }
            })
            .collect();
        read.into_iter().collect::<Checked<Vec<_>>>().map(Some)
    }

    /// Of keys that mean something in another section of this kind, those that stand here and that
    /// nobody asked for. They count as asked for from now on.
    pub(super) fn out_of_place(
        &mut self,
        known: impl IntoIterator<Item = &'static str>,
    ) -> Vec<(&'static str, At)> {
        let mut found = Vec::new();
        for name in known {
            let entry = self.table.entries.iter().find(|entry| entry.key == name);
            if let Some(entry) = entry.filter(|_| !self.asked.contains(&name)) {
                let key = format!("{}{name}", self.prefix);
                found.push((name, At { key, origin: entry.key_origin.clone() }));
            }
        }
        self.asked.extend(found.iter().map(|(name, _)| *name));
        found
    }

    /// Whether any of these keys is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.find(name).is_some()
    }

    /// Refuses every key nobody asked for.
    pub(super) fn finish(self, report: &mut Report) {
        let unknown =
            self.table.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str()));
        for entry in unknown {
            let key = format!("{}{}", self.prefix, entry.key);
            let at = At { key, origin: entry.key_origin.clone() };
            let hint = did_you_mean(&entry.key, self.asked.iter().copied())
                .or_else(|| self.other_home(&entry.key));
            let expected = format!("one of {}", self.asked.join(", "));
            report.problem_hinted(&at, "an unknown key", expected, hint);
        }
    }

    /// The section a key of that name belongs to, if it is not this one.
    fn other_home(&self, name: &str) -> Option<String> {
        let home =
            self.elsewhere.iter().find_map(|path| path.strip_suffix(name)?.strip_suffix('.'));
        home.map(|section| format!("`{name}` belongs in [{section}]"))
    }
}

/// Text as it would stand in the file.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The heading of an array of tables: `source.passport.token` is written `[[source.token]]`.
fn brackets(key: &str) -> &str {
    let list = ["source.token", "source.reader"];
    let is_it = |list: &&str| key.ends_with(list.trim_start_matches("source"));
    list.into_iter().find(is_it).unwrap_or(key)
}
