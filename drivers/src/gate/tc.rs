//! Attaching BPF programs to a device's egress, and finding again what was attached.
//!
//! Classic filters under a `clsact` queueing discipline, not a tcx link: a link goes when its last descriptor does, and a gate has to stay.

use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, BorrowedFd};

use sixnines_core::ids::NodeId;

use crate::netlink::message::{Attrs, Message, text, u32_at};
use crate::netlink::route::Route;
use crate::netlink::{NetlinkError, Reply, tolerate};

/// The next filter decides.
pub(crate) const TC_ACT_UNSPEC: i32 = -1;
/// The frame is dropped.
pub(crate) const TC_ACT_SHOT: i32 = 2;

/// Names one of our filters on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Handle(u32);

/// Marks a handle as ours in its highest byte; the owner follows.
const OURS: u32 = 0x69 << 24;
const PER_OWNER: u32 = 1 << 16;

/// Before all other filters. Within one preference the newest comes first.
const PREFERENCE: u32 = 1;

/// All handles of one node.
fn handles(owner: NodeId) -> RangeInclusive<u32> {
    let first = OURS + u32::from(owner.0 & 0xff) * PER_OWNER;
    first + 1..=first + PER_OWNER - 1
}

/// Makes sure that the device takes egress filters.
pub(crate) fn add_clsact(route: &mut Route, index: i32, device: &str) -> Result<(), NetlinkError> {
    let message = Message::new(RTM_NEWQDISC, CREATE | EXCLUSIVE)
        .put(&tcmsg(index, CLSACT_HANDLE, CLSACT, 0))
        .attr_text(TCA_KIND, "clsact");
    tolerate(route.netlink().request(message, format!("add a clsact queueing discipline to {device}")), &[libc::EEXIST])
}

/// Removes all egress filters of a device, whoever's they are: what an administrator may do.
#[cfg(test)]
pub(crate) fn remove_clsact(route: &mut Route, device: &str) -> Result<(), NetlinkError> {
    let index = route.link(device)?.index;
    let message = Message::new(RTM_NEWQDISC + 1, 0).put(&tcmsg(index, CLSACT_HANDLE, CLSACT, 0)).attr_text(TCA_KIND, "clsact");
    route.netlink().request(message, format!("remove the clsact queueing discipline of {device}"))
}

/// Attaches a program under a handle of `owner` that is not in use.
pub(crate) fn attach(route: &mut Route, index: i32, device: &str, owner: NodeId, program: BorrowedFd<'_>, name: &str) -> Result<Handle, NetlinkError> {
    let used = attached(route, index, owner)?;
    let free = handles(owner).find(|h| !used.contains(&Handle(*h)));
    let handle = free.ok_or_else(|| NetlinkError::new(format!("find a free filter handle on {device}"), std::io::Error::from_raw_os_error(libc::ENOSPC)))?;
    let program = program.as_raw_fd().cast_unsigned();
    let message = filter(RTM_NEWTFILTER, CREATE | EXCLUSIVE, index, handle).nest(TCA_OPTIONS, |m| {
        m.attr_u32(TCA_BPF_FD, program).attr_text(TCA_BPF_NAME, name).attr_u32(TCA_BPF_FLAGS, DIRECT_ACTION)
    });
    route.netlink().request(message, format!("attach the gate's filter to {device}"))?;
    Ok(Handle(handle))
}

/// Our filters on a device.
pub(crate) fn attached(route: &mut Route, index: i32, owner: NodeId) -> Result<Vec<Handle>, NetlinkError> {
    let replies = route.netlink().dump(Message::new(RTM_GETTFILTER, 0).put(&tcmsg(index, 0, EGRESS, 0)), "list the egress filters")?;
    let range = handles(owner);
    let ours = |r: &Reply| {
        let handle = u32_at(&r.body, 8)?;
        let is_bpf = Attrs::after(&r.body, TCMSG).of(TCA_KIND).map(text).as_deref() == Some("bpf");
        (is_bpf && range.contains(&handle)).then_some(Handle(handle))
    };
    let mut found: Vec<Handle> = replies.iter().filter(|r| r.kind == RTM_NEWTFILTER).filter_map(ours).collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// Removes one of our filters. It may be gone already.
pub(crate) fn detach(route: &mut Route, index: i32, handle: Handle) -> Result<(), NetlinkError> {
    let result = route.netlink().request(filter(RTM_DELTFILTER, 0, index, handle.0), "remove a filter of the gate");
    tolerate(result, &[libc::ENOENT, libc::ENODEV])
}

fn filter(kind: u16, flags: u16, index: i32, handle: u32) -> Message {
    let every_protocol = u32::from(0x0003_u16.to_be());
    Message::new(kind, flags)
        .put(&tcmsg(index, handle, EGRESS, PREFERENCE << 16 | every_protocol))
        .attr_text(TCA_KIND, "bpf")
}

/// `struct tcmsg`.
fn tcmsg(index: i32, handle: u32, parent: u32, info: u32) -> [u8; TCMSG] {
    let mut fixed = [0; TCMSG];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&handle.to_ne_bytes());
    fixed[12..16].copy_from_slice(&parent.to_ne_bytes());
    fixed[16..20].copy_from_slice(&info.to_ne_bytes());
    fixed
}

/// Length of `struct tcmsg`.
const TCMSG: usize = 20;
const CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const EGRESS: u32 = 0xffff_fff3;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const DIRECT_ACTION: u32 = 1;
