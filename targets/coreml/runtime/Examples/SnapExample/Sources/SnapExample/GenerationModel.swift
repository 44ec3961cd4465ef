import Combine
import CoreGraphics
import Foundation
import SnapRuntime

/// The state of the window: which pipeline is open, what it makes.
@MainActor
final class GenerationModel: ObservableObject {
    /// What goes on.
    enum Activity: Equatable {
        case noArtifact
        case installing(String)
        case ready
        case running(step: Int, steps: Int)
    }

    @Published var prompt = "a lighthouse at dusk, watercolour"
    @Published var negativePrompt = ""
    @Published var seed: UInt64 = 0
    @Published private(set) var activity = Activity.noArtifact
    @Published private(set) var image: CGImage?
    @Published private(set) var message = "Open a folder that snapc convert --target coreml has written."

    private var pipeline: Pipeline?
    private var task: Task<Void, Never>?

    var isRunning: Bool {
        if case .running = activity { return true }
        return false
    }

    /// Opens the artifact among the app's resources, if there is one: a folder `Artifact`, or its files.
    func openBundled() {
        guard let resources = Bundle.main.resourceURL else {
            return
        }
        let folders = [resources.appendingPathComponent("Artifact"), resources]
        let manifest = { (folder: URL) in folder.appendingPathComponent(Manifest.fileName).path }
        if let folder = folders.first(where: { FileManager.default.fileExists(atPath: manifest($0)) }) {
            open(folder)
        }
    }

    /// Opens an artifact; its packages are compiled when they are seen for the first time.
    func open(_ folder: URL) {
        cancel()
        activity = .installing("Opening")
        task = Task {
            // A folder that the user chose is the app's for as long as this lasts.
            let isScoped = folder.startAccessingSecurityScopedResource()
            defer {
                if isScoped {
                    folder.stopAccessingSecurityScopedResource()
                }
            }
            do {
                #if os(iOS)
                    let options = Pipeline.Options(computeUnits: .cpuAndNeuralEngine, reduceMemory: isSmallDevice)
                #else
                    let options = Pipeline.Options()
                #endif
                let opened = try await Pipeline(artifact: Artifact(folder: folder), options: options) { progress in
                    Task { @MainActor in self.tell(progress) }
                }
                // Another folder has been chosen meanwhile.
                if Task.isCancelled {
                    return
                }
                pipeline = opened
                activity = .ready
                message = folder.lastPathComponent
            } catch {
                if !Task.isCancelled {
                    activity = pipeline == nil ? .noArtifact : .ready
                    message = error.localizedDescription
                }
            }
        }
    }

    /// Makes a picture, with a preview after every second step.
    func generate() {
        guard let pipeline, activity == .ready else {
            return
        }
        let request = Pipeline.Request(prompt: prompt, negativePrompt: negativePrompt, seed: seed)
        activity = .running(step: 0, steps: pipeline.artifact.manifest.steps)
        task = Task {
            var outcome = "Cancelled"
            do {
                for try await event in pipeline.events(request) {
                    if Task.isCancelled {
                        break
                    }
                    switch event {
                    case .step(let progress):
                        activity = .running(step: progress.step + 1, steps: progress.steps)
                        if progress.step % 2 == 1, !pipeline.options.reduceMemory {
                            image = try await progress.preview().cgImage
                        }
                    case .finished(let generation):
                        image = generation.cgImage
                        outcome = "Done in \(generation.timings.total.formatted(.units(fractionalPart: .show(length: 1))))"
                    }
                }
            } catch {
                outcome = error.localizedDescription
            }
            // Otherwise a folder is being opened, which is what the window shows.
            if isRunning {
                activity = .ready
                message = outcome
            }
        }
    }

    /// Stops what goes on, at the next step.
    func cancel() {
        task?.cancel()
    }

    private func tell(_ progress: InstallProgress) {
        guard progress.state == .compiling, case .installing = activity else {
            return
        }
        activity = .installing("Compiling \(progress.package) (\(progress.index + 1) of \(progress.count))")
    }

    /// Phones with 4 GB hold one network at a time.
    private var isSmallDevice: Bool {
        ProcessInfo.processInfo.physicalMemory < 5 << 30
    }
}
