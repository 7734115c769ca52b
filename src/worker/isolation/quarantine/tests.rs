use std::time::Duration;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn traces(messages: &[(u64, u32)]) -> Vec<MessageTrace> {
    messages.iter().map(|&(place, attempt)| MessageTrace { sequence: Some(place), attempt: Some(attempt) }).collect()
}

/// Available at once, or leased to another replica for a minute.
fn free(now: Instant) -> LeaseEnds {
    LeaseEnds { own: now, others: now + MINUTE }
}

/// A quarantine after a batch whose first of three messages failed.
fn three(fifo: bool) -> (Quarantine, Instant) {
    let now = Instant::now();
    let mut quarantine = Quarantine::new(fifo);
    quarantine.add(&traces(&[(4, 1), (5, 1), (6, 1)]), free(now));
    (quarantine, now)
}

#[tokio::test(start_paused = true)]
async fn messages_that_another_replica_holds_stay_quarantined() {
    let (mut quarantine, now) = three(false);
    quarantine.fetched(&traces(&[(4, 2)]), now);
    quarantine.fetched(&[], now);
    quarantine.fetched(&traces(&[(7, 1)]), now);
    quarantine.fetched(&traces(&[(8, 1)]), now);
    assert!(!quarantine.is_empty(), "5 and 6 were not seen");
    quarantine.fetched(&traces(&[(5, 2)]), now);
    quarantine.fetched(&traces(&[(6, 2)]), now);
    assert!(quarantine.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_quarantine_ends_when_no_replica_can_hold_its_messages() {
    let (mut quarantine, now) = three(false);
    quarantine.fetched(&[], now + MINUTE);
    assert!(quarantine.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_later_message_of_a_fifo_queue_ends_the_quarantine() {
    let (mut quarantine, now) = three(true);
    quarantine.fetched(&[], now + MINUTE * 9);
    quarantine.fetched(&traces(&[(5, 2)]), now);
    assert!(!quarantine.is_empty(), "6 comes after it");
    quarantine.fetched(&traces(&[(7, 1)]), now);
    assert!(quarantine.is_empty());
}

#[tokio::test(start_paused = true)]
async fn if_neighbours_are_spared_any_messages_end_the_quarantine() {
    let (mut quarantine, now) = three(false);
    quarantine.fetched(&traces(&[(5, 1)]), now);
    quarantine.fetched(&traces(&[(8, 1)]), now);
    quarantine.fetched(&traces(&[(9, 1)]), now);
    assert!(quarantine.is_empty(), "three came after three had failed");
}

#[tokio::test(start_paused = true)]
async fn without_places_the_number_of_messages_ends_the_quarantine() {
    let now = Instant::now();
    let unknown = MessageTrace { sequence: None, attempt: None };
    for fifo in [false, true] {
        let mut quarantine = Quarantine::new(fifo);
        quarantine.add(&[unknown; 2], free(now));
        quarantine.fetched(&[], now);
        quarantine.fetched(&[unknown], now);
        assert!(!quarantine.is_empty());
        quarantine.fetched(&[unknown], now);
        assert!(quarantine.is_empty());
    }
}

/// Messages that were settled elsewhere with none after them, or that have other places after a restore. No message
/// ever shows that they were settled.
#[tokio::test(start_paused = true)]
async fn messages_of_a_fifo_queue_do_not_stay_quarantined_forever() {
    let (mut quarantine, now) = three(true);
    quarantine.fetched(&traces(&[(1, 1)]), now + MINUTE + FIFO_EXTRA_TIME - Duration::from_millis(1));
    assert!(!quarantine.is_empty());
    quarantine.fetched(&[], now + MINUTE + FIFO_EXTRA_TIME);
    assert!(quarantine.is_empty());
}

/// A series of failures does not keep messages in quarantine that were settled elsewhere.
#[tokio::test(start_paused = true)]
async fn each_quarantined_message_has_its_own_time() {
    let (mut quarantine, now) = three(false);
    quarantine.add(&traces(&[(9, 1)]), free(now + MINUTE));
    quarantine.fetched(&traces(&[(9, 2)]), now + MINUTE);
    assert!(quarantine.is_empty(), "4, 5 and 6 are held by no replica any more");
}

/// It is unknown whether the acknowledgement counted, so the messages may still be leased to this worker.
#[tokio::test(start_paused = true)]
async fn messages_that_may_still_be_leased_stay_quarantined_until_the_lease_ends() {
    let unknown = MessageTrace { sequence: None, attempt: None };
    for failed in [traces(&[(4, 1), (5, 1)]), vec![unknown; 2]] {
        let now = Instant::now();
        let mut quarantine = Quarantine { spared: true, ..Quarantine::new(false) };
        quarantine.add(&failed, LeaseEnds { own: now + MINUTE, others: now + MINUTE * 3 });
        quarantine.fetched(&[], now);
        for _ in 0..3 {
            quarantine.fetched(&traces(&[(8, 1)]), now);
            quarantine.fetched(&[unknown], now);
        }
        assert!(!quarantine.is_empty(), "others came, or nobody: {quarantine:?}");
        quarantine.fetched(&failed, now + MINUTE);
        assert!(quarantine.is_empty(), "{quarantine:?}");
    }
}
