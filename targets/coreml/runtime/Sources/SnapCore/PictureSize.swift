/// Height and width of a picture in pixels, written as for snapc: `512`, or `384x512` for 384 rows and 512 columns.
public struct PictureSize: Hashable, Sendable, LosslessStringConvertible {
    /// Rows.
    public var height: Int
    /// Columns.
    public var width: Int

    /// A size.
    public init(height: Int, width: Int) {
        self.height = height
        self.width = width
    }

    /// The size that a text says: one number for a square, or `HEIGHTxWIDTH`; nil for other texts, and for sides below 1.
    public init?(_ description: String) {
        let sides = description.split(separator: "x", maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = sides.first, let last = sides.last, let height = Int(first), let width = Int(last),
            height > 0, width > 0
        else {
            return nil
        }
        self.init(height: height, width: width)
    }

    /// `HEIGHTxWIDTH`.
    public var description: String { "\(height)x\(width)" }
}
