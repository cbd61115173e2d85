//! The sqs sink: a queue, its region, and whose keys sign for it.

use super::report::{At, Checked, Found, Report};
use super::section::{Section, quoted};
use super::settings::{Endpoint, Login, SqsSink};
use super::sink_secret;
use super::sink_url::{Scheme, endpoint};

const SCHEMES: [Scheme; 2] = [
    Scheme { word: "https", is_tls: true, port: 443 },
    Scheme { word: "http", is_tls: false, port: 80 },
];

const LOGIN: &str = "keys belong in access_key_id and secret_access_key_file";

/// Reads an sqs sink.
pub(super) fn read(section: &mut Section<'_>, report: &mut Report) -> Checked<SqsSink> {
    let expected = "the URL of a queue, such as \
                    \"https://sqs.ca-central-1.amazonaws.com/123456789012/receipts.fifo\"";
    let at = section.at_key("queue_url");
    let queue = url(section, "queue_url", expected, report).and_then(|queue| {
        let queue = queue.ok_or_else(|| report.problem(&at, "nothing", expected))?;
        has_queue(&queue, &at, expected, report)?;
        Ok(queue)
    });
    let endpoint = url(section, "endpoint_url", "a URL without a path", report);
    let endpoint =
        endpoint.and_then(|url| url.map(|url| without_path(section, url, report)).transpose());
    let region = region(section, queue.as_ref().map(|(_, at)| at).map_err(|e| *e), report);
    let login = login(section, report);
    let (queue, endpoint) = (queue?, endpoint?);
    if endpoint.is_none() && !is_of_aws(&queue.1.host) {
        let found = format!("nothing, and the queue is at {}", quoted(&queue.1.host));
        let expected = "the address of the service, because that is none of AWS";
        let at = section.at_key("endpoint_url");
        return Err(report.problem(&at, found, expected));
    }
    Ok(SqsSink { queue_url: queue.0, region: region?, endpoint_url: endpoint, login: login? })
}

/// A URL as it was written, and what it says.
fn url(
    section: &mut Section<'_>,
    name: &'static str,
    expected: &str,
    report: &mut Report,
) -> Checked<Option<(String, Endpoint)>> {
    let Some(url) = section.quiet_text(name, report)? else { return Ok(None) };
    let endpoint = endpoint(&url, &SCHEMES, expected, LOGIN, report)?;
    report.effective(&url.at, url.value.as_str());
    Ok(Some((url.value, endpoint)))
}

/// The account and the name of the queue follow the host.
fn has_queue(
    (url, endpoint): &(String, Endpoint),
    at: &At,
    expected: &str,
    report: &mut Report,
) -> Checked<()> {
    let mut parts = endpoint.path.split('/');
    let is_queue = match (parts.next(), parts.next(), parts.next()) {
        (Some(account), Some(name), None) => {
            let name = name.strip_suffix(".fifo").unwrap_or(name);
            let is_char = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !account.is_empty() && !name.is_empty() && name.bytes().all(is_char)
        }
        _ => false,
    };
    if is_queue { Ok(()) } else { Err(report.problem(at, quoted(url), expected)) }
}

fn without_path(
    section: &Section<'_>,
    (url, endpoint): (String, Endpoint),
    report: &mut Report,
) -> Checked<String> {
    if endpoint.path.is_empty() {
        return Ok(url);
    }
    let at = section.at_key("endpoint_url");
    Err(report.problem(&at, quoted(&url), "a URL without a path"))
}

/// The region: said, or read off the URL of the queue, and not two different ones.
fn region(
    section: &mut Section<'_>,
    queue: Checked<&Endpoint>,
    report: &mut Report,
) -> Checked<String> {
    let at = section.at_key("region");
    let said = section.text("region", report)?;
    let of_queue = region_of(&queue?.host);
    match (said, of_queue) {
        (Some(Found { value, at }), Some(of_queue)) if value != of_queue => {
            let found = format!("{}, and the queue is in {}", quoted(&value), quoted(of_queue));
            Err(report.problem(&at, found, "the region of the queue, or nothing"))
        }
        (Some(Found { value, at }), _) => {
            let is_char = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            match value.bytes().all(is_char) {
                true => Ok(value),
                false => Err(report.problem(&at, quoted(&value), "a region, such as ca-central-1")),
            }
        }
        (None, Some(of_queue)) => {
            let at = At { origin: section.at_key("queue_url").origin, ..at };
            report.effective(&at, of_queue);
            Ok(of_queue.to_owned())
        }
        (None, None) => {
            let expected = "a region, because queue_url does not name one";
            Err(report.problem(&at, "nothing", expected))
        }
    }
}

/// The region in the name of a host of AWS: `sqs.REGION.amazonaws.com`, the older
/// `REGION.queue.amazonaws.com`, an endpoint in a private network, and the same in China.
fn region_of(host: &str) -> Option<&str> {
    let labels: Vec<&str> = host.split('.').collect();
    match labels.as_slice() {
        ["sqs" | "sqs-fips", region, "amazonaws", "com"]
        | ["sqs" | "sqs-fips", region, "amazonaws", "com", "cn"]
        | ["sqs" | "sqs-fips", region, "api", "aws"]
        | [region, "queue", "amazonaws", "com"]
        | [_, "sqs", region, "vpce", "amazonaws", "com"] => Some(region),
        _ => None,
    }
}

fn is_of_aws(host: &str) -> bool {
    [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].iter().any(|end| host.ends_with(end))
}

/// Access key and secret; without them, what the AWS environment of this machine offers.
fn login(section: &mut Section<'_>, report: &mut Report) -> Checked<Option<Login>> {
    let user = section.text("access_key_id", report);
    let password = sink_secret::secret(section, "secret_access_key_file", report);
    match (user?, password?) {
        (Some(user), Some(password)) => {
            Ok(Some(Login { user: user.value, password: password.value }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => {
            let at = section.at_key("secret_access_key_file");
            Err(report.problem(&at, "nothing", "a file with the secret of access_key_id"))
        }
        (None, Some(_)) => {
            let at = section.at_key("access_key_id");
            Err(report.problem(&at, "nothing", "the key whose secret is in the file"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_read_off_every_form_of_host() {
        for (host, region) in [
            ("sqs.ca-central-1.amazonaws.com", Some("ca-central-1")),
            ("sqs.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("sqs-fips.us-east-1.amazonaws.com", Some("us-east-1")),
            ("sqs.eu-west-1.api.aws", Some("eu-west-1")),
            ("ca-central-1.queue.amazonaws.com", Some("ca-central-1")),
            ("vpce-1.sqs.ca-central-1.vpce.amazonaws.com", Some("ca-central-1")),
            ("queue.amazonaws.com", None),
            ("127.0.0.1", None),
            ("localhost", None),
        ] {
            assert_eq!(region_of(host), region, "{host}");
        }
    }
}
