//! A platform's read API, written from what is known of it and from nothing of ours: lists newest
//! first, `older_than` an id that is resolved to its instant and strictly older, tokens that are checked,
//! errors in their shapes; and whatever trouble a test wants.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use receiptd::clock::{Clock, Timestamp};
use serde_json::{Value, json};
use sha2::Sha256;

pub const SERVICE: &str = "26785a09-ab16-4eb0-8407-a37497a57506";
pub const SECRET: &str = "cafecafe-8d35-48ac-975b-e847b4f122b0";

/// What was written to people; nobody may keep it.
pub const WRITTEN: &str = "canary-in-what-was-written";

/// The statuses with which the platforms say when a notification was completed.
const COMPLETED: [&str; 8] = [
    "sent",
    "delivered",
    "failed",
    "technical-failure",
    "temporary-failure",
    "permanent-failure",
    "returned-letter",
    "cancelled",
];

/// The API key of [`SERVICE`].
pub fn key() -> String {
    format!("live-{SERVICE}-{SECRET}")
}

/// Which platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Govuk,
    Gc,
    Us,
}

/// One message the app sent.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: String,
    pub status: &'static str,
    pub created_at: Timestamp,
    pub updated_at: Option<Timestamp>,
    /// Whether lists show it: they do not if it was sent with a key of another kind.
    pub is_listed: bool,
}

/// One message from the public.
#[derive(Clone, Debug)]
pub struct Text {
    pub id: String,
    pub created_at: Timestamp,
}

/// What it does in place of answering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// These bytes, as they are.
    Bytes(String),
    /// Nothing, for ever.
    Silence,
    /// An answer without an end, as fast as it can.
    Endless,
    /// A byte now and then.
    Drip,
    /// The end of the connection.
    Cut,
    /// The usual answer, after a pause.
    Late(Duration),
}

impl Trouble {
    pub fn status(code: u16, headers: &str) -> Self {
        let body = r#"{"status_code": 0, "errors": [{"error": "E", "message": "canary-said"}]}"#;
        let length = body.len();
        Self::Bytes(format!(
            "HTTP/1.1 {code} Any\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    }
}

/// How its lists differ from what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// Not at all.
    Honest,
    /// Where a page begins is ignored: it is always the first.
    Stuck,
    /// Every page but the first is a row shorter than it could be.
    Short,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub at: Instant,
}

pub struct State {
    pub rows: Vec<Row>,
    pub texts: Vec<Text>,
    pub page_size: usize,
    /// So many requests whose path begins like that get it.
    pub trouble: Option<(&'static str, Trouble, usize)>,
    pub asked: Vec<Asked>,
    pub lists: Lists,
    /// Before every path; what is asked for without it is not there.
    pub prefix: &'static str,
    /// What stands in a list in place of the row of that id.
    pub broken: BTreeMap<String, Value>,
}

impl State {
    /// The place in the query as far as lists heed it, and how many rows are shown there.
    fn place<'q>(&self, query: BTreeMap<&'q str, &'q str>) -> (BTreeMap<&'q str, &'q str>, usize) {
        let is_first =
            !query.contains_key("older_than") && query.get("page").is_none_or(|n| *n == "1");
        match self.lists {
            Lists::Stuck => (BTreeMap::new(), self.page_size),
            Lists::Short if !is_first => (query, self.page_size - 1),
            Lists::Short | Lists::Honest => (query, self.page_size),
        }
    }

    /// What a list shows of that row.
    fn shown(&self, id: &str, row: Value) -> Value {
        self.broken.get(id).cloned().unwrap_or(row)
    }
}

/// One that listens until the test process ends.
#[derive(Clone)]
pub struct Platform {
    pub address: SocketAddr,
    kind: Kind,
    state: Arc<Mutex<State>>,
}

/// So many seconds ago.
pub fn ago(seconds: i64) -> Timestamp {
    Clock::system().now().plus_seconds(-seconds)
}

/// A UUID that no other number has.
pub fn id(number: usize) -> String {
    format!("740e5834-3a29-46b4-9a6f-{number:012x}")
}

impl Row {
    /// Created so many seconds ago, and changed a second later.
    pub fn new(number: usize, status: &'static str, seconds_ago: i64) -> Self {
        let created_at = ago(seconds_ago);
        let updated_at = Some(created_at.plus_seconds(1));
        Self { id: id(number), status, created_at, updated_at, is_listed: true }
    }

    /// The callback about it as it is now, with the bytes of its platform.
    pub fn callback(&self) -> String {
        let Self { id, status, created_at, updated_at, .. } = self;
        let updated_at = updated_at.map_or("null".to_owned(), |at| format!("\"{at}\""));
        format!(
            r#"{{"id": "{id}", "reference": "ref-{id}", "to": "amala@example.com", "status": "{status}", "created_at": "{created_at}", "completed_at": {updated_at}, "sent_at": null, "notification_type": "email"}}"#
        )
    }

    fn v2(&self, kind: Kind) -> Value {
        let completed = COMPLETED.contains(&self.status).then_some(self.updated_at).flatten();
        let mut row = json!({
            "body": WRITTEN, "completed_at": completed, "created_at": self.created_at,
            "created_by_name": null, "email_address": "amala@example.com", "id": self.id,
            "line_1": null, "line_2": null, "line_3": null, "line_4": null, "line_5": null,
            "line_6": null, "phone_number": null, "postage": null, "postcode": null,
            "reference": format!("ref-{}", self.id), "scheduled_for": null, "sent_at": null,
            "status": self.status, "subject": WRITTEN,
            "template": {"id": "f33517ff-2a88-4f6e-b855-c550268ce08a", "uri": "https://t/1", "version": 1},
            "type": "email",
        });
        let fields = row.as_object_mut().unwrap();
        if kind == Kind::Gc {
            fields.insert("status_description".into(), "Delivered".into());
            fields.insert("provider_response".into(), Value::Null);
        } else {
            fields.insert("cost_in_pounds".into(), 0.0.into());
        }
        row
    }

    fn v1(&self) -> Value {
        json!({
            "api_key": null, "billable_units": 1, "body": WRITTEN, "content_char_count": 3,
            "created_at": self.created_at, "id": self.id, "job": null, "job_row_number": null,
            "notification_type": "sms", "reference": null, "sent_at": self.created_at,
            "sent_by": "sns", "service": SERVICE, "status": self.status,
            "template": {"id": "f33517ff-2a88-4f6e-b855-c550268ce08a", "name": "N", "template_type": "sms", "version": 1},
            "template_version": 1, "to": "1", "updated_at": self.updated_at,
        })
    }
}

impl Platform {
    pub fn start(kind: Kind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State {
            rows: Vec::new(),
            texts: Vec::new(),
            page_size: 250,
            trouble: None,
            asked: Vec::new(),
            lists: Lists::Honest,
            prefix: "",
            broken: BTreeMap::new(),
        };
        let address = listener.local_addr().unwrap();
        let platform = Self { address, kind, state: Arc::new(Mutex::new(state)) };
        let serving = platform.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let platform = serving.clone();
                thread::spawn(move || platform.serve(stream.unwrap()));
            }
        });
        platform
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn add(&self, rows: impl IntoIterator<Item = Row>) {
        self.state().rows.extend(rows);
    }

    /// The status of that notification is another from now on, changed this moment.
    pub fn set(&self, number: usize, status: &'static str) {
        let mut state = self.state();
        let row = state.rows.iter_mut().find(|row| row.id == id(number)).unwrap();
        (row.status, row.updated_at) = (status, Some(Clock::system().now()));
    }

    /// So many requests whose path begins like that get it; nothing does any more with 0.
    pub fn trouble(&self, path: &'static str, trouble: Trouble, times: usize) {
        self.state().trouble = Some((path, trouble, times));
    }

    /// How many requests there were whose path begins like that.
    pub fn asked(&self, path: &str) -> usize {
        self.state().asked.iter().filter(|asked| asked.path.starts_with(path)).count()
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let path = line.split(' ').nth(1).unwrap().to_owned();
            assert!(line.starts_with("GET "), "{line}");
            let mut authorization = String::new();
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header).unwrap_or(0) == 0 {
                    return;
                }
                let Some((name, value)) = header.trim_end().split_once(": ") else { break };
                if name.eq_ignore_ascii_case("authorization") {
                    value.clone_into(&mut authorization);
                }
            }
            if self.reply(&mut writer, &path, &authorization).is_none() {
                return;
            }
        }
    }

    /// `None` if the connection is done with.
    fn reply(&self, writer: &mut TcpStream, path: &str, authorization: &str) -> Option<()> {
        let trouble = {
            let mut state = self.state();
            let asked = Asked { path: path.to_owned(), at: Instant::now() };
            state.asked.push(asked);
            let trouble = state.trouble.as_mut();
            let trouble = trouble.filter(|(start, _, left)| *left > 0 && path.starts_with(start));
            trouble.map(|(_, trouble, left)| {
                *left -= 1;
                trouble.clone()
            })
        };
        match trouble {
            None => {}
            Some(Trouble::Late(pause)) => thread::sleep(pause),
            Some(Trouble::Bytes(bytes)) => return writer.write_all(bytes.as_bytes()).ok(),
            Some(Trouble::Cut) => return None,
            Some(Trouble::Silence) => loop {
                thread::sleep(Duration::from_secs(60));
            },
            Some(trouble) => {
                writer.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"notifications\": [").ok()?;
                let (chunk, pause) = match trouble {
                    Trouble::Drip => (vec![b' '], Duration::from_millis(50)),
                    _ => (vec![b' '; 1 << 16], Duration::ZERO),
                };
                while writer.write_all(&chunk).is_ok() {
                    thread::sleep(pause);
                }
                return None;
            }
        }
        let (code, body) = self.answer(path, authorization);
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {code} Any\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        writer.write_all(format!("{head}{body}").as_bytes()).ok()
    }

    fn answer(&self, target: &str, authorization: &str) -> (u16, Value) {
        if let Err((code, message)) = self.check(authorization) {
            return (code, error(code, "AuthError", message));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query: BTreeMap<&str, &str> =
            query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let state = self.state();
        let Some(path) = path.strip_prefix(state.prefix) else {
            return (404, json!({"result": "error", "message": "Not found"}));
        };
        match (self.kind, path) {
            (Kind::Us, "/notifications") => v1_page(&state, query),
            (Kind::Us, path) => match path.strip_prefix("/notifications/") {
                Some(id) => self.one(&state, id),
                None => (404, json!({"result": "error", "message": "Not found"})),
            },
            (_, "/v2/notifications") => {
                assert_eq!(query.get("include_jobs"), Some(&"true"), "{target}");
                let mut rows: Vec<&Row> = state.rows.iter().filter(|row| row.is_listed).collect();
                rows.sort_by_key(|row| std::cmp::Reverse(row.created_at));
                let place = |id: &str| state.rows.iter().find(|r| r.id == id).map(|r| r.created_at);
                let (query, size) = state.place(query);
                let rows = strictly_older(rows, &query, place, |row| row.created_at);
                let shown = rows.iter().take(size);
                let shown = shown.map(|row| state.shown(&row.id, row.v2(self.kind)));
                (200, page("notifications", target, &shown.collect::<Vec<_>>()))
            }
            (_, "/v2/received-text-messages") => {
                let mut texts: Vec<&Text> = state.texts.iter().collect();
                texts.sort_by_key(|text| std::cmp::Reverse(text.created_at));
                let place =
                    |id: &str| state.texts.iter().find(|t| t.id == id).map(|t| t.created_at);
                let (query, size) = state.place(query);
                let texts = strictly_older(texts, &query, place, |text| text.created_at);
                let shown = texts.iter().take(size).map(|text| {
                    let row = json!({
                        "content": "Hi", "created_at": text.created_at, "id": text.id,
                        "notify_number": "07900900002", "service_id": SERVICE,
                        "user_number": "447700900111",
                    });
                    state.shown(&text.id, row)
                });
                (200, page("received_text_messages", target, &shown.collect::<Vec<_>>()))
            }
            (_, path) => match path.strip_prefix("/v2/notifications/") {
                Some(id) => self.one(&state, id),
                None => (404, json!({"result": "error", "message": "Not found"})),
            },
        }
    }

    fn one(&self, state: &State, id: &str) -> (u16, Value) {
        match (state.rows.iter().find(|row| row.id == id), self.kind) {
            (Some(row), Kind::Us) => (200, json!({"data": {"notification": row.v1()}})),
            (Some(row), kind) => (200, row.v2(kind)),
            (None, Kind::Govuk) => (404, error(404, "NoResultFound", "No result found")),
            (None, _) => {
                (404, json!({"result": "error", "message": "Notification not found in database"}))
            }
        }
    }

    fn check(&self, authorization: &str) -> Result<(), (u16, &'static str)> {
        if authorization.is_empty() {
            return Err((401, "Unauthorized: authentication token must be provided"));
        }
        if self.kind == Kind::Gc {
            let is_key = authorization.strip_prefix("ApiKey-v1 ") == Some(&key());
            return if is_key { Ok(()) } else { Err((403, "Invalid token: API key not found")) };
        }
        let token = authorization.strip_prefix("Bearer ");
        let token =
            token.ok_or((401, "Unauthorized: authentication bearer scheme must be used"))?;
        let wrong = (403, "Invalid token: API key not found");
        let (signed, signature) = token.rsplit_once('.').ok_or(wrong)?;
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        if BASE64URL_NOPAD.encode(&mac.finalize().into_bytes()) != signature {
            return Err(wrong);
        }
        let part = |place: usize| -> Value {
            let bytes = BASE64URL_NOPAD.decode(signed.split('.').nth(place).unwrap().as_bytes());
            serde_json::from_slice(&bytes.unwrap()).unwrap()
        };
        let (head, claims) = (part(0), part(1));
        if head["alg"] != "HS256" {
            return Err((403, "Invalid token: algorithm used is not HS256"));
        }
        if claims["iss"] != SERVICE {
            return Err((403, "Invalid token: service not found"));
        }
        let now = Clock::system().now().unix_micros() / 1_000_000;
        if (claims["iat"].as_i64().unwrap() - now).abs() > 30 {
            return Err((403, "Error: Your system clock must be accurate to within 30 seconds"));
        }
        Ok(())
    }
}

/// What follows `older_than`: an unknown id is followed by nothing.
fn strictly_older<'r, R>(
    rows: Vec<&'r R>,
    query: &BTreeMap<&str, &str>,
    place: impl Fn(&str) -> Option<Timestamp>,
    created_at: impl Fn(&R) -> Timestamp,
) -> Vec<&'r R> {
    let Some(id) = query.get("older_than") else { return rows };
    let Some(instant) = place(id) else { return Vec::new() };
    rows.into_iter().filter(|row| created_at(row) < instant).collect()
}

fn page(list: &str, current: &str, shown: &[Value]) -> Value {
    let mut links = json!({"current": format!("https://api.example{current}")});
    if let Some(last) = shown.last() {
        let next = last["id"].as_str().unwrap_or_default();
        links["next"] = format!("https://api.example/v2?older_than={next}").into();
    }
    json!({ list: shown, "links": links })
}

fn v1_page(state: &State, query: BTreeMap<&str, &str>) -> (u16, Value) {
    let (query, shown) = state.place(query);
    let number: usize = query.get("page").map_or(1, |page| page.parse().unwrap());
    let mut rows: Vec<&Row> = state.rows.iter().filter(|row| row.is_listed).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.created_at));
    let size = state.page_size;
    // However few a page shows, the next begins where it should.
    let skipped = size + number.saturating_sub(2) * shown;
    let rows_of_page = rows.iter().skip(if number == 1 { 0 } else { skipped }).take(shown);
    let shown: Vec<_> = rows_of_page.map(|row| state.shown(&row.id, row.v1())).collect();
    if shown.is_empty() && number > 1 {
        return (404, json!({"result": "error", "message": "No result found"}));
    }
    let page = json!({
        "links": {}, "notifications": shown, "page_size": size, "total": rows.len(),
    });
    (200, page)
}

fn error(code: u16, name: &str, message: &str) -> Value {
    json!({"status_code": code, "errors": [{"error": name, "message": message}]})
}
