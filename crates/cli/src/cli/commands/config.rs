//! `config`: the settings in force and where each comes from, and the schema of a file.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::{
    cli::support::{context::Context, failure::Failure, table::Table},
    config::schema,
};

/// Options of `config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the effective settings; secrets are masked
    #[command(after_help = "\
Examples:
  dms-worker config show                        all effective settings
  dms-worker config show --origin -c prod.yaml  with the origin of each setting")]
    Show {
        /// Print the origin of each setting
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON Schema of configuration files, for editors
    #[command(after_help = "\
Examples:
  dms-worker config schema > dms-worker.schema.json

An editor with a YAML language server completes and checks a configuration that begins with \
the line
  # yaml-language-server: $schema=./dms-worker.schema.json")]
    Schema,
}

/// Shows the configuration, or what one may be.
pub(crate) fn run(args: &ConfigArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        ConfigCommand::Show { origin } => show(origin, context),
        ConfigCommand::Schema => Ok(context.printer().json(&schema())?),
    }
}

fn show(origin: bool, context: &Context) -> Result<(), Failure> {
    let settings = context.load()?.settings();
    let mut table = Table::new(if origin { &["KEY", "VALUE", "ORIGIN"] } else { &["KEY", "VALUE"] });
    let mut object = Map::new();
    for setting in settings {
        let source = setting.origin.to_string();
        let text = setting.value.as_str().map_or_else(|| setting.value.to_string(), str::to_owned);
        let text = if setting.value.is_null() { "-".to_owned() } else { text };
        let cells = [setting.key.clone(), text, source.clone()];
        table.row(cells.into_iter().take(if origin { 3 } else { 2 }));
        let value = if origin { json!({ "value": setting.value, "origin": source }) } else { setting.value };
        object.insert(setting.key, value);
    }
    Ok(context.printer().print(&table.to_string(), &Value::Object(object))?)
}
