extension Manifest {
    /// A picture size of an artifact that has several.
    public struct Size: Codable, Equatable, Sendable {
        /// Rows in pixels.
        public var height: Int
        /// Columns in pixels.
        public var width: Int
        /// Name of the function for this size, in the packages that have one per size.
        public var function: String

        /// Height and width.
        public var picture: PictureSize { PictureSize(height: height, width: width) }
    }

    /// A function of a package that has one per picture size.
    public struct Function: Codable, Equatable, Sendable {
        /// Its name in the package.
        public var name: String
        /// Inputs in order.
        public var inputs: [Feature]
        /// Outputs in order.
        public var outputs: [Feature]
    }

    /// The sizes of the pictures that the artifact makes, that of ``latent`` alone or all of ``sizes``.
    public var pictureSizes: [PictureSize] {
        guard let sizes else {
            let cell = latent.pixelsPerCell
            return [PictureSize(height: latent.height * cell, width: latent.width * cell)]
        }
        return sizes.map(\.picture)
    }

    /// The first field about sizes that cannot be run, with the reason as a verb phrase. The latents are checked before.
    func problemOfSizes() -> (field: String, reason: String)? {
        let records = sizes ?? []
        for (index, record) in records.enumerated() {
            let field = "sizes[\(index)]"
            guard let latent = latent(at: record.picture) else {
                return (field, "is \(record.picture), not whole latents of \(latent.pixelsPerCell) pixels")
            }
            if let reason = latent.problem() {
                return (field, reason)
            }
            if index == 0, latent != self.latent {
                return (field, "is \(record.picture), not the size of the latents")
            }
            if records[..<index].contains(where: { $0.picture == record.picture || $0.function == record.function }) {
                return (field, "has the size or the function of an earlier one")
            }
        }
        for (index, graph) in graphs.enumerated() {
            guard let functions = graph.functions else {
                continue
            }
            if records.isEmpty || functions.map(\.name) != records.map(\.function) {
                return ("graphs[\(index)].functions", "are not those of 'sizes'")
            }
            if functions.first?.inputs != graph.inputs || functions.first?.outputs != graph.outputs {
                return ("graphs[\(index)].functions[0]", "has other features than the graph")
            }
        }
        return nil
    }

    /// The latents of a picture; nil when it is not made of whole cells.
    public func latent(at size: PictureSize) -> Latent? {
        let cell = latent.pixelsPerCell
        guard cell > 0, size.height > 0, size.width > 0, size.height % cell == 0, size.width % cell == 0 else {
            return nil
        }
        var latent = latent
        (latent.height, latent.width) = (size.height / cell, size.width / cell)
        return latent
    }
}
