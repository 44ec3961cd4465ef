import ArtifactCheck
import Foundation

let folder = Bundle.module.resourceURL ?? Bundle.module.bundleURL
print("\(try ArtifactCheck(folder: folder).files.count) files of the artifact are in the bundle")
