//! Time, heartbeats, promises, releases and gates: what needs no entry in the control log.

use super::super::law::{A, Said, VOTERS, W};
use super::{Clocks, Gate, HOLDERS, Renouncing, State, Step, Waits};

impl Clocks {
    /// One tick of true time.
    pub(super) fn ticks(&self, s: &State, out: &mut Vec<(Step, State)>) {
        let mut next = s.clone();
        self.pass(&mut next, None);
        if self.rules.mute.is_some() {
            self.beats_of_the_mute(&mut next);
        }
        out.push((Step::Tick, next));
        if s.frozen > 0 {
            for holder in 0..HOLDERS {
                let mut next = s.clone();
                next.frozen -= 1;
                self.pass(&mut next, Some(holder));
                out.push((Step::TickFrozen { holder }, next));
            }
        }
    }

    /// Time passes on every clock but that of `frozen`.
    fn pass(&self, s: &mut State, frozen: Option<usize>) {
        let oldest = if self.rules.from_arrival { u8::MAX } else { self.lease };
        for node in (0..3).filter(|n| Some(*n) != frozen) {
            count_down(&mut s.wait[node]);
            s.promise[node].iter_mut().for_each(count_down);
        }
        for holder in 0..HOLDERS {
            for voter in VOTERS {
                grow_old(&mut s.echo[voter][holder], oldest, self.promise + 2);
            }
            grow_old(&mut s.asked[holder], self.lease, self.lease);
            if Some(holder) != frozen {
                count_down(&mut s.lease[holder]);
                count_down(&mut s.ghost[holder]);
                if self.rules.gate != Gate::Daemon {
                    count_down(&mut s.gate[holder]);
                }
            }
        }
        count_down(&mut s.hears);
    }

    /// A's heartbeats reach the voters in each tick and nothing reaches A.
    fn beats_of_the_mute(&self, s: &mut State) {
        let renew = s.hears > 0 || self.rules.mute == Some(false);
        for voter in VOTERS {
            if voter != A && renew && s.released[voter][A] == 0 {
                s.promise[voter][A] = self.promise;
            }
        }
    }

    /// Rules 3.1 and 3.3. The heartbeat is as young as can be: an older one gives less lease for the same promise.
    pub(super) fn grants(&self, s: &State, out: &mut Vec<(Step, State)>) {
        for holder in 0..HOLDERS {
            for voter in VOTERS.into_iter().filter(|v| *v != holder) {
                if self.may_grant(s, voter, holder) {
                    let mut next = s.clone();
                    self.grant(&mut next, voter, holder, 0);
                    out.push((Step::Grant { voter, holder }, next));
                }
                if s.echo[voter][holder] != 0 {
                    let mut next = s.clone();
                    let age = std::mem::take(&mut next.echo[voter][holder]) - 1;
                    self.arrived(&mut next, holder, age);
                    out.push((Step::EchoArrives { voter, holder }, next));
                }
            }
            if self.rules.first_beat && s.asked[holder] == 0 {
                let mut next = s.clone();
                next.asked[holder] = 1;
                out.push((Step::Ask { holder }, next));
            }
        }
    }

    /// What one other voter grants is granted by a majority of three, for the holder is a voter too and grants itself.
    fn may_grant(&self, s: &State, voter: usize, holder: usize) -> bool {
        let view = self.view(s, voter);
        self.lives(s, voter)
            && self.lives(s, holder)
            && view.life[holder] == s.life[holder]
            && (s.released[voter][holder] == 0 || self.rules.grants_released)
            && (s.applied[holder] >= view.about[holder] || !self.rules.about)
            && (s.released[holder][holder] == 0)
    }

    fn grant(&self, s: &mut State, voter: usize, holder: usize, age: u8) {
        s.promise[voter][holder] = self.promise;
        if self.rules.renouncing != Some(Renouncing::TakenLate) {
            s.renounced[voter][holder] = 0; // what comes now is older than what was granted
        }
        if self.rules.slow_echoes {
            s.echo[voter][holder] = age + 1;
        } else {
            self.arrived(s, holder, age);
        }
    }

    /// Rule 3.5, of all groups at once: who hears nobody and whose lease is over needs no promise any more.
    pub(super) fn renouncing(&self, s: &State, out: &mut Vec<(Step, State)>) {
        let Some(how) = self.rules.renouncing else { return };
        for holder in 0..HOLDERS {
            let is_silent = s.lease[holder] == 0 && s.gate[holder] == 0 && s.hears == 0;
            let is_news = VOTERS.into_iter().any(|v| v != holder && s.promise[v][holder] > 0 && s.renounced[v][holder] == 0);
            if self.lives(s, holder) && (is_silent || how == Renouncing::Speaks) && is_news {
                let mut next = s.clone();
                for voter in VOTERS.into_iter().filter(|v| *v != holder) {
                    next.renounced[voter][holder] = s.life[holder];
                    if how != Renouncing::KeepsGrants {
                        next.echo[voter][holder] = 0;
                    }
                }
                next.asked[holder] = 0; // sent before, so no grant of it counts
                out.push((Step::Renounce { holder }, next));
            }
            for voter in VOTERS.into_iter().filter(|v| s.renounced[*v][holder] != 0) {
                let mut next = s.clone();
                if std::mem::take(&mut next.renounced[voter][holder]) == self.view(s, voter).life[holder] {
                    next.promise[voter][holder] = 0;
                }
                out.push((Step::RenouncingArrives { voter, holder }, next));
            }
        }
    }

    /// The lease counts from the heartbeat's sending, however old its echo is.
    fn arrived(&self, s: &mut State, holder: usize, age: u8) {
        if s.released[holder][holder] != 0 && self.rules.own_release == Some(true) {
            return; // It has closed for its successor; nothing that comes late opens it again.
        }
        let left = if self.rules.from_arrival { self.lease } else { self.lease.saturating_sub(age) };
        s.lease[holder] = s.lease[holder].max(left);
        if self.rules.gate == Gate::Daemon {
            s.gate[holder] = 1;
        }
    }

    /// Rule 4.1, for gates that are not the lease itself.
    pub(super) fn gates(&self, s: &State, out: &mut Vec<(Step, State)>) {
        for holder in 0..HOLDERS {
            let mut push = |step, change: &dyn Fn(&mut State)| {
                let mut next = s.clone();
                change(&mut next);
                out.push((step, next));
            };
            match self.rules.gate {
                Gate::Absolute => {}
                Gate::Relative | Gate::RelativeExtended => {
                    if s.lease[holder] > 0 {
                        push(Step::Reckon { holder }, &|s| s.reckoned[holder] = s.lease[holder]);
                    }
                    let extends = self.rules.gate == Gate::RelativeExtended;
                    // A gate that is shut is opened with what is left at that moment; only the extension is late.
                    let opens = if extends && s.gate[holder] == 0 { s.lease[holder] } else { s.reckoned[holder] };
                    if opens > 0 {
                        push(Step::Arm { holder }, &|s| {
                            s.gate[holder] = s.gate[holder].max(opens);
                            s.reckoned[holder] = 0;
                        });
                    }
                }
                Gate::Daemon => {
                    if s.gate[holder] > 0 && s.lease[holder] == 0 {
                        push(Step::DaemonCloses { holder }, &|s| s.gate[holder] = 0);
                    }
                }
            }
        }
    }

    /// Rules 3.4 and 3.6. A voter that holds a node for dead errs as it likes: the promise alone must do.
    pub(super) fn releases(&self, s: &State, out: &mut Vec<(Step, State)>) {
        for voter in VOTERS.into_iter().filter(|v| self.lives(s, *v)) {
            let view = self.view(s, voter);
            for target in 0..HOLDERS {
                let own = voter == target;
                if s.released[voter][target] != 0 || (own && self.rules.own_release.is_none()) {
                    continue;
                }
                let waits = match self.rules.waits {
                    Waits::Everyone => true,
                    Waits::Proposer => voter != W,
                    Waits::Nobody => false,
                };
                if waits && (s.promise[voter][target] > 0 || s.wait[voter] > 0) {
                    continue;
                }
                let mut next = s.clone();
                next.released[voter][target] = view.since[target];
                next.said[voter][target] = Said { voter: s.life[voter], target: view.life[target], since: view.since[target] };
                if own && self.rules.own_release == Some(true) {
                    next.lease[target] = 0;
                }
                self.first_beat(&mut next, voter, target);
                out.push((Step::Release { voter, target }, next));
            }
        }
    }

    /// Rule 3.7: the request for a release is a heartbeat, granted with the release.
    fn first_beat(&self, s: &mut State, voter: usize, target: usize) {
        let successor = 1 - target;
        if s.asked[successor] != 0 && voter != successor && self.may_grant(s, voter, successor) {
            let age = s.asked[successor] - 1;
            self.grant(s, voter, successor, age);
        }
    }
}

fn count_down(left: &mut u8) {
    *left = left.saturating_sub(1);
}

/// Ages are kept plus 1, 0 is nothing under way; what is older than `oldest` is dropped, `most` stands for all above it.
fn grow_old(age: &mut u8, oldest: u8, most: u8) {
    if *age != 0 {
        *age = (*age + 1).min(most + 1);
        if *age > oldest {
            *age = 0;
        }
    }
}
