//! Who may do what. Every entry (CLI, SDK, API, peer, policy) passes [`decide`] before a command is queued.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::CommandBody;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Principal {
    /// The name in the audit trail: `ann`, `n2`, `policy:/services/calls`.
    pub name: Arc<str>,
    /// What it may do.
    pub role: AccessRole,
}

/// What somebody may do. Nothing is anonymous: whoever has no role is not a principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessRole {
    /// Looks.
    Viewer,
    /// Looks, handles alarms, claims controls, moves services.
    Operator,
    /// Everything.
    Admin,
    /// A node of the domain, for a policy that runs there.
    Node,
    /// Votes, and nothing else.
    Witness,
}

impl AccessRole {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
            Self::Node => "node",
            Self::Witness => "witness",
        }
    }
}

/// The answer no. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{principal} is {role} and may not {what}; it takes {needed}")]
pub struct Refused {
    /// Who asked.
    pub principal: String,
    /// What it is.
    pub role: String,
    /// What it asked for.
    pub what: String,
    /// Which role could.
    pub needed: String,
}

/// What somebody asks for.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// To see how things are.
    Look,
    /// Something of an object.
    Command(&'a CommandBody),
    /// A role to be moved in good order.
    Switchover,
    /// A service to be started although acknowledged state may be missing (protocol 1.7).
    StartWithLoss,
    /// Other policies, classes and objects in force.
    ApplyPolicies,
    /// Other limits in force.
    ChangeLimits,
    /// A higher feature level in force (protocol 6.3).
    RaiseLevel,
    /// A node's disk to be given up, and another one to be let in (protocol 6.1).
    GiveUpDisk,
    /// A machine to be invited into the domain, or a node to be expelled from it.
    ChangeMembers,
    /// Somebody who has shown a token to be let in: the door's own wish.
    Admit,
    /// This node's own certificate to be renewed.
    Renew,
    /// A fault in a simulated chassis, or its end.
    Inject,
}

/// Whether a principal may have it. Deny by default: a body that is new here is for admins alone.
///
/// # Errors
/// [`Refused`], in the words that the caller shows.
pub fn decide(principal: &Principal, wanted: Wanted<'_>) -> Result<(), Refused> {
    use AccessRole::{Admin, Node, Operator, Viewer};
    let (what, allowed): (&str, &[AccessRole]) = match wanted {
        Wanted::Look => ("look", &[Viewer, Operator, Admin, Node]),
        Wanted::Switchover => ("move a role", &[Operator, Admin, Node]),
        Wanted::StartWithLoss => ("start a service from an incomplete copy", &[Admin]),
        Wanted::GiveUpDisk => ("give up a node's disk", &[Admin]),
        Wanted::ChangeMembers => ("invite, expel or forget a node", &[Admin]),
        Wanted::Admit => ("let somebody in", &[Node]),
        Wanted::Renew => ("renew a certificate", &[Operator, Admin, Node]),
        Wanted::ApplyPolicies => ("change the policies", &[Operator, Admin]),
        Wanted::ChangeLimits => ("change the limits", &[Operator, Admin]),
        Wanted::RaiseLevel => ("raise the feature level", &[Operator, Admin]),
        Wanted::Inject => ("break anything", &[Operator, Admin]),
        Wanted::Command(body) => match body {
            CommandBody::Acknowledge { .. } => ("acknowledge an alarm", &[Operator, Admin]),
            CommandBody::Shelve { .. } | CommandBody::Unshelve { .. } => ("shelve an alarm", &[Operator, Admin]),
            CommandBody::Claim { .. } => ("claim a control", &[Operator, Admin, Node]),
            CommandBody::Release { .. } => ("release a control", &[Operator, Admin, Node]),
            CommandBody::Operate { .. } => ("operate hardware", &[Operator, Admin, Node]),
            CommandBody::Raise { .. } | CommandBody::Clear { .. } => ("raise and clear alarms", &[Node]),
            CommandBody::Force { .. } | CommandBody::Unforce { .. } => ("force a value", &[Admin]),
        },
    };
    if allowed.contains(&principal.role) {
        return Ok(());
    }
    let needed: Vec<&str> = allowed.iter().filter(|r| **r != Node || allowed.len() == 1).map(|r| r.word()).collect();
    Err(Refused {
        principal: principal.name.to_string(),
        role: principal.role.word().to_owned(),
        what: what.to_owned(),
        needed: needed.join(" or "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AttributeName, ObjectName};
    use crate::time::Duration;
    use crate::value::Value;

    fn who(role: AccessRole) -> Principal {
        Principal { name: "ann".into(), role }
    }

    #[test]
    fn a_viewer_changes_nothing_and_only_an_admin_forces_a_sensor() {
        let object = ObjectName::new("/mxp1/fan1");
        let claim = CommandBody::Claim {
            object: object.clone(),
            control: AttributeName::new("duty"),
            value: Value::Int(100),
            reason: "hot".into(),
            priority: None,
            lease: None,
        };
        let force = CommandBody::Force {
            object,
            attribute: AttributeName::new("speed"),
            value: Value::Int(0),
            expires: Duration::from_secs(60),
        };
        assert!(decide(&who(AccessRole::Viewer), Wanted::Command(&claim)).is_err());
        assert!(decide(&who(AccessRole::Witness), Wanted::Command(&claim)).is_err());
        assert!(decide(&who(AccessRole::Operator), Wanted::Command(&claim)).is_ok());
        let refused = decide(&who(AccessRole::Operator), Wanted::Command(&force)).expect_err("operators do not force");
        assert_eq!(refused.to_string(), "ann is operator and may not force a value; it takes admin");
        assert!(decide(&who(AccessRole::Admin), Wanted::Command(&force)).is_ok());
    }

    #[test]
    fn a_viewer_looks_an_operator_works_and_only_an_admin_starts_with_a_loss() {
        for wanted in [Wanted::Switchover, Wanted::ApplyPolicies, Wanted::Inject] {
            assert!(decide(&who(AccessRole::Viewer), wanted).is_err(), "{wanted:?}");
            assert!(decide(&who(AccessRole::Operator), wanted).is_ok(), "{wanted:?}");
        }
        assert!(decide(&who(AccessRole::Viewer), Wanted::Look).is_ok());
        assert!(decide(&who(AccessRole::Witness), Wanted::Look).is_err());
        assert!(decide(&who(AccessRole::Operator), Wanted::StartWithLoss).is_err());
        assert!(decide(&who(AccessRole::Admin), Wanted::StartWithLoss).is_ok());
    }
}
