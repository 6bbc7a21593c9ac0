//! T3 on the CPU: embeddings in, logits out, and the token that is drawn from them.
//!
//! The library knows GPT-2 and Llama with heads of 64. It needs neither the VM nor Python; `ffi` is its C interface,
//! which `chatterbex/t3/native.py` calls.
//!
//! **The same bits everywhere.** A number is the same for every instruction set, every number of threads, alone and
//! in any batch, however a text is cut into pieces, and whether or not a beginning is shared. Each module that
//! adds documents in which order; nothing else is allowed to matter.

pub mod attention;
pub mod bandwidth;
pub mod cache;
pub mod engine;
pub mod error;
pub mod ffi;
pub mod float_state;
pub mod functional;
pub mod int8;
pub mod math;
pub mod memory;
pub mod model;
pub mod norm;
pub mod philox;
pub mod pool;
pub mod product;
pub mod rope;
pub mod sampler;
pub mod simd;
#[cfg(test)]
mod testing;

/// Numbers of an attention head.
pub const HEAD: usize = 64;
