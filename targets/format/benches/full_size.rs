//! Seconds to seal, open and verify a file of the size of Stable Diffusion 1.5 in f16. Takes 2 GB of disk:
//! `cargo bench -p snapc-format`.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use snapc_format::{Container, DType, Plan, Stage, TensorPlan};

#[allow(clippy::print_stdout, reason = "the figures are the output")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut plan = Plan::new();
    plan.set_program(vec![7; 1 << 20]);
    plan.set_tokenizer(vec![9; 1 << 20]);
    for index in 0..700 {
        let name = format!("down_blocks.{index}.weight");
        plan.add_tensor(
            Stage::Unet,
            TensorPlan::new(name, &[1_000, 1_000 + index], DType::F16),
        );
    }
    plan.add_tensor(
        Stage::Unet,
        TensorPlan::new("wide", &[280_000_000], DType::U8),
    );
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.snap");
    let layout = plan.layout()?;
    assert!(layout.len() > 2_000_000_000);

    let start = Instant::now();
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    file.set_len(layout.len())?;
    file.write_all_at(layout.prefix(), 0)?;
    let piece: Vec<u8> = (0..1 << 20).map(|i: u32| i as u8).collect();
    for placement in layout.placements() {
        let mut written = 0;
        while written < placement.length {
            let n = (placement.length - written).min(1 << 20) as usize;
            file.write_all_at(&piece[..n], placement.offset + written)?;
            written += n as u64;
        }
    }
    let data = start.elapsed();
    layout.seal(&file)?;
    let sealed = start.elapsed() - data;

    let start = Instant::now();
    let container = Container::open(&path)?;
    let opened = start.elapsed();
    container.verify()?;
    let verified = start.elapsed() - opened;
    println!("data {data:?}, seal {sealed:?}, open {opened:?}, verify {verified:?}");
    Ok(())
}
