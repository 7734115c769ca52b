//! The rules for the settings of a server. The command line uses them too, and shows each mistake with its own key.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use crate::{
    auth::{
        checks::check_projects,
        project::{Project, StartQueue},
        secret::{is_blank, same_secret},
    },
    broker::Quotas,
    http::host_check::is_host,
    server::config::ServerConfig,
};
use dms_protocol::{
    internal::{duration, setting_checks::SettingChecks},
    limits,
    queue::QueueMode,
    settings::InvalidSettings,
};

impl ServerConfig {
    /// Checks all settings that can be checked without opening a file or a connection, as [`Server::bind`](crate::Server::bind)
    /// does.
    ///
    /// # Errors
    /// Names every setting that cannot work, with its value and the remedy.
    pub fn check(&self) -> Result<(), InvalidSettings> {
        let mut checks = SettingChecks::default();
        self.check_addresses(&mut checks);
        self.check_stores(&mut checks);
        check_projects(&self.projects, &mut checks);
        self.check_queues(&mut checks);
        if self.token_lifetime.is_zero() {
            checks.value("token_lifetime", "0s", "is not allowed: a duration above zero is needed");
        }
        self.check_retention(&mut checks);
        self.check_limits(&mut checks);
        self.check_names(&mut checks);
        self.check_admin(&mut checks);
        checks.finish()
    }

    /// An open server is for the programs of its own machine.
    fn check_addresses(&self, checks: &mut SettingChecks) {
        let open = !self.projects.iter().any(Project::has_auth);
        let mqs = self.mqs.as_ref().and_then(|mqs| mqs.listen);
        for (setting, address) in [("listen", self.listen), ("mqs.listen", mqs)] {
            if let Some(address) = address.filter(|address| open && is_reachable(address)) {
                let problem = "can be reached from outside and no project has access keys or users: add some, or listen \
                               on 127.0.0.1";
                checks.value(setting, address.to_string(), problem);
            }
        }
    }

    #[cfg_attr(not(feature = "postgres"), expect(unused_variables, clippy::unused_self))]
    fn check_stores(&self, checks: &mut SettingChecks) {
        #[cfg(feature = "postgres")]
        if let Some(postgres) = &self.postgres {
            if self.data_dir.is_some() {
                checks.rule("postgres", "`data_dir` says where messages are kept, too: keep one of the two");
            }
            for (setting, reason) in postgres.mistakes() {
                checks.rule(&format!("postgres.{setting}"), reason);
            }
        }
    }

    /// The queues that the server creates have to fit into the quotas and the limits of the API.
    fn check_queues(&self, checks: &mut SettingChecks) {
        check_quotas("broker.quotas", self.broker.quotas, checks);
        for (number, project) in self.projects.iter().enumerate() {
            let path = format!("projects[{number}]");
            let quotas = project.quotas.unwrap_or(self.broker.quotas);
            if project.quotas.is_some() {
                check_quotas(&format!("{path}.quotas"), quotas, checks);
            }
            check_project_queues(&path, &project.queues, quotas, checks);
        }
    }

    fn check_retention(&self, checks: &mut SettingChecks) {
        check_retention("broker.retention", self.broker.retention, checks);
        check_retention("broker.dead_letter_retention", self.broker.dead_letter_retention, checks);
        let mut policies: Vec<_> = self.broker.queue_retention.iter().collect();
        policies.sort_by_key(|(queue, _)| *queue);
        for ((project, queue), policy) in policies {
            if let Some(retention) = policy.retention {
                check_retention(&format!("broker.queue_retention[{project}/{queue}]"), retention, checks);
            }
        }
    }

    /// The largest request and the largest batch have to fit.
    fn check_limits(&self, checks: &mut SettingChecks) {
        checks.at_least_one("limits.connections", self.limits.connections);
        checks.at_least_one("broker.max_polls_per_group", self.broker.max_polls_per_group);
        checks.at_least("limits.total_body_bytes", self.limits.total_body_bytes, self.limits.body_bytes);
        checks.at_least("broker.max_leased_bytes", self.broker.max_leased_bytes, limits::MAX_BYTES);
    }

    fn check_names(&self, checks: &mut SettingChecks) {
        for (place, host) in self.hosts.iter().enumerate().filter(|(_, host)| !is_host(host)) {
            let problem = "is not allowed: write a host name or an address, without a port";
            checks.value(&format!("hosts[{place}]"), host.as_str(), problem);
        }
        #[cfg(feature = "dashboard")]
        if !crate::http::host_check::is_base_path(&self.dashboard.base_path) {
            let problem = "is not allowed: write a path such as /dms";
            checks.value("dashboard.base_path", self.dashboard.base_path.as_str(), problem);
        }
        #[cfg(feature = "dashboard")]
        if !crate::http::host_check::is_trace_url(&self.dashboard.trace_url) {
            let problem = "is not allowed: write a URL such as https://jaeger.example/trace/{trace_id}";
            checks.value("dashboard.trace_url", self.dashboard.trace_url.as_str(), problem);
        }
    }

    /// The admin address shows and changes messages. Off loopback it needs a token, and a certificate so that nobody on the way
    /// reads the token.
    fn check_admin(&self, checks: &mut SettingChecks) {
        let missing = match (&self.admin_token, &self.admin_tls) {
            (Some(_), Some(_)) => None,
            (Some(_), None) => Some("`admin_tls` is not set: set it"),
            (None, Some(_)) => Some("`admin_token` is not set: set it"),
            (None, None) => Some("`admin_token` and `admin_tls` are not set: set them"),
        };
        if let Some((address, missing)) = self.admin.filter(is_reachable).zip(missing) {
            let problem = format!("can be reached from outside and {missing}, or listen on 127.0.0.1");
            checks.value("admin", address.to_string(), problem);
        }
        for (setting, token) in [("admin_token", &self.admin_token), ("admin_read_token", &self.admin_read_token)] {
            if token.as_ref().is_some_and(|token| is_blank(token.expose())) {
                checks.rule(setting, "is empty: set it, or leave it out");
            }
        }
        match (&self.admin_token, &self.admin_read_token) {
            (None, Some(_)) => {
                checks.rule("admin_read_token", "is set and `admin_token` is not, so everybody may read: set both");
            }
            (Some(token), Some(read_token)) if same_secret(Some(token), Some(read_token)) => {
                checks.rule("admin_read_token", "is the same as `admin_token`: set another one");
            }
            _ => {}
        }
    }
}

/// Whether other machines may reach the address.
fn is_reachable(address: &SocketAddr) -> bool {
    !address.ip().is_loopback()
}

fn check_quotas(path: &str, quotas: Quotas, checks: &mut SettingChecks) {
    checks.at_least_one(&format!("{path}.queues"), quotas.queues);
    checks.at_least_one(&format!("{path}.groups_per_queue"), quotas.groups_per_queue);
}

fn check_project_queues(path: &str, queues: &[StartQueue], quotas: Quotas, checks: &mut SettingChecks) {
    let kafka = queues.iter().filter(|start| start.queue.mode.is_kafka()).count();
    // Kafka queues have the quota to themselves, as in the broker.
    let count = kafka.max(queues.len() - kafka);
    if count > quotas.queues {
        let problem = format!("has {count} queues, the quota is {}: raise quotas.queues", quotas.queues);
        checks.rule(&format!("{path}.queues"), problem);
    }
    let mut names = HashSet::new();
    for (place, start) in queues.iter().enumerate() {
        let (path, name) = (format!("{path}.queues[{place}]"), start.queue.name.as_str());
        if !name.is_empty() && !names.insert(name) {
            checks.rule(&format!("{path}.name"), format!("there is another queue `{name}`"));
        }
        check_queue(&path, start, checks);
        check_groups(&path, &start.groups, quotas, checks);
    }
}

fn check_queue(path: &str, start: &StartQueue, checks: &mut SettingChecks) {
    let queue = &start.queue;
    let name = format!("{path}.name");
    match queue.name.trim() {
        "" => checks.required(&name, &queue.name),
        _ => checks.limit(&name, limits::queue_name(&queue.name)),
    }
    if let Some(text) = &queue.description {
        checks.limit(&format!("{path}.description"), limits::description(text));
    }
    if let Some(count) = queue.max_consume_count {
        let setting = format!("{path}.max_consume_count");
        checks.limit(&setting, limits::in_range("max_consume_count", count, &limits::MAX_CONSUME_COUNT, ""));
        check_mode(&setting, queue.mode, false, "has no dead letters: leave it out", checks);
    }
    if let Some(hours) = queue.retention_hours {
        let setting = format!("{path}.retention_hours");
        checks.limit(&setting, limits::in_range("retention_hours", hours, &limits::RETENTION_HOURS, ""));
        check_mode(&setting, queue.mode, true, "has no retention_hours: set `retention` instead", checks);
    }
}

/// Reports a setting that only Kafka queues have, or only the others.
fn check_mode(setting: &str, mode: QueueMode, kafka: bool, problem: &str, checks: &mut SettingChecks) {
    if mode.is_kafka() != kafka {
        checks.rule(setting, format!("a {mode} queue {problem}"));
    }
}

fn check_groups(path: &str, groups: &[String], quotas: Quotas, checks: &mut SettingChecks) {
    let quota = quotas.groups_per_queue;
    if groups.len() > quota {
        let problem = format!("has {} groups, the quota is {quota}: raise quotas.groups_per_queue", groups.len());
        checks.rule(&format!("{path}.groups"), problem);
    }
    let mut names = HashSet::new();
    for (place, group) in groups.iter().enumerate() {
        let setting = format!("{path}.groups[{place}]");
        checks.limit(&setting, limits::group_name(group));
        if !names.insert(group) {
            checks.rule(&setting, format!("there is another group `{group}`"));
        }
    }
}

/// How long messages are kept.
fn check_retention(setting: &str, retention: Duration, checks: &mut SettingChecks) {
    if !u64::try_from(retention.as_millis()).is_ok_and(|ms| limits::RETENTION_MS.contains(&ms)) {
        checks.value(setting, duration::text(retention), "is not allowed: 1s to 72h are");
    }
}
