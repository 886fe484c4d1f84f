//! Orders of the owner: what they may be, and what they do.

use sixnines_core::value::{Request, Value};

use super::board::{Board, Payload};
use super::points::{Object, Part};
use super::{Chassis, words};

impl Chassis {
    pub(super) fn carry_out(&mut self, object: &Object, request: &Request) -> Result<(), String> {
        match (object.part, request.control.as_str()) {
            (Part::Fan(i), "duty") if self.effects.fans_pulled[i] => return Err(format!("there is no fan in {}", object.name)),
            (Part::Fan(i), "duty") => self.physics.fans[i].duty_percent = duty(request)?,
            (Part::Slot(i), "power") => {
                let on = switch(request)?;
                self.board(i)?.order_power(on);
            }
            (Part::Slot(i), "reset") => self.reset(i, request)?,
            (part, control) => {
                let known: &[&str] = match part {
                    Part::Fan(_) => &["duty"],
                    Part::Slot(_) => &["power", "reset"],
                    _ => &[],
                };
                let none = || "it has none".to_owned();
                let known = if known.is_empty() { none() } else { words::nearest(control, known.iter().copied()) };
                return Err(format!("{control} is no control of {}; {known}", object.name));
            }
        }
        Ok(())
    }

    /// An edge: a repeat with the same id is answered and not carried out again.
    fn reset(&mut self, slot: usize, request: &Request) -> Result<(), String> {
        if request.value.is_some() {
            return Err("reset takes no value".into());
        }
        if self.edges.contains(&request.id) {
            return Ok(());
        }
        let board = self.board(slot)?;
        if board.payload == Payload::Off {
            return Err(format!("the board in slot {} is off; power it on instead", slot + 1));
        }
        board.reset();
        if self.edges.len() == EDGES_MAX {
            self.edges.pop_front();
        }
        self.edges.push_back(request.id);
        Ok(())
    }

    fn board(&mut self, slot: usize) -> Result<&mut Board, String> {
        self.physics.boards[slot].as_mut().ok_or_else(|| format!("slot {} is empty", slot + 1))
    }
}

fn duty(request: &Request) -> Result<i64, String> {
    let percent = match request.value {
        Some(Value::Int(n)) => n as f64,
        Some(Value::Float(x)) => x,
        _ => return Err("duty takes a number of percent".into()),
    };
    if !(0.0..=100.0).contains(&percent) {
        return Err(format!("duty is 0 to 100 %, not {percent}"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "0 to 100")]
    let whole = percent.round() as i64;
    Ok(whole)
}

fn switch(request: &Request) -> Result<bool, String> {
    match &request.value {
        Some(Value::Bool(on)) => Ok(*on),
        Some(Value::Enum(word) | Value::Text(word)) if &**word == "on" => Ok(true),
        Some(Value::Enum(word) | Value::Text(word)) if &**word == "off" => Ok(false),
        _ => Err("power takes \"on\" or \"off\"".into()),
    }
}

/// A repeat comes soon or never.
const EDGES_MAX: usize = 256;
