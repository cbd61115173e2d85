//! Which messages on a channel of RabbitMQ wait for their confirm, and who is told when it comes.
//!
//! Every message that is published gets the next delivery tag. It is answered exactly once: by the
//! broker's confirm, alone or with all before it, or when channel or connection end. No I/O: the
//! client calls [`Confirms`] with what the broker says.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amqprs::callbacks::{ChannelCallback, ConnectionCallback};
use amqprs::channel::Channel;
use amqprs::connection::Connection;
use amqprs::error::Error;
use amqprs::{Ack, BasicProperties, Cancel, Close, CloseChannel, Nack, Return};
use async_trait::async_trait;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};

use super::fault::Fault;

/// `PRECONDITION_FAILED`: of a publication, that the message is larger than `max_message_size`.
const TOO_LARGE: u16 = 406;

/// Class and method of `basic.publish`.
const PUBLISH: (u16, u16) = (60, 40);

/// Who waits for the broker's answer to a message.
pub(super) struct Waiting {
    id: String,
    body_bytes: usize,
    /// With which code it came back.
    returned: Option<u16>,
    answer: oneshot::Sender<Result<(), Fault>>,
    /// Held until the broker has answered, though the sender may have given up.
    _room: OwnedSemaphorePermit,
}

impl Waiting {
    /// For the message of that id, with a body of so many bytes.
    pub(super) fn new(
        id: String,
        body_bytes: usize,
        answer: oneshot::Sender<Result<(), Fault>>,
        room: OwnedSemaphorePermit,
    ) -> Self {
        Self { id, body_bytes, returned: None, answer, _room: room }
    }

    /// Whether its sender gave up.
    pub(super) fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }

    /// Tells the sender, if it still listens.
    pub(super) fn tell(self, outcome: Result<(), Fault>) {
        let _ = self.answer.send(outcome);
    }
}

/// What waits for its confirm on one channel.
#[derive(Clone, Default)]
pub(super) struct Confirms(Arc<Shared>);

#[derive(Default)]
struct Shared {
    open: Mutex<Open>,
    ended: Notify,
}

#[derive(Default)]
struct Open {
    /// By delivery tag.
    waiting: BTreeMap<u64, Waiting>,
    tag_last: u64,
    /// Why nothing will be confirmed any more.
    ended: Option<String>,
}

impl Confirms {
    /// For the message that is published next; it gets the next tag, and the first is 1.
    pub(super) fn expect(&self, waiting: Waiting) {
        let mut open = self.lock();
        if let Some(why) = &open.ended {
            let fault = Fault::passing(why.clone());
            drop(open);
            waiting.tell(Err(fault));
            return;
        }
        open.tag_last += 1;
        let tag = open.tag_last;
        open.waiting.insert(tag, waiting);
    }

    /// Nothing will be confirmed any more; whatever waits may be sent again. The first reason given
    /// is the one that is told.
    pub(super) fn end(&self, why: &str) {
        self.end_refusing(None, why);
    }

    /// Waits until nothing will be confirmed any more.
    pub(super) async fn ended(&self) {
        self.0.ended.notified().await;
    }

    /// Why nothing will be confirmed any more, if that is so.
    pub(super) fn why_ended(&self) -> Option<String> {
        self.lock().ended.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker has answered the message of that tag, or all up to it (all there are, for 0).
    fn answered(&self, tag: u64, is_all_up_to: bool, is_kept: bool) {
        let answered = self.lock().take(tag, is_all_up_to);
        for waiting in answered.into_values() {
            let outcome = match (is_kept, waiting.returned) {
                (true, None) => Ok(()),
                (true, Some(code)) => Err(Fault::passing(format!(
                    "no queue is bound to the exchange for this routing key ({code})"
                ))),
                (false, _) => Err(Fault::passing("the broker could not keep it (nack)")),
            };
            waiting.tell(outcome);
        }
    }

    /// A message came back. The broker sends them back in the order in which they were published, each
    /// before its confirm, so it is the first of that id that has not come back yet.
    fn returned(&self, id: &str, code: u16) {
        let mut open = self.lock();
        let mut same = open.waiting.values_mut().filter(|waiting| waiting.id == id);
        if let Some(waiting) = same.find(|waiting| waiting.returned.is_none()) {
            waiting.returned = Some(code);
        }
    }

    /// The broker closed the channel. A message that is too large costs the channel, and the broker
    /// does not say which it was; but whichever it was, the largest that waits is too large as well.
    fn channel_closed(&self, code: u16, method: (u16, u16)) {
        let refused =
            if code == TOO_LARGE && method == PUBLISH { self.lock().largest() } else { None };
        let why = match code {
            403 => "the broker does not let this user publish there (403)".to_owned(),
            404 => "the exchange or queue does not exist (404)".to_owned(),
            _ => format!("the broker closed the channel ({code})"),
        };
        self.end_refusing(refused, &why);
    }

    fn end_refusing(&self, refused: Option<u64>, why: &str) {
        let (waiting, why) = {
            let mut open = self.lock();
            let why = open.ended.get_or_insert_with(|| why.to_owned()).clone();
            (mem::take(&mut open.waiting), why)
        };
        for (tag, waiting) in waiting {
            waiting.tell(Err(if refused == Some(tag) {
                Fault::refused("it is larger than the broker's max_message_size (406)")
            } else {
                Fault::passing(why.clone())
            }));
        }
        self.0.ended.notify_one();
    }
}

impl Open {
    fn take(&mut self, tag: u64, is_all_up_to: bool) -> BTreeMap<u64, Waiting> {
        match (is_all_up_to, tag) {
            (false, _) => self.waiting.remove_entry(&tag).into_iter().collect(),
            (true, 0) => mem::take(&mut self.waiting),
            (true, _) => {
                let later = self.waiting.split_off(&tag.saturating_add(1));
                mem::replace(&mut self.waiting, later)
            }
        }
    }

    fn largest(&self) -> Option<u64> {
        let largest = self.waiting.iter().max_by_key(|(_, waiting)| waiting.body_bytes);
        largest.map(|(tag, _)| *tag)
    }
}

#[async_trait]
impl ChannelCallback for Confirms {
    /// An error keeps the client from answering, at which it would panic if the connection is gone as
    /// well; the connection is given up anyway.
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), Error> {
        self.channel_closed(close.reply_code(), (close.class_id(), close.method_id()));
        Err(Error::ChannelCloseError(String::new()))
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), Error> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, Error> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.answered(ack.delivery_tag(), ack.mutiple(), true);
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        self.answered(nack.delivery_tag(), nack.multiple(), false);
    }

    async fn publish_return(
        &mut self,
        _: &Channel,
        returned: Return,
        properties: BasicProperties,
        _: Vec<u8>,
    ) {
        let id = properties.message_id().map_or("", |id| id.as_str());
        self.returned(id, returned.reply_code());
    }
}

#[async_trait]
impl ConnectionCallback for Confirms {
    async fn close(&mut self, _: &Connection, close: Close) -> Result<(), Error> {
        self.end(&format!("the broker closed the connection ({})", close.reply_code()));
        Ok(())
    }

    async fn blocked(&mut self, _: &Connection, _: String) {}

    async fn unblocked(&mut self, _: &Connection) {}

    async fn secret_updated(&mut self, _: &Connection) {}
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    type Answer = oneshot::Receiver<Result<(), Fault>>;

    fn publish(confirms: &Confirms, room: &Arc<Semaphore>, id: &str, body_bytes: usize) -> Answer {
        let (answer, answered) = oneshot::channel();
        let room = Arc::clone(room).try_acquire_owned().unwrap();
        confirms.expect(Waiting::new(id.to_owned(), body_bytes, answer, room));
        answered
    }

    /// One confirm channel with messages `0`, `1`, … of these sizes.
    fn published(sizes: &[usize]) -> (Confirms, Arc<Semaphore>, Vec<Answer>) {
        let (confirms, room) = (Confirms::default(), Arc::new(Semaphore::new(16)));
        let answers = (0..)
            .zip(sizes)
            .map(|(id, size): (i32, _)| publish(&confirms, &room, &id.to_string(), *size))
            .collect();
        (confirms, room, answers)
    }

    fn told(answers: &mut [Answer]) -> String {
        let word = |answer: &mut Answer| match answer.try_recv() {
            Err(_) => '.',
            Ok(Ok(())) => 'k',
            Ok(Err(Fault::Passing { .. })) => 'p',
            Ok(Err(Fault::Refused { .. })) => 'r',
            Ok(Err(Fault::Gone { .. })) => 'g',
        };
        answers.iter_mut().map(word).collect()
    }

    #[test]
    fn a_confirm_answers_its_message_or_all_up_to_it() {
        let (confirms, room, mut answers) = published(&[1; 6]);
        confirms.answered(2, false, true);
        assert_eq!(told(&mut answers), ".k....");
        confirms.answered(4, true, true);
        assert_eq!(told(&mut answers), "k.kk..");
        confirms.answered(5, false, false);
        assert_eq!(told(&mut answers), "....p.");
        confirms.answered(0, true, true);
        assert_eq!(told(&mut answers), ".....k");
        confirms.answered(9, false, true);
        assert_eq!(room.available_permits(), 16);
    }

    #[test]
    fn a_message_that_came_back_is_not_accepted_though_it_is_confirmed() {
        let (confirms, _room, mut answers) = published(&[1; 3]);
        confirms.returned("1", 312);
        confirms.answered(3, true, true);
        assert_eq!(told(&mut answers), "kpk");
    }

    #[test]
    fn of_two_sendings_of_an_event_the_first_comes_back_first() {
        let (confirms, room) = (Confirms::default(), Arc::new(Semaphore::new(16)));
        let mut answers = [publish(&confirms, &room, "a", 1), publish(&confirms, &room, "a", 1)];
        confirms.returned("a", 312);
        confirms.answered(1, false, true);
        confirms.returned("a", 312);
        confirms.answered(2, false, true);
        assert_eq!(told(&mut answers), "pp");
    }

    #[test]
    fn the_end_of_the_channel_answers_everything_that_waits_and_comes() {
        let (confirms, room, mut answers) = published(&[1; 3]);
        confirms.channel_closed(404, PUBLISH);
        assert_eq!(told(&mut answers), "ppp");
        confirms.end("later");
        let mut late = publish(&confirms, &room, "late", 1);
        let Ok(Err(fault)) = late.try_recv() else { panic!("not answered") };
        assert_eq!(fault.why(), "the exchange or queue does not exist (404)");
        assert_eq!(room.available_permits(), 16);
    }

    #[test]
    fn a_channel_closed_for_size_refuses_the_largest_message_alone() {
        let (confirms, _room, mut answers) = published(&[1, 5, 9, 2]);
        confirms.channel_closed(TOO_LARGE, PUBLISH);
        assert_eq!(told(&mut answers), "pprp");
        let (confirms, _room, mut answers) = published(&[1, 5, 9, 2]);
        confirms.channel_closed(TOO_LARGE, (60, 20));
        assert_eq!(told(&mut answers), "pppp");
    }

    #[test]
    fn a_sender_that_gave_up_holds_its_room_until_the_broker_answers() {
        let (confirms, room, answers) = published(&[1; 2]);
        drop(answers);
        assert_eq!(room.available_permits(), 14);
        confirms.answered(2, true, true);
        assert_eq!(room.available_permits(), 16);
    }
}
