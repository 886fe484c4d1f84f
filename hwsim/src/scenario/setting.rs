//! What a scenario is checked against and runs in: a chassis, and the classes, objects and policies in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use sixnines_core::bundle::{Compiled, compile_bundle};
use sixnines_core::class::{Attribute, Class, Pattern};
use sixnines_core::diagnostic::Diagnostic;
use sixnines_core::domain::config::Bundle;
use sixnines_core::ids::{AttributeName, ClassName, GroupName, NodeId, ObjectName};
use sixnines_core::time::Instant;
use sixnines_core::value::Value;

use crate::chassis::{Chassis, Plan};

/// The node that owns the chassis, and on which host objects of a scenario live.
pub(crate) const OWNER: NodeId = NodeId(1);

/// A chassis with what watches over it.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The chassis.
    pub chassis: Plan,
    /// Classes, objects, alarms and policies.
    pub compiled: Arc<Compiled>,
    /// How many times faster than its rates say (`reliability`) the chassis ages; `None`: nothing fails by itself.
    pub ageing: Option<f64>,
    /// Services of the domain, as far as a scenario names them.
    pub services: Vec<GroupName>,
    /// Every object that there is, or will be, with its class.
    objects: BTreeMap<ObjectName, ClassName>,
    /// The chassis as it begins, to ask what it has.
    sample: Chassis,
}

impl Setting {
    /// A chassis under a bundle. One that declares nothing of this chassis gets its objects from the chassis itself.
    ///
    /// # Errors
    /// What is wrong with the bundle.
    pub fn new(chassis: Plan, bundle: &Bundle, services: Vec<GroupName>) -> Result<Self, Vec<Diagnostic>> {
        let sample = Chassis::new(chassis.clone(), Instant::ZERO);
        let root = format!("/{}", chassis.chassis);
        let mut compiled = compile_bundle(bundle)?;
        if !compiled.objects.iter().any(|o| o.name.as_str() == root) {
            let mut bundle = bundle.clone();
            bundle.files.insert(format!("objects/{}.yaml", chassis.chassis), objects_file(&sample, &compiled));
            compiled = compile_bundle(&bundle)?;
        }
        let objects = compiled.objects.iter().map(|o| (o.name.clone(), o.class.clone())).collect();
        let mut this = Self { chassis, compiled, ageing: None, services, objects, sample };
        let services: Vec<String> = this.services.iter().map(|name| format!("/services/{name}")).collect();
        services.iter().chain([&format!("/nodes/{OWNER}")]).for_each(|name| this.await_object(name));
        Ok(this)
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
        self.sample.reading(object, attribute).is_some()
    }

    /// What the chassis shows of it at the beginning.
    pub fn first_reading(&self, object: &str, attribute: &str) -> Option<&Value> {
        self.sample.reading(object, attribute)?.value.as_ref()
    }

    /// Whether an object is in the chassis, and so read by the chassis and nobody else.
    pub fn is_in_chassis(&self, object: &str) -> bool {
        let name = self.chassis.chassis.as_str();
        object.strip_prefix('/').is_some_and(|rest| rest.split('/').next() == Some(name))
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

    /// Whether a fault can be injected.
    pub(crate) fn sample(&self) -> &Chassis {
        &self.sample
    }
}

/// The objects of a chassis, for those of its classes that the bundle has.
fn objects_file(chassis: &Chassis, compiled: &Compiled) -> String {
    let root = format!("/{}", chassis.name());
    let mut text = format!("objects:\n  {root}:\n    class: chassis\n    children:\n");
    for (name, class) in chassis.objects() {
        let Some(tail) = name.as_str().strip_prefix(&root).and_then(|tail| tail.strip_prefix('/')) else { continue };
        if compiled.classes.contains_key(&class) {
            text.push_str(&format!("      {tail}: {{ class: {class} }}\n"));
        }
    }
    text
}
