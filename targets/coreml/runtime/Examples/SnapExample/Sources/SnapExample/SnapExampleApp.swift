import SwiftUI

#if os(macOS)
    import AppKit
#endif

/// One window: an artifact, a prompt, a picture.
@main
struct SnapExampleApp: App {
    @StateObject private var model = GenerationModel()

    var body: some Scene {
        WindowGroup {
            GenerationView(model: model)
                #if os(macOS)
                    // `swift run` makes no bundle, and without one the system gives a program neither Dock nor keyboard.
                    .onAppear {
                        NSApplication.shared.setActivationPolicy(.regular)
                        NSApplication.shared.activate(ignoringOtherApps: true)
                    }
                #endif
        }
    }
}
