//! Sizes: `resource.Quantity` in thousandths. Enough for comparing storage; the full type with its
//! canonical forms is the API server's.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The quantity in thousandths, rounded up; `None` when it is not one, is negative or does not fit.
pub(super) fn thousandths(quantity: &Quantity) -> Option<u128> {
    let text = quantity.0.trim_start_matches('+');
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let (numerator, denominator) = scale(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let parse = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u128>().ok() };
    let places = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let value = parse(whole)?.checked_mul(places)?.checked_add(parse(fraction)?)?;
    Some(value.checked_mul(numerator)?.div_ceil(denominator.checked_mul(places)?))
}

/// The suffix as a fraction, for a result in thousandths.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1024_u128.pow(power) * 1000, 1));
    let decimal = |power: u32| Some((10_u128.pow(power), 1));
    match suffix {
        "n" => Some((1, 1_000_000)),
        "u" => Some((1, 1_000)),
        "m" => Some((1, 1)),
        "" => decimal(3),
        "k" => decimal(6),
        "M" => decimal(9),
        "G" => decimal(12),
        "T" => decimal(15),
        "P" => decimal(18),
        "E" => decimal(21),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let factor = 10_u128.checked_pow(power.unsigned_abs())?;
            if power >= 0 { Some((factor.checked_mul(1000)?, 1)) } else { Some((1000, factor)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_form() {
        let check =
            |text: &str, expected| assert_eq!(thousandths(&Quantity(text.into())), expected, "{text}");
        check("1Gi", Some(1_073_741_824_000));
        check("1.5k", Some(1_500_000));
        check("100m", Some(100));
        check("1e3", Some(1_000_000));
        check("12E2", Some(1_200_000));
        check("1E", Some(1_000_000_000_000_000_000_000));
        check("1n", Some(1));
        check(".5", Some(500));
        check("", None);
        check("-1", None);
        check("1GiB", None);
    }
}
