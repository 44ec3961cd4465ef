/*
 * Calls every function of snap.h on the smallest fixture. Prints each expectation that does not hold; exit code 1 when
 * there is one.
 */
#include "snap.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int failures;

#define EXPECT(condition) \
    ((condition) ? (void)0 : (void)(failures++, printf("line %d: %s; %s\n", __LINE__, #condition, snap_last_error())))

/* The call gives this status, and a message that contains this text. */
#define EXPECT_ERROR(call, status, part) \
    do { \
        EXPECT((call) == (status)); \
        EXPECT(strstr(snap_last_error(), (part)) != NULL); \
    } while (0)

enum { TEXT = 77 * 16, LATENTS = 4 * 8 * 16, WIDTH = 128, HEIGHT = 64, BYTES = 3 * WIDTH * HEIGHT };

static snap_request a_request(void)
{
    snap_request request = {0};
    request.struct_size = sizeof request;
    request.prompt = "a cat";
    request.negative_prompt = "blurry";
    request.seed = 7;
    request.steps = 2;
    return request;
}

static int is_empty(const snap_image *image)
{
    return image->width == 0 && image->height == 0 && image->pixels == NULL && image->owner == NULL;
}

/* Makes the picture of a request, and frees it again. */
static void make(snap_model *model, const snap_request *request, uint8_t *pixels)
{
    snap_image image;
    EXPECT(snap_generate(model, request, NULL, NULL, &image) == SNAP_OK);
    if (!is_empty(&image)) {
        EXPECT(image.width == WIDTH && image.height == HEIGHT);
        memcpy(pixels, image.pixels, BYTES);
    }
    snap_image_free(&image);
    EXPECT(is_empty(&image));
    snap_image_free(&image);
}

static void open_and_close(const char *path, const char *no_model)
{
    snap_model *model = (snap_model *)&failures;
    EXPECT_ERROR(snap_open(NULL, NULL, &model), SNAP_ERROR_ARGUMENT, "'path' is null");
    EXPECT(model == NULL);
    EXPECT_ERROR(snap_open(path, NULL, NULL), SNAP_ERROR_ARGUMENT, "'model' is null");
    EXPECT_ERROR(snap_open("\xff", NULL, &model), SNAP_ERROR_ARGUMENT, "'path' is not UTF-8");
    EXPECT_ERROR(snap_open("no/such.snap", NULL, &model), SNAP_ERROR_FILE, "no/such.snap");
    EXPECT_ERROR(snap_open(no_model, NULL, &model), SNAP_ERROR_FILE, no_model);

    struct {
        snap_options options;
        size_t newer;
    } grown = {{0, 1}, 0};
    EXPECT_ERROR(snap_open(path, &grown.options, &model), SNAP_ERROR_ARGUMENT, "struct_size of snap_options is 0");
    grown.options.struct_size = sizeof(snap_options) - 1;
    EXPECT_ERROR(snap_open(path, &grown.options, &model), SNAP_ERROR_ARGUMENT, "struct_size");
    grown.options.struct_size = SIZE_MAX;
    EXPECT_ERROR(snap_open(path, &grown.options, &model), SNAP_ERROR_ARGUMENT, "struct_size");
    grown.options.struct_size = sizeof grown;
    grown.newer = 1;
    EXPECT_ERROR(snap_open(path, &grown.options, &model), SNAP_ERROR_ARGUMENT, "does not know");
    EXPECT(model == NULL);
    grown.newer = 0;
    EXPECT(snap_open(path, &grown.options, &model) == SNAP_OK);
    snap_close(model);
    snap_close(NULL);
}

static void info(const snap_model *model)
{
    struct {
        snap_info info;
        size_t newer;
    } grown;
    memset(&grown, 0xff, sizeof grown);
    snap_info *info = &grown.info;
    EXPECT_ERROR(snap_get_info(model, info), SNAP_ERROR_ARGUMENT, "struct_size of snap_info");
    EXPECT_ERROR(snap_get_info(model, NULL), SNAP_ERROR_ARGUMENT, "'info' is null");
    info->struct_size = sizeof *info;
    EXPECT_ERROR(snap_get_info(NULL, info), SNAP_ERROR_ARGUMENT, "'model' is null");
    EXPECT(snap_get_info(model, info) == SNAP_OK);
    /* The configurations in fixtures/variants/lean, at 64 by 128 pixels. */
    EXPECT(info->struct_size == sizeof *info && info->text_length == 77 && info->text_width == 16);
    EXPECT(info->latent_channels == 4 && info->latent_height == 8 && info->latent_width == 16);
    EXPECT(info->image_width == WIDTH && info->image_height == HEIGHT);
    EXPECT(info->embeddings_count == TEXT && info->latents_count == LATENTS);
    EXPECT(info->threads == 2 && info->steps == 8 && info->guidance == 7.5f);
    EXPECT(grown.newer == SIZE_MAX);
    info->struct_size = sizeof grown;
    EXPECT(snap_get_info(model, info) == SNAP_OK && info->struct_size == sizeof grown && grown.newer == 0);
}

static void wrong_requests(snap_model *model)
{
    snap_image image = {1, 1, NULL, NULL};
    float latents[LATENTS] = {0};
    snap_request request = a_request();
    EXPECT_ERROR(snap_generate(NULL, &request, NULL, NULL, &image), SNAP_ERROR_ARGUMENT, "'model' is null");
    EXPECT(is_empty(&image));
    EXPECT_ERROR(snap_generate(model, NULL, NULL, NULL, &image), SNAP_ERROR_ARGUMENT, "'request' is null");
    EXPECT_ERROR(snap_generate(model, &request, NULL, NULL, NULL), SNAP_ERROR_ARGUMENT, "'image' is null");
    request.struct_size = 8;
    EXPECT_ERROR(snap_generate(model, &request, NULL, NULL, &image), SNAP_ERROR_ARGUMENT, "snap_request is 8");
    request = a_request();
    request.prompt = NULL;
    EXPECT_ERROR(snap_generate(model, &request, NULL, NULL, &image), SNAP_ERROR_ARGUMENT, "'prompt' is null");
    request.prompt = "caf\xe9";
    EXPECT_ERROR(snap_generate(model, &request, NULL, NULL, &image), SNAP_ERROR_ARGUMENT, "'prompt' is not UTF-8");
    request = a_request();
    request.negative_prompt = "\x80";
    EXPECT_ERROR(snap_generate(model, &request, NULL, NULL, &image), SNAP_ERROR_ARGUMENT, "'negative_prompt'");
    request = a_request();
    request.steps = 1001;
    EXPECT_ERROR(snap_generate(model, &request, NULL, NULL, &image), SNAP_ERROR_ARGUMENT, "1001 steps");
    request = a_request();
    request.guidance = NAN;
    EXPECT_ERROR(snap_generate(model, &request, NULL, NULL, &image), SNAP_ERROR_ARGUMENT, "guidance");
    request = a_request();
    request.latents = latents;
    EXPECT_ERROR(snap_generate(model, &request, NULL, NULL, &image), SNAP_ERROR_ARGUMENT, "'latents' has 0 values");
    request.latents_count = LATENTS;
    latents[5] = INFINITY;
    EXPECT_ERROR(snap_generate(model, &request, NULL, NULL, &image), SNAP_ERROR_ARGUMENT, "value 5");
    EXPECT(is_empty(&image));
}

struct run {
    snap_model *model;
    size_t calls;
    size_t cancel_after;
    int busy;
    uint8_t preview[BYTES];
};

static int on_progress(const snap_progress *progress, void *user)
{
    struct run *run = user;
    run->calls++;
    EXPECT(progress->struct_size == sizeof *progress && progress->steps_done == run->calls);
    EXPECT(progress->latents_count == LATENTS && isfinite(progress->latents[LATENTS - 1]));
    if (run->busy && run->calls == 1) {
        /* The model is in use by the run that calls this. */
        snap_image image;
        float embeddings[TEXT];
        snap_request request = a_request();
        EXPECT(progress->steps == 2);
        EXPECT_ERROR(snap_generate(run->model, &request, NULL, NULL, &image), SNAP_ERROR_BUSY, "runs");
        EXPECT_ERROR(snap_encode_text(run->model, "", embeddings, TEXT), SNAP_ERROR_BUSY, "runs");
        EXPECT_ERROR(snap_decode(run->model, progress->latents, LATENTS, &image), SNAP_ERROR_BUSY, "runs");
        snap_info info = {0};
        info.struct_size = sizeof info;
        EXPECT(snap_get_info(run->model, &info) == SNAP_OK);

        EXPECT_ERROR(snap_preview(NULL, &image), SNAP_ERROR_ARGUMENT, "'progress' is null");
        EXPECT_ERROR(snap_preview(progress, NULL), SNAP_ERROR_ARGUMENT, "'image' is null");
        EXPECT(snap_preview(progress, &image) == SNAP_OK && image.width == WIDTH && image.height == HEIGHT);
        if (!is_empty(&image)) {
            memcpy(run->preview, image.pixels, BYTES);
        }
        snap_image_free(&image);
    }
    return run->calls == run->cancel_after ? -1 : 0;
}

/* Leaves the picture of a_request in `first`. */
static void runs(snap_model *model, const char *no_folder, uint8_t *first)
{
    static uint8_t again[BYTES];
    static struct run run;
    snap_request request = a_request();
    make(model, &request, first);

    /* Calls from within, previews, and what comes out all the same. */
    run.model = model;
    run.busy = 1;
    snap_image image;
    EXPECT(snap_generate(model, &request, on_progress, &run, &image) == SNAP_OK && run.calls == 2);
    EXPECT(!is_empty(&image) && memcmp(image.pixels, first, BYTES) == 0);
    EXPECT(memcmp(run.preview, first, BYTES) != 0);
    EXPECT_ERROR(snap_save_png(&image, NULL), SNAP_ERROR_ARGUMENT, "'path' is null");
    EXPECT_ERROR(snap_save_png(&image, no_folder), SNAP_ERROR_FILE, no_folder);
    EXPECT_ERROR(snap_save_png(NULL, "a.png"), SNAP_ERROR_ARGUMENT, "'image' is null");
    snap_image_free(&image);
    EXPECT_ERROR(snap_save_png(&image, "a.png"), SNAP_ERROR_ARGUMENT, "'image' is null");
    snap_image_free(NULL);

    /* Cancelled after the first of the model's 8 steps; the next run is as the one before. */
    run.busy = 0;
    run.calls = 0;
    run.cancel_after = 1;
    request.steps = 0;
    EXPECT_ERROR(snap_generate(model, &request, on_progress, &run, &image), SNAP_CANCELLED, "cancelled");
    EXPECT(run.calls == 1 && is_empty(&image));
    request.steps = 2;
    make(model, &request, again);
    EXPECT(memcmp(first, again, BYTES) == 0);

    /* Without guidance it is another one. */
    request.guidance = 1;
    make(model, &request, again);
    EXPECT(memcmp(first, again, BYTES) != 0);
}

/* The loop of snap_generate by hand gives its picture, which is `expected`. */
static void own_loop(snap_model *model, const uint8_t *expected)
{
    static float latents[LATENTS], embeddings[2 * TEXT], predictions[2 * LATENTS], guided[LATENTS];
    uint32_t timesteps[2];
    snap_request request = a_request();
    EXPECT(snap_noise(7, latents, LATENTS) == SNAP_OK);
    EXPECT(snap_timesteps(model, timesteps, 2) == SNAP_OK);
    /* Leading spacing with offset 1, as diffusers has it. */
    EXPECT(timesteps[0] == 501 && timesteps[1] == 1);
    EXPECT(snap_encode_text(model, request.negative_prompt, embeddings, TEXT) == SNAP_OK);
    EXPECT(snap_encode_text(model, request.prompt, embeddings + TEXT, TEXT) == SNAP_OK);
    for (size_t step = 0; step < 2; step++) {
        EXPECT(snap_denoise(model, timesteps[step], 2, latents, LATENTS, embeddings, 2 * TEXT, predictions,
                            2 * LATENTS) == SNAP_OK);
        for (size_t i = 0; i < LATENTS; i++) {
            float difference = predictions[LATENTS + i] - predictions[i];
            guided[i] = predictions[i] + 7.5f * difference;
        }
        EXPECT(snap_advance(model, step, 2, guided, latents, LATENTS) == SNAP_OK);
    }
    snap_image image;
    EXPECT(snap_decode(model, latents, LATENTS, &image) == SNAP_OK);
    EXPECT(!is_empty(&image) && memcmp(image.pixels, expected, BYTES) == 0);
    snap_image_free(&image);

    /* Noise that is given is as good as its seed. */
    static uint8_t again[BYTES];
    EXPECT(snap_noise(7, latents, LATENTS) == SNAP_OK);
    request.seed = 8;
    request.latents = latents;
    request.latents_count = LATENTS;
    make(model, &request, again);
    EXPECT(memcmp(again, expected, BYTES) == 0);
}

static void wrong_parts(snap_model *model)
{
    static float latents[LATENTS], embeddings[TEXT], predictions[LATENTS];
    uint32_t timesteps[1];
    snap_image image;
    EXPECT_ERROR(snap_noise(0, NULL, 4), SNAP_ERROR_ARGUMENT, "'noise' is null");
    EXPECT_ERROR(snap_noise(0, latents, SIZE_MAX / 2), SNAP_ERROR_ARGUMENT, "'noise'");
    EXPECT_ERROR(snap_noise(0, (float *)((char *)latents + 1), 4), SNAP_ERROR_ARGUMENT, "not aligned");
    EXPECT_ERROR(snap_timesteps(model, timesteps, 0), SNAP_ERROR_ARGUMENT, "0 steps");
    EXPECT_ERROR(snap_timesteps(model, NULL, 1), SNAP_ERROR_ARGUMENT, "'timesteps' is null");
    EXPECT_ERROR(snap_timesteps(NULL, timesteps, 1), SNAP_ERROR_ARGUMENT, "'model' is null");
    EXPECT_ERROR(snap_encode_text(model, NULL, embeddings, TEXT), SNAP_ERROR_ARGUMENT, "'text' is null");
    EXPECT_ERROR(snap_encode_text(model, "\xc3", embeddings, TEXT), SNAP_ERROR_ARGUMENT, "UTF-8");
    EXPECT_ERROR(snap_encode_text(model, "", embeddings, TEXT - 1), SNAP_ERROR_ARGUMENT, "has 1231 values");
    EXPECT_ERROR(snap_encode_text(model, "", NULL, TEXT), SNAP_ERROR_ARGUMENT, "'embeddings' is null");

    EXPECT_ERROR(snap_denoise(model, 1, 0, latents, LATENTS, embeddings, 0, predictions, 0), SNAP_ERROR_ARGUMENT,
                 "'batch' is 0");
    EXPECT_ERROR(snap_denoise(model, 1, 1, latents, 1, embeddings, TEXT, predictions, LATENTS), SNAP_ERROR_ARGUMENT,
                 "'latents' has 1 values");
    EXPECT_ERROR(snap_denoise(model, 1, 2, latents, LATENTS, embeddings, TEXT, predictions, LATENTS),
                 SNAP_ERROR_ARGUMENT, "'embeddings' has");
    EXPECT_ERROR(snap_denoise(model, 1, 1, latents, LATENTS, embeddings, TEXT, predictions, 3), SNAP_ERROR_ARGUMENT,
                 "'predictions' has 3 values");
    EXPECT_ERROR(snap_denoise(model, 1, SIZE_MAX, latents, LATENTS, embeddings, TEXT, predictions, LATENTS),
                 SNAP_ERROR_ARGUMENT, "'embeddings' has");
    EXPECT_ERROR(snap_denoise(model, 1, 1, latents, LATENTS, embeddings, TEXT, latents, LATENTS),
                 SNAP_ERROR_ARGUMENT, "share memory");
    EXPECT_ERROR(snap_denoise(model, 1, 1, NULL, LATENTS, embeddings, TEXT, predictions, LATENTS),
                 SNAP_ERROR_ARGUMENT, "'latents' is null");
    EXPECT(snap_denoise(model, 1, 1, latents, LATENTS, embeddings, TEXT, predictions, LATENTS) == SNAP_OK);

    EXPECT_ERROR(snap_advance(model, 2, 2, predictions, latents, LATENTS), SNAP_ERROR_ARGUMENT, "'step' is 2");
    EXPECT_ERROR(snap_advance(model, 0, 0, predictions, latents, LATENTS), SNAP_ERROR_ARGUMENT, "0 steps");
    EXPECT_ERROR(snap_advance(model, 0, 1, latents, latents, LATENTS), SNAP_ERROR_ARGUMENT, "share memory");
    EXPECT_ERROR(snap_advance(model, 0, 1, NULL, latents, LATENTS), SNAP_ERROR_ARGUMENT, "'prediction' is null");

    EXPECT_ERROR(snap_decode(model, latents, LATENTS + 1, &image), SNAP_ERROR_ARGUMENT, "has 513 values");
    EXPECT_ERROR(snap_decode(model, latents, LATENTS, NULL), SNAP_ERROR_ARGUMENT, "'image' is null");
    latents[3] = NAN;
    EXPECT_ERROR(snap_decode(model, latents, LATENTS, &image), SNAP_ERROR_ARGUMENT, "value 3 of 'latents'");
    EXPECT(is_empty(&image));
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        printf("usage: %s MODEL.snap\n", argv[0]);
        return 2;
    }
    EXPECT(snap_last_error()[0] == '\0');
    EXPECT(strchr(snap_version(), '.') != NULL);
    open_and_close(argv[1], argv[0]);
    snap_options options = {sizeof options, 2};
    snap_model *model;
    EXPECT(snap_open(argv[1], &options, &model) == SNAP_OK);
    if (model == NULL) {
        return 1;
    }
    info(model);
    wrong_requests(model);
    static uint8_t picture[BYTES];
    runs(model, "no/such/folder.png", picture);
    own_loop(model, picture);
    wrong_parts(model);
    snap_close(model);
    return failures != 0;
}
