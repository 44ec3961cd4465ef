//! The library of ONNX Runtime and its environment, of which a process has one.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;

use crate::Error;

/// Environment variable with the path of the library, `libonnxruntime.so`, `libonnxruntime.dylib` or `onnxruntime.dll`; the
/// one that `ort` itself reads.
pub const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";

/// The library in use and its environment, which lives as long as the process: ONNX Runtime makes no second one.
static LOADED: Mutex<Option<(PathBuf, Environment)>> = Mutex::new(None);

/// The environment of the library at `wanted`, or of the one that [`LIBRARY_VARIABLE`] names.
///
/// Nothing of `ort` may be called before: it would load a library of its own choice, and panic without one.
pub(crate) fn environment(wanted: Option<&Path>) -> Result<Environment, Error> {
    let path = library_path(wanted)?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, environment)) = &*loaded {
        if *known == path {
            return Ok(environment.clone());
        }
        return Err(Error::OtherLibrary {
            loaded: known.clone(),
            wanted: path,
        });
    }
    let builder = ort::init_from(&path).map_err(|source| Error::LoadLibrary {
        path: path.clone(),
        source,
    })?;
    let builder = builder.with_name("snapc").with_telemetry(false);
    let environment = builder.build().map_err(Error::Start)?;
    *loaded = Some((path, environment.clone()));
    Ok(environment)
}

/// The library as an absolute path; a bare file name that is not in the current folder is left to the system's search.
fn library_path(wanted: Option<&Path>) -> Result<PathBuf, Error> {
    let path = match wanted {
        Some(path) => path.to_owned(),
        None => match std::env::var_os(LIBRARY_VARIABLE) {
            Some(path) if !path.is_empty() => path.into(),
            _ => return Err(Error::NoLibrary),
        },
    };
    match path.canonicalize() {
        Ok(found) => Ok(found),
        Err(_) if path.components().count() == 1 => Ok(path),
        Err(source) => Err(Error::OpenLibrary { path, source }),
    }
}
