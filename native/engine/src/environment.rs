//! The environment variables that Python sees.
//!
//! Python reads C's environment when it starts. The BEAM keeps its own copy. So Python and its child
//! processes see changes made here, and Elixir does not.

use std::collections::BTreeMap;

use crate::error::BridgeError;

/// Whether a variable of the surrounding environment would change how Python starts.
///
/// `PYTHONHOME` or `PYTHONPATH` from a developer's shell would load another Python's modules,
/// `PYTHONFAULTHANDLER` would take signals from the VM, and so on. None of them is passed on.
pub fn is_pythons(name: &str) -> bool {
    name.starts_with("PYTHON") || name == "__PYVENV_LAUNCHER__" || name == "VIRTUAL_ENV"
}

/// The variables that Python starts with, before the application's own settings.
pub const DEFAULTS: &[(&str, &str)] = &[
    // Ignore the user's own site-packages.
    ("PYTHONNOUSERSITE", "1"),
    // For child processes that run Python: text and paths are UTF-8, whatever the locale.
    ("PYTHONUTF8", "1"),
];

/// Checks that C can hold these variables.
///
/// # Errors
/// `Invalid` for a name that is empty or has `=`, and for NUL in either.
pub fn check(variables: &BTreeMap<String, String>) -> Result<(), BridgeError> {
    for (name, value) in variables {
        if name.is_empty() || name.contains('=') || name.contains('\0') {
            return Err(BridgeError::Invalid(format!(
                "{name:?} is not a valid name for an environment variable"
            )));
        }
        if value.contains('\0') {
            return Err(BridgeError::Invalid(format!(
                "the environment variable {name} must not contain NUL"
            )));
        }
    }
    Ok(())
}

/// Sets C's environment for Python.
///
/// # Safety
/// No other thread may be reading C's environment. The VM reads its own copy. Call this once, before
/// Python or any of its libraries runs.
pub unsafe fn apply(variables: &BTreeMap<String, String>) {
    let unwanted: Vec<_> = std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| is_pythons(&name.to_string_lossy()))
        .collect();

    // SAFETY: the caller's.
    unsafe {
        for name in unwanted {
            std::env::remove_var(name);
        }
        for (name, value) in DEFAULTS {
            std::env::set_var(name, value);
        }
        for (name, value) in variables {
            std::env::set_var(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn pythons_own_variables_are_known() {
        for name in ["PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV"] {
            assert!(is_pythons(name), "{name}");
        }
        for name in ["PATH", "HOME", "PYENV_ROOT", "HF_HOME", "LANG"] {
            assert!(!is_pythons(name), "{name}");
        }
    }

    #[test]
    fn what_c_cannot_hold_is_refused() {
        assert!(check(&one("HF_HOME", "/x")).is_ok());
        assert!(check(&one("", "x")).is_err());
        assert!(check(&one("A=B", "x")).is_err());
        assert!(check(&one("A\0", "x")).is_err());
        assert!(check(&one("A", "x\0y")).is_err());
    }
}
