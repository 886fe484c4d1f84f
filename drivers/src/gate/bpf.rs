//! The exact form of the gate: the kernel compares the boot clock with the deadline for every frame.
//!
//! One page per slot, shared by the programs of its addresses; one program per address, attached to each device. The programs hold the
//! page: when this process is gone they go on with the last deadline, which passes.
#![expect(unsafe_code, reason = "bpf(2) and a mapping shared with the kernel have no safe interface")]

use std::ffi::{CStr, c_void};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sixnines_core::ids::NodeId;
use sixnines_core::time::Instant;

use super::program::{DEADLINE, DROPPED, Instruction, guard};
use super::tc::{self, Handle};
use super::{DeadlineWord, Gate, GateError, GateForm, GateSlot, Plan, device_index};
use crate::netlink::route::Route;

/// A gate of BPF programs.
#[derive(Debug)]
pub struct BpfGate {
    pages: Vec<Arc<Page>>,
    words: Vec<DeadlineWord>,
    owner: NodeId,
    programs: Vec<Program>,
    filters: Vec<Filter>,
    route: Route,
}

/// A program, loaded: it guards one address.
#[derive(Debug)]
struct Program {
    fd: OwnedFd,
    name: String,
}

/// A program on a device.
#[derive(Debug)]
struct Filter {
    program: usize,
    device: String,
    index: i32,
    handle: Handle,
}

impl BpfGate {
    /// Installs it closed, then removes what earlier lives of the owner left on any device.
    pub fn install(plan: &Plan) -> Result<Self, GateError> {
        let mut gate =
            Self { pages: vec![], words: vec![], owner: plan.owner, programs: vec![], filters: vec![], route: Route::open()? };
        for guard in &plan.guards {
            let map = create_map()?;
            let page = Arc::new(Page::map(&map)?);
            for address in &guard.addresses {
                let program = gate.programs.len();
                gate.programs.push(Program { fd: load(*address, &map)?, name: format!("nines-{}-{address}", guard.name) });
                for device in &guard.devices {
                    let index = device_index(&mut gate.route, device)?;
                    let handle = gate.attach(program, device, index)?;
                    gate.filters.push(Filter { program, device: device.clone(), index, handle });
                }
            }
            gate.words.push(DeadlineWord::in_page(Arc::clone(&page)));
            gate.pages.push(page);
        }
        gate.sweep()?;
        Ok(gate)
    }

    fn attach(&mut self, program: usize, device: &str, index: i32) -> Result<Handle, GateError> {
        let Program { fd, name } = &self.programs[program];
        tc::add_clsact(&mut self.route, index, device)?;
        Ok(tc::attach(&mut self.route, index, device, self.owner, fd.as_fd(), name)?)
    }

    /// Removes the owner's filters that are not this gate's, from every device.
    fn sweep(&mut self) -> Result<(), GateError> {
        for link in self.route.links()? {
            for handle in tc::attached(&mut self.route, link.index, self.owner)? {
                if !self.filters.iter().any(|f| (f.index, f.handle) == (link.index, handle)) {
                    tc::detach(&mut self.route, link.index, handle)?;
                }
            }
        }
        Ok(())
    }
}

impl Gate for BpfGate {
    fn form(&self) -> GateForm {
        GateForm::Bpf
    }

    fn words(&self) -> &[DeadlineWord] {
        &self.words
    }

    fn close(&mut self, slot: GateSlot) {
        self.arm(slot, Instant::ZERO);
    }

    fn dropped(&mut self, slot: GateSlot) -> u64 {
        self.pages[usize::from(slot.0)].dropped().load(Ordering::Relaxed)
    }

    fn restore(&mut self) -> Result<usize, GateError> {
        let links = self.route.links()?;
        let mut restored = 0;
        for number in 0..self.filters.len() {
            let Filter { program, ref device, index, handle } = self.filters[number];
            // By a device that is not there nothing leaves.
            let Some(now) = links.iter().find(|l| l.name == *device).map(|l| l.index) else { continue };
            if now != index || !tc::attached(&mut self.route, now, self.owner)?.contains(&handle) {
                let device = device.clone();
                let handle = self.attach(program, &device, now)?;
                self.filters[number] = Filter { program, device, index: now, handle };
                restored += 1;
            }
        }
        Ok(restored)
    }

    fn dismantle(mut self: Box<Self>) -> Result<(), GateError> {
        for filter in std::mem::take(&mut self.filters) {
            tc::detach(&mut self.route, filter.index, filter.handle)?;
        }
        Ok(())
    }
}

impl Drop for BpfGate {
    /// An owner that just lets go leaves a closed gate behind.
    fn drop(&mut self) {
        self.words.iter().for_each(|w| w.store(Instant::ZERO));
    }
}

/// Loads, attaches and removes a program that guards an address which no frame bears.
pub(crate) fn probe(device: &str) -> Result<(), GateError> {
    let mut route = Route::open()?;
    let index = device_index(&mut route, device)?;
    let map = create_map()?;
    Page::map(&map)?;
    let program = load(IpAddr::from([0, 0, 0, 0]), &map)?;
    tc::add_clsact(&mut route, index, device)?;
    // No node has the number 0, so this meets no gate that is in force.
    let handle = tc::attach(&mut route, index, device, NodeId(0), program.as_fd(), "nines-probe")?;
    Ok(tc::detach(&mut route, index, handle)?)
}

/// The value of a map, one page, mapped here and read by the kernel's programs.
#[derive(Debug)]
pub(crate) struct Page {
    start: NonNull<c_void>,
}

/// Larger than all that we ask of it: the kernel hands out whole pages.
const PAGE: usize = 4096;

// SAFETY: the page is only ever touched through atomics.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn map(map: &OwnedFd) -> Result<Self, GateError> {
        // Touched in advance: the liveness thread must not take a page fault.
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let start = unsafe {
            let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
            libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, map.as_raw_fd(), 0)
        };
        let failed = |source| GateError::Bpf { what: "map the gate's page", log: None, source };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Self { start }),
            _ => Err(failed(io::Error::last_os_error())),
        }
    }

    /// Until when frames may pass.
    pub(crate) fn deadline(&self) -> &AtomicU64 {
        self.word(DEADLINE)
    }

    /// How many did not.
    pub(crate) fn dropped(&self) -> &AtomicU64 {
        self.word(DROPPED)
    }

    fn word(&self, offset: u16) -> &AtomicU64 {
        // SAFETY: both offsets are multiples of eight within the page, which is mapped as long as `self` lives.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().byte_add(offset.into()).cast()) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr(), PAGE) };
    }
}

/// `union bpf_attr`, as far as `BPF_MAP_CREATE` reads it.
#[repr(C)]
#[derive(Default)]
struct MapAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// `union bpf_attr`, as far as `BPF_PROG_LOAD` reads it.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

const MAP_CREATE: i32 = 0;
const PROG_LOAD: i32 = 5;
const TYPE_ARRAY: u32 = 2;
const TYPE_SCHED_CLS: u32 = 3;
const MMAPABLE: u32 = 1 << 10;
const NAME: [u8; 16] = *b"nines_gate\0\0\0\0\0\0";
/// None of the helpers in use is reserved to programs under the GPL.
const LICENSE: &CStr = c"MIT OR Apache-2.0";

fn create_map() -> Result<OwnedFd, GateError> {
    let attr = MapAttr { map_type: TYPE_ARRAY, key_size: 4, value_size: 64, max_entries: 1, map_flags: MMAPABLE, name: NAME, ..Default::default() };
    // SAFETY: the command reads `MapAttr`.
    unsafe { bpf(MAP_CREATE, &attr) }.map_err(|source| GateError::Bpf { what: "create the gate's BPF map", log: None, source })
}

fn load(address: IpAddr, map: &OwnedFd) -> Result<OwnedFd, GateError> {
    let code = guard(address, map.as_raw_fd());
    load_code(&code, &mut []).or_else(|_| {
        let mut log = vec![0; 64 * 1024];
        load_code(&code, &mut log).map_err(|source| {
            let text = log.split(|b| *b == 0).next().map(|l| String::from_utf8_lossy(l).trim().to_owned()).filter(|l| !l.is_empty());
            GateError::Bpf { what: "load the gate's BPF program", log: text, source }
        })
    })
}

fn load_code(code: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let attr = LoadAttr {
        prog_type: TYPE_SCHED_CLS,
        instructions: u32::try_from(code.len()).expect("a short program"),
        code: code.as_ptr().expose_provenance() as u64,
        license: LICENSE.as_ptr().expose_provenance() as u64,
        log_level: (!log.is_empty()).into(),
        log_size: u32::try_from(log.len()).expect("a small log"),
        log: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
        name: NAME,
        ..Default::default()
    };
    // SAFETY: the command reads `LoadAttr`, whose addresses point at live slices of the lengths given.
    unsafe { bpf(PROG_LOAD, &attr) }
}

/// # Safety
/// `attr` is what `command` reads, and the addresses in it are valid for it.
unsafe fn bpf<T>(command: i32, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's word.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) };
    match i32::try_from(result) {
        // SAFETY: both commands in use return a new descriptor.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    use super::*;
    use crate::clock::boot_now;

    /// `union bpf_attr`, as far as `BPF_PROG_TEST_RUN` reads it.
    #[repr(C)]
    #[derive(Default)]
    struct TestRun {
        program: u32,
        result: u32,
        len: u32,
        len_out: u32,
        frame: u64,
        frame_out: u64,
        repeat: u32,
        nanos: u32,
        context: [u32; 6],
    }

    /// What the program says to a frame.
    fn verdict(program: &OwnedFd, frame: &[u8]) -> i32 {
        let mut run = TestRun {
            program: program.as_raw_fd().cast_unsigned(),
            len: frame.len().try_into().unwrap(),
            frame: frame.as_ptr().expose_provenance() as u64,
            repeat: 1,
            ..TestRun::default()
        };
        // SAFETY: the command reads and writes `TestRun`, whose address points at a live slice of the length given.
        let done = unsafe { libc::syscall(libc::SYS_bpf, 10, &raw mut run, size_of::<TestRun>()) };
        assert_eq!(done, 0, "{}", io::Error::last_os_error());
        run.result.cast_signed()
    }

    /// In words, for the frames that we make: who speaks for whom.
    fn speaks_for(frame: &[u8], address: IpAddr) -> bool {
        let has = |at: usize, bytes: &[u8]| frame.get(at..at + bytes.len()) == Some(bytes);
        match address {
            IpAddr::V4(a) => has(12, &[8, 0]) && has(26, &a.octets()) || has(12, &[8, 6]) && has(28, &a.octets()),
            IpAddr::V6(a) => {
                let advertises = has(20, &[58]) && has(54, &[136]) && has(62, &a.octets());
                has(12, &[0x86, 0xdd]) && (has(22, &a.octets()) || advertises)
            }
        }
    }

    /// Mostly frames that nearly speak for the address.
    fn frame(address: IpAddr) -> impl Strategy<Value = Vec<u8>> {
        let octets = match address {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        let kinds = prop_oneof![3 => Just([8, 0]), 3 => Just([8, 6]), 6 => Just([0x86, 0xdd]), 1 => any::<[u8; 2]>()];
        let at = prop_oneof![4 => Just(22_usize), 4 => Just(26), 4 => Just(28), 1 => Just(30), 1 => Just(38), 4 => Just(62), 1 => Just(63)];
        let spoilt = prop::option::weighted(0.2, (0..octets.len(), 1..=255_u8));
        // The kernel's test wants a whole header of what the frame says it is.
        (any::<Vec<u8>>(), kinds, at, spoilt, any::<bool>(), any::<bool>(), 54..100_usize).prop_map(
            move |(noise, kind, at, spoilt, is_icmp, is_advertisement, len)| {
                let mut frame = noise;
                frame.resize(100, 0);
                let mut octets = octets.clone();
                if let Some((index, change)) = spoilt {
                    octets[index] ^= change;
                }
                frame[at..at + octets.len()].copy_from_slice(&octets);
                frame[12..14].copy_from_slice(&kind);
                if is_icmp {
                    frame[20] = 58;
                }
                if is_advertisement {
                    frame[54] = 136;
                }
                frame.truncate(len);
                frame
            },
        )
    }

    #[test]
    fn the_program_drops_exactly_what_speaks_for_the_address() {
        for address in ["10.9.0.1", "fd09::1:2:3"].map(|a| a.parse::<IpAddr>().unwrap()) {
            let Ok(map) = create_map() else {
                return eprintln!("SKIPPED: BPF programs may not be loaded here");
            };
            let (page, program) = (Page::map(&map).unwrap(), load(address, &map).unwrap());
            let (spoke, others) = (Cell::new(0_u64), Cell::new(0_u64));
            TestRunner::new(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })
                .run(&frame(address), |frame| {
                    let speaks = speaks_for(&frame, address);
                    page.deadline().store((boot_now() + std::time::Duration::from_secs(600)).as_nanos(), Ordering::Release);
                    prop_assert_eq!(verdict(&program, &frame), tc::TC_ACT_UNSPEC, "open");
                    page.deadline().store(boot_now().as_nanos(), Ordering::Release);
                    let expected = if speaks { tc::TC_ACT_SHOT } else { tc::TC_ACT_UNSPEC };
                    prop_assert_eq!(verdict(&program, &frame), expected, "closed");
                    let count = if speaks { &spoke } else { &others };
                    count.set(count.get() + 1);
                    Ok(())
                })
                .unwrap();
            let (spoke, others) = (spoke.get(), others.get());
            assert!(spoke > 100 && others > 100, "{address}: {spoke} spoke, {others} did not");
            assert_eq!(page.dropped().load(Ordering::Relaxed), spoke);
        }
    }
}
