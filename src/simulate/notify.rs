//! What happens to a message on a platform of the Notify family, before it is put into words.
//!
//! Only what a platform really calls back about becomes a row here: GOV.UK Notify tells of no
//! letter's status and of no text to another country, US Notify.gov of no text at all. Such
//! messages are [`Story::Untold`].

use super::chance::Chance;
use super::mix::{Mix, Outcome};
use super::notify_row::{self as row, Cause, Row};
use super::people;
use crate::callback::Kind;
use crate::sender::Platform;

pub const SECOND: i64 = 1_000_000;
pub const MINUTE: i64 = 60 * SECOND;
pub const DAY: i64 = 24 * 60 * MINUTE;

/// The sweep takes what is older than that.
const STUCK_FOR: i64 = 3 * DAY;

/// How long after the hour of the sweep its one statement changes every row.
const SWEEP_TAKES: i64 = 412_087;

/// The templates of the service.
const TEMPLATES: [u128; 4] = [
    0xf335_17ff_2a88_4f6e_b855_c550_268c_e08a,
    0x0b1e_3f64_9d5c_4a0e_8f7a_5d3c_2b19_7e60,
    0x5c7d_98a1_44f2_4be3_9a6d_01f8_e37b_c2d4,
    0xa94f_0e27_6b83_4d15_b2c0_7e91_d458_3f6c,
];

/// Keys that no documentation knows, and their values.
const UNKNOWN_KEYS: [(&str, &str); 3] = [
    ("billing", r#"{"units": 2, "currency": null}"#),
    ("carrier_name", r#""Exempl\u00e9""#),
    ("is_test", "false"),
];

/// What happens to one message.
#[derive(Clone, Debug)]
pub enum Story {
    /// A notification with the receipts about it.
    Notification(Box<Notification>),
    /// A text message from the public.
    Text(Box<ReceivedText>),
    /// A letter that comes back.
    Letter(Box<ReturnedLetter>),
    /// Nothing is called back.
    Untold,
}

/// What all messages have. Instants are microseconds of Unix time.
#[derive(Clone, Debug)]
pub struct Common {
    pub platform: Platform,
    pub id: u128,
    pub created_at: i64,
    pub reference: Option<String>,
    pub template: (u128, i64),
    pub unknown_key: Option<(&'static str, &'static str)>,
}

/// A notification.
#[derive(Clone, Debug)]
pub struct Notification {
    pub common: Common,
    pub kind: &'static str,
    /// As a receipt tells it.
    pub to: Option<String>,
    /// Every state of the row that is called back, in the order in which they came about.
    pub rows: Vec<Row>,
    /// VA: whether callbacks have `provider_payload`.
    pub with_payload: bool,
    pub complaint: Option<Complaint>,
}

/// A complaint.
#[derive(Clone, Debug)]
pub struct Complaint {
    pub id: u128,
    pub reference: Option<String>,
    pub to: Option<String>,
    pub complained_at: i64,
    pub told_at: i64,
}

/// A text message from the public; `common.created_at` is when it came.
#[derive(Clone, Debug)]
pub struct ReceivedText {
    pub common: Common,
    pub source_number: String,
    pub message: &'static str,
    /// VA: which of the service's numbers it was sent to.
    pub sms_sender_id: Option<u128>,
    pub told_at: i64,
}

/// A letter that came back; `common.created_at` is when it was sent.
#[derive(Clone, Debug)]
pub struct ReturnedLetter {
    pub common: Common,
    pub origin: Origin,
    pub told_at: i64,
}

/// How a letter was given to the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A finished PDF over the API.
    Api,
    /// A row of a spreadsheet and a template.
    Spreadsheet(i64),
    /// A finished PDF in the admin pages.
    Upload,
}

/// Draws stories of one platform.
#[derive(Clone, Copy, Debug)]
pub struct Teller<'m> {
    pub mix: &'m Mix,
    /// The longest that late news takes after what it follows, in microseconds.
    pub late_max: i64,
}

impl Teller<'_> {
    /// The story of the message with this number, which the app sent at `created_at`.
    pub fn story(&self, number: u64, created_at: i64, chance: &mut Chance) -> Story {
        let outcome = self.mix.draw(chance);
        let common = Common {
            platform: self.mix.platform(),
            id: chance.uuid(),
            created_at,
            reference: people::reference(chance, number),
            template: (chance.one_of(&TEMPLATES), chance.between(1, 13)),
            unknown_key: chance
                .happens(self.mix.unknown_keys)
                .then(|| chance.one_of(&UNKNOWN_KEYS)),
        };
        match outcome {
            Outcome::Untold => Story::Untold,
            Outcome::ReceivedText => Story::Text(Box::new(received_text(common, chance))),
            Outcome::ReturnedLetter => Story::Letter(Box::new(self.letter(common, chance))),
            outcome => Story::Notification(Box::new(self.notification(common, outcome, chance))),
        }
    }

    fn notification(&self, common: Common, outcome: Outcome, chance: &mut Chance) -> Notification {
        let platform = common.platform;
        let kind = kind(platform, outcome, chance);
        let address = destination(platform, kind, outcome, chance);
        let to = match platform {
            Platform::UsNotify => Some("1".to_owned()),
            _ => address.clone(),
        };
        let mut notification = Notification {
            to,
            kind,
            rows: Vec::with_capacity(4),
            with_payload: match platform {
                Platform::VaNotifySigned => true,
                Platform::VaNotify => chance.below(4) == 0,
                _ => false,
            },
            complaint: None,
            common,
        };
        self.fill(&mut notification, outcome, chance);
        notification.complaint = self.complaint(&notification, address, chance);
        notification
    }

    fn fill(&self, notification: &mut Notification, outcome: Outcome, chance: &mut Chance) {
        let (platform, created_at) = (notification.common.platform, notification.common.created_at);
        if outcome == Outcome::Permanent && is_va(platform) && chance.below(5) == 0 {
            return without_contact(notification, chance);
        }
        let handed_over = created_at + chance.between(SECOND / 5, 3 * SECOND);
        let is_never_sent = matches!(outcome, Outcome::ProviderFailure | Outcome::VirusScanFailed);
        let sent_at = (!is_never_sent && chance.below(50) > 0).then_some(handed_over);
        let mut change = Change { notification, sent_at };
        change.before_the_end(outcome, handed_over, chance);
        let mut at = handed_over + chance.between(SECOND / 2, 30 * SECOND);
        if outcome == Outcome::Stuck {
            at = swept_at(platform, created_at);
        }
        for (place, status) in ends(platform, outcome, chance).into_iter().enumerate() {
            if place > 0 {
                at += self.gap(outcome, chance);
            }
            change.to(status, Some(at), at, chance);
        }
    }

    /// How long an end lasts until the next.
    fn gap(&self, outcome: Outcome, chance: &mut Chance) -> i64 {
        match outcome {
            Outcome::LateBounce | Outcome::Stuck => self.late(chance),
            _ if chance.below(4) > 0 => chance.between(SECOND, MINUTE),
            _ => chance.between(MINUTE, 5 * MINUTE),
        }
    }

    /// How long late news takes: hours to days, unless the scenario hurries.
    fn late(&self, chance: &mut Chance) -> i64 {
        chance.between(self.late_max / 72, self.late_max)
    }

    fn complaint(
        &self,
        notification: &Notification,
        address: Option<String>,
        chance: &mut Chance,
    ) -> Option<Complaint> {
        let platform = notification.common.platform;
        let last = notification.rows.last()?;
        let may_be = notification.kind == "email"
            && last.status == row::DELIVERED
            && platform != Platform::VaNotifySigned;
        if !may_be || !chance.happens(self.mix.complaints) {
            return None;
        }
        let complained_at = last.updated_at? + self.late(chance);
        // GC Notify writes both as null where it cannot find the notification at once.
        let is_found = !is_gc(platform) || chance.below(4) > 0;
        Some(Complaint {
            id: chance.uuid(),
            reference: notification.common.reference.clone().filter(|_| is_found),
            to: address.filter(|_| is_found),
            complained_at,
            told_at: complained_at + lag(chance),
        })
    }

    fn letter(&self, common: Common, chance: &mut Chance) -> ReturnedLetter {
        let told_at = common.created_at + self.late(chance);
        let origin = match chance.below(3) {
            0 => Origin::Api,
            1 => Origin::Spreadsheet(chance.between(1, 500)),
            _ => Origin::Upload,
        };
        ReturnedLetter { common, origin, told_at }
    }
}

/// Changes the row of a notification, and notes what is told of it.
struct Change<'n> {
    notification: &'n mut Notification,
    sent_at: Option<i64>,
}

impl Change<'_> {
    /// What VA Notify tells before a message has come to an end.
    fn before_the_end(&mut self, outcome: Outcome, handed_over: i64, chance: &mut Chance) {
        let platform = self.notification.common.platform;
        if !is_va(platform) || outcome == Outcome::Sent {
            return;
        }
        let created_at = self.notification.common.created_at;
        let sent_at = self.sent_at.take();
        if platform == Platform::VaNotifySigned {
            match chance.below(4) {
                0 => self.to(row::CREATED, None, created_at, chance),
                1 => self.to(row::SENDING, Some(created_at + 1), created_at + 1, chance),
                _ => {}
            }
        }
        self.sent_at = sent_at;
        if chance.below(2) == 0 {
            self.to(row::SENT, Some(handed_over), handed_over, chance);
        }
    }

    fn to(&mut self, status: &'static str, updated_at: Option<i64>, at: i64, chance: &mut Chance) {
        let Notification { common, kind, .. } = &*self.notification;
        let cause = Cause::of(common.platform, kind, status, chance);
        let told_at = at + lag(chance);
        let row = Row { status, updated_at, sent_at: self.sent_at, cause, told_at };
        self.notification.rows.push(row);
    }
}

/// VA Notify finds nobody to send to.
fn without_contact(notification: &mut Notification, chance: &mut Chance) {
    let at = notification.common.created_at + chance.between(SECOND / 10, SECOND);
    notification.to = None;
    notification.rows.push(Row {
        status: row::PERMANENT,
        updated_at: Some(at),
        sent_at: None,
        cause: Cause { description: Some(row::NO_CONTACT), response: None, provider: None },
        told_at: at + lag(chance),
    });
}

fn received_text(common: Common, chance: &mut Chance) -> ReceivedText {
    ReceivedText {
        source_number: people::source_number(common.platform, chance),
        message: people::text(chance),
        sms_sender_id: (chance.below(2) == 0).then(|| chance.uuid()),
        told_at: common.created_at + lag(chance),
        common,
    }
}

/// The ends a message comes to, one after another.
fn ends(platform: Platform, outcome: Outcome, chance: &mut Chance) -> Vec<&'static str> {
    match outcome {
        Outcome::Sent => vec![row::SENT],
        Outcome::Temporary => vec![row::TEMPORARY],
        Outcome::Permanent => vec![row::PERMANENT],
        Outcome::Technical => vec![row::TECHNICAL],
        Outcome::ProviderFailure => vec![row::PROVIDER_FAILURE],
        Outcome::VirusScanFailed => vec![row::VIRUS_SCAN_FAILED],
        Outcome::LateBounce if is_gc(platform) && chance.below(4) == 0 => {
            vec![row::DELIVERED, row::TEMPORARY]
        }
        Outcome::LateBounce => vec![row::DELIVERED, row::PERMANENT],
        Outcome::Restless => row::restless(platform, chance),
        // The provider's receipt was not lost, only very late.
        Outcome::Stuck if is_gc(platform) && chance.below(4) == 0 => {
            vec![row::TEMPORARY, row::DELIVERED]
        }
        Outcome::Stuck => vec![row::TEMPORARY],
        _ => vec![row::DELIVERED],
    }
}

/// Emails, texts and what else the platform has, where the outcome leaves the choice.
fn kind(platform: Platform, outcome: Outcome, chance: &mut Chance) -> &'static str {
    match (platform, outcome) {
        // It tells of no text.
        (Platform::UsNotify, _) | (_, Outcome::VirusScanFailed) => "email",
        (_, Outcome::ProviderFailure | Outcome::Sent) => "sms",
        (
            Platform::VaNotify | Platform::VaNotifySigned,
            Outcome::LateBounce | Outcome::Restless,
        ) => "sms",
        (_, Outcome::LateBounce | Outcome::Restless) => "email",
        // A late receipt can mend an email only.
        (Platform::GcNotify | Platform::GcNotifyBefore202608, Outcome::Stuck) => "email",
        (Platform::NotifyNl, _) if chance.below(10) == 0 => "messagebox",
        (Platform::VaNotify | Platform::VaNotifySigned, _) if chance.below(20) == 0 => "push",
        _ if chance.below(10) < 3 => "sms",
        _ => "email",
    }
}

fn destination(
    platform: Platform,
    kind: &str,
    outcome: Outcome,
    chance: &mut Chance,
) -> Option<String> {
    match kind {
        "email" => Some(people::address(chance)),
        "messagebox" => Some(String::new()),
        "push" => None,
        _ if matches!(outcome, Outcome::Sent | Outcome::ProviderFailure) => {
            Some(people::number_abroad(chance))
        }
        _ => Some(people::number_typed(platform, chance)),
    }
}

/// The first sweep that finds a message of this age.
fn swept_at(platform: Platform, created_at: i64) -> i64 {
    let sweep_at = platform.rules(Kind::Receipt).sweep_at.unwrap_or_default();
    let of_day = i64::try_from(sweep_at.as_micros()).unwrap_or(0);
    let stuck_since = created_at + STUCK_FOR;
    let today = stuck_since - stuck_since.rem_euclid(DAY) + of_day;
    let sweep = if today < stuck_since { today + DAY } else { today };
    sweep + SWEEP_TAKES
}

/// From a change of the row to the callback in the queue.
fn lag(chance: &mut Chance) -> i64 {
    chance.between(5_000, SECOND / 4)
}

fn is_va(platform: Platform) -> bool {
    matches!(platform, Platform::VaNotify | Platform::VaNotifySigned)
}

fn is_gc(platform: Platform) -> bool {
    matches!(platform, Platform::GcNotify | Platform::GcNotifyBefore202608)
}
