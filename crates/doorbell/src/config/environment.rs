//! The environment of the process, read once.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

/// Variables that commands of agents inherit; they get no others of ours.
const INHERITED: [&str; 18] = [
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "USER",
    "LOGNAME",
    "SHELL",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// The variables of a process. Their values are never shown: there are secrets among them.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, OsString>);

impl Environment {
    /// Those of this process. Variables whose names are not UTF-8 are left out.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn read() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// The same with a variable set, or taken away.
    #[must_use]
    pub fn with(mut self, name: &str, value: Option<&OsStr>) -> Self {
        match value {
            Some(value) => self.0.insert(name.to_owned(), value.to_owned()),
            None => self.0.remove(name),
        };
        self
    }

    /// A variable; none if it is not set or not UTF-8.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.var_os(name)?.to_str()
    }

    /// A variable as it is.
    pub fn var_os(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str)
    }

    /// Whether `NO_COLOR` is set to something: <https://no-color.org>.
    pub fn refuses_colours(&self) -> bool {
        self.var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
    }

    /// The user's home folder; none without `HOME`.
    pub fn home(&self) -> Option<PathBuf> {
        self.var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
    }

    /// What commands of agents inherit: `PATH`, `HOME`, language, time zone, certificates, proxies and the like.
    pub fn inherited(&self) -> impl Iterator<Item = (&'static str, &OsStr)> {
        INHERITED.into_iter().filter_map(|name| Some((name, self.var_os(name)?)))
    }

    /// All variables whose names begin with `prefix`, in order.
    pub(super) fn beginning_with<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a OsStr)> {
        let from = self.0.range(prefix.to_owned()..);
        from.take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(name, value)| (name.as_str(), value.as_os_str()))
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_no_color_refuses_nothing() {
        let environment = |value: &str| [("NO_COLOR", value)].into_iter().collect::<Environment>();
        assert!(environment("1").refuses_colours());
        assert!(!environment("").refuses_colours() && !Environment::default().refuses_colours());
    }

    #[test]
    fn commands_inherit_listed_variables_only_and_debug_shows_no_value() {
        let environment: Environment =
            [("PATH", "/bin"), ("DOORBELL_TOKEN", "hunter2"), ("https_proxy", "http://p")].into_iter().collect();
        let inherited: Vec<_> = environment.inherited().map(|(name, _)| name).collect();
        assert_eq!(inherited, ["PATH", "https_proxy"]);
        assert_eq!(format!("{environment:?}"), r#"{"DOORBELL_TOKEN", "PATH", "https_proxy"}"#);
    }
}
