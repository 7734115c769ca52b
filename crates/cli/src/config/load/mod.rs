//! Reading a configuration: the layers in their order, what the types make of them, and what the checks find.

mod defaults;
mod extract;
pub(crate) mod loaded;
pub(crate) mod request;
pub(crate) mod secret_files;
mod suggest;

use self::{defaults::follow, extract::extract, loaded::Loaded, request::Request};
use crate::config::{
    check::{check, checker::Checker},
    schema::config::Config,
    source::{
        environment::{overrides, passed_over},
        layer::Override,
        path::KeyPath,
        problem::{ConfigError, Origin},
        tree::Tree,
    },
};

/// Reads and checks a configuration.
///
/// # Errors
/// When anything in it is wrong: every mistake is named, with its place, key, value and what is allowed.
pub fn load(request: &Request) -> Result<Loaded, ConfigError> {
    let mut tree = Tree::default();
    let mut problems = Vec::new();
    if let Some(file) = &request.file {
        problems.extend(tree.add_file(file, &|name| request.variable(name)));
    }
    let variables = overrides(&request.variables);
    problems.extend(variables.iter().chain(&request.flags).filter_map(|setting| tree.add(setting)));
    problems.extend(vendor_project(&tree, request).and_then(|setting| tree.add(&setting)));

    let extracted = extract::<Config>(&tree);
    problems.extend(extracted.problems);
    let mut config = extracted.value;
    config.secret_variables.clone_from(tree.secret_variables());
    follow(&mut config, &|path| tree.is_set(path));
    let mut checker = Checker::new(&tree, extracted.broken, problems);
    let secret_files = secret_files::read_files(&mut config, &request.in_force, &mut checker);
    check(&config, &mut checker);
    match checker.finish() {
        problems if problems.is_empty() => {
            let service_links = passed_over(&request.variables);
            Ok(Loaded { config, tree, service_links, secret_files })
        }
        problems => Err(ConfigError::new(problems)),
    }
}

/// The project of the vendor's variables, for a service of which the configuration names none.
fn vendor_project(tree: &Tree, request: &Request) -> Option<Override> {
    const VARIABLE: &str = "HUAWEICLOUD_SDK_PROJECT_ID";
    let path = KeyPath::dotted("dms.project_id");
    let endpoint = tree.value(&KeyPath::dotted("dms.endpoint"))?.as_str()?;
    let open = endpoint != "embedded" && tree.value(&path).is_none();
    let value = request.variable(VARIABLE).filter(|value| open && !value.is_empty())?;
    Some(Override { path, origin: Origin::Variable(VARIABLE.to_owned()), value })
}
