//! Recognises a file by its content, because names can be wrong.

/// What a file is, and where its sound begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// RIFF, RF64 or RIFX.
    Wav(&'a [u8]),
    /// From the marker `fLaC` on.
    Flac(&'a [u8]),
    /// MPEG layer III from its first frame on, without the tags around it.
    Mp3(&'a [u8]),
    /// Vorbis or FLAC in Ogg.
    Ogg(&'a [u8]),
    /// Opus in Ogg.
    Opus(&'a [u8]),
    /// A known but unsupported kind, by its name.
    Other(&'static str),
    /// An unknown kind.
    Unknown,
}

/// How far to search for a frame of MP3 in a file that does not begin with one.
const MP3_SEARCH: usize = 64 * 1024;
/// This many frames in a row cannot be a coincidence.
const MP3_FRAMES: usize = 4;

/// Recognises a file.
pub fn kind(file: &[u8]) -> Kind<'_> {
    let file = skip_id3v2(file);
    let at = |offset: usize, magic: &[u8]| file.get(offset..offset + magic.len()) == Some(magic);

    if at(0, b"RF64") || at(0, b"RIFX") || (at(0, b"RIFF") && (file.len() < 12 || at(8, b"WAVE"))) {
        Kind::Wav(file)
    } else if at(0, b"fLaC") {
        Kind::Flac(file)
    } else if at(0, b"OggS") {
        ogg(file)
    } else if let Some(name) = other(file) {
        Kind::Other(name)
    } else {
        match find_mp3(file) {
            Some(mp3) => Kind::Mp3(mp3),
            None => Kind::Unknown,
        }
    }
}

/// The codec's name is at the beginning of the first packet, which is alone on the first page.
fn ogg(file: &[u8]) -> Kind<'_> {
    let segments = file.get(26).map_or(0, |count| usize::from(*count));
    let packet = file.get(27 + segments..).unwrap_or_default();

    if packet.starts_with(b"OpusHead") {
        Kind::Opus(file)
    } else if packet.starts_with(b"\x01vorbis") || packet.starts_with(b"\x7fFLAC") {
        Kind::Ogg(file)
    } else if packet.starts_with(b"Speex") {
        Kind::Other("Speex audio")
    } else if packet.starts_with(b"\x80theora") {
        Kind::Other("an Ogg video")
    } else {
        Kind::Other("an Ogg file without Vorbis, Opus or FLAC at its beginning")
    }
}

fn other(file: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, magic: &[u8]| file.get(offset..offset + magic.len()) == Some(magic);
    let text = file.trim_ascii_start();
    let text_is = |begin: &[u8]| {
        text.get(..begin.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(begin))
    };

    if at(4, b"ftyp") {
        Some("an MP4 or M4A file")
    } else if at(0, &[0x1a, 0x45, 0xdf, 0xa3]) {
        Some("a WebM or Matroska file")
    } else if at(0, b"FORM") && (at(8, b"AIFF") || at(8, b"AIFC")) {
        Some("an AIFF file")
    } else if at(0, b"RIFF") {
        Some("a RIFF file without sound, such as AVI or WebP")
    } else if at(0, b"caff") {
        Some("a Core Audio file")
    } else if at(0, b".snd") {
        Some("a Sun audio file")
    } else if at(0, b"#!AMR") {
        Some("AMR audio")
    } else if at(0, &[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11]) {
        Some("a Windows Media file")
    } else if at(0, b"wvpk") {
        Some("a WavPack file")
    } else if at(0, b"MThd") {
        Some("a MIDI file")
    } else if at(0, b"PK\x03\x04") {
        Some("a zip file")
    } else if at(0, &[0x1f, 0x8b]) {
        Some("a gzip file")
    } else if at(0, b"version https://git-lfs") {
        Some("a pointer of Git LFS: `git lfs pull` fetches the file")
    } else if text_is(b"<!doctype") || text_is(b"<html") || text_is(b"<?xml") {
        Some("a web page or XML, perhaps the message of a download that failed")
    } else if file.len() > 1 && file[0] == 0xff && matches!(file[1], 0xf0 | 0xf1 | 0xf8 | 0xf9) {
        Some("AAC audio")
    } else {
        None
    }
}

/// The length of an ID3v2 tag is in four bytes with seven bits each.
fn skip_id3v2(file: &[u8]) -> &[u8] {
    let mut rest = file;

    while let Some(head) = rest.get(..10)
        && head.starts_with(b"ID3")
        && head[6..].iter().all(|byte| *byte < 0x80)
    {
        let length = head[6..]
            .iter()
            .fold(0, |length, byte| length << 7 | usize::from(*byte));
        let footer = if head[5] & 0x10 == 0 { 0 } else { 10 };
        rest = rest.get(10 + length + footer..).unwrap_or_default();
    }

    rest
}

/// APEv2 and ID3v1 come after the sound, and may contain bytes that look like a frame.
fn skip_trailing_tags(file: &[u8]) -> &[u8] {
    let mut rest = file;

    if rest.len() >= 128 && rest[rest.len() - 128..].starts_with(b"TAG") {
        rest = &rest[..rest.len() - 128];
    }

    let footer = rest.len().saturating_sub(32);
    if let Some(tag) = rest.get(footer..)
        && tag.starts_with(b"APETAGEX")
        && let Some(length) = tag.get(12..16)
    {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        // The length does not include a tag's header, if it has one.
        let header = if tag[23] & 0x80 == 0 { 0 } else { 32 };
        rest = &rest[..rest.len().saturating_sub(length.saturating_add(header))];
    }

    rest
}

fn find_mp3(file: &[u8]) -> Option<&[u8]> {
    let file = skip_trailing_tags(file);
    let search = file.len().min(MP3_SEARCH);

    (0..search)
        .find(|at| {
            let (frames, whole) = mp3_frames(&file[*at..]);
            // A file with few frames is accepted if it begins and ends with a frame.
            frames >= MP3_FRAMES || (*at == 0 && frames > 0 && whole)
        })
        .map(|at| &file[at..])
}

/// How many frames of one kind follow each other (up to the number that matters), and whether the last one ends
/// with the file, or past it.
fn mp3_frames(file: &[u8]) -> (usize, bool) {
    let mut rest = file;
    let mut first = None;

    for frames in 0..MP3_FRAMES {
        if rest.is_empty() {
            return (frames, true);
        }
        let Some((length, class)) = rest.first_chunk().and_then(|head| mp3_header(*head)) else {
            return (frames, false);
        };
        if *first.get_or_insert(class) != class {
            return (frames, false);
        }
        match rest.get(length..) {
            Some(next) => rest = next,
            None => return (frames + 1, true),
        }
    }

    (MP3_FRAMES, false)
}

/// The size of a frame of layer III in bytes, and the values that all frames of a file share: version and rate.
fn mp3_header(head: [u8; 4]) -> Option<(usize, (u8, u8))> {
    const BITRATES: [[usize; 15]; 2] = [
        [
            0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320,
        ],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    ];
    const RATES: [usize; 3] = [44_100, 48_000, 32_000];

    let version = head[1] >> 3 & 3;
    let layer_iii = head[1] >> 1 & 3 == 1;
    if head[0] != 0xff || head[1] & 0xe0 != 0xe0 || version == 1 || !layer_iii {
        return None;
    }

    // Versions 2 and 2.5 halve and quarter the rate, and have half as many samples in a frame.
    let (table, divisor, samples) = match version {
        3 => (0, 1, 1152),
        2 => (1, 2, 576),
        _ => (1, 4, 576),
    };
    let bitrate = *BITRATES[table].get(usize::from(head[2] >> 4))?;
    let rate = RATES.get(usize::from(head[2] >> 2 & 3))? / divisor;
    let padding = usize::from(head[2] >> 1 & 1);

    // A bit rate of 0 leaves the length open; no program writes such files.
    (bitrate > 0).then(|| {
        let length = samples / 8 * bitrate * 1000 / rate + padding;
        (length, (version, head[2] >> 2 & 3))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Numbers, fixture};

    fn is_mp3(file: &[u8]) -> bool {
        matches!(kind(file), Kind::Mp3(_))
    }

    #[test]
    fn real_files() {
        assert!(matches!(kind(fixture("speech.flac")), Kind::Flac(_)));
        assert!(matches!(kind(fixture("speech.ogg")), Kind::Ogg(_)));
        assert!(matches!(kind(fixture("speech.oga")), Kind::Ogg(_)));
        assert!(matches!(kind(fixture("speech.opus")), Kind::Opus(_)));
        assert!(is_mp3(fixture("speech.mp3")));
        assert!(is_mp3(fixture("untagged.mp3")));
    }

    #[test]
    fn tags_are_left_out() {
        let bare = fixture("untagged.mp3");
        assert_eq!(kind(bare), Kind::Mp3(bare));

        let mut id3 = b"ID3\x04\0\x10\0\0\x01\x02".to_vec();
        id3.extend([0xff; 130 + 10]);
        let mut ape = b"APETAGEX\xd0\x07\0\0\x28\0\0\0\0\0\0\0\0\0\0\x80\0\0\0\0\0\0\0\0".to_vec();
        ape.extend([0xff; 8]);
        ape.extend(b"APETAGEX\xd0\x07\0\0\x28\0\0\0\0\0\0\0\0\0\0\x80\0\0\0\0\0\0\0\0");
        let mut id3v1 = b"TAG".to_vec();
        id3v1.extend([0xff; 125]);

        let tagged = [&id3, &id3, bare, &ape, &id3v1].concat();
        assert_eq!(kind(&tagged), Kind::Mp3(bare));

        let flac = [&id3, fixture("speech.flac")].concat();
        assert_eq!(kind(&flac), Kind::Flac(fixture("speech.flac")));

        // A tag that is longer than the file.
        assert_eq!(kind(b"ID3\x04\0\0\x7f\x7f\x7f\x7f\0\0"), Kind::Unknown);
    }

    #[test]
    fn a_frame_is_found_behind_the_rest_of_another() {
        let cut = &fixture("untagged.mp3")[50..];
        assert!(matches!(kind(cut), Kind::Mp3(rest) if rest.len() < cut.len()));
    }

    #[test]
    fn few_frames_are_enough_for_a_short_file() {
        let (length, _) = mp3_header(*fixture("untagged.mp3").first_chunk().unwrap()).unwrap();
        assert!(is_mp3(&fixture("untagged.mp3")[..length]));
        assert!(is_mp3(&fixture("untagged.mp3")[..length - 5]));

        let mut junk = fixture("untagged.mp3")[..length].to_vec();
        junk.extend([0; 100]);
        assert_eq!(kind(&junk), Kind::Unknown);
    }

    #[test]
    fn others_are_named() {
        let name = |file: &[u8]| match kind(file) {
            Kind::Other(name) => name,
            known => panic!("{known:?}"),
        };

        assert!(name(b"\0\0\0\x20ftypM4A \0\0\0\0").contains("M4A"));
        assert!(name(b"\x1a\x45\xdf\xa3\x01\0\0\0").contains("WebM"));
        assert!(name(b"FORM\0\0\0\0AIFF").contains("AIFF"));
        assert!(name(b"RIFF\0\0\0\0AVI ").contains("AVI"));
        assert!(name(b"\n <!DOCTYPE html>").contains("web page"));
        assert!(name(b"\xff\xf1\x50\x80").contains("AAC"));
        assert!(name(&[b"OggS".as_slice(), &[0; 23], b"Speex   "].concat()).contains("Speex"));
        assert!(name(b"OggS").contains("Ogg"));
    }

    #[test]
    fn noise_is_nothing() {
        let mut numbers = Numbers(0x7007);
        for _ in 0..200 {
            let noise: Vec<u8> = (0..numbers.below(20_000))
                .map(|_| numbers.next() as u8)
                .collect();
            assert!(!is_mp3(&noise), "{:?}", &noise[..noise.len().min(16)]);
        }
        assert_eq!(kind(b""), Kind::Unknown);
        assert_eq!(kind(&[0; 4096]), Kind::Unknown);
        assert_eq!(kind(&[0xff; 4096]), Kind::Unknown);
    }
}
