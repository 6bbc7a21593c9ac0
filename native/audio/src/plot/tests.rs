use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::testing::{Numbers, sine};

const SIZE: Size = Size {
    width: 400,
    height: 300,
};

/// The pixels of a PNG file, by the reader's own account.
fn pixels(file: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(file))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (info.width, info.height, pixels)
}

fn draw(samples: &[f32], channels: u32, rate: u32, view: View, kind: Kind) -> Vec<u8> {
    plot(samples, channels, rate, view, SIZE, kind).unwrap()
}

/// How many pixels of a column of a PNG file have a colour.
fn count(file: &[u8], x: u32, colour: Colour) -> usize {
    let (width, _, pixels) = pixels(file);
    let column = pixels
        .chunks_exact(3)
        .skip(x as usize)
        .step_by(width as usize);
    column.filter(|pixel| **pixel == colour).count()
}

#[test]
fn a_png_has_its_size() {
    for view in [View::Waveform, View::Spectrogram, View::Both] {
        let file = draw(&sine(440.0, 24_000, 24_000), 1, 24_000, view, Kind::Png);
        let (width, height, _) = pixels(&file);
        assert_eq!((width, height), (400, 300));
    }
}

#[test]
fn loud_is_tall_and_quiet_is_flat() {
    let mut samples = sine(440.0, 24_000, 24_000);
    samples[12_000..].fill(0.0);
    let file = draw(&samples, 1, 24_000, View::Waveform, Kind::Png);
    assert_eq!(count(&file, LEFT + 50, WAVE), 268);
    assert_eq!(count(&file, LEFT + 300, WAVE), 1);
    // An eighth of full scale, in one of two channels.
    let both: Vec<f32> = sine(440.0, 24_000, 24_000)
        .into_iter()
        .flat_map(|sample| [0.0, sample / 8.0])
        .collect();
    let file = draw(&both, 2, 24_000, View::Waveform, Kind::Png);
    assert!((32..=36).contains(&count(&file, LEFT + 50, WAVE)));
}

#[test]
fn columns_touch_each_other() {
    // A step of full height up, and one down.
    let samples = [-1.0, 1.0, -1.0];
    let file = draw(&samples, 1, 24_000, View::Waveform, Kind::Png);
    let columns: Vec<usize> = (0..320).map(|x| count(&file, LEFT + x, WAVE)).collect();
    let tall = |count: &&usize| **count == 267;
    assert_eq!(columns.iter().filter(tall).count(), 2);
    assert_eq!(columns.iter().filter(|count| **count == 1).count(), 318);
}

#[test]
fn an_svg_has_all_its_parts() {
    let samples = sine(440.0, 24_000, 3 * 24_000);
    let svg = draw(&samples, 1, 24_000, View::Both, Kind::Svg);
    let svg = String::from_utf8(svg).unwrap();
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    let wave = svg
        .split("<path")
        .nth(1)
        .unwrap()
        .split('>')
        .next()
        .unwrap();
    assert_eq!(wave.matches('V').count(), 320);
    for label in [">0 s<", ">2 s<", ">0 kHz<", ">5 kHz<", ">-1<"] {
        assert!(svg.contains(label), "{label}");
    }

    let picture = svg
        .split("base64,")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let png = STANDARD.decode(picture).unwrap();
    let (width, height, _) = pixels(&png);
    assert_eq!((width, height), (320, 128));

    let wave = draw(&samples, 1, 24_000, View::Waveform, Kind::Svg);
    assert!(!String::from_utf8(wave).unwrap().contains("<image"));
}

#[test]
fn ticks_are_round_numbers() {
    let labels = |end, wanted| -> Vec<String> {
        let ticks = ticks(end, wanted);
        ticks.into_iter().map(|(_, label)| label).collect()
    };
    assert_eq!(labels(1.0, 4.0), ["0", "0.5", "1"]);
    assert_eq!(labels(12.0, 3.0), ["0", "5", "10"]);
    assert_eq!(labels(0.03, 3.0), ["0", "0.01", "0.02", "0.03"]);
    for end in [0.0, f64::INFINITY, f64::NAN, f64::MIN_POSITIVE] {
        assert!(labels(end, 5.0).len() < 12);
    }
    let mut numbers = Numbers(0x71c);
    for _ in 0..1_000 {
        let end = 10f64.powi(numbers.below(30) as i32 - 15) * (1 + numbers.below(100)) as f64;
        let wanted = 1.0 + numbers.below(40) as f64;
        let count = labels(end, wanted).len() as f64;
        assert!((1.0..=wanted + 1.0).contains(&count), "{end} {wanted}");
    }
}

#[test]
fn any_samples_rates_and_sizes() {
    let mut numbers = Numbers(0x9107);
    for round in 0..30 {
        let channels = 1 + numbers.below([1, 2, 64][round % 3]);
        let scale = [0.0, 1e-38, 0.3, 1.0, 1e12][numbers.below(5)];
        let frames = [0, 1, 2, 100, 5_000][numbers.below(5)];
        let samples: Vec<f32> = (0..frames * channels)
            .map(|_| numbers.sample() * scale)
            .collect();
        let rate = [1, 7, 1_000, 24_000, u32::MAX][numbers.below(5)];
        let size = Size {
            width: 160 + numbers.below(200) as u32,
            height: 160 + numbers.below(200) as u32,
        };
        for view in [View::Waveform, View::Spectrogram, View::Both] {
            for kind in [Kind::Svg, Kind::Png] {
                let file = plot(&samples, channels as u32, rate, view, size, kind).unwrap();
                match kind {
                    Kind::Svg => assert!(file.ends_with(b"</svg>\n")),
                    Kind::Png => {
                        let (width, height, _) = pixels(&file);
                        assert_eq!((width, height), (size.width, size.height));
                    }
                }
            }
        }
    }
}

#[test]
fn what_makes_no_picture_is_refused() {
    let refused = plot(&[0.0; 65], 65, 24_000, View::Both, SIZE, Kind::Svg);
    assert!(matches!(refused, Err(AudioError::ManyChannels { .. })));
    for (width, height) in [(0, 300), (159, 300), (400, 4_097), (u32::MAX, u32::MAX)] {
        let size = Size { width, height };
        assert!(plot(&[0.0], 1, 24_000, View::Both, size, Kind::Png).is_err());
    }
}
