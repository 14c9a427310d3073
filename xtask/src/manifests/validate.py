"""Holds objects against schemas, and says one problem a line, then `end`.

The argument is a JSON file: `versions` of Kubernetes, `objects` (each with `where` it was found), and `customs`, the
schemas of custom resources.
"""

import json
import sys

import jsonschema
import kubernetes_validate


def closed(schema):
    """The schema as Kubernetes takes it: a field that it does not name is not kept, so for us it is a mistake."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(part) for key, part in schema.items()}
    names_fields = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if names_fields and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result["additionalProperties"] = False
    return result


def path(error):
    return ".".join(str(part) for part in error.absolute_path) or "the object"


def custom(obj, schemas):
    for schema in schemas:
        for error in jsonschema.Draft202012Validator(schema).iter_errors(obj):
            yield f"{path(error)}: {error.message}"


def builtin(obj, versions):
    found = {}
    for version in versions:
        problem = problem_of(obj, version)
        if problem:
            found.setdefault(problem, []).append(version)
    for problem, broken in found.items():
        yield f"Kubernetes {', '.join(broken)}: {problem}"


def problem_of(obj, version):
    try:
        used = kubernetes_validate.validate(obj, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{path(error)}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        return "no schema covers it"
    # For a version that it does not have, the package takes the one before without a word.
    return None if used == version else f"there are no schemas of it; the newest before it are of {used}"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        work = json.load(file)
    schemas = {}
    for known in work["customs"]:
        schemas.setdefault((known["apiVersion"], known["kind"]), []).append(closed(known["schema"]))
    for item in work["objects"]:
        obj = item["object"]
        key = (obj["apiVersion"], obj["kind"])
        found = custom(obj, schemas[key]) if key in schemas else builtin(obj, work["versions"])
        for problem in found:
            name = obj.get("metadata", {}).get("name")
            print(f"{item['where']}: {obj['kind']} {name}: {' '.join(problem.split())}")
    print("end")


main()
