// An app that imports SnapRuntime has SnapError, Manifest, RGBImage and the rest of SnapCore as well.
@_exported import SnapCore
