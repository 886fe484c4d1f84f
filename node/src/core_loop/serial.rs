//! What serial lines say: evidence for the operator. It goes into no verdict (protocol 5.2).

use std::path::PathBuf;

use sixnines_core::ids::{EventId, NodeId};
use sixnines_core::time::Instant;
use sixnines_core::value::{Quality, Value};
use sixnines_discs::liveness::Verdict;
use sixnines_discs::serial::{Beat, State};

use super::ways::Ways;
use super::{CoreLoop, node_object};
use crate::api::SerialRow;

/// How the line to a peer is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SerialNews {
    pub(crate) peer: NodeId,
    pub(crate) device: PathBuf,
    pub(crate) state: State,
    /// What the peer has said last, if it is heard.
    pub(crate) beat: Option<Beat>,
    /// It has spoken since the last fabric link was lost.
    pub(crate) outlives: bool,
    /// Why the device is closed, if it is.
    pub(crate) why: String,
}

/// The last that a line said, and the word of it that has become an event.
#[derive(Debug)]
pub(super) struct Line {
    news: SerialNews,
    told: &'static str,
}

impl<W: Ways> CoreLoop<W> {
    pub(super) fn on_serial(&mut self, now: Instant, news: SerialNews) {
        let peer = news.peer;
        if news.state == State::Closed {
            tracing::warn!(%peer, device = %news.device.display(), why = %news.why, "a serial line is closed");
        }
        let told = self.serial.get(&peer).map_or("", |line| line.told);
        self.serial.insert(peer, Line { news, told });
        self.tell_serial(now, peer, None);
    }

    /// Makes an event of how the line to `peer` is, if that is another thing than before.
    pub(super) fn tell_serial(&mut self, now: Instant, peer: NodeId, cause: Option<EventId>) {
        let is_cut_off = self.is_cut_off(peer);
        let has_begun = self.engine.is_some(); // before, nothing would keep it
        let Some(line) = self.serial.get_mut(&peer).filter(|_| has_begun) else { return };
        let word = if is_cut_off { CUT_OFF } else { line.news.state.as_str() };
        if std::mem::replace(&mut line.told, word) == word {
            return;
        }
        let why = if is_cut_off { format!("no fabric carries anything from it, but it lives: it {}", said(&line.news)) } else { format!("{} {}", line.news.device.display(), line.news.why) };
        tracing::info!(%peer, word, why = why.trim(), "serial line");
        self.observe(now, &node_object(peer), "serial", Some(Value::Text(word.into())), Quality::Good, cause, why.trim(), false);
    }

    /// On the fabrics it is dead, and on its line it has been heard since: what it said before says nothing of that.
    pub(super) fn is_cut_off(&self, node: NodeId) -> bool {
        self.verdicts.get(&node) == Some(&Verdict::Dead) && self.serial.get(&node).is_some_and(|line| line.news.outlives)
    }

    pub(super) fn serial_row(&self, node: NodeId) -> Option<SerialRow> {
        let news = &self.serial.get(&node)?.news;
        let says = if news.state == State::Closed { news.why.clone() } else { said(news) };
        Some(SerialRow { device: news.device.display().to_string(), state: news.state.as_str().to_owned(), says })
    }
}

/// How a node is called that is dead on the fabrics and alive on a line.
pub(super) const CUT_OFF: &str = "cut off";

/// What a peer has said, for people.
fn said(news: &SerialNews) -> String {
    let Some(beat) = &news.beat else { return String::new() };
    let fabrics = beat.hears_links.count_ones();
    let hears = if fabrics == 0 { "hears this node on no fabric".to_owned() } else { format!("hears this node on {fabrics} fabrics") };
    let lease = if beat.is_suspended { ", its lease is over" } else { "" };
    let active: Vec<String> = beat.active.iter().map(|(group, epoch)| format!("{group} (epoch {epoch})")).collect();
    let active = if active.is_empty() { String::new() } else { format!(", holds itself for the active of {}", active.join(" ")) };
    format!("{hears}{lease}{active}")
}
