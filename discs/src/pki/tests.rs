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
    let members = Members::new("lab", [(N1, 0), (N2, 0)]);
    for node in [N1, N2] {
        let identity = Identity::load(dir.path(), "lab", node).unwrap();
        assert_eq!(members.named_by(&identity.certificate), Some(node));
        identity.server_config(members.clone()).unwrap();
    }
    members.set([(N1, 0)]);
    let n2 = Identity::load(dir.path(), "lab", N2).unwrap();
    assert_eq!(members.named_by(&n2.certificate), None);
    assert_eq!(Members::new("lab2", [(N1, 0), (N2, 0)]).named_by(&n2.certificate), None);
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

#[test]
fn a_certificate_bears_its_admission_and_those_below_the_lowest_that_counts_are_refused() {
    let authority = Authority::create("lab").unwrap();
    let request = Request::make("lab", N2).unwrap();
    let key = Request::key(&request.der).unwrap();
    let certificate = |admission, ends| parse_certificate(Path::new(""), &authority.certify(N2, &key, admission, ends).unwrap()).unwrap();
    let (founding, first, second) = (certificate(0, None), certificate(7, Some(2_000_000_000)), certificate(9, None));
    let facts = [&founding, &first, &second].map(|c| Facts::of(c).unwrap());
    assert_eq!(facts.each_ref().map(|f| (f.admission, f.ends)), [(0, NO_END), (7, 2_000_000_000), (9, NO_END)]);
    assert!(facts.iter().all(|f| f.public_key == key && f.issued > 1_700_000_000));
    assert_eq!(certificate::read_serial(&[1; 20]), None, "numbers of other making bear no admission");
    assert_ne!(Facts::of(&certificate(7, None)).unwrap().serial, facts[1].serial, "renewed, it has another number");

    let members = Members::new("lab", [(N2, 0)]);
    assert!([&founding, &first, &second].iter().all(|c| members.named_by(c) == Some(N2)));
    members.set([(N2, 8)]);
    assert_eq!([&founding, &first, &second].map(|c| members.named_by(c)), [None, None, Some(N2)]);
}

#[test]
fn a_request_proves_that_the_asker_has_the_key() {
    let ours = Request::make("lab", N2).unwrap();
    assert!(Request::key(&ours.der).is_ok());
    let theirs = Request::make("lab", N2).unwrap();
    // Somebody else's key under our signature: the point stands once in a request.
    let mut mixed = ours.der.clone();
    let point = |der: &[u8]| der.windows(3).position(|w| w == [0x42, 0x00, 0x04]).unwrap() + 2;
    let (to, from) = (point(&mixed), point(&theirs.der));
    mixed[to..to + 65].copy_from_slice(&theirs.der[from..from + 65]);
    assert_eq!(Request::key(&mixed), Err(RequestError::Signature));
    for length in 0..ours.der.len() {
        assert_eq!(Request::key(&ours.der[..length]), Err(RequestError::Unreadable), "{length}");
    }
}

#[test]
fn a_renewed_certificate_takes_the_place_of_the_old_one_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let authority = saved(dir.path(), "lab", &[N1]);
    let before = Identity::load(dir.path(), "lab", N1).unwrap();
    let pem = authority.certify(N1, &before.facts().public_key, 0, Some(2_000_000_000)).unwrap();
    let renewed = before.renewed(&pem).unwrap();
    save_renewed(dir.path(), N1, &pem).unwrap();
    let after = Identity::load(dir.path(), "lab", N1).unwrap();
    assert_eq!(after.facts(), renewed.facts());
    assert_ne!(after.facts().serial, before.facts().serial);
    assert_eq!(after.derive("reset"), before.derive("reset"), "the key is the same");

    let other_name = authority.certify(N2, &before.facts().public_key, 0, None).unwrap();
    let other_ca = Authority::create("lab").unwrap().certify(N1, &before.facts().public_key, 0, None).unwrap();
    let other_key = authority.issue(N1).unwrap().certificate_pem;
    for wrong in [other_name, other_ca, other_key, "no certificate".into()] {
        assert!(before.renewed(&wrong).is_err());
    }
}

#[test]
fn an_authority_with_another_ones_key_is_refused() {
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    saved(ours.path(), "lab", &[]);
    saved(theirs.path(), "lab", &[]);
    fs::copy(theirs.path().join("ca.pem"), ours.path().join("ca.pem")).unwrap();
    let error = Authority::load(ours.path(), "lab").unwrap_err().to_string();
    assert!(error.contains("ca.key") && error.contains("does not belong to the certificate"), "{error}");
}
