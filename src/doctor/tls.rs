//! The way there: https, whose certificate, and for how long yet.
//!
//! The certificate is looked at on a connection of its own that accepts any and sends nothing, so
//! that each thing wrong with it can be told apart; all other connections accept only a good one.
//! Its days are not read from it but asked of the verifier, by winding the clock: that covers the
//! whole chain, as the senders' own check does.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error,
    ProtocolVersion, RootCertStore, SignatureScheme,
};

use super::findings::{Check, Finding, Severity};
use super::visit::Visit;
use crate::client::{self, ClientError, Target};
use crate::clock::Timestamp;

/// Is it https at all?
pub static HTTPS: Check = Check {
    name: "https",
    sends: "nothing: the URL was read",
    why: "The set-up forms of the Notify family take only https URLs.",
    mend: "Put a certificate on the receiver or on a proxy in front of it, and give the https URL.",
    is_gate: false,
};

/// Does a trusted authority vouch for it?
pub static CHAIN: Check = Check {
    name: "tls-chain",
    sends: "a TLS handshake, and nothing over it",
    why: "A sender breaks off the handshake if it cannot follow the chain to an authority it knows.",
    mend: "Serve the whole chain, the certificate first and every intermediate after it; of a private \
           authority the public platforms know nothing. To test with one, name it with --ca-file.",
    is_gate: true,
};

/// Is it for this host?
pub static HOST: Check = Check {
    name: "tls-host",
    sends: "a TLS handshake, and nothing over it",
    why: "A sender breaks off the handshake if the certificate does not name the host of the URL.",
    mend: "Have the certificate issued with the host of the URL among its subject alternative names, \
           or give the platform a URL with a host that stands there.",
    is_gate: true,
};

/// Is it valid, and will it be?
pub static EXPIRY: Check = Check {
    name: "tls-expiry",
    sends: "a TLS handshake, and nothing over it",
    why: "From the moment a certificate in the chain expires, every callback fails before it is sent.",
    mend: "Renew the certificate, have the server load it, and let something renew it by itself from \
           now on.",
    is_gate: true,
};

/// Which TLS is spoken?
pub static VERSION: Check = Check {
    name: "tls-version",
    sends: "a TLS handshake, and nothing over it",
    why: "The senders' TLS libraries speak 1.2 and 1.3 and nothing older.",
    mend: "Allow TLS 1.2 and 1.3, with ciphers of today.",
    is_gate: true,
};

/// Below that many days a certificate is about to expire: what renews itself has done so by then.
const DAYS_MIN: i64 = 21;

const DAY: i64 = 24 * 3600;

/// Further ahead than any certificate: 9999-12-31.
const FAR: i64 = 253_402_214_400;

/// Makes all checks of this theme.
pub async fn run(visit: &Visit) -> Result<Vec<Finding>, ClientError> {
    let target = visit.target();
    if !target.is_https {
        reach(visit).await?;
        let mut findings = vec![https(target)];
        let others = [&CHAIN, &HOST, &EXPIRY, &VERSION];
        findings.extend(others.map(|check| Finding::skipped(check, "the URL is not https")));
        return Ok(findings);
    }
    let roots = client::roots(visit.question.ca_file.as_deref())?;
    let name = target.server_name()?;
    let mut findings = vec![https(target)];
    match look(visit, &name).await? {
        Err(error) => {
            let check = if is_about_version(&error) { &VERSION } else { &CHAIN };
            findings.push(lost(check, format!("no handshake: {error}")));
        }
        Ok(Look { chain, version }) => {
            let chain = Chain { certificates: chain, roots };
            let now = visit.question.now.unix_micros() / 1_000_000;
            findings.extend(chain.findings(&name, now));
            findings.push(Finding::new(&VERSION, Severity::Ok, version_word(version), ""));
        }
    }
    Ok(findings)
}

/// A target on this machine may do without: nobody else listens.
fn https(target: &Target) -> Finding {
    match (target.is_https, is_loopback(target)) {
        (true, _) => Finding::new(&HTTPS, Severity::Ok, "the URL is https", ""),
        (false, true) => {
            let told = "the URL is http, on this machine; the platforms will want https in front";
            Finding::new(&HTTPS, Severity::Ok, told, "")
        }
        (false, false) => {
            let would = "refuse the URL in its set-up form, so that no callback is ever sent";
            Finding::new(&HTTPS, Severity::Lost, "the URL is http", would)
        }
    }
}

/// Whether a URL leads to this machine, by what is written in it.
pub fn is_loopback(target: &Target) -> bool {
    let host = target.host.trim_end_matches('.').to_ascii_lowercase();
    let is_address = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    is_address || host == "localhost" || host.ends_with(".localhost")
}

/// What was seen in a handshake.
struct Look {
    chain: Vec<CertificateDer<'static>>,
    version: Option<ProtocolVersion>,
}

/// Whether anybody listens there.
async fn reach(visit: &Visit) -> Result<TcpStream, ClientError> {
    let target = visit.target();
    let refused =
        |problem: String| ClientError::Connect { authority: target.authority.clone(), problem };
    let limit = visit.rules.connect_max;
    match timeout(limit, TcpStream::connect((target.host.as_str(), target.port))).await {
        Ok(connected) => connected.map_err(|error| refused(error.to_string())),
        Err(_) => Err(refused(format!("no connection within {} ms", limit.as_millis()))),
    }
}

/// Shakes hands with whomever is there. The outer error: nobody is.
async fn look(visit: &Visit, name: &ServerName<'static>) -> Result<io::Result<Look>, ClientError> {
    let socket = reach(visit).await?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let looker = Arc::new(Looker::of(&provider));
    let seen = Arc::clone(&looker);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ClientError::Trust(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(looker)
        .with_no_client_auth();
    let shake = TlsConnector::from(Arc::new(config)).connect(name.clone(), socket);
    let limit = visit.rules.connect_max;
    Ok(match timeout(limit, shake).await {
        Err(_) => Err(io::Error::other(format!("none within {} ms", limit.as_millis()))),
        Ok(Err(error)) => Err(error),
        Ok(Ok(stream)) => {
            let version = stream.get_ref().1.protocol_version();
            let chain = seen.chain.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Ok(Look { chain, version })
        }
    })
}

/// Whether there was no handshake for want of a version, or a cipher, that both sides speak.
fn is_about_version(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    let alerts = [AlertDescription::ProtocolVersion, AlertDescription::HandshakeFailure];
    match error {
        Some(Error::AlertReceived(alert)) => alerts.contains(alert),
        Some(Error::PeerIncompatible(_)) => true,
        _ => false,
    }
}

fn version_word(version: Option<ProtocolVersion>) -> &'static str {
    match version {
        Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "a version that is neither 1.2 nor 1.3",
    }
}

/// Keeps the chain for later, and lets anybody through. It guards nothing: nothing is sent.
#[derive(Debug)]
struct Looker {
    algorithms: WebPkiSupportedAlgorithms,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl Looker {
    fn of(provider: &CryptoProvider) -> Self {
        let algorithms = provider.signature_verification_algorithms;
        Self { algorithms, chain: Mutex::default() }
    }
}

impl ServerCertVerifier for Looker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = [end_entity].into_iter().chain(intermediates);
        let chain = chain.map(|certificate| certificate.clone().into_owned()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What the server showed, and whom we trust.
struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    roots: RootCertStore,
}

impl Chain {
    /// Chain, host and expiry; `now` in seconds since 1970.
    fn findings(&self, name: &ServerName<'_>, now: i64) -> [Finding; 3] {
        let Some(first) = self.certificates.first() else {
            return [&CHAIN, &HOST, &EXPIRY].map(|check| lost(check, "no certificate"));
        };
        let parsed = match ParsedCertificate::try_from(first) {
            Ok(parsed) => parsed,
            Err(error) => {
                return [&CHAIN, &HOST, &EXPIRY].map(|check| lost(check, error.to_string()));
            }
        };
        let host = match verify_server_name(&parsed, name) {
            Ok(()) => good(&HOST, format!("a certificate for {}", name.to_str())),
            Err(error) => lost(&HOST, error.to_string()),
        };
        [self.chain(&parsed, now), host, self.expiry(&parsed, now)]
    }

    fn verify(&self, parsed: &ParsedCertificate<'_>, at: i64) -> Result<(), Error> {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at).unwrap_or(0)));
        let intermediates = self.certificates.get(1..).unwrap_or_default();
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            parsed,
            &self.roots,
            intermediates,
            at,
            algorithms,
        )
    }

    /// Whether it leads to an authority, whatever the day.
    fn chain(&self, parsed: &ParsedCertificate<'_>, now: i64) -> Finding {
        let length = self.certificates.len();
        match self.verify(parsed, now).map_err(|error| time_of(&error).ok_or(error)) {
            Ok(()) => good(&CHAIN, format!("{length} in the chain, to an authority we trust")),
            // On a day on which it was valid, what else is wrong with it shows.
            Err(Ok(valid_at)) => match self.verify(parsed, valid_at) {
                Err(error) if time_of(&error).is_none() => lost(&CHAIN, error.to_string()),
                _ => good(&CHAIN, format!("{length} in the chain, but for their dates good")),
            },
            Err(Err(error)) => lost(&CHAIN, error.to_string()),
        }
    }

    fn expiry(&self, parsed: &ParsedCertificate<'_>, now: i64) -> Finding {
        if let Err(error) = self.verify(parsed, now) {
            return match time_of(&error) {
                Some(at) if at < now => lost(&EXPIRY, format!("expired on {}", day(at))),
                Some(at) => lost(&EXPIRY, format!("not valid before {}", day(at))),
                None => Finding::skipped(&EXPIRY, "the chain is not good"),
            };
        }
        let soon = self.verify(parsed, now + DAYS_MIN * DAY).err().as_ref().and_then(time_of);
        let last = soon.or_else(|| self.verify(parsed, FAR).err().as_ref().and_then(time_of));
        let Some(last) = last else { return good(&EXPIRY, "valid without an end".to_owned()) };
        let told = format!("valid until {}, {} days more", day(last), (last - now) / DAY);
        if soon.is_some() {
            let would = "break off every handshake from that day on";
            return Finding::new(&EXPIRY, Severity::Warn, told, would);
        }
        good(&EXPIRY, told)
    }
}

fn good(check: &'static Check, told: impl Into<String>) -> Finding {
    Finding::new(check, Severity::Ok, told, "")
}

fn lost(check: &'static Check, told: impl Into<String>) -> Finding {
    let would = "break off the handshake each time, until every retry has failed: all callbacks are \
                 lost";
    Finding::new(check, Severity::Lost, told, would)
}

/// The last second of a certificate that has expired, or the first of one that is not valid yet.
fn time_of(error: &Error) -> Option<i64> {
    let Error::InvalidCertificate(error) = error else { return None };
    let time = match error {
        CertificateError::ExpiredContext { not_after, .. } => not_after,
        CertificateError::NotValidYetContext { not_before, .. } => not_before,
        _ => return None,
    };
    i64::try_from(time.as_secs()).ok()
}

fn day(seconds: i64) -> String {
    Timestamp::from_unix_micros(seconds.saturating_mul(1_000_000)).date().to_string()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// 2026-11-22.
    const NOW: i64 = 1_795_305_600;

    fn severities(hosts: &[&str], from: (i32, u8, u8), to: (i32, u8, u8)) -> [Severity; 3] {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let chain = Chain { certificates: vec![certificate], roots };
        let name = ServerName::try_from("receiver.example").unwrap();
        chain.findings(&name, NOW).map(|finding| finding.severity)
    }

    #[test]
    fn each_fault_of_a_certificate_is_told_apart() {
        use Severity::{Lost, Ok, Warn};
        let (host, other) = (&["receiver.example"][..], &["other.example"][..]);
        let (past, future) = ((2020, 1, 1), (2030, 1, 1));
        for (hosts, from, to, expected) in [
            (host, past, future, [Ok, Ok, Ok]),
            (other, past, future, [Ok, Lost, Ok]),
            (host, past, (2026, 11, 21), [Ok, Ok, Lost]),
            (other, past, (2026, 11, 21), [Ok, Lost, Lost]),
            (host, (2027, 1, 1), future, [Ok, Ok, Lost]),
            (host, past, (2026, 12, 12), [Ok, Ok, Warn]),
            (host, past, (2026, 12, 14), [Ok, Ok, Ok]),
        ] {
            assert_eq!(severities(hosts, from, to), expected, "{hosts:?} {from:?} {to:?}");
        }
    }

    #[test]
    fn a_certificate_nobody_vouches_for_has_no_good_chain_whatever_its_dates() {
        for to in [(2030, 1, 1), (2026, 11, 1)] {
            let mut params = CertificateParams::new(vec!["receiver.example".to_owned()]).unwrap();
            params.not_after = date_time_ymd(to.0, to.1, to.2);
            let of = |params: CertificateParams| {
                params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
            };
            let mut roots = RootCertStore::empty();
            roots.add(of(CertificateParams::new(vec!["ca.example".to_owned()]).unwrap())).unwrap();
            let chain = Chain { certificates: vec![of(params)], roots };
            let name = ServerName::try_from("receiver.example").unwrap();
            let [chain, host, _] = chain.findings(&name, NOW);
            assert_eq!((chain.severity, host.severity), (Severity::Lost, Severity::Ok));
        }
    }

    #[test]
    fn only_this_machine_may_do_without_https() {
        for (url, is_ours, expected) in [
            ("http://127.0.0.1:8080/", true, Severity::Ok),
            ("http://[::1]/", true, Severity::Ok),
            ("http://LOCALHOST./", true, Severity::Ok),
            ("http://10.0.0.1/", false, Severity::Lost),
            ("http://localhost.example/", false, Severity::Lost),
            ("https://receiver.example/", false, Severity::Ok),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((is_loopback(&target), https(&target).severity), (is_ours, expected));
        }
    }
}
