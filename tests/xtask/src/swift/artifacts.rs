//! The artifacts that the Swift tests run: the fixture `tiny`, converted as an app would have it converted, and two that are wrong.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::process::run;

/// The checkpoint.
const CHECKPOINT: &str = "fixtures/tiny";

/// Name of each artifact, and the flags of `snapc convert` that make it.
const ARTIFACTS: &[(&str, &[&str])] = &[
    ("plain", &[]),
    ("apple", &["--interface", "apple"]),
    ("snap", &["--interface", "snap"]),
    ("chunk", &["--chunk-unet"]),
    ("int8", &["--weights", "int8"]),
    ("palette6", &["--weights", "palette6"]),
    ("f32", &["--precision", "f32"]),
    ("ios18", &["--min-ios", "18", "--attention", "sdpa"]),
    ("split", &["--attention", "split-einsum"]),
    ("image", &["--image-output"]),
    ("sizes", &["--sizes", "128,64,64x128", "--min-ios", "18"]),
    (WRONG, &[]),
    (BROKEN, &[]),
];

/// One whose packages are sound but compute something else: a convolution of the UNet has the opposite sign.
const WRONG: &str = "wrong";
/// One that has lost half of the UNet's weights.
const BROKEN: &str = "broken";

/// The UNet's weight file in an artifact.
const UNET_WEIGHTS: &str = "Unet.mlpackage/Data/com.apple.CoreML/weights/weight.bin";

/// Writes all artifacts into a folder with this `snapc`, each under its name.
///
/// # Errors
/// When one cannot be written.
pub fn write(root: &Path, snapc: &Path, folder: &Path) -> Result<()> {
    for (name, flags) in ARTIFACTS {
        let mut command = Command::new(snapc);
        command.args(["--quiet", "convert", CHECKPOINT, "--target", "coreml"]);
        command.args(*flags).arg("--force").arg("--output");
        command.arg(folder.join(name)).current_dir(root);
        run(command.stdout(Stdio::null()))?;
    }
    let checkpoint = root.join(CHECKPOINT);
    make_wrong(&folder.join(WRONG), &checkpoint).context("the artifact that is to be wrong")?;
    let weights = folder.join(BROKEN).join(UNET_WEIGHTS);
    let bytes = read(&weights)?;
    write_file(&weights, &bytes[..bytes.len() / 2])
}

/// Negates the weight of the UNet's first convolution, and makes its hash in the manifest right again.
fn make_wrong(artifact: &Path, checkpoint: &Path) -> Result<()> {
    let safetensors = read(&checkpoint.join("unet/diffusion_pytorch_model.safetensors"))?;
    let weight = tensor(&safetensors, "conv_in.weight")?;
    let path = artifact.join(UNET_WEIGHTS);
    let mut bytes = read(&path)?;
    negate_halves(&mut bytes, weight)?;
    write_file(&path, &bytes)?;

    let manifest = artifact.join("snap.json");
    let mut document: Value = serde_json::from_slice(&read(&manifest)?)?;
    let files = document["files"].as_array_mut();
    let mut files = files.context("snap.json has no list of files")?.iter_mut();
    let entry = files.find(|file| file["path"] == UNET_WEIGHTS);
    let entry = entry.context("snap.json does not list the UNet's weights")?;
    let digest = Sha256::digest(&bytes);
    let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
    entry["sha256"] = Value::from(digest);
    write_file(&manifest, format!("{document:#}\n").as_bytes())
}

/// The bytes of a tensor in a safetensors file: eight bytes with the length of a JSON header, the header, the data.
fn tensor<'a>(file: &'a [u8], name: &str) -> Result<&'a [u8]> {
    let (length, rest) = file
        .split_first_chunk::<8>()
        .context("no safetensors file")?;
    let length = usize::try_from(u64::from_le_bytes(*length))?;
    let (header, data) = rest.split_at_checked(length).context("a short header")?;
    let header: Value = serde_json::from_slice(header)?;
    let offset = |index: usize| header[name]["data_offsets"][index].as_u64();
    let (start, end) = offset(0).zip(offset(1)).context("no such tensor")?;
    let range = usize::try_from(start)?..usize::try_from(end)?;
    data.get(range).context("a tensor beyond the file")
}

/// Changes the sign of numbers of f16 where they stand in a file, once.
fn negate_halves(file: &mut [u8], halves: &[u8]) -> Result<()> {
    let places = file.windows(halves.len()).enumerate();
    let places = places.filter(|(_, window)| *window == halves);
    let places: Vec<usize> = places.map(|(place, _)| place).collect();
    ensure!(
        places.len() == 1,
        "the weights are in the file {} times, not once",
        places.len()
    );
    let found = &mut file[places[0]..][..halves.len()];
    // The sign is the highest bit of the second byte.
    for half in found.chunks_exact_mut(2) {
        half[1] ^= 0x80;
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("{}", path.display()))
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_found_by_their_bytes_and_negated() {
        let header = br#"{"a":{"data_offsets":[0,2]},"b":{"data_offsets":[2,6]}}"#;
        let data = [9, 9, 0x00, 0x3c, 0x00, 0xc0];
        let length = (header.len() as u64).to_le_bytes();
        let file = [&length[..], header, &data].concat();
        let weight = tensor(&file, "b").unwrap();
        assert_eq!(weight, &data[2..]);
        assert!(tensor(&file, "c").is_err() && tensor(&file[..9], "a").is_err());

        // 1 and -2 become -1 and 2.
        let mut stored = [&[7u8; 3][..], weight, &[7; 3]].concat();
        negate_halves(&mut stored, weight).unwrap();
        assert_eq!(stored, [7, 7, 7, 0x00, 0xbc, 0x00, 0x40, 7, 7, 7]);
        assert!(negate_halves(&mut stored, weight).is_err());
    }
}
