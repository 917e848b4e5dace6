use super::*;

fn keys() -> Keys {
    let key = |kind, example: Option<&str>, is_secret| Key {
        kind,
        example: example.map(str::to_owned),
        is_secret,
    };
    Keys::from([
        ("uri".to_owned(), key(Kind::Text, None, true)),
        (
            "cache_size".to_owned(),
            key(Kind::Text, Some("64MB"), false),
        ),
        (
            "max_jobs".to_owned(),
            key(Kind::Number, Some("1000"), false),
        ),
        ("offline".to_owned(), key(Kind::Switch, None, false)),
        ("allow_host".to_owned(), key(Kind::List, None, false)),
    ])
}

fn settings(text: &str) -> Vec<(String, Vec<String>, usize)> {
    let settings = parse(text.as_bytes(), &keys()).unwrap().into_iter();
    settings
        .map(|(name, setting)| (name, setting.values, setting.line))
        .collect()
}

fn mistakes(text: &[u8]) -> Vec<String> {
    let mistakes = parse(text, &keys()).unwrap_err().into_iter();
    mistakes
        .map(|mistake| format!("{}: {}", mistake.line, mistake.text))
        .collect()
}

#[test]
fn values_are_read_with_their_lines() {
    let text = "# options\nmax_jobs = 0x10\n\ncache_size = '64MB'\noffline = true\nallow_host = ['a', \"b:1\",\n]\n";
    let list = |values: &[&str]| values.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected = [
        ("allow_host".to_owned(), list(&["a", "b:1"]), 6),
        ("cache_size".to_owned(), list(&["64MB"]), 4),
        ("max_jobs".to_owned(), list(&["16"]), 2),
        ("offline".to_owned(), list(&["true"]), 5),
    ];
    assert_eq!(settings(text), expected);
    let windows = format!("{BYTE_ORDER_MARK}{}", text.replace('\n', "\r\n"));
    assert_eq!(settings(&windows), expected);
    // As the environment has them.
    assert_eq!(settings("max_jobs = '16'")[0].1, ["16"]);
    assert_eq!(settings("allow_host = 'a'")[0].1, ["a"]);
    assert_eq!(settings("allow_host = []")[0].1, [""; 0]);
    for empty in ["", "\u{feff}", "\n", "# nothing\r\n"] {
        assert_eq!(settings(empty), []);
    }
}

#[test]
fn a_key_that_is_not_known_is_answered_with_the_nearest_one() {
    assert_eq!(
        mistakes(b"\nmax-jobs = 3"),
        ["2: the key \"max-jobs\" is not known; did you mean max_jobs?"]
    );
    assert_eq!(
        mistakes(b"url = 'x'"),
        ["1: the key \"url\" is not known; did you mean uri?"]
    );
    let all = mistakes(b"a_b_c = 1\nd_e_f = 'x'\n");
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(
        all.iter()
            .all(|text| text.contains("docs/configuration.md")),
        "{all:?}"
    );
    let table = "1: there is no table [serve]: all keys are at the top of the file";
    assert_eq!(
        mistakes(
            b"[serve]
listen = 'x'
"
        ),
        [table]
    );
}

#[test]
fn a_value_of_another_type_is_answered_with_the_right_one() {
    let cases = [
        (
            "max_jobs = 1.5",
            "max_jobs must be a whole number, such as 1000, and is a number with a fraction",
        ),
        (
            "max_jobs = true",
            "max_jobs must be a whole number, such as 1000, and is true or false",
        ),
        (
            "cache_size = 64",
            "cache_size must be a text in quotes, such as \"64MB\", and is a whole number",
        ),
        ("uri = ['a']", "uri must be a text in quotes, and is a list"),
        (
            "offline = 'yes'",
            "offline must be true or false, and is a text",
        ),
        (
            "allow_host = ['a', 5]",
            "allow_host must be a text in quotes, or several between [ and ], and is a list",
        ),
        (
            "uri = 2026-01-01",
            "uri must be a text in quotes, and is a date or time",
        ),
        (
            "max_jobs.x = 1",
            "max_jobs must be a whole number, such as 1000, and is a table",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(mistakes(text.as_bytes()), [format!("1: {expected}")]);
    }
}

#[test]
fn what_is_no_toml_is_refused_with_the_line_and_without_its_text() {
    let cases: [(&[u8], usize); 7] = [
        (b"max_jobs = 1\nmax_jobs = 2\n", 2),
        (b"\nuri = postgresql://me:s3cret@h/d\n", 2),
        (b"uri = 'postgresql://me:s3cret@h/d\nmax_jobs = 1\n", 1),
        (b"max_jobs = 1\n\0", 2),
        (b"uri = 'a\0s3cret'\n", 1),
        (b"# caf\xe9\n", 1),
        (b"{\"uri\": \"s3cret\"}", 1),
    ];
    for (text, line) in cases {
        let found = mistakes(text);
        let shown = String::from_utf8_lossy(text);
        assert!(
            found[0].starts_with(&format!("{line}: ")),
            "{found:?} in {shown}"
        );
        assert!(!found.concat().contains("s3cret"), "{found:?}");
    }
}
