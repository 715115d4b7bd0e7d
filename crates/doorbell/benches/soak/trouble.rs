//! The trouble: edited configurations, SIGHUP, backups, audits, and kills of agents and of the gateway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use doorbell_client::Error;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::getpgid;

use crate::audit::{audit, check_copy};
use crate::ledger::count;
use crate::project::{Gateway, PATIENCE};
use crate::{Soak, pause};

const RELOAD_EVERY: Duration = Duration::from_secs(2);
const BACKUP_EVERY: Duration = Duration::from_secs(5);
const AUDIT_EVERY: Duration = Duration::from_secs(4);
const AGENT_KILL_EVERY: Duration = Duration::from_millis(700);

/// Kills the gateway every so often until `until`, and starts it again.
pub async fn kill_gateways(soak: Arc<Soak>, every: Duration, until: Instant) {
    while !soak.is_over() && Instant::now() + every < until {
        // At any moment: after a half to three halves of the time.
        pause(every.mul_f64(0.5 + f64::from(doorbell::clock::random::<1>()[0]) / 256.0)).await;
        let _whole = soak.whole.read().await;
        let killed = soak.gateway.lock().unwrap().take().expect("only here it goes");
        killed.signal(Signal::SIGKILL);
        count(&soak.ledger.gateways_killed);
        let next = Arc::clone(&soak);
        let serve = tokio::task::spawn_blocking(move || {
            killed.ended();
            Arc::new(next.project.serve())
        });
        let gateway = serve.await.expect("the gateway starts again");
        *soak.gateway.lock().unwrap() = Some(Arc::clone(&gateway));
        let heard = audit(&soak, &gateway.client).await;
        soak.answered(&gateway, heard);
    }
}

/// Kills agents: the process that was started, its group, or another one of its processes.
pub async fn kill_agents(soak: Arc<Soak>) {
    let mut time = 0;
    while !soak.is_over() {
        pause(AGENT_KILL_EVERY).await;
        let found = Arc::clone(&soak);
        let victims = tokio::task::spawn_blocking(move || found.project.agents_processes()).await.unwrap();
        let leads = |pid: &nix::unistd::Pid| getpgid(Some(*pid)) == Ok(*pid);
        let victims: Vec<_> = victims.into_iter().filter(|pid| leads(pid) == (time % 3 != 2)).collect();
        if victims.is_empty() {
            time += 1;
            continue;
        }
        let victim = victims[usize::from(doorbell::clock::random::<1>()[0]) % victims.len()];
        // It may have ended by now.
        let killed = if time % 3 == 1 { killpg(victim, Signal::SIGKILL) } else { kill(victim, Signal::SIGKILL) };
        if killed.is_ok() {
            count(&soak.ledger.agents_killed);
        }
        time += 1;
    }
}

/// Edits an agent, now and then to nonsense, which must leave the former configuration in force.
pub async fn reload(soak: Arc<Soak>) {
    let mut time: u32 = 0;
    while !soak.is_over() {
        pause(RELOAD_EVERY).await;
        // No gateway starts while what is saved is nonsense.
        let _whole = if time % 4 == 3 { Some(soak.whole.write().await) } else { None };
        let Some(gateway) = soak.gateway().await else { return };
        if time % 4 == 3 {
            soak.project.break_third();
            let refused = in_force(&gateway, None).await;
            soak.answered_with(&gateway, refused, "nonsense in a configuration is not told of");
        }
        let scale = time % 3 + 1;
        soak.project.write_third(scale, time.is_multiple_of(2));
        if time % 4 == 2 && soak.is_current(&gateway) {
            gateway.signal(Signal::SIGHUP);
        }
        let taken = in_force(&gateway, Some(scale)).await;
        count(&soak.ledger.reloads);
        soak.answered_with(&gateway, taken, "an edited configuration is not taken over");
        time += 1;
    }
}

/// Waits until the edited agent has this scale, or until what is saved is refused.
async fn in_force(gateway: &Gateway, scale: Option<u32>) -> Result<bool, Error> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let stats = gateway.client.stats().await?;
        let refused = stats.config.is_some_and(|config| config.error.is_some());
        let holds = match scale {
            None => refused,
            Some(scale) => !refused && stats.agents.iter().any(|agent| agent.name == "third" && agent.scale == scale),
        };
        if holds {
            return Ok(true);
        }
        pause(Duration::from_millis(50)).await;
    }
    Ok(false)
}

/// Makes backups by the command, and checks each.
pub async fn back_up(soak: Arc<Soak>) {
    while !soak.is_over() {
        pause(BACKUP_EVERY).await;
        let _whole = soak.whole.read().await;
        let Some(gateway) = soak.gateway().await else { return };
        let work = Arc::clone(&soak);
        let made = tokio::task::spawn_blocking(move || {
            let file = work.project.path("backup.db");
            let begun = Instant::now();
            let output = work.project.run(&["backup", "--force", file.to_str().unwrap()]);
            if output.status.success() {
                check_copy(&work, &file, begun, Instant::now());
            }
            output
        });
        let output = made.await.expect("a backup can be looked at");
        if output.status.success() {
            count(&soak.ledger.backups);
        } else if soak.is_current(&gateway) {
            soak.ledger.find(format!("a backup failed: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
}

/// Holds all that was answered against all that is stored, again and again.
pub async fn audit_often(soak: Arc<Soak>) {
    while !soak.is_over() {
        pause(AUDIT_EVERY).await;
        let Some(gateway) = soak.gateway().await else { return };
        let heard = audit(&soak, &gateway.client).await;
        soak.answered(&gateway, heard);
    }
}
