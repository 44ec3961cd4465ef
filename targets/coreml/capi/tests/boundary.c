/*
 * boundary PACKAGE NO_PACKAGE: calls every function of snap_coreml.h on a text encoder of the smallest fixture, with arguments
 * that are right, wrong and absent. Prints each expectation that does not hold; exit code 1 when there is one.
 */
#include "snap_coreml.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int failures;

#define EXPECT(condition) \
    ((condition) ? (void)0 : (void)(failures++, printf("line %d: %s; %s\n", __LINE__, #condition, snap_coreml_last_error())))

/* The call gives this status, and a message that contains this text. */
#define EXPECT_ERROR(call, status, part) \
    do { \
        EXPECT((call) == SNAP_COREML_ERROR_##status); \
        EXPECT(strstr(snap_coreml_last_error(), (part)) != NULL); \
    } while (0)

/* Tokens of a prompt and width of an embedding; f16 has 2 bytes. */
enum { TOKENS = 77, WIDTH = 16, HIDDEN_BYTES = 2 * TOKENS * WIDTH, POOLED_BYTES = 2 * WIDTH };

static void open_and_close(const char *path, const char *no_package)
{
    snap_coreml_model *model = (snap_coreml_model *)&failures;
    EXPECT_ERROR(snap_coreml_open(NULL, NULL, &model), ARGUMENT, "'path' is null");
    EXPECT(model == NULL);
    EXPECT_ERROR(snap_coreml_open(path, NULL, NULL), ARGUMENT, "'model' is null");
    EXPECT_ERROR(snap_coreml_open("\xff", NULL, &model), ARGUMENT, "'path' is not UTF-8");
    EXPECT_ERROR(snap_coreml_open("no/such.mlpackage", NULL, &model), PACKAGE, "such.mlpackage/Manifest.json: cannot be read");
    EXPECT_ERROR(snap_coreml_open(no_package, NULL, &model), PACKAGE, "breaks the rules of the format");
    EXPECT_ERROR(snap_coreml_open(path, "\xff", &model), ARGUMENT, "'function' is not UTF-8");
    EXPECT_ERROR(snap_coreml_open(path, "size_64x64", &model), PACKAGE, "there is no function 'size_64x64'");
    EXPECT(model == NULL);
    EXPECT_ERROR(snap_coreml_check(NULL), ARGUMENT, "'path' is null");
    EXPECT_ERROR(snap_coreml_check(no_package), PACKAGE, "Manifest.json");
    EXPECT(snap_coreml_check(path) == SNAP_COREML_OK);
    snap_coreml_close(NULL);
}

static void predict(const snap_coreml_model *model)
{
    static int32_t ids[TOKENS];
    static uint8_t hidden[HIDDEN_BYTES], pooled[POOLED_BYTES];
    memset(hidden, 0xAA, sizeof hidden);
    snap_coreml_input input = {"input_ids", ids, sizeof ids};
    snap_coreml_input two_inputs[2] = {{"input_ids", ids, sizeof ids}, {"input_ids", ids, sizeof ids}};
    snap_coreml_output output = {"last_hidden_state", hidden, sizeof hidden};
    snap_coreml_output two[2] = {{"pooler_output", pooled, sizeof pooled}, {"last_hidden_state", hidden, sizeof hidden}};

    EXPECT_ERROR(snap_coreml_predict(NULL, &input, 1, &output, 1), ARGUMENT, "'model' is null");
    EXPECT_ERROR(snap_coreml_predict(model, NULL, 1, &output, 1), ARGUMENT, "'inputs' is null");
    EXPECT_ERROR(snap_coreml_predict(model, &input, 1, NULL, 1), ARGUMENT, "'outputs' is null");
    EXPECT_ERROR(snap_coreml_predict(model, &input, SIZE_MAX, &output, 1), ARGUMENT, "'inputs' has");
    EXPECT_ERROR(snap_coreml_predict(model, NULL, 0, &output, 1), ARGUMENT, "input 'input_ids' is required");
    EXPECT_ERROR(snap_coreml_predict(model, two_inputs, 2, &output, 1), ARGUMENT, "input 'input_ids' is given twice");

    input.name = NULL;
    EXPECT_ERROR(snap_coreml_predict(model, &input, 1, &output, 1), ARGUMENT, "'name' is null");
    input.name = "ids";
    EXPECT_ERROR(snap_coreml_predict(model, &input, 1, &output, 1), ARGUMENT, "no input 'ids'; it has 'input_ids'");
    input.name = "input_ids";
    input.data = NULL;
    EXPECT_ERROR(snap_coreml_predict(model, &input, 1, &output, 1), ARGUMENT, "'data' is null");
    input.data = ids;
    input.bytes = sizeof ids - 1;
    EXPECT_ERROR(snap_coreml_predict(model, &input, 1, &output, 1), ARGUMENT, "takes 308 bytes, not 307");
    input.bytes = SIZE_MAX;
    EXPECT_ERROR(snap_coreml_predict(model, &input, 1, &output, 1), ARGUMENT, "'data' has");
    input.bytes = sizeof ids;

    output.name = "\xff";
    EXPECT_ERROR(snap_coreml_predict(model, &input, 1, &output, 1), ARGUMENT, "'name' is not UTF-8");
    output.name = "image";
    EXPECT_ERROR(snap_coreml_predict(model, &input, 1, &output, 1), ARGUMENT, "no output 'image'");
    output.name = "last_hidden_state";
    output.bytes = 2 * sizeof hidden;
    EXPECT_ERROR(snap_coreml_predict(model, &input, 1, &output, 1), ARGUMENT, "output 'last_hidden_state' is f16[1, 77, 16]");
    output.bytes = sizeof hidden;
    output.data = NULL;
    EXPECT_ERROR(snap_coreml_predict(model, &input, 1, &output, 1), ARGUMENT, "'data' is null");
    output.data = hidden;
    two[0] = output;
    EXPECT_ERROR(snap_coreml_predict(model, &input, 1, two, 2), ARGUMENT, "output 'last_hidden_state' is given twice");

    for (size_t i = 0; i < sizeof hidden; i++) {
        EXPECT(hidden[i] == 0xAA);
    }
    EXPECT(snap_coreml_predict(model, &input, 1, NULL, 0) == SNAP_COREML_OK);
    EXPECT(snap_coreml_predict(model, &input, 1, &output, 1) == SNAP_COREML_OK);
    static uint8_t again[HIDDEN_BYTES];
    two[0] = (snap_coreml_output){"pooler_output", pooled, sizeof pooled};
    two[1].data = again;
    EXPECT(snap_coreml_predict(model, &input, 1, two, 2) == SNAP_COREML_OK);
    EXPECT(memcmp(hidden, again, sizeof hidden) == 0);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        return 2;
    }
    EXPECT(strcmp(snap_coreml_last_error(), "") == 0);
    open_and_close(argv[1], argv[2]);
    snap_coreml_model *model;
    EXPECT(snap_coreml_open(argv[1], NULL, &model) == SNAP_COREML_OK);
    if (model == NULL) {
        return 1;
    }
    const char *json = "";
    EXPECT_ERROR(snap_coreml_description(model, NULL), ARGUMENT, "'json' is null");
    EXPECT_ERROR(snap_coreml_description(NULL, &json), ARGUMENT, "'model' is null");
    EXPECT(json == NULL);
    EXPECT(snap_coreml_description(model, &json) == SNAP_COREML_OK);
    EXPECT(json != NULL && strstr(json, "{\"name\":\"input_ids\",\"dtype\":\"i32\",\"shape\":[1,77]}") != NULL);
    predict(model);
    snap_coreml_close(model);
    return failures != 0;
}
