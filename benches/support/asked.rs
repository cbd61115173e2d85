//! A database to ask about: notifications of every status and type, half of them with one reference.
//!
//! The callbacks are appended through the library's journal, and the real binary settles them, before
//! anybody reads: so the time to make the indexes for readers can be told too.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use receiptd::Provider;
use receiptd::callback::Origin;
use receiptd::clock::{Clock, Timestamp};
use receiptd::journal::{self, Entry, Journal, SourceRow};
use receiptd::sqlite::Durability;
use receiptd::sqlite::checkpoint::{self, Mode};

use super::program::Done;
use super::receipt::SOURCE;

/// The reference that half of all notifications have.
pub const CAMPAIGN: &str = "campaign";

/// Callbacks in one commit.
const BATCH: u64 = 8192;

/// Each so many times as it stands here.
const STATUSES: [&str; 20] = [
    "delivered",
    "delivered",
    "delivered",
    "delivered",
    "delivered",
    "delivered",
    "delivered",
    "delivered",
    "delivered",
    "delivered",
    "delivered",
    "delivered",
    "sending",
    "sending",
    "created",
    "sent",
    "permanent-failure",
    "permanent-failure",
    "temporary-failure",
    "technical-failure",
];

const TYPES: [&str; 10] =
    ["email", "email", "email", "email", "email", "email", "sms", "sms", "sms", "letter"];

/// The id of the notification of that number.
pub fn id(number: u64) -> String {
    format!("{:08x}-0000-4000-8000-{number:012x}", scatter(number) >> 32)
}

/// The same bits for the same number, and no order in them.
pub fn scatter(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes a journal with so many callbacks.
pub fn write_journal(file: &Path, count: u64) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        let (journal, writer, tell_callers) = journal::start(file, options(), Box::new(|_| {}))?;
        let telling = tokio::spawn(tell_callers);
        let source = SourceRow { name: SOURCE.to_owned(), dialect: Provider::GcNotify.into() };
        journal.on_writer(move |connection| source.remember(connection))??;
        append_all(&journal, count).await?;
        let truncate =
            |connection: &mut _| checkpoint::run_without_waiting(connection, Mode::Truncate);
        journal.on_writer(move |connection| truncate(connection))??;
        journal.close();
        writer.join();
        telling.await?;
        Ok(())
    })
}

fn options() -> journal::Options {
    let batch = usize::try_from(BATCH).expect("it is small");
    journal::Options {
        queue_callbacks_max: batch,
        queue_bytes_max: usize::MAX,
        batch_callbacks_max: batch,
        free_bytes_min: 1 << 30,
        reserve_bytes: 0,
        durability: Durability::Normal,
    }
}

async fn append_all(journal: &Journal, count: u64) -> Done {
    let (source, now): (Arc<str>, _) = (SOURCE.into(), Clock::system().now());
    let entry = |number| Entry {
        source: Arc::clone(&source),
        received_at: now,
        body: Bytes::from(body(number, now)),
        origin: Origin::CalledBack,
    };
    for first in (0..count).step_by(usize::try_from(BATCH)?) {
        let batch = first..count.min(first + BATCH);
        let waiting = batch.map(|number| journal.append(entry(number)));
        for told in waiting.collect::<Result<Vec<_>, _>>()? {
            told.await??;
        }
    }
    Ok(())
}

/// Created a tenth of a second after the one before, give or take half an hour.
fn body(number: u64, now: Timestamp) -> String {
    let chance = scatter(number);
    let pick = |bits: u64, among: usize| usize::try_from(bits % among as u64).unwrap_or_default();
    let status = STATUSES[pick(chance, STATUSES.len())];
    let kind = TYPES[pick(chance >> 16, TYPES.len())];
    let reference =
        if number.is_multiple_of(2) { CAMPAIGN.to_owned() } else { format!("r-{number}") };
    let ago_s = i64::try_from(number / 10 + (chance >> 40) % 1_800).unwrap_or_default();
    let created_at = now.plus_seconds(-ago_s);
    let id = id(number);
    format!(
        "{{\"id\": \"{id}\", \"reference\": \"{reference}\", \"to\": \"+16135550123\", \
         \"status\": \"{status}\", \"status_description\": null, \"provider_response\": null, \
         \"created_at\": \"{created_at}\", \"completed_at\": \"{now}\", \"sent_at\": null, \
         \"notification_type\": \"{kind}\"}}"
    )
}
