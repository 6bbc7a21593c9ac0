//! Recognises a file by its first bytes, because the dynamic linker's messages seldom help a newcomer.

use crate::error::LibPythonError;

/// How many bytes at the beginning of a file a diagnosis reads.
pub const HEAD: usize = 64;

/// A kind of file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// An ELF shared object (or a position-independent executable) for a machine.
    ElfShared(Machine),
    /// Another ELF file: an executable or an object file.
    ElfOther(&'static str),
    /// A Mach-O dynamic library for a machine.
    MachShared(Machine),
    /// Another Mach-O file.
    MachOther,
    /// A Mach-O file for several machines, from which the linker chooses.
    MachFat,
    /// A static library.
    Archive,
    /// An empty file.
    Empty,
    /// Anything else.
    Unknown,
}

/// A processor and its word size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine(pub String);

impl Machine {
    /// The machine that this code runs on.
    pub fn here() -> Self {
        Self(std::env::consts::ARCH.to_owned())
    }
}

/// Recognises the kind of a file from its first bytes (up to [`HEAD`]).
pub fn kind(head: &[u8]) -> Kind {
    match head {
        [] => Kind::Empty,
        [0x7f, b'E', b'L', b'F', ..] if head.len() >= 20 => elf(head),
        [0xcf, 0xfa, 0xed, 0xfe, ..] if head.len() >= 16 => mach(head),
        [0xca, 0xfe, 0xba, 0xbe, ..] => Kind::MachFat,
        _ if head.starts_with(b"!<arch>\n") || head.starts_with(b"!<thin>\n") => Kind::Archive,
        _ => Kind::Unknown,
    }
}

fn elf(head: &[u8]) -> Kind {
    let big_endian = head[5] == 2;
    let number = |at: usize| {
        let bytes = [head[at], head[at + 1]];
        if big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        }
    };

    let name = match (number(18), head[4]) {
        (0x03, _) => "x86".to_owned(),
        (0x28, _) => "arm".to_owned(),
        // The same processor with 32-bit words is another machine.
        (0x3e, 2) => "x86_64".to_owned(),
        (0x3e, _) => "x32".to_owned(),
        (0xb7, _) => "aarch64".to_owned(),
        (0xf3, 2) => "riscv64".to_owned(),
        (0x15, _) => "powerpc64".to_owned(),
        (0x16, _) => "s390x".to_owned(),
        (other, _) => format!("machine 0x{other:x}"),
    };

    match number(16) {
        1 => Kind::ElfOther("an object file"),
        2 => Kind::ElfOther("an executable"),
        3 => Kind::ElfShared(Machine(name)),
        _ => Kind::ElfOther("an ELF file of another kind"),
    }
}

fn mach(head: &[u8]) -> Kind {
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);

    let name = match number(4) {
        0x0100_0007 => "x86_64".to_owned(),
        0x0100_000c => "aarch64".to_owned(),
        other => format!("machine 0x{other:x}"),
    };

    match number(12) {
        6 => Kind::MachShared(Machine(name)),
        _ => Kind::MachOther,
    }
}

/// Refuses a file that this VM's dynamic linker cannot open, and says what the file is.
pub fn check(path: &str, head: &[u8]) -> Result<(), LibPythonError> {
    let not_a_library = |what: &str| {
        Err(LibPythonError::NotALibrary {
            path: path.to_owned(),
            what: what.to_owned(),
        })
    };
    let macos = cfg!(target_os = "macos");

    match kind(head) {
        Kind::ElfShared(machine) if !macos => same_machine(path, machine),
        Kind::MachShared(machine) if macos => same_machine(path, machine),
        Kind::MachFat if macos => Ok(()),
        Kind::Archive => Err(LibPythonError::Static {
            path: path.to_owned(),
        }),
        Kind::ElfShared(_) => not_a_library("a Linux library"),
        Kind::MachShared(_) | Kind::MachFat => not_a_library("a macOS library"),
        Kind::ElfOther(what) => not_a_library(what),
        Kind::MachOther => not_a_library("a Mach-O file of another kind"),
        Kind::Empty => not_a_library("an empty file"),
        Kind::Unknown => not_a_library("a file of another kind"),
    }
}

fn same_machine(path: &str, machine: Machine) -> Result<(), LibPythonError> {
    let here = Machine::here();

    if machine == here {
        Ok(())
    } else {
        Err(LibPythonError::WrongArchitecture {
            path: path.to_owned(),
            found: machine.0,
            expected: here.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf_head(class: u8, order: u8, kind: u16, machine: u16) -> Vec<u8> {
        let mut head = vec![0; HEAD];
        head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order]);
        let bytes = |n: u16| {
            if order == 2 {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        };
        head[16..18].copy_from_slice(&bytes(kind));
        head[18..20].copy_from_slice(&bytes(machine));
        head
    }

    fn machine(name: &str) -> Machine {
        Machine(name.to_owned())
    }

    #[test]
    fn tells_elf_machines_apart() {
        let shared = |class, order, number| kind(&elf_head(class, order, 3, number));

        assert_eq!(shared(2, 1, 0x3e), Kind::ElfShared(machine("x86_64")));
        assert_eq!(shared(1, 1, 0x3e), Kind::ElfShared(machine("x32")));
        assert_eq!(shared(2, 1, 0xb7), Kind::ElfShared(machine("aarch64")));
        assert_eq!(shared(2, 2, 0x16), Kind::ElfShared(machine("s390x")));
        assert_eq!(shared(1, 1, 0x28), Kind::ElfShared(machine("arm")));
        assert_eq!(
            kind(&elf_head(2, 1, 2, 0x3e)),
            Kind::ElfOther("an executable")
        );
        assert_eq!(
            kind(&elf_head(2, 1, 1, 0x3e)),
            Kind::ElfOther("an object file")
        );
    }

    #[test]
    fn tells_other_files_apart() {
        assert_eq!(kind(b""), Kind::Empty);
        assert_eq!(kind(b"!<arch>\nlibpython.o/"), Kind::Archive);
        assert_eq!(kind(b"INPUT(libpython3.11.so)"), Kind::Unknown);
        assert_eq!(kind(&[0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 2]), Kind::MachFat);

        let mut dylib = vec![0xcf, 0xfa, 0xed, 0xfe];
        dylib.extend(0x0100_000cu32.to_le_bytes());
        dylib.extend(0u32.to_le_bytes());
        dylib.extend(6u32.to_le_bytes());
        assert_eq!(kind(&dylib), Kind::MachShared(machine("aarch64")));
    }

    #[test]
    fn a_cut_head_is_no_library() {
        let whole = elf_head(2, 1, 3, 0x3e);

        for length in 1..20 {
            assert_eq!(kind(&whole[..length]), Kind::Unknown, "{length} bytes");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn names_the_other_machine() {
        let number = if cfg!(target_arch = "aarch64") {
            0x3e
        } else {
            0xb7
        };

        match check("/x/libpython3.11.so", &elf_head(2, 1, 3, number)) {
            Err(LibPythonError::WrongArchitecture {
                path,
                found,
                expected,
            }) => {
                assert_eq!(path, "/x/libpython3.11.so");
                assert_ne!(found, expected);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_static_library_comes_with_its_remedy() {
        let error = check("/x/libpython3.11.a", b"!<arch>\n").unwrap_err();
        let message = error.to_string();
        assert!(message.contains("/x/libpython3.11.a"), "{message}");
        assert!(message.contains("--enable-shared"), "{message}");
        assert!(message.contains("mix chatterbex.setup"), "{message}");
    }
}
