//! JSON as the senders write it: Python's `json.dumps` for the Notify family, without any space for
//! Adobe. Straight into one buffer, because a load test writes hundreds of thousands a second.

use jiff::civil::Date;

use crate::clock::Timestamp;

/// What stands between the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `{"a": 1, "b": null}`.
    Python,
    /// `{"a":1,"b":null}`. How Adobe spaces its bodies is not documented.
    Compact,
}

/// An object being written. [`Object::end`] closes it.
#[derive(Debug)]
pub struct Object<'o> {
    out: &'o mut Vec<u8>,
    style: Style,
    is_empty: bool,
}

impl<'o> Object<'o> {
    /// Begins an object at the end of `out`.
    pub fn begin(out: &'o mut Vec<u8>, style: Style) -> Self {
        out.push(b'{');
        Self { out, style, is_empty: true }
    }

    /// Closes it.
    pub fn end(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) {
        if !self.is_empty {
            self.out.extend_from_slice(if self.style == Style::Python { b", " } else { b"," });
        }
        self.is_empty = false;
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(if self.style == Style::Python { b"\": " } else { b"\":" });
    }

    /// A value that is JSON already, in this style.
    pub fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.out.extend_from_slice(json.as_bytes());
    }

    /// Nothing.
    pub fn null(&mut self, key: &str) {
        self.raw(key, "null");
    }

    /// A text, or null.
    pub fn text<'t>(&mut self, key: &str, text: impl Into<Option<&'t str>>) {
        let Some(text) = text.into() else { return self.null(key) };
        self.key(key);
        push_text(self.out, text);
    }

    /// A whole number, or null.
    pub fn number(&mut self, key: &str, number: impl Into<Option<i64>>) {
        let Some(number) = number.into() else { return self.null(key) };
        self.key(key);
        push_number(self.out, number);
    }

    /// An instant in microseconds of Unix time, or null.
    pub fn time(&mut self, key: &str, micros: impl Into<Option<i64>>) {
        let Some(micros) = micros.into() else { return self.null(key) };
        self.key(key);
        self.out.push(b'"');
        push_time(self.out, micros);
        self.out.push(b'"');
    }

    /// A UUID.
    pub fn uuid(&mut self, key: &str, uuid: u128) {
        self.key(key);
        self.out.push(b'"');
        push_uuid(self.out, uuid);
        self.out.push(b'"');
    }

    /// An object within it.
    pub fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        let mut object = Object::begin(self.out, self.style);
        fill(&mut object);
        object.end();
    }

    /// A list of one object within it.
    pub fn list_of_one(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        self.out.push(b'[');
        let mut object = Object::begin(self.out, self.style);
        fill(&mut object);
        object.end();
        self.out.push(b']');
    }
}

/// A string with everything but printable ASCII escaped, as Python does by default.
fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        out.extend_from_slice(text.as_bytes());
    } else {
        text.encode_utf16().for_each(|unit| push_escaped(out, unit));
    }
    out.push(b'"');
}

/// One unit of UTF-16, so that characters beyond the first plane become a pair.
fn push_escaped(out: &mut Vec<u8>, unit: u16) {
    let short = match unit {
        0x08 => b'b',
        0x09 => b't',
        0x0A => b'n',
        0x0C => b'f',
        0x0D => b'r',
        0x22 => b'"',
        0x5C => b'\\',
        0x20..=0x7E => return out.push(unit.to_le_bytes()[0]),
        _ => {
            out.extend_from_slice(b"\\u");
            return push_hex(out, u128::from(unit), 4);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// The last `digits` hexadecimal digits.
fn push_hex(out: &mut Vec<u8>, value: u128, digits: u32) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for place in (0..digits).rev() {
        out.push(DIGITS[usize::from((value >> (4 * place)).to_le_bytes()[0] & 0xF)]);
    }
}

/// A UUID in its usual form.
pub fn push_uuid(out: &mut Vec<u8>, uuid: u128) {
    let mut rest = 128;
    for (place, digits) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if place > 0 {
            out.push(b'-');
        }
        rest -= 4 * digits;
        push_hex(out, uuid >> rest, digits);
    }
}

fn push_number(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    let (mut rest, mut digits, mut length) = (number.unsigned_abs(), [0; 20], 0);
    loop {
        digits[length] = b'0' + (rest % 10).to_le_bytes()[0];
        (rest, length) = (rest / 10, length + 1);
        if rest == 0 {
            break;
        }
    }
    out.extend(digits[..length].iter().rev());
}

fn push_digits(out: &mut Vec<u8>, value: i64, digits: u32) {
    for place in (0..digits).rev() {
        out.push(b'0' + (value / 10_i64.pow(place) % 10).to_le_bytes()[0]);
    }
}

/// `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
fn push_time(out: &mut Vec<u8>, micros: i64) {
    let date: Date = Timestamp::from_unix_micros(micros).date();
    push_digits(out, i64::from(date.year()), 4);
    out.push(b'-');
    push_digits(out, i64::from(date.month()), 2);
    out.push(b'-');
    push_digits(out, i64::from(date.day()), 2);
    let of_day = micros.rem_euclid(86_400_000_000);
    let seconds = of_day / 1_000_000;
    for (mark, value) in [(b'T', seconds / 3_600), (b':', seconds / 60 % 60), (b':', seconds % 60)]
    {
        out.push(mark);
        push_digits(out, value, 2);
    }
    out.push(b'.');
    push_digits(out, of_day % 1_000_000, 6);
    out.push(b'Z');
}

/// A UUID as text.
pub fn uuid_text(uuid: u128) -> String {
    let mut out = Vec::with_capacity(36);
    push_uuid(&mut out, uuid);
    String::from_utf8_lossy(&out).into_owned()
}

/// An instant as text, in the form of the callbacks.
pub fn time_text(micros: i64) -> String {
    Timestamp::from_unix_micros(micros).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(style: Style, fill: impl FnOnce(&mut Object<'_>)) -> String {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out, style);
        fill(&mut object);
        object.end();
        String::from_utf8(out).unwrap()
    }

    /// The expected text was written by CPython's `json.dumps`.
    #[test]
    fn texts_are_escaped_as_python_does() {
        let text = "caf\u{e9} \u{1f600} \" \\ / \n\r\t\u{8}\u{c} \u{1} \u{7f} \u{2014}";
        assert_eq!(
            written(Style::Python, |object| object.text("a", text)),
            r#"{"a": "caf\u00e9 \ud83d\ude00 \" \\ / \n\r\t\b\f \u0001 \u007f \u2014"}"#
        );
    }

    #[test]
    fn the_styles_differ_in_their_spaces_alone() {
        let fill = |object: &mut Object<'_>| {
            object.text("a", None);
            object.number("b", -120);
            object.list_of_one("c", |object| object.number("d", 0));
            object.object("e", |_| ());
            object.number("f", None);
        };
        assert_eq!(
            written(Style::Python, fill),
            r#"{"a": null, "b": -120, "c": [{"d": 0}], "e": {}, "f": null}"#
        );
        assert_eq!(
            written(Style::Compact, fill),
            r#"{"a":null,"b":-120,"c":[{"d":0}],"e":{},"f":null}"#
        );
    }

    #[test]
    fn times_are_written_as_the_clock_writes_them() {
        for micros in [0, 1_788_264_000_000_000, 1_709_164_799_999_999, -1] {
            let mut out = Vec::new();
            push_time(&mut out, micros);
            assert_eq!(String::from_utf8(out).unwrap(), time_text(micros));
        }
    }

    #[test]
    fn a_uuid_has_its_usual_form() {
        let text = "740e5834-3a29-46b4-9a6f-16142fde533a";
        assert_eq!(uuid_text(0x740e_5834_3a29_46b4_9a6f_1614_2fde_533a), text);
    }
}
