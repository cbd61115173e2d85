//! JSON at its edges, in the categories in which parsers are known to differ: what must be accepted,
//! what must be refused, what a parser may do as it likes. To a receiver they are all the same: an
//! authentic body is kept and answered 204 whatever it is.

/// Bodies as a whole, and values to be put into every place of a body.
pub fn edges() -> Vec<Vec<u8>> {
    let mut edges: Vec<Vec<u8>> = TEXTS.iter().map(|text| text.as_bytes().to_vec()).collect();
    edges.extend(BYTES.iter().map(|bytes| bytes.to_vec()));
    for text in ["{\"id\":\"é\"}", "[]", "\"\u{1f600}\""] {
        let units: Vec<u16> = text.encode_utf16().collect();
        edges.push(units.iter().flat_map(|unit| unit.to_le_bytes()).collect());
        edges.push([0xFE, 0xFF].into_iter().chain(units.iter().flat_map(|u| u.to_be_bytes())).collect());
        edges.push([b"\xEF\xBB\xBF", text.as_bytes()].concat());
        edges.push([b"\xEF\xBB\xBF\xEF\xBB\xBF", text.as_bytes()].concat());
    }
    for (open, close) in [("[", "]"), (r#"{"":"#, "}"), (r#"[{"a":"#, "}]")] {
        for depth in [127, 128, 129, 5_000] {
            edges.push(format!("{}0{}", open.repeat(depth), close.repeat(depth)).into_bytes());
            edges.push(open.repeat(depth).into_bytes());
        }
    }
    for digits in [20, 400, 20_000] {
        let number = "9".repeat(digits);
        for form in ["N", "-N", "0.N", "1eN", "1e-N", "N.N"] {
            edges.push(form.replace('N', &number).into_bytes());
        }
    }
    edges
}

const TEXTS: &[&str] = &[
    // Structure.
    "", " ", "\n", "{", "}", "[", "]", "{]", "[}", "{}}", "[]]", "[[]", "{}{}", "[] []", "[1 2]",
    "[,]", "[1,]", "[,1]", "[1,,2]", "{,}", r#"{"a"}"#, r#"{"a":}"#, r#"{:1}"#, r#"{"a":1,}"#,
    r#"{"a":1,,"b":2}"#, r#"{"a":1 "b":2}"#, r#"{"a"::1}"#, r#"{"a","b"}"#, r#"{1:1}"#,
    r#"{a:1}"#, r#"{'a':1}"#, r#"{null:1}"#, r#"{[]:1}"#, "[1:2]", "[\"a\":1]", "/* c */ {}",
    "{} // c", "# c\n{}", "{}\0", "\0{}", "{\0}", "callback({})", ")]}',\n{}", "<a>b</a>", "a=b&c=d",
    // Repeated and empty names.
    r#"{"a":1,"a":2}"#, r#"{"a":1,"a":1}"#, r#"{"":0}"#, r#"{"a":{"a":{"a":"a"}},"a":[]}"#,
    r#"{"id":"x","id":"y"}"#, r#"{"status":"a","\u0073tatus":"b"}"#, r#"{"ID":"x","Id":"y"}"#,
    r#"{"__proto__":{"a":1},"constructor":2}"#,
    // Literals.
    "null", "true", "false", "nul", "tru", "True", "NULL", "nullx", "undefined", "NaN", "-NaN",
    "Infinity", "-Infinity", "nan", "truefalse", "*", "\u{ff5b}\u{ff5d}",
    // Numbers.
    "0", "-0", "-0.0", "+1", "--1", "01", "-01", "00", "1.", ".1", "-.1", "-", "+", "1e", "1e+",
    "1E-", "1e1.5", "1e5", "1E+5", "0e0", "0x1F", "0o7", "0b1", "1_000", "1 000", "1,0", "1/2",
    "\u{0661}", "\u{ff11}", "123456789012345678", "18446744073709551615", "18446744073709551616",
    "-9223372036854775808", "-9223372036854775809", "1e308", "1e309", "5e-324", "1e-400",
    "0.1e99999999999999999999", "1.7976931348623157e308", "4.35", "9007199254740993",
    // Strings.
    r#""""#, r#"""#, r#"""""#, r#""a"#, r#"a""#, r"''", r#""\""#, r#""\a""#, r#""\x41""#, r#""\'""#,
    r#""\u""#, r#""\u00""#, r#""\u00G0""#, r#""\U0041""#, r#""\u0000""#, r#""\u{41}""#, r#""\/""#,
    r#""\b\f\n\r\t\"\\""#, r#""\ud800""#, r#""\udc00""#, r#""\ud800\ud800""#, r#""\ud800\n""#,
    r#""\udbff\udfff""#, r#""\ud83d\ude00""#, r#""\uffff\ufffe""#, r#""\u202e\u2066""#,
    r#""\u2028\u2029""#, "\"\u{2028}\u{2029}\"", "\"a\nb\"", "\"a\tb\"", "\"a\u{0}b\"", "\"\u{7f}\"",
    "\"\u{1}\u{1f}\"", "\"\u{fffd}\u{10ffff}\"", "\"e\u{301} \u{e9}\"", "\"\u{feff}\"",
    // White space.
    " \t\r\n{} \t\r\n", "\u{b}{}", "\u{c}{}", "\u{a0}{}", "\u{2003}{}", "\u{85}[]", "{}\u{200b}",
    "\u{2060}[]", "\r", "[\u{c}]",
    // Tops that are no object.
    r#""text""#, "1", "[]", "[{}]", "[[]]", "[null]", "[1,\"2\",{}]", r#"[{"id":"x"},{"id":"x"}]"#,
];

const BYTES: &[&[u8]] = &[
    b"\xff",
    b"\xfe\xff",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xef\xbb",
    b"\"\xff\"",
    b"\"\xc0\xaf\"",
    b"\"\xe0\x80\xaf\"",
    b"\"\xf0\x80\x80\xaf\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xed\xb0\x80\xed\xa0\x80\"",
    b"\"\xf4\x90\x80\x80\"",
    b"\"\xf8\x88\x80\x80\x80\"",
    b"\"\xc3\"",
    b"\"\xe2\x82\"",
    b"\"\x80\"",
    b"{\"\xff\":1}",
    b"[\xff]",
    b"\"\\\xff\"",
    b"\"\\u00\xff\xff\"",
    b"1\xff",
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    b"\x00\x00\x00\x00",
    b"\x80\x04\x95\x2e",
    b"\xa1\x61\x61\x01",
];
