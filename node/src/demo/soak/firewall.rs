//! Reloads of a firewall as an administrator's `nft -f` makes them: one transaction that replaces a table with a large set.
//!
//! Source: Linux `include/uapi/linux/netfilter/nf_tables.h`.

use std::os::fd::AsFd as _;
use std::time::Instant;

use anyhow::Context as _;
use nix::sys::socket::{setsockopt, sockopt};
use sixnines_drivers::netlink::{Message, Netlink, Protocol, Refusal};

/// Replaces the set again and again, and says how long it took.
///
/// # Errors
/// What the kernel refused.
pub(super) fn reload_for_ever(elements: u32) -> anyhow::Result<()> {
    let mut netlink = Netlink::open(Protocol::Netfilter)?;
    // A transaction is one datagram, and this one is larger than any of the product's own. More than the limit is for who may administer networks.
    setsockopt(&netlink.as_fd(), sockopt::SndBufForce, &SOCKET_BYTES).context("asking for a large buffer")?;
    setsockopt(&netlink.as_fd(), sockopt::RcvBufForce, &SOCKET_BYTES).context("asking for a large buffer")?;
    loop {
        let began = Instant::now();
        reload(&mut netlink, elements).map_err(|refusal| refusal.named(format!("reload a set of {elements} elements")))?;
        println!("{LINE} {}", began.elapsed().as_micros());
    }
}

/// What each reload's line in the log begins with; microseconds follow.
pub(super) const LINE: &str = "reloaded";

fn reload(netlink: &mut Netlink, elements: u32) -> Result<(), Refusal> {
    let mut messages = vec![table(NEWTABLE, CREATE), table(DELTABLE, 0), table(NEWTABLE, CREATE), set()];
    let addresses: Vec<u32> = (0..elements).map(|n| FIRST_ADDRESS + n).collect();
    messages.extend(addresses.chunks(CHUNK).map(part));
    let edge = |kind| Message::new(kind, 0).put(&[0, 0, 0, SUBSYSTEM]);
    netlink.transaction(&mut messages, &mut edge(BATCH_BEGIN), &mut edge(BATCH_END))
}

fn table(kind: u16, flags: u16) -> Message {
    message(kind, flags).attr_text(1, TABLE)
}

fn set() -> Message {
    message(NEWSET, CREATE).attr_text(1, TABLE).attr_text(2, SET).attr_be32(SET_KEY_TYPE, IPV4_ADDRESS).attr_be32(SET_KEY_LEN, 4).attr_be32(SET_ID, 1)
}

fn part(addresses: &[u32]) -> Message {
    message(NEWSETELEM, CREATE).attr_text(1, TABLE).attr_text(2, SET).nest(ELEMENTS, |m| {
        addresses.iter().fold(m, |m, address| m.nest(LIST_ELEMENT, |m| m.nest(ELEMENT_KEY, |m| m.attr(DATA_VALUE, &address.to_be_bytes()))))
    })
}

/// A message with its `struct nfgenmsg`.
fn message(kind: u16, flags: u16) -> Message {
    Message::new(u16::from(SUBSYSTEM) << 8 | kind, flags).put(&[FAMILY_INET, 0, 0, 0])
}

const TABLE: &str = "soak";
const SET: &str = "blocked";
/// 100.64.0.0, of the shared address space: nobody in the lab.
const FIRST_ADDRESS: u32 = 0x6440_0000;
/// Elements of one message: an attribute's length has 16 bits.
const CHUNK: usize = 2000;
const SOCKET_BYTES: usize = 8 << 20;
const SUBSYSTEM: u8 = 10;
const FAMILY_INET: u8 = 1;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const CREATE: u16 = 0x400;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_ID: u16 = 10;
/// As `nft` names the type of a key.
const IPV4_ADDRESS: u32 = 7;
const ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const DATA_VALUE: u16 = 1;
