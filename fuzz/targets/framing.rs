//! Any bytes from a server, in pieces of any size: the client learns the same however they are cut, what the
//! documentation says they mean, holds little more than they are, and says only whole messages itself.
//!
//! The first byte says who is talking and how many sizes of pieces follow; the rest is what the server says.

#![no_main]

use lantern::replication::ReplicationStream;
use lantern_fuzz::allocations;
use lantern_fuzz::conversation::{self, Learned};
use lantern_fuzz::reference::{self, End};
use lantern_fuzz::transport::{Pieces, Recorded, Replay};
use libfuzzer_sys::fuzz_target;

/// The buffers of a connection that has nothing to do, and room for small things.
const IDLE: usize = 512 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some((&choice, rest)) = input.split_first() else {
        return;
    };
    let count = usize::from(choice >> 2).min(rest.len());
    let (sizes, server) = rest.split_at(count);
    let pieces = Pieces::of(sizes);
    match choice & 3 {
        0 => stream(server, &pieces),
        user => login(
            server,
            &pieces,
            ["trusted", "clear", "hashed"][usize::from(user) - 1],
        ),
    }
});

fn stream(server: &[u8], pieces: &Pieces) {
    let read = |pieces: &Pieces| {
        let replay = Replay::of(server, pieces, &Recorded::default());
        conversation::read_to_end(ReplicationStream::over(replay))
    };
    let learned = frugally(server, || read(pieces));
    assert_eq!(learned, read(&Pieces::whole()));

    let (frames, end) = reference::frames(server);
    assert_eq!(learned.frames, frames);
    let expected = match end {
        End::Closed => "Closed",
        End::ServerError => "Server",
        End::Violation => "Protocol",
    };
    assert!(
        learned.end.starts_with(expected),
        "{} is not {expected}",
        learned.end
    );
}

fn login(server: &[u8], pieces: &Pieces, user: &str) {
    let config = conversation::config(user);
    let written = Recorded::default();
    let learned = frugally(server, || {
        conversation::replay(Replay::of(server, pieces, &written), &config)
    });
    let whole = Replay::of(server, &Pieces::whole(), &Recorded::default());
    // The nonce of SCRAM is new each time, and a refusal may depend on it.
    if !server.windows(5).any(|bytes| bytes == b"SCRAM") {
        assert_eq!(learned, conversation::replay(whole, &config));
    }
    assert!(!learned.end.contains("swordfish"), "{}", learned.end);
    says_whole_messages(&written.lock().unwrap());
}

/// What is held at a time is bounded by what has arrived, whatever lengths it announces.
fn frugally(server: &[u8], work: impl FnOnce() -> Learned) -> Learned {
    let (learned, taken) = allocations::count(work);
    let most = IDLE + 64 * server.len();
    assert!(
        taken.peak <= most,
        "{} bytes for {}",
        taken.peak,
        server.len()
    );
    learned
}

/// A startup message, then tagged messages, each complete but the last, which a pause may have cut.
fn says_whole_messages(written: &[u8]) {
    let mut rest = written;
    let mut tagged = false;
    while !rest.is_empty() {
        let header = if tagged { 5 } else { 4 };
        let Some(length) = rest.get(header - 4..header) else {
            return;
        };
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        assert!((4..1000).contains(&length), "a message of {length} bytes");
        if tagged {
            assert!(b"pQd".contains(&rest[0]), "a message {:?}", rest[0]);
            assert!(
                rest[0] != b'd' || length == 38,
                "a status update of {length} bytes"
            );
        }
        let Some(behind) = rest.get(header - 4 + length..) else {
            return;
        };
        (rest, tagged) = (behind, true);
    }
}
