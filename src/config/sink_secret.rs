//! What a sink is shown to let us in, all of it from files: passwords, tokens, signing secrets,
//! certificates.
//!
//! A secret that every user of the machine may read or replace is refused. One that was written where
//! the name of its file belongs is never quoted, as far as it can be told.

use std::path::{Path, PathBuf};

use data_encoding::BASE64;

use super::check::{self, CERTIFICATES, KEY};
use super::credentials::{SECRET_BYTES_MAX, secret_of};
use super::files::{self, Fault};
use super::report::{At, Checked, Found, Report};
use super::section::{Section, quoted};
#[cfg(any(
    feature = "sink-nats",
    feature = "sink-amqp",
    feature = "sink-redis",
    feature = "sink-postgres"
))]
use super::settings::Login;
use super::settings::{ClientTls, Secret};

/// What a signing secret of Standard Webhooks begins with.
const WEBHOOK_PREFIX: &str = "whsec_";

/// Bytes of a signing secret, as Standard Webhooks says.
const WEBHOOK_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The secret in the file that a key names, if the key is there.
pub(super) fn secret(
    section: &mut Section<'_>,
    name: &'static str,
    report: &mut Report,
) -> Checked<Option<Found<Secret>>> {
    let Some(file) = section.quiet_text(name, report)? else { return Ok(None) };
    let value = from_file(&file, report)?;
    report.effective(&file.at, file.value.as_str());
    Ok(Some(Found { value, at: file.at }))
}

/// The secret in a file.
pub(super) fn from_file(file: &Found<String>, report: &mut Report) -> Checked<Secret> {
    if file.value.starts_with(WEBHOOK_PREFIX) {
        let hint = "write the secret into a file that only this user may read, and name that file";
        let found = "a secret where the name of its file belongs";
        return Err(report.problem_hinted(&file.at, found, "a file", Some(hint.into())));
    }
    let read = files::read_secret(Path::new(&file.value), SECRET_BYTES_MAX);
    if let Err(fault @ Fault::ForEveryone(_)) = &read {
        return Err(for_everyone(file, fault, report));
    }
    secret_of(read, file, report)
}

fn for_everyone(
    file: &Found<String>,
    fault: &Fault,
    report: &mut Report,
) -> super::report::Reported {
    let found = format!("{}: {fault}", quoted(&file.value));
    let hint = "`chmod o= FILE`; in a container mount the secret with mode 0400 or 0440";
    report.problem_hinted(
        &file.at,
        found,
        "a secret only its owner and group may read",
        Some(hint.into()),
    )
}

/// The signing secrets in files, decoded, in the order in which they sign.
pub(super) fn webhook_secrets(
    section: &mut Section<'_>,
    name: &'static str,
    report: &mut Report,
) -> Checked<Vec<Secret>> {
    let at = section.at_key(name);
    let Some(files) = section.quiet_texts(name, report)? else { return Ok(Vec::new()) };
    let read: Vec<Checked<Secret>> =
        files.iter().map(|file| webhook_secret(file, report)).collect();
    let secrets: Vec<Secret> = read.into_iter().collect::<Checked<_>>()?;
    for (index, secret) in secrets.iter().enumerate() {
        if secrets[..index].contains(secret) {
            let file = quoted(&files[index].value);
            report.warning(&files[index].at, format!("{file} holds the same secret as another"));
        }
    }
    let names: Vec<&str> = files.iter().map(|file| file.value.as_str()).collect();
    report.effective(&at, names);
    Ok(secrets)
}

fn webhook_secret(file: &Found<String>, report: &mut Report) -> Checked<Secret> {
    let Secret(text) = from_file(file, report)?;
    let decoded = text.strip_prefix(WEBHOOK_PREFIX.as_bytes()).ok_or("does not begin with whsec_");
    let decoded =
        decoded.and_then(|rest| BASE64.decode(rest).map_err(|_| "is not base64 after whsec_"));
    let fault = match decoded {
        Ok(bytes) if WEBHOOK_BYTES.contains(&bytes.len()) => return Ok(Secret(bytes)),
        Ok(bytes) => format!("holds {} bytes", bytes.len()),
        Err(fault) => fault.to_owned(),
    };
    let found = format!("{}: it {fault}", quoted(&file.value));
    let expected = "whsec_ and 24 to 64 random bytes in base64, on one line";
    let hint = "printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\" makes one";
    Err(report.problem_hinted(&file.at, found, expected, Some(hint.into())))
}

/// User and password, if either is there. `usual` is the user where only a password is.
#[cfg(any(
    feature = "sink-nats",
    feature = "sink-amqp",
    feature = "sink-redis",
    feature = "sink-postgres"
))]
pub(super) fn login(
    section: &mut Section<'_>,
    usual: Option<&str>,
    report: &mut Report,
) -> Checked<Option<Login>> {
    let at = section.at_key("user");
    let user = section.text("user", report);
    let password = secret(section, "password_file", report);
    let user = match user? {
        Some(user) => Some(user.value),
        None if password.as_ref().is_ok_and(Option::is_none) => return Ok(None),
        None => usual.map(str::to_owned),
    };
    let Some(user) = user else {
        let expected = "the user to whom the password of password_file belongs";
        return Err(report.problem(&at, "nothing", expected));
    };
    let Some(password) = password? else {
        let at = section.at_key("password_file");
        return Err(report.problem(&at, "nothing", "a file with the password of `user`"));
    };
    Ok(Some(Login { user, password: password.value }))
}

/// User and password, which must be there.
#[cfg(any(feature = "sink-amqp", feature = "sink-postgres"))]
pub(super) fn required_login(section: &mut Section<'_>, report: &mut Report) -> Checked<Login> {
    let at = section.at_key("user");
    login(section, None, report)?
        .ok_or_else(|| report.problem(&at, "nothing", "user and password_file"))
}

/// How TLS is spoken. `is_tls` is none while that is in doubt; `how` says how it would be asked for.
pub(super) fn tls(
    section: &mut Section<'_>,
    is_tls: Option<bool>,
    how: &str,
    report: &mut Report,
) -> Checked<ClientTls> {
    let at_key = section.at_key("key_file");
    let at_cert = section.at_key("cert_file");
    let ca_file = pem(section, "ca_file", CERTIFICATES, report);
    let cert_file = pem(section, "cert_file", CERTIFICATES, report);
    let key_file = pem(section, "key_file", KEY, report);
    let (ca_file, cert_file, key_file) = (ca_file?, cert_file?, key_file?);
    let named = [("ca_file", &ca_file), ("cert_file", &cert_file), ("key_file", &key_file)];
    if is_tls == Some(false)
        && let Some((name, _)) = named.into_iter().find(|(_, file)| file.is_some())
    {
        let at = section.at_key(name);
        return Err(report.problem(&at, "no TLS", format!("only with TLS: {how}")));
    }
    let identity = match (cert_file, key_file) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => return Err(other_half(&at_key, "cert_file", report)),
        (None, Some(_)) => return Err(other_half(&at_cert, "key_file", report)),
    };
    Ok(ClientTls { ca_file, identity })
}

fn other_half(at: &At, given: &str, report: &mut Report) -> super::report::Reported {
    report.problem(at, "nothing", format!("a PEM file, because {given} is there"))
}

/// A PEM file; one with a key must be no one else's.
fn pem(
    section: &mut Section<'_>,
    name: &'static str,
    expected: &'static str,
    report: &mut Report,
) -> Checked<Option<PathBuf>> {
    let Some(file) = section.text(name, report)? else { return Ok(None) };
    if expected == KEY
        && let Err(fault @ Fault::ForEveryone(_)) =
            files::read_secret(Path::new(&file.value), SECRET_BYTES_MAX)
    {
        return Err(for_everyone(&file, &fault, report));
    }
    check::pem(&file, expected, report).map(Some)
}
