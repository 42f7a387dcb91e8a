//! Settings from flags and environment variables, as written.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};

use super::declaration::{PREFIX, Setting};
use super::settings::{self, FILE, SECTIONS};
use super::value::{Content, Origin, Value};

/// A variable that differs from that of a setting by at most this many letters counts as a typo.
const TYPO: usize = 2;

/// Variables of the commands that talk to a gateway, which are no settings of one.
const OF_COMMANDS: [&str; 3] = [
    "POINTSMAN_ADMIN",
    "POINTSMAN_ADMIN_CA",
    "POINTSMAN_ADMIN_TOKEN",
];

/// The settings from flags and variables, not checked yet.
#[derive(Debug, Clone, Default)]
pub struct Written(BTreeMap<&'static str, Value>);

impl Written {
    /// Removes and returns the value of a setting.
    pub(super) fn take(&mut self, setting: &Setting) -> Option<Value> {
        self.0.remove(setting.name)
    }
}

impl Args for Written {
    fn augment_args(command: Command) -> Command {
        let command = command.arg(argument(&FILE));
        SECTIONS.iter().fold(command, |command, section| {
            let arguments = section.settings.iter().map(argument);
            command.args(arguments.map(|argument| argument.help_heading(section.title)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// An argument that accepts any value, because clap would stop at the first value that it refuses.
fn argument(setting: &Setting) -> Arg {
    Arg::new(setting.name)
        .long(setting.flag())
        .env(setting.variable())
        .value_name(setting.value_name())
        .value_parser(value_parser!(OsString))
        .help(setting.help())
}

impl FromArgMatches for Written {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut written = Self::default();
        written.update_from_arg_matches(matches)?;
        Ok(written)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for setting in with_file() {
            let Some(text) = matches.get_one::<OsString>(setting.name) else {
                continue;
            };
            let origin = match matches.value_source(setting.name) {
                Some(ValueSource::EnvVariable) => Origin::Variable(setting.variable()),
                _ => Origin::Flag(format!("--{}", setting.flag())),
            };
            let value = Value::new(Content::Plain(text.clone()), origin);
            self.0.insert(setting.name, value);
        }
        Ok(())
    }
}

/// Reports environment variables that are probably misspelt settings. Other unknown variables
/// belong to other programs, such as those that Kubernetes sets for a service called pointsman.
pub fn misspelt_variables(variables: impl Iterator<Item = OsString>) -> Vec<String> {
    let known: Vec<String> = with_file().map(Setting::variable).collect();
    let is_known = |name: &String| known.contains(name) || OF_COMMANDS.contains(&name.as_str());
    let mut mistakes: Vec<String> = variables
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.starts_with(PREFIX) && !is_known(name))
        .filter_map(|name| {
            let near = |known: &&String| strsim::damerau_levenshtein(known, &name) <= TYPO;
            let meant = known.iter().find(near)?;
            Some(format!(
                "no setting has the variable {name}; did you mean {meant}?"
            ))
        })
        .collect();
    mistakes.sort();
    mistakes
}

/// All settings that have a flag and a variable.
fn with_file() -> impl Iterator<Item = &'static Setting> {
    std::iter::once(&FILE).chain(settings::all())
}
