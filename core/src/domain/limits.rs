//! The limits of a domain: one table, from which the reader, the documents and the objects under `/domain/limits` come.
//!
//! A limit bounds what one node takes upon itself. Each says what happens when it is reached, and none of that ends a node. In files and
//! in JSON a limit has its name, in the control log and the journal its number; only what differs from nothing said is written, so that a
//! domain without limits of its own has the bytes that it always had.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::diagnostic::suggestion;

/// Something that is bounded. The number is its number in the control log: never renumber one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Limit {
    /// Objects that a node knows.
    Objects = 0,
    /// Attributes of one class, and so of each of its objects.
    AttributesPerObject = 1,
    /// Readings that one driver gives in a second.
    DriverEventsPerSecond = 2,
    /// A node's journal on disk.
    JournalBytes = 3,
    /// Events that a node keeps for those who are behind.
    SubscriberLagEvents = 4,
    /// Applications that are connected to a node.
    SdkClients = 5,
    /// One call of a policy, in its thread's own time.
    PolicyTimeUs = 6,
    /// One call of a policy, in operations of its language.
    PolicyOperations = 7,
}

/// What there is to say of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub limit: Limit,
    /// In files, and the attribute that shows its use; the attribute with `_max` behind it shows the bound.
    pub name: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// If nothing is said.
    pub default: u64,
    /// No bound is lower: what ships needs so much.
    pub min: u64,
    /// No bound is higher.
    pub max: u64,
    /// A use that has moved by less is not shown anew: so many thousandths of the bound, and at least one.
    pub step_per_mille: u64,
    /// What happens at the bound.
    pub at_bound: &'static str,
}

/// Every limit that there is, in the order in which people read them.
pub const TABLE: [Row; 8] = [
    Row {
        limit: Limit::Objects,
        name: "objects",
        unit: "objects of a node's world",
        default: 8192,
        min: 64,
        max: 65_536,
        step_per_mille: 0,
        at_bound: "policies that declare more are refused; what a driver finds or another node tells beyond it gets no object: alarm `limit-reached`",
    },
    Row {
        limit: Limit::AttributesPerObject,
        name: "attributes_per_object",
        unit: "attributes of a class",
        default: 128,
        min: 32,
        max: 1024,
        step_per_mille: 0,
        at_bound: "policies whose class has more are refused, those in force stay",
    },
    Row {
        limit: Limit::DriverEventsPerSecond,
        name: "driver_events_per_second",
        unit: "readings of one driver",
        default: 10_000,
        min: 10,
        max: 1_000_000,
        step_per_mille: 10,
        at_bound: "numbers wait, of each attribute the newest; words wait in line, and a full line slows the driver: alarm `limit-reached`",
    },
    Row {
        limit: Limit::JournalBytes,
        name: "journal_bytes",
        unit: "bytes on a node's disk",
        default: 128 << 20,
        min: 4 << 20,
        max: 1 << 40,
        step_per_mille: 10,
        at_bound: "the oldest segment goes: `nines why` and `nines journal check` look back less far",
    },
    Row {
        limit: Limit::SubscriberLagEvents,
        name: "subscriber_lag_events",
        unit: "events kept for who is behind",
        default: 8192,
        min: 16,
        max: 1_000_000,
        step_per_mille: 10,
        at_bound: "who is further behind is told which events it misses, then how everything is: alarm `events-missed` there",
    },
    Row {
        limit: Limit::SdkClients,
        name: "sdk_clients",
        unit: "applications connected to a node",
        default: 256,
        min: 1,
        max: 4096,
        step_per_mille: 0,
        at_bound: "one more is refused by name and may ask again; those that are connected stay: alarm `limit-reached`",
    },
    Row {
        limit: Limit::PolicyTimeUs,
        name: "policy_time_us",
        unit: "microseconds of one call",
        default: 2000,
        min: 200,
        max: 100_000,
        step_per_mille: 50,
        at_bound: "the call fails, nothing that it planned happens, the class's fallback holds: alarm `policy-failed`",
    },
    Row {
        limit: Limit::PolicyOperations,
        name: "policy_operations",
        unit: "operations of one call",
        default: 50_000,
        min: 1000,
        max: 5_000_000,
        step_per_mille: 50,
        at_bound: "the call fails, nothing that it planned happens, the class's fallback holds: alarm `policy-failed`",
    },
];

impl Limit {
    /// What there is to say of it.
    pub const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The limit of a name.
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.limit)
    }

    fn numbered(number: u8) -> Option<Self> {
        TABLE.get(usize::from(number)).map(|row| row.limit)
    }
}

impl Row {
    /// Whether a use is to be shown although another was shown before. What has come to its bound, or has left it, always is.
    pub fn is_noticeable(&self, shown: Option<u64>, now: u64, bound: u64) -> bool {
        let Some(shown) = shown else { return true };
        let step = (u128::from(bound) * u128::from(self.step_per_mille) / 1000).max(1);
        u128::from(shown.abs_diff(now)) >= step || (shown >= bound) != (now >= bound) || (shown == 0) != (now == 0)
    }

    /// A bound that may be.
    ///
    /// # Errors
    /// In the operator's words, with the range.
    pub fn check(&self, bound: u64) -> Result<(), String> {
        if (self.min..=self.max).contains(&bound) {
            return Ok(());
        }
        Err(format!("limits.{} is {bound}; it is between {} and {} ({}), {} if left out", self.name, self.min, self.max, self.unit, self.default))
    }
}

/// The limits of a domain: what is not said has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits(BTreeMap<Limit, u64>);

impl Limits {
    /// The bound in force.
    pub fn of(&self, limit: Limit) -> u64 {
        self.0.get(&limit).copied().unwrap_or(limit.row().default)
    }

    /// The bound in force of something that is counted in memory.
    pub fn count(&self, limit: Limit) -> usize {
        usize::try_from(self.of(limit)).unwrap_or(usize::MAX)
    }

    /// These with another bound; `None` takes it back to its default.
    #[must_use]
    pub fn with(mut self, limit: Limit, bound: impl Into<Option<u64>>) -> Self {
        match bound.into() {
            Some(bound) => self.0.insert(limit, bound),
            None => self.0.remove(&limit),
        };
        self
    }

    /// Whether nothing is said: every bound has its default.
    pub fn is_unsaid(&self) -> bool {
        self.0.is_empty()
    }

    /// Looks for bounds that cannot be.
    ///
    /// # Errors
    /// The first one, in the operator's words.
    pub fn check(&self) -> Result<(), String> {
        self.0.iter().try_for_each(|(limit, bound)| limit.row().check(*bound))
    }
}

/// The table for documents, as Markdown.
pub fn markdown() -> String {
    let rows = TABLE.iter().map(|row| format!("| `{}` | {} | {} to {} | {} | {} |\n", row.name, row.default, row.min, row.max, row.unit, row.at_bound));
    ["| limit | default | range | counts | at the bound |\n", "|---|---|---|---|---|\n"].into_iter().map(str::to_owned).chain(rows).collect()
}

impl Serialize for Limits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_map(self.0.iter().map(|(limit, bound)| (limit.row().name, bound)))
        } else {
            serializer.collect_map(self.0.iter().map(|(limit, bound)| (*limit as u8, bound)))
        }
    }
}

impl<'de> Deserialize<'de> for Limits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_map(ByName);
        }
        // A number that this version does not know is no bound that it could keep: who reads it must stop (protocol 6.3).
        let numbered = BTreeMap::<u8, u64>::deserialize(deserializer)?;
        let limits = numbered.into_iter().map(|(number, bound)| Limit::numbered(number).map(|limit| (limit, bound)));
        limits.collect::<Option<_>>().map(Self).ok_or_else(|| D::Error::custom("a limit that this version does not know"))
    }
}

/// What is out of range is refused where it stands, so that the reader can say the line.
struct ByName;

impl<'de> Visitor<'de> for ByName {
    type Value = Limits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("limits by their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Limits, A::Error> {
        let mut limits = BTreeMap::new();
        while let Some(KnownName(limit)) = map.next_key()? {
            let bound = map.next_value_seed(Bound(limit))?;
            if limits.insert(limit, bound).is_some() {
                return Err(A::Error::custom(format!("limits.{} stands here twice", limit.row().name)));
            }
        }
        Ok(Limits(limits))
    }

    fn visit_unit<E>(self) -> Result<Limits, E> {
        Ok(Limits::default())
    }
}

struct KnownName(Limit);

impl<'de> Deserialize<'de> for KnownName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Limit::named(&name).map(Self).ok_or_else(|| D::Error::custom(unknown(&name)))
    }
}

/// That there is no such limit, and what would be right.
pub fn unknown(name: &str) -> String {
    let hint = suggestion(name, TABLE.iter().map(|row| row.name)).unwrap_or_default();
    format!("there is no limit \"{name}\"; {hint}")
}

struct Bound(Limit);

impl<'de> serde::de::DeserializeSeed<'de> for Bound {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        let bound = u64::deserialize(deserializer)?;
        self.0.row().check(bound).map(|()| bound).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_its_numbers_and_keeps_its_own_ranges() {
        for (number, row) in TABLE.iter().enumerate() {
            assert_eq!(row.limit as usize, number, "{}", row.name);
            assert!(row.min <= row.default && row.default <= row.max && row.min > 0, "{}", row.name);
            assert_eq!(Limit::named(row.name), Some(row.limit));
        }
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let limits = Limits::default();
        assert!(TABLE.iter().all(|row| limits.of(row.limit) == row.default));
        let limits = limits.with(Limit::Objects, 100);
        assert_eq!((limits.of(Limit::Objects), limits.of(Limit::SdkClients)), (100, 256));
        assert!(limits.with(Limit::Objects, None).is_unsaid());
    }

    #[test]
    fn names_are_read_and_written_and_a_wrong_bound_names_its_range_and_its_line() {
        let limits: Limits = serde_yaml::from_str("objects: 100\npolicy_time_us: 500\n").expect("good");
        assert_eq!((limits.of(Limit::Objects), limits.of(Limit::PolicyTimeUs)), (100, 500));
        assert_eq!(serde_yaml::to_string(&limits).expect("written").trim(), "objects: 100\npolicy_time_us: 500");
        let wrong = |text: &str| serde_yaml::from_str::<Limits>(text).expect_err(text).to_string();
        let low = wrong("sdk_clients: 5\nobjects: 3\n");
        assert!(low.contains("limits.objects is 3; it is between 64 and 65536") && low.contains("line 2 column 10"), "{low}");
        let unknown = wrong("sdk_clients: 5\nobjcts: 100\n");
        assert!(unknown.contains("did you mean \"objects\"?") && unknown.contains("line 2 column 1"), "{unknown}");
        for text in ["objects: 100\nobjects: 200\n", "objects: many\n", "objects: -5\n", "[objects]\n"] {
            assert!(wrong(text).contains("line"), "{text}");
        }
    }

    #[test]
    fn in_logs_a_limit_is_its_number_and_one_from_the_future_is_refused() {
        let limits = Limits::default().with(Limit::JournalBytes, 5 << 20);
        let bytes = postcard::to_stdvec(&limits).expect("encoded");
        assert_eq!(bytes, [1, 3, 0x80, 0x80, 0xC0, 2]);
        assert_eq!(postcard::from_bytes(&bytes), Ok(limits));
        assert!(postcard::from_bytes::<Limits>(&[1, 200, 5]).is_err());
    }

    #[test]
    fn a_use_is_shown_when_it_moves_noticeably_or_comes_to_its_bound() {
        let row = Limit::DriverEventsPerSecond.row();
        assert!(row.is_noticeable(None, 0, 10_000));
        assert!(!row.is_noticeable(Some(500), 599, 10_000));
        assert!(row.is_noticeable(Some(500), 600, 10_000));
        assert!(row.is_noticeable(Some(9_999), 10_000, 10_000), "the bound is reached");
        assert!(row.is_noticeable(Some(30), 0, 10_000), "nothing is left");
        assert!(Limit::SdkClients.row().is_noticeable(Some(1), 2, 256));
    }
}
