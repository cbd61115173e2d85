//! What a round by hand has kept, and noted, while a receiver runs on the database: the receiver is handed
//! it, as for `receiptd prune`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderValue};

use super::Failure;
use crate::api::control::{ASKED_PATH, AskedByHand, ControlFile, POLLED_PATH, Polled};
use crate::client::{Client, ClientError, Options, Target, bearer};
use crate::journal::Outcome;
use crate::reconcile::keep::{ENTRIES_MAX, Keep, Piece};
use crate::reconcile::round::Ended;

/// How long a receiver may take to have some of it settled.
const ASK_MAX: Duration = Duration::from_secs(60);

/// A running receiver, with its key.
#[derive(Clone)]
pub struct Receiver {
    base: String,
    key: HeaderValue,
}

impl Receiver {
    /// The one that runs on the database at `state`.
    ///
    /// # Errors
    /// If its control file cannot be read.
    pub fn find(state: &Path) -> Result<Self, Failure> {
        let unreadable = |error: &dyn std::fmt::Display| {
            let message = format!(
                "another process has the database, and its control file cannot be read: {error}"
            );
            Failure::new(Failure::UNAVAILABLE, message)
                .hint("run this as the same user as the receiver, or stop the receiver")
        };
        let (base, key) = ControlFile::read(state).map_err(|error| unreadable(&error))?;
        let key = bearer(&key).ok_or_else(|| unreadable(&"its key is no text"))?;
        Ok(Self { base, key })
    }

    fn client(&self, path: &str) -> Result<Client, ClientError> {
        let options = Options { answer_ms_max: ASK_MAX, ..Options::default() };
        Client::new(Target::parse(&format!("{}{path}", self.base))?, options)
    }

    /// Hands this over; `what` it is, for when the receiver does not take it.
    async fn post(
        &self,
        path: &str,
        what: &str,
        body: &(impl serde::Serialize + Sync),
    ) -> Result<(), Ended> {
        let failed = |error: &dyn std::fmt::Display| Ended::NotKept(error.to_string());
        let body = serde_json::to_vec(body).map_err(|error| failed(&error))?;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, self.key.clone());
        let asked = async { self.client(path)?.post(headers, body.into()).await };
        match asked.await.map_err(|error| failed(&error))? {
            answer if answer.code == 204 => Ok(()),
            answer => {
                Err(Ended::NotKept(format!("the receiver refused {what}: {}", answer.first_line())))
            }
        }
    }
}

impl Keep for Receiver {
    async fn ready(&mut self) -> Result<(), Ended> {
        let asked = match self.client("/settled?wait=10s") {
            Ok(mut client) => client.get().await,
            Err(error) => Err(error),
        };
        match asked {
            Ok(answer) if answer.code == 204 => Ok(()),
            Ok(_) => Err(Ended::Behind),
            Err(error) => Err(Ended::NotKept(error.to_string())),
        }
    }

    async fn keep(&mut self, source: &Arc<str>, pieces: Vec<Piece>) -> Result<(), Ended> {
        for pieces in pieces.chunks(ENTRIES_MAX) {
            let polled = Polled { source: source.to_string(), pieces: pieces.to_vec() };
            self.post(POLLED_PATH, "what is new", &polled).await?;
        }
        Ok(())
    }

    async fn note(&mut self, source: &Arc<str>, outcome: Outcome) -> Result<(), Ended> {
        let asked = AskedByHand { source: source.to_string(), outcome };
        self.post(ASKED_PATH, "to note how far it was asked", &asked).await
    }
}
