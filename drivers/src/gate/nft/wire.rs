//! The table as nftables messages.
//!
//! Source: Linux `include/uapi/linux/netfilter/nf_tables.h`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use sixnines_core::ids::NodeId;

use super::super::{GateSlot, Guard};
use super::named;
use crate::netlink::message::{Attrs, Message, text};
use crate::netlink::{Netlink, NetlinkError, Refusal};

/// Our table in this network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    name: String,
}

const OPEN: &str = "open";

impl Table {
    pub(crate) fn of(owner: NodeId) -> Self {
        Self { name: format!("sixnines-{owner}") }
    }

    pub(crate) fn for_probe() -> Self {
        Self { name: format!("sixnines-probe-{}", std::process::id()) }
    }

    /// Replaces whatever has this name by a closed gate, in one transaction.
    pub(crate) fn install(&self, netlink: &mut Netlink, guards: &[Guard]) -> Result<(), NetlinkError> {
        // Adding before deleting: a table that is not there cannot be deleted, and that would void the transaction.
        let mut messages = vec![self.add_table(), self.delete_table(), self.add_table(), self.add_set()];
        let mut devices: Vec<&String> = guards.iter().flat_map(|g| &g.devices).collect();
        devices.sort_unstable();
        devices.dedup();
        messages.extend(devices.iter().map(|d| self.add_chain(d)));
        for (slot, guard) in (0_u16..).map(GateSlot).zip(guards) {
            messages.push(self.add_counter(slot));
            for device in &guard.devices {
                messages.extend(guard.addresses.iter().flat_map(|a| patterns(*a)).map(|p| self.add_rule(device, slot, &p)));
            }
        }
        named(transact(netlink, &mut messages), &format!("install the nftables table {}", self.name))
    }

    /// Removes the table.
    pub(crate) fn remove(&self, netlink: &mut Netlink) -> Result<(), NetlinkError> {
        let mut messages = [self.add_table(), self.delete_table()];
        named(transact(netlink, &mut messages), &format!("remove the nftables table {}", self.name))
    }

    /// How many of the rules that [`Self::install`] makes are not there.
    pub(crate) fn missing(&self, netlink: &mut Netlink, guards: &[Guard]) -> Result<usize, NetlinkError> {
        let replies = match netlink.dump(message(GETRULE, 0).attr_text(RULE_TABLE, &self.name), "list the gate's rules") {
            Err(e) if e.is(libc::ENOENT) => Vec::new(),
            other => other?,
        };
        let chains: Vec<String> = replies
            .iter()
            .map(|r| Attrs::after(&r.body, NFGENMSG))
            .filter(|a| a.of(RULE_TABLE).map(text).as_deref() == Some(&*self.name))
            .filter_map(|a| a.of(RULE_CHAIN).map(text))
            .collect();
        let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
        for guard in guards {
            let rules: usize = guard.addresses.iter().map(|a| patterns(*a).len()).sum();
            guard.devices.iter().for_each(|d| *wanted.entry(d).or_default() += rules);
        }
        Ok(wanted.iter().map(|(device, count)| count.saturating_sub(chains.iter().filter(|c| c == device).count())).sum())
    }

    pub(crate) fn put_ticket(&self, netlink: &mut Netlink, slot: GateSlot, life: Duration) -> Result<(), Refusal> {
        // A ticket from before may be there still: then either it is renewed (Linux 6.12) or stays as it is, and both are right.
        transact(netlink, &mut [self.element(NEWSETELEM, CREATE, ticket(slot), Some(life))])
    }

    pub(crate) fn open(&self, netlink: &mut Netlink, slot: GateSlot, life: Duration) -> Result<(), Refusal> {
        let remove = self.element(DELSETELEM, 0, ticket(slot), None);
        transact(netlink, &mut [remove, self.element(NEWSETELEM, CREATE | EXCLUSIVE, key(slot), Some(life))])
    }

    pub(crate) fn prolong(&self, netlink: &mut Netlink, slot: GateSlot, life: Duration) -> Result<(), Refusal> {
        let remove = self.element(DELSETELEM, 0, key(slot), None);
        transact(netlink, &mut [remove, self.element(NEWSETELEM, CREATE | EXCLUSIVE, key(slot), Some(life))])
    }

    pub(crate) fn close(&self, netlink: &mut Netlink, slot: GateSlot) -> Result<(), Refusal> {
        transact(netlink, &mut [self.element(DELSETELEM, 0, key(slot), None)])
    }

    /// Frames dropped in `slot`.
    pub(crate) fn dropped(&self, netlink: &mut Netlink, slot: GateSlot) -> Option<u64> {
        let ask = message(GETOBJ, 0).attr_text(OBJ_TABLE, &self.name).attr_be32(OBJ_TYPE, OBJECT_COUNTER);
        let replies = netlink.dump(ask, "read the gate's counters").ok()?;
        replies.iter().find_map(|r| {
            let attrs = Attrs::after(&r.body, NFGENMSG);
            let is_it = attrs.of(OBJ_NAME).map(text).as_deref() == Some(&*counter(slot)) && attrs.of(OBJ_TABLE).map(text).as_deref() == Some(&*self.name);
            let packets = attrs.inside(OBJ_DATA).of(COUNTER_PACKETS)?;
            is_it.then(|| packets.try_into().ok().map(u64::from_be_bytes))?
        })
    }

    fn add_table(&self) -> Message {
        message(NEWTABLE, CREATE).attr_text(TABLE_NAME, &self.name)
    }

    fn delete_table(&self) -> Message {
        message(DELTABLE, 0).attr_text(TABLE_NAME, &self.name)
    }

    fn add_set(&self) -> Message {
        message(NEWSET, CREATE)
            .attr_text(SET_TABLE, &self.name)
            .attr_text(SET_NAME, OPEN)
            .attr_be32(SET_FLAGS, SET_HAS_TIMEOUTS)
            .attr_be32(SET_KEY_TYPE, 0)
            .attr_be32(SET_KEY_LEN, 4)
            .attr_be32(SET_ID, 1)
    }

    fn add_chain(&self, device: &str) -> Message {
        message(NEWCHAIN, CREATE)
            .attr_text(CHAIN_TABLE, &self.name)
            .attr_text(CHAIN_NAME, device)
            .nest(CHAIN_HOOK, |m| {
                m.attr_be32(HOOK_NUMBER, HOOK_EGRESS).attr_be32(HOOK_PRIORITY, FIRST.cast_unsigned()).attr_text(HOOK_DEVICE, device)
            })
            .attr_be32(CHAIN_POLICY, ACCEPT)
            .attr_text(CHAIN_TYPE, "filter")
    }

    fn add_counter(&self, slot: GateSlot) -> Message {
        message(NEWOBJ, CREATE)
            .attr_text(OBJ_TABLE, &self.name)
            .attr_text(OBJ_NAME, &counter(slot))
            .attr_be32(OBJ_TYPE, OBJECT_COUNTER)
            .nest(OBJ_DATA, |m| m)
    }

    /// If the frame fits the pattern and the slot is not in the set: count it, drop it.
    fn add_rule(&self, device: &str, slot: GateSlot, pattern: &[Field]) -> Message {
        message(NEWRULE, CREATE | APPEND)
            .attr_text(RULE_TABLE, &self.name)
            .attr_text(RULE_CHAIN, device)
            .nest(RULE_EXPRESSIONS, |mut m| {
                for field in pattern {
                    m = expression(m, "payload", |m| {
                        let len = u32::try_from(field.bytes.len()).expect("at most 16");
                        m.attr_be32(1, REGISTER).attr_be32(2, BASE_LINK_LAYER).attr_be32(3, field.offset).attr_be32(4, len)
                    });
                    m = expression(m, "cmp", |m| m.attr_be32(1, REGISTER).attr_be32(2, EQUAL).nest(3, |m| m.attr(DATA_VALUE, &field.bytes)));
                }
                m = expression(m, "immediate", |m| m.attr_be32(1, REGISTER).nest(2, |m| m.attr(DATA_VALUE, &key(slot))));
                m = expression(m, "lookup", |m| m.attr_text(1, OPEN).attr_be32(2, REGISTER).attr_be32(4, 1).attr_be32(5, INVERTED));
                m = expression(m, "objref", |m| m.attr_be32(1, OBJECT_COUNTER).attr_text(2, &counter(slot)));
                expression(m, "immediate", |m| {
                    m.attr_be32(1, REGISTER_VERDICT).nest(2, |m| m.nest(DATA_VERDICT, |m| m.attr_be32(VERDICT_CODE, DROP)))
                })
            })
    }

    fn element(&self, kind: u16, flags: u16, key: [u8; 4], life: Option<Duration>) -> Message {
        message(kind, flags).attr_text(ELEMENTS_TABLE, &self.name).attr_text(ELEMENTS_SET, OPEN).nest(ELEMENTS, |m| {
            m.nest(LIST_ELEMENT, |m| {
                let m = m.nest(ELEMENT_KEY, |m| m.attr(DATA_VALUE, &key));
                match life {
                    Some(life) => m.attr_be64(ELEMENT_TIMEOUT, u64::try_from(life.as_millis()).expect("a lease")),
                    None => m,
                }
            })
        })
    }
}

/// Bytes that a frame must have at an offset from its Ethernet header.
struct Field {
    offset: u32,
    bytes: Vec<u8>,
}

/// The ways of speaking for an address; the same offsets as in the BPF program.
fn patterns(address: IpAddr) -> Vec<Vec<Field>> {
    let field = |offset, bytes: &[u8]| Field { offset, bytes: bytes.to_vec() };
    match address {
        IpAddr::V4(a) => vec![
            vec![field(12, &[0x08, 0x00]), field(14 + 12, &a.octets())],
            vec![field(12, &[0x08, 0x06]), field(14 + 14, &a.octets())],
        ],
        IpAddr::V6(a) => vec![
            vec![field(12, &[0x86, 0xdd]), field(14 + 8, &a.octets())],
            vec![field(12, &[0x86, 0xdd]), field(14 + 6, &[58]), field(14 + 40, &[136]), field(14 + 48, &a.octets())],
        ],
    }
}

fn key(slot: GateSlot) -> [u8; 4] {
    u32::from(slot.0).to_be_bytes()
}

fn ticket(slot: GateSlot) -> [u8; 4] {
    (0x8000_0000 | u32::from(slot.0)).to_be_bytes()
}

fn counter(slot: GateSlot) -> String {
    format!("dropped-{}", slot.0)
}

fn expression(m: Message, name: &str, fill: impl FnOnce(Message) -> Message) -> Message {
    m.nest(LIST_ELEMENT, |m| m.attr_text(1, name).nest(2, fill))
}

fn transact(netlink: &mut Netlink, messages: &mut [Message]) -> Result<(), Refusal> {
    let edge = |kind| Message::new(kind, 0).put(&[0, 0, 0, SUBSYSTEM]);
    netlink.transaction(messages, &mut edge(BATCH_BEGIN), &mut edge(BATCH_END))
}

/// A message with its `struct nfgenmsg`.
fn message(kind: u16, flags: u16) -> Message {
    Message::new(u16::from(SUBSYSTEM) << 8 | kind, flags).put(&[FAMILY_NETDEV, 0, 0, 0])
}

const NFGENMSG: usize = 4;
const SUBSYSTEM: u8 = 10;
const FAMILY_NETDEV: u8 = 5;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;
const NEWOBJ: u16 = 18;
const GETOBJ: u16 = 19;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const HOOK_EGRESS: u32 = 1;
/// Before every other chain: one of them might send the frame another way.
const FIRST: i32 = i32::MIN;
const ACCEPT: u32 = 1;
const DROP: u32 = 0;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_ID: u16 = 10;
const SET_HAS_TIMEOUTS: u32 = 0x10;
const ELEMENTS_TABLE: u16 = 1;
const ELEMENTS_SET: u16 = 2;
const ELEMENTS: u16 = 3;
const LIST_ELEMENT: u16 = 1;
const ELEMENT_KEY: u16 = 1;
const ELEMENT_TIMEOUT: u16 = 4;
const OBJ_TABLE: u16 = 1;
const OBJ_NAME: u16 = 2;
const OBJ_TYPE: u16 = 3;
const OBJ_DATA: u16 = 4;
const OBJECT_COUNTER: u32 = 1;
const COUNTER_PACKETS: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const BASE_LINK_LAYER: u32 = 0;
const EQUAL: u32 = 0;
const INVERTED: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{boot_now, sleep_until};
    use crate::netlink::Protocol;
    use crate::netns::Netns;
    use crate::realtime::tick;
    use crate::testing::in_own_network;

    /// What the bound on the gate's lateness rests upon, asked of the kernel itself.
    #[test]
    fn an_expired_element_voids_the_transaction_that_removes_it() {
        in_own_network("gate::nft::wire::tests::an_expired_element_voids_the_transaction_that_removes_it", || {
            let ns = Netns::new().unwrap();
            ns.add_bridge("br0").unwrap();
            let mut netlink = ns.run(|| Netlink::open(Protocol::Netfilter)).unwrap();
            let (table, slot) = (Table::for_probe(), GateSlot(0));
            let guard = Guard { name: "calls".into(), addresses: vec!["10.9.0.1".parse().unwrap()], devices: vec!["br0".into()] };
            table.install(&mut netlink, &[guard]).unwrap();
            let (long, short) = (Duration::from_secs(600), tick());
            let outlive = |life: Duration| {
                let end = boot_now() + life + tick() * 2;
                while boot_now() < end {
                    sleep_until(end);
                }
            };
            let is = |result: Result<(), Refusal>, errno| matches!(result, Err(refusal) if refusal.is(errno));

            assert!(is(table.open(&mut netlink, slot, long), libc::ENOENT), "without a ticket");
            assert!(is(table.prolong(&mut netlink, slot, long), libc::ENOENT), "never opened");
            table.put_ticket(&mut netlink, slot, short).unwrap();
            outlive(short);
            assert!(is(table.open(&mut netlink, slot, long), libc::ENOENT), "with an expired ticket");
            assert!(is(table.close(&mut netlink, slot), libc::ENOENT), "and nothing of it has happened");

            table.put_ticket(&mut netlink, slot, long).unwrap();
            table.put_ticket(&mut netlink, slot, long).unwrap();
            table.open(&mut netlink, slot, short).unwrap();
            assert!(is(table.open(&mut netlink, slot, long), libc::ENOENT), "a ticket is for once");
            outlive(short);
            assert!(is(table.prolong(&mut netlink, slot, long), libc::ENOENT), "expired");

            table.put_ticket(&mut netlink, slot, long).unwrap();
            table.open(&mut netlink, slot, long).unwrap();
            table.put_ticket(&mut netlink, slot, long).unwrap();
            assert!(is(table.open(&mut netlink, slot, long), libc::EEXIST), "alive");
            table.prolong(&mut netlink, slot, long).unwrap();
            table.close(&mut netlink, slot).unwrap();
            assert!(is(table.prolong(&mut netlink, slot, long), libc::ENOENT), "closed");
        });
    }
}
