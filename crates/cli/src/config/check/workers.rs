//! Rules of `workers`.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{
    check::{
        checker::Checker,
        key_store::{self, UnusableStore},
        mqs,
    },
    schema::{
        config::Config,
        deduplicate::KeyStore,
        dms::Dialect,
        handler::{BodyFormat, CommandHandler, HttpHandler, TextBodies},
        server::QueueSpec,
        worker::{OnFailure, OnReject, Ordering, Republish, Source, Then, Worker},
    },
    source::path::KeyPath,
    worker_settings::invalid_settings,
};
use dms_protocol::internal::secret_url::{MASK, SecretUrl};
use dms_protocol::{
    limits::{self, LimitError},
    queue::QueueMode,
};
use dms_worker::worker;

/// Checks each worker, and the rules between workers.
pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    let mut names = BTreeSet::new();
    for (place, worker) in config.workers.iter().enumerate() {
        let path = KeyPath::dotted("workers").child(place);
        if !names.insert(worker.label()) && !worker.queue.is_empty() {
            let message = format!("there is another worker `{}`: give each a different name", worker.label());
            checker.report(&path.child("name"), message);
        }
        check_names(&path, worker, checker);
        check_settings(&path, worker, config.dms.dialect, checker);
        if config.dms.dialect == Dialect::Mqs {
            mqs::check_worker(&path, worker, checker);
        }
        check_handler(&path, worker, checker);
        check_deduplicate(&path.child("deduplicate"), worker, checker);
        check_failures(&path, worker, known_queue(config, &worker.queue), checker);
        check_existence(&path, config, worker, checker);
        check_parking(&path, config, worker, checker);
        check_dead_letters(&path, config, worker, checker);
    }
    check_label_rules(&config.workers, checker);
    check_shared(config, checker);
}

/// Every worker keeps a poll out, so the shared limits need room for one of each.
fn check_shared(config: &Config, checker: &mut Checker<'_>) {
    let path = KeyPath::dotted("limits");
    let workers = config.workers.len().max(1);
    let limits =
        [("in_flight", config.limits.in_flight, workers), ("bytes", config.limits.bytes, workers * limits::MAX_BYTES)];
    for (key, value, least) in limits {
        if let Some(value) = value.filter(|value| *value < least) {
            let message = format!("`{value}` is not allowed: {least} or more is needed, one poll for each worker");
            checker.report(&path.child(key), message);
        }
    }
}

fn check_names(path: &KeyPath, worker: &Worker, checker: &mut Checker<'_>) {
    checker.require(path, "queue", &worker.queue);
    checker.require(path, "group", &worker.group);
    if matches!(&worker.ordering, Ordering::KeyAttribute(name) if name.is_empty()) {
        checker.report(&path.child("ordering"), "`key_attribute` needs the name of an attribute");
    }
    if worker.unique_attribute.as_deref().is_some_and(str::is_empty) {
        checker.report(&path.child("unique_attribute"), "needs the name of an attribute: set it, or leave it out");
    }
    if worker.unique_attribute.is_some() && worker.unique_pointer.is_some() {
        checker.report(&path.child("unique_pointer"), "replaces unique_attribute: leave one of the two out");
    }
}

/// The rules of the library, which it states for its own names.
fn check_settings(path: &KeyPath, worker: &Worker, dialect: Dialect, checker: &mut Checker<'_>) {
    for invalid in invalid_settings(worker, dialect.into()) {
        let message = match invalid.value() {
            Some(value) => format!("`{value}` {}", invalid.problem()),
            None => invalid.problem().to_owned(),
        };
        checker.report(&key_of(path, worker, invalid.setting()), message);
    }
    // The library only warns, because a program may change the limit while the worker runs.
    if worker.max_in_flight_bytes < limits::MAX_BYTES {
        let message = format!(
            "`{}` is not allowed: {} or more are needed, because a poll may return this many",
            worker.max_in_flight_bytes,
            limits::MAX_BYTES
        );
        checker.report(&path.child("max_in_flight_bytes"), message);
    }
    if let Some(rate) = worker.rate_limit
        && let Err(LimitError { allowed, .. }) = worker::Rate::try_new(rate.count(), rate.per())
    {
        checker.report(&path.child("rate_limit"), format!("`{rate}` is not allowed: {allowed}"));
    }
}

/// The key of a setting of the library. Most have the same name.
fn key_of(worker_path: &KeyPath, worker: &Worker, setting: &str) -> KeyPath {
    let below = |keys: &[&str]| keys.iter().fold(worker_path.clone(), |path, key| path.child(key));
    let republish = |keys: &[&str]| below(&[&["on_failure", "republish"], keys].concat());
    let collect = |key| below(&["handler", "http", "batch", "collect", key]);
    match setting {
        "handler_timeout" if worker.handler.http.is_some() => below(&["handler", "http", "timeout"]),
        "handler_timeout" => below(&["handler", "command", "timeout"]),
        "collect.max_messages" => collect("max_messages"),
        "collect.linger" => collect("linger"),
        "dead_letters" => below(&["source"]),
        "republish" => republish(&[]),
        "republish.max_attempts" => republish(&["max_attempts"]),
        "republish.first_delay" => republish(&["backoff"]),
        "republish.max_delay" => republish(&["max_backoff"]),
        _ => match setting.strip_prefix("tags[").and_then(|place| place.strip_suffix(']')) {
            Some(place) => below(&["tags", place]),
            None => below(&[setting]),
        },
    }
}

/// Whether the key and the store are usable. The store is not connected to.
fn check_deduplicate(path: &KeyPath, worker: &Worker, checker: &mut Checker<'_>) {
    let Some(deduplicate) = &worker.deduplicate else { return };
    checker.require(path, "key", &deduplicate.key);
    if deduplicate.keep.get().is_zero() {
        checker.report(&path.child("keep"), "`0s` is not allowed: it has to be above zero");
    }
    if worker.handler.http.as_ref().is_some_and(|http| http.batch.is_some()) {
        checker.report(path, "works with single messages: leave it out, or leave out handler.http.batch");
    }
    let (store, url, url_file) = match &deduplicate.store {
        KeyStore::Memory => return,
        KeyStore::Postgres(keys) => ("postgres", &keys.url, &keys.url_file),
        KeyStore::Redis(keys) => ("redis", &keys.url, &keys.url_file),
    };
    match (url, url_file) {
        (None, None) => {
            let path = path.child("store").child(store).child("url");
            checker.report(&path, "is required and missing: set it or url_file");
        }
        // A file that could not be read was reported.
        (None, Some(_)) => {}
        (Some(_), _) => {
            if let Err(UnusableStore { store, key, reason }) = key_store::open(&deduplicate.store, "") {
                checker.report(&path.child("store").child(store).child(key), reason);
            }
        }
    }
}

fn check_handler(path: &KeyPath, worker: &Worker, checker: &mut Checker<'_>) {
    let path_of_handler = path.child("handler");
    match worker.handler.kinds().as_slice() {
        [] => checker.report(
            &path_of_handler,
            "is required and missing: set one of `http: {url: ...}`, `command: [...]` and `log: {}`",
        ),
        [_] => {}
        several => checker.report(&path_of_handler, format!("has {}: keep one", several.join(" and "))),
    }
    if let Some(http) = &worker.handler.http {
        check_http(&path_of_handler.child("http"), http, checker);
    }
    if let Some(command) = &worker.handler.command {
        check_command(&path_of_handler.child("command"), command, checker);
    }
}

fn check_http(path: &KeyPath, http: &HttpHandler, checker: &mut Checker<'_>) {
    checker.require(path, "url", http.url.expose());
    if !http.url.is_empty() {
        checker.http_address(&path.child("url"), &http.url);
    }
    if let Some(url) = &http.health_url {
        checker.http_address(&path.child("health_url"), url);
    }
    if http.text_bodies == TextBodies::Plain && (http.batch.is_some() || http.format == BodyFormat::Cloudevents) {
        let message = "`plain` is not allowed: it needs `format: raw` and a request for each message, without `batch`";
        checker.report(&path.child("text_bodies"), message);
    }
    for (key, span) in [
        ("timeout", http.timeout),
        ("connect_timeout", http.connect_timeout),
        ("health_interval", http.health_interval),
    ] {
        checker.above_zero(&path.child(key), span);
    }
    if let Some(file) = http.ca_file.as_ref().filter(|_| !urls(http).any(is_https)) {
        let message = format!("`{}` is never used: `url` is not https; leave it out, or change `url`", file.display());
        checker.report(&path.child("ca_file"), message);
    }
    for (name, value) in &http.headers {
        let legal = name.parse::<http::HeaderName>().is_ok() && value.expose().parse::<http::HeaderValue>().is_ok();
        if !legal {
            checker.report(&path.child("headers").child(name), format!("`{name}: {MASK}` is not an HTTP header"));
        }
    }
}

/// Every address of an application.
fn urls(http: &HttpHandler) -> impl Iterator<Item = &str> {
    std::iter::once(&http.url).chain(&http.health_url).map(SecretUrl::expose)
}

fn is_https(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|url| url.scheme_str() == Some("https"))
}

fn check_command(path: &KeyPath, command: &CommandHandler, checker: &mut Checker<'_>) {
    if command.run.first().is_none_or(|program| program.trim().is_empty()) {
        checker.report(path, "names no program: write it like [\"./handle.sh\", \"--fast\"]");
    }
    if let Some(timeout) = command.timeout {
        checker.above_zero(&path.child("timeout"), timeout);
    }
}

fn check_failures(path: &KeyPath, worker: &Worker, queue: Option<&QueueSpec>, checker: &mut Checker<'_>) {
    if let OnFailure::Republish(republish) = &worker.on_failure {
        let path = path.child("on_failure").child("republish");
        if queue.is_some_and(|queue| queue.mode == QueueMode::Fifo) {
            checker.report(
                &path,
                format!("queue `{}` is FIFO and sending again would break its order: use redeliver", worker.queue),
            );
        }
        if let Then::Park(target) = &republish.then {
            check_park(&path.child("then").child("park"), target, &worker.queue, checker);
        }
    }
    if let Some(retry) = &worker.retry {
        let path = path.child("retry");
        if retry.max_attempts == 0 {
            checker.report(&path.child("max_attempts"), "`0` is not allowed: 1 or more is needed");
        }
        if let Err(error) = retry.policy() {
            checker.report(&path.child("backoff"), error.to_string());
        }
    }
    if let OnReject::Park(target) = &worker.on_reject {
        check_park(&path.child("on_reject").child("park"), target, &worker.queue, checker);
    }
}

fn check_park(path: &KeyPath, target: &str, queue: &str, checker: &mut Checker<'_>) {
    if target.is_empty() {
        checker.report(path, "needs the name of a queue");
    } else if target == queue {
        checker.report(path, format!("`{target}` is the queue that is consumed: parking there would never end"));
    }
}

/// The queue as the configuration of the embedded server knows it.
fn known_queue<'a>(config: &'a Config, name: &str) -> Option<&'a QueueSpec> {
    let specs = || config.server.queues.iter().chain(config.server.projects.iter().flat_map(|project| &project.queues));
    config.dms.is_embedded().then(|| specs().find(|queue| queue.name == name))?
}

/// An embedded server in memory has the queues of its configuration and no others when the workers start.
fn check_existence(path: &KeyPath, config: &Config, worker: &Worker, checker: &mut Checker<'_>) {
    if !config.dms.is_embedded() || config.server.is_durable() || worker.queue.is_empty() {
        return;
    }
    match known_queue(config, &worker.queue) {
        None => {
            let message = format!("the embedded server has no queue `{}`: add it to server.queues", worker.queue);
            checker.report(&path.child("queue"), message);
        }
        Some(queue) if !worker.group.is_empty() && !queue.groups.contains(&worker.group) => {
            let message = format!(
                "queue `{}` has no group `{}`: add it to its groups in server.queues",
                queue.name, worker.group
            );
            checker.report(&path.child("group"), message);
        }
        Some(_) => {}
    }
}

/// The queues that a worker parks messages in have to be there, too.
fn check_parking(path: &KeyPath, config: &Config, worker: &Worker, checker: &mut Checker<'_>) {
    if !config.dms.is_embedded() || config.server.is_durable() {
        return;
    }
    let rejected = match &worker.on_reject {
        OnReject::Park(target) => Some((path.child("on_reject").child("park"), target)),
        _ => None,
    };
    let given_up = match &worker.on_failure {
        OnFailure::Republish(Republish { then: Then::Park(target), .. }) => {
            Some((path.child("on_failure").child("republish").child("then").child("park"), target))
        }
        _ => None,
    };
    for (path, target) in rejected.into_iter().chain(given_up) {
        if !target.is_empty() && *target != worker.queue && known_queue(config, target).is_none() {
            checker.report(&path, format!("the embedded server has no queue `{target}`: add it to server.queues"));
        }
    }
}

/// A group has dead letters only if its queue counts consumptions. A durable server may have the queue with other settings.
fn check_dead_letters(path: &KeyPath, config: &Config, worker: &Worker, checker: &mut Checker<'_>) {
    if worker.source != Source::DeadLetters || config.server.is_durable() {
        return;
    }
    if let Some(queue) = known_queue(config, &worker.queue).filter(|queue| queue.max_consume_count.is_none()) {
        let message = format!(
            "`dead_letters` is not allowed: queue `{}` has none; set its max_consume_count in server.queues",
            queue.name
        );
        checker.report(&path.child("source"), message);
    }
}

/// A group keeps the labels of its first consume for life, so two workers cannot ask it for different ones.
fn check_label_rules(workers: &[Worker], checker: &mut Checker<'_>) {
    let mut rules = BTreeMap::new();
    for (place, worker) in workers.iter().enumerate() {
        if worker.source == Source::DeadLetters || worker.queue.is_empty() {
            continue;
        }
        let labels: BTreeSet<_> = worker.tags.iter().collect();
        let rule = (labels.len() > 1).then_some(worker.tag_type == dms_protocol::queue::TagMode::And);
        let first =
            rules.entry((&worker.queue, &worker.group)).or_insert_with(|| (labels.clone(), rule, worker.label()));
        if (&first.0, first.1) != (&labels, rule) {
            let message = format!(
                "differ from those of worker `{}`: a group keeps the labels of its first consume permanently",
                first.2
            );
            checker.report(&KeyPath::dotted("workers").child(place).child("tags"), message);
        }
    }
}
