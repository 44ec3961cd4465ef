/*
 * run PACKAGE [function NAME] [in NAME FILE]... [out NAME FILE BYTES]...: runs a package on the bytes of files. Prints its
 * description.
 */
#include "snap_coreml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FEATURES = 8 };

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, snap_coreml_last_error());
    return 1;
}

static void *contents(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        return NULL;
    }
    *bytes = (size_t)ftell(file);
    rewind(file);
    void *data = malloc(*bytes);
    size_t found = data == NULL ? 0 : fread(data, 1, *bytes, file);
    fclose(file);
    return found == *bytes ? data : NULL;
}

int main(int argc, char **argv)
{
    snap_coreml_model *model;
    int first = 2;
    const char *function = NULL;
    if (argc > 3 && strcmp(argv[2], "function") == 0) {
        function = argv[3];
        first = 4;
    }
    if (argc < 2 || snap_coreml_open(argv[1], function, &model) != SNAP_COREML_OK) {
        return fail("open");
    }
    const char *json;
    if (snap_coreml_description(model, &json) != SNAP_COREML_OK) {
        return fail("description");
    }
    puts(json);
    snap_coreml_input inputs[MAX_FEATURES];
    snap_coreml_output outputs[MAX_FEATURES];
    const char *files[MAX_FEATURES];
    size_t input_count = 0, output_count = 0;
    for (int i = first; i < argc;) {
        if (strcmp(argv[i], "in") == 0) {
            snap_coreml_input *input = &inputs[input_count++];
            input->name = argv[i + 1];
            input->data = contents(argv[i + 2], &input->bytes);
            i += 3;
        } else {
            files[output_count] = argv[i + 2];
            snap_coreml_output *output = &outputs[output_count++];
            output->name = argv[i + 1];
            output->bytes = (size_t)strtoul(argv[i + 3], NULL, 10);
            output->data = malloc(output->bytes);
            i += 4;
        }
    }
    if (snap_coreml_predict(model, inputs, input_count, outputs, output_count) != SNAP_COREML_OK) {
        return fail("predict");
    }
    for (size_t i = 0; i < output_count; i++) {
        FILE *file = fopen(files[i], "wb");
        if (file == NULL || fwrite(outputs[i].data, 1, outputs[i].bytes, file) != outputs[i].bytes || fclose(file) != 0) {
            return fail("write");
        }
        free(outputs[i].data);
    }
    for (size_t i = 0; i < input_count; i++) {
        free((void *)inputs[i].data);
    }
    snap_coreml_close(model);
    return 0;
}
