/* Makes a picture with a .snap file: see snap.h. Exit code 0: done, 1: failed, 2: usage, 3: cancelled. */
#include "snap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    size_t cancel_after; /* steps; 0: never */
    const char *preview; /* file, or NULL */
};

static int fail(const char *what)
{
    fprintf(stderr, "error: %s: %s\n", what, snap_last_error());
    return 1;
}

/* Called after every step. */
static int on_progress(const snap_progress *progress, void *user)
{
    const struct run *run = user;
    printf("step %zu of %zu\n", progress->steps_done, progress->steps);
    fflush(stdout);
    if (run->preview != NULL) {
        snap_image image;
        if (snap_preview(progress, &image) != SNAP_OK || snap_save_png(&image, run->preview) != SNAP_OK) {
            fail(run->preview);
        }
        snap_image_free(&image);
    }
    return progress->steps_done == run->cancel_after;
}

static int generate(snap_model *model, const snap_request *request, struct run *run, const char *out)
{
    snap_image image;
    snap_status status = snap_generate(model, request, on_progress, run, &image);
    int code = 0;
    if (status == SNAP_CANCELLED) {
        printf("%s\n", snap_last_error());
        code = 3;
    } else if (status != SNAP_OK) {
        code = fail("no picture");
    } else if (snap_save_png(&image, out) != SNAP_OK) {
        code = fail("no file");
    } else {
        printf("wrote %s, %zu by %zu pixels\n", out, image.width, image.height);
    }
    snap_image_free(&image);
    return code;
}

int main(int argc, char **argv)
{
    if (argc < 4 || argc % 2 != 0) {
        fprintf(stderr,
                "usage: %s MODEL.snap PROMPT OUT.png [--negative TEXT] [--seed N] [--steps N] [--guidance G]\n"
                "       [--threads N] [--preview FILE.png] [--cancel-after STEPS]\n",
                argv[0]);
        return 2;
    }
    snap_options options = {0};
    options.struct_size = sizeof options;
    snap_request request = {0};
    request.struct_size = sizeof request;
    request.prompt = argv[2];
    struct run run = {0};
    for (int i = 4; i < argc; i += 2) {
        const char *option = argv[i], *value = argv[i + 1];
        if (strcmp(option, "--negative") == 0) {
            request.negative_prompt = value;
        } else if (strcmp(option, "--seed") == 0) {
            request.seed = strtoull(value, NULL, 10);
        } else if (strcmp(option, "--steps") == 0) {
            request.steps = (uint32_t)strtoul(value, NULL, 10);
        } else if (strcmp(option, "--guidance") == 0) {
            request.guidance = strtof(value, NULL);
        } else if (strcmp(option, "--threads") == 0) {
            options.threads = strtoul(value, NULL, 10);
        } else if (strcmp(option, "--preview") == 0) {
            run.preview = value;
        } else if (strcmp(option, "--cancel-after") == 0) {
            run.cancel_after = strtoul(value, NULL, 10);
        } else {
            fprintf(stderr, "error: there is no option %s\n", option);
            return 2;
        }
    }
    snap_model *model;
    if (snap_open(argv[1], &options, &model) != SNAP_OK) {
        return fail("cannot open the model");
    }
    int code = generate(model, &request, &run, argv[3]);
    snap_close(model);
    return code;
}
