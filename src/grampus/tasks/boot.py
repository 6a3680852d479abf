# The first file of an attempt's process that runs Python. Any Python 3 must be able to read it,
# because `python=` may name an old one: then it says what to do. argv[1] is a folder to import
# grampus from.
import sys

# This folder is no place to import from: it has an `http` of its own.
del sys.path[0]
if len(sys.argv) > 1:
    sys.path.append(sys.argv[1])
try:
    from grampus.tasks.runner import main
except (ImportError, SyntaxError) as error:
    version = "{}.{}".format(*sys.version_info[:2])
    sys.stderr.write(
        f"the interpreter {sys.executable} (Python {version}) cannot import grampus ({error}): "
        "install grampus in its environment (Python 3.11 or newer), or remove python= from the "
        "task\n"
    )
    sys.exit(1)
if __name__ == "__main__":
    sys.exit(main())
