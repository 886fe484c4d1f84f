//! The managed objects of a chassis, and every point at which something can be read.

use std::collections::{BTreeMap, BTreeSet};

use sixnines_core::ids::{AttributeName, ClassName, Identity, ObjectName};

use super::plan::Plan;

/// The chassis as a list of objects and sensors. Does not change while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Points {
    /// `/mxp1`.
    pub(crate) root: ObjectName,
    pub(crate) fans: usize,
    pub(crate) supplies: usize,
    /// Whether there is a board in each slot.
    pub(crate) slots: Vec<bool>,
    pub(crate) fabrics: Vec<String>,
    /// Each once, sorted.
    pub(crate) feeds: Vec<String>,
    pub(crate) objects: Vec<Object>,
    pub(crate) list: Vec<Point>,
    by_object: BTreeMap<ObjectName, usize>,
    by_name: BTreeMap<(ObjectName, AttributeName), usize>,
}

/// One managed object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) name: ObjectName,
    pub(crate) class: ClassName,
    pub(crate) part: Part,
    /// The serial of the thing in that place.
    pub(crate) identity: Option<Identity>,
}

/// What an object is. Indices count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Chassis,
    Fan(usize),
    Supply(usize),
    Slot(usize),
    Fabric(usize),
    ShelfManager,
}

/// One attribute of one object.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) object: usize,
    pub(crate) attribute: AttributeName,
    pub(crate) quantity: Quantity,
    /// Seeds the noise of this sensor, independent of every other one.
    pub(crate) stream: u64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    InletTemperature,
    OutletTemperature,
    ChassisPower,
    FanSpeed(usize),
    FanDuty(usize),
    SupplyPower(usize),
    SupplyInput(usize),
    BoardTemperature(usize),
    BoardPower(usize),
    BoardHotSwap(usize),
    BoardState(usize),
    BoardOrder(usize),
    BoardLight(usize),
    BoardLoad(usize),
    BoardMemory(usize),
    FabricState(usize),
    FabricLoss(usize),
    ShelfManagerState,
}

impl Quantity {
    /// Whether it is a number that a sensor measures, and not a word, a switch or an order.
    pub(crate) fn is_measured(self) -> bool {
        matches!(
            self,
            Self::InletTemperature
                | Self::OutletTemperature
                | Self::ChassisPower
                | Self::FanSpeed(_)
                | Self::SupplyPower(_)
                | Self::BoardTemperature(_)
                | Self::BoardPower(_)
                | Self::BoardLoad(_)
                | Self::BoardMemory(_)
                | Self::FabricLoss(_)
        )
    }
}

impl Points {
    pub(crate) fn of(plan: &Plan) -> Self {
        let chassis = plan.chassis.as_str();
        let mut this = Self {
            root: ObjectName::new(format!("/{chassis}")),
            fans: usize::from(plan.fan.count),
            supplies: usize::from(plan.supply.count),
            slots: (0..plan.slots.len()).map(|i| plan.board_at(i).is_some()).collect(),
            fabrics: plan.fabrics.clone(),
            feeds: plan.supply.feeds.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
            objects: Vec::new(),
            list: Vec::new(),
            by_object: BTreeMap::new(),
            by_name: BTreeMap::new(),
        };
        use Quantity as Q;
        this.add(
            "",
            "chassis",
            Part::Chassis,
            &[
                ("inlet_temperature", Q::InletTemperature),
                ("outlet_temperature", Q::OutletTemperature),
                ("power", Q::ChassisPower),
            ],
        );
        for i in 0..this.fans {
            this.add(&format!("/fan{}", i + 1), "fan", Part::Fan(i), &[("speed", Q::FanSpeed(i)), ("duty", Q::FanDuty(i))]);
        }
        for i in 0..this.supplies {
            let attributes = [("output_power", Q::SupplyPower(i)), ("input_ok", Q::SupplyInput(i))];
            this.add(&format!("/supply{}", i + 1), "power-supply", Part::Supply(i), &attributes);
        }
        for i in 0..this.slots.len() {
            let attributes = [
                ("temperature", Q::BoardTemperature(i)),
                ("consumption", Q::BoardPower(i)),
                ("hot_swap_state", Q::BoardHotSwap(i)),
                ("state", Q::BoardState(i)),
                ("power", Q::BoardOrder(i)),
                ("blue_led", Q::BoardLight(i)),
                ("cpu_load", Q::BoardLoad(i)),
                ("memory_used", Q::BoardMemory(i)),
            ];
            this.add(&format!("/slot{}", i + 1), "board", Part::Slot(i), &attributes);
        }
        for i in 0..this.fabrics.len() {
            let name = format!("/fabric{}", this.fabrics[i]);
            let attributes = [("state", Q::FabricState(i)), ("loss", Q::FabricLoss(i))];
            this.add(&name, "fabric", Part::Fabric(i), &attributes);
        }
        this.add("/shelf-manager", "shelf-manager", Part::ShelfManager, &[("state", Q::ShelfManagerState)]);
        this
    }

    pub(crate) fn object(&self, name: &ObjectName) -> Option<&Object> {
        self.by_object.get(name).map(|&i| &self.objects[i])
    }

    /// Index of a point.
    pub(crate) fn find(&self, object: &ObjectName, attribute: &AttributeName) -> Option<usize> {
        self.by_name.get(&(object.clone(), attribute.clone())).copied()
    }

    pub(crate) fn attributes(&self, object: &ObjectName) -> impl Iterator<Item = &str> {
        let index = self.by_object.get(object).copied();
        self.list.iter().filter(move |p| Some(p.object) == index).map(|p| p.attribute.as_str())
    }

    fn add(&mut self, tail: &str, class: &str, part: Part, attributes: &[(&str, Quantity)]) {
        let name = ObjectName::new(format!("{}{tail}", self.root));
        let index = self.objects.len();
        self.by_object.insert(name.clone(), index);
        for (attribute, quantity) in attributes {
            let attribute = AttributeName::new(attribute);
            self.by_name.insert((name.clone(), attribute.clone()), self.list.len());
            self.list.push(Point { object: index, stream: stream(&name, &attribute), attribute, quantity: *quantity });
        }
        let identity = self.serial(part).map(Identity::new);
        self.objects.push(Object { name, class: ClassName::new(class), part, identity });
    }

    /// Made from the first place of the thing, so that two chassis never have the same.
    fn serial(&self, part: Part) -> Option<String> {
        let chassis = self.root.as_str().trim_start_matches('/').to_uppercase();
        Some(match part {
            Part::Chassis => format!("{chassis}-SHELF"),
            Part::Fan(i) => format!("{chassis}-FAN-{:03}", i + 1),
            Part::Supply(i) => format!("{chassis}-PSU-{:03}", i + 1),
            Part::Slot(i) if self.slots[i] => format!("{chassis}-BRD-{:03}", i + 1),
            Part::Slot(_) | Part::Fabric(_) => return None,
            Part::ShelfManager => format!("{chassis}-SHMM"),
        })
    }
}

/// Attributes that the shipped classes do not declare: a chassis shows them, its driver reports them only if it is asked to.
pub(crate) const DETAILS: [&str; 4] = ["blue_led", "cpu_load", "memory_used", "loss"];

/// FNV-1a of the sensor's name: a stream that does not move when a sensor is added elsewhere.
fn stream(object: &ObjectName, attribute: &AttributeName) -> u64 {
    let bytes = object.as_str().bytes().chain([b'.']).chain(attribute.as_str().bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
