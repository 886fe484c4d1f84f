//! `nines join`: this machine becomes a node of a domain that is there.
//!
//! The key pair is made here and stays here. Everything is made beside the directory and put in its place in one step, so a directory that is
//! there is a whole one.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use sixnines_discs::door::{VisitError, visit};
use sixnines_discs::pki::{self, Identity, Request, Token, certificate_name, pinned_config};

use super::render;
use crate::api::Failure;
use crate::config::NodeFile;
use crate::daemon::door::{Answer, Papers, Question, failure};

/// What `nines join` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The token that `nines node invite` printed.
    pub(crate) token: String,
    /// Where the node's directory is to be made; must not exist or be empty.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Ask here instead of at the addresses in the token: a node that holds the authority, seen from this machine.
    #[arg(long)]
    pub(crate) at: Option<SocketAddr>,
    /// One JSON document.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Joins, or leaves everything as it was.
pub(crate) fn run(options: &Options) -> ExitCode {
    match join(options) {
        Ok(token) => {
            let (node, config) = (token.node, options.dir.join("nines.yaml"));
            if options.json {
                println!("{}", serde_json::json!({"joined": {"node": node, "domain": token.domain, "config": config}}));
            } else {
                println!("this machine is {node} of {}; {} is its directory\n  nines run --config {}", token.domain, options.dir.display(), config.display());
            }
            ExitCode::SUCCESS
        }
        Err(failure) => render::refuse(&failure, options.json),
    }
}

fn join(options: &Options) -> Result<Token, Failure> {
    let token: Token = options.token.parse().map_err(|e: pki::TokenError| failure("bad-token", e.to_string(), "nines node invite NAME prints one, on the node that holds the authority", 2))?;
    if fs::read_dir(&options.dir).is_ok_and(|mut d| d.next().is_some()) || options.dir.is_file() {
        let message = format!("{} is there already and not empty: a node's directory is made once", options.dir.display());
        return Err(failure("exists", message, "take another --dir, or move this one away", 2));
    }
    // What can go wrong with the disk shall go wrong before the token is used up.
    let beside = Beside::make(&options.dir).map_err(|e| failure("bad-dir", format!("{e:#}"), "take another --dir", 2))?;
    let request = Request::make(&token.domain, token.node).map_err(|e| failure("no-key", e.to_string(), "nothing was sent; try again", 3))?;
    let papers = ask(&token, &request, options.at)?;
    let spent = |e: anyhow::Error| failure("not-written", format!("{e:#}; the token is used up"), &format!("mend it, then: nines node expel {0}; nines node invite {0}", token.node), 3);
    write(&beside.0, &token, &request, &papers).map_err(spent)?;
    fs::rename(&beside.0, &options.dir).with_context(|| format!("cannot put it to {}", options.dir.display())).map_err(spent)?;
    Ok(token)
}

/// Where the directory is made; gone with everything in it unless it was put in its place.
struct Beside(PathBuf);

impl Beside {
    fn make(dir: &Path) -> anyhow::Result<Self> {
        let name = dir.file_name().context("--dir names no directory")?.to_string_lossy().into_owned();
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let beside = parent.join(format!(".{name}.joining-{}", std::process::id()));
        fs::create_dir(&beside).with_context(|| format!("cannot make {}", beside.display()))?;
        Ok(Self(beside))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0)); // it fails where it was put in its place
    }
}

/// Door after door, until one answers.
fn ask(token: &Token, request: &Request, at: Option<SocketAddr>) -> Result<Papers, Failure> {
    let reads = crate::daemon::reads().map_err(|e| failure("bad-input", format!("{e:#}"), "nothing was sent", 2))?;
    let question = Question::Join { token: token.to_string(), request: request.der.clone(), reads };
    let question = serde_json::to_vec(&question).expect("a question has a text");
    // Whoever answers there may be any of those that the token names.
    let doors: Vec<_> = token.doors.iter().map(|(node, address)| (*node, at.unwrap_or(*address))).collect();
    let mut tried: Vec<String> = Vec::new();
    let mut is_untrusted = false;
    for (node, address) in doors {
        let config = pinned_config(token.authority).map_err(|e| failure("no-tls", e.to_string(), "nothing was sent", 3))?;
        match visit(address, &certificate_name(&token.domain, node), config, &question) {
            Ok(answer) => return read(token, &answer),
            Err(VisitError::Untrusted { reason, .. }) => {
                is_untrusted = true;
                tried.push(format!("{address} is not {node} of {}, or of another authority than the token's: {reason}", token.domain));
            }
            Err(error) => tried.push(error.to_string()),
        }
    }
    let tried = tried.join("\n  ");
    if is_untrusted {
        return Err(failure("untrusted", format!("nobody answered whom the token vouches for:\n  {tried}"), "is it this domain's token? what answers at these addresses? invite again, or --at ADDRESS", 4));
    }
    Err(failure("no-answer", format!("nobody answered:\n  {tried}"), "does the node that holds the authority run? can this machine reach it by TCP? --at ADDRESS asks elsewhere", 3))
}

fn read(token: &Token, answer: &[u8]) -> Result<Papers, Failure> {
    match serde_json::from_slice(answer) {
        Ok(Answer::Joined(papers)) if papers.config.node(token.node).is_some() => Ok(*papers),
        Ok(Answer::Failed(failure)) => Err(failure),
        _ => Err(failure("no-sense", "the answer makes no sense to this version".into(), "compare the versions: nines --version", 3)),
    }
}

/// Everything that `nines run` reads; and the proof that it can be read is to read it.
fn write(dir: &Path, token: &Token, request: &Request, papers: &Papers) -> anyhow::Result<()> {
    let put = |path: PathBuf, text: &str| fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()));
    pki::save_admitted(dir, token.node, &papers.authority, &papers.certificate, &request.key_pem)?;
    let identity = Identity::load(dir, &token.domain, token.node)?;
    anyhow::ensure!(identity.authority() == token.authority, "the authority that was sent is not the token's");
    put(dir.join("domain.yaml"), &serde_yaml::to_string(&papers.config).context("the configuration has no YAML")?)?;
    for (name, text) in &papers.policies.files {
        let is_plain = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        anyhow::ensure!(is_plain, "{name:?} is no name of a policy's file");
        let path = dir.join("policies").join(name);
        let parent = path.parent().unwrap_or(dir);
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        put(path, text)?;
    }
    let text = format!("# This node, and nothing else: what concerns the domain is in its control log.\nnode: {}\ndomain_id: {}\njoined: true\n", token.node.0, papers.domain_id);
    put(dir.join("nines.yaml"), &text)?;
    NodeFile::load(&dir.join("nines.yaml"))?.load_domain()?;
    fs::File::open(dir)?.sync_all()?;
    Ok(())
}
