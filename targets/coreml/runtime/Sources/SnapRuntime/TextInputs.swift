import SnapCore

/// What the UNet takes of the prompts of a run: memory of its text features, for every pass of a step.
///
/// A UNet of batch 2 takes both prompts in one pass, one of batch 1 in two. Rows that no prompt is left for have the last
/// prompt once more; what the UNet predicts for them is dropped.
final class TextInputs {
    /// Number of prompts: 2 with guidance, the negative one first, else 1.
    let prompts: Int
    /// Calls of the UNet per step.
    let passes: Int
    private let batch: Int
    private let tensors: [[String: Tensor]]

    init(_ features: UnetFeatures, prompts: Int) throws {
        self.prompts = prompts
        batch = features.batch
        passes = (prompts + batch - 1) / batch
        let inputs = features.projections + (features.states.map { [$0] } ?? [])
        tensors = try (0..<passes).map { _ in
            Dictionary(uniqueKeysWithValues: try inputs.map { ($0.name, try Tensor($0)) })
        }
    }

    /// The inputs of a pass, by name.
    func inputs(ofPass pass: Int) -> [String: Tensor] {
        tensors[pass]
    }

    /// The memory of a prompt's row of an input; nil when the UNet has no such input.
    func row(_ input: String, prompt: Int) throws -> Tensor? {
        try tensors[prompt / batch][input]?.view(ofRow: prompt % batch)
    }

    /// Gives rows without a prompt what the last prompt's row has.
    func fillUp() {
        let (pass, last) = (passes - 1, (prompts - 1) % batch)
        for tensor in tensors[pass].values {
            for row in last + 1..<max(batch, last + 1) {
                tensor.copyRow(last, to: row)
            }
        }
    }
}
