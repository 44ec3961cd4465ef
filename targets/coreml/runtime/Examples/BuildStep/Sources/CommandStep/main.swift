import ArtifactCheck
import Foundation

let folder = Bundle.module.bundleURL.appendingPathComponent("Tiny")
print("\(try ArtifactCheck(folder: folder).files.count) files of the artifact are in the bundle")
