"""Downloads the dictionary with which spacy_pkuseg divides Chinese text. Prints one line of JSON.

The package would download it when it is first used, in the middle of a request.
"""

import json
import sys


def main() -> None:
    """Print the answer."""
    try:
        import spacy_pkuseg

        words = spacy_pkuseg.pkuseg().cut("\u4f60\u597d\u4e16\u754c")
        answer = {"error": None, "note": f"it divides: {' '.join(words)}"}
    except Exception as error:  # the network, the disk, or what came over the network
        answer = {"error": f"not there: {error}. Chinese is read without; run this again to have it"}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
