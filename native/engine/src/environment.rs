//! The environment variables that Python sees.
//!
//! Python reads C's environment when it starts. The BEAM keeps a copy of its own, so what is
//! changed here is seen by Python and by what Python starts, and not by Elixir.

use std::collections::BTreeMap;

use crate::error::BridgeError;

/// Whether a variable of the surrounding environment would change how Python starts.
///
/// `PYTHONHOME` or `PYTHONPATH` of a developer's shell would load another Python's modules,
/// `PYTHONFAULTHANDLER` would take signals from the VM, and so on: none of them is let through.
pub fn is_pythons(name: &str) -> bool {
    name.starts_with("PYTHON") || name == "__PYVENV_LAUNCHER__" || name == "VIRTUAL_ENV"
}

/// What Python is started with, before the settings of the application.
pub const DEFAULTS: &[(&str, &str)] = &[
    // Nothing of the user's own site-packages.
    ("PYTHONNOUSERSITE", "1"),
    // For the Pythons that Python starts: text and paths are UTF-8, whatever the locale.
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
                "{name:?} is no name for an environment variable"
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

/// Makes C's environment what Python is to see.
///
/// # Safety
/// No other thread may be reading C's environment. The VM reads its own copy; call this once,
/// before Python and anything that comes with it runs.
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
