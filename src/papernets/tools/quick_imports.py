"""Import this before nbformat or plotly's widgets, both of which import jsonschema.

Jsonschema loads a package for a kind of address that no notebook has, and that package builds a grammar when it is imported:
2 to 3 seconds at every start of a kernel. Without the package jsonschema leaves that one check out.
"""

import sys

sys.modules.setdefault("rfc3987_syntax", None)
