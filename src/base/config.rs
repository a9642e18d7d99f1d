//! How a base is made: which method, what it must be able to do, which clock. And why that can fail.
//!
//! The rules are libevent's: the first method in the order of preference that is not avoided, not disabled by the environment and has all features that
//! are required. A method asked for by name must exist and must not be disabled: there is no silent other choice.

use crate::backend::{self, Backend, Features, Method};
use evd_proto::name::shown;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What a new base should be like.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The method by libevent's name; `None` = the best that fits.
    pub method: Option<String>,
    /// Methods not to use, by name; unknown names are ignored.
    ///
    /// Source: libevent, `event_config_avoid_method`.
    pub avoid: Vec<String>,
    /// Features that the method must have.
    pub require: Features,
    /// Whether `EVENT_NO<METHOD>` in the environment does not count.
    pub ignore_env: bool,
    /// Changes are collected and applied just before a wait, where the method can.
    ///
    /// Source: libevent, `EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST`.
    pub changelist: bool,
    /// What the base takes the time from.
    pub clock: Clock,
}

/// What a base takes the time from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// `CLOCK_MONOTONIC`, in ns.
    #[default]
    Monotonic,
    /// A test's own, in ns. Real time does not count then: a wait with a timeout looks once and returns at once, and only a wait without one blocks.
    /// A pollable fd is readable at a deadline that this clock has reached when it was armed, and else not.
    Manual(Arc<AtomicU64>),
}

/// Why there is no base.
#[derive(Debug)]
#[non_exhaustive]
pub enum BaseError {
    /// This build has no method of that name.
    UnknownMethod {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The method exists, and somebody does not want it used.
    Avoided {
        /// What was asked for.
        name: String,
        /// Who: an environment variable's name, or "the configuration".
        by: &'static str,
    },
    /// No method fits.
    NoMethod {
        /// What each lacks.
        why: String,
    },
    /// The kernel refused (`EMFILE`, `ENFILE`, `ENOMEM`).
    Os(io::Error),
}

impl std::fmt::Display for BaseError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BaseError::UnknownMethod { name, known } => {
                write!(f, "there is no method {}; this build has {}", shown(name), known.join(", "))
            }
            BaseError::Avoided { name, by } if by.starts_with("EVENT_NO") => {
                write!(f, "the method {name} is disabled by {by}; unset it or ask for another method")
            }
            BaseError::Avoided { name, by } => {
                write!(f, "the method {name} is asked for and avoided by {by}; drop one of the two")
            }
            BaseError::NoMethod { why } => write!(f, "no method fits: {why}"),
            BaseError::Os(e) => write!(f, "the kernel refused a new base: {e}"),
        }
    }
}

impl std::error::Error for BaseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BaseError::Os(e) => Some(e),
            _ => None,
        }
    }
}

const CHANGELIST: &str = "EVENT_EPOLL_USE_CHANGELIST";
const CONFIGURATION: &str = "the configuration";

/// Opens the method that `config` leads to.
pub(super) fn open(config: &Config) -> Result<Box<dyn Backend + Send>, BaseError> {
    let methods = backend::methods();
    if let Some(name) = &config.method {
        let Some(method) = methods.iter().find(|m| m.name == name) else {
            let known = methods.iter().map(|m| m.name).collect();
            return Err(BaseError::UnknownMethod { name: name.clone(), known });
        };
        if let Some(by) = avoided_by(method, config) {
            return Err(BaseError::Avoided { name: name.clone(), by });
        }
        if let Some(why) = lacks(method, config.require) {
            return Err(BaseError::NoMethod { why });
        }
        return open_method(method, config).map_err(BaseError::Os);
    }
    let (mut why, mut fault) = (Vec::new(), None);
    for method in methods {
        if let Some(by) = avoided_by(method, config) {
            let verb = if by == CONFIGURATION { "avoided" } else { "disabled" };
            why.push(format!("{} is {verb} by {by}", method.name));
        } else if let Some(lack) = lacks(method, config.require) {
            why.push(lack);
        } else {
            match open_method(method, config) {
                Ok(backend) => return Ok(backend),
                Err(e) => fault = Some(e),
            }
        }
    }
    Err(fault.map_or_else(|| BaseError::NoMethod { why: why.join("; ") }, BaseError::Os))
}

fn open_method(method: &Method, config: &Config) -> io::Result<Box<dyn Backend + Send>> {
    let asked = config.changelist || (!config.ignore_env && backend::is_in_environment(CHANGELIST));
    match method.with_changelist {
        Some(open) if asked => open(),
        _ => (method.open)(),
    }
}

/// Opens once more what a base has, whatever was asked for when that was made.
pub(super) fn open_again(backend: &dyn Backend) -> io::Result<Box<dyn Backend + Send>> {
    let name = backend.method();
    let is_it = |m: &&Method| m.name == name || name.strip_prefix(m.name).is_some_and(|r| r.starts_with(' '));
    let method = backend::methods().iter().find(is_it).ok_or(io::ErrorKind::Unsupported)?;
    match method.with_changelist {
        Some(open) if method.name != name => open(),
        _ => (method.open)(),
    }
}

fn avoided_by(method: &Method, config: &Config) -> Option<&'static str> {
    if config.avoid.iter().any(|a| a == method.name) {
        return Some(CONFIGURATION);
    }
    (!config.ignore_env && backend::is_disabled(method)).then_some(method.env)
}

fn lacks(method: &Method, require: Features) -> Option<String> {
    let missing = require - method.features;
    let mut names: Vec<_> = missing.iter_names().map(|(name, _)| name.to_owned()).collect();
    let unknown = missing - Features::all();
    if !unknown.is_empty() {
        names.push(format!("{:#x}, which is no feature", unknown.bits()));
    }
    (!missing.is_empty()).then(|| format!("{} lacks {}", method.name, names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(config: Config) -> String {
        open(&config).map(|b| b.method()).unwrap_err().to_string()
    }

    #[test]
    fn the_best_method_that_fits_is_taken() {
        let plain = Config { ignore_env: true, ..Config::default() };
        assert_eq!(open(&plain).unwrap().method(), backend::methods()[0].name);
        let last = backend::methods().last().unwrap();
        let named = Config { method: Some(last.name.into()), ..plain };
        assert_eq!(open(&named).unwrap().method(), last.name);
    }

    #[test]
    fn refusals_say_what_is_wrong_and_what_would_be_right() {
        let plain = Config { ignore_env: true, ..Config::default() };
        let unknown = fails(Config { method: Some("kqueue2".into()), ..plain.clone() });
        assert!(unknown.contains("\"kqueue2\"") && unknown.contains(backend::methods()[0].name), "{unknown}");
        let first = backend::methods()[0].name.to_owned();
        let both = fails(Config { method: Some(first.clone()), avoid: vec![first.clone()], ..plain.clone() });
        assert!(both.contains(&first) && both.contains(CONFIGURATION), "{both}");
        let none = fails(Config { require: Features::all() | Features::from_bits_retain(1 << 9), ..plain });
        assert!(none.contains(&first) && none.contains("lacks"), "{none}");
    }
}
