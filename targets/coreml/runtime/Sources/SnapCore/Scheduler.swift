/// DDIM without noise (eta 0): the timesteps of a run and each step as two constants.
///
/// Formulas and rounding of timesteps are those of diffusers' `DDIMScheduler`. Its options that make a step depend on the
/// values of the latents (`clip_sample`, `thresholding`) do not exist here; snapc converts no checkpoint that has them.
///
/// With a = cumulative product of the alphas at the timestep and a' at the previous one, the image that the model sees
/// and the next latents are
///
/// ```text
/// epsilon:  x0 = (x - sqrt(1-a) e) / sqrt(a)         noise = e
/// v:        x0 = sqrt(a) x - sqrt(1-a) v             noise = sqrt(a) v + sqrt(1-a) x
/// x' = sqrt(a') x0 + sqrt(1-a') noise
/// ```
///
/// Both are linear in the latents x and the prediction, so the coefficients are computed once, in `Double`, and rounded.
public struct Scheduler: Sendable {
    /// The timestep of each step, from noise to image.
    public let timesteps: [Int]
    /// What the latents after each step take of the latents and of the prediction.
    private let next: [Combination]
    /// What the image that the model sees at each step takes of the two.
    private let denoised: [Combination]

    /// The run of so many steps.
    ///
    /// - Throws: ``SnapError/request(reason:)`` when there are no steps or more than training steps,
    ///   ``SnapError/unsupported(reason:)`` when the offset moves a timestep beyond the schedule,
    ///   ``SnapError/artifact(path:reason:)`` when the record is no noise schedule.
    public init(_ record: Manifest.Scheduler, steps: Int) throws {
        if let problem = record.problem() {
            throw SnapError.artifact(path: Manifest.fileName, reason: "field 'scheduler' \(problem)")
        }
        timesteps = try Self.timesteps(record, steps: steps)
        // Rounded down also where the timesteps are not: diffusers' previous timestep does not always meet the next one.
        let stride = record.numTrainTimesteps / steps
        let alphas = Self.cumulativeAlphas(record)
        var (next, denoised): ([Combination], [Combination]) = ([], [])
        for timestep in timesteps {
            let alpha = alphas[timestep]
            let previous = timestep - stride
            let before = previous >= 0 ? alphas[previous] : record.setAlphaToOne ? 1 : alphas[0]
            let (signal, noise) = (alpha.squareRoot(), (1 - alpha).squareRoot())
            let image: (Double, Double)
            let epsilon: (Double, Double)
            switch record.predictionType {
            case .epsilon: (image, epsilon) = ((1 / signal, -noise / signal), (0, 1))
            case .vPrediction: (image, epsilon) = ((signal, -noise), (noise, signal))
            }
            let (ofImage, ofNoise) = (before.squareRoot(), (1 - before).squareRoot())
            next.append(
                Combination(
                    ofLatents: Float(ofImage * image.0 + ofNoise * epsilon.0),
                    ofPrediction: Float(ofImage * image.1 + ofNoise * epsilon.1)))
            denoised.append(Combination(ofLatents: Float(image.0), ofPrediction: Float(image.1)))
        }
        self.next = next
        self.denoised = denoised
    }

    /// Replaces the latents by those after a step.
    ///
    /// - Parameters:
    ///   - step: Number of the step, from 0.
    ///   - prediction: What the UNet gave, after guidance; one value per latent.
    ///   - latents: The latents that the UNet was given.
    /// - Precondition: The step exists, and there are as many predictions as latents.
    public func advance(
        step: Int, prediction: UnsafeBufferPointer<Float>, latents: UnsafeMutableBufferPointer<Float>
    ) {
        next[step].combine(UnsafeBufferPointer(latents), prediction, into: latents)
    }

    /// Writes the latents of the image that the model sees at a step; decoded, they are a preview.
    ///
    /// - Parameters:
    ///   - step: Number of the step, from 0.
    ///   - prediction: What the UNet gave, after guidance; one value per latent.
    ///   - latents: The latents that the UNet was given.
    ///   - image: Where the result goes; may be `latents`.
    /// - Precondition: The step exists, and the three have the same number of values.
    public func denoise(
        step: Int, prediction: UnsafeBufferPointer<Float>, latents: UnsafeBufferPointer<Float>,
        into image: UnsafeMutableBufferPointer<Float>
    ) {
        denoised[step].combine(latents, prediction, into: image)
    }

    /// A weighted sum of latents and prediction.
    private struct Combination: Sendable {
        let ofLatents: Float
        let ofPrediction: Float

        func combine(
            _ latents: UnsafeBufferPointer<Float>, _ prediction: UnsafeBufferPointer<Float>,
            into sum: UnsafeMutableBufferPointer<Float>
        ) {
            precondition(latents.count == prediction.count, "one prediction per latent")
            precondition(latents.count == sum.count, "one result per latent")
            for index in sum.indices {
                sum[index] = ofLatents * latents[index] + ofPrediction * prediction[index]
            }
        }
    }
}

extension Scheduler {
    /// `alphas_cumprod` of diffusers: the share of the image in the latents' variance, by training step.
    private static func cumulativeAlphas(_ record: Manifest.Scheduler) -> [Double] {
        let (start, end) = (record.betaStart, record.betaEnd)
        let last = Double(max(record.numTrainTimesteps - 1, 1))
        var product = 1.0
        return (0..<record.numTrainTimesteps).map { step in
            let position = Double(step) / last
            let beta: Double
            switch record.betaSchedule {
            case .linear:
                beta = start + (end - start) * position
            case .scaledLinear:
                let root = start.squareRoot() + (end.squareRoot() - start.squareRoot()) * position
                beta = root * root
            }
            product *= 1 - beta
            return product
        }
    }

    /// The timesteps of a run (`DDIMScheduler.set_timesteps`).
    private static func timesteps(_ record: Manifest.Scheduler, steps: Int) throws -> [Int] {
        let trainSteps = record.numTrainTimesteps
        guard steps >= 1, steps <= trainSteps else {
            throw SnapError.request(
                reason: "cannot take \(steps) steps of a schedule of \(trainSteps); choose 1 to \(trainSteps)")
        }
        switch record.timestepSpacing {
        case .trailing:
            return trailing(trainSteps, steps: steps)
        case .leading:
            let (stride, offset, last) = (trainSteps / steps, record.stepsOffset, trainSteps - 1)
            let (first, overflow) = ((steps - 1) * stride).addingReportingOverflow(offset)
            guard !overflow, first <= last else {
                throw SnapError.unsupported(
                    reason: "\(steps) steps with offset \(offset) reach beyond timestep \(last), where the schedule ends; "
                        + "choose fewer steps")
            }
            return (0..<steps).reversed().map { $0 * stride + offset }
        }
    }

    /// `round(arange(train_steps, 0, -train_steps / steps)) - 1`, with the additions of `numpy.arange`, which takes its
    /// stride from the first two elements: the rounding shows where a quotient ends in a half. Where `arange` gives one
    /// element too many by rounding (61 steps of 1000, say), diffusers runs a step at -1; here it is always the steps asked
    /// for.
    private static func trailing(_ trainSteps: Int, steps: Int) -> [Int] {
        let first = Double(trainSteps)
        let stride = (first - first / Double(steps)) - first
        return (0..<steps).map { Int((first + Double($0) * stride).rounded(.toNearestOrEven)) - 1 }
    }
}
