"""Loads Core ML packages with coremltools and tells what they show.

usage: load_packages.py PACKAGE...

Each package is opened as coremltools does it, and its program rebuilt with type inference by `milproto.load`. Prints one
JSON list with an object per package, `{"error": text}` for one that coremltools refuses; else its specification version,
its metadata, and for every function its operation set, the number of its operations, and its features as the description
has them.
"""

import json
import sys

from coremltools.proto import FeatureTypes_pb2

from run_coreml import load_program

ARRAY = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType
COLOR = FeatureTypes_pb2.ImageFeatureType.ColorSpace


def feature(described):
    """A feature: its name, what people are told about it, its kind and type."""
    kind = described.type.WhichOneof("Type")
    found = {"name": described.name, "text": described.shortDescription, "kind": kind}
    if kind == "multiArrayType":
        array = described.type.multiArrayType
        found["type"] = ARRAY.Name(array.dataType)
        found["shape"] = list(array.shape)
    elif kind == "imageType":
        image = described.type.imageType
        found["type"] = COLOR.Name(image.colorSpace)
        found["shape"] = [image.height, image.width]
    return found


def describe(package):
    program, spec = load_program(package)
    description = spec.description
    functions = {}
    described = {f.name: f for f in description.functions} or {"main": description}
    for name, function in program.functions.items():
        functions[name] = {
            "opset": spec.mlProgram.functions[name].opset,
            "operations": len(function.operations),
            "inputs": [feature(f) for f in described[name].input],
            "outputs": [feature(f) for f in described[name].output],
        }
    metadata = description.metadata
    return {
        "specification": spec.specificationVersion,
        "author": metadata.author,
        "license": metadata.license,
        "version": metadata.versionString,
        "description": metadata.shortDescription,
        "user_defined": dict(metadata.userDefined),
        "default_function": description.defaultFunctionName,
        "functions": functions,
    }


def main():
    results = []
    for package in sys.argv[1:]:
        try:
            results.append(describe(package))
        except Exception as error:  # a package's failure is its result, the others are still loaded
            results.append({"error": f"{type(error).__name__}: {error}"})
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
