/*
 * snap_coreml.h: runs Core ML packages on the CPU. Test equipment: the module CoreML that stands in for Apple's framework
 * on Linux is made of it.
 *
 *     snap_coreml_model *model;
 *     if (snap_coreml_open("Unet.mlpackage", NULL, &model) != SNAP_COREML_OK) { puts(snap_coreml_last_error()); return 1; }
 *     snap_coreml_input input = {"x", x, sizeof x};
 *     snap_coreml_output output = {"y", y, sizeof y};
 *     if (snap_coreml_predict(model, &input, 1, &output, 1) != SNAP_COREML_OK) { puts(snap_coreml_last_error()); }
 *     snap_coreml_close(model);
 *
 * Text is UTF-8 and ends with a zero byte. Buffers hold the elements of a feature in the type that the package gives it (f16,
 * f32 or i32, little-endian), row-major and contiguous; they need no alignment, and the buffers of outputs are apart from
 * each other. An output that is an RGB image has the type u8 and the shape [1, 3, rows, columns]: levels of red, green and blue.
 *
 * Threads: any function may be called from any thread. Calls on one model take turns.
 *
 * Errors: a function that returns a snap_coreml_status gives SNAP_COREML_OK, or says why not; snap_coreml_last_error then has the
 * details. No error harms the model. No null pointer, wrong length or text that is not UTF-8 does harm; a pointer to memory
 * that is not there does.
 */
#ifndef SNAP_COREML_H
#define SNAP_COREML_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What came of a call. */
typedef enum snap_coreml_status {
    SNAP_COREML_OK = 0,
    /* A null pointer, text that is not UTF-8, a feature that the model does not have or that is missing, a wrong length. */
    SNAP_COREML_ERROR_ARGUMENT = 1,
    /* A package is not there, breaks the rules of the format, or holds what the engine cannot run. */
    SNAP_COREML_ERROR_PACKAGE = 2,
    /* The model cannot run on these values, or the system has no memory or disk left. */
    SNAP_COREML_ERROR_RUN = 3,
    /* A defect of the library. */
    SNAP_COREML_ERROR_INTERNAL = 70
} snap_coreml_status;

/* An open package, ready to run. */
typedef struct snap_coreml_model snap_coreml_model;

/* The buffer of an input. */
typedef struct snap_coreml_input {
    const char *name;
    const void *data;
    size_t bytes;
} snap_coreml_input;

/* The buffer of an output. */
typedef struct snap_coreml_output {
    const char *name;
    void *data;
    size_t bytes;
} snap_coreml_output;

/* Why the last call of this thread that failed did so; empty when none has. Valid until the next one that fails. */
const char *snap_coreml_last_error(void);

/* Checks the package in a folder, whatever its name, against the rules of the format. The message has all that is wrong. */
snap_coreml_status snap_coreml_check(const char *path);

/*
 * Checks a package, reads the named one of its functions, and compiles it for the CPU. NULL stands for the default function;
 * a package whose only function has no description of its own has no other. `*model` becomes a handle for snap_coreml_close,
 * or NULL when it fails. The package must not change while the model is open.
 */
snap_coreml_status snap_coreml_open(const char *path, const char *function, snap_coreml_model **model);

/* Frees a model; NULL is allowed. No call may use it at the same time or later. */
void snap_coreml_close(snap_coreml_model *model);

/*
 * What the package says about itself and the function, as JSON that lives as long as the model:
 *
 *     {"specification_version": 8,
 *      "inputs": [{"name": "x", "dtype": "f16", "shape": [1, 4]}], "outputs": [...],
 *      "metadata": {"description": "", "version": "", "author": "", "license": "", "user_defined": {"key": "value"}}}
 */
snap_coreml_status snap_coreml_description(const snap_coreml_model *model, const char **json);

/*
 * Runs a model: all inputs, and those outputs that are wanted, in any order. Values of f16 are rounded where the package says
 * so. When it fails, the buffers of the outputs are as they were.
 */
snap_coreml_status snap_coreml_predict(const snap_coreml_model *model, const snap_coreml_input *inputs, size_t input_count,
                                       const snap_coreml_output *outputs, size_t output_count);

#ifdef __cplusplus
}
#endif

#endif
