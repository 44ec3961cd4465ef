// Logarithm, sine and cosine from IEEE 754 additions, multiplications and divisions, so that all machines agree on every
// bit. Good to about 1e-15; callers round to Float.

/// Natural logarithm of a positive normal number.
///
/// With x = m 2^k and m between sqrt(1/2) and sqrt(2), ln x = k ln 2 + 2 artanh(s), s = (m-1)/(m+1), |s| < 0.172.
func naturalLogarithm(_ x: Double) -> Double {
    var (mantissa, exponent) = (x.significand, x.exponent)
    if mantissa > 1.4142135623730951 {
        mantissa *= 0.5
        exponent += 1
    }
    let s = (mantissa - 1) / (mantissa + 1)
    let square = s * s
    // artanh(s) / s = 1 + s^2/3 + s^4/5 + ...; the first term left out is below 1e-17.
    let series = (0..<11).reversed().reduce(0.0) { sum, n in sum * square + 1 / Double(2 * n + 1) }
    let ln2 = 0.6931471805599453
    return Double(exponent) * ln2 + 2 * s * series
}

/// Sine and cosine of an angle between 0 and 2 pi.
func sineAndCosine(_ angle: Double) -> (sine: Double, cosine: Double) {
    // pi/2 in two parts, of which the first has few enough bits for its multiples here to be exact.
    let (high, low) = (1.570796325802803, 9.920935796805404e-10)
    let quarter = (angle * (2 / Double.pi)).rounded()
    let rest = (angle - quarter * high) - quarter * low
    let square = rest * rest
    // Taylor series up to the 17th power; |rest| is at most pi/4.
    let sine = rest * alternatingSeries(square, first: 1)
    let cosine = alternatingSeries(square, first: 0)
    switch Int(quarter) & 3 {
    case 0: return (sine, cosine)
    case 1: return (cosine, -sine)
    case 2: return (-sine, -cosine)
    default: return (-cosine, sine)
    }
}

/// 1 - y / ((f+1)(f+2)) + y^2 / ((f+1)(f+2)(f+3)(f+4)) - ..., nine terms.
private func alternatingSeries(_ y: Double, first f: Int) -> Double {
    (0..<8).reversed().reduce(1.0) { sum, n in
        let k = f + 2 * n
        return 1 - sum * y / Double((k + 1) * (k + 2))
    }
}
