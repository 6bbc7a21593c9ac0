//! T3 on the CPU. It turns embeddings into logits, and draws tokens from logits.
//!
//! The library supports GPT-2 and Llama with heads of 64. It needs neither the VM nor Python; `ffi` is its C
//! interface, which `chatterbex/t3/native.py` calls.
//!
//! **The same bits everywhere.** A result is the same, bit for bit, with every instruction set and every number of
//! threads, alone and in any batch, however a text is cut into pieces, and whether or not a prefix is shared. Each
//! module that computes sums documents their order; nothing else may affect them.

pub mod attention;
pub mod bandwidth;
pub mod cache;
pub mod engine;
pub mod error;
pub mod ffi;
pub mod float_state;
pub mod functional;
pub mod huge_pages;
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

/// Numbers in an attention head.
pub const HEAD: usize = 64;
