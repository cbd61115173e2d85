//! The senders as they behave: what each platform does with an answer, and when it comes again.
//!
//! Pure: no I/O, no clock, chance only as an argument, so that `simulate` can be them over sockets,
//! `doctor` can say what an answer would have cost, and a test can wind ten thousand outages by
//! hand. Facts are read from the senders' public source (August 2026 for GC Notify and GOV.UK
//! Notify; March 2026 for VA Notify and NotifyNL; July 2026 for US Notify.gov); what no source
//! tells says so beside it.

use std::fmt;
use std::time::Duration;

use rand::{Rng, RngExt as _};

use crate::callback::Kind;
use crate::provider::Provider;

/// A platform, at a time when it behaved so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Platform {
    /// GC Notify, Canada, since August 2026: retries within minutes, and suspends.
    GcNotify,
    /// GC Notify until then: as GOV.UK Notify, but a connection for each callback.
    #[value(name = "gc-notify-before-2026-08")]
    GcNotifyBefore202608,
    /// GOV.UK Notify.
    GovukNotify,
    /// US Notify.gov.
    UsNotify,
    /// VA Notify, callbacks set up for a service: they carry a bearer.
    VaNotify,
    /// VA Notify, callbacks asked for with one notification: they carry a signature.
    VaNotifySigned,
    /// NotifyNL.
    NotifyNl,
    /// Adobe Journey Optimizer. Retries and time limits are not documented: the worst is assumed.
    Ajo,
}

/// What a platform does, as far as its receiver can notice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// For connecting, the TLS handshake included.
    pub connect_max: Duration,
    /// Between one byte of the answer and the next.
    pub silence_max: Duration,
    /// Whether one connection serves several callbacks.
    pub keep_alive: bool,
    /// How often, and after what waits, a callback is sent again.
    pub retries: Retries,
    /// Whether 429 counts as "later" rather than "never".
    pub retries_429: bool,
    /// Whether one notification that runs out of retries ends all callbacks of the service.
    pub suspends: bool,
    /// How long its set-up form waits for the reachability probe; `None` if it sends none.
    pub probe_max: Option<Duration>,
    /// The answer time it asks for in its documentation; slower is a warning, not a failure.
    pub answer_asked: Option<Duration>,
    /// UTC time of day at which messages older than 72 hours become `temporary-failure`, all at
    /// once; `None` where no such sweep is known.
    pub sweep_at: Option<Duration>,
}

/// How often, and after what waits, a callback is sent again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retries {
    /// Attempts after the first.
    pub max: u32,
    /// The wait before each.
    pub wait: Wait,
}

/// The wait before a retry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wait {
    /// Always the same, without jitter: an outage comes back as a herd.
    Fixed(Duration),
    /// Anything from nothing to a bound that doubles from one second up to this cap.
    FullJitter {
        /// The largest bound.
        cap: Duration,
    },
    /// The upper half of a bound that doubles from `first`.
    HalfJitter {
        /// The first bound.
        first: Duration,
    },
}

/// What came of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer in time, with this status code.
    Answered(u16),
    /// None: not reached, broken off, or too slow.
    NoAnswer,
}

/// What the platform does next with a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it counts as delivered.
    Done,
    /// Sends it again after this wait.
    Again(Duration),
    /// Nothing: it is gone for good.
    Lost(Loss),
}

/// Why a callback is gone for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// A status code after which the platform does not try again.
    Refused(u16),
    /// A redirect. After 301, 302 and 303 it is followed as a GET without the body, so nobody got
    /// the callback. After 307 and 308 it is followed with the body, and without the bearer if it
    /// leads to another host or port; only who knows where it leads can say what comes of that, so
    /// here it counts as lost. `requests`, `Session.rebuild_method` and `rebuild_auth`.
    Redirected(u16),
    /// The last retry failed too.
    RetriesExhausted,
    /// The service's callbacks were suspended when it came about; never sent.
    Suspended,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(code) => write!(f, "answered {code}, which is never retried"),
            Self::Redirected(code @ (307 | 308)) => write!(
                f,
                "answered {code}: the platform would follow the redirect with the body, which is not \
                 tried here"
            ),
            Self::Redirected(code) => {
                write!(f, "answered {code}: the redirect is followed without the body")
            }
            Self::RetriesExhausted => f.write_str("every retry failed"),
            Self::Suspended => f.write_str("callbacks were suspended"),
        }
    }
}

impl Platform {
    /// Every platform, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::GcNotify,
        Self::GcNotifyBefore202608,
        Self::GovukNotify,
        Self::UsNotify,
        Self::VaNotify,
        Self::VaNotifySigned,
        Self::NotifyNl,
        Self::Ajo,
    ];

    /// The word for `--provider`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GcNotify => "gc-notify",
            Self::GcNotifyBefore202608 => "gc-notify-before-2026-08",
            Self::GovukNotify => "govuk-notify",
            Self::UsNotify => "us-notify",
            Self::VaNotify => "va-notify",
            Self::VaNotifySigned => "va-notify-signed",
            Self::NotifyNl => "notify-nl",
            Self::Ajo => "ajo",
        }
    }

    /// Whose wire format it speaks.
    pub fn provider(self) -> Provider {
        match self {
            Self::GcNotify | Self::GcNotifyBefore202608 => Provider::GcNotify,
            Self::GovukNotify => Provider::GovukNotify,
            Self::UsNotify => Provider::UsNotify,
            Self::VaNotify | Self::VaNotifySigned => Provider::VaNotify,
            Self::NotifyNl => Provider::NotifyNl,
            Self::Ajo => Provider::Ajo,
        }
    }

    /// What it does with callbacks of that kind.
    ///
    /// Not told by any source, and assumed: GC Notify's waits since August 2026 (its documentation
    /// says five retries, exponential with jitter, the whole window perhaps five minutes), and
    /// everything of Adobe's.
    pub fn rules(self, kind: Kind) -> Rules {
        let family = Rules {
            connect_max: seconds(5),
            silence_max: seconds(5),
            keep_alive: false,
            retries: Retries { max: 5, wait: Wait::Fixed(seconds(300)) },
            retries_429: true,
            suspends: false,
            probe_max: None,
            answer_asked: None,
            sweep_at: None,
        };
        let is_text = kind == Kind::ReceivedMessage;
        match self {
            Self::GcNotify => Rules {
                retries: Retries { max: 5, wait: Wait::HalfJitter { first: seconds(10) } },
                suspends: true,
                ..Self::GcNotifyBefore202608.rules(kind)
            },
            Self::GcNotifyBefore202608 => Rules {
                probe_max: Some(seconds(2)),
                answer_asked: Some(seconds(1)),
                sweep_at: Some(seconds(5 * 3600 + 5 * 60)),
                ..family
            },
            Self::GovukNotify => {
                Rules { keep_alive: true, sweep_at: Some(seconds(5 * 60)), ..family }
            }
            Self::UsNotify if is_text => Rules {
                connect_max: seconds(60),
                silence_max: seconds(60),
                retries_429: false,
                ..family
            },
            Self::UsNotify => family,
            Self::VaNotify | Self::VaNotifySigned => Rules {
                connect_max: Duration::from_millis(3_050),
                retries: Retries { max: 60, wait: Wait::FullJitter { cap: seconds(300) } },
                retries_429: self == Self::VaNotifySigned,
                ..family
            },
            Self::NotifyNl => Rules { keep_alive: true, ..family },
            Self::Ajo => Rules {
                retries: Retries { max: 0, wait: Wait::Fixed(Duration::ZERO) },
                retries_429: false,
                ..family
            },
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Rules {
    /// What happens to a callback after its attempt number `attempt`, counted from 1.
    pub fn next(&self, attempt: u32, outcome: Outcome, chance: &mut impl Rng) -> Next {
        let retry = match outcome {
            // Every other status below 400 is as good as 200 to `requests`.
            Outcome::Answered(code @ (301..=303 | 307 | 308)) => {
                return Next::Lost(Loss::Redirected(code));
            }
            Outcome::Answered(..400) => return Next::Done,
            Outcome::Answered(429) => self.retries_429,
            Outcome::Answered(code) => code >= 500,
            Outcome::NoAnswer => true,
        };
        match outcome {
            Outcome::Answered(code) if !retry => Next::Lost(Loss::Refused(code)),
            _ if attempt > self.retries.max => Next::Lost(Loss::RetriesExhausted),
            _ => Next::Again(self.retries.wait.before(attempt, chance)),
        }
    }

    /// The shortest time over which a callback that always fails is tried: an outage that ends
    /// sooner loses nothing.
    pub fn window_min(&self) -> Duration {
        (1..=self.retries.max).map(|retry| self.retries.wait.bounds(retry).0).sum()
    }
}

impl Wait {
    /// The wait before retry number `retry`, counted from 1.
    pub fn before(self, retry: u32, chance: &mut impl Rng) -> Duration {
        let (min, max) = self.bounds(retry);
        min + (max - min).mul_f64(chance.random::<f64>())
    }

    /// The shortest and the longest that it can be.
    pub fn bounds(self, retry: u32) -> (Duration, Duration) {
        let doubled = |first: Duration| first.saturating_mul(1 << (retry.clamp(1, 17) - 1));
        match self {
            Self::Fixed(wait) => (wait, wait),
            Self::FullJitter { cap } => (Duration::ZERO, doubled(seconds(1)).min(cap)),
            Self::HalfJitter { first } => (doubled(first) / 2, doubled(first)),
        }
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::ChaCha8Rng;

    use super::*;

    fn next(platform: Platform, kind: Kind, attempt: u32, outcome: Outcome) -> Next {
        platform.rules(kind).next(attempt, outcome, &mut ChaCha8Rng::seed_from_u64(1))
    }

    fn is_again(next: Next) -> bool {
        matches!(next, Next::Again(_))
    }

    #[test]
    fn every_platform_is_done_with_any_answer_below_400_but_a_redirect_and_keeps_what_nobody_answered()
     {
        for platform in Platform::ALL {
            for code in [200, 201, 202, 204, 300, 304, 305, 306] {
                assert_eq!(next(platform, Kind::Receipt, 1, Outcome::Answered(code)), Next::Done);
            }
            let is_kept = is_again(next(platform, Kind::Receipt, 1, Outcome::NoAnswer));
            assert_eq!(is_kept, platform != Platform::Ajo, "{platform}");
        }
    }

    #[test]
    fn every_4xx_but_429_loses_a_callback_at_once() {
        for platform in Platform::ALL {
            for code in (400..500).filter(|code| *code != 429) {
                let lost = next(platform, Kind::Receipt, 1, Outcome::Answered(code));
                assert_eq!(lost, Next::Lost(Loss::Refused(code)), "{platform}");
            }
        }
    }

    #[test]
    fn who_retries_429() {
        let retries = |platform, kind| is_again(next(platform, kind, 1, Outcome::Answered(429)));
        for platform in [
            Platform::GcNotify,
            Platform::GovukNotify,
            Platform::UsNotify,
            Platform::NotifyNl,
            Platform::VaNotifySigned,
        ] {
            assert!(retries(platform, Kind::Receipt), "{platform}");
        }
        assert!(!retries(Platform::VaNotify, Kind::Receipt));
        assert!(!retries(Platform::UsNotify, Kind::ReceivedMessage));
        assert!(!retries(Platform::Ajo, Kind::Receipt));
    }

    #[test]
    fn a_redirect_loses_the_body_or_leaves_open_what_comes_of_it() {
        for code in [301, 302, 303, 307, 308] {
            let lost = next(Platform::GcNotify, Kind::Receipt, 1, Outcome::Answered(code));
            assert_eq!(lost, Next::Lost(Loss::Redirected(code)));
            let told = Loss::Redirected(code).to_string();
            assert_eq!(told.contains("with the body"), code > 303, "{told}");
        }
    }

    #[test]
    fn the_last_retry_is_the_last() {
        let at = |platform, attempt| next(platform, Kind::Receipt, attempt, Outcome::Answered(503));
        let over = Next::Lost(Loss::RetriesExhausted);
        for platform in [Platform::GcNotify, Platform::GovukNotify, Platform::NotifyNl] {
            assert!(is_again(at(platform, 5)), "{platform}");
            assert_eq!(at(platform, 6), over, "{platform}");
        }
        assert!(is_again(at(Platform::VaNotify, 60)));
        assert_eq!(at(Platform::VaNotify, 61), over);
        assert_eq!(at(Platform::Ajo, 1), over);
    }

    #[test]
    fn waits_stay_within_their_bounds_and_the_windows_are_those_documented() {
        let mut chance = ChaCha8Rng::seed_from_u64(7);
        for platform in Platform::ALL {
            let Retries { max, wait } = platform.rules(Kind::Receipt).retries;
            for retry in 1..=max {
                let (min, max) = wait.bounds(retry);
                for _ in 0..100 {
                    let waits = wait.before(retry, &mut chance);
                    assert!(min <= waits && waits <= max, "{platform} {retry}: {waits:?}");
                }
            }
        }
        assert_eq!(Platform::GovukNotify.rules(Kind::Receipt).window_min(), seconds(1_500));
        assert_eq!(Platform::GcNotify.rules(Kind::Receipt).window_min(), seconds(155));
    }
}
