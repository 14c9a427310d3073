python3 -m venv --system-site-packages environment
mkdir package
cat >package/pyproject.toml <<'END'
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "zoo"
version = "1.2.3"
[project.scripts]
zoo = "zoo:main"
END
cat >package/zoo.py <<'END'
def main():
    import importlib.metadata
    print("installed:", importlib.metadata.version("zoo"))
END
environment/bin/pip install --quiet --no-index --no-build-isolation ./package
environment/bin/zoo
