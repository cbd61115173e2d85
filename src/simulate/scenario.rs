//! The messages of one simulation, each by its number.
//!
//! A [`Scenario`] is a handful of numbers; everything about a message follows from them and the
//! message's own number, in any order and on any thread. The platform's time begins at
//! [`START_MICROS`] whatever the day is, so that the same numbers give the same bytes for ever.

use std::time::Duration;

use bytes::Bytes;

use super::chance::Chance;
use super::life::{Life, Planned, Truth};
use super::mix::Mix;
use super::{ajo, notify};
use crate::callback::Kind;
use crate::clock::Timestamp;
use crate::sender::Platform;

/// When the platform's time begins, in microseconds of Unix time: 2026-09-01T12:00:00Z.
pub const START_MICROS: i64 = 1_788_264_000_000_000;

/// Late bounces, complaints and returned letters come that much later at most.
const LATE_MAX: Duration = Duration::from_secs(72 * 3_600);

/// [`Scenario::without_late_news`] has them come within that.
const LATE_MAX_HURRIED: Duration = Duration::from_secs(300);

/// A callback is overtaken only by one that follows within that: the longest a queue holds one back
/// while everything is well.
const OVERTAKEN_WITHIN: i64 = 20 * notify::MINUTE;

/// The messages of one simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Where chance starts.
    pub seed: u64,
    /// How many messages the app sends in a second of the platform's time; more than 0. Infinity
    /// sends them all at the start.
    pub messages_per_second: f64,
    mix: Mix,
    late_max: Duration,
}

impl Scenario {
    /// That platform's messages with its default mix.
    pub fn new(platform: Platform, seed: u64, messages_per_second: f64) -> Self {
        Self { seed, messages_per_second, mix: Mix::of(platform), late_max: LATE_MAX }
    }

    /// The same with that mix, and with the platform whose mix it is.
    #[must_use]
    pub fn with_mix(self, mix: Mix) -> Self {
        Self { mix, ..self }
    }

    /// The same, but every callback is queued within 45 minutes after its message was sent: late
    /// news comes within five minutes, and nothing waits for the nightly sweep.
    #[must_use]
    pub fn without_late_news(self) -> Self {
        Self { mix: self.mix.without_stuck(), late_max: LATE_MAX_HURRIED, ..self }
    }

    /// Whose messages they are.
    pub fn platform(&self) -> Platform {
        self.mix.platform()
    }

    /// What becomes of them.
    pub fn mix(&self) -> &Mix {
        &self.mix
    }

    /// When the platform's time begins.
    pub fn start() -> Timestamp {
        Timestamp::from_unix_micros(START_MICROS)
    }

    /// When the app sends the message with this number, counted from 0, since the start.
    pub fn sent_after(&self, number: u64) -> Duration {
        Duration::from_micros(self.sent_after_micros(number))
    }

    /// The message with this number.
    pub fn life(&self, number: u64) -> Life {
        let (story, mut chance) = self.story(number);
        Life { callbacks: self.queued(story.tell(), &mut chance), truth: story.truth() }
    }

    /// [`Life::callbacks`] of that message alone.
    pub fn callbacks(&self, number: u64) -> Vec<Planned> {
        let (story, mut chance) = self.story(number);
        self.queued(story.tell(), &mut chance)
    }

    /// [`Life::truth`] of that message alone.
    pub fn truth(&self, number: u64) -> Truth {
        self.story(number).0.truth()
    }

    fn story(&self, number: u64) -> (Story, Chance) {
        let place = Platform::ALL.iter().position(|platform| *platform == self.platform());
        let mut chance = Chance::of(self.seed, place.unwrap_or_default() as u64, number);
        let created_at = START_MICROS.saturating_add_unsigned(self.sent_after_micros(number));
        let late_max = i64::try_from(self.late_max.as_micros()).unwrap_or(i64::MAX);
        let mix = &self.mix;
        let story = if self.platform() == Platform::Ajo {
            Story::Ajo(ajo::Teller { mix, late_max }.story(created_at, &mut chance))
        } else {
            let teller = notify::Teller { mix, late_max };
            Story::Notify(teller.story(number, created_at, &mut chance))
        };
        (story, chance)
    }

    fn sent_after_micros(&self, number: u64) -> u64 {
        /// A century: beyond it the years of the timestamps would run out one day.
        const MAX: f64 = 3_155_760_000_000_000.0;
        #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 a few microseconds are lost")]
        let micros = number as f64 * 1_000_000.0 / self.messages_per_second;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within the bounds just set; a rate that is no number gives 0"
        )]
        let micros = micros.clamp(0.0, MAX) as u64;
        micros
    }

    /// The callbacks as the platform's queue hands them out: now and then one is held back until
    /// the next has overtaken it, or comes twice.
    fn queued(&self, mut told: Vec<Telling>, chance: &mut Chance) -> Vec<Planned> {
        for place in 1..told.len() {
            let (before, next) = (told[place - 1].told_at, told[place].told_at);
            if next - before < OVERTAKEN_WITHIN && chance.happens(self.mix.overtaken) {
                told[place - 1].told_at = next + chance.between(10_000, 5 * notify::SECOND);
            }
        }
        for place in 0..told.len() {
            if chance.happens(self.mix.duplicates) {
                let again = told[place].told_at + chance.between(1_000, 10 * notify::MINUTE);
                told.push(Telling { told_at: again, ..told[place].clone() });
            }
        }
        told.sort_by_key(|telling| telling.told_at);
        told.into_iter().map(Telling::planned).collect()
    }
}

/// What happens to one message.
enum Story {
    Notify(notify::Story),
    Ajo(ajo::Story),
}

impl Story {
    fn tell(&self) -> Vec<Telling> {
        match self {
            Self::Notify(story) => story.tell(),
            Self::Ajo(story) => story.tell(),
        }
    }

    fn truth(&self) -> Truth {
        match self {
            Self::Notify(story) => story.truth(),
            Self::Ajo(story) => story.truth(),
        }
    }
}

/// A callback and when it is queued, in microseconds of Unix time.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    pub told_at: i64,
    pub kind: Kind,
    pub body: Bytes,
}

impl Telling {
    fn planned(self) -> Planned {
        let after = u64::try_from(self.told_at - START_MICROS).unwrap_or(0);
        Planned { after: Duration::from_micros(after), kind: self.kind, body: self.body }
    }
}
