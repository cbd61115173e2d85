//! Whom messages go to and what people write: addresses and numbers that belong to nobody.
//!
//! Domains are those reserved for examples (`example.ca`, `example.com`, `example.org`), British
//! numbers those Ofcom keeps for drama (07700 900000 to 900999), North American ones 555-0100 to
//! 555-0199. NotifyNL's are British too: the Netherlands keep none for that.

use std::fmt::Write as _;

use super::chance::Chance;
use crate::sender::Platform;

const NAMES: [&str; 8] = [
    "alex.martin",
    "Sam.Roy",
    "c.tremblay+news",
    "o'brien",
    "jos\u{e9}",
    "m_singh",
    "recipient1",
    "info",
];

const DOMAINS: [&str; 4] = ["example.ca", "example.com", "example.org", "example.net"];

const AREAS: [&str; 5] = ["613", "819", "212", "425", "650"];

/// What the public writes. Every kind of escape is in it.
const TEXTS: [&str; 8] = [
    "Here is some content",
    "STOP",
    "Oui, caf\u{e9} \u{e0} 14\u{a0}h \u{2014} merci \u{1f600}",
    "He said \"yes\" \\ no",
    "line one\nline two\r\n\ttabbed",
    "\u{4f60}\u{597d} \u{1f1e8}\u{1f1e6}",
    "control \u{1}\u{7f} characters",
    "</script> & 'quotes' / slash",
];

/// An address as somebody typed it.
pub fn address(chance: &mut Chance) -> String {
    let (name, domain) = (chance.one_of(&NAMES), chance.one_of(&DOMAINS));
    let mut address = String::with_capacity(32);
    match chance.below(10) {
        0 => address.push_str(name),
        _ => written(&mut address, format_args!("{name}{}", chance.below(100_000))),
    }
    address.push('@');
    address.push_str(domain);
    address
}

/// A number as somebody typed it.
pub fn number_typed(platform: Platform, chance: &mut Chance) -> String {
    let mut number = String::with_capacity(20);
    if is_american(platform) {
        let (area, last) = (chance.one_of(&AREAS), chance.below(100));
        match chance.below(10) {
            0 => written(&mut number, format_args!("({area}) 555-01{last:02}")),
            1 => written(&mut number, format_args!("+1 {area} 555 01{last:02}")),
            _ => written(&mut number, format_args!("+1{area}55501{last:02}")),
        }
    } else {
        let last = chance.below(1_000);
        match chance.below(10) {
            0 => written(&mut number, format_args!("07700 900 {last:03}")),
            1 => written(&mut number, format_args!("+44 7700 900{last:03}")),
            _ => written(&mut number, format_args!("07700900{last:03}")),
        }
    }
    number
}

/// A number in another country than the service's.
pub fn number_abroad(chance: &mut Chance) -> String {
    format!("+447700900{:03}", chance.below(1_000))
}

/// Whom a received text is from, as the platform normalises it: where it cannot, it is a name.
pub fn source_number(platform: Platform, chance: &mut Chance) -> String {
    match (chance.below(20), is_american(platform)) {
        (0, _) => "Example1".to_owned(),
        (_, true) => format!("+1{}55501{:02}", chance.one_of(&AREAS), chance.below(100)),
        (_, false) => format!("447700900{:03}", chance.below(1_000)),
    }
}

/// The service's own number.
pub fn service_number(platform: Platform) -> &'static str {
    if is_american(platform) { "+13655550100" } else { "07700900999" }
}

/// A text from the public.
pub fn text(chance: &mut Chance) -> &'static str {
    chance.one_of(&TEXTS)
}

/// The app's own reference: mostly a short word, sometimes none, sometimes long.
pub fn reference(chance: &mut Chance, number: u64) -> Option<String> {
    let mut reference = String::with_capacity(24);
    match chance.below(40) {
        0..4 => return None,
        4 => {
            written(
                &mut reference,
                format_args!("dossier n\u{b0} {number} \u{2013} \u{e9}t\u{e9}"),
            );
        }
        5 if chance.below(10) == 0 => {
            // The longest that GOV.UK Notify takes.
            let word = format!("{number:010}-");
            reference = word.chars().cycle().take(1_000).collect();
        }
        _ => written(&mut reference, format_args!("order-{number}")),
    }
    Some(reference)
}

fn is_american(platform: Platform) -> bool {
    !matches!(platform, Platform::GovukNotify | Platform::NotifyNl)
}

fn written(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    text.write_fmt(arguments).unwrap_or_default();
}
