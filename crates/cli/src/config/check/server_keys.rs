//! The settings of the library's server by the keys and in the words of the configuration.

use crate::config::{
    schema::server::{Server, ServerAuth},
    server_settings::lists_own_project,
    source::path::KeyPath,
};
use dms_protocol::settings::InvalidSetting;

/// The key of a setting. Most settings have the same name in the library and in the configuration.
pub(super) fn key_of(server: &Server, setting: &str) -> KeyPath {
    let steps = steps(setting);
    let key = |keys: &[&str]| KeyPath::new([&["server"], keys].concat());
    match steps.as_slice() {
        ["projects", number, rest @ ..] => key_of_project(&ProjectKeys::find(server, number), rest),
        ["admin_token"] if server.admin.0.token.is_some() => key(&["admin", "token"]),
        ["admin_read_token"] => key(&["admin", "read_token"]),
        ["dashboard", rest @ ..] => key(&[&["admin"], rest].concat()),
        ["broker", "max_polls_per_group"] => key(&["limits", "polls_per_group"]),
        ["broker", "max_leased_bytes"] => key(&["limits", "leased_bytes"]),
        ["broker", "queue_retention", queue] => key_of_retention(server, queue),
        ["broker", rest @ ..] => key(rest),
        ["limits", "total_body_bytes"] => key(&["limits", "request_bytes"]),
        ["postgres", name @ ("takeover_after" | "shards" | "listen" | "advertise" | "tls")] => key(&["cluster", name]),
        steps => key(steps),
    }
}

/// The mistake in the words of the configuration. `None` if it follows from a file that could not be read, which was reported.
pub(super) fn message(server: &Server, invalid: &InvalidSetting) -> Option<String> {
    let problem = invalid.problem();
    let problem = match invalid.setting() {
        "listen" | "mqs.listen" => {
            problem.replace("no project has access keys or users: add some", "server.auth is not set: set it")
        }
        "admin" | "admin_read_token" if has_unread_token(server) => return None,
        "admin" => problem.replace("`admin_token`", "server.admin_token").replace("`admin_tls`", "server.admin_tls"),
        "admin_read_token" => problem.replace("`admin_token`", "server.admin.token"),
        "postgres" => problem.replace("`data_dir`", "server.data_dir"),
        setting => match missing_secret(server, setting) {
            Some(MissingSecret { has_file: true, .. }) => return None,
            Some(MissingSecret { missing, .. }) => missing.to_owned(),
            None => problem.to_owned(),
        },
    };
    Some(match invalid.value() {
        Some(value) => format!("`{value}` {problem}"),
        None => problem,
    })
}

/// The steps of `projects[0].users[1].password`.
fn steps(setting: &str) -> Vec<&str> {
    setting.split(['.', '[']).map(|step| step.trim_end_matches(']')).collect()
}

/// Where the configuration has a project of the library.
struct ProjectKeys<'a> {
    path: KeyPath,
    auth: Option<&'a ServerAuth>,
    /// Whether it is the project that the keys of the server itself describe.
    is_own: bool,
}

impl<'a> ProjectKeys<'a> {
    /// The project of this number in the settings of the library, which have the server's own project first.
    fn find(server: &'a Server, number: &str) -> Self {
        let path = KeyPath::dotted("server");
        let number: usize = number.parse().unwrap_or_default();
        let place = number.checked_sub(usize::from(lists_own_project(server)));
        match place.and_then(|place| Some((place, server.projects.get(place)?))) {
            Some((place, project)) => {
                Self { path: path.child("projects").child(place), auth: project.auth.as_ref(), is_own: false }
            }
            None => Self { path, auth: server.auth.as_ref(), is_own: true },
        }
    }
}

fn key_of_project(project: &ProjectKeys<'_>, setting: &[&str]) -> KeyPath {
    let below = |keys: &[&str]| keys.iter().fold(project.path.clone(), |path, key| path.child(key));
    match setting {
        [] => below(&["auth"]),
        ["id"] if project.is_own => below(&["project_id"]),
        ["name"] if project.is_own => below(&["project_name"]),
        ["access_keys", place, rest @ ..] if is_of_file(project.auth, place) => {
            below(&[&["auth", "access_keys_file"], rest].concat())
        }
        ["access_keys" | "users", ..] => below(&[&["auth"], setting].concat()),
        _ => below(setting),
    }
}

/// Whether an access key, by its number among all, stands in the keys file.
fn is_of_file(auth: Option<&ServerAuth>, place: &str) -> bool {
    place.parse().is_ok_and(|place: usize| auth.is_some_and(|auth| place >= auth.access_keys.len()))
}

/// The key of a queue's retention, which the library has by project and queue.
fn key_of_retention(server: &Server, queue: &str) -> KeyPath {
    let path = KeyPath::dotted("server");
    let (project, name) = queue.split_once('/').unwrap_or_default();
    let further = server.projects.iter().enumerate();
    let further = further.map(|(place, further)| (path.child("projects").child(place), &further.id, &further.queues));
    let mut all = std::iter::once((path.clone(), &server.project_id, &server.queues)).chain(further);
    let found = all.find_map(|(path, id, queues)| {
        let place = queues.iter().position(|queue| id == project && queue.name == name && queue.retention.is_some())?;
        Some(path.child("queues").child(place).child("retention"))
    });
    found.unwrap_or_else(|| path.child("queues"))
}

/// Whether the token of the admin address stands in a file that could not be read.
fn has_unread_token(server: &Server) -> bool {
    let file = server.admin.0.token_file.as_ref().or(server.admin_token_file.as_ref());
    server.admin_token().is_none() && file.is_some()
}

/// A secret that the configuration does not have.
struct MissingSecret {
    /// Whether a file is named that should have it.
    has_file: bool,
    missing: &'static str,
}

/// Whether a setting is a secret that is missing.
fn missing_secret(server: &Server, setting: &str) -> Option<MissingSecret> {
    let (secret, file, missing) = match steps(setting).as_slice() {
        ["postgres", "url"] => {
            let postgres = server.postgres.as_ref()?;
            (&postgres.url, &postgres.url_file, "is required and missing: set it or url_file")
        }
        ["projects", number, "access_keys", place, "secret_key"] => {
            let key = ProjectKeys::find(server, number).auth?.keys().nth(place.parse().ok()?)?;
            (&key.secret_key, &key.secret_key_file, "is missing: set secret_key or secret_key_file")
        }
        ["projects", number, "users", place, "password"] => {
            let user = ProjectKeys::find(server, number).auth?.users.get(place.parse::<usize>().ok()?)?;
            (&user.password, &user.password_file, "is missing: set password or password_file")
        }
        _ => return None,
    };
    secret.is_none().then_some(MissingSecret { has_file: file.is_some(), missing })
}
