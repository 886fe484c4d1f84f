//! What an operator asks of a simulated node: the same calls that a daemon's socket takes, answered in the same words.

use crossbeam::channel::{Receiver, Sender, bounded};
use sixnines_core::authority::{AccessRole, Principal};
use sixnines_core::engine::CommandBody;
use sixnines_core::time::Instant;
use sixnines_hwsim::domain::{Order, SimOutput, Ticket};

use super::node::Node;
use crate::api::{Call, Reply};
use crate::core_loop::In;
use crate::core_loop::answers::Ask;

/// Orders that are not answered yet.
#[derive(Default)]
pub(super) struct Orders(Vec<(Ticket, Receiver<Reply>)>);

impl Orders {
    /// The answers that have come.
    pub(super) fn poll(&mut self) -> Vec<(Ticket, Result<String, String>)> {
        let mut answered = Vec::new();
        self.0.retain(|(ticket, receiver)| match receiver.try_recv() {
            Ok(Reply::Failed(failure)) => {
                answered.push((*ticket, Err(failure.message)));
                false
            }
            Ok(Reply::Done { text }) => {
                answered.push((*ticket, Ok(text)));
                false
            }
            Ok(_) => {
                answered.push((*ticket, Ok(String::new())));
                false
            }
            Err(error) => error.is_empty(), // who will never answer is not waited for
        });
        answered
    }
}

impl Node {
    /// Whoever asks here may do everything: a scenario is about what comes of it.
    pub(super) fn on_order(&mut self, now: Instant, ticket: Ticket, order: Order) {
        let call = match order {
            Order::Command(body) => {
                let (reply, receiver) = bounded(1);
                self.orders.0.push((ticket, receiver));
                return self.command(now, person(SCENARIO), body, reply);
            }
            Order::Switchover { service, to } => Call::Switchover { service: service.to_string(), to },
            Order::Start(service) => Call::StartService { service: service.to_string() },
            Order::Apply(bundle) => Call::PolicyApply { files: bundle.files, message: "scenario".to_owned() },
        };
        let receiver = self.ask(now, SCENARIO, call);
        self.orders.0.push((ticket, receiver));
    }

    /// As an operator's command line does it; whoever does not wait for the answer drops it.
    pub(super) fn ask(&mut self, now: Instant, who: &str, call: Call) -> Receiver<Reply> {
        let (reply, receiver) = bounded(1);
        self.core(now, Some(In::Ask(Ask { call, principal: person(who), reply })));
        receiver
    }

    /// A command to an object that this node owns.
    fn command(&mut self, now: Instant, principal: Principal, body: CommandBody, reply: Sender<Reply>) {
        self.core(now, None); // so that it knows the time
        self.core.command(now, principal, body, String::new(), reply);
    }

    /// Tells what has been answered.
    pub(super) fn tell_orders(&mut self) {
        for (ticket, outcome) in self.orders.poll() {
            self.out.push(SimOutput::Replied(ticket, outcome));
        }
    }
}

fn person(name: &str) -> Principal {
    Principal { name: name.into(), role: AccessRole::Admin }
}

/// Who asks in a scenario.
const SCENARIO: &str = "scenario";
