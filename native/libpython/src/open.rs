//! Opens the library, once for the life of the process.

use std::ffi::{CStr, c_char, c_void};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};

use crate::diagnosis::{self, HEAD};
use crate::error::LibPythonError;
use crate::version::Version;

/// The open library, by its real path.
struct Opened {
    path: PathBuf,
    version: String,
}

static OPENED: Mutex<Option<Opened>> = Mutex::new(None);

/// Opens the Python library at `path` forever, with global symbols, and returns its version, such as
/// `3.11.7`. Opening the same library again returns the same version.
///
/// # Errors
/// See [`LibPythonError`]. A refused library does not stay open.
pub fn open(path: &str) -> Result<String, LibPythonError> {
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    let real = real_path(path)?;

    if let Some(one) = &*opened {
        if one.path == real {
            return Ok(one.version.clone());
        }
        return Err(another(path, &one.path));
    }

    diagnosis::check(path, &head(path)?)?;

    // Another NIF may have opened its own Python.
    if let Some(other) = global_python()
        && fs::canonicalize(&other).ok().as_ref() != Some(&real)
    {
        return Err(another(path, &other));
    }

    // First without global symbols: a refused library must leave no trace.
    let refused = |error: libloading::Error| LibPythonError::Refused {
        path: path.to_owned(),
        why: words(&error),
    };
    // SAFETY: opening a library runs its constructors; Python's do nothing, and the setup chose this path
    // because the file is Python's.
    let trial = unsafe { Library::open(Some(path), RTLD_LAZY | RTLD_LOCAL) }.map_err(refused)?;
    let version = version(path, &trial)?;

    // SAFETY: as above.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map_err(refused)?;
    // For ever, because extension modules crash when Python is unloaded.
    std::mem::forget(library);

    *opened = Some(Opened {
        path: real,
        version: version.text.clone(),
    });
    Ok(version.text)
}

fn version(path: &str, library: &Library) -> Result<Version, LibPythonError> {
    let not_python = || LibPythonError::NotPython {
        path: path.to_owned(),
    };

    // SAFETY: Python's function of that name has had this signature since 1.5; it may be called before
    // Python is initialised, and returns a static string.
    let banner = unsafe {
        let get = library
            .get::<unsafe extern "C" fn() -> *const c_char>(b"Py_GetVersion\0")
            .map_err(|_| not_python())?;
        let banner = get();
        if banner.is_null() {
            return Err(not_python());
        }
        CStr::from_ptr(banner).to_string_lossy().into_owned()
    };

    let version = Version::parse(&banner).ok_or_else(not_python)?;
    if !version.new_enough() {
        return Err(LibPythonError::TooOld {
            path: path.to_owned(),
            version: version.text,
        });
    }
    if version.free_threaded {
        return Err(LibPythonError::FreeThreaded {
            path: path.to_owned(),
            version: version.text,
        });
    }
    Ok(version)
}

/// The file that a global `Py_GetVersion` comes from, if there is one already.
fn global_python() -> Option<PathBuf> {
    // SAFETY: both calls only read the link map; the path is copied at once.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"Py_GetVersion".as_ptr());
        if symbol.is_null() {
            return None;
        }

        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(symbol as *const c_void, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }

        let path = CStr::from_ptr(info.dli_fname).to_string_lossy();
        Some(PathBuf::from(path.into_owned()))
    }
}

fn another(path: &str, open: &Path) -> LibPythonError {
    LibPythonError::AnotherIsOpen {
        path: path.to_owned(),
        open: open.display().to_string(),
    }
}

fn unreadable(path: &str, error: &std::io::Error) -> LibPythonError {
    LibPythonError::Unreadable {
        path: path.to_owned(),
        why: error.to_string(),
    }
}

fn real_path(path: &str) -> Result<PathBuf, LibPythonError> {
    fs::canonicalize(path).map_err(|error| unreadable(path, &error))
}

fn head(path: &str) -> Result<Vec<u8>, LibPythonError> {
    let mut head = Vec::with_capacity(HEAD);

    File::open(path)
        .and_then(|file| file.take(HEAD as u64).read_to_end(&mut head))
        .map_err(|error| unreadable(path, &error))?;
    Ok(head)
}

/// The dynamic linker's own message, without libloading's preface.
fn words(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, content: &[u8]) -> LibPythonError {
        let folder = std::env::temp_dir().join(format!("chatterbex-open-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        open(path.to_str().unwrap()).unwrap_err()
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = open("/nowhere/libpython3.11.so").unwrap_err();
        assert!(matches!(error, LibPythonError::Unreadable { .. }));
        assert!(error.to_string().contains("/nowhere/libpython3.11.so"));
    }

    #[test]
    fn a_folder_is_refused() {
        assert!(matches!(open("/"), Err(LibPythonError::Unreadable { .. })));
    }

    #[test]
    fn other_files_are_told_for_what_they_are() {
        let text = refusal("libpython.so", b"GROUP ( libpython3.11.so )");
        assert!(matches!(text, LibPythonError::NotALibrary { .. }));
        assert!(matches!(
            refusal("libpython.a", b"!<arch>\n"),
            LibPythonError::Static { .. }
        ));
        assert!(
            refusal("empty.so", b"")
                .to_string()
                .contains("an empty file")
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_broken_library_gives_the_linkers_words() {
        // A valid header with nothing after it.
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut head = this[..HEAD].to_vec();
        head[16] = 3;
        let error = refusal("cut.so", &head);
        assert!(matches!(error, LibPythonError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("cut.so"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_library_that_is_not_python_is_refused() {
        // The C library certainly exists, and its path is in our own memory map.
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .find(|path| {
                path.contains("libc.so") || path.contains("libc-") || path.contains("ld-musl")
            });

        if let Some(libc) = libc {
            assert!(matches!(open(libc), Err(LibPythonError::NotPython { .. })));
        }
    }
}
