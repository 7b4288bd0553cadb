"""The command line: ``python -m fastconv info`` and ``python -m fastconv demo``."""

import argparse
import sys

import fastconv


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; what can't be used ends it with one line and code 2."""
    parser = argparse.ArgumentParser(prog="python -m fastconv", description="Multi-channel 2-D convolution on the CPU.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{info,demo}")
    commands.add_parser("info", help="print what was built and what was chosen")
    demo = commands.add_parser(
        "demo",
        help="filter a photograph, check and time it against SciPy",
        description="Filter a photograph with a bank of edge, blur and sharpening filters; check the result against "
        "SciPy, time it beside the libraries that are installed, and write the feature maps as a PNG.",
    )
    demo.add_argument("image", nargs="?", help="a PNG or JPEG file (default: matplotlib's grace_hopper.jpg)")
    demo.add_argument(
        "--output", "-o", metavar="PNG", default="fastconv-demo.png", help="the picture to write (default: %(default)s)"
    )
    options = parser.parse_args(arguments)

    if options.command == "info":
        fastconv.show_config()
        return 0
    try:
        from fastconv import _demo  # noqa: PLC0415 - it needs packages that the library doesn't
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("fastconv"):
            raise
        demo.exit(2, f'{demo.prog}: needs {error.name}, which is not installed: pip install "fastconv[demo]"\n')
    try:
        return _demo.run(options.image, options.output)
    except _demo.UnusableFileError as error:
        demo.exit(2, f"{demo.prog}: {error}\n")


if __name__ == "__main__":
    sys.exit(main())
