//! The two forms of time in a certificate (RFC 5280 §4.1.2.5), each in the one spelling that DER leaves: to the second,
//! in UTC. Either form is taken for any year that it can express, because a CA that chose the wrong one is still
//! understood.

use std::fmt;

use der::Tag;

use super::asn1::{Element, Malformed};
use crate::time::UnixTime;

const SECONDS_A_DAY: i64 = 86_400;
const DAYS_IN_400_YEARS: i64 = 146_097;

pub(crate) fn read(element: &Element<'_>) -> Result<UnixTime, Malformed> {
    let malformed = Malformed("validity");
    let (year, rest) = match (element.tag, element.content) {
        (Tag::UtcTime, [y1, y2, rest @ ..]) => {
            let year = two_digits(*y1, *y2).ok_or(malformed)?;
            (if year >= 50 { 1900 + year } else { 2000 + year }, rest)
        }
        (Tag::GeneralizedTime, [y1, y2, y3, y4, rest @ ..]) => {
            let century = two_digits(*y1, *y2).ok_or(malformed)?;
            (century * 100 + two_digits(*y3, *y4).ok_or(malformed)?, rest)
        }
        _ => return Err(malformed),
    };
    in_year(year, rest).ok_or(malformed)
}

/// `MMDDhhmmssZ`.
fn in_year(year: i64, rest: &[u8]) -> Option<UnixTime> {
    let [mo1, mo2, d1, d2, h1, h2, mi1, mi2, s1, s2, b'Z'] = rest else { return None };
    let month = two_digits(*mo1, *mo2)?;
    let day = two_digits(*d1, *d2)?;
    let hour = two_digits(*h1, *h2)?;
    let minute = two_digits(*mi1, *mi2)?;
    let second = two_digits(*s1, *s2)?;
    let exists = (1..=days_in(year, month)?).contains(&day) && hour < 24 && minute < 60 && second < 60;
    exists.then(|| {
        let days = days_from_epoch(year, month, day);
        UnixTime(days * SECONDS_A_DAY + hour * 3600 + minute * 60 + second)
    })
}

fn two_digits(tens: u8, ones: u8) -> Option<i64> {
    let digit = |octet: u8| octet.is_ascii_digit().then(|| i64::from(octet - b'0'));
    Some(digit(tens)? * 10 + digit(ones)?)
}

fn days_in(year: i64, month: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if leap { 29 } else { 28 }),
        _ => None,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar. The year is taken to begin in March, so that the leap day is its
/// last; the months from March on have 153 days in every five.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days_before_epoch = 719_468;
    365 * year + leap_days + (153 * from_march + 2) / 5 + day - 1 - days_before_epoch
}

/// A time as a person reads it: `2026-01-31T12:00:00Z`.
pub(crate) struct InWords(pub(crate) UnixTime);

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0.0.div_euclid(SECONDS_A_DAY), self.0.0.rem_euclid(SECONDS_A_DAY));
        // The inverse of `days_from_epoch`, whose years begin in March.
        let days = days.saturating_add(719_468);
        let (era, day_of_era) = (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
        let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
        let year_of_era = (day_of_era - leap_days) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = (from_march + 2) % 12 + 1;
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Option<i64> {
        read(&Element { tag: Tag::UtcTime, content: text.as_bytes(), whole: &[] }).ok().map(|time| time.0)
    }

    fn generalized(text: &str) -> Option<i64> {
        read(&Element { tag: Tag::GeneralizedTime, content: text.as_bytes(), whole: &[] })
            .ok()
            .map(|time| time.0)
    }

    #[test]
    fn times_are_counted_from_1970() {
        assert_eq!(utc("700101000000Z"), Some(0));
        assert_eq!(utc("690720201740Z"), Some(-14_182_940));
        assert_eq!(utc("500101000000Z"), Some(-631_152_000));
        assert_eq!(utc("491231235959Z"), Some(2_524_607_999));
        assert_eq!(utc("240229235959Z"), Some(1_709_251_199));
        assert_eq!(generalized("20500101000000Z"), Some(2_524_608_000));
        assert_eq!(generalized("20240229235959Z"), Some(1_709_251_199));
        assert_eq!(generalized("99991231235959Z"), Some(253_402_300_799));
        assert_eq!(generalized("00000101000000Z"), Some(-62_167_219_200));
        assert_eq!(generalized("20000229000000Z"), Some(951_782_400));
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut expected = days_from_epoch(1900, 1, 1);
        assert_eq!(expected, -25_567);
        for year in 1900..2300 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month).unwrap() {
                    assert_eq!(days_from_epoch(year, month, day), expected, "{year}-{month}-{day}");
                    expected += 1;
                }
            }
        }
    }

    #[test]
    fn a_time_is_shown_as_it_was_read() {
        let shown = |seconds: i64| InWords(UnixTime(seconds)).to_string();
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(-1), "1969-12-31T23:59:59Z");
        assert_eq!(shown(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(shown(253_402_300_799), "9999-12-31T23:59:59Z");
        assert_eq!(shown(-62_167_219_200), "0000-01-01T00:00:00Z");
        for year in 1900..2300 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month).unwrap() {
                    let midnight = days_from_epoch(year, month, day) * SECONDS_A_DAY;
                    assert_eq!(shown(midnight + 3661), format!("{year}-{month:02}-{day:02}T01:01:01Z"));
                }
            }
        }
        for far in [i64::MIN, i64::MAX] {
            assert!(shown(far).ends_with('Z'));
        }
    }

    #[test]
    fn there_is_one_spelling() {
        for wrong in [
            "",
            "7001010000Z",
            "700101000000",
            "700101000000+0000",
            "700101000000Z0",
            "70010100000 Z",
            "7001010000-1Z",
            "701301000000Z",
            "700001000000Z",
            "700100000000Z",
            "700132000000Z",
            "230229000000Z",
            "700101240000Z",
            "700101006000Z",
            "700101000060Z",
        ] {
            assert_eq!(utc(wrong), None, "{wrong}");
        }
        for wrong in ["20240101000000.5Z", "20240101000000", "202401010000Z", "21000229000000Z"] {
            assert_eq!(generalized(wrong), None, "{wrong}");
        }
        let other = Element { tag: Tag::Utf8String, content: b"700101000000Z", whole: &[] };
        assert!(read(&other).is_err());
    }
}
