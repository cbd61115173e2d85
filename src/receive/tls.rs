//! TLS on the callback listener.
//!
//! [`load`] makes a server's settings from the configured files: TLS 1.2 and 1.3, HTTP/1.1 as the
//! only protocol, the cryptography passed explicitly so that nothing depends on who else in the
//! process chose one; a client's certificate is required exactly when `tls.client_ca_file` is set.
//! Every [`TlsProblem`] names the key, the path and what to do; none holds key material.
//!
//! A [`Reloader`] notices new files. It compares what the files hold, not their times: a swapped
//! symbolic link (as Kubernetes renews a secret), a copy that keeps the times, two writes within
//! one tick of the file system's clock are all just other bytes. Certificate and key never change
//! in one step, so a pair that does not fit is expected to pass: the old settings stay in force and
//! the files are read again at the next refresh. Connections that are open keep what they began
//! with; so a client authority that was taken away ends new handshakes, not old connections.
//!
//! It has no timer: the caller refreshes it when it pleases. The files are a few kilobytes, read on
//! the calling thread.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{Error, RootCertStore, ServerConfig};

use crate::clock::Timestamp;
use crate::config::settings::Tls;
use crate::receive::not_after::not_after;

/// No certificate bundle is longer; a path that names something else must not fill the memory.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Which of the configured files a problem is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// `tls.cert_file`
    Cert,
    /// `tls.key_file`
    Key,
    /// `tls.client_ca_file`
    ClientCa,
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cert => "tls.cert_file",
            Self::Key => "tls.key_file",
            Self::ClientCa => "tls.client_ca_file",
        })
    }
}

/// Why the files do not make a server's settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {}: {fault}", .path.display())]
pub struct TlsProblem {
    /// The setting.
    pub file: TlsFile,
    /// Its value.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub fault: TlsFault,
}

/// What is wrong with a file, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// The operating system's word.
    #[error("cannot be read ({0}); check the path, and that the user receiptd runs as may read it")]
    Unreadable(String),
    /// A folder, a device, a pipe.
    #[error("is not a file; give the path of a PEM file")]
    NotAFile,
    /// Longer than any bundle.
    #[error("is longer than {} MiB; give the path of a PEM file", FILE_BYTES_MAX >> 20)]
    TooLong,
    /// Damaged, or still being written.
    #[error("is not well-formed PEM ({0}); write the file again, whole")]
    Pem(String),
    /// For example a key where a certificate should be.
    #[error("holds no certificate; expected PEM with BEGIN CERTIFICATE")]
    NoCertificate,
    /// PEM around something else.
    #[error("holds a certificate that cannot be used ({0}); issue it again")]
    BadCertificate(String),
    /// For example a certificate where a key should be.
    #[error(
        "holds no private key; expected PEM with BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or \
         BEGIN EC PRIVATE KEY"
    )]
    NoKey,
    /// Nobody is there to type the pass phrase.
    #[error(
        "holds an encrypted key, which receiptd cannot open; decrypt it with `openssl pkey` and \
         protect the file by its permissions"
    )]
    EncryptedKey,
    /// Damaged or of a kind that is not supported.
    #[error("holds a key that cannot be used ({0}); use RSA of 2048 bits or more, or ECDSA")]
    BadKey(String),
    /// One of the two was renewed and the other not.
    #[error(
        "holds a key that is not the key of the first certificate in tls.cert_file; renew both \
         together, the server's own certificate first"
    )]
    KeyDoesNotFit,
}

/// Reads the files and makes a server's settings from them.
pub fn load(tls: &Tls) -> Result<Arc<ServerConfig>, TlsProblem> {
    Contents::read(tls)?.build(tls)
}

/// The settings in force, renewed when the files change.
#[derive(Debug)]
pub struct Reloader {
    tls: Tls,
    current: Arc<ServerConfig>,
    /// The end of `current`'s own certificate.
    not_after: Option<Timestamp>,
    /// Digest of the files that `current` was made from.
    loaded: [u8; 32],
    /// What the last refresh reported, until a refresh succeeds.
    problem: Option<TlsProblem>,
}

/// What a refresh found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a problem is reported only once"]
pub enum Refreshed {
    /// The files are those in force.
    Unchanged,
    /// The files changed and are in force for new connections.
    Reloaded,
    /// The files cannot be used; the old ones stay in force. Worth a warning.
    Failed(TlsProblem),
    /// As [`Refreshed::Failed`], with a problem that was reported before.
    StillFailing,
}

impl Reloader {
    /// Loads the files for the first time.
    pub fn open(tls: Tls) -> Result<Self, TlsProblem> {
        let contents = Contents::read(&tls)?;
        let current = contents.build(&tls)?;
        let (not_after, loaded) = (contents.not_after(), contents.digest());
        Ok(Self { tls, current, not_after, loaded, problem: None })
    }

    /// The settings for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current)
    }

    /// The last moment of the server's own certificate in force, if it can be read: after it no
    /// sender gets through, and none can tell us.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.not_after
    }

    /// Reads the files again. Whatever happens, [`Reloader::current`] can be used afterwards.
    pub fn refresh(&mut self) -> Refreshed {
        match self.renew() {
            Ok(refreshed) => {
                self.problem = None;
                refreshed
            }
            Err(problem) if self.problem.as_ref() == Some(&problem) => Refreshed::StillFailing,
            Err(problem) => {
                self.problem = Some(problem.clone());
                Refreshed::Failed(problem)
            }
        }
    }

    fn renew(&mut self) -> Result<Refreshed, TlsProblem> {
        let contents = Contents::read(&self.tls)?;
        let digest = contents.digest();
        if digest == self.loaded {
            return Ok(Refreshed::Unchanged);
        }
        self.current = contents.build(&self.tls)?;
        self.not_after = contents.not_after();
        self.loaded = digest;
        Ok(Refreshed::Reloaded)
    }
}

/// What the files hold. Read once, so that what is compared is what is used.
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(tls: &Tls) -> Result<Self, TlsProblem> {
        Ok(Self {
            cert: read(&tls.cert_file).map_err(about(TlsFile::Cert, &tls.cert_file))?,
            key: read(&tls.key_file).map_err(about(TlsFile::Key, &tls.key_file))?,
            client_ca: match &tls.client_ca_file {
                Some(path) => Some(read(path).map_err(about(TlsFile::ClientCa, path))?),
                None => None,
            },
        })
    }

    /// Digest of the digests: a byte that moves from one file to the next is a change.
    fn digest(&self) -> [u8; 32] {
        let mut whole = Sha256::new();
        for file in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()] {
            whole.update(Sha256::digest(file.map_or(&[][..], Vec::as_slice)));
        }
        whole.finalize().into()
    }

    fn not_after(&self) -> Option<Timestamp> {
        not_after(certificates(&self.cert).ok()?.first()?)
    }

    fn build(&self, tls: &Tls) -> Result<Arc<ServerConfig>, TlsProblem> {
        let about_cert = about(TlsFile::Cert, &tls.cert_file);
        let about_key = about(TlsFile::Key, &tls.key_file);
        let chain = certificates(&self.cert).map_err(&about_cert)?;
        let key = private_key(&self.key).map_err(&about_key)?;
        let crypto = Arc::new(aws_lc_rs::default_provider());
        let verifier = match (&self.client_ca, &tls.client_ca_file) {
            (Some(pem), Some(path)) => {
                client_verifier(pem, &crypto).map_err(about(TlsFile::ClientCa, path))?
            }
            _ => WebPkiClientVerifier::no_client_auth(),
        };
        let mut config = ServerConfig::builder_with_provider(crypto)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider has cipher suites for both versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                Error::InvalidCertificate(_) => about_cert(TlsFault::BadCertificate(word(error))),
                Error::InconsistentKeys(_) => about_key(TlsFault::KeyDoesNotFit),
                error => about_key(TlsFault::BadKey(word(error))),
            })?;
        // The senders speak nothing else, and neither do we.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn about(file: TlsFile, path: &Path) -> impl Fn(TlsFault) -> TlsProblem {
    move |fault| TlsProblem { file, path: path.to_path_buf(), fault }
}

fn word(error: impl fmt::Display) -> String {
    error.to_string()
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFault> {
    let unreadable = |error: io::Error| TlsFault::Unreadable(error.to_string());
    // Asked before the file is opened: to open a pipe is to wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(TlsFault::NotAFile);
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let length = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if length as u64 > FILE_BYTES_MAX { Err(TlsFault::TooLong) } else { Ok(bytes) }
}

/// All certificates of a file, at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| malformed(&e))?;
    if chain.is_empty() { Err(TlsFault::NoCertificate) } else { Ok(chain) }
}

/// The first private key of a file.
fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFault> {
    // Both forms say so in clear: the section's name in PKCS#8, a line in its head before that.
    let is_encrypted = pem.windows(b"ENCRYPTED".len()).any(|window| window == b"ENCRYPTED");
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        Err(_) if is_encrypted => Err(TlsFault::EncryptedKey),
        Err(pem::Error::NoItemsFound) => Err(TlsFault::NoKey),
        Err(error) => Err(malformed(&error)),
    }
}

/// The library's words may quote a line of the file, which may be key material: only the kind of
/// damage is told.
fn malformed(error: &pem::Error) -> TlsFault {
    TlsFault::Pem(
        match error {
            pem::Error::MissingSectionEnd { .. } => "a section without an END line",
            pem::Error::IllegalSectionStart { .. } => "a BEGIN line that is not one",
            pem::Error::Base64Decode(_) => "a section that is not base64",
            _ => "unknown damage",
        }
        .to_owned(),
    )
}

fn client_verifier(
    pem: &[u8],
    crypto: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(pem)? {
        authorities
            .add(certificate)
            .map_err(|error| TlsFault::BadCertificate(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(crypto))
        .build()
        .map_err(|error| TlsFault::BadCertificate(error.to_string()))
}
