//! Checks the pages of an Ogg file, because the decoders skip missing or damaged ones.

use symphonia::core::checksum::Crc32;
use symphonia::core::io::Monitor;

use super::cut_short;
use crate::error::AudioError;

const HEADER: usize = 27;
const CONTINUED: u8 = 1;
const FIRST: u8 = 2;
const LAST: u8 = 4;

/// Checks that a file is one stream, complete from its first page to its last, and returns that stream. A decoder
/// would search bytes after it for pages that were not checked.
pub fn check<'a>(file: &'a [u8], format: &'static str) -> Result<&'a [u8], AudioError> {
    let damaged = |page: u32, what: &str| AudioError::Damaged {
        format,
        what: format!("page {page}: {what}"),
    };
    let mut rest = file;
    let mut serial = None;
    let mut unfinished = false;

    for number in 0.. {
        let cut = || cut_short(format, format!("it ends within page {number}"));
        let Some((head, body)) = rest.split_first_chunk::<HEADER>() else {
            return Err(cut());
        };
        if !head.starts_with(b"OggS\0") {
            return Err(damaged(number, "it does not begin like a page"));
        }

        let (segments, body) = body.split_at_checked(head[26].into()).ok_or_else(cut)?;
        let length = segments.iter().map(|length| usize::from(*length)).sum();
        let (payload, next) = body.split_at_checked(length).ok_or_else(cut)?;

        let mut blank = *head;
        blank[22..26].fill(0);
        let mut crc = Crc32::new(0);
        for part in [&blank, segments, payload] {
            crc.process_buf_bytes(part);
        }
        if crc.crc() != u32_at(head, 22) {
            return Err(damaged(number, "its checksum is wrong"));
        }

        let this = u32_at(head, 14);
        if *serial.get_or_insert(this) != this || (head[5] & FIRST != 0) != (number == 0) {
            return Err(AudioError::OtherFormat("several Ogg streams in one file"));
        }
        if u32_at(head, 18) != number {
            return Err(damaged(number, "it is missing"));
        }
        if (head[5] & CONTINUED != 0) != unfinished {
            return Err(damaged(
                number,
                "it does not go on where the one before it ends",
            ));
        }
        // A packet continues after a full segment.
        unfinished = segments.last().map_or(unfinished, |length| *length == 255);

        if head[5] & LAST != 0 && !next.starts_with(b"OggS") {
            return Ok(&file[..file.len() - next.len()]);
        }
        rest = next;
    }

    Ok(file)
}

/// The first packets of a file that passed [`check`], at most `count`.
pub fn packets(file: &[u8], count: usize) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    let mut packet = Vec::new();
    let mut rest = file;

    while let Some((head, body)) = rest.split_first_chunk::<HEADER>()
        && let Some((segments, mut body)) = body.split_at_checked(head[26].into())
    {
        for &length in segments {
            let Some((segment, behind)) = body.split_at_checked(length.into()) else {
                return packets;
            };
            packet.extend_from_slice(segment);
            body = behind;

            // A packet ends with a segment that is not full.
            if length < 255 {
                packets.push(std::mem::take(&mut packet));
                if packets.len() == count {
                    return packets;
                }
            }
        }
        rest = body;
    }
    packets
}

/// The first byte of every packet of a file that [`check`] passed, but for empty ones.
pub fn first_bytes(file: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let mut begins = true;
    let mut rest = file;

    while let Some((head, body)) = rest.split_first_chunk::<HEADER>()
        && let Some((segments, mut body)) = body.split_at_checked(head[26].into())
    {
        for &length in segments {
            let Some((segment, behind)) = body.split_at_checked(length.into()) else {
                return found;
            };
            if begins {
                found.extend(segment.first());
            }
            begins = length < 255;
            body = behind;
        }
        rest = body;
    }
    found
}

fn u32_at(bytes: &[u8; HEADER], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fixture;

    fn message(file: &[u8]) -> String {
        check(file, "Ogg").unwrap_err().to_string()
    }

    fn pages(file: &[u8]) -> Vec<&[u8]> {
        let mut starts: Vec<usize> = file
            .windows(5)
            .enumerate()
            .filter(|(_, window)| window == b"OggS\0")
            .map(|(at, _)| at)
            .collect();
        starts.push(file.len());
        starts.windows(2).map(|w| &file[w[0]..w[1]]).collect()
    }

    #[test]
    fn whole_files_pass() {
        for name in ["speech.ogg", "speech.oga", "speech.opus", "stereo.opus"] {
            assert_eq!(check(fixture(name), "Ogg"), Ok(fixture(name)), "{name}");
        }
        let with_junk_behind = [fixture("speech.ogg"), b"TAG OggS\0"].concat();
        assert_eq!(check(&with_junk_behind, "Ogg"), Ok(fixture("speech.ogg")));
    }

    #[test]
    fn packets_are_put_together() {
        let packets = packets(fixture("speech.ogg"), 3);
        let starts: Vec<_> = packets.iter().map(|packet| &packet[..7]).collect();
        assert_eq!(starts, [b"\x01vorbis", b"\x03vorbis", b"\x05vorbis"]);
        assert_eq!(packets[0].len(), 30);
        // It goes over several segments.
        assert!(packets[2].len() > 255);
        assert_eq!(super::packets(b"OggS", 3), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn every_packet_begins_once() {
        let file = fixture("speech.ogg");
        let all = packets(file, usize::MAX);
        let firsts: Vec<u8> = all.iter().map(|packet| packet[0]).collect();
        assert_eq!(first_bytes(file), firsts);
        assert_eq!(firsts[..3], [1, 3, 5]);
        assert!(firsts.len() > 20);
        assert!(firsts[3..].iter().all(|first| first & 1 == 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let file = fixture("speech.oga");
        let pages = pages(file);
        assert!(pages.len() > 2);

        assert!(message(&file[..file.len() - 1]).contains("truncated"));
        assert!(message(&pages[..pages.len() - 1].concat()).contains("truncated"));
        assert!(message(&[pages[0], pages[2]].concat()).contains("page 1: it is missing"));
        assert!(message(&[file, file].concat()).contains("several Ogg streams"));

        let mut flipped = file.to_vec();
        flipped[pages[0].len() + 40] ^= 1;
        assert!(message(&flipped).contains("page 1: its checksum is wrong"));
    }
}
