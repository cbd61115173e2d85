//! Events, and certificates, for what is sent to a sink without a receiver.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use receiptd::callback::Fingerprint;
use receiptd::change::{Change, ChangeId, What};
use receiptd::clock::Timestamp;
use receiptd::forward::event::Event;
use tempfile::TempDir;

use crate::support::SOURCE;

/// A change of the status of a notification; another `key`, another change.
pub fn about(notification: &str, key: u32) -> Event {
    with_data(notification, key, format!("{{\"id\":\"{notification}\",\"status\":\"delivered\"}}"))
}

/// One of about so many bytes.
pub fn large(bytes: usize) -> Event {
    with_data("large", 0, format!("{{\"id\":\"{}\"}}", "x".repeat(bytes)))
}

/// A change of a notification with that JSON as its data; another `key`, another change.
pub fn with_data(notification: &str, key: u32, data: String) -> Event {
    let mut cause = [0; 16];
    cause[..4].copy_from_slice(&key.to_be_bytes());
    let change = Change {
        key: i64::from(key),
        id: ChangeId::of(What::Status, SOURCE, notification, Fingerprint(cause)),
        what: What::Status,
        source: SOURCE.into(),
        subject: i64::from(key),
        subject_id: Some(notification.to_owned()),
        status: Some("delivered".to_owned()),
        precedence: None,
        received_at: Timestamp::from_unix_micros(1_795_000_000_000_000),
        data,
    };
    Event::of(change, None, false)
}

/// Waits for all of them at once.
pub async fn all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut is_ready = true;
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(done) => *output = Some(done),
                    std::task::Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}

/// An authority, and what it signed for 127.0.0.1 and for a client.
pub struct Certificates(TempDir);

impl Certificates {
    /// Makes `ca.pem`, `server.pem`, `server.key`, `client.pem` and `client.key`.
    pub fn make() -> Self {
        let folder = crate::servers::folder();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).unwrap();
        for (name, host) in [("server", "127.0.0.1"), ("client", "receiptd.test")] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
            // One that is named like its issuer passes for self-signed with OpenSSL.
            params.distinguished_name.push(DnType::CommonName, name);
            let certificate = params.signed_by(&key, &ca).unwrap();
            std::fs::write(folder.path().join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(folder.path().join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Self(folder)
    }

    /// Where one is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}
