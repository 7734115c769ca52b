//! [`OpenMessages`]: the messages that a program has and has not answered.
//!
//! Ids grow in the order in which messages are given. Most programs take one line after the other, so the oldest open message
//! hangs, and the program has not started the later ones. A program that has answered a later one works on several at a time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};

use dms_worker::worker::HandlerError;

/// Gets what the program answers, or how the message was lost.
pub(super) type Reply = oneshot::Sender<Result<Result<(), HandlerError>, Lost>>;

/// Why a program that had a message did not answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It ended, with no other message open.
    Ended,
    /// It ended, and had other messages open: one of them did it.
    EndedWithOthers,
    /// It hung over another message, and was ended.
    Behind,
    /// It could not be started.
    NoProgram,
}

impl Lost {
    pub(super) fn ended(open: usize) -> Self {
        if open == 1 { Self::Ended } else { Self::EndedWithOthers }
    }
}

/// How far a program has come with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageProgress {
    /// It has been the oldest open message since then: the program works on it.
    Oldest(Instant),
    /// The program has not come to it, as far as is known.
    Behind,
    /// The program works on several at a time.
    AmongOthers,
}

/// The messages that the program has and has not answered, by their ids.
#[derive(Debug)]
pub(super) struct OpenMessages(Mutex<Open>);

#[derive(Debug)]
struct Open {
    messages: BTreeMap<u64, Reply>,
    /// Since when the oldest of them is the oldest.
    oldest_since: Instant,
    /// The youngest message that was answered.
    youngest_answered: u64,
    answers: u64,
}

impl OpenMessages {
    pub(super) fn new() -> Self {
        let open = Open { messages: BTreeMap::new(), oldest_since: Instant::now(), youngest_answered: 0, answers: 0 };
        Self(Mutex::new(open))
    }

    /// The program is given a message.
    pub(super) fn give(&self, id: u64, reply: Reply) {
        let mut open = self.open();
        if open.messages.is_empty() {
            open.oldest_since = Instant::now();
        }
        open.messages.insert(id, reply);
    }

    /// The program answers a message; gives its reply where it is open.
    pub(super) fn answered(&self, id: u64) -> Option<Reply> {
        let mut open = self.open();
        let reply = open.remove(id)?;
        open.youngest_answered = open.youngest_answered.max(id);
        open.answers += 1;
        Some(reply)
    }

    /// How far the program has come with an open message.
    pub(super) fn progress(&self, id: u64) -> MessageProgress {
        let open = self.open();
        match open.messages.first_key_value() {
            Some((oldest, _)) if open.youngest_answered > *oldest => MessageProgress::AmongOthers,
            Some((oldest, _)) if *oldest < id => MessageProgress::Behind,
            _ => MessageProgress::Oldest(open.oldest_since),
        }
    }

    /// Nobody waits for a message any more. Says whether it was open.
    pub(super) fn give_up(&self, id: u64) -> bool {
        self.open().remove(id).is_some()
    }

    /// Answers every open message with the reason why the program is gone. Returns their number.
    pub(super) fn lose(&self, why: impl Fn(usize) -> Lost) -> usize {
        let mut messages = std::mem::take(&mut self.open().messages);
        messages.retain(|_, reply| !reply.is_closed());
        let count = messages.len();
        for reply in messages.into_values() {
            // The message may have been given up meanwhile.
            let _ = reply.send(Err(why(count)));
        }
        count
    }

    /// How many messages were answered so far.
    pub(super) fn answers(&self) -> u64 {
        self.open().answers
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // No code that can panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn remove(&mut self, id: u64) -> Option<Reply> {
        if self.messages.first_key_value().is_some_and(|(oldest, _)| *oldest == id) {
            self.oldest_since = Instant::now();
        }
        self.messages.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    type Waiting = oneshot::Receiver<Result<Result<(), HandlerError>, Lost>>;

    fn given(ids: std::ops::RangeInclusive<u64>) -> (OpenMessages, Vec<Waiting>) {
        let table = OpenMessages::new();
        let waiting = ids.map(|id| {
            let (reply, answer) = oneshot::channel();
            table.give(id, reply);
            answer
        });
        let waiting = waiting.collect();
        (table, waiting)
    }

    fn lost(waiting: &mut [Waiting]) -> Vec<Option<Lost>> {
        waiting.iter_mut().map(|answer| answer.try_recv().ok().and_then(Result::err)).collect()
    }

    #[test]
    fn one_that_was_open_alone_ended_the_program_and_of_several_nobody_knows() {
        let (table, mut waiting) = given(1..=3);
        assert_eq!(table.lose(Lost::ended), 3);
        assert_eq!(lost(&mut waiting), [Some(Lost::EndedWithOthers); 3]);
        let (table, mut waiting) = given(1..=2);
        drop(waiting.remove(0));
        assert_eq!(table.lose(Lost::ended), 1, "the other was given up");
        assert_eq!(lost(&mut waiting), [Some(Lost::Ended)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_works_on_the_oldest_message_and_has_not_come_to_those_behind_it() {
        let (table, _waiting) = given(1..=3);
        let begun = Instant::now();
        assert_eq!((table.progress(1), table.progress(3)), (MessageProgress::Oldest(begun), MessageProgress::Behind));
        advance(Duration::from_secs(1)).await;
        assert!(table.answered(1).is_some() && table.answered(1).is_none());
        let next = begun + Duration::from_secs(1);
        assert_eq!((table.progress(2), table.progress(3)), (MessageProgress::Oldest(next), MessageProgress::Behind));
        advance(Duration::from_secs(1)).await;
        assert!(table.give_up(2) && !table.give_up(2));
        assert_eq!((table.progress(3), table.answers()), (MessageProgress::Oldest(next + Duration::from_secs(1)), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_answers_out_of_turn_works_on_several() {
        let (table, _waiting) = given(1..=4);
        assert!(table.answered(2).is_some());
        assert_eq!([1, 3, 4].map(|id| table.progress(id)), [MessageProgress::AmongOthers; 3]);
        assert!(table.answered(1).is_some());
        assert_eq!(table.progress(4), MessageProgress::Behind, "nothing says so of those");
    }
}
