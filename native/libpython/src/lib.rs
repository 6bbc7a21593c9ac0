//! The libpython NIF, `Chatterbex.Native.LibPython`: opens the Python library for the whole
//! process, with its symbols global.
//!
//! The model NIF and Python's own extension modules (NumPy, PyTorch) have undefined `Py*` symbols,
//! which are found only among global ones. This library needs no Python itself, so that a machine
//! without one gets an error rather than a library that cannot be loaded.

pub mod diagnosis;
pub mod error;
pub mod open;
pub mod version;

// The VM's functions exist only inside the VM: nothing of this links in a test binary.
#[cfg(not(test))]
mod nif;
