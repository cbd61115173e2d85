//! A platform's read API with many notifications, none of which is stored: a page is made of their
//! numbers when it is asked for. The newest has number 0.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use receiptd::clock::{Clock, Timestamp};

use super::asked;
use super::program::Done;

const PAGE_ROWS: u64 = 250;

/// From one notification to the one before, over all of them: six of the seven days that are asked for.
const SPAN_MICROS: u64 = 6 * 86_400 * 1_000_000;

/// One in so many has not come to an end.
const OPEN_EVERY: u64 = 50;

/// One that listens until this process ends.
#[derive(Clone)]
pub struct Platform {
    /// Where it listens.
    pub address: SocketAddr,
    count: u64,
    newest: Timestamp,
    asked: Arc<AtomicU64>,
    first_asked: Arc<OnceLock<Instant>>,
}

impl Platform {
    /// Shows so many.
    pub fn start(count: u64) -> Done<Self> {
        Self::showing(count, Clock::system().now())
    }

    fn showing(count: u64, newest: Timestamp) -> Done<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let platform = Self {
            address: listener.local_addr()?,
            count,
            newest,
            asked: Arc::default(),
            first_asked: Arc::default(),
        };
        let serving = platform.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let platform = serving.clone();
                // Whoever asks may hang up.
                thread::spawn(move || drop(platform.serve(stream)));
            }
        });
        Ok(platform)
    }

    /// The same to be asked anew.
    pub fn not_asked_yet(self) -> Done<Self> {
        Self::showing(self.count, self.newest)
    }

    /// How many requests there were.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// When the first one came.
    pub fn first_asked(&self) -> Option<Instant> {
        self.first_asked.get().copied()
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        let (mut line, mut answer) = (String::new(), Vec::new());
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            self.first_asked.get_or_init(Instant::now);
            self.asked.fetch_add(1, Ordering::Relaxed);
            while line.trim_end() != "" {
                line.clear();
                reader.read_line(&mut line)?;
            }
            let (code, body) = self.answer(&target);
            answer.clear();
            write!(
                answer,
                "HTTP/1.1 {code} Any\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )?;
            writer.write_all(&answer)?;
        }
    }

    fn answer(&self, target: &str) -> (u16, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        match path {
            "/v2/notifications" => {
                let older_than = query.split('&').find_map(|pair| pair.strip_prefix("older_than="));
                (200, self.page(older_than.and_then(number).map_or(0, |number| number + 1)))
            }
            "/v2/received-text-messages" => {
                (200, r#"{"received_text_messages": [], "links": {}}"#.to_owned())
            }
            path => match path.strip_prefix("/v2/notifications/").and_then(number) {
                Some(number) if number < self.count => (200, self.row(number)),
                _ => (404, r#"{"result": "error", "message": "not found"}"#.to_owned()),
            },
        }
    }

    fn page(&self, from: u64) -> String {
        let mut text = String::from("{\"notifications\": [");
        for number in from..self.count.min(from.saturating_add(PAGE_ROWS)) {
            let comma = if number > from { ", " } else { "" };
            let _ = write!(text, "{comma}{}", self.row(number));
        }
        text.push_str("], \"links\": {}}");
        text
    }

    fn row(&self, number: u64) -> String {
        let before = SPAN_MICROS / self.count * number;
        let micros = self.newest.unix_micros() - i64::try_from(before).unwrap_or_default();
        let created_at = Timestamp::from_unix_micros(micros);
        let is_open = number.is_multiple_of(OPEN_EVERY);
        let status = if is_open { "sending" } else { "delivered" };
        let completed_at =
            if is_open { "null".to_owned() } else { format!("\"{}\"", created_at.plus_seconds(3)) };
        let id = asked::id(number);
        format!(
            "{{\"id\": \"{id}\", \"reference\": \"r-{number}\", \"email_address\": null, \
             \"phone_number\": \"+16135550123\", \"line_1\": null, \"line_2\": null, \"line_3\": null, \
             \"line_4\": null, \"line_5\": null, \"line_6\": null, \"postcode\": null, \
             \"type\": \"sms\", \"status\": \"{status}\", \"status_description\": null, \
             \"provider_response\": null, \"template\": {{\"id\": \"{id}\", \"version\": 1, \
             \"uri\": \"https://api.example/v2/template/{id}/version/1\"}}, \
             \"body\": \"Your appointment is tomorrow at ten. Reply STOP to hear no more of it.\", \
             \"subject\": null, \"created_at\": \"{created_at}\", \"created_by_name\": null, \
             \"sent_at\": \"{created_at}\", \"completed_at\": {completed_at}, \
             \"scheduled_for\": null, \"postage\": null}}"
        )
    }
}

/// The number that an id was made of.
fn number(id: &str) -> Option<u64> {
    u64::from_str_radix(id.rsplit('-').next()?, 16).ok()
}
