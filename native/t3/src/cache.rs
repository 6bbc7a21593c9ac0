//! Keys and values of sequences, in blocks of 16 positions.
//!
//! A block holds all layers and heads. Blocks are allocated when positions are written, and never move.
//! Sequences with the same beginning share its whole blocks, which are never written again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::HEAD;
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::simd::LANES;

/// Positions in a block.
pub const POSITIONS: usize = LANES;
/// Numbers of a block's keys, or values, for one layer and head.
pub const PART: usize = POSITIONS * HEAD;

/// The layout of a model's blocks.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Layers of the model.
    pub layers: usize,
    /// Heads in a layer.
    pub heads: usize,
}

impl Layout {
    /// Where in a block the keys of a layer's head begin; its values begin `PART` numbers later.
    ///
    /// Keys are stored number by number, with 16 positions of each; values are stored position by position.
    pub fn at(&self, layer: usize, head: usize) -> usize {
        (layer * self.heads + head) * 2 * PART
    }

    fn numbers(&self) -> usize {
        self.layers * self.heads * 2 * PART
    }
}

/// A block. It counts towards the cache's size as long as it lives.
#[derive(Debug)]
pub struct Block {
    memory: Memory,
    counted: Arc<AtomicUsize>,
}

impl Block {
    fn new(layout: Layout, counted: &Arc<AtomicUsize>) -> Result<Arc<Self>> {
        let memory = Memory::of::<f32>(layout.numbers())?;
        counted.fetch_add(memory.bytes(), Ordering::Relaxed);
        Ok(Arc::new(Self {
            memory,
            counted: Arc::clone(counted),
        }))
    }

    fn copy(&self, layout: Layout) -> Result<Arc<Self>> {
        let block = Self::new(layout, &self.counted)?;
        // SAFETY: both blocks have this many numbers, and nobody writes this one meanwhile, because a forward
        // pass has exclusive access to the engine.
        unsafe { std::ptr::copy_nonoverlapping(self.start(), block.start(), layout.numbers()) };
        Ok(block)
    }

    /// Its first number.
    pub fn start(&self) -> *mut f32 {
        self.memory.start()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.counted
            .fetch_sub(self.memory.bytes(), Ordering::Relaxed);
    }
}

/// A sequence's positions so far.
#[derive(Debug)]
pub struct Sequence {
    /// Its blocks; the last one may not be full.
    pub blocks: Vec<Arc<Block>>,
    /// The number of written positions.
    pub length: usize,
    /// The most positions that it may have.
    pub most: usize,
}

/// The beginning of a sequence, with which other sequences can begin.
#[derive(Debug)]
pub struct Prefix {
    blocks: Vec<Arc<Block>>,
    length: usize,
}

/// Makes sequences, and counts their memory.
#[derive(Debug)]
pub struct Cache {
    layout: Layout,
    counted: Arc<AtomicUsize>,
}

impl Cache {
    /// Creates an empty cache.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            counted: Arc::default(),
        }
    }

    /// The layout of the blocks.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Bytes of all blocks; shared ones count once.
    pub fn bytes(&self) -> usize {
        self.counted.load(Ordering::Relaxed)
    }

    /// Begins a sequence of at most `most` positions with `prefix`.
    pub fn open(&self, most: usize, prefix: Option<&Prefix>) -> Result<Sequence> {
        let Some(prefix) = prefix else {
            return Ok(Sequence {
                blocks: Vec::new(),
                length: 0,
                most,
            });
        };
        if prefix.length > most {
            return Err(Error::invalid(format!(
                "the prefix has {} positions, more than the {most} asked for",
                prefix.length
            )));
        }
        Ok(Sequence {
            blocks: self.beginning(&prefix.blocks, prefix.length)?,
            length: prefix.length,
            most,
        })
    }

    /// The first `length` positions of a sequence.
    pub fn prefix(&self, sequence: &Sequence, length: usize) -> Result<Prefix> {
        if length == 0 || length > sequence.length {
            return Err(Error::invalid(format!(
                "a prefix must have from 1 to the {} positions that are written, not {length}",
                sequence.length
            )));
        }
        Ok(Prefix {
            blocks: self.beginning(&sequence.blocks, length)?,
            length,
        })
    }

    /// Allocates blocks until there is room for `length` positions.
    pub fn reserve(&self, sequence: &mut Sequence, length: usize) -> Result<()> {
        while sequence.blocks.len() * POSITIONS < length {
            sequence
                .blocks
                .push(Block::new(self.layout, &self.counted)?);
        }
        Ok(())
    }

    /// Shares whole blocks and copies the rest, because positions will be written after it.
    fn beginning(&self, blocks: &[Arc<Block>], length: usize) -> Result<Vec<Arc<Block>>> {
        let whole = length / POSITIONS;
        let mut beginning = blocks[..whole].to_vec();
        if !length.is_multiple_of(POSITIONS) {
            beginning.push(blocks[whole].copy(self.layout)?);
        }
        Ok(beginning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_blocks_are_shared_and_counted_once() {
        let cache = Cache::new(Layout {
            layers: 2,
            heads: 3,
        });
        let block = 2 * 3 * 2 * PART * 4;
        let mut first = cache.open(100, None).unwrap();
        assert_eq!(cache.bytes(), 0);
        cache.reserve(&mut first, 40).unwrap();
        first.length = 40;
        assert_eq!(cache.bytes(), 3 * block);
        let prefix = cache.prefix(&first, 37).unwrap();
        assert_eq!(cache.bytes(), 4 * block);
        let second = cache.open(100, Some(&prefix)).unwrap();
        assert_eq!(cache.bytes(), 5 * block);
        assert!(Arc::ptr_eq(&first.blocks[1], &second.blocks[1]));
        assert!(!Arc::ptr_eq(&first.blocks[2], &second.blocks[2]));
        drop(first);
        assert_eq!(cache.bytes(), 4 * block);
        drop((prefix, second));
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn a_prefix_must_be_written_and_must_fit() {
        let cache = Cache::new(Layout {
            layers: 1,
            heads: 1,
        });
        let mut sequence = cache.open(32, None).unwrap();
        cache.reserve(&mut sequence, 32).unwrap();
        sequence.length = 20;
        assert!(cache.prefix(&sequence, 21).is_err());
        assert!(cache.prefix(&sequence, 0).is_err());
        let prefix = cache.prefix(&sequence, 20).unwrap();
        assert!(cache.open(19, Some(&prefix)).is_err());
        assert!(cache.open(20, Some(&prefix)).is_ok());
    }
}
