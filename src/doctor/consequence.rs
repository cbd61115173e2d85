//! What an answer costs: the platform's next step, followed to its end.

use std::fmt;
use std::time::Duration;

use rand::Rng;

use crate::sender::{Loss, Next, Outcome, Platform, Rules};

/// What becomes of a callback that always gets this answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Consequence {
    /// It counts as delivered.
    Accepted,
    /// It is gone at once.
    Lost(Loss),
    /// It comes again so often, for at least so long, and is gone then.
    Exhausted {
        /// Attempts after the first.
        retries: u32,
        /// The shortest time they can take.
        window_min: Duration,
        /// Whether all other callbacks of the service end with it.
        suspends: bool,
    },
    /// Nobody has documented that it comes again.
    Undocumented,
}

impl Consequence {
    /// What the platform with these rules does with an outcome, every time the same.
    pub fn of(platform: Platform, rules: &Rules, outcome: Outcome, chance: &mut impl Rng) -> Self {
        match rules.next(1, outcome, chance) {
            Next::Done => Self::Accepted,
            Next::Lost(Loss::RetriesExhausted) if platform == Platform::Ajo => Self::Undocumented,
            Next::Lost(loss) => Self::Lost(loss),
            Next::Again(_) => Self::Exhausted {
                retries: rules.retries.max,
                window_min: rules.window_min(),
                suspends: rules.suspends,
            },
        }
    }

    /// Whether the callback gets there.
    pub fn is_accepted(&self) -> bool {
        *self == Self::Accepted
    }

    /// Whether there is no second attempt.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Undocumented)
    }
}

impl fmt::Display for Consequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("count it as delivered"),
            Self::Lost(Loss::Refused(code)) => {
                write!(f, "drop it for ever: {code} is never sent again")
            }
            Self::Lost(Loss::Redirected(code @ (307 | 308))) => write!(
                f,
                "follow the {code} with the body, but elsewhere without the token: refused there, and \
                 lost for ever"
            ),
            Self::Lost(Loss::Redirected(code)) => {
                write!(f, "lose it for ever: a {code} is followed without the body")
            }
            Self::Lost(loss) => write!(f, "lose it for ever: {loss}"),
            Self::Exhausted { retries, window_min, suspends } => {
                write!(f, "send it again, {retries} times in all")?;
                if !window_min.is_zero() {
                    write!(f, " over {} or more", span(*window_min))?;
                }
                f.write_str("; if the answer stays the same it is lost for ever")?;
                if *suspends {
                    f.write_str(
                        ", and every callback of the service is suspended until the platform's \
                         staff lift it",
                    )?;
                }
                Ok(())
            }
            Self::Undocumented => f.write_str(
                "perhaps never send it again: no retry is documented, so it counts as lost",
            ),
        }
    }
}

/// `155 s`, or `25 min`.
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds >= 600 => format!("{} min", seconds / 60),
        seconds if seconds >= 10 => format!("{seconds} s"),
        _ => format!("{} ms", time.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::ChaCha8Rng;

    use super::*;
    use crate::callback::Kind;

    fn told(platform: Platform, outcome: Outcome) -> String {
        let chance = &mut ChaCha8Rng::seed_from_u64(1);
        Consequence::of(platform, &platform.rules(Kind::Receipt), outcome, chance).to_string()
    }

    #[test]
    fn each_platform_does_what_its_rules_say() {
        for (platform, outcome, expected) in [
            (Platform::GcNotify, Outcome::Answered(204), "delivered"),
            (Platform::GcNotify, Outcome::Answered(404), "404 is never sent again"),
            (Platform::GcNotify, Outcome::Answered(500), "5 times in all over 155 s"),
            (Platform::GcNotify, Outcome::NoAnswer, "suspended"),
            (Platform::GovukNotify, Outcome::Answered(302), "followed without the body"),
            (Platform::GovukNotify, Outcome::Answered(308), "with the body, but"),
            (Platform::GovukNotify, Outcome::Answered(429), "over 25 min or more"),
            (Platform::VaNotify, Outcome::Answered(429), "429 is never sent again"),
            (Platform::VaNotify, Outcome::NoAnswer, "60 times in all; if"),
            (Platform::Ajo, Outcome::Answered(503), "no retry is documented"),
        ] {
            let told = told(platform, outcome);
            assert!(told.contains(expected), "{platform} {outcome:?}: {told}");
        }
        assert!(!told(Platform::GovukNotify, Outcome::NoAnswer).contains("suspended"));
    }
}
