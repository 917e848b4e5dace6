//! The marker of write-backs.

/// Prefix of the message that opens each of our write-back transactions; the stream leaves such transactions out.
pub const MARKER: &str = "lantern";
