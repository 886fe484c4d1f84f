//! Somebody who uses the example application of a domain, from outside.

use std::net::UdpSocket;
use std::time::Duration;

use crate::domain::Domain;

/// A client of the example application that asks every node until the active answers.
pub(crate) struct Client {
    socket: UdpSocket,
    doors: Vec<String>,
    sequence: u64,
}

/// An answer: its result, the epoch it was given under, how many changes the call has seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) result: String,
    pub(crate) epoch: u64,
    pub(crate) applied: u64,
}

impl Client {
    pub(crate) fn new(domain: &Domain, service: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        Self { socket, doors: (1..=3).map(|n| domain.door(service, n)).collect(), sequence: 0 }
    }

    /// Repeats the request, with its id, until there is an answer.
    pub(crate) fn ask(&mut self, operation: &str, call: u64) -> Answer {
        self.sequence += 1;
        let client = self.socket.local_addr().expect("bound").port();
        for attempt in 1..2000 {
            for door in &self.doors {
                let request = format!("Q {client:x} {} {attempt} {operation} {call}", self.sequence);
                // A node that is dead refuses; the next one is asked.
                drop(self.socket.send_to(request.as_bytes(), door));
            }
            let mut buffer = [0; 256];
            while let Ok(length) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let words: Vec<&str> = text.split(' ').collect();
                if words.get(2).and_then(|w| w.parse().ok()) == Some(self.sequence) {
                    return Answer { result: words[4].to_owned(), epoch: words[6].parse().expect("an epoch"), applied: words[7].parse().expect("a count") };
                }
            }
        }
        panic!("{operation} of call {call} was never answered");
    }
}
