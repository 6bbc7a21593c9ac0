//! The interpreter. It is started once, on the model thread, and never finalised, because extension modules
//! crash when Python is finalised.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use chatterbex_nif::known_reason;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};

use crate::environment;
use crate::error::BridgeError;
use crate::signals;
use crate::venv::{Venv, minor_version};

/// The most bytes of a traceback to keep, from its end, which names what failed.
const TRACEBACK: usize = 8 * 1024;

/// The environment Python was started in.
static STARTED: OnceLock<Venv> = OnceLock::new();

/// Starts Python in the virtual environment of `program`. Once it runs, only the same environment
/// is accepted.
///
/// Python installs no signal handlers: SIGINT and SIGTERM stay the VM's.
///
/// # Errors
/// `Environment`, `OnePython`, `WrongPrefix`.
pub fn initialise(program: &str, env: &BTreeMap<String, String>) -> Result<(), BridgeError> {
    if let Some(venv) = STARTED.get() {
        if venv.program == Path::new(program) {
            return check_prefix(venv);
        }
        return Err(BridgeError::OnePython(format!(
            "Python already runs in {}, not in {program}",
            venv.root.display()
        )));
    }

    // SAFETY: may be called before Python is initialised.
    if unsafe { ffi::Py_IsInitialized() } != 0 {
        let what = "another library in this VM has already started Python";
        return Err(BridgeError::OnePython(what.into()));
    }

    // SAFETY: may be called before Python is initialised; the string is static.
    let banner = unsafe { CStr::from_ptr(ffi::Py_GetVersion()) }.to_string_lossy();
    let version = minor_version(&banner)
        .ok_or_else(|| BridgeError::Environment(format!("libpython calls itself {banner:?}")))?;
    let venv = Venv::check(program, version, framework().as_deref())?;

    // SAFETY: no part of Python runs yet, and the VM reads its own copy of the environment.
    unsafe { environment::apply(env) };

    // Python finds the environment's pyvenv.cfg next to this name. It keeps the pointer.
    let name: Vec<_> = program
        .chars()
        .map(|c| u32::from(c) as libc::wchar_t)
        .chain([0])
        .collect();
    // SAFETY: the name ends with 0 and is never freed.
    unsafe { ffi::Py_SetProgramName(Vec::leak(name).as_ptr().cast()) };

    use_utf8();
    signals::keep_exit_statuses();
    // Calls Py_InitializeEx(0), where 0 means "no signal handlers", and releases the GIL.
    Python::initialize();

    check_prefix(STARTED.get_or_init(|| venv))
}

/// The file of the open libpython, on the system where Python searches for its standard library from that
/// file.
fn framework() -> Option<PathBuf> {
    if !cfg!(target_os = "macos") {
        return None;
    }

    // SAFETY: only reads the link map; the path is copied at once.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        let symbol = ffi::Py_GetVersion as *const () as *const c_void;
        if libc::dladdr(symbol, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        let path = CStr::from_ptr(info.dli_fname).to_string_lossy();
        Some(PathBuf::from(path.into_owned()))
    }
}

/// Makes text and paths UTF-8, whatever locale the VM was started in (often C, in a container).
///
/// An embedded Python does not read `PYTHONUTF8`, but it reads this older flag if it has it.
fn use_utf8() {
    // SAFETY: the symbol is an int in every Python that has it, read only when Python starts.
    unsafe {
        let flag = libc::dlsym(libc::RTLD_DEFAULT, c"Py_UTF8Mode".as_ptr());
        if !flag.is_null() {
            *flag.cast::<c_int>() = 1;
        }
    }
}

fn check_prefix(venv: &Venv) -> Result<(), BridgeError> {
    let found =
        Python::attach(|py| -> PyResult<String> { py.import("sys")?.getattr("prefix")?.extract() });
    let found = found.map_err(|error| BridgeError::Environment(error.to_string()))?;

    let real = |path: &Path| fs::canonicalize(path).ok();
    if real(Path::new(&found)) == real(&venv.root) {
        Ok(())
    } else {
        Err(BridgeError::WrongPrefix {
            expected: venv.root.display().to_string(),
            found,
        })
    }
}

/// Puts folders in front of `sys.path`, in order. Folders that are already in it stay where they are.
pub fn prepend_path(py: Python<'_>, folders: &[String]) -> PyResult<()> {
    let path = py.import("sys")?.getattr("path")?;
    let path = path.cast::<PyList>()?;

    for folder in folders.iter().rev() {
        if !path.contains(folder)? {
            path.insert(0, folder)?;
        }
    }
    Ok(())
}

/// Releases an object and collects reference cycles, of which a model has many.
pub fn release(py: Python<'_>, object: impl Sized) {
    drop(object);

    // Nothing depends on the result. Exceptions come from finalisers, and are printed for their authors.
    if let Err(error) = py.import("gc").and_then(|gc| gc.call_method0("collect")) {
        error.write_unraisable(py, None);
    }
}

/// Converts an exception to an error. `reason` is for exceptions without their own.
pub fn failure(py: Python<'_>, error: &PyErr, reason: &'static str) -> BridgeError {
    let value = error.value(py);
    let text = |name: &str| -> Option<String> { value.getattr(name).ok()?.extract().ok() };

    let exception = match error.get_type(py).fully_qualified_name() {
        Ok(name) => name.to_string_lossy().into_owned(),
        Err(_) => "an exception".to_owned(),
    };
    // A ChatterbexError has a reason and a message for users.
    let own = text("reason").and_then(|reason| known_reason(&reason));
    let message = match (own, text("message")) {
        (Some(_), Some(message)) => message,
        _ => error.to_string(),
    };

    BridgeError::Python {
        reason: own.unwrap_or(reason),
        message,
        exception,
        traceback: traceback(py, error).unwrap_or_default(),
    }
}

fn traceback(py: Python<'_>, error: &PyErr) -> PyResult<String> {
    let lines = py.import("traceback")?.call_method1(
        "format_exception",
        (error.get_type(py), error.value(py), error.traceback(py)),
    )?;
    let mut text = String::new();
    for line in lines.try_iter()? {
        text.push_str(&line?.cast::<PyString>()?.to_string_lossy());
    }

    let mut start = text.len().saturating_sub(TRACEBACK);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    Ok(text[start..].to_owned())
}
