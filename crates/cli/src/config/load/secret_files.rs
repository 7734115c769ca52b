//! Secrets that stand in files of their own: reading them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::config::{
    check::checker::Checker,
    schema::{
        config::Config,
        dms::Auth,
        server::{Server, ServerAuth},
        values::Secret,
    },
    source::path::KeyPath,
};
use dms_protocol::{private, text};

/// Fills every secret that stands in a file, and reports files that cannot be read and secrets that are given twice. Gives the files
/// that any user of the machine may read.
pub(crate) fn read_files(config: &mut Config, checker: &mut Checker<'_>) -> Vec<PathBuf> {
    let mut slots = Slots { checker, exposed: Vec::new() };
    if let Some(auth) = &mut config.dms.auth {
        slots.client_auth(auth);
    }
    let server = &mut config.server;
    slots.read(&KeyPath::dotted("server"), "admin_token", &mut server.admin_token, server.admin_token_file.as_ref());
    slots.server_auth(&KeyPath::dotted("server.auth"), server.auth.as_mut());
    for (place, project) in config.server.projects.iter_mut().enumerate() {
        let path = KeyPath::dotted("server.projects").child(place).child("auth");
        slots.server_auth(&path, project.auth.as_mut());
    }
    for (place, worker) in config.workers.iter_mut().enumerate() {
        if let Some(http) = &mut worker.handler.http {
            let path = KeyPath::dotted("workers").child(place).child("handler").child("http");
            slots.read(&path, "signature_key", &mut http.signature_key, http.signature_key_file.as_ref());
            slots.headers(&path, &mut http.headers, &http.header_files);
        }
    }
    for (place, publisher) in config.publishers.iter_mut().enumerate() {
        let path = KeyPath::dotted("publishers").child(place);
        slots.read(&path, "token", &mut publisher.token, publisher.token_file.as_ref());
    }
    slots.read(&KeyPath::dotted("admin"), "token", &mut config.admin.token, config.admin.token_file.as_ref());
    slots.exposed
}

/// Whether a file was put there by Kubernetes or Docker: its rights are theirs, and only the container sees it.
fn is_mounted(file: &Path) -> bool {
    file.starts_with("/run/secrets") || std::fs::read_link(file).is_ok_and(|target| target.starts_with("..data"))
}

struct Slots<'a, 'b> {
    checker: &'a mut Checker<'b>,
    exposed: Vec<PathBuf>,
}

impl Slots<'_, '_> {
    fn client_auth(&mut self, auth: &mut Auth) {
        let path = KeyPath::dotted("dms.auth");
        self.read(&path, "secret_key", &mut auth.secret_key, auth.secret_key_file.as_ref());
        self.read(&path, "security_token", &mut auth.security_token, auth.security_token_file.as_ref());
        self.read(&path, "token", &mut auth.token, auth.token_file.as_ref());
        if let Some(iam) = &mut auth.iam {
            self.read(&path.child("iam"), "password", &mut iam.password, iam.password_file.as_ref());
        }
    }

    fn server_auth(&mut self, path: &KeyPath, auth: Option<&mut ServerAuth>) {
        let Some(auth) = auth else { return };
        for (place, key) in auth.access_keys.iter_mut().enumerate() {
            let path = path.child("access_keys").child(place);
            self.read(&path, "secret_key", &mut key.secret_key, key.secret_key_file.as_ref());
            self.read(&path, "security_token", &mut key.security_token, key.security_token_file.as_ref());
        }
        for (place, user) in auth.users.iter_mut().enumerate() {
            let path = path.child("users").child(place);
            self.read(&path, "password", &mut user.password, user.password_file.as_ref());
        }
    }

    fn read(&mut self, parent: &KeyPath, key: &str, secret: &mut Option<Secret>, file: Option<&PathBuf>) {
        let Some(file) = file else { return };
        let path = parent.child(format!("{key}_file"));
        if secret.is_some() {
            return self.checker.report(&path, format!("`{key}` is set too: keep one of the two"));
        }
        if let Some(found) = self.content(&path, file) {
            *secret = Some(found);
        }
    }

    /// Adds the headers that stand in files to the others.
    fn headers(&mut self, parent: &KeyPath, headers: &mut BTreeMap<String, Secret>, files: &BTreeMap<String, PathBuf>) {
        for (name, file) in files {
            let path = parent.child("header_files").child(name);
            if headers.keys().any(|given| given.eq_ignore_ascii_case(name)) {
                self.checker.report(&path, format!("`headers` has `{name}` too: keep one of the two"));
            } else if let Some(value) = self.content(&path, file) {
                headers.insert(name.clone(), value);
            }
        }
    }

    /// The secret in a file.
    fn content(&mut self, path: &KeyPath, file: &Path) -> Option<Secret> {
        if private::is_exposed(file) && !is_mounted(file) {
            self.exposed.push(file.to_owned());
        }
        content(file).map_err(|error| self.checker.report(path, error)).ok()
    }
}

/// The secret in a file, or why there is none.
fn content(file: &Path) -> Result<Secret, String> {
    match text::read(file) {
        Ok(text) if !text.trim().is_empty() => Ok(Secret::new(text.trim_end_matches(['\r', '\n']))),
        Ok(_) => Err(format!("`{}` is empty: put the secret in it", file.display())),
        Err(error) => Err(format!("`{}` cannot be read: {error}", file.display())),
    }
}

impl Server {
    /// The files that hold secrets of keys and users.
    pub(crate) fn secret_files(&self) -> Vec<PathBuf> {
        let mut copy = self.clone();
        copy.file_slots().map(|(_, file)| file.clone()).collect()
    }

    /// The same with the files that hold secrets of keys and users read again.
    ///
    /// # Errors
    /// When one of them cannot be read or is empty.
    pub(crate) fn with_files_read_again(&self) -> Result<Self, String> {
        let mut read = self.clone();
        for (secret, file) in read.file_slots() {
            *secret = Some(content(file)?);
        }
        Ok(read)
    }

    /// The secrets of keys and users that stand in files.
    fn file_slots(&mut self) -> impl Iterator<Item = (&mut Option<Secret>, &PathBuf)> {
        let further = self.projects.iter_mut().filter_map(|project| project.auth.as_mut());
        self.auth.iter_mut().chain(further).flat_map(ServerAuth::file_slots)
    }
}

impl Auth {
    /// The same with the files that hold secrets read again.
    ///
    /// # Errors
    /// When one of them cannot be read or is empty.
    pub(crate) fn with_files_read_again(&self) -> Result<Self, String> {
        let mut read = self.clone();
        let mut slots = vec![
            (&mut read.secret_key, &read.secret_key_file),
            (&mut read.security_token, &read.security_token_file),
            (&mut read.token, &read.token_file),
        ];
        slots.extend(read.iam.as_mut().map(|iam| (&mut iam.password, &iam.password_file)));
        for (secret, file) in slots {
            if let Some(file) = file {
                *secret = Some(content(file)?);
            }
        }
        Ok(read)
    }
}

impl ServerAuth {
    fn file_slots(&mut self) -> impl Iterator<Item = (&mut Option<Secret>, &PathBuf)> {
        let keys = self.access_keys.iter_mut().flat_map(|key| {
            let secret_key = (&mut key.secret_key, &key.secret_key_file);
            [secret_key, (&mut key.security_token, &key.security_token_file)]
        });
        let users = self.users.iter_mut().map(|user| (&mut user.password, &user.password_file));
        keys.chain(users).filter_map(|(secret, file)| Some((secret, file.as_ref()?)))
    }
}
