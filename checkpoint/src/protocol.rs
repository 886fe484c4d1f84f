//! What an application and its node's checkpoint service say to each other on a unix socket.
//!
//! A message is its length (four bytes, little endian) and a postcard body. The first is always [`ToService::Hello`], the answer
//! [`ToApp::Welcome`] with the guard page's descriptor, or [`ToApp::Refused`]. Both enums only grow at their ends.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sixnines_core::ids::{Epoch, GroupName};

use crate::bytes::Bytes;
use crate::outcome::{Answer, Cursor, Level, Outcome};
use crate::state::{Op, RequestId, Section};
use crate::store::Record;

/// The only version so far.
pub(crate) const VERSION: u16 = 1;
/// No message is longer: a batch at its limit, and some.
pub(crate) const MESSAGE_BYTES_MAX: usize = 48 << 20;
/// An image is sent in parts of about this size.
pub(crate) const IMAGE_PART_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToService {
    Hello(Hello),
    Write { ticket: u64, epoch: Epoch, request: Option<RequestId>, level: Level, ops: Vec<Op> },
    Read { ticket: u64, epoch: Epoch, key: Bytes },
    /// I am alive.
    Beat,
    /// I have written my last under this role.
    Drained { epoch: Epoch },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// The oldest and the newest version that the application speaks.
    pub(crate) versions: (u16, u16),
    /// The program's version, for people.
    pub(crate) build: String,
    pub(crate) group: GroupName,
    /// What the node put into the application's environment; empty if it asked for none.
    pub(crate) token: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToApp {
    Welcome { version: u16, guard_slot: u16 },
    Refused(Refused),
    Role(AppRole),
    /// A part of everything there is; the first one replaces what was, the last one says so.
    Image { cursor: Cursor, first: bool, last: bool, sections: Vec<(Bytes, Section)> },
    Record(Arc<Record>),
    Outcome { ticket: u64, outcome: Outcome },
    Answer { ticket: u64, answer: Answer },
    LossWindow(u64),
}

/// What the application is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AppRole {
    Active { epoch: Epoch, lost: bool },
    Standby,
    Quiescing { epoch: Epoch },
}

/// Why the service does not talk to an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// No common version.
    #[error("the service speaks version {0}")]
    Version(u16),
    /// No such group on this node.
    #[error("there is no group {0} on this node")]
    UnknownGroup(GroupName),
    /// Another process of the group is connected.
    #[error("another process of {0} is connected")]
    Taken(GroupName),
    /// Neither the service's own user nor root, or not the token of the group.
    #[error("this process may not speak for {0}")]
    NotPermitted(GroupName),
    /// The node has not joined its domain yet.
    #[error("the node has not joined its domain yet")]
    NotJoined,
    /// As many applications are connected as the domain's limits allow.
    #[error("{0} applications are connected, as many as this node admits: sdk_clients in the domain's limits")]
    Full(u32),
}

/// Adds one message to `out`.
pub(crate) fn encode<M: Serialize>(message: &M, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    *out = postcard::to_extend(message, std::mem::take(out)).expect("a message in memory has an encoding");
    let length = u32::try_from(out.len() - start - 4).expect("a message is within its bounds");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Why what came is not a message. The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("a message of {0} bytes is longer than any")]
    TooLong(usize),
    #[error("the message cannot be read")]
    Unreadable(#[source] postcard::Error),
}

/// Bytes that have come, cut into messages.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    read: usize,
}

impl Inbox {
    /// Room for at least `bytes` more; [`Self::filled`] says how many came.
    pub(crate) fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        if self.read > 0 {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.bytes.reserve(bytes);
        &mut self.bytes
    }

    /// The next whole message.
    pub(crate) fn next<M: DeserializeOwned>(&mut self) -> Result<Option<M>, MessageError> {
        let rest = &self.bytes[self.read..];
        let Some((head, body)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(MessageError::TooLong(length));
        }
        let Some(body) = body.get(..length) else { return Ok(None) };
        let message = postcard::from_bytes(body).map_err(MessageError::Unreadable)?;
        self.read += 4 + length;
        Ok(Some(message))
    }
}

/// An image, cut into messages one at a time: encoded at once, one of a gigabyte would keep everything else waiting for seconds.
#[derive(Debug)]
pub(crate) struct ImageParts {
    cursor: Cursor,
    is_begun: bool,
    is_over: bool,
    sections: std::vec::IntoIter<(Bytes, Section)>,
}

impl ImageParts {
    /// Of all `sections`, as of `cursor`.
    pub(crate) fn new(cursor: Cursor, sections: Vec<(Bytes, Section)>) -> Self {
        Self { cursor, is_begun: false, is_over: false, sections: sections.into_iter() }
    }
}

impl Iterator for ImageParts {
    type Item = ToApp;

    fn next(&mut self) -> Option<ToApp> {
        if self.is_over {
            return None;
        }
        let mut size = 0;
        let mut some = Vec::new();
        while size < IMAGE_PART_BYTES
            && let Some((key, section)) = self.sections.next()
        {
            size += key.len() + section.bytes.len() + 16;
            some.push((key, section));
        }
        self.is_over = self.sections.len() == 0;
        Some(ToApp::Image { cursor: self.cursor, first: !std::mem::replace(&mut self.is_begun, true), last: self.is_over, sections: some })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let messages = [ToService::Beat, ToService::Drained { epoch: Epoch(7) }, ToService::Read { ticket: 1, epoch: Epoch(2), key: "k".into() }];
        let mut bytes = Vec::new();
        messages.iter().for_each(|m| encode(m, &mut bytes));
        let mut inbox = Inbox::default();
        let mut got = Vec::new();
        for byte in bytes {
            inbox.room(1).push(byte);
            while let Some(message) = inbox.next::<ToService>().expect("own bytes") {
                got.push(message);
            }
        }
        assert_eq!(got, messages);
    }

    #[test]
    fn what_is_no_message_ends_the_connection() {
        let mut inbox = Inbox::default();
        inbox.room(4).extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(inbox.next::<ToApp>(), Err(MessageError::TooLong(_))));
        let mut inbox = Inbox::default();
        inbox.room(5).extend_from_slice(&[1, 0, 0, 0, 99]);
        assert!(matches!(inbox.next::<ToApp>(), Err(MessageError::Unreadable(_))));
    }

    #[test]
    fn an_image_is_cut_into_parts_and_says_where_it_begins_and_ends() {
        let section = |n: usize| Section { bytes: Bytes::from(vec![0; n]), version: Default::default() };
        let sections = vec![("a".into(), section(IMAGE_PART_BYTES)), ("b".into(), section(1)), ("c".into(), section(1))];
        let parts: Vec<_> = ImageParts::new(Cursor::default(), sections).collect();
        let shape = |p: &ToApp| match p {
            ToApp::Image { first, last, sections, .. } => (*first, *last, sections.len()),
            other => panic!("{other:?}"),
        };
        assert_eq!(parts.iter().map(shape).collect::<Vec<_>>(), [(true, false, 1), (false, true, 2)]);
        assert_eq!(ImageParts::new(Cursor::default(), Vec::new()).map(|p| shape(&p)).collect::<Vec<_>>(), [(true, true, 0)]);
    }
}
