//! The table of kernels of each instruction set, filled from one generic definition.

use crate::codes::{self, Grid, MAX_PALETTE};
use crate::integers::{self, Quantizer};
use crate::rows::{self, SoftmaxState};
use crate::simd::Simd;
use crate::simd::portable::{Portable, PortableDot};
use crate::tile::{self, MAX_ROWS, Tile, TileFn};
use crate::{Activation, Epilogue, Unary};

/// `x`, mean, scale, shift and what follows ([`rows::normalize`]).
pub(crate) type NormalizeFn = unsafe fn(&mut [f32], &[f32], &[f32], &[f32], Activation);

/// Kernels of one instruction set. The functions may only be called on a processor that has it.
pub(crate) struct Table {
    pub name: &'static str,
    /// Rows of the largest tile.
    pub tile_rows: usize,
    /// Columns of the wider tiles, which divide those of a panel.
    pub tile_width: usize,
    /// Tiles of one and of two vectors of columns, `i + 1` rows each; above `tile_rows` rows the largest again.
    tiles: [[TileFn; MAX_ROWS]; 2],
    pub epilogue: unsafe fn(&mut [f32], Epilogue<'_>),
    pub unary: unsafe fn(&mut [f32], Unary),
    pub multiply_gelu: unsafe fn(&mut [f32], &[f32]),
    pub normalize: NormalizeFn,
    pub add: unsafe fn(&mut [f32], &[f32]),
    pub add_squares: unsafe fn(&mut [f32], &[f32], &[f32]),
    pub scale: unsafe fn(&mut [f32], f32),
    pub layer_norm: unsafe fn(&mut [f32], &[f32], &[f32], f32),
    pub softmax: unsafe fn(&mut [f32]),
    pub softmax_step: unsafe fn(&mut [f32], &mut SoftmaxState) -> f32,
    pub widen_scaled: unsafe fn(&[u8], usize, &Grid, &mut [f32]),
    pub widen_looked_up: unsafe fn(&[u8], usize, &[f32; MAX_PALETTE], &mut [f32]),
    pub quantize: unsafe fn(&[f32], &Quantizer, &mut [f32]),
    pub interleave: unsafe fn(&[u8], &mut [f32]),
    pub dequantize: unsafe fn(&mut [f32], &[i32], &[f32], i32, f32),
}

impl Table {
    /// The narrowest tile that has `rows` rows and at least `columns` columns, and its columns. Its words are numbers, or
    /// codes when `dot` is given, which must be that of the same processor.
    pub(crate) fn tile(
        &self,
        dot: Option<&'static Dot>,
        rows: usize,
        columns: usize,
    ) -> (TileFn, usize) {
        assert!((1..=self.tile_rows).contains(&rows) && columns <= self.tile_width);
        let tiles = dot.map_or(&self.tiles, |dot| &dot.tiles);
        if columns <= self.tile_width / 2 {
            (tiles[0][rows - 1], self.tile_width / 2)
        } else {
            (tiles[1][rows - 1], self.tile_width)
        }
    }
}

/// Tiles whose words are four codes each, of the sizes of a [`Table`].
pub(crate) struct Dot {
    tiles: [[TileFn; MAX_ROWS]; 2],
    /// What is taken off the codes of the left operand, so that they are of the type that the instructions read.
    pub offset: u8,
}

macro_rules! dot {
    ($name:ident, $module:ident, $rows:expr, $offset:literal, $arithmetic:ty, $token:expr $(, #[$feature:meta])?) => {
        mod $module {
            use super::*;

            $(#[$feature])?
            unsafe fn run_tile<const R: usize, const WIDE: bool>(t: Tile) {
                // SAFETY: the token holds by the contract of the table, the operands by that of the tile.
                unsafe { tile::run::<$arithmetic, R, WIDE>($token, t) }
            }

            all_tiles!($rows);
        }

        pub(crate) static $name: Dot = Dot {
            tiles: $module::TILES,
            offset: $offset,
        };
    };
}

/// The tiles of a module with a function `run_tile` for up to `$rows` rows.
macro_rules! all_tiles {
    ($rows:expr) => {
        /// `wanted` rows, at most those the registers hold.
        const fn rows_of(wanted: usize) -> usize {
            if wanted < $rows { wanted } else { $rows }
        }

        const fn tiles<const WIDE: bool>() -> [TileFn; MAX_ROWS] {
            [
                run_tile::<{ rows_of(1) }, WIDE>,
                run_tile::<{ rows_of(2) }, WIDE>,
                run_tile::<{ rows_of(3) }, WIDE>,
                run_tile::<{ rows_of(4) }, WIDE>,
                run_tile::<{ rows_of(5) }, WIDE>,
                run_tile::<{ rows_of(6) }, WIDE>,
                run_tile::<{ rows_of(7) }, WIDE>,
                run_tile::<{ rows_of(8) }, WIDE>,
                run_tile::<{ rows_of(9) }, WIDE>,
                run_tile::<{ rows_of(10) }, WIDE>,
                run_tile::<{ rows_of(11) }, WIDE>,
                run_tile::<{ rows_of(12) }, WIDE>,
                run_tile::<{ rows_of(13) }, WIDE>,
                run_tile::<{ rows_of(14) }, WIDE>,
            ]
        }

        pub(super) const TILES: [[TileFn; MAX_ROWS]; 2] = [tiles::<false>(), tiles::<true>()];
    };
}

macro_rules! table {
    ($name:ident, $module:ident, $label:literal, $simd:ty, $token:expr $(, #[$feature:meta])?) => {
        mod $module {
            use super::*;

            $(#[$feature])?
            unsafe fn run_tile<const R: usize, const WIDE: bool>(t: Tile) {
                // SAFETY: the token holds by the contract of the table, the operands by that of the tile.
                unsafe { tile::run::<$simd, R, WIDE>($token, t) }
            }

            // SAFETY of the token in each: by the contract of the table.
            $(#[$feature])?
            pub(super) unsafe fn epilogue(x: &mut [f32], e: Epilogue<'_>) {
                rows::epilogue(unsafe { $token }, x, e);
            }

            $(#[$feature])?
            pub(super) unsafe fn unary(x: &mut [f32], function: Unary) {
                rows::unary(unsafe { $token }, x, function);
            }

            $(#[$feature])?
            pub(super) unsafe fn multiply_gelu(x: &mut [f32], gate: &[f32]) {
                rows::multiply_gelu(unsafe { $token }, x, gate);
            }

            $(#[$feature])?
            pub(super) unsafe fn normalize(x: &mut [f32], mean: &[f32], scale: &[f32], shift: &[f32], a: Activation) {
                rows::normalize(unsafe { $token }, x, mean, scale, shift, a);
            }

            $(#[$feature])?
            pub(super) unsafe fn add(sum: &mut [f32], x: &[f32]) {
                rows::add(unsafe { $token }, sum, x);
            }

            $(#[$feature])?
            pub(super) unsafe fn add_squares(sum: &mut [f32], x: &[f32], mean: &[f32]) {
                rows::add_squares(unsafe { $token }, sum, x, mean);
            }

            $(#[$feature])?
            pub(super) unsafe fn scale(x: &mut [f32], factor: f32) {
                rows::scale(unsafe { $token }, x, factor);
            }

            $(#[$feature])?
            pub(super) unsafe fn layer_norm(x: &mut [f32], gamma: &[f32], beta: &[f32], eps: f32) {
                rows::layer_norm(unsafe { $token }, x, gamma, beta, eps);
            }

            $(#[$feature])?
            pub(super) unsafe fn softmax(x: &mut [f32]) {
                rows::softmax(unsafe { $token }, x);
            }

            $(#[$feature])?
            pub(super) unsafe fn softmax_step(x: &mut [f32], state: &mut SoftmaxState) -> f32 {
                rows::softmax_step(unsafe { $token }, x, state)
            }

            $(#[$feature])?
            pub(super) unsafe fn widen_scaled(rows: &[u8], bits: usize, grid: &Grid, out: &mut [f32]) {
                codes::scaled(unsafe { $token }, rows, bits, grid, out);
            }

            $(#[$feature])?
            pub(super) unsafe fn widen_looked_up(rows: &[u8], bits: usize, palette: &[f32; MAX_PALETTE], out: &mut [f32]) {
                codes::looked_up(unsafe { $token }, rows, bits, palette, out);
            }

            $(#[$feature])?
            pub(super) unsafe fn quantize(x: &[f32], quantizer: &Quantizer, words: &mut [f32]) {
                integers::quantize(x, quantizer, words);
            }

            $(#[$feature])?
            pub(super) unsafe fn interleave(rows: &[u8], words: &mut [f32]) {
                integers::interleave(rows, words);
            }

            $(#[$feature])?
            pub(super) unsafe fn dequantize(x: &mut [f32], sums: &[i32], scales: &[f32], zero: i32, scale: f32) {
                integers::dequantize(x, sums, scales, zero, scale);
            }

            all_tiles!(<$simd>::TILE_ROWS);
        }

        pub(crate) static $name: Table = Table {
            name: $label,
            tile_rows: <$simd>::TILE_ROWS,
            tile_width: 2 * <$simd>::LANES,
            tiles: $module::TILES,
            epilogue: $module::epilogue,
            unary: $module::unary,
            multiply_gelu: $module::multiply_gelu,
            normalize: $module::normalize,
            add: $module::add,
            add_squares: $module::add_squares,
            scale: $module::scale,
            layer_norm: $module::layer_norm,
            softmax: $module::softmax,
            softmax_step: $module::softmax_step,
            widen_scaled: $module::widen_scaled,
            widen_looked_up: $module::widen_looked_up,
            quantize: $module::quantize,
            interleave: $module::interleave,
            dequantize: $module::dequantize,
        };
    };
}

/// Makes the portable token `unsafe` like the others, so that the macro has one form.
#[inline(always)]
unsafe fn portable() -> Portable {
    Portable
}

table!(PORTABLE, portable_kernels, "portable", Portable, portable());
dot!(
    PORTABLE_DOT,
    portable_dot,
    Portable::TILE_ROWS,
    0,
    PortableDot,
    PortableDot
);
#[cfg(target_arch = "aarch64")]
use crate::simd::neon::{Neon, NeonDot};
#[cfg(target_arch = "aarch64")]
table!(NEON, neon_kernels, "neon", Neon, Neon::assume(), #[target_feature(enable = "neon")]);
#[cfg(target_arch = "aarch64")]
dot!(NEON_DOT, neon_dot, Neon::TILE_ROWS, 128, NeonDot, NeonDot::assume(), #[target_feature(enable = "neon,dotprod")]);
#[cfg(target_arch = "x86_64")]
use crate::simd::vnni::{Avx512Vnni, AvxVnni};
#[cfg(target_arch = "x86_64")]
use crate::simd::x86::{Avx2, Avx512};
#[cfg(target_arch = "x86_64")]
table!(AVX2, avx2_kernels, "avx2", Avx2, Avx2::assume(), #[target_feature(enable = "avx2,fma,f16c")]);
#[cfg(target_arch = "x86_64")]
dot!(AVX2_DOT, avx2_dot, Avx2::TILE_ROWS, 0, AvxVnni, AvxVnni::assume(), #[target_feature(enable = "avx2,avxvnni")]);
#[cfg(target_arch = "x86_64")]
table!(AVX512, avx512_kernels, "avx512", Avx512, Avx512::assume(), #[target_feature(enable = "avx512f")]);
#[cfg(target_arch = "x86_64")]
dot!(AVX512_DOT, avx512_dot, Avx512::TILE_ROWS, 0, Avx512Vnni, Avx512Vnni::assume(), #[target_feature(enable = "avx512f,avx512vnni")]);
