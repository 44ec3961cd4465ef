import Foundation

extension Benchmark {
    /// The machine that a benchmark ran on.
    public struct Device: Codable, Sendable, Equatable {
        /// Operating system with its version.
        public let system: String
        /// Model as the system names it (`iPhone15,2`, `Mac14,2`), or its architecture.
        public let model: String
        /// Memory in bytes.
        public let memory: UInt64

        /// This machine.
        public static var current: Device {
            let process = ProcessInfo.processInfo
            return Device(
                system: "\(systemName) \(process.operatingSystemVersionString)", model: machineName(),
                memory: process.physicalMemory)
        }

        private static var systemName: String {
            #if os(iOS)
                return "iOS"
            #elseif os(macOS)
                return "macOS"
            #elseif os(Linux)
                return "Linux"
            #else
                return "other"
            #endif
        }

        private static func machineName() -> String {
            #if canImport(Darwin)
                #if os(macOS)
                    let key = "hw.model"
                #else
                    let key = "hw.machine"
                #endif
                var size = 0
                guard sysctlbyname(key, nil, &size, nil, 0) == 0, size > 0 else {
                    return "unknown"
                }
                var name = [UInt8](repeating: 0, count: size)
                guard sysctlbyname(key, &name, &size, nil, 0) == 0 else {
                    return "unknown"
                }
                return String(decoding: name.prefix { $0 != 0 }, as: UTF8.self)
            #elseif arch(x86_64)
                return "x86_64"
            #elseif arch(arm64)
                return "arm64"
            #else
                return "unknown"
            #endif
        }
    }
}
