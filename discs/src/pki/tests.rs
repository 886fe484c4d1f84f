//! Files as `nines init` writes them, and what loading says when they are wrong. Handshakes are tested with the mesh.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

const N1: NodeId = NodeId(1);
const N2: NodeId = NodeId(2);

fn saved(dir: &Path, domain: &str, nodes: &[NodeId]) -> Authority {
    let authority = Authority::create(domain).unwrap();
    authority.save(dir).unwrap();
    for node in nodes {
        authority.issue(*node).unwrap().save(dir).unwrap();
    }
    authority
}

#[test]
fn what_is_saved_can_be_loaded_and_names_one_node() {
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path(), "lab", &[N1]);
    Authority::load(dir.path(), "lab").unwrap().issue(N2).unwrap().save(dir.path()).unwrap();
    let members = Members::new("lab", [N1, N2]);
    for node in [N1, N2] {
        let identity = Identity::load(dir.path(), "lab", node).unwrap();
        assert_eq!(members.named_by(&identity.certificate), Some(node));
        identity.server_config(members.clone()).unwrap();
    }
    members.set([N1]);
    let n2 = Identity::load(dir.path(), "lab", N2).unwrap();
    assert_eq!(members.named_by(&n2.certificate), None);
    assert_eq!(Members::new("lab2", [N1, N2]).named_by(&n2.certificate), None);
}

#[test]
fn keys_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path(), "lab", &[N1]);
    for file in ["ca.key", "n1.key"] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let key = dir.path().join("n1.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Identity::load(dir.path(), "lab", N1).unwrap_err().to_string();
    assert!(error.ends_with(&format!("n1.key can be read by others (mode 640): chmod 600 {}", key.display())), "{error}");
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let authority = saved(dir.path(), "lab", &[N1]);
    let before = fs::read(dir.path().join("n1.key")).unwrap();
    assert!(matches!(authority.issue(N1).unwrap().save(dir.path()), Err(PkiError::Exists(_))));
    assert!(matches!(Authority::create("lab").unwrap().save(dir.path()), Err(PkiError::Exists(_))));
    assert_eq!(fs::read(dir.path().join("n1.key")).unwrap(), before);
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    saved(ours.path(), "lab", &[N1, N2]);
    saved(theirs.path(), "lab", &[N1]);
    let load = || Identity::load(ours.path(), "lab", N1).unwrap_err().to_string();

    fs::copy(theirs.path().join("n1.pem"), ours.path().join("n1.pem")).unwrap();
    let error = load();
    assert!(error.contains("n1.pem is no certificate for n1.lab.sixnines by this domain's CA"), "{error}");

    fs::copy(ours.path().join("n2.pem"), ours.path().join("n1.pem")).unwrap();
    assert!(load().contains("n1.pem is no certificate for n1.lab.sixnines"));

    fs::copy(theirs.path().join("ca.pem"), ours.path().join("ca.pem")).unwrap();
    fs::copy(theirs.path().join("n1.pem"), ours.path().join("n1.pem")).unwrap();
    let error = load();
    assert!(error.contains("n1.key holds no usable key for this certificate"), "{error}");

    fs::write(ours.path().join("n1.key"), "nothing").unwrap();
    assert!(load().contains("n1.key holds no usable private key"));
    fs::remove_file(ours.path().join("n1.key")).unwrap();
    assert!(load().contains("cannot read"));
}

#[test]
fn domain_names_that_a_certificate_cannot_bear_are_refused() {
    for good in ["lab", "lab-2", "9"] {
        Authority::create(good).unwrap();
    }
    for bad in ["", "Lab", "my lab", "a.b", "-lab", "lab-", &"x".repeat(41)] {
        assert!(matches!(Authority::create(bad), Err(PkiError::DomainName(_))), "{bad:?}");
    }
}

#[test]
fn derived_bytes_stay_the_same_and_differ_by_label() {
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path(), "lab", &[N1]);
    let load = || Identity::load(dir.path(), "lab", N1).unwrap();
    assert_eq!(load().derive("reset"), load().derive("reset"));
    assert_ne!(load().derive("reset"), load().derive("other"));
}
