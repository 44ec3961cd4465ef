//! Writing a file whose layout is known.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use crate::hash::{self, Stream};
use crate::header;
use crate::layout::{Layout, Placement};
use crate::section::SectionId;

/// Bytes of zeros that are written at once.
const ZEROS: [u8; 4096] = [0; 4096];

impl Layout {
    /// Hashes the weights and writes header and table of contents: the last step, after which the file is valid.
    ///
    /// `file` is open for reading and writing, [`Layout::len`] bytes long, and holds the prefix and the weights. It is
    /// read in pieces by several threads; memory stays at a MiB for each.
    ///
    /// # Errors
    /// When the file cannot be read or written, or does not have its length.
    pub fn seal(&self, file: &File) -> io::Result<()> {
        let actual = file.metadata()?.len();
        if actual != self.len {
            let reason = format!("the file is {actual} bytes long, its layout {}", self.len);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let mut sections = self.sections.clone();
        for section in sections.iter_mut().filter(|s| is_weights(s.id)) {
            section.hash = hash::of_file(file, section.offset, section.length)?;
        }
        file.write_all_at(&header::encode(&sections, self.len), 0)
    }

    /// Writes a whole file, first byte to last, and then its header.
    ///
    /// `fill` is called for each placement by ascending offset and writes the bytes of that tensor, in pieces as it likes.
    /// The bytes are those that positioned writes and [`Layout::seal`] give.
    ///
    /// # Errors
    /// When `out` fails, or `fill` fails or writes another number of bytes than the placement says.
    pub fn write<W: Write + Seek>(
        &self,
        out: &mut W,
        mut fill: impl FnMut(&Placement, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&self.prefix)?;
        let mut sink = Sink {
            out,
            position: self.prefix.len() as u64,
            hash: Stream::default(),
        };
        let mut sections = self.sections.clone();
        let mut placements = self.placements.iter().peekable();
        for section in sections.iter_mut().filter(|s| is_weights(s.id)) {
            sink.pad_to(section.offset)?;
            // What has been hashed so far is padding between sections.
            sink.hash = Stream::default();
            let end = section.offset + section.length;
            while let Some(placement) = placements.next_if(|p| p.offset < end) {
                sink.pad_to(placement.offset)?;
                fill(placement, &mut sink)?;
                let written = sink.position - placement.offset;
                if written != placement.length {
                    let Placement {
                        stage,
                        name,
                        length,
                        ..
                    } = placement;
                    let reason = format!(
                        "graph '{stage}', weight '{name}': {written} bytes written and not {length}"
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
                }
            }
            section.hash = sink.hash.finish();
        }
        sink.pad_to(self.len)?;
        out.seek(SeekFrom::Start(0))?;
        out.write_all(&header::encode(&sections, self.len))?;
        out.flush()
    }
}

fn is_weights(id: SectionId) -> bool {
    id.known().is_some_and(|kind| kind.is_weights())
}

/// Counts and hashes what goes through it.
struct Sink<'a, W> {
    out: &'a mut W,
    position: u64,
    hash: Stream,
}

impl<W: Write> Sink<'_, W> {
    fn pad_to(&mut self, offset: u64) -> io::Result<()> {
        while self.position < offset {
            let n = (offset - self.position).min(ZEROS.len() as u64) as usize;
            self.write_all(&ZEROS[..n])?;
        }
        Ok(())
    }
}

impl<W: Write> Write for Sink<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.position += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
