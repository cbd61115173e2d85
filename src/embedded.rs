//! A receiver inside another program: what an integration test of an app needs beside
//! [`Receiver::start`]. The page of [`crate::receiver`] shows a whole test.
//!
//! Nothing here is a short cut around what is deployed: [`Receiver::in_folder`] runs the whole
//! service with the default settings, [`Receiver::post`] is a request over a socket, and
//! [`Receiver::notification`] reads the file that an app may read too.

use std::path::Path;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::client::{self, Client, ClientError, Options, Target};
use crate::clock::Clock;
use crate::config::{self, Flags, Layers, Problems};
use crate::provider::Provider;
use crate::receiver::{Receiver, StartError};
use crate::sqlite::OpenError;
use crate::state::read::{NotificationRow, Reader};

/// The name of the state file that [`Receiver::in_folder`] makes.
pub const STATE_FILE: &str = "receiptd.db";

/// Any free port of this machine, reachable from nowhere else.
pub const LOOPBACK: &str = "127.0.0.1:0";

/// Why [`Receiver::in_folder`] could not start a receiver.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The source's name, say, is none.
    #[error(transparent)]
    Settings(#[from] Problems),
    /// The folder cannot be written, say.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Why the state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What is in it.
    #[error("failed to read the state: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

impl Receiver {
    /// Starts a receiver with the default settings, one source and this token, on free ports of
    /// 127.0.0.1. Its files are in `folder`, which must exist; a receiver that was there before is
    /// continued. The environment is not looked at.
    ///
    /// # Errors
    /// If the name is no source's, or a file cannot be opened or locked; then nothing runs.
    pub async fn in_folder(
        folder: &Path,
        source: &str,
        provider: Provider,
        token: &str,
    ) -> Result<Self, EmbedError> {
        let flags = Flags {
            listen: Some(LOOPBACK.to_owned()),
            admin_listen: Some(LOOPBACK.to_owned()),
            sources: vec![format!("{source}={provider}")],
            token_sha256: vec![HEXLOWER.encode(&Sha256::digest(token))],
            ..Flags::default()
        };
        let clock = Clock::system();
        let mut settings =
            config::load(&Layers::new(None, Vec::new(), flags), clock.now())?.settings;
        // Not by way of the flags, which are text: a path need not be.
        settings.store.path = folder.join(STATE_FILE);
        Ok(Self::start(settings, clock).await?)
    }

    /// The URL that source posts to; `None` if there is no such source.
    pub fn callback_url(&self, source: &str) -> Option<String> {
        let path = self.door.routes.path_of(source)?;
        Some(format!("{}://{}{path}", self.scheme(), self.callbacks()))
    }

    /// Posts `body` to the source's path as a platform would, over a connection of its own, and
    /// returns the code of the answer: 204 once the callback is durable.
    ///
    /// # Errors
    /// If there is no such source, no answer, or TLS with a certificate this machine does not trust.
    pub async fn post(&self, source: &str, token: &str, body: &[u8]) -> Result<u16, ClientError> {
        let wrong = |problem: &str| ClientError::Url(problem.to_owned());
        let url = self.callback_url(source).ok_or_else(|| wrong("no source has that name"))?;
        let bearer = client::bearer(token).ok_or_else(|| wrong("no header can hold this token"))?;
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut client = Client::new(Target::parse(&url)?, Options::default())?;
        Ok(client.post(headers, Bytes::copy_from_slice(body)).await?.code)
    }

    /// What is settled about a notification; `None` if nothing is. Wait for
    /// [`Receiver::settled`] first to find what was just posted.
    ///
    /// # Errors
    /// If the state file cannot be read.
    pub fn notification(
        &self,
        source: &str,
        id: &str,
    ) -> Result<Option<NotificationRow>, ReadError> {
        let found = Reader::open(self.state_path())?.notification(Some(source), id)?;
        // Source and id are unique together.
        Ok(found.into_iter().next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIPT: &[u8] = br#"{"id": "n", "status": "sent", "notification_type": "sms"}"#;

    #[tokio::test]
    async fn a_folder_keeps_what_a_receiver_before_had_settled() {
        let folder = tempfile::tempdir().unwrap();
        let start = || Receiver::in_folder(folder.path(), "visa", Provider::Notify, "a-token");
        let receiver = start().await.unwrap();
        assert_eq!(receiver.post("visa", "a-token", RECEIPT).await.unwrap(), 204);
        receiver.stop().await;
        let receiver = start().await.unwrap();
        receiver.settled().await;
        let found = receiver.notification("visa", "n").unwrap().unwrap();
        assert_eq!(found.status.as_deref(), Some("sent"));
        assert_eq!(receiver.notification("visa", "another").unwrap(), None);
    }

    #[tokio::test]
    async fn a_wrong_token_is_an_answer_and_a_wrong_name_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let start = |name: &'static str| {
            Receiver::in_folder(folder.path(), name, Provider::Notify, "a-token")
        };
        assert!(matches!(start("No Name").await, Err(EmbedError::Settings(_))));
        let receiver = start("visa").await.unwrap();
        assert_eq!(receiver.post("visa", "another", RECEIPT).await.unwrap(), 401);
        let refused = receiver.post("passport", "a-token", RECEIPT).await;
        assert!(matches!(refused, Err(ClientError::Url(_))), "{refused:?}");
        assert_eq!(receiver.callback_url("passport"), None);
        let url = format!("http://{}/callbacks/visa", receiver.callbacks());
        assert_eq!(receiver.callback_url("visa"), Some(url));
    }
}
