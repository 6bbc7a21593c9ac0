//! The audio NIF, `Chatterbex.Native.Audio`: audio files and operations on samples. It does not need Python.
//!
//! Samples cross as binaries of 32-bit little-endian floats, nominally from -1.0 to 1.0, with interleaved
//! channels.

pub mod decode;
pub mod edges;
pub mod encode;
pub mod error;
pub mod flac;
pub mod level;
pub mod limits;
pub mod loudness;
pub mod mono;
pub mod opus;
pub mod pcm;
pub mod plot;
pub mod resample;
pub mod samples;
pub mod sink;
pub mod stretch;
pub mod wav;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod testing;

// The VM's functions exist only inside the VM, so this module does not link in another program.
#[cfg(all(feature = "nif", not(test)))]
mod nif;
