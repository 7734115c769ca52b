//! `key`: the access keys in the file of a server, which takes changes while it runs.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{
    cli::support::{
        confirm::confirm,
        context::Context,
        failure::{ExitKind, Failure},
        private_file,
        table::Table,
    },
    config::{KeysFile, Rights, StoredKey},
};
use dms_protocol::{
    auth::canonical::hex,
    internal::{clock, private},
    limits,
};

/// The random bytes of a secret.
const SECRET_BYTES: usize = 30;
/// How fast a server sees a change, in words.
const TAKEN: &str = "a running server that uses the file takes the change within seconds";

/// Options of `key`.
#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
    /// The file of the keys [config: server.auth.access_keys_file]
    #[arg(long, global = true, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Add an access key, and print it with its secret
    #[command(after_help = "\
Examples:
  dms-worker key add OPERATOR --file keys.yaml                 every right; makes the file
  dms-worker key add SHOP -c server.yaml --send orders --send 'invoices-*'
  dms-worker key add SHOP-2 --like SHOP -c server.yaml         to rotate: then give it to the clients, and remove SHOP

The secret is shown once. Without rights, the key may do everything in its project.")]
    Add {
        /// The identifier of the key [default: a random one]
        access_key: Option<String>,
        /// It may send to the queues of this name, with * for any characters; may be repeated
        #[arg(long, value_name = "QUEUE")]
        send: Vec<String>,
        /// It may consume and acknowledge messages of these queues; may be repeated
        #[arg(long, value_name = "QUEUE")]
        consume: Vec<String>,
        /// It may create, change and delete these queues and their groups; may be repeated
        #[arg(long, value_name = "QUEUE")]
        manage: Vec<String>,
        /// Give it the rights of this key
        #[arg(long, value_name = "KEY", conflicts_with_all = ["send", "consume", "manage"])]
        like: Option<String>,
        /// Write the secret to this new file, with mode 0600, and do not print it
        #[arg(long, value_name = "FILE")]
        secret_key_file: Option<PathBuf>,
    },
    /// List the keys with their rights; secrets are not shown
    #[command(
        after_help = "Examples:\n  dms-worker key list -c server.yaml\n  dms-worker key list --file keys.yaml -o json"
    )]
    List,
    /// Remove a key: requests that it signs are refused
    #[command(after_help = "Examples:\n  dms-worker key remove SHOP -c server.yaml")]
    Remove {
        /// The identifier of the key
        access_key: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Changes or lists the keys.
pub(crate) fn run(args: KeyArgs, context: &Context) -> Result<(), Failure> {
    let file = match args.file {
        Some(file) => file,
        None => configured(context)?,
    };
    let mut keys = KeysFile::read(&file).map_err(|error| Failure::of(ExitKind::Config, error))?;
    match args.command {
        KeyCommand::Add { access_key, send, consume, manage, like, secret_key_file } => {
            let rights = match like {
                Some(like) => find(&keys, &like, &file)?.rights.clone(),
                None if send.is_empty() && consume.is_empty() && manage.is_empty() => None,
                None => Some(checked(Rights { send, consume, manage })?),
            };
            let key = new_key(access_key, rights, &keys)?;
            keys.access_keys.push(key.clone());
            if let Some(secret_key_file) = &secret_key_file {
                save(secret_key_file, &key.secret_key)?;
            }
            write(&keys, &file)?;
            print(&key, secret_key_file.is_none(), context)?;
            context.say(&format!("key {} added to {}; {TAKEN}", key.access_key, file.display()));
            Ok(())
        }
        KeyCommand::List => list(&keys, context),
        KeyCommand::Remove { access_key, yes } => {
            find(&keys, &access_key, &file)?;
            if keys.access_keys.len() == 1 {
                let text = format!("{access_key} is the last key of {}: add another one first", file.display());
                return Err(Failure::of(ExitKind::Usage, text));
            }
            confirm(yes, &format!("requests signed with {access_key} will be refused"))?;
            keys.access_keys.retain(|key| key.access_key != access_key);
            write(&keys, &file)?;
            let text = format!("key {access_key} removed from {}; {TAKEN}", file.display());
            context.done(&text, &json!({ "access_key": access_key }))
        }
    }
}

/// The file that the configuration names for the project.
fn configured(context: &Context) -> Result<PathBuf, Failure> {
    let server = context.load()?.config.server;
    let project = context.global.project_id.as_deref().unwrap_or(&server.project_id);
    if project != server.project_id && server.projects.iter().all(|known| known.id != project) {
        let text =
            format!("the configuration has no project {project}: name one of server.projects, or a file with --file");
        return Err(Failure::of(ExitKind::Usage, text));
    }
    let file = server.auth_of(project).and_then(|auth| auth.access_keys_file.clone());
    file.ok_or_else(|| {
        let text = "the configuration names no file of keys: set server.auth.access_keys_file, or name one with --file";
        Failure::of(ExitKind::Usage, text)
    })
}

fn find<'a>(keys: &'a KeysFile, access_key: &str, file: &Path) -> Result<&'a StoredKey, Failure> {
    let found = keys.access_keys.iter().find(|key| key.access_key == access_key);
    found.ok_or_else(|| {
        let known: Vec<_> = keys.access_keys.iter().map(|key| key.access_key.as_str()).collect();
        let hint = if known.is_empty() { "it has none".to_owned() } else { format!("it has {}", known.join(", ")) };
        Failure::of(ExitKind::Usage, format!("{} has no key {access_key}: {hint}", file.display()))
    })
}

fn checked(rights: Rights) -> Result<Rights, Failure> {
    for (right, patterns) in [("send", &rights.send), ("consume", &rights.consume), ("manage", &rights.manage)] {
        if let Some(wrong) = patterns.iter().find(|pattern| limits::queue_pattern(pattern).is_err()) {
            let text = format!("--{right} `{wrong}` is not allowed: write a queue's name, with * for any part of it");
            return Err(Failure::of(ExitKind::Usage, text));
        }
    }
    Ok(rights)
}

fn new_key(access_key: Option<String>, rights: Option<Rights>, keys: &KeysFile) -> Result<StoredKey, Failure> {
    let mut random = [0; SECRET_BYTES + 8];
    dms_server::internal::random(&mut random)
        .map_err(|error| Failure::new(format!("the system gives no random numbers: {error}")))?;
    let (secret, name) = random.split_at(SECRET_BYTES);
    let access_key = access_key.unwrap_or_else(|| format!("AK{}", hex(name).to_uppercase()));
    let usable = |c: char| c.is_ascii_graphic() && c != ',';
    if access_key.is_empty() || !access_key.chars().all(usable) {
        let text = format!("`{access_key}` is no identifier of a key: visible ASCII without commas is allowed");
        return Err(Failure::of(ExitKind::Usage, text));
    }
    if keys.access_keys.iter().any(|key| key.access_key == access_key) {
        return Err(Failure::of(
            ExitKind::Usage,
            format!("there is a key {access_key} already: add one of another name"),
        ));
    }
    let added = Some(clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    Ok(StoredKey { access_key, secret_key: URL_SAFE_NO_PAD.encode(secret), rights, added })
}

fn write(keys: &KeysFile, file: &Path) -> Result<(), Failure> {
    let text = keys.to_text().map_err(Failure::new)?;
    private_file::replace(file, &text).map_err(|error| Failure::unwritable(file, &error))
}

/// Writes the secret for the client.
fn save(file: &Path, secret: &str) -> Result<(), Failure> {
    let written = private::options().write(true).create_new(true).open(file);
    let written = written.and_then(|mut file| writeln!(file, "{secret}").and_then(|()| file.sync_all()));
    written.map_err(|error| match error.kind() {
        // The file may contain the secret of another key.
        io::ErrorKind::AlreadyExists => {
            let name = file.display();
            Failure::of(
                ExitKind::Usage,
                format!("--secret-key-file: {name} exists, and the secret is written to a new file: name another one"),
            )
        }
        _ => Failure::unwritable(file, &error),
    })
}

/// Prints a key as the section `dms.auth` of a client has it.
fn print(key: &StoredKey, with_secret: bool, context: &Context) -> Result<(), Failure> {
    let mut text = format!("access_key: {}", key.access_key);
    let mut json = json!({ "access_key": key.access_key });
    if with_secret {
        text += &format!("\nsecret_key: {}", key.secret_key);
        json["secret_key"] = Value::from(key.secret_key.as_str());
    }
    Ok(context.printer().print(&text, &json)?)
}

fn list(keys: &KeysFile, context: &Context) -> Result<(), Failure> {
    let mut table = Table::new(&["ACCESS KEY", "SEND", "CONSUME", "MANAGE", "ADDED"]);
    let mut json = Vec::new();
    for key in &keys.access_keys {
        let right = |patterns: fn(&Rights) -> &Vec<String>| match &key.rights {
            None => "*".to_owned(),
            Some(rights) if patterns(rights).is_empty() => "-".to_owned(),
            Some(rights) => patterns(rights).join(" "),
        };
        let added = key.added.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            key.access_key.clone(),
            right(|rights| &rights.send),
            right(|rights| &rights.consume),
            right(|rights| &rights.manage),
            added,
        ]);
        json.push(json!({ "access_key": key.access_key, "rights": key.rights, "added": key.added }));
    }
    Ok(context.printer().table(&table, &json)?)
}
