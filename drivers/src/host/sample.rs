//! What changes quickly: processors, memory, load, network interfaces, temperatures.

use std::collections::BTreeMap;
use std::fs;

use sixnines_core::ids::NodeId;
use sixnines_core::value::{Update, Value};
use sysinfo::{Components, CpuRefreshKind, System};

use super::{Readings, float, int, percent};
use crate::netlink::route::Route;

/// Objects of one kind; what is beyond is not reported.
const CPUS_MAX: usize = 64;
const INTERFACES_MAX: usize = 64;

/// Looked for anew after so many samples: sensors hardly ever come and go, and looking costs as much as ten readings.
const SAMPLES_PER_SENSOR_SEARCH: u32 = 60;

/// Keeps what has to be kept between two samples.
pub(crate) struct Sampler {
    node: NodeId,
    system: Option<System>,
    components: Option<Components>,
    /// Opened on the reading thread, whose network namespace counts.
    route: Option<Route>,
    cores: BTreeMap<usize, u32>,
    samples: u32,
}

impl Sampler {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, system: System::new().ok(), components: None, route: None, cores: BTreeMap::new(), samples: 0 }
    }

    /// Reads everything once. The first time processors have no usage: it is counted between two readings.
    pub(crate) fn sample(&mut self) -> Vec<Update> {
        let mut readings = Readings::of(self.node);
        read_os(&mut readings, self.samples == 0);
        self.read_processors(&mut readings);
        self.read_memory(&mut readings);
        self.read_interfaces(&mut readings);
        self.samples = self.samples.wrapping_add(1);
        readings.updates
    }

    fn read_processors(&mut self, readings: &mut Readings) {
        let is_first = self.samples == 0;
        let heat = self.temperatures();
        let Some(system) = &mut self.system else { return };
        if is_first {
            system.refresh_cpu_list(CpuRefreshKind::nothing().with_usage());
        } else {
            system.refresh_cpu_usage();
        }
        for (index, cpu) in system.cpus().iter().enumerate().take(CPUS_MAX) {
            let place = format!("cpu{index}");
            if !is_first {
                readings.put(&place, [("usage", float(cpu.usage().clamp(0.0, 100.0).into()))]);
            }
            let core = *self.cores.entry(index).or_insert_with(|| core_of(index));
            if let Some(celsius) = heat.of_core(core) {
                readings.put(&place, [("temperature", float(celsius.into()))]);
            }
        }
    }

    fn temperatures(&mut self) -> Heat {
        let search = self.samples.is_multiple_of(SAMPLES_PER_SENSOR_SEARCH);
        match &mut self.components {
            Some(components) if search => components.refresh(true),
            Some(components) => components.iter_mut().for_each(sysinfo::Component::refresh),
            None if search => self.components = Components::new_with_refreshed_list().ok(),
            None => {}
        }
        let components = self.components.iter().flat_map(|c| c.iter());
        Heat::from_labels(components.filter_map(|c| Some((c.label().to_owned(), c.temperature()?))))
    }

    fn read_memory(&mut self, readings: &mut Readings) {
        let Some(system) = &mut self.system else { return };
        system.refresh_memory();
        let (total, available) = (system.total_memory(), system.available_memory());
        // What is not available: the kernel's own estimate, unlike "not free".
        let used = total.saturating_sub(available);
        readings.put(
            "memory",
            [
                ("total", int(total)),
                ("available", int(available)),
                ("used", int(used)),
                ("swap_used", int(system.used_swap())),
                ("usage", percent(used, total)),
            ],
        );
    }

    /// By netlink: `/sys/class/net` shows the devices of whichever network namespace it was mounted in.
    fn read_interfaces(&mut self, readings: &mut Readings) {
        if self.route.is_none() {
            self.route = Route::open().ok();
        }
        let Some(links) = self.route.as_mut().and_then(|r| r.links().ok()) else {
            self.route = None;
            return;
        };
        for link in links.iter().take(INTERFACES_MAX) {
            // Switched off by an operator is no fault (X.731: locked, not disabled).
            let state = match (link.is_up, link.is_running) {
                (false, _) => "off",
                (true, false) => "down",
                (true, true) => "up",
            };
            readings.put(
                &format!("net/{}", link.name),
                [
                    ("received", int(link.counters.received)),
                    ("sent", int(link.counters.sent)),
                    ("errors", int(link.counters.errors)),
                    ("state", Some(Value::Enum(state.into()))),
                ],
            );
        }
    }
}

fn read_os(readings: &mut Readings, is_first: bool) {
    readings.put(
        "os",
        [
            ("load", System::load_average().ok().and_then(|l| float(l.one))),
            ("uptime", System::uptime().ok().and_then(int)),
            ("processes", processes().and_then(int)),
            ("open_files", open_files().and_then(int)),
        ],
    );
    if is_first {
        let text = |t: String| Some(Value::Text(t.into()));
        readings.put(
            "os",
            [
                ("kernel", System::kernel_version().ok().and_then(text)),
                ("hostname", System::host_name().ok().and_then(text)),
            ],
        );
    }
}

/// How many there are, without looking into any.
fn processes() -> Option<u64> {
    let entries = fs::read_dir("/proc").ok()?;
    let count = entries.flatten().filter(|e| e.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)).count();
    u64::try_from(count).ok()
}

fn open_files() -> Option<u64> {
    fs::read_to_string("/proc/sys/fs/file-nr").ok()?.split_whitespace().next()?.parse().ok()
}

/// The core that a processor belongs to, as its temperature sensor numbers it.
fn core_of(cpu: usize) -> u32 {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/core_id");
    fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok()).unwrap_or_default()
}

/// Temperatures of processors, as far as there are sensors.
#[derive(Debug, Default, PartialEq)]
struct Heat {
    cores: BTreeMap<u32, f32>,
    hottest: Option<f32>,
}

/// The kernel's sensor drivers for processors.
const CPU_SENSORS: [&str; 5] = ["coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal"];

impl Heat {
    /// Two packages have cores of the same number: the hotter one counts for both.
    fn from_labels(sensors: impl Iterator<Item = (String, f32)>) -> Self {
        let mut heat = Self::default();
        for (label, celsius) in sensors.filter(|(l, c)| c.is_finite() && CPU_SENSORS.iter().any(|s| l.starts_with(s))) {
            heat.hottest = Some(heat.hottest.map_or(celsius, |h| h.max(celsius)));
            if let Some(core) = label.split("Core ").nth(1).and_then(|n| n.split(' ').next()?.parse().ok()) {
                let hotter = heat.cores.get(&core).map_or(celsius, |h| h.max(celsius));
                heat.cores.insert(core, hotter);
            }
        }
        heat
    }

    fn of_core(&self, core: u32) -> Option<f32> {
        self.cores.get(&core).copied().or(self.hottest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_has_its_cores_temperature_else_the_hottest() {
        let sensors = [("coretemp Package id 0", 61.0), ("coretemp Core 0", 55.0), ("coretemp Core 4", 58.0), ("coretemp Core 0", 57.0), ("nvme Composite", 80.0)];
        let heat = Heat::from_labels(sensors.iter().map(|(l, c)| ((*l).to_owned(), *c)));
        assert_eq!([heat.of_core(0), heat.of_core(4), heat.of_core(1)], [Some(57.0), Some(58.0), Some(61.0)]);
        assert_eq!(Heat::default().of_core(0), None);
    }

    #[test]
    fn usage_comes_with_the_second_sample() {
        let mut sampler = Sampler::new(NodeId(1));
        let has_usage = |s: Vec<Update>| s.iter().any(|u| u.object.as_str() == "/nodes/n1/cpu0" && u.attribute.as_str() == "usage");
        assert!(!has_usage(sampler.sample()));
        assert!(has_usage(sampler.sample()));
    }
}
