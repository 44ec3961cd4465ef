//! Classifier-free guidance.

/// Whether a run with this guidance needs the prediction for the negative prompt: only above 1, as in diffusers.
pub fn is_guided(guidance: f32) -> bool {
    guidance > 1.0
}

/// Writes `u + guidance (c - u)`, where the first half of `predictions` is u, for the negative prompt, and the second is
/// c, for the prompt.
///
/// # Panics
/// When `predictions` is not twice as long as `guided`.
pub fn guide(predictions: &[f32], guidance: f32, guided: &mut [f32]) {
    assert_eq!(
        predictions.len(),
        2 * guided.len(),
        "two predictions per latent"
    );
    let (negative, positive) = predictions.split_at(guided.len());
    for (guided, (u, c)) in guided.iter_mut().zip(negative.iter().zip(positive)) {
        *guided = u + guidance * (c - u);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // By hand: 1 + 7.5 (3 - 1) = 16 and 2 + 7.5 (-2 - 2) = -28.
    #[test]
    fn the_negative_prompt_comes_first() {
        let mut guided = [0.0; 2];
        guide(&[1.0, 2.0, 3.0, -2.0], 7.5, &mut guided);
        assert_eq!(guided, [16.0, -28.0]);
    }

    #[test]
    fn guidance_of_one_is_none() {
        assert!(!is_guided(1.0));
        assert!(is_guided(1.01));
        assert!(!is_guided(f32::NAN));
    }
}
