import CoreML
import SnapCore

/// Memory and call of the VAE decoder.
final class VAEDecoderRun {
    private let features: VAEDecoderFeatures
    private let scalingFactor: Float
    private let latents: Tensor
    /// Memory of the planes; nil when the decoder gives a picture (`--image-output`).
    private let image: Tensor?
    private let call: Call

    init(_ features: VAEDecoderFeatures, scalingFactor: Float, lookup: FeatureLookup) throws {
        self.features = features
        self.scalingFactor = scalingFactor
        latents = try Tensor(features.latents)
        image = try features.givesPicture ? nil : Tensor(features.image)
        var tensors = [features.latents.name: latents]
        tensors[features.image.name] = image
        call = try Call(features.graph, stage: .vaeDecoder, tensors: tensors, lookup: lookup)
    }

    /// Decodes latents as the scheduler has them: they are divided by the scaling factor here.
    ///
    /// - Returns: Red, green and blue plane, -1 black and 1 white, not clamped.
    /// - Throws: ``SnapError/model(stage:reason:)``, ``SnapError/notFinite(stage:step:)``.
    func decode(_ values: [Float], with model: MLModel) throws -> [Float] {
        let scaled = values.map { $0 / scalingFactor }
        scaled.withUnsafeBufferPointer { latents.store($0, row: 0) }
        let results = try call.run(model)
        guard let image else {
            return try planes(of: results.featureValue(for: features.image.name))
        }
        guard image.isFinite(count: image.count) else {
            throw SnapError.notFinite(stage: .vaeDecoder, step: nil)
        }
        return image.floats()
    }

    /// The picture of what ``decode(_:with:)`` gave.
    func picture(_ planes: [Float]) -> RGBImage {
        planes.withUnsafeBufferPointer { RGBImage(planes: $0, width: features.width, height: features.height) }
    }

    private func planes(of value: MLFeatureValue?) throws -> [Float] {
        if let buffer = value?.imageBufferValue,
            let planes = buffer.planes(width: features.width, height: features.height)
        {
            return planes
        }
        throw SnapError.model(
            stage: .vaeDecoder,
            reason: "Core ML gives no picture of \(features.width)x\(features.height) in 8-bit BGRA or ARGB")
    }
}
