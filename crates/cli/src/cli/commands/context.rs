//! `context`: the services that a user works with, saved by name.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::support::{
    context::{Context, NO_PROJECTS},
    contexts::{Contexts, SavedContext},
    failure::{ExitKind, Failure},
    table::Table,
};
use dms_protocol::internal::secret_url::without_secrets;

/// Options of `context`.
#[derive(Debug, Args)]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    command: ContextCommand,
}

#[derive(Debug, Subcommand)]
enum ContextCommand {
    /// Save a service under a name: with --endpoint, --project-id and --api-version, or with -c
    #[command(after_help = "\
Examples:
  dms-worker context add local --endpoint http://127.0.0.1:9400
  dms-worker context add prod --endpoint https://dms.example.com --project-id p1 \\
      --access-key AK --secret-key-file ~/.dms-prod
  dms-worker context add staging -c staging.yaml

Secrets are not saved, only the files that hold them.")]
    Add {
        /// The name
        name: String,
        /// A PEM file with the authorities that the service's certificate is trusted by
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
        /// The identifier of an access key
        #[arg(long, value_name = "AK", requires = "secret_key_file")]
        access_key: Option<String>,
        /// The file that holds the secret of the access key
        #[arg(long, value_name = "FILE", requires = "access_key")]
        secret_key_file: Option<PathBuf>,
        /// A file that holds a token
        #[arg(long, value_name = "FILE", conflicts_with = "access_key")]
        token_file: Option<PathBuf>,
        /// Replace a context of this name
        #[arg(long)]
        replace: bool,
        /// Make it the current context
        #[arg(long = "use")]
        make_current: bool,
    },
    /// List the contexts; the current one has a star
    #[command(after_help = "Examples:\n  dms-worker context list\n  dms-worker context list -o json")]
    List,
    /// Make a context the current one, which commands use unless -c or --context names another
    #[command(after_help = "\
Examples:
  dms-worker context use prod
  dms-worker context use --none             no current context
  dms-worker --context staging queue list   one command with another context")]
    Use {
        /// The name
        #[arg(required_unless_present = "none")]
        name: Option<String>,
        /// Have no current context
        #[arg(long, conflicts_with = "name")]
        none: bool,
    },
    /// Show a context, by default the current one
    #[command(after_help = "Examples:\n  dms-worker context show\n  dms-worker context show prod")]
    Show {
        /// The name
        name: Option<String>,
    },
    /// Remove a context
    #[command(after_help = "Examples:\n  dms-worker context remove staging")]
    Remove {
        /// The name
        name: String,
    },
}

/// Manages the contexts.
pub(crate) fn run(args: ContextArgs, context: &Context) -> Result<(), Failure> {
    let mut contexts = Contexts::read()?;
    match args.command {
        ContextCommand::Add { name, ca_file, access_key, secret_key_file, token_file, replace, make_current } => {
            let global = &context.global;
            let saved = SavedContext {
                config: absolute(global.config.clone())?,
                endpoint: global.endpoint.clone(),
                project_id: global.project_id.clone(),
                api_version: global.api_version.clone(),
                dialect: global.dialect.clone(),
                ca_file: absolute(ca_file)?,
                access_key,
                secret_key_file: absolute(secret_key_file)?,
                token_file: absolute(token_file)?,
            };
            add(&mut contexts, &name, saved, replace)?;
            if make_current {
                contexts.current = Some(name.clone());
            }
            contexts.save()?;
            let next = if make_current { "is current" } else { "`dms-worker context use` makes it the current one" };
            context.done(&format!("context {name} saved; {next}"), &json!({ "name": name }))
        }
        ContextCommand::List => list(&contexts, context),
        ContextCommand::Use { name, .. } => {
            name.as_ref().map(|name| contexts.get(name)).transpose()?;
            contexts.current.clone_from(&name);
            contexts.save()?;
            let text =
                name.as_ref().map_or("no context is current".to_owned(), |name| format!("context {name} is current"));
            context.done(&text, &json!({ "current": name }))
        }
        ContextCommand::Show { name } => {
            let chosen = || Ok::<_, Failure>(context.chosen_context()?.map(|chosen| chosen.name));
            let Some(name) = name.map_or_else(chosen, |name| Ok(Some(name)))? else {
                return Err(Failure::of(
                    ExitKind::Usage,
                    "no context is current: name one, or run `dms-worker context use`",
                ));
            };
            show(&name, &contexts, context)
        }
        ContextCommand::Remove { name } => {
            contexts.get(&name)?;
            contexts.contexts.remove(&name);
            contexts.current.take_if(|current| *current == name);
            contexts.save()?;
            context.done(&format!("context {name} removed"), &json!({ "name": name }))
        }
    }
}

fn add(contexts: &mut Contexts, name: &str, saved: SavedContext, replace: bool) -> Result<(), Failure> {
    let usage = |text: String| Err(Failure::of(ExitKind::Usage, text));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return usage(format!("`{name}` is not a name: use letters, digits, `-`, `_` and `.`"));
    }
    if saved.endpoint.is_none() && saved.config.is_none() {
        return usage("a context needs a service: add --endpoint URL, or -c FILE".to_owned());
    }
    if saved.dialect.as_deref() == Some("mqs") && saved.project_id.is_some() {
        return usage(NO_PROJECTS.to_owned());
    }
    // A URL with a password would save a secret.
    if let Some(endpoint) = saved.endpoint.as_ref().filter(|endpoint| without_secrets(endpoint) != **endpoint) {
        return usage(format!("{} holds a secret: save credentials with --secret-key-file", without_secrets(endpoint)));
    }
    if contexts.contexts.contains_key(name) && !replace {
        return usage(format!("there is a context {name}: add --replace, or choose another name"));
    }
    contexts.contexts.insert(name.to_owned(), saved);
    Ok(())
}

fn list(contexts: &Contexts, context: &Context) -> Result<(), Failure> {
    let mut table = Table::new(&["CURRENT", "NAME", "ENDPOINT", "PROJECT"]);
    let mut objects = Vec::new();
    for (name, saved) in &contexts.contexts {
        let current = contexts.current.as_ref() == Some(name);
        let file = saved.config.as_ref().map(|file| file.display().to_string());
        let endpoint = saved.endpoint.clone().or(file).unwrap_or_default();
        let project = saved.project_id.clone().unwrap_or_else(|| "-".to_owned());
        table.row([if current { "*" } else { "" }.to_owned(), name.clone(), endpoint, project]);
        objects.push(object(name, saved, current));
    }
    Ok(context.printer().table(&table, &objects)?)
}

fn show(name: &str, contexts: &Contexts, context: &Context) -> Result<(), Failure> {
    let saved = contexts.get(name)?;
    let mut table = Table::new(&["KEY", "VALUE"]);
    table.row(["name".to_owned(), name.to_owned()]);
    let file = saved.config.iter().map(|file| ("config", file.display().to_string()));
    for (key, value) in file.chain(saved.settings()) {
        table.row([key.to_owned(), value]);
    }
    let current = contexts.current.as_deref() == Some(name);
    Ok(context.printer().print(&table.to_string(), &object(name, saved, current))?)
}

fn object(name: &str, saved: &SavedContext, current: bool) -> Value {
    let mut object = json!(saved);
    object["name"] = name.into();
    object["current"] = current.into();
    object
}

/// A context is used in any directory.
fn absolute(file: Option<PathBuf>) -> Result<Option<PathBuf>, Failure> {
    let absolute =
        |file: PathBuf| std::path::absolute(&file).map_err(|error| Failure::unreadable(file.display(), &error));
    file.map(absolute).transpose()
}
