//! Every fault that can be injected: its name, its parameters, its help, and how words become a [`Fault`].

use std::collections::BTreeMap;

use sixnines_core::ids::{AttributeName, ObjectName};

use super::{BoardFault, Fault, FaultError, Injection, SensorFault};
use crate::chassis::points::Points;
use crate::chassis::words::nearest;

/// A fault as the operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// What to call it by.
    pub name: &'static str,
    /// What it takes.
    pub parameters: &'static [Parameter],
    /// What happens.
    pub help: &'static str,
}

/// A parameter of a fault.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// Before the `=`.
    pub name: &'static str,
    /// Taken when it is not given; without one it has to be given.
    pub default: Option<&'static str>,
    /// What it means, with its range.
    pub help: &'static str,
}

/// All faults, by name.
pub const CATALOGUE: &[Entry] = &[
    Entry {
        name: "board-boot-fails",
        parameters: &[SLOT],
        help: "the board begins its boot again and again: it shows at its next reset or power-on",
    },
    Entry {
        name: "board-busy",
        parameters: &[SLOT, Parameter { name: "percent", default: Some("100"), help: "load of its processor, 0 to 100" }],
        help: "the board's processor is busy, and makes heat",
    },
    Entry {
        name: "board-hang",
        parameters: &[SLOT],
        help: "the board stops answering (M7) and goes on drawing power; a reset or a power cycle cures it",
    },
    Entry {
        name: "board-hot",
        parameters: &[SLOT, Parameter { name: "watts", default: Some("40"), help: "extra power, 1 to 500" }],
        help: "the board draws more power and turns it into heat; above the slot's limit it loses its fuse",
    },
    Entry {
        name: "board-latch-open",
        parameters: &[SLOT],
        help: "somebody opens the latch: the board goes down in order (M5, M6, M1) and shows the blue light; clearing closes it",
    },
    Entry {
        name: "board-leak",
        parameters: &[SLOT, Parameter { name: "percent_per_minute", default: Some("5"), help: "of its memory, 0.01 to 1000" }],
        help: "the board's memory fills up; when it is full the board panics",
    },
    Entry {
        name: "board-panic",
        parameters: &[SLOT],
        help: "the board's payload stops; its watchdog resets it, if it has one, or an order does",
    },
    Entry {
        name: "board-pulled",
        parameters: &[SLOT, SERIAL],
        help: "somebody pulls the board without asking (M0); clearing pushes it in again, cold",
    },
    Entry { name: "fabric-down", parameters: &[FABRIC], help: "the switched fabric carries nothing" },
    Entry {
        name: "fabric-flapping",
        parameters: &[
            FABRIC,
            Parameter { name: "seconds", default: Some("2"), help: "of the clock, down and then up, 0.2 to 3600" },
        ],
        help: "the switched fabric goes down and up again",
    },
    Entry {
        name: "fabric-lossy",
        parameters: &[
            FABRIC,
            Parameter { name: "percent", default: Some("5"), help: "of the frames that are lost, 0.001 to 100" },
        ],
        help: "the switched fabric loses frames",
    },
    Entry { name: "fan-failed", parameters: &[FAN], help: "the fan stands still, and air leaks back through it" },
    Entry {
        name: "fan-pulled",
        parameters: &[FAN, SERIAL],
        help: "somebody takes the fan out (missing), and air leaks back through the hole; clearing puts one in",
    },
    Entry {
        name: "fan-worn",
        parameters: &[
            FAN,
            Parameter { name: "percent", default: Some("60"), help: "of the ordered speed that it reaches, 1 to 99" },
        ],
        help: "the fan is slower than ordered",
    },
    Entry {
        name: "feed-lost",
        parameters: &[Parameter { name: "feed", default: None, help: "name of the mains feed, such as A" }],
        help: "every supply on that feed loses its input at once",
    },
    Entry {
        name: "inlet-hot",
        parameters: &[Parameter { name: "celsius", default: Some("40"), help: "of the air at the inlet, -40 to 90" }],
        help: "the room is hot",
    },
    Entry { name: "sensor-missing", parameters: &[OBJECT, ATTRIBUTE], help: "the sensor gives no value (quality missing)" },
    Entry {
        name: "sensor-noisy",
        parameters: &[
            OBJECT,
            ATTRIBUTE,
            Parameter { name: "sigma", default: None, help: "standard deviation, in the attribute's unit" },
        ],
        help: "the sensor's value scatters around the true one",
    },
    Entry {
        name: "sensor-slow",
        parameters: &[
            OBJECT,
            ATTRIBUTE,
            Parameter { name: "seconds", default: Some("60"), help: "time constant, of the chassis' time, 0.1 to 1e5" },
        ],
        help: "the sensor follows the true value late",
    },
    Entry { name: "sensor-stuck", parameters: &[OBJECT, ATTRIBUTE], help: "the sensor repeats its last value, quality good" },
    Entry {
        name: "sensor-wrong",
        parameters: &[
            OBJECT,
            ATTRIBUTE,
            Parameter { name: "offset", default: None, help: "added to the true value, in the attribute's unit" },
        ],
        help: "the sensor's value is off by a constant",
    },
    Entry {
        name: "shelf-manager-silent",
        parameters: &[],
        help: "no sensor is read (quality stale), no order carried out; after a while the fan trays speed up by themselves",
    },
    Entry {
        name: "supply-failed",
        parameters: &[SUPPLY],
        help: "the supply gives no power; the others share its load, and brown out boards if they cannot",
    },
    Entry {
        name: "supply-pulled",
        parameters: &[SUPPLY, SERIAL],
        help: "somebody takes the supply out (missing); clearing puts one in",
    },
];

const FAN: Parameter = Parameter { name: "fan", default: None, help: "number of the fan, from 1" };
const FABRIC: Parameter = Parameter { name: "fabric", default: None, help: "name of the fabric, such as A" };
const SLOT: Parameter = Parameter { name: "slot", default: None, help: "number of the slot, from 1" };
const SUPPLY: Parameter = Parameter { name: "supply", default: None, help: "number of the supply, from 1" };
const SERIAL: Parameter =
    Parameter { name: "serial", default: Some(""), help: "of what comes back when the fault ends; empty: the same thing" };
const OBJECT: Parameter = Parameter { name: "object", default: None, help: "name of the object, such as /mxp1/fan3" };
const ATTRIBUTE: Parameter = Parameter { name: "attribute", default: None, help: "name of its attribute, such as speed" };

impl Fault {
    /// Checks an injection against the catalogue and the chassis.
    pub(crate) fn check(injection: &Injection, points: &Points) -> Result<Self, FaultError> {
        let given = Given { words: Words::of(CATALOGUE, injection)?, points };
        given.check_serial()?;
        Ok(match given.words.entry.name {
            "fan-failed" => Self::FanFailed { fan: given.part("fan", points.fans)? },
            "fan-pulled" => Self::FanPulled { fan: given.part("fan", points.fans)? },
            "fan-worn" => Self::FanWorn { fan: given.part("fan", points.fans)?, percent: given.words.number("percent", 1.0, 99.0)? },
            "supply-failed" => Self::SupplyFailed { supply: given.part("supply", points.supplies)? },
            "supply-pulled" => Self::SupplyPulled { supply: given.part("supply", points.supplies)? },
            "feed-lost" => Self::FeedLost { feed: given.feed()? },
            "inlet-hot" => Self::InletHot { celsius: given.words.number("celsius", -40.0, 90.0)? },
            "fabric-down" => Self::FabricDown { fabric: given.fabric()? },
            "fabric-lossy" => Self::FabricLossy { fabric: given.fabric()?, percent: given.words.number("percent", 0.001, 100.0)? },
            "fabric-flapping" => Self::FabricFlapping { fabric: given.fabric()?, seconds: given.words.number("seconds", 0.2, 3600.0)? },
            "shelf-manager-silent" => Self::ShelfManagerSilent,
            name if name.starts_with("board-") => Self::Board { slot: given.board()?, what: board_fault(name, &given)? },
            name => {
                let what = sensor_fault(name, &given)?;
                let (object, attribute) = given.sensor(what)?;
                Self::Sensor { object, attribute, what }
            }
        })
    }
}

fn board_fault(name: &str, given: &Given<'_>) -> Result<BoardFault, FaultError> {
    Ok(match name {
        "board-hang" => BoardFault::Hang,
        "board-panic" => BoardFault::Panic,
        "board-boot-fails" => BoardFault::BootFails,
        "board-hot" => BoardFault::Hot { watts: given.words.number("watts", 1.0, 500.0)? },
        "board-busy" => BoardFault::Busy { percent: given.words.number("percent", 0.0, 100.0)? },
        "board-leak" => BoardFault::Leak { percent_per_minute: given.words.number("percent_per_minute", 0.01, 1000.0)? },
        "board-latch-open" => BoardFault::LatchOpen,
        "board-pulled" => BoardFault::Pulled,
        other => unreachable!("{other} stands in the catalogue, so it has an arm here; a test walks through all"),
    })
}

fn sensor_fault(name: &str, given: &Given<'_>) -> Result<SensorFault, FaultError> {
    Ok(match name {
        "sensor-stuck" => SensorFault::Stuck,
        "sensor-missing" => SensorFault::Missing,
        "sensor-noisy" => SensorFault::Noisy { sigma: given.words.number("sigma", 0.0, 1e6)? },
        "sensor-wrong" => SensorFault::Wrong { offset: given.words.number("offset", -1e6, 1e6)? },
        "sensor-slow" => SensorFault::Slow { seconds: given.words.number("seconds", 0.1, 1e5)? },
        other => unreachable!("{other} stands in the catalogue, so it has an arm here; a test walks through all"),
    })
}

/// What one injection says, against an entry of a catalogue: a shelf's or a domain's.
pub(crate) struct Words<'a> {
    pub(crate) entry: &'static Entry,
    values: &'a BTreeMap<String, String>,
}

impl<'a> Words<'a> {
    /// The entry that is meant; it has all the parameters that are given.
    pub(crate) fn of(catalogue: &'static [Entry], injection: &'a Injection) -> Result<Self, FaultError> {
        let name = injection.fault.as_str();
        let Some(entry) = catalogue.iter().find(|e| e.name == name) else {
            let help = nearest(name, catalogue.iter().map(|e| e.name));
            return Err(FaultError::UnknownFault { name: name.to_owned(), help });
        };
        let words = Self { entry, values: &injection.parameters };
        words.refuse_unknown()?;
        Ok(words)
    }

    fn refuse_unknown(&self) -> Result<(), FaultError> {
        let known = self.entry.parameters.iter().map(|p| p.name);
        match self.values.keys().find(|k| !known.clone().any(|n| n == k.as_str())) {
            None => Ok(()),
            Some(k) if self.entry.parameters.is_empty() => {
                Err(self.bad(format!("takes no parameter, {k:?} was given"), "leave it out".into()))
            }
            Some(k) => Err(self.bad(format!("has no parameter {k:?}"), nearest(k, known))),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str, FaultError> {
        let parameter = self.entry.parameters.iter().find(|p| p.name == name);
        let default = parameter.and_then(|p| p.default);
        self.values.get(name).map(String::as_str).or(default).ok_or_else(|| {
            let help = parameter.map_or("", |p| p.help);
            self.bad(format!("needs {name}=..."), help.to_owned())
        })
    }

    fn number(&self, name: &str, low: f64, high: f64) -> Result<f64, FaultError> {
        let text = self.text(name)?;
        let bad =
            || self.bad(format!("{name}={text} is not a number from {low} to {high}"), "give a plain number, such as 25".into());
        text.parse().ok().filter(|x| (low..=high).contains(x)).ok_or_else(bad)
    }

    pub(crate) fn bad(&self, what: String, help: String) -> FaultError {
        FaultError::BadParameter { what: format!("{} {what}", self.entry.name), help }
    }
}

/// What was given, against the chassis.
struct Given<'a> {
    words: Words<'a>,
    points: &'a Points,
}

impl Given<'_> {
    /// It becomes part of every reading: short and printable.
    fn check_serial(&self) -> Result<(), FaultError> {
        let good = |serial: &str| serial.len() <= 64 && serial.bytes().all(|b| b.is_ascii_graphic());
        match self.words.values.get(SERIAL.name) {
            Some(serial) if !good(serial) => {
                Err(self.words.bad("takes a serial of at most 64 printable letters".into(), SERIAL.help.into()))
            }
            _ => Ok(()),
        }
    }

    /// The number of a part, from 1; also as its object's name (`/mxp1/fan3`).
    fn part(&self, name: &str, count: usize) -> Result<usize, FaultError> {
        let text = self.words.text(name)?;
        let prefix = format!("{}/{name}", self.points.root);
        let number = text.strip_prefix(&prefix).unwrap_or(text).parse().ok();
        number.filter(|n| (1..=count).contains(n)).ok_or_else(|| FaultError::UnknownTarget {
            what: format!("{} has no {name} {text}", self.points.root),
            help: format!("{name}=1 to {name}={count}"),
        })
    }

    fn board(&self) -> Result<usize, FaultError> {
        let slot = self.part("slot", self.points.slots.len())?;
        if self.points.slots[slot - 1] {
            return Ok(slot);
        }
        let filled: Vec<String> =
            (1..=self.points.slots.len()).filter(|n| self.points.slots[n - 1]).map(|n| n.to_string()).collect();
        Err(FaultError::UnknownTarget {
            what: format!("slot {slot} is empty"),
            help: format!("boards sit in {}", filled.join(", ")),
        })
    }

    fn fabric(&self) -> Result<usize, FaultError> {
        let text = self.words.text("fabric")?;
        let prefix = format!("{}/fabric", self.points.root);
        let name = text.strip_prefix(&prefix).unwrap_or(text);
        self.points.fabrics.iter().position(|f| f == name).map(|i| i + 1).ok_or_else(|| FaultError::UnknownTarget {
            what: format!("{} has no fabric {text}", self.points.root),
            help: nearest(name, self.points.fabrics.iter().map(String::as_str)),
        })
    }

    fn feed(&self) -> Result<String, FaultError> {
        let name = self.words.text("feed")?;
        if self.points.feeds.iter().any(|f| f == name) {
            return Ok(name.to_owned());
        }
        let help = match self.points.feeds.is_empty() {
            true => "its file names none: `feeds` under `supply`".to_owned(),
            false => nearest(name, self.points.feeds.iter().map(String::as_str)),
        };
        Err(FaultError::UnknownTarget { what: format!("{} has no feed {name}", self.points.root), help })
    }

    /// A sensor that the fault makes sense for: what is no number cannot scatter, drift or lag.
    fn sensor(&self, what: SensorFault) -> Result<(ObjectName, AttributeName), FaultError> {
        let (object, attribute) = (self.words.text("object")?, self.words.text("attribute")?);
        let (object_name, attribute_name) = (ObjectName::new(object), AttributeName::new(attribute));
        if let Some(point) = self.points.find(&object_name, &attribute_name) {
            if matches!(what, SensorFault::Stuck | SensorFault::Missing) || self.points.list[point].quantity.is_measured() {
                return Ok((object_name, attribute_name));
            }
            let help = "it can be stuck or missing".to_owned();
            return Err(FaultError::UnknownTarget { what: format!("{attribute} of {object} is no measured number"), help });
        }
        let attributes: Vec<&str> = self.points.attributes(&object_name).collect();
        Err(if attributes.is_empty() {
            let help = nearest(object, self.points.objects.iter().map(|o| o.name.as_str()));
            FaultError::UnknownTarget { what: format!("there is no object {object}"), help }
        } else {
            FaultError::UnknownTarget {
                what: format!("{object} has no attribute {attribute:?}"),
                help: nearest(attribute, attributes.into_iter()),
            }
        })
    }
}
