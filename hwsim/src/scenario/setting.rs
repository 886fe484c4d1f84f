//! What a scenario is checked against and runs in: a chassis, and the classes, objects and policies in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use sixnines_core::bundle::{Compiled, compile_bundle};
use sixnines_core::class::{Attribute, Class, Pattern};
use sixnines_core::diagnostic::Diagnostic;
use sixnines_core::domain::config::{Bundle, DomainConfig};
use sixnines_core::ids::{AttributeName, ChassisName, ClassName, GroupName, NodeId, ObjectName};
use sixnines_core::time::Instant;

use crate::chassis::{Chassis, FaultError, Injection, Plan};

/// The node that owns the chassis, and on which host objects of a scenario live.
pub(crate) const OWNER: NodeId = NodeId(1);

/// A chassis with what watches over it, or a whole domain.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The chassis; of several the first.
    pub chassis: Plan,
    /// The domain, where the scenario describes one.
    pub domain: Option<DomainSetting>,
    /// Classes, objects, alarms and policies.
    pub compiled: Arc<Compiled>,
    /// How many times faster than its rates say (`reliability`) the chassis ages; `None`: nothing fails by itself.
    pub ageing: Option<f64>,
    /// Services of the domain, as far as a scenario names them.
    pub services: Vec<GroupName>,
    /// Every object that there is, or will be, with its class.
    objects: BTreeMap<ObjectName, ClassName>,
    /// Each chassis as it begins, to ask what it has.
    samples: Vec<Chassis>,
}

/// The domain of a scenario.
#[derive(Clone, Debug)]
pub struct DomainSetting {
    /// Nodes, chassis, services, links and times.
    pub config: DomainConfig,
    /// In which slot of its chassis a node's board sits, where that is said: what happens to the board happens to the node.
    pub slots: BTreeMap<NodeId, (ChassisName, usize)>,
    /// Clients of each service.
    pub clients: u64,
    /// The scenario begins when the power comes on, and not on a domain that serves.
    pub is_cold: bool,
    /// Clocks, wires and clients follow from it.
    pub seed: u64,
}

impl Setting {
    /// A chassis under a bundle. One that declares nothing of this chassis gets its objects from the chassis itself.
    ///
    /// # Errors
    /// What is wrong with the bundle.
    pub fn new(chassis: Plan, bundle: &Bundle, services: Vec<GroupName>) -> Result<Self, Vec<Diagnostic>> {
        let samples = vec![Chassis::new(chassis, Instant::ZERO)];
        Self::made(samples, None, bundle, services)
    }

    /// A whole domain under a bundle, with the chassis that it names, in their order.
    ///
    /// # Errors
    /// What is wrong with the bundle.
    pub fn of_domain(chassis: Vec<Plan>, domain: DomainSetting, bundle: &Bundle) -> Result<Self, Vec<Diagnostic>> {
        let samples = chassis.into_iter().map(|plan| Chassis::new(plan, Instant::ZERO)).collect();
        let services = domain.config.services.iter().map(|service| service.name.clone()).collect();
        Self::made(samples, Some(domain), bundle, services)
    }

    fn made(samples: Vec<Chassis>, domain: Option<DomainSetting>, bundle: &Bundle, services: Vec<GroupName>) -> Result<Self, Vec<Diagnostic>> {
        let mut compiled = compile_bundle(bundle)?;
        let slots = domain.as_ref().map(|domain| domain.slots.clone()).unwrap_or_default();
        for sample in &samples {
            let root = format!("/{}", sample.name());
            if !compiled.objects.iter().any(|o| o.name.as_str() == root) {
                let mut bundle = compiled.files.clone();
                bundle.files.insert(format!("objects/{}.yaml", sample.name()), objects_file(sample, &slots, &compiled));
                compiled = compile_bundle(&bundle)?;
            }
        }
        let objects = compiled.objects.iter().map(|o| (o.name.clone(), o.class.clone())).collect();
        let chassis = samples.first().map(|sample| sample.plan().clone()).unwrap_or_else(Plan::mxp);
        let mut this = Self { chassis, domain, compiled, ageing: None, services, objects, samples };
        let services: Vec<String> = this.services.iter().map(|name| format!("/services/{name}")).collect();
        let nodes: Vec<String> = this.nodes().into_iter().map(|node| format!("/nodes/{node}")).collect();
        services.iter().chain(&nodes).for_each(|name| this.await_object(name));
        Ok(this)
    }

    /// The nodes: those of the domain, or the owner of the chassis.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.domain.as_ref().map_or_else(|| vec![OWNER], |domain| domain.config.nodes.iter().map(|node| node.id).collect())
    }

    /// Every chassis.
    pub fn shelves(&self) -> impl Iterator<Item = &Plan> + Clone {
        self.samples.iter().map(Chassis::plan)
    }

    /// Something will be read of this object, so it comes into being if a class waits for its name: patterns mean it too.
    pub(super) fn await_object(&mut self, name: &str) {
        if let Some(class) = self.compiled.class_for(name) {
            self.objects.insert(ObjectName::new(name), class.name.clone());
        }
    }

    /// The class of an object, declared or waited for by its name.
    pub fn class_of(&self, object: &str) -> Option<&Arc<Class>> {
        match self.objects.get(object) {
            Some(class) => self.compiled.classes.get(class),
            None => self.compiled.class_for(object),
        }
    }

    /// An attribute's declaration.
    pub fn attribute(&self, object: &str, attribute: &str) -> Option<&Attribute> {
        let class = self.class_of(object)?;
        class.slot(attribute).map(|slot| class.attribute(slot))
    }

    /// Whether the chassis shows it, though no class declares it: a blue light, the load of a board.
    pub fn shows(&self, object: &str, attribute: &str) -> bool {
        self.samples.iter().any(|sample| sample.reading(object, attribute).is_some())
    }

    /// Whether an object is in the chassis, and so read by the chassis and nobody else.
    pub fn is_in_chassis(&self, object: &str) -> bool {
        let name = object.strip_prefix('/').and_then(|rest| rest.split('/').next());
        self.samples.iter().any(|sample| Some(sample.name().as_str()) == name)
    }

    /// Names of all objects.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectName> + Clone {
        self.objects.keys()
    }

    /// Objects whose name matches.
    pub fn matching(&self, pattern: &str) -> Vec<ObjectName> {
        let pattern = Pattern::new(pattern);
        self.objects.keys().filter(|name| pattern.matches(name.as_str())).cloned().collect()
    }

    /// Every number of the chassis with its unit: what is worth drawing.
    pub fn measured(&self) -> Vec<(ObjectName, AttributeName, String)> {
        let mut list = Vec::new();
        for object in self.objects.keys().filter(|o| self.is_in_chassis(o.as_str())) {
            let Some(class) = self.class_of(object.as_str()) else { continue };
            for attribute in &class.attributes {
                if let (Some(unit), None) = (&attribute.unit, &attribute.derive) {
                    list.push((object.clone(), attribute.name.clone(), unit.clone()));
                }
            }
        }
        list
    }

    /// Which chassis a fault of the chassis' catalogue is for, and the fault without that word: `chassis=mxp1`, or a part's full name.
    ///
    /// # Errors
    /// If that cannot be told. The author's mistake.
    pub fn shelf_of(&self, injection: &Injection) -> Result<(ChassisName, Injection), FaultError> {
        let mut rest = injection.clone();
        let said = rest.parameters.remove(CHASSIS).filter(|_| self.domain.is_some());
        let names = || self.samples.iter().map(|sample| sample.name());
        let of_part = || names().find(|name| injection.parameters.values().any(|value| value.starts_with(&format!("/{name}/"))));
        let found = match (&said, self.samples.as_slice()) {
            (Some(said), _) => names().find(|name| name.as_str() == said.as_str()),
            (None, [only]) => Some(only.name()),
            (None, _) => of_part(),
        };
        let help = || names().map(|name| format!("{CHASSIS}={name}")).collect::<Vec<_>>().join(" or ");
        match (found, said) {
            (Some(found), _) => Ok((found.clone(), if self.domain.is_some() { rest } else { injection.clone() })),
            (None, Some(said)) => Err(FaultError::UnknownTarget { what: format!("there is no chassis {said}"), help: help() }),
            (None, None) => Err(FaultError::BadParameter { what: format!("{} of which chassis?", injection.fault), help: help() }),
        }
    }

    /// Whether a fault of the chassis' catalogue could be injected.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self, injection: &Injection) -> Result<(), FaultError> {
        let (chassis, injection) = self.shelf_of(injection)?;
        self.samples.iter().filter(|sample| *sample.name() == chassis).try_for_each(|sample| sample.check(&injection))
    }

    /// The chassis as they begin, to ask them whether a fault can be injected.
    pub(crate) fn samples(&self) -> &[Chassis] {
        &self.samples
    }
}

/// The word by which a fault says its chassis, where there are several.
const CHASSIS: &str = "chassis";

/// The objects of a chassis, for those of its classes that the bundle has.
fn objects_file(chassis: &Chassis, slots: &BTreeMap<NodeId, (ChassisName, usize)>, compiled: &Compiled) -> String {
    let root = format!("/{}", chassis.name());
    let mut text = format!("objects:\n  {root}:\n    class: chassis\n    children:\n");
    for (name, class) in chassis.objects() {
        let Some(tail) = name.as_str().strip_prefix(&root).and_then(|tail| tail.strip_prefix('/')) else { continue };
        let sits_there = |(shelf, slot): &(ChassisName, usize)| shelf == chassis.name() && tail == format!("slot{slot}");
        let node = slots.iter().find(|(_, place)| sits_there(place)).map(|(node, _)| format!(", node: {node}")).unwrap_or_default();
        if compiled.classes.contains_key(&class) {
            text.push_str(&format!("      {tail}: {{ class: {class}{node} }}\n"));
        }
    }
    text
}
