//! Looks for a secret in bytes, whatever form it was written in.

use std::fs;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};

/// A secret, and every form of it that is looked for.
#[derive(Clone)]
pub struct Secret {
    /// As it is.
    pub text: String,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Secret {
    /// Looks for `text` as it is, escaped in JSON, in a URL, as hexadecimal, as base64 at any
    /// alignment and in UTF-16.
    pub fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut forms = vec![
            ("plain", bytes.to_vec()),
            ("upper case", text.to_uppercase().into_bytes()),
            (
                "json",
                serde_json::to_string(text).expect("a text")[1..].trim_end_matches('"').into(),
            ),
            ("json escapes", escaped(text, |unit| format!("\\u{unit:04x}"))),
            ("url", percent(bytes)),
            ("hex", HEXLOWER.encode(bytes).into_bytes()),
            ("HEX", HEXUPPER.encode(bytes).into_bytes()),
            ("list of bytes", listed(bytes)),
            ("utf-16", text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ];
        for before in 0..3 {
            for (name, coding) in [("base64", &BASE64), ("base64url", &BASE64URL)] {
                let whole = [&vec![0; before][..], bytes].concat();
                let encoded = coding.encode(&whole[..whole.len() / 3 * 3]);
                // The first characters also hold bits of what stands before.
                let from = [0, 2, 3][before];
                forms.push((name, encoded.as_bytes()[from..].to_vec()));
            }
        }
        Self { text: text.to_owned(), forms }
    }

    /// In which forms it stands in `bytes`.
    pub fn found_in(&self, bytes: &[u8]) -> Vec<&'static str> {
        let stands = |form: &[u8]| memmem(bytes, form);
        self.forms.iter().filter(|(_, form)| stands(form)).map(|(name, _)| *name).collect()
    }

    /// This text in each of its forms, for a control.
    pub fn forms(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        self.forms.iter().map(|(name, form)| (*name, form.as_slice()))
    }
}

fn escaped(text: &str, one: impl Fn(u16) -> String) -> Vec<u8> {
    text.encode_utf16().map(one).collect::<String>().into_bytes()
}

fn percent(bytes: &[u8]) -> Vec<u8> {
    let one = |byte: &u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(*byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    bytes.iter().map(one).collect::<String>().into_bytes()
}

/// As `{:?}` of a slice of bytes has it.
fn listed(bytes: &[u8]) -> Vec<u8> {
    let all = format!("{bytes:?}");
    all.as_bytes()[1..all.len() - 1].to_vec()
}

fn memmem(bytes: &[u8], form: &[u8]) -> bool {
    let (Some(first), true) = (form.first(), form.len() <= bytes.len()) else { return false };
    let last = bytes.len() - form.len();
    let mut at = 0;
    while let Some(step) = bytes[at..=last].iter().position(|byte| byte == first) {
        at += step;
        if bytes[at..].starts_with(form) {
            return true;
        }
        at += 1;
        if at > last {
            return false;
        }
    }
    false
}

/// Every file below that folder, with what is in it.
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder that can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            found.push((path, bytes));
        }
    }
    found
}
