//! Users of this machine: who a name means, and whether this process may start something as somebody else.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::unistd::{Gid, geteuid, getgrouplist};
use rustix::thread::CapabilitySet;

/// A user that agents can be carried out as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name, as the machine has it.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The number of the primary group.
    pub gid: u32,
    /// The numbers of all its groups.
    pub groups: Vec<u32>,
    /// The home folder, which need not be there.
    pub home: PathBuf,
    /// The shell.
    pub shell: PathBuf,
}

/// Why nothing is started as a user.
#[derive(Debug)]
pub enum Refusal {
    /// There is none of that name.
    Unknown,
    /// It may do everything.
    Root,
    /// It is the one that this process runs as.
    Own,
    /// This process may not: the capabilities that it has not.
    Powerless(Vec<&'static str>),
    /// The machine does not tell.
    Unreadable(io::Error),
}

/// What it takes: to become the user, to hand it a folder and take back what it left there, and to end its processes.
const NEEDED: [(CapabilitySet, &str); 6] = [
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::KILL, "CAP_KILL"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
];

/// The user of this name, if this process may start something as it.
///
/// # Errors
/// Why not.
pub fn find(name: &str) -> Result<User, Refusal> {
    let asked = nix::unistd::User::from_name(name).map_err(|errno| Refusal::Unreadable(errno.into()))?;
    // A name with a NUL byte is nobody's.
    let (Some(found), Ok(text)) = (asked, CString::new(name)) else { return Err(Refusal::Unknown) };
    if found.uid.is_root() {
        return Err(Refusal::Root);
    }
    if found.uid == geteuid() {
        return Err(Refusal::Own);
    }
    let missing = missing(capabilities().map_err(Refusal::Unreadable)?);
    if !missing.is_empty() {
        return Err(Refusal::Powerless(missing));
    }
    let groups = getgrouplist(&text, found.gid).map_err(|errno| Refusal::Unreadable(errno.into()))?;
    Ok(User {
        name: found.name,
        uid: found.uid.as_raw(),
        gid: found.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
        home: found.dir,
        shell: found.shell,
    })
}

/// Whether this process sees the environments of other users' processes, by which those are known that left their group.
pub fn sees_others() -> bool {
    capabilities().is_ok_and(|held| held.contains(CapabilitySet::SYS_PTRACE))
}

fn capabilities() -> io::Result<CapabilitySet> {
    Ok(rustix::thread::capabilities(None)?.effective)
}

fn missing(held: CapabilitySet) -> Vec<&'static str> {
    NEEDED.iter().filter(|(needed, _)| !held.contains(*needed)).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_nobody_to_run_an_agent_as_and_a_name_must_be_somebodys() {
        assert!(matches!(find("root"), Err(Refusal::Root)));
        assert!(matches!(find("no-such-user-here"), Err(Refusal::Unknown)));
        assert!(matches!(find("a\0b"), Err(Refusal::Unknown | Refusal::Unreadable(_))));
    }

    #[test]
    fn every_capability_that_is_missing_is_named() {
        assert_eq!(missing(CapabilitySet::all()), Vec::<&str>::new());
        assert_eq!(missing(CapabilitySet::all() - CapabilitySet::KILL), ["CAP_KILL"]);
        assert_eq!(missing(CapabilitySet::empty()).len(), NEEDED.len());
    }

    #[test]
    fn another_user_is_found_with_its_groups_by_who_may_become_it_and_by_nobody_else() {
        let Ok(Some(_)) = nix::unistd::User::from_name("nobody") else { panic!("there is no user `nobody` here") };
        match (find("nobody"), capabilities().map(missing)) {
            (Ok(user), Ok(missing)) => assert!(missing.is_empty() && user.groups.contains(&user.gid), "{user:?}"),
            (Err(Refusal::Powerless(named)), Ok(missing)) => assert_eq!(named, missing),
            other => panic!("{other:?}"),
        }
    }
}
