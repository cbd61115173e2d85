//! What becomes of messages, and how often.
//!
//! No platform publishes these shares. The defaults are assumptions, chosen so that a few thousand
//! messages meet everything their platform can do while most of them are simply delivered.

use std::fmt;
use std::str::FromStr;

use super::chance::Chance;
use crate::sender::Platform;

/// What becomes of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Delivered. Before it some platforms tell `sending` and `sent`.
    Delivered,
    /// `sent` is the last word: VA's texts to other countries; with Adobe whatever tells no more.
    Sent,
    /// A temporary failure.
    Temporary,
    /// A permanent failure.
    Permanent,
    /// A technical failure.
    Technical,
    /// GC Notify: the provider takes no texts for that country.
    ProviderFailure,
    /// GC Notify: the attached file holds a virus.
    VirusScanFailed,
    /// Delivered, and then bounced hours or days later.
    LateBounce,
    /// One end after another, in both directions.
    Restless,
    /// Nothing is heard of it until the nightly sweep makes it a temporary failure.
    Stuck,
    /// Nothing is called back about it at all.
    Untold,
    /// A text message from the public.
    ReceivedText,
    /// A letter that comes back. Nothing else is called back about letters.
    ReturnedLetter,
    /// Adobe: delayed once or twice, then sent.
    Delayed,
    /// Adobe: bounced while it was being handed over.
    Bounced,
    /// Adobe: answered automatically, which comes as a bounce that is none.
    AutoReply,
    /// Adobe: not sent, because of a rule.
    Excluded,
    /// Adobe: not sent, because the address is on the list.
    Denylisted,
    /// Adobe: an attempt ends in an error, a later one is sent.
    Recovered,
    /// Adobe: nothing but values that move no status.
    Unmoved,
}

use Outcome as O;

const GC_NOTIFY: &[(Outcome, f64)] = &[
    (O::Delivered, 0.86),
    (O::Temporary, 0.03),
    (O::Permanent, 0.04),
    (O::Technical, 0.01),
    (O::ProviderFailure, 0.005),
    (O::VirusScanFailed, 0.005),
    (O::LateBounce, 0.01),
    (O::Restless, 0.01),
    (O::Stuck, 0.01),
    (O::Untold, 0.005),
    (O::ReceivedText, 0.015),
];

const GOVUK_NOTIFY: &[(Outcome, f64)] = &[
    (O::Delivered, 0.87),
    (O::Temporary, 0.03),
    (O::Permanent, 0.05),
    (O::Technical, 0.005),
    (O::Stuck, 0.01),
    (O::Untold, 0.01),
    (O::ReceivedText, 0.02),
    (O::ReturnedLetter, 0.005),
];

const NOTIFY_NL: &[(Outcome, f64)] = &[
    (O::Delivered, 0.87),
    (O::Temporary, 0.03),
    (O::Permanent, 0.05),
    (O::Technical, 0.005),
    (O::Untold, 0.02),
    (O::ReceivedText, 0.02),
    (O::ReturnedLetter, 0.005),
];

const US_NOTIFY: &[(Outcome, f64)] = &[
    (O::Delivered, 0.75),
    (O::Temporary, 0.03),
    (O::Permanent, 0.05),
    (O::Technical, 0.01),
    (O::Untold, 0.14),
    (O::ReceivedText, 0.02),
];

const VA_NOTIFY: &[(Outcome, f64)] = &[
    (O::Delivered, 0.84),
    (O::Sent, 0.03),
    (O::Temporary, 0.03),
    (O::Permanent, 0.05),
    (O::Technical, 0.01),
    (O::LateBounce, 0.01),
    (O::Restless, 0.01),
    (O::ReceivedText, 0.02),
];

/// What is asked for with one notification tells of that notification only.
const VA_NOTIFY_SIGNED: &[(Outcome, f64)] = &[
    (O::Delivered, 0.86),
    (O::Sent, 0.03),
    (O::Temporary, 0.03),
    (O::Permanent, 0.05),
    (O::Technical, 0.01),
    (O::LateBounce, 0.01),
    (O::Restless, 0.01),
];

const AJO: &[(Outcome, f64)] = &[
    (O::Delivered, 0.60),
    (O::Sent, 0.20),
    (O::Delayed, 0.03),
    (O::Bounced, 0.06),
    (O::LateBounce, 0.03),
    (O::AutoReply, 0.01),
    (O::Excluded, 0.03),
    (O::Denylisted, 0.01),
    (O::Technical, 0.01),
    (O::Recovered, 0.01),
    (O::Unmoved, 0.01),
];

/// What a platform can do, with the default shares.
fn defaults(platform: Platform) -> &'static [(Outcome, f64)] {
    match platform {
        Platform::GcNotify | Platform::GcNotifyBefore202608 => GC_NOTIFY,
        Platform::GovukNotify => GOVUK_NOTIFY,
        Platform::UsNotify => US_NOTIFY,
        Platform::VaNotify => VA_NOTIFY,
        Platform::VaNotifySigned => VA_NOTIFY_SIGNED,
        Platform::NotifyNl => NOTIFY_NL,
        Platform::Ajo => AJO,
    }
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 20] = [
        Self::Delivered,
        Self::Sent,
        Self::Temporary,
        Self::Permanent,
        Self::Technical,
        Self::ProviderFailure,
        Self::VirusScanFailed,
        Self::LateBounce,
        Self::Restless,
        Self::Stuck,
        Self::Untold,
        Self::ReceivedText,
        Self::ReturnedLetter,
        Self::Delayed,
        Self::Bounced,
        Self::AutoReply,
        Self::Excluded,
        Self::Denylisted,
        Self::Recovered,
        Self::Unmoved,
    ];

    /// The word on a command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Sent => "sent",
            Self::Temporary => "temporary",
            Self::Permanent => "permanent",
            Self::Technical => "technical",
            Self::ProviderFailure => "provider-failure",
            Self::VirusScanFailed => "virus-scan-failed",
            Self::LateBounce => "late-bounce",
            Self::Restless => "restless",
            Self::Stuck => "stuck",
            Self::Untold => "untold",
            Self::ReceivedText => "received-text",
            Self::ReturnedLetter => "returned-letter",
            Self::Delayed => "delayed",
            Self::Bounced => "bounced",
            Self::AutoReply => "auto-reply",
            Self::Excluded => "excluded",
            Self::Denylisted => "denylisted",
            Self::Recovered => "recovered",
            Self::Unmoved => "unmoved",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = MixError;

    fn from_str(word: &str) -> Result<Self, MixError> {
        let found = Self::ALL.into_iter().find(|outcome| outcome.as_str() == word);
        found.ok_or_else(|| MixError::Unknown(word.to_owned()))
    }
}

/// A mix that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MixError {
    /// No outcome has that name.
    #[error("no outcome is called \"{0}\"")]
    Unknown(String),
    /// The platform never does that.
    #[error("{platform} has no outcome \"{outcome}\"")]
    NotOfThePlatform {
        /// Which platform.
        platform: Platform,
        /// What it cannot do.
        outcome: Outcome,
    },
    /// A share below nothing, or no number.
    #[error("a share is a number from 0 upwards")]
    NotAShare,
    /// Every share is 0.
    #[error("every outcome has the share 0")]
    Nothing,
}

/// How often each outcome comes, in proportion to the others, and how messy the telling is.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    platform: Platform,
    shares: Vec<(Outcome, f64)>,
    /// Share of delivered emails whose recipient complains. Default 0.005; Adobe and VA callbacks
    /// asked for with one notification tell of none.
    pub complaints: f64,
    /// Share of callbacks that the platform's queue hands out twice, byte for byte. Default 0.02.
    pub duplicates: f64,
    /// Share of callbacks held back until the next about the same message has overtaken them, where
    /// that comes within minutes. Default 0.1.
    pub overtaken: f64,
    /// Share of messages whose callbacks have a key no documentation knows. Default 0.01.
    pub unknown_keys: f64,
    /// Adobe: share of messages whose first two events come as one array. Default 0.02.
    pub arrays: f64,
}

impl Mix {
    /// The defaults of that platform.
    pub fn of(platform: Platform) -> Self {
        Self {
            platform,
            shares: defaults(platform).to_vec(),
            complaints: 0.005,
            duplicates: 0.02,
            overtaken: 0.1,
            unknown_keys: 0.01,
            arrays: 0.02,
        }
    }

    /// The same with another share of that outcome, in proportion to the others as they stand.
    ///
    /// # Errors
    /// If the platform cannot do that, the share is none, or nothing would be left.
    pub fn with(mut self, outcome: Outcome, share: f64) -> Result<Self, MixError> {
        if !(share.is_finite() && share >= 0.0) {
            return Err(MixError::NotAShare);
        }
        let platform = self.platform;
        let known = self.shares.iter_mut().find(|(known, _)| *known == outcome);
        known.ok_or(MixError::NotOfThePlatform { platform, outcome })?.1 = share;
        if self.total() <= 0.0 { Err(MixError::Nothing) } else { Ok(self) }
    }

    /// Nothing but that outcome.
    ///
    /// # Errors
    /// If the platform cannot do that.
    pub fn only(mut self, outcome: Outcome) -> Result<Self, MixError> {
        self.shares.iter_mut().for_each(|(_, share)| *share = 0.0);
        self.with(outcome, 1.0)
    }

    /// The platform whose messages they are.
    pub fn platform(&self) -> Platform {
        self.platform
    }

    /// Every outcome the platform can have with its share of all messages, from 0 to 1.
    pub fn shares(&self) -> impl Iterator<Item = (Outcome, f64)> {
        let total = self.total();
        self.shares.iter().map(move |(outcome, share)| (*outcome, share / total))
    }

    /// The same without what takes until the nightly sweep.
    pub(super) fn without_stuck(mut self) -> Self {
        self.shares.retain(|(outcome, _)| *outcome != Outcome::Stuck);
        if self.total() <= 0.0 {
            self.shares.push((Outcome::Untold, 1.0));
        }
        self
    }

    /// One outcome by chance.
    pub(super) fn draw(&self, chance: &mut Chance) -> Outcome {
        let mut rest = chance.fraction() * self.total();
        for (outcome, share) in &self.shares {
            if rest < *share {
                return *outcome;
            }
            rest -= share;
        }
        // Rounding may leave a rest behind the last.
        let last = self.shares.iter().rev().find(|(_, share)| *share > 0.0);
        last.map_or(Outcome::Untold, |(outcome, _)| *outcome)
    }

    fn total(&self) -> f64 {
        self.shares.iter().map(|(_, share)| share).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_shares_of_each_platform_make_one() {
        for platform in Platform::ALL {
            let total: f64 = defaults(platform).iter().map(|(_, share)| share).sum();
            assert!((total - 1.0).abs() < 1e-9, "{platform}: {total}");
        }
    }

    #[test]
    fn an_outcome_is_read_back_from_its_word() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.as_str().parse(), Ok(outcome));
        }
        assert_eq!("lost".parse::<Outcome>(), Err(MixError::Unknown("lost".into())));
    }

    #[test]
    fn a_mix_is_of_what_the_platform_can_do() {
        let gc = || Mix::of(Platform::GcNotify);
        let error = gc().with(Outcome::Denylisted, 0.1).unwrap_err();
        assert_eq!(error.to_string(), "gc-notify has no outcome \"denylisted\"");
        for share in [-0.1, f64::NAN, f64::INFINITY] {
            assert_eq!(gc().with(Outcome::Stuck, share), Err(MixError::NotAShare));
        }
        let only = gc().only(Outcome::Stuck).unwrap();
        assert_eq!(only.clone().with(Outcome::Stuck, 0.0), Err(MixError::Nothing));
        let mut chance = Chance::of(1, 1, 1);
        assert!((0..100).all(|_| only.draw(&mut chance) == Outcome::Stuck));
    }
}
