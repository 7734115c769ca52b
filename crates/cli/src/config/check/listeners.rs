//! Rules of everything that listens: publishers, the admin endpoint, certificates, and all addresses together.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::config::{
    check::checker::Checker,
    schema::{config::Config, server::Server, tls::Tls},
    source::path::KeyPath,
};
use dms_protocol::limits;
use dms_server::internal::host_check::{is_base_path, is_host};

/// Publishers, the admin endpoint, certificates, and no address twice.
pub(super) fn check(config: &Config, checker: &mut Checker<'_>) {
    check_tls(&KeyPath::dotted("server.tls"), config.server.tls.as_ref(), checker);
    let mqs = config.server.mqs.as_ref();
    check_tls(&KeyPath::dotted("server.mqs.tls"), mqs.and_then(|mqs| mqs.tls.as_ref()), checker);
    check_tls(&KeyPath::dotted("server.admin_tls"), config.server.admin_tls.as_ref(), checker);
    check_tls(&KeyPath::dotted("server.admin.tls"), config.server.admin.0.tls.as_ref(), checker);
    check_tls(&KeyPath::dotted("admin.tls"), config.admin.tls.as_ref(), checker);
    check_server_admin(&config.server, checker);
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
    check_admins(config, checker);
    if let Some(listen) = config.admin.listen {
        let has_token = config.admin.token.is_some() || config.admin.token_file.is_some();
        check_reach(&KeyPath::dotted("admin"), listen, has_token, checker);
    }
    check_distinct(config, checker);
    check_hosts(&KeyPath::dotted("server"), &config.server.hosts, checker);
    check_hosts(&KeyPath::dotted("admin"), &config.admin.hosts, checker);
}

/// The read tokens, the base paths, and the settings of the server's admin address that have two keys.
fn check_admins(config: &Config, checker: &mut Checker<'_>) {
    let (server, section, sidecar) = (&config.server, &config.server.admin.0, &config.admin);
    let own = KeyPath::dotted("server.admin");
    let token = server.admin_token().is_some() || section.token_file.is_some() || server.admin_token_file.is_some();
    check_read_token(&own, section.read_token.is_some() || section.read_token_file.is_some(), token, checker);
    check_base_path(&own, section.base_path.as_deref(), checker);
    let doubled = [
        ("token", section.token.is_some() && server.admin_token.is_some()),
        ("tls", section.tls.is_some() && server.admin_tls.is_some()),
    ];
    for (key, _) in doubled.into_iter().filter(|(_, doubled)| *doubled) {
        checker.report(&own.child(key), format!("`server.admin_{key}` is set too: keep one of the two"));
    }
    let own = KeyPath::dotted("admin");
    let token = sidecar.token.is_some() || sidecar.token_file.is_some();
    check_read_token(&own, sidecar.read_token.is_some() || sidecar.read_token_file.is_some(), token, checker);
    check_base_path(&own, sidecar.base_path.as_deref(), checker);
}

/// A read token alone would leave the address open.
fn check_read_token(path: &KeyPath, has_read_token: bool, has_token: bool, checker: &mut Checker<'_>) {
    if has_read_token && !has_token {
        let token = path.child("token");
        checker
            .report(&path.child("read_token"), format!("is set and {token} is not, so everybody may read: set both"));
    }
}

fn check_base_path(path: &KeyPath, base: Option<&str>, checker: &mut Checker<'_>) {
    if let Some(base) = base.filter(|base| !is_base_path(base)) {
        checker.report(&path.child("base_path"), format!("`{base}` is not allowed: write a path such as /dms"));
    }
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

/// The server's admin address shows and changes messages: off loopback it asks for a token, and tells nobody on the way.
fn check_server_admin(server: &Server, checker: &mut Checker<'_>) {
    let path = KeyPath::dotted("server");
    let Some(listen) = server.admin_listen().filter(|listen| !listen.ip().is_loopback()) else { return };
    let token_file = server.admin.0.token_file.as_ref().or(server.admin_token_file.as_ref());
    let has_token = server.admin_token().is_some() || token_file.is_some();
    let missing = match (has_token, server.admin_tls().is_some()) {
        (true, true) => return,
        (true, false) => "server.admin_tls is not set: set it",
        (false, true) => "server.admin_token is not set: set it",
        (false, false) => "server.admin_token and server.admin_tls are not set: set them",
    };
    let message = format!("`{listen}` can be reached from outside and {missing}, or listen on 127.0.0.1");
    checker.report(&path.child("admin"), message);
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
