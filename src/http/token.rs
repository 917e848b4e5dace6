//! The bearer token: who has it may read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The fewest characters of a token: it can be guessed at over the network.
const MIN_LENGTH: usize = 16;

/// A token. Only its hash is kept: two hashes are of one length, so a comparison tells nothing about the token.
#[derive(Clone)]
pub struct Token([u8; 32]);

/// A text cannot be a token.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UnusableToken {
    /// It is too short.
    #[error(
        "the token has {0} characters and needs at least {MIN_LENGTH}; make one with: openssl rand -hex 32"
    )]
    Short(usize),
    /// It cannot be sent in a header.
    #[error(
        "the token has a character that is none of ASCII's visible ones; make one with: openssl rand -hex 32"
    )]
    Character,
}

impl Token {
    /// The token of a file or a variable, in which blanks and line feeds around it do not count.
    ///
    /// # Errors
    /// It is too short, or has characters that a header cannot have.
    pub fn new(text: &str) -> Result<Token, UnusableToken> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UnusableToken::Character);
        }
        if text.len() < MIN_LENGTH {
            return Err(UnusableToken::Short(text.len()));
        }
        Ok(Token(hash(text.as_bytes())))
    }

    /// Whether the value of the header `Authorization` has the token: as a bearer token (RFC 6750), or as the password
    /// of any user (RFC 7617), for which browsers ask.
    pub(super) fn is_in(&self, authorization: &[u8]) -> bool {
        let Some((scheme, credentials)) = split_once(authorization, b' ') else {
            return false;
        };
        let credentials = credentials.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return self.is(credentials);
        }
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return false;
        }
        let decoded = STANDARD.decode(credentials).unwrap_or_default();
        split_once(&decoded, b':').is_some_and(|(_, password)| self.is(password))
    }

    fn is(&self, presented: &[u8]) -> bool {
        self.0.ct_eq(&hash(presented)).into()
    }
}

fn hash(text: &[u8]) -> [u8; 32] {
    Sha256::digest(text).into()
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == separator)?;
    Some((&bytes[..place], &bytes[place + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0123456789abcdef:~!";

    #[test]
    fn it_is_taken_from_both_schemes() {
        let token = Token::new(&format!(" {TEXT}\n")).unwrap();
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for authorization in [
            format!("Bearer {TEXT}"),
            format!("bearer  {TEXT} "),
            basic(&format!(":{TEXT}")),
            basic(&format!("prometheus:{TEXT}")),
        ] {
            assert!(token.is_in(authorization.as_bytes()), "{authorization}");
        }
        for authorization in [
            String::new(),
            TEXT.to_owned(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            format!("Bearer {TEXT}x"),
            format!("Bearer {}", &TEXT[1..]),
            format!("Token {TEXT}"),
            "Basic !!!".to_owned(),
            basic(TEXT),
            basic(&format!("{TEXT}:")),
        ] {
            assert!(!token.is_in(authorization.as_bytes()), "{authorization}");
        }
        assert!(!token.is_in(&[0xff, b' ', 0xff]));
    }

    #[test]
    fn a_token_that_is_short_or_cannot_be_sent_is_refused() {
        assert_eq!(Token::new("").err(), Some(UnusableToken::Short(0)));
        assert_eq!(
            Token::new("0123456789abcde\n").err(),
            Some(UnusableToken::Short(15))
        );
        for text in [
            "0123456789abcdef two",
            "0123456789abcdefü",
            "0123456789\0abcdef",
        ] {
            assert_eq!(
                Token::new(text).err(),
                Some(UnusableToken::Character),
                "{text}"
            );
        }
    }
}
