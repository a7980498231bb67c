//! Amounts of a resource (`resource.Quantity`): parsing, arithmetic, rounding up to whole or milli units
//! as upstream's `Value()` and `MilliValue()` do, and the canonical text. Deliberately does not keep the
//! suffix it was written with: the text form stays in the object, and [`Quantity::canonical`] is told.

use std::{
    fmt, iter,
    ops::{Add, AddAssign, Neg, Sub, SubAssign},
    str::FromStr,
};

/// An exact amount, held in billionths; finer digits are rounded up, as upstream does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quantity(i128);

const NANO: i128 = 1_000_000_000;

impl Quantity {
    /// A whole number of units.
    pub const fn from_value(value: i64) -> Self {
        Self(value as i128 * NANO)
    }

    /// Whole units, rounded up, clamped to `i64`.
    pub fn value(self) -> i64 {
        clamp(div_ceil(self.0, NANO))
    }

    /// Thousandths, rounded up, clamped to `i64`.
    pub fn milli_value(self) -> i64 {
        clamp(div_ceil(self.0, 1_000_000))
    }

    /// Thousandths of a unit.
    pub const fn from_milli(milli: i64) -> Self {
        Self(milli as i128 * 1_000_000)
    }

    /// Nothing at all.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Less than nothing.
    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    /// Upstream's canonical text: no precision lost, no fraction digits, the largest suffix that allows
    /// both. Binary amounts below 1024 or with a fraction are printed as decimal ones.
    pub fn canonical(self, form: QuantityForm) -> String {
        if self.0 == 0 {
            return "0".to_owned();
        }
        if form == QuantityForm::BinarySi && self.0.abs() >= 1024 * NANO && self.0 % NANO == 0 {
            let (mut number, mut at) = (self.0 / NANO, 0);
            while number % 1024 == 0 && at < 6 {
                number /= 1024;
                at += 1;
            }
            return format!("{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].get(at).unwrap_or(&""));
        }
        let (mut number, mut exponent) = (self.0, -9);
        while number % 1000 == 0 && exponent < 18 {
            number /= 1000;
            exponent += 3;
        }
        if form == QuantityForm::DecimalExponent {
            return if exponent == 0 { number.to_string() } else { format!("{number}e{exponent}") };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        format!("{number}{suffix}")
    }
}

/// How an amount was written; the canonical text keeps to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuantityForm {
    /// `12M`, `100m`, `3`.
    #[default]
    DecimalSi,
    /// `12Mi`.
    BinarySi,
    /// `12e6`.
    DecimalExponent,
}

impl QuantityForm {
    /// The form of a text; meaningful only where the text is a quantity.
    pub fn of(text: &str) -> Self {
        let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
        match suffix.as_bytes() {
            [.., b'i'] => Self::BinarySi,
            [b'e' | b'E', _, ..] => Self::DecimalExponent,
            _ => Self::DecimalSi,
        }
    }
}

impl Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Neg for Quantity {
    type Output = Self;
    fn neg(self) -> Self {
        Self(self.0.saturating_neg())
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), Add::add)
    }
}

/// Why a text is not a quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not number and suffix at all.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is none of the known ones.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or_default()),
            Some(b'+') => (false, text.get(1..).unwrap_or_default()),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(QuantityError::Format);
        }
        let scale = Scale::parse(suffix)?;
        let magnitude = scale.apply(whole, fraction);
        Ok(Self(if negative { -magnitude } else { magnitude }))
    }
}

/// The shortest decimal form: what upstream prints for a `DecimalSI` quantity without its suffix.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, suffix) in [(NANO, ""), (1_000_000, "m"), (1_000, "u")] {
            if self.0 % unit == 0 {
                return write!(f, "{}{suffix}", self.0 / unit);
            }
        }
        write!(f, "{}n", self.0)
    }
}

/// What the suffix multiplies by.
enum Scale {
    Decimal(i32),
    Binary(u32),
}

impl Scale {
    fn parse(suffix: &str) -> Result<Self, QuantityError> {
        Ok(match suffix {
            "n" => Self::Decimal(-9),
            "u" => Self::Decimal(-6),
            "m" => Self::Decimal(-3),
            "" => Self::Decimal(0),
            "k" => Self::Decimal(3),
            "M" => Self::Decimal(6),
            "G" => Self::Decimal(9),
            "T" => Self::Decimal(12),
            "P" => Self::Decimal(15),
            "E" => Self::Decimal(18),
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            other => {
                if !is_suffix(other) {
                    return Err(QuantityError::Format);
                }
                let exponent = other.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
                Self::Decimal(exponent.parse::<i8>().map_err(|_| QuantityError::Suffix)?.into())
            }
        })
    }

    /// Magnitude in billionths, rounded up; saturates at the largest value a quantity may have.
    fn apply(&self, whole: &str, fraction: &str) -> i128 {
        // 28 digits of billionths cover i64; more than 30 only saturate. Fraction digits past 18 cannot
        // matter to a billionth at any scale below 10^9 and are folded into the rounding, and so are those
        // that an i128 has no room for.
        const LIMIT: i128 = i64::MAX as i128 * NANO;
        let digits = whole.trim_start_matches('0');
        if digits.len() > 30 {
            return LIMIT;
        }
        let kept = fraction.get(..fraction.len().min(18).min(37 - digits.len())).unwrap_or_default();
        let lost = fraction.get(kept.len()..).is_some_and(|rest| rest.bytes().any(|b| b != b'0'));
        let Ok(mut mantissa) = format!("0{digits}{kept}").parse::<i128>() else { return LIMIT };
        let mut point = -i32::try_from(kept.len()).unwrap_or(18) + 9;
        if mantissa == 0 && !lost {
            return 0;
        }
        match self {
            Self::Decimal(exponent) => point += exponent,
            Self::Binary(bits) => match mantissa.checked_mul(1_i128 << bits) {
                Some(scaled) => mantissa = scaled,
                None => return LIMIT,
            },
        }
        let scaled = match u32::try_from(point) {
            Ok(up) => 10_i128.checked_pow(up).and_then(|factor| mantissa.checked_mul(factor)),
            Err(_) => Some(match 10_i128.checked_pow(point.unsigned_abs()) {
                Some(factor) => div_ceil(mantissa, factor),
                None => 1,
            }),
        };
        scaled.map_or(LIMIT, |nano| (nano + i128::from(lost)).min(LIMIT))
    }
}

/// Whether a text is what the regular expression in the error message calls a suffix.
fn is_suffix(text: &str) -> bool {
    let rest = text.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

fn div_ceil(n: i128, by: i128) -> i128 {
    n.div_euclid(by) + i128::from(n.rem_euclid(by) != 0)
}

fn clamp(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_rounds_up() {
        for (text, value, milli) in [
            ("0", 0, 0),
            ("100m", 1, 100),
            ("1", 1, 1000),
            ("1.5", 2, 1500),
            (".5", 1, 500),
            ("5.", 5, 5000),
            ("+2", 2, 2000),
            ("-1500m", -1, -1500),
            ("128Mi", 134_217_728, 134_217_728_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("1k", 1000, 1_000_000),
            ("12e3", 12_000, 12_000_000),
            ("1E2", 100, 100_000),
            ("1E", 1_000_000_000_000_000_000, i64::MAX),
            ("0.1m", 1, 1),
            ("1n", 1, 1),
            ("9999999999999999999999", i64::MAX, i64::MAX),
            ("8Ei", i64::MAX, i64::MAX),
        ] {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!((quantity.value(), quantity.milli_value()), (value, milli), "{text}");
        }
        for bad in ["", "x", "1x", "1.2.3", "Mi", "1mi", "1 Gi", "--1", "1e", "1KI", "."] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn orders_across_suffixes() {
        let quantity = |text: &str| text.parse::<Quantity>().unwrap();
        assert!(quantity("1Gi") > quantity("1G"));
        assert_eq!(quantity("1000m"), quantity("1"));
        assert_eq!(quantity("1500m").to_string(), "1500m");
        assert_eq!(Quantity::from_value(3).to_string(), "3");
    }
    #[test]
    fn canonical_text_is_upstreams() {
        for (text, canonical) in [
            ("0", "0"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("512Mi", "512Mi"),
            ("0.5Ki", "512"),
            ("1000Ki", "1000Ki"),
            ("1000k", "1M"),
            ("12e6", "12e6"),
            ("1200e1", "12e3"),
            ("-5k", "-5k"),
            ("0.1m", "100u"),
            ("1n", "1n"),
        ] {
            let quantity: Quantity = text.parse().unwrap();
            assert_eq!(quantity.canonical(QuantityForm::of(text)), canonical, "{text}");
        }
    }

    #[test]
    fn errors_are_upstreams() {
        for (text, error) in [
            ("abc", QuantityError::Format),
            ("1x", QuantityError::Format),
            ("", QuantityError::Format),
            ("1mi", QuantityError::Suffix),
            ("1KI", QuantityError::Format),
        ] {
            assert_eq!(text.parse::<Quantity>(), Err(error), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn canonical_text_reads_back(nano in -(1_i128 << 90)..(1_i128 << 90), form in 0..3) {
            let form = [QuantityForm::DecimalSi, QuantityForm::BinarySi, QuantityForm::DecimalExponent]
                [usize::try_from(form).unwrap()];
            let limit = i64::MAX as i128 * NANO;
            let quantity = Quantity(nano.clamp(-limit, limit));
            let text = quantity.canonical(form);
            proptest::prop_assert_eq!(text.parse::<Quantity>(), Ok(quantity), "{}", text);
        }

        #[test]
        fn never_panics(text in "[-+0-9.eEinumkKMGTP]{0,30}|\\PC{0,10}") {
            let _: Result<Quantity, _> = text.parse();
        }
    }
}
