extension Vocabulary {
    /// Appends the tokens of a piece that is not empty: its UTF-8 bytes, joined by the merges.
    ///
    /// CLIP joins all occurrences of the pair of lowest rank, from left to right, and starts again. A queue of pairs by
    /// rank and position does the same in O(n log n), however long the piece: a pair with a new token ranks behind the
    /// merge that made the token, because merges only join tokens of earlier lines.
    func appendTokens(of piece: ArraySlice<Unicode.Scalar>, to ids: inout [Int32]) {
        let bytes = piece.flatMap(\.utf8)
        var tokens = MergedTokens(bytes.indices.map { id(of: bytes[$0], endsWord: $0 == bytes.count - 1) })
        var queue = PairQueue()
        func push(_ left: Int) {
            if let (first, second) = tokens.pair(at: left), let rank = rank(of: first, second) {
                queue.push(rank: rank, position: left)
            }
        }
        bytes.indices.forEach(push)
        while let (rank, left) = queue.pop() {
            // An entry goes stale when a merge takes one of its two tokens.
            guard let (first, second) = tokens.pair(at: left), self.rank(of: first, second) == rank else {
                continue
            }
            tokens.mergePair(at: left, into: merged(rank))
            if let before = tokens.position(before: left) {
                push(before)
            }
            push(left)
        }
        ids += tokens.remaining
    }
}

/// The tokens of a piece as a linked list over the positions of its bytes.
private struct MergedTokens {
    /// Stands where a merge has taken the token.
    private static let taken: Int32 = -1

    private var tokens: [Int32]
    /// Positions of the neighbours; valid where a token stands. The ends are -1 and the number of bytes.
    private var next: [Int]
    private var previous: [Int]

    init(_ tokens: [Int32]) {
        self.tokens = tokens
        next = tokens.indices.map { $0 + 1 }
        previous = tokens.indices.map { $0 - 1 }
    }

    /// The token at a position and the one behind it, if there are both.
    func pair(at left: Int) -> (Int32, Int32)? {
        guard tokens[left] != Self.taken, next[left] < tokens.count else {
            return nil
        }
        return (tokens[left], tokens[next[left]])
    }

    /// Puts a token in the place of the pair at a position.
    mutating func mergePair(at left: Int, into token: Int32) {
        let right = next[left]
        tokens[left] = token
        tokens[right] = Self.taken
        next[left] = next[right]
        if next[left] < tokens.count {
            previous[next[left]] = left
        }
    }

    func position(before left: Int) -> Int? {
        previous[left] < 0 ? nil : previous[left]
    }

    /// The tokens that stand.
    var remaining: [Int32] { tokens.filter { $0 != Self.taken } }
}

/// Pairs in the order of their rank, those of one rank from left to right: a binary heap.
private struct PairQueue {
    /// Rank above, position below, so that one comparison orders by both; a piece of 4 GB is beyond any prompt.
    private var heap: [UInt64] = []

    mutating func push(rank: Int32, position: Int) {
        heap.append(UInt64(UInt32(bitPattern: rank)) << 32 | UInt64(UInt32(truncatingIfNeeded: position)))
        var child = heap.count - 1
        while child > 0, heap[child] < heap[(child - 1) / 2] {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    mutating func pop() -> (rank: Int32, position: Int)? {
        guard let first = heap.first else {
            return nil
        }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            sink()
        }
        return (Int32(truncatingIfNeeded: first >> 32), Int(first & 0xffff_ffff))
    }

    private mutating func sink() {
        var parent = 0
        while true {
            var child = 2 * parent + 1
            guard child < heap.count else {
                return
            }
            if child + 1 < heap.count, heap[child + 1] < heap[child] {
                child += 1
            }
            guard heap[child] < heap[parent] else {
                return
            }
            heap.swapAt(child, parent)
            parent = child
        }
    }
}
