//! Checksums and numbers made right again after a mutation, which decoders would otherwise stop at.

use symphonia::core::checksum::Crc32;
use symphonia::core::io::Monitor;

/// Repairs the pages of an Ogg stream: lengths, serial and page numbers, flags and checksums. The frames of
/// FLAC in it are repaired, too.
pub fn ogg(file: &mut [u8]) {
    let mut serial = None;
    let mut flac = false;
    let mut at = 0;

    for number in 0u32.. {
        let Some(length) = page(&mut file[at..]) else {
            return;
        };
        let last = !file[at + length..].starts_with(b"OggS");
        let page = &mut file[at..at + length];

        let serial = serial.get_or_insert([page[14], page[15], page[16], page[17]]);
        page[4] = 0;
        page[5] = page[5] & 1 | if number == 0 { 2 } else { 0 } | if last { 4 } else { 0 };
        page[14..18].copy_from_slice(serial);
        page[18..22].copy_from_slice(&number.to_le_bytes());

        let (head, body) = page.split_at_mut(27 + usize::from(page[26]));
        flac |= number == 0 && body.starts_with(b"\x7fFLAC");
        if flac {
            packets(&head[27..], body);
        }

        page[22..26].fill(0);
        let mut crc = Crc32::new(0);
        crc.process_buf_bytes(page);
        page[22..26].copy_from_slice(&crc.crc().to_le_bytes());

        at += length;
        if last {
            return;
        }
    }
}

/// The length of the page that the bytes begin with, whose last segment is made as long as what is there
/// until the next page.
fn page(bytes: &mut [u8]) -> Option<usize> {
    if !bytes.starts_with(b"OggS") || bytes.len() < 28 {
        return None;
    }
    let start = 27 + usize::from(bytes[26]);
    let body = bytes.get(start..)?;
    let there = body
        .windows(4)
        .position(|magic| magic == b"OggS")
        .unwrap_or(body.len());
    let room = body.len();
    let promised: usize = bytes[27..start].iter().map(|n| usize::from(*n)).sum();

    if promised != there
        && let Some(segment) = bytes[27..start].last_mut()
        && let Ok(right) = u8::try_from((usize::from(*segment) + there).wrapping_sub(promised))
    {
        *segment = right;
        return Some(start + there);
    }
    (promised <= room).then_some(start + promised)
}

fn packets(segments: &[u8], body: &mut [u8]) {
    let mut rest = body;
    let mut length = 0;
    for &segment in segments {
        length += usize::from(segment);
        if segment < 255 {
            let Some((packet, behind)) = std::mem::take(&mut rest).split_at_mut_checked(length)
            else {
                return;
            };
            frame(packet);
            rest = behind;
            length = 0;
        }
    }
}

/// Repairs the frames of a FLAC file, and takes away the checksum of its samples.
pub fn flac(file: &mut [u8]) {
    if file.starts_with(b"fLaC") && file.len() > 42 && file[4] & 0x7f == 0 {
        file[26..42].fill(0);
    }

    let starts: Vec<usize> = (0..file.len())
        .filter(|at| header_length(&file[*at..]).is_some())
        .collect();
    let ends = starts.iter().skip(1).copied().chain([file.len()]);
    for (start, end) in starts.iter().zip(ends.collect::<Vec<_>>()) {
        frame(&mut file[*start..end]);
    }
}

/// Repairs the two checksums of one frame.
fn frame(frame: &mut [u8]) {
    let Some(header) = header_length(frame) else {
        return;
    };
    let Some(body) = frame.len().checked_sub(2).filter(|body| *body > header) else {
        return;
    };
    frame[header] = crc(&frame[..header], 8, 0x07) as u8;
    let whole = crc(&frame[..body], 16, 0x8005) as u16;
    frame[body..].copy_from_slice(&whole.to_be_bytes());
}

/// The length of a frame's header without its checksum, if the bytes begin with one.
fn header_length(bytes: &[u8]) -> Option<usize> {
    let head: &[u8; 5] = bytes.first_chunk()?;
    let (block, rate) = (head[2] >> 4, head[2] & 15);
    let likely = head[0] == 0xff
        && head[1] & 0xfe == 0xf8
        && block != 0
        && rate != 15
        && head[3] >> 4 < 11
        && head[3] & 1 == 0;
    let number = match head[4].leading_ones() {
        0 => 1,
        ones @ 2..=7 => ones as usize,
        _ => return None,
    };
    let block = match block {
        6 => 1,
        7 => 2,
        _ => 0,
    };
    let rate = match rate {
        12 => 1,
        13 | 14 => 2,
        _ => 0,
    };
    let length = 4 + number + block + rate;
    (likely && bytes.len() > length).then_some(length)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../test/fixtures/audio/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    }

    #[test]
    fn what_is_right_stays_as_it_is() {
        for name in ["speech.ogg", "speech.opus", "speech.oga"] {
            let mut file = fixture(name);
            ogg(&mut file);
            assert!(file == fixture(name), "{name}");
        }
        let mut file = fixture("speech.flac");
        flac(&mut file);
        file[26..42].copy_from_slice(&fixture("speech.flac")[26..42]);
        assert!(file == fixture("speech.flac"));
    }

    #[test]
    fn what_was_changed_is_right_again() {
        for name in ["speech.ogg", "speech.opus", "speech.oga"] {
            let mut changed = fixture(name);
            let length = changed.len();
            // A checksum, a page's number and a byte of sound.
            for at in [22, length - 40] {
                changed[at] ^= 0x55;
            }
            let mut once = changed.clone();
            ogg(&mut once);
            let mut twice = once.clone();
            ogg(&mut twice);
            assert!(once == twice && once != changed, "{name}");
        }
    }
}
