import SnapCore

extension Artifact {
    /// The artifact for pictures of one of its sizes: latents of the manifest and features of the packages are those of that
    /// size, and the packages that have a function per size run its function. nil leaves the artifact as it is, at first with
    /// the first of its sizes.
    ///
    /// - Throws: ``SnapError/unsupported(reason:)`` with the sizes that there are, when this is none of them.
    public func at(_ size: PictureSize?) throws -> Artifact {
        guard let size else {
            return self
        }
        let known = manifest.pictureSizes
        guard known.contains(size) else {
            let list = known.map(\.description).joined(separator: ", ")
            throw SnapError.unsupported(
                reason: "the artifact makes no pictures of \(size), only of \(list); "
                    + "choose one of these, or convert again with --sizes")
        }
        guard let record = manifest.sizes?.first(where: { $0.picture == size }), let latent = manifest.latent(at: size) else {
            return self
        }
        var artifact = self
        artifact.manifest.latent = latent
        artifact.packages = packages.map { $0.running(record.function) }
        return artifact
    }
}

extension Artifact.Package {
    /// The package with this function, if it has one per size.
    fileprivate func running(_ name: String) -> Artifact.Package {
        guard let function = graph.functions?.first(where: { $0.name == name }) else {
            return self
        }
        var package = self
        package.function = name
        (package.graph.inputs, package.graph.outputs) = (function.inputs, function.outputs)
        return package
    }
}
