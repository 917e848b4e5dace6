//! The messages of a server (PostgreSQL manual, "Message Formats"), well formed and otherwise.

use crate::script::Script;

/// The tags of all messages of servers, and two that none has.
const TAGS: &[u8] = b"RKSZTDtCEIN123nsAGHWcdVv\0?";
/// Types of which our statements expect some, and one that no server has.
const TYPES: &[u32] = &[
    16, 18, 19, 20, 21, 23, 25, 26, 114, 700, 701, 1007, 1009, 1021, 1184, 2205, 2950, 3802, 99_999,
];
/// The most repetitions of one message.
const MOST: usize = 3000;

/// A message: its tag, its length with the length itself, its contents.
pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a message that fits");
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

pub fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

pub fn done() -> Vec<u8> {
    message(b'C', b"SELECT 1\0")
}

/// What no honest server would say here.
pub fn mischief(script: &mut Script<'_>) -> Vec<u8> {
    match script.byte() % 10 {
        // Any message with any contents.
        0 => message(script.one_of(TAGS), script.bytes()),
        // A length that is a lie.
        1 => {
            let tag = script.one_of(TAGS);
            let length = script.number().to_be_bytes();
            [&[tag], &length[..], script.bytes()].concat()
        }
        // No message at all.
        2 => script.bytes().to_vec(),
        3 => notice(b'E', script),
        4 => notice(b'N', script),
        5 => {
            let status = message(
                b'S',
                &[script.bytes(), b"\0", script.bytes(), b"\0"].concat(),
            );
            status.repeat(script.below(MOST))
        }
        // Settings that differ.
        6 => (0..script.below(MOST))
            .flat_map(|number| message(b'S', format!("setting{number}\0on\0").as_bytes()))
            .collect(),
        7 => {
            let columns = script.below(5);
            let row = row(columns, script);
            row.repeat(script.below(MOST))
        }
        // Much, as slowly as it comes.
        8 => message(
            script.one_of(b"dDTENAVSRK"),
            &vec![b'x'; script.below(64) << 14],
        ),
        // Notifications, and the beginning of a COPY.
        _ => {
            let body = [&script.number().to_be_bytes()[..], script.bytes(), b"\0\0"].concat();
            message(script.one_of(b"AWGH"), &body)
        }
    }
}

/// An ErrorResponse or NoticeResponse with some of its fields.
pub fn notice(tag: u8, script: &mut Script<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    for field in *b"SVCMDHWPpqF" {
        if matches!(field, b'S' | b'C' | b'M') || script.byte() % 3 == 0 {
            body.push(field);
            let code = script.one_of(&[&b"57P01"[..], b"28P01", b"42704", b"55000", b"", b"5"]);
            let value = if field == b'C' && script.byte() % 2 == 0 {
                code
            } else {
                script.bytes()
            };
            body.extend(value);
            body.push(0);
        }
    }
    body.push(0);
    message(tag, &body)
}

/// The types of the parameters of a statement.
pub fn parameters(statement: &str, script: &mut Script<'_>) -> Vec<u8> {
    let count = (1..=9).take_while(|number| statement.contains(&format!("${number}")));
    let count = count.count() as u16;
    let mut body = count.to_be_bytes().to_vec();
    for _ in 0..count {
        body.extend(script.one_of(TYPES).to_be_bytes());
    }
    message(b't', &body)
}

/// The columns of a statement, of these types.
pub fn columns(types: &[u32]) -> Vec<u8> {
    let mut body = (types.len() as u16).to_be_bytes().to_vec();
    for oid in types {
        body.extend(b"column\0\0\0\0\0\0\0");
        body.extend(oid.to_be_bytes());
        body.extend([0xff; 6]);
        body.extend(1_u16.to_be_bytes());
    }
    message(b'T', &body)
}

pub fn any_types(script: &mut Script<'_>) -> Vec<u32> {
    (0..script.below(6)).map(|_| script.one_of(TYPES)).collect()
}

/// A row of so many values, each NULL, short, or of a length that is a lie.
pub fn row(columns: usize, script: &mut Script<'_>) -> Vec<u8> {
    let mut body = (columns as u16).to_be_bytes().to_vec();
    for _ in 0..columns {
        match script.byte() % 8 {
            0 => body.extend((-1_i32).to_be_bytes()),
            1 => body.extend(script.number().to_be_bytes()),
            2 => body.extend(
                [
                    &8_u32.to_be_bytes()[..],
                    &u64::from(script.number()).to_be_bytes(),
                ]
                .concat(),
            ),
            3 => body.extend([&4_u32.to_be_bytes()[..], &script.number().to_be_bytes()].concat()),
            4 => body.extend([&1_u32.to_be_bytes()[..], &[script.byte()]].concat()),
            _ => {
                let value = script.bytes();
                body.extend((value.len() as u32).to_be_bytes());
                body.extend(value);
            }
        }
    }
    message(b'D', &body)
}

/// A row of these values.
pub fn honest_row(values: &[&[u8]]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        body.extend((value.len() as u32).to_be_bytes());
        body.extend(*value);
    }
    message(b'D', &body)
}
