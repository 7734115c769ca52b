//! Rules of `workers`.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{
    check::{
        checker::Checker,
        key_store::{self, UnusableStore},
    },
    schema::{
        config::Config,
        deduplicate::KeyStore,
        handler::{Batch, Collect, CommandHandler, HttpHandler},
        server::QueueSpec,
        values::{Auto, Span},
        worker::{ACK_MARGIN, OnFailure, OnReject, Ordering, Republish, Source, Then, Worker},
    },
    source::path::KeyPath,
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
            let message = format!("there is another worker `{}`: give each a name of its own", worker.label());
            checker.report(&path.child("name"), message);
        }
        check_names(&path, worker, checker);
        check_flow(&path, worker, checker);
        check_handler(&path, worker, checker);
        check_deduplicate(&path.child("deduplicate"), worker, checker);
        check_failures(&path, worker, known_queue(config, &worker.queue), checker);
        check_existence(&path, config, worker, checker);
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
    for (place, tag) in worker.tags.iter().enumerate() {
        checker.limit(&path.child("tags").child(place), limits::labels(&[tag]));
    }
    if worker.tags.len() > limits::MAX_LABELS {
        let message = format!("has {} labels: at most {} are allowed", worker.tags.len(), limits::MAX_LABELS);
        checker.report(&path.child("tags"), message);
    }
    if worker.source == Source::DeadLetters && !worker.tags.is_empty() {
        checker.report(&path.child("tags"), "dead letters have no labels: leave it out with `source: dead_letters`");
    }
    if matches!(&worker.ordering, Ordering::KeyAttribute(name) if name.is_empty()) {
        checker.report(&path.child("ordering"), "`key_attribute` needs the name of an attribute");
    }
    if worker.unique_attribute.as_deref().is_some_and(str::is_empty) {
        checker.report(&path.child("unique_attribute"), "needs the name of an attribute: set it, or leave it out");
    }
}

fn check_flow(path: &KeyPath, worker: &Worker, checker: &mut Checker<'_>) {
    let concurrency = limits::in_range("concurrency", worker.concurrency, &(1..=limits::MAX_CONCURRENCY), "");
    checker.limit(&path.child("concurrency"), concurrency);
    if worker.max_in_flight_bytes < limits::MAX_BYTES {
        let message = format!(
            "`{}` is not allowed: {} or more are needed, because a poll may return this many",
            worker.max_in_flight_bytes,
            limits::MAX_BYTES
        );
        checker.report(&path.child("max_in_flight_bytes"), message);
    }
    checker.limit(&path.child("weight"), limits::in_range("weight", worker.weight, &(1..=1_000), ""));
    if let Auto::Fixed(pollers) = worker.pollers {
        checker.limit(&path.child("pollers"), limits::in_range("pollers", pollers, &(1..=limits::MAX_POLLERS), ""));
    }
    if let Auto::Fixed(count) = worker.max_messages {
        let allowed = limits::in_range("max_messages", count, &(1..=limits::MAX_MESSAGES), "");
        checker.limit(&path.child("max_messages"), allowed);
    }
    if let Some(rate) = worker.rate_limit
        && let Err(LimitError { allowed, .. }) = worker::Rate::try_new(rate.count(), rate.per())
    {
        checker.report(&path.child("rate_limit"), format!("`{rate}` is not allowed: {allowed}"));
    }
    check_seconds(&path.child("poll_wait"), worker.poll_wait, &limits::POLL_WAIT_SECS, checker);
    if let Auto::Fixed(ack_wait) = worker.ack_wait {
        check_seconds(&path.child("ack_wait"), ack_wait, &limits::ACK_WAIT_SECS, checker);
    }
}

/// The wire knows whole seconds only.
fn check_seconds(path: &KeyPath, span: Span, range: &std::ops::RangeInclusive<u64>, checker: &mut Checker<'_>) {
    let whole = span.get().subsec_nanos() == 0;
    if !whole || !range.contains(&span.get().as_secs()) {
        let message = format!("`{span}` is not allowed: whole seconds from {}s to {}s", range.start(), range.end());
        checker.report(path, message);
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
    if let Some(Batch::Collect(collect)) = worker.handler.http.as_ref().and_then(|http| http.batch) {
        check_collect(&path_of_handler.child("http").child("batch").child("collect"), collect, worker, checker);
    }
    let kind = if worker.handler.http.is_some() { "http" } else { "command" };
    let longest = worker.ack_wait().saturating_sub(ACK_MARGIN);
    if let Some(timeout) = worker.handler.timeout().filter(|timeout| timeout.get() >= longest) {
        let message = format!(
            "`{timeout}` is too long for an ack_wait of {}: a lease cannot be extended, so keep the timeout below {} or raise ack_wait (at most 300s)",
            Span::from(worker.ack_wait()),
            Span::from(longest)
        );
        checker.report(&path_of_handler.child(kind).child("timeout"), message);
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

/// Checks that a collected batch can fill: waiting messages count as in flight, and their lease keeps running.
fn check_collect(path: &KeyPath, collect: Collect, worker: &Worker, checker: &mut Checker<'_>) {
    let Collect { max_messages, linger } = collect;
    let allowed = limits::in_range("max_messages", max_messages, &(1..=limits::MAX_CONCURRENCY), "");
    checker.limit(&path.child("max_messages"), allowed);
    if (1..max_messages.min(limits::MAX_CONCURRENCY)).contains(&worker.concurrency) {
        let message = format!(
            "`{max_messages}` is above the concurrency of {}: a message that waits for its batch is in flight",
            worker.concurrency
        );
        checker.report(&path.child("max_messages"), message);
    }
    let longest = worker.ack_wait().saturating_sub(ACK_MARGIN);
    let timeout = worker.handler.timeout().map(Span::get).unwrap_or_default();
    if timeout < longest && linger.get().saturating_add(timeout) >= longest {
        let message = format!(
            "`{linger}` and the timeout of {} are too long for an ack_wait of {}: shorten one, or raise ack_wait (at most 300s)",
            Span::from(timeout),
            Span::from(worker.ack_wait())
        );
        checker.report(&path.child("linger"), message);
    }
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
        if worker.ordering != Ordering::None {
            checker.report(
                &path,
                "a message that is sent again goes to the end of the queue, which breaks `ordering`: use redeliver",
            );
        }
        check_republish(&path, republish, &worker.queue, checker);
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

fn check_republish(path: &KeyPath, republish: &Republish, queue: &str, checker: &mut Checker<'_>) {
    if republish.max_attempts == 0 {
        checker.report(&path.child("max_attempts"), "`0` is not allowed: 1 or more is needed");
    }
    checker.no_longer_than(&path.child("backoff"), republish.backoff, limits::MAX_DELAY);
    checker.no_longer_than(&path.child("max_backoff"), republish.max_backoff, limits::MAX_DELAY);
    if republish.backoff > republish.max_backoff && republish.backoff.get() <= limits::MAX_DELAY {
        checker.report(
            &path.child("backoff"),
            format!(
                "`{}` is longer than max_backoff, `{}`: raise that as well",
                republish.backoff, republish.max_backoff
            ),
        );
    }
    if let Then::Park(target) = &republish.then {
        check_park(&path.child("then").child("park"), target, queue, checker);
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
