//! What the driver knows of its chassis, and what the core loop has not been told yet.

use std::collections::{BTreeMap, VecDeque};

use sixnines_core::ids::{AttributeName, ObjectName};
use sixnines_core::value::{Quality, Update};
use tokio::sync::mpsc::{Permit, error::SendError};

use super::End;
use crate::chassis::points::DETAILS;

type Key = (ObjectName, AttributeName);

/// News are joined while the core loop does not take them, so there are never more than the chassis has attributes.
#[derive(Debug)]
pub(super) struct Image {
    /// What a good reading is reported as.
    good: Quality,
    /// Whether the core loop wants what the shipped classes do not declare.
    details: bool,
    known: BTreeMap<Key, Update>,
    news: BTreeMap<Key, Update>,
    /// The keys of `news`, in the order in which they came.
    order: VecDeque<Key>,
}

impl Image {
    pub(super) fn new(good: Quality, details: bool) -> Self {
        Self { good, details, known: BTreeMap::new(), news: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Takes readings. All of a full image go on, so that the core loop sees that they are fresh; else only what differs.
    pub(super) fn take(&mut self, full: bool, readings: Vec<Update>) {
        for mut update in readings {
            if !self.details && DETAILS.contains(&update.attribute.as_str()) {
                continue;
            }
            if update.quality == Quality::Good {
                update.quality = self.good;
            }
            let key = (update.object.clone(), update.attribute.clone());
            if !full && self.known.get(&key).is_some_and(|known| known.value == update.value && known.quality == update.quality) {
                continue;
            }
            self.known.insert(key.clone(), update.clone());
            self.tell(key, update);
        }
    }

    /// The chassis cannot be read any more: every attribute fails, once.
    pub(super) fn lost(&mut self) {
        for (key, known) in std::mem::take(&mut self.known) {
            self.tell(key, Update { value: None, quality: Quality::Failed, cause: None, ..known });
        }
    }

    pub(super) fn has_news(&self) -> bool {
        !self.order.is_empty()
    }

    /// Sends the oldest news; an error is a node that has ended.
    pub(super) fn send(&mut self, permit: Result<Permit<'_, Update>, SendError<()>>) -> Result<(), End> {
        let permit = permit.map_err(|_| End::Stopped)?;
        if let Some(update) = self.order.pop_front().and_then(|key| self.news.remove(&key)) {
            permit.send(update);
        }
        Ok(())
    }

    fn tell(&mut self, key: Key, update: Update) {
        match self.news.get_mut(&key) {
            // The cause of a change that was not told yet is not lost to a refresh without one.
            Some(older) => {
                *older = Update { cause: update.cause.or(older.cause.filter(|_| older.value == update.value)), ..update }
            }
            None => {
                self.order.push_back(key.clone());
                self.news.insert(key, update);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sixnines_core::value::Value;
    use tokio::sync::mpsc;

    fn speed(value: i64, quality: Quality) -> Update {
        let value = Some(Value::Int(value));
        Update { object: "/mxp1/fan1".into(), attribute: "speed".into(), value, quality, identity: None, cause: None }
    }

    async fn drain(image: &mut Image) -> Vec<(Option<Value>, Quality)> {
        let (sender, mut receiver) = mpsc::channel(10);
        let mut got = Vec::new();
        while image.has_news() {
            assert!(image.send(sender.reserve().await).is_ok());
            let update = receiver.recv().await.expect("just sent");
            got.push((update.value, update.quality));
        }
        got
    }

    #[tokio::test]
    async fn news_are_joined_and_a_loss_is_told_once() {
        let mut image = Image::new(Quality::Simulated, false);
        image.take(true, vec![speed(2400, Quality::Good)]);
        image.take(false, vec![speed(2600, Quality::Good)]);
        assert_eq!(drain(&mut image).await, [(Some(Value::Int(2600)), Quality::Simulated)]);
        image.take(false, vec![speed(2600, Quality::Good)]);
        assert!(!image.has_news(), "no change");
        image.take(true, vec![Update { attribute: "blue_led".into(), ..speed(1, Quality::Good) }]);
        assert!(!image.has_news(), "no class declares it");
        image.take(true, vec![speed(2600, Quality::Good)]);
        assert_eq!(drain(&mut image).await.len(), 1, "a full image is a sign of life");
        image.lost();
        image.lost();
        assert_eq!(drain(&mut image).await, [(None, Quality::Failed)]);
    }
}
