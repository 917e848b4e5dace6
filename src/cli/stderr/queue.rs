//! What waits to be written to standard error, and the thread that writes it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Lines that wait for the reader, in bytes. Further ones are dropped.
const MAX_QUEUED_BYTES: usize = 1 << 20;
/// How long the end of the process waits for a reader that reads.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the end of the process waits for one that does not.
const STALL_TIMEOUT: Duration = Duration::from_millis(500);
/// The pause before another attempt where the descriptor is non-blocking, which a program that shares it may have
/// decided.
const NON_BLOCKING_PAUSE: Duration = Duration::from_millis(20);

/// The queue of this process; `None` where no thread could be started for it.
static QUEUE: LazyLock<Option<LineQueue>> = LazyLock::new(|| {
    // A descriptor of its own: the lock of `io::stderr` would be held while a write blocks.
    let descriptor = io::stderr().as_fd().try_clone_to_owned().ok()?;
    LineQueue::start(File::from(descriptor), report_lost_lines).ok()
});

/// Adds a line, or drops it if too many wait.
pub fn push(line: &[u8]) {
    match &*QUEUE {
        Some(queue) => queue.push(line),
        None => drop(io::stderr().write_all(line)),
    }
}

/// Adds a state of the bar. It replaces one that has not been written yet.
pub fn push_frame(frame: &[u8]) {
    match &*QUEUE {
        Some(queue) => queue.push_frame(frame),
        None => drop(io::stderr().write_all(frame)),
    }
}

/// Waits until everything is written, for as long as the reader reads, and two seconds at most. For the end of the
/// process.
pub fn flush() {
    if let Some(queue) = &*QUEUE {
        queue.flush();
    }
}

fn report_lost_lines(count: u64) {
    tracing::warn!(
        "{count} lines of the log were lost here: its reader had paused, or could not be written to"
    );
}

/// Lines on their way to a writer that may block or fail.
struct LineQueue {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A line was added, or one is done.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Box<[u8]>>,
    /// The length of all of them.
    bytes: usize,
    /// Whether the last of them is a state of the bar.
    ends_with_frame: bool,
    /// Whether the thread is at a line.
    writing: bool,
    /// Lines that were written, or could not be.
    done: u64,
    /// Lines that were dropped or could not be written, and are not reported yet.
    lost: u64,
}

impl State {
    fn add(&mut self, line: &[u8]) {
        self.bytes += line.len();
        self.lines.push_back(line.into());
    }
}

impl LineQueue {
    /// Starts the thread that writes to `target`. It calls `report` with the number of lost lines once lines can be
    /// written again.
    fn start(target: impl Write + Send + 'static, report: fn(u64)) -> io::Result<LineQueue> {
        let shared = Arc::new(Shared::default());
        let for_thread = shared.clone();
        thread::Builder::new()
            .name("log".into())
            .spawn(move || for_thread.write_all(target, report))?;
        Ok(LineQueue { shared })
    }

    /// Adds a line, or drops it if too many wait.
    fn push(&self, line: &[u8]) {
        let mut state = self.shared.lock();
        if !state.lines.is_empty() && state.bytes + line.len() > MAX_QUEUED_BYTES {
            state.lost += 1;
            return;
        }
        state.add(line);
        state.ends_with_frame = false;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Adds a state of the bar. Each begins by removing the one before, so that of several only the last matters. A
    /// terminal that is halted would else get all of them later.
    fn push_frame(&self, frame: &[u8]) {
        let mut state = self.shared.lock();
        if state.ends_with_frame
            && let Some(replaced) = state.lines.pop_back()
        {
            state.bytes -= replaced.len();
        }
        state.add(frame);
        state.ends_with_frame = true;
        drop(state);
        self.shared.changed.notify_all();
    }

    /// See [`flush`].
    fn flush(&self) {
        let begin = Instant::now();
        let mut state = self.shared.lock();
        let (mut done, mut last_progress) = (state.done, begin);
        while state.writing || !state.lines.is_empty() {
            if state.done != done {
                (done, last_progress) = (state.done, Instant::now());
            }
            let patience = (FLUSH_TIMEOUT.saturating_sub(begin.elapsed()))
                .min(STALL_TIMEOUT.saturating_sub(last_progress.elapsed()));
            if patience.is_zero() {
                return;
            }
            let waited = self.shared.changed.wait_timeout(state, patience);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes lines for as long as the process runs.
    fn write_all(&self, target: impl Write, report: fn(u64)) {
        let mut writer = LineWriter {
            target,
            is_cut: false,
        };
        loop {
            let line = self.take();
            let written = writer.write(&line).is_ok();
            if let Some(lost) = self.finish(written) {
                report(lost);
            }
        }
    }

    /// Waits for the next line.
    fn take(&self) -> Box<[u8]> {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.writing = true;
                return line;
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes what became of a line. Returns the number of lost lines once the reader has caught up so far that the
    /// report of them is not lost in its turn.
    fn finish(&self, written: bool) -> Option<u64> {
        let mut state = self.lock();
        state.writing = false;
        state.done += 1;
        if !written {
            state.lost += 1;
        }
        let recovered = written && state.lost > 0 && state.bytes < MAX_QUEUED_BYTES / 2;
        let lost = recovered.then(|| std::mem::take(&mut state.lost));
        drop(state);
        self.changed.notify_all();
        lost
    }
}

/// Writes whole lines, also after one that was written in part.
struct LineWriter<W> {
    target: W,
    is_cut: bool,
}

impl<W: Write> LineWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_cut {
            self.write_bytes(b"\n")?;
            self.is_cut = false;
        }
        self.write_bytes(line)
    }

    fn write_bytes(&mut self, mut rest: &[u8]) -> io::Result<()> {
        let length = rest.len();
        while !rest.is_empty() {
            match self.target.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(NON_BLOCKING_PAUSE);
                }
                Err(error) => {
                    self.is_cut |= rest.len() < length;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    use super::*;

    fn ignore(_: u64) {}

    #[test]
    fn a_reader_that_pauses_makes_no_writer_wait_and_learns_how_many_lines_it_missed() {
        static LOST: AtomicU64 = AtomicU64::new(0);
        let (reader, writer) = io::pipe().unwrap();
        let queue = LineQueue::start(writer, |count| {
            LOST.fetch_add(count, Ordering::Relaxed);
        })
        .unwrap();
        let line = [b"x".repeat(999).as_slice(), b"\n"].concat();
        let begin = Instant::now();
        for _ in 0..3000 {
            queue.push(&line);
        }
        queue.flush();
        assert!(begin.elapsed() < Duration::from_secs(10));
        let lost = queue.shared.lock().lost;
        assert!((1500..3000).contains(&lost), "{lost}");

        let mut lines = BufReader::new(reader).lines();
        for _ in lost..3000 {
            assert_eq!(lines.next().unwrap().unwrap().len(), 999);
        }
        queue.push(b"further\n");
        assert_eq!(lines.next().unwrap().unwrap(), "further");
        queue.flush();
        assert_eq!(LOST.load(Ordering::Relaxed), lost);
    }

    #[test]
    fn the_last_lines_are_written_before_the_process_ends() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue = LineQueue::start(writer, ignore).unwrap();
        // More than a pipe holds, for a reader that is slow to begin.
        let all = b"the last words\n".repeat(20_000);
        let reading = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            let mut read = vec![0; 15 * 20_000];
            reader.read_exact(&mut read).unwrap();
            read
        });
        for line in all.split_inclusive(|byte| *byte == b'\n') {
            queue.push(line);
        }
        queue.flush();
        assert_eq!(reading.join().unwrap(), all);
    }

    #[test]
    fn a_state_of_the_bar_replaces_one_that_was_not_shown_and_no_line() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = LineQueue::start(writer, ignore).unwrap();
        let long = [b"x".repeat(200_000).as_slice(), b"\n"].concat();
        queue.push(&long);
        for percent in 0..1000 {
            queue.push_frame(format!("{percent} %\n").as_bytes());
        }
        queue.push(b"a line\n");
        queue.push_frame(b"the end\n");
        let lines = BufReader::new(reader).lines().map(Result::unwrap);
        let lines: Vec<String> = lines.take(4).collect();
        assert_eq!(lines[1..], ["999 %", "a line", "the end"]);
    }

    /// Fails while the other end says so, after it has taken a part of the line.
    struct Disk {
        full: mpsc::Receiver<bool>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.full.recv().unwrap() {
                return Err(ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(4);
            self.written.lock().unwrap().extend(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_after_one_that_was_cut_begins_on_a_line_of_its_own() {
        let (full, answers) = mpsc::channel();
        let written = Arc::new(Mutex::default());
        let disk = Disk {
            full: answers,
            written: written.clone(),
        };
        let queue = LineQueue::start(disk, ignore).unwrap();
        for answer in [false, true, true, false, false, false] {
            full.send(answer).unwrap();
        }
        queue.push(b"first line\n");
        queue.push(b"lost\n");
        queue.push(b"third\n");
        queue.flush();
        assert_eq!(*written.lock().unwrap(), b"firs\nthird\n");
        assert_eq!(queue.shared.lock().done, 3);
    }
}
