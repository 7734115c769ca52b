//! Rules of `server`. The library checks most of them; its mistakes are shown with the keys of the configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::config::{
    check::{
        checker::Checker,
        server_keys::{key_of, message},
    },
    schema::{
        config::Config,
        schedule::Schedule,
        server::{QueueSpec, Server},
    },
    server_settings::settings,
    source::path::KeyPath,
};
use dms_protocol::{internal::setting_checks::EMPTY, limits};

/// The shortest `takeover_after`. The library allows less, for tests on one machine.
const MIN_TAKEOVER: Duration = Duration::from_secs(2);

/// The embedded server, its projects and their queues.
pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    let server = &config.server;
    check_auths(server, checker);
    check_stores(server, checker);
    check_doubled(server, checker);
    check_all_schedules(server, checker);
    let Err(found) = settings(server).check() else { return };
    // A key with another mistake, such as a blank secret, is not reported a second time.
    let mut reported: BTreeSet<_> = checker.keys().into_iter().map(|key| (key, None)).collect();
    for invalid in found.all() {
        let path = key_of(server, invalid.setting());
        let Some(mut message) = message(server, invalid) else { continue };
        if message == EMPTY {
            // The library does not know whether the key is there.
            message = checker.blank(&path).to_owned();
        }
        // The quotas of the server itself are settings of its project and of the broker.
        let is_new = reported.insert((path.to_string(), Some(message.clone())));
        if is_new && !reported.contains(&(path.to_string(), None)) {
            checker.report(&path, message);
        }
    }
}

/// An `auth` section is there so that nobody else is admitted.
fn check_auths(server: &Server, checker: &mut Checker<'_>) {
    let path = KeyPath::dotted("server");
    let further = server.projects.iter().enumerate();
    let further = further.map(|(place, project)| (path.child("projects").child(place), project.auth.as_ref()));
    for (path, auth) in std::iter::once((path.clone(), server.auth.as_ref())).chain(further) {
        let Some(auth) = auth.filter(|auth| auth.keys().next().is_none() && auth.users.is_empty()) else { continue };
        let text = match &auth.access_keys_file {
            Some(file) => {
                let file = file.display();
                format!("`{file}` has no keys, so nobody is let in: add one with `dms-worker key add --file {file}`")
            }
            None => "lets nobody in: add access_keys or users, or leave it out".to_owned(),
        };
        checker.report(&path.child("auth"), text);
    }
}

/// Settings of PostgreSQL and of the cluster that the library has no counterpart of.
fn check_stores(server: &Server, checker: &mut Checker<'_>) {
    let cluster = KeyPath::dotted("server.cluster");
    let takeover = server.cluster.takeover_after;
    if takeover.get() < MIN_TAKEOVER {
        checker.report(&cluster.child("takeover_after"), format!("`{takeover}` is not allowed: 2s or more are"));
    }
    if let Some(tls) = &server.cluster.tls {
        let path = cluster.child("tls");
        for (key, file) in [("certificate", &tls.certificate), ("key", &tls.key), ("ca_file", &tls.ca_file)] {
            checker.readable(&path.child(key), file);
        }
    }
    match &server.postgres {
        None if server.cluster.listen.is_some() => {
            let message = "servers share queues in PostgreSQL only, and server.postgres is not set";
            checker.report(&cluster.child("listen"), message);
        }
        Some(_) if !cfg!(feature = "postgres") => {
            let message = "this program was built without the feature `postgres`";
            checker.report(&KeyPath::dotted("server.postgres"), message);
        }
        _ => {}
    }
}

/// Settings that two keys have.
fn check_doubled(server: &Server, checker: &mut Checker<'_>) {
    let path = KeyPath::dotted("server");
    let further = server.projects.iter().enumerate();
    let further = further.map(|(place, project)| (path.child("projects").child(place), &project.queues));
    for (path, queues) in std::iter::once((path.clone(), &server.queues)).chain(further) {
        let both = queues.iter().enumerate();
        for (place, _) in both.filter(|(_, queue)| queue.retention.is_some() && queue.retention_hours.is_some()) {
            let path = path.child("queues").child(place).child("retention");
            checker.report(&path, "says the same as retention_hours: keep one of them");
        }
    }
    let section = &server.admin.0;
    let doubled = [
        ("token", section.token.is_some() && server.admin_token.is_some()),
        ("tls", section.tls.is_some() && server.admin_tls.is_some()),
    ];
    for (key, _) in doubled.into_iter().filter(|(_, doubled)| *doubled) {
        let message = format!("`server.admin_{key}` is set too: keep one of the two");
        checker.report(&path.child("admin").child(key), message);
    }
}

fn check_all_schedules(server: &Server, checker: &mut Checker<'_>) {
    let path = KeyPath::dotted("server");
    check_schedules(&path, (&server.schedules, &server.queues), server.is_durable(), checker);
    for (place, project) in server.projects.iter().enumerate() {
        let path = path.child("projects").child(place);
        check_schedules(&path, (&project.schedules, &project.queues), server.is_durable(), checker);
    }
}

/// The schedules of a project, each alone and their names together.
fn check_schedules(
    path: &KeyPath,
    (schedules, queues): (&[Schedule], &[QueueSpec]),
    is_durable: bool,
    checker: &mut Checker<'_>,
) {
    let (mut names, mut counts) = (BTreeSet::new(), BTreeMap::<&str, usize>::new());
    for (place, schedule) in schedules.iter().enumerate() {
        let path = path.child("schedules").child(place);
        for (key, value) in [("name", &schedule.name), ("cron", &schedule.cron), ("queue", &schedule.queue)] {
            checker.require(&path, key, value);
        }
        if schedule.message.is_null() {
            checker.report(&path.child("message"), "is required and missing");
        }
        if !schedule.name.is_empty() && !names.insert(&schedule.name) {
            checker.report(&path.child("name"), format!("there is another schedule `{}`", schedule.name));
        }
        // Queues of a durable server may exist without being configured.
        if !is_durable && !schedule.queue.is_empty() && !queues.iter().any(|queue| queue.name == schedule.queue) {
            let message = format!("the server has no queue `{}`: add it to the queues of the project", schedule.queue);
            checker.report(&path.child("queue"), message);
        }
        let count = counts.entry(&schedule.queue).or_default();
        *count += 1;
        if *count == limits::MAX_SCHEDULES + 1 {
            let message = format!("`{}` has more than {} schedules", schedule.queue, limits::MAX_SCHEDULES);
            checker.report(&path.child("queue"), message);
        }
        if let Err(error) = schedule.to_new()
            && !schedule.name.is_empty()
            && !schedule.cron.is_empty()
        {
            checker.report(&path.child(error.property()), error.mistake());
        }
    }
}
