//! Starting a group: its first active, and the way back when every complete copy is gone (protocol 1.7).

use super::*;
use crate::domain::GroupRow;
use crate::domain::config::{GroupConfig, OnTotalLoss};

/// What is known about a group that waits for a bid: since when, and what the copies have.
#[derive(Clone, Debug)]
pub(super) struct Offers {
    pub(super) version: Version,
    pub(super) since: Instant,
    asked_at: Option<Instant>,
    found: BTreeMap<Member, Offer>,
    /// Peers who want to hear what the local copy has.
    askers: Vec<NodeId>,
    /// An operator's word replaces the offers of nodes that are missing.
    forced: bool,
}

impl Offers {
    pub(super) fn new(version: Version, since: Instant) -> Self {
        Self { version, since, asked_at: None, found: BTreeMap::new(), askers: Vec::new(), forced: false }
    }
}

impl Roles {
    pub(super) fn consider_start(&mut self, now: Instant, me: Member, config: &GroupConfig) {
        let Some(row) = self.domain.groups.get(&config.name).cloned() else { return };
        let alive = |m: &Member| self.domain.counts(*m);
        if row.in_sync.iter().any(alive) || row.active.is_some_and(|a| alive(&a)) {
            return;
        }
        let is_fit = |n: NodeId| !self.lost.contains_key(&n) && self.domain.member(n).is_some();
        let Some(rank) = placement::rank(&config.candidates, self.me, is_fit) else { return };
        let is_first = row.epoch == Epoch(0);
        let offers = self.offers.entry(config.name.clone()).or_insert_with(|| Offers::new(row.version, now));
        if is_first {
            let due = offers.since + START_RANK * rank;
            if now < due {
                return self.wake_at(due);
            }
            if self.unit(&config.name) == Unit::Ready {
                self.propose_start(now, config, &row, me, BTreeMap::new(), false);
            }
            return; // an application that becomes ready is an input of its own
        }
        // Nobody waits for anybody here: all see the same offers, and only the best copy bids.
        self.gather(now, config, &row);
        self.choose(now, config, &row);
    }

    /// Asks every candidate what its copy has.
    fn gather(&mut self, now: Instant, config: &GroupConfig, row: &GroupRow) {
        let offers = self.offers.get_mut(&config.name).expect("consider_start made it");
        if offers.asked_at.is_some_and(|t| now < t + ASK_AGAIN) {
            return;
        }
        offers.asked_at = Some(now);
        self.outputs.push_back(Output::Offer { group: config.name.clone(), version: row.version });
        let me = self.me;
        for to in config.candidates.iter().copied().filter(|n| *n != me) {
            self.tell(to, Told::WantOffer { group: config.name.clone(), version: row.version });
        }
        self.wake_at(now + ASK_AGAIN);
    }

    fn choose(&mut self, now: Instant, config: &GroupConfig, row: &GroupRow) {
        let domain = Arc::clone(&self.domain);
        let offers = self.offers.get(&config.name).expect("consider_start made it").clone();
        let current: BTreeMap<Member, Offer> = offers.found.into_iter().filter(|(m, _)| domain.is_current(*m)).collect();
        let is_off = |n: NodeId| domain.member(n).is_some_and(|m| domain.is_fenced(m)); // its memory went with its power
        let is_whole = config.candidates.iter().all(|n| is_off(*n) || current.keys().any(|m| m.node == *n));
        if let Some(at) = offers.asked_at {
            self.wake_at(at + ASK_AGAIN);
        }
        if !is_whole {
            return; // who is missing may have everything
        }
        let Some(best) = current.values().max().copied() else { return };
        let on_total_loss = domain.config.service(&config.name).map_or(OnTotalLoss::Best, |s| s.on_total_loss);
        let may_start = offers.forced || matches!(on_total_loss, OnTotalLoss::Best | OnTotalLoss::Empty);
        if may_start && best.member.node == self.me {
            let lost = !best.complete || on_total_loss == OnTotalLoss::Empty;
            self.propose_start(now, config, row, best.member, current, lost);
        }
    }

    fn propose_start(&mut self, now: Instant, config: &GroupConfig, row: &GroupRow, to: Member, offers: BTreeMap<Member, Offer>, lost: bool) {
        let entry = Entry::Start { group: config.name.clone(), version: row.version, to, offers: offers.into_keys().collect(), lost };
        self.propose(now, Purpose::Group(config.name.clone()), row.version, entry, None);
    }

    pub(super) fn on_want_offer(&mut self, from: NodeId, group: GroupName, version: Version) {
        let Some(row) = self.domain.groups.get(&group).filter(|r| r.version == version) else { return };
        let offers = self.offers.entry(group.clone()).or_insert_with(|| Offers::new(row.version, self.quiet_since));
        if !offers.askers.contains(&from) {
            offers.askers.push(from);
        }
        self.outputs.push_back(Output::Offer { group, version });
    }

    pub(super) fn on_offered(&mut self, group: &GroupName, offer: Offer) {
        let askers = self.offers.get_mut(group).map(|o| std::mem::take(&mut o.askers)).unwrap_or_default();
        for to in askers {
            self.tell(to, Told::Offer { group: group.clone(), offer });
        }
        self.take_offer(group, offer);
    }

    pub(super) fn take_offer(&mut self, group: &GroupName, offer: Offer) {
        if let Some(offers) = self.offers.get_mut(group) {
            offers.found.insert(offer.member, offer);
        }
    }

    /// The operator's word. Whoever has the best copy bids for it, so every candidate has to hear it.
    pub(super) fn force_start(&mut self, now: Instant, group: &GroupName, cause: EventId) {
        let Some(row) = self.domain.groups.get(group) else {
            return self.refuse(cause, format!("there is no group {group}"));
        };
        if let Some(alive) = row.in_sync.iter().chain(&row.active).find(|m| self.domain.counts(**m)) {
            return self.refuse(cause, format!("{group} has lost nothing: {} has everything, and goes on by itself", alive.node));
        }
        self.take_start_word(now, group);
        for to in self.domain.config.candidates(group).into_iter().filter(|n| *n != self.me).collect::<Vec<_>>() {
            self.tell(to, Told::Wish { wish: Wish::Start { group: group.clone() }, cause });
        }
    }

    pub(super) fn take_start_word(&mut self, now: Instant, group: &GroupName) {
        let Some(row) = self.domain.groups.get(group) else { return };
        let offers = self.offers.entry(group.clone()).or_insert_with(|| Offers::new(row.version, now));
        offers.forced = true;
    }
}

/// Between two candidates' bids for a first start: applications need time to come up.
const START_RANK: Duration = Duration::from_secs(2);
/// An offer that has not come is asked for again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(200);
