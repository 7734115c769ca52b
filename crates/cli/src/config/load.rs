//! Reading a configuration: which layers there are, and in which order.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{
    Config,
    check::{Checker, check},
    environment::{FILE_VARIABLE, overrides, passed_over},
    extract::extract,
    follow::follow,
    layer::Override,
    path::KeyPath,
    problem::{ConfigError, Origin},
    secrets,
    tree::Tree,
};

/// What a configuration is read from. Later layers win: defaults, file, variables, flags.
#[derive(Clone, Default)]
pub struct Request {
    file: Option<PathBuf>,
    variables: Vec<(String, String)>,
    flags: Vec<Override>,
}

impl fmt::Debug for Request {
    /// Without the variables' values: some of them are secrets, and not only ours.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variables: Vec<_> = self.variables.iter().map(|(name, _)| name).collect();
        f.debug_struct("Request")
            .field("file", &self.file)
            .field("variables", &variables)
            .field("flags", &self.flags)
            .finish()
    }
}

impl Request {
    /// No file, no variables, no flags: the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads this file; none by default.
    pub fn file(mut self, path: impl Into<Option<PathBuf>>) -> Self {
        self.file = path.into();
        self
    }

    /// Takes settings and `${...}` references from these variables; none by default.
    pub fn variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables = variables.into_iter().collect();
        self
    }

    /// Takes the process's environment.
    pub fn environment(self) -> Self {
        // Variables that are not UTF-8 cannot be ours.
        let readable =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        self.variables(readable)
    }

    /// Sets `key`, as in `server.listen`, by the flag of this name, as in `--listen`.
    pub fn flag(mut self, name: &str, key: &str, value: impl Into<String>) -> Self {
        self.flags.push(Override {
            path: KeyPath::dotted(key),
            origin: Origin::Flag(name.to_owned()),
            value: value.into(),
        });
        self
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }
}

/// A configuration that passed every check, with the origin of its values.
#[derive(Clone)]
pub struct Loaded {
    /// The settings; secrets from files are filled in.
    pub config: Config,
    pub(super) tree: Tree,
    service_links: Vec<String>,
    exposed_secrets: Vec<PathBuf>,
}

impl fmt::Debug for Loaded {
    /// Without the layers, which have secrets as they were written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Loaded {
    /// The variables that look like settings and are not: Kubernetes sets them for each Service whose name begins with `dms-worker`.
    pub fn service_links(&self) -> &[String] {
        &self.service_links
    }

    /// The files of secrets that any user of the machine may read, but for those that Kubernetes or Docker mounted.
    pub fn exposed_secrets(&self) -> &[PathBuf] {
        &self.exposed_secrets
    }
}

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
    let exposed_secrets = secrets::read_files(&mut config, &mut checker);
    check(&config, &mut checker);
    match checker.finish() {
        problems if problems.is_empty() => {
            let service_links = passed_over(&request.variables);
            Ok(Loaded { config, tree, service_links, exposed_secrets })
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

/// The file that is read when none is named: the one in `$DMS_WORKER_CONFIG`, else the first that exists of
/// `./config.yaml` (unless `here` is false), `${XDG_CONFIG_HOME:-~/.config}/dms-worker/config.yaml` and
/// `/etc/dms-worker/config.yaml`.
pub fn search(here: bool) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = variable(FILE_VARIABLE) {
        // Not looked for: a file that is named and missing is a mistake.
        return Some(named);
    }
    let home = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let candidates = [
        here.then(|| PathBuf::from("config.yaml")),
        home.map(|home| home.join("dms-worker/config.yaml")),
        Some(Path::new("/etc/dms-worker/config.yaml").to_owned()),
    ];
    candidates.into_iter().flatten().find(|file| file.is_file())
}
