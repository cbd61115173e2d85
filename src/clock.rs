//! The one place that reads the time.
//!
//! A [`Timestamp`] is an instant in UTC, cut to the microsecond, whose text is always
//! `YYYY-MM-DDTHH:MM:SS.ffffffZ`: the form the senders use and the database stores. Because the
//! width never varies, the order of the texts is the order of the instants.
//!
//! A [`Clock`] is handed to whoever needs to know the time, so that a test can wind it by hand.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

/// An instant in UTC with microsecond precision, from year 0000 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

/// The text is not a timestamp in any form we accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an RFC 3339 timestamp such as 2026-11-22T10:00:00.000000Z")]
pub struct NotATimestamp;

/// 0000-01-01T00:00:00Z in microseconds of Unix time: an earlier year has a sign, and its text
/// neither the width nor the order of the others.
const MICROS_MIN: i64 = -62_167_219_200_000_000;

/// 9999-12-30T22:00:00Z in microseconds of Unix time: the last that jiff takes as such.
const MICROS_MAX: i64 = 253_402_207_200_000_000;

impl Timestamp {
    /// The instant `micros` microseconds after 1970-01-01T00:00:00Z; out of range it is clamped.
    pub fn from_unix_micros(micros: i64) -> Self {
        let clamped = micros.clamp(MICROS_MIN, MICROS_MAX);
        Self(jiff::Timestamp::from_microsecond(clamped).expect("both ends are in range"))
    }

    /// Microseconds since 1970-01-01T00:00:00Z.
    pub fn unix_micros(self) -> i64 {
        self.0.as_microsecond()
    }

    /// The calendar day in UTC.
    pub fn date(self) -> Date {
        TimeZone::UTC.to_datetime(self.0).date()
    }

    /// The last microsecond of that day in UTC; `None` only beyond year 9999.
    pub fn end_of(date: Date) -> Option<Self> {
        let end = date.at(23, 59, 59, 999_999_000);
        TimeZone::UTC.to_timestamp(end).ok().map(Self)
    }

    /// This instant moved by `seconds` (which may be negative), clamped to the range.
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self::from_unix_micros(self.unix_micros().saturating_add(seconds.saturating_mul(1_000_000)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = TimeZone::UTC.to_datetime(self.0);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let parts: [(usize, usize, i32); 7] = [
            (0, 4, t.year().into()),
            (5, 7, t.month().into()),
            (8, 10, t.day().into()),
            (11, 13, t.hour().into()),
            (14, 16, t.minute().into()),
            (17, 19, t.second().into()),
            (20, 26, t.subsec_nanosecond() / 1_000),
        ];
        for (from, to, value) in parts {
            write_digits(&mut text[from..to], value);
        }
        f.write_str(std::str::from_utf8(&text).expect("digits and punctuation"))
    }
}

fn write_digits(digits: &mut [u8], value: i32) {
    let mut rest = value.unsigned_abs();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("one digit");
        rest /= 10;
    }
}

/// The form that the senders use and we write, `YYYY-MM-DDTHH:MM:SS.ffffffZ`, read without a parser:
/// a callback holds three of them. `None` if it is any other form, or no date.
fn read_usual(text: &str) -> Option<jiff::Timestamp> {
    let text: &[u8; 27] = text.as_bytes().try_into().ok()?;
    let punctuation =
        [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
    if punctuation.iter().any(|(at, expected)| text[*at] != *expected) {
        return None;
    }
    let number = |from: usize, to: usize| {
        text[from..to].iter().try_fold(0_i32, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i32::from(digit - b'0'))
        })
    };
    let short = |from: usize| i8::try_from(number(from, from + 2)?).ok();
    let civil = DateTime::new(
        i16::try_from(number(0, 4)?).ok()?,
        short(5)?,
        short(8)?,
        short(11)?,
        short(14)?,
        short(17)?,
        number(20, 26)? * 1_000,
    );
    let instant = TimeZone::UTC.to_timestamp(civil.ok()?).ok()?;
    (instant.as_microsecond() <= MICROS_MAX).then_some(instant)
}

/// Any form at all.
fn read_any(text: &str) -> Result<Timestamp, NotATimestamp> {
    let instant = match text.parse::<jiff::Timestamp>() {
        Ok(instant) => instant,
        Err(_) if text.len() >= "2026-11-22T10:00:00".len() => {
            let civil: DateTime = text.parse().map_err(|_| NotATimestamp)?;
            TimeZone::UTC.to_timestamp(civil).map_err(|_| NotATimestamp)?
        }
        Err(_) => return Err(NotATimestamp),
    };
    let year = TimeZone::UTC.to_datetime(instant).year();
    if !(0..=9999).contains(&year) {
        return Err(NotATimestamp);
    }
    let micros = instant.as_nanosecond().div_euclid(1_000);
    let micros = i64::try_from(micros).map_err(|_| NotATimestamp)?;
    // Not clamped: what cannot be told exactly is not told at all.
    jiff::Timestamp::from_microsecond(micros).map(Timestamp).map_err(|_| NotATimestamp)
}

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    /// Accepts every RFC 3339 form; a timestamp without an offset is read as UTC, because every
    /// sender's clock is UTC. Digits beyond the microsecond are dropped.
    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        if text.len() > 64 || !text.is_ascii() {
            return Err(NotATimestamp);
        }
        read_usual(text).map_or_else(|| read_any(text), |instant| Ok(Self(instant)))
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Where the time comes from: the machine's clock, or one a test winds by hand.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    by_hand: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still at `start` until [`Clock::advance_seconds`].
    pub fn by_hand(start: Timestamp) -> Self {
        Self { by_hand: Some(Arc::new(AtomicI64::new(start.unix_micros()))) }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.by_hand {
            Some(micros) => Timestamp::from_unix_micros(micros.load(Ordering::Relaxed)),
            None => Timestamp::from_unix_micros(jiff::Timestamp::now().as_microsecond()),
        }
    }

    /// Winds a clock made [`Clock::by_hand`] forward; does nothing to the machine's clock.
    pub fn advance_seconds(&self, seconds: i64) {
        if let Some(micros) = &self.by_hand {
            micros.fetch_add(seconds.saturating_mul(1_000_000), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_form_is_written_back_in_one_form() {
        for (text, expected) in [
            ("2017-05-14T12:15:30.000000Z", "2017-05-14T12:15:30.000000Z"),
            ("2017-05-14t12:15:30z", "2017-05-14T12:15:30.000000Z"),
            ("2017-05-14 12:15:30+02:00", "2017-05-14T10:15:30.000000Z"),
            ("2026-10-06T18:22:41.512Z", "2026-10-06T18:22:41.512000Z"),
            ("2017-05-14T12:15:30.123456", "2017-05-14T12:15:30.123456Z"),
            ("2017-05-14T12:15:30.123456789Z", "2017-05-14T12:15:30.123456Z"),
            ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), expected, "{text}");
        }
    }

    /// Every instant as we write it, and with any one of its characters replaced.
    #[test]
    fn the_usual_form_is_read_as_any_other_form_is() {
        let instants = (0..2_000).map(|n: i64| n.wrapping_mul(6_364_136_223_846_793_005) >> 8);
        let micros = instants.chain([MICROS_MIN, MICROS_MAX, -1, 0, 951_782_400_000_000]);
        for instant in micros.map(Timestamp::from_unix_micros) {
            let text = instant.to_string();
            assert_eq!(read_usual(&text), Some(instant.0), "{text}");
            assert_eq!(read_any(&text), Ok(instant));
            for place in 0..text.len() {
                for other in ["9", "6", "0", " ", "-", ":", "+", "z", "T"] {
                    let mut text = text.clone();
                    text.replace_range(place..=place, other);
                    let usual = read_usual(&text).map(Timestamp);
                    assert!(usual.is_none() || usual == read_any(&text).ok(), "{text}");
                }
            }
        }
    }

    #[test]
    fn an_instant_out_of_range_is_the_nearest_that_has_a_text_of_the_one_width() {
        for (instant, expected) in [
            (Timestamp::from_unix_micros(i64::MIN), "0000-01-01T00:00:00.000000Z"),
            (Timestamp::from_unix_micros(0).plus_seconds(i64::MIN), "0000-01-01T00:00:00.000000Z"),
            (Timestamp::from_unix_micros(i64::MAX), "9999-12-30T22:00:00.000000Z"),
        ] {
            assert_eq!(instant.to_string(), expected);
            assert_eq!(expected.parse(), Ok(instant));
        }
    }

    #[test]
    fn no_clock_tells_less_than_a_microsecond() {
        let now = Clock::system().now();
        assert_eq!(now.to_string().parse(), Ok(now));
    }

    #[test]
    fn what_is_not_a_timestamp_is_refused() {
        for text in ["", "yesterday", "2017-05-14", "1494764130", "2017-13-14T12:15:30Z", "é"] {
            assert_eq!(text.parse::<Timestamp>(), Err(NotATimestamp), "{text}");
        }
        for text in ["9999-12-30T22:00:00.5Z", "9999-12-31T00:00:00Z", "-000001-12-31T00:00:00Z"] {
            assert_eq!(text.parse::<Timestamp>(), Err(NotATimestamp), "{text}");
        }
    }
}
