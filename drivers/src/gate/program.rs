//! The gate's BPF program, put together by hand: there is no compiler for it on an appliance, and it is short.
//!
//! For one address, in words: a frame that does not speak for it goes on to whoever filters next; one that does goes on too if the
//! boot clock stands below the deadline in the map; else it is counted and dropped. No I/O here.
//!
//! Source: Linux `Documentation/bpf/standardization/instruction-set.rst`; `include/uapi/linux/bpf.h` for the helpers' numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use super::tc::{TC_ACT_SHOT, TC_ACT_UNSPEC};

/// Where the deadline lies in the map's one value.
pub(crate) const DEADLINE: u16 = 0;
/// Where the count of dropped frames lies.
pub(crate) const DROPPED: u16 = 8;

/// One instruction, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The program that guards `address` by the map behind `map`.
pub(crate) fn guard(address: IpAddr, map: RawFd) -> Vec<Instruction> {
    let mut a = Assembler::default();
    a.move_register(SKB, 1);
    match address {
        IpAddr::V4(address) => a.match_ipv4(address),
        IpAddr::V6(address) => a.match_ipv6(address),
    }
    a.judge(map);
    a.label(Label::GoOn);
    a.emit(MOVE_IMMEDIATE, 0, 0, 0, TC_ACT_UNSPEC);
    a.emit(EXIT, 0, 0, 0, 0);
    a.finish()
}

/// The packet, kept in a register that calls do not touch.
const SKB: u8 = 6;
/// The stack's upper end.
const FRAME: u8 = 10;
/// Room for what is read from the frame: 16 bytes below the stack's upper end.
const SCRATCH: i16 = -16;

// Offsets into an Ethernet frame.
const ETHERTYPE: i32 = 12;
const IPV4_SOURCE: i32 = 14 + 12;
const ARP_SENDER: i32 = 14 + 14;
const IPV6_NEXT_HEADER: i32 = 14 + 6;
const IPV6_SOURCE: i32 = 14 + 8;
/// A neighbour advertisement has no extension headers: RFC 6980 forbids the one that could matter.
const ICMPV6_TYPE: i32 = 14 + 40;
const ADVERTISED: i32 = 14 + 40 + 8;

const ICMPV6: i32 = 58;
const ADVERTISEMENT: i32 = 136;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    /// Reads the address at the offset in register 2.
    Compare,
    /// Not a source: perhaps a neighbour advertisement.
    Advertisement,
    /// The frame speaks for the address.
    Judge,
    /// Not for us, or allowed.
    GoOn,
}

#[derive(Default)]
struct Assembler {
    code: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<(Label, usize)>,
}

impl Assembler {
    fn match_ipv4(&mut self, address: Ipv4Addr) {
        self.load(ETHERTYPE, 2);
        self.emit(READ_U16, 1, FRAME, SCRATCH, 0);
        self.emit(MOVE_IMMEDIATE, 2, 0, 0, IPV4_SOURCE);
        self.jump(IF_EQUAL_32, 1, ethertype(0x0800), Label::Compare);
        self.emit(MOVE_IMMEDIATE, 2, 0, 0, ARP_SENDER);
        self.jump(IF_EQUAL_32, 1, ethertype(0x0806), Label::Compare);
        self.jump(ALWAYS, 0, 0, Label::GoOn);
        self.label(Label::Compare);
        self.load_at_register_2(4);
        self.compare(&address.octets(), Label::GoOn);
        self.jump(ALWAYS, 0, 0, Label::Judge);
    }

    fn match_ipv6(&mut self, address: Ipv6Addr) {
        self.load(ETHERTYPE, 2);
        self.emit(READ_U16, 1, FRAME, SCRATCH, 0);
        self.jump(IF_NOT_EQUAL_32, 1, ethertype(0x86dd), Label::GoOn);
        self.load(IPV6_SOURCE, 16);
        self.compare(&address.octets(), Label::Advertisement);
        self.jump(ALWAYS, 0, 0, Label::Judge);

        self.label(Label::Advertisement);
        for (offset, value) in [(IPV6_NEXT_HEADER, ICMPV6), (ICMPV6_TYPE, ADVERTISEMENT)] {
            self.load(offset, 1);
            self.emit(READ_U8, 1, FRAME, SCRATCH, 0);
            self.jump(IF_NOT_EQUAL_32, 1, value, Label::GoOn);
        }
        self.load(ADVERTISED, 16);
        self.compare(&address.octets(), Label::GoOn);
        self.jump(ALWAYS, 0, 0, Label::Judge);
    }

    /// Falls through only in the frame's disfavour.
    fn judge(&mut self, map: RawFd) {
        self.label(Label::Judge);
        self.emit(CALL, 0, 0, 0, HELPER_BOOT_CLOCK);
        self.emit(MAP_VALUE, 1, PSEUDO_MAP_VALUE, 0, map);
        self.emit(0, 0, 0, 0, 0); // The second half: an offset of zero.
        self.emit(READ_U64, 2, 1, DEADLINE.cast_signed(), 0);
        self.emit_jump(IF_LESS_64, 0, 2, 0, Label::GoOn);
        self.emit(MOVE_IMMEDIATE, 2, 0, 0, 1);
        self.emit(ATOMIC_ADD_U64, 1, 2, DROPPED.cast_signed(), 0);
        self.emit(MOVE_IMMEDIATE, 0, 0, 0, TC_ACT_SHOT);
        self.emit(EXIT, 0, 0, 0, 0);
    }

    /// Copies `len` bytes of the frame to the stack. A frame that is too short for them does not speak for anyone.
    fn load(&mut self, offset: i32, len: i32) {
        self.emit(MOVE_IMMEDIATE, 2, 0, 0, offset);
        self.load_at_register_2(len);
    }

    fn load_at_register_2(&mut self, len: i32) {
        self.move_register(1, SKB);
        self.move_register(3, FRAME);
        self.emit(ADD_IMMEDIATE, 3, 0, 0, SCRATCH.into());
        self.emit(MOVE_IMMEDIATE, 4, 0, 0, len);
        self.emit(CALL, 0, 0, 0, HELPER_LOAD_BYTES);
        self.jump(IF_NOT_EQUAL_64, 0, 0, Label::GoOn);
    }

    /// Compares what was loaded with `octets`, four at a time.
    fn compare(&mut self, octets: &[u8], otherwise: Label) {
        for (offset, word) in (SCRATCH..).step_by(4).zip(octets.chunks_exact(4)) {
            self.emit(READ_U32, 1, FRAME, offset, 0);
            self.jump(IF_NOT_EQUAL_32, 1, i32::from_ne_bytes([word[0], word[1], word[2], word[3]]), otherwise);
        }
    }

    fn move_register(&mut self, to: u8, from: u8) {
        self.emit(MOVE_REGISTER, to, from, 0, 0);
    }

    fn jump(&mut self, code: u8, register: u8, value: i32, to: Label) {
        self.emit_jump(code, register, 0, value, to);
    }

    fn emit_jump(&mut self, code: u8, register: u8, other: u8, value: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(code, register, other, 0, value);
    }

    fn label(&mut self, label: Label) {
        self.labels.push((label, self.code.len()));
    }

    fn emit(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        self.code.push(Instruction { code, registers: to | from << 4, offset, immediate });
    }

    fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let (_, to) = self.labels.iter().find(|(l, _)| *l == label).expect("every label that is jumped to is set");
            self.code[at].offset = i16::try_from(to - at - 1).expect("all jumps of a short program go forward");
        }
        self.code
    }
}

fn ethertype(number: u16) -> i32 {
    u16::from_ne_bytes(number.to_be_bytes()).into()
}

const MOVE_IMMEDIATE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const ADD_IMMEDIATE: u8 = 0x07;
const READ_U8: u8 = 0x71;
const READ_U16: u8 = 0x69;
const READ_U32: u8 = 0x61;
const READ_U64: u8 = 0x79;
const MAP_VALUE: u8 = 0x18;
const PSEUDO_MAP_VALUE: u8 = 2;
const ATOMIC_ADD_U64: u8 = 0xdb;
const ALWAYS: u8 = 0x05;
const IF_EQUAL_32: u8 = 0x16;
const IF_NOT_EQUAL_32: u8 = 0x56;
const IF_NOT_EQUAL_64: u8 = 0x55;
const IF_LESS_64: u8 = 0xad;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const HELPER_LOAD_BYTES: i32 = 26;
const HELPER_BOOT_CLOCK: i32 = 125;
