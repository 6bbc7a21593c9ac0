//! Checks a virtual environment before Python starts in it.
//!
//! An interpreter that does not find its standard library ends the process. So it must not be started unless
//! the library is there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::BridgeError;

/// The virtual environment that an interpreter belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Venv {
    /// Its `bin/python`.
    pub program: PathBuf,
    /// Its root, which becomes `sys.prefix`.
    pub root: PathBuf,
}

impl Venv {
    /// Checks the environment of `program` (its `bin/python`). `version` is the major and minor version of the
    /// open libpython. `library` is that libpython's file, if Python looks for its standard library next to
    /// it, as frameworks on macOS do.
    ///
    /// # Errors
    /// `Environment`, naming what is missing.
    pub fn check(
        program: &str,
        version: (u32, u32),
        library: Option<&Path>,
    ) -> Result<Self, BridgeError> {
        let program = PathBuf::from(program);
        let wrong = |what: String| Err(BridgeError::Environment(what));

        if !program.exists() {
            return wrong(format!("the Python {} does not exist", program.display()));
        }
        let Some(root) = program.parent().and_then(Path::parent) else {
            return wrong(format!(
                "{} is not in a virtual environment",
                program.display()
            ));
        };

        let file = root.join("pyvenv.cfg");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) => return wrong(format!("cannot read {}: {error}", file.display())),
        };
        let Some(home) = setting(&text, "home") else {
            return wrong(format!(
                "{} does not say where Python's home is",
                file.display()
            ));
        };

        if let Some(other) = setting(&text, "version").or(setting(&text, "version_info"))
            && minor_version(other).is_some_and(|found| found != version)
        {
            return wrong(format!(
                "{} is an environment of Python {other} and the open libpython is {}.{}",
                root.display(),
                version.0,
                version.1
            ));
        }

        if !finds_standard_library(Path::new(home), version, library) {
            return wrong(format!(
                "the standard library of Python {}.{} was not found from {home}: was that Python \
                 removed?",
                version.0, version.1
            ));
        }

        Ok(Self {
            root: root.to_path_buf(),
            program,
        })
    }
}

/// A value of a `pyvenv.cfg`, whose lines are `key = value`.
fn setting<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case(key))
        .map(|(_, value)| value.trim())
        .filter(|value| !value.is_empty())
}

/// Major and minor of a version such as `3.11.7` or `3.11.7.final.0`.
pub fn minor_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    let major = parts.next()?.trim().parse().ok()?;
    let minor = parts.next()?.split(|c: char| !c.is_ascii_digit()).next()?;
    Some((major, minor.parse().ok()?))
}

/// Whether Python's standard library is where it was installed: next to its home, next to the target of its
/// home's link, or next to its library.
///
/// Python itself also looks further up, and may find the system's library of the same version. It is better
/// to report an environment with a changed Python as broken.
fn finds_standard_library(home: &Path, version: (u32, u32), library: Option<&Path>) -> bool {
    let (major, minor) = version;
    let names = [
        format!("python{major}.{minor}"),
        format!("python{major}"),
        "python".into(),
    ];

    let linked = names.iter().map(|name| home.join(name));
    let files: Vec<PathBuf> = linked
        .chain(library.map(Path::to_path_buf))
        .filter_map(|file| fs::canonicalize(file).ok())
        .collect();

    let above_home = home.parent().into_iter();
    // The folder itself is where a framework has it.
    let above_files = files
        .iter()
        .flat_map(|file| file.ancestors().skip(1).take(2));
    above_home
        .chain(above_files)
        .any(|base| has_standard_library(base, version))
}

fn has_standard_library(base: &Path, (major, minor): (u32, u32)) -> bool {
    // Some distributions call it lib64 (sys.platlibdir).
    ["lib", "lib64"].iter().any(|lib| {
        let folder = base.join(lib).join(format!("python{major}.{minor}"));
        folder.join("encodings").is_dir() && folder.join("os.py").is_file()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A folder with an environment and its Python, removed at the end of a test.
    struct Scene(PathBuf);

    impl Scene {
        fn new() -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("chatterbex-venv-{}-{number}", std::process::id());
            let scene = Self(std::env::temp_dir().join(name));

            fs::create_dir_all(scene.0.join("base/lib/python3.11/encodings")).unwrap();
            fs::write(scene.0.join("base/lib/python3.11/os.py"), "").unwrap();
            fs::create_dir_all(scene.0.join("venv/bin")).unwrap();
            fs::write(scene.0.join("venv/bin/python"), "").unwrap();
            scene.configure("version = 3.11.7");
            scene
        }

        fn configure(&self, version: &str) {
            let home = self.0.join("base/bin");
            let text = format!("home = {}\n{version}\n", home.display());
            fs::write(self.0.join("venv/pyvenv.cfg"), text).unwrap();
        }

        fn check(&self, version: (u32, u32)) -> Result<Venv, BridgeError> {
            let program = self.0.join("venv/bin/python");
            Venv::check(program.to_str().unwrap(), version, None)
        }

        fn message(&self) -> String {
            self.check((3, 11)).unwrap_err().to_string()
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_whole_environment_passes() {
        let scene = Scene::new();
        assert_eq!(scene.check((3, 11)).unwrap().root, scene.0.join("venv"));

        // uv writes version_info; its older versions write neither.
        scene.configure("version_info = 3.11.7.final.0");
        assert!(scene.check((3, 11)).is_ok());
        scene.configure("");
        assert!(scene.check((3, 11)).is_ok());
    }

    #[test]
    fn every_missing_part_is_named_with_the_remedy() {
        let scene = Scene::new();
        fs::remove_file(scene.0.join("base/lib/python3.11/os.py")).unwrap();
        assert!(scene.message().contains("standard library of Python 3.11"));

        let scene = Scene::new();
        fs::write(scene.0.join("venv/pyvenv.cfg"), "version = 3.11.7").unwrap();
        assert!(scene.message().contains("home"));

        fs::remove_file(scene.0.join("venv/pyvenv.cfg")).unwrap();
        assert!(scene.message().contains("pyvenv.cfg"));

        fs::remove_file(scene.0.join("venv/bin/python")).unwrap();
        assert!(scene.message().contains("does not exist"));
        assert!(scene.message().contains("mix chatterbex.setup"));
    }

    #[test]
    fn the_standard_library_may_be_behind_a_link_or_next_to_libpython() {
        let scene = Scene::new();
        let program = scene.0.join("venv/bin/python");
        let elsewhere = scene.0.join("elsewhere");
        fs::create_dir_all(elsewhere.join("bin")).unwrap();
        fs::create_dir_all(scene.0.join("base/bin")).unwrap();
        fs::write(scene.0.join("base/bin/python3.11"), "").unwrap();
        let text = format!("home = {}", elsewhere.join("bin").display());
        fs::write(scene.0.join("venv/pyvenv.cfg"), text).unwrap();
        assert!(scene.check((3, 11)).is_err());

        // A framework's library.
        let library = scene.0.join("base/Python");
        fs::write(&library, "").unwrap();
        let program = program.to_str().unwrap();
        assert!(Venv::check(program, (3, 11), Some(&library)).is_ok());

        let link = elsewhere.join("bin/python3.11");
        std::os::unix::fs::symlink(scene.0.join("base/bin/python3.11"), link).unwrap();
        assert!(scene.check((3, 11)).is_ok());
    }

    #[test]
    fn another_version_is_refused() {
        let scene = Scene::new();
        let error = scene.check((3, 12)).unwrap_err().to_string();
        assert!(
            error.contains("3.11.7") && error.contains("3.12"),
            "{error}"
        );
    }

    #[test]
    fn reads_settings() {
        let text = "home = /usr/bin\nInclude-System-Site-Packages=false\nempty =\n";
        assert_eq!(setting(text, "home"), Some("/usr/bin"));
        assert_eq!(setting(text, "include-system-site-packages"), Some("false"));
        assert_eq!(setting(text, "empty"), None);
        assert_eq!(setting(text, "nothing"), None);
    }

    #[test]
    fn reads_versions() {
        assert_eq!(minor_version("3.11.7"), Some((3, 11)));
        assert_eq!(minor_version("3.13t"), Some((3, 13)));
        assert_eq!(minor_version("3"), None);
        assert_eq!(minor_version("x.y"), None);
    }
}
