//! A receiver with readers, and what it has received.

#![allow(dead_code, reason = "each suite uses its own part of it")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::{Answer, Client, Receiptd, Setup, TOKEN, eventually, post, source};
use crate::token::token;

/// A reader of a source, by its API key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    pub source: &'static str,
    pub service: &'static str,
    pub secret: &'static str,
}

/// Of GOV.UK Notify.
pub const PASSPORT: Key = Key {
    source: "passport",
    service: "26785a09-ab16-4eb0-8407-a37497a57506",
    secret: "3d844edf-8d35-48ac-975b-e847b4f122b0",
};

/// Of GC Notify.
pub const VISA: Key = Key {
    source: "visa",
    service: "5c4c4a1e-7e8e-4a0e-8a0c-5b0f3e1f8b11",
    secret: "9ab1d2f0-4d5c-4d0a-8d56-0d9d7b6e2c33",
};

impl Key {
    /// As the official clients take it.
    pub fn whole(self) -> String {
        format!("my-app-{}-{}", self.service, self.secret)
    }

    pub fn token(self) -> String {
        token(self.service, self.secret)
    }
}

/// A receiver for a source of each platform, each with a reader, and one without.
pub fn setup() -> Setup {
    let reader = |key: Key| {
        format!(
            "[[source.reader]]\nservice_id = \"{}\"\nsecret_file = \"{}\"\n",
            key.service, key.source
        )
    };
    let of =
        |key: Key, provider: &str| source(key.source, provider, &[("live", TOKEN)]) + &reader(key);
    let silent = source("silent", "govuk-notify", &[("live", TOKEN)]);
    let sources = of(PASSPORT, "govuk-notify") + &of(VISA, "gc-notify") + &silent;
    let setup = Setup::with_sources(&sources);
    for key in [PASSPORT, VISA] {
        write_secret(&setup, key.source, key.secret);
    }
    setup
}

/// A file that only its owner may read.
pub fn write_secret(setup: &Setup, name: &str, secret: &str) {
    let path = setup.path(name);
    fs::write(&path, secret).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// A running one.
pub struct World {
    pub setup: Setup,
    pub receiver: Receiptd,
}

impl World {
    pub fn start() -> Self {
        Self::of(setup(), PASSPORT)
    }

    /// Of this setup, ready for what `key` asks.
    pub fn of(setup: Setup, key: Key) -> Self {
        let receiver = setup.start();
        let world = Self { setup, receiver };
        // Lists are answered once their indexes are there.
        eventually("indexes", || world.get("/v2/notifications", &key.token()).status == 200);
        world
    }

    /// Posts what that source calls back; each is acknowledged.
    pub fn hear(&self, source: &str, bodies: &[Value]) {
        let mut client = self.receiver.connect();
        let path = format!("/callbacks/{source}");
        for body in bodies {
            let answer = client.ask(post(&path, TOKEN, body.to_string()));
            assert_eq!(answer.status, 204);
        }
    }

    pub fn get(&self, path: &str, bearer: &str) -> Answer {
        self.ask("GET", path, &format!("authorization: Bearer {bearer}\r\n"))
    }

    /// A request with these header lines.
    pub fn ask(&self, method: &str, path: &str, lines: &str) -> Answer {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: receipts.example:9090\r\n{lines}\r\n");
        Client::connect(self.receiver.admin).ask(request)
    }

    /// What a reader is answered with 200.
    #[track_caller]
    pub fn read(&self, key: Key, path: &str) -> Value {
        let answer = self.get(path, &key.token());
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The ids of a list that is asked for, page by page, as long as there is a row on one.
    #[track_caller]
    pub fn ids(&self, key: Key, path: &str) -> Vec<String> {
        let (mut path, mut ids) = (path.to_owned(), Vec::new());
        loop {
            let page = self.read(key, &path);
            let rows = page.get("notifications").or(page.get("received_text_messages"));
            let rows = rows.unwrap().as_array().unwrap().clone();
            let next = page["links"].get("next");
            assert_eq!(next.is_some(), !rows.is_empty(), "{}", page["links"]);
            let Some(next) = next else { return ids };
            assert!(rows.len() <= 250);
            ids.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
            let host = "http://receipts.example:9090";
            path = next.as_str().unwrap().strip_prefix(host).unwrap().to_owned();
        }
    }
}

/// The UUID of that number.
pub fn id(number: u64) -> String {
    format!("740e5834-3a29-46b4-9a6f-{number:012x}")
}

/// That second of a day.
pub fn second(second: u64) -> String {
    format!(
        "2026-11-22T{:02}:{:02}:{:02}.000000Z",
        second / 3600 % 24,
        second / 60 % 60,
        second % 60
    )
}

/// A delivery receipt of the notification of that number, created in that second.
pub fn receipt(number: u64, status: &str, kind: &str, created: u64) -> Value {
    json!({
        "id": id(number),
        "reference": format!("reference-{}", number % 3),
        "to": if kind == "sms" { "07700900111" } else { "someone@example.com" },
        "status": status,
        "created_at": second(created),
        "completed_at": second(created + 5),
        "sent_at": second(created + 1),
        "notification_type": kind,
        "template_id": "f33517ff-2a88-4f6e-b855-c550268ce08a",
        "template_version": 1,
    })
}

/// That the letter of that number came back.
pub fn came_back(number: u64) -> Value {
    json!({
        "notification_id": id(number), "reference": null, "date_sent": "2026-11-01",
        "sent_by": "API", "template_name": "a", "template_id": "None",
        "template_version": null, "spreadsheet_file_name": null,
        "spreadsheet_row_number": null, "upload_letter_file_name": null,
    })
}

/// A text message from the public.
pub fn text(number: u64, received: u64) -> Value {
    json!({
        "id": id(number),
        "source_number": "447700900111",
        "destination_number": "07900900002",
        "message": "Hi",
        "date_received": second(received),
    })
}
