import PackagePlugin

/// Converts the checkpoint that `snapc.toml` in a target's folder names, before every build of the target in which something
/// has changed. The files of the artifact become resources of the target.
///
/// It is a prebuild command, since no build command can name the weights of a checkpoint as its inputs: the plugin sees the
/// settings file, not what it leads to. When nothing has changed, snapc itself sees to it that nothing is done.
@main
struct SnapcPrebuild: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: Target) async throws -> [Command] {
        guard let settings = settingsFile(of: target) else { throw SnapcError.noSettings([target.name]) }
        // The one folder that a build may write to in its sandbox. The record of the conversion lies beside `artifact`, and
        // so is no resource.
        let artifact = context.pluginWorkDirectory.appending("artifact")
        return [
            .prebuildCommand(
                displayName: "Converting the checkpoint of \(target.name)",
                executable: try findSnapc(),
                arguments: [
                    "convert", "--config", settings.string, "--target", "coreml", "--if-changed",
                    "--output", artifact.string,
                ],
                outputFilesDirectory: artifact)
        ]
    }
}
