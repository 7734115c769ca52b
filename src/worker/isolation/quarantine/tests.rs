use std::time::Duration;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn traces(messages: &[(u64, u32)]) -> Vec<MessageTrace> {
    messages.iter().map(|&(place, attempt)| MessageTrace { sequence: Some(place), attempt: Some(attempt) }).collect()
}

/// Available at once, or leased to another replica for a minute.
fn free(now: Instant) -> Absence {
    Absence { held_until: now, until: now + MINUTE }
}

/// A quarantine after a batch whose first of three messages failed.
fn three(fifo: bool) -> (Quarantine, Instant) {
    let now = Instant::now();
    let mut suspects = Quarantine::new(fifo);
    suspects.add(&traces(&[(4, 1), (5, 1), (6, 1)]), free(now));
    (suspects, now)
}

#[tokio::test(start_paused = true)]
async fn messages_that_another_replica_holds_stay_quarantined() {
    let (mut suspects, now) = three(false);
    suspects.fetched(&traces(&[(4, 2)]), now);
    suspects.fetched(&[], now);
    suspects.fetched(&traces(&[(7, 1)]), now);
    suspects.fetched(&traces(&[(8, 1)]), now);
    assert!(!suspects.is_empty(), "5 and 6 were not seen");
    suspects.fetched(&traces(&[(5, 2)]), now);
    suspects.fetched(&traces(&[(6, 2)]), now);
    assert!(suspects.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_quarantine_ends_when_no_replica_can_hold_its_messages() {
    let (mut suspects, now) = three(false);
    suspects.fetched(&[], now + MINUTE);
    assert!(suspects.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_later_message_of_a_fifo_queue_ends_the_quarantine() {
    let (mut suspects, now) = three(true);
    suspects.fetched(&[], now + MINUTE * 9);
    suspects.fetched(&traces(&[(5, 2)]), now);
    assert!(!suspects.is_empty(), "6 is behind it");
    suspects.fetched(&traces(&[(7, 1)]), now);
    assert!(suspects.is_empty());
}

#[tokio::test(start_paused = true)]
async fn if_neighbours_are_spared_any_messages_end_the_quarantine() {
    let (mut suspects, now) = three(false);
    suspects.fetched(&traces(&[(5, 1)]), now);
    suspects.fetched(&traces(&[(8, 1)]), now);
    suspects.fetched(&traces(&[(9, 1)]), now);
    assert!(suspects.is_empty(), "three came after three had failed");
}

#[tokio::test(start_paused = true)]
async fn without_places_the_number_of_messages_ends_the_quarantine() {
    let now = Instant::now();
    let unknown = MessageTrace { sequence: None, attempt: None };
    for fifo in [false, true] {
        let mut suspects = Quarantine::new(fifo);
        suspects.add(&[unknown; 2], free(now));
        suspects.fetched(&[], now);
        suspects.fetched(&[unknown], now);
        assert!(!suspects.is_empty());
        suspects.fetched(&[unknown], now);
        assert!(suspects.is_empty());
    }
}

/// Messages that were settled elsewhere with none after them, or that have other places after a restore. No message
/// ever shows that they were settled.
#[tokio::test(start_paused = true)]
async fn messages_of_a_fifo_queue_do_not_stay_quarantined_forever() {
    let (mut suspects, now) = three(true);
    suspects.fetched(&traces(&[(1, 1)]), now + MINUTE + FIFO_PATIENCE - Duration::from_millis(1));
    assert!(!suspects.is_empty());
    suspects.fetched(&[], now + MINUTE + FIFO_PATIENCE);
    assert!(suspects.is_empty());
}

/// A series of failures does not keep messages in quarantine that were settled elsewhere.
#[tokio::test(start_paused = true)]
async fn each_quarantined_message_has_its_own_time() {
    let (mut suspects, now) = three(false);
    suspects.add(&traces(&[(9, 1)]), free(now + MINUTE));
    suspects.fetched(&traces(&[(9, 2)]), now + MINUTE);
    assert!(suspects.is_empty(), "4, 5 and 6 were with nobody any more");
}

/// It is unknown whether the acknowledgement counted, so the messages may still be leased to this worker.
#[tokio::test(start_paused = true)]
async fn messages_that_may_still_be_leased_stay_quarantined_until_the_lease_ends() {
    let unknown = MessageTrace { sequence: None, attempt: None };
    for failed in [traces(&[(4, 1), (5, 1)]), vec![unknown; 2]] {
        let now = Instant::now();
        let mut suspects = Quarantine { spared: true, ..Quarantine::new(false) };
        suspects.add(&failed, Absence { held_until: now + MINUTE, until: now + MINUTE * 3 });
        suspects.fetched(&[], now);
        for _ in 0..3 {
            suspects.fetched(&traces(&[(8, 1)]), now);
            suspects.fetched(&[unknown], now);
        }
        assert!(!suspects.is_empty(), "others came, or nobody: {suspects:?}");
        suspects.fetched(&failed, now + MINUTE);
        assert!(suspects.is_empty(), "{suspects:?}");
    }
}
