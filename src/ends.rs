//! Which statuses are ends, as a value: [`provider`](crate::provider) says it, and the state asks for it in
//! SQL without knowing what a status means.
//!
//! Most statuses are an end, or none, whatever they are of. A few are an end of one type of message only,
//! and of that not on every platform. Nothing else decides, so everybody who asks is told the same.
//!
//! Pure: no I/O, no words of a wire format.

use std::collections::BTreeMap;

/// The statuses that can be an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    /// Ends whatever they are of.
    pub always: &'static [&'static str],
    /// A status and the type of message of which it is an end in some sources.
    pub sometimes: &'static [(&'static str, &'static str)],
}

/// What has come to an end, in each of some sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The same for all of them.
    pub statuses: &'static Statuses,
    /// By source: places in `statuses.sometimes` of what is an end there.
    of_source: BTreeMap<String, Vec<usize>>,
}

impl Ends {
    /// In these sources, where `is_end` says of which of the statuses' `sometimes` are ends. In any other
    /// source none of those is.
    pub fn new<S: Copy>(
        statuses: &'static Statuses,
        sources: impl IntoIterator<Item = (String, S)>,
        is_end: impl Fn(S, (&str, &str)) -> bool,
    ) -> Self {
        let there = |source: S| {
            let all = statuses.sometimes.iter().enumerate();
            all.filter(|(_, pair)| is_end(source, **pair)).map(|(place, _)| place).collect()
        };
        let of_source = sources.into_iter().map(|(name, source)| (name, there(source))).collect();
        Self { statuses, of_source }
    }

    /// Whether a notification of that source, status and type has come to an end.
    pub fn is_end(&self, source: &str, status: Option<&str>, kind: Option<&str>) -> bool {
        let Some(status) = status else { return false };
        self.statuses.always.contains(&status)
            || self.of(source).iter().any(|place| {
                let (word, of) = self.statuses.sometimes[*place];
                status == word && kind == Some(of)
            })
    }

    /// Places in the statuses' `sometimes` of what is no end in that source.
    pub fn no_ends_in(&self, source: &str) -> impl Iterator<Item = usize> {
        let ends = self.of(source);
        (0..self.statuses.sometimes.len()).filter(move |place| !ends.contains(place))
    }

    /// As a JSON array: each status that is always an end and, as an array of status, type and source,
    /// each that is one there.
    pub fn to_json(&self) -> String {
        let mut all: Vec<serde_json::Value> =
            self.statuses.always.iter().map(|word| (*word).into()).collect();
        for (source, places) in &self.of_source {
            for place in places {
                let (status, kind) = self.statuses.sometimes[*place];
                all.push(serde_json::json!([status, kind, source]));
            }
        }
        serde_json::Value::from(all).to_string()
    }

    fn of(&self, source: &str) -> &[usize] {
        self.of_source.get(source).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUSES: Statuses =
        Statuses { always: &["done"], sometimes: &[("gone", "bird"), ("gone", "fish")] };

    #[test]
    fn what_is_an_end_in_one_source_is_none_in_another() {
        let sources = [("air".to_owned(), "bird"), ("sea".to_owned(), "fish")];
        let ends = Ends::new(&STATUSES, sources, |of, (_, kind)| of == kind);
        for (source, birds, fish) in
            [("air", true, false), ("sea", false, true), ("unknown", false, false)]
        {
            assert!(ends.is_end(source, Some("done"), None), "{source}");
            assert_eq!(ends.is_end(source, Some("gone"), Some("bird")), birds, "{source}");
            assert_eq!(ends.is_end(source, Some("gone"), Some("fish")), fish, "{source}");
            assert!(!ends.is_end(source, Some("gone"), None), "{source}");
            assert!(!ends.is_end(source, None, Some("bird")), "{source}");
        }
        assert_eq!(ends.no_ends_in("air").collect::<Vec<_>>(), [1]);
        assert_eq!(ends.no_ends_in("unknown").collect::<Vec<_>>(), [0, 1]);
        assert_eq!(ends.to_json(), r#"["done",["gone","bird","air"],["gone","fish","sea"]]"#);
    }
}
