//! An SQS queue, standard or FIFO.
//!
//! | of the message | is |
//! |---|---|
//! | body | the event, structured |
//! | attribute `content-type` | `application/cloudevents+json; charset=utf-8` |
//! | group, in a FIFO queue | the notification: its messages are received in order |
//! | de-duplication id, in a FIFO queue | the event's id: SQS drops repeats of the last five minutes |
//!
//! Events that wait at the same time share a request, up to ten. A FIFO queue takes three hundred
//! requests a second, so ten times as many events this way, and requests are what SQS charges for.
//! Nothing is delayed for it: a request takes what is there when it begins. No two events of one
//! notification are ever under way at once, so a request cannot reorder them.
//!
//! Nothing is tried again here, and the client is told not to: when and whether is the dispatcher's
//! affair, and which fault is which is told by `sqs_fault`.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{BehaviorVersion, Builder, Credentials, Region};
use aws_sdk_sqs::error::BuildError;
use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchOutput;
use aws_sdk_sqs::types::{MessageAttributeValue, SendMessageBatchRequestEntry};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::event::{Event, STRUCTURED};
use super::fault::Fault;
use super::sqs_fault;
use crate::config::settings::SqsSink;

/// Of a request; SQS takes no more.
const REQUEST_ENTRIES_MAX: usize = 10;

/// Of all messages of a request together: what every queue takes, older ones and emulators as well.
/// A message that is larger goes alone, and the queue decides.
const REQUEST_BYTES_MAX: usize = 256 * 1024;

/// Under way at once.
const REQUESTS_MAX: usize = 16;

/// Of a request, with finding credentials and connecting.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// Of connecting.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Events handed over and not answered yet, those of senders that gave up among them.
const WAITING_MAX: usize = 1024;

/// Of a message group and a de-duplication id.
const ID_BYTES_MAX: usize = 128;

/// By the id of an entry.
type Outcomes = HashMap<String, Result<(), Fault>>;

/// The sink.
pub struct Sqs {
    queue: Arc<Queue>,
    room: Arc<Semaphore>,
}

/// A queue, and what waits to be sent there.
struct Queue {
    to: SqsSink,
    is_fifo: bool,
    /// Made when first needed, and anew after its credentials were refused.
    client: Mutex<Option<Client>>,
    waiting: StdMutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    /// Tasks that send what waits.
    requests: usize,
}

/// An event on its way, and who waits for the outcome.
struct Entry {
    entry: SendMessageBatchRequestEntry,
    bytes: usize,
    answer: oneshot::Sender<Result<(), Fault>>,
    _room: OwnedSemaphorePermit,
}

impl fmt::Debug for Sqs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqs").field("queue_url", &self.queue.to.queue_url).finish_non_exhaustive()
    }
}

impl Sqs {
    /// Prepares it.
    ///
    /// # Errors
    /// If the secret of the access key is not text.
    pub fn open(to: &SqsSink) -> Result<Self, String> {
        if let Some(login) = &to.login
            && std::str::from_utf8(&login.password.0).is_err()
        {
            return Err("the secret of the access key is not UTF-8".to_owned());
        }
        let queue = Queue {
            to: to.clone(),
            is_fifo: to.queue_url.ends_with(".fifo"),
            client: Mutex::default(),
            waiting: StdMutex::default(),
        };
        Ok(Self { queue: Arc::new(queue), room: Arc::new(Semaphore::new(WAITING_MAX)) })
    }

    /// Sends one event.
    ///
    /// # Errors
    /// Whatever kept SQS from taking it.
    pub async fn send(&self, event: &Event) -> Result<(), Fault> {
        let abandoned = || Fault::passing("the request ended without an outcome");
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_| abandoned())?;
        let (answer, answered) = oneshot::channel();
        let body = body(event);
        let bytes = body.len() + "content-typeString".len() + STRUCTURED.len();
        let entry = self.queue.entry(event, body).map_err(|_| abandoned())?;
        self.queue.hand_over(Entry { entry, bytes, answer, _room: room });
        answered.await.unwrap_or_else(|_| Err(abandoned()))
    }
}

/// What goes into the message. SQS takes the characters of XML: JSON escapes all others but two.
fn body(event: &Event) -> String {
    let text = String::from_utf8(event.structured()).expect("JSON is UTF-8");
    if text.contains(['\u{fffe}', '\u{ffff}']) {
        // They stand in strings, where an escape means the same.
        return text.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff");
    }
    text
}

/// The message group of an ordering key: itself, or, if it is too long or has characters that SQS
/// does not take, its digest.
fn group(key: &str) -> String {
    let is_valid =
        (1..=ID_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if is_valid {
        return key.to_owned();
    }
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&Sha256::digest(key.as_bytes())))
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(
        &self,
        event: &Event,
        body: String,
    ) -> Result<SendMessageBatchRequestEntry, BuildError> {
        let content_type = MessageAttributeValue::builder()
            .data_type("String")
            .string_value(STRUCTURED)
            .build()?;
        let mut entry = SendMessageBatchRequestEntry::builder()
            // Tells entries of one request apart; set anew for each request.
            .id("0")
            .message_body(body)
            .message_attributes("content-type", content_type);
        if self.is_fifo {
            entry = entry
                .message_group_id(group(&event.ordering_key()))
                .message_deduplication_id(event.id());
        }
        entry.build()
    }

    /// It is sent by a task that is at it already, or by a new one.
    fn hand_over(self: &Arc<Self>, entry: Entry) {
        let mut waiting = self.lock();
        waiting.entries.push_back(entry);
        if waiting.requests < REQUESTS_MAX {
            waiting.requests += 1;
            let slot = Slot { queue: Arc::clone(self), is_given_back: false };
            tokio::spawn(slot.send_all());
        }
    }

    /// One request, or several if one entry may spoil it for the others; all are told. If all whom it
    /// is for give up, it is given up as well.
    async fn request(&self, entries: Vec<Entry>) {
        let mut batches = vec![entries];
        while let Some(mut batch) = batches.pop() {
            let sent = self.outcome(numbered(&batch));
            let outcome = tokio::select! {
                outcome = sent => outcome,
                () = all_give_up(&mut batch) => continue,
            };
            match outcome {
                Ok(outcomes) => tell(batch, outcomes),
                // It speaks of some entry, and does not say of which.
                Err(Fault::Refused { .. }) if batch.len() > 1 => {
                    batches.extend(batch.into_iter().map(|entry| vec![entry]));
                }
                Err(fault) => {
                    batch.into_iter().for_each(|entry| entry.tell(Err(fault.clone())));
                }
            }
        }
    }

    /// The outcome of each entry by its id, if the request had one.
    async fn outcome(&self, entries: Vec<SendMessageBatchRequestEntry>) -> Result<Outcomes, Fault> {
        let request = async {
            let client = self.client().await;
            let request = client.send_message_batch().queue_url(&self.to.queue_url);
            request.set_entries(Some(entries)).send().await
        };
        match timeout(REQUEST_MAX, request).await {
            Ok(Ok(output)) => Ok(outcomes(&output)),
            Ok(Err(error)) => {
                if sqs_fault::is_unauthentic(&error) {
                    *self.client.lock().await = None;
                }
                Err(sqs_fault::of_request(&error))
            }
            Err(_) => Err(Fault::passing("SQS did not answer in time")),
        }
    }

    async fn client(&self) -> Client {
        let mut kept = self.client.lock().await;
        if let Some(client) = &*kept {
            return client.clone();
        }
        let region = Region::new(self.to.region.clone());
        let mut config = match &self.to.login {
            Some(login) => {
                let secret = String::from_utf8_lossy(&login.password.0);
                let key = Credentials::new(&login.user, secret, None, None, "receiptd");
                Builder::new().behavior_version(BehaviorVersion::latest()).credentials_provider(key)
            }
            None => {
                let found = aws_config::defaults(BehaviorVersion::latest()).region(region.clone());
                Builder::from(&found.load().await)
            }
        };
        if let Some(url) = &self.to.endpoint_url {
            config = config.endpoint_url(url);
        }
        let time = TimeoutConfig::builder()
            .connect_timeout(CONNECT_MAX)
            .operation_timeout(REQUEST_MAX)
            .build();
        let config =
            config.region(region).retry_config(RetryConfig::disabled()).timeout_config(time);
        kept.insert(Client::from_conf(config.build())).clone()
    }
}

/// One of the tasks that send what waits.
struct Slot {
    queue: Arc<Queue>,
    is_given_back: bool,
}

impl Slot {
    async fn send_all(mut self) {
        while let Some(batch) = self.next() {
            self.queue.request(batch).await;
        }
    }

    /// The next entries whose senders still wait, or none: then this task ends, and the next event
    /// begins another.
    fn next(&mut self) -> Option<Vec<Entry>> {
        let queue = Arc::clone(&self.queue);
        let mut waiting = queue.lock();
        waiting.entries.retain(|entry| !entry.answer.is_closed());
        let batch = waiting.take();
        if batch.is_empty() {
            waiting.requests -= 1;
            self.is_given_back = true;
            return None;
        }
        Some(batch)
    }
}

impl Drop for Slot {
    /// Where it did not come to its end: the runtime was stopped, or the client panicked.
    fn drop(&mut self) {
        if !self.is_given_back {
            self.queue.lock().requests -= 1;
        }
    }
}

impl Waiting {
    /// As many as fit into a request; at least one if there is one.
    fn take(&mut self) -> Vec<Entry> {
        let mut bytes = 0;
        let fit = self.entries.iter().take(REQUEST_ENTRIES_MAX).take_while(|entry| {
            bytes += entry.bytes;
            bytes <= REQUEST_BYTES_MAX
        });
        let count = fit.count().max(1).min(self.entries.len());
        let rest = self.entries.split_off(count);
        mem::replace(&mut self.entries, rest).into()
    }
}

impl Entry {
    fn tell(self, outcome: Result<(), Fault>) {
        // Whoever gave up does not listen any more.
        let _ = self.answer.send(outcome);
    }
}

/// The entries of a request, each with its place as its id.
fn numbered(batch: &[Entry]) -> Vec<SendMessageBatchRequestEntry> {
    let mut entries: Vec<_> = batch.iter().map(|entry| entry.entry.clone()).collect();
    for (place, entry) in entries.iter_mut().enumerate() {
        entry.id = place.to_string();
    }
    entries
}

async fn all_give_up(batch: &mut [Entry]) {
    for entry in batch {
        entry.answer.closed().await;
    }
}

fn outcomes(output: &SendMessageBatchOutput) -> Outcomes {
    let sent = output.successful().iter().map(|sent| (sent.id().to_owned(), Ok(())));
    // Whether the fault is the sender's is no help: it is that of a key without permission as well.
    let failed = output.failed().iter();
    sent.chain(
        failed.map(|failed| (failed.id().to_owned(), Err(sqs_fault::of_code(failed.code())))),
    )
    .collect()
}

fn tell(batch: Vec<Entry>, mut outcomes: Outcomes) {
    for (place, entry) in batch.into_iter().enumerate() {
        let unsaid = || Err(Fault::passing("SQS did not say what became of it"));
        entry.tell(outcomes.remove(&place.to_string()).unwrap_or_else(unsaid));
    }
}
