//! What it costs to take a run when many wait.

use rusqlite::{Connection, StatementStatus, ToSql, params};

use super::Place;
use crate::store::sqlite::flow::NO_GATE;
use crate::store::sqlite::turns::{FRONT, NEXT_GATE};

/// Steps of SQLite's machine for a statement, those of the triggers that follow included. Not a time, so that it is the same
/// on every machine.
fn steps(sql: &Connection, statement: &str, params: &[&dyn ToSql]) -> i32 {
    let mut statement = sql.prepare(statement).unwrap();
    let mut rows = statement.query(params).unwrap();
    while rows.next().unwrap().is_some() {}
    drop(rows);
    assert_eq!(statement.get_status(StatementStatus::FullscanStep), 0);
    statement.get_status(StatementStatus::VmStep)
}

/// What each part of taking and ending a run costs when so many wait: in seven lanes, and in one that is alone.
async fn costs(waiting: i64) -> Vec<i32> {
    let place = Place::in_memory();
    drop(place.open().await);
    let sql = Connection::open(&place.path).unwrap();
    let fill = "WITH RECURSIVE n (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < ?1) \
                INSERT INTO runs (seq, id, agent, event_seq, state, created_at, lane, alone, priority, gate, turn) \
                SELECT n, randomblob(16), 'triage', n, 2, 0, iif(n % 2, 'alone', 'lane-' || (n % 7)), n % 2, 0, ?2, \
                iif(n % 2 AND n > 3, NULL, n) FROM n";
    sql.execute(fill, params![waiting, NO_GATE]).unwrap();
    let nothing = "";
    vec![
        steps(&sql, NEXT_GATE, &[&"triage", &nothing]),
        steps(&sql, FRONT, &[&"triage", &NO_GATE, &1]),
        // One of a lane, and the only one of a key that may run: the next one gets its turn.
        steps(&sql, "UPDATE runs SET state = 3 WHERE seq = 2", &[]),
        steps(&sql, "UPDATE runs SET state = 4 WHERE seq = 2", &[]),
        steps(&sql, "UPDATE runs SET state = 3 WHERE seq = 3", &[]),
        steps(&sql, "UPDATE runs SET state = 4 WHERE seq = 3", &[]),
        // Back in the queue.
        steps(&sql, "UPDATE runs SET state = 3 WHERE seq = 4", &[]),
        steps(&sql, "UPDATE runs SET state = 2 WHERE seq = 4", &[]),
    ]
}

#[tokio::test]
async fn a_run_is_taken_and_ended_in_as_many_steps_whether_few_wait_or_many() {
    assert_eq!(costs(100).await, costs(20_000).await);
}
