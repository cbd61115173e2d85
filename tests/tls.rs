//! TLS on the callback listener: what the files may hold, how they are renewed, and who gets
//! through a handshake on a real socket.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use receiptd::config::settings::Tls;
use receiptd::receive::tls::{Refreshed, Reloader, TlsFault, TlsFile, TlsProblem, load};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// A certificate and its key, in PEM.
struct Identity {
    cert: String,
    key: String,
}

/// A server that vouches for itself.
fn server() -> Identity {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    Identity { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

/// An authority for clients.
struct Authority {
    cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap().pem();
        Self { cert, issuer: Issuer::new(params, key) }
    }

    fn issue(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Identity { cert, key: key.serialize_pem() }
    }
}

/// A folder with the files that the settings name.
struct Files {
    folder: TempDir,
    tls: Tls,
}

impl Files {
    fn holding(identity: &Identity) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = Tls {
            cert_file: folder.path().join("tls.crt"),
            key_file: folder.path().join("tls.key"),
            client_ca_file: None,
        };
        let files = Self { folder, tls };
        files.write_cert(&identity.cert);
        files.write_key(&identity.key);
        files
    }

    fn with_client_ca(mut self, pem: &str) -> Self {
        let path = self.folder.path().join("ca.crt");
        fs::write(&path, pem).unwrap();
        self.tls.client_ca_file = Some(path);
        self
    }

    fn write_cert(&self, pem: impl AsRef<[u8]>) {
        fs::write(&self.tls.cert_file, pem).unwrap();
    }

    fn write_key(&self, pem: impl AsRef<[u8]>) {
        fs::write(&self.tls.key_file, pem).unwrap();
    }

    fn problem(&self) -> TlsProblem {
        load(&self.tls).expect_err("the files are not usable")
    }
}

fn pem(section: &str, base64: &str) -> String {
    format!("-----BEGIN {section}-----\n{base64}\n-----END {section}-----\n")
}

mod problems {
    use super::*;

    /// Each kind of damage, made to one of the two files of a good pair.
    #[test]
    fn a_problem_names_the_setting_the_path_and_what_to_do() {
        let (good, other) = (server(), server());
        let legacy = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA";
        let cut = &good.cert[..good.cert.len() / 2];
        for (file, content, expected) in [
            (TlsFile::Cert, String::new(), "holds no certificate"),
            (TlsFile::Cert, good.key.clone(), "holds no certificate"),
            (TlsFile::Cert, cut.to_owned(), "not well-formed PEM (a section without an END line)"),
            (TlsFile::Cert, pem("CERTIFICATE", "%%%"), "not well-formed PEM"),
            (TlsFile::Cert, pem("CERTIFICATE", "AAAA"), "a certificate that cannot be used"),
            (TlsFile::Cert, "A".repeat((4 << 20) + 1), "longer than 4 MiB"),
            (TlsFile::Key, String::new(), "holds no private key"),
            (TlsFile::Key, good.cert.clone(), "holds no private key"),
            (TlsFile::Key, pem("ENCRYPTED PRIVATE KEY", "AAAA"), "openssl pkey"),
            (TlsFile::Key, pem("RSA PRIVATE KEY", legacy), "openssl pkey"),
            (TlsFile::Key, pem("PRIVATE KEY", "AAAA"), "a key that cannot be used"),
            (TlsFile::Key, other.key.clone(), "not the key of the first certificate"),
        ] {
            let files = Files::holding(&good);
            let (path, setting) = match file {
                TlsFile::Cert => (&files.tls.cert_file, "tls.cert_file"),
                _ => (&files.tls.key_file, "tls.key_file"),
            };
            fs::write(path, &content).unwrap();
            let problem = files.problem();
            assert_eq!((problem.file, &problem.path), (file, path), "{expected}");
            let text = problem.to_string();
            let start = format!("{setting}: {}: ", path.display());
            assert!(text.starts_with(&start) && text.contains(expected), "{expected}: {text}");
        }
    }

    #[test]
    fn a_path_that_leads_to_no_file_is_told_apart_from_a_bad_file() {
        let mut files = Files::holding(&server());
        fs::remove_file(&files.tls.key_file).unwrap();
        let problem = files.problem();
        assert_eq!(problem.file, TlsFile::Key);
        assert!(matches!(problem.fault, TlsFault::Unreadable(_)), "{problem}");
        files.tls.cert_file = files.folder.path().to_path_buf();
        assert_eq!(files.problem().fault, TlsFault::NotAFile);
    }

    #[test]
    fn a_client_authority_without_a_usable_certificate_is_a_problem_of_its_own() {
        let good = server();
        for (content, expected) in [
            (String::new(), "holds no certificate"),
            (good.key.clone(), "holds no certificate"),
            (pem("CERTIFICATE", "AAAA"), "a certificate that cannot be used"),
        ] {
            let problem = Files::holding(&good).with_client_ca(&content).problem();
            assert_eq!(problem.file, TlsFile::ClientCa, "{problem}");
            assert!(problem.to_string().contains(expected), "{problem}");
        }
    }

    #[test]
    fn no_problem_quotes_a_key() {
        let good = server();
        let canary = "c2VjcmV0a2V5";
        for content in [
            format!("-----BEGIN PRIVATE KEY-----\n{canary}\n"),
            format!("-----BEGIN PRIVATE KEY {canary}\n"),
            pem("PRIVATE KEY", &format!("%{canary}")),
            pem("PRIVATE KEY", canary),
        ] {
            let files = Files::holding(&good);
            files.write_key(&content);
            let problem = files.problem();
            assert!(!format!("{problem} {problem:?}").contains(canary), "{problem:?}");
        }
    }

    #[test]
    fn one_file_may_hold_both_the_chain_and_the_key() {
        let good = server();
        let mut files = Files::holding(&good);
        files.write_cert(format!("{}{}", good.key, good.cert));
        files.tls.key_file = files.tls.cert_file.clone();
        load(&files.tls).unwrap();
    }
}

mod renewal {
    use super::*;

    fn open(files: &Files) -> Reloader {
        Reloader::open(files.tls.clone()).unwrap()
    }

    #[test]
    fn files_that_did_not_change_leave_the_settings_alone() {
        let identity = server();
        let files = Files::holding(&identity);
        let mut reloader = open(&files);
        let before = reloader.current();
        files.write_cert(&identity.cert);
        assert_eq!(reloader.refresh(), Refreshed::Unchanged);
        assert!(Arc::ptr_eq(&before, &reloader.current()));
    }

    #[tokio::test]
    async fn a_pair_that_does_not_fit_yet_keeps_the_old_one_until_it_does() {
        let (old, new) = (server(), server());
        let files = Files::holding(&old);
        let mut reloader = open(&files);
        files.write_cert(&new.cert);
        let Refreshed::Failed(problem) = reloader.refresh() else { panic!("half a pair") };
        assert_eq!(problem.fault, TlsFault::KeyDoesNotFit);
        assert_eq!(reloader.refresh(), Refreshed::StillFailing);
        trusting(&old).shake(reloader.current()).await.unwrap();
        files.write_key(&new.key);
        assert_eq!(reloader.refresh(), Refreshed::Reloaded);
        assert_eq!(reloader.refresh(), Refreshed::Unchanged);
        trusting(&new).shake(reloader.current()).await.unwrap();
        trusting(&old).shake(reloader.current()).await.unwrap_err();
    }

    #[test]
    fn the_end_of_the_certificate_in_force_is_told() {
        let until = |year| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 2, 3);
            Identity { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
        };
        let (old, new) = (until(2027), until(2028));
        let files = Files::holding(&old);
        let mut reloader = open(&files);
        let end = |text: &str| Some(text.parse().unwrap());
        assert_eq!(reloader.not_after(), end("2027-02-03T00:00:00Z"));
        files.write_cert(&new.cert);
        assert!(matches!(reloader.refresh(), Refreshed::Failed(_)));
        assert_eq!(reloader.not_after(), end("2027-02-03T00:00:00Z"));
        files.write_key(&new.key);
        assert_eq!(reloader.refresh(), Refreshed::Reloaded);
        assert_eq!(reloader.not_after(), end("2028-02-03T00:00:00Z"));
    }

    #[test]
    fn each_distinct_problem_is_reported_once_and_again_after_it_was_solved() {
        let identity = server();
        let files = Files::holding(&identity);
        let mut reloader = open(&files);
        let fault = |refreshed| match refreshed {
            Refreshed::Failed(problem) => problem.fault,
            other => panic!("{other:?}"),
        };
        files.write_key("");
        assert_eq!(fault(reloader.refresh()), TlsFault::NoKey);
        assert_eq!(reloader.refresh(), Refreshed::StillFailing);
        fs::remove_file(&files.tls.key_file).unwrap();
        assert!(matches!(fault(reloader.refresh()), TlsFault::Unreadable(_)));
        assert_eq!(reloader.refresh(), Refreshed::StillFailing);
        files.write_key(&identity.key);
        assert_eq!(reloader.refresh(), Refreshed::Unchanged, "the files in force are back");
        fs::remove_file(&files.tls.key_file).unwrap();
        assert!(matches!(fault(reloader.refresh()), TlsFault::Unreadable(_)), "as last before");
    }

    #[tokio::test]
    async fn a_swapped_symbolic_link_is_a_change() {
        let (old, new) = (server(), server());
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| -> PathBuf { folder.path().join(name) };
        let fill = |path: &Path, identity: &Identity| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("tls.crt"), &identity.cert).unwrap();
            fs::write(path.join("tls.key"), &identity.key).unwrap();
        };
        fill(&at("..1"), &old);
        fill(&at("..2"), &new);
        symlink("..1", at("..data")).unwrap();
        symlink("..data/tls.crt", at("tls.crt")).unwrap();
        symlink("..data/tls.key", at("tls.key")).unwrap();
        let tls = Tls { cert_file: at("tls.crt"), key_file: at("tls.key"), client_ca_file: None };
        let mut reloader = Reloader::open(tls).unwrap();
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(reloader.refresh(), Refreshed::Reloaded);
        trusting(&new).shake(reloader.current()).await.unwrap();
    }

    #[tokio::test]
    async fn a_changed_client_authority_is_a_change() {
        let (old, new) = (Authority::new(), Authority::new());
        let identity = server();
        let files = Files::holding(&identity).with_client_ca(&old.cert);
        let mut reloader = open(&files);
        fs::write(files.tls.client_ca_file.as_ref().unwrap(), &new.cert).unwrap();
        assert_eq!(reloader.refresh(), Refreshed::Reloaded);
        trusting(&identity).showing(new.issue()).shake(reloader.current()).await.unwrap();
        trusting(&identity).showing(old.issue()).shake(reloader.current()).await.unwrap_err();
    }
}

/// A client: whom it trusts, what it shows and what it speaks.
struct Client<'a> {
    trusted: &'a Identity,
    shown: Option<Identity>,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<&'a str>,
}

fn trusting(trusted: &Identity) -> Client<'_> {
    Client { trusted, shown: None, versions: vec![&TLS13, &TLS12], alpn: vec![] }
}

/// What was agreed on in a handshake.
#[derive(Debug)]
struct Agreed {
    version: Option<ProtocolVersion>,
    alpn: Option<Vec<u8>>,
}

impl Client<'_> {
    fn showing(self, identity: Identity) -> Self {
        Self { shown: Some(identity), ..self }
    }

    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.trusted.cert.as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.shown {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let cert = CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }

    /// Shakes hands over a loopback socket and has one byte sent back, because in TLS 1.3 a client
    /// learns only then that its certificate was refused.
    async fn shake(self, server: Arc<ServerConfig>) -> std::io::Result<Agreed> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(server).accept(socket).await?;
            stream.write_all(b"!").await?;
            stream.shutdown().await
        };
        let call = async {
            let socket = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let connector = TlsConnector::from(Arc::new(self.config()));
            let mut stream = connector.connect(name, socket).await?;
            stream.read_u8().await?;
            let (_, session) = stream.get_ref();
            let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
            std::io::Result::Ok(Agreed { version: session.protocol_version(), alpn })
        };
        let (served, agreed) = tokio::join!(serve, call);
        served.and(agreed)
    }
}

mod handshake {
    use super::*;

    #[tokio::test]
    async fn tls_1_2_and_1_3_are_spoken() {
        let identity = server();
        let config = load(&Files::holding(&identity).tls).unwrap();
        for (version, expected) in
            [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
        {
            let client = Client { versions: vec![version], ..trusting(&identity) };
            let agreed = client.shake(Arc::clone(&config)).await.unwrap();
            assert_eq!(agreed.version, Some(expected));
        }
    }

    #[tokio::test]
    async fn http_1_1_is_the_only_protocol_agreed_on() {
        let identity = server();
        let config = load(&Files::holding(&identity).tls).unwrap();
        for (offered, expected) in [
            (vec![], Some(None)),
            (vec!["h2", "http/1.1"], Some(Some("http/1.1"))),
            (vec!["h2"], None),
        ] {
            let client = Client { alpn: offered.clone(), ..trusting(&identity) };
            let agreed = client.shake(Arc::clone(&config)).await.ok().map(|agreed| agreed.alpn);
            let expected = expected.map(|name| name.map(|name| name.as_bytes().to_vec()));
            assert_eq!(agreed, expected, "{offered:?}");
        }
    }

    #[tokio::test]
    async fn with_a_client_authority_only_its_clients_get_through() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let identity = server();
        let files = Files::holding(&identity).with_client_ca(&ours.cert);
        let config = load(&files.tls).unwrap();
        for versions in [vec![&TLS12], vec![&TLS13]] {
            let client = || Client { versions: versions.clone(), ..trusting(&identity) };
            client().showing(ours.issue()).shake(Arc::clone(&config)).await.unwrap();
            client().shake(Arc::clone(&config)).await.unwrap_err();
            client().showing(theirs.issue()).shake(Arc::clone(&config)).await.unwrap_err();
            client().showing(server()).shake(Arc::clone(&config)).await.unwrap_err();
        }
    }

    #[tokio::test]
    async fn every_authority_of_a_bundle_is_trusted() {
        let (first, second) = (Authority::new(), Authority::new());
        let identity = server();
        let bundle = format!("{}{}", first.cert, second.cert);
        let config = load(&Files::holding(&identity).with_client_ca(&bundle).tls).unwrap();
        for authority in [first, second] {
            let client = trusting(&identity).showing(authority.issue());
            client.shake(Arc::clone(&config)).await.unwrap();
        }
    }
}
