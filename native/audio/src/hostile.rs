//! Files made to exhaust memory or time, and a count of the memory that a test takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use opus_pure::{OggOpusWriter, OpusHead, OpusTags};
use symphonia::core::checksum::Crc32;
use symphonia::core::io::Monitor;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // A thread that ends frees memory when its counters are gone.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: all of it is the system's allocator, counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller's.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// What the work returns, and the megabytes that this thread had allocated for it at the most.
pub fn megabytes<T>(work: impl FnOnce() -> T) -> (T, i64) {
    let before = NOW.get();
    PEAK.set(before);
    let result = work();
    (result, (PEAK.get() - before) / 1_000_000)
}

/// Bits, the least significant first.
#[derive(Default)]
pub struct Bits {
    pub bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    pub fn put(&mut self, value: u32, bits: usize) -> &mut Self {
        for bit in 0..bits {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> bit & 1) as u8) << (self.used % 8);
            self.used += 1;
        }
        self
    }
}

/// An Ogg stream of packets, one to a page.
pub fn ogg<'a>(packets: impl IntoIterator<Item = (&'a [u8], u64)>) -> Vec<u8> {
    let packets: Vec<_> = packets.into_iter().collect();
    let last = packets.len() - 1;
    let mut file = Vec::new();

    for (number, (packet, granule)) in packets.into_iter().enumerate() {
        assert!(packet.len() < 255 * 255);
        let mut page = b"OggS\0".to_vec();
        page.push(if number == 0 { 2 } else { 0 } | if number == last { 4 } else { 0 });
        page.extend(granule.to_le_bytes());
        page.extend(7u32.to_le_bytes());
        page.extend((number as u32).to_le_bytes());
        page.extend([0; 4]);
        page.push((packet.len() / 255 + 1) as u8);
        page.extend(std::iter::repeat_n(255, packet.len() / 255));
        page.push((packet.len() % 255) as u8);
        page.extend(packet);

        let mut crc = Crc32::new(0);
        crc.process_buf_bytes(&page);
        page[22..26].copy_from_slice(&crc.crc().to_le_bytes());
        file.extend(page);
    }
    file
}

/// A Vorbis file of one channel with this setup, from its codebooks on, and one packet of sound.
pub fn vorbis(setup: &Bits) -> Vec<u8> {
    let mut identification = b"\x01vorbis\0\0\0\0\x01".to_vec();
    identification.extend(24_000u32.to_le_bytes());
    identification.extend([0; 12]);
    identification.extend([0xb8, 1]);
    let comment = b"\x03vorbis\0\0\0\0\0\0\0\0\x01";
    let setup = [b"\x05vorbis", setup.bytes.as_slice()].concat();
    // Its floor is used, and its first codeword is that of ones.
    let sound = [2, 0, 4, 0, 0, 0, 0, 0];

    ogg([
        (identification.as_slice(), 0),
        (comment, 0),
        (&setup, 0),
        (&sound, 1_024),
    ])
}

/// The start of a codebook.
pub fn codebook(setup: &mut Bits, dimensions: u32, entries: u32) {
    setup
        .put(0x56_43_42, 24)
        .put(dimensions, 16)
        .put(entries, 24);
}

/// So many codebooks of 22 bytes, each with as many entries as Symphonia reads.
pub fn vorbis_bomb(codebooks: u32) -> Vec<u8> {
    let mut setup = Bits::default();
    setup.put(codebooks - 1, 8);
    for _ in 0..codebooks {
        codebook(&mut setup, 31, 131_072);
        // Ordered by length, all of 17 bits.
        setup.put(1, 1).put(16, 5).put(131_072, 18);
        // A lookup table of one value.
        setup
            .put(1, 4)
            .put(0, 32)
            .put(0, 32)
            .put(0, 4)
            .put(0, 1)
            .put(0, 1);
    }
    vorbis(&setup)
}

/// A FLAC file of `frames` frames with 65,535 samples of silence in each of 8 channels.
pub fn flac_bomb(frames: u32) -> Vec<u8> {
    let mut file = b"fLaC\x80\0\0\x22\xff\xff\xff\xff\0\0\0\0\0\0".to_vec();
    // 655,350 Hz, 8 channels, 8 bits, an unknown number of samples and no checksum of them.
    file.extend((655_350u64 << 44 | 7 << 41 | 7 << 36).to_be_bytes());
    file.extend([0; 16]);

    for number in 0..frames {
        let mut frame = vec![0xff, 0xf8, 0b0111_1110, 0b0111_0010];
        let number = char::from_u32(number).unwrap();
        frame.extend(number.encode_utf8(&mut [0; 4]).as_bytes());
        frame.extend([0xff, 0xfe, 0xff, 0xff]);
        frame.push(crc(&frame, 8, 0x07) as u8);
        frame.extend([0; 16]);
        frame.extend((crc(&frame, 16, 0x8005) as u16).to_be_bytes());
        file.extend(frame);
    }
    file
}

fn crc(bytes: &[u8], bits: u32, polynomial: u32) -> u32 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << (bits - 8), |crc, _| {
            let shifted = crc << 1;
            let over = shifted >> bits & 1 == 1;
            (if over { shifted ^ polynomial } else { shifted }) & ((1 << bits) - 1)
        })
    })
}

/// An Opus file of `packets` packets of two bytes, each 120 ms of silence in two channels.
pub fn opus_bomb(packets: usize) -> Vec<u8> {
    let head = OpusHead::new(2, 48_000).unwrap();
    let mut writer = OggOpusWriter::with_tags(Vec::new(), head, OpusTags::new()).unwrap();
    for _ in 0..packets {
        writer.write_packet(&[31 << 3 | 4 | 3, 6]).unwrap();
    }
    writer.finish().unwrap()
}
