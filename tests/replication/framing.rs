//! Frames from a byte stream and status updates into one, in pieces of any size with any pauses, while the futures that
//! wait for them are dropped and created again.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use lantern::pipeline::error::is_transient_replication_error;
use lantern::replication::{Frame, Lsn, ReplicationError, ReplicationStream};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A socket that follows a script: how many bytes each read and write may move, 0 for a pause.
struct Scripted {
    incoming: Bytes,
    read_sizes: VecDeque<usize>,
    write_sizes: VecDeque<usize>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let size = self.read_sizes.pop_front().unwrap_or(usize::MAX);
        if size == 0 {
            return Poll::Pending;
        }
        let size = size.min(self.incoming.len()).min(buffer.remaining());
        buffer.put_slice(&self.incoming.split_to(size));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let size = self
            .write_sizes
            .pop_front()
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        if size == 0 {
            return Poll::Pending;
        }
        self.written
            .lock()
            .unwrap()
            .extend_from_slice(&bytes[..size]);
        Poll::Ready(Ok(size))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn stream_over(bytes: &[u8], read_sizes: impl IntoIterator<Item = usize>) -> ReplicationStream {
    ReplicationStream::over(Scripted {
        incoming: Bytes::copy_from_slice(bytes),
        read_sizes: read_sizes.into_iter().collect(),
        write_sizes: VecDeque::new(),
        written: Arc::default(),
    })
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], &(4 + body.len() as u32).to_be_bytes()[..], body].concat()
}

fn encode(frame: &Frame) -> Vec<u8> {
    let body = match frame {
        Frame::XLogData {
            wal_start,
            wal_end,
            payload,
        } => [
            b"w",
            &wal_start.0.to_be_bytes()[..],
            &wal_end.0.to_be_bytes(),
            &123_i64.to_be_bytes(),
            payload,
        ]
        .concat(),
        Frame::Keepalive {
            wal_end,
            reply_requested,
        } => [
            b"k",
            &wal_end.0.to_be_bytes()[..],
            &123_i64.to_be_bytes(),
            &[u8::from(*reply_requested)],
        ]
        .concat(),
    };
    message(b'd', &body)
}

fn xlog_data(payload: Vec<u8>) -> Frame {
    Frame::XLogData {
        wal_start: Lsn(7),
        wal_end: Lsn(9),
        payload: payload.into(),
    }
}

fn keepalive(wal_end: u64) -> Frame {
    Frame::Keepalive {
        wal_end: Lsn(wal_end),
        reply_requested: wal_end % 2 == 1,
    }
}

fn frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        4 => vec(any::<u8>(), 0..300).prop_map(xlog_data),
        1 => any::<u64>().prop_map(keepalive),
    ]
}

/// Messages that a server may send between frames.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => Just(Vec::new()),
        1 => Just(message(b'N', b"SNOTICE\0C00000\0Mhello\0\0")),
        1 => Just(message(b'S', b"TimeZone\0UTC\0")),
    ]
}

/// All frames up to the end of the stream, and the error at its end. Drops each future that is not ready at once.
fn drain(stream: &mut ReplicationStream) -> (Vec<Frame>, ReplicationError) {
    let mut frames = Vec::new();
    loop {
        match stream.next().now_or_never() {
            Some(Ok(frame)) => frames.push(frame),
            Some(Err(error)) => return (frames, error),
            None => {}
        }
    }
}

#[test]
fn a_stream_cut_at_any_position_gives_the_same_frames() {
    let frames = [
        xlog_data(b"first".to_vec()),
        keepalive(3),
        xlog_data(Vec::new()),
    ];
    let notice = message(b'N', b"SNOTICE\0C00000\0Mhello\0\0");
    let [first, second, third] = frames.each_ref().map(encode);
    let bytes = [first, notice, second, third].concat();
    for cut in 1..bytes.len() {
        let (received, end) = drain(&mut stream_over(&bytes, [cut, 0]));
        assert_eq!(received, frames, "cut at {cut}");
        assert!(matches!(end, ReplicationError::Closed));
    }
}

/// A logical message with this prefix and content, as pgoutput sends it.
fn logical_message(prefix: &str, content: &[u8]) -> Vec<u8> {
    [
        &b"M\x01\0\0\0\0\0\0\0\x07"[..],
        prefix.as_bytes(),
        b"\0",
        &(content.len() as u32).to_be_bytes(),
        content,
    ]
    .concat()
}

#[test]
fn a_long_logical_message_arrives_without_its_content() {
    let (short, long) = (vec![b's'; 1000], vec![b'l'; 300_000]);
    let sent = [
        xlog_data(logical_message("app", &short)),
        xlog_data(logical_message("app", &long)),
        keepalive(3),
        xlog_data(logical_message("", &long)),
        xlog_data(b"Irow".repeat(100_000)),
    ];
    let expected = [
        sent[0].clone(),
        xlog_data(logical_message("app", &[])),
        sent[2].clone(),
        xlog_data(logical_message("", &[])),
        sent[4].clone(),
    ];
    let bytes: Vec<u8> = sent.iter().flat_map(encode).collect();
    for size in [1, 37, 70_000, usize::MAX] {
        let reads = std::iter::repeat_n([size, 0], 1200).flatten();
        let (received, end) = drain(&mut stream_over(&bytes, reads));
        assert_eq!(received, expected, "in reads of {size} bytes");
        assert!(matches!(end, ReplicationError::Closed));
    }
}

#[test]
fn frames_of_one_read_are_ready_without_waiting() {
    let frames: Vec<Frame> = (0..100).map(keepalive).collect();
    let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
    let mut stream = stream_over(&bytes, []);
    assert_eq!(stream.try_next().unwrap(), None);
    let mut received = vec![stream.next().now_or_never().unwrap().unwrap()];
    while let Some(frame) = stream.try_next().unwrap() {
        received.push(frame);
    }
    assert_eq!(received, frames);
}

#[test]
fn the_last_message_of_a_server_is_the_error() {
    let fatal = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0");
    let bytes = [encode(&keepalive(1)), fatal].concat();
    let (received, error) = drain(&mut stream_over(&bytes, []));
    assert_eq!(received, [keepalive(1)]);
    assert_eq!(error.to_string(), "terminating connection (SQLSTATE 57P01)");
    assert!(is_transient_replication_error(&error));
}

/// A server answers CopyDone at once, and releases the slot before it completes the command.
#[test]
fn a_stream_is_finished_when_its_command_is_complete() {
    let answers = [message(b'c', b""), message(b'C', b"COPY 0\0")];
    let done = answers[0].len();
    let mut stream = stream_over(&answers.concat(), [done, 0]);
    let mut finishing = std::pin::pin!(stream.finish());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let _context = runtime.enter();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(finishing.as_mut().poll(&mut cx).is_pending());
    let end = finishing.as_mut().poll(&mut cx);
    assert!(matches!(end, Poll::Ready(Ok(()))), "{end:?}");
}

/// A connection whose sending side is broken.
struct Deaf(Scripted);

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn the_last_message_of_a_server_is_read_after_it_stopped_reading() {
    let mut stream = ReplicationStream::over(Deaf(Scripted {
        incoming: message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mgoodbye\0\0").into(),
        read_sizes: VecDeque::new(),
        write_sizes: VecDeque::new(),
        written: Arc::default(),
    }));
    let status = stream.send_status(Lsn(1), false).now_or_never().unwrap();
    assert!(matches!(status, Err(ReplicationError::Io(_))));
    assert_eq!(drain(&mut stream).1.to_string(), "goodbye (SQLSTATE 57P01)");
}

#[test]
fn bytes_of_another_protocol_are_an_error() {
    for bytes in [
        message(b'd', b""),
        message(b'd', b"x........"),
        message(b'd', b"wtoo short"),
        message(b'd', b"ktoo short"),
        message(b'?', b""),
        b"d\0\0\0\x03".to_vec(),
        b"d\xFF\xFF\xFF\xFF".to_vec(),
        b"HTTP/1.1 400 Bad Request\r\n".to_vec(),
    ] {
        let (received, error) = drain(&mut stream_over(&bytes, []));
        assert!(received.is_empty());
        let is_expected = matches!(
            error,
            ReplicationError::Protocol(_) | ReplicationError::Closed
        );
        assert!(is_expected, "{error}");
    }
}

#[test]
fn a_message_that_never_completes_ends_the_stream() {
    let mut bytes = b"d\x7F\xFF\xFF\xFFw".to_vec();
    bytes.resize(100_000, 0);
    let (received, error) = drain(&mut stream_over(&bytes, vec![1000; 100]));
    assert!(received.is_empty() && matches!(error, ReplicationError::Closed));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_chunks_and_pauses_give_the_same_frames(
        script in vec((frame(), noise()), 0..30),
        sizes in vec(0_usize..400, 0..200),
    ) {
        let bytes: Vec<u8> = script.iter().flat_map(|(frame, noise)| [encode(frame), noise.clone()].concat()).collect();
        let (received, end) = drain(&mut stream_over(&bytes, sizes));
        let sent: Vec<Frame> = script.into_iter().map(|(frame, _)| frame).collect();
        prop_assert_eq!(received, sent);
        prop_assert!(matches!(end, ReplicationError::Closed));
    }

    #[test]
    fn status_updates_that_are_dropped_midway_stay_whole_and_the_latest_arrives(
        count in 1_u64..20,
        write_sizes in vec(0_usize..60, 0..60),
        read_sizes in vec(0_usize..20, 0..60),
    ) {
        let written = Arc::default();
        let mut stream = ReplicationStream::over(Scripted {
            incoming: encode(&keepalive(1)).into_iter().chain(message(b'c', b"")).collect(),
            read_sizes: read_sizes.into_iter().collect(),
            write_sizes: write_sizes.into_iter().collect(),
            written: Arc::clone(&written),
        });
        for flushed in 1..=count {
            let _ = stream.send_status(Lsn(flushed), false).now_or_never();
            let _ = stream.next().now_or_never();
        }
        while stream.send_status(Lsn(count), true).now_or_never().is_none() {}
        drop(stream);

        let written = written.lock().unwrap();
        let (updates, rest) = written.as_chunks::<39>();
        prop_assert!(rest.is_empty());
        let mut flushed = 0;
        for update in updates {
            prop_assert_eq!(&update[..6], b"d\0\0\0\x26r");
            let [written, safe, applied] = [6, 14, 22].map(|at| u64::from_be_bytes(update[at..at + 8].try_into().unwrap()));
            prop_assert!(written == safe && safe == applied && safe >= flushed);
            flushed = safe;
        }
        prop_assert_eq!(flushed, count);
        prop_assert_eq!(updates.last().unwrap()[38], 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn payloads_around_the_buffer_sizes_arrive_whole(
        sizes in vec(prop_oneof![0_usize..100, 120_000_usize..140_000, 1_000_000_usize..1_200_000], 1..6),
        keep in any::<bool>(),
    ) {
        let payload = |(index, &size): (usize, &usize)| (0..size).map(|byte| (byte ^ index) as u8).collect();
        let frames: Vec<Frame> = sizes.iter().enumerate().map(payload).map(xlog_data).collect();
        let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
        let mut stream = stream_over(&bytes, [50_000, 0, 1, 0]);
        let mut kept = Vec::new();
        for frame in &frames {
            let received = loop {
                if let Some(received) = stream.next().now_or_never() {
                    break received.unwrap();
                }
            };
            prop_assert!(&received == frame);
            kept.extend(keep.then_some(received));
        }
        prop_assert!(kept.is_empty() || kept == frames);
    }
}
