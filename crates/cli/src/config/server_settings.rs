//! Maps the settings of the server in the configuration to a [`ServerConfig`], once: to check them and to run the server.

use std::collections::HashMap;

use dms_protocol::secret;

use crate::config;
use dms_protocol::queue::{NewQueue, ProjectId};
use dms_server::{
    AccessKey, HttpLimits, MqsConfig, Project, Rights, ServerConfig, SignatureRules, StartQueue, TlsFiles, User,
    broker::{
        Quotas, RetentionPolicy,
        embedded::{EmbeddedConfig, FailureCounting, StartPosition},
    },
};

/// The settings of a server that listens where the configuration says.
pub(crate) fn settings(server: &config::Server) -> ServerConfig {
    let mut own = Project::new(ProjectId::from(server.project_id.as_str()));
    if let Some(name) = &server.project_name {
        own.name.clone_from(name);
    }
    own.access_keys = access_keys(server.auth.as_ref());
    own.users = users(server.auth.as_ref());
    own.signatures = signatures(server.auth.as_ref());
    own.quotas = Some(quotas(server.quotas));
    own.queues = server.queues.iter().map(queue).collect();
    let own = with_schedules(own, &server.schedules);
    let own = lists_own_project(server).then_some(own);
    let further = server.projects.iter().map(project);
    let made = with_dashboard(with_postgres(ServerConfig::default(), server), server);
    let admin = &server.admin.0;
    made.listen(server.listen)
        .admin(server.admin_listen())
        .admin_read_token(admin.read_token.as_ref().map(|token| secret(Some(token))))
        .admin_read_token_sees_bodies(admin.read_token_sees_bodies)
        .admin_token(server.admin_token().map(|token| secret(Some(token))))
        .admin_tls(server.admin_tls().map(tls))
        .hosts(server.hosts.clone())
        .tls(server.tls.as_ref().map(tls))
        .mqs(server.mqs.as_ref().map(mqs))
        .data_dir(server.data_dir.clone())
        .projects(own.into_iter().chain(further).collect())
        .region(server.region.clone())
        .token_lifetime(server.token_lifetime.get())
        .broker(broker(server))
        .metrics_max_groups(server.limits.metrics_groups)
        .limits(
            HttpLimits::default().connections(server.limits.connections).total_body_bytes(server.limits.request_bytes),
        )
}

/// The settings of the broker.
fn broker(server: &config::Server) -> EmbeddedConfig {
    let mut broker = EmbeddedConfig::default()
        .failure_counting(match server.failure_counting {
            config::FailureCounting::Culprit => FailureCounting::Culprit,
            config::FailureCounting::Batch => FailureCounting::Batch,
        })
        .fifo_blocks(server.fifo_blocks)
        .new_group_starts(match server.new_group_starts {
            config::GroupStart::Beginning => StartPosition::Beginning,
            config::GroupStart::End => StartPosition::End,
        })
        .create_delay(server.create_delay.get())
        .retention(server.retention.get())
        .quotas(quotas(server.quotas))
        .max_polls_per_group(server.limits.polls_per_group)
        .max_leased_bytes(server.limits.leased_bytes);
    broker.queue_retention = retentions(server);
    broker
}

/// Whether the keys of the server itself describe a project, the first. Where `projects` are listed, they do so only with keys,
/// queues or schedules of their own.
pub(crate) fn lists_own_project(server: &config::Server) -> bool {
    let has_own = server.auth.is_some() || !server.queues.is_empty() || !server.schedules.is_empty();
    has_own || server.projects.is_empty()
}

fn mqs(mqs: &config::Mqs) -> MqsConfig {
    MqsConfig::new().listen(mqs.listen).tls(mqs.tls.as_ref().map(tls)).auto_create(mqs.auto_create)
}

#[cfg(feature = "postgres")]
fn with_postgres(made: ServerConfig, server: &config::Server) -> ServerConfig {
    match postgres(server) {
        Some(postgres) => made.postgres(postgres),
        None => made,
    }
}

/// The settings of PostgreSQL and of the cluster.
#[cfg(feature = "postgres")]
pub(crate) fn postgres(server: &config::Server) -> Option<dms_server::PostgresConfig> {
    let keys = server.postgres.as_ref()?;
    let mut postgres = dms_server::PostgresConfig::new(secret(keys.url.as_ref()));
    postgres.ca_file.clone_from(&keys.ca_file);
    postgres.schema.clone_from(&keys.schema);
    postgres.shards = server.cluster.shards;
    postgres.listen = server.cluster.listen;
    postgres.advertise.clone_from(&server.cluster.advertise);
    postgres.tls = server.cluster.tls.as_ref().map(|tls| {
        let own = TlsFiles { certificate: tls.certificate.clone(), key: tls.key.clone() };
        let mut files = dms_server::PeerTlsFiles::new(own, &tls.ca_file);
        files.server_name.clone_from(&tls.server_name);
        files
    });
    postgres.takeover_after = server.cluster.takeover_after.get();
    Some(postgres)
}

/// A checked configuration does not name PostgreSQL here.
#[cfg(not(feature = "postgres"))]
fn with_postgres(made: ServerConfig, _: &config::Server) -> ServerConfig {
    made
}

#[cfg(feature = "dashboard")]
fn with_dashboard(made: ServerConfig, server: &config::Server) -> ServerConfig {
    let section = &server.admin.0;
    made.dashboard(dashboard(section.dashboard, section.base_path.as_deref(), section.trace_url.as_deref()))
}

#[cfg(not(feature = "dashboard"))]
fn with_dashboard(made: ServerConfig, _: &config::Server) -> ServerConfig {
    made
}

/// The settings of a dashboard.
#[cfg(feature = "dashboard")]
pub(crate) fn dashboard(
    dashboard: config::Dashboard,
    base_path: Option<&str>,
    trace_url: Option<&str>,
) -> dms_server::DashboardOptions {
    let config::Dashboard { enabled, actions } = dashboard;
    let options = dms_server::DashboardOptions::default().enabled(enabled).actions(actions);
    options.base_path(base_path.unwrap_or_default()).trace_url(trace_url.unwrap_or_default())
}

/// The files of a certificate.
pub(crate) fn tls(tls: &config::Tls) -> TlsFiles {
    TlsFiles { certificate: tls.certificate.clone(), key: tls.key.clone() }
}

fn project(project: &config::Project) -> Project {
    let mut made = Project::new(project.id.as_str());
    made.name = project.name.clone().unwrap_or_else(|| project.id.clone());
    made.access_keys = access_keys(project.auth.as_ref());
    made.users = users(project.auth.as_ref());
    made.signatures = signatures(project.auth.as_ref());
    made.quotas = Some(quotas(project.quotas));
    made.queues = project.queues.iter().map(queue).collect();
    with_schedules(made, &project.schedules)
}

/// Adds the schedules of a checked configuration: none of them is wrong.
fn with_schedules(project: Project, schedules: &[config::Schedule]) -> Project {
    let added = schedules.iter().filter_map(|schedule| Some((schedule.queue.as_str(), schedule.to_new().ok()?)));
    added.fold(project, |project, (queue, schedule)| project.schedule(queue, schedule))
}

fn access_keys(auth: Option<&config::ServerAuth>) -> Vec<AccessKey> {
    let keys = auth.into_iter().flat_map(config::ServerAuth::keys);
    keys.map(|key| {
        let made = AccessKey::new(key.access_key.as_str(), secret(key.secret_key.as_ref()));
        let made = made.rights(rights(key.rights.as_ref()));
        match &key.security_token {
            Some(token) => made.security_token(secret(Some(token))),
            None => made,
        }
    })
    .collect()
}

fn users(auth: Option<&config::ServerAuth>) -> Vec<User> {
    let users = auth.into_iter().flat_map(|auth| &auth.users);
    users
        .map(|user| {
            User::new(user.user.as_str(), secret(user.password.as_ref()), user.domain.as_str())
                .rights(rights(user.rights.as_ref()))
        })
        .collect()
}

fn signatures(auth: Option<&config::ServerAuth>) -> SignatureRules {
    let rules = SignatureRules::default();
    match auth {
        Some(auth) => rules.require_host(auth.require_signed_host).reject_replays(auth.reject_replays),
        None => rules,
    }
}

/// The rights that are written, or all of them.
fn rights(written: Option<&config::Rights>) -> Rights {
    written.map_or_else(Rights::default, |rights| {
        Rights::none().send(rights.send.clone()).consume(rights.consume.clone()).manage(rights.manage.clone())
    })
}

/// A secret; a checked configuration has all of them.
fn secret(secret: Option<&config::Secret>) -> secret::Secret {
    secret::Secret::from(secret.map(config::Secret::expose).unwrap_or_default())
}

fn quotas(quotas: config::Quotas) -> Quotas {
    Quotas::default().queues(quotas.queues).groups_per_queue(quotas.groups_per_queue)
}

/// The retention policies of single queues.
fn retentions(server: &config::Server) -> HashMap<(ProjectId, String), RetentionPolicy> {
    let own = server.queues.iter().map(|spec| (server.project_id.as_str(), spec));
    let further =
        server.projects.iter().flat_map(|project| project.queues.iter().map(|spec| (project.id.as_str(), spec)));
    let policy = |spec: &config::QueueSpec| RetentionPolicy {
        retention: spec.retention.map(config::Span::get),
        delete_when_settled: spec.delete_when_settled,
    };
    let said = own.chain(further).map(|(project, spec)| ((ProjectId::from(project), spec.name.clone()), policy(spec)));
    said.filter(|(_, policy)| *policy != RetentionPolicy::default()).collect()
}

fn queue(spec: &config::QueueSpec) -> StartQueue {
    let queue = NewQueue {
        name: spec.name.clone(),
        mode: spec.mode,
        description: spec.description.clone(),
        max_consume_count: spec.max_consume_count,
        retention_hours: spec.retention_hours,
    };
    spec.groups.iter().fold(StartQueue::new(queue), StartQueue::group)
}
