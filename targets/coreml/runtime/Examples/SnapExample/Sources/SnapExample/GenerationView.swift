import SwiftUI
import UniformTypeIdentifiers

/// Picture above, prompt and buttons below.
struct GenerationView: View {
    @ObservedObject var model: GenerationModel
    @State private var choosesFolder = false

    var body: some View {
        VStack(spacing: 16) {
            picture
            status
            TextField("What the picture should show", text: $model.prompt, axis: .vertical)
            TextField("What it should not show", text: $model.negativePrompt)
            HStack {
                Text("Seed")
                TextField("Seed", value: $model.seed, format: .number.grouping(.never))
                    .frame(maxWidth: 120)
                Spacer()
                Button("Open…") { choosesFolder = true }
                if model.isRunning {
                    Button("Cancel", role: .cancel) { model.cancel() }
                } else {
                    Button("Generate") { model.generate() }
                        .buttonStyle(.borderedProminent)
                        .disabled(model.activity != .ready)
                }
            }
        }
        .textFieldStyle(.roundedBorder)
        .padding()
        .onAppear { model.openBundled() }
        .fileImporter(isPresented: $choosesFolder, allowedContentTypes: [.folder]) { result in
            if case .success(let folder) = result {
                model.open(folder)
            }
        }
    }

    @ViewBuilder private var picture: some View {
        if let image = model.image {
            Image(image, scale: 1, label: Text(model.prompt))
                .resizable()
                .aspectRatio(contentMode: .fit)
        } else {
            Rectangle()
                .fill(.quaternary)
                .aspectRatio(1, contentMode: .fit)
        }
    }

    @ViewBuilder private var status: some View {
        switch model.activity {
        case .running(let step, let steps):
            ProgressView(value: Double(step), total: Double(steps)) { Text("Step \(step) of \(steps)") }
        case .installing(let text):
            ProgressView { Text(text) }
        case .noArtifact, .ready:
            Text(model.message).font(.footnote).foregroundStyle(.secondary)
        }
    }
}
