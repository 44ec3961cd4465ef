import SwiftUI

/// One window: an artifact, a prompt, a picture.
@main
struct SnapExampleApp: App {
    @StateObject private var model = GenerationModel()

    var body: some Scene {
        WindowGroup {
            GenerationView(model: model)
        }
    }
}
