//! File systems: on a thread of their own, because asking one whose server is gone may take for ever.

use sixnines_core::ids::NodeId;
use sixnines_core::value::Update;
use sysinfo::{DiskRefreshKind, Disks};

use super::{Readings, int, percent};

/// Objects of this kind; what is beyond is not reported.
const DISKS_MAX: usize = 64;

pub(crate) struct DiskSampler {
    node: NodeId,
    disks: Option<Disks>,
}

impl DiskSampler {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, disks: None }
    }

    /// Reads all file systems that bear a name of their own.
    pub(crate) fn sample(&mut self) -> Vec<Update> {
        let wanted = DiskRefreshKind::nothing().with_storage();
        match &mut self.disks {
            Some(disks) => disks.refresh_specifics(true, wanted),
            None => self.disks = Disks::new_with_refreshed_list_specifics(wanted).ok(),
        }
        let mut readings = Readings::of(self.node);
        let mut names = Vec::new();
        for disk in self.disks.iter().flat_map(|d| d.iter()).filter(|d| d.total_space() > 0) {
            let name = object_name(&disk.mount_point().to_string_lossy());
            if names.contains(&name) || names.len() == DISKS_MAX {
                continue; // Something is mounted over it: only the upper one can be asked.
            }
            let (total, available) = (disk.total_space(), disk.available_space());
            readings.put(
                &format!("disk/{name}"),
                [("total", int(total)), ("available", int(available)), ("usage", percent(total.saturating_sub(available), total))],
            );
            names.push(name);
        }
        readings.updates
    }
}

/// One part of an object's name: `/` is `root`, `/var/lib` is `var-lib`.
fn object_name(mount_point: &str) -> String {
    let parts: Vec<_> = mount_point.split('/').filter(|p| !p.is_empty()).collect();
    if parts.is_empty() { "root".into() } else { parts.join("-") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_become_names() {
        assert_eq!(["/", "/boot", "/var/lib"].map(object_name), ["root", "boot", "var-lib"]);
    }
}
