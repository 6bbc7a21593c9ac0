//! Reads the result of `Py_GetVersion`.

/// The oldest Python that the engine NIF works with (it uses the stable ABI of 3.10).
pub const MINIMUM: (u32, u32) = (3, 10);

/// A Python's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// As Python writes it, such as `3.11.7` or `3.13.0rc2`.
    pub text: String,
    /// Major and minor.
    pub number: (u32, u32),
    /// Built without the GIL.
    pub free_threaded: bool,
}

impl Version {
    /// Reads what `Py_GetVersion` returns: `3.11.7 (main, Dec  8 2023, 18:56:57) [GCC 12.2.0]`.
    pub fn parse(banner: &str) -> Option<Self> {
        let text = banner.split_whitespace().next()?;
        let mut parts = text.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = digits(parts.next()?).parse().ok()?;

        Some(Self {
            text: text.trim_end_matches('+').to_owned(),
            number: (major, minor),
            free_threaded: banner.contains("free-threading"),
        })
    }

    /// Whether the engine NIF works with it.
    pub fn new_enough(&self) -> bool {
        self.number >= MINIMUM
    }
}

fn digits(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_banners() {
        let version = Version::parse("3.11.7 (main, Dec  8 2023, 18:56:57) [GCC 12.2.0]").unwrap();
        assert_eq!(version.text, "3.11.7");
        assert_eq!(version.number, (3, 11));
        assert!(!version.free_threaded && version.new_enough());

        assert_eq!(Version::parse("3.13.0rc2 (x)").unwrap().number, (3, 13));
        assert_eq!(Version::parse("3.12.0+ (heads/x)").unwrap().text, "3.12.0");
        assert!(
            Version::parse("3.13.1 experimental free-threading build (main)")
                .unwrap()
                .free_threaded
        );
    }

    #[test]
    fn compares_numbers_not_text() {
        assert!(!Version::parse("3.9.18 (x)").unwrap().new_enough());
        assert!(Version::parse("3.10.0 (x)").unwrap().new_enough());
        assert!(!Version::parse("2.7.18 (x)").unwrap().new_enough());
        assert!(Version::parse("4.0.0 (x)").unwrap().new_enough());
    }

    #[test]
    fn refuses_nonsense() {
        for banner in ["", "   ", "python", "3", "3.", "x.y.z", "3.x"] {
            assert_eq!(Version::parse(banner), None, "{banner:?}");
        }
    }
}
