//! What an operator carries to a new machine: who it shall be, whom it shall trust, where to ask, and a secret.
//!
//! `nines1-` and base 32 of: format, contents, checksum. The checksum is against slips of the hand alone. What keeps a token from being
//! changed is that the control log holds the hash of the whole of it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};
use sixnines_core::domain::admission::Fingerprint;
use sixnines_core::ids::NodeId;

use super::{PkiError, fingerprint, library};

/// Longest list of places to ask at: a token has to fit a line of a serial console's paste buffer.
const DOORS_MAX: usize = 8;
const PREFIX: &str = "nines1-";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const CHECKSUM_BYTES: usize = 4;
/// No token is longer.
const TEXT_MAX: usize = 1024;

/// A one-time token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The domain that it is for.
    pub domain: String,
    /// Who its bearer is going to be.
    pub node: NodeId,
    /// The SHA-256 of the CA's certificate: nothing else is trusted.
    pub authority: Fingerprint,
    /// Seconds since 1970.
    pub expires: u64,
    /// Where to show it: nodes with an address of theirs, the best first.
    pub doors: Vec<(NodeId, SocketAddr)>,
    secret: [u8; 32],
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Something else.
    #[error("this is no token: one begins with {PREFIX} and is printed by nines node invite")]
    Foreign,
    /// Part of it is missing or changed.
    #[error("the token is damaged: copy the whole of it, on one line")]
    Damaged,
}

impl Token {
    /// Draws a new one.
    ///
    /// # Errors
    /// [`PkiError::Library`] if the system has no random numbers.
    pub fn draw(domain: &str, node: NodeId, authority: Fingerprint, expires: u64, mut doors: Vec<(NodeId, SocketAddr)>) -> Result<Self, PkiError> {
        let mut secret = [0; 32];
        ring::rand::SystemRandom::new().fill(&mut secret).map_err(library("random numbers"))?;
        doors.truncate(DOORS_MAX);
        Ok(Self { domain: domain.to_owned(), node, authority, expires, doors, secret })
    }

    /// By which the control log knows it. Any change of the token changes it.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.contents())
    }

    fn contents(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a token in memory has an encoding")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("domain", &self.domain).field("node", &self.node).finish_non_exhaustive()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.contents();
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        f.write_str(PREFIX)?;
        f.write_str(&to_text(&bytes))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let rest = text.strip_prefix(PREFIX).ok_or(TokenError::Foreign)?;
        let bytes = (text.len() <= TEXT_MAX).then(|| from_text(rest)).flatten().ok_or(TokenError::Damaged)?;
        let (contents, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Damaged)?;
        if crc32c::crc32c(contents) != u32::from_le_bytes(*checksum) {
            return Err(TokenError::Damaged);
        }
        match postcard::take_from_bytes(contents) {
            Ok((token, [])) => Ok(token),
            _ => Err(TokenError::Damaged),
        }
    }
}

/// RFC 4648, section 6, in small letters and without padding: no letter is taken for a digit.
fn to_text(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(5) {
        let mut five = [0; 8];
        five[3..3 + chunk.len()].copy_from_slice(chunk);
        let bits = u64::from_be_bytes(five);
        let letters = (chunk.len() * 8).div_ceil(5);
        text.extend((0..letters).map(|i| char::from(ALPHABET[usize::try_from(bits >> (35 - 5 * i) & 31).expect("five bits")])));
    }
    text
}

fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(8) {
        let mut bits = 0u64;
        for (i, letter) in chunk.iter().enumerate() {
            let value = ALPHABET.iter().position(|l| *l == letter.to_ascii_lowercase())?;
            bits |= u64::try_from(value).ok()? << (35 - 5 * i);
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[3..3 + chunk.len() * 5 / 8]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        let doors = (1..=9).map(|n| (NodeId(n), format!("10.9.1.{n}:7400").parse().expect("an address"))).collect();
        Token::draw("lab", NodeId(4), Fingerprint([7; 32]), 1_800_000_000, doors).expect("random numbers")
    }

    #[test]
    fn a_token_survives_being_written_down_and_no_two_are_the_same() {
        let token = token();
        let text = token.to_string();
        assert_eq!(text.parse(), Ok(token.clone()));
        assert_eq!(format!("  {}\n", text).parse(), Ok(token.clone()));
        assert_eq!(token.doors.len(), DOORS_MAX);
        assert_ne!(token.fingerprint(), self::token().fingerprint());
        assert!(!format!("{token:?}").contains("secret"));
    }

    #[test]
    fn slips_of_the_hand_are_seen_and_changes_of_purpose_change_the_hash() {
        let text = token().to_string();
        assert_eq!("hello".parse::<Token>(), Err(TokenError::Foreign));
        assert_eq!(text[..text.len() - 1].parse::<Token>(), Err(TokenError::Damaged));
        assert_eq!(text.replace('a', "b").replacen('c', "d", 1).parse::<Token>(), Err(TokenError::Damaged));
        assert_eq!(format!("{PREFIX}{}", "a".repeat(9999)).parse::<Token>(), Err(TokenError::Damaged));
        let other = Token { node: NodeId(5), ..token() };
        assert_eq!(other.to_string().parse(), Ok(other.clone()), "readable, but nobody was invited by it");
        assert_ne!(Token { node: NodeId(4), ..other.clone() }.fingerprint(), other.fingerprint());
    }

    #[test]
    fn base_32_has_these_letters() {
        for (bytes, text) in [("", ""), ("f", "my"), ("fo", "mzxq"), ("foo", "mzxw6"), ("foob", "mzxw6yq"), ("fooba", "mzxw6ytb"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(to_text(bytes.as_bytes()), text);
            assert_eq!(from_text(text).as_deref(), Some(bytes.as_bytes()));
        }
    }
}
