//! What happens to a message of Adobe Journey Optimizer, before it is put into words.
//!
//! Events carry no clock, so a story only has events in an order in which they can happen: delays
//! and errors of earlier attempts, then `sent`, then the ends; on email a bounce may come after
//! `delivered`, on text messages never. What status each event means is told here, event by event,
//! from Adobe's documentation; the reader's tables have no part in it.

use super::chance::Chance;
use super::mix::{Mix, Outcome};
use super::notify::SECOND;
use super::people;
use crate::sender::Platform;

const PENDING: &str = "pending";
const SENT: &str = "sent";
const DELIVERED: &str = "delivered";
const TECHNICAL: &str = "technical-failure";
const TEMPORARY: &str = "temporary-failure";
const PERMANENT: &str = "permanent-failure";

/// Bounces of email: type, code, reason, and what they come to. Types are an open set in any letter
/// case, and the code beats them.
const EMAIL_BOUNCES: [(&str, &str, &str, &str); 17] = [
    ("Ignored", "1", "Undetermined", TEMPORARY),
    ("Hard", "10", "Invalid Recipient", PERMANENT),
    ("hard", "10", "Invalid Recipient", PERMANENT),
    ("Soft", "15", "Recipient Refused", PERMANENT),
    ("Soft", "20", "Soft Bounce", TEMPORARY),
    ("soft", "21", "DNS Failure", TEMPORARY),
    ("Soft", "22", "Mailbox Full", TEMPORARY),
    ("Soft", "23", "Too Large", TEMPORARY),
    ("Soft", "24", "Timeout", TEMPORARY),
    ("Ignored", "25", "Admin Failure", TECHNICAL),
    ("HARD", "30", "Generic Bounce", PERMANENT),
    ("Soft", "40", "Generic Bounce", TEMPORARY),
    ("Soft", "50", "Mail Block", TEMPORARY),
    ("Soft", "51", "Spam Block", TEMPORARY),
    ("Admin", "54", "Relaying Denied", TECHNICAL),
    ("Soft", "70", "Transient Failure", TEMPORARY),
    ("Ignored", "100", "Challenge-Response", TEMPORARY),
];

/// Bounces of text messages, whose codes are each provider's own.
const SMS_BOUNCES: [(Option<&str>, &str, &str); 4] = [
    (Some("Hard"), "404", PERMANENT),
    (Some("Soft"), "10", TEMPORARY),
    (Some("Admin"), "60", TECHNICAL),
    (None, "25", TEMPORARY),
];

/// Exclusions: code, reason where Adobe tells it, and what they come to.
const EXCLUSIONS: [(&str, Option<&str>, &str); 6] = [
    ("050102", Some("EmailSuppressed"), PERMANENT),
    ("050020", None, PERMANENT),
    ("050101", None, PERMANENT),
    ("050153", None, PERMANENT),
    ("050109", Some("personalizedDomainNotValid"), TECHNICAL),
    ("050001", None, TECHNICAL),
];

/// Values that move no status: one Adobe's schema has, and one that nobody documented.
const UNMOVED: [&str; 2] = ["duplicate", "throttled"];

/// What happens to one message.
#[derive(Clone, Debug)]
pub struct Story {
    pub channel: Channel,
    pub request: u128,
    pub execution: u64,
    pub message: u128,
    /// `messageProfileID`, in newer payloads only.
    pub profile: Option<u128>,
    pub to: String,
    /// In the order in which they come about; there is at least one.
    pub events: Vec<Event>,
    /// Whether the first two come as one array.
    pub starts_as_array: bool,
    /// Whether `feedbackStatus` is the bare word.
    pub is_status_bare: bool,
    /// Whether the identity is one of the customer's own, not the address.
    pub is_identity_custom: bool,
    pub has_unknown_key: bool,
}

/// How a message goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Email,
    Sms,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    pub word: &'static str,
    /// The status it means; `None` if it moves none.
    pub status: Option<&'static str>,
    pub cause: Option<Cause>,
    /// Attempts before this one.
    pub retries: i64,
    /// The provider's time, cut to the millisecond, in microseconds: one SMS provider tells it.
    pub delivered_at: Option<i64>,
    /// When it is queued.
    pub told_at: i64,
}

/// Why.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cause {
    /// An exclusion has a code and a reason only.
    pub is_exclusion: bool,
    pub category: Option<&'static str>,
    pub kind: Option<&'static str>,
    pub code: Option<&'static str>,
    pub reason: Option<&'static str>,
}

/// Draws stories.
#[derive(Clone, Copy, Debug)]
pub struct Teller<'m> {
    pub mix: &'m Mix,
    /// The longest that late news takes after what it follows, in microseconds.
    pub late_max: i64,
}

impl Teller<'_> {
    /// The story of a message sent at `created_at`, in microseconds of Unix time.
    pub fn story(&self, created_at: i64, chance: &mut Chance) -> Story {
        let outcome = self.mix.draw(chance);
        let is_sms = !is_by_email(outcome) && chance.below(10) < 3;
        let channel = if is_sms { Channel::Sms } else { Channel::Email };
        let is_newer = is_sms || chance.below(2) == 0;
        let mut story = Story {
            channel,
            request: chance.uuid(),
            execution: 26_362_805 + chance.below(8),
            message: chance.uuid(),
            profile: is_newer.then(|| chance.uuid()),
            to: match channel {
                Channel::Email => people::address(chance),
                Channel::Sms => people::number_typed(Platform::Ajo, chance),
            },
            events: Vec::with_capacity(4),
            starts_as_array: chance.happens(self.mix.arrays),
            is_status_bare: chance.below(50) == 0,
            is_identity_custom: is_newer && chance.below(20) == 0,
            has_unknown_key: chance.happens(self.mix.unknown_keys),
        };
        let at = created_at + chance.between(SECOND / 5, 2 * SECOND);
        self.fill(&mut Telling { story: &mut story, at, chance }, outcome);
        story
    }

    fn fill(&self, telling: &mut Telling<'_>, outcome: Outcome) {
        match outcome {
            Outcome::Sent => telling.sent(),
            Outcome::Delayed => telling.delayed(),
            Outcome::Bounced => telling.bounced(),
            Outcome::LateBounce => {
                telling.sent();
                telling.perhaps(Telling::delivered);
                telling.at += telling.chance.between(self.late_max / 72, self.late_max);
                telling.bounced_later();
            }
            Outcome::AutoReply => {
                telling.sent();
                telling.perhaps(Telling::delivered);
                telling.auto_reply();
            }
            Outcome::Excluded => telling.excluded(),
            Outcome::Denylisted => telling.say("denylist", Some(PERMANENT), None),
            Outcome::Technical => telling.error(),
            Outcome::Recovered => {
                telling.error();
                telling.sent();
                telling.perhaps(Telling::delivered);
            }
            Outcome::Unmoved => telling.unmoved(),
            _ => {
                telling.sent();
                telling.delivered();
            }
        }
    }
}

/// Adds events to a story, one after another.
struct Telling<'t> {
    story: &'t mut Story,
    at: i64,
    chance: &'t mut Chance,
}

impl Telling<'_> {
    fn say(&mut self, word: &'static str, status: Option<&'static str>, cause: Option<Cause>) {
        let retries = i64::try_from(self.story.events.len()).unwrap_or(0);
        let told_at = self.at;
        let event = Event { word, status, cause, retries, delivered_at: None, told_at };
        self.story.events.push(event);
        self.at += self.chance.between(SECOND / 2, 20 * SECOND);
    }

    fn perhaps(&mut self, say: fn(&mut Self)) {
        if self.chance.below(2) == 0 {
            say(self);
        }
    }

    fn sent(&mut self) {
        if self.story.channel == Channel::Sms && self.chance.below(20) == 0 {
            self.say("unknown", Some(PENDING), None);
        }
        self.say("sent", Some(SENT), None);
    }

    fn delivered(&mut self) {
        let is_read = self.chance.below(20) == 0;
        let at = self.at - self.at.rem_euclid(1_000);
        self.say(if is_read { "read" } else { "delivered" }, Some(DELIVERED), None);
        let is_told = self.story.channel == Channel::Sms && self.chance.below(2) == 0;
        if let Some(event) = self.story.events.last_mut() {
            event.delivered_at = is_told.then_some(at);
        }
    }

    fn delayed(&mut self) {
        let cause = Cause::failure("sync", Some("Soft"), "20", "Soft Bounce");
        self.say("delay", Some(PENDING), Some(cause));
        if self.chance.below(3) == 0 {
            self.say("delay", Some(PENDING), Some(cause));
        }
        self.sent();
        self.perhaps(Self::delivered);
    }

    fn bounced(&mut self) {
        self.perhaps(Self::sent);
        if self.story.channel == Channel::Email {
            return self.email_bounce("sync");
        }
        let (kind, code, status) = self.chance.one_of(&SMS_BOUNCES);
        let cause = Cause::failure("async", kind, code, "Provider reported failure");
        self.say("bounce", Some(status), Some(cause));
    }

    fn bounced_later(&mut self) {
        self.email_bounce("async");
    }

    fn email_bounce(&mut self, category: &'static str) {
        let (kind, code, reason, status) = self.chance.one_of(&EMAIL_BOUNCES);
        // Older data have a word of their own for it.
        let is_older = category == "async" && self.chance.below(20) == 0;
        let word = if is_older { "out_of_band" } else { "bounce" };
        let cause = Cause::failure(category, Some(kind), code, reason);
        self.say(word, Some(status), Some(cause));
    }

    fn auto_reply(&mut self) {
        let cause = Cause::failure("async", Some("Ignored"), "60", "Auto-Reply");
        self.say("bounce", None, Some(cause));
    }

    fn excluded(&mut self) {
        let (code, reason, status) = self.chance.one_of(&EXCLUSIONS);
        let cause = Cause { is_exclusion: true, code: Some(code), reason, ..Cause::default() };
        self.say("exclude", Some(status), Some(cause));
    }

    fn error(&mut self) {
        let cause = match self.story.channel {
            Channel::Email => Cause {
                category: Some("sync"),
                reason: Some("Message processing failed"),
                ..Cause::default()
            },
            Channel::Sms => Cause { reason: Some("Provider error"), ..Cause::default() },
        };
        self.say("error", Some(TECHNICAL), Some(cause));
    }

    fn unmoved(&mut self) {
        let word = self.chance.one_of(&UNMOVED);
        self.perhaps(Self::sent);
        self.say(word, None, None);
    }
}

impl Cause {
    fn failure(
        category: &'static str,
        kind: Option<&'static str>,
        code: &'static str,
        reason: &'static str,
    ) -> Self {
        Self {
            is_exclusion: false,
            category: Some(category),
            kind,
            code: Some(code),
            reason: Some(reason),
        }
    }
}

/// What only email can do.
fn is_by_email(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::LateBounce | Outcome::AutoReply | Outcome::Delayed | Outcome::Denylisted
    )
}
