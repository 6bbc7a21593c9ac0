//! The audio NIF, `Chatterbex.Native.Audio`: WAV files and PCM. It needs no Python.
//!
//! Samples cross as binaries of 32-bit little-endian floats, nominally in -1.0 to 1.0, the channels
//! interleaved.

pub mod error;
pub mod pcm;
pub mod wav;

// The VM's functions exist only inside the VM: nothing of this links in a test binary.
#[cfg(not(test))]
mod nif;
