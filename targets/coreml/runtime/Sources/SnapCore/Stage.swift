/// A network of a Stable Diffusion pipeline, in the order in which they run. Raw values are the graph names of `snap.json`.
public enum Stage: String, Codable, Sendable, CaseIterable {
    /// CLIP's text encoder: token ids to text embeddings.
    case textEncoder = "text_encoder"
    /// The denoising network, once per step.
    case unet
    /// The decoder of the VAE: latents to a picture.
    case vaeDecoder = "vae_decoder"
}
