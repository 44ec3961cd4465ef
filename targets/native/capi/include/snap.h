/*
 * snap.h: runs a .snap file, from a prompt to a picture, on the CPU.
 *
 *     snap_model *model;
 *     if (snap_open("model.snap", NULL, &model) != SNAP_OK) { puts(snap_last_error()); return 1; }
 *     snap_request request = {0};
 *     request.struct_size = sizeof request;
 *     request.prompt = "a lighthouse at dusk";
 *     snap_image image;
 *     if (snap_generate(model, &request, NULL, NULL, &image) == SNAP_OK) snap_save_png(&image, "out.png");
 *     snap_image_free(&image);
 *     snap_close(model);
 *
 * Structs: set all of a struct that you fill in to zero, then `struct_size` to its `sizeof`. A later version of this header
 * may have more fields at the end of such a struct; zero in a field stands for what the version without it did. A library
 * that does not know a field refuses it unless it is zero.
 *
 * Text is UTF-8 and ends with a zero byte. It is copied where it is kept.
 *
 * Tensors are 32-bit floats, row-major, in the axis order of diffusers. Buffers are the caller's, aligned as the compiler
 * aligns floats, and apart from each other; their counts are numbers of floats and must be those of snap_info.
 *
 * Threads: any function may be called from any thread. A model runs one call at a time: a call while another one runs,
 * also from its own progress function, gives SNAP_ERROR_BUSY and changes nothing. Different models run side by side.
 *
 * Errors: a function that returns a snap_status gives SNAP_OK, or says why not; snap_last_error then has the details. No
 * error harms the model: the next call works. No null pointer, wrong count or text that is not UTF-8 does harm; a pointer
 * to memory that is not there does.
 */
#ifndef SNAP_H
#define SNAP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What came of a call. */
typedef enum snap_status {
    SNAP_OK = 0,
    /* The progress function asked for it. */
    SNAP_CANCELLED = 1,
    /* A null pointer, a wrong count or struct_size, text that is not UTF-8, or a number out of range. */
    SNAP_ERROR_ARGUMENT = 2,
    /* A file is not there, cannot be written, is damaged, or is of another version. */
    SNAP_ERROR_FILE = 3,
    /* Not enough memory, or no more threads. */
    SNAP_ERROR_MEMORY = 4,
    /* A network cannot run, or gives values that are not finite. */
    SNAP_ERROR_RUN = 5,
    /* The model is running another call. */
    SNAP_ERROR_BUSY = 6,
    /* A defect of the library. */
    SNAP_ERROR_INTERNAL = 70
} snap_status;

/* An open file, ready to run. */
typedef struct snap_model snap_model;

/* How a file is run. */
typedef struct snap_options {
    size_t struct_size;
    /* Threads that share the work, the calling one included; 0: as many as the process may use at once. */
    size_t threads;
} snap_options;

/* What a model takes and gives. */
typedef struct snap_info {
    /* Set by the caller before the call. */
    size_t struct_size;
    /* Tokens of a prompt, padded, and width of a token's embedding. */
    size_t text_length;
    size_t text_width;
    /* Channels, rows and columns of the latents. */
    size_t latent_channels;
    size_t latent_height;
    size_t latent_width;
    /* Pixels of the picture. */
    size_t image_width;
    size_t image_height;
    /* Floats of one prompt's embeddings [1, text_length, text_width]. */
    size_t embeddings_count;
    /* Floats of one picture's latents [1, latent_channels, latent_height, latent_width]. */
    size_t latents_count;
    /* Threads that share the work. */
    size_t threads;
    /* Steps and guidance that the model was made for. */
    uint32_t steps;
    float guidance;
} snap_info;

/* What to make. */
typedef struct snap_request {
    size_t struct_size;
    /* What the picture should show; needed, may be empty. */
    const char *prompt;
    /* What it should not show; NULL: nothing. Without guidance it plays no part. */
    const char *negative_prompt;
    /* Where the run starts, latents_count floats; NULL: noise of the seed. */
    const float *latents;
    size_t latents_count;
    /* Seed of the noise, the same as in PyTorch on the CPU; only the low 32 bits count. */
    uint64_t seed;
    /* Number of DDIM steps; 0: the model's. */
    uint32_t steps;
    /* Guidance scale; 0: the model's. At 1 and below there is no guidance, and a step takes half the time. */
    float guidance;
} snap_request;

/* A picture of 8-bit RGB. It is the library's: read it, do not change it, and give it back with snap_image_free. */
typedef struct snap_image {
    size_t width;
    size_t height;
    /* 3 * width * height bytes: red, green and blue of each pixel, row by row from the top, without padding. */
    const uint8_t *pixels;
    /* The library's. */
    void *owner;
} snap_image;

/* A step that has run; valid until the progress function returns. */
typedef struct snap_progress {
    /* Set by the library. */
    size_t struct_size;
    /* Steps that have run, from 1, and steps of the run. */
    size_t steps_done;
    size_t steps;
    /* Latents after the step. */
    const float *latents;
    size_t latents_count;
    /* The library's, for snap_preview. */
    void *run;
} snap_progress;

/*
 * Called after every step, on the thread that called snap_generate, with the `user` given there. Anything but 0 cancels the
 * run. It must return: neither exceptions nor longjmp may leave it.
 */
typedef int (*snap_progress_fn)(const snap_progress *progress, void *user);

/* The version of the library, such as "0.1.0"; valid for good. */
const char *snap_version(void);

/*
 * What went wrong in the last call on this thread that did not give SNAP_OK; "" when there is none. Valid until the next
 * such call on this thread.
 */
const char *snap_last_error(void);

/*
 * Opens a .snap file. `options` may be NULL for all zero. On success `*model` is to be closed with snap_close, otherwise it
 * is NULL. The file is mapped and read while the model runs: it must not be changed or truncated before snap_close.
 */
snap_status snap_open(const char *path, const snap_options *options, snap_model **model);

/* Closes a model; NULL is fine. No call may be running on it, and none may follow. */
void snap_close(snap_model *model);

/* Writes the numbers of a model to `*info`; also while the model runs. */
snap_status snap_get_info(const snap_model *model, snap_info *info);

/*
 * Makes a picture. `progress` may be NULL. On success `*image` is to be given back with snap_image_free, otherwise it is all
 * zero; what was in it before is not freed. A run that is cancelled ends with SNAP_CANCELLED after the step that is running.
 */
snap_status snap_generate(snap_model *model, const snap_request *request, snap_progress_fn progress, void *user,
                          snap_image *image);

/*
 * The picture as the model sees it at this step, for about the time of decoding a picture. Only within the progress
 * function, on its thread, with the struct it was given. `*image` as in snap_generate.
 */
snap_status snap_preview(const snap_progress *progress, snap_image *image);

/* Writes a picture of this library as PNG, over a file that is there. */
snap_status snap_save_png(const snap_image *image, const char *path);

/* Frees a picture and sets it to zero; NULL and all zero are fine. */
void snap_image_free(snap_image *image);

/*
 * The parts of snap_generate, for loops of your own: noise and timesteps, embeddings of both prompts, then for every step
 * snap_denoise, guidance of your own and snap_advance; at the end snap_decode.
 */

/* Writes `count` normal numbers, those of PyTorch on the CPU for this seed, of which only the low 32 bits count. */
snap_status snap_noise(uint64_t seed, float *noise, size_t count);

/* Writes the timesteps of a run of `steps` steps, in the order of the run: as many numbers. */
snap_status snap_timesteps(const snap_model *model, uint32_t *timesteps, size_t steps);

/* Writes the embeddings of a text, embeddings_count floats. */
snap_status snap_encode_text(snap_model *model, const char *text, float *embeddings, size_t embeddings_count);

/*
 * Runs the UNet for `batch` texts at once, at least 1: `latents`, latents_count floats, the same for all; `embeddings`, batch *
 * embeddings_count floats; writes `predictions`, batch * latents_count floats.
 */
snap_status snap_denoise(snap_model *model, uint32_t timestep, size_t batch, const float *latents, size_t latents_count,
                         const float *embeddings, size_t embeddings_count, float *predictions,
                         size_t predictions_count);

/*
 * The DDIM step `step`, from 0, of a run of `steps` steps: replaces the latents by the next ones. `prediction` is that of
 * the UNet after guidance. Both have latents_count floats.
 */
snap_status snap_advance(const snap_model *model, size_t step, size_t steps, const float *prediction, float *latents,
                         size_t latents_count);

/* The picture of latents as a run leaves them. `*image` as in snap_generate. */
snap_status snap_decode(snap_model *model, const float *latents, size_t latents_count, snap_image *image);

#ifdef __cplusplus
}
#endif

#endif
