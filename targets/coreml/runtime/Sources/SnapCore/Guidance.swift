/// Classifier-free guidance.
public enum Guidance {
    /// Writes `u + scale (c - u)`, where u is the prediction for the negative prompt and c that for the prompt.
    ///
    /// - Precondition: The three have the same number of values.
    public static func combine(
        unconditional: UnsafeBufferPointer<Float>, conditional: UnsafeBufferPointer<Float>, scale: Float,
        into guided: UnsafeMutableBufferPointer<Float>
    ) {
        precondition(unconditional.count == guided.count, "one unconditional prediction per result")
        precondition(conditional.count == guided.count, "one conditional prediction per result")
        for index in guided.indices {
            guided[index] = unconditional[index] + scale * (conditional[index] - unconditional[index])
        }
    }
}
