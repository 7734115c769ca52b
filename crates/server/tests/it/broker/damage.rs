//! Messages that changed on disk are set aside, and everything else continues.

use std::time::Duration;

use dms_protocol::queue::{GroupId, NewQueue};
use dms_server::broker::{Broker, BrokerError, DamagedIn, Stream};

use super::stage::{DataDir, Stage, acks, all_done, message, on_disk, take, texts, wait};

/// Changes a bit of each message with one of these texts, wherever the log has it.
fn damage(dir: &DataDir, wanted: &[&str]) {
    for entry in std::fs::read_dir(dir.file("log")).unwrap().map(Result::unwrap) {
        let mut bytes = std::fs::read(entry.path()).unwrap();
        for text in wanted {
            let body = format!("{{\"body\":\"{text}\"");
            let places: Vec<usize> =
                (0..bytes.len() - body.len()).filter(|at| bytes[*at..].starts_with(body.as_bytes())).collect();
            places.iter().for_each(|at| bytes[at + body.len() - 2] ^= 1);
        }
        std::fs::write(entry.path(), bytes).unwrap();
    }
}

/// Ends the broker, damages messages, and opens the directory again.
async fn damaged(s: Stage, dir: &DataDir, wanted: &[&str]) -> Stage {
    s.broker.close().await;
    damage(dir, wanted);
    Stage { broker: dir.open().await.unwrap(), ..s }
}

fn known(s: &Stage) -> Vec<(Option<GroupId>, DamagedIn, u64)> {
    s.broker.damaged().into_iter().map(|message| (message.group, message.of, message.sequence)).collect()
}

/// One of many in one commit; the first; the last; and all others come, to each group, through restarts.
#[tokio::test(start_paused = true)]
async fn all_but_the_damaged_messages_are_delivered() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        let all: Vec<String> = (0..300).map(|number| format!("m{number}e")).collect();
        for part in all.chunks(10) {
            s.send(&part.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        let lost = ["m0e", "m7e", "m150e", "m151e", "m299e"];
        let mut s = damaged(s, &dir, &lost).await;
        let expected: Vec<&String> = all.iter().filter(|text| !lost.contains(&text.as_str())).collect();
        let mut got = Vec::new();
        for number in 0..33 {
            let batch = s.take(10).await;
            got.extend(texts(&batch));
            s.settle(all_done(&batch)).await.unwrap();
            if number == 15 {
                s = dir.crash(s).await;
            }
        }
        assert_eq!(got.iter().collect::<Vec<_>>(), expected);
        assert_eq!(s.counters(0).await.available_messages, 0);
        assert_eq!(texts(&s.lease(1, Stream::Messages, take(10)).await.unwrap())[0], "m1e", "the other group too");

        // They stay neither settled nor available, also after a restart.
        let s = dir.restart(s).await;
        assert_eq!(texts(&s.lease(0, Stream::Messages, wait(10, 5)).await.unwrap()), [""; 0]);
        let group = Some(s.groups[0].clone());
        let places: Vec<u64> = known(&s).into_iter().filter(|(of, ..)| *of == group).map(|(.., place)| place).collect();
        assert_eq!(places, [1, 8, 151, 152, 300]);
        assert_eq!(s.broker.overview()[0].groups[0].damaged, 5);
        let first = s.broker.damaged().remove(0);
        assert!(first.file.ends_with("0000000001.log") && first.offset > 24, "{first:?}");

        // Skipped for good.
        for message in s.broker.damaged().into_iter().filter(|message| message.group == group) {
            s.broker.skip_damaged(&message).await.unwrap();
            assert!(matches!(s.broker.skip_damaged(&message).await, Err(BrokerError::NotDamaged)));
        }
        let s = dir.crash(s).await;
        assert_eq!(texts(&s.lease(0, Stream::Messages, wait(10, 5)).await.unwrap()), [""; 0]);
        assert_eq!(known(&s), []);
    })
    .await;
}

/// Skipped for good before anything else was taken: it stays skipped.
#[tokio::test(start_paused = true)]
async fn skipped_damaged_messages_stay_skipped() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        s.send(&["1e", "2e"]).await;
        let s = damaged(s, &dir, &["1e", "2e"]).await;
        assert_eq!(texts(&s.take(10).await), [""; 0]);
        for message in s.broker.damaged() {
            s.broker.skip_damaged(&message).await.unwrap();
        }
        let s = dir.crash(s).await;
        s.send(&["3e"]).await;
        assert_eq!((texts(&s.take(10).await), known(&s).len()), (vec!["3e".to_owned()], 0));
    })
    .await;
}

/// A bit that is right again: the message is delivered.
#[tokio::test(start_paused = true)]
async fn a_restored_message_is_delivered() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        s.send(&["1e", "2e", "3e"]).await;
        let s = damaged(s, &dir, &["2e"]).await;
        let batch = s.take(10).await;
        assert_eq!(texts(&batch), ["1e", "3e"]);
        s.settle(all_done(&batch)).await.unwrap();
        s.broker.close().await;
        damage(&dir, &["2d"]);
        let s = Stage { broker: dir.open().await.unwrap(), ..s };
        assert_eq!(texts(&s.take(10).await), ["2e"]);
    })
    .await;
}

/// Delays, failures, dead letters, peeking and retention go on past damage.
#[tokio::test(start_paused = true)]
async fn delays_dead_letters_peeking_and_retention_continue_past_damage() {
    on_disk(NewQueue::new("q").dead_letters_after(1), async |s: Stage, dir: DataDir| {
        let late = |text, seconds| message(text, &[], Duration::from_secs(seconds));
        s.send_all(vec![late("d1e", 10), late("d2e", 10), late("d3e", 20)]).await;
        for text in ["f1e", "f2e", "f3e"] {
            s.send(&[text]).await;
            s.fail_first(1).await;
        }
        let s = damaged(s, &dir, &["d1e", "f1e", "f2e"]).await;
        assert_eq!(texts(&s.take_dead(10).await), ["f3e"]);
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!(texts(&s.lease(0, Stream::Messages, wait(10, 5)).await.unwrap()), ["d2e"]);
        let peeked = s.broker.peek(&s.group(1), Stream::Messages, 0, 100).await.unwrap();
        assert_eq!(peeked.len(), 3, "f3 and d2 for the other group, and d3");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(texts(&s.lease(0, Stream::Messages, wait(10, 5)).await.unwrap()), ["d3e"]);
        let group = Some(s.groups[0].clone());
        let dead = |place| (group.clone(), DamagedIn::DeadLetters, place);
        let delayed = (None, DamagedIn::Delayed, 1);
        let own: Vec<_> = known(&s).into_iter().filter(|(of, ..)| of.is_none() || *of == group).collect();
        assert_eq!(own, [dead(1), dead(2), delayed]);
        let overview = &s.broker.overview()[0];
        assert_eq!((overview.delayed, overview.damaged_delayed, overview.groups[0].damaged_dead_letters), (1, 1, 2));

        let delayed = s.broker.damaged().into_iter().find(|message| message.of == DamagedIn::Delayed).unwrap();
        s.broker.skip_damaged(&delayed).await.unwrap();
        assert_eq!(s.broker.overview()[0].delayed, 0);
        // Retention deletes damaged messages like intact ones.
        tokio::time::sleep(Duration::from_secs(73 * 3600)).await;
        assert_eq!((s.counters(0).await.produced_messages, known(&s).len()), (0, 0));
    })
    .await;
}

/// Whatever was not in the index yet: the log is read past a damaged commit.
#[tokio::test(start_paused = true)]
async fn a_crash_and_damage_together_lose_one_message() {
    on_disk(NewQueue::new("q"), async |s: Stage, dir: DataDir| {
        s.send(&["1e", "2e", "3e"]).await;
        s.send(&["4e"]).await;
        let batch = s.take(1).await;
        s.settle(acks(&batch, &[true])).await.unwrap();
        s.broker.abort().await;
        damage(&dir, &["2e", "4e"]);
        let s = Stage { broker: dir.open().await.unwrap(), ..s };
        assert_eq!(texts(&s.take(10).await), ["3e"]);
        s.send(&["5e"]).await;
        assert_eq!(texts(&s.take(10).await), ["5e"]);
    })
    .await;
}
