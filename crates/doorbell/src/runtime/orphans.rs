//! Orphans: processes of agents whose parent has died. They come to the gateway, which reaps them and lets none get
//! away from its run.
//!
//! The kernel hands an orphan to the next ancestor that asked for orphans, else to process 1 (which the gateway may be, in
//! a container). So a child of the gateway that it did not start is an agent's. Which one's may be unknown: a process
//! that left its group and cleared its environment bears no mark. It belongs to one of the tries that were going on when
//! it started, and ends with the last of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use doorbell_core::id::RunId;
use nix::sys::prctl;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use super::processes::{self, Status};
use crate::store::Process;

/// How often dead orphans are looked for, at most. They cost nothing but a number each.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// Who the children of this process are. The kernel keeps them for the process as a whole, and so do we.
static FAMILY: Mutex<Family> = Mutex::new(Family { adopts: false, own: BTreeSet::new(), tries: BTreeMap::new() });

#[derive(Debug)]
struct Family {
    /// Whether orphans come to this process.
    adopts: bool,
    /// Children that this process started: their starter waits for them.
    own: BTreeSet<i32>,
    /// Those of them that carry a try out, by number.
    tries: BTreeMap<i32, Try>,
}

#[derive(Debug)]
struct Try {
    /// The run and its attempt, as the environment of its processes names them.
    mark: (RunId, u32),
    /// In clock ticks since boot.
    started: u64,
    /// Whether its processes are being ended.
    ending: bool,
}

fn family() -> MutexGuard<'static, Family> {
    FAMILY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks for the orphans of this process's descendants, and reaps them as long as the answer is kept.
pub fn adopt() -> AbortOnDropHandle<()> {
    let asked = prctl::set_child_subreaper(true);
    if let Err(error) = asked {
        tracing::warn!(%error, "orphans.not_adopted: agents' processes that hide may outlive their run");
    }
    family().adopts = asked.is_ok() || getpid().as_raw() == 1;
    AbortOnDropHandle::new(tokio::spawn(reap_all()))
}

async fn reap_all() {
    let mut deaths = match signal(SignalKind::child()) {
        Ok(deaths) => deaths,
        Err(error) => {
            tracing::error!(%error, "orphans.not_reaped: the ends of processes cannot be heard of");
            return;
        }
    };
    while deaths.recv().await.is_some() {
        let _ = tokio::task::spawn_blocking(reap).await;
        tokio::time::sleep(REAP_EVERY).await;
    }
}

/// Reaps the dead children that nobody waits for.
fn reap() {
    let here = getpid().as_raw();
    for dead in processes::list().into_iter().filter(|status| status.parent == here && !status.lives) {
        // A child that was started before we looked is registered by the time we are let in.
        let family = family();
        if !family.own.contains(&dead.pid) {
            let _ = waitpid(Pid::from_raw(dead.pid), Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// A child that this process started. Kept until it has been waited for.
#[derive(Debug)]
pub(super) struct Own(i32);

/// Starts a child. `pid` tells its number.
pub(super) fn start<C, E>(
    start: impl FnOnce() -> Result<C, E>,
    pid: impl FnOnce(&C) -> Option<u32>,
) -> Result<(C, Own), E> {
    // Nobody looks at our children between the start and the entry.
    let mut family = family();
    let child = start()?;
    // One that was waited for has no number any more; none is 0.
    let pid = pid(&child).unwrap_or_default().cast_signed();
    family.own.insert(pid);
    Ok((child, Own(pid)))
}

impl Own {
    /// The child carries a try out: orphans that start from now on may be its.
    pub(super) fn is_try(&self, process: &Process, run: RunId, attempt: u32) {
        let new = Try { mark: (run, attempt), started: process.started, ending: false };
        family().tries.insert(self.0, new);
    }

    /// The try's processes are ended from now on, and with them the orphans that can be of no other try.
    pub(super) fn is_ending(&self) {
        if let Some(one) = family().tries.get_mut(&self.0) {
            one.ending = true;
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut family = family();
        family.own.remove(&self.0);
        family.tries.remove(&self.0);
    }
}

/// The orphans among `table` that end with the try of this process: no other try goes on that may have started them.
/// `bears` tells whether a process bears the mark of a try: one that bears that of another try which goes on needs no guess. Any
/// other mark says nothing, as who is to end may have written it.
///
/// Of two tries that end at the same time, both may take the same one: the mark of ending is set before the look.
pub(super) fn of_try(leader: &Process, table: &[Status], bears: impl Fn(i32, (RunId, u32)) -> bool) -> BTreeSet<i32> {
    let family = family();
    let taken = family.taken_by(leader, getpid().as_raw(), table);
    let others: Vec<_> = family.tries.iter().filter(|(pid, _)| **pid != leader.pid).map(|(_, one)| one.mark).collect();
    drop(family);
    taken.into_iter().filter(|pid| !others.iter().any(|mark| bears(*pid, *mark))).collect()
}

impl Family {
    fn taken_by(&self, leader: &Process, here: i32, table: &[Status]) -> Vec<i32> {
        let is_ours = self.tries.get(&leader.pid).is_some_and(|one| one.ending && one.started == leader.started);
        if !self.adopts || !is_ours {
            return Vec::new();
        }
        let adopted = |status: &&Status| status.parent == here && !self.own.contains(&status.pid);
        let others = || self.tries.iter().filter(|(pid, _)| **pid != leader.pid);
        let of_another = |status: &Status| {
            others().any(|(pid, one)| status.group == *pid || (!one.ending && one.started <= status.started))
        };
        let taken = table.iter().filter(adopted).filter(|status| status.started >= leader.started);
        taken.filter(|status| !of_another(status)).map(|status| status.pid).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: i32 = 10;

    fn family(tries: &[(i32, u64, bool)]) -> Family {
        let mark = (RunId::new(doorbell_core::time::Timestamp::from_seconds(1), [1; 10]), 1);
        let all = tries.iter().map(|(pid, started, ending)| (*pid, Try { mark, started: *started, ending: *ending }));
        let own = tries.iter().map(|(pid, ..)| *pid).collect();
        Family { adopts: true, own, tries: all.collect() }
    }

    fn taken(family: &Family, leader: (i32, u64), orphan: (i32, i32, i32, u64)) -> bool {
        let (pid, parent, group, started) = orphan;
        let leader = Process { pid: leader.0, started: leader.1, boot: String::new() };
        !family.taken_by(&leader, HERE, &[Status { pid, parent, group, started, lives: true }]).is_empty()
    }

    #[test]
    fn an_orphan_ends_with_the_last_try_that_may_have_started_it() {
        let orphan = (99, HERE, 99, 150);
        assert!(taken(&family(&[(20, 100, true)]), (20, 100), orphan));
        assert!(!taken(&family(&[(20, 100, true), (30, 120, false)]), (20, 100), orphan), "it may be the other's");
        assert!(taken(&family(&[(20, 100, true), (30, 120, true)]), (20, 100), orphan), "the other ends, too");
        assert!(taken(&family(&[(20, 100, true), (30, 200, false)]), (20, 100), orphan), "the other began later");
    }

    #[test]
    fn only_what_is_surely_an_orphan_of_an_agent_is_taken() {
        let one = family(&[(20, 100, true)]);
        assert!(!taken(&one, (20, 100), (99, 1, 99, 150)), "somebody else's child");
        assert!(!taken(&one, (20, 100), (99, HERE, 99, 50)), "older than the try");
        assert!(!taken(&one, (20, 100), (20, HERE, 20, 100)), "a child that we started");
        assert!(!taken(&one, (21, 100), (99, HERE, 99, 150)), "no try of ours");
        assert!(!taken(&family(&[(20, 100, false)]), (20, 100), (99, HERE, 99, 150)), "not before the end");
        let two = family(&[(20, 100, true), (30, 90, true)]);
        assert!(!taken(&two, (20, 100), (99, HERE, 30, 150)), "in the group of another");
        let guest = Family { adopts: false, ..family(&[(20, 100, true)]) };
        assert!(!taken(&guest, (20, 100), (99, HERE, 99, 150)), "orphans do not come here");
    }
}
