//! [`EndablePolls`]: waiting consume calls that can be ended by name.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use dms_protocol::queue::ProjectId;

/// How long the name of an ended call that has not arrived is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// The maximum number of remembered names of a project. Beyond it the oldest is forgotten.
const MAX_REMEMBERED: usize = 1_000;
/// The maximum number of projects with remembered names, because callers of an open server may use any number of projects.
const MAX_PROJECTS: usize = 1_000;

/// The named consume calls of all projects.
#[derive(Debug, Default)]
pub(crate) struct EndablePolls(Mutex<HashMap<ProjectId, ProjectPolls>>);

/// The names of one project.
#[derive(Debug, Default)]
struct ProjectPolls {
    /// The waiting calls: how many have the name, and the token that ends them.
    waiting: HashMap<String, (usize, CancellationToken)>,
    /// Names that were ended before their call arrived, oldest first.
    early: VecDeque<(Instant, String)>,
}

impl ProjectPolls {
    fn forget_old(&mut self, now: Instant) {
        while self.early.front().is_some_and(|(since, _)| now - *since >= REMEMBERED_FOR) {
            self.early.pop_front();
        }
    }

    /// Whether the call with this name was ended before it arrived.
    fn is_ended_early(&mut self, id: &str) -> bool {
        self.forget_old(Instant::now());
        self.early.iter().any(|(_, early)| early == id)
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.early.is_empty()
    }
}

impl EndablePolls {
    /// Whether the consume call with this name was ended before it arrived.
    pub(crate) fn is_ended(&self, project: &ProjectId, id: &str) -> bool {
        self.lock().get_mut(project).is_some_and(|named| named.is_ended_early(id))
    }

    /// Registers a consume call under a name until the result is dropped. `None` if the call was ended before it arrived.
    pub(crate) fn begin<'a>(&'a self, project: &'a ProjectId, id: &'a str) -> Option<EndablePoll<'a>> {
        let mut projects = self.lock();
        if projects.get_mut(project).is_some_and(|named| named.is_ended_early(id)) {
            return None;
        }
        let named = projects.entry(project.clone()).or_default();
        let (calls, ended) = named.waiting.entry(id.to_owned()).or_default();
        *calls += 1;
        Some(EndablePoll { polls: self, project, id, ended: ended.clone() })
    }

    /// Ends the calls with these names and returns how many were waiting. Names without a call are remembered.
    pub(crate) fn end(&self, project: &ProjectId, ids: Vec<String>) -> usize {
        let now = Instant::now();
        let mut projects = self.lock();
        if !projects.contains_key(project) && projects.len() >= MAX_PROJECTS {
            projects.retain(|_, named| {
                named.forget_old(now);
                !named.is_empty()
            });
            if projects.len() >= MAX_PROJECTS {
                return 0;
            }
        }
        let named = projects.entry(project.clone()).or_default();
        named.forget_old(now);
        let mut ended = 0;
        for id in ids {
            match named.waiting.get(&id) {
                Some((calls, token)) if !token.is_cancelled() => {
                    token.cancel();
                    ended += calls;
                }
                Some(_) => {}
                None if named.early.iter().any(|(_, early)| *early == id) => {}
                None => named.early.push_back((now, id)),
            }
        }
        while named.early.len() > MAX_REMEMBERED {
            named.early.pop_front();
        }
        ended
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ProjectId, ProjectPolls>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A consume call that can be ended by its name.
#[derive(Debug)]
pub(crate) struct EndablePoll<'a> {
    polls: &'a EndablePolls,
    project: &'a ProjectId,
    id: &'a str,
    ended: CancellationToken,
}

impl EndablePoll<'_> {
    /// Ready when the call is ended.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for EndablePoll<'_> {
    fn drop(&mut self) {
        let mut projects = self.polls.lock();
        let Some(named) = projects.get_mut(self.project) else { return };
        if let Some((calls, _)) = named.waiting.get_mut(self.id) {
            *calls -= 1;
            if *calls == 0 {
                named.waiting.remove(self.id);
            }
        }
        if named.is_empty() {
            projects.remove(self.project);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn remembered(polls: &EndablePolls) -> usize {
        polls.lock().values().map(|named| named.early.len()).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_in_time_and_number() {
        let (polls, project) = (EndablePolls::default(), ProjectId::new("p"));
        let names = |from: usize| (from..from + 100).map(|name| name.to_string()).collect::<Vec<_>>();
        for from in (0..2_000).step_by(100) {
            assert_eq!(polls.end(&project, names(from)), 0);
        }
        assert_eq!(remembered(&polls), MAX_REMEMBERED);
        assert!(polls.begin(&project, "1999").is_none());
        assert!(polls.begin(&project, "999").is_some(), "the oldest are forgotten");
        tokio::time::advance(REMEMBERED_FOR).await;
        assert!(polls.begin(&project, "1999").is_some());
        assert!(polls.lock().is_empty(), "nothing is kept of a project without calls");
        for project in 0..2 * MAX_PROJECTS {
            polls.end(&ProjectId::new(project.to_string()), vec!["a".to_owned()]);
        }
        assert_eq!(polls.lock().len(), MAX_PROJECTS);
        tokio::time::advance(REMEMBERED_FOR).await;
        polls.end(&project, vec!["a".to_owned()]);
        assert_eq!(polls.lock().len(), 1, "projects whose names are forgotten make room");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_of_one_name_end_together() {
        let (polls, project) = (EndablePolls::default(), ProjectId::new("p"));
        let (first, second) = (polls.begin(&project, "a").unwrap(), polls.begin(&project, "a").unwrap());
        assert_eq!(polls.end(&ProjectId::new("other"), vec!["a".to_owned()]), 0, "names are a project's own");
        assert_eq!(polls.end(&project, vec!["a".to_owned(), "a".to_owned()]), 2);
        first.ended().await;
        drop(first);
        second.ended().await;
        assert_eq!(polls.end(&project, vec!["a".to_owned()]), 0, "they are not ended twice");
        drop(second);
        assert!(polls.begin(&project, "a").is_some(), "a name that was used up is free again");
    }
}
