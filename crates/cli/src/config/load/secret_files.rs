//! Secrets that stand in files of their own: reading them, and reading them again.

use std::path::{Path, PathBuf};

use crate::config::{
    check::checker::Checker,
    load::{FileSecrets, keys_file},
    schema::{
        config::Config,
        deduplicate::{Deduplicate, KeyStore},
        dms::Auth,
        server::{Server, ServerAuth},
        values::Secret,
    },
    source::path::KeyPath,
};
use dms_protocol::internal::{private, text};

/// What reading the files of secrets found besides mistakes.
#[derive(Clone, Debug, Default)]
pub(crate) struct SecretFiles {
    /// The files that any user of the machine can read.
    pub(crate) exposed: Vec<PathBuf>,
    /// The files that cannot be used, and why: the secrets in force stay.
    pub(crate) kept: Vec<String>,
}

/// Fills in every secret that stands in a file, and reports secrets that are set twice and files that cannot be used. A file whose
/// secret is `in_force` is no mistake: that secret stays.
pub(crate) fn read_files(config: &mut Config, in_force: &FileSecrets, checker: &mut Checker<'_>) -> SecretFiles {
    let mut found = SecretFiles::default();
    for slot in slots(config) {
        if slot.secret.is_some() {
            checker.report(&slot.path, format!("`{}` is set too: keep one of the two", slot.key));
            continue;
        }
        found.read(&slot.path, slot.file, in_force, checker, |secret| *slot.secret = Some(secret));
    }
    for (path, auth) in server_auths(&mut config.server) {
        if let Some(file) = auth.access_keys_file.as_ref().filter(|file| private::is_exposed(file) && !is_mounted(file))
        {
            found.exposed.push(file.clone());
        }
        match keys_file::take(auth, in_force) {
            Ok(kept) => found.kept.extend(kept),
            Err(error) => checker.report(&path.child("access_keys_file"), error),
        }
    }
    for (place, worker) in config.workers.iter_mut().enumerate() {
        let Some(http) = &mut worker.handler.http else { continue };
        let path = http_path(place).child("header_files");
        for (name, file) in &http.header_files {
            let path = path.child(name);
            if http.headers.keys().any(|given| given.eq_ignore_ascii_case(name)) {
                checker.report(&path, format!("`headers` has `{name}` too: keep one of the two"));
                continue;
            }
            let headers = &mut http.headers;
            found.read(&path, file, in_force, checker, |value| drop(headers.insert(name.clone(), value)));
        }
    }
    found
}

impl SecretFiles {
    /// Reads one file, and gives its secret to `set`.
    fn read(
        &mut self,
        path: &KeyPath,
        file: &Path,
        in_force: &FileSecrets,
        checker: &mut Checker<'_>,
        set: impl FnOnce(Secret),
    ) {
        if private::is_exposed(file) && !is_mounted(file) {
            self.exposed.push(file.to_owned());
        }
        match (content(file), in_force.get(file)) {
            (Ok(secret), _) => set(secret),
            (Err(error), Some(secret)) => {
                self.kept.push(error);
                set(secret.clone());
            }
            (Err(error), None) => checker.report(path, error),
        }
    }
}

/// A secret that stands in a file.
struct Slot<'a> {
    /// The key of the file.
    path: KeyPath,
    /// The key of the secret itself.
    key: &'static str,
    secret: &'a mut Option<Secret>,
    file: &'a PathBuf,
}

/// Every secret of a configuration that stands in a file, but for headers.
fn slots(config: &mut Config) -> Vec<Slot<'_>> {
    let mut slots = Slots::default();
    if let Some(auth) = &mut config.dms.auth {
        slots.client(auth);
    }
    slots.server(&mut config.server);
    for (place, worker) in config.workers.iter_mut().enumerate() {
        if let Some(http) = &mut worker.handler.http {
            slots.add(&http_path(place), "signature_key", &mut http.signature_key, &http.signature_key_file);
        }
        if let Some(deduplicate) = &mut worker.deduplicate {
            slots.keys(&KeyPath::dotted("workers").child(place).child("deduplicate").child("store"), deduplicate);
        }
    }
    for (place, publisher) in config.publishers.iter_mut().enumerate() {
        let path = KeyPath::dotted("publishers").child(place);
        slots.add(&path, "token", &mut publisher.token, &publisher.token_file);
    }
    for (place, outbox) in config.outboxes.iter_mut().enumerate() {
        let path = KeyPath::dotted("outboxes").child(place).child("postgres");
        slots.add(&path, "url", &mut outbox.postgres.url, &outbox.postgres.url_file);
    }
    let (path, admin) = (KeyPath::dotted("admin"), &mut config.admin);
    slots.add(&path, "token", &mut admin.token, &admin.token_file);
    slots.add(&path, "read_token", &mut admin.read_token, &admin.read_token_file);
    slots.0
}

#[derive(Default)]
struct Slots<'a>(Vec<Slot<'a>>);

impl<'a> Slots<'a> {
    fn add(&mut self, parent: &KeyPath, key: &'static str, secret: &'a mut Option<Secret>, file: &'a Option<PathBuf>) {
        let path = parent.child(format!("{key}_file"));
        self.0.extend(file.as_ref().map(|file| Slot { path, key, secret, file }));
    }

    fn keys(&mut self, path: &KeyPath, deduplicate: &'a mut Deduplicate) {
        match &mut deduplicate.store {
            KeyStore::Memory => {}
            KeyStore::Postgres(keys) => self.add(&path.child("postgres"), "url", &mut keys.url, &keys.url_file),
            KeyStore::Redis(keys) => self.add(&path.child("redis"), "url", &mut keys.url, &keys.url_file),
        }
    }

    fn client(&mut self, auth: &'a mut Auth) {
        let path = KeyPath::dotted("dms.auth");
        self.add(&path, "secret_key", &mut auth.secret_key, &auth.secret_key_file);
        self.add(&path, "security_token", &mut auth.security_token, &auth.security_token_file);
        self.add(&path, "token", &mut auth.token, &auth.token_file);
        if let Some(iam) = &mut auth.iam {
            self.add(&path.child("iam"), "password", &mut iam.password, &iam.password_file);
        }
    }

    fn server(&mut self, server: &'a mut Server) {
        let path = KeyPath::dotted("server");
        self.add(&path, "admin_token", &mut server.admin_token, &server.admin_token_file);
        let admin = &mut server.admin.0;
        self.add(&path.child("admin"), "token", &mut admin.token, &admin.token_file);
        self.add(&path.child("admin"), "read_token", &mut admin.read_token, &admin.read_token_file);
        if let Some(postgres) = &mut server.postgres {
            self.add(&path.child("postgres"), "url", &mut postgres.url, &postgres.url_file);
        }
        self.callers(&path.child("auth"), server.auth.as_mut());
        for (place, project) in server.projects.iter_mut().enumerate() {
            self.callers(&path.child("projects").child(place).child("auth"), project.auth.as_mut());
        }
    }

    fn callers(&mut self, path: &KeyPath, auth: Option<&'a mut ServerAuth>) {
        let Some(auth) = auth else { return };
        for (place, key) in auth.access_keys.iter_mut().enumerate() {
            let path = path.child("access_keys").child(place);
            self.add(&path, "secret_key", &mut key.secret_key, &key.secret_key_file);
            self.add(&path, "security_token", &mut key.security_token, &key.security_token_file);
        }
        for (place, user) in auth.users.iter_mut().enumerate() {
            self.add(&path.child("users").child(place), "password", &mut user.password, &user.password_file);
        }
    }

    /// Reads the files again. Returns why some of them cannot be used: their secrets stay as they were.
    fn read_again(self) -> Vec<String> {
        let read = |slot: Slot<'_>| match content(slot.file) {
            Ok(secret) => {
                *slot.secret = Some(secret);
                None
            }
            Err(error) => Some(error),
        };
        self.0.into_iter().filter_map(read).collect()
    }
}

/// The files of keys that `dms-worker key` changes.
fn keys_files(server: &mut Server) -> Vec<PathBuf> {
    server_auths(server).filter_map(|(_, auth)| auth.access_keys_file.clone()).collect()
}

/// The sections of a server with keys, by their places.
fn server_auths(server: &mut Server) -> impl Iterator<Item = (KeyPath, &mut ServerAuth)> {
    let path = KeyPath::dotted("server");
    let own = server.auth.as_mut().map(|auth| (path.child("auth"), auth));
    let further = server.projects.iter_mut().enumerate().filter_map(move |(place, project)| {
        Some((path.child("projects").child(place).child("auth"), project.auth.as_mut()?))
    });
    own.into_iter().chain(further)
}

fn http_path(place: usize) -> KeyPath {
    KeyPath::dotted("workers").child(place).child("handler").child("http")
}

/// Whether a file was put there by Kubernetes or Docker: its rights are theirs, and only the container sees it.
fn is_mounted(file: &Path) -> bool {
    file.starts_with("/run/secrets") || std::fs::read_link(file).is_ok_and(|target| target.starts_with("..data"))
}

/// The secret in a file, or why there is none.
fn content(file: &Path) -> Result<Secret, String> {
    match text::read(file) {
        Ok(text) if !text.trim().is_empty() => Ok(Secret::new(text.trim_end_matches(['\r', '\n']))),
        Ok(_) => Err(format!("`{}` is empty: put the secret in it", file.display())),
        Err(error) => Err(format!("`{}` cannot be read: {error}", file.display())),
    }
}

impl Config {
    /// The files that hold secrets.
    pub(crate) fn secret_files(&self) -> Vec<PathBuf> {
        let mut copy = self.clone();
        let files: Vec<_> = slots(&mut copy).into_iter().map(|slot| slot.file.clone()).collect();
        let headers = self.workers.iter().filter_map(|worker| worker.handler.http.as_ref());
        let headers = headers.flat_map(|http| http.header_files.values().cloned());
        files.into_iter().chain(headers).chain(keys_files(&mut copy.server)).collect()
    }

    /// The same with the files that hold secrets read again, and why some of these cannot be used: their secrets stay.
    pub(crate) fn with_files_read_again(&self) -> (Self, Vec<String>) {
        let mut read = self.clone();
        let mut unusable = Slots(slots(&mut read)).read_again();
        for http in read.workers.iter_mut().filter_map(|worker| worker.handler.http.as_mut()) {
            for (name, file) in &http.header_files {
                match content(file) {
                    Ok(secret) => drop(http.headers.insert(name.clone(), secret)),
                    Err(error) => unusable.push(error),
                }
            }
        }
        for (_, auth) in server_auths(&mut read.server) {
            unusable.extend(keys_file::take_again(auth).err());
        }
        (read, unusable)
    }

    /// The secrets that stand in files, as they are in force.
    pub(crate) fn file_secrets(&self) -> FileSecrets {
        let mut copy = self.clone();
        let mut secrets: FileSecrets =
            slots(&mut copy).into_iter().filter_map(|slot| Some((slot.file.clone(), slot.secret.clone()?))).collect();
        for http in self.workers.iter().filter_map(|worker| worker.handler.http.as_ref()) {
            let header = |(name, file): (&String, &PathBuf)| Some((file.clone(), http.headers.get(name)?.clone()));
            secrets.extend(http.header_files.iter().filter_map(header));
        }
        secrets.extend(server_auths(&mut copy.server).filter_map(|(_, auth)| keys_file::in_force(auth)));
        secrets
    }
}

impl Server {
    /// The files that hold the server's secrets: of keys and users, and the tokens of the admin address.
    pub(crate) fn secret_files(&self) -> Vec<PathBuf> {
        let mut copy = self.clone();
        let mut slots = Slots::default();
        slots.server(&mut copy);
        let mut files: Vec<_> = slots.0.into_iter().map(|slot| slot.file.clone()).collect();
        files.extend(keys_files(&mut copy));
        files
    }
}
