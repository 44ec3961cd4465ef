import Foundation

/// Peak signal-to-noise ratio in dB: `20 log10((max - min of the reference) / RMSE)`, computed in `Double`.
///
/// Infinite when all values are equal, NaN when one is NaN or there are none.
///
/// - Precondition: Both have the same number of values.
public func psnr(reference: [Float], found: [Float]) -> Double {
    precondition(reference.count == found.count, "two forms of the same tensor")
    guard let low = reference.min(), let high = reference.max() else {
        return .nan
    }
    let squares = zip(reference, found).reduce(0.0) { sum, pair in
        let error = Double(pair.0) - Double(pair.1)
        return sum + error * error
    }
    let rmse = (squares / Double(reference.count)).squareRoot()
    return rmse == 0 ? .infinity : 20 * log10((Double(high) - Double(low)) / rmse)
}
