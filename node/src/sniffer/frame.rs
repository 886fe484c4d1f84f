//! The few bytes of Ethernet, ARP and IPv4 that tell who speaks for an address. Pure.

use std::net::Ipv4Addr;

use super::talkers::Mac;

const ETHERNET: usize = 14;
const TYPE_IPV4: [u8; 2] = [0x08, 0x00];
const TYPE_ARP: [u8; 2] = [0x08, 0x06];

/// The sender's hardware address, if the frame speaks for `address`.
pub(crate) fn speaks_for(address: Ipv4Addr, frame: &[u8]) -> Option<Mac> {
    let from: Mac = frame.get(6..12)?.try_into().ok()?;
    // Sender's address: IPv4 at 12 (RFC 791), ARP at 14 (RFC 826), both behind the Ethernet header.
    let place = match frame.get(12..14)?.try_into().ok()? {
        TYPE_IPV4 => ETHERNET + 12,
        TYPE_ARP => ETHERNET + 14,
        _ => return None,
    };
    (frame.get(place..place + 4)? == address.octets()).then_some(from)
}

/// "Who has `address`?", to everybody, from a sender without an address of its own (RFC 5227), so that nobody learns anything.
pub(crate) fn arp_question(from: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend_from_slice(&[0xff; 6]);
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&TYPE_ARP);
    frame.extend_from_slice(&[0, 1, 0x08, 0, 6, 4, 0, 1]); // Ethernet, IPv4, their lengths, request
    frame.extend_from_slice(&from);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&address.octets());
    frame
}

/// A hardware address that nobody has, beside `own`: what answers go to that must not touch the client's own neighbour table.
pub(crate) fn alias(own: Mac) -> Mac {
    let mut alias = own;
    alias[0] = 0x02;
    alias[5] ^= 0x80;
    alias
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 100);
    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_question_asks_for_the_address_and_does_not_speak_for_it() {
        let question = arp_question(MAC, VIP);
        assert_eq!(question.len(), 42);
        assert_eq!(speaks_for(VIP, &question), None);
        assert_eq!(speaks_for(Ipv4Addr::UNSPECIFIED, &question), Some(MAC));
    }

    #[test]
    fn ipv4_and_arp_from_the_address_speak_for_it_and_others_do_not() {
        let mut arp = arp_question(MAC, Ipv4Addr::new(10, 9, 0, 200));
        arp[28..32].copy_from_slice(&VIP.octets());
        assert_eq!(speaks_for(VIP, &arp), Some(MAC));
        let mut ip = arp.clone();
        ip[12..14].copy_from_slice(&TYPE_IPV4);
        assert_eq!(speaks_for(VIP, &ip), None);
        ip[26..30].copy_from_slice(&VIP.octets());
        assert_eq!(speaks_for(VIP, &ip), Some(MAC));
        ip[30..34].copy_from_slice(&[10, 9, 0, 7]);
        assert_eq!(speaks_for(Ipv4Addr::new(10, 9, 0, 7), &ip), None, "to is not from");
        for cut in 0..30 {
            assert_eq!(speaks_for(VIP, &ip[..cut]), None, "{cut}");
        }
    }
}
