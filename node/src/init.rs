//! `nines init`: a domain with its authority, certificates, proposals, and one directory per node.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sixnines_core::domain::config::{ChassisConfig, DomainConfig, NodeConfig, Profile};
use sixnines_core::ids::NodeId;
use sixnines_discs::pki::Authority;

use crate::config::{NodeFile, load_domain};
use crate::shipped;

/// What `nines init` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where to make it; must not exist or be empty.
    pub(crate) dir: PathBuf,
    /// The domain as YAML: nodes, chassis, services. Left out: three nodes in two chassis on this machine's loopback.
    #[arg(long)]
    pub(crate) domain: Option<PathBuf>,
    /// Classes, alarms, objects and policies to start with. Left out: the shipped ones.
    #[arg(long)]
    pub(crate) policies: Option<PathBuf>,
    /// The node that is to hold the authority, to invite others and to renew certificates: it reads `ca.key` where it is made, in DIR.
    #[arg(long, value_name = "NODE")]
    pub(crate) authority: Option<NodeId>,
    /// How long certificates last, such as 365d. Left out: they have no end, and a node's access ends by expelling it.
    #[arg(long, value_name = "TIME", value_parser = crate::cli::seconds)]
    pub(crate) certificate_life: Option<u64>,
}

/// Makes it, or leaves everything as it was.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let config = match &options.domain {
        Some(file) => load_domain(file)?,
        None => playground(),
    };
    if options.dir.exists() && fs::read_dir(&options.dir).is_ok_and(|mut d| d.next().is_some()) {
        bail!("{} is there already and not empty: a domain is made once. Take another directory", options.dir.display());
    }
    if let Some(holder) = options.authority.filter(|n| config.node(*n).is_none()) {
        let names: Vec<String> = config.nodes.iter().map(|n| n.id.to_string()).collect();
        bail!("--authority {holder}: there is no such node; there are: {}", names.join(", "));
    }
    let (holder, life) = (options.authority, options.certificate_life);
    make(&options.dir, &config, options.policies.as_deref()).and_then(|()| entrust(&options.dir, &config, holder, life)).inspect_err(|_| {
        // Nothing half made stays behind.
        if let Err(error) = fs::remove_dir_all(&options.dir) {
            tracing::debug!(%error, "nothing to take back");
        }
    })?;
    println!("made domain {} in {}: {} nodes, {} services", config.domain, options.dir.display(), config.nodes.len(), config.services.len());
    for node in &config.nodes {
        println!("  nines run --config {}", options.dir.join(node.id.to_string()).join("nines.yaml").display());
    }
    let key = options.dir.join("ca.key");
    match holder {
        None => println!("{} signs certificates: keep it away from the nodes, but for one that is to let others in (authority: in its nines.yaml)", key.display()),
        Some(holder) => println!("{} signs certificates, and {holder} reads it there: if {holder} goes to another machine, the key goes with it and nowhere else", key.display()),
    }
    Ok(())
}

/// Makes the directories and files of a checked configuration.
pub(crate) fn make(dir: &Path, config: &DomainConfig, policies: Option<&Path>) -> anyhow::Result<()> {
    let write = |path: PathBuf, text: &str| fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()));
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let authority = Authority::create(&config.domain)?;
    authority.save(dir)?;
    let domain = serde_yaml::to_string(config).context("the configuration has no YAML")?;
    let domain_id = random()?;
    for node in &config.nodes {
        let home = dir.join(node.id.to_string());
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        authority.issue(node.id)?.save(&home)?;
        write(home.join("domain.yaml"), &domain)?;
        let target = home.join("policies");
        match policies {
            Some(from) => copy(from, &target)?,
            None => shipped::write(&target, config)?,
        }
        write(home.join("nines.yaml"), &format!("# This node, and nothing else: what concerns the domain is in its control log.\nnode: {}\ndomain_id: {domain_id}\n", node.id.0))?;
    }
    // The proof that it can be read is to read it.
    for node in &config.nodes {
        let file = NodeFile::load(&dir.join(node.id.to_string()).join("nines.yaml"))?;
        file.load_domain()?;
        if node.id == config.nodes[0].id {
            crate::config::check_room(&crate::config::load_bundle(&file.policies)?, &config.limits)?; // the same for all
        }
    }
    Ok(())
}

/// What concerns the authority, once the directories are made: who holds it, and how long certificates last.
fn entrust(dir: &Path, config: &DomainConfig, holder: Option<NodeId>, life: Option<u64>) -> anyhow::Result<()> {
    if let Some(life) = life {
        let authority = Authority::load(dir, &config.domain)?;
        let ends = Some(crate::daemon::door::seconds_now() + life);
        for node in &config.nodes {
            let home = dir.join(node.id.to_string());
            let (certificate, key) = sixnines_discs::pki::node_files(&home, node.id);
            for file in [certificate, key] {
                fs::remove_file(&file).with_context(|| format!("cannot replace {}", file.display()))?;
            }
            authority.issue_until(node.id, ends)?.save(&home)?;
        }
    }
    if let Some(holder) = holder {
        let path = dir.join(holder.to_string()).join("nines.yaml");
        let life = life.map(|life| if life.is_multiple_of(86_400) { format!("certificate_life: {}d\n", life / 86_400) } else { format!("certificate_life: {life}s\n") }).unwrap_or_default();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::write(&path, format!("{text}# It lets machines in and renews certificates.\nauthority: ..\n{life}")).with_context(|| format!("cannot write {}", path.display()))?;
        NodeFile::load(&path)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let bundle = crate::config::load_bundle(from)?;
    for (name, text) in bundle.files {
        let path = to.join(name);
        let parent = path.parent().unwrap_or(to);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A number that nobody can guess and nobody else has drawn.
pub(crate) fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    let mut source = fs::File::open("/dev/urandom").context("no source of random numbers")?;
    source.read_exact(&mut bytes).context("no source of random numbers")?;
    Ok(u64::from_le_bytes(bytes))
}

/// Three nodes in two chassis, to play with on one machine.
fn playground() -> DomainConfig {
    let address = |link: u8, node: u16| -> SocketAddr { format!("127.0.{link}.{node}:7400").parse().expect("an address") };
    let node = |id: u16, chassis: &str| NodeConfig {
        id: NodeId(id),
        chassis: chassis.into(),
        links: vec![address(1, id), address(2, id)],
        voter: true,
        witness: false,
    };
    let manager = |port: u16| format!("127.0.0.1:{port}").parse().ok();
    DomainConfig {
        domain: "lab".into(),
        profile: Profile::Lan,
        nodes: vec![node(1, "mxp1"), node(2, "mxp1"), node(3, "mxp2")],
        chassis: vec![
            ChassisConfig { name: "mxp1".into(), manager: manager(7501) },
            ChassisConfig { name: "mxp2".into(), manager: manager(7502) },
        ],
        services: Vec::new(),
        ..DomainConfig::default()
    }
}
