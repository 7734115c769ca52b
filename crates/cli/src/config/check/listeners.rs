//! Rules of everything that listens: publishers, the admin endpoint, certificates, and all addresses together.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::config::{
    check::checker::Checker,
    schema::{admin::Admin, config::Config, tls::Tls},
    source::path::KeyPath,
};
use dms_protocol::limits;
use dms_server::internal::host_check::{is_base_path, is_host, is_trace_url};

/// Publishers, the admin endpoint, certificates, and no address twice.
pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    check_tls(&KeyPath::dotted("server.tls"), config.server.tls.as_ref(), checker);
    let mqs = config.server.mqs.as_ref();
    check_tls(&KeyPath::dotted("server.mqs.tls"), mqs.and_then(|mqs| mqs.tls.as_ref()), checker);
    check_tls(&KeyPath::dotted("server.admin_tls"), config.server.admin_tls.as_ref(), checker);
    check_tls(&KeyPath::dotted("server.admin.tls"), config.server.admin.0.tls.as_ref(), checker);
    check_tls(&KeyPath::dotted("admin.tls"), config.admin.tls.as_ref(), checker);
    let memory_only = config.dms.is_embedded() && !config.server.is_durable();
    for (place, publisher) in config.publishers.iter().enumerate() {
        let path = KeyPath::dotted("publishers").child(place);
        if publisher.queues.is_empty() {
            checker.require(&path, "queue", &publisher.queue);
        }
        for (place, queue) in publisher.queues.iter().enumerate().filter(|(_, queue)| queue.trim().is_empty()) {
            checker.report(&path.child("queues").child(place), format!("`{queue}` is not the name of a queue"));
        }
        check_tls(&path.child("tls"), publisher.tls.as_ref(), checker);
        let pending = limits::in_range("max_pending", publisher.max_pending, &(1..=limits::MAX_PENDING), "");
        checker.limit(&path.child("max_pending"), pending);
        checker.no_longer_than(&path.child("linger"), publisher.linger, limits::MAX_LINGER);
        let further = publisher.queues.iter().enumerate();
        let further = further.map(|(place, queue)| (path.child("queues").child(place), queue));
        for (path, queue) in std::iter::once((path.child("queue"), &publisher.queue)).chain(further) {
            let known = config.server.queues.iter().any(|known| known.name == *queue);
            if memory_only && !known && !queue.is_empty() {
                checker.report(&path, format!("the embedded server has no queue `{queue}`: add it to server.queues"));
            }
        }
        let has_token = publisher.token.is_some() || publisher.token_file.is_some();
        check_hosts(&path, &publisher.hosts, checker);
        check_reach(&path, publisher.listen, has_token, checker);
    }
    check_admin(&config.admin, checker);
    check_distinct(config, checker);
}

/// The admin address of `run`.
fn check_admin(admin: &Admin, checker: &mut Checker<'_>) {
    let path = KeyPath::dotted("admin");
    let has_token = admin.token.is_some() || admin.token_file.is_some();
    if (admin.read_token.is_some() || admin.read_token_file.is_some()) && !has_token {
        checker.report(&path.child("read_token"), "is set and admin.token is not, so everybody may read: set both");
    }
    if let Some(base) = admin.base_path.as_deref().filter(|base| !is_base_path(base)) {
        checker.report(&path.child("base_path"), format!("`{base}` is not allowed: write a path such as /dms"));
    }
    if let Some(url) = admin.trace_url.as_deref().filter(|url| !is_trace_url(url)) {
        let message = format!("`{url}` is not allowed: write a URL such as https://jaeger.example/trace/{{trace_id}}");
        checker.report(&path.child("trace_url"), message);
    }
    if let Some(listen) = admin.listen {
        check_reach(&path, listen, has_token, checker);
    }
    check_hosts(&path, &admin.hosts, checker);
}

/// Names by which callers may call a listener.
fn check_hosts(path: &KeyPath, hosts: &[String], checker: &mut Checker<'_>) {
    for (place, host) in hosts.iter().enumerate().filter(|(_, host)| !is_host(host)) {
        let message = format!("`{host}` is not allowed: write a host name or an address, without a port");
        checker.report(&path.child("hosts").child(place), message);
    }
}

/// A listener that other machines can reach needs a token.
fn check_reach(path: &KeyPath, listen: SocketAddr, has_token: bool, checker: &mut Checker<'_>) {
    if listen.ip().is_loopback() || has_token {
        return;
    }
    let token = path.child("token");
    let message =
        format!("`{listen}` can be reached from outside and {token} is not set: set it, or listen on 127.0.0.1");
    checker.report(&path.child("listen"), message);
}

fn check_tls(path: &KeyPath, tls: Option<&Tls>, checker: &mut Checker<'_>) {
    let Some(tls) = tls else { return };
    checker.readable(&path.child("certificate"), &tls.certificate);
    checker.readable(&path.child("key"), &tls.key);
}

/// No two listeners of one process have one address.
fn check_distinct(config: &Config, checker: &mut Checker<'_>) {
    let admin = |address: Option<SocketAddr>, key: &str| address.map(|address| (address, KeyPath::dotted(key)));
    let server = [
        Some((config.server.listen, KeyPath::dotted("server.listen"))),
        admin(config.server.admin_listen(), "server.admin"),
        admin(config.server.mqs.as_ref().map(|mqs| mqs.listen), "server.mqs.listen"),
    ];
    let publishers = config.publishers.iter().enumerate();
    let publishers = publishers
        .map(|(place, publisher)| Some((publisher.listen, KeyPath::dotted("publishers").child(place).child("listen"))));
    let run = std::iter::once(admin(config.admin.listen, "admin.listen")).chain(publishers);
    if config.dms.is_embedded() {
        return check_addresses(server.into_iter().chain(run).flatten(), checker);
    }
    // The server of this configuration is a separate process, which has no other listeners.
    check_addresses(server.into_iter().flatten(), checker);
    check_addresses(run.flatten(), checker);
}

fn check_addresses(listeners: impl Iterator<Item = (SocketAddr, KeyPath)>, checker: &mut Checker<'_>) {
    let mut taken: BTreeMap<SocketAddr, KeyPath> = BTreeMap::new();
    for (address, path) in listeners.filter(|(address, _)| address.port() != 0) {
        if let Some(other) = taken.insert(address, path.clone()) {
            checker.report(&path, format!("`{address}` is the address of {other} too: give each its own"));
        }
    }
}
