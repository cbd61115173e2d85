//! What is played: the lives of messages as the platforms tell them, and what must come of each.
//!
//! [`LIVES`] is the scenario. To add a life is to add a row: who sends, what they say and in which
//! order, what each callback must be answered, what must be settled. Ids and references follow from
//! the place in the table.

use std::borrow::Cow;

use serde::Serialize;

use crate::provider::Provider;

/// A platform that calls.
#[derive(Debug, PartialEq, Eq)]
pub struct Sender {
    /// For people.
    pub name: &'static str,
    /// The name of its source here.
    pub source: &'static str,
    /// Whose wire format it is.
    pub provider: Provider,
    /// What it sends as `User-Agent`, as far as it is known.
    pub user_agent: Option<&'static str>,
    /// Whether one connection serves several of its callbacks.
    pub keeps_alive: bool,
}

/// Canada. One connection for each callback.
pub const GC_NOTIFY: Sender = Sender {
    name: "GC Notify",
    source: "passport",
    provider: Provider::GcNotify,
    user_agent: Some("python-requests/2.32.4"),
    keeps_alive: false,
};

/// The United Kingdom. Keeps its connections.
pub const GOVUK_NOTIFY: Sender = Sender {
    name: "GOV.UK Notify",
    source: "vehicle-tax",
    provider: Provider::GovukNotify,
    user_agent: Some("python-requests/2.32.4"),
    keeps_alive: true,
};

/// Adobe documents neither its headers nor its connections.
pub const ADOBE: Sender = Sender {
    name: "Adobe Journey Optimizer",
    source: "newsletter",
    provider: Provider::Ajo,
    user_agent: None,
    keeps_alive: true,
};

/// Everyone who calls.
pub const SENDERS: [&Sender; 3] = [&GC_NOTIFY, &GOVUK_NOTIFY, &ADOBE];

/// One message, and all that is said about it.
#[derive(Debug)]
pub struct Life {
    /// What happens, in a few words.
    pub title: &'static str,
    /// Why it matters: a sentence or two.
    pub why: &'static str,
    /// Who tells it.
    pub sender: &'static Sender,
    /// In the order they are sent.
    pub callbacks: &'static [Post],
    /// What must be settled.
    pub outcome: Outcome,
}

/// One callback and what it must get.
#[derive(Debug)]
pub struct Post {
    /// What it says.
    pub says: Says,
    /// Whether it carries the source's token or another.
    pub has_right_token: bool,
    /// What becomes of it.
    pub fate: Fate,
}

/// What became of a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// The code of the answer.
    pub answer: u16,
    /// Whether it stands in the journal.
    pub kept: bool,
}

/// What a callback says, without what all of its sender's have in common.
#[derive(Clone, Copy, Debug)]
pub enum Says {
    /// A receipt of the Notify family: the status, and the time of day it was reached, which is
    /// the version of the snapshot.
    Receipt(&'static str, &'static str),
    /// An event of Adobe Journey Optimizer.
    Event(&'static str),
    /// A bounce of Adobe Journey Optimizer, told long after the mailbox had accepted the message.
    LateBounce,
    /// A recipient's complaint.
    Complaint,
    /// A letter that came back.
    ReturnedLetter,
    /// A text message from the public; the text as JSON escapes it.
    Text(&'static str),
    /// The reachability probe of a set-up form.
    Probe,
    /// A receipt that breaks off.
    HalfAReceipt,
}

/// What there is about a message once everything is settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// A row of `notification`.
    Notification {
        /// The normalised word; `None` if only a fact is known.
        status: Option<Cow<'static, str>>,
        /// Distinct receipts.
        receipts: i64,
        /// Repetitions of callbacks.
        duplicates: i64,
        /// Whether the recipient complained.
        complained: bool,
        /// Whether the letter came back.
        returned: bool,
    },
    /// A row of `received_message` with this text.
    Message {
        /// The text.
        text: Cow<'static, str>,
    },
    /// Kept, but nobody knows what it says.
    Unrecognised,
    /// No trace.
    Nothing,
}

/// The scenario.
pub const LIVES: &[Life] = &[
    Life {
        title: "Delivered, then bounced",
        why: "A mailbox may send back what it took hours ago. The newer snapshot wins, not the \
              happier word.",
        sender: &GC_NOTIFY,
        callbacks: &[
            kept(Says::Receipt("delivered", "09:12:33.104210")),
            kept(Says::Receipt("permanent-failure", "11:47:02.560112")),
        ],
        outcome: settled("permanent-failure", 2, 0),
    },
    Life {
        title: "Receipts out of order",
        why: "Retries come minutes apart, so news overtakes news. What counts is when it \
              happened, not when it came.",
        sender: &GOVUK_NOTIFY,
        callbacks: &[
            kept(Says::Receipt("delivered", "10:31:40.228400")),
            kept(Says::Receipt("temporary-failure", "10:05:11.903155")),
        ],
        outcome: settled("delivered", 2, 0),
    },
    Life {
        title: "The same receipt again",
        why: "A sender that did not hear our answer repeats itself, byte for byte. That is \
              counted, and changes nothing.",
        sender: &GOVUK_NOTIFY,
        callbacks: &[
            kept(Says::Receipt("delivered", "10:40:02.000713")),
            kept(Says::Receipt("delivered", "10:40:02.000713")),
            kept(Says::Receipt("delivered", "10:40:02.000713")),
        ],
        outcome: settled("delivered", 1, 2),
    },
    Life {
        title: "An old status, sent again",
        why: "A retry says what was true when it was first queued. It must not undo what has \
              happened since.",
        sender: &GC_NOTIFY,
        callbacks: &[
            kept(Says::Receipt("temporary-failure", "12:00:04.417001")),
            kept(Says::Receipt("delivered", "12:20:59.015332")),
            kept(Says::Receipt("temporary-failure", "12:00:04.417001")),
        ],
        outcome: settled("delivered", 2, 1),
    },
    Life {
        title: "Is anybody there?",
        why: "GC Notify tries an address before it accepts it in its settings. It gets its \
              answer; there is nothing to keep.",
        sender: &GC_NOTIFY,
        callbacks: &[Post {
            says: Says::Probe,
            has_right_token: true,
            fate: Fate { answer: 204, kept: false },
        }],
        outcome: Outcome::Nothing,
    },
    Life {
        title: "A text from the public",
        why: "Replies arrive at the same address as receipts, and nothing in them says what they \
              are. Their keys do.",
        sender: &GOVUK_NOTIFY,
        callbacks: &[kept(Says::Text(r"Merci, bien re\u00e7u \ud83d\ude42"))],
        outcome: Outcome::Message { text: Cow::Borrowed("Merci, bien reçu 🙂") },
    },
    Life {
        title: "Delivered, then a complaint",
        why: "To be reported as spam is a fact about a message, not a status. It stands beside \
              `delivered`, for you to act on.",
        sender: &GC_NOTIFY,
        callbacks: &[kept(Says::Receipt("delivered", "13:02:17.330009")), kept(Says::Complaint)],
        outcome: Outcome::Notification {
            status: Some(Cow::Borrowed("delivered")),
            receipts: 1,
            duplicates: 0,
            complained: true,
            returned: false,
        },
    },
    Life {
        title: "A letter comes back",
        why: "GOV.UK Notify sends no receipts for letters, so this is all that will ever be \
              known: no status, but a fact.",
        sender: &GOVUK_NOTIFY,
        callbacks: &[kept(Says::ReturnedLetter)],
        outcome: Outcome::Notification {
            status: None,
            receipts: 0,
            duplicates: 0,
            complained: false,
            returned: true,
        },
    },
    Life {
        title: "Adobe: a bounce at last",
        why: "Adobe's events carry no time. Their order is what can follow what, and a late \
              bounce follows even `delivered`.",
        sender: &ADOBE,
        callbacks: &[
            kept(Says::Event("sent")),
            kept(Says::Event("delivered")),
            kept(Says::LateBounce),
        ],
        outcome: settled("permanent-failure", 3, 0),
    },
    Life {
        title: "Adobe: delivered, then sent",
        why: "The same rule when the news is late: nothing is delivered before it is sent, \
              whatever arrives first.",
        sender: &ADOBE,
        callbacks: &[kept(Says::Event("delivered")), kept(Says::Event("sent"))],
        outcome: settled("delivered", 2, 0),
    },
    Life {
        title: "An unreadable body",
        why: "What is refused is never sent again. So it is kept, with the reason, and can be \
              settled the day we understand it.",
        sender: &GOVUK_NOTIFY,
        callbacks: &[kept(Says::HalfAReceipt)],
        outcome: Outcome::Unrecognised,
    },
    Life {
        title: "A wrong token",
        why: "Anyone can find the address. Only who knows the token is believed, and the answer \
              does not say what was wrong.",
        sender: &GC_NOTIFY,
        callbacks: &[Post {
            says: Says::Receipt("delivered", "14:00:00.000000"),
            has_right_token: false,
            fate: Fate { answer: 401, kept: false },
        }],
        outcome: Outcome::Nothing,
    },
];

/// An authentic callback: acknowledged, and in the journal.
const fn kept(says: Says) -> Post {
    Post { says, has_right_token: true, fate: Fate { answer: 204, kept: true } }
}

const fn settled(status: &'static str, receipts: i64, duplicates: i64) -> Outcome {
    Outcome::Notification {
        status: Some(Cow::Borrowed(status)),
        receipts,
        duplicates,
        complained: false,
        returned: false,
    }
}
