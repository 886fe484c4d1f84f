//! What the application's memory is told, and what it has been told.

use sixnines_core::ids::Sequence;

use super::{Follow, Output, Shared};

/// How far the application has been told.
#[derive(Debug, Default)]
pub(super) struct Follower {
    attached: bool,
    image: bool,
    told: Sequence,
}

impl Follower {
    pub(super) fn attach(&mut self) {
        (self.attached, self.image) = (true, true);
    }

    pub(super) fn detach(&mut self) {
        self.attached = false;
    }

    /// What it has been told no longer leads to what is.
    pub(super) fn need_image(&mut self) {
        self.image = true;
    }
}

impl Shared {
    /// Rule 2.7: a standby's application gets what the whole set holds. (An active's has it already, and gets nothing.)
    pub(crate) fn follow_held(&mut self) {
        if !self.follower.attached {
            return;
        }
        let next = Sequence(self.follower.told.0 + 1);
        if self.store.held() >= next && self.store.record(next).is_none() {
            self.follower.image = true; // What it lacks is no longer kept.
        }
        if self.follower.image {
            let Some(sections) = self.store.held_image() else { return };
            let cursor = self.store.position(self.store.held()).expect("held is the base or after it");
            self.tell_image(Follow::Image { cursor, sections }, cursor.sequence);
        }
        self.tell_records(self.store.held());
    }

    /// A new active's application gets everything there is before it gets its role (protocol 1.4).
    pub(crate) fn follow_head(&mut self) {
        if !self.follower.attached {
            return;
        }
        let cursor = self.store.head();
        let next = Sequence(self.follower.told.0 + 1);
        if self.follower.image || cursor.sequence >= next && self.store.record(next).is_none() {
            let sections = self.store.state().iter().map(|(k, s)| (k.clone(), s.clone())).collect();
            self.tell_image(Follow::Image { cursor, sections }, cursor.sequence);
        }
        self.tell_records(cursor.sequence);
    }

    /// The application wrote this itself.
    pub(crate) fn followed_itself(&mut self, sequence: Sequence) {
        self.follower.told = self.follower.told.max(sequence);
    }

    pub(crate) fn need_image(&mut self) {
        self.follower.need_image();
    }

    fn tell_image(&mut self, image: Follow, told: Sequence) {
        self.follower.image = false;
        self.follower.told = told;
        self.out.push_back(Output::Follow(image));
    }

    fn tell_records(&mut self, through: Sequence) {
        for sequence in self.follower.told.0 + 1..=through.0 {
            let record = self.store.record(Sequence(sequence)).expect("records are kept without holes").clone();
            self.out.push_back(Output::Follow(Follow::Record(record)));
            self.follower.told = Sequence(sequence);
        }
    }
}
