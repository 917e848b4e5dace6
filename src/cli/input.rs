//! Texts from standard input.

use std::io::{self, BufRead, Read};
use std::thread;

use anyhow::Context;
use tokio::sync::mpsc;

/// Lines that are read ahead.
const MAX_LINES_AHEAD: usize = 1024;

/// All of standard input as one text, without the line feed at its end.
///
/// # Errors
/// If it cannot be read, or is not UTF-8.
pub fn whole() -> anyhow::Result<String> {
    let mut text = String::new();
    let read = io::stdin().lock().read_to_string(&mut text);
    read.context("reading standard input")?;
    Ok(without_line_end(text))
}

/// The lines of standard input, as they come. A line that cannot be read, or is not UTF-8, is the last one, as its
/// error.
///
/// # Errors
/// If no thread can be started to read them.
pub fn lines() -> anyhow::Result<mpsc::Receiver<anyhow::Result<String>>> {
    let (sender, receiver) = mpsc::channel(MAX_LINES_AHEAD);
    // A blocking read cannot be cancelled, so it must not run on a thread that the runtime waits for at its end.
    thread::Builder::new()
        .name("stdin".into())
        .spawn(move || read_lines(io::stdin().lock(), &sender))?;
    Ok(receiver)
}

fn read_lines(mut input: impl BufRead, lines: &mpsc::Sender<anyhow::Result<String>>) {
    for number in 1_u64.. {
        let mut line = String::new();
        match input.read_line(&mut line) {
            Ok(0) => return,
            Ok(_) => {
                if lines.blocking_send(Ok(without_line_end(line))).is_err() {
                    return;
                }
            }
            Err(error) => {
                let context = format!("reading line {number} of standard input");
                let _ = lines.blocking_send(Err(error).context(context));
                return;
            }
        }
    }
}

fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_line_feeds_and_at_the_end_of_the_input() {
        let (sender, mut receiver) = mpsc::channel(8);
        read_lines(&b"one\r\n\ntwo words"[..], &sender);
        drop(sender);
        for expected in ["one", "", "two words"] {
            assert_eq!(receiver.try_recv().unwrap().unwrap(), expected);
        }
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn a_line_that_is_not_utf8_is_named() {
        let (sender, mut receiver) = mpsc::channel(8);
        read_lines(&b"one\n\xff\nthree\n"[..], &sender);
        receiver.try_recv().unwrap().unwrap();
        let error = format!("{:#}", receiver.try_recv().unwrap().unwrap_err());
        assert!(error.contains("line 2"), "{error}");
    }
}
