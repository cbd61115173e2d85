//! RabbitMQ, by AMQP 0-9-1: each event is one persistent message, published as mandatory and
//! counted as accepted once the broker confirms it.
//!
//! | of the message | is |
//! |---|---|
//! | body | the event, structured; content type `application/cloudevents+json` |
//! | routing key | as configured, else `<source>.<kind>` |
//! | message id, type, app id | the event's id, its type, `receiptd` |
//! | timestamp | when the callback arrived, whole seconds |
//!
//! A confirm says that every queue the message was routed to has it: a durable queue on its disk, a
//! quorum queue on those of most members. A message that is routed to no queue comes back before its
//! confirm. That is a fault which may pass: it tells of a binding that is missing, not of the event,
//! and once it is there everything that waits goes through, in order; parked, each change would have
//! to be picked up by hand. RabbitMQ drops no repeats, so consumers do, by the message id.
//!
//! One task owns the connection and publishes; it begins with the first event, connects when there is
//! something to publish, and again after a loss. The client fails nothing by itself when a connection
//! is lost, so what waits for its confirm is kept here by delivery tag, and is failed here. An event
//! whose sender gave up is not published any more, or holds its place until the broker has answered:
//! so a broker that is short of memory, and reads nothing for hours, cannot make it grow.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amqprs::BasicProperties;
use amqprs::channel::{
    BasicPublishArguments, Channel, ConfirmSelectArguments, ExchangeDeclareArguments,
    QueueDeclareArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error;
use amqprs::tls::TlsAdaptor;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{interval, timeout};
use tokio_rustls::TlsConnector;

use super::amqp_confirms::{Confirms, Waiting};
use super::event::{Event, STRUCTURED};
use super::fault::Fault;
use super::tls;
use crate::config::settings::AmqpSink;

/// Messages handed over and not answered yet, those of senders that gave up among them.
const UNCONFIRMED_MAX: usize = 1024;

/// From looking up the name to a channel that confirms.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A broker from which nothing comes for twice this long is lost. What RabbitMQ advises is 5 to 20.
const HEARTBEAT_S: u16 = 5;

/// How often the client's own tasks are asked whether they are still there.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Of a name on the wire; the client panics beyond it.
const NAME_BYTES_MAX: usize = 255;

/// Said where the connection ends and the broker does not say why.
const LOST: &str = "the connection to the broker was lost";

/// The sink.
pub struct Amqp {
    place: Arc<Place>,
    room: Arc<Semaphore>,
    /// To the task that publishes; none before the first event.
    messages: Mutex<Option<mpsc::Sender<Message>>>,
}

/// Where to publish.
struct Place {
    arguments: OpenConnectionArguments,
    exchange: String,
    routing_key: Option<String>,
}

/// An event on its way to the broker.
struct Message {
    routing_key: String,
    properties: BasicProperties,
    body: Vec<u8>,
    waiting: Waiting,
}

impl fmt::Debug for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Amqp").field("exchange", &self.place.exchange).finish_non_exhaustive()
    }
}

impl Amqp {
    /// Prepares it.
    ///
    /// # Errors
    /// If a file of TLS cannot be used, or a name is too long for the wire.
    pub fn open(to: &AmqpSink) -> Result<Self, String> {
        let virtual_host = if to.at.path.is_empty() { "/" } else { &to.at.path };
        let routing_key = to.routing_key.as_deref().unwrap_or_default();
        let names = [
            ("exchange", &*to.exchange),
            ("routing_key", routing_key),
            ("virtual host", virtual_host),
        ];
        if let Some((name, _)) = names.into_iter().find(|(_, text)| text.len() > NAME_BYTES_MAX) {
            return Err(format!("the {name} has more than {NAME_BYTES_MAX} bytes"));
        }
        // The client puts host and port together as text.
        let host =
            if to.at.host.contains(':') { format!("[{}]", to.at.host) } else { to.at.host.clone() };
        let password = String::from_utf8(to.login.password.0.clone())
            .map_err(|_| "the password is not UTF-8".to_owned())?;
        let mut arguments =
            OpenConnectionArguments::new(&host, to.at.port, &to.login.user, &password);
        arguments.virtual_host(virtual_host).heartbeat(HEARTBEAT_S).connection_name("receiptd");
        if to.at.is_tls {
            let connector = TlsConnector::from(Arc::new(tls::client_config(&to.tls)?));
            arguments.tls_adaptor(TlsAdaptor::new(connector, to.at.host.clone()));
        }
        let place =
            Place { arguments, exchange: to.exchange.clone(), routing_key: to.routing_key.clone() };
        Ok(Self {
            place: Arc::new(place),
            room: Arc::new(Semaphore::new(UNCONFIRMED_MAX)),
            messages: Mutex::new(None),
        })
    }

    /// Sends one event.
    ///
    /// # Errors
    /// Whatever kept the broker from confirming it, or that it came back.
    pub async fn send(&self, event: &Event) -> Result<(), Fault> {
        let change = &event.change;
        let routing_key = (self.place.routing_key.clone())
            .unwrap_or_else(|| format!("{}.{}", change.source, change.what));
        if routing_key.len() > NAME_BYTES_MAX {
            return Err(Fault::refused("the routing key is too long for the wire"));
        }
        let room =
            Arc::clone(&self.room).acquire_owned().await.map_err(|_| Fault::passing(LOST))?;
        let (answer, answered) = oneshot::channel();
        let (id, body) = (event.id(), event.structured());
        let mut properties = BasicProperties::default();
        properties
            .with_content_type(STRUCTURED)
            .with_message_id(&id)
            .with_message_type(event.event_type())
            .with_app_id("receiptd")
            .with_persistence(true);
        if let Ok(seconds) = u64::try_from(event.time().unix_micros() / 1_000_000) {
            properties.with_timestamp(seconds);
        }
        let waiting = Waiting::new(id, body.len(), answer, room);
        let message = Message { routing_key, properties, body, waiting };
        // There is room in the queue: it is as long as there are permits.
        self.messages().try_send(message).map_err(|_| Fault::passing(LOST))?;
        answered.await.unwrap_or_else(|_| Err(Fault::passing(LOST)))
    }

    /// The way to the task that publishes. It is begun in the runtime that sends: the client must not
    /// be dropped outside of one.
    fn messages(&self) -> mpsc::Sender<Message> {
        let mut messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
        match &*messages {
            Some(messages) if !messages.is_closed() => messages.clone(),
            _ => {
                let (sender, receiver) = mpsc::channel(UNCONFIRMED_MAX);
                tokio::spawn(keep_publishing(Arc::clone(&self.place), receiver));
                messages.insert(sender).clone()
            }
        }
    }

    /// Whether the exchange is there, or the queue, where the default exchange routes to one. That a
    /// queue is durable cannot be asked by this protocol, nor which are bound; that messages are
    /// routed at all is found out by each.
    ///
    /// # Errors
    /// That it is not there, or why it could not be asked.
    pub async fn check_durable(&self) -> Result<(), String> {
        let link = connect(&self.place).await.map_err(|fault| fault.why().to_owned())?;
        let asked = async {
            match (&*self.place.exchange, &self.place.routing_key) {
                ("", None) => Ok(()),
                ("", Some(queue)) => {
                    let arguments = QueueDeclareArguments::new(queue).passive(true).finish();
                    link.channel.queue_declare(arguments).await.map(|_| ())
                }
                (exchange, _) => {
                    let mut arguments = ExchangeDeclareArguments::new(exchange, "direct");
                    link.channel.exchange_declare(arguments.passive(true).finish()).await
                }
            }
        };
        let why = match timeout(CONNECT_MAX, asked).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) => link.confirms.why_ended(),
            Err(_) => None,
        };
        Err(why
            .unwrap_or_else(|| "the broker did not say whether the exchange is there".to_owned()))
    }
}

/// Publishes what comes until the sink is dropped, over one connection after the other.
async fn keep_publishing(place: Arc<Place>, mut messages: mpsc::Receiver<Message>) {
    while let Some(first) = messages.recv().await {
        if first.waiting.is_abandoned() {
            continue;
        }
        match connect(&place).await {
            Ok(link) => link.publish_all(&place.exchange, first, &mut messages).await,
            Err(fault) => {
                first.waiting.tell(Err(fault.clone()));
                while let Ok(message) = messages.try_recv() {
                    message.waiting.tell(Err(fault.clone()));
                }
            }
        }
    }
}

/// A connection with a channel that confirms. Dropped, it says goodbye in the background.
struct Link {
    channel: Channel,
    connection: Connection,
    confirms: Confirms,
}

/// Bounded in time. In a task of its own, because the client panics at some answers that no RabbitMQ
/// gives.
async fn connect(place: &Place) -> Result<Link, Fault> {
    let arguments = place.arguments.clone();
    let opened = tokio::spawn(timeout(CONNECT_MAX, Link::open(arguments))).await;
    match opened {
        Ok(Ok(Ok(link))) => Ok(link),
        Ok(Ok(Err(error))) => Err(Fault::passing(why_not_connected(&error.to_string()))),
        Ok(Err(_)) => Err(Fault::passing("the connection was not ready in time")),
        Err(_) => Err(Fault::passing("the broker says what is not understood")),
    }
}

impl Link {
    async fn open(arguments: OpenConnectionArguments) -> Result<Self, Error> {
        let confirms = Confirms::default();
        let connection = Connection::open(&arguments).await?;
        connection.register_callback(confirms.clone()).await?;
        let channel = connection.open_channel(None).await?;
        channel.register_callback(confirms.clone()).await?;
        channel.confirm_select(ConfirmSelectArguments::default()).await?;
        Ok(Self { channel, connection, confirms })
    }

    /// Until the connection or the channel is lost, or the sink dropped.
    async fn publish_all(
        self,
        exchange: &str,
        first: Message,
        messages: &mut mpsc::Receiver<Message>,
    ) {
        let mut first = Some(first);
        let mut look = interval(LOOK_EVERY);
        // It tells only of what happens after it was first polled, so that comes before publishing.
        let mut lost = pin!(self.connection.listen_network_io_failure());
        loop {
            let next = async {
                match first.take() {
                    Some(first) => Some(first),
                    None => messages.recv().await,
                }
            };
            let message = tokio::select! {
                biased;
                _ = &mut lost => break,
                () = self.confirms.ended() => break,
                _ = look.tick() => {
                    if self.is_alive().await { continue } else { break }
                }
                message = next => message,
            };
            let Some(message) = message else { break };
            if !self.connection.is_open() {
                message.waiting.tell(Err(Fault::passing(LOST)));
                break;
            }
            if !message.waiting.is_abandoned() && !self.publish(exchange, message).await {
                break;
            }
        }
        self.confirms.end(LOST);
    }

    /// Delivery tags are counted from one, in the order of publishing: nobody else publishes here.
    async fn publish(&self, exchange: &str, message: Message) -> bool {
        let Message { routing_key, properties, body, waiting } = message;
        self.confirms.expect(waiting);
        let mut arguments = BasicPublishArguments::new(exchange, &routing_key);
        let arguments = arguments.mandatory(true).finish();
        self.channel.basic_publish(properties, body, arguments).await.is_ok()
    }

    /// Should one of the client's tasks end by a panic, nothing else would tell: they take no order
    /// any more.
    async fn is_alive(&self) -> bool {
        self.connection.is_open()
            && self.channel.is_open()
            && self.connection.register_callback(self.confirms.clone()).await.is_ok()
            && self.channel.register_callback(self.confirms.clone()).await.is_ok()
    }
}

/// Why a connection could not be had. The client's errors are text, with the broker's own among them:
/// none of it is passed on but a code.
fn why_not_connected(error: &str) -> String {
    if let Some(code) = reply_code(error) {
        return match code {
            403 => "the broker refuses the user and password (403)".to_owned(),
            530 => "the broker refuses the virtual host (530)".to_owned(),
            _ => format!("the broker refuses the connection ({code})"),
        };
    }
    // RabbitMQ does not say more to a client that did not promise to understand it.
    let closed =
        "the broker closed the connection at the login: are user, password and port right?";
    let known = [
        ("peer shutdown", closed),
        ("interrupted", closed),
        ("reset", closed),
        ("certificate", "the broker's certificate was not accepted"),
        ("refused", "the broker cannot be reached: the connection was refused"),
        ("lookup", "the broker cannot be reached: its name was not resolved"),
    ];
    let found = known.into_iter().find(|(word, _)| error.contains(word));
    found.map_or("the broker cannot be reached", |(_, why)| why).to_owned()
}

/// The code in a frame that the client printed.
fn reply_code(error: &str) -> Option<u16> {
    let (_, rest) = error.split_once("reply_code: ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}
