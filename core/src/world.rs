//! The objects as they are at this moment. Policies read it; only the engine writes it.
//!
//! It is shared by reference counting: while a handler runs, the engine's copy and the handler's are the same, and nobody
//! writes. So a snapshot costs one count, whatever the size of the world.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::abroad::NEIGHBOURS;
use crate::bundle::Compiled;
use crate::class::{Attribute, CHASSIS_CLASS_WORD, Class, Slot};
use crate::domain::limits::{Limit, Limits};
use crate::policy::Policy;
use crate::ids::{ChassisName, ClassName, Epoch, EventId, GroupName, Identity, Member, NodeId, ObjectName};
use crate::time::{Duration, Instant};
use crate::value::{Quality, Value};

/// Position of an object in the [`World`]. Valid until another bundle is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ix(pub u32);

/// All objects.
#[derive(Clone, Debug)]
pub struct World {
    /// Classes and policies in force.
    pub compiled: Arc<Compiled>,
    objects: Vec<Object>,
    names: BTreeMap<ObjectName, Ix>,
    /// Who is active for each group, as far as this node knows.
    pub actives: BTreeMap<GroupName, (Epoch, Option<Member>)>,
    /// Alarms that hold, by object and type.
    pub raised: BTreeSet<(Ix, Arc<str>)>,
    /// The chassis that each node sits in.
    pub places: BTreeMap<NodeId, ChassisName>,
    /// Most objects, declared and found. At the bound no more are found; what the files declare was counted when they were applied.
    pub objects_max: usize,
}

/// One object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Where it is.
    pub name: ObjectName,
    /// What it is.
    pub class: Arc<Class>,
    /// The policy that speaks for it.
    pub policy: Option<Arc<Policy>>,
    /// What it sits in.
    pub parent: Option<Ix>,
    /// What sits in it.
    pub children: Vec<Ix>,
    /// Its values, by [`Slot`].
    pub cells: Vec<Cell>,
    /// Who writes it.
    pub owner: Owner,
    /// This node does, under this epoch.
    pub owned: Option<Epoch>,
    /// The thing in that place.
    pub identity: Option<Identity>,
    /// The node that sits there.
    pub node: Option<NodeId>,
    /// Other ranges and patience than the class's, by slot.
    pub stale_after: Vec<Option<Duration>>,
}

/// One value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The last value, whatever the quality.
    pub value: Option<Value>,
    /// How far to trust it.
    pub quality: Quality,
    /// When the last reading came, changed or not.
    pub read_at: Instant,
    /// When it last changed.
    pub changed_at: Instant,
    /// The event of its last change.
    pub event: Option<EventId>,
    /// An operator holds it at a value until then; what the driver read meanwhile waits here.
    pub forced: Option<Forced>,
    /// A deadline for its staleness is set.
    pub watched: bool,
}

/// A sensor that an operator holds at a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forced {
    /// It ends by itself.
    pub until: Instant,
    /// What comes back then.
    pub beneath: (Option<Value>, Quality),
}

impl Cell {
    /// The value, if a policy may decide on it.
    pub fn usable(&self) -> Option<&Value> {
        self.value.as_ref().filter(|_| self.quality.is_usable())
    }
}

/// Who writes an object and runs its policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// The active of a group: a chassis and what sits in it, a service.
    Group(GroupName),
    /// A node itself: what it can see of its own hardware and system.
    Node(NodeId),
    /// The lowest node alive: `/domain`, and `/nodes/nX`, which must be judged when nX is dead.
    ///
    /// Each node judges by its own liveness, so a cut-off node may judge too; what it then asks of the control log has no
    /// majority and does nothing.
    Domain,
    /// Nobody here: it is of a neighbouring domain, and this one only hears of it.
    Abroad,
}

impl Owner {
    /// The owner that follows from a name: `/services/NAME`, `/nodes/nX/...`, `/nodes/nX`, `/domain`, `/neighbours/...`, else the chassis.
    pub fn of(name: &str) -> Self {
        let mut parts = name.trim_start_matches('/').splitn(3, '/');
        match (parts.next().unwrap_or_default(), parts.next(), parts.next()) {
            ("services", Some(service), _) => Self::Group(GroupName::new(service)),
            ("nodes", Some(node), Some(_)) => node.parse().map_or(Self::Domain, Self::Node),
            ("nodes" | "domain" | "services" | "", _, _) => Self::Domain,
            ("neighbours", _, _) => Self::Abroad,
            (chassis, _, _) => Self::Group(crate::domain::config::chassis_group(chassis)),
        }
    }

    /// The group, if it is one.
    pub fn group(&self) -> Option<&GroupName> {
        match self {
            Self::Group(group) => Some(group),
            Self::Node(_) | Self::Domain | Self::Abroad => None,
        }
    }
}

impl World {
    /// The declared objects of a bundle, without any value.
    pub fn new(compiled: Arc<Compiled>) -> Self {
        let mut world = Self {
            compiled: compiled.clone(),
            objects: Vec::new(),
            names: BTreeMap::new(),
            actives: BTreeMap::new(),
            raised: BTreeSet::new(),
            places: BTreeMap::new(),
            objects_max: Limits::default().count(Limit::Objects),
        };
        for declared in &compiled.objects {
            let class = compiled.classes[&declared.class].clone();
            let ix = world.insert(declared.name.clone(), class).expect("the bundle bounds its objects");
            let object = world.object_mut(ix);
            object.node = declared.node;
            if let Some(policy) = &declared.policy {
                object.policy = compiled.policies.get(policy.as_str()).cloned();
            }
            for (name, change) in &declared.overrides {
                if let (Some(slot), Some(patience)) = (object.class.slot(name.as_str()), change.stale_after) {
                    object.stale_after[slot.0 as usize] = Some(patience);
                }
            }
        }
        world
    }

    /// Adds an object; `None` at [`Self::objects_max`]. The parent is the nearest object above it that exists by then.
    pub fn insert(&mut self, name: ObjectName, class: Arc<Class>) -> Option<Ix> {
        if let Some(ix) = self.names.get(&name) {
            return Some(*ix);
        }
        if self.objects.len() >= self.objects_max {
            return None;
        }
        let ix = Ix(u32::try_from(self.objects.len()).expect("bounded"));
        let parent = self.above(name.as_str());
        let node = name.as_str().strip_prefix("/nodes/").and_then(|rest| rest.split('/').next()).and_then(|n| n.parse().ok());
        self.objects.push(Object {
            owner: Owner::of(name.as_str()),
            owned: None,
            name: name.clone(),
            policy: class.policy.as_deref().and_then(|p| self.compiled.policies.get(p)).cloned(),
            parent,
            children: Vec::new(),
            cells: vec![Cell::default(); class.attributes.len()],
            identity: None,
            node,
            stale_after: class.attributes.iter().map(|a| a.stale_after).collect(),
            class,
        });
        self.names.insert(name.clone(), ix);
        if let Some(parent) = parent {
            self.object_mut(parent).children.push(ix);
        }
        // Objects that were there before and belong below the new one.
        let below = format!("{name}/");
        let adopted: Vec<Ix> = (self.names.range(ObjectName::new(&below)..))
            .take_while(|(n, _)| n.as_str().starts_with(&below))
            .map(|(_, child)| *child)
            .filter(|child| self.object(*child).parent == parent)
            .collect();
        for child in adopted {
            if let Some(parent) = parent {
                self.object_mut(parent).children.retain(|c| *c != child);
            }
            self.object_mut(child).parent = Some(ix);
            self.object_mut(ix).children.push(child);
        }
        Some(ix)
    }

    fn above(&self, name: &str) -> Option<Ix> {
        let mut rest = name;
        while let Some((above, _)) = rest.rsplit_once('/') {
            if let Some(ix) = self.names.get(above) {
                return Some(*ix);
            }
            rest = above;
        }
        None
    }

    /// The object of a name; one whose name a class waits for (`names:`) comes into being.
    pub fn find_or_create(&mut self, name: &ObjectName) -> Option<Ix> {
        if let Some(ix) = self.find(name.as_str()) {
            return Some(ix);
        }
        let class = self.compiled.class_for(name.as_str())?.clone();
        self.insert(name.clone(), class)
    }

    /// The same for an object of a neighbour, which says itself of what class it is; `None` if there is no such class here. Neighbours get no more
    /// than half of [`Self::objects_max`], so that there is room for what is this domain's own.
    pub fn find_or_create_abroad(&mut self, name: &ObjectName, class: &ClassName) -> Option<Ix> {
        if let Some(ix) = self.find(name.as_str()) {
            return Some(ix);
        }
        let class = self.compiled.classes.get(class).filter(|_| Owner::of(name.as_str()) == Owner::Abroad)?.clone();
        let below = format!("{NEIGHBOURS}/");
        let abroad = self.names.range(ObjectName::new(&below)..).take_while(|(name, _)| name.as_str().starts_with(&below)).count();
        if abroad >= self.objects_max / 2 { None } else { self.insert(name.clone(), class) }
    }

    /// The object of a name.
    pub fn find(&self, name: &str) -> Option<Ix> {
        self.names.get(name).copied()
    }

    /// One object.
    ///
    /// # Panics
    /// If the position is from another bundle.
    pub fn object(&self, ix: Ix) -> &Object {
        &self.objects[ix.0 as usize]
    }

    /// One object.
    ///
    /// # Panics
    /// If the position is from another bundle.
    pub fn object_mut(&mut self, ix: Ix) -> &mut Object {
        &mut self.objects[ix.0 as usize]
    }

    /// How many there are.
    pub fn objects_count(&self) -> usize {
        self.objects.len()
    }

    /// All objects, in the order of their coming.
    pub fn iter(&self) -> impl Iterator<Item = (Ix, &Object)> {
        (0u32..).map(Ix).zip(&self.objects)
    }

    /// One value.
    pub fn cell(&self, ix: Ix, slot: Slot) -> &Cell {
        &self.object(ix).cells[slot.0 as usize]
    }

    /// One value.
    pub fn cell_mut(&mut self, ix: Ix, slot: Slot) -> &mut Cell {
        &mut self.object_mut(ix).cells[slot.0 as usize]
    }

    /// An attribute's declaration.
    pub fn attribute(&self, ix: Ix, slot: Slot) -> &Attribute {
        self.object(ix).class.attribute(slot)
    }

    /// Objects beside this one, of one class or of any.
    pub fn siblings(&self, ix: Ix, class: Option<&str>) -> impl Iterator<Item = Ix> {
        let all = self.object(ix).parent.map_or(&[][..], |p| self.object(p).children.as_slice());
        all.iter().copied().filter(move |i| *i != ix && class.is_none_or(|c| self.object(*i).class.name.as_str() == c))
    }

    /// Objects in this one, of one class or of any.
    pub fn children(&self, ix: Ix, class: Option<&str>) -> impl Iterator<Item = Ix> {
        self.object(ix).children.iter().copied().filter(move |i| class.is_none_or(|c| self.object(*i).class.name.as_str() == c))
    }

    /// The chassis around an object: the nearest object of class `chassis` above it or itself, else that of its node, else
    /// that of the service's active.
    pub fn chassis(&self, ix: Ix) -> Option<Ix> {
        let mut here = Some(ix);
        while let Some(i) = here {
            if self.object(i).class.name.as_str() == CHASSIS_CLASS_WORD {
                return Some(i);
            }
            here = self.object(i).parent;
        }
        let place = self.places.get(&self.node_of(ix)?)?;
        self.find(&format!("/{place}"))
    }

    /// The node that an object is, sits on, or runs on.
    pub fn node_of(&self, ix: Ix) -> Option<NodeId> {
        let object = self.object(ix);
        let above = || object.parent.and_then(|p| self.object(p).node);
        let active = || self.actives.get(object.owner.group()?)?.1.map(|m| m.node);
        object.node.or_else(above).or_else(active)
    }
}
