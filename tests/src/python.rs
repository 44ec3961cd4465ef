//! The Python environment of the tests, and what it brings along.

use std::path::PathBuf;
use std::process::Command;

use crate::workspace_root;

/// The interpreter: `SNAPC_PYTHON`, else the one that xtask makes.
///
/// # Panics
/// When there is none.
pub fn python() -> PathBuf {
    let chosen = std::env::var_os("SNAPC_PYTHON").map(PathBuf::from);
    let python = chosen.unwrap_or_else(|| workspace_root().join(".cache/venv-light/bin/python"));
    assert!(
        python.is_file(),
        "'{}' does not exist; run `cargo xtask setup`",
        python.display()
    );
    python
}

/// The library of ONNX Runtime in that environment.
///
/// # Panics
/// When there is none.
pub fn onnxruntime_library() -> PathBuf {
    let script = "import glob, os, importlib.util as u\n\
                  at = os.path.dirname(u.find_spec('onnxruntime').origin)\n\
                  print(sorted(glob.glob(os.path.join(at, 'capi', 'libonnxruntime.*')))[0])";
    let output = Command::new(python()).args(["-c", script]).output();
    let output = output.expect("the interpreter starts");
    assert!(
        output.status.success(),
        "no onnxruntime; run `cargo xtask setup`\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let path = String::from_utf8(output.stdout).expect("paths are UTF-8");
    path.trim().into()
}
