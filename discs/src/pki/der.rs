//! As much of DER as it takes to look into a certificate that has been verified, and into a request that is about to be. Reads
//! definite lengths only and never beyond what it was given.

/// Tags that are read here.
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
/// A certificate's version, which may be absent.
pub(super) const VERSION: u8 = 0xa0;

/// One element.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// With its tag and length: what a signature is over.
    pub(super) whole: &'a [u8],
}

/// Reads elements one after another.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next element.
    pub(super) fn next(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - after.len()];
        self.0 = after;
        Some(Element { tag, content, whole })
    }

    /// The next element, which has this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.next().filter(|e| e.tag == tag)
    }
}

/// Seconds since 1970 of a time as certificates bear it; `None` for what is no time, or one before 1970.
pub(super) fn seconds(time: Element<'_>) -> Option<u64> {
    let text = std::str::from_utf8(time.content).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // RFC 5280, 4.1.2.5.1: two digits of a year are from 1950 on.
    let (year, rest) = match time.tag {
        UTC_TIME if text.len() == 12 => {
            let year: u64 = text[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        GENERALIZED_TIME if text.len() == 14 => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let at = |index: usize| rest[index * 2..index * 2 + 2].parse::<u64>().ok();
    let (month, day) = (at(0)?, at(1)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days from civil, by Howard Hinnant: years that begin in March have their leap day last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + at(2)? * 3600 + at(3)? * 60 + at(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(tag: u8, text: &str) -> Option<u64> {
        seconds(Element { tag, content: text.as_bytes(), whole: &[] })
    }

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(time(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, "000229120000Z"), Some(951_825_600));
        assert_eq!(time(GENERALIZED_TIME, "20261127112241Z"), Some(1_795_778_561));
        assert_eq!(time(GENERALIZED_TIME, "40960101000000Z"), Some(super::super::NO_END));
        for bad in ["", "Z", "20261327112241Z", "2026112711224Z", "2026112711224+Z", "19691231235959Z"] {
            assert_eq!(time(GENERALIZED_TIME, bad), None, "{bad:?}");
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_end() {
        assert!(Reader(&[0x30, 0x03, 1, 2]).next().is_none());
        assert!(Reader(&[0x30, 0x80, 1, 2]).next().is_none(), "no indefinite lengths");
        assert!(Reader(&[0x30, 0x84, 0, 0, 0, 1, 9]).next().is_none());
        let long = [&[0x30, 0x81, 0x80][..], &[7; 0x80], &[5]].concat();
        let mut reader = Reader(&long);
        let element = reader.next().expect("it is whole");
        assert_eq!((element.content.len(), element.whole.len(), reader.0), (0x80, 0x83, &[5][..]));
    }
}
