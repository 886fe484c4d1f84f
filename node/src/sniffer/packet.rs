//! The two calls on a packet socket that nix lacks.
#![expect(unsafe_code, reason = "nix can read a link address but not make one, and does not know packet_mreq")]

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// Binds a packet socket to the device with this index, for every protocol, and hears what is meant for others as well.
pub(super) fn attach(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let number = |n: i32| u16::try_from(n).expect("the kernel's constants fit");
    let index = i32::try_from(index).map_err(io::Error::other)?;
    let address = libc::sockaddr_ll {
        sll_family: number(libc::AF_PACKET),
        sll_protocol: number(libc::ETH_P_ALL).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the kernel reads one sockaddr_ll of the length given, during the call.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length_of(&address)) })?;
    let membership =
        libc::packet_mreq { mr_ifindex: index, mr_type: number(libc::PACKET_MR_PROMISC), mr_alen: 0, mr_address: [0; 8] };
    // SAFETY: the kernel reads one packet_mreq of the length given, during the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const membership).cast(),
            length_of(&membership),
        )
    })
}

fn length_of<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).expect("a few bytes")
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
