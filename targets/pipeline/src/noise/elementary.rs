//! Logarithm, sine and cosine from IEEE 754 additions, multiplications and divisions, so that all machines agree on every
//! bit. Good to about 1e-15; callers round to f32.

/// Natural logarithm of a positive normal number.
///
/// With x = m 2^k and m between sqrt(1/2) and sqrt(2), ln x = k ln 2 + 2 artanh(s), s = (m-1)/(m+1), |s| < 0.172.
pub(super) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = (bits >> 52) as i32 - 1023;
    let mut mantissa = f64::from_bits((bits & ((1 << 52) - 1)) | 1.0_f64.to_bits());
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    // artanh(s) / s = 1 + s^2/3 + s^4/5 + ...; the first term left out is below 1e-17.
    let series = (0..11)
        .rev()
        .fold(0.0, |sum, n| sum * square + 1.0 / f64::from(2 * n + 1));
    f64::from(exponent) * std::f64::consts::LN_2 + 2.0 * s * series
}

/// Sine and cosine of an angle between 0 and 2 pi.
pub(super) fn sin_cos(angle: f64) -> (f64, f64) {
    // pi/2 in two parts, of which the first has few enough bits for its multiples here to be exact.
    const HIGH: f64 = 1.570_796_325_802_803;
    const LOW: f64 = 9.920_935_796_805_404e-10;
    let quarter = (angle * std::f64::consts::FRAC_2_PI).round();
    let rest = (angle - quarter * HIGH) - quarter * LOW;
    let square = rest * rest;
    // Taylor series up to the 17th power; |rest| is at most pi/4.
    let sin = rest * alternating(square, 1);
    let cos = alternating(square, 0);
    match quarter as i64 & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// 1 - y / ((f+1)(f+2)) + y^2 / ((f+1)(f+2)(f+3)(f+4)) - ..., nine terms.
fn alternating(y: f64, f: u32) -> f64 {
    (0..8).rev().fold(1.0, |sum, n| {
        let k = f + 2 * n;
        1.0 - sum * y / f64::from((k + 1) * (k + 2))
    })
}
