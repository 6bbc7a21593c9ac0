//! Why a libpython could not be opened.

use chatterbex_nif::{Detail, NifError};
use thiserror::Error;

use crate::version::MINIMUM;

const REMEDY: &str = "run `mix chatterbex.setup --force` to choose another Python";

/// Why a file is not the Python library that is needed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum LibPythonError {
    /// The file does not exist or cannot be read.
    #[error("cannot read the Python library {path}: {why}; {REMEDY}")]
    Unreadable {
        /// The file.
        path: String,
        /// The system's message.
        why: String,
    },
    /// An `ar` archive: a Python built without a shared library.
    #[error(
        "{path} is a static library: this Python was built without a shared one and cannot be \
         embedded; {REMEDY}, or build it with --enable-shared (pyenv: \
         PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install)"
    )]
    Static {
        /// The file.
        path: String,
    },
    /// Any other kind of file.
    #[error("{path} is {what}, not a shared Python library; {REMEDY}")]
    NotALibrary {
        /// The file.
        path: String,
        /// What it is, with its article.
        what: String,
    },
    /// The library is for another processor.
    #[error("{path} is built for {found}, but this VM runs on {expected}; {REMEDY}")]
    WrongArchitecture {
        /// The file.
        path: String,
        /// The file's processor.
        found: String,
        /// This VM's.
        expected: String,
    },
    /// The dynamic linker refused the file.
    #[error("cannot open the Python library {path}: {why}; {REMEDY}")]
    Refused {
        /// The file.
        path: String,
        /// The dynamic linker's message.
        why: String,
    },
    /// The library is not Python's.
    #[error("{path} is a library, but not Python's: it has no Py_GetVersion; {REMEDY}")]
    NotPython {
        /// The file.
        path: String,
    },
    /// The Python is too old.
    #[error(
        "{path} is Python {version}; Chatterbex needs {}.{} or newer; {REMEDY}",
        MINIMUM.0, MINIMUM.1
    )]
    TooOld {
        /// The file.
        path: String,
        /// Its version.
        version: String,
    },
    /// A Python without a GIL, which has a different binary interface.
    #[error("{path} is a free-threaded Python {version}, which is not supported; {REMEDY}")]
    FreeThreaded {
        /// The file.
        path: String,
        /// Its version.
        version: String,
    },
    /// Another library is open already.
    #[error(
        "this VM already runs the Python library {open}, and a VM can have only one: restart it \
         to use {path}"
    )]
    AnotherIsOpen {
        /// The requested file.
        path: String,
        /// The file that is open.
        open: String,
    },
}

impl LibPythonError {
    fn cause_and_path(&self) -> (&'static str, &str) {
        use LibPythonError::*;

        match self {
            Unreadable { path, .. } => ("unreadable", path),
            Static { path } => ("static_library", path),
            NotALibrary { path, .. } => ("not_a_library", path),
            WrongArchitecture { path, .. } => ("wrong_architecture", path),
            Refused { path, .. } => ("refused", path),
            NotPython { path } => ("not_python", path),
            TooOld { path, .. } => ("too_old", path),
            FreeThreaded { path, .. } => ("free_threaded", path),
            AnotherIsOpen { path, .. } => ("another_is_open", path),
        }
    }
}

impl From<LibPythonError> for NifError {
    fn from(error: LibPythonError) -> Self {
        let (cause, path) = error.cause_and_path();
        NifError::new("not_set_up", error.to_string())
            .cause(cause)
            .with("path", Detail::Text(path.to_owned()))
    }
}
