import Foundation

/// An option of a command.
struct OptionDeclaration {
    /// Long name with its hyphens.
    let name: String
    /// Short name with its hyphen.
    var short: String?
    /// What the value is called; nil for a switch.
    var value: String?
    let help: String
}

/// What a command takes: one artifact and options.
struct CommandDeclaration {
    let name: String
    let summary: String
    let options: [OptionDeclaration]

    static let help = OptionDeclaration(name: "--help", short: "-h", help: "Show this help")

    /// The text of `--help`.
    var usage: String {
        let names = (options + [Self.help]).map { option in
            [option.short, option.name].compactMap { $0 }.joined(separator: ", ")
                + (option.value.map { " <\($0)>" } ?? "")
        }
        let rows = zip(names, options + [Self.help]).map { ["  " + $0, $1.help] }
        return "\(summary)\n\nUsage: snap-run \(name) ARTIFACT [OPTIONS]\n\nOptions:\n\(Console.table(rows))"
    }
}

/// The arguments of a command, taken apart.
struct Arguments {
    /// Folder of the artifact.
    let artifact: URL
    private let values: [String: String]
    private let switches: Set<String>

    /// Takes arguments apart: `--name value`, `--name=value`, `-n value`; all behind `--` is no option.
    ///
    /// - Throws: ``UsageError`` for what the command does not take, ``HelpRequest``.
    init(_ arguments: [String], of command: CommandDeclaration) throws {
        var (values, switches, positional): ([String: String], Set<String>, [String]) = ([:], [], [])
        var rest = arguments[...]
        while let word = rest.popFirst() {
            guard word.hasPrefix("-"), word != "-" else {
                positional.append(word)
                continue
            }
            if word == "--" {
                positional += rest
                break
            }
            let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            let option = try Self.option(parts[0], of: command)
            if option.name == CommandDeclaration.help.name {
                throw HelpRequest(text: command.usage)
            }
            guard values[option.name] == nil, !switches.contains(option.name) else {
                throw UsageError(reason: "'\(option.name)' is given twice")
            }
            guard let placeholder = option.value else {
                guard parts.count == 1 else {
                    throw UsageError(reason: "'\(option.name)' takes no value")
                }
                switches.insert(option.name)
                continue
            }
            guard let value = parts.count == 2 ? parts[1] : rest.popFirst() else {
                throw UsageError(reason: "'\(option.name)' needs a value: \(option.name) <\(placeholder)>")
            }
            values[option.name] = value
        }
        guard let artifact = positional.first else {
            throw UsageError(reason: "no artifact is given: snap-run \(command.name) ARTIFACT")
        }
        if positional.count > 1 {
            throw UsageError(reason: "'\(positional[1])' is one argument too many; quote prompts with spaces")
        }
        self.artifact = URL(fileURLWithPath: artifact, isDirectory: true)
        self.values = values
        self.switches = switches
    }

    /// Whether a switch is given.
    func has(_ name: String) -> Bool {
        switches.contains(name)
    }

    /// The text of an option.
    func text(_ name: String) -> String? {
        values[name]
    }

    /// The text of an option that has to be there.
    func required(_ name: String) throws -> String {
        guard let value = values[name] else {
            throw UsageError(reason: "'\(name)' is missing")
        }
        return value
    }

    /// The path of an option.
    func file(_ name: String) -> URL? {
        values[name].map { URL(fileURLWithPath: $0) }
    }

    /// The number of an option.
    ///
    /// - Parameter kind: What it has to be, for the error.
    func number<T: LosslessStringConvertible>(_ name: String, _ kind: String, where holds: (T) -> Bool) throws -> T? {
        guard let value = values[name] else {
            return nil
        }
        guard let number = T(value), holds(number) else {
            throw UsageError(reason: "'\(value)' is no value for '\(name)'; it takes \(kind)")
        }
        return number
    }

    /// The word of an option that takes one of a few.
    func choice<T: CaseIterable & RawRepresentable>(_ name: String, of type: T.Type) throws -> T?
    where T.RawValue == String {
        guard let value = values[name] else {
            return nil
        }
        guard let choice = T(rawValue: value) else {
            let words = T.allCases.map(\.rawValue).joined(separator: ", ")
            throw UsageError(reason: "'\(value)' is no value for '\(name)'; it takes \(words)")
        }
        return choice
    }

    private static func option(_ word: String, of command: CommandDeclaration) throws -> OptionDeclaration {
        let options = command.options + [CommandDeclaration.help]
        if let option = options.first(where: { $0.name == word || $0.short == word }) {
            return option
        }
        let nearest = options.map { (name: $0.name, distance: editDistance(word, $0.name)) }
            .min { $0.distance < $1.distance }
        let hint = nearest.map { $0.distance <= 2 ? "; did you mean '\($0.name)'?" : "" } ?? ""
        throw UsageError(reason: "'\(word)' is no option of 'snap-run \(command.name)'\(hint)")
    }
}

/// Letters to insert, remove or replace to make one word of another (Levenshtein's distance).
func editDistance(_ first: String, _ second: String) -> Int {
    var row = Array(0...second.count)
    for (index, letter) in first.enumerated() {
        var diagonal = row[0]
        row[0] = index + 1
        for (column, other) in second.enumerated() {
            let replaced = diagonal + (letter == other ? 0 : 1)
            diagonal = row[column + 1]
            row[column + 1] = min(replaced, diagonal + 1, row[column] + 1)
        }
    }
    return row[second.count]
}
