//! Pictures from what the decoder gives.

/// An 8-bit RGB picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The size does not fit the values.
    #[error("a picture of {width}x{height} has {expected} values, found {found}")]
    Size {
        /// Pixels in a row.
        width: usize,
        /// Rows.
        height: usize,
        /// Values that such a picture has.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// The picture cannot be written as PNG.
    #[cfg(feature = "png")]
    #[error("cannot encode the picture as PNG")]
    Png(#[from] png::EncodingError),
}

impl Image {
    /// The picture of decoder output `[1, 3, height, width]`, -1 black and 1 white: `clamp(x / 2 + 0.5, 0, 1) * 255`,
    /// halves rounded to even (diffusers' `VaeImageProcessor.postprocess`). NaN becomes black.
    ///
    /// # Errors
    /// When `values` is not `3 * height * width` long.
    pub fn from_decoded(values: &[f32], width: usize, height: usize) -> Result<Self, ImageError> {
        let plane = width.saturating_mul(height);
        let (expected, found) = (plane.saturating_mul(3), values.len());
        if expected != found {
            return Err(ImageError::Size {
                width,
                height,
                expected,
                found,
            });
        }
        let level = |x: f32| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
        let pixel = |i| [0, 1, 2].map(|channel| level(values[channel * plane + i]));
        let pixels = (0..plane).flat_map(pixel).collect();
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Red, green and blue of each pixel, row by row from the top.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// The bytes of a PNG file; the same picture gives the same bytes.
    ///
    /// # Errors
    /// When the picture is empty or too large for the format.
    #[cfg(feature = "png")]
    pub fn to_png(&self) -> Result<Vec<u8>, ImageError> {
        let side = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, side(self.width), side(self.height));
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        writer.finish()?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // numpy: ((x / 2 + 0.5).clip(0, 1) * 255).round() in f32. -0.4 lies at 76.5 and 0 at 127.5.
    #[test]
    fn levels_are_those_of_numpy() {
        let values = [
            -1.5, -1.0, -0.999, -0.4, -0.2, 0.0, 0.25, 0.4, 0.6, 0.999, 1.0, 2.0,
        ];
        let image = Image::from_decoded(&values, 4, 1).unwrap();
        let planes = [[0, 0, 0, 76], [102, 128, 159, 178], [204, 255, 255, 255]];
        let pixels: Vec<u8> = (0..4).flat_map(|i| planes.map(|p| p[i])).collect();
        assert_eq!(image.pixels(), pixels);
    }

    #[test]
    fn values_of_another_size_are_refused() {
        let error = Image::from_decoded(&[0.0; 11], 2, 2).unwrap_err();
        assert!(matches!(
            error,
            ImageError::Size {
                expected: 12,
                found: 11,
                ..
            }
        ));
    }

    #[cfg(feature = "png")]
    #[test]
    fn png_files_hold_the_picture() {
        let values: Vec<f32> = (0..3 * 5 * 7).map(|i| (i as f32 * 0.37).sin()).collect();
        let image = Image::from_decoded(&values, 7, 5).unwrap();
        let file = image.to_png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; image.pixels().len()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (7, 5));
        assert_eq!(
            (info.color_type, info.bit_depth),
            (png::ColorType::Rgb, png::BitDepth::Eight)
        );
        assert_eq!(pixels, image.pixels());
    }

    #[cfg(feature = "png")]
    #[test]
    fn an_empty_picture_is_no_png() {
        let image = Image::from_decoded(&[], 0, 0).unwrap();
        assert!(matches!(image.to_png(), Err(ImageError::Png(_))));
    }
}
