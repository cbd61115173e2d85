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
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            t.year(),
            t.month(),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.subsec_nanosecond() / 1_000
        )
    }
}

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    /// Accepts every RFC 3339 form; a timestamp without an offset is read as UTC, because every
    /// sender's clock is UTC. Digits beyond the microsecond are dropped.
    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        if text.len() > 64 || !text.is_ascii() {
            return Err(NotATimestamp);
        }
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
        jiff::Timestamp::from_microsecond(micros).map(Self).map_err(|_| NotATimestamp)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
