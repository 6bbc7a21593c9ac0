//! The libpython NIF, `Chatterbex.Native.LibPython`: opens the Python library for the whole
//! process, with its symbols global.
//!
//! The engine NIF and Python's own extension modules (NumPy, PyTorch) have undefined `Py*` symbols, which
//! the linker resolves only from global ones. This library itself does not need Python, so a machine without
//! Python gets an error rather than a library that cannot be loaded.

pub mod diagnosis;
pub mod error;
pub mod open;
pub mod version;

// The VM's functions exist only inside the VM, so this module does not link in a test binary.
#[cfg(not(test))]
mod nif;
