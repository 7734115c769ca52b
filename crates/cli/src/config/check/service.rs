//! Rules of `dms` and `server`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::config::{
    check::checker::{Checker, is_http_address},
    schema::{
        config::Config,
        dms::{Auth, Content, Dialect, Iam},
        rights::Rights,
        schedule::Schedule,
        server::{QueueSpec, Quotas, Server, ServerAuth, ServerLimits},
        values::Span,
    },
    source::path::KeyPath,
};
use dms_protocol::limits;

/// The service, the project and the credentials.
pub(super) fn check_dms(config: &Config, checker: &mut Checker<'_>) {
    let path = KeyPath::dotted("dms");
    let dms = &config.dms;
    if !dms.is_embedded() && !is_http_address(&dms.endpoint) {
        let message = format!(
            "`{}` is not allowed: write `embedded`, or an address like https://dms.example.com or http://127.0.0.1:9400",
            dms.endpoint
        );
        checker.report(&path.child("endpoint"), message);
    }
    checker.above_zero(&path.child("connect_timeout"), dms.connect_timeout);
    if dms.dialect == Dialect::Dms && dms.content != Content::default() {
        checker.report(&path.child("content"), "is for ROMA Connect MQS: leave it out, or set dms.dialect to mqs");
    }
    if dms.insecure_skip_verify && dms.ca_file.is_some() {
        let message = "`true` makes ca_file useless, because every certificate is accepted: keep one of the two";
        checker.report(&path.child("insecure_skip_verify"), message);
    }
    if let Some(file) = &dms.ca_file {
        checker.readable(&path.child("ca_file"), file);
    }
    if dms.project_id.trim().is_empty() || dms.project_id.contains('/') {
        checker.report(&path.child("project_id"), format!("`{}` is not a project id", dms.project_id));
    }
    let ours = || std::iter::once(&config.server.project_id).chain(config.server.projects.iter().map(|p| &p.id));
    let used = config.has_work();
    if used && dms.is_embedded() && !ours().any(|id| *id == dms.project_id) {
        let known: Vec<_> = ours().map(String::as_str).collect();
        let message =
            format!("the embedded server has no project `{}`: its projects are {}", dms.project_id, known.join(", "));
        checker.report(&path.child("project_id"), message);
    }
    if let Some(auth) = &dms.auth {
        check_auth(auth, checker);
    }
}

fn check_auth(auth: &Auth, checker: &mut Checker<'_>) {
    let path = KeyPath::dotted("dms.auth");
    let signing = auth.access_key.is_some() || auth.secret_key.is_some() || auth.security_token.is_some();
    let token = auth.token.is_some() || auth.token_file.is_some();
    match [signing, token, auth.iam.is_some()].into_iter().filter(|set| *set).count() {
        0 => checker
            .report(&path, "has no credentials: set access_key and secret_key, or token, or iam; or leave it out"),
        1 => {}
        _ => checker.report(&path, "has several kinds of credentials: keep one of access_key, token and iam"),
    }
    if signing && auth.access_key.as_ref().is_none_or(|key| key.trim().is_empty()) {
        checker.report(&path.child("access_key"), "is required beside secret_key, and missing");
    }
    check_access_key(&path, auth.access_key.as_deref().unwrap_or_default(), checker);
    if auth.access_key.is_some() && auth.secret_key.is_none() && auth.secret_key_file.is_none() {
        checker.report(&path.child("secret_key"), "is missing: set secret_key or secret_key_file");
    }
    if let Some(iam) = &auth.iam {
        check_iam(&path.child("iam"), iam, checker);
    }
}

/// The key stands in the `Authorization` header, between commas.
fn check_access_key(path: &KeyPath, key: &str, checker: &mut Checker<'_>) {
    if !key.trim().is_empty() && !key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',') {
        let message = format!("`{key}` is not allowed: visible ASCII characters except the comma are");
        checker.report(&path.child("access_key"), message);
    }
}

fn check_iam(path: &KeyPath, iam: &Iam, checker: &mut Checker<'_>) {
    checker.require(path, "endpoint", iam.endpoint.expose());
    checker.require(path, "user", &iam.user);
    checker.require(path, "domain", &iam.domain);
    if !iam.endpoint.is_empty() {
        checker.http_address(&path.child("endpoint"), &iam.endpoint);
    }
    if iam.password.is_none() && iam.password_file.is_none() {
        checker.report(&path.child("password"), "is missing: set password or password_file");
    }
}

/// The embedded server, its projects and their queues.
pub(super) fn check_server(config: &Config, checker: &mut Checker<'_>) {
    let path = KeyPath::dotted("server");
    let server = &config.server;
    let open = server.auth.is_none() && server.projects.iter().all(|project| project.auth.is_none());
    let mqs = server.mqs.as_ref().map(|mqs| mqs.listen);
    for (path, listen) in [(path.child("listen"), Some(server.listen)), (path.child("mqs").child("listen"), mqs)] {
        if let Some(listen) = listen.filter(|listen| open && !listen.ip().is_loopback()) {
            let message = format!(
                "`{listen}` can be reached from outside and server.auth is not set: set it, or listen on 127.0.0.1"
            );
            checker.report(&path, message);
        }
    }
    check_postgres(&path, server, checker);
    checker.require(&path, "project_id", &server.project_id);
    checker.require(&path, "project_name", &server.project_name);
    check_project(&path, server.auth.as_ref(), server.quotas, &server.queues, checker);
    check_schedules(&path, (&server.schedules, &server.queues), server.is_durable(), checker);
    checker.above_zero(&path.child("token_lifetime"), server.token_lifetime);
    check_retention(&path, server.retention, checker);
    check_limits(&path.child("limits"), server.limits, checker);
    let mut ids = BTreeSet::from([server.project_id.as_str()]);
    for (place, project) in server.projects.iter().enumerate() {
        let path = path.child("projects").child(place);
        checker.require(&path, "id", &project.id);
        if !project.id.is_empty() && !ids.insert(&project.id) {
            checker.report(&path.child("id"), format!("there is another project `{}`", project.id));
        }
        check_project(&path, project.auth.as_ref(), project.quotas, &project.queues, checker);
        check_schedules(&path, (&project.schedules, &project.queues), server.is_durable(), checker);
    }
}

/// The schedules of a project, each by itself and their names together.
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

/// Where messages are kept, and how servers take turns.
fn check_postgres(path: &KeyPath, server: &Server, checker: &mut Checker<'_>) {
    let takeover = server.cluster.takeover_after;
    if takeover.get() < Duration::from_secs(2) {
        let path = path.child("cluster").child("takeover_after");
        checker.report(&path, format!("`{takeover}` is not allowed: 2s or more are"));
    }
    let Some(postgres) = &server.postgres else {
        if server.cluster.listen.is_some() {
            let path = path.child("cluster").child("listen");
            checker.report(&path, "servers share queues in PostgreSQL only, and server.postgres is not set");
        }
        return;
    };
    let cluster = path.child("cluster");
    let path = path.child("postgres");
    if server.data_dir.is_some() {
        checker.report(&path, "server.data_dir says where messages are kept, too: keep one of the two");
    }
    match &postgres.url {
        Some(_) => check_connection((&path, &cluster), server, checker),
        // A file that could not be read was reported.
        None if postgres.url_file.is_some() => {}
        None => checker.report(&path.child("url"), "is required and missing: set it or url_file"),
    }
}

/// The settings of PostgreSQL and of the cluster as the server takes them, with the default for `takeover_after`.
#[cfg(feature = "postgres")]
pub(crate) fn postgres_config(server: &Server) -> dms_server::PostgresConfig {
    let url = server.postgres.as_ref().and_then(|postgres| postgres.url.as_ref());
    let mut config = dms_server::PostgresConfig::new(url.map_or("", |url| url.expose()).into());
    if let Some(postgres) = &server.postgres {
        config.ca_file.clone_from(&postgres.ca_file);
        config.schema.clone_from(&postgres.schema);
    }
    config.shards = server.cluster.shards;
    config.listen = server.cluster.listen;
    config.advertise.clone_from(&server.cluster.advertise);
    config
}

#[cfg(feature = "postgres")]
fn check_connection((path, cluster): (&KeyPath, &KeyPath), server: &Server, checker: &mut Checker<'_>) {
    match postgres_config(server).check() {
        Err(dms_server::PostgresError::Setting { setting, reason }) => {
            let section = if matches!(setting, "url" | "schema" | "ca_file") { path } else { cluster };
            checker.report(&section.child(setting), reason);
        }
        Err(error) => checker.report(path, error.to_string()),
        Ok(()) => {}
    }
}

#[cfg(not(feature = "postgres"))]
fn check_connection((path, _): (&KeyPath, &KeyPath), _: &Server, checker: &mut Checker<'_>) {
    checker.report(path, "this program was built without the feature `postgres`");
}

/// How long messages are kept.
fn check_retention(path: &KeyPath, retention: Span, checker: &mut Checker<'_>) {
    let allowed = u64::try_from(retention.get().as_millis()).is_ok_and(|ms| limits::RETENTION_MS.contains(&ms));
    if !allowed {
        checker.report(&path.child("retention"), format!("`{retention}` is not allowed: 1s to 72h are"));
    }
}

/// The largest request and the largest batch have to fit.
fn check_limits(path: &KeyPath, spent: ServerLimits, checker: &mut Checker<'_>) {
    checker.at_least_one(&path.child("connections"), spent.connections);
    checker.at_least_one(&path.child("polls_per_group"), spent.polls_per_group);
    let bytes =
        [("request_bytes", spent.request_bytes, 1 << 20), ("leased_bytes", spent.leased_bytes, limits::MAX_BYTES)];
    for (key, value, least) in bytes {
        if value < least {
            checker.report(&path.child(key), format!("`{value}` is not allowed: {least} or more are needed"));
        }
    }
}

fn check_project(
    path: &KeyPath,
    auth: Option<&ServerAuth>,
    quotas: Quotas,
    queues: &[QueueSpec],
    checker: &mut Checker<'_>,
) {
    if let Some(auth) = auth {
        check_callers(&path.child("auth"), auth, checker);
    }
    checker.at_least_one(&path.child("quotas").child("queues"), quotas.queues);
    checker.at_least_one(&path.child("quotas").child("groups_per_queue"), quotas.groups_per_queue);
    if queues.len() > quotas.queues {
        let message = format!("has {} queues, the quota is {}: raise quotas.queues", queues.len(), quotas.queues);
        checker.report(&path.child("queues"), message);
    }
    let mut names = BTreeSet::new();
    for (place, queue) in queues.iter().enumerate() {
        let path = path.child("queues").child(place);
        if !queue.name.is_empty() && !names.insert(&queue.name) {
            checker.report(&path.child("name"), format!("there is another queue `{}`", queue.name));
        }
        check_queue(&path, queue, quotas, checker);
    }
}

fn check_callers(path: &KeyPath, auth: &ServerAuth, checker: &mut Checker<'_>) {
    if auth.keys().next().is_none() && auth.users.is_empty() {
        let text = match &auth.access_keys_file {
            Some(file) => {
                let file = file.display();
                format!("`{file}` has no keys, so nobody is let in: add one with `dms-worker key add --file {file}`")
            }
            None => "lets nobody in: add access_keys or users, or leave it out".to_owned(),
        };
        checker.report(path, text);
    }
    let mut keys = BTreeMap::new();
    for (place, key) in auth.keys().enumerate() {
        let path = match place < auth.access_keys.len() {
            true => path.child("access_keys").child(place),
            false => path.child("access_keys_file"),
        };
        if let Some(other) = keys.insert(&key.access_key, &key.secret_key).filter(|_| !key.access_key.is_empty()) {
            let differently = if *other == key.secret_key { "" } else { " with different secrets" };
            let message = format!("the access key {} is listed twice{differently}", key.access_key);
            checker.report(&path.child("access_key"), message);
        }
        checker.require(&path, "access_key", &key.access_key);
        check_access_key(&path, &key.access_key, checker);
        if key.secret_key.is_none() && key.secret_key_file.is_none() {
            checker.report(&path.child("secret_key"), "is missing: set secret_key or secret_key_file");
        }
        check_rights(&path.child("rights"), key.rights.as_ref(), checker);
    }
    for (place, user) in auth.users.iter().enumerate() {
        let path = path.child("users").child(place);
        checker.require(&path, "user", &user.user);
        if user.password.is_none() && user.password_file.is_none() {
            checker.report(&path.child("password"), "is missing: set password or password_file");
        }
        check_rights(&path.child("rights"), user.rights.as_ref(), checker);
    }
}

/// Rights are for something, and name queues that there can be.
fn check_rights(path: &KeyPath, rights: Option<&Rights>, checker: &mut Checker<'_>) {
    let Some(rights) = rights else { return };
    if rights.by_key().iter().all(|(_, patterns)| patterns.is_empty()) {
        checker.report(path, "allows nothing: name queues in send, consume or manage, or leave it out for all rights");
    }
    for (key, patterns) in rights.by_key() {
        for (place, pattern) in patterns.iter().enumerate().filter(|(_, pattern)| !is_queue_pattern(pattern)) {
            let message = format!("`{pattern}` is not allowed: write a queue's name, with * for any part of it");
            checker.report(&path.child(key).child(place), message);
        }
    }
}

/// Whether a queue's name can be like this pattern.
pub(crate) fn is_queue_pattern(pattern: &str) -> bool {
    let shortest = pattern.replace('*', "");
    let any = shortest.is_empty() && !pattern.is_empty();
    any || limits::queue_name(&shortest).is_ok()
}

fn check_queue(path: &KeyPath, queue: &QueueSpec, quotas: Quotas, checker: &mut Checker<'_>) {
    checker.require(path, "name", &queue.name);
    if !queue.name.is_empty() {
        checker.limit(&path.child("name"), limits::queue_name(&queue.name));
    }
    if let Some(text) = &queue.description {
        checker.limit(&path.child("description"), limits::description(text));
    }
    if let Some(count) = queue.max_consume_count {
        let allowed = limits::in_range("max_consume_count", count, &limits::MAX_CONSUME_COUNT, "");
        checker.limit(&path.child("max_consume_count"), allowed);
        if queue.mode.is_kafka() {
            checker.report(
                &path.child("max_consume_count"),
                format!("a {} queue has no dead letters: leave it out", queue.mode),
            );
        }
    }
    if let Some(hours) = queue.retention_hours {
        checker.limit(
            &path.child("retention_hours"),
            limits::in_range("retention_hours", hours, &limits::RETENTION_HOURS, ""),
        );
        if !queue.mode.is_kafka() {
            checker.report(
                &path.child("retention_hours"),
                format!("a {} queue has no retention_hours: set `retention` instead", queue.mode),
            );
        }
    }
    if let Some(retention) = queue.retention {
        check_retention(path, retention, checker);
        if queue.retention_hours.is_some() {
            checker.report(&path.child("retention"), "says the same as retention_hours: keep one of them");
        }
    }
    if queue.groups.len() > quotas.groups_per_queue {
        let message = format!(
            "has {} groups, the quota is {}: raise quotas.groups_per_queue",
            queue.groups.len(),
            quotas.groups_per_queue
        );
        checker.report(&path.child("groups"), message);
    }
    let mut names = BTreeSet::new();
    for (place, group) in queue.groups.iter().enumerate() {
        let path = path.child("groups").child(place);
        checker.limit(&path, limits::group_name(group));
        if !names.insert(group) {
            checker.report(&path, format!("there is another group `{group}`"));
        }
    }
}
