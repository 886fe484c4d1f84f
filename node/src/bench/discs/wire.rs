//! A wire between a dialling node and one link of another: datagrams go through it, either way, unless it is cut that way.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;

pub(super) struct Wire {
    address: SocketAddr,
    ends: Arc<Ends>,
    threads: Vec<JoinHandle<()>>,
}

struct Ends {
    front: UdpSocket,
    back: UdpSocket,
    target: OnceLock<SocketAddr>,
    dialler: OnceLock<SocketAddr>,
    cut_there: AtomicBool,
    cut_here: AtomicBool,
    over: AtomicBool,
}

impl Wire {
    pub(super) fn new() -> anyhow::Result<Self> {
        let socket = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.set_read_timeout(Some(LOOK_EVERY))?;
            io::Result::Ok(socket)
        };
        let (front, back) = (socket().context("a wire's socket")?, socket().context("a wire's socket")?);
        let address = front.local_addr()?;
        let no = || AtomicBool::new(false);
        let ends = Arc::new(Ends { front, back, target: OnceLock::new(), dialler: OnceLock::new(), cut_there: no(), cut_here: no(), over: no() });
        let (there, here) = (ends.clone(), ends.clone());
        let threads = vec![std::thread::spawn(move || there.carry_there()), std::thread::spawn(move || here.carry_here())];
        Ok(Self { address, ends, threads })
    }

    /// Where to dial, to get to `target`. Said once.
    pub(super) fn lead_to(&self, target: SocketAddr) -> SocketAddr {
        self.ends.target.get_or_init(|| target);
        self.address
    }

    /// Whether nothing gets to the target, and nothing back from it.
    pub(super) fn cut(&self, there: bool, here: bool) {
        self.ends.cut_there.store(there, Ordering::Relaxed);
        self.ends.cut_here.store(here, Ordering::Relaxed);
    }
}

impl Ends {
    fn carry_there(&self) {
        self.carry(&self.front, &self.cut_there, |bytes, from| {
            self.dialler.get_or_init(|| from);
            self.target.get().map(|target| self.back.send_to(bytes, target))
        });
    }

    fn carry_here(&self) {
        self.carry(&self.back, &self.cut_here, |bytes, _| self.dialler.get().map(|dialler| self.front.send_to(bytes, dialler)));
    }

    fn carry(&self, from: &UdpSocket, cut: &AtomicBool, to: impl Fn(&[u8], SocketAddr) -> Option<io::Result<usize>>) {
        let mut buffer = vec![0; 65_536];
        while !self.over.load(Ordering::Relaxed) {
            let Ok((length, sender)) = from.recv_from(&mut buffer) else { continue };
            if !cut.load(Ordering::Relaxed) {
                drop(to(&buffer[..length], sender)); // A refused datagram is a lost one.
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ends.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::debug!("a wire's thread had panicked");
            }
        }
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(20);
